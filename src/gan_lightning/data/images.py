"""Image files to uint8 arrays: find, decode, fit, scale, and one cache file that concurrent processes share."""

import errno
import hashlib
import json
import math
import os
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_lightning.errors import UserError
from gan_lightning.files import NoMatch, clear_abandoned, match, write_whole

MAX_PIXELS = (
    Image.MAX_IMAGE_PIXELS or 89_478_485
)  # Pillow only warns here; one such file can fill the memory
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# By name, so that Pillow never starts a program (EPS) or guesses a format that has no magic number (TGA).
FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "BMP",
    "DIB",
    "TIFF",
    "GIF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "ICO",
)
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
           5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
           8: Image.Transpose.ROTATE_90}  # fmt: skip
THUMB = 16
LEVELS = 127.5  # grey levels of 255 in one unit of images from -1 to 1
CHECKED = (
    2**30
)  # bytes of pixels up to which they are compared with their checksum when they are found in the cache
_VERSION = 2  # part of every cache key: raise it when decoding or fitting changes


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1]."""
    return images.float() / LEVELS - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 0..255, rounded and clamped; the inverse of `to_float`."""
    return ((images.float() + 1) * LEVELS).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Shape:
    """What every picture becomes: (channels, height, width), how it is fitted, and the colour behind alpha and bars."""

    height: int
    width: int
    channels: int = 3
    fit: str = "crop"
    background: int = 255

    def __post_init__(self) -> None:
        if self.fit not in ("crop", "pad", "stretch"):
            raise UserError(f"dataset.fit={self.fit} is none of crop, pad, stretch")
        if self.channels not in (1, 3, 4):
            raise UserError(
                f"dataset.image_channels={self.channels}: 1 (grey), 3 (colour), 4 (with alpha) are possible"
            )
        if not (4 <= self.height <= 2048 and 4 <= self.width <= 2048):
            size = self.height if self.height == self.width else f"[{self.height},{self.width}]"
            raise UserError(
                f"dataset.image_size={size}: between 4 and 2048 pixels are possible, for example 64"
            )
        if not 0 <= self.background <= 255:
            raise UserError(
                f"dataset.background={self.background}: a grey level from 0 to 255 (white) is right"
            )

    @classmethod
    def of(
        cls, image_size: int | Sequence[int] | None, channels: int, fit: str, background: int = 255
    ) -> "Shape":
        """From `dataset.image_size`: pixels, or (height, width); None is 64."""
        size = (
            list(image_size)
            if isinstance(image_size, Sequence)
            else [64 if image_size is None else image_size] * 2
        )
        if len(size) != 2 or not all(isinstance(side, int) for side in size):
            raise UserError(
                f"dataset.image_size={image_size} is not possible: pixels or [height,width] are, as 64"
            )
        return cls(size[0], size[1], channels, fit, background)


@dataclass
class Picture:
    """One decoded file: pixels uint8 (C, H, W) and what the data check wants to know of the original."""

    pixels: np.ndarray
    size: tuple[int, int]  # of the original, upright (H, W)
    mode: str
    digest: str  # of the file's bytes
    thumb: np.ndarray  # uint8 (THUMB, THUMB), grey, of the whole original
    spread: float  # standard deviation of the liveliest channel, 0..127
    chroma: float  # mean difference between the channels, 0 for grey


