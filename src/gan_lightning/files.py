"""Reads files that may come from anyone, and writes files so that they appear whole or not at all.

What is read is plain values and tensors that the caller's pattern names: no file can
name code to run, an attribute to set or a value to interpolate.
"""

import io
import json
import os
import pickle
import re
import secrets
import socket
import stat
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gan_lightning.errors import UserError, first_line, traces_wanted
from gan_lightning.patterns import ANY, NoMatch, Pattern, match, plain, shown

EXPORTED = "model.safetensors"  # in a folder for a model hub, beside its config.json
LARGEST_YAML, LARGEST_TEXT, LARGEST_PICTURE = 2**20, 16 * 2**20, 32 * 2**20  # bytes


@contextmanager
def untrusted(path: str | Path) -> Iterator[None]:
    """What goes wrong within is said in a line that names the file, but for HYDRA_FULL_ERROR=1."""
    try:
        with warnings.catch_warnings(action="ignore"):  # the answer is one line
            yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path} asks for more memory than there is") from None
    except Exception as error:  # what a stranger's file can bring about has no end
        if isinstance(error, OSError) or traces_wanted() and not isinstance(error, NoMatch):
            raise
        named = f"{type(error).__name__}: {first_line(error)}"
        why = str(error) if isinstance(error, NoMatch) else named
        wrong = f"{path} was not written by this program, or is damaged"
        raise UserError(f"{wrong}: {why}") from None


# -- reading -----------------------------------------------------------------------------------


def expanded(path: str | Path) -> Path:
    """With a home folder in the place of `~`; an unknown user's stays as it is."""
    return Path(os.path.expanduser(path))


def what_is(path: Path) -> str:
    """For a sentence about a path that should be something else."""
    if path.is_file():
        return "is a file"
    if path.is_dir():
        return "is a folder"
    return "is no file" if path.exists() else "does not exist"


def inside(folder: str | Path, name: str) -> Path | None:
    """A file of a folder; None where there is none, or a link that leads out of the folder."""
    path = Path(folder) / name
    found = path.is_file() and path.resolve().is_relative_to(Path(folder).resolve())
    return path if found else None


def read_text(path: str | Path, largest: int = LARGEST_TEXT) -> str:
    """A text file, odd bytes replaced. UserError beyond `largest` bytes and for no plain file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is no file")
    if path.stat().st_size > largest:
        raise UserError(f"{path} is larger than any file of this kind that this program writes")
    return path.read_text(encoding="utf-8", errors="replace")


def read_json(path: str | Path, pattern: Pattern = ANY) -> Any:
    """What a JSON file holds, as `pattern` says. Raises UserError."""
    text = read_text(path)
    with untrusted(path):
        return match(plain(json.loads(text), "the file"), pattern, "the file")


def read_json_lines(path: str | Path, pattern: Pattern) -> list[Any]:
    """The lines of JSON that are as `pattern` says; a live run's last one may be cut anywhere."""
    found = []
    for line in read_text(path).splitlines():
        with suppress(ValueError, RecursionError):  # NoMatch and JSON's errors are ValueErrors
            found.append(match(plain(json.loads(line)), pattern))
    return found


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The plain values of a YAML file; aliases, as bombs have, are refused."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
                raise NoMatch("it holds an alias")
            return super().compose_node(parent, index)

    text = read_text(path, LARGEST_YAML)
    with untrusted(path):
        return match(plain(yaml.load(text, Loader) or {}), {str: ANY}, "the file")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; UserError for anything else, before running it.

    `config` comes as plain values (its `${...}` stay text), `state_dict` as sound tensors by name.
    All else is as it stands in the file: whoever uses it has to `match` it.
    """
    import torch

    path = checkpoint_file(path)
    _check_archive(path)
    with untrusted(path):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            odd = "it holds code or objects instead of weights only, or is no checkpoint"
            raise UserError(f"{path} is refused: {odd}") from None
        parts = checkpoint if isinstance(checkpoint, dict) else {}
        if not all(isinstance(parts.get(key), dict) for key in ("config", "state_dict")):
            lacks = "it holds no configuration and weights"
            raise UserError(f"{path} is no checkpoint of this program: {lacks}")
        checkpoint["config"] = plain(checkpoint["config"], "its configuration")
        checkpoint["state_dict"] = {
            match(name, str, "a weight's name"): sound(weight, f"weight {shown(name)}")
            for name, weight in checkpoint["state_dict"].items()
        }
    return checkpoint


def is_exported(folder: str | Path) -> bool:
    """Whether it is a folder for a model hub, as of `export`."""
    return (expanded(folder) / EXPORTED).is_file()


def read_safetensors(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A safetensors file's sound tensors and the texts of its metadata. Raises UserError."""
    from safetensors import safe_open

    with untrusted(path), safe_open(expanded(path), "pt") as file:
        names = list(file.keys())
        weights = {n: sound(file.get_tensor(n), f"weight {shown(n)}") for n in names}
        return weights, file.metadata() or {}


def checkpoint_file(path: str | Path, key: str = "") -> Path:
    """A checkpoint's path; UserError, with `key` before it, where there is no file."""
    path = expanded(path)
    if path.is_file():
        return path
    found = [*path.glob("checkpoints/last.ckpt"), *path.glob("last.ckpt")]
    right = found[0] if found else ".../checkpoints/last.ckpt"
    raise UserError(f"{key}{path} {what_is(path)}: give a checkpoint, as {right}")


