"""From a source of pictures to batches of floats in [-1, 1], with exact resume."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from gan_lightning import pictures
from gan_lightning.data import cache, images, similar
from gan_lightning.data.check import check, nothing_usable
from gan_lightning.data.images import ImageStore, Shape, Source
from gan_lightning.data.remarks import CheckReport
from gan_lightning.errors import UserError
from gan_lightning.files import expanded
from gan_lightning.latents import picked
from gan_lightning.ranges import Channels, Fit, Folder, Grey, Said, Seed, Size, must_be

Batch = tuple[Tensor, Tensor | None]
BatchSize = Annotated[int, Interval(ge=1, le=2**20)]
Holdout = Annotated[float, Interval(ge=0, le=0.5), Said("a fraction from 0 (off) to 0.5")]


class BatchStream:
    """An endless stream of shuffled batches, cut into epochs; an iteration is the next len(self).

    Epoch e is one permutation drawn from (seed, e), of which rank r takes every world-th entry:
    (epoch, position) is the whole state. Yields (images uint8 (B, C, H, W), labels int64 (B,) or
    None), some mirrored when `flip`.
    """

    def __init__(
        self,
        store: ImageStore,
        labels: Tensor | None = None,
        batch_size: int = 64,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        flip: bool = False,
        pin: bool = False,
    ) -> None:
        self.store, self.labels, self.batch_size = store, labels, batch_size
        self.seed, self.rank, self.world, self.flip, self.pin = seed, rank, world, flip, pin
        per_rank = len(store) // world  # the same on every rank, or they would wait for one another
        self.batches = per_rank // batch_size if drop_last else -(-per_rank // batch_size)
        self.per_rank = min(per_rank, self.batches * batch_size)
        self.epoch = self.position = 0  # position: batches of this epoch that were handed out

    def __len__(self) -> int:
        return self.batches

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands. The batch that was handed out last counts as done."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        if self.position >= self.batches:  # saved with larger batches
            self.epoch, self.position = self.epoch + 1, 0

    def _rows(self, epoch: int) -> tuple[Tensor, Tensor]:
        """This rank's rows of the store in the order of an epoch, and which of them are flipped."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        rows = torch.randperm(len(self.store), generator=generator)
        flips = torch.rand(len(self.store), generator=generator) < 0.5
        # moved once an epoch: later, each would stop a GPU for a moment
        rows, flips = (
            drawn[self.rank :: self.world][: self.per_rank].to(self.store.pixels.device)
            for drawn in (rows, flips)
        )
        return rows, flips

    def __iter__(self) -> Iterator[Batch]:
        epoch = -1
        for _ in range(len(self)):
            if self.epoch != epoch:
                epoch = self.epoch
                order, flips = self._rows(epoch)
            part = slice(self.position * self.batch_size, (self.position + 1) * self.batch_size)
            picture = self.store[order[part]]
            if self.flip:
                picture = torch.where(flips[part, None, None, None], picture.flip(-1), picture)
            labels = picked(self.labels, order[part])
            # Lightning saves between two `next`, and never asks for the one after the last: move
            # on before handing out.
            self.position += 1
            if self.position >= self.batches:
                self.epoch, self.position = self.epoch + 1, 0
            pin = self.pin and not picture.is_cuda
            yield (picture.pin_memory() if pin else picture), labels


