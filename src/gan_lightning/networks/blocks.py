"""What the network families share: image shapes, class labels and layers."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) from one number or a pair. Raises ValueError for anything else."""
    match image_size:
        case int():
            return image_size, image_size
        case int(height), int(width):
            return height, width
    raise ValueError(f"image_size={image_size} is neither a number nor [height, width]")


def doublings(image_size: int | Sequence[int]) -> tuple[tuple[int, int], int]:
    """The base (h, w), smaller side 4 to 7, and how often it is doubled. Raises ValueError."""
    height, width = height_width(image_size)
    times = 0
    while min(height, width) >= 8 << times and not (height | width) & ((2 << times) - 1):
        times += 1
    if not 4 <= min(height, width) >> times <= 7 or times < 1:
        side = min(height, width)
        sizes = sorted(base << k for base in (4, 5, 6, 7) for k in range(1, 8))
        low, high = sorted(sorted(sizes, key=lambda size: abs(size - side))[:2])
        wrong = f"image_size={image_size} cannot be made by doubling 4 to 7 pixels"
        raise ValueError(f"{wrong}; the nearest are {low} and {high}")
    return (height >> times, width >> times), times


def ladder(
    image_size: int | Sequence[int], channels: int, min_channels: int
) -> tuple[tuple[int, int], list[int]]:
    """The base (h, w), and channels there and after each doubling: halved, to `min_channels`."""
    (height, width), times = doublings(image_size)
    return (height, width), [max(min_channels, channels >> k) for k in range(times + 1)]


def with_classes(features: Tensor, labels: Tensor | None, num_classes: int | None) -> Tensor:
    """Appends one-hot labels (B,) to features (B, F) where the network is conditional."""
    if not num_classes:
        return features
    return torch.cat([features, F.one_hot(given(labels), num_classes).to(features.dtype)], 1)


def given(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("a class-conditional network needs labels")
    return labels


def normalise(norm: str, channels: int) -> nn.Module:
    """The layer that follows a convolution; spectral norm sits in it (`normed`)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)
    return nn.Identity()


def normed(norm: str, layer: nn.Module) -> nn.Module:
    """Spectral normalisation (Miyato et al. 2018) of a layer's weight where that is the norm."""
    return spectral_norm(layer) if norm == "spectral" else layer


class UpConv(nn.Conv2d):
    """Nearest-neighbour doubling and a 3 x 3 convolution as one transposed 4 x 4 convolution.

    Each output pixel sees 2 x 2 different input pixels: 4 instead of 9 multiplications.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.transpose(0, 1).flip(2, 3)
        # sums of 2 x 2 neighbours; ONNX knows no divisor_override
        kernel = 4 * F.avg_pool2d(w, 2, stride=1, padding=1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class Blur(nn.Module):
    """Every channel averaged by [1, 2, 1] / 4 both ways."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.kernel: Tensor
        self.register_buffer(
            "kernel", line.outer(line).expand(channels, 1, 3, 3).clone(), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.kernel, groups=x.shape[1])


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws 16 random bits per value on a CPU, where floats take long (SPEED.md).

    `p` is rounded to a multiple of 2^-16, and kept values scaled by that.
    """

    def forward(self, x: Tensor) -> Tensor:
        rounded = round(self.p * 2**16)
        if not self.training or not 0 < rounded < 2**16 or x.device.type != "cpu":
            return super().forward(x)
        bits = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        # compared straight into floats: bools would be converted slowly
        kept = torch.empty_like(x, requires_grad=False)
        torch.ge(bits.view(torch.int16)[: x.numel()].view(x.shape), rounded - 2**15, out=kept)
        return x * kept.mul_(2**16 / (2**16 - rounded))


class MinibatchStddev(nn.Module):
    """Appends a channel with the standard deviation over groups of images (Karras et al. 2018).

    A group is every (B / group)-th image; a batch that `group` does not divide is one group.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        group = self.group if batch % self.group == 0 else batch
        y = x.float().reshape(group, batch // group, -1)
        # (B / group,); var() would be 10 times slower
        spread = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean(1)
        each = spread.to(x.dtype).repeat(group).view(batch, 1, 1, 1)
        return torch.cat([x, each.expand(-1, 1, height, width)], 1)


class Head(nn.Module):
    """Features (B, F) to logits (B,), with classes by projection (Miyato & Koyama 2018)."""

    def __init__(self, features: int, norm: str, num_classes: int | None) -> None:
        super().__init__()
        self.linear = normed(norm, nn.Linear(features, 1))
        self.classes = nn.Embedding(num_classes, features) if num_classes else None
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        logits = self.linear(x).flatten()
        if self.classes is None:
            return logits
        return logits + (self.classes(given(labels)) * x).sum(1) / x.shape[1] ** 0.5
