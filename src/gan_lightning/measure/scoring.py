"""Scores of a run as it goes on: their history and the best so far."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from hydra.utils import instantiate

from gan_lightning import boards, pictures
from gan_lightning.files import match, untrusted, write_json
from gan_lightning.measure.copies import Copies, copies_strip
from gan_lightning.measure.scores import SMALLEST, Score, Scores, evaluate
from gan_lightning.measure.snapshot import Moment, Reals
from gan_lightning.ranges import Count, File, checked

USUAL = 2000  # fakes scored while a run goes on, where time and reals allow
POINTS = 128  # of each kind in a projector
FEWEST = 100  # below half as many again no score is halved


class Scoring:
    """What is known of a run's scores. Every argument is a key of conf/metrics.

    `history`: an ENTRY per evaluation; `best`: that of checkpoints/best.ckpt.
    """

    ENTRY = {
        "nimg": int,
        "name": str,
        "value": float,
        "floor": (float, None),
        "ceiling": (float, None),
        "n": int,
        "seconds": float,
        "scores": {str: float},  # by name without n
    }
    STATE = {
        "history": [ENTRY],
        "best": (ENTRY, None),
        "stale": int,
        "images": int,
        "ceilings": {str: float},
    }

    @checked
    def __init__(
        self,
        num_images: Annotated[int, Interval(ge=SMALLEST, le=10**9)] | None = None,
        patience: Count | None = None,
        inception_weights: File | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.num_images, self.patience = num_images, patience
        self.inception_weights, self.more = inception_weights, more or {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.final: Score | None = None
        self.ceilings: dict[str, float] = {}
        self.stale = 0  # evaluations since the best
        self.images = 0  # how many are scored now
        self.limit = 0
        self.off = False

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with untrusted("the checkpoint's history of scores"):
            vars(self).update(match(state, self.STATE, "it"))

    def objective(self) -> float | None:
        """What a search minimises: the best main score, or the last one, above what reals get."""
        if self.best:
            return _excess(self.best)
        return self.final.excess if self.final else None

    def begin(self, reals: Reals) -> None:
        """What the data allow; off, with one line, where there are too few reals for any score."""
        self.limit = min(self.num_images or reals.limit, reals.limit)
        if self.limit < SMALLEST:
            few = f"{reals.limit} real images to compare with are too few"
            print(f"metrics: no score: {few}, {SMALLEST} are needed for one that means anything")
            self.off = True
        self.images = min(self.images or USUAL, self.limit)
        more = self.more.values()
        self.others = [instantiate(x) if isinstance(x, Mapping) else x for x in more]
        self.copies = Copies(reals)

    def fewer(self, seconds: float, each: float) -> int:
        """From now on so few images that scoring takes `seconds`, at `each` per image."""
        while self.images * each > seconds and self.images // 2 >= FEWEST:
            self.images //= 2
        return self.images

    def untrained(self, moment: Moment) -> None:
        """The ceilings: what a generator that has learnt nothing gets."""
        self.ceilings = {s.protocol: s.value for s in self._evaluate(moment).scores}

    def _evaluate(self, moment: Moment, **options: Any) -> Scores:
        return evaluate(moment, more=self.others, **options)

    def take(self, trainer: Any, moment: Moment, seconds: float) -> bool:
        """Scores a snapshot that took `seconds` so far; True where it is the best."""
        began = time.perf_counter()
        found = self._evaluate(moment)
        main = found.main
        if main is None:
            print(f"metrics: {found.warnings[0]}")
            self.off = True
            return False
        log(trainer, moment.nimg, found)
        print(self._line(moment.nimg, found, main), flush=True)
        self.history.append(
            {
                "nimg": int(moment.nimg),
                "name": main.name,
                "value": main.value,
                "floor": main.floor,
                "ceiling": main.ceiling,
                "n": main.n,
                "seconds": round(seconds + time.perf_counter() - began, 2),
                "scores": {s.protocol: s.value for s in found.scores},
            }
        )
        gained = self.best is None or _excess(self.history[-1]) < _excess(self.best)
        if gained:
            self.best = self.history[-1]
        self.stale = 0 if gained else self.stale + 1
        return gained

    def _line(self, nimg: int, found: Scores, main: Score) -> str:
        recalls = (s.value for s in found.scores if s.name.startswith("recall"))
        recall = next((f", recall {value:.2f}" for value in recalls), "")
        pairs = ("real", main.floor), ("untrained", main.ceiling)
        yardsticks = ", ".join(f"{who} {x:.4g}" for who, x in pairs if x is not None)
        return f"images {nimg:,}  {main.name} {main.value:.4g}{recall}  ({yardsticks})"

    def finish(self, trainer: Any, moment: Moment, seconds: float, fits: bool) -> None:
        """All scores of the finished run, to scores.json, and its samples closest to photographs.

        `seconds`: for intervals and near-copies; `fits`: the search for these can be prepared.
        """
        copies, third = self.copies if fits else None, max(0.3, seconds) / 3
        options = {"seconds": min(2.0, third), "copies": copies, "copy_seconds": third}
        found = self._evaluate(moment, **options)
        if copies is None:
            late = "not searched, to stay within the time for looking at the run"
            found.warnings.append(f"near-copies: {late}; gan-lightning evaluate does")
        for warning in found.warnings:
            print(f"metrics: {warning}")
        self.final = found.main
        known = ((s, s.ceiling or self.ceilings.get(s.protocol)) for s in found.scores)
        found.scores = [replace(s, ceiling=ceiling) for s, ceiling in known]
        log(trainer, moment.nimg, found)
        boards.show_text(trainer, "2 scores", found.markdown(), moment.nimg)
        _show_samples(trainer, moment)
        root = Path(trainer.default_root_dir)
        course = {"nimg": int(moment.nimg), "best": self.best, "history": self.history}
        write_json(root / "scores.json", found.as_dict() | course)
        strip = root / "images" / "nearest_photographs.png"
        save_strip(strip, found, moment.fakes, moment.reals.data)


def _excess(entry: dict[str, Any]) -> float:
    return entry["value"] - (entry["floor"] or 0.0)


def log(trainer: Any, nimg: int, scores: Scores) -> None:
    values = {f"metric/{s.name}": s.value for s in scores.scores}
    values |= {f"metric/{s.name}_floor": s.floor for s in scores.scores if s.floor is not None}
    for logger in trainer.loggers:
        logger.log_metrics(values, step=int(nimg))


def _show_samples(trainer: Any, moment: Moment) -> None:
    """Samples and other real images, by the features that scores are made of."""
    store, rows = moment.reals.folds[0].others
    features = moment.reals.features(store, rows)[:POINTS]
    count = min(POINTS, len(moment.fakes))
    boards.show_samples(
        trainer,
        torch.cat([features, moment.features[:count]]),
        torch.cat([store[rows[: len(features)]], moment.fakes[:count]]),
        ["real"] * len(features) + ["generated"] * count,
    )


def save_strip(path: Path, scores: Scores, fakes: torch.Tensor, data: Any) -> None:
    """The closest samples beside their photographs; nothing where no copies were searched."""
    if "nearest" in scores.details:
        near = scores.details["nearest"]
        chosen, rows = (torch.tensor(near[key]) for key in ("sample", "photograph"))
        pictures.save(copies_strip(fakes[chosen], data.train_images, rows), path)
