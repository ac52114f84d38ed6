"""Augmentation in front of the discriminator, so that few photographs suffice.

DiffAugment (Zhao et al. 2020) has a fixed `p`; ADA (Karras et al. 2020) moves it. Not a library's:
random parameters per image without a host synchronisation, twice differentiable for R1.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from gan_lightning.distributed import mean_over_processes
from gan_lightning.ranges import Fraction, Kimg, Said, checked


def _between(images: Tensor, low: float, high: float) -> Tensor:
    """One uniform number per image, shape (B, 1, 1, 1)."""
    return images.new_empty(len(images), 1, 1, 1).uniform_(low, high)


def color(images: Tensor, on: Tensor) -> Tensor:
    """Brightness +-0.5, saturation 0 to 2, contrast 0.5 to 1.5; clamping would cut gradients."""
    images = images + on * _between(images, -0.5, 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 1 + on * (_between(images, 0, 2) - 1))
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, 1 + on * (_between(images, 0.5, 1.5) - 1))


def translation(images: Tensor, on: Tensor) -> Tensor:
    """Shifts by whole pixels, up to an eighth of the side; what comes in is 0, the middle grey."""
    batch, _, height, width = images.shape

    def places(side: int, most: int) -> Tensor:  # (B, side), in the padded image
        shift = (on * _between(images, -most - 0.5, most + 0.5).round()).long().clamp(-most, most)
        return torch.arange(side, device=images.device) + (shift + most).view(-1, 1)

    up, left = round(height / 8), round(width / 8)
    padded = F.pad(images, (left, left, up, up)).permute(0, 2, 3, 1)
    rows, columns = places(height, up)[:, :, None], places(width, left)[:, None, :]
    item = torch.arange(batch, device=images.device)[:, None, None]
    return padded[item, rows, columns].permute(0, 3, 1, 2)


def cutout(images: Tensor, on: Tensor) -> Tensor:
    """Sets a rectangle of half of each side, placed at random and possibly over the edge, to 0."""

    def near(side: int) -> Tensor:  # (B, 1, 1, side)
        places = torch.arange(side, device=images.device, dtype=images.dtype) + 0.5
        return (places / side - _between(images, 0, 1)).abs() < 0.25

    inside = near(images.shape[2]).transpose(2, 3) & near(images.shape[3])
    return images * (1 - on * inside)


def flip(images: Tensor, on: Tensor) -> Tensor:
    """Mirrors left to right half of the images that are `on`."""
    mirrored = on * (_between(images, 0, 1) < 0.5)
    return torch.where(mirrored.bool(), images.flip(3), images)


OPS = {"color": color, "translation": translation, "cutout": cutout, "flip": flip}
Ops = Annotated[
    Sequence[Literal["color", "translation", "cutout", "flip"]],
    Said("a list of color, translation, cutout and flip, as [color,cutout]"),
]


class Augment(nn.Module):
    """Applies each of `ops` to each image with probability `p`.

    ADA raises p while E[sign D(real)] is above `ada_target` and lowers it below, from 0 to 1 within
    `ada_kimg` thousand images at most, and never above `max_p` (beyond .8 augmentations leak into
    the samples).
    """

    p: Tensor

    @checked
    def __init__(
        self,
        ops: Ops = (),
        p: Fraction = 1.0,
        ada_target: Annotated[float, Interval(gt=-1, lt=1)] | None = None,
        ada_kimg: Kimg = 50,
        max_p: Fraction = 0.8,
    ) -> None:
        super().__init__()
        self.ops, self.ada_target = list(ops), ada_target
        self.ada_kimg, self.max_p = ada_kimg, max_p
        self.active = bool(self.ops) and (p > 0 or ada_target is not None)
        # a fixed p is a setting, ADA's a state, which belongs into checkpoints
        self.register_buffer("p", torch.tensor(float(p)), persistent=ada_target is not None)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to the same shape; colours may leave [-1, 1]."""
        if not self.active:
            return images
        for op in self.ops:
            on = (torch.rand(len(images), 1, 1, 1, device=images.device) < self.p).to(images.dtype)
            images = OPS[op](images, on)
        return images

    @torch.no_grad()
    def adapt(self, real_logits: Tensor, images: int, level: float | Tensor = 0.0) -> None:
        """One step of ADA's controller, after `images` real ones on all processes.

        real_logits (B,): of this one's; level: the logits, or those of fakes (B,), above which they
        say real.
        """
        if self.ada_target is not None:
            seen = mean_over_processes(torch.sign(real_logits - level).mean())
            step = torch.sign(seen - self.ada_target) * images / (self.ada_kimg * 1000)
            self.p.add_(step).clamp_(0, self.max_p)
