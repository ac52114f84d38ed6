"""Many images in one picture, and pictures in files."""

import os
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def grid(images: Tensor, columns: int = 8, gap: int = 0) -> Tensor:
    """uint8 (B, C, H, W) to one picture (3 or 4, H', W'), row by row, two pixels of the grey level `gap` around each."""
    return make_grid(images, nrow=min(columns, len(images)), padding=2, pad_value=gap)


def to_image(picture: Tensor) -> Image.Image:
    """uint8 (C, H, W) of 1, 3 or 4 channels."""
    array = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save(picture: Tensor, path: Path) -> None:
    """uint8 (C, H, W) as PNG; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    to_image(picture).save(partial, format="PNG")
    os.replace(partial, path)
