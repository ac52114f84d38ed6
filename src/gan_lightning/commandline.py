"""The command line of `python train.py` before Hydra's turn: mistakes cost no file.

Overrides are parsed and composed by Hydra, and what comes out is held against `schema`. Hydra's and
OmegaConf's own words are passed on where they name the key and help.
"""

import difflib
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gan_lightning import places
from gan_lightning.config import EXTRAS, assign, key_of, quoted
from gan_lightning.errors import UserError
from gan_lightning.ranges import words
from gan_lightning.schema import KEYS, LEFT_OUT, OPEN, kind, leaves, needed, validate
from gan_lightning.text import brief

SWEEP_VALUES = 50  # of a sweep that are looked at before it begins
ELSEWHERE = {  # what people type who come from other programs
    "learning_rate": "lr",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "resume": "ckpt_path",
    "checkpoint": "ckpt_path",
    "size": "dataset.image_size",
    "data": "dataset",
    "folder": "dataset=folder dataset.root",
    "model": "network",
    "optimizer": "optimizer_g",
    "z_dim": "latent_dim",
}


def checked(arguments: Sequence[str], conf: str) -> tuple[list[str], set[Path]]:
    """What to hand to Hydra, and the folders that stood on the way to the run's folder before it.
    Raises UserError.

    Values that Hydra's grammar needs in quotes are quoted; of a sweep every value is checked.
    """
    options, others, overrides = separated(arguments)
    if options.shell_completion:
        return list(arguments), set()
    conf, name, more = home(options, conf)
    _in_form(overrides)
    overrides = [quoted(override) for override in overrides]
    parsed = [_parsed(override) for override in overrides]
    GlobalHydra.instance().clear()
    before, there = HydraConfig.instance().cfg, set()
    try:
        with initialize_config_dir(conf, version_base="1.3", job_name="train"):
            if options.help or options.hydra_help or options.cfg or options.info:
                _composed(name, [*more, *overrides], parsed)
            else:
                there = _check_all(name, more, parsed, options.multirun)
    finally:
        HydraConfig.instance().cfg = before
    return [*others, *overrides], there


def separated(arguments: Sequence[str]) -> tuple[Namespace, list[str], list[str]]:
    """Hydra's options as parsed, the arguments that they were, and the overrides."""
    from hydra._internal.utils import get_args_parser  # there is no public one

    def refuse(message: str) -> None:
        raise UserError(f"{message}; python train.py --hydra-help shows the options")

    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = refuse  # type: ignore[assignment, method-assign]
    options, odd = parser.parse_known_intermixed_args(list(arguments))
    if odd:
        values = [word for word in options.overrides if "=" not in word]
        setting = odd[0].lstrip("-")
        setting += "" if "=" in setting else f"={values[0] if values else '...'}"
        refuse(f"{odd[0]} is no option; settings go without dashes, as {setting}")
    if options.experimental_rerun is not None:
        refuse("--experimental-rerun would read a pickle, which can run code")
    if options.resolve and not (options.cfg or options.help):
        refuse("--resolve goes with --cfg, as --cfg job --resolve")
    asked = [name for name in ("run", "cfg", "multirun", "info") if getattr(options, name)]
    if len(asked) > 1:
        refuse(f"only one of {', '.join(f'--{name}' for name in asked)} is possible")
    others = list(arguments)
    for override in options.overrides:
        others.remove(override)
    return options, others, options.overrides


def home(options: Namespace, conf: str) -> tuple[str, str, list[str]]:
    """Folder and name of the configuration, and the override for --config-dir. UserError."""
    more = []
    if options.config_path is not None:
        conf = os.path.abspath(os.path.join(os.path.dirname(conf), options.config_path))
        places.folder("--config-path ", conf, "one like conf/, or leave it out")
    if options.config_dir is not None:
        places.folder("--config-dir ", options.config_dir, "one with your own configuration")
        folder = os.path.abspath(options.config_dir)
        more = [f"hydra.searchpath=[{assign('', 'file://' + folder)[1:]}]"]
    return conf, options.config_name or "config", more


# -- single overrides ----------------------------------------------------------------------


