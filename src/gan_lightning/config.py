"""Checks on the composed configuration, in words: no heavy import, so that a mistake is answered at once."""

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gan_lightning.errors import UserError


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Test = Callable[[Any], bool]
_ABSENT = object()
_positive: tuple[Test, str] = lambda v: _number(v) and v > 0, "a number above 0"
_not_negative: tuple[Test, str] = lambda v: _number(v) and v >= 0, "a number of at least 0"
_share: tuple[Test, str] = lambda v: _number(v) and 0 <= v <= 1, "a number from 0 to 1"
_part: tuple[Test, str] = lambda v: _number(v) and 0 <= v < 1, "a number from 0 to below 1"
_count: tuple[Test, str] = lambda v: _whole(v) and v >= 1, "a whole number of at least 1"
_flag: tuple[Test, str] = lambda v: isinstance(v, bool), "true or false"
_betas: tuple[Test, str] = (
    lambda v: OmegaConf.is_list(v) and len(v) == 2 and all(_number(b) and 0 <= b < 1 for b in v),
    "two numbers from 0 to below 1, as in [0.0,0.99]",
)
_size: tuple[Test, str] = (
    lambda v: (_whole(v) and v >= 4) or (OmegaConf.is_list(v) and len(v) == 2 and all(_whole(s) and s >= 4 for s in v)),
    "a number of pixels of at least 4, or [height,width]",
)

RULES: dict[str, tuple[Test, str]] = {
    "seed": (lambda v: _whole(v) and 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
    "latent_dim": _count,
    "n_critic": _count,
    "fresh_noise": _flag,
    "conditional": _flag,
    "total_kimg": _positive,
    "grad_clip": _positive,
    "lr": _positive,
    "optimizer_g.lr": _positive,
    "optimizer_d.lr": _positive,
    "optimizer_g.betas": _betas,
    "optimizer_d.betas": _betas,
    "ema.halflife_kimg": _not_negative,
    "ema.rampup": _not_negative,
    "schedule.warmup_kimg": _not_negative,
    "schedule.lr_final": _share,
    "schedule.gamma_final": _not_negative,
    "schedule.grow": _part,
    "sampling.truncation": _positive,
    "sampling.reject": _part,
    "loss.gamma": _not_negative,
    "loss.gp_weight": _not_negative,
    "loss.lecam_weight": _not_negative,
    "loss.penalty_every": _count,
    "loss.r2": _flag,
    "loss.adversarial.label_smoothing": _part,
    "augment.p": _share,
    "augment.max_p": _share,
    "augment.ada_kimg": _positive,
    "dataset.image_size": _size,
    "dataset.image_channels": (lambda v: v in (1, 3, 4), "1 (grey), 3 (RGB) or 4 (RGBA)"),
    "dataset.batch_size": _count,
    "dataset.fit": (lambda v: v in ("crop", "pad", "stretch"), "crop, pad or stretch"),
    "dataset.flip": _flag,
    "dataset.num_workers": (lambda v: _whole(v) and v >= 0, "a whole number of at least 0"),
    "dataset.steps_per_turn": _count,
    "dataset.drop_last": _flag,
    "dataset.holdout": (lambda v: _number(v) and 0 <= v <= 0.5, "a share from 0 (off) to 0.5"),
    "dataset.cache_limit_gb": _not_negative,
    "pictures.every_kimg": _not_negative,
    "checkpoints.every_kimg": _not_negative,
    "console.every_steps": (lambda v: _whole(v) and v >= 0, "a whole number of at least 0"),
    "metrics.every_kimg": _positive,
    "metrics.num_images": _count,
    "metrics.max_share": _not_negative,
    "diagnosis.light_every": _count,
    "diagnosis.full_every": _count,
    "diagnosis.images": _count,
    "diagnosis.max_share": _not_negative,
    "retry.minutes": _not_negative,
    "diagnosis.language": (lambda v: v in ("en", "ko"), "en or ko"),
    "trainer.log_every_n_steps": _count,
    "trainer.devices": (
        lambda v: (
            (_whole(v) and (v >= 1 or v == -1))
            or OmegaConf.is_list(v)
            or (isinstance(v, str) and re.fullmatch(r"auto|-1|[1-9]\d*|\d+(,\d*)+", v) is not None)
        ),
        "a number of devices of at least 1, -1 for all, or a list",
    ),
    "num_classes": (lambda v: False, "left alone: it follows from the data when conditional=true"),
    "metrics.patience": _count,
    "trainer.precision": (
        lambda v: str(v) in ("32-true", "32", "64-true", "64", "bf16-mixed"),
        "32-true, 64-true or bf16-mixed (fp16 shares one scaler between two networks)",
    ),
    "trainer.max_time": (
        lambda v: OmegaConf.is_dict(v) or isinstance(v, str) and re.fullmatch(r"\d+(:\d\d?){3}", v) is not None,
        "days:hours:minutes:seconds, as 00:00:10:00 for ten minutes",
    ),
    "trainer.max_epochs": (lambda v: _whole(v) and (v >= 1 or v == -1), "a whole number of at least 1, or -1"),
}

# what may be null: the run chooses, or leaves it out
OPTIONAL = frozenset(
    "total_kimg grad_clip schedule.grow loss.gamma augment.p dataset.image_size dataset.batch_size pictures.every_kimg checkpoints.every_kimg"
    " metrics.every_kimg metrics.num_images metrics.patience num_classes trainer.max_time trainer.max_epochs trainer.precision".split()
)
BLOCKS = (
    "dataset dataset.source network network.generator network.discriminator loss loss.adversarial augment optimizer_g optimizer_d ema"
    " schedule sampling pictures checkpoints console retry metrics diagnosis trainer logger".split()
)


def validate(cfg: DictConfig) -> None:
    """Raises UserError naming the first key whose value is impossible and what would be right."""
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"{key} is needed: add {key}=... to the command")
    for key in BLOCKS:
        if OmegaConf.select(cfg, key, default=0) is None:
            raise UserError(f"{key}=null is not possible: leave it out, or set the single keys in it")
    for key, (right, words) in RULES.items():
        value = OmegaConf.select(cfg, key, default=_ABSENT)
        if value is not _ABSENT and not (value is None and key in OPTIONAL) and not right(value):
            raise UserError(f"{key}={'null' if value is None else value} should be {words}")


