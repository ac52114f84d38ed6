"""Exponential moving average of weights, with the half-life in images (Karras et al. 2022)."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_lightning.ranges import AtLeast0, Cadence, checked


class EMA:
    """halflife_kimg: thousand images within which half is forgotten, 0: no EMA; rampup: the
    half-life is at most this fraction of the images shown so far, so that the untrained start is
    forgotten, 0: no such limit."""

    @checked
    def __init__(self, halflife_kimg: Cadence = 10.0, rampup: AtLeast0 = 0.05) -> None:
        self.halflife_kimg, self.rampup = halflife_kimg, rampup

    def copy_of(self, network: nn.Module) -> nn.Module | None:
        """What `update` moves: a frozen copy in eval mode; None where there is to be no EMA."""
        if not self.halflife_kimg:
            return None
        return copy.deepcopy(network).requires_grad_(False).eval()

    def decay(self, images: int, nimg: int) -> float:
        """Of one update that `images` images led to, `nimg` shown so far."""
        halflife = self.halflife_kimg * 1000
        if self.rampup > 0:
            halflife = min(halflife, nimg * self.rampup)
        return 0.5 ** (images / max(halflife, 1e-8))

    @torch.no_grad()
    def update(self, ema: nn.Module, network: nn.Module, images: int, nimg: int) -> None:
        """Moves the EMA's parameters towards the network's and copies its buffers."""
        weight = 1 - self.decay(images, nimg)
        torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), weight)
        if buffers := list(ema.buffers()):
            torch._foreach_copy_(buffers, list(network.buffers()))


@contextmanager
def in_mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Train or eval mode for a moment; every part comes back to the mode it was in."""
    modes = [(part, part.training) for part in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for part, before in modes:
            part.training = before


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [part for part in network.modules() if isinstance(part, _BatchNorm)]


@torch.no_grad()
def recalibrated(ema: nn.Module, inputs: Iterable[tuple[Tensor, ...]]) -> nn.Module:
    """A copy with BatchNorm's statistics, if any, measured on batches of `inputs`.

    With the last weights' statistics, which are not the averaged ones', images drift in brightness.
    Standing statistics are Brock et al.'s (2019).
    """
    if not batch_norms(ema):
        return ema
    network = copy.deepcopy(ema)
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
