"""Discriminators on frozen features, which need not learn what a shape is."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_lightning.augment import Augment
from gan_lightning.losses import squared_gradient
from gan_lightning.networks.pretrained import CHANNELS, STRIDES
from gan_lightning.ranges import (
    Above0,
    AtLeast0,
    BelowOne,
    Every,
    Fraction,
    Rate,
    Side,
    Width,
    checked,
)


class FeatureHeads(nn.Module):
    """A small discriminator per map of EfficientNet-Lite0 (Kumari et al. 2022, Sauer et al. 2021).

    They have a logit for every place of a map, see images augmented with probability `p` (else they
    learn the photographs by heart) and take the non-saturating loss with R1 on the maps. Alone they
    make few kinds of image; beside the aid's distance, which asks for variety, they sharpen it.

    weight: beside the discriminator's term; start: progress from which on they take every second
    step of the aid; lr: of their Adam; side: of the images that the maps come from; width:
    channels; gamma: of R1, every `penalty_every` steps.
    """

    steps: Tensor

    @checked
    def __init__(
        self,
        weight: Above0 = 0.7,
        start: BelowOne = 0.4,
        lr: Rate = 2e-4,
        side: Side = 96,
        width: Width = 128,
        p: Fraction = 0.5,
        gamma: AtLeast0 = 2.0,
        penalty_every: Every = 2,
    ) -> None:
        super().__init__()
        self.weight, self.start, self.lr = weight, start, lr
        self.gamma, self.penalty_every = gamma, penalty_every
        self.augment = Augment(["color", "translation", "cutout"], p)
        pairs = zip(CHANNELS[0], STRIDES, strict=True)
        self.heads = nn.ModuleList(_head(channels, side // s, width) for channels, s in pairs)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.long))

    def make_optimizer(self, weights: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(weights, self.lr, (0.0, 0.99), fused=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, places of all maps)."""
        parts = [head(x) for head, x in zip(self.heads, maps, strict=True)]
        return torch.cat([part.flatten(1) for part in parts], 1)

    def d(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the heads minimise, with and without its penalty, of maps of images."""
        penalise = self.gamma > 0 and int(self.steps) % self.penalty_every == 0
        self.steps += 1
        if not penalise:
            loss = _non_saturating(self(real), self(fake))
            return loss, loss.detach()
        with torch.autocast(real[0].device.type, enabled=False):  # of second order
            real = [x.float().requires_grad_() for x in real]
            logits = self(real)
            loss = _non_saturating(logits, self([x.float() for x in fake]))
            penalty = sum(squared_gradient(logits.mean(1), x) for x in real)
            return loss + self.penalty_every * self.gamma / 2 * penalty, loss.detach()

    def g(self, fake: Sequence[Tensor]) -> Tensor:
        """What the generator minimises, of the maps of its images; the heads get no gradient."""
        self.requires_grad_(False)
        loss = F.softplus(-self(fake).float()).mean()
        self.requires_grad_(True)
        return loss


def _non_saturating(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def _head(channels: int, side: int, width: int) -> nn.Sequential:
    """Halves the map down to 4 places a side; BatchNorm sees real and fake batches apart."""
    layers: list[nn.Module] = []
    while side > 4:
        layers += [spectral_norm(nn.Conv2d(channels, width, 4, 2, 1))]
        layers += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        channels, side = width, side // 2
    layers += [spectral_norm(nn.Conv2d(channels, width, 3, 1, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(width, 1, 1)))
