"""What every network family needs to know about image shapes and class labels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) from one number or a pair. Raises ValueError for anything else."""
    sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(
            f"image_size={image_size} is neither a number of pixels nor [height, width]"
        )
    return sides[0], sides[1]


def image_shape(image_size: int | Sequence[int], image_channels: int) -> torch.Size:
    """(C, H, W). Raises ValueError for a channel count that no image has."""
    if image_channels not in (1, 3, 4):
        raise ValueError(f"image_channels={image_channels} should be 1 (grey), 3 (RGB) or 4 (RGBA)")
    return torch.Size((image_channels, *height_width(image_size)))


def doublings(image_size: int | Sequence[int]) -> tuple[tuple[int, int], int]:
    """The base (h, w), smaller side 4 to 7, and how often it is doubled to give image_size: 28 -> (7, 7), 2.

    Raises ValueError naming the size and the nearest ones that can be made.
    """
    height, width = height_width(image_size)
    times = 0
    while min(height, width) >= 8 << times and not (height | width) & ((2 << times) - 1):
        times += 1
    if not 4 <= min(height, width) >> times <= 7 or times < 1:
        side = min(height, width)
        sizes = sorted(base << k for base in (4, 5, 6, 7) for k in range(1, 8))
        near = sorted(sizes, key=lambda size: abs(size - side))[:2]
        raise ValueError(
            f"image_size={image_size} cannot be made by doubling 4 to 7 pixels; the nearest are {' and '.join(map(str, sorted(near)))}"
        )
    return (height >> times, width >> times), times


def ladder(
    image_size: int | Sequence[int], channels: int, min_channels: int
) -> tuple[tuple[int, int], list[int]]:
    """The base (h, w) and the channels there and after each doubling: halved each time, but at least `min_channels`."""
    (height, width), times = doublings(image_size)
    return (height, width), [max(min_channels, channels >> k) for k in range(times + 1)]


def with_classes(features: Tensor, labels: Tensor | None, num_classes: int | None) -> Tensor:
    """Appends one-hot labels (B,) to features (B, F) where the network is conditional."""
    if not num_classes:
        return features
    if labels is None:
        raise ValueError("a class-conditional network needs labels")
    return torch.cat([features, F.one_hot(labels, num_classes).to(features.dtype)], 1)
