"""What rules are made of: records and facts, masks over full snapshots, two kinds of symptom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gan_lightning.config import lookup
from gan_lightning.diagnosis.settings import Settings, setting

Thresholds = dict[str, float]
Evidence = dict[str, float | str]
Mask = list[bool]  # one truth per full snapshot

ENOUGH = 3  # full snapshots for a verdict on how the training went
# one snapshot, as in signals.jsonl
RECORD = {"nimg": int, "step": int, "kind": str, str: (float, str, bool, None)}


@dataclass(frozen=True)
class Certain:
    """A symptom that is known at once, as from the facts before step 0."""

    confidence: float
    evidence: Evidence | None = None  # None: the rule's own list of names
    severity: str = ""  # in the place of the rule's
    since_kimg: float = 0.0


@dataclass(frozen=True)
class Lasting:
    """A symptom that counts once its mask has held for `checks` full snapshots over `steps` steps,
    one miss allowed.

    Where there is a `gate` (as: nothing improves), it has to hold at the last two of these.
    Once found it stays while `still` holds (mask and gate if not given) and is resolved when the
    two latest snapshots are free of it.
    """

    mask: Mask
    confidence: float
    gate: Mask = field(default_factory=list)
    still: Mask = field(default_factory=list)
    severity: str = ""


@dataclass(frozen=True)
class History:
    """The records of a run, oldest first, and its facts (parts, numbers of images, `ended`)."""

    records: Sequence[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def full(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record.get("kind") == "full"]

    @cached_property
    def settings(self) -> Settings:
        return Settings(self.facts, self.records[-1]["nimg"] / 1000 if self.records else 0.0)

    def __getitem__(self, name: str) -> list[float]:
        """A signal over the full snapshots; NaN, with which no comparison holds, where missing."""
        return [number(record.get(name)) for record in self.full]

    def early(self, t: Thresholds) -> bool:
        """Whether a verdict on how the training went would be one on too little."""
        return len(self.full) < ENOUGH or self.full[-1]["step"] < t["steps"]

    def setting(self, path: str, default: Any = None) -> Any:
        return setting(self.facts.get("config"), path, default)

    def fact(self, name: str, default: float = math.nan) -> float:
        return number(self.facts.get(name, default))

    def evidence(self, names: Iterable[str], record: dict[str, Any] | None = None) -> Evidence:
        """The values of signals, facts or settings by their names, those that are known."""
        found: Evidence = {}
        for name in names:
            value = (record or {}).get(name)
            value = lookup(self.facts, name) if value is None else value
            value = self.setting(name) if value is None else value
            if isinstance(value, str):
                found[name] = value
            elif not math.isnan(number(value)):
                found[name] = short(value)
        return found


def number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def short(value: float) -> float:
    return float(value if isinstance(value, int) else f"{value:.3g}")


def every(*masks: Iterable[bool]) -> Mask:
    return [all(values) for values in zip(*masks, strict=True)]


def either(*masks: Iterable[bool]) -> Mask:
    return [any(values) for values in zip(*masks, strict=True)]


def poor(h: History, t: Thresholds) -> Mask:
    return [q > t["poor"] for q in h["quality"]]


def flat(h: History, t: Thresholds) -> Mask:
    """At each snapshot: no new best quality, by the fraction `gain`, in the last `window`."""
    q, w = h["quality"], int(t["window"])
    return [
        i >= w + 1 and min(q[i - w + 1 : i + 1]) > (1 - t["gain"]) * min(q[: i - w + 1])
        for i in range(len(q))
    ]


def slow(h: History, t: Thresholds) -> Mask:
    """At each snapshot: quality has not fallen by the fraction `slow` in `steps` steps, measured
    over the last `steps` at least: over twice as many it has to have fallen so twice."""
    q, when = h["quality"], [record["step"] for record in h.full]
    older = [
        max((j for j in range(i) if when[j] <= when[i] - t["steps"]), default=None)
        for i in range(len(q))
    ]

    def still(i: int, j: int) -> bool:
        return q[i] > (1 - t["slow"]) ** ((when[i] - when[j]) / t["steps"]) * q[j]

    return [j is not None and still(i, j) for i, j in enumerate(older)]
