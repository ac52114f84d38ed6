"""Does a score rank images as a person would? Real, good, dented, melted, noise, in that order, on several folders.

    python -m benchmarks.ranking FOLDER [FOLDER ...] [--images 200] [--size 64] [--features lite2] [--keep]

Half of each folder is the reference; the other half is scored as it is and after ever worse treatment. Prints one table
per folder and, last, how often each score has the right order. --keep: benchmarks/ranking.jsonl, and from it the table
of docs/scores.md.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_lightning.data.loader import ImageData
from gan_lightning.data.sources import FolderImages
from gan_lightning.measure.features import build_extractor
from gan_lightning.measure.scores import distances
from gan_lightning.measure.snapshot import Reals, Snapshot

ROOT = Path(__file__).parent.parent
FIGURES, PAGE = ROOT / "benchmarks" / "ranking.jsonl", ROOT / "docs" / "scores.md"
SHOWN = ("frechet", "precision", "coverage")  # in the page
HIGHER = ("precision", "recall", "density", "coverage")


def warp(x: Tensor, amount: float, waves: int, draw: torch.Generator) -> Tensor:
    """Float images (N, C, H, W), each bent by a smooth random field of `amount` of its side and so many waves."""
    field = amount * torch.randn(len(x), 2, waves, waves, generator=draw)
    field = F.interpolate(field, x.shape[2:], mode="bicubic", align_corners=True).permute(
        0, 2, 3, 1
    )
    grid = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(
        x, grid + field, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def scrambled(x: Tensor, draw: torch.Generator) -> Tensor:
    """The same colours and power spectrum without any shape: random phases, alike in all channels."""
    spectrum = torch.fft.rfft2(x)
    phase = torch.fft.rfft2(torch.randn(len(x), 1, *x.shape[2:], generator=draw)).angle()
    turned = spectrum * torch.polar(torch.ones_like(phase), phase)
    turned[:, :, 0, 0] = spectrum[:, :, 0, 0]
    return torch.fft.irfft2(turned, s=x.shape[2:])


def treatments(draw: torch.Generator) -> dict[str, Callable[[Tensor], Tensor]]:
    """What is done to the other half, from nothing to noise."""
    return {
        "real": lambda x: x,
        "good": lambda x: warp(x, 0.02, 3, draw),
        "dented": lambda x: warp(x, 0.06, 6, draw),
        "melted": lambda x: warp((x + x.roll(1, 0)) / 2, 0.12, 6, draw),
        "noise": lambda x: scrambled(x, draw),
    }


def table(folder: str, features: str, size: int, images: int, cache: str) -> dict[str, list[float]]:
    """Score: its values from real to noise; all against half of the folder."""
    data = ImageData(FolderImages(folder), size, 3, holdout=0, shrink_batch=True, cache_dir=cache)
    data.prepare()
    reals = Reals(data, build_extractor(features, data, cache), cache)
    reals.folds = reals.folds[:1]  # against one half only; the other is what is treated
    store, others = reals.folds[0].others
    others = others[:images]
    found: dict[str, list[float]] = {}
    for treat in treatments(torch.Generator().manual_seed(0)).values():
        made = treat(store[others].float()).round().clamp(0, 255).to(torch.uint8)
        for score in distances(Snapshot(reals, made), len(made)):
            found.setdefault(score.protocol.rpartition("_")[0], []).append(score.value)
    return found


def page(text: str) -> str:
    """docs/scores.md with its table as the data file has it."""
    names = list(treatments(torch.Generator()))
    lines = ["| folder | score |" + "".join(f" {name} |" for name in names), "|" + "---|" * 7]
    for one in map(json.loads, FIGURES.read_text().splitlines()):
        for score in SHOWN:
            values = "".join(f" {float(f'{value:.3g}'):,g} |" for value in one["scores"][score])
            lines.append(f"| {one['folder']} | {score} |{values}")
    head, mark, rest = text.partition("<!-- ranking -->\n")
    end = rest[rest.index("<!-- end of ranking -->") :]
    return "\n".join([head + mark, *lines, "", end])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--features", default="lite2")
    parser.add_argument("--cache", default="data/cache")
    parser.add_argument("--keep", action="store_true", help="for docs/scores.md")
    options = parser.parse_args()
    right: dict[str, list[bool]] = {}
    kept = []
    names = list(treatments(torch.Generator()))
    for folder in options.folders:
        found = table(folder, options.features, options.size, options.images, options.cache)
        settings = {key: getattr(options, key) for key in ("images", "size", "features")}
        kept.append({"folder": Path(folder).name, **settings, "scores": found})
        print(
            f"\n| {Path(folder).name} | {' | '.join(names)} | in order |\n|{'---|' * (len(names) + 2)}"
        )
        for score, values in found.items():
            sign = -1 if score in HIGHER else 1
            order = all(sign * a <= sign * b for a, b in itertools.pairwise(values))
            right.setdefault(score, []).append(order)
            print(
                f"| {score} | {' | '.join(f'{v:.3g}' for v in values)} | {'yes' if order else 'no'} |"
            )
    print()
    for score, orders in right.items():
        print(f"{score}: in order on {sum(orders)} of {len(orders)} folders")
    if options.keep:
        FIGURES.write_text("".join(json.dumps(one) + "\n" for one in kept))
        PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
