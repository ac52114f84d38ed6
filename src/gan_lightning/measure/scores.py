"""Scores of a snapshot, beside what reals and an untrained generator would get."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from gan_lightning.errors import UserError
from gan_lightning.measure import distances as D
from gan_lightning.measure.copies import Copies
from gan_lightning.measure.snapshot import Reals, Snapshot

SMALLEST = 50  # images; below, every distance's sampling error is as large as what it measures
Pair = tuple[float, float | None]  # value, half width of its 95 % interval


@dataclass(frozen=True)
class Score:
    """One number and its yardsticks: floor = other real images, ceiling = untrained generator.

    Of near_copies the floor is the rate of held-out photographs. `low`, `high`: 95 % interval,
    None where it was not asked for. `n`: images used.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    ceiling: float | None = None
    n: int = 0
    better: str = "lower"

    @property
    def protocol(self) -> str:
        """The name without the number of images."""
        return self.name.rpartition("_")[0]

    @property
    def excess(self) -> float:
        """Above the floor, as scores of fewer images are higher and their floor is too."""
        return self.value - (self.floor or 0.0)


MakeScore = Callable[[Snapshot], Score | Iterable[Score]]


@dataclass
class Scores:
    """All scores of one snapshot, the main one first; below 50 images none, and why."""

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

    def markdown(self) -> str:
        """A table for boards."""
        lines = ["| score | value | real | untrained | better |", "|---|---|---|---|---|"]
        for s in self.scores:
            real, untrained = ("" if x is None else f"{x:.4g}" for x in (s.floor, s.ceiling))
            lines.append(f"| {s.name} | **{s.value:.4g}** | {real} | {untrained} | {s.better} |")
        return "\n".join(lines) + f"\n\n{self.n} images, features: {self.extractor}\n"

    def table(self, title: str) -> Any:
        """A rich table for the terminal."""
        from rich.table import Column, Table
        from rich.text import Text

        def show(value: float | None) -> str:
            return "–" if value is None else f"{value:.4g}"

        # a name states its protocol: never cut
        width = max((len(s.name) for s in self.scores), default=5)
        columns = ("value", "±", "real", "untrained", "better")
        table = Table(Column("score", min_width=width), *columns, title=title)
        for s in self.scores:
            half = None if s.low is None or s.high is None else (s.high - s.low) / 2
            yardsticks = show(half), show(s.floor), show(s.ceiling)
            table.add_row(s.name, Text(show(s.value), style="bold"), *yardsticks, s.better)
        features = f"features: {self.extractor}, hash {self.extractor_hash}"
        table.caption = f"{self.n} images; ±: 95 %; {features}"
        return table


def wilson(rate: float, n: int) -> tuple[float, float]:
    """95 % interval of a rate seen in n trials (Wilson 1927)."""
    z2 = 1.96**2
    middle, half = rate + z2 / (2 * n), 1.96 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    # rounded, or 0 of n would begin at 1e-19
    low, high = (round((middle + side) / (1 + z2 / n), 15) for side in (-half, half))
    return max(0.0, low), min(1.0, high)


def evaluate(
    snapshot: Snapshot,
    seconds: float = 0.0,
    copies: Copies | None = None,
    copy_seconds: float = math.inf,
    more: Iterable[MakeScore] = (),
) -> Scores:
    """Every score of a snapshot, and `more` of others'.

    `seconds`: for resampled intervals, 0: none. `copies`: searches the first 500 fakes, for
    `copy_seconds` at most.
    """
    reals, folds = snapshot.reals, len(snapshot.reals.folds)
    given, n = len(snapshot.fakes), min(len(snapshot.fakes), reals.limit) // folds * folds
    result = Scores(reals.extractor.name, reals.extractor.hash, n)
    if n < SMALLEST:
        what = "images to score" if given < reals.limit else "real images to compare with"
        needed = f"{SMALLEST} are needed for a number that means anything"
        result.warnings.append(f"no score: {n} {what} are too few, {needed}")
        return result
    if given < 1000:
        same = "compare only with scores of the same n, and mind the interval in the report"
        result.warnings.append(f"n = {n}: {same}")
    result.scores += distances(snapshot, n, seconds)
    if copies is not None:
        _add_copies(result, copies, snapshot.fakes[: min(n, 500)], copy_seconds)
    for score in more:
        found = score(snapshot)
        result.scores += [found] if isinstance(found, Score) else found
    return result


