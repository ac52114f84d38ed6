"""The callback: measures while a run goes on, says once what changes, ends a run that cannot go on, gives the verdict."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from gan_lightning.data.images import to_float, to_uint8
from gan_lightning.diagnosis import signals as s
from gan_lightning.diagnosis import words
from gan_lightning.diagnosis.findings import Finding, diagnose, preflight
from gan_lightning.diagnosis.history import RECORD, History, Thresholds
from gan_lightning.diagnosis.parts import parts
from gan_lightning.diagnosis.rules import RULES, add_rules
from gan_lightning.diagnosis.verdict import judge, plain, show, write
from gan_lightning.ema import batch_norms
from gan_lightning.errors import UserError
from gan_lightning.files import append_text, match, untrusted, write_text
from gan_lightning.metrics.distances import precision_recall_density_coverage
from gan_lightning.metrics.features import Extractor, features_of, shared_extractor
from gan_lightning.ranges import AtLeast0, Count, Features, Folder, Modules

EARLY = (
    25,
    50,
    100,
    200,
    400,
)  # discriminator steps at which images are looked at, whatever it costs
KEPT = 1000  # records of a kind that are kept in memory and checkpoints; beyond, every second of the older half goes


class TrainingDiverged(UserError):
    """A loss, weight or pixel is no longer a number; the message names the first bad tensor and the step."""


class Watch(Callback):
    """Looks at a GAN every `light_every` (losses, gradients, weights) and `full_every` (images) discriminator steps.

    Its own time is measured and kept under `max_share` of the run's, by looking less often; the records say so. It draws
    from own generators, restores every mode and buffer, and so leaves a run the same to the bit as without it.
    Records go to RUN_DIR/signals.jsonl as they come; RUN_DIR is the Trainer's `default_root_dir` unless given.
    """

    def __init__(
        self,
        thresholds: dict[str, Thresholds],
        rules: Modules = (),
        language: Literal["en", "ko"] = "en",
        light_every: Count = 100,
        full_every: Count = 500,
        max_share: AtLeast0 = 0.05,
        stop_on_fatal: bool = True,
        images: Count = 256,
        feature_images: Count = 64,
        features: Features | None = None,
        cache_dir: Folder = "data/cache",
    ) -> None:
        words.known(language)
        for module in rules:
            add_rules(module)
        self.thresholds = {name: dict(values) for name, values in thresholds.items()}
        self.language, self.light_every, self.full_every = (
            language,
            light_every,
            max(full_every, light_every),
        )
        self.max_share, self.stop_on_fatal = max_share, stop_on_fatal
        self.images, self.feature_images = images, min(images, feature_images)
        self.features, self.cache_dir = features, cache_dir
        self.records: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.findings: list[Finding] = []
        self.said: dict[str, bool] = {}  # finding: is it resolved
        self.data = ""  # what it was trained on: what follows means nothing for other images
        self.mean: list[float] = []  # the fakes' mean feature at the last look
        self.counts: list[list[float]] = []  # fakes per mode at the last looks
        self.scores = self.next_full = 0
        self.spent, self.cost, self.began, self.done = 0.0, 0.0, 0.0, False
        self.probe: Probe | None = None
        self.first: list[Tensor] | None = (
            None  # the first images shown, until they are compared with the stored ones
        )
        self.before: tuple[int, dict[str, list[Tensor]]] | None = None
        self.bad_pixel: str | None = None
        self.step = 0

    # -- Lightning ---------------------------------------------------------------------------------------------------

    KEPT = {
        "records": [RECORD], "said": {str: bool}, "data": str, "mean": [float], "counts": [[float]], "scores": int,
        "next_full": int,
    }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with untrusted("the checkpoint's history of the diagnosis"):
            state = match(state_dict, self.KEPT, "it")
        self.records, self.said, self.data = state["records"], state["said"], state["data"]
        self.mean, self.counts = state["mean"], state["counts"]
        self.scores, self.next_full = state["scores"], state["next_full"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began, self.spent, self.cost, self.done, self.probe = (
            time.perf_counter(),
            0.0,
            0.0,
            False,
            None,
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero and (self.probe is None or self.first is not None):
            images = batch[0] if isinstance(batch, (tuple, list)) else batch
            if self.probe is None:
                self._begin(trainer, pl_module, images)
            self._compare(images)
        advance, self.step = max(1, pl_module.step - self.step), pl_module.step
        if (
            self.before is None
            and trainer.is_global_zero
            and self._due(self.step, self.step + max(advance, pl_module.n_critic))
        ):
            self.before = (
                self.step,
                {"d": s.weights(pl_module.discriminator), "g": s.weights(pl_module.generator)},
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._due(self.step, pl_module.step)
        alone_on_cpu = (
            trainer.world_size == 1 and pl_module.device.type == "cpu"
        )  # there, a look costs no synchronisation
        if due or alone_on_cpu:
            bad = self._bad(pl_module, weights=due)
            if trainer.world_size > 1 and self.stop_on_fatal:
                if (
                    trainer.strategy.reduce_boolean_decision(bad is not None, all=False)
                    and bad is None
                ):
                    bad = "a tensor on another process"
            if bad is not None:
                self._fatal(trainer, pl_module, bad)
        if not due or not trainer.is_global_zero:
            return
        began = self._now(pl_module)
        record = self._light(pl_module)
        step = pl_module.step
        early = any(self.step < e <= step for e in EARLY)
        affordable = self.spent + self.cost <= self.max_share * (began - self.began)
        if early or (step >= self.next_full and affordable):
            self._full(trainer, pl_module, record, began)
        else:
            self._add(trainer, pl_module, record, began)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero or self.probe is None:
            return
        if not any(r["step"] == pl_module.step and r["kind"] == "full" for r in self.records[-2:]):
            began = self._now(pl_module)
            just = (
                self.records.pop()
                if self.records and self.records[-1]["step"] == pl_module.step
                else {}
            )
            self._full(trainer, pl_module, just | self._light(pl_module), began)
        self.facts["ended"] = True
        self._append({"kind": "facts", "ended": True})
        self._verdict(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """The verdict after Ctrl-C and after a fatal finding too; other errors keep the screen for themselves."""
        if trainer.is_global_zero and self.probe is not None and not self.done:
            self._verdict(
                trainer,
                pl_module,
                quiet=not isinstance(exception, (KeyboardInterrupt, TrainingDiverged)),
            )

    # -- the looks ---------------------------------------------------------------------------------------------------

    def _due(self, before: int, now: int) -> bool:
        """A light look is due between two step counts; from the steps alone, so that every process agrees."""
        return before // self.light_every != now // self.light_every or any(
            before < e <= now for e in EARLY
        )

    def _now(self, module: LightningModule) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(
                module.device
            )  # else waiting for the training's own kernels would count as ours
        return time.perf_counter()

    def _begin(self, trainer: Any, module: Any, batch: Tensor) -> None:
        began = self._now(module)
        with _untouched(module):
            data = trainer.datamodule
            extractor = shared_extractor(self.features, data, self.cache_dir).to(module.device)
            self.probe = Probe(
                module, data, extractor, self.images, self.feature_images, self.cache_dir
            )
        self.first = []
        data = getattr(trainer.datamodule, "content_hash", "")
        if self.data != data:
            self.data, self.mean, self.counts = data, [], []
        real = batch.detach().float()
        nets = {"g": module.generator, "d": module.discriminator}
        self.facts = {
            "kind": "facts",
            "config": module.config,
            "thresholds": self.thresholds,
            **self.probe.facts,
            **parts(module, getattr(trainer.datamodule, "source", None)),
        }
        self.facts |= {
            "real_min": float(real.min()),
            "real_max": float(real.max()),
            "real_mean": float(real.mean()),
        }
        if len(real) >= 64:  # else the first batches together have to say, in `_compare`
            self.facts["mean_image"] = s.agreement(real, self.probe.train)
        self.facts |= {
            "channels": real.shape[1],
            "shape": list(real.shape[1:]),
            "world_size": trainer.world_size,
        }
        self.facts["batch_size"] = min(
            len(real), getattr(trainer.datamodule, "batch_size", None) or len(real)
        )
        self.facts["mean_error"] = self.probe.facts["mean_error"] / math.sqrt(len(real))
        self.facts |= {f"batchnorm_{side}": bool(batch_norms(net)) for side, net in nets.items()}
        self.facts |= {
            f"params_{side}": sum(p.numel() for p in net.parameters()) for side, net in nets.items()
        }
        self.folder = Path(trainer.default_root_dir)
        path = self.folder / "signals.jsonl"
        kept = (
            bool(self.records) and path.is_file() and not path.is_symlink()
        )  # the same run's, up to its checkpoint
        if not kept:
            write_text(path, "")
        for line in (self.facts, *(() if kept else self.records)):
            self._append(line)
        for finding in preflight(self.facts, self.thresholds):
            more = f" [{finding.override}]" if finding.override else ""
            self._say(trainer, words.label("remark", self.language), finding.name, more)
            if finding.severity != "note":
                self.said[finding.name] = False
        self.spent += self._now(module) - began

    def _compare(self, batch: Tensor) -> None:
        """Of the first images that training is shown, each once: how far they are from the stored ones."""
        assert self.probe is not None and self.first is not None
        self.first.append(batch.detach().float())
        wanted = min(self.feature_images, int(self.facts["n_train"]))
        if sum(map(len, self.first)) + len(batch) <= wanted:
            return
        seen, self.first = torch.cat(self.first)[:wanted], None
        if seen.shape[1:] != self.probe.train.shape[1:]:
            return
        began = time.perf_counter()
        distance, chance = s.apart(self.probe.features(seen), self.probe.stored)
        found = {
            "seen_apart": distance,
            "seen_chance": chance,
            "mean_image": s.agreement(seen, self.probe.train),
        }
        self.facts |= found
        self._append({"kind": "facts", **found})
        self.spent += time.perf_counter() - began

    def _bad(self, module: Any, weights: bool) -> str | None:
        """The first non-finite loss or penalty and, beside it or alone, the first such weight."""
        names = [name for name in module.last if name.startswith(("loss/", "penalty/"))]
        bad = next((n for n in names if not math.isfinite(float(module.last[n].detach()))), None)
        weight = s.all_finite(module) if weights or bad else None
        return " and ".join(name for name in (bad, weight) if name) or self.bad_pixel

    def _fatal(self, trainer: Any, module: Any, bad: str) -> None:
        if trainer.is_global_zero and not (
            self.records and "bad" in self.records[-1]
        ):  # once, where the run goes on
            record = {"nimg": module.nimg, "step": module.step, "kind": "light", "bad": bad}
            self.records.append(record)
            self._append(record)
        if self.stop_on_fatal:
            kept = any((Path(trainer.default_root_dir) / "checkpoints").glob("*.ckpt"))
            raise TrainingDiverged(
                f"training has diverged: {bad} is not finite at step {module.step} ({module.nimg / 1000:g} kimg); "
                f"{'the last good checkpoint is kept, ' if kept else ''}diagnosis.md says what to change"
            )

    def _light(self, module: Any) -> dict[str, Any]:
        record = {"nimg": module.nimg, "step": module.step, "kind": "light"}
        record |= {
            name.replace("/", "_"): float(value.detach()) for name, value in module.last.items()
        }
        if module.last_logits is not None:
            record |= {
                name: float(x.mean())
                for name, x in zip(("score_real", "score_fake"), module.last_logits, strict=True)
            }
        record["lr_share"] = module.schedule.fade(module.progress)
        if self.before is not None:
            step, old = self.before
            turns = {
                "d": module.step - step,
                "g": module.step // module.n_critic - step // module.n_critic,
            }
            for side, net in (("d", module.discriminator), ("g", module.generator)):
                if turns[side]:
                    record[f"update_ratio_{side}"] = s.update_ratio(net, old[side], turns[side])
            self.before = None
        return record

    def _full(self, trainer: Any, module: Any, record: dict[str, Any], began: float) -> None:
        assert self.probe is not None
        with (
            _untouched(module),
            trainer.precision_plugin.forward_context(),
        ):  # as training computes, and as fast
            seen, mean, counts = self.probe(module, self.mean, self.counts)
        if seen is None:
            self.bad_pixel = "a pixel of the generator's images"
            if (
                trainer.world_size == 1
            ):  # else the others are told at the next look, or they would wait for this one
                self._fatal(trainer, module, self.bad_pixel)
            return
        self.mean, self.counts = mean, counts
        record |= {"kind": "full", **seen}
        step = module.step
        self.next_full = next(
            (e for e in EARLY if e > step), (step // self.full_every + 1) * self.full_every
        )
        self.records.append(record)  # so that the rules see it
        self.findings = diagnose(History(self.records, self.facts), self.thresholds)
        self.records.pop()
        self._announce(trainer, module, record)
        self.cost = self._now(module) - began
        self._add(trainer, module, record, began)

    def _add(self, trainer: Any, module: Any, record: dict[str, Any], began: float) -> None:
        now = self._now(module)
        self.spent += now - began
        previous = next((r["step"] for r in reversed(self.records) if r["kind"] == "full"), 0)
        record |= {
            "share": round(self.spent / max(now - self.began, 1e-9), 4),
            "interval": module.step - previous,
        }
        self.records.append(record)
        self._append(record)
        for score in self._scores(trainer):
            self._append(score)
        same = [i for i, r in enumerate(self.records) if r["kind"] == record["kind"]]
        if len(same) > KEPT:
            gone = set(same[1 : KEPT // 2 : 2])
            self.records = [r for i, r in enumerate(self.records) if i not in gone]

    def _scores(self, trainer: Any) -> list[dict[str, Any]]:
        """New entries of the Quality callback, where there is one: kept for reading; no rule needs them."""
        history: Any = next(
            (c.history for c in trainer.callbacks if type(c).__name__ == "Quality"), []
        )
        new, self.scores = list(history)[self.scores :], len(history)
        return [{"kind": "score", **entry} for entry in new if isinstance(entry, dict)]

    # -- saying it ---------------------------------------------------------------------------------------------------

    def _append(self, record: dict[str, Any]) -> None:
        append_text(
            self.folder / "signals.jsonl",
            json.dumps(plain(record), ensure_ascii=False, default=str) + "\n",
        )

    def _say(self, trainer: Any, when: str, name: str, more: str = "") -> str:
        """One line on the screen, above the progress bar where there is one."""
        line = f"{words.label('diagnosis', self.language)}, {when}: {RULES[name].words(self.language).title}.{more}"
        bar = trainer.progress_bar_callback
        (bar.print if bar is not None and hasattr(bar, "print") else print)(line)
        return line

    def _announce(self, trainer: Any, module: Any, record: dict[str, Any]) -> None:
        """A change in the findings, once: on the screen and as text in TensorBoard; the timeline as scalars."""
        findings = {f.name: f for f in self.findings if f.severity != "note"}
        when, lines = f"{module.nimg / 1000:.4g} kimg, ", []
        for name, f in findings.items():
            if not f.resolved and self.said.get(name) is not False:
                more = f" {RULES[name].words(self.language).why} [{f.override}]"
                lines.append(
                    self._say(trainer, when + words.label("new", self.language), name, more)
                )
        for name, gone in self.said.items():
            if not gone and (name not in findings or findings[name].resolved):
                lines.append(
                    self._say(trainer, when + words.label("resolved", self.language), name)
                )
        self.said = {name: f.resolved for name, f in findings.items()}
        values = {
            f"signal/{k}": v for k, v in record.items() if isinstance(v, float) and math.isfinite(v)
        }
        values |= {
            f"diagnosis/{name}": float(self.said.get(name) is False)
            for name, rule in RULES.items()
            if rule.symptom
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=module.nimg)
            if lines and hasattr(logger.experiment, "add_text"):
                logger.experiment.add_text("diagnosis", "\n\n".join(lines), module.nimg)

    def _verdict(self, trainer: Any, module: Any, quiet: bool = False) -> None:
        self.done = True
        verdict = judge(
            History(self.records, self.facts), self.thresholds, self.language, self.folder
        )
        write(verdict, self.folder)
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_text"):
                logger.experiment.add_text("diagnosis/verdict", verdict["summary"], module.nimg)
        if not quiet:
            show(verdict)


@contextmanager
def _untouched(module: LightningModule) -> Iterator[None]:
    """Training goes on after this as if nothing had been looked at: random states and gradient flags stay."""
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        yield


class Probe:
    """The fixed images that every full look uses, and the look itself."""

    def __init__(
        self,
        module: Any,
        data: Any,
        extractor: Extractor,
        images: int = 256,
        feature_images: int = 64,
        cache_dir: str | Path = "data/cache",
    ) -> None:
        feature_images = (
            feature_images if extractor.scaled else images
        )  # the other extractors are quick
        self.device, self.images, self.few = module.device, images, feature_images
        self.extractor, self.data, self.cache_dir, self.scale = (
            extractor,
            data,
            cache_dir,
            torch.ones(1),
        )
        train, held = data.train_images, data.holdout_images
        pick = torch.Generator().manual_seed(0)

        def some(store: Any, labels: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
            rows = torch.randperm(len(store), generator=pick)[:count]
            return to_float(store[rows].to(self.device)), None if labels is None else labels[rows]

        self.train, self.train_labels = some(train, data.train_labels, images)
        if extractor.scaled:
            known = self._seen(train, torch.randperm(len(train), generator=pick)[:1024])
            deviation = (known - known.mean(0)).abs().mean(0)
            self.scale = deviation.clamp_min(0.1 * float(deviation.median()))
        self.held: Tensor | None = None
        self.held_labels: Tensor | None = None
        if held is not None and len(held):
            self.held, self.held_labels = some(held, data.holdout_labels, images)
        self.compared = self.held if self.held is not None and len(self.held) >= 64 else self.train
        self.real = self.features(self.compared)
        self.spread = s.spread(self.real)
        # the unit of quality: what flat grey images get
        noise = torch.randn(64, *self.train.shape[1:], generator=pick).to(self.device)
        self.grey = max(s.quality(self.features(0.08 * noise), self.real), 1e-6)
        flipped = self.train.flip(-1) if getattr(data, "flip", False) else self.train
        shown = torch.cat([self.train[:feature_images:2], flipped[1:feature_images:2]])
        self.stored = self.features(shown)  # as training may show them
        # a cluster has to be large enough to be missed: a small held-out slice does not do for that
        use_held = held is not None and len(held) >= 500
        store, labels = (held, data.holdout_labels) if use_held else (train, data.train_labels)
        rows = torch.randperm(len(store), generator=pick)[:1024]
        self.reference, labels = (
            self._seen(store, rows) / self.scale,
            None if labels is None else labels[rows],
        )
        # labels are certain; clusters may be outliers, so of them nearly nothing must be there
        self.missing = (
            {"below": 0.1, "expected": 20.0}
            if labels is not None
            else {"below": 0.02, "expected": 30.0}
        )
        modes = (
            s.kmeans(self.reference, max(2, min(10, len(rows) // 10))) if labels is None else labels
        )
        self.modes = modes
        self.shares = torch.bincount(self.modes) / len(self.modes)
        self.all_train: Tensor | None = None
        if len(train) <= 2048 and self.held is not None:
            self.all_train = self._seen(train, torch.arange(len(train))) / self.scale
        real_nyquist, self.real_peak = s.nyquist(self.train)
        self.facts = {
            "mode_images": len(self.reference), "mode_labels": labels is not None, "n_train": len(train), "n_holdout": 0 if held is None else len(held), "dataset": data.name,
            "stored_mean": float(self.train.mean()), "mean_error": float(self.train.mean((1, 2, 3)).std()), "duplicates": s.duplicates(self.stored),
            "precision_real": self._precision_of_reals(), "coverage_null": s.coverage_null(len(self.real), feature_images), "saturated_real": s.saturated(self.train), "nyquist_real": real_nyquist,
            **dict(zip(("darkest_real", "brightest_real"), s.ends(self.train), strict=True)),
        }  # fmt: skip
        if data.train_labels is not None and data.holdout_labels is not None:
            counts = [
                torch.bincount(labels, minlength=data.num_classes)
                for labels in (data.train_labels, data.holdout_labels)
            ]
            shares = [c / c.sum() for c in counts]
            untrained = (shares[0] < 0.1 * shares[1]) & (
                counts[1] >= 5
            )  # classes that are held out but not trained on
            self.facts["untrained_classes"] = untrained.nonzero()[:, 0].tolist()

    def _precision_of_reals(self) -> float:
        """The share of real images that are taken for real, by the protocol of the fakes' precision."""
        a, b = (
            (self.real, self.stored)
            if self.compared is self.held
            else (self.real[::2], self.real[1::2])
        )
        return precision_recall_density_coverage(a, b)["precision"]

    @cached_property
    def held_features(self) -> Tensor:
        assert self.held is not None
        return self.real if self.compared is self.held else self.features(self.held)

    def features(self, images: Tensor) -> Tensor:
        """Of float images in [-1, 1]: (N, D) on the CPU, each divided by its mean deviation over the reals."""
        return self.extractor(to_uint8(images)) / self.scale

    def _seen(self, store: Any, rows: Tensor) -> Tensor:
        return features_of(self.extractor, self.data, store, rows, self.cache_dir)

    def _fakes(self, module: Any, z: Tensor, labels: Tensor | None, ema: bool) -> Tensor:
        parts = zip(
            z.split(64), labels.split(64) if labels is not None else [None] * len(z), strict=False
        )
        return torch.cat([module.sample(a, b, ema=ema).float() for a, b in parts])

    def _logits(self, module: Any, images: Tensor, labels: Tensor | None) -> Tensor:
        labels = labels if module.num_classes else None
        parts = zip(
            images.split(64),
            labels.split(64) if labels is not None else [None] * len(images),
            strict=False,
        )
        return torch.cat([module.score(a, b).float() for a, b in parts])

    def __call__(
        self, module: Any, mean: list[float], counts: list[list[float]]
    ) -> tuple[dict[str, float] | None, list[float], list[list[float]]]:
        """(signals or None where a pixel is not finite, the fakes' mean feature, fakes per mode at the last eight looks)."""
        draw = torch.Generator().manual_seed(
            1 + module.step
        )  # the same at the same step, whatever happened before
        z = torch.randn(self.images, module.latent_dim, generator=draw)
        labels = None
        if module.num_classes and self.train_labels is not None:
            labels = self.train_labels[
                torch.randint(len(self.train_labels), (self.images,), generator=draw)
            ]
        raw = self._fakes(module, z, labels, ema=False)
        if s.first_bad({"pixels": raw}):
            return None, mean, counts
        fake = self.features(raw[: self.few])
        real = self.real
        on_train, on_fake = (
            self._logits(module, self.train, self.train_labels),
            self._logits(module, raw, labels),
        )
        seen = {
            "quality_raw": s.quality(fake, real) / self.grey, "diversity": s.diversity(fake, real),
            "auc_train": s.auc(on_train, on_fake), "r_t": s.r_t(on_train), "score_train": float(on_train.mean()),
            "score_fakes": float(on_fake.mean()), "saturated_fake": s.saturated(raw), "saturated_real": self.facts["saturated_real"],
            "image_std": s.image_std(raw), **dict(zip(("darkest_fake", "brightest_fake"), s.ends(raw), strict=True)),
        }  # fmt: skip
        near = precision_recall_density_coverage(real, fake)
        seen |= {"precision": near["precision"], "coverage": near["coverage"]}
        seen["quality"] = seen["quality_raw"]
        if module.generator_ema is not None:
            shown = self.features(self._fakes(module, z[: self.few], labels, ema=True))
            seen["quality_ema"] = s.quality(shown, real) / self.grey
            seen["quality"] = min(seen["quality_ema"], seen["quality_raw"])
        if self.held is not None:
            on_held = self._logits(module, self.held, self.held_labels)
            seen |= {"auc_heldout": s.auc(on_held, on_fake), "auc_memory": s.auc(on_train, on_held), "r_v": s.r_v(on_train, on_held, on_fake),
                     "auc_memory_error": s.auc_error(len(on_train), len(on_held)), "score_heldout": float(on_held.mean())}  # fmt: skip
            if self.all_train is not None:
                seen["copy_ratio"] = s.copy_ratio(fake, self.held_features, self.all_train)
        seen["nyquist_fake"], peak = s.nyquist(raw)
        seen["nyquist_peak"] = peak / max(self.real_peak, 1e-12)
        if mean:
            seen["travel"] = s.travel(fake.mean(0), torch.tensor(mean), self.spread)
        counts = [*counts[-7:], s.mode_counts(fake, self.reference, self.modes).tolist()]
        missing, rarest, share = s.missing_modes(
            torch.tensor(counts).sum(0), self.shares, **self.missing
        )
        seen |= {"modes_missing": missing, "rarest_mode": float(rarest), "rarest_share": share}
        if batch_norms(module.generator):
            seen["mode_gap"] = self._mode_gap(module, z, labels, raw)
        return seen, fake.mean(0).tolist(), counts

    def _mode_gap(self, module: Any, z: Tensor, labels: Tensor | None, evaluated: Tensor) -> float:
        """Train-mode images in batches of the training's size, with copies of the buffers, so that nothing is changed."""
        net: nn.Module = module.generator
        size = max(1, min(64, int(module.config.get("dataset", {}).get("batch_size") or 64)))
        count = max(size, 64 // size * size)
        state = dict(net.named_parameters()) | {name: b.clone() for name, b in net.named_buffers()}
        modes = [(part, part.training) for part in net.modules()]
        net.train()
        parts = []
        for rows in torch.arange(min(count, len(z))).split(size):
            extra = () if labels is None else (labels[rows].to(self.device),)
            parts.append(
                torch.func.functional_call(
                    net, state, (z[rows].to(self.device, module.dtype), *extra)
                ).float()
            )
        for part, training in modes:
            part.training = training
        train = torch.cat(parts)
        return s.mode_gap(train, evaluated[: len(train)])
