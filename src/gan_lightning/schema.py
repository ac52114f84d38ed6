"""What every key of conf/ may hold.

A block whose `_target_` is a class of this package takes what its constructor's annotations say; a
class of somebody else's checks its keys itself. The table holds what belongs to no class.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Interval, Len, Predicate
from omegaconf import DictConfig, OmegaConf

from gan_lightning import ranges as r
from gan_lightning.config import lookup
from gan_lightning.errors import UserError
from gan_lightning.ranges import Said, complaint, within, words
from gan_lightning.recipe import CHOSEN

OPEN: Any = Any  # the type of a key in somebody else's block
LEFT_OUT = Annotated[
    None, Said("left out: the program sets it, or it does not go with two networks in turn")
]
OURS = "gan_lightning."
# what the program gives to Lightning's Trainer itself, and what two networks in turn cannot have
TAKEN = (
    "callbacks logger plugins default_root_dir use_distributed_sampler enable_checkpointing"
    " gradient_clip_algorithm accumulate_grad_batches model_registry"
).split()


def _dotted(text: str) -> bool:
    return "." in text and all(part.isidentifier() for part in text.split("."))


def _like(pattern: str) -> Predicate:
    return Predicate(re.compile(pattern).fullmatch)  # type: ignore[arg-type]


Target = Annotated[
    str, Predicate(_dotted), Said("the dotted name of a class, as package.module.Class")
]
Limit = Annotated[
    int,
    Predicate(lambda n: n >= 1 or n == -1),
    Said("a whole number of at least 1, or -1 for no limit"),
]
Devices = Annotated[
    Annotated[int, Predicate(lambda n: n >= 1 or n == -1)]
    | Annotated[list[Annotated[int, Ge(0)]], Len(1)]
    | Annotated[str, _like(r"auto|-1|[1-9]\d*|\d+(,\d*)+")],
    Said("a number of devices of at least 1, -1 for all, or a list as [0,1]"),
]
Duration = Annotated[
    Annotated[str, _like(r"(?=.*[1-9])\d+(:\d\d?){3}")]
    | dict[Literal["weeks", "days", "hours", "minutes", "seconds"], r.AtLeast0],
    Said("days:hours:minutes:seconds, as 00:00:10:00 for ten minutes"),
]
Precision = Annotated[
    str | int,
    Predicate(lambda p: str(p) in ("32-true", "32", "64-true", "64", "bf16-mixed")),
    Said("32-true, 64-true or bf16-mixed (fp16 shares one scaler between two networks)"),
]
Strategy = Annotated[
    Annotated[
        str, _like(r"auto|ddp(_spawn|_fork|_notebook)?(_find_unused_parameters_(true|false))?")
    ]
    | dict[str, Any],
    Said("auto or one of Lightning's ddp strategies, as ddp_find_unused_parameters_true"),
]
Batches = Annotated[
    r.Count | Annotated[float, Interval(gt=0, le=1)],
    Said("a number of batches of at least 1, or a fraction as 0.1"),
]
Betas = Annotated[list[r.BelowOne], Len(2, 2), Said("two numbers from 0 to below 1, as [0.0,0.99]")]

OPTIMIZER = {"betas": Betas, "eps": r.Above0, "weight_decay": r.AtLeast0}
NEEDED: dict[str, Any] = {
    "seed": r.Seed,
    "latent_dim": r.Width,
    "n_critic": Annotated[int, Interval(ge=1, le=1000)],
    "reuse_fakes": bool,
    "conditional": bool,
    "num_classes": Annotated[
        None, Said("left alone: it follows from the data when conditional=true")
    ],
    "features": r.Features | None,
    "total_kimg": r.Kimg | None,
    "grad_clip": r.Above0 | None,
    "compile": bool,
    "ckpt_path": Annotated[
        r.Text, Said("the path of a checkpoint, as logs/.../checkpoints/last.ckpt")
    ]
    | None,
    "lr": r.Rate,
    "optimizer_g.lr": r.Rate,
    "optimizer_d.lr": r.Rate,
    "checkpoints.every_kimg": r.Cadence | None,
    "console.every_steps": r.Whole | None,
    "console.reasons": bool,
    "retry.minutes": Annotated[float, Interval(ge=0, le=1e6)],
    "retry.seconds_left": r.Above0 | None,
    "trainer.accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "trainer.devices": Devices,
    "trainer.num_nodes": Annotated[int, Interval(ge=1, le=10**5)],
    "trainer.strategy": Strategy,
    "trainer.precision": Precision | None,
    "trainer.max_epochs": Limit | None,
    "trainer.max_time": Duration | None,
    "trainer.limit_train_batches": Batches | None,
    "trainer.log_every_n_steps": r.Count,
    "trainer.deterministic": Annotated[bool | Literal["warn"], Said("true, false or warn")] | None,
    "trainer.benchmark": bool | None,
    "trainer.profiler": Annotated[
        Literal["simple", "advanced", "pytorch"] | dict[str, Any],
        Said("simple, advanced, pytorch or a block with _target_"),
    ]
    | None,
    "trainer.enable_progress_bar": bool,
    "trainer.enable_model_summary": bool,
}
BLOCKS = (
    "optimizer_g optimizer_d dataset.source network.generator network.discriminator"
    " loss augment aid ema schedule metrics diagnosis logger observer"
).split()
NEEDED |= dict.fromkeys(
    (*BLOCKS, *(key.partition(".")[0] for key in [*NEEDED, *BLOCKS] if "." in key)), r.Block
)
KEYS: dict[str, Any] = NEEDED | {
    **{f"optimizer_{side}.{name}": kind for side in "gd" for name, kind in OPTIMIZER.items()},
    "dataset.root": r.ImageFolder,  # every source's own; ImageData does not use it
    "dataset.labels": bool,
    "diagnosis.language": Literal["en", "ko"],  # needed without a diagnosis as well
    "trainer.max_steps": Limit,
    **{f"trainer.{name}": LEFT_OUT for name in TAKEN},
    "trainer.gradient_clip_val": Annotated[
        None, Said("left out: grad_clip=... limits both networks' gradients")
    ],
}
MAY_GO = ("optimizer_g", "optimizer_d", "logger", "trainer", "hydra", "experiment", "sweep")


# -- types of keys -------------------------------------------------------------------------


@cache
def arguments(target: str) -> dict[str, Any]:
    """The constructor's arguments by type, "**" where it takes any. Imports it."""
    function = named(target)
    if not isinstance(function, type):
        return _arguments(function)
    found: dict[str, Any] = {"**": OPEN}
    for part in function.__mro__:  # what goes on to the next class is held against that one's
        if "**" in found and "__init__" in vars(part):
            del found["**"]
            found = _arguments(part.__init__) | found  # type: ignore[misc]
    found.pop("self", None)
    return found


