"""What data of strangers may hold: patterns of names and types."""

from contextlib import suppress
from typing import Any

Pattern = Any  # see `match`
SCALAR = (bool, int, float, str, None)
ANY = (*SCALAR, list, dict)
LARGEST_INT = 2**63
MOST_VALUES, DEEPEST = 100_000, 30  # of the plain part of a file; shared values count each time
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", None: "null"}


class NoMatch(ValueError):
    """A value that is not what its pattern says; the message says where."""


def match(value: Any, pattern: Pattern, where: str = "it") -> Any:
    """`value`, all of which is as `pattern` says; raises NoMatch else, naming the place.

    A type stands for exactly its values (float also for whole numbers), None for null, a tuple for
    any of its patterns, a list of one pattern for lists and tuples of such items, a dict for a
    dict: "name" must be there, "name?" may, a type stands for other keys of it; no more are
    allowed.
    """
    if isinstance(pattern, tuple):
        for choice in pattern:
            with suppress(NoMatch):
                return match(value, choice, where)
    elif isinstance(pattern, list):
        if type(value) in (list, tuple):
            items = (match(item, pattern[0], f"{where}[{i}]") for i, item in enumerate(value))
            return type(value)(items)
    elif isinstance(pattern, dict):
        if isinstance(value, dict):
            return _match_keys(value, pattern, where)
    elif _is_a(value, pattern):
        return value
    raise NoMatch(f"{where} should be {_words(pattern)}, not {shown(value)}")


def _is_a(value: Any, kind: type | None) -> bool:
    if type(value) is int:
        return kind in (int, float) and abs(value) < LARGEST_INT
    return value is None if kind is None else type(value) is kind


def _match_keys(value: dict[Any, Any], pattern: dict[Any, Pattern], where: str) -> dict[Any, Any]:
    inner = {}
    for name, right in pattern.items():
        if isinstance(name, str) and not name.endswith("?") and name not in value:
            raise NoMatch(f"{where} holds no {name}")
        inner[name.removesuffix("?") if isinstance(name, str) else name] = right
    matched = {}
    for key, item in value.items():
        name = key if isinstance(key, str) and key in inner else type(key)
        if name not in inner:
            raise NoMatch(f"{where} holds {shown(key)}, which this program does not write")
        matched[key] = match(item, inner[name], f"{where}.{key}"[:120])
    return matched


def _words(pattern: Pattern) -> str:
    if isinstance(pattern, tuple):
        return " or ".join(dict.fromkeys(map(_words, pattern)))
    if isinstance(pattern, dict | list):
        return "a block of keys" if isinstance(pattern, dict) else "a list"
    return WORDS.get(pattern) or f"a {getattr(pattern, '__name__', pattern)}"


def shown(value: Any) -> str:
    kind = type(value)
    return ascii(value)[:40] if kind in (*SCALAR, type(None)) else f"a {kind.__name__}"


def plain(value: Any, where: str = "it") -> Any:
    """A copy of nested dicts (by names) and lists of SCALAR; raises NoMatch for all else.

    Also where it is nested more than 30 deep, or comes to more than a hundred thousand values.
    """
    left = MOST_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise NoMatch(f"{where} holds more values than any configuration has")
        if isinstance(value, dict):
            names = (match(key, str, f"a key of {where}") for key in value)
            return {name: copy(value[name], depth + 1) for name in names}
        if isinstance(value, list | tuple):
            return [copy(inner, depth + 1) for inner in value]
        if any(_is_a(value, kind) for kind in SCALAR):
            return value
        return match(value, SCALAR, where)  # which refuses it

    return copy(value, 0)
