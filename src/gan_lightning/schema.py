"""What every key of conf/ may hold, each once: its type and its range, from which the answer to a mistake is worded.

A block whose `_target_` names a class of somebody else's is theirs to check, and what conf/ holds beyond this is let
through (a test names it). Nothing heavy is imported here: a mistake is answered before torch is.
"""

import re
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Len, Lt
from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WrapValidator

from gan_lightning.errors import UserError
from gan_lightning.names import FEATURES
from gan_lightning.text import brief

T = TypeVar("T")
OURS = "gan_lightning."
ABSENT: Any = None  # the default of what need not be there, and is not null where it is
OPEN = object()  # what `annotation` answers for keys of somebody else's block
# what the program gives to Lightning's Trainer itself, and what two networks in turn cannot have
TAKEN = (
    "callbacks logger plugins default_root_dir use_distributed_sampler enable_checkpointing gradient_clip_algorithm"
    " accumulate_grad_batches model_registry"
).split()


class Block(BaseModel):
    """Keys with their types, taken strictly: "5" is no number and 1 is not true."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Open(Block):
    """A block whose class takes more than is written down here, and says itself what it does not take."""

    model_config = ConfigDict(extra="allow")


def matching(right: Callable[[T], bool]) -> AfterValidator:
    """Refuses the values for which `right` is false; the words are the Field's description."""

    def check(value: T) -> T:
        if not right(value):
            raise ValueError
        return value

    return AfterValidator(check)


def _theirs_are_open(value: Any, check: Callable[[Any], Any]) -> Any:
    return value if theirs(value) or value == {} else check(value)


def theirs(block: Any) -> bool:
    """Whether a block names a class that is not of this package."""
    target = block.get("_target_") if isinstance(block, dict) else None
    return isinstance(target, str) and _dotted(target) and not target.startswith(OURS)


def _dotted(text: str) -> bool:
    return "." in text and all(part.isidentifier() for part in text.split("."))


Ours = WrapValidator(_theirs_are_open)  # only what this package builds is checked
Above0 = Annotated[float, Gt(0)]
AtLeast0 = Annotated[float, Ge(0)]
Kimg = Annotated[float, Interval(gt=0, le=1e9)]
Cadence = Annotated[float, Interval(ge=0, le=1e9)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
Rate = Annotated[float, Interval(gt=0, le=10)]
Count = Annotated[int, Interval(ge=1, le=10**9)]
Whole = Annotated[int, Interval(ge=0, le=10**9)]
Width = Annotated[int, Interval(ge=1, le=2**16)]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]
Pixels = Annotated[int, Interval(ge=4, le=2048)]
Size = Annotated[
    Pixels | Annotated[list[Pixels], Len(2, 2)],
    Field(description="4 to 2048 pixels, as 64, or [height,width]"),
]
Depth = Annotated[int, Interval(ge=1, le=64)]
Channels = Annotated[
    int, matching(lambda n: n in (1, 3, 4)), Field(description="1 (grey), 3 (RGB) or 4 (RGBA)")
]
Betas = Annotated[
    list[BelowOne], Len(2, 2), Field(description="two numbers from 0 to below 1, as [0.0,0.99]")
]
Layers = Annotated[
    list[Width], Len(1, 64), Field(description="a list of layer sizes, as [256,512]")
]
Folder = Annotated[str, matching(str.strip), Field(description="the path of a folder")]
File = Annotated[str, matching(str.strip), Field(description="the path of a file")]
Target = Annotated[
    str,
    matching(_dotted),
    Field(description="the dotted name of a class, as package.module.Class"),
]
Some = Annotated[
    Count | Annotated[float, Interval(gt=0, le=1)],
    Field(description="a number of batches of at least 1, or a share as 0.1"),
]
Devices = Annotated[
    Annotated[int, matching(lambda n: n >= 1 or n == -1)]
    | Annotated[list[Annotated[int, Ge(0)]], Len(1)]
    | Annotated[str, Field(pattern=r"^(auto|-1|[1-9]\d*|\d+(,\d*)+)$")],
    Field(description="a number of devices of at least 1, -1 for all, or a list as [0,1]"),
]
Duration = Annotated[
    Annotated[
        str,
        Field(pattern=r"^\d+(:\d\d?){3}$"),
        matching(lambda text: any(map(int, text.split(":")))),
    ]
    | dict[Literal["weeks", "days", "hours", "minutes", "seconds"], AtLeast0],
    Field(description="days:hours:minutes:seconds, as 00:00:10:00 for ten minutes"),
]
Precision = Annotated[
    str | int,
    matching(lambda p: str(p) in ("32-true", "32", "64-true", "64", "bf16-mixed")),
    Field(
        description="32-true, 64-true or bf16-mixed (fp16 shares one scaler between two networks)"
    ),
]
Strategy = Annotated[
    Annotated[
        str,
        Field(
            pattern=r"^(auto|ddp(_spawn|_fork|_notebook)?(_find_unused_parameters_(true|false))?)$"
        ),
    ]
    | dict[str, Any],
    Field(
        description="auto or one of Lightning's ddp strategies, as ddp_find_unused_parameters_true"
    ),
]


