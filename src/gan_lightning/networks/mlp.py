"""The study note's networks: fully connected, for small images."""

import torch
from torch import Tensor, nn

from gan_lightning.networks.blocks import Dropout, height_width, with_classes
from gan_lightning.ranges import BelowOne, Channels, Layers, Size, Width, checked


class Generator(nn.Module):
    """(B, latent_dim) -> 256 -> 512 -> 1024 -> (B, C, H, W) in [-1, 1], LeakyReLU(0.2), tanh."""

    family = "mlp"  # the option of conf/network
    fully_connected = True

    @checked
    def __init__(
        self,
        latent_dim: Width,
        image_size: Size,
        image_channels: Channels,
        hidden: Layers = (256, 512, 1024),
        num_classes: Width | None = None,
    ) -> None:
        super().__init__()
        self.shape = torch.Size((image_channels, *height_width(image_size)))
        self.num_classes = num_classes
        widths = [latent_dim + (num_classes or 0), *hidden]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], self.shape.numel()), nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(with_classes(z, labels, self.num_classes)).view(-1, *self.shape)


class Discriminator(nn.Module):
    """(B, C, H, W) -> 1024 -> 512 -> 256 -> (B,) raw logits, LeakyReLU(0.2) and dropout."""

    batch_independent = True  # one pass over real and fake together gives what two passes give

    @checked
    def __init__(
        self,
        image_size: Size,
        image_channels: Channels,
        hidden: Layers = (1024, 512, 256),
        dropout: BelowOne = 0.3,
        num_classes: Width | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        pixels = torch.Size((image_channels, *height_width(image_size))).numel()
        widths = [pixels + (num_classes or 0), *hidden]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True), Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(with_classes(images.flatten(1), labels, self.num_classes)).flatten()