def _in_form(overrides: list[str]) -> None:
    """Raises UserError for a word that is not key=value, with what was probably meant."""
    stray = next((w for w in overrides if "=" not in w[1:] and not w.startswith("~")), None)
    if stray is None:
        return
    known = "|".join(map(re.escape, KEYS))
    text = re.sub(r"\s*=\s*", "=", " ".join(overrides))
    parts = re.split(rf"\s+(?=[+~]*[\w@./-]+=|(?:{known})(?:[\s:]|$))", text)
    part = next((part for part in parts if part not in overrides), stray)
    key, _, value = part.partition("=")
    if key and value:
        compact = f"{key}={value.replace(' ', '')}"
        meant = shlex.quote(compact if value[0] in "[{" else assign(key, value))
    elif re.match(rf"({known}|\w+\.[\w.]+|(?!.*/).*?\w)[:\s]\s*\S", part):
        key, value = re.split(r"[:\s]\s*", part, maxsplit=1)
        meant = shlex.quote(assign(key, value))
    elif "/" in part:
        meant = f"dataset=folder {shlex.quote(assign('dataset.root', part))}"
    elif part in ("help", "version"):
        meant = f"--{part}"
    else:
        meant = f"{part}=..." if re.fullmatch(r"[\w.]+", part) else "key=value"
    raise UserError(
        f"{stray} is not of the form key=value, with no space around = and quotes around a value"
        f" with spaces: did you mean {meant} ?"
    )


def _parsed(override: str) -> Override:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        raise UserError(_unreadable(override)) from None
    if not parsed.key_or_group:
        raise UserError(f"{override} names no key: key=value is right")
    return parsed


def _unreadable(override: str) -> str:
    """The line for an override that Hydra's grammar does not take, with one that it does."""
    key, _, value = override.partition("=")
    if not re.fullmatch(r"[+~]*[\w@./:-]+", key):
        return f"{override} cannot be read: {key} is no name of a key"
    if value[:1] == "(" and value[-1:] == ")":
        right = shlex.quote(f"{key}=[{value[1:-1]}]")
        return f"{override} cannot be read: a list is written {right}"
    still_open = [p[0] for p in ("()", "[]", "{}") if value.count(p[0]) > value.count(p[1])]
    still_open += [quote for quote in "\"'" if value.count(quote) % 2]
    why = f"a {still_open[0]} is not closed" if still_open else "its value needs quotes"
    if value.endswith(","):
        why = "there is nothing behind the last comma"
    return f"{override} cannot be read, {why}: as text it is {shlex.quote(assign(key, value))}"


def _variants(parsed: Override) -> list[str]:
    """The first single overrides that a sweep's stands for; itself where it is none."""
    line, prefix, value = str(parsed.input_line), parsed.get_key_element(), parsed.value()
    if not parsed.is_sweep_override():
        return [line]
    if parsed.is_interval_sweep():
        return [f"{prefix}={end}" for end in (value.start, value.end)]  # type: ignore[union-attr]
    if isinstance(value, Glob):
        if _options(parsed.key_or_group):
            return []
        raise UserError(f"{line}: glob(...) is for groups, as {prefix}=choice(a,b) is for values")
    try:
        values = list(islice(parsed.sweep_string_iterator(), SWEEP_VALUES))
    except ValueError as error:
        raise UserError(f"{line} cannot be swept: {error}") from None
    if not values:
        raise UserError(f"{line} stands for no value at all: range(start,stop) has start < stop")
    return [f"{prefix}={one}" for one in values]


# -- the configuration ---------------------------------------------------------------------


def _check_all(name: str, more: list[str], parsed: list[Override], multirun: bool) -> set[Path]:
    """Checks the run, or each value of a sweep with the others' first; what stands already."""
    variants = [found for found in map(_variants, parsed) if found]
    first = [found[0] for found in variants]
    cfg = _composed(name, [*more, *first], [_parsed(one) for one in first])
    multirun = multirun or str(OmegaConf.select(cfg, "hydra.mode")).endswith("MULTIRUN")
    sweeps = [override for override in parsed if override.is_sweep_override()]
    if sweeps and not multirun:
        raise UserError(_no_sweep(str(sweeps[0].input_line), cfg))
    existing = _check(cfg, first, multirun)
    params = OmegaConf.select(cfg, "hydra.sweeper.params") if multirun else None
    swept = [_variants(_parsed(f"{key}={value}")) for key, value in (params or {}).items()]
    runs = [(found, one) for found in variants for one in found[1:]]
    runs += [(found, one) for found in swept for one in found]
    for own, one in runs:
        line = [*(others[0] for others in variants if others is not own), one]
        _check(_composed(name, [*more, *line], [_parsed(part) for part in line]), line, multirun)
    return existing