Features = Annotated[
    Annotated[str, matching(lambda name: name in FEATURES)] | dict[str, Any],
    Field(description=f"{', '.join(FEATURES)} or a block with _target_"),
]


class Optimizer(Open):
    target: Target = Field(alias="_target_")
    lr: Rate
    betas: Betas = ABSENT
    eps: Above0 = ABSENT
    weight_decay: AtLeast0 = ABSENT


class Source(Block):
    target: Target = Field(alias="_target_")
    root: Folder = ABSENT
    dataset: Annotated[
        str, Field(description="a data set of torchvision's, as MNIST or CIFAR10")
    ] = ABSENT
    labels: bool = False
    number: Count = ABSENT
    size: Pixels = ABSENT
    seed: Seed = ABSENT


class Dataset(Block):
    target: Target = Field(alias="_target_")
    root: Annotated[Folder, Field(description="the folder that holds the images")] = "."
    labels: bool = False
    source: Annotated[Source, Ours]
    image_size: Size | None
    image_channels: Channels
    batch_size: Annotated[int, Interval(ge=1, le=2**20)] | None
    fit: Literal["crop", "pad", "stretch"]
    flip: bool
    background: Annotated[
        int, Interval(ge=0, le=255), Field(description="a grey level from 0 (black) to 255 (white)")
    ]
    holdout: Annotated[
        float, Interval(ge=0, le=0.5), Field(description="a share from 0 (off) to 0.5")
    ]
    cache_limit_gb: AtLeast0
    cache_dir: Folder
    drop_last: bool
    num_workers: Annotated[int, Interval(ge=0, le=1024)]
    steps_per_turn: Annotated[int, Interval(ge=1, le=10**6)]
    shrink_batch: bool
    seed: Seed


class Network(Block):
    """Either side; each network takes some of these."""

    target: Target = Field(alias="_target_")
    latent_dim: Width = ABSENT
    image_size: Size | None = None
    image_channels: Channels = ABSENT
    num_classes: Width | None = None
    channels: Width | None = None
    min_channels: Width | None = None
    upsample: Literal["smooth", "resize", "transposed"] | None = None
    depth: Depth | None = None
    norm: Literal["none", "batch", "group", "spectral"] = "none"
    minibatch_stddev: Annotated[int, Interval(ge=0, le=2**16)] = ABSENT
    hidden: Layers = ABSENT
    dropout: BelowOne = ABSENT


class Discriminator(Network):
    depth: Depth = ABSENT  # nothing is chosen for this side


class Networks(Block):
    generator: Annotated[Network, Ours]
    discriminator: Annotated[Discriminator, Ours]


