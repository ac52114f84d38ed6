"""What the rules find in a run, the most likely cause first.

Ranking: still there before resolved, then severity (fatal, fault, warning, note), then confidence,
then the order of the functions in symptoms.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gan_lightning.diagnosis.history import Evidence, History, Lasting, Thresholds, every, number
from gan_lightning.diagnosis.rules import RULES, SEVERITIES, Rule, holds


@dataclass(frozen=True)
class Finding:
    """What is wrong, how sure, since when, the numbers, and ONE Hydra override to paste."""

    name: str
    severity: str
    confidence: float
    since_kimg: float
    evidence: Evidence
    override: str = ""
    restart: str = "scratch"  # or "checkpoint": going on from the last one is enough
    resolved: bool = False

    def as_dict(self, language: str = "en") -> dict[str, Any]:
        words = RULES[self.name].words(language)
        return asdict(self) | {
            "title": words.title,
            "why": words.why,
            "confidence": round(self.confidence, 2),
            "since_kimg": round(self.since_kimg, 3),
        }


def diagnose(h: History, thresholds: Mapping[str, Thresholds]) -> list[Finding]:
    """The findings of all rules, ranked; `thresholds` take the place of the rules' own."""
    found = [f for rule in RULES.values() if (f := _apply(rule, h, thresholds)) is not None]
    if any(_explains(f) for f in found):
        found = [f for f in found if not RULES[f.name].last_resort]
    hidden = {name for f in found if not f.resolved for name in RULES[f.name].hides}
    found = [f for f in found if f.name not in hidden]
    if any(f.severity == "fault" and not f.resolved for f in found):
        found = [replace(f, severity=RULES[f.name].beside_a_fault or f.severity) for f in found]
    order = list(RULES)
    return sorted(
        found,
        key=lambda f: (
            f.resolved,
            SEVERITIES.index(f.severity),
            -round(f.confidence, 2),
            order.index(f.name),
        ),
    )


def _explains(f: Finding) -> bool:
    """Whether this finding, of the pictures and there still, makes a last resort needless."""
    rule = RULES[f.name]
    known = rule.last_resort or rule.before_start
    return not f.resolved and f.severity != "note" and not known


def _apply(rule: Rule, h: History, thresholds: Mapping[str, Thresholds]) -> Finding | None:
    t = rule.limits(thresholds)
    seen = rule.symptom(h, t) if rule.symptom else None
    if seen is None:
        return None
    if isinstance(seen, Lasting):
        if (stretch := _stretch(h, t, seen)) is None:
            return None
        first, latest = stretch
        since = h.full[first]["nimg"] / 1000
        resolved = len(seen.mask) - 1 - latest >= 2
        evidence = h.evidence(rule.evidence, h.full[latest])
    else:
        since, resolved = seen.since_kimg, False
        last = h.full[-1] if h.full else None
        evidence = h.evidence(rule.evidence, last) if seen.evidence is None else seen.evidence
    severity, override = seen.severity or rule.severity, rule.remedy(h.settings)
    confidence, restart = seen.confidence, rule.restart
    return Finding(rule.name, severity, confidence, since, evidence, override, restart, resolved)


def _stretch(h: History, t: Thresholds, seen: Lasting) -> tuple[int, int] | None:
    """The first and latest snapshot of the last stretch in which a symptom lasted (`Lasting`)."""
    gate = seen.gate or [True] * len(seen.mask)
    still = seen.still or every(seen.mask, gate)
    steps = [record["step"] for record in h.full]
    found: tuple[int, int] | None = None
    start, hits, last = -1, 0, 0
    for i, bad in enumerate(seen.mask):
        if start >= 0 and i - last > 2:
            start, hits = -1, 0
        if bad:
            start, hits, last = i if start < 0 else start, hits + 1, i
            long = hits >= t["checks"] and steps[i] - steps[start] >= t["steps"]
            if long and gate[i] and gate[max(0, i - 1)]:
                found = start, i
        if found is not None and found[0] == start and i - found[1] <= 2 and still[i]:
            found = start, i
    return found


def preflight(facts: dict[str, Any], thresholds: Mapping[str, Thresholds]) -> list[Finding]:
    """Before step 0: findings on the data, and notes on settings known not to work together."""
    h = History([], facts)
    certain = [_apply(rule, h, thresholds) for rule in RULES.values() if rule.before_start]
    return [*(f for f in certain if f is not None), *_remarks(h, thresholds)]


def _remarks(h: History, thresholds: Mapping[str, Thresholds]) -> Iterator[Finding]:
    for rule in RULES.values():
        if rule.remark and holds(rule.remark, h.settings, rule.limits(thresholds)):
            evidence = h.evidence(rule.evidence)
            yield Finding(rule.name, "note", 0.5, 0.0, evidence, rule.remedy(h.settings))


def status(
    h: History, findings: Sequence[Finding], thresholds: Mapping[str, Thresholds]
) -> tuple[list[str], list[str]]:
    """(names of the checks that passed, of those that are off for want of data or snapshots)."""
    have = {name for r in h.records for name, v in r.items() if not math.isnan(number(v))}
    have |= set(h.facts)
    spanned = h.full[-1]["step"] - h.full[0]["step"] if h.full else -1
    found = {f.name for f in findings}
    passed: list[str] = []
    off: list[str] = []
    for rule in RULES.values():
        if rule.symptom is None or rule.last_resort or rule.name in found:
            continue
        t = rule.limits(thresholds)
        able = all(
            holds(need, h.settings, t) if " " in need else need in have for need in rule.needs
        )
        enough = len(h.full) >= t["checks"] and spanned >= t["steps"]
        (passed if able and (enough or rule.before_start) else off).append(rule.name)
    return passed, off
