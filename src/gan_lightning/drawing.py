"""The commands `sample` and `interpolate`: images of seeds, and ways between them."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from gan_lightning import pictures
from gan_lightning.errors import UserError
from gan_lightning.files import write_whole
from gan_lightning.latents import latents, slerp
from gan_lightning.places import make_folder
from gan_lightning.sampling import Sampler, load_generator
from gan_lightning.text import printable

FRAME = 120  # milliseconds of a film's


def sample_cli(
    checkpoint: str,
    num_images: int | None,
    out: str,
    format: str,
    grid: bool,
    label: int | None,
    seed: int | list[int],
    trust: str | None,
    device: str | None,
    truncation: float,
) -> None:
    """Images as PNG, numbered or named by a list's seeds, or all as one array. UserError."""
    sampler = opened(checkpoint, trust, device, label)
    seeds: Sequence[int]
    if listed := isinstance(seed, list):
        seeds = list(dict.fromkeys(seed))
    else:
        seeds = range(seed, seed + (num_images or 64))
    names = (f"seed{s:06d}" if listed else f"{k:06d}" for k, s in enumerate(seeds))
    folder = make_folder(out)
    _tell_of_others(folder, set() if format == "npz" else seeds, listed)
    kept: list[Tensor] = []
    with Progress() as progress:
        task = progress.add_task("images", total=len(seeds))
        for images in sampler.make(seeds, label, truncation):
            for image in images if format == "png" else ():
                pictures.save(image, folder / f"{next(names)}.png")
            if format == "npz" or not kept:
                kept.append(images)
            progress.advance(task, len(images))
    if format == "npz":
        array = torch.cat(kept).permute(0, 2, 3, 1).numpy()
        write_whole(folder / "images.npz", lambda file: np.savez_compressed(file, images=array))
    if grid:
        sheet = pictures.labelled_grid(kept[0][:64], seeds[:64])
        pictures.save_image(sheet, folder / "grid.png")
    weights = "averaged" if sampler.averaged else "raw"
    print(f"{len(seeds)} images in {printable(folder)}, by {weights} weights")
    if truncation != 1:
        print(f"of truncated latents: --truncation {truncation:g}")


def opened(checkpoint: str, trust: str | None, device: str | None, label: int | None) -> Sampler:
    """The generator, which has this class. UserError."""
    sampler = load_generator(checkpoint, trust, device)
    classes = sampler.num_classes
    if label is not None and label >= (classes or 0):
        without = "it was trained without classes"
        known = f"its classes are 0 to {classes - 1}" if classes else without
        raise UserError(f"--class {label} does not fit this generator: {known}")
    return sampler


def _tell_of_others(folder: Path, written: Sequence[int] | set[int], listed: bool) -> None:
    """Says where other images lie beside those of these seeds."""
    older = 0
    for path in folder.glob("*.png"):
        if found := re.fullmatch(r"(seed|)(\d{6,})", path.stem):
            number, same = int(found[2]), bool(found[1]) == listed
            older += not (same and (number in written if listed else number < len(written)))
    if older:
        whoever = "whoever scores this folder scores those as well"
        print(f"{printable(folder)} also holds {older} images of another time: {whoever}")


def interpolate_cli(
    checkpoint: str,
    rows: int | None,
    steps: int,
    out: str,
    mp4: bool,
    label: int | None,
    seed: int | list[int],
    trust: str | None,
    device: str | None,
    truncation: float,
) -> None:
    """Walks between pairs of seeds, or one through a list of them. UserError."""
    sampler = opened(checkpoint, trust, device, label)
    if one := isinstance(seed, list):
        starts, ends = seed[:-1], seed[1:]
    else:
        both = range(seed, seed + 2 * (rows or 6))
        starts, ends = list(both[::2]), list(both[1::2])
    a, b = (truncation * latents(some, sampler.config["latent_dim"]) for some in (starts, ends))
    labels = None
    if sampler.num_classes:  # a class has no way to another
        own = starts[0] if one else torch.arange(len(a))
        labels = torch.as_tensor(own if label is None else label) % sampler.num_classes
        labels = labels.expand(len(a))
    frames = walk(sampler, a, b, steps, labels)  # (rows, steps, C, H, W)
    texts: list[object] = []
    for start, end in zip(starts, ends, strict=True):
        texts += [start, *[""] * (steps - 2), end][:steps]
    strip = pictures.labelled_grid(frames.flatten(0, 1), texts, steps)
    folder = make_folder(out)
    pictures.save_image(strip, folder / "interpolation.png")
    kinds = save_films(path_of(frames) if one else frames.transpose(0, 1), folder, mp4=mp4)
    print(f"interpolation.png, {kinds} in {printable(folder)}")


def walk(sampler: Sampler, a: Tensor, b: Tensor, steps: int, labels: Tensor | None) -> Tensor:
    """uint8 (n, steps, C, H, W) from latents a (n, latent_dim) to b along the sphere."""
    times = torch.linspace(0, 1, steps)[:, None]
    ways = [slerp(start, end, times) for start, end in zip(a, b, strict=True)]
    of = [None] * len(ways) if labels is None else [label.expand(steps) for label in labels]
    return torch.stack([sampler.generate(way, some) for way, some in zip(ways, of, strict=True)])


def path_of(legs: Tensor) -> Tensor:
    """(n, steps, C, H, W) to (frames, 1, C, H, W); each leg starts where the one before ends."""
    return torch.cat([*(leg[:-1] for leg in legs[:-1]), legs[-1]])[:, None]


def save_films(frames: Tensor, folder: Path, name: str = "interpolation", mp4: bool = False) -> str:
    """Of uint8 (frames, rows, C, H, W) a GIF, and an MP4 if wanted, there and back; says which."""
    there_and_back = [*frames, *frames.flip(0)[1:-1]]
    film = [pictures.to_image(pictures.grid(frame, len(frame))) for frame in there_and_back]
    pictures.save_film(film, folder / f"{name}.gif", FRAME)
    if mp4:
        pictures.save_video(film, folder / f"{name}.mp4", FRAME)
    return f"{name}.gif and {name}.mp4" if mp4 else f"{name}.gif"
