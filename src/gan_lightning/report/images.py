"""Pictures as the page holds them: data URIs, small enough for all of them in one file."""

import base64
import io
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gan_lightning.errors import UserError
from gan_lightning.files import LARGEST_PICTURE, inside, untrusted
from gan_lightning.measure.snapshot import GRID
from gan_lightning.report.reading import Seen

FRAMES = 30  # moments on the slider
SMALL = 60_000  # bytes up to which a PNG stays as it is
WIDEST = 1060  # pixels of a picture: a grid of 130-pixel images
BUDGET = 6_000_000  # bytes of the frames together, before base64
SCORES = 4096  # bytes of a file with 64 scores, at most
COLUMNS, GAP = 8, 2  # of pictures.grid
PNG = ("PNG",)  # for others Pillow might start a program


def frames(seen: Seen) -> list[dict[str, Any]]:
    """The grids over time, fewer where they would be too large: name, picture, 64 scores."""
    chosen = spread(seen.grids, FRAMES)
    if chosen:
        size = len(shrunk(chosen[-1])[1])
        chosen = spread(chosen, max(2, BUDGET // max(1, size)))
    return [_frame(seen, path) for path in chosen]


def _frame(seen: Seen, path: Path) -> dict[str, Any]:
    name = path.stem.removeprefix("fake_images_")
    beside = inside(seen.folder, f"images/nearest_{name}.png")
    return {
        "name": moment(name, seen.language),
        "picture": uri(path),
        "nearest": uri(beside),
        "scores": tile_scores(inside(seen.folder, f"results/discriminator_outputs_{name}.npy")),
    }


def moment(name: str, language: str) -> str:
    """kimg_000004.208 as 4,208 images, epoch_0003 as epoch 3; another name as it is."""
    kind, _, number = name.partition("_")
    if not re.fullmatch(r"\d+(\.\d+)?", number):
        return name
    images, korean = f"{1000 * float(number):,.0f}", language == "ko"
    if kind == "kimg":
        return f"{images}장" if korean else f"{images} images"
    return f"{'에폭' if korean else kind} {int(float(number))}"


def spread(found: list[Path], most: int) -> list[Path]:
    """At most so many of them, evenly, the last one always."""
    if len(found) <= most:
        return found
    return [found[round(k * (len(found) - 1) / (most - 1))] for k in range(most)]


def tile_scores(path: Path | None) -> list[float]:
    """What the discriminator gives each image of a grid; [] where that is not known."""
    if path is None or path.stat().st_size > SCORES:
        return []
    with untrusted(path):
        values = np.load(path, allow_pickle=False)
    if values.dtype != np.float32 or values.size != GRID or not np.isfinite(values).all():
        return []
    return [round(float(value), 3) for value in values.flatten()]


def tile_sides(path: Path) -> tuple[int, int]:
    """(width, height) of an image of the grid, in its pixels."""
    with untrusted(path), Image.open(path, formats=PNG) as picture:
        rows = GRID // COLUMNS
        return (picture.width - GAP) // COLUMNS - GAP, (picture.height - GAP) // rows - GAP


def uri(path: Path | None) -> str:
    """The picture as a data URI; nothing where there is none, or one larger than any of ours."""
    if path is None:
        return ""
    kind, data = shrunk(path)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}" if data else ""


def shrunk(path: Path) -> tuple[str, bytes]:
    """(kind, bytes); kept, as a page that is written again holds the same pictures again."""
    known = path.stat()
    return _shrunk(path, known.st_mtime_ns, known.st_size)


@lru_cache(maxsize=256)
def _shrunk(path: Path, changed: int, size: int) -> tuple[str, bytes]:
    if size > LARGEST_PICTURE:
        return "png", b""
    if size <= SMALL:
        return "png", path.read_bytes()
    with untrusted(path), Image.open(path, formats=PNG) as file:
        if file.width * file.height > WIDEST * WIDEST * 64:
            raise UserError("a picture larger than any of this program's")
        picture = file.convert("RGB")
        if picture.width > WIDEST:
            picture.thumbnail((WIDEST, WIDEST))
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=88, method=2)
    return "webp", data.getvalue()
