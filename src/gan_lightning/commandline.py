"""The command line of `python train.py` before Hydra's turn: mistakes are answered before anything slow or written.

The overrides are parsed and composed by Hydra's public functions, and the result is held against `schema`. What Hydra
and OmegaConf know of an error they carry as attributes (the key, the options), and these are used, not their texts.
"""

import difflib
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gan_lightning import places
from gan_lightning.config import EXTRAS, assign, key_of, keys, lookup, quoted
from gan_lightning.errors import UserError
from gan_lightning.schema import OPEN, TAKEN, annotation, needed, validate, words
from gan_lightning.text import brief

SWEEP_VALUES = 50  # of a sweep that are looked at before it begins
ELSEWHERE = {  # what people type who come from other programs
    "learning_rate": "lr", "epochs": "trainer.max_epochs", "gpus": "trainer.devices", "resume": "ckpt_path",
    "checkpoint": "ckpt_path", "workers": "dataset.num_workers", "size": "dataset.image_size", "data": "dataset",
    "folder": "dataset=folder dataset.root", "model": "network", "optimizer": "optimizer_g", "z_dim": "latent_dim",
}  # fmt: skip


def checked(arguments: Sequence[str], conf: str) -> tuple[list[str], set[Path]]:
    """What to hand to Hydra, and the folders that stood on the way to the run's folder before it. Raises UserError.

    Options come first, values that Hydra's grammar needs in quotes are quoted, and the configuration is composed and
    checked, every value of a sweep as well.
    """
    options, others, overrides = separated(arguments)
    asked_for_help = options.help or options.hydra_help
    if options.shell_completion:
        return list(arguments), set()
    conf, name, more = home(options, conf)
    _readable_or_refused(overrides, conf, name)
    overrides = [quoted(override) for override in overrides]
    parsed = [_parsed(override) for override in overrides]
    GlobalHydra.instance().clear()
    before = HydraConfig.instance().cfg
    try:
        with initialize_config_dir(conf, version_base="1.3", job_name="train"):
            if asked_for_help or options.cfg or options.info:
                _composed(name, [*more, *overrides], parsed)
                return [*others, *overrides], set()
            return [*others, *overrides], _check_all(name, more, parsed, options.multirun)
    finally:
        HydraConfig.instance().cfg = before


def separated(arguments: Sequence[str]) -> tuple[Namespace, list[str], list[str]]:
    """Hydra's options as parsed, the arguments that they were, and the overrides, wherever among them these stood."""
    from hydra._internal.utils import get_args_parser  # there is no public one

    def refuse(message: str) -> None:
        raise UserError(f"{message}; python train.py --hydra-help shows the options")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[assignment, method-assign]
    options, odd = parser.parse_known_intermixed_args(list(arguments))
    if odd:
        setting, values = (
            odd[0].lstrip("-"),
            [word for word in options.overrides if "=" not in word],
        )
        setting = setting if "=" in setting else f"{setting}={values[0] if values else '...'}"
        hint = f"; settings go without dashes, as {setting}"
        raise UserError(
            f"{odd[0]} is no option{hint}; python train.py --hydra-help shows the options"
        )
    if options.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun would read a pickle, which can run code: type the overrides again"
        )
    if options.resolve and not (options.cfg or options.help):
        raise UserError("--resolve goes with --cfg, as --cfg job --resolve")
    asked = {
        "--run": options.run,
        "--cfg": options.cfg,
        "--multirun": options.multirun,
        "--info": options.info,
    }
    if sum(map(bool, asked.values())) > 1:
        raise UserError(
            f"only one of {', '.join(name for name, value in asked.items() if value)} is possible"
        )
    others = list(arguments)
    for override in options.overrides:
        others.remove(override)
    return options, others, options.overrides