class Loss(Block):
    target: Target = Field(alias="_target_")
    label_smoothing: BelowOne = 0.0
    gamma: AtLeast0 | None
    r2: bool
    gp_weight: AtLeast0
    lecam_weight: AtLeast0
    penalty_every: Annotated[int, Interval(ge=1, le=10**6)]


class Augment(Block):
    target: Target = Field(alias="_target_")
    ops: Annotated[
        list[Literal["color", "translation", "cutout", "flip"]],
        Field(description="a list of color, translation, cutout and flip, as [color,cutout]"),
    ]
    p: Fraction | None
    ada_target: Annotated[float, Interval(gt=-1, lt=1)] | None
    ada_kimg: Kimg
    max_p: Fraction


class Aid(Block):
    target: Target = Field(alias="_target_")
    weight: Above0
    start: BelowOne
    side: Annotated[int, Interval(ge=32, le=512)]
    components: Width
    strides: Annotated[
        list[Literal[4, 8, 16, 32]],
        Len(1),
        Field(description="a list of 4, 8, 16 and 32, as [8,16,32]"),
    ]
    places: Annotated[int, Interval(ge=1, le=16)]
    directions: Width
    queue: Annotated[int, Interval(ge=0, le=10**6)]
    num_classes: Width | None


class Metrics(Block):
    target: Target = Field(alias="_target_")
    num_images: Annotated[int, Interval(ge=50, le=10**9)] | None
    patience: Count | None
    inception_weights: File | None
    more: dict[str, dict[str, Any]]


class Diagnosis(Block):
    target: Target = Field(ABSENT, alias="_target_")
    language: Literal["en", "ko"]
    light_every: Count = 1
    stop_on_fatal: bool = True
    thresholds: dict[str, dict[str, float]] = {}


class Ema(Block):
    target: Target = Field(alias="_target_")
    halflife_kimg: Cadence
    rampup: AtLeast0


class Schedule(Block):
    target: Target = Field(alias="_target_")
    warmup_kimg: Cadence
    lr_final: Fraction


class Sampling(Block):
    truncation: Annotated[float, Interval(gt=0, lt=100)]
    reject: BelowOne


class Observer(Block):
    target: Target = Field(alias="_target_")
    every_kimg: Cadence | None
    max_fraction: AtLeast0
    metrics: dict[str, Any]
    diagnosis: dict[str, Any]
    features: Features | None
    pictures: dict[str, dict[str, Any]]
    cache_dir: Folder
    seed: Seed


class Checkpoints(Block):
    every_kimg: Cadence | None


class Console(Block):
    every_steps: Whole


class Retry(Block):
    minutes: Annotated[float, Interval(ge=0, le=1e6)]
    seconds_left: Above0 | None


class Logger(Open):
    target: Target = Field(alias="_target_")
    save_dir: Folder | None = None
    name: str = ABSENT
    version: str | int = ABSENT
    flush_logs_every_n_steps: Count = ABSENT


class Trainer(Block):
    """Lightning's own, by its names: those of conf/ and those that people add with a +."""

    target: Target = Field(alias="_target_")
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Devices
    num_nodes: Annotated[int, Interval(ge=1, le=10**5)]
    strategy: Strategy
    precision: Precision | None
    max_epochs: (
        Annotated[
            int,
            matching(lambda n: n >= 1 or n == -1),
            Field(description="a whole number of at least 1, or -1 for no limit"),
        ]
        | None
    )
    max_time: Duration | None
    limit_train_batches: Some | None
    log_every_n_steps: Count
    deterministic: (
        Annotated[bool | Literal["warn"], Field(description="true, false or warn")] | None
    )
    benchmark: bool | None
    profiler: (
        Annotated[
            Literal["simple", "advanced", "pytorch"] | dict[str, Any],
            Field(description="simple, advanced, pytorch or a block with _target_"),
        ]
        | None
    )
    enable_progress_bar: bool
    enable_model_summary: bool
    max_steps: Annotated[
        int,
        matching(lambda n: n >= 1 or n == -1),
        Field(description="a whole number of at least 1, or -1 for no limit"),
    ] = -1
    min_epochs: Count = ABSENT
    min_steps: Count = ABSENT
    fast_dev_run: bool | Whole = False
    overfit_batches: Whole | Fraction = 0
    limit_val_batches: Whole | Fraction = ABSENT
    limit_test_batches: Whole | Fraction = ABSENT
    limit_predict_batches: Whole | Fraction = ABSENT
    val_check_interval: Some = ABSENT
    check_val_every_n_epoch: Count = ABSENT
    num_sanity_val_steps: int = ABSENT
    gradient_clip_val: Annotated[
        None, Field(description="left out: grad_clip=... limits both networks' gradients")
    ] = None
    inference_mode: bool = True
    detect_anomaly: bool = False
    barebones: bool = False
    enable_autolog_hparams: bool = True
    sync_batchnorm: bool = False
    reload_dataloaders_every_n_epochs: Whole = 0


