"""Many images in one picture, and pictures in files."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from gan_lightning.files import write_whole


def grid(images: Tensor, columns: int = 8, gap: int = 0, margin: int = 2) -> Tensor:
    """uint8 (B, C, H, W) to one picture (3 or 4, H', W'), row by row, `margin` pixels of the grey level `gap` around each."""
    return make_grid(images, nrow=min(columns, len(images)), padding=margin, pad_value=gap)


def to_image(picture: Tensor) -> Image.Image:
    """uint8 (C, H, W) of 1, 3 or 4 channels."""
    array = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save(picture: Tensor, path: Path) -> None:
    """uint8 (C, H, W) as PNG; a reader never sees half a file."""
    write_whole(path, lambda file: to_image(picture).save(file, format="PNG", compress_level=1))


def save_film(frames: Sequence[Image.Image], path: Path, duration: int | Sequence[int]) -> None:
    """An endless GIF, each frame shown for `duration` milliseconds."""
    first, more = frames[0], list(frames[1:])
    settings = {"save_all": True, "append_images": more, "duration": duration, "loop": 0}
    write_whole(path, lambda file: first.save(file, format="GIF", **settings))