def home(options: Namespace, conf: str) -> tuple[str, str, list[str]]:
    """The folder of the configuration, its name, and the override that adds --config-dir. Raises UserError."""
    if options.config_path is not None:
        conf = os.path.abspath(os.path.join(os.path.dirname(conf), options.config_path))
        if not os.path.isdir(conf):
            raise UserError(
                f"--config-path {options.config_path}: {conf} is no folder; leave it out for conf/"
            )
    name, more = "config" if options.config_name is None else options.config_name, []
    folders = [conf]
    if options.config_dir is not None:
        folder = os.path.abspath(options.config_dir)
        if not os.path.isdir(folder):
            raise UserError(
                f"--config-dir {options.config_dir} is no folder: give one with your own configuration"
            )
        folders.append(folder)
        more = [f"hydra.searchpath=[{assign('x', 'file://' + folder).partition('=')[2]}]"]
    if not any(
        os.path.isfile(os.path.join(f, name.removesuffix(".yaml") + ".yaml")) for f in folders
    ):
        raise UserError(
            f"--config-name {shlex.quote(name)} does not exist in {conf}: leave it out, or choose with experiment=..."
        )
    return conf, name, more


# -- single overrides ---------------------------------------------------------------------------------------------------


def _readable_or_refused(overrides: list[str], conf: str, name: str) -> None:
    """Raises UserError for a word that is not of the form key=value, with what was probably meant."""
    for place, word in enumerate(overrides):
        if "=" in word[1:] or word.startswith("~"):
            continue
        before = overrides[place - 1] if place else ""
        after = overrides[place + 1] if place + 1 < len(overrides) else ""
        if word.startswith("=") and before:
            meant = before + (word if word != "=" else f"={after}")
        elif before.endswith("="):
            meant = before + word
        elif after.startswith("="):
            meant = word + (
                after if after != "=" else "=" + "".join(overrides[place + 2 : place + 3])
            )
        elif "=" in before and not _is_key(word, conf, name):
            key, _, value = before.partition("=")
            rest = " ".join(islice((w for w in overrides[place:]), _until_key(overrides[place:])))
            meant = f"{key}={value}{rest}" if value[:1] in "[{" else assign(key, f"{value} {rest}")
        elif "/" in word:
            meant = f"dataset=folder {shlex.quote(assign('dataset.root', word))}"
        elif ":" in word:
            meant = word.replace(":", "=", 1)
        elif word in ("help", "version"):
            meant = f"--{word}"
        elif after and "=" not in after:
            meant = f"{word}={after}"
        else:
            meant = f"{word}=..."
        raise UserError(
            f"{word} is not of the form key=value, with no space around = and quotes around a value with spaces:"
            f" did you mean {meant if ' dataset.root' in meant or meant.endswith('...') else shlex.quote(meant)} ?"
        )


def _until_key(overrides: list[str]) -> int:
    return next((n for n, word in enumerate(overrides) if "=" in word), len(overrides))


def _is_key(word: str, conf: str, name: str) -> bool:
    with initialize_config_dir(conf, version_base="1.3"):
        return word in known_keys(compose(name))


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
    open_ones = [p[0] for p in ("()", "[]", "{}") if value.count(p[0]) > value.count(p[1])]
    open_ones += [quote for quote in "\"'" if value.count(quote) % 2]
    why = f"a {open_ones[0]} is not closed" if open_ones else "its value needs quotes"
    if value.endswith(","):
        why = "there is nothing behind the last comma"
    if value[:1] == "(" and value[-1:] == ")":
        return (
            f"{override} cannot be read: a list is written {shlex.quote(f'{key}=[{value[1:-1]}]')}"
        )
    if not re.fullmatch(r"[+~]*[\w@./:-]+", key):
        return f"{override} cannot be read: {key} is no name of a key"
    return f"{override} cannot be read, {why}: as text it is {shlex.quote(assign(key, value))}"


def _variants(parsed: Override) -> list[str]:
    """The single overrides that a sweep's override stands for, the first ones; itself where it is none."""
    prefix = parsed.get_key_element()
    if parsed.is_interval_sweep():
        ends: Any = parsed.value()
        return [f"{prefix}={end}" for end in (ends.start, ends.end)]
    if parsed.is_sweep_override() and parsed.is_discrete_sweep() and not _is_glob(parsed):
        try:
            values = list(islice(parsed.sweep_string_iterator(), SWEEP_VALUES))
        except ValueError as error:
            raise UserError(f"{parsed.input_line} cannot be swept: {error}") from None
        if not values:
            raise UserError(
                f"{parsed.input_line} stands for no value at all: choice(a,b) or range(start,stop) have some"
            )
        return [f"{prefix}={value}" for value in values]
    if parsed.is_sweep_override() and not _options(parsed.key_or_group):
        raise UserError(
            f"{parsed.input_line}: glob(...) is for groups, as {prefix}=choice(a,b) is for values"
        )
    return [] if parsed.is_sweep_override() else [str(parsed.input_line)]