def find_files(root: Path) -> tuple[list[str], dict[str, str]]:
    """All regular files below `root` (relative, sorted), and what else is there with the reason why it is no file.

    Links are followed, each folder once; hidden files and folders are left alone.
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
            if stat.S_ISDIR(mode):
                todo.insert(
                    0 if entry.is_symlink() else len(todo), name
                )  # links last: names by the shortest way
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
        return f"more than {MAX_PIXELS // 10**6} megapixels: a decompression bomb, or a photo to scale down first"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that can be read"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"truncated: {text}" if "truncated" in text.lower() else f"broken: {text}"[:200]


def header(path: Path) -> tuple[int, int]:
    """Upright (H, W) from the header alone."""
    with Image.open(path, formats=_formats()) as image:
        return image.size if _orientation(image) >= 5 else image.size[::-1]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(274, 1))
    except Exception:  # broken EXIF is no reason to leave out a good picture
        return 1


def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_file(path: Path, at_least: int = 0) -> tuple[Image.Image, tuple[int, int], str, str]:
    """Reads an image upright. Returns it, its original (H, W), its mode in the file, and the digest of the bytes.

    `at_least`: JPEGs may be decoded smaller, but with no side below this. Raises whatever Pillow raises on bad files.
    """
    if path.stat().st_size == 0:
        raise Unusable("empty file")
    with open(path, "rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif"):
            raise Unusable("HEIC is not read: export the photo as JPEG")
        file.seek(0)
        image = Image.open(file, formats=_formats())
        if (
            image.width * image.height > MAX_PIXELS
        ):  # once more, for when somebody has reset the warning filters
            raise Image.DecompressionBombError
        mode, size = image.mode, image.size
        if at_least:
            image.draft(None, (at_least, at_least))
        image.load()
        orientation = _orientation(image)
        upright = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
        file.seek(0)
        digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
        return upright, size if orientation >= 5 else size[::-1], mode, digest


def flatten(image: Image.Image, channels: int, background: int = 255) -> Image.Image:
    """Any Pillow mode -> "L", "RGB" or "RGBA"; below four channels alpha is laid over a grey level. 16 bits and more
    are brought to 8 by hand."""
    if image.mode in ("I", "F") or image.mode.startswith(
        "I;16"
    ):  # convert() would cut these off at 255
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
        image = Image.alpha_composite(
            Image.new("RGBA", image.size, (background,) * 3 + (255,)), image
        )
    return image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])


def fit(image: Image.Image, shape: Shape) -> np.ndarray:
    """Fits an "L", "RGB" or "RGBA" image into uint8 (C, H, W): crop the centre, pad with the background, or stretch."""
    width, height = image.size
    target = (shape.width, shape.height)
    box = (0.0, 0.0, float(width), float(height))
    scale = max(target[0] / width, target[1] / height)
    if shape.fit == "crop":
        dx, dy = (width - target[0] / scale) / 2, (height - target[1] / scale) / 2
        box = (max(dx, 0.0), max(dy, 0.0), min(width - dx, width), min(height - dy, height))
    elif shape.fit == "pad":
        scale = min(target[0] / width, target[1] / height)
        target = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = image.resize(target, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    if target != (shape.width, shape.height):
        sheet = Image.new(
            image.mode, (shape.width, shape.height), (shape.background,) * len(image.getbands())
        )
        sheet.paste(image, ((shape.width - target[0]) // 2, (shape.height - target[1]) // 2))
        image = sheet
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


class Source(Protocol):
    """Where pictures come from; all but `open` is cheap. Numbers from len(self) on are an official test split."""

    name: str

    @property
    def num_test(self) -> int: ...  # pictures of the official test split
    @property
    def num_classes(self) -> int | None: ...
    def __len__(self) -> int: ...
    def typical_size(self) -> tuple[int, int]: ...
    def file_name(self, number: int) -> str: ...
    def fingerprint(self) -> str: ...
    def unusable(self) -> dict[str, str]: ...
    def label(self, number: int) -> int: ...
    def array(self) -> np.ndarray | None: ...
    def open(
        self, number: int, at_least: int = 0
    ) -> tuple[Image.Image, tuple[int, int], str, str]: ...


def decode(source: Source, number: int, shape: Shape) -> Picture:
    """One picture of a source, fitted; raises what Pillow raises."""
    image, size, mode, digest = source.open(number, 2 * max(shape.height, shape.width))
    flat = flatten(image, shape.channels, shape.background)
    pixels = fit(flat, shape)
    thumb = np.asarray(
        flat.resize((THUMB, THUMB), Image.Resampling.BOX, reducing_gap=2.0).convert("L")
    )
    spread, chroma = pixels.std((1, 2)).max(), np.ptp(pixels[:3].astype(np.int16), axis=0).mean()
    return Picture(pixels, size, mode, digest, thumb, float(spread), float(chroma))


@dataclass
class Scan:
    """All usable pictures of a source in the order of `numbers`, what they are, and which files are `bad` and why."""

    numbers: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    chromas: list[float] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    thumbs: np.ndarray = field(default_factory=lambda: np.zeros((0, THUMB, THUMB), np.uint8))
    key: str = ""

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, number: int, name: str, picture: Picture) -> None:
        self.numbers.append(number)
        self.names.append(name)
        self.sizes.append(picture.size)
        self.modes.append(picture.mode)
        self.digests.append(picture.digest)
        self.spreads.append(round(picture.spread, 2))
        self.chromas.append(round(picture.chroma, 2))


def scan(
    source: Source,
    shape: Shape,
    cache_dir: Path,
    cache_limit_gb: float,
    say: Callable[[str], None] = print,
) -> tuple[Scan, Tensor | None]:
    """Decodes every picture once, or finds the result of an earlier scan in `cache_dir`, which then need not be writable.

    Returns the scan and the pixels, uint8 (N, C, H, W), memory-mapped; None in place of the pixels when they would take
    more than `cache_limit_gb`. Concurrent calls share one build; an interrupted build is never taken for a whole one, and
    a damaged one is built again. Raises UserError where the cache holds nothing of these pictures and cannot be written.
    """
    total = len(source) + source.num_test
    keep = total * shape.channels * shape.height * shape.width <= cache_limit_gb * 2**30
    settings = json.dumps([_VERSION, source.fingerprint(), asdict(shape), keep])
    key = hashlib.blake2b(settings.encode(), digest_size=12).hexdigest()
    facts, pixels = cache_dir / f"{source.name}-{key}.json", cache_dir / f"{source.name}-{key}.u8"
    clear_abandoned(cache_dir)
    found, damage = _load(facts, pixels if keep else None, shape)
    if found is not None:
        return found
    try:
        with _alone(cache_dir, key, source.name, say):
            found, damage = _load(
                facts, pixels if keep else None, shape
            )  # by now another run may have built it
            if found is None:
                if damage:
                    say(f"{facts} is damaged ({damage}): the images are decoded again")
                _build(source, shape, facts, pixels if keep else None, key)
                found, damage = _load(facts, pixels if keep else None, shape)
    except OSError as error:
        raise UserError(
            f"{cache_dir}, for decoded images, cannot be written ({error}): name another (dataset.cache_dir=..., --cache-dir)"
        ) from error
    if found is None:
        raise UserError(
            f"{facts} cannot be read back ({damage}): name another place (dataset.cache_dir=..., --cache-dir)"
        )
    return found


@contextmanager
def _alone(cache_dir: Path, key: str, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Within, no other process builds the same."""
    from filelock import FileLock, Timeout

    cache_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache_dir / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another run that is decoding {name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


STORED = {
    "numbers": [int], "names": [str], "sizes": [[int]], "modes": [str], "digests": [str], "spreads": [float],
    "chromas": [float], "bad": {str: str}, "thumbs": str, "key": str, "check": (int, None),
}  # fmt: skip


def _load(
    facts: Path, pixels: Path | None, shape: Shape
) -> tuple[tuple[Scan, Tensor | None] | None, str]:
    """What an earlier scan has left: (scan and pixels, ""), (None, "") where there is nothing, (None, what is damaged)."""
    if not facts.is_file():  # it is written last
        return None, ""
    try:
        stored = match(json.loads(facts.read_text(encoding="utf-8")), STORED, "it")
        check = stored.pop("check")
        stored["thumbs"] = np.frombuffer(bytes.fromhex(stored["thumbs"]), np.uint8).reshape(
            -1, THUMB, THUMB
        )
        result = Scan(**stored)
        lists = (
            result.names,
            result.sizes,
            result.modes,
            result.digests,
            result.spreads,
            result.chromas,
            result.thumbs,
        )
        if any(len(values) != len(result) for values in lists):
            raise NoMatch("its lists are of unequal length")
        if pixels is None or not len(result):
            return (result, None), ""
        size = (len(result), shape.channels, shape.height, shape.width)
        if not pixels.is_file() or pixels.stat().st_size != math.prod(size):
            raise NoMatch(f"{pixels.name} is not of the right size")
        # Copy-on-write: the pages are shared with other runs, and nothing can change the file.
        array = np.memmap(pixels, np.uint8, "c", shape=size)
        if array.nbytes <= CHECKED and zlib.crc32(array.reshape(-1).data) != check:
            raise NoMatch(f"{pixels.name} has changed")
        return (result, torch.from_numpy(array)), ""
    except (ValueError, TypeError, RecursionError) as problem:  # NoMatch is a ValueError
        return None, " ".join(str(problem).split())[:120]
    except OSError as problem:
        return None, problem.strerror or type(problem).__name__


def _build(source: Source, shape: Shape, facts: Path, pixels: Path | None, key: str) -> None:
    result = Scan(key=key, bad=dict(source.unusable()))
    thumbs: list[np.ndarray] = []
    check = 0

    def decode_into(file: Any) -> None:
        nonlocal check
        for number, picture in _decoded(source, shape):
            if isinstance(picture, str):
                result.bad[source.file_name(number)] = picture
                continue
            result.add(number, source.file_name(number), picture)
            thumbs.append(picture.thumb)
            if file is not None:
                data = picture.pixels.tobytes()
                check = zlib.crc32(data, check)
                file.write(data)

    if pixels is None:
        decode_into(None)
    else:
        write_whole(pixels, decode_into, durable=True)
    values: dict[str, Any] = {item.name: getattr(result, item.name) for item in fields(Scan)}
    values |= {"thumbs": b"".join(thumb.tobytes() for thumb in thumbs).hex(), "check": check}
    text = json.dumps(values)
    write_whole(facts, lambda file: file.write(text.encode()), durable=True)


def _decoded(source: Source, shape: Shape) -> Iterator[tuple[int, Picture | str]]:
    """Every picture of a source by its number, or why it cannot be used; with a bar in a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    def attempt(number: int) -> Picture | str:
        try:
            return decode(source, number, shape)
        except (
            Exception
        ) as error:  # Pillow raises nearly everything on broken files; each one is listed
            return reason_for(error)

    total = len(source) + source.num_test
    columns = (
        TextColumn("decoding {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with (
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool,  # Pillow lets go of the GIL
        Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress,
    ):
        task = progress.add_task(source.name, total=total)
        for start in range(0, total, 256):
            block = range(start, min(start + 256, total))
            for number, picture in zip(block, pool.map(attempt, block), strict=True):
                progress.advance(task)
                yield number, picture


class ImageStore:
    """Rows `index` of a uint8 tensor (N, C, H, W): `store[LongTensor] -> uint8 (n, C, H, W)` is one indexed read."""

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
        return ImageStore(
            (self.pixels if self.index is None else self.pixels[self.index]).to(device)
        )


class LazyStore:
    """Like `ImageStore`, for sets larger than the cache limit: pictures are decoded when they are asked for."""

    def __init__(self, source: Source, shape: Shape, numbers: Sequence[int]) -> None:
        self.source = source
        self.numbers = torch.as_tensor(numbers)
        self.spec = shape

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), self.spec.channels, self.spec.height, self.spec.width)

    def __getitem__(self, rows: Tensor) -> Tensor:
        pictures = [
            decode(self.source, int(number), self.spec).pixels for number in self.numbers[rows]
        ]
        return torch.from_numpy(np.stack(pictures))

    def __getitems__(self, rows: list[int]) -> Tensor:  # what a DataLoader worker calls
        return self[torch.as_tensor(rows)]
