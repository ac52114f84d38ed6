"""Plain convolutional networks from 28 to 256 pixels by one class (after Radford et al. 2016).

From the base (smaller side 4 to 7 pixels) every doubling halves the channels, down to `min_channels`.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.networks.layers import (
    Blur,
    Growth,
    Head,
    MinibatchStddev,
    SelfModulated,
    UpConv,
    check_norm,
    normalise,
    normed,
    unfinished,
)
from gan_lightning.networks.shapes import image_shape, ladder, with_classes


class Generator(nn.Module):
    """(B, latent_dim) -> (B, C, H, W) in [-1, 1].

    upsample: "resize" (nearest, then 3 x 3; no checkerboard, Odena et al. 2016), "smooth" (the same, then blurred, as by
    Karras et al. 2019) or "transposed" (4 x 4, stride 2).
    norm: none, batch, group or spectral. self_modulation: hidden units of the small network by which the noise sets every
    normalisation's scale and shift (Chen et al. 2019), 0: off. output_skips: the image is the sum of one per resolution
    (Karras et al. 2020). progressive: until `grow` is called the finest resolution is left out, and the image is the next
    coarser one, doubled (Karras et al. 2018). Raises ValueError for a size it cannot make.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int | Sequence[int],
        image_channels: int,
        channels: int = 256,
        min_channels: int = 16,
        upsample: str = "resize",
        norm: str = "batch",
        depth: int = 1,
        min_base: int = 4,
        self_modulation: int = 0,
        output_skips: bool = False,
        progressive: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_norm(norm)
        if upsample not in ("smooth", "resize", "transposed"):
            raise ValueError(f"upsample={upsample} is unknown; there are smooth, resize, transposed")
        (height, width), widths = ladder(image_size, channels, min_channels, min_base)
        if progressive and not output_skips:
            raise ValueError("progressive=true needs output_skips=true: the coarser image comes from there")
        self.growth = Growth(norm) if progressive else None
        self.num_classes = num_classes
        latent = latent_dim + (num_classes or 0)

        def normal(width: int) -> nn.Module:
            return SelfModulated(norm, width, latent, self_modulation) if self_modulation else normalise(norm, width)

        self.start = nn.Sequential(
            normed(norm, nn.Linear(latent, widths[0] * height * width)),
            nn.Unflatten(1, (widths[0], height, width)),
            normal(widths[0]),
            nn.LeakyReLU(0.2, inplace=True),
        )
        blocks: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            if upsample != "transposed":
                blocks += [normed(norm, UpConv(before, after))] + [Blur(after)] * (upsample == "smooth")
            else:
                blocks += [normed(norm, nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))]
            blocks += [normal(after), nn.LeakyReLU(0.2, inplace=True)]
            for _ in range(depth - 1):
                blocks += [normed(norm, nn.Conv2d(after, after, 3, padding=1))]
                blocks += [normal(after), nn.LeakyReLU(0.2, inplace=True)]
        self.blocks = nn.Sequential(*blocks)
        colours = image_shape(image_size, image_channels)[0]
        self.skips = nn.ModuleList(nn.Conv2d(width, colours, 1) for width in widths[:-1] if output_skips)
        self.blur = Blur(colours) if output_skips else nn.Identity()
        self.image = nn.Conv2d(widths[-1], colours, 3, padding=1)

    def grow(self) -> None:
        """From now on at full size."""
        if self.growth is not None and not self.growth.done:
            self.growth.finish(self.image)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = z = with_classes(z, labels, self.num_classes)
        skips, image = iter(self.skips), None
        for module in (*self.start, *self.blocks):
            if isinstance(module, UpConv | nn.ConvTranspose2d) and (skip := next(skips, None)) is not None:
                here = skip(x) if image is None else image + skip(x)
                image = self.blur(F.interpolate(here, scale_factor=2))
                if skip is self.skips[-1] and unfinished(self):
                    return image.tanh()
            x = module(x, z) if isinstance(module, SelfModulated) else module(x)
        x = self.image(x)
        return (x if image is None else image + x).tanh()


class Discriminator(nn.Module):
    """(B, C, H, W) -> (B,) raw logits: 4 x 4 convolutions of stride 2 down to the base, minibatch-stddev, 3 x 3, linear.

    progressive: the image at half its size enters one layer later as well, and alone until `grow` is called.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        image_channels: int,
        channels: int = 256,
        min_channels: int = 16,
        norm: str = "none",
        minibatch_stddev: int = 4,
        depth: int = 1,
        min_base: int = 4,
        progressive: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_norm(norm)
        (height, width), widths = ladder(image_size, channels, min_channels, min_base)
        widths.reverse()
        blocks: list[nn.Module] = []
        before = image_shape(image_size, image_channels)[0]
        self.growth = Growth(norm) if progressive else None
        self.second_entry = nn.Conv2d(before, widths[1], 3, padding=1) if progressive else None
        for after in widths[1:]:
            blocks += [normed(norm, nn.Conv2d(before, after, 4, stride=2, padding=1))]
            # the first layer sees pixels: normalising it would hide colour and brightness (Radford et al.)
            blocks += [normalise(norm, after) if before > 4 else nn.Identity(), nn.LeakyReLU(0.2, inplace=True)]
            for _ in range(depth - 1):
                blocks += [normed(norm, nn.Conv2d(after, after, 3, padding=1))]
                blocks += [normalise(norm, after), nn.LeakyReLU(0.2, inplace=True)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.stddev = MinibatchStddev(minibatch_stddev) if minibatch_stddev else nn.Identity()
        self.last = normed(norm, nn.Conv2d(before + bool(minibatch_stddev), before, 3, padding=1))
        self.head = Head(before * height * width, norm, num_classes)
        self.batch_independent = norm != "batch" and not minibatch_stddev

    def grow(self) -> None:
        """From now on at full size."""
        if self.growth is not None and not self.growth.done:
            self.growth.finish(self.blocks[0])

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.growth is None or self.second_entry is None:
            x = self.blocks(images)
        else:
            half = self.second_entry(F.avg_pool2d(images, 2))
            first, *others = self.blocks
            x = first(images) + half if self.growth.done else half
            for layer in others:
                x = layer(x)
        x = F.leaky_relu(self.last(self.stddev(x)), 0.2)
        return self.head(x.flatten(1), labels)