def _arguments(function: Any) -> dict[str, Any]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError:  # types that another package imports for its type checker alone
        hints = {}
    return {
        "**" if part.kind is part.VAR_KEYWORD else name: hints.get(name, OPEN)
        for name, part in inspect.signature(function).parameters.items()
    }


def named(target: str) -> Any:
    """What a dotted name stands for; imports it."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _not_there(target: str) -> str:
    """Why a dotted name is no class, in words; "" where it is one."""
    try:
        named(target)
    except ModuleNotFoundError as error:
        return f"there is no module {error.name} here; give the dotted name of a class"
    except AttributeError:
        module, _, name = target.rpartition(".")
        return f"{module} has no {name}; give the dotted name of a class"
    except Exception as error:  # whatever happens in somebody's module
        return f"it cannot be imported: {' '.join(str(error).split())}"
    return ""


def kind(key: str, plain: Any) -> Any:
    """The type of a dotted key; OPEN inside somebody else's block, None for no key at all."""
    if key in KEYS:
        return KEYS[key]
    if re.fullmatch(r"logger\.\w+", key):
        return r.Block
    parts = key.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        block = lookup(plain, ".".join(parts[:cut]))
        if isinstance(block, dict) and "_target_" in block:
            return _argument(key, parts[cut:], str(block["_target_"]), parts[0])
    return None


def _argument(key: str, inner: list[str], target: str, top: str) -> Any:
    if inner[0] == "_target_":
        return Target
    if not (target.startswith(OURS) or top == "trainer") or re.fullmatch("_.*_", inner[0]):
        return OPEN
    takes = arguments(target)
    found = takes.get(inner[0], OPEN if "**" in takes else None)
    if top == "logger" and found is not None:
        return OPEN  # Lightning's own arguments, in a subclass of this package
    for _ in inner[1:]:
        found = found if found is OPEN else within(found)
    return found | None if found not in (OPEN, None) and key in CHOSEN else found


def needed(key: str) -> bool:
    """Whether the program cannot do without a key."""
    top = key.partition(".")[0]
    below = any(known.startswith(f"{key}.") for known in NEEDED)
    return key in NEEDED or below or (top in NEEDED and top not in MAY_GO)


# -- the whole configuration ---------------------------------------------------------------


def validate(cfg: DictConfig, typed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The configuration as plain values. UserError on a key, one of `typed` first."""
    unresolved = OmegaConf.to_container(cfg)
    for key in (key for key, value in leaves(unresolved) if value == "???"):
        raise _missing(key, kind(key, unresolved))
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    # what is in the table is answered before a class, and with it torch, has to be imported
    for found in (_wrong_in_table(plain), _wrong_in_blocks(plain, typed)):
        if wrong := list(found):
            raise UserError(min(wrong, key=lambda pair: pair[0] not in typed)[1])
    return plain


def leaves(plain: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its value, blocks before what is in them."""
    for key, value in plain.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")


def _missing(key: str, right: Any) -> UserError:
    return UserError(f"{key} is needed: add {key}=... to the command, {words(right)}")


def _wrong_in_table(plain: dict[str, Any]) -> Iterator[tuple[str, str]]:
    there = dict(leaves(plain))
    for key, right in NEEDED.items():
        above = key.rpartition(".")[0]
        if key not in there and (not above or isinstance(there.get(above), dict)):
            yield key, str(_missing(key, right))
    for key, value in there.items():
        right = KEYS.get(key, r.Block if re.fullmatch(r"logger\.\w+", key) else None)
        if key.endswith("._target_"):
            right = Target
        if right is not None and (wrong := complaint(key, right, value)):
            yield wrong


def _wrong_in_blocks(plain: dict[str, Any], typed: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for key, block in leaves(plain):
        target = block.get("_target_", "") if isinstance(block, dict) else ""
        ours = target.startswith(OURS) or key == "trainer"
        if ours or f"{key}._target_" in typed:
            if not_there := _not_there(target):
                yield f"{key}._target_", f"{key}._target_={target}: {not_there}"
                continue
        for name, value in block.items() if ours else ():
            inner = f"{key}.{name}"
            right = kind(inner, plain)
            if right is None:
                yield inner, f"{inner} is no key that {target} takes: leave it out"
            elif inner not in KEYS and not (isinstance(value, dict) and "_target_" in value):
                if right is not OPEN and (wrong := complaint(inner, right, value)):
                    yield wrong
