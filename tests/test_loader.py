"""The batch stream and the datamodule: every picture once an epoch, exact resume, ranks apart, and clear refusals."""

from itertools import islice
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gan_lightning.data.images import ImageStore
from gan_lightning.data.loader import BatchStream, ImageData
from gan_lightning.data.sources import FolderImages
from gan_lightning.errors import UserError


def numbered(n: int) -> ImageStore:
    """Picture i has the value i everywhere, and i + 1 in its leftmost column."""
    pixels = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 2, 3).clone()
    pixels[:, :, :, 0] += 1
    return ImageStore(pixels)


def shown(batches) -> list[list[int]]:
    return [batch[:, 0, 0, 1].tolist() for batch, _ in batches]


@given(
    n=st.integers(1, 60),
    batch=st.integers(1, 12),
    world=st.integers(1, 3),
    drop_last=st.booleans(),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_shows_each_picture_at_most_once_and_ranks_share_it_equally(
    n, batch, world, drop_last, seed
):
    seen: list[int] = []
    for rank in range(world):
        options = {"seed": seed, "rank": rank, "world": world, "drop_last": drop_last}
        stream = BatchStream(numbered(n), None, batch, **options)
        share = n // world
        batches = share // batch if drop_last else -(-share // batch)
        items = shown(stream)
        assert len(stream) == len(items) == batches
        mine = sum(items, [])
        assert len(mine) == (batches * batch if drop_last else share)
        seen += mine
    assert len(seen) == len(set(seen))


@given(done=st.integers(0, 25))
@settings(max_examples=40, deadline=None)
def test_a_resumed_stream_goes_on_with_the_next_batch(done):
    def stream():
        return BatchStream(
            numbered(23),
            torch.arange(23),
            4,
            seed=3,
            flip=True,
            drop_last=False,
        )

    def endless(loader):
        while True:
            yield from loader

    whole = stream()
    expected = [(batch.clone(), labels) for batch, labels in islice(endless(whole), done + 12)]
    first, second = stream(), stream()
    list(islice(endless(first), done))
    second.load_state_dict(first.state_dict())
    for (batch, labels), (right, right_labels) in zip(
        islice(endless(second), 12), expected[done:], strict=True
    ):
        assert torch.equal(batch, right) and torch.equal(labels, right_labels)


def test_epochs_differ_and_flips_flip_half():
    stream = BatchStream(numbered(200), None, 50, flip=True)
    first, second = list(stream), list(stream)
    assert shown(first) != shown(second)
    pictures = torch.cat([batch for batch, _ in first + second])
    flipped = pictures[:, 0, 0, 2] > pictures[:, 0, 0, 1]
    kept = pictures[:, 0, 0, 0] > pictures[:, 0, 0, 1]
    assert (flipped ^ kept).all() and 140 < flipped.sum() < 260
    assert not any(
        (batch[:, 0, 0, 2] > batch[:, 0, 0, 1]).any()
        for batch, _ in BatchStream(numbered(200), None, 50)
    )


class Recorder(pl.LightningModule):
    """Two manual optimiser steps a batch, as a GAN takes, and a note of what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[float]] = []

    def training_step(self, batch, batch_idx):
        pictures, _ = batch
        self.seen.append(pictures[:, 0, 0, 0].tolist())
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward((self.weight * pictures.mean()).sum())
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD([self.weight], 0.1), torch.optim.SGD([self.weight], 0.1)]


class SaveAt(pl.Callback):
    def __init__(self, hook: str, after: int, path: Path) -> None:
        self.after, self.path = after, path
        setattr(self, hook, self.save)

    def save(self, trainer, module, *_args) -> None:
        if len(module.seen) == self.after:
            trainer.save_checkpoint(self.path)


def photos(folder: Path, n: int = 23, size: tuple[int, int] = (20, 20)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        noise = np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC).save(
            folder / f"{i:03d}.png"
        )
    return folder


def data(folder: Path, **options) -> ImageData:
    options = {
        "image_size": 8,
        "batch_size": 4,
        "cache_dir": str(folder.parent / "cache"),
        "flip": True,
    } | options
    return ImageData(FolderImages(str(folder)), **options)


def fit(folder: Path, epochs: int, *callbacks, ckpt=None, **options) -> Recorder:
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=list(callbacks),
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data(folder), ckpt_path=ckpt)
    return module


@pytest.mark.parametrize(
    "hook, after, options",
    [
        ("on_train_batch_end", 1, {}),
        ("on_train_batch_end", 7, {}),
        ("on_train_batch_end", 10, {}),  # the last batch of the second epoch
        ("on_train_epoch_end", 5, {}),
        ("on_train_end", 10, {"stop": 2}),
        ("on_train_batch_end", 4, {"limit_train_batches": 3}),
        ("on_train_batch_end", 6, {"limit_train_batches": 3}),
        ("on_train_epoch_end", 6, {"limit_train_batches": 3}),
    ],
)
def test_lightning_goes_on_with_the_very_next_batch(tmp_path, hook, after, options):
    folder, path = photos(tmp_path / "photos"), tmp_path / "saved.ckpt"
    stop = options.pop("stop", 4)
    whole = fit(folder, 4, **options)
    fit(folder, stop, SaveAt(hook, after, path), **options)
    resumed = fit(folder, 4, ckpt=path, **options)
    assert len(whole.seen) == 4 * options.get(
        "limit_train_batches", 5
    )  # 21 are trained on, 4 a batch
    assert resumed.seen == whole.seen[after:]
    assert resumed.weight.item() == pytest.approx(whole.weight.item(), abs=0)


def test_batches_are_floats_and_go_on_where_they_were(tmp_path):
    folder = photos(tmp_path / "photos")
    module = data(folder)
    whole = [module.on_after_batch_transfer(batch, 0)[0] for batch in module.train_dataloader()]
    assert whole[0].dtype == torch.float32
    assert -1 <= whole[0].min() < -0.5 and 0.5 < whole[0].max() <= 1
    begun, resumed = data(folder), data(folder)
    next(iter(begun.train_dataloader()))
    resumed.load_state_dict(begun.state_dict())
    second = resumed.on_after_batch_transfer(next(iter(resumed.train_dataloader())), 0)[0]
    assert torch.equal(second, whole[1])
    assert module.train_images.shape == (21, 3, 8, 8)


def test_double_precision_runs_get_doubles(tmp_path):
    seen = []

    class Look(Recorder):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0].dtype)

    trainer = pl.Trainer(
        max_steps=1, limit_train_batches=1, max_epochs=1, accelerator="cpu", precision="64-true", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Look(), datamodule=data(photos(tmp_path / "photos")))
    assert seen[0] == torch.float64


def test_held_out_pictures_are_never_trained_on(tmp_path):
    module = data(photos(tmp_path / "photos", 40), drop_last=False, flip=False)
    module.prepare()
    trained = {
        picture.numpy().tobytes() for batch, _ in module.train_dataloader() for picture in batch
    }
    held = {
        picture.numpy().tobytes()
        for picture in module.holdout_images[torch.arange(len(module.holdout_images))]
    }
    assert len(trained) == 36 and len(held) == 4 and not trained & held


def test_a_batch_that_is_too_large_is_an_error_or_shrinks_when_chosen(tmp_path, capsys):
    folder = photos(tmp_path / "photos", 20)
    with pytest.raises(
        UserError, match=r"batch_size=64 .* 18 training images \(2 more .* dataset.batch_size=18"
    ):
        data(folder, batch_size=64).prepare()
    for options in ({"batch_size": None}, {"batch_size": 32, "shrink_batch": True}):
        capsys.readouterr()
        module = data(folder, **options)
        assert [len(batch) for batch, _ in module.train_dataloader()] == [
            18
        ] and module.batch_size == 18
        assert "dataset.batch_size=18" in capsys.readouterr().out


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_smallest_folders_work(tmp_path, n):
    module = data(photos(tmp_path / "photos", n), batch_size=None)
    assert [len(batch) for batch, _ in module.train_dataloader()] == [
        n
    ] and module.holdout_images is None


def test_a_folder_of_bad_files_only_is_one_clear_error_with_the_reasons_written(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    module = data(tmp_path / "photos")
    module.report_dir = tmp_path / "report"
    with pytest.raises(UserError, match="a.jpg.*empty"):
        module.prepare()
    assert "a.jpg" in (tmp_path / "report" / "check.json").read_text()


@pytest.mark.parametrize(
    "options, named",
    [
        ({"batch_size": 0}, "dataset.batch_size=0"),
        ({"holdout": 1.5}, "dataset.holdout=1.5"),
        ({"image_size": [8, 8, 8]}, "dataset.image_size"),
        ({"image_size": "big"}, "dataset.image_size=big"),
    ],
)
def test_impossible_values_are_named(tmp_path, options, named):
    with pytest.raises(UserError) as caught:
        data(tmp_path, **options)
    assert named in str(caught.value)


def test_the_content_hash_follows_pictures_and_settings(tmp_path):
    def content(folder: Path, **options) -> str:
        module = data(folder, **options)
        module.prepare()
        return module.content_hash

    folder = photos(tmp_path / "photos")
    assert content(folder) == content(folder) == content(folder, batch_size=5, seed=3)
    assert len({content(folder), content(folder, image_size=12), content(folder, holdout=0.2)}) == 3
    photos(folder, 24)
    assert content(folder) != content(photos(tmp_path / "others"))
