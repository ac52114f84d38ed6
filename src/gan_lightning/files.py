"""The one place that reads files which may come from anyone, and that writes files so that they appear whole or not at all.

What is read is data: plain values and tensors of the types and names that the caller writes down as a pattern. Nothing
else reaches the program, so that no file can name code to run, an attribute to set or a value to interpolate.
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
from typing import IO, Any

from gan_lightning.errors import UserError, traces_wanted

Pattern = Any  # a type, None, a tuple of alternatives, [pattern of the items] or {key: pattern}; see `match`
NUMBER = (int, float)
SCALAR = (bool, int, float, str, None)
ANY = (*SCALAR, list, dict)
LARGEST_INT = 2**63
MOST_VALUES = (
    1_000_000  # values in the plain part of a file, counted as often as they are referred to
)
LARGEST_TEXT = 16 * 2**20  # bytes of a text file
LARGEST_YAML, LARGEST_PICTURE = 2**20, 32 * 2**20


class NoMatch(ValueError):
    """A value that is not what its pattern says; the message says where and what would be right."""


def match(value: Any, pattern: Pattern, where: str = "it") -> Any:
    """`value`, all of which is as `pattern` says; raises NoMatch else, naming the place.

    A type stands for exactly its values (float also for whole numbers), None for null, a tuple for any of its patterns, a
    list of one pattern for lists and tuples of such items, a dict for a dict: "name" must be there, "name?" may, and a type as
    the key stands for all other keys of that type. Keys that the pattern does not name are refused.
    """
    if isinstance(pattern, tuple):
        for choice in pattern:
            with suppress(NoMatch):
                return match(value, choice, where)
        raise NoMatch(f"{where} should be {_words(pattern)}, not {_shown(value)}")
    if isinstance(pattern, list):
        if type(value) not in (list, tuple):
            raise NoMatch(f"{where} should be a list, not {_shown(value)}")
        return type(value)(match(item, pattern[0], f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(pattern, dict):
        return _match_dict(value, pattern, where)
    if pattern is None:
        fits = value is None
    elif pattern is float:
        fits = type(value) in NUMBER
    else:
        fits = type(value) is pattern
    if not fits or (type(value) is int and abs(value) >= LARGEST_INT):
        raise NoMatch(f"{where} should be {_words(pattern)}, not {_shown(value)}")
    return value


def _match_dict(value: Any, pattern: dict[Any, Pattern], where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise NoMatch(f"{where} should be a block of keys, not {_shown(value)}")
    known = {
        str(key).removesuffix("?"): inner
        for key, inner in pattern.items()
        if not isinstance(key, type)
    }
    others = {key: inner for key, inner in pattern.items() if isinstance(key, type)}
    for name in pattern:
        if isinstance(name, str) and not name.endswith("?") and name not in value:
            raise NoMatch(f"{where} holds no {name}")
    matched = {}
    for key, item in value.items():
        inner = (
            known[key]
            if isinstance(key, str) and key in known
            else others.get(type(key), _match_dict)
        )
        if inner is _match_dict:
            raise NoMatch(f"{where} holds {_shown(key)}, which this program does not write")
        matched[key] = match(item, inner, f"{where}.{key}"[:120])
    return matched


def _words(pattern: Pattern) -> str:
    if isinstance(pattern, tuple):
        return " or ".join(dict.fromkeys(map(_words, pattern)))
    if isinstance(pattern, dict | list):
        return "a block of keys" if isinstance(pattern, dict) else "a list"
    return {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        None: "null",
    }.get(pattern, f"a {getattr(pattern, '__name__', pattern)}")


def _shown(value: Any) -> str:
    return (
        ascii(value)[:40]
        if isinstance(value, bool | int | float | str | None)
        else f"a {type(value).__name__}"
    )


def plain(value: Any, where: str = "it") -> Any:
    """A copy of nested dicts (with names for keys) and lists of bool, int, float, str and None; raises NoMatch for all else.

    Also for what is nested more than 30 deep, or so often referred to that it comes to more than a million values.
    """
    left = [MOST_VALUES]

    def copy(value: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth > 30:
            raise NoMatch(f"{where} holds more values than any configuration has")
        if isinstance(value, dict):
            return {
                match(key, str, f"a key of {where}"): copy(inner, depth + 1)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [copy(inner, depth + 1) for inner in value]
        return match(value, SCALAR, where)

    return copy(value, 0)


@contextmanager
def untrusted(path: str | Path) -> Iterator[None]:
    """Within, whatever goes wrong is the file's fault, and is said in one line that names it. HYDRA_FULL_ERROR=1: as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the answer is one line
            yield
    except UserError:
        raise
    except NoMatch as error:
        raise UserError(f"{path} was not written by this program, or is damaged: {error}") from None
    except MemoryError:
        raise UserError(f"{path} asks for more memory than there is") from None
    except Exception as error:  # what a stranger's file can bring about has no end
        if isinstance(error, OSError) or traces_wanted():
            raise
        words = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path} was not written by this program, or is damaged ({type(error).__name__}: {words})"
        ) from None