def _is_glob(parsed: Override) -> bool:
    return type(parsed.value()).__name__ == "Glob"


# -- the configuration --------------------------------------------------------------------------------------------------


def _check_all(name: str, more: list[str], parsed: list[Override], multirun: bool) -> set[Path]:
    """Composes and checks the run, or each value of a sweep with the others' first; the folders that stand already."""
    sweeps = [override for override in parsed if override.is_sweep_override()]
    variants = [_variants(override) for override in parsed]
    first = [found[0] for found in variants if found]
    cfg = _composed(name, [*more, *first], [_parsed(one) for one in first])
    multirun = multirun or str(OmegaConf.select(cfg, "hydra.mode")).endswith("MULTIRUN")
    if sweeps and not multirun:
        raise UserError(_no_sweep(str(sweeps[0].input_line)))
    params = OmegaConf.select(cfg, "hydra.sweeper.params") if multirun else None
    for key, value in (params or {}).items():
        variants.append(_variants(_parsed(f"{key}={value}")))
    existing = _check(cfg, first, multirun)
    for number, found in enumerate(variants):
        for one in found[0 if number >= len(parsed) else 1 :]:
            others = [kind[0] for kind in variants[: len(parsed)] if kind and kind is not found]
            _check(
                _composed(name, [*more, *others, one], [_parsed(o) for o in (*others, one)]),
                [*others, one],
                multirun,
            )
    return existing


def _no_sweep(line: str) -> str:
    """The line for several values without -m."""
    key, _, value = line.partition("=")
    right = words(annotation(key.lstrip("+")))
    if options := _options(key):
        right = f"one option is right, there are {', '.join(options)}"
    elif right.startswith(("the ", "text", "a value")):
        right = f"one value that holds a comma needs quotes: {shlex.quote(assign(key, value))}"
    else:
        right = f"one value should be {right}"
    return f"{line} is several values, which only a sweep takes: add -m to run each; {right}"


def _composed(name: str, overrides: list[str], parsed: list[Override]) -> DictConfig:
    """The configuration with Hydra's own part; raises UserError in one line for what Hydra refuses."""
    for override in parsed:
        _check_group(override)
    try:
        return compose(name, overrides, return_hydra_config=True)
    except Exception as error:  # whatever stands there, it is the command line's or conf/'s fault
        _say_which(name, parsed)
        raise UserError(explain(error)) from None


def _say_which(name: str, parsed: list[Override]) -> None:
    """Raises UserError for the override that keeps the others from being composed, where it is one by itself."""
    groups = [override for override in parsed if _options(override.key_or_group)]
    if added := [override.key_or_group for override in groups if override.is_add()]:
        for group in {*added} & {*compose(name, return_hydra_config=True).hydra.runtime.choices}:
            raise UserError(f"+{group} is chosen already: leave the + out")
    lines = [str(override.input_line) for override in groups]
    try:
        there = compose(name, lines)
    except Exception:  # then it is one of the groups, of which Hydra speaks itself
        return
    for override in parsed:
        if override not in groups and not override.is_hydra_override():
            _check_key(override, there, lines)


def _options(group: str) -> list[str]:
    """What a group can be set to; [] for what is no group."""
    loader = GlobalHydra.instance().config_loader()
    return [] if "." in group else list(loader.get_group_options(group))


