"""The one callback that looks at a run: pictures, scores, diagnosis and the best checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from torch import Tensor

from gan_lightning import interrupt
from gan_lightning.album import Album
from gan_lightning.budget import Budget, Costs, Plan, SnapshotCadence
from gan_lightning.diagnosis.signals import Symptoms
from gan_lightning.diagnosis.watch import TrainingDiverged, Watch
from gan_lightning.errors import UserError, first_line
from gan_lightning.files import match, untrusted
from gan_lightning.folder import moment_name
from gan_lightning.measure.features import build_extractor
from gan_lightning.measure.scoring import Scoring
from gan_lightning.measure.snapshot import FEW, GRID, IMAGES, YOUNG, Moment, Reals, untouched
from gan_lightning.ranges import AtLeast0, Cadence, Features, Folder, Seed

# discriminator steps of the first snapshots, for the diagnosis alone
EARLY = 25, 50, 100, 200, YOUNG
SIZES = IMAGES, IMAGES // 2, FEW  # images of each kind that the diagnosis looks at, as time allows
UNTRAINED = GRID  # images of the untrained generator that are scored
ONCE = 0.1  # of the training time, for the first search for near-copies in a data set
SLOW = 10.0  # seconds of a snapshot from which on last.ckpt is written before it


class Observer(Callback):
    """Takes snapshots on one cadence within one time budget. Arguments are keys of conf/observer.

    `every_kimg`: thousand images between two snapshots, 0: after every epoch, null: 20 in a run.
    `max_fraction`: see `Budget`; a snapshot is made smaller, and put off, until it fits. `metrics`,
    `diagnosis`: their blocks, or empty ones. `pictures`: further picture makers. Reals are measured
    before training begins, once for a data set, which does not count.
    """

    STATE = {
        "rates": {str: float},
        "spent": {str: float},
        "longest": float,
        "budget": {"spent": float, "trained": float},
        "metrics": (dict, None),
        "diagnosis": (dict, None),
    }

    def __init__(
        self,
        every_kimg: Cadence | None = None,
        max_fraction: AtLeast0 = 0.05,
        metrics: Mapping[str, Any] | Scoring | None = None,
        diagnosis: Mapping[str, Any] | Watch | None = None,
        features: Features | None = None,
        pictures: Mapping[str, Any] | None = None,
        cache_dir: Folder = "data/cache",
        seed: Seed = 0,
    ) -> None:
        self.cadence = SnapshotCadence(every_kimg)
        self.features, self.cache_dir, self.seed = features, Path(cache_dir), seed
        self.budget = Budget(max_fraction)
        self.scoring: Scoring | None = _built(metrics)
        self.watch: Watch | None = _built(diagnosis)
        self.album = Album({name: _built(block) for name, block in (pictures or {}).items()})
        self.reals: Reals | None = None
        self.symptoms: Symptoms | None = None
        self.costs = Costs()
        self.longest = 0.0  # seconds of a snapshot
        self.step = 0  # before the batch
        self.begun = False

    # -- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "rates": self.costs.rates,
            "spent": self.costs.spent,
            "longest": self.longest,
            "budget": self.budget.state_dict(),
            "metrics": self.scoring and self.scoring.state_dict(),
            "diagnosis": self.watch and self.watch.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with untrusted("the checkpoint's state of the observer"):
            state = match(state_dict, self.STATE, "it")
        self.costs.rates, self.costs.spent = state["rates"], state["spent"]
        self.longest = state["longest"]
        self.budget.load_state_dict(state["budget"])
        for part, name in ((self.scoring, "metrics"), (self.watch, "diagnosis")):
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])

    def objective(self) -> float | None:
        """What a search minimises; see `Scoring.objective`."""
        return self.scoring.objective() if self.scoring else None

    @property
    def score(self) -> str:
        """The last main score in words, for the progress bar."""
        last = self.scoring.history[-1:] if self.scoring else ()
        return "".join(f"{entry['name'].rpartition('_')[0]} {entry['value']:.3g}" for entry in last)

    @property
    def next_nimg(self) -> int | None:
        """When a snapshot is due that takes long, for whoever keeps the last checkpoint fresh."""
        return self.cadence.next_nimg if self.longest > SLOW else None

    # -- Lightning -------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.folder, self.step, self.begun = Path(trainer.default_root_dir), module.step, False
        self.album.begin(trainer)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.cadence.start(module, len(data.train_images))
        first = self.folder / "images" / "real_images.png"
        self.first: list[Tensor] | None = [] if self.watch or not first.exists() else None
        self.first_picture = not first.exists()
        if trainer.is_global_zero:
            self._prepare(data, module)
        # or the others would wait for a score that never comes
        off = trainer.strategy.broadcast(self.scoring is not None and self.scoring.off)
        if self.scoring is not None:
            self.scoring.off = off
        self.budget.start(module.progress)

    def _prepare(self, data: Any, module: Any) -> None:
        """Measures the reals, before the clock of trainer.max_time runs."""
        if self.scoring is None and self.watch is None:
            return
        try:
            self.reals = None  # not those of an earlier fit
            weights = self.scoring.inception_weights if self.scoring else None
            extractor = build_extractor(self.features, data, self.cache_dir, weights)
            with self._spending(module), untouched(module):
                self.reals = Reals(data, extractor.to(module.device), self.cache_dir)
                self.symptoms = Symptoms(self.reals) if self.watch else None
                if self.scoring:
                    self.scoring.begin(self.reals)
                    self._untrained(module)
        except UserError:
            raise
        except Exception as problem:
            self._turn_off(problem)
            if self.symptoms is None:
                self.watch = None

    def _untrained(self, module: Any) -> None:
        """Ceilings, and with them what scoring an image takes."""
        assert self.scoring is not None and self.reals is not None
        if self.scoring.off or module.nimg:
            return
        count, before = min(UNTRAINED, self.scoring.limit), self.budget.spent
        self.scoring.untrained(Moment(module, self.reals, 0, count, self.seed))
        self.costs.rates["score"] = (self.budget.spent - before) / count

    @contextmanager
    def _spending(self, module: Any) -> Iterator[None]:
        """What is done within counts, but for what is computed once for a data set and kept."""
        with self.budget.spending(module.device, lambda: self.reals.once if self.reals else 0.0):
            yield

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        self.step = module.step
        if not trainer.is_global_zero:
            return
        ahead = self._due_next(trainer, module, images)
        if self.begun and self.first is None and not ahead:
            return  # the clock of the budget would wait for a GPU
        with self._spending(module):
            if self.watch and self.symptoms and not self.begun:
                self.watch.begin(trainer, module, images, self.symptoms)
            self.begun = True
            if self.first is not None:
                self._first(trainer, module, images)
            if self.watch and ahead:
                self.watch.remember(module)

    def _due_next(self, trainer: Any, module: Any, images: Tensor) -> bool:
        """Whether the weights before this batch are wanted: something is looked at after it."""
        if self.watch is None or self.watch.before is not None:
            return False
        size = getattr(trainer.datamodule, "batch_size", None) or len(images)
        steps = max(-(-len(images) // size), module.n_critic)
        nimg = module.nimg + steps * size * trainer.world_size
        return self._due(trainer, module, self.step + steps, nimg)

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        regular = self.cadence.due(trainer, module, module.nimg)
        due = self._due(trainer, module, module.step, module.nimg)
        if self.watch:
            with self.budget.spending(torch.device("cpu")):  # not to wait for a GPU at every step
                self.watch.check(trainer, module, due)
        gained = stop = False
        if due and trainer.is_global_zero:
            with self._spending(module):
                gained = self._evaluate(trainer, module, regular)
            stop = self._stale()
        if not regular:
            return
        self.cadence.move(module)
        gained, stop = trainer.strategy.broadcast((gained, stop))
        if gained:  # on every rank, as saving is a joint act
            with self._spending(module):
                module.save_checkpoint(self.folder / "checkpoints" / "best.ckpt")
        if stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        if trainer.is_global_zero and self.begun:
            with self._spending(module):
                self._end(trainer, module)
        trainer.strategy.barrier()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        """The verdict after Ctrl-C and a fatal finding; other errors have the screen alone."""
        if trainer.is_global_zero and self.watch and self.begun and not self.watch.done:
            loud = isinstance(exception, KeyboardInterrupt | TrainingDiverged)
            self.watch.verdict(trainer, module, ended=False, quiet=not loud)

    # -- when and how much -----------------------------------------------------------------------

    def _due(self, trainer: Any, module: Any, step: int, nimg: int) -> bool:
        """Something is looked at between the step before this batch and this one."""
        watched = self.watch is not None and (self.watch.due(self.step, step) or self._early(step))
        return watched or self.cadence.due(trainer, module, nimg)

    def _early(self, step: int) -> bool:
        return any(self.step < early <= step for early in EARLY)

    def _plan(self, seconds: float, picture: bool) -> Plan:
        """As much as can be done within so many seconds, or the least."""
        signals = self.costs.rates.get("signals", 0.0)
        images = 0
        if self.watch:
            fitting = (size for size in SIZES if signals and size * signals <= seconds / 2)
            images = next(fitting, SIZES[-1])
        plan = Plan(picture, images)
        if self.scoring and not self.scoring.off:
            ahead, each = seconds - self.costs.of(plan), self.costs.rates.get("score", 0.0)
            plan = plan._replace(scored=self.scoring.fewer(ahead, each))
        return plan

    def _wanted(self, module: Any, regular: bool) -> Plan:
        """What is made now; on the cadence by parts where not everything fits every time."""
        progress = module.progress or 1.0  # a run without a planned end is always whole
        left = self.budget.left(progress)
        if not regular:
            early = Plan(images=SIZES[-1] if self.watch and self._early(module.step) else 0)
            return early if self.costs.of(early) <= left else Plan()
        each = 0.7 * self.budget.allowed(self.budget.whole(progress)) / self.cadence.count
        plan = self._plan(each, picture=True)
        if self.costs.of(plan) > min(each, left):
            first = None
            if self.watch and self.watch.undecided:  # scores can wait, the end has some
                first, plan = "signals", plan._replace(scored=0)
            plan = self.costs.affordable(plan, left + self.budget.spent, left, first)
        return plan._replace(picture=plan.picture or self.cadence.per_epoch)  # the note's, always

    # -- looking ---------------------------------------------------------------------------------

    def _evaluate(self, trainer: Any, module: Any, regular: bool) -> bool:
        """What is due after a step, on rank 0; True where the scores are the best so far."""
        record = self.watch.light(module) if self.watch else {}
        plan = self._wanted(module, regular)
        gained = any(plan) and self._snapshot(trainer, module, record, plan)
        if self.watch and record:
            self.watch.add(record, self.budget.fraction_spent)
        return gained

    def _snapshot(self, trainer: Any, module: Any, record: dict[str, Any], plan: Plan) -> bool:
        began = now = time.perf_counter()
        moment = self._moment(module, plan.images, plan.scored)
        gained = False

        def took(kind: str, count: int = 1) -> None:
            nonlocal now
            before, now = now, time.perf_counter()
            self.costs.took(kind, now - before, count)

        with untouched(module), trainer.precision_plugin.forward_context():  # as fast as training
            if plan.picture:
                self.album.draw(moment, self._name(trainer, module.nimg))
                took("picture")
            if plan.images and self.watch:
                self.watch.full(trainer, module, record, moment)
                took("signals", plan.images // (1 + moment.young))  # later ones take twice as long
            if plan.scored and self.scoring:
                try:
                    gained = self.scoring.take(trainer, moment, time.perf_counter() - now)
                except Exception as problem:  # a score must never end a run
                    self._turn_off(problem)
                took("score", plan.scored)
        self.longest = max(self.longest, now - began)
        if gained:
            entry: Any = self.scoring and self.scoring.best
            if self.watch:
                self.watch.write({"kind": "score", **entry})
        return gained

    def _moment(self, module: Any, images: int, scored: int) -> Moment:
        ceilings = self.scoring.ceilings if self.scoring else None
        return Moment(module, self.reals, images, scored, self.seed, ceilings)

    def _stale(self) -> bool:
        patience = self.scoring.patience if self.scoring else None
        if not self.scoring or patience is None or self.scoring.stale < patience:
            return False
        said = f"no gain in {patience} evaluations (metrics.patience), the run ends here"
        print(f"metrics: {said}")
        return True

    def _turn_off(self, problem: Exception) -> None:
        print(f"metrics: off for this run: {first_line(problem)}", flush=True)
        if self.scoring:
            self.scoring.off = True

    # -- the end ---------------------------------------------------------------------------------

    def _end(self, trainer: Any, module: Any) -> None:
        """One picture and the signals, however small; all scores, as many images as fit."""
        left = self.budget.at_end()
        plan = self._plan(left / 2, picture=False)
        cost = self.costs.of(plan._replace(scored=0))
        scoring = self.scoring if self.scoring and not self.scoring.off else None
        scored, each = 0, self.costs.rates.get("score", 0.0)
        if scoring:
            scored = scoring.limit
            while scored * each > max(0.0, left - cost) / 2 and scored // 2 >= 2 * FEW:
                scored //= 2
        moment = self._moment(module, plan.images, scored)
        with untouched(module), trainer.precision_plugin.forward_context():
            if self.album.drawn != module.nimg:
                self.album.draw(moment, moment_name(module.nimg, 1))
            if self.first and self.first_picture:  # a run of fewer than 64 images
                self.album.keep("real", torch.cat(self.first), "real_images", module.nimg)
            if self.watch:
                self._last_snapshot(trainer, module, moment)
            if scoring:
                try:
                    # once for a data set, and so beside the budget
                    beside = max(left, ONCE * self.budget.trained)
                    fits = scoring.copies.unknown() * each <= beside
                    scoring.finish(trainer, moment, self.budget.at_end(), fits)
                    rows = scoring.copies.rows
                    if moment.reals.has(moment.reals.data.train_images, rows):
                        self.album.beside(moment, rows)
                except Exception as problem:
                    print(f"metrics: no scores at the end: {first_line(problem)}")
        self.album.film()
        if self.watch:
            self.watch.verdict(trainer, module, ended=not interrupt.asked())

    def _last_snapshot(self, trainer: Any, module: Any, moment: Moment) -> None:
        assert self.watch is not None
        last = self.watch.records[-1] if self.watch.records else {}
        if last.get("step") == module.step and last.get("kind") == "full":
            return
        record = self.watch.light(module)
        self.watch.full(trainer, module, record, moment)
        self.watch.add(record, self.budget.fraction_spent)

    # -- pictures --------------------------------------------------------------------------------

    def _first(self, trainer: Any, module: Any, images: Tensor) -> None:
        """Keeps the first images shown: for a picture, and to compare them with the stored ones."""
        assert self.first is not None
        wanted = GRID
        if self.watch and self.reals:
            wanted = min(GRID, len(self.reals.data.train_images))
        self.first.append(images.detach().float().cpu())
        if sum(map(len, self.first)) < wanted:
            return
        seen, self.first = torch.cat(self.first)[:wanted], None
        if self.first_picture:
            self.album.keep("real", seen, "real_images", module.nimg)
        if self.watch:
            self.watch.compare(seen)

    def _name(self, trainer: Any, nimg: int) -> str:
        if self.cadence.per_epoch:
            return f"epoch_{trainer.current_epoch + 1:04d}"
        return moment_name(nimg, self.cadence.every if self.cadence.every_kimg else 1)


def _built(block: Any) -> Any:
    """What a `_target_` block stands for; what is built already stays, an empty one is None."""
    if not isinstance(block, Mapping):
        return block
    return instantiate(block, _convert_="all") if "_target_" in block else None
