"""Paths that people type, looked at before anything is made: one line says what would be right.

Nothing heavy is imported. `key` is what the path was typed behind, as "dataset.root=" or "--out ".
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from gan_lightning.errors import UserError
from gan_lightning.files import checkpoint_file, clear_abandoned, expanded, is_exported, what_is


def folder(key: str, typed: str, what: str = "the folder that holds your images") -> Path:
    """A folder that is there. Raises UserError."""
    path = expanded(typed)
    if not path.is_dir():
        raise UserError(f"{key}{typed} {what_is(path)}: give {what}")
    return path


def file(key: str, typed: str, what: str) -> Path:
    """A file that is there. Raises UserError."""
    path = expanded(typed)
    if not path.is_file():
        raise UserError(f"{key}{typed} {what_is(path)}: give {what}")
    return path


def run_folder(typed: str) -> Path:
    """The folder of a run. Raises UserError, which names it where a file of the run was given."""
    around = expanded(typed).absolute().parents if expanded(typed).is_file() else ()
    home = next((path for path in around if (path / "config.yaml").is_file()), None)
    right = f"its folder is {home}" if home else "as logs/egg/2026-01-31_12-00-00-123456"
    return folder("", typed, f"the folder of a run, {right}")


def can_be_folder(key: str, typed: str, write: bool = False) -> None:
    """Raises UserError where no folder can be made or, to `write`, none may be written into."""
    path = expanded(typed).absolute()
    first = next(part for part in (path, *path.parents) if os.path.lexists(part))
    if not first.is_dir():
        where = "" if first == path else f" ({first})"
        raise UserError(
            f"{key}{typed} is a file{where}: give a folder, or a name that is not taken"
        )
    if write and not os.access(first, os.W_OK):
        raise UserError(f"{key}{typed} cannot be written to: name another place")


def generator(typed: str) -> Path:
    """What `load_generator` reads: a checkpoint, or what `export` wrote of one. Raises
    UserError."""
    return expanded(typed) if is_exported(typed) else checkpoint_file(typed)


def make_folder(typed: str) -> Path:
    """The folder, made where it is not there. Raises UserError."""
    path = Path(typed)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {typed} cannot be made: {error.strerror}") from None
    clear_abandoned(path)  # of a command that was killed
    return path


def needs(option: str, package: str, extra: str) -> None:
    """Raises UserError where a package that only this option needs is not installed."""
    if importlib.util.find_spec(package) is None:
        install = f"pip install 'gan-lightning[{extra}]'"
        raise UserError(f"{option} needs the package {package}: {install}")


def check_paths(config: Any) -> None:
    """Raises UserError for a path that cannot be right, before anything is made."""
    dataset, source, metrics = config["dataset"], config["dataset"]["source"], config["metrics"]
    if config["ckpt_path"] is not None:
        checkpoint_file(config["ckpt_path"], "ckpt_path=")
    if str(source["_target_"]).startswith("gan_lightning.data.sources."):
        root, what = source["root"], "the folder that holds the images"
        key = "dataset.root=" if root == dataset.get("root") else "dataset.source.root="
        if source["_target_"].endswith("TorchvisionImages"):
            what += (
                ", make it first if they are to be loaded into it, or go on with dataset=egg;"
                " photographs of your own are dataset=folder"
            )
        made = Path(root).parts[:1] == ("data",) and not source["_target_"].endswith("FolderImages")
        if not made or os.path.lexists(root):
            folder(key, root, what)
    if dataset.get("cache_dir"):
        can_be_folder("dataset.cache_dir=", dataset["cache_dir"])
    if weights := metrics.get("inception_weights"):
        file("metrics.inception_weights=", weights, "the file with Inception's weights")