class ImageData(LightningDataModule):
    """Pictures of a `source` as batches. Every argument is a key of conf/dataset/*.yaml.

    `image_size`: pixels, or (height, width); None: 64. `batch_size`: per step and device; None, or
    `shrink_batch`: it may be smaller on a small set, where one asked for is an error. `holdout`:
    fraction that is never trained on, the test split where there is one; 0: none. `root` and
    `labels` are for the source.
    """

    def __init__(
        self,
        source: Source,
        image_size: Size | None = None,
        image_channels: Channels = 3,
        batch_size: BatchSize | None = None,
        *,
        fit: Fit = "crop",
        flip: bool = False,
        background: Grey = 255,
        holdout: Holdout = 0.1,
        cache_dir: Folder = "data/cache",
        drop_last: bool = True,
        seed: Seed = 0,
        shrink_batch: bool = False,
        root: str | None = None,
        labels: bool = False,
    ) -> None:
        super().__init__()
        self.spec = Shape.of(image_size, image_channels, fit, background)
        must_be("dataset.batch_size", BatchSize | None, batch_size)
        must_be("dataset.holdout", Holdout, holdout)
        self.source, self.name = source, source.name
        self.shrink_batch = shrink_batch or batch_size is None
        self.batch_size = batch_size or 64
        self.flip, self.holdout, self.drop_last, self.seed = flip, holdout, drop_last, seed
        self.cache_dir = expanded(cache_dir)
        self.report_dir: Path | None = None  # where the data check is written
        self.check_report: CheckReport | None = None
        self.contact_sheet: Tensor | None = None  # uint8 (C, H, W): what the network sees
        self.train_images: ImageStore
        self.holdout_images: ImageStore | None = None
        self.train_labels: Tensor | None = None
        self.holdout_labels: Tensor | None = None
        self.num_classes: int | None = None
        self.content_hash = ""
        self.stream: BatchStream | None = None
        self._stream_owner: Any = None
        self._state: dict[str, int] | None = None

    def prepare(self) -> None:
        """Decodes and splits; a second call does nothing. Raises UserError."""
        if self.content_hash:
            return
        pixels, numbers, held, key = self._read()
        test = held if self.holdout else []
        train = sorted(set(range(len(numbers))) - set(held))
        held_out = f" ({len(test)} more are held out)" if test else ""
        self._fit_batch(len(train), f"{len(train)} training images{held_out}")
        self.train_images = ImageStore(pixels, torch.tensor(train) if held else None)
        self.holdout_images = ImageStore(pixels, torch.tensor(test)) if test else None
        self.num_classes = self.source.num_classes
        if self.num_classes is not None:
            labels = torch.tensor([self.source.label(number) for number in numbers])
            self.train_labels = labels[train]
            self.holdout_labels = labels[test] if test else None
        some = BatchStream(self.train_images, None, 64, drop_last=False, seed=self.seed)
        some.flip = self.flip
        self.contact_sheet = pictures.grid(next(iter(some))[0], gap=255)
        self._write(self.check_report or CheckReport(self.source.name))
        facts = json.dumps([key, self.holdout, self.spec.__dict__])
        self.content_hash = hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()

    def _read(self) -> tuple[Tensor, list[int], list[int], str]:
        """All pixels, their numbers in the source, the held-out rows, and a key of it all."""
        source, shape = self.source, self.spec
        array = source.array()
        if array is not None and array.shape[1:] == (shape.channels, shape.height, shape.width):
            test = list(range(len(source), len(array)))
            return torch.from_numpy(array), list(range(len(array))), test, source.fingerprint()
        scan, pixels = cache.scan(source, shape, self.cache_dir, _say)
        if not len(scan):
            self._write(CheckReport(source.name, unusable=scan.bad))
            raise nothing_usable(scan, source.name)
        if source.num_test:
            test = [row for row, number in enumerate(scan.numbers) if number >= len(source)]
            return pixels, scan.numbers, test, scan.key
        self.check_report = report = check(scan, pixels, shape, source.name, self.cache_dir)
        self._write(report)  # now already, for when what follows is refused
        where = f" ({self.report_dir / 'check.json'})" if self.report_dir else ""
        found = f"{len(scan)} images, {len(scan.bad)} unusable files"
        found += f", remarks: {len(report.remarks)}{where}"
        _say("\n  ".join([f"{self.name}: {found}", *report.lines()]))
        test = similar.hold_out(scan.digests, scan.thumbs, self.holdout)
        if self.holdout and not test and len(scan) > 1:
            few = "no image is held out, there are too few that differ; scores say less"
            _say(f"{self.name}: {few}")
        return pixels, scan.numbers, test, scan.key

    @rank_zero_only
    def _write(self, report: CheckReport) -> None:
        if self.report_dir:
            report.write(self.report_dir, self.contact_sheet)

    def _fit_batch(self, most: int, what: str) -> None:
        if self.batch_size <= most:
            return
        if not (self.shrink_batch and most):
            largest = f"dataset.batch_size={most} is the largest that is right"
            right = largest if most else "use fewer devices"
            raise UserError(
                f"dataset.batch_size={self.batch_size} is larger than the {what}: {right}"
            )
        _say(f"{self.name}: {what}, so dataset.batch_size={most}")
        self.batch_size = most

    def setup(self, stage: str) -> None:
        self.prepare()

    def train_dataloader(self) -> BatchStream:
        """This rank's part of the training pictures; goes on where a checkpoint left off."""
        self.prepare()
        trainer = self.trainer
        if self.stream is not None and self._stream_owner is trainer:
            return self.stream
        store, labels = self.train_images, self.train_labels
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        world, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        on_gpu = device.type == "cuda"
        _, channels, height, width = store.shape
        size = len(store) * channels * height * width
        if on_gpu and size < torch.cuda.mem_get_info(device)[0] / 3:
            store, labels = store.to(device), None if labels is None else labels.to(device)
        per_rank = len(store) // world
        self._fit_batch(per_rank, f"{per_rank} training images of each of {world} devices")
        self.stream = BatchStream(
            store,
            labels,
            self.batch_size,
            seed=self.seed,
            rank=rank,
            world=world,
            drop_last=self.drop_last,
            flip=self.flip,
            pin=on_gpu,
        )
        self._stream_owner = trainer
        if self._state is not None:
            self.stream.load_state_dict(self._state)
            self._state = None
        return self.stream

    # unlike a loader's, which Lightning hands back only inside an epoch, this comes back always
    def state_dict(self) -> dict[str, Any]:
        return {} if self.stream is None else self.stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict or None

    def real_batches(self, device: torch.device) -> Iterator[Batch]:
        """Training images in [-1, 1] with labels, in a fixed order; mirrored ones too if `flip`."""
        draw = torch.Generator().manual_seed(0)
        order = torch.randperm(len(self.train_images), generator=draw)
        for mirrored in (False, True) if self.flip else (False,):
            for rows in order.split(64):
                floats = images.to_float(self.train_images[rows].to(device))
                labels = picked(self.train_labels, rows)
                yield (
                    floats.flip(3) if mirrored else floats,
                    None if labels is None else labels.to(device),
                )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 -> float in [-1, 1], in the precision of the run."""
        pixels, labels = batch
        floats = images.to_float(pixels)
        if self.trainer:
            floats = self.trainer.precision_plugin.convert_input(floats)
        return floats, labels


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
