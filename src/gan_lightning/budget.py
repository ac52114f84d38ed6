"""When a run is looked at, and how much of its time that may take."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

SNAPSHOTS = 20  # in a run, where nothing else is asked for
MINUTE = 60.0
HEAD_START = 0.15  # of the budget that may be spent before the run has earned it
END = 0.3  # of the budget that is kept for the end
# of what has been earned, where not everything fits every time: for pictures, diagnosis, scores
PARTS = {"picture": 0.2, "signals": 0.5, "score": 0.3}


class Budget:
    """Seconds for snapshots, pictures, the best checkpoint and the end, out of the training's.

    `fraction` of the training time of a run of a minute or more; a shorter one may spend up to
    twice that, as its end costs the same.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self.before = 0.0  # seconds spent so far, but for
        self.now: Callable[[], float] = float  # what is being spent now,
        self.since: float | None = None  # from when
        self.earlier = 0.0  # seconds of training in earlier parts of the run
        self.start(0.0)

    def start(self, progress: float) -> None:
        """Training begins, or goes on, at this fraction of the run."""
        self.began, self.at_start, self.first = time.perf_counter(), self.spent, progress

    @property
    def spent(self) -> float:
        return self.before + self.now()

    @property
    def trained(self) -> float:
        """Seconds of training in this part of the run, looking at it left out."""
        until = time.perf_counter() if self.since is None else self.since
        return max(1e-3, until - self.began - (self.before - self.at_start))

    def whole(self, progress: float) -> float:
        """Seconds of training that the whole run will take, from how far it has come."""
        ahead = 1 - max(progress, self.first)
        rate = self.trained / max(progress - self.first, 1e-9) if progress > self.first else 0.0
        return self.earlier + self.trained + rate * ahead

    def allowed(self, seconds: float) -> float:
        """Out of so many seconds of training."""
        return self.fraction * min(2 * seconds, max(MINUTE, seconds))

    def left(self, progress: float) -> float:
        """Seconds that may be spent now: what the run has earned, but for what the end takes."""
        part = (1 - END) * (HEAD_START + (1 - HEAD_START) * progress)
        return part * self.allowed(self.whole(progress)) - self.spent

    def at_end(self) -> float:
        return max(0.0, self.allowed(self.earlier + self.trained) - self.spent)

    @contextmanager
    def spending(self, device: torch.device, kept: Callable[[], float] = float) -> Iterator[None]:
        """What is done within counts, but for the seconds by which `kept` grows meanwhile."""
        _wait(device)  # else waiting for the training's own kernels would count
        self.since = began = time.perf_counter()
        first = kept()
        self.now = lambda: time.perf_counter() - began - (kept() - first)
        try:
            yield
        finally:
            _wait(device)
            self.began += kept() - first
            self.before, self.now, self.since = self.spent, float, None

    @property
    def fraction_spent(self) -> float:
        """Spent so far, of the time so far."""
        return self.spent / max(self.spent + self.earlier + self.trained, 1e-9)

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent, "trained": self.earlier + self.trained}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.before, self.earlier = state["spent"], state["trained"]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Plan(NamedTuple):
    """What a snapshot makes: a picture, images for the diagnosis, images for scores."""

    picture: bool = False
    images: int = 0
    scored: int = 0


class Costs:
    """Seconds that a picture, an image of the signals and one of a score take, and what each
    took."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}  # as last measured
        self.spent: dict[str, float] = {}

    def took(self, kind: str, seconds: float, count: int = 1) -> None:
        self.rates[kind] = seconds / max(1, count)
        self.spent[kind] = self.spent.get(kind, 0.0) + seconds

    def of(self, plan: Plan) -> float:
        picture, signals, score = (self.rates.get(kind, 0.0) for kind in PARTS)
        return plan.picture * picture + plan.images * signals + plan.scored * score

    def affordable(self, plan: Plan, earned: float, left: float, first: str | None = None) -> Plan:
        """What of the plan its own part of the earned seconds pays for, and what is left of all.

        A kind whose cost is not known yet is tried; `first` may take all that is left.
        """
        chosen = Plan()
        for kind, field in sorted(
            zip(PARTS, Plan._fields, strict=True), key=lambda k: k[0] != first
        ):
            alone = Plan(**{field: getattr(plan, field)})
            own = left if kind == first else PARTS[kind] * earned - self.spent.get(kind, 0.0)
            if self.of(alone) <= min(own, left - self.of(chosen)):
                chosen = chosen._replace(**{field: getattr(plan, field)})
        return chosen


class SnapshotCadence:
    """`every_kimg` thousand images between two snapshots; 0: each epoch; None: 20 parts of the run.

    The parts follow the run's progress, in images or by the clock, whichever ends it.
    """

    def __init__(self, every_kimg: float | None) -> None:
        self.every_kimg, self.per_epoch = every_kimg, every_kimg == 0
        self.next_nimg = 0  # images shown at which the next one is, by parts an estimate
        self.mark = 1  # the part of the run at whose end

    def start(self, module: Any, images: int) -> None:
        """`images`: of an epoch."""
        planned = module.planned_nimg or 10 * images
        kimg = planned / 1000 / SNAPSHOTS if self.every_kimg is None else self.every_kimg
        self.every = max(1, round(kimg * 1000)) if kimg else 1000
        self.count = planned / (images if self.per_epoch else self.every)
        self.move(module)

    def move(self, module: Any) -> None:
        """To the next one."""
        self.next_nimg = (module.nimg // self.every + 1) * self.every
        if self.every_kimg is None and module.progress:
            self.mark = math.floor(module.progress * SNAPSHOTS) + 1
            self.next_nimg = round(module.nimg * self.mark / SNAPSHOTS / module.progress)

    def due(self, trainer: Any, module: Any, nimg: int) -> bool:
        """After so many images; the same on every rank."""
        if self.per_epoch:
            return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
        if self.every_kimg is None and module.progress:
            ahead = nimg / max(1, module.nimg)
            return module.progress * ahead * SNAPSHOTS >= self.mark
        return nimg >= self.next_nimg