def expanded(path: str | Path) -> Path:
    """With a home folder in the place of `~`; an unknown user's stays as it is, and is then not there."""
    return Path(os.path.expanduser(path))


# -- reading -----------------------------------------------------------------------------------------------------------


def inside(folder: str | Path, name: str) -> Path | None:
    """A file of a folder; None where there is none, or a link that leads out of the folder."""
    path = Path(folder) / name
    return (
        path if path.is_file() and path.resolve().is_relative_to(Path(folder).resolve()) else None
    )


def read_text(path: str | Path, largest: int = LARGEST_TEXT) -> str:
    """A text file as UTF-8, odd bytes replaced. Raises UserError beyond `largest` bytes and for what is no plain file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is no file")
    if path.stat().st_size > largest:
        raise UserError(f"{path} is larger than any file of this kind that this program writes")
    return path.read_text(encoding="utf-8", errors="replace")


def read_json(path: str | Path, pattern: Pattern = None) -> Any:
    """What a JSON file holds, as `pattern` says (any plain value where there is none). Raises UserError."""
    text = read_text(path)
    with untrusted(path):
        value = plain(json.loads(text), "the file")
        return value if pattern is None else match(value, pattern, "the file")


def read_json_lines(path: str | Path, pattern: Pattern) -> list[Any]:
    """The lines of a file with one JSON value each that are as `pattern` says; a live run's last one may be cut anywhere."""
    found = []
    for line in read_text(path).splitlines():
        with suppress(ValueError, RecursionError):  # NoMatch and JSON's errors are ValueErrors
            found.append(match(plain(json.loads(line)), pattern))
    return found


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The plain values of a YAML file; nothing in it is interpolated, and aliases, of which a bomb is made, are refused."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
                raise NoMatch("it holds an alias")
            return super().compose_node(parent, index)

    text = read_text(path, LARGEST_YAML)
    with untrusted(path):
        return match(
            plain(yaml.load(text, Loader) or {}, "the file"),
            {str: (dict, list, *SCALAR)},
            "the file",
        )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; raises UserError for anything else, before running any of it.

    `config` comes as plain values (its `${...}` stay text), `state_dict` as tensors by name; every tensor is on the CPU and
    as large as it says. All else is as it stands in the file: whoever uses it has to `match` it.
    """
    import torch

    path = checkpoint_file(path)
    _check_archive(path)
    with untrusted(path):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise UserError(
                f"{path} is refused: it holds code or objects instead of weights only, or is no checkpoint"
            ) from None
        parts = (
            [checkpoint.get(key) for key in ("config", "state_dict")]
            if isinstance(checkpoint, dict)
            else [None]
        )
        if not all(isinstance(part, dict) for part in parts):
            raise UserError(
                f"{path} is no checkpoint of this program: it holds no configuration and weights"
            )
        checkpoint["config"] = plain(checkpoint["config"], "its configuration")
        checkpoint["state_dict"] = {
            match(name, str, "a weight's name"): sound(weight, f"weight {_shown(name)}")
            for name, weight in checkpoint["state_dict"].items()
        }
    return checkpoint


def checkpoint_file(path: str | Path, key: str = "") -> Path:
    """The path of a checkpoint; raises UserError, with `key` before the path, where there is no file."""
    path = expanded(path)
    if path.is_dir():
        found = sorted(path.glob("checkpoints/last.ckpt")) + sorted(path.glob("last.ckpt"))
        right = (
            f"give a checkpoint, as {found[0]}"
            if found
            else "give a checkpoint file, as .../checkpoints/last.ckpt"
        )
        raise UserError(f"{key}{path} is a folder: {right}")
    if not path.is_file():
        there = "is no file" if path.exists() else "does not exist"
        raise UserError(f"{key}{path} {there}: give a checkpoint, as .../checkpoints/last.ckpt")
    return path


def _check_archive(path: Path) -> None:
    """Raises UserError for what torch.save does not write: anything but a zip, and compressed entries, as bombs have."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError):
        raise UserError(f"{path} is refused: it is no checkpoint, or only part of one") from None
    stored = sum(entry.file_size for entry in entries)
    if (
        any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        or stored > path.stat().st_size
    ):
        raise UserError(
            f"{path} is refused: its parts are larger than the file, which no checkpoint's are"
        )


