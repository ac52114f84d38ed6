"""Image files to uint8 arrays: find, decode, fit, scale."""

import errno
import hashlib
import os
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gan_lightning.ranges import Channels, Fit, Grey, Size, must_be

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
# Pillow only warns at first, and one such file can fill the memory
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# By name, so that Pillow never starts a program (EPS) or guesses a format without a magic number.
FORMATS = "JPEG MPO PNG WEBP BMP DIB TIFF GIF PPM JPEG2000 AVIF ICO".split()
THUMB = 16
LEVELS = 127.5  # grey levels of 255 in one unit of images from -1 to 1


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1]."""
    return images.float() / LEVELS - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 0..255, rounded and clamped; the inverse of `to_float`."""
    return ((images.float() + 1) * LEVELS).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Shape:
    """What every picture becomes; `background`: the grey level behind alpha and padding."""

    height: int
    width: int
    channels: int = 3
    fit: str = "crop"
    background: int = 255

    def __post_init__(self) -> None:
        must_be("dataset.image_size", Size, [self.height, self.width])
        must_be("dataset.image_channels", Channels, self.channels)
        must_be("dataset.fit", Fit, self.fit)
        must_be("dataset.background", Grey, self.background)

    @classmethod
    def of(
        cls, image_size: int | Sequence[int] | None, channels: int, fit: str, background: int = 255
    ) -> "Shape":
        """From `dataset.image_size`: pixels, or (height, width); None is 64."""
        given = 64 if image_size is None else image_size
        size = given if isinstance(given, int | str) else list(given)
        must_be("dataset.image_size", Size, size)
        height, width = size if isinstance(size, list) else (size, size)
        return cls(height, width, channels, fit, background)


class Original(NamedTuple):
    """A file as it was read."""

    image: Image.Image  # upright
    size: tuple[int, int]  # upright (H, W) in the file; the image may have been decoded smaller
    mode: str
    digest: str  # of the bytes


class Source(Protocol):
    """Where pictures come from; all but `open` is cheap. The test split comes after len(self)."""

    name: str

    @property
    def num_test(self) -> int: ...
    @property
    def num_classes(self) -> int | None: ...
    def __len__(self) -> int: ...
    def typical_size(self) -> tuple[int, int]: ...
    def file_name(self, number: int) -> str: ...
    def fingerprint(self) -> str: ...
    def unusable(self) -> dict[str, str]: ...
    def label(self, number: int) -> int: ...
    def array(self) -> np.ndarray | None: ...
    def open(self, number: int, at_least: int = 0) -> Original: ...


# -- files -----------------------------------------------------------------------------------------


def find_files(root: Path) -> tuple[list[str], dict[str, str]]:
    """The regular files below `root` (relative, sorted), and why others are none.

    Links are followed, each folder once; hidden files are left alone.
    """
    files: list[str] = []
    bad: dict[str, str] = {}
    visited, todo = set(), [""]
    while todo:
        folder = todo.pop()
        try:
            info = os.stat(root / folder)
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            bad[folder or "."] = reason_for(error)
            continue
        if (info.st_dev, info.st_ino) in visited:
            bad[folder] = "a link to a folder that was read already"
            continue
        visited.add((info.st_dev, info.st_ino))
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or entry.name.lower() in ("thumbs.db", "desktop.ini"):
                continue
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                bad[name] = reason_for(error)
                continue
            if stat.S_ISDIR(mode):  # links last: names by the shortest way
                todo.insert(0 if entry.is_symlink() else len(todo), name)
            elif stat.S_ISREG(mode):
                files.append(name)
            else:  # opening a pipe would wait for ever
                bad[name] = "not a regular file"
    return sorted(files), bad


class Unusable(Exception):
    """A file that is not even tried; the text is the reason."""


