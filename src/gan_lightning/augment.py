"""Augmentation in front of the discriminator, alike for real and generated images, so that few photographs suffice.

DiffAugment (Zhao et al. 2020) is this with a fixed `p`; ADA (Karras et al. 2020) moves `p` by how surely the
discriminator tells real images. Pure tensor operations rather than a library's: random parameters per image without
a host synchronisation (a CUDA graph can hold them), twice differentiable on every device (R1 goes through them).
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
    return torch.empty(len(images), 1, 1, 1, device=images.device, dtype=images.dtype).uniform_(
        low, high
    )


def color(images: Tensor, on: Tensor) -> Tensor:
    """Brightness +-0.5, saturation 0 to 2, contrast 0.5 to 1.5 (pixels are not clamped: that would cut gradients)."""
    images = images + on * _between(images, -0.5, 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 1 + on * (_between(images, 0, 2) - 1))
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, 1 + on * (_between(images, 0.5, 1.5) - 1))


def translation(images: Tensor, on: Tensor, fraction: float = 0.125) -> Tensor:
    """Shifts by whole pixels, up to `fraction` of the side; what comes in is 0, the middle grey."""
    batch, _, height, width = images.shape
    up, left = round(height * fraction), round(width * fraction)
    padded = F.pad(images, (left, left, up, up))
    shift_y = (on * (_between(images, -up - 0.5, up + 0.5)).round()).long().clamp(-up, up) + up
    shift_x = (on * (_between(images, -left - 0.5, left + 0.5)).round()).long().clamp(
        -left, left
    ) + left
    rows = (torch.arange(height, device=images.device) + shift_y.view(-1, 1))[:, :, None]
    columns = (torch.arange(width, device=images.device) + shift_x.view(-1, 1))[:, None, :]
    item = torch.arange(batch, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[item, rows, columns].permute(0, 3, 1, 2)


def cutout(images: Tensor, on: Tensor, fraction: float = 0.5) -> Tensor:
    """Sets a rectangle of `fraction` of each side, placed at random and possibly over the edge, to 0."""
    height, width = images.shape[2:]
    y = (torch.arange(height, device=images.device, dtype=images.dtype) + 0.5).view(
        1, 1, -1, 1
    ) / height
    x = (torch.arange(width, device=images.device, dtype=images.dtype) + 0.5).view(
        1, 1, 1, -1
    ) / width
    inside = ((y - _between(images, 0, 1)).abs() < fraction / 2) & (
        (x - _between(images, 0, 1)).abs() < fraction / 2
    )
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
    """Applies each of `ops` to each image with probability `p`; with `ada_target` set, `p` follows ADA's controller.

    ADA raises p while E[sign D(real)] is above `ada_target` and lowers it below; p could go from 0 to 1 within
    `ada_kimg` thousand images and never exceeds `max_p` (beyond .8 augmentations leak into the samples).
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
        self.ops, self.ada_target, self.ada_kimg, self.max_p = (
            list(ops),
            ada_target,
            ada_kimg,
            max_p,
        )
        self.active = bool(self.ops) and (p > 0 or ada_target is not None)
        # a fixed p is a setting, ADA's p is a state: only the state belongs into checkpoints
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
        """One step of ADA's controller, without a host synchronisation.

        real_logits (B,): of the real images just seen, `images` of them on all processes together; level: the logits,
        or those of fakes (B,), above which they say real.
        """
        if self.ada_target is not None:
            seen = mean_over_processes(torch.sign(real_logits - level).mean())
            step = torch.sign(seen - self.ada_target) * images / (self.ada_kimg * 1000)
            self.p.add_(step).clamp_(0, self.max_p)
