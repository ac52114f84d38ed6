"""Residual networks without normalisation, 32 to 256 pixels (after R3GAN, Huang et al. 2024).

Each resolution has `depth` blocks whose last layer starts at zero (fix-up): the untrained network
is a plain resampling pyramid and needs no BatchNorm.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.networks.blocks import Head, MinibatchStddev, ladder, with_classes
from gan_lightning.ranges import Channels, Depth, Groups, Size, Width, checked


def _conv(before: int, after: int, size: int, groups: int = 1, gain: float = 1.0) -> nn.Conv2d:
    layer = nn.Conv2d(before, after, size, padding=size // 2, groups=groups)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(before // groups * size * size))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + f(x), f with 3 x 3 convolutions in groups of 16 channels; one of `blocks` in all."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        inner = 2 * channels
        # two scaled layers before the zero one share the variance of all blocks (Zhang et al. 2019)
        gain = math.sqrt(2) * blocks**-0.25
        self.layers = nn.Sequential(
            _conv(channels, inner, 1, gain=gain),
            nn.LeakyReLU(0.2, inplace=True),
            _conv(inner, inner, 3, groups=max(1, inner // 16), gain=gain),
            nn.LeakyReLU(0.2, inplace=True),
            _conv(inner, channels, 1, gain=0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """(B, latent_dim) -> (B, C, H, W) in [-1, 1]. Raises ValueError for a size it cannot make."""

    family = "resnet"  # the option of conf/network

    @checked
    def __init__(
        self,
        latent_dim: Width,
        image_size: Size,
        image_channels: Channels,
        channels: Width = 256,
        min_channels: Width = 32,
        depth: Depth = 1,
        num_classes: Width | None = None,
    ) -> None:
        super().__init__()
        (height, width), widths = ladder(image_size, channels, min_channels)
        self.num_classes = num_classes
        self.start = nn.Linear(latent_dim + (num_classes or 0), widths[0] * height * width)
        self.base = (widths[0], height, width)
        stages: list[nn.Module] = []
        for k, width_here in enumerate(widths):
            if k:
                stages += [nn.Upsample(scale_factor=2, mode="bilinear")]
                stages += [_conv(widths[k - 1], width_here, 1)]
            stages += [Block(width_here, depth * len(widths)) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.image = _conv(widths[-1], image_channels, 3)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.start(with_classes(z, labels, self.num_classes)).view(-1, *self.base)
        return self.image(F.leaky_relu(self.stages(x), 0.2)).tanh()


class Discriminator(nn.Module):
    """(B, C, H, W) -> (B,) raw logits, the generator's mirror with average pooling."""

    @checked
    def __init__(
        self,
        image_size: Size,
        image_channels: Channels,
        channels: Width = 256,
        min_channels: Width = 32,
        depth: Depth = 1,
        minibatch_stddev: Groups = 4,
        num_classes: Width | None = None,
    ) -> None:
        super().__init__()
        (height, width), widths = ladder(image_size, channels, min_channels)
        widths.reverse()
        stages: list[nn.Module] = [_conv(image_channels, widths[0], 3)]
        for k, width_here in enumerate(widths):
            if k:
                stages += [nn.AvgPool2d(2), _conv(widths[k - 1], width_here, 1)]
            stages += [Block(width_here, depth * len(widths)) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.stddev = MinibatchStddev(minibatch_stddev) if minibatch_stddev else nn.Identity()
        self.last = _conv(widths[-1] + bool(minibatch_stddev), widths[-1], 3, gain=math.sqrt(2))
        self.head = Head(widths[-1] * height * width, "none", num_classes)
        self.batch_independent = not minibatch_stddev

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = F.leaky_relu(self.last(self.stddev(self.stages(images))), 0.2)
        return self.head(x.flatten(1), labels)
