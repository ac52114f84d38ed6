"""ImageData: from a source of pictures to batches of floats in [-1, 1], with a held-out slice and exact resume."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader

from gan_lightning import pictures
from gan_lightning.data import images, similar
from gan_lightning.data.check import CheckReport, check, nothing_usable
from gan_lightning.data.images import ImageStore, LazyStore, Shape, Source
from gan_lightning.errors import UserError
from gan_lightning.files import expanded
from gan_lightning.ranges import AtLeast0, Channels, Every, Folder, Grey, Said, Seed, Size

Batch = tuple[Tensor, Tensor | None]


class BatchStream:
    """An endless stream of shuffled batches, cut into epochs; an iteration is the next len(self) items of it.

    Epoch e is one permutation drawn from (seed, e), of which rank r takes every world-th entry, so what comes next
    depends on (epoch, position) alone: that is the state, and a resumed stream goes on with the very next batch.
    An item is `steps_per_turn` consecutive batches in one tensor; the last item of an epoch may hold fewer.
    Yields (images uint8 (B, C, H, W), labels int64 (B,) or None), some flipped left to right when `flip`.
    """

    def __init__(
        self,
        store: ImageStore | LazyStore,
        labels: Tensor | None = None,
        batch_size: int = 64,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        flip: bool = False,
        steps_per_turn: int = 1,
        num_workers: int = 0,
        pin: bool = False,
    ) -> None:
        self.store, self.labels, self.batch_size = store, labels, batch_size
        self.seed, self.rank, self.world = seed, rank, world
        self.flip, self.steps_per_turn, self.num_workers, self.pin = (
            flip,
            steps_per_turn,
            num_workers,
            pin,
        )
        share = (
            len(store) // world
        )  # the same on every rank, or the ranks would wait for one another
        self.batches = share // batch_size if drop_last else -(-share // batch_size)
        self.share = min(share, self.batches * batch_size)
        self.epoch = self.position = 0  # position: batches of this epoch that have been handed out

    def __len__(self) -> int:
        return -(-self.batches // self.steps_per_turn)

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
        rows = torch.randperm(len(self.store), generator=generator)[self.rank :: self.world][
            : self.share
        ]
        flips = (
            torch.rand(len(self.store), generator=generator)[self.rank :: self.world][: self.share]
            < 0.5
        )
        device = self.store.pixels.device if isinstance(self.store, ImageStore) else rows.device
        return rows.to(device), flips.to(
            device
        )  # once an epoch: later, each would stop a GPU for a moment

    def _items(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """(rows, flips, batches) of the items from here on, without moving the stream."""
        epoch, position = self.epoch, self.position
        while True:
            rows, flips = self._rows(epoch)
            while position < self.batches:
                count = min(self.steps_per_turn, self.batches - position)
                part = slice(position * self.batch_size, (position + count) * self.batch_size)
                yield rows[part], flips[part], count
                position += count
            epoch, position = epoch + 1, 0

    def _pictures(self, items: list[tuple[Tensor, Tensor, int]]) -> Iterator[Tensor]:
        rows = [rows for rows, _, _ in items]
        # a generator of its own: the loader would draw its workers' seed from training's random stream
        settings = {
            "num_workers": self.num_workers,
            "collate_fn": _same,
            "generator": torch.Generator(),
        }
        return iter(DataLoader(self.store, batch_sampler=rows, **settings))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        items = self._items()
        if isinstance(self.store, LazyStore):
            ahead = [next(items) for _ in range(len(self))]
            items, pictures = iter(ahead), self._pictures(ahead)
        for _ in range(len(self)):
            rows, flips, count = next(items)
            picture = next(pictures) if isinstance(self.store, LazyStore) else self.store[rows]
            if self.flip:
                picture = torch.where(flips[:, None, None, None], picture.flip(-1), picture)
            labels = None if self.labels is None else self.labels[rows]
            # Lightning saves between two `next`, and never asks for the one after the last: move on before handing out.
            self.position += count
            if self.position >= self.batches:
                self.epoch, self.position = self.epoch + 1, 0
            yield (
                (picture.pin_memory(), labels)
                if self.pin and not picture.is_cuda
                else (picture, labels)
            )


def _same(value: Tensor) -> Tensor:
    return value


class ImageData(LightningDataModule):
    """Pictures of a `source` as batches.

    Every argument is a key of conf/dataset/*.yaml. `image_size`: pixels, or (height, width); None: 64. `batch_size`:
    pictures per step and device; None, or `shrink_batch` with a number, means it may be smaller on a small set, where
    one that is asked for and too large is an error. `holdout`: share that is never trained on; the official test split
    where the source has one; 0: none. `cache_limit_gb`: beyond it pictures are decoded by `num_workers` when needed.
    `root` and `labels` are for the source and are only kept.
    """

    def __init__(
        self,
        source: Source,
        image_size: Size | None = None,
        image_channels: Channels = 3,
        batch_size: Annotated[int, Interval(ge=1, le=2**20)] | None = None,
        *,
        fit: Literal["crop", "pad", "stretch"] = "crop",
        flip: bool = False,
        background: Grey = 255,
        holdout: Annotated[
            float, Interval(ge=0, le=0.5), Said("a share from 0 (off) to 0.5")
        ] = 0.1,
        cache_limit_gb: AtLeast0 = 10.0,
        cache_dir: Folder = "data/cache",
        drop_last: bool = True,
        num_workers: Annotated[int, Interval(ge=0, le=1024)] = 2,
        seed: Seed = 0,
        steps_per_turn: Every = 1,
        shrink_batch: bool = False,
        root: str | None = None,
        labels: bool = False,
    ) -> None:
        super().__init__()
        self.spec = Shape.of(image_size, image_channels, fit, background)
        for name, value, right in (
            ("batch_size", batch_size is None or batch_size >= 1, "1 or more"),
            ("holdout", 0 <= holdout <= 0.5, "a share from 0 (off) to 0.5"),
            ("cache_limit_gb", cache_limit_gb >= 0, "0 or more"),
            ("num_workers", num_workers >= 0, "0 or more"),
            ("steps_per_turn", steps_per_turn >= 1, "1 or more"),
        ):
            if not value:
                raise UserError(
                    f"dataset.{name}={locals()[name]} is not possible: {right} is right"
                )
        self.source, self.name = source, source.name
        self.shrink_batch = shrink_batch or batch_size is None
        self.batch_size = batch_size or 64
        self.flip, self.holdout, self.drop_last, self.seed = flip, holdout, drop_last, seed
        self.cache_dir, self.cache_limit_gb = expanded(cache_dir), cache_limit_gb
        self.num_workers, self.steps_per_turn = num_workers, steps_per_turn
        self.report_dir: Path | None = None  # where the data check is written
        self.check_report: CheckReport | None = None
        self.contact_sheet: Tensor | None = None  # uint8 (C, H, W): what the network sees
        self.train_images: ImageStore | LazyStore
        self.holdout_images: ImageStore | LazyStore | None = None
        self.train_labels: Tensor | None = None
        self.holdout_labels: Tensor | None = None
        self.num_classes: int | None = None
        self.content_hash = ""
        self.stream: BatchStream | None = None
        self._stream_owner: Any = None
        self._state: dict[str, int] | None = None
        self._ready = False

    def prepare(self) -> None:
        """Decodes (or finds decoded) and splits; a second call does nothing. Raises UserError."""
        if self._ready:
            return
        array = self.source.array()
        spec = self.spec
        pixels: Tensor | None
        if array is not None and array.shape[1:] == (spec.channels, spec.height, spec.width):
            pixels, numbers, key = (
                torch.from_numpy(array),
                list(range(len(array))),
                self.source.fingerprint(),
            )
            test = numbers[len(self.source) :]
            train = numbers[: len(self.source)]
        else:
            scan, pixels = images.scan(self.source, spec, self.cache_dir, self.cache_limit_gb, _say)
            if not len(scan):
                self._write(CheckReport(self.source.name, {}, [], unusable=scan.bad))
                raise nothing_usable(scan, self.source.name)
            numbers, key = scan.numbers, scan.key
            if self.source.num_test:
                test = [row for row, number in enumerate(numbers) if number >= len(self.source)]
            else:
                self._check(scan, self._store(pixels, numbers, list(range(len(scan)))))
                test = similar.hold_out(scan.digests, scan.thumbs, self.holdout)
                if self.holdout and not test and len(scan) > 1:
                    _say(
                        f"{self.name}: no image is held out, there are too few that differ; scores say less"
                    )
            held = set(test)
            train = [row for row in range(len(numbers)) if row not in held]
        held_out = f" ({len(test)} more are held out)" if test and self.holdout else ""
        self._fit_batch(len(train), f"{len(train)} training images{held_out}")
        self.train_images = self._store(pixels, numbers, train)
        self.holdout_images = self._store(pixels, numbers, test) if test and self.holdout else None
        self.num_classes = self.source.num_classes
        if self.num_classes is not None:
            labels = torch.tensor([self.source.label(number) for number in numbers])
            self.train_labels = labels[train]
            self.holdout_labels = labels[test] if self.holdout_images is not None else None
        seen, _ = next(
            iter(
                BatchStream(
                    self.train_images, None, min(64, len(train)), seed=self.seed, flip=self.flip
                )
            )
        )
        self.contact_sheet = pictures.grid(images.to_uint8(images.to_float(seen)), gap=255)
        self._write(self.check_report or CheckReport(self.source.name, {}, []))
        facts = json.dumps([key, self.holdout, self.spec.__dict__])
        self.content_hash = hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()
        self._ready = True

    def _check(self, scan: images.Scan, store: ImageStore | LazyStore) -> None:
        self.check_report = report = check(scan, store, self.spec, self.source.name)
        self._write(report)  # now already, for when what follows is refused
        where = f" ({self.report_dir / 'check.json'})" if self.report_dir else ""
        found = f"{len(scan)} images, {len(scan.bad)} unusable files, remarks: {len(report.remarks)}{where}"
        _say("\n  ".join([f"{self.name}: {found}", *report.lines()]))

    @rank_zero_only
    def _write(self, report: CheckReport) -> None:
        if self.report_dir:
            report.write(self.report_dir, self.contact_sheet)

    def _fit_batch(self, most: int, what: str) -> None:
        if self.batch_size > most > 0 and self.shrink_batch:
            _say(f"{self.name}: {what}, so dataset.batch_size={most}")
            self.batch_size = most
        elif self.batch_size > most:
            right = (
                f"dataset.batch_size={most} is the largest that is right"
                if most
                else "use fewer devices"
            )
            raise UserError(
                f"dataset.batch_size={self.batch_size} is larger than the {what}: {right}"
            )

    def _store(
        self, pixels: Tensor | None, numbers: list[int], rows: list[int]
    ) -> ImageStore | LazyStore:
        if pixels is None:
            return LazyStore(self.source, self.spec, [numbers[row] for row in rows])
        return ImageStore(pixels, None if len(rows) == len(pixels) else torch.tensor(rows))

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
        if device.type == "cuda" and isinstance(store, ImageStore):
            _, channels, height, width = store.shape
            if len(store) * channels * height * width < torch.cuda.mem_get_info(device)[0] / 3:
                store, labels = store.to(device), None if labels is None else labels.to(device)
        self._fit_batch(
            len(store) // world, f"{len(store) // world} training images of each of {world} devices"
        )
        self.stream = BatchStream(
            store, labels, self.batch_size, seed=self.seed, rank=rank, world=world, drop_last=self.drop_last,
            flip=self.flip, steps_per_turn=self.steps_per_turn, num_workers=self.num_workers, pin=device.type == "cuda",
        )  # fmt: skip
        self._stream_owner = trainer
        if self._state is not None:
            self.stream.load_state_dict(self._state)
            self._state = None
        return self.stream

    # Lightning hands a loader its state back only when a run broke off inside an epoch; at a boundary it would begin
    # with epoch 0 again. The datamodule's own state comes back always, and says the same.
    def state_dict(self) -> dict[str, Any]:
        return {} if self.stream is None else self.stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict or None

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 -> float in [-1, 1], in the precision of the run."""
        pictures, labels = batch
        pictures = images.to_float(pictures)
        return (
            self.trainer.precision_plugin.convert_input(pictures) if self.trainer else pictures
        ), labels


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
