"""A quick feature extractor for the tests, as a user would bring one along: `features={_target_: pooled.Pooled}`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_lightning.data.images import to_float
from gan_lightning.metrics.features import Extractor


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
