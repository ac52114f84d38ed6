"""The rules: one function in symptoms.py and one entry <name>.yaml here each, read and put
together.

An entry holds `severity` (fatal, fault, warning, note), `thresholds`, the names of its `evidence`,
ordered `remedies` and the words in both languages. Where they are wanted also: `needs` (signals or
facts without which it cannot be checked), `hides` (findings that it explains), `remark` (a
condition: a note before the start), `before_start` (known from the facts), `last_resort` (said
where no other rule knows why), `beside_a_fault` (the severity then) and `restart` (checkpoint:
going on is enough). A rule that is only a remark has no function.

A remedy is an override, an override behind a condition (`gamma > 0: loss.gamma={gamma*4}`), or the
name of a list in common.yaml. Conditions and {values} are made of names of `Settings` by
`evaluate`, which knows no other code.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from gan_lightning.diagnosis.history import Certain, History, Lasting, Thresholds
from gan_lightning.diagnosis.settings import Settings
from gan_lightning.errors import UserError

SEVERITIES = ("fatal", "fault", "warning", "note")
LANGUAGES = ("en", "ko")

OPERATORS: dict[type[ast.AST], Any] = {
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.LtE: operator.le,
    ast.GtE: operator.ge,
}
OPERATORS |= {ast.Mult: operator.mul, ast.Div: operator.truediv}


def evaluate(text: str, names: Callable[[str], Any]) -> Any:
    """The value of `gamma*4`, or the truth of `lr_g < lr_d and not paired`.

    Names, numbers, not, and, comparisons, * and /: anything else raises ValueError.
    """

    def of(node: ast.AST) -> Any:
        match node:
            case ast.Name():
                return names(node.id)
            case ast.Constant(value=int() | float()):
                return node.value
            case ast.UnaryOp(op=ast.Not()):
                return not of(node.operand)
            case ast.BoolOp(op=ast.And()):
                return all([of(part) for part in node.values])
            case ast.BinOp() if type(node.op) in OPERATORS:
                return OPERATORS[type(node.op)](of(node.left), of(node.right))
            case ast.Compare(ops=[sign]) if type(sign) in OPERATORS:
                return OPERATORS[type(sign)](of(node.left), of(node.comparators[0]))
        raise ValueError(f"{text} is not made of names, numbers and comparisons")

    return of(ast.parse(text, mode="eval").body)


def holds(condition: str, settings: Settings, t: Mapping[str, float] | None = None) -> bool:
    """Whether a condition holds; names of thresholds `t` come before those of settings."""
    own = t or {}
    return not condition or bool(
        evaluate(condition, lambda name: own[name] if name in own else settings.named(name))
    )


def filled(override: str, settings: Settings) -> str:
    """The override with its {values}, as `{gamma*4}` or `{total/2:.6g}`; "" where one has no
    value."""
    done = ""
    for text, field, form, _ in Formatter().parse(override):
        done += text
        if field is not None:
            value = evaluate(field, settings.named)
            if value is None or value == "":
                return ""
            done += format(value, form or (".3g" if isinstance(value, float) else ""))
    return done


class Words(BaseModel):
    title: str  # a short headline
    why: str  # two plain sentences: why it happens


class Rule(BaseModel):
    """An entry, its name, and its function; None for one that is only a remark."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    symptom: Callable[[History, Thresholds], Certain | Lasting | None] | None
    severity: Literal["fatal", "fault", "warning", "note"]
    remedies: list[str | dict[str, str]]
    en: Words
    ko: Words
    thresholds: dict[str, int | float] = {}
    evidence: list[str] = []
    needs: list[str] = ["quality"]
    hides: list[str] = []
    remark: str = ""
    before_start: bool = False
    last_resort: bool = False
    beside_a_fault: Literal["", "fatal", "fault", "warning"] = ""
    restart: Literal["scratch", "checkpoint"] = "scratch"

    @model_validator(mode="after")
    def possible(self) -> "Rule":
        """Every condition and override is tried once on a run of which nothing is known."""
        if self.symptom is None and not self.remark:
            raise ValueError(f"there is no function {self.name} in the module, and no remark")
        nothing = Settings({})
        for condition in (self.remark, *(need for need in self.needs if " " in need)):
            holds(condition, nothing, self.thresholds)
        for condition, override in self.choices():
            holds(condition, nothing)
            filled(override, nothing)
        return self

    def words(self, language: str) -> Words:
        return self.ko if language == "ko" else self.en

    def limits(self, given: Mapping[str, Thresholds]) -> Thresholds:
        """Its thresholds, those `given` (per rule and `common`) in the place of its own."""
        return {**common(given), **self.thresholds, **given.get(self.name, {})}

    def choices(self) -> Iterator[tuple[str, str]]:
        """Its remedies as (condition, override), the best first."""
        return _flat(self.remedies)

    def overrides(self, settings: Settings) -> Iterator[str]:
        """The overrides that apply to these settings and change something, the best first."""
        for condition, override in self.choices():
            if holds(condition, settings) and (done := filled(override, settings)):
                if settings.changes(done):
                    yield done

    def remedy(self, settings: Settings) -> str:
        return next(self.overrides(settings), "")


