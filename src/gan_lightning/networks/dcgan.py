"""Plain convolutional networks from 28 to 256 pixels by one class (after Radford et al. 2016).

From the base (smaller side 4 to 7 pixels) doublings halve the channels, down to `min_channels`.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.networks.blocks import (
    Blur,
    Head,
    MinibatchStddev,
    UpConv,
    ladder,
    normalise,
    normed,
    with_classes,
)
from gan_lightning.ranges import Channels, Depth, Groups, Norm, Size, Width, checked


class Generator(nn.Module):
    """(B, latent_dim) -> (B, C, H, W) in [-1, 1].

    upsample: "resize" (nearest, then 3 x 3; no checkerboard, Odena et al. 2016), "smooth" (then
    blurred, Karras et al. 2019) or "transposed" (4 x 4, stride 2). depth: convolutions per
    resolution. ValueError for a size it cannot make.
    """

    family = "dcgan"  # the option of conf/network

    @checked
    def __init__(
        self,
        latent_dim: Width,
        image_size: Size,
        image_channels: Channels,
        channels: Width = 256,
        min_channels: Width = 16,
        upsample: Literal["smooth", "resize", "transposed"] = "resize",
        norm: Norm = "batch",
        depth: Depth = 1,
        num_classes: Width | None = None,
    ) -> None:
        super().__init__()
        (height, width), widths = ladder(image_size, channels, min_channels)
        self.num_classes = num_classes

        def activated(width: int) -> list[nn.Module]:
            return [normalise(norm, width), nn.LeakyReLU(0.2, inplace=True)]

        layers: list[nn.Module] = [
            normed(norm, nn.Linear(latent_dim + (num_classes or 0), widths[0] * height * width)),
            nn.Unflatten(1, (widths[0], height, width)),
            *activated(widths[0]),
        ]
        for before, after in zip(widths, widths[1:], strict=False):
            if upsample == "transposed":
                layers += [normed(norm, nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))]
            else:
                blurred = [Blur(after)] if upsample == "smooth" else []
                layers += [normed(norm, UpConv(before, after)), *blurred]
            layers += activated(after)
            for _ in range(depth - 1):
                layers += [normed(norm, nn.Conv2d(after, after, 3, padding=1)), *activated(after)]
        image = nn.Conv2d(widths[-1], image_channels, 3, padding=1)
        self.layers = nn.Sequential(*layers, image, nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(with_classes(z, labels, self.num_classes))


class Discriminator(nn.Module):
    """(B, C, H, W) -> (B,) logits: 4 x 4 of stride 2, minibatch-stddev, 3 x 3, linear."""

    @checked
    def __init__(
        self,
        image_size: Size,
        image_channels: Channels,
        channels: Width = 256,
        min_channels: Width = 16,
        norm: Norm = "none",
        minibatch_stddev: Groups = 4,
        depth: Depth = 1,
        num_classes: Width | None = None,
    ) -> None:
        super().__init__()
        (height, width), widths = ladder(image_size, channels, min_channels)
        widths.reverse()
        blocks: list[nn.Module] = []
        before = image_channels
        for after in widths[1:]:
            # normalising the first layer would hide colour and brightness (Radford et al.)
            normal = normalise(norm, after) if before > 4 else nn.Identity()
            blocks += [normed(norm, nn.Conv2d(before, after, 4, stride=2, padding=1))]
            blocks += [normal, nn.LeakyReLU(0.2, inplace=True)]
            for _ in range(depth - 1):
                blocks += [normed(norm, nn.Conv2d(after, after, 3, padding=1))]
                blocks += [normalise(norm, after), nn.LeakyReLU(0.2, inplace=True)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.stddev = MinibatchStddev(minibatch_stddev) if minibatch_stddev else nn.Identity()
        self.last = normed(norm, nn.Conv2d(before + bool(minibatch_stddev), before, 3, padding=1))
        self.head = Head(before * height * width, norm, num_classes)
        self.batch_independent = norm != "batch" and not minibatch_stddev

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.stddev(self.blocks(images))
        return self.head(F.leaky_relu(self.last(x), 0.2).flatten(1), labels)
