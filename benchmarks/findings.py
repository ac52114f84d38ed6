"""docs/findings.md and docs/findings.ko.md from the rules themselves.

python -m benchmarks.findings    writes both; a test says when they are out of date
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from gan_lightning.diagnosis.rules import RULES, Rule, load

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ENTRIES = ROOT / "src" / "gan_lightning" / "diagnosis" / "rules"

HEADER = """\
<!-- written by `python -m benchmarks.findings` from src/gan_lightning/diagnosis/rules; edit the entries there -->

# When it goes wrong

A run ends with a verdict: what was found, the numbers behind it, and one setting to change. This page has every finding
there is, so that you can look up the one you got. [In Korean](findings.ko.md). Some of them are drawn in
[reading the curves](curves.md).

**How to read a verdict.** The most likely cause comes first. *fatal* ends the run, *fault* spoils the pictures, *warning* may
do so, *note* is only worth knowing. "Sure: 60 %" is how well such numbers point to this cause, as the author of the rule judged it (no measured
probability), and "resolved" says that it was there and has gone. Change one setting, the first one; a second fault shows itself in the next run. The verdict is also in
`diagnosis.md` of the run's folder, and `gan-lightning diagnose RUN` says it again.

**The numbers.** `quality` is the distance of the generated images from the real ones: 0 is like the data, 1 is as far off as flat
grey. `coverage` is the share of real images that have a generated one nearby, and `diversity` how different the generated images are
from each other beside how different the real ones are. `auc_heldout` is how often the discriminator tells a real photograph that
it was never trained on from a generated one: 0.5 is guessing, 1 is always right.

| what it says | name | how bad |
|---|---|---|
{contents}

**The changes.** Below each finding stand its possible changes, the best first; the program prints the first one that applies and
changes something. It works out the number in braces from your settings. What the words in a condition mean stands at
[the end](#words).

How often these findings are right was measured on planted faults: [DIAGNOSIS.md](../benchmarks/DIAGNOSIS.md).
"""

FOOTER = """\
## Thresholds

Every threshold above is a setting, as `diagnosis.thresholds.lr_too_high.ratio=0.1`. These are shared by all rules, under
`diagnosis.thresholds.common`:

{common}

<a id="words"></a>

## The words in conditions and braces

| word | meaning |
|---|---|
{words}

They are worked out in [settings.py](../src/gan_lightning/diagnosis/settings.py). To write a rule of your own, see
[CONTRIBUTING.md](../CONTRIBUTING.md#a-rule).
"""

KOREAN = """\
<!-- `python -m benchmarks.findings`가 src/gan_lightning/diagnosis/rules에서 만든 문서입니다. 고칠 때는 그쪽을 고치세요 -->

# 문제가 생겼을 때

학습이 끝나면 무엇이 발견되었는지, 어떤 숫자를 근거로 하는지, 어떤 설정을 바꾸면 되는지 알려 줍니다. 이 문서에는 나올 수 있는
모든 진단이 있습니다. 한국어로 보려면 `gan-lightning diagnose RUN --language ko`라고 입력하세요. 조건과 임곗값은
[영어 문서](findings.md)에 있습니다.
"""
SEVERITY = {"fatal": "치명적", "fault": "고장", "warning": "경고", "note": "참고"}


def page() -> str:
    """docs/findings.md."""
    rules = RULES.values()
    rows = [f"| [{r.en.title}](#{r.name}) | `{r.name}` | {r.severity} |" for r in rules]
    parts = [HEADER.format(contents="\n".join(rows)), *map(_entry, rules)]
    meaning = load(Path(__file__).parent / "conditions.yaml")
    words = "\n".join(f"| `{name}` | {meaning[name]} |" for name in sorted(_names()))
    return "\n".join([*parts, FOOTER.format(common=_thresholds("common"), words=words)])


def _names() -> set[str]:
    """Every name that stands in a condition or in braces."""
    choices = [choice for rule in RULES.values() for choice in rule.choices()]
    texts = [condition for condition, _ in choices] + [rule.remark for rule in RULES.values()]
    texts += [field for _, override in choices for _, field, _, _ in Formatter().parse(override)]
    trees = [ast.parse(text, mode="eval") for text in texts if text]
    return {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}


def korean() -> str:
    """docs/findings.ko.md: the words and the changes."""
    entries = [
        f'<a id="{rule.name}"></a>\n\n## {rule.ko.title}\n\n`{rule.name}`, {SEVERITY[rule.severity]}.'
        f" {rule.ko.why}\n\n바꿀 것: {_first(rule)}\n"
        for rule in RULES.values()
    ]
    return "\n".join([KOREAN, *entries])


def _entry(rule: Rule) -> str:
    return "\n\n".join(_paragraphs(rule)) + "\n"


def _paragraphs(rule: Rule) -> Iterator[str]:
    yield f'<a id="{rule.name}"></a>\n\n## {rule.en.title}'
    yield f"`{rule.name}`, {rule.severity}. {rule.en.why}"
    if rule.symptom:
        yield f"**When.** {' '.join(inspect.getdoc(rule.symptom).split())}"  # type: ignore[union-attr]
    if rule.remark:
        yield f"**Before the start**, as a note, when `{rule.remark}`."
    if rule.symptom and rule.needs != ["quality"]:
        needed = ", ".join(f"`{need}`" for need in rule.needs)
        yield f"Cannot be checked without {needed}."
    if rule.hides:
        yield f"Said in the place of {', '.join(f'`{name}`' for name in rule.hides)}."
    choices = dict.fromkeys(rule.choices())
    lines = [
        f"- `{override}`" + (f", if `{condition}`" if condition else "")
        for condition, override in choices
    ]
    yield "**Change**\n\n" + "\n".join(lines)
    if rule.thresholds:
        yield "**Thresholds**\n\n" + _thresholds(rule.name)


def _first(rule: Rule) -> str:
    """Its overrides without their conditions."""
    return ", ".join(f"`{override}`" for override in dict.fromkeys(o for _, o in rule.choices()))


def _thresholds(name: str) -> str:
    """The lines of an entry, which have the comments."""
    text = (ENTRIES / f"{name}.yaml").read_text()
    found = re.search(r"^thresholds:\n((?:  .*\n)+)", text, re.M)
    assert found, name
    return f"```yaml\n{inspect.cleandoc(found[1])}\n```"


PAGES = {DOCS / "findings.md": page, DOCS / "findings.ko.md": korean}

if __name__ == "__main__":
    for path, made in PAGES.items():
        path.write_text(made())
        print(f"{path.relative_to(ROOT)}: {len(RULES)} findings")
