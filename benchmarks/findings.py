"""docs/findings.md from the rules themselves.

python -m benchmarks.findings    writes the page; a test says when it is out of date
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from gan_lightning.diagnosis.rules import RULES, Rule

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "findings.md"
ENTRIES = ROOT / "src" / "gan_lightning" / "diagnosis" / "rules"

HEADER = """\
<!-- written by `python -m benchmarks.findings` from src/gan_lightning/diagnosis/rules; edit the entries there -->

# What a run can be told

A run ends with its findings, the most likely cause first: what is still there before what is resolved, then by severity
(fatal, fault, warning, note), then by confidence. Each names the numbers that it rests on and one override to paste. The
verdict is in `diagnosis.md` and `diagnosis.json` of the run's folder, and `gan-lightning diagnose RUN` says it again.

Each finding below says when it is made, what it tells people, its thresholds and the overrides that it can propose, of
which the first that applies and changes something is printed. Every threshold can be set:
`diagnosis.thresholds.lr_too_high.ratio=0.1`. Thresholds that all rules share are under `common`:

{common}

## A new rule

Two files, and a test; about a quarter of an hour.

1. `src/gan_lightning/diagnosis/symptoms.py`: a function `name(h, t)`. `h["quality"]` is a signal over the full looks (the
   names are those in a run's `signals.jsonl`), `h.fact("n_train")` a fact, `h.settings.gamma` a setting, `t["poor"]` a
   threshold. It returns `Lasting(mask, confidence)` for a symptom that has to last, one truth per look, or `Certain(confidence)`
   for what is known at once, or None. Its place in the file decides between findings that are equally sure.
2. `src/gan_lightning/diagnosis/rules/name.yaml`: severity, thresholds, evidence, remedies, and the words in both languages.
   Copy [d_overfits.yaml](../src/gan_lightning/diagnosis/rules/d_overfits.yaml); all keys are explained in
   [rules/\\_\\_init\\_\\_.py](../src/gan_lightning/diagnosis/rules/__init__.py), the names for conditions are the attributes of
   `Settings` in [settings.py](../src/gan_lightning/diagnosis/settings.py). A misspelt one is named when the program starts. What
   only speaks of settings, before the start, needs no function but a `remark`.
3. `tests/test_rules.py`: a line in `FAULTS` with the signals, settings and facts of a run that has the fault. The tests there hold
   it against healthy runs, short spells and both languages. Then `python -m benchmarks.findings`.

A rule can also live in a package of your own: a module with the function, and the entry in the folder `rules` beside that
module. `python train.py diagnosis.rules=[my_package.symptoms]` adds its rules, and so does
`gan-lightning diagnose RUN --rules my_package.symptoms`, which never imports what a run's folder names.

## The findings

"""


def page() -> str:
    parts = [HEADER.format(common=_thresholds("common"))]
    return "\n".join([*parts, *(_entry(rule) for rule in RULES.values())])


def _entry(rule: Rule) -> str:
    return "\n\n".join(_paragraphs(rule)) + "\n"


def _paragraphs(rule: Rule) -> Iterator[str]:
    yield f"### {rule.en.title}"
    yield f"`{rule.name}`, {rule.severity}. {rule.en.why}"
    yield f"> **{rule.ko.title}.** {rule.ko.why}"
    if rule.symptom:
        yield f"Made when: {' '.join(inspect.getdoc(rule.symptom).split())}"  # type: ignore[union-attr]
    if rule.remark:
        yield f"A note before the start when: `{rule.remark}`"
    if rule.symptom and rule.needs != ["quality"]:
        yield f"Cannot be checked without: {', '.join(f'`{need}`' for need in rule.needs)}"
    if rule.hides:
        yield f"In the place of: {', '.join(f'`{name}`' for name in rule.hides)}"
    if rule.thresholds:
        yield _thresholds(rule.name)
    choices = dict.fromkeys(rule.choices())
    lines = [
        f"- `{override}`" + (f" if `{condition}`" if condition else "")
        for condition, override in choices
    ]
    yield "Proposes, the first that applies:\n\n" + "\n".join(lines)


def _thresholds(name: str) -> str:
    """The lines of an entry, which have the comments."""
    text = (ENTRIES / f"{name}.yaml").read_text()
    found = re.search(r"^thresholds:\n((?:  .*\n)+)", text, re.M)
    assert found, name
    return f"```yaml\n{inspect.cleandoc(found[1])}\n```"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE.relative_to(ROOT)}: {len(RULES)} findings")
