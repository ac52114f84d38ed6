"""A quick feature extractor for the tests, as a user would bring one along: `features={_target_: pooled.Pooled}`."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_lightning.data.images import to_float
from gan_lightning.measure.features import Extractor


class Pooled(Extractor):
    """Pixels pooled to 8 x 8 and the mean strength of 16 fixed random filters in 4 x 4 fields, (N, 64 C + 256)."""

    name = "pooled"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("seed", torch.tensor(seed))

    def features(self, images: Tensor) -> Tensor:
        x = to_float(images)
        draw = torch.Generator().manual_seed(int(self.seed))
        filters = torch.randn(16, x.shape[1], 4, 4, generator=draw)
        filters = F.normalize((filters - filters.mean((1, 2, 3), keepdim=True)).flatten(1)).view_as(
            filters
        )
        strength = F.adaptive_avg_pool2d(F.conv2d(x, filters, stride=2).abs(), 4)
        return torch.cat([F.adaptive_avg_pool2d(x, 8).flatten(1) / 8, strength.flatten(1) / 4], 1)


def photographs(n: int, seed: int, size: int = 24) -> Tensor:
    """Coloured soft discs on a slanted ground, uint8 (n, 3, size, size)."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    cy, cx, r = (
        torch.rand(3, n, 1, 1, generator=g) * torch.tensor([0.6, 0.6, 0.25]).view(3, 1, 1, 1) + 0.2
    ) * size
    disc = torch.sigmoid(r - ((y - cy) ** 2 + (x - cx) ** 2).sqrt())[:, None]
    colour = torch.rand(n, 3, 1, 1, generator=g) * 160 + 60
    slope = torch.rand(2, n, 1, 1, 1, generator=g) * 3
    ground = slope[0] * x + slope[1] * y
    return (
        (disc * colour + (1 - disc) * ground + 4 * torch.randn(n, 3, size, size, generator=g))
        .clamp(0, 255)
        .to(torch.uint8)
    )


def dataset(train: Tensor, holdout: Tensor | None, key: str = "photos") -> Any:
    return SimpleNamespace(
        train_images=train, holdout_images=holdout, train_labels=None, holdout_labels=None, num_classes=None,
        name=key, content_hash=key, prepare=lambda: None,
    )  # fmt: skip


def noisy(x: Tensor, sigma: float, seed: int = 3) -> Tensor:
    return (
        (x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))
        .clamp(0, 255)
        .to(torch.uint8)
    )
