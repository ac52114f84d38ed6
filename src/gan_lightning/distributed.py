"""Numbers and rows of all processes that train together; without others, what one has."""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor that each process has one of."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """(N, F) of each process, equally many, as (processes · N, F), and where this process's
    begin."""
    if world_size() == 1:
        return rows, 0
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts), len(rows) * dist.get_rank()
