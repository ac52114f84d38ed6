"""The diagnosis while a run goes on: records of what is measured, findings as they come, a
verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from gan_lightning import boards
from gan_lightning.diagnosis import signals as s
from gan_lightning.diagnosis import words
from gan_lightning.diagnosis.findings import Finding, diagnose, preflight
from gan_lightning.diagnosis.history import ENOUGH, RECORD, History, Thresholds
from gan_lightning.diagnosis.parts import parts
from gan_lightning.diagnosis.rules import RULES, add_rules
from gan_lightning.diagnosis.verdict import judge, markdown, plain, show, write
from gan_lightning.ema import batch_norms
from gan_lightning.errors import UserError
from gan_lightning.files import append_text, match, untrusted, write_text
from gan_lightning.measure.distances import permutation_test
from gan_lightning.measure.snapshot import Moment
from gan_lightning.ranges import Count, Modules

KEPT = (
    1000  # records of a kind in memory and checkpoints; beyond, every second of the older half goes
)


class TrainingDiverged(UserError):
    """A loss, weight or pixel is no longer a number; the message names the first and the step."""


class Watch:
    """What the diagnosis knows of a run. Every argument is a key of conf/diagnosis.

    Losses, gradients and weights are looked at every `light_every` discriminator steps, which takes
    no images; the rest are snapshots, handed over by the observer. Records go to
    RUN_DIR/signals.jsonl as they come.
    """

    STATE = {
        "records": [RECORD],
        "said": {str: bool},
        "data": str,
        "memory": {"mean": [float], "counts": [[float]]},
    }

    def __init__(
        self,
        thresholds: dict[str, Thresholds],
        rules: Modules = (),
        language: Literal["en", "ko"] = "en",
        light_every: Count = 100,
        stop_on_fatal: bool = True,
        show_all: bool = False,
    ) -> None:
        words.known(language)
        for module in rules:
            add_rules(module)
        self.thresholds = {name: dict(values) for name, values in thresholds.items()}
        self.language, self.light_every = language, light_every
        self.stop_on_fatal, self.show_all = stop_on_fatal, show_all
        self.records: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.findings: list[Finding] = []
        self.said: dict[str, bool] = {}  # finding: whether it is resolved
        self.data = ""  # what it was trained on: the memory means nothing for other images
        self.memory: dict[str, list[Any]] = {"mean": [], "counts": []}
        self.symptoms: s.Symptoms | None = None
        self.before: tuple[int, dict[str, list[Tensor]]] | None = None
        self.bad_pixel: str | None = None
        self.done = False

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with untrusted("the checkpoint's history of the diagnosis"):
            vars(self).update(match(state, self.STATE, "it"))

    @property
    def undecided(self) -> bool:
        """Whether the snapshot at the end would leave too few for a verdict."""
        return sum(record["kind"] == "full" for record in self.records) < ENOUGH - 1

    # -- before the first step -------------------------------------------------------------------

    def begin(self, trainer: Any, module: Any, batch: Tensor, symptoms: s.Symptoms) -> None:
        """The facts, and what the settings and the first batch already tell."""
        self.symptoms, self.done, self.folder = symptoms, False, Path(trainer.default_root_dir)
        data = trainer.datamodule
        content = getattr(data, "content_hash", "")
        if self.data != content:
            self.data, self.memory = content, {"mean": [], "counts": []}
        real = batch.detach().float().cpu()
        self.facts = {
            "kind": "facts",
            "config": module.config,
            "thresholds": self.thresholds,
            **symptoms.facts,
            **parts(module, getattr(data, "source", None)),
            "real_min": float(real.min()),
            "real_max": float(real.max()),
            "real_mean": float(real.mean()),
            "channels": real.shape[1],
            "batch_size": min(len(real), getattr(data, "batch_size", None) or len(real)),
            "mean_error": symptoms.facts["mean_error"] / math.sqrt(len(real)),
        }
        if len(real) >= 64:  # else the first batches together have to say, in `compare`
            self.facts["mean_image"] = s.agreement(real, symptoms.train)
        for side, net in (("g", module.generator), ("d", module.discriminator)):
            self.facts[f"batchnorm_{side}"] = bool(batch_norms(net))
            self.facts[f"params_{side}"] = sum(p.numel() for p in net.parameters())
        path = self.folder / "signals.jsonl"
        # the same run's, up to its checkpoint
        kept = bool(self.records) and path.is_file() and not path.is_symlink()
        if not kept:
            write_text(path, "")
        for line in (self.facts, *(() if kept else self.records)):
            self.write(line)
        for finding in preflight(self.facts, self.thresholds):
            more = f" [{finding.override}]" if finding.override else ""
            self._say(trainer, words.label("remark", self.language), finding.name, more)
            if finding.severity != "note":
                self.said[finding.name] = False

    def compare(self, images: Tensor) -> None:
        """Of the first images that training is shown: how far they are from the stored ones."""
        assert self.symptoms is not None
        if images.shape[1:] != self.symptoms.train.shape[1:]:
            return
        seen = self.symptoms.reals.see(s.to_uint8(images))
        distance, chance = permutation_test(seen, self.symptoms.stored)
        found = {
            "seen_apart": distance,
            "seen_chance": chance,
            "mean_image": s.agreement(images, self.symptoms.train),
        }
        self.facts |= found
        self.write({"kind": "facts", **found})

    # -- while it goes on ------------------------------------------------------------------------

    def due(self, before: int, now: int) -> bool:
        """Between two step counts; from the steps alone, so that every process agrees."""
        return before // self.light_every != now // self.light_every

    def remember(self, module: Any) -> None:
        """The weights before the step whose update is to be measured."""
        sides = {"d": module.discriminator, "g": module.generator}
        self.before = module.step, {side: s.weights(net) for side, net in sides.items()}

    def check(self, trainer: Any, module: Any, due: bool) -> None:
        """Raises TrainingDiverged for a number that is none; between snapshots where it is free."""
        alone = trainer.world_size == 1
        if not due and not (alone and module.device.type == "cpu"):
            return
        names = [name for name in module.last if name.startswith(("loss/", "penalty/"))]
        bad = next((n for n in names if not math.isfinite(float(module.last[n].detach()))), None)
        weight = s.all_finite(module) if due or bad else None
        bad = " and ".join(name for name in (bad, weight) if name) or self.bad_pixel
        if not alone and self.stop_on_fatal:
            any_bad = trainer.strategy.reduce_boolean_decision(bad is not None, all=False)
            if any_bad and bad is None:
                bad = "a tensor on another process"
        if bad is not None:
            self._fatal(trainer, module, bad)

    def _fatal(self, trainer: Any, module: Any, bad: str) -> None:
        known = self.records and "bad" in self.records[-1]
        if trainer.is_global_zero and not known:  # once, where the run goes on
            record = {"nimg": module.nimg, "step": module.step, "kind": "light", "bad": bad}
            self.records.append(record)
            self.write(record)
        if self.stop_on_fatal:
            kept = any((Path(trainer.default_root_dir) / "checkpoints").glob("*.ckpt"))
            raise TrainingDiverged(
                f"training has diverged: {bad} is not finite at step {module.step} "
                f"({module.nimg / 1000:g} kimg); {'the last good checkpoint is kept, ' * kept}"
                "diagnosis.md says what to change"
            )

    def light(self, module: Any) -> dict[str, Any]:
        """A record of losses, gradients and weights; it takes the place of one of the same step."""
        again = bool(self.records) and self.records[-1]["step"] == module.step
        record = self.records.pop() if again else {}
        record |= {"nimg": module.nimg, "step": module.step, "kind": "light"}
        for name, value in module.last.items():
            record[name.replace("/", "_")] = float(value.detach())
        if module.last_logits is not None:
            record["score_real"], record["score_fake"] = (
                float(x.mean()) for x in module.last_logits
            )
        record["lr_fraction"] = module.schedule.fade(module.progress)
        if self.before is not None:
            step, old = self.before
            steps_g = module.step // module.n_critic - step // module.n_critic
            sides = (
                ("d", module.discriminator, module.step - step),
                ("g", module.generator, steps_g),
            )
            for side, net, updates in sides:
                if updates:
                    record[f"update_ratio_{side}"] = s.update_ratio(net, old[side], updates)
            self.before = None
        return record

    def full(self, trainer: Any, module: Any, record: dict[str, Any], moment: Moment) -> None:
        """Adds a snapshot's signals to the record, and says what the rules find new."""
        assert self.symptoms is not None
        seen = self.symptoms.see(moment, self.memory)
        if seen is None:
            self.bad_pixel = "a pixel of the generator's images"
            # several processes are told at the next snapshot, or they would wait for this one
            if trainer.world_size == 1:
                self._fatal(trainer, module, self.bad_pixel)
            return
        record |= {"kind": "full", **seen}
        history = History([*self.records, record], self.facts)
        self.findings = diagnose(history, self.thresholds)
        self._announce(trainer, module, record)

    def add(self, record: dict[str, Any], fraction: float) -> None:
        """Keeps a record; `fraction`: of the run's time that was spent on looking at it."""
        record["time_fraction"] = round(fraction, 4)
        self.records.append(record)
        self.write(record)
        same = [i for i, r in enumerate(self.records) if r["kind"] == record["kind"]]
        if len(same) > KEPT:
            gone = set(same[1 : KEPT // 2 : 2])
            self.records = [r for i, r in enumerate(self.records) if i not in gone]

    # -- saying it -------------------------------------------------------------------------------

    def write(self, record: dict[str, Any]) -> None:
        text = json.dumps(plain(record), ensure_ascii=False, default=str)
        append_text(self.folder / "signals.jsonl", text + "\n")

    def _say(self, trainer: Any, when: str, name: str, more: str = "") -> str:
        """One line on the screen, above the progress bar where there is one."""
        title = RULES[name].words(self.language).title
        line = f"{words.label('diagnosis', self.language)}, {when}: {title}.{more}"
        bar = trainer.progress_bar_callback
        (bar.print if bar is not None and hasattr(bar, "print") else print)(line)
        return line

    def _announce(self, trainer: Any, module: Any, record: dict[str, Any]) -> None:
        """A change in the findings, once: on the screen and in TensorBoard; the signals' curves."""
        findings = {f.name: f for f in self.findings if f.severity != "note"}
        new, over = (words.label(word, self.language) for word in ("new", "resolved"))
        when, lines = f"{module.nimg / 1000:.4g} kimg, ", []
        for name, f in findings.items():
            if not f.resolved and self.said.get(name) is not False:
                more = f" {RULES[name].words(self.language).why} [{f.override}]"
                lines.append(self._say(trainer, when + new, name, more))
        for name, resolved in self.said.items():
            if not resolved and (name not in findings or findings[name].resolved):
                lines.append(self._say(trainer, when + over, name))
        self.said = {name: f.resolved for name, f in findings.items()}
        floats = {k: v for k, v in record.items() if isinstance(v, float) and math.isfinite(v)}
        values = {f"signal/{name}": value for name, value in floats.items()}
        for name, rule in RULES.items():
            if rule.symptom:
                values[f"diagnosis/{name}"] = float(self.said.get(name) is False)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=module.nimg)
        if lines:
            boards.show_text(trainer, "3 findings as they came", "\n\n".join(lines), module.nimg)

    def verdict(self, trainer: Any, module: Any, ended: bool, quiet: bool = False) -> None:
        """diagnosis.json, diagnosis.md, and the table on the screen."""
        self.done = True
        if ended:
            self.facts["ended"] = True
            self.write({"kind": "facts", "ended": True})
        history = History(self.records, self.facts)
        verdict = judge(history, self.thresholds, self.language, self.folder)
        write(verdict, self.folder)
        boards.show_text(trainer, "1 verdict", markdown(verdict), module.nimg)
        if not quiet:
            show(verdict, self.show_all)