def sound(weight: Any, where: str) -> Any:
    """A dense tensor on the CPU that has all its values in the file; raises NoMatch."""
    import torch

    if type(weight) not in (torch.Tensor, torch.nn.Parameter):
        raise NoMatch(f"{where} should be a tensor, not {_shown(weight)}")
    dense = (
        weight.layout == torch.strided and weight.device.type == "cpu" and not weight.is_quantized
    )
    if not dense or weight.is_complex():
        raise NoMatch(
            f"{where} is of an odd kind ({weight.layout}, {weight.device}, {weight.dtype})"
        )
    # a view that ends beyond its storage, or repeats one value, would be written past its end
    end = (weight.storage_offset() + weight.numel()) * weight.element_size()
    if not _dense(weight) or end > weight.untyped_storage().nbytes():
        raise NoMatch(f"{where} says it is larger than the file")
    return weight


def _dense(weight: Any) -> bool:
    """Whether every value has a place of its own, without gaps, in whatever order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(weight.stride(), weight.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


# -- writing -----------------------------------------------------------------------------------------------------------

_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:30] or "host"
_ABANDONED = re.compile(r"\.(?:(?P<host>\w+)-)?(?P<pid>\d+)(?:-\w+)?\.(?:partial|part|tmp)$")
_STALE = 3600  # seconds without a write after which a temporary file of another machine counts as abandoned
_unfinished: set[Path] = set()


class _Watched:
    """A file for writers that turn the system's error into one of their own (torch.save, Pillow): it is kept in `failure`.

    It hides the file's number, which Pillow and numpy would write to past Python and its errors.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.failure = file, None
        self.seek, self.tell, self.seekable, self.writable = (
            file.seek,
            file.tell,
            file.seekable,
            file.writable,
        )

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        try:
            self.file.flush()
        except OSError as error:
            self.failure = self.failure or error
            raise

    def read(self, size: int = -1) -> bytes:
        raise io.UnsupportedOperation(
            "only for writing"
        )  # numpy takes nothing for a file that cannot be asked

    failure: OSError | None


def write_whole(path: str | Path, write: Callable[[Any], Any], durable: bool = False) -> None:
    """`write(file)` into a new file beside `path`, which then takes its place: a reader sees the old one or the whole new one.

    A link that stands at `path` is replaced and not written through. Nothing is left behind where writing fails: an
    OSError names `path`. `durable`: it is on the disk, and not in the system's memory, before it takes its place.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    token = f"{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name[:40]}.{token}.partial")
    _unfinished.add(partial)
    watched = None
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            watched = _Watched(file)
            write(watched)
            watched.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        discard(partial)
        first = (
            watched.failure
            if watched and watched.failure and not isinstance(error, OSError)
            else error
        )
        if isinstance(first, OSError) and first.errno is not None:
            first.filename, first.filename2 = (
                str(path),
                None,
            )  # the partial file's name means nothing to anybody
        if first is not error:
            raise first from None
        raise
    finally:
        _unfinished.discard(partial)


def write_text(path: str | Path, text: str) -> None:
    """Text as UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    """JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False))


def append_text(path: str | Path, text: str) -> None:
    """Adds text at the end of a file, all of it or nothing.

    A link, a pipe, or a file that has a second name elsewhere gives way to a new file of its own; OSErrors name `path`.
    """
    path = Path(path)
    with naming(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(FileNotFoundError):
            there = os.lstat(path)
            if not stat.S_ISREG(there.st_mode):
                path.unlink()
            elif there.st_nlink > 1:
                kept = path.read_bytes()
                write_whole(path, lambda file: file.write(kept))
        number = os.open(path, flags, 0o666)
        with open(number, "ab", buffering=0) as file:
            before = os.fstat(number).st_size
            data = text.encode("utf-8", "backslashreplace")
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with suppress(OSError):
                    os.ftruncate(number, before)
                raise


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Within, an error of the system's that names no file, as of a full disk, names `path`."""
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
    """Deletes what `write_whole` is writing at this moment, for a process that ends at once."""
    for partial in tuple(_unfinished):
        discard(partial)


def no_links(folder: Path, *names: str) -> None:
    """Raises UserError where one of these folders within `folder` is a link: what is written there would land elsewhere."""
    for name in names:
        if (folder / name).is_symlink():
            raise UserError(
                f"{folder / name} is a link, through which nothing is written: remove it, or name another folder"
            )


def clear_abandoned(*folders: Path) -> None:
    """Deletes temporary files of this program's that processes which are gone have left in these folders."""
    for folder in folders:
        with suppress(OSError):
            for path in folder.iterdir():
                if path.suffix in (".partial", ".part", ".tmp") and _abandoned(path):
                    discard(path)


def _abandoned(path: Path) -> bool:
    found = _ABANDONED.search(path.name)
    try:
        facts = path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(facts.st_mode) and not stat.S_ISLNK(facts.st_mode) or path in _unfinished:
        return False
    if time.time() - facts.st_mtime > _STALE:
        return found is not None or path.suffix == ".partial"
    if found is None or found["host"] not in (None, _HOST):
        return False
    if int(found["pid"]) == os.getpid():  # in a container every run may have the same number
        return True
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False