def _no_sweep(line: str, cfg: DictConfig) -> str:
    """The line for several values without -m."""
    key, _, value = line.partition("=")
    right = ", ".join(_options(key)) or words(kind(key.lstrip("+"), OmegaConf.to_container(cfg)))
    right = f"one value should be {right}"
    if right.endswith(("path of a folder", "holds the images", "text", "a value")):
        right = f"a value that holds a comma needs quotes: {shlex.quote(assign(key, value))}"
    return f"{line} is several values, which only a sweep takes: add -m to run each; {right}"


def _composed(name: str, overrides: list[str], parsed: list[Override]) -> DictConfig:
    """The configuration with Hydra's own part; UserError for what Hydra refuses."""
    for override in parsed:
        _check_group(override)
    try:
        return compose(name, overrides, return_hydra_config=True)
    except Exception as error:  # whatever it is, it is the command line's or conf/'s fault
        _say_which(name, parsed)
        raise UserError(explain(error)) from None


def _options(group: str) -> list[str]:
    """What a group can be set to; [] for what is no group."""
    loader = GlobalHydra.instance().config_loader()
    return [] if "." in group else list(loader.get_group_options(group))


def _check_group(override: Override) -> None:
    """Raises UserError for an option that is not there, or a group that is needed taken away."""
    key, value = override.key_or_group, override.value()
    options = _options(key)
    if override.is_delete():
        if needed(key):
            raise UserError(f"~{key} is not possible: the program needs this key, leave it out")
    elif options and not override.is_sweep_override():
        for one in value if isinstance(value, list) else [value]:
            if one is None or str(one) not in options:
                raise UserError(_no_option(key, one, options))


def _no_option(group: str, wrong: Any, options: Sequence[str]) -> str:
    """The line for a group that is set to something it has not."""
    if extra := EXTRAS.get(f"{group}/{wrong}"):
        return f"{group}={wrong} needs an extra: pip install 'gan-lightning[{extra}]'"
    there = f"there are {', '.join(options)}"
    if wrong is None:
        off = [option for option in options if option in ("none", "off")]
        right = f"{group}={off[0]} turns it off" if off else f"leave it out; {there}"
        return f"{group}=null is not possible, a group cannot be null: {right}"
    near = [f"{group}={one}" for one in difflib.get_close_matches(str(wrong), options, n=1)]
    if group == "dataset" and (os.sep in str(wrong) or os.path.isdir(str(wrong))):
        near = [f"dataset=folder {shlex.quote(assign('dataset.root', wrong))} "]
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{group}={brief(wrong)} does not exist; {meant}{there}"


def _say_which(name: str, parsed: list[Override]) -> None:
    """Raises UserError for the one override that keeps the others from being composed."""
    groups = [override for override in parsed if _options(override.key_or_group)]
    lines = [str(override.input_line) for override in groups]
    try:
        there = OmegaConf.to_container(compose(name, lines))
    except (HydraException, OmegaConfBaseException):  # one of the groups: Hydra speaks of it
        return
    for override in parsed:
        typed_new = override.is_add() or override.is_force_add()
        if override not in groups and not override.is_hydra_override() and not typed_new:
            _check_key(override, there, name, lines)


def known_keys(plain: Any) -> list[str]:
    """Every key that can be set, and the groups."""
    groups = GlobalHydra.instance().config_loader().list_groups("")
    return [*(key for key, _ in leaves(plain)), *(group for group in groups if group != "hydra")]