def _check_archive(path: Path) -> None:
    """Raises UserError for what is no zip, and for compressed entries, as bombs have."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError):
        raise UserError(f"{path} is refused: it is no checkpoint, or only part of one") from None
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        odd = "its parts are larger than the file, which no checkpoint's are"
        raise UserError(f"{path} is refused: {odd}")


def sound(weight: Any, where: str) -> Any:
    """A dense tensor on the CPU, each value at its own place in the file; raises NoMatch."""
    import torch

    if type(weight) not in (torch.Tensor, torch.nn.Parameter):
        raise NoMatch(f"{where} should be a tensor, not {shown(weight)}")
    kind = weight.layout, weight.device.type, weight.is_quantized, weight.is_complex()
    if kind != (torch.strided, "cpu", False, False):
        odd = f"({weight.layout}, {weight.device}, {weight.dtype})"
        raise NoMatch(f"{where} is of an odd kind {odd}")
    # a view that ends beyond its storage, or repeats one value, would be written past its end
    orders = [torch.contiguous_format, *([torch.channels_last] if weight.ndim == 4 else [])]
    end = (weight.storage_offset() + weight.numel()) * weight.element_size()
    dense = any(weight.is_contiguous(memory_format=order) for order in orders)
    if not dense or end > weight.untyped_storage().nbytes():
        raise NoMatch(f"{where} says it is larger than the file")
    return weight


def same_kind(weight: Any, like: Any, where: str) -> None:
    """Raises NoMatch for what is no sound, finite tensor of this shape and kind."""
    import torch

    sound(weight, where)
    if weight.shape != like.shape or weight.is_floating_point() != like.is_floating_point():
        raise NoMatch(f"{where} has shape {tuple(weight.shape)} where {tuple(like.shape)} is right")
    if not torch.isfinite(weight).all():
        raise NoMatch(f"{where} is not finite: training had diverged")


# -- writing -----------------------------------------------------------------------------------

_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:30] or "host"
_STALE = 3600  # seconds after which another machine's partial file counts as abandoned
_unfinished: set[Path] = set()


class _Raw(io.FileIO):
    """Keeps the system's error, for which torch.save and Pillow raise one of their own.

    It hides the file's number, to which Pillow and numpy would write past Python and its errors.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def fileno(self) -> int:
        raise io.UnsupportedOperation("no number")


def write_whole(path: str | Path, write: Callable[[Any], Any], durable: bool = False) -> None:
    """`write(file)` into a new file beside `path`, which then takes its place, also of a link.

    Nothing is left where writing fails; an OSError names `path`. `durable`: it is on the disk
    before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    token = f"{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name[:40]}.{token}.partial")
    _unfinished.add(partial)
    raw = None
    try:
        number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        raw = _Raw(number, "wb")
        with io.BufferedWriter(raw) as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(number)
        os.replace(partial, path)
    except BaseException as error:
        discard(partial)
        named = isinstance(error, OSError) and error.errno is not None
        first = error if named else raw.failure if raw else None
        if not isinstance(first, OSError):
            raise
        # the partial file's name means nothing to anybody
        first.filename, first.filename2 = str(path), None
        raise first from None
    finally:
        _unfinished.discard(partial)


def write_text(path: str | Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def write_safetensors(
    path: str | Path, tensors: dict[str, Any], texts: dict[str, str] | None = None
) -> None:
    """Tensors by name; `texts` go into the metadata."""
    from safetensors.torch import save

    packed = save(tensors, metadata=texts)
    write_whole(path, lambda file: file.write(packed))


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False))


def append_text(path: str | Path, text: str) -> None:
    """Adds text at the end of a file, all of it or nothing; OSErrors name `path`.

    A link, a pipe, or a file that has a second name elsewhere gives way to a new file.
    """
    path = Path(path)
    data = text.encode("utf-8", "backslashreplace")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    with naming(path):
        with suppress(FileNotFoundError):
            there = os.lstat(path)
            if not stat.S_ISREG(there.st_mode):
                path.unlink()
            elif there.st_nlink > 1:
                kept = path.read_bytes()
                write_whole(path, lambda file: file.write(kept))
        with open(os.open(path, flags, 0o666), "ab", buffering=0) as file:
            before = file.tell()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(before)
                raise


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Within, an OSError that names no file, as of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def discard(partial: Path) -> None:
    with suppress(OSError):
        partial.unlink()


def discard_unfinished() -> None:
    """Deletes what `write_whole` is writing, for a process that ends at once."""
    for partial in tuple(_unfinished):
        discard(partial)


def no_links(folder: Path, *names: str) -> None:
    """Raises UserError where one of these folders within `folder` is a link."""
    for name in names:
        if (folder / name).is_symlink():
            right = "through which nothing is written: remove it, or name another folder"
            raise UserError(f"{folder / name} is a link, {right}")


def clear_abandoned(*folders: Path) -> None:
    """Deletes partial files of this machine's dead processes, and others' after an hour."""
    for partial in (path for folder in folders for path in Path(folder).glob(".*.partial")):
        with suppress(OSError):
            writer = re.search(rf"\.{_HOST}-(\d+)-\w+\.partial$", partial.name)
            if writer is None:
                gone = time.time() - partial.lstat().st_mtime > _STALE
            else:  # in a container every run may have this process's number
                gone = int(writer[1]) == os.getpid() or not alive(int(writer[1]))
            if gone and partial not in _unfinished:
                partial.unlink()


def alive(pid: int) -> bool:
    """Whether a process of this machine runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's, or a system without /proc
        return True