def lookup(config: Any, path: str) -> Any:
    """A nested value of plain dicts by its dotted name, as it stands; None where it is missing."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return config


def key_of(override: str) -> str:
    """The key that a typed override sets, adds or removes: `+a.b=1` -> `a.b`."""
    return override.lstrip("+~").partition("=")[0]


def let_last_rate_win(cfg: DictConfig, overrides: list[str]) -> list[str]:
    """Of `lr` and `optimizer_g.lr` or `optimizer_d.lr` on one command line the later one holds; returns what gave way.

    So `lr=5e-4` pasted behind any command sets both networks' rates, as a prescription needs.
    """
    typed = {key_of(override): place for place, override in enumerate(overrides)}
    gone = [k for k in ("optimizer_g.lr", "optimizer_d.lr") if typed.get(k, len(overrides)) < typed.get("lr", -1)]
    for key in gone:
        OmegaConf.update(cfg, key, cfg.lr)
    return [overrides[typed[key]] for key in gone]


def assign(key: str, value: object) -> str:
    """The override that sets `key` to a string, in quotes where Hydra's grammar needs them."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./-]+", text):
        return f"{key}={text}"
    # backslashes are themselves, but for those before a quote and at the end
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text)
    return f'{key}="{escaped}"'


def quoted(argument: str) -> str:
    """An override as typed, in quotes where Hydra's grammar does not take its value as it is (/사진, ~/photos, /photos (1))."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = argument.partition("=")
    if not re.fullmatch(r"\+{0,2}[\w.@/]+", key) or not value or value[0] in "\"'[{" or "," in value:
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return assign(key, value)
    return argument


def keys(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a configuration, inner ones included."""
    for key in cfg if OmegaConf.is_dict(cfg) else ():
        yield prefix + str(key)
        if not OmegaConf.is_interpolation(cfg, key) and not OmegaConf.is_missing(cfg, key):
            yield from keys(cfg[key], f"{prefix}{key}.")


EXTRAS = {
    "hydra/sweeper/optuna": "search",
    "hydra/launcher/cluster": "cluster",
    "hydra/launcher/cluster_local": "cluster",
}


def explain(error: BaseException, known: Callable[[], list[str]]) -> str:
    """One line for an error of composing or instantiating; `known` gives the keys to suggest from."""
    text = str(error).strip()
    if match := re.search(r"Could not override '([^']+)'|Key '([^']+)' (?:is not in struct|not in)", text):
        key = match[1] or (re.search(r"full_key: (\S+)", text) or match)[1] or match[2]
        if match[1] and re.search(r"No match in the defaults list", text):
            return f"{key} is no group here; type `python train.py --help` for the groups"
        there = known()
        if key in there:
            group = key.partition(".")[0]
            return f"{key} is no key of the {group} chosen here: leave it out, or choose another {group}"
        near = difflib.get_close_matches(key, there, n=3, cutoff=0.5)
        return f"{key} is no key of the configuration; " + (
            f"did you mean {' or '.join(near)}?" if near else "type `python train.py --help` for all keys"
        )
    if match := re.search(
        r"Could not find '([^']+)'\s+Available options in '([^']+)':\s+(.*?)(?:Config search path|$)", text, re.S
    ):
        group, _, option = match[1].rpartition("/")
        if extra := EXTRAS.get(match[1]):
            return f"{group}={option} needs an extra: pip install 'gan-lightning[{extra}]'"
        return f"{group}={option} does not exist; there are {', '.join(match[3].split())}"
    if "Config group override must be" in text:
        return "a group cannot be null; augment=none, metrics=none, logger=none and diagnosis=off turn one off"
    cause = error.__cause__ or error
    if match := re.search(r"full_key: (\S+)", text):
        return f"{match[1]}: {_first_line(cause)}"
    if match := re.match(r"Error in call to target '([^']+)'", text):
        return f"{match[1].rpartition('.')[2]}: {_first_line(cause)}"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split()) or type(error).__name__
