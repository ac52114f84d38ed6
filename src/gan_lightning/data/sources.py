"""Where pictures come from: a folder, data sets of torchvision, or the rendered eggs."""

import contextlib
import functools
import gzip
import hashlib
import io
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image

from gan_lightning.data import images
from gan_lightning.data.images import Original
from gan_lightning.errors import UserError
from gan_lightning.files import expanded, write_whole
from gan_lightning.ranges import Count, Folder, ImageFolder, Pixels, Said, Seed
from gan_lightning.text import printable


class FolderImages:
    """Every file below `root` but those named `without`; with `labels`, folders there are classes.

    Raises UserError where `root` is no folder or holds no file.
    """

    num_test = 0
    experiment = "few_photos"  # that is known to learn such images

    def __init__(
        self, root: ImageFolder, labels: bool = False, without: Sequence[str] = ()
    ) -> None:
        self.root, self.without = expanded(root), without
        name = printable(self.root.resolve().name)[:100] or "images"
        elsewhere = ("mnist", "fashion_mnist")  # where these names mean more
        self.name = f"folder_{name}" if name in elsewhere else name
        self.labels = labels

    def prepare(self) -> None:
        """Makes the folder ready to be read."""
        if not self.root.is_dir():
            there = "is not a folder" if self.root.exists() else "does not exist"
            raise UserError(f"{self.root} {there}: give the folder that holds your images")

    @functools.cached_property
    def _found(self) -> tuple[list[str], dict[str, str]]:
        self.prepare()
        files, bad = images.find_files(self.root)
        files = [name for name in files if name.rpartition("/")[2] not in self.without]
        if not files:
            raise UserError(f"{self.root} holds no usable image: put your photographs there")
        return files, bad

    def __len__(self) -> int:
        return len(self._found[0])

    def typical_size(self) -> tuple[int, int]:
        """Median (H, W) of at most 200 files; UserError where none is an image."""
        files = self._found[0]
        sizes = []
        for name in files[:: -(-len(files) // 200)]:
            with contextlib.suppress(Exception):  # bad files are counted when they are decoded
                sizes.append(images.header(self.root / name))
        if not sizes:
            raise UserError(f"{self.root} holds no usable image among {len(files)} files")
        height, width = np.median(np.array(sizes), axis=0)
        return int(height), int(width)

    def file_name(self, number: int) -> str:
        return self._found[0][number]

    def unusable(self) -> dict[str, str]:
        return self._found[1]

    def fingerprint(self) -> str:
        digest = hashlib.blake2b()
        for name in self._found[0]:
            try:
                info = os.stat(self.root / name)
                digest.update(os.fsencode(f"{name}\0{info.st_size}\0{info.st_mtime_ns}\0"))
            except OSError:
                digest.update(os.fsencode(f"{name}\0gone\0"))
        digest.update(repr(sorted(self._found[1].items())).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    @functools.cached_property
    def _classes(self) -> dict[str, int]:
        names = sorted({name.partition("/")[0] if "/" in name else "" for name in self._found[0]})
        if "" in names or not 2 <= len(names) <= 1000:
            raise UserError(
                f"dataset.labels=true: {self.root} needs one folder per class (2 to 1000)"
                " and no file beside them"
            )
        return {name: number for number, name in enumerate(names)}

    @property
    def num_classes(self) -> int | None:
        return len(self._classes) if self.labels else None

    def label(self, number: int) -> int:
        return self._classes[self.file_name(number).partition("/")[0]]

    def array(self) -> None:
        return None

    def open(self, number: int, at_least: int = 0) -> Original:
        return images.open_file(self.root / self.file_name(number), at_least)


class EggImages(FolderImages):
    """Rendered eggs under `root`, made if it is empty; only the default folder is created."""

    DEFAULT_ROOT = "data/egg"
    experiment = "egg"

    def __init__(
        self,
        root: ImageFolder = DEFAULT_ROOT,
        labels: bool = False,
        number: Count = 1000,
        size: Pixels = 128,
        seed: Seed = 0,
    ) -> None:
        super().__init__(root, labels)
        self.number, self.size, self.seed = number, size, seed

    def prepare(self) -> None:
        from filelock import FileLock

        from gan_lightning.data import eggs

        if self.root == Path(self.DEFAULT_ROOT):
            self.root.mkdir(parents=True, exist_ok=True)
        super().prepare()
        work = self.root / ".rendering"
        if not work.exists() and (there := images.find_files(self.root)[0]):
            if self.root == Path(self.DEFAULT_ROOT) and len(there) != self.number:
                print(
                    f"{self.root} holds {len(there)} images and is taken as it is: delete it, or"
                    " name another existing folder with dataset.root=...,"
                    f" for dataset.source.number={self.number}"
                )
            return  # the usual case, and it needs no right to write
        with FileLock(self.root / ".rendering.lock"):
            whole = work / ".whole"
            if not whole.exists():
                shutil.rmtree(work, ignore_errors=True)
                if images.find_files(self.root)[0]:
                    return
                work.mkdir()
                print(f"rendering {self.number} egg images into {self.root}", flush=True)
                eggs.write(work, self.number, self.size, self.seed)
                whole.touch()
            # from here on an interruption is only an unfinished move
            for file in sorted(work.glob("egg_*")):
                os.replace(file, self.root / file.name)
            shutil.rmtree(work)


class TorchvisionImages:
    """A data set of torchvision (`MNIST`, `CIFAR10`, …); downloads what is absent. Raises
    UserError."""

    def __init__(
        self,
        dataset: Annotated[str, Said("a data set of torchvision's, as MNIST or CIFAR10")],
        root: Folder,
        download: bool = True,
    ) -> None:
        self.dataset = dataset
        self.name = {"FashionMNIST": "fashion_mnist"}.get(dataset, dataset.lower())
        self.root = expanded(root)
        self.download = download

    @functools.cached_property
    def _data(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Images uint8 (N, C, H, W), labels (N,), and how many at the end are the test split's."""
        from filelock import FileLock
        from torchvision import datasets

        cls = getattr(datasets, self.dataset, None)
        if cls is None or not (hasattr(cls, "resources") or hasattr(cls, "filename")):
            known = "is not in torchvision: MNIST or CIFAR10 are"
            raise UserError(f"dataset.source.dataset={self.dataset} {known}")
        resources = getattr(cls, "resources", None)
        folder = self.root / self.dataset / "raw" if resources else self.root
        names = [url.removesuffix(".gz") for url, _ in resources] if resources else [cls.filename]
        try:
            splits = [cls(self.root, train=train) for train in (True, False)]
        except Exception:
            made = [part for part in (folder, *folder.parents) if not part.exists()]
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / ".lock"):
                    self._unpack(folder, names)
                    # a line per mirror that fails
                    with impatient(), contextlib.redirect_stdout(io.StringIO()):
                        cls(self.root, download=self.download)
                splits = [cls(self.root, train=train) for train in (True, False)]
            except Exception as error:
                self._leave_nothing(folder, made)
                why = re.sub(r".*got:|<urlopen error|>", "", str(error), flags=re.DOTALL)
                raise UserError(
                    f"{self.dataset} cannot be read from {folder} and could not be downloaded"
                    f" ({' '.join(why.split())[:120]}): put {', '.join(names)} there,"
                    " name another folder (dataset.root=..., for evaluate --data-root), or go on:"
                    " python train.py dataset=egg; photographs of your own are"
                    " experiment=few_photos dataset.root=..."
                ) from None
        arrays = [np.asarray(split.data) for split in splits]
        pixels = np.concatenate(arrays)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        labels = np.concatenate([np.asarray(split.targets) for split in splits])
        return np.ascontiguousarray(pixels), labels, len(arrays[1])

    @staticmethod
    def _leave_nothing(folder: Path, made: list[Path]) -> None:
        """Takes away the folders that were made for a download that came to nothing."""
        with contextlib.suppress(OSError):
            (folder / ".lock").unlink()
            for part in made:
                part.rmdir()

    @staticmethod
    def _unpack(folder: Path, names: list[str]) -> None:
        for name in names:
            if (folder / f"{name}.gz").exists() and not (folder / name).exists():
                with gzip.open(folder / f"{name}.gz") as packed:
                    write_whole(folder / name, partial(shutil.copyfileobj, packed))

    def __len__(self) -> int:
        return len(self._data[0]) - self.num_test

    @property
    def num_test(self) -> int:
        return self._data[2]

    @property
    def num_classes(self) -> int:
        return int(self._data[1].max()) + 1

    def typical_size(self) -> tuple[int, int]:
        return self._data[0].shape[2:]

    def file_name(self, number: int) -> str:
        return f"test/{number - len(self):05d}" if number >= len(self) else f"train/{number:05d}"

    def unusable(self) -> dict[str, str]:
        return {}

    def fingerprint(self) -> str:
        return hashlib.blake2b(self._data[0].data).hexdigest()

    def label(self, number: int) -> int:
        return int(self._data[1][number])

    def array(self) -> np.ndarray:
        """uint8 (N, C, H, W), the test split last."""
        return self._data[0]

    def open(self, number: int, at_least: int = 0) -> Original:
        pixels = self._data[0][number]
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
        return Original(image, pixels.shape[1:], image.mode, digest)


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """A network that swallows packets must not hang the run, and who downloads sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