def common(given: Mapping[str, Thresholds]) -> Thresholds:
    """The thresholds that all rules share, those that were given in the place of ours."""
    return {**COMMON["thresholds"], **given.get("common", {})}


def _flat(remedies: list[str | dict[str, str]]) -> Iterator[tuple[str, str]]:
    for item in remedies:
        if isinstance(item, dict):
            yield from item.items()
        elif "=" in item:
            yield "", item
        elif item in COMMON["remedies"]:
            yield from _flat(COMMON["remedies"][item])
        else:
            raise ValueError(f"{item} is neither key=value nor a list of common.yaml")


def printed_overrides(settings: Settings) -> list[str]:
    """Every override that a rule can print for these settings."""
    return sorted({o for rule in RULES.values() for o in rule.overrides(settings)})


# -- reading them ---------------------------------------------------------------------------------


def add_rules(module: str) -> None:
    """Adds the rules of a module: its functions, with an entry each in the folder `rules` beside
    it.

    Likely causes first: in the order of the functions, behind the rules that are there. Raises
    UserError naming what is wrong with an entry.
    """
    try:
        functions = import_module(module)
    except ImportError as error:
        raise UserError(f"diagnosis.rules: {module} cannot be imported ({error})") from None
    folder = Path(str(functions.__file__)).parent / "rules"
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "common.yaml"]
    if not files:
        raise UserError(f"diagnosis.rules: {folder} should hold a YAML file for each of the rules")
    order = list(vars(functions))
    found = [_read(path, functions) for path in files]
    found.sort(key=lambda rule: order.index(rule.name) if rule.symptom else len(order))
    RULES.update({rule.name: rule for rule in found})


def _read(path: Path, functions: ModuleType) -> Rule:
    function = getattr(functions, path.stem, None)
    try:
        return Rule(name=path.stem, symptom=function, **load(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"][:2]))
        raise UserError(f"{path}: {key} {first['msg'].removeprefix('Value error, ')}") from None
    except (TypeError, SyntaxError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def load(path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C is ten times as fast
    return yaml.load(path.read_text(encoding="utf-8"), loader)


COMMON: dict[str, Any] = load(Path(__file__).parent / "common.yaml")
RULES: dict[str, Rule] = {}
add_rules("gan_lightning.diagnosis.symptoms")


def thresholds() -> dict[str, Thresholds]:
    """The thresholds of all rules and `common`, as diagnosis.thresholds shows them."""
    own = {rule.name: dict(rule.thresholds) for rule in RULES.values() if rule.thresholds}
    return {"common": dict(COMMON["thresholds"]), **own}