class Config(Block):
    """The whole configuration; the keys most often typed first, as others follow from them."""

    seed: Seed
    latent_dim: Width
    n_critic: Annotated[int, Interval(ge=1, le=1000)]
    reuse_fakes: bool
    conditional: bool
    num_classes: Annotated[
        None, Field(description="left alone: it follows from the data when conditional=true")
    ]
    features: Features | None
    total_kimg: Kimg | None
    grad_clip: Above0 | None
    compile: bool
    ckpt_path: (
        Annotated[
            File, Field(description="the path of a checkpoint, as logs/.../checkpoints/last.ckpt")
        ]
        | None
    )
    lr: Rate
    optimizer_g: Optimizer
    optimizer_d: Optimizer
    dataset: Annotated[Dataset, Ours]
    network: Networks
    loss: Annotated[Loss, Ours]
    augment: Annotated[Augment, Ours]
    aid: Annotated[Aid, Ours]
    ema: Annotated[Ema, Ours]
    schedule: Annotated[Schedule, Ours]
    sampling: Sampling
    observer: Annotated[Observer, Ours]
    checkpoints: Checkpoints
    console: Console
    retry: Retry
    metrics: Annotated[Metrics, Ours]
    diagnosis: Annotated[Diagnosis, Ours]
    trainer: Annotated[Trainer, Field(description="a block of keys")]
    logger: dict[str, Logger]


# -- questions ----------------------------------------------------------------------------------------------------------


