"""Scores of generated images against real ones, each beside what real images and an untrained generator would get."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning import pictures
from gan_lightning.data.images import to_float, to_uint8
from gan_lightning.errors import UserError
from gan_lightning.metrics import distances as D
from gan_lightning.metrics.features import cached, features_of, shared_extractor
from gan_lightning.text import console

SMALLEST = (
    50  # images; below, the sampling error of every distance here is as large as what it measures
)
LARGEST = 10_000
MOST = 60_000  # training images among which near-copies are looked for
Pair = tuple[float, float | None]  # value, half width of its 95 % interval


@dataclass(frozen=True)
class Score:
    """One number and its yardsticks, by the same protocol: floor = other real images, ceiling = untrained generator.

    For near_copies the floor is the rate of held-out photographs, the ceiling that of photographs with noise. `low`,
    `high`: 95 % interval, None where it was not asked for. `n`: generated images used.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    floor: float | None
    ceiling: float | None
    n: int
    better: str = "lower"


@dataclass
class Scores:
    """All scores of one set of images; `scores[0]` is the main one. Empty, with the reason in `warnings`, below 50."""

    extractor: str
    extractor_hash: str
    n: int
    scores: list[Score] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> Score | None:
        return self.scores[0] if self.scores else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def table(self, title: str) -> Any:
        """A rich table for the terminal."""
        from rich.table import Column, Table
        from rich.text import Text

        def show(value: float | None) -> str:
            return "–" if value is None else f"{value:.4g}"

        width = max(
            (len(s.name) for s in self.scores), default=5
        )  # a name states its protocol: never cut
        table = Table(
            Column("score", min_width=width),
            "value",
            "±",
            "real",
            "untrained",
            "better",
            title=title,
        )
        for s in self.scores:
            half = None if s.low is None or s.high is None else (s.high - s.low) / 2
            table.add_row(
                s.name,
                Text(show(s.value), style="bold"),
                show(half),
                show(s.floor),
                show(s.ceiling),
                s.better,
            )
        table.caption = (
            f"{self.n} images; ±: 95 %; features: {self.extractor}, hash {self.extractor_hash}"
        )
        return table


def _share(values: Tensor) -> Pair:
    """Mean and half width; for a mean the bootstrap's width has a closed form."""
    return float(values.mean()), 1.96 * float(values.std() / len(values) ** 0.5)


def wilson(rate: float, n: int) -> tuple[float, float]:
    """95 % interval of a rate seen in n trials (Wilson 1927), which says something at 0 and at 1 too."""
    z2 = 1.96**2
    middle, half = rate + z2 / (2 * n), 1.96 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low, high = (
        round((middle + side) / (1 + z2 / n), 15) for side in (-half, half)
    )  # or 0 of n begins at 1e-19
    return max(0.0, low), min(1.0, high)


