"""Every picture decoded once: one file of pixels and one of facts, shared by all runs."""

import hashlib
import json
import math
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_lightning.data.images import THUMB, Picture, Shape, Source, decode, reason_for
from gan_lightning.errors import UserError
from gan_lightning.files import NoMatch, clear_abandoned, match, write_whole

CHECKED = 2**30  # up to so many bytes, pixels found in the cache are compared with their checksum
_VERSION = 3  # part of every cache key: raise it when decoding or fitting changes


@dataclass
class Scan:
    """All usable pictures of a source, a list for each fact, and why files are `bad`."""

    numbers: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    chromas: list[float] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    thumbs: np.ndarray = field(default_factory=lambda: np.zeros((0, THUMB, THUMB), np.uint8))
    key: str = ""

    def __len__(self) -> int:
        return len(self.numbers)


WORDS = {name: [str] for name in ("names", "modes", "digests")}
FIGURES = {name: [float] for name in ("spreads", "chromas", "sharpness")}
LISTS = {"numbers": [int], "sizes": [[int]], **WORDS, **FIGURES}
STORED = {**LISTS, "bad": {str: str}, "thumbs": str, "key": str, "check": int}


def scan(
    source: Source, shape: Shape, cache_dir: Path, say: Callable[[str], None] = print
) -> tuple[Scan, Tensor]:
    """The scan and pixels, uint8 (N, C, H, W): from `cache_dir`, or decoded and left there.

    Concurrent calls share a build; a damaged one is built again. UserError where none can be.
    """
    settings = json.dumps([_VERSION, source.fingerprint(), asdict(shape)])
    key = hashlib.blake2b(settings.encode(), digest_size=12).hexdigest()
    facts, pixels = (cache_dir / f"{source.name}-{key}.{kind}" for kind in ("json", "u8"))
    another = "name another (dataset.cache_dir=..., --cache-dir)"
    clear_abandoned(cache_dir)
    found, damage = _load(facts, pixels, shape)
    if found is not None:
        return found
    try:
        with _alone(cache_dir, key, source.name, say):
            found, damage = _load(facts, pixels, shape)  # by now another run may have built it
            if found is None:
                if damage:
                    say(f"{facts} is damaged ({damage}): the images are decoded again")
                _build(source, shape, facts, pixels, key)
                found, damage = _load(facts, pixels, shape)
    except OSError as error:
        raise UserError(
            f"{cache_dir}, for decoded images, cannot be written ({error}): {another}"
        ) from error
    if found is None:
        raise UserError(f"{facts} cannot be read back ({damage}): {another}")
    return found


def _alone(cache_dir: Path, key: str, name: str, say: Callable[[str], None]) -> Any:
    """A lock, held: within it no other process builds the same."""
    from filelock import FileLock, Timeout

    cache_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache_dir / f"{key}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another run that is decoding {name}")
        return lock.acquire()


def _load(facts: Path, pixels: Path, shape: Shape) -> tuple[tuple[Scan, Tensor] | None, str]:
    """(scan and pixels, ""), (None, "") where there is nothing, or (None, what is damaged)."""
    if not facts.is_file():  # it is written last
        return None, ""
    try:
        stored = match(json.loads(facts.read_text(encoding="utf-8")), STORED, "it")
        check = stored.pop("check")
        thumbs = np.frombuffer(bytes.fromhex(stored.pop("thumbs")), np.uint8)
        result = Scan(**stored, thumbs=thumbs.reshape(-1, THUMB, THUMB))
        if {len(getattr(result, name)) for name in (*LISTS, "thumbs")} != {len(result)}:
            raise NoMatch("its lists are of unequal length")
        size = (len(result), shape.channels, shape.height, shape.width)
        if not len(result):
            return (result, torch.empty(size, dtype=torch.uint8)), ""
        if not pixels.is_file() or pixels.stat().st_size != math.prod(size):
            raise NoMatch(f"{pixels.name} is not of the right size")
        # Copy-on-write, so that nothing can change the file, whose pages are shared; but memory is
        # set aside for the copies, which a large set may not find.
        small = math.prod(size) <= CHECKED
        array = np.memmap(pixels, np.uint8, "c" if small else "r", shape=size)
        if small and zlib.crc32(array.reshape(-1).data) != check:
            raise NoMatch(f"{pixels.name} has changed")
        with warnings.catch_warnings(action="ignore"):  # torch's, of memory it may not write
            return (result, torch.from_numpy(array)), ""
    except (ValueError, TypeError, RecursionError) as problem:  # NoMatch is a ValueError
        return None, " ".join(str(problem).split())[:120]
    except OSError as problem:
        return None, problem.strerror or type(problem).__name__


def _build(source: Source, shape: Shape, facts: Path, pixels: Path, key: str) -> None:
    result = Scan(key=key, bad=dict(source.unusable()))
    thumbs = bytearray()
    check = 0

    def decode_into(file: Any) -> None:
        nonlocal check
        for number, picture in _decoded(source, shape):
            name = source.file_name(number)
            if isinstance(picture, str):
                result.bad[name] = picture
                continue
            result.numbers.append(number)
            result.names.append(name)
            result.sizes.append(picture.size)
            result.modes.append(picture.mode)
            result.digests.append(picture.digest)
            result.spreads.append(picture.spread)
            result.chromas.append(picture.chroma)
            result.sharpness.append(picture.sharpness)
            thumbs.extend(picture.thumb.tobytes())
            data = picture.pixels.tobytes()
            check = zlib.crc32(data, check)
            file.write(data)

    write_whole(pixels, decode_into, durable=True)
    text = json.dumps(vars(result) | {"thumbs": thumbs.hex(), "check": check})
    write_whole(facts, lambda file: file.write(text.encode()), durable=True)


def _decoded(source: Source, shape: Shape) -> Iterator[tuple[int, Picture | str]]:
    """Every picture by its number, or why it cannot be used; a bar in a terminal."""
    from rich.console import Console
    from rich.progress import track

    def attempt(number: int) -> Picture | str:
        try:
            return decode(source, number, shape)
        except Exception as error:  # Pillow raises nearly everything on broken files
            return reason_for(error)

    total, console = len(source) + source.num_test, Console(stderr=True)
    threads = min(16, os.cpu_count() or 1)  # Pillow lets go of the GIL

    def blocks(pool: ThreadPoolExecutor) -> Iterator[tuple[int, Picture | str]]:
        for start in range(0, total, 8 * threads):  # no more pictures than that in memory
            block = range(start, min(start + 8 * threads, total))
            yield from zip(block, pool.map(attempt, block), strict=True)

    with ThreadPoolExecutor(threads) as pool:
        yield from track(
            blocks(pool),
            f"decoding {source.name.replace('[', '(')}",
            total,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
