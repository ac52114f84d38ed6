"""Whole training steps as CUDA graphs: one launch in the place of some hundred, for networks too small to fill a GPU."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # steps of a kind that run as they are, on a side stream, before it is captured: CUDA graphs ask for it


class Replayed:
    """Runs `step(real, labels) -> outputs` on a GPU; from the fourth step of a kind on by replaying a captured graph.

    A kind is what Python decides within a step (whether it penalises, say): each has a graph of its own. `real` (B, C, H, W)
    and `labels` (B,) or None are copied into the graph's own memory; `outputs`, any structure of tensors, is returned
    again by every replay, with new values in the same memory. Random numbers go on from the device's generator as they
    would without. Everything else in the step must stay on the device and in place: optimisers need `capturable`.
    """

    def __init__(self, step: Callable[[Tensor, Tensor | None], Any]) -> None:
        self.step = step
        self.seen: dict[Hashable, int] = {}
        self.graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor, Tensor | None, Any]] = {}

    def __call__(self, kind: Hashable, real: Tensor, labels: Tensor | None) -> Any:
        kind = (kind, real.shape)
        if kind in self.graphs:
            graph, own_real, own_labels, outputs = self.graphs[kind]
            with torch.no_grad():
                own_real.copy_(real)
                if own_labels is not None and labels is not None:
                    own_labels.copy_(labels)
            graph.replay()
            return outputs
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if self.seen[kind] <= WARM_UP:
            side, here = torch.cuda.Stream(real.device), torch.cuda.current_stream(real.device)
            side.wait_stream(here)
            with torch.cuda.stream(side):
                outputs = self.step(real, labels)
            here.wait_stream(side)
            return outputs
        own_real, own_labels = real.clone(), None if labels is None else labels.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # this only records
            outputs = self.step(own_real, own_labels)
        self.graphs[kind] = graph, own_real, own_labels, outputs
        graph.replay()
        return outputs