def validate(cfg: DictConfig, typed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The configuration as plain values, all of them possible.

    Raises UserError naming a key whose value is not and what would be right; one of `typed` before others.
    """
    for key in _missing(OmegaConf.to_container(cfg)):
        raise UserError(f"{key} is needed: add {key}=... to the command, {words(annotation(key))}")
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    try:
        Config.model_validate(plain)
        return plain
    except ValidationError as error:
        found = [_answer(one["loc"], one["type"], plain) for one in error.errors(include_url=False)]
        raise UserError(min(found, key=lambda pair: pair[0] not in typed)[1]) from None


def _missing(plain: Any, prefix: str = "") -> Iterator[str]:
    """The keys whose value is ???, which Hydra writes for one that has to be given."""
    for key, value in plain.items():
        if value == "???":
            yield f"{prefix}{key}"
        elif isinstance(value, dict):
            yield from _missing(value, f"{prefix}{key}.")


def _answer(loc: tuple[Any, ...], kind: str, plain: Any) -> tuple[str, str]:
    """The key of one error, and the line that answers it."""
    way: list[str] = []
    value = plain
    for part in loc:
        if not isinstance(value, dict) or (part not in value and kind != "missing"):
            break
        way.append(str(part))
        value = value.get(part)
    key = ".".join(way)
    right = words(annotation(key, plain))
    if kind == "missing":
        return key, f"{key} is needed: add {key}=... to the command, {right}"
    shown = f"{value:.1f}" if isinstance(value, float) and "whole number" in right else brief(value)
    line = f"{key}={shown} should be {right}"
    if isinstance(value, str) and re.fullmatch(r"[-+.0-9]+(e[-+]?[0-9]+)?", value):
        line = f'{key}="{value}" should be {right}, without quotes'
    elif value == "":
        line += "; there is nothing behind the = (is a variable of the shell not set?)"
    elif "path of a" in right or "folder that" in right:
        if isinstance(value, int | float) and not isinstance(value, bool):
            line += f"; if that is its name, write ./{value}"
    elif value is None and right.startswith("a block of keys"):
        line = f"{key}=null is not possible: leave it out, or set the single keys in it"
    return key, line


def annotation(key: str, plain: Any = None) -> Any:
    """The type written down for a dotted key; OPEN inside somebody else's block or a free one, None for no key at all."""
    found: Any = Config
    for part in key.split("."):
        if theirs(plain) and get_origin(found) is Annotated and Ours in get_args(found):
            return OPEN
        model = _model(found)
        plain = plain.get(part) if isinstance(plain, dict) else None
        if model is None:
            inner = [choice for choice in _choices(found) if get_origin(choice) is dict]
            if not inner:
                return None
            found = get_args(inner[0])[1]
            if found is Any:
                return OPEN
        else:
            names = {field.alias or name: name for name, field in model.model_fields.items()}
            if part not in names:
                own = part.startswith("_") and part.endswith("_")  # Hydra's
                return OPEN if own or issubclass(model, Open) else None
            found = get_type_hints(model, include_extras=True)[names[part]]
    return found


def _choices(kind: Any) -> list[Any]:
    """The alternatives of a type, without what is said about them."""
    if get_origin(kind) is Annotated:
        return _choices(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [choice for part in get_args(kind) for choice in _choices(part)]
    return [kind]


def _model(kind: Any) -> type[Block] | None:
    return next((c for c in _choices(kind) if isinstance(c, type) and issubclass(c, Block)), None)


def words(kind: Any) -> str:
    """What a type admits, in words: `Annotated[int, Ge(1)] | None` is "a whole number of at least 1, or null"."""
    simple = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        types.NoneType: "null",
    }
    if kind is OPEN or kind is None or kind is Any:
        return "a value"
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        said = [note.description for note in reversed(notes) if getattr(note, "description", None)]
        return said[0] if said else words(base) + "".join(_range(note) for note in notes)
    if get_origin(kind) in (Union, types.UnionType):
        parts = [words(part) for part in get_args(kind) if part is not types.NoneType]
        null = ", or null" if types.NoneType in get_args(kind) else ""
        return " or ".join(dict.fromkeys(parts)) + null
    if get_origin(kind) is Literal:
        *most, last = map(str, get_args(kind))
        return f"{', '.join(most)} or {last}" if most else last
    if get_origin(kind) is dict or _model(kind):
        return "a block of keys"
    return simple.get(kind, "a list")


def needed(key: str) -> bool:
    """Whether the program cannot do without a key."""
    block, _, last = key.rpartition(".")
    model = _model(annotation(block)) if block else Config
    fields = (
        {field.alias or name: field for name, field in model.model_fields.items()} if model else {}
    )
    return last in fields and fields[last].is_required()


def _range(note: Any) -> str:
    """The bounds of a number, as " above 0 and up to 10"."""
    if not isinstance(note, Gt | Ge | Lt | Le | Interval):
        return ""
    bound = {
        n: brief(v) for n in ("gt", "ge", "lt", "le") if (v := getattr(note, n, None)) is not None
    }
    if "ge" in bound and len(bound) == 2:
        return f" from {bound['ge']} to {'below ' + bound['lt'] if 'lt' in bound else bound['le']}"
    texts = {"gt": "above {}", "ge": "of at least {}", "lt": "below {}", "le": "up to {}"}
    return " " + " and ".join(texts[n].format(v) for n, v in bound.items())
