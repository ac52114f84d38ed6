"""Which generated images are nearly a training image, by pixels and features."""

import math
import time
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_lightning import pictures
from gan_lightning.data.images import to_float
from gan_lightning.measure.distances import nearest
from gan_lightning.measure.snapshot import Reals

MOST = 60_000  # training images among which near-copies are looked for
PIECE = 16  # images at once, each in 18 versions: the least that a search takes


def views(images: Tensor) -> list[Tensor]:
    """18 versions of (N, C, H, W), itself first: mirrored, shifted by a 64th."""
    step = max(1, round(min(images.shape[2:]) / 64))
    shifts = [(y, x) for y in (0, -step, step) for x in (0, -step, step)]
    mirrored = images, images.flip(3)
    return [torch.roll(version, shift, (2, 3)) for version in mirrored for shift in shifts]


def quiet(images: Tensor) -> Tensor:
    """uint8 images without noise, averaged to 16 pixels on the shorter side: (N, P) in [-1, 1].

    The darkest and brightest tenth are levelled: noise that is clipped there would leave a shade.
    """
    sides = images.shape[2:]
    high, wide = (min(side, max(16, round(side * 16 / min(sides)))) for side in sides)
    small = F.adaptive_avg_pool2d(images.clamp(24, 231).float(), (high, wide))
    return to_float(small.round().to(torch.uint8)).flatten(1)


def relative_nearest(
    variants: list[Tensor], base: Tensor, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Distance (Q,) to the nearest of base over the mean to the 50 nearest; its row; the variant.

    Relative as in Carlini et al. 2023: dark or plain photographs lie close together without being
    copies. Each query comes in variants (Q, F), of which the nearest counts and the first has the
    scale. `exclude` (Q,): its own row.
    """
    k = max(1, min(50, len(base) // 4))
    d, i = nearest(variants[0], base, k, exclude)
    scale, best, where = d.mean(1).clamp_min(1e-12), d[:, 0], i[:, 0]
    which = torch.zeros_like(where)
    for number, variant in enumerate(variants[1:], 1):
        d, i = nearest(variant, base, 1, exclude)
        closer = d[:, 0] < best
        best, where = torch.where(closer, d[:, 0], best), torch.where(closer, i[:, 0], where)
        which = which.masked_fill(closer, number)
    return best / scale, where, which


def copy_threshold(copies: Tensor, held_out: Tensor) -> float:
    """Between planted copies and held-out reals, of which at most 5 % are below."""
    high, low = float(copies.quantile(0.99)), float(held_out.quantile(0.05))
    return math.sqrt(high * low) if high < low else low


def planted_copies(images: Tensor, draw: torch.Generator) -> Tensor:
    """As a copying generator would give them: 5 % noise, every other one mirrored and shifted."""
    step = max(1, round(min(images.shape[2:]) / 64))
    mixed = torch.roll(images.flip(3), (step, step), (2, 3))
    mixed[::2] = images[::2]
    noisy = mixed + 12.75 * torch.randn(mixed.shape, generator=draw)
    return noisy.round().clamp(0, 255).to(torch.uint8)


class Copies:
    """Searches the training images for what is nearly one of them; calibrated once per data set."""

    def __init__(self, reals: Reals) -> None:
        self.reals, self.data = reals, reals.data
        self.rows = torch.arange(len(self.data.train_images))[:MOST]

    def unknown(self) -> int:
        """Images whose features have to be extracted before the first search."""
        waiting = 0 if self.reals.has(self.data.train_images, self.rows) else len(self.rows)
        return waiting + (0 if self.reals.keeps("copies") else 1200)

    @cached_property
    def training_set(self) -> tuple[Tensor, Tensor]:
        """Quiet pixels (N, P) and features (N, F) of the training images."""
        store = self.data.train_images
        pixels = torch.cat([quiet(store[part]) for part in self.rows.split(1024)])
        return pixels, self.reals.features(store, self.rows)

    def closeness(self, images: Tensor, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Relative distance in pixels and features of the closest version (2, Q), row (Q,)."""
        rows = torch.arange(len(images)).split(PIECE)
        found = [self._piece(images[i], None if exclude is None else exclude[i]) for i in rows]
        return torch.cat([near for near, _ in found], 1), torch.cat([where for _, where in found])

    def _piece(self, images: Tensor, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        pixels, features = self.training_set
        versions = views(images)
        near, where, which = relative_nearest([quiet(v) for v in versions], pixels, exclude=exclude)
        aligned = torch.stack(versions)[which, torch.arange(len(images))]
        seen = [self.reals.see(v) for v in (images, aligned)]
        return torch.stack([near, relative_nearest(seen, features, exclude=exclude)[0]]), where

    @cached_property
    def calibrated(self) -> dict[str, Tensor]:
        """Scale (2, 1) of both distances, threshold, rates of held-outs and of planted copies."""
        return self.reals.kept("copies", self._calibrate)

    def _calibrate(self) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(0)
        train, held = self.data.train_images, self.data.holdout_images
        rows = torch.randperm(len(self.rows), generator=draw)[:300]
        planted = self.closeness(planted_copies(train[rows], draw))[0]
        if held is None:
            others = self.closeness(train[rows], rows)[0]
        else:
            others = self.closeness(held[torch.randperm(len(held), generator=draw)[:300]])[0]
        scale = planted.quantile(0.99, dim=1, keepdim=True).clamp_min(1e-6)
        a, b = ((d / scale).amax(0) for d in (planted, others))
        threshold = copy_threshold(a, b)
        rates = torch.tensor([(d < threshold).float().mean() for d in (b, a)])
        return {"scale": scale, "threshold": torch.tensor(threshold), "rates": rates}

    def near(self, images: Tensor, seconds: float = math.inf) -> tuple[Tensor, Tensor]:
        """Closeness (Q,) to the nearest training image, below 1 = near-copy, and its row (Q,).

        Q is fewer than the images where `seconds` are over before all are seen.
        """
        bound, began, found = self.calibrated, time.monotonic(), []
        for piece in images.split(PIECE):
            found.append(self.closeness(piece))
            if time.monotonic() - began > seconds:
                break
        near, where = torch.cat([n for n, _ in found], 1), torch.cat([w for _, w in found])
        return (near / bound["scale"]).amax(0) / bound["threshold"], where


def copies_strip(fakes: Tensor, train: Any, rows: Tensor) -> Tensor:
    """uint8 picture (C, H', W'): each of at most 16 samples beside its row of `train`."""
    pairs = torch.cat([fakes[:16], train[rows[:16]]], 3)  # (n, C, H, 2W)
    return pictures.grid(pairs, 4, 255)
