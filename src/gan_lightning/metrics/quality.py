"""Scores during training: a Lightning callback that measures, logs, keeps the best checkpoint, and may end the run."""

import time
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from gan_lightning.data.images import to_uint8
from gan_lightning.errors import UserError
from gan_lightning.files import match, untrusted, write_json
from gan_lightning.metrics.evaluate import (
    SMALLEST,
    Evaluator,
    Score,
    Scores,
    class_labels,
    save_strip,
)
from gan_lightning.ranges import AtLeast0, Count, Features, File, Folder, Kimg

BATCH = 64  # samples at once


class Quality(Callback):
    """Scores `module.sample` every `every_kimg` and at the end of the run; every argument is a key of conf/metrics.

    `every_kimg` null: about ten times a run. `num_images` null: as many as the reference allows, in training at most
    2,000. Measuring takes at most `max_share` of the time since training began: where it would take more, fewer images
    are scored, and one line says so. `patience`: end the run after so many evaluations without a gain; null: never.

    `history` holds one dict per evaluation: nimg, name, value, floor, ceiling, n, seconds, scores (name without n ->
    value). `best` is its entry with the smallest value above the floor, whose checkpoint is checkpoints/best.ckpt.
    """

    def __init__(
        self,
        every_kimg: Kimg | None = None,
        num_images: Annotated[int, Interval(ge=50, le=10**9)] | None = None,
        features: Features | None = None,
        max_share: AtLeast0 = 0.1,
        patience: Count | None = None,
        inception_weights: File | None = None,
        cache_dir: Folder = "data/cache",
    ) -> None:
        if num_images is not None and num_images < SMALLEST:
            raise UserError(
                f"metrics.num_images={num_images}: {SMALLEST} or more are needed for a score that means anything"
            )
        self.every_kimg, self.num_images, self.features = every_kimg, num_images, features
        self.max_share, self.patience, self.inception_weights, self.cache_dir = (
            max_share,
            patience,
            inception_weights,
            cache_dir,
        )
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.final: Score | None = None
        self.ceilings: dict[str, Any] = {}
        self.evaluator: Evaluator | None = None
        self.next_nimg: int | None = None
        self.stale = 0  # evaluations since the best
        self.elapsed = self.spent = self.cost = (
            0.0  # seconds: training in earlier parts of the run; measuring; per image
        )
        self.untrained: Tensor | None = None
        self.images = 0  # how many are scored now
        self.off = False

    # -- state ---------------------------------------------------------------------------------------------------------

    ENTRY = {
        "nimg": int, "name": str, "value": float, "floor": (float, None), "ceiling": (float, None), "n": int,
        "seconds": float, "scores": {str: float},
    }  # fmt: skip
    KEPT = {
        "history": [ENTRY], "best": (ENTRY, None), "next_nimg": (int, None), "stale": int, "spent": float, "cost": float,
        "images": int, "ceilings": {str: float},
    }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.KEPT} | {"elapsed": self._now()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with untrusted("the checkpoint's history of scores"):
            state = match(state_dict, self.KEPT | {"elapsed": float}, "it")
        self.history, self.best, self.next_nimg = (
            state["history"],
            state["best"],
            state["next_nimg"],
        )
        self.stale, self.spent, self.cost = state["stale"], state["spent"], state["cost"]
        self.images, self.ceilings, self.elapsed = (
            state["images"],
            state["ceilings"],
            state["elapsed"],
        )

    def objective(self) -> float | None:
        """The best main score so far above what real images get, lower = better: what a search minimises.

        Above the floor, as scores of fewer images are higher and their floor is too. None where nothing could be measured;
        the score at the end where the run was too short for any before.
        """
        if self.best:
            return _excess(self.best)
        return _excess(vars(self.final)) if self.final else None

    # -- Lightning -----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._began = time.monotonic()
        every = self.every_kimg
        if every is None:
            total = (module.config.get("total_kimg") or 0) * 1000  # type: ignore[union-attr, operator]
            epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else 10
            every = (total or epochs * len(trainer.datamodule.train_images)) / 10_000  # type: ignore[attr-defined]
        self._every = max(1, round(every * 1000))
        if self.next_nimg is None:
            self.next_nimg = int(module.nimg) + self._every  # type: ignore[arg-type]
        if trainer.is_global_zero and not module.nimg:
            # whatever is asked for later fits in; enough for a yardstick that is far away in any case
            self.untrained = self._sample(module, min(self.num_images or 2000, 2000))
        if trainer.is_global_zero and any(
            isinstance(callback, Timer) for callback in trainer.callbacks
        ):
            try:  # what is made once (a classifier of digits) before the clock runs
                self._ready(trainer, module)
            except Exception as problem:
                self._turn_off(problem)
        self.off = trainer.strategy.broadcast(
            self.off
        )  # or the others would wait for a score that never comes

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        if self.off or module.nimg < self.next_nimg:  # type: ignore[operator]
            return
        self.next_nimg = int(module.nimg) + self._every  # type: ignore[arg-type]
        gained = stop = False
        if trainer.is_global_zero:
            gained = self._evaluate(trainer, module)
            stop = self.patience is not None and self.stale >= self.patience
        gained, stop, self.off = trainer.strategy.broadcast((gained, stop, self.off))
        if gained:  # on every rank, as saving is a joint act
            module.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "best.ckpt")  # type: ignore[operator]
        if stop:
            if trainer.is_global_zero:
                print(
                    f"metrics: no gain in {self.patience} evaluations (metrics.patience), the run ends here"
                )
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero and not self.off:
            self._finish(trainer, module)
        trainer.strategy.barrier()

    # -- measuring, on rank 0 ------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """Seconds of training so far, measuring included, earlier parts of a resumed run too."""
        return self.elapsed + time.monotonic() - getattr(self, "_began", time.monotonic())

    def _sample(self, module: Any, n: int) -> Tensor:
        """uint8 (n, C, H, W) from fixed noise; leaves every random state as it was."""
        generator = torch.Generator().manual_seed(0)
        devices = [module.device] if module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            z = torch.randn(n, module.latent_dim, generator=generator)
            labels = (
                class_labels(module.trainer.datamodule.train_labels, n)
                if module.num_classes
                else None
            )
            parts = [
                to_uint8(
                    module.sample(
                        z[i : i + BATCH], None if labels is None else labels[i : i + BATCH]
                    )
                ).cpu()
                for i in range(0, n, BATCH)
            ]
        return torch.cat(parts)

    def _ready(self, trainer: Any, module: Any) -> Evaluator:
        """The evaluator; building it, and measuring the reals, happens once and does not count for the cap."""
        if self.evaluator is None:
            start = time.monotonic()
            options = {"inception_weights": self.inception_weights, "device": module.device}
            self.evaluator = Evaluator(
                trainer.datamodule, self.features, self.num_images, self.cache_dir, **options
            )
            limit, began = self.evaluator.num_images, time.monotonic()
            self.images = self.images or min(limit, 2000)
            if limit >= SMALLEST and self.untrained is not None and not self.ceilings:
                first = self.evaluator.evaluate(self.untrained, light=True)
                self.ceilings = {s.name.rpartition("_")[0]: s.value for s in first.scores}
                # half of it went into the reals: what the first evaluation will cost, before one has been timed
                self.cost = self.cost or (time.monotonic() - began) / len(self.untrained) / 2
            self._began += time.monotonic() - start
        return self.evaluator

    def _affordable(self, n: int, spare: float) -> int:
        """n, halved until measuring it takes less than `spare` seconds, but no fewer than 100; one line says so."""
        fewer = n
        while self.cost and fewer * self.cost > spare and fewer // 2 >= 2 * SMALLEST:
            fewer //= 2
        if fewer < n:
            print(
                f"metrics: scoring {fewer} images, not {n}, to stay within {self.max_share:.0%} of the training time"
            )
        return fewer

    def _score(self, trainer: Any, module: Any, n: int, light: bool) -> tuple[Scores, Tensor]:
        """Scores and the n samples they are of; the untrained generator is measured again only at the end."""
        evaluator = self._ready(trainer, module)
        began = time.monotonic()
        fakes = self._sample(module, n)
        scores = evaluator.evaluate(fakes, None if light else self.untrained, light)
        seconds = time.monotonic() - began
        self.spent += seconds
        if light:
            self.cost = seconds / n
        for warning in scores.warnings if not light or not scores.scores else ():
            print(f"metrics: {warning}")
        return scores, fakes

    def _evaluate(self, trainer: Any, module: Any) -> bool:
        """One evaluation during training; True where it is the best so far."""
        try:
            self._ready(trainer, module)
            spare = self.max_share * self._now() - self.spent
            self.images = self._affordable(self.images, spare)
            if self.cost and self.images * self.cost > spare:
                print(
                    f"metrics: no time for even {self.images} images within {self.max_share:.0%} yet, scored later"
                )
                return False
            began = time.monotonic()
            scores, _ = self._score(trainer, module, self.images, light=True)
        except Exception as problem:  # a score must never end a run
            self._turn_off(problem)
            return False
        if scores.main is None:
            self.off = True
            return False
        self._log(trainer, module, scores)
        main = scores.main
        ceiling = self.ceilings.get(main.name.rpartition("_")[0])
        recall = next(
            (f", recall {s.value:.2f}" for s in scores.scores if s.name.startswith("recall")), ""
        )
        yardsticks = "".join(
            f", {who} {x:.4g}"
            for who, x in (("real", main.floor), ("untrained", ceiling))
            if x is not None
        )
        print(
            f"images {module.nimg:,}  {main.name} {main.value:.4g}{recall}  ({yardsticks.removeprefix(', ')})",
            flush=True,
        )
        entry = {
            "nimg": int(module.nimg),
            "name": main.name,
            "value": main.value,
            "floor": main.floor,
            "ceiling": ceiling,
        }
        entry |= {"n": main.n, "seconds": round(time.monotonic() - began, 2)}
        self.history.append(
            entry | {"scores": {s.name.rpartition("_")[0]: s.value for s in scores.scores}}
        )
        # above the floor, as the floor falls with n, and n may be halved on the way
        gained = self.best is None or _excess(self.history[-1]) < _excess(self.best)
        if gained:
            self.best = self.history[-1]
        self.stale = 0 if gained else self.stale + 1
        return gained

    def _turn_off(self, problem: Exception) -> None:
        print(f"metrics: off for this run: {_first_line(problem)}", flush=True)
        self.off = True

    def _log(self, trainer: Any, module: Any, scores: Scores) -> None:
        values = {f"metric/{s.name}": s.value for s in scores.scores}
        values |= {f"metric/{s.name}_floor": s.floor for s in scores.scores if s.floor is not None}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=int(module.nimg))

    def _finish(self, trainer: Any, module: Any) -> None:
        """All scores of the finished run, to RUN_DIR/scores.json, and the samples that come closest to photographs."""
        try:
            evaluator = self._ready(trainer, module)
            spare = (
                max(self.max_share * self._now() - self.spent, 0.0) / 3
            )  # all scores take about thrice the time
            n = (
                self._affordable(evaluator.num_images, spare)
                if self.cost
                else min(evaluator.num_images, 500)
            )
            scores, fakes = self._score(trainer, module, n, light=False)
        except Exception as problem:
            print(f"metrics: no scores at the end: {_first_line(problem)}")
            return
        self.final = scores.main
        for i, s in enumerate(scores.scores):
            if s.ceiling is None:
                values = {**s.__dict__, "ceiling": self.ceilings.get(s.name.rpartition("_")[0])}
                scores.scores[i] = type(s)(**values)
        self._log(trainer, module, scores)
        root = Path(trainer.default_root_dir)
        text = scores.as_dict() | {
            "nimg": int(module.nimg),
            "best": self.best,
            "history": self.history,
        }
        write_json(root / "scores.json", text)
        save_strip(root / "images" / "nearest_photographs.png", scores, fakes, trainer.datamodule)


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def _excess(entry: dict[str, Any]) -> float:
    return entry["value"] - (entry["floor"] or 0.0)