class Evaluator:
    """Scores generated images against `data` (prepared ImageData or alike).

    With 1,000 held-out images or more the reference is the held-out set, and images of the training set give the floor.
    Otherwise, as for a few hundred photographs, the training photographs are cut in two halves: half of the generated
    images are measured against each and the two results are averaged, and the floor is one half of the photographs
    against the other. So score and floor always have as many images on either side, and compare.
    """

    def __init__(
        self,
        data: Any,
        features: Any = None,
        num_images: int | None = None,
        cache_dir: str | Path = "data/cache",
        seed: int = 0,
        inception_weights: str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        data.prepare()
        self.data, self.cache_dir, self.seed = data, Path(cache_dir), seed
        self.extractor = shared_extractor(features, data, cache_dir, inception_weights).to(device)
        train, held = (
            len(data.train_images),
            0 if data.holdout_images is None else len(data.holdout_images),
        )
        order = torch.randperm(
            train, generator=torch.Generator().manual_seed(0)
        )  # the same reference for every seed
        self.folds: list[
            tuple[tuple[Any, Tensor], tuple[Any, Tensor]]
        ]  # (reference, other reals) as (store, rows)
        if held >= 1000:
            rows = torch.randperm(held, generator=torch.Generator().manual_seed(0))[:LARGEST]
            self.folds = [((data.holdout_images, rows), (data.train_images, order[: len(rows)]))]
        else:
            half = min(train, LARGEST) // 2
            a, b = (data.train_images, order[:half]), (data.train_images, order[half : 2 * half])
            self.folds = [(a, b), (b, a)]
        self.limit = sum(min(len(rows), len(others)) for (_, rows), (_, others) in self.folds)
        if not self.limit:
            raise UserError(
                f"no score: {SMALLEST} real images are needed to compare with, there is {train}"
            )
        self.num_images = min(num_images or self.limit, self.limit)
        self._yardsticks: dict[tuple[str, str], float] = {}
        self._known: dict[int, tuple[tuple[Tensor, Tensor], Tensor]] = {}

    # -- features and projections of the reals, computed once ----------------------------------------------------------

    def _features(self, store: Any, rows: Tensor) -> Tensor:
        return features_of(self.extractor, self.data, store, rows, self.cache_dir)

    @cached_property
    def scale(self) -> Tensor:
        """What every feature (D,) is divided by: its mean deviation over the reals, for extractors that ask for it."""
        if not self.extractor.scaled:
            return torch.ones(1)
        seen = torch.cat([self._features(*reference) for reference, _ in self.folds])
        deviation = (seen - seen.mean(0)).abs().mean(0)
        return deviation.clamp_min(
            0.1 * float(deviation.median())
        )  # one that is dead in the reals would rule

    # -- scores --------------------------------------------------------------------------------------------------------

    def evaluate(
        self,
        fakes: Tensor,
        ceiling_fakes: Tensor | Callable[[int], Tensor] | None = None,
        light: bool = False,
    ) -> Scores:
        """Scores of uint8 images (n, C, H, W); n at most `limit`, the rest is left out.

        `ceiling_fakes`: images of an untrained generator, or a function of their number. `light`: without resampled
        intervals and the search for copies, as during training. UserError for another shape.
        """
        shape = tuple(self.data.train_images.shape[1:])
        if fakes.dtype != torch.uint8 or tuple(fakes.shape[1:]) != shape:
            raise UserError(
                f"images to score must be uint8 {shape} like the data's, not {fakes.dtype} {tuple(fakes.shape[1:])}"
            )
        n = min(len(fakes), self.limit) // len(self.folds) * len(self.folds)
        result = Scores(self.extractor.name, self.extractor.hash, n)
        if n < SMALLEST:
            what = "images to score" if len(fakes) < self.limit else "real images to compare with"
            result.warnings.append(
                f"no score: {n} {what} are too few, {SMALLEST} are needed for a number that means anything"
            )
            return result
        if len(fakes) < 1000:
            result.warnings.append(
                f"n = {n}: compare only with scores of the same n, and look at the interval"
            )
        label = f"{n // 1000}k" if n % 1000 == 0 else str(n)
        values = self._measure(fakes[:n], light)
        floors = self._yardstick(f"floor{label}", lambda: self._measure(None, True, n))
        ceilings: dict[str, float] = {}
        if ceiling_fakes is not None:

            def ceiling() -> dict[str, Pair]:
                images = ceiling_fakes(n) if callable(ceiling_fakes) else ceiling_fakes
                return self._measure(images[:n], True)

            ceilings = self._yardstick(f"ceiling{label}", ceiling)
        for name, (value, half) in values.items():
            low, high = (None, None) if half is None else (value - half, value + half)
            better = "lower" if name.startswith(("frechet", "fid", "kid")) else "higher"
            result.scores.append(
                Score(
                    f"{name}_{label}",
                    value,
                    low,
                    high,
                    floors.get(name),
                    ceilings.get(name),
                    n,
                    better,
                )
            )
        if hasattr(self.extractor, "probabilities"):
            result.details["class_histogram"] = self._histogram(self.extractor(fakes[:n])).tolist()
        if not light:
            self._add_copies(fakes[: min(n, 500)], result)
        return result

    def _yardstick(self, key: str, measure: Callable[[], dict[str, Pair]]) -> dict[str, float]:
        """Measured once per protocol and n, as neither the reals nor the untrained generator change."""
        if not any(known == key for known, _ in self._yardsticks):
            self._yardsticks |= {(key, name): value for name, (value, _) in measure().items()}
        return {name: value for (known, name), value in self._yardsticks.items() if known == key}

    def _histogram(self, features: Tensor) -> Tensor:
        p = self.extractor.probabilities(features)  # type: ignore[operator]
        return torch.bincount(p.argmax(1), minlength=p.shape[1])

    def _measure(self, fakes: Tensor | None, quick: bool, n: int | None = None) -> dict[str, Pair]:
        """Every distance, mean of the folds; fakes None: the other reals in their place. `quick`: without intervals."""
        each = (len(fakes) if fakes is not None else n or 0) // len(self.folds)
        found: list[dict[str, Pair]] = []
        for number, (reference, others) in enumerate(self.folds):
            if fakes is None:
                x = self._features(others[0], others[1][:each])
            else:
                x = self.extractor(fakes[number * each : (number + 1) * each])
            found.append(
                self._distances(
                    number, self._features(*reference) / self.scale, x / self.scale, quick
                )
            )
        out = {}
        for name in found[0]:
            pairs = [f[name] for f in found]
            halves = [half for _, half in pairs if half is not None]
            half = (
                math.sqrt(sum(h * h for h in halves)) / len(pairs)
                if len(halves) == len(pairs)
                else None
            )
            out[name] = (sum(v for v, _ in pairs) / len(pairs), half)
        return out

    def _distances(self, fold: int, real: Tensor, x: Tensor, quick: bool) -> dict[str, Pair]:
        name = self.extractor.name
        if fold not in self._known:  # what distances need of the reals does not change
            self._known[fold] = D.gaussian(real), D.radii(real)
        gaussian, radius = self._known[fold]

        def frechet(index: Tensor | None = None) -> float:
            return D.frechet_of(gaussian, D.gaussian(x if index is None else x[index]))

        mean, std = D.kid(real, x, subsets=10 if quick else 30)
        size = min(
            1000, len(real) // 2, len(x) // 2
        )  # what kid's subsets come to; the error falls with the root of n
        wide = real.shape[1] > 1000  # resampling a Frechet distance of 2,048 features takes minutes
        half = None if quick or wide else D.bootstrap(frechet, len(x))
        out: dict[str, Pair] = {
            "fid" if name == "inception" else f"frechet_{name}": (frechet(), half),
            f"kid_{name}": (mean, 1.96 * std * math.sqrt(size / len(x))),
        }
        terms = D.prdc_terms(real, x, radius_real=radius)
        return out | {f"{term}_{name}": _share(values) for term, values in terms.items()}

    # -- copies --------------------------------------------------------------------------------------------------------

    @cached_property
    def _training_set(self) -> tuple[Tensor, Tensor]:
        """Small quiet pixels (N, P) and features (N, D) of the training images among which copies are looked for."""
        rows = torch.arange(len(self.data.train_images))[:MOST]
        quiet = torch.cat([D.quiet(self.data.train_images[part]) for part in rows.split(1024)])
        return to_float(quiet).flatten(1), self._features(self.data.train_images, rows) / self.scale

    def _closeness(self, images: Tensor, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `_piece_closeness`, a few images at a time: each is seen in 18 versions."""
        rows = torch.arange(len(images)).split(64)
        parts = [
            self._piece_closeness(images[i], None if exclude is None else exclude[i]) for i in rows
        ]
        return torch.cat([near for near, _ in parts], 1), torch.cat([where for _, where in parts])

    def _piece_closeness(self, images: Tensor, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        """Relative nearest-training distance in pixels and in features (2, Q), and the nearest in pixels (Q,).

        The feature distance is that of the version, mirrored or shifted, whose pixels came closest.
        """
        pixels, features = self._training_set
        versions = list(D.views(images))
        seen_small = [to_float(D.quiet(v)).flatten(1) for v in versions]
        near, where, which = D.relative_nearest(seen_small, pixels, exclude=exclude)
        aligned = torch.stack(versions)[which, torch.arange(len(images))]
        seen = [self.extractor(v) / self.scale for v in (images, aligned)]
        return torch.stack([near, D.relative_nearest(seen, features, exclude=exclude)[0]]), where

    def _calibrated(self) -> dict[str, Tensor]:
        """Scale (2, 1) of pixel and feature distances, threshold, rates of held-outs and of planted copies."""

        def calibrate() -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(0)
            train, held = self.data.train_images, self.data.holdout_images
            rows = torch.randperm(min(len(train), MOST), generator=generator)[:300]
            planted = self._closeness(planted_copies(train[rows], generator))[0]
            if held is None:
                others = self._closeness(train[rows], rows)[0]
            else:
                others = self._closeness(
                    held[torch.randperm(len(held), generator=generator)[:300]]
                )[0]
            scale = planted.quantile(0.99, dim=1, keepdim=True).clamp_min(1e-6)
            a, b = ((d / scale).amax(0) for d in (planted, others))
            threshold = D.copy_threshold(a, b)
            rates = torch.tensor([(d < threshold).float().mean() for d in (b, a)])
            return {"scale": scale, "threshold": torch.tensor(threshold), "rates": rates}

        path = (
            self.cache_dir
            / f"copies-{self.data.content_hash}-{self.extractor.name}-{self.extractor.hash}.pt"
        )
        return cached(path, calibrate)

    def near_copies(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of uint8 images (N, C, H, W): closeness to the nearest training image, below 1 = near-copy; which one.

        Both its pixels and its features must be closer than the calibrated bound, which finds photographs with
        noise, shifted or mirrored, while at most 5 % of held-out photographs fall below it.
        """
        bound = self._calibrated()
        closeness, where = self._closeness(images)
        return (closeness / bound["scale"]).amax(0) / bound["threshold"], where

    def _add_copies(self, fakes: Tensor, result: Scores) -> None:
        bound = self._calibrated()
        closeness, where = self.near_copies(fakes)
        rate = float((closeness < 1).double().mean())
        held, planted = bound["rates"].tolist()
        floor = None if self.data.holdout_images is None else held
        name = f"near_copies_{self.extractor.name}_{len(fakes)}"
        result.scores.append(
            Score(name, rate, *wilson(rate, len(fakes)), floor, planted, len(fakes), "lower")
        )
        order = closeness.argsort()[:16]
        result.details["nearest"] = {"sample": order.tolist(), "photograph": where[order].tolist()}
        if planted < 0.95:
            result.warnings.append(
                f"near-copies are hard to tell here: {planted:.0%} of planted ones are found"
            )


def planted_copies(images: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 training images as a copying generator would give them: 5 % noise, every other one mirrored and shifted."""
    step = max(1, round(min(images.shape[2:]) / 64))
    moved = torch.roll(images.flip(3), (step, step), (2, 3))
    mixed = torch.where((torch.arange(len(images)) % 2 == 0)[:, None, None, None], images, moved)
    return (
        (mixed + 12.75 * torch.randn(mixed.shape, generator=generator))
        .round()
        .clamp(0, 255)
        .to(torch.uint8)
    )


def copies_strip(fakes: Tensor, train: Any, nearest: Tensor, columns: int = 4) -> Tensor:
    """uint8 picture (C, H', W'): each of at most 16 samples (n, C, H, W) with its nearest of `train` on its right.

    `train`: tensor or store (N, C, H, W); `nearest` (n,): its rows.
    """
    pairs = torch.cat([fakes[:16], train[nearest[:16]]], 3)  # (n, C, H, 2W)
    return pictures.grid(pairs, columns, 255)


def save_strip(path: Path, scores: Scores, fakes: Tensor, data: Any) -> None:
    """The closest samples beside their photographs, as a PNG; nothing where the copies were not searched."""
    if "nearest" not in scores.details:
        return
    chosen, photographs = (
        torch.tensor(scores.details["nearest"][key]) for key in ("sample", "photograph")
    )
    pictures.save(copies_strip(fakes[chosen], data.train_images, photographs), path)


# -- command line ------------------------------------------------------------------------------------------------------


def evaluate_cli(
    path: str,
    data: str,
    data_root: str | None,
    features: str | None,
    num_images: int | None,
    as_json: bool,
    trust: str | None,
    cache_dir: str = "data/cache",
    inception_weights: str | None = None,
    truncation: float = 1.0,
    reject: float = 0.0,
    out: str | None = None,
) -> int:
    """`gan-lightning evaluate`: scores a checkpoint or a folder of images of any program; UserError for bad input."""
    import contextlib
    import sys

    from gan_lightning.sampling import PLAIN, Sampler, build_trusted, load_generator

    noise = {"truncation": truncation, "reject": reject}
    options: dict[str, Any] = {"device": "cuda" if torch.cuda.is_available() else "cpu"}
    options["inception_weights"] = inception_weights
    with contextlib.redirect_stdout(
        sys.stderr
    ):  # what is said on the way must not get into the JSON
        where = Path(path)
        if where.is_dir():
            for name, value in noise.items():
                if value != PLAIN[name]:
                    raise UserError(
                        f"--{name} {value:g} is for checkpoints: the images in {path} are made already"
                    )
            real = _real_data(data, data_root, {}, cache_dir)
            evaluator = Evaluator(real, features, num_images, cache_dir, **options)
            fakes, ceiling = _folder(where, real, evaluator.num_images), _stand_in
        else:
            sampler = load_generator(path, trust)
            real = _real_data(data, data_root, sampler.config.get("dataset", {}), cache_dir)
            evaluator = Evaluator(real, features, num_images, cache_dir, **options)
            labels = (
                class_labels(real.train_labels, evaluator.num_images)
                if sampler.num_classes
                else None
            )
            fakes = sampler.images(evaluator.num_images, evaluator.seed, labels, **noise)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(evaluator.seed)
                fresh = (
                    build_trusted(sampler.config["network"]["generator"], trust)
                    .to(sampler.device)
                    .eval()
                )
            untrained = Sampler(fresh, sampler.config, sampler.device, False)

            def ceiling(n: int, like: Any) -> Tensor:
                return untrained.images(n, 0, None if labels is None else labels[:n])

        # a run goes on with other features; here that would answer another question
        if features not in (None, evaluator.extractor.name):
            raise UserError(f"--features {features} cannot be used here, for the reason above")
        scores = evaluator.evaluate(fakes, lambda n: ceiling(n, real))
        if where.is_dir():
            scores.warnings.append(
                "untrained: a folder brings no generator, so grey images with faint noise stand for one"
            )
        picture = Path(out) if out else _pictures_of(where)
        picture /= "nearest_photographs.png"
        try:
            save_strip(picture, scores, fakes, real)
        except OSError as error:
            scores.warnings.append(f"{picture} could not be written: {error.strerror}")
    if as_json:
        print(json.dumps(scores.as_dict()))
        return 0
    terminal = console()
    terminal.print(scores.table(f"{path} against {data}"))
    for warning in scores.warnings:
        terminal.print(f"note: {warning}")
    if "nearest" in scores.details and picture.is_file():
        terminal.print(f"samples beside their nearest photographs: {picture}")
    return 0


def _pictures_of(checkpoint: Path) -> Path:
    """The run's own folder of pictures where a checkpoint lies in a run, else samples/: never beside somebody's images."""
    run = checkpoint.absolute().parent.parent
    return (
        run / "images"
        if checkpoint.is_file() and (run / "config.yaml").is_file()
        else Path("samples")
    )


def class_labels(known: Tensor | None, n: int) -> Tensor | None:
    """n labels, each class as often as in the data; None where the data have none."""
    if known is None:
        return None
    return known[torch.randint(len(known), (n,), generator=torch.Generator().manual_seed(0))]


def _stand_in(n: int, data: Any) -> Tensor:
    """What most untrained generators give: grey with faint noise."""
    noise = torch.randn(
        (n, *data.train_images.shape[1:]), generator=torch.Generator().manual_seed(0)
    )
    return to_uint8(0.08 * noise)


TORCHVISION = {
    "mnist": ("MNIST", 28, 1),
    "fashion_mnist": ("FashionMNIST", 28, 1),
    "cifar10": ("CIFAR10", 32, 3),
}


def _real_data(name: str, root: str | None, settings: dict[str, Any], cache_dir: str) -> Any:
    """ImageData by name or folder, in the shape a checkpoint was trained on, else 64 pixels or the set's own."""
    from gan_lightning.data.loader import ImageData
    from gan_lightning.data.sources import EggImages, FolderImages, TorchvisionImages

    keep = ("image_size", "image_channels", "fit", "background", "holdout")
    options = {"cache_dir": cache_dir} | {
        key: settings[key] for key in keep if settings.get(key) is not None
    }
    source: Any
    if name in TORCHVISION:
        dataset, size, channels = TORCHVISION[name]
        source, options = (
            TorchvisionImages(dataset, root or "data"),
            {"image_size": size, "image_channels": channels} | options,
        )
    elif name == "egg":
        source = EggImages(root or EggImages.DEFAULT_ROOT)
    else:
        trained_on = os.path.abspath(
            os.path.expanduser(settings.get("root") or "")
        )  # compared, never opened
        same = bool(settings.get("root")) and trained_on == os.path.abspath(
            os.path.expanduser(name)
        )
        source = FolderImages(
            name, bool(settings.get("labels")) and same
        )  # another folder need not have classes
    real = ImageData(source, shrink_batch=True, **options)
    real.prepare()
    return real


def _folder(path: Path, real: Any, most: int) -> Tensor:
    """Up to `most` images of a folder as uint8 (n, C, H, W) in the shape of `real`, spread evenly over the folder."""
    from gan_lightning.data.loader import ImageData
    from gan_lightning.data.sources import FolderImages

    source = FolderImages(
        str(path), without=("grid.png", "interpolation.png", "interpolation.gif")
    )  # ours, of many
    _, channels, height, width = real.train_images.shape
    if source.typical_size() != (height, width):
        size = "x".join(map(str, source.typical_size()))
        print(
            f"{path}: images of {size} pixels are resized to {height}x{width}, the size of the real ones"
        )
    made = ImageData(
        source,
        (height, width),
        channels,
        fit="stretch",
        holdout=0,
        cache_dir=str(real.cache_dir),
        shrink_batch=True,
    )
    made.prepare()
    n = min(most, len(made.train_images))
    return made.train_images[torch.arange(n) * len(made.train_images) // n]
