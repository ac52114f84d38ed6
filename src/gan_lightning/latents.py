"""What a generator starts from: the same seed, the same latent, whoever asks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers on the CPU for any whole number."""
    return torch.Generator().manual_seed(seed % 2**63)


def latents(seeds: Sequence[int], latent_dim: int) -> Tensor:
    """(n, latent_dim) of a standard normal distribution, row k drawn by `seeds[k]` alone."""
    z = torch.empty(len(seeds), latent_dim)
    for row, seed in zip(z, seeds, strict=True):
        row.normal_(generator=seeded(seed))
    return z


def classes(seeds: Sequence[int], num_classes: int | None) -> Tensor | None:
    """Labels (n,), the classes in turn by seed; None for a generator without classes."""
    return torch.tensor([seed % num_classes for seed in seeds]) if num_classes else None


def picked(labels: Tensor | None, rows: Any) -> Tensor | None:
    """Of labels, where there are any, those at `rows`."""
    return None if labels is None else labels[rows]


def inputs(x: Tensor, labels: Tensor | None) -> tuple[Tensor, ...]:
    """What a network takes: images or latents, and labels where there are any."""
    return (x,) if labels is None else (x, labels)


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From latents a (..., D) at t=0 to b at t=1 along the sphere (Shoemake 1985)."""
    cosine = torch.cosine_similarity(a, b, dim=-1).clamp(-1, 1)
    angle = cosine.acos().clamp(1e-4, torch.pi - 1e-4)[..., None]
    return (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