def _check_key(override: Override, there: Any, name: str, groups: list[str]) -> None:
    """Raises UserError where an override sets a key that is not there."""
    key = override.key_or_group
    if key in known_keys(there):
        return
    right = kind(key, there)
    if right is LEFT_OUT:
        raise UserError(f"{key} should be {words(right)}")
    group, _, rest = key.partition(".")
    if right not in (None, OPEN) and group in ("trainer", "optimizer_g", "optimizer_d"):
        raise UserError(f"{key} is not set so far: write +{override.input_line} to add it")
    has_it = [f"{group}={one}" for one in _options(group) if rest and _has(name, group, one, key)]
    if has_it:
        chosen = next((g for g in groups if g.startswith(f"{group}=")), f"the {group} chosen here")
        raise UserError(
            f"{key} is no key of {chosen}: leave it out, or choose {' or '.join(has_it)}, which has it"
        )
    raise UserError(_unknown(key, known_keys(there)))


def _has(name: str, group: str, option: str, key: str) -> bool:
    """Whether a configuration with this option has the key."""
    try:
        return key in dict(leaves(OmegaConf.to_container(compose(name, [f"{group}={option}"]))))
    except (HydraException, OmegaConfBaseException):
        return False


def _unknown(key: str, known: list[str]) -> str:
    """The line for a key that is nowhere, with those that look like it or end like it."""
    last = key.rpartition(".")[2].lower()
    far = " " if key.startswith("diag") else "diagnosis.thresholds."
    known = [one for one in known if not f"{key}.".startswith(f"{one}.") and far not in one]
    near = [ELSEWHERE[last]] if last in ELSEWHERE else []
    near += difflib.get_close_matches(key, known, n=2)
    ends = [one.rpartition(".")[2] for one in known]
    for end in difflib.get_close_matches(last, dict.fromkeys(ends), n=2, cutoff=0.7):
        near += [one for one in known if one.rpartition(".")[2] == end][:2]
    meant = " or ".join(list(dict.fromkeys(near))[:3])
    otherwise = "python train.py --help shows all keys and groups"
    right = f"did you mean {meant}?" if meant else otherwise
    return f"{key} is no key of the configuration; {right}"


def _check(cfg: DictConfig, overrides: list[str], multirun: bool) -> set[Path]:
    """Raises UserError for impossible values and paths; the folders that stand already."""
    for part in ("launcher", "sweeper"):
        if not OmegaConf.is_dict(cfg.hydra[part]):
            raise UserError(f"hydra.{part} is a group: hydra/{part}=... chooses one")
    inner = cfg.hydra.output_subdir
    if inner is not None and (os.path.isabs(inner) or ".." in Path(inner).parts):
        raise UserError(
            f"hydra.output_subdir={inner} should be a name in the run's folder, or null"
        )
    job = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    typed = tuple(map(key_of, overrides))
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = "."
        HydraConfig.instance().set_config(cfg)  # for what the rest interpolates from it
        try:
            folder = OmegaConf.select(cfg, job)
            del cfg["hydra"]
            content = validate(cfg, typed)
        except OmegaConfBaseException as error:
            raise UserError(explain(error)) from None
    for key, override in zip(typed, overrides, strict=True):
        new = override.startswith("+") and not key.startswith("hydra.") and not _options(key)
        if new and kind(key, content) is None:
            raise UserError(_unknown(key, known_keys(content)))
    places.check_paths(content)
    if not isinstance(folder, str) or not folder.strip():
        raise UserError(f"{job}={brief(folder)} should be the path of a folder")
    places.can_be_folder(f"{job}=", folder, write=True)
    path = Path(folder).absolute()
    return {parent for parent in (path, *path.parents) if parent.exists()}


def explain(error: BaseException) -> str:
    """One line for an error of Hydra's or OmegaConf's, with the key where they know it."""
    cause = error.__cause__ or error
    if isinstance(cause, UserError):
        return str(cause)
    group, _, option = str(getattr(error, "missing_cfg_file", "")).rpartition("/")
    if isinstance(error, MissingConfigException) and group:
        return _no_option(group, option, error.options or ["none"])
    cause = cause if isinstance(cause, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException):
        first = str(cause.msg or cause).split("\n")[0]
        return f"{cause.full_key}: {first}" if cause.full_key else first
    return " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__


def leave_nothing(existing: set[Path]) -> None:
    """Takes a run's folder away again where nothing was written into it yet."""
    first = os.environ.get("LOCAL_RANK", "0") == os.environ.get("RANK", "0") == "0"
    if not existing or not first or not HydraConfig.initialized():
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        for empty in (folder, *folder.parents):
            if empty in existing:
                return
            empty.rmdir()
    except OSError:  # there is something in it
        return