def _check_group(override: Override) -> None:
    """Raises UserError where a group is set to what does not exist, or what is needed is taken away."""
    if override.is_delete() and needed(override.key_or_group):
        raise UserError(
            f"~{override.key_or_group} is not possible: the program needs this key, leave it out"
        )
    options = _options(override.key_or_group)
    if not options or override.is_delete():
        return
    key, value = override.key_or_group, override.value()
    wanted = value if isinstance(value, list) else [value]
    if override.is_sweep_override() or all(
        isinstance(one, str) and one in options for one in wanted
    ):
        return
    there = f"there are {', '.join(options)}"
    if value is None:
        off = {"none", "off"} & set(options)
        there = f"{key}={off.pop()} turns it off" if off else f"leave it out; {there}"
        raise UserError(f"{key}=null is not possible, a group cannot be null: {there}")
    wrong = next(str(one) for one in wanted if one not in options)
    if extra := EXTRAS.get(f"{key}/{wrong}"):
        raise UserError(f"{key}={wrong} needs an extra: pip install 'gan-lightning[{extra}]'")
    near = difflib.get_close_matches(wrong, options, n=1, cutoff=0.6)
    meant = f"did you mean {key}={near[0]}? " if near else ""
    if key == "dataset" and ("/" in wrong or os.path.isdir(wrong)):
        meant = f"did you mean dataset=folder {shlex.quote(assign('dataset.root', wrong))} ? "
    raise UserError(f"{key}={brief(wrong)} does not exist; {meant}{there}")


def known_keys(cfg: DictConfig) -> list[str]:
    """Every key that can be set, and the groups."""
    groups = [
        group
        for group in GlobalHydra.instance().config_loader().list_groups("")
        if group != "hydra"
    ]
    return [*keys(cfg), *groups]


def _check_key(override: Override, there: DictConfig, groups: list[str]) -> None:
    """Raises UserError where an override sets a key that is not there, or adds one that is."""
    key, known = override.key_or_group, known_keys(there)
    if override.is_add() and key in known:
        raise UserError(f"+{key} is there already: leave the + out")
    if key in known or override.is_add() or override.is_force_add():
        return
    group, _, rest = key.partition(".")
    elsewhere = _options(group) if rest and annotation(key) is not None else []
    if where := [option for option in elsewhere if _stands_in(key, group, option)]:
        chosen = next((g for g in groups if g.startswith(f"{group}=")), f"the {group} chosen here")
        others = ", ".join(f"{group}={option}" for option in where)
        raise UserError(
            f"{key} is no key of {chosen}: leave it out, or choose {others}, which has it"
        )
    if annotation(key) not in (None, OPEN) and group in ("trainer", "optimizer_g", "optimizer_d"):
        if rest in TAKEN:
            raise UserError(
                f"{key} is set by the program, or does not go with two networks in turn: leave it out"
            )
        raise UserError(f"{key} is not set so far: write +{override.input_line} to add it")
    raise UserError(_unknown(key, known))


def _stands_in(key: str, group: str, option: str) -> bool:
    """Whether a configuration with this option has the key."""
    try:
        return key in set(keys(compose("config", [f"{group}={option}"])))
    except (HydraException, OmegaConfBaseException, ValueError):
        return False


def _unknown(key: str, known: list[str]) -> str:
    """The line for a key that is nowhere, with those that look alike as a whole or in their last part."""
    last = key.rpartition(".")[2].lower()
    far = "diagnosis.thresholds." if not key.startswith("diag") else " "
    known = [
        one
        for one in known
        if one != key and not key.startswith(one + ".") and not one.startswith(far)
    ]
    ends: dict[str, list[str]] = {}
    for one in known:
        ends.setdefault(one.rpartition(".")[2], []).append(one)
    near = [ELSEWHERE[last]] if last in ELSEWHERE else []
    near += difflib.get_close_matches(key, known, n=2, cutoff=0.6)
    near += [
        one
        for end in difflib.get_close_matches(last, ends, n=2, cutoff=0.7)
        for one in ends[end][:2]
    ]
    meant = " or ".join(list(dict.fromkeys(near))[:3])
    return f"{key} is no key of the configuration; " + (
        f"did you mean {meant}?" if meant else "python train.py --help shows all keys and groups"
    )


