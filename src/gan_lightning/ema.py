"""Exponential moving average of a network's weights, with the half-life counted in images (Karras et al. 2022)."""

import copy

import torch
from torch import nn


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
    for old, new in zip(average.buffers(), network.buffers(), strict=True):
        old.copy_(new)
