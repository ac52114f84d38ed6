"""What a value may be: annotated types, taken strictly ("5" is no number), in words too."""

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, ParamSpec, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Len, Lt, Predicate

from gan_lightning.errors import UserError
from gan_lightning.names import FEATURES
from gan_lightning.text import brief

P = ParamSpec("P")


@dataclass(frozen=True)
class Said:
    """What a type admits, where its bounds do not say it well."""

    words: str


Above0 = Annotated[float, Gt(0)]
AtLeast0 = Annotated[float, Ge(0)]
Kimg = Annotated[float, Interval(gt=0, le=1e9)]
Cadence = Annotated[float, Interval(ge=0, le=1e9)]  # kimg; 0 has a meaning of its own
Fraction = Annotated[float, Interval(ge=0, le=1)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
Rate = Annotated[float, Interval(gt=0, le=10)]
Truncation = Annotated[float, Interval(gt=0, lt=100)]
Count = Annotated[int, Interval(ge=1, le=10**9)]
Whole = Annotated[int, Interval(ge=0, le=10**9)]
Every = Annotated[int, Interval(ge=1, le=10**6)]  # steps
Width = Annotated[int, Interval(ge=1, le=2**16)]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]
Pixels = Annotated[int, Interval(ge=4, le=2048)]
Size = Annotated[
    Pixels | Annotated[Sequence[Pixels], Len(2, 2)],
    Said("4 to 2048 pixels, as 64, or [height,width]"),
]
Side = Annotated[int, Interval(ge=32, le=512)]  # pixels at which a pretrained network sees images
Depth = Annotated[int, Interval(ge=1, le=16)]
Channels = Annotated[
    int, Predicate(lambda n: n in (1, 3, 4)), Said("1 (grey), 3 (RGB) or 4 (RGBA)")
]
Layers = Annotated[Sequence[Width], Len(1, 64), Said("a list of layer sizes, as [256,512]")]
Groups = Annotated[int, Interval(ge=0, le=2**16)]  # images of a minibatch-stddev group; 0: off
Grey = Annotated[int, Interval(ge=0, le=255), Said("a grey level from 0 (black) to 255 (white)")]
Fit = Literal["crop", "pad", "stretch"]
Norm = Literal["none", "batch", "group", "spectral"]
Text = Annotated[str, Predicate(lambda text: text.strip() != "")]
Folder = Annotated[Text, Said("the path of a folder")]
ImageFolder = Annotated[Text, Said("the folder that holds the images")]
File = Annotated[Text, Said("the path of a file")]
Features = Annotated[
    Literal[FEATURES] | dict[str, Any],  # type: ignore[valid-type]
    Said(f"{', '.join(FEATURES)} or a block with _target_"),
]
Modules = Annotated[Sequence[Text], Said("a list of modules with rules, as [my_package.rules]")]
Block = Annotated[dict[str, Any], Said("a block of keys")]


# -- in words ------------------------------------------------------------------------------


def words(kind: Any) -> str:
    """Of a type: `Annotated[int, Ge(1)] | None` is "a whole number of at least 1, or null"."""
    simple = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        dict: "a block of keys",
        list: "a list",
        Sequence: "a list",
    }
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        said = [note.words for note in kind.__metadata__ if isinstance(note, Said)]
        return said[-1] if said else words(inner[0]) + "".join(map(_range, kind.__metadata__))
    if origin in (Union, types.UnionType):
        parts = [words(part) for part in inner if part is not types.NoneType]
        null = ", or null" if types.NoneType in inner else ""
        return " or ".join(dict.fromkeys(parts)) + null
    if origin is Literal:
        *most, last = map(str, inner)
        return f"{', '.join(most)} or {last}" if most else last
    return simple.get(origin or kind, "null" if kind in (None, types.NoneType) else "a value")


def _range(note: Any) -> str:
    """The bounds of a number, as " above 0 and up to 10"."""
    if not isinstance(note, Gt | Ge | Lt | Le | Interval):
        return ""
    values = {name: getattr(note, name, None) for name in ("gt", "ge", "lt", "le")}
    bound = {name: brief(value) for name, value in values.items() if value is not None}
    if "ge" in bound and len(bound) == 2:
        return f" from {bound['ge']} to {'below ' + bound['lt'] if 'lt' in bound else bound['le']}"
    texts = {"gt": "above {}", "ge": "of at least {}", "lt": "below {}", "le": "up to {}"}
    return " " + " and ".join(texts[name].format(value) for name, value in bound.items())


# -- the check -----------------------------------------------------------------------------


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    strict = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(kind, config=strict)


def complaint(key: str, kind: Any, value: Any) -> tuple[str, str] | None:
    """The key of a value that its type does not admit, and the line that says so, if any."""
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(value)
        return None
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]["loc"]
    for part in wrong:  # into the block that holds the mistake
        if not isinstance(value, dict) or part not in value:
            break
        key, kind, value = f"{key}.{part}", within(kind), value[part]
    return key, _line(key, words(kind), value)


def must_be(key: str, kind: Any, value: Any) -> None:
    """Raises UserError where the type does not admit the value, or one in it."""
    if wrong := complaint(key, kind, value):
        raise UserError(wrong[1])


def _line(key: str, right: str, value: Any) -> str:
    if value is None and right.startswith("a block"):
        return f"{key}=null is not possible: leave it out, or set the single keys in it"
    whole = isinstance(value, float) and "whole number" in right
    line = f"{key}={f'{value:.1f}' if whole else brief(value)} should be {right}"
    if isinstance(value, str) and re.fullmatch(r"[-+.0-9]+(e[-+]?[0-9]+)?", value):
        return f'{key}="{value}" should be {right}, without quotes'
    if value == "":
        return f"{line}; there is nothing behind the = (is a variable of the shell not set?)"
    if re.match("the (path of a|folder that)", right) and type(value) in (int, float):
        return f"{line}; if that is its name, write ./{value}"
    return line


def within(kind: Any) -> Any:
    """The type of what a block's type holds; None where it is none."""
    inner = [choice for choice in choices(kind) if get_origin(choice) is dict]
    return get_args(inner[0])[1] if inner else None


def choices(kind: Any) -> Iterator[Any]:
    """The alternatives of a type, without what is said about them."""
    if get_origin(kind) is Annotated:
        yield from choices(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for part in get_args(kind):
            yield from choices(part)
    else:
        yield kind


def checked(function: Callable[P, None]) -> Callable[P, None]:
    """A constructor that raises UserError naming an argument that its type does not admit."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        kinds = get_type_hints(function, include_extras=True)
        for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items():
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = list(value)  # of OmegaConf, or a tuple
            if name in kinds:
                must_be(name, kinds[name], value)
        function(*args, **kwargs)

    return wrapper
