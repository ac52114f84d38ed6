"""Networks with a fault built in, for benchmarks/diagnosis.py."""

from collections.abc import Sequence

from torch import Tensor, nn

from gan_lightning.networks.dcgan import Generator


class Crossed(nn.Module):
    """A transposed 3 x 3 convolution of stride 2: neighbouring pixels get different numbers of contributions."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Checkered(Generator):
    """The plain generator with every upsampling replaced by the crossed one and no norm to even it out."""

    def __init__(self, latent_dim: int, image_size: int | Sequence[int], image_channels: int, channels: int = 256, min_channels: int = 16, num_classes: int | None = None) -> None:  # fmt: skip
        super().__init__(
            latent_dim, image_size, image_channels, channels, min_channels, norm="batch", num_classes=num_classes
        )
        for k, layer in enumerate(self.blocks):
            if isinstance(layer, nn.Conv2d):
                self.blocks[k] = Crossed(layer.in_channels, layer.out_channels)
