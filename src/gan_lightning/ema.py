"""Exponential moving average of a network's weights, with the half-life counted in images (Karras et al. 2022)."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def make_ema(network: nn.Module) -> nn.Module:
    """A frozen copy in eval mode, to be moved by `update_ema`."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def ema_decay(images: int, nimg: int, halflife_kimg: float, rampup: float) -> float:
    """Decay for one update of `images` images after `nimg` of them; the half-life is at most `rampup` times `nimg`.

    The ramp-up lets the average forget the untrained start of a short run. `rampup` 0 turns it off.
    """
    halflife = halflife_kimg * 1000
    if rampup > 0:
        halflife = min(halflife, nimg * rampup)
    return 0.5 ** (images / max(halflife, 1e-8))


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves the average's parameters towards the network's by 1 - decay, and copies its buffers (BatchNorm's statistics)."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(network.buffers()))


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Every layer that normalises over the batch."""
    return [part for part in network.modules() if isinstance(part, _BatchNorm)]


@torch.no_grad()
def settled(average: nn.Module, inputs: Iterable[tuple[Tensor, ...]]) -> nn.Module:
    """The average with BatchNorm's statistics measured anew on `inputs` (what its `forward` takes, batch by batch).

    The copied statistics belong to the last weights and not to averaged ones: with them pictures drift in brightness, the
    more the longer the average (benchmarks/RECIPES.md). Such standing statistics are Brock et al.'s (2019). A copy, so that
    looking changes nothing; the average itself where it has no BatchNorm.
    """
    if not batch_norms(average):
        return average
    network = copy.deepcopy(average)
    norms = batch_norms(network)
    momenta = [part.momentum for part in norms]
    for part in norms:
        part.reset_running_stats()
        part.momentum = None  # the plain mean over all batches
        part.train()
    for batch in inputs:
        network(*batch)
    for part, momentum in zip(norms, momenta, strict=True):
        part.momentum = momentum
        part.eval()
    return network