def distances(snapshot: Snapshot, n: int, seconds: float = 0.0) -> list[Score]:
    """Fréchet distance, KID, precision, density, recall, coverage of the first n fakes."""
    reals, label = snapshot.reals, f"{n // 1000}k" if n % 1000 == 0 else str(n)
    values = _measured(reals, snapshot.features[:n], n, seconds)
    floors = reals.kept(
        f"floor{label}", lambda: {name: v for name, (v, _) in _measured(reals, None, n).items()}
    )
    found = []
    for name, (value, half) in values.items():
        low, high = (None, None) if half is None else (value - half, value + half)
        better = "lower" if name.startswith(("frechet", "fid", "kid")) else "higher"
        yardsticks = floors.get(name), snapshot.ceilings.get(name)
        found.append(Score(f"{name}_{label}", value, low, high, *yardsticks, n, better))
    return found


def _measured(reals: Reals, x: Tensor | None, n: int, seconds: float = 0.0) -> dict[str, Pair]:
    """Every distance of features (n, F), the mean of the folds; None: of other reals."""
    each, found = n // len(reals.folds), []
    for number, fold in enumerate(reals.folds):
        store, rows = fold.others
        part = slice(number * each, (number + 1) * each)
        y = reals.features(store, rows)[:each] if x is None else x[part]
        found.append(_against(reals, number, y, seconds / len(reals.folds)))
    return {name: _mean([pairs[name] for pairs in found]) for name in found[0]}


def _mean(pairs: list[Pair]) -> Pair:
    halves = [half for _, half in pairs if half is not None]
    half = math.hypot(*halves) / len(pairs) if len(halves) == len(pairs) else None
    return sum(value for value, _ in pairs) / len(pairs), half


def _against(reals: Reals, fold: int, x: Tensor, seconds: float) -> dict[str, Pair]:
    """Every distance of features (n, F) to one fold's reference."""
    name = reals.extractor.name
    real, normal, radius = reals.known(fold)

    def frechet(rows: Tensor) -> float:
        return D.frechet_of(normal, D.gaussian(x[rows]))

    wide = real.shape[1] > 1000  # resampling a Fréchet distance of 2,048 features takes minutes
    half = D.bootstrap(frechet, len(x), seconds=seconds) if seconds and not wide else None
    mean, std = D.kid(real, x, subsets=30 if seconds else 10)
    # what kid's subsets come to; the error falls with the root of n
    size = min(1000, len(real) // 2, len(x) // 2)
    found: dict[str, Pair] = {
        "fid" if name == "inception" else f"frechet_{name}": (frechet(torch.arange(len(x))), half),
        f"kid_{name}": (mean, 1.96 * std * math.sqrt(size / len(x))),
    }
    for term, v in D.prdc_terms(real, x, radius_real=radius).items():
        # for a mean the bootstrap's width has a closed form
        found[f"{term}_{name}"] = float(v.mean()), 1.96 * float(v.std() / len(v) ** 0.5)
    return found


def _add_copies(result: Scores, copies: Copies, fakes: Tensor, seconds: float) -> None:
    closeness, where = copies.near(fakes, seconds)
    n, rate = len(closeness), float((closeness < 1).double().mean())
    held, planted = copies.calibrated["rates"].tolist()
    floor = None if copies.data.holdout_images is None else held
    name = f"near_copies_{result.extractor}_{n}"
    result.scores.append(Score(name, rate, *wilson(rate, n), floor, n=n))
    order = closeness.argsort()[:16]
    result.details["nearest"] = {"sample": order.tolist(), "photograph": where[order].tolist()}
    if planted < 0.95:
        hard = f"{planted:.0%} of copies planted as a test are found, so few found say little"
        result.warnings.append(f"near-copies are hard to tell here: {hard}")


def must_compare(reals: Reals) -> None:
    """Raises UserError where there are too few real images for any score."""
    if not reals.limit:
        needed = f"{SMALLEST} real images are needed to compare with"
        have = len(reals.data.train_images)
        raise UserError(f"no score: {needed}, there is {have}")