def reason_for(error: BaseException) -> str:
    """One short line that says why a file cannot be used."""
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "a link to nothing, or gone"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a link that loops"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        most = f"more than {MAX_PIXELS // 10**6} megapixels"
        return f"{most}: a decompression bomb, or a photo to scale down first"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that can be read"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"truncated: {text}" if "truncated" in text.lower() else f"broken: {text}"[:200]


def header(path: Path) -> tuple[int, int]:
    """Upright (H, W) from the header alone."""
    with Image.open(path, formats=_formats()) as image:
        return _upright_size(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    try:
        turned = image.getexif().get(274) in (5, 6, 7, 8)
    except Exception:  # broken EXIF is no reason to leave out a good picture
        turned = False
    return image.size if turned else image.size[::-1]


def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_file(path: Path, at_least: int = 0) -> Original:
    """`at_least`: a JPEG may be decoded smaller, to sides of this. Raises what Pillow raises."""
    if path.stat().st_size == 0:
        raise Unusable("empty file")
    with open(path, "rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif"):
            raise Unusable("HEIC is not read: export the photo as JPEG")
        file.seek(0)
        image: Image.Image = Image.open(file, formats=_formats())
        # once more, for when somebody has reset the warning filters
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        mode, size = image.mode, _upright_size(image)
        if at_least:
            image.draft(None, (at_least, at_least))
        image.load()
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # broken EXIF
            upright = image
        file.seek(0)
        digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
        return Original(upright, size, mode, digest)


# -- pixels ----------------------------------------------------------------------------------------


def flatten(image: Image.Image, channels: int, background: int = 255) -> Image.Image:
    """Any mode -> "L", "RGB" or "RGBA"; alpha below four channels is laid over a grey level."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # convert() would clip at 255
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        if image.mode.startswith("I;16") or 255 < values.max() <= 65535:
            values = values / 257
        elif values.max() > 255:
            values = (values - values.min()) * (255 / np.ptp(values))
        elif image.mode == "F" and values.max() <= 1:
            values = values * 255
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data and channels < 4:
        image = image.convert("RGBA")
        sheet = Image.new("RGBA", image.size, (background,) * 3 + (255,))
        image = Image.alpha_composite(sheet, image)
    return image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])


def fit(image: Image.Image, shape: Shape) -> np.ndarray:
    """An "L", "RGB" or "RGBA" image as uint8 (C, H, W): its centre, or padded, or stretched."""
    size, how = (shape.width, shape.height), Image.Resampling.LANCZOS
    if shape.fit == "crop":
        image = ImageOps.fit(image, size, how)
    elif shape.fit == "pad":
        image = ImageOps.pad(image, size, how, (shape.background,) * len(image.getbands()))
    else:
        image = image.resize(size, how)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


@dataclass
class Picture:
    """One decoded file: pixels uint8 (C, H, W) and what the data check wants to know of it."""

    pixels: np.ndarray
    size: tuple[int, int]  # of the original, upright (H, W)
    mode: str
    digest: str  # of the file's bytes
    thumb: np.ndarray  # uint8 (THUMB, THUMB), grey, of the whole original
    spread: float  # standard deviation of the liveliest channel, 0..127
    chroma: float  # mean difference between the channels, 0 for grey
    sharpness: float  # 2 over the width of the edges in pixels


def _changes(grey: np.ndarray, order: int) -> float:
    """The sum of squares of differences; two levels of each are JPEG's noise."""
    changes = (np.abs(np.diff(grey, order, axis=axis)) - 2 for axis in (0, 1))
    return sum(float((change.clip(0) ** 2).sum()) for change in changes)


def decode(source: Source, number: int, shape: Shape) -> Picture:
    """One picture of a source, fitted; raises what Pillow raises."""
    image, size, mode, digest = source.open(number, 2 * max(shape.height, shape.width))
    flat = flatten(image, shape.channels, shape.background)
    thumb = flat.resize((THUMB, THUMB), Image.Resampling.BOX, reducing_gap=2.0).convert("L")
    pixels = fit(flat, shape)
    spread, chroma = pixels.std((1, 2)).max(), np.ptp(pixels[:3].astype(np.int16), axis=0).mean()
    slopes, bends = (_changes(pixels[:3].mean(0), order) for order in (1, 2))
    spread, chroma = round(float(spread), 2), round(float(chroma), 2)
    sharpness = round(bends / (slopes + 1e-6), 3)
    return Picture(pixels, size, mode, digest, np.asarray(thumb), spread, chroma, sharpness)


class ImageStore:
    """Rows `index` of a uint8 tensor (N, C, H, W): `store[LongTensor]` is one indexed read."""

    def __init__(self, pixels: Tensor, index: Tensor | None = None) -> None:
        self.pixels = pixels
        self.index = index

    def __len__(self) -> int:
        return len(self.pixels) if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.pixels.shape[1:])

    def __getitem__(self, rows: Tensor) -> Tensor:
        rows = rows if self.index is None else self.index[rows]
        return self.pixels.index_select(0, rows.to(self.pixels.device))

    def to(self, device: torch.device) -> "ImageStore":
        """The same pictures on `device`, in one piece."""
        pixels = self.pixels if self.index is None else self.pixels[self.index]
        return ImageStore(pixels.to(device))