def _check(cfg: DictConfig, overrides: list[str], multirun: bool) -> set[Path]:
    """Raises UserError for values and paths that cannot be right; the folders that stand on the way to the run's."""
    job = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    for part in ("launcher", "sweeper"):
        if not OmegaConf.is_dict(cfg.hydra[part]):
            raise UserError(
                f"hydra.{part}={brief(cfg.hydra[part])} is not possible: hydra/{part}=... chooses one"
            )
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = "."
        HydraConfig.instance().set_config(cfg)  # for what the rest interpolates from it
        try:
            folder = OmegaConf.select(cfg, job)
            del cfg["hydra"]
            content = validate(cfg, tuple(map(key_of, overrides)))
        except OmegaConfBaseException as error:
            raise UserError(explain(error)) from None
    for override in overrides:
        key = key_of(override)
        if override.startswith("+") and not key.startswith("hydra.") and not _options(key):
            _check_added(key, content, known_keys(cfg))
        if key.endswith("._target_"):
            _check_target(key, str(lookup(content, key)))
    check_paths(content)
    if not isinstance(folder, str) or not folder.strip():
        raise UserError(f"{job}={brief(folder)} should be the path of a folder")
    places.can_be_folder(f"{job}=", folder, write=True)
    path = Path(folder).absolute()
    return {parent for parent in (path, *path.parents) if parent.exists()}


def _check_added(key: str, content: dict[str, Any], known: list[str]) -> None:
    """Raises UserError for a key that an override adds and nothing takes."""
    block, _, last = key.partition(".")
    if block == "trainer" and last in TAKEN:
        raise UserError(
            f"{key} is set by the program, or does not go with two networks in turn: leave it out"
        )
    if annotation(key, content) is None:
        raise UserError(_unknown(key, known))


def _check_target(key: str, target: str) -> None:
    """Raises UserError where the package, or the module of this package, that a typed `_target_` names cannot be found."""
    ours = target.startswith("gan_lightning.")
    module = target.rpartition(".")[0] if ours else target.partition(".")[0]
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError(
            f"{key}={target}: there is no module {module} here; give the dotted name of a class"
        )


def explain(error: BaseException) -> str:
    """One line for an error of Hydra's or OmegaConf's: what they say themselves, with the key where they know it."""
    cause = (
        error.__cause__
        if isinstance(error.__cause__, OmegaConfBaseException | UserError)
        else error
    )
    if isinstance(cause, UserError):
        return str(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        if extra := EXTRAS.get(error.missing_cfg_file):
            return f"{group}={option} needs an extra: pip install 'gan-lightning[{extra}]'"
        there = f"; there are {', '.join(error.options)}" if error.options else ""
        return f"{error.missing_cfg_file} does not exist{there}"
    if isinstance(cause, OmegaConfBaseException):
        first = str(cause.msg or cause).split("\n")[0]
        return f"{cause.full_key}: {first}" if cause.full_key else first
    return " ".join(str(error).split()) or type(error).__name__


# -- paths --------------------------------------------------------------------------------------------------------------


def check_paths(config: Any) -> None:
    """Raises UserError for a path that cannot be right, before anything is made."""
    dataset, metrics = config["dataset"], config["metrics"]
    if config["ckpt_path"] is not None:
        places.checkpoint_file(config["ckpt_path"], "ckpt_path=")
    source, root = str(dataset["source"].get("_target_")), dataset["source"].get("root")
    key = "dataset.root=" if root == dataset.get("root") else "dataset.source.root="
    if source.startswith("gan_lightning.data.sources.") and root is not None:
        makes_it = Path(root).parts[:1] == ("data",) and not source.endswith("FolderImages")
        if not makes_it or os.path.lexists(root):
            what = "the folder that holds the images"
            if source.endswith("TorchvisionImages"):
                what += (
                    ", make it first if they are to be loaded into it, or go on with dataset=egg;"
                    " photographs of your own are dataset=folder"
                )
            places.folder(key, root, what)
    if dataset.get("cache_dir"):
        places.can_be_folder("dataset.cache_dir=", dataset["cache_dir"])
    if weights := metrics.get("inception_weights"):
        places.file("metrics.inception_weights=", weights, "the file with Inception's weights")


def leave_nothing(existing: set[Path]) -> None:
    """Takes a run's folder away again where nothing was written into it yet."""
    if not existing:  # the mistake was found before there was a run
        return
    if (
        os.environ.get("LOCAL_RANK", "0") != "0"
        or os.environ.get("RANK", "0") != "0"
        or not HydraConfig.initialized()
    ):
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        for empty in (folder, *folder.parents):
            if empty in existing:
                return
            empty.rmdir()
    except OSError:  # there is something in it
        return
