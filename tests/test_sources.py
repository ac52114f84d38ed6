"""Folders and torchvision's sets as sources: cheap facts first, clear refusals, raw tensors as they are."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from gan_lightning.data.loader import ImageData
from gan_lightning.data.sources import FolderImages, TorchvisionImages
from gan_lightning.errors import UserError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def write_mnist(
    root: Path, train: int = 40, test: int = 12, packed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic files in MNIST's own format; returns all images and labels, the test split last."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    for images, names in ((slice(0, train), FILES[:2]), (slice(train, None), FILES[2:])):
        digits, classes = pixels[images], labels[images]
        contents = (
            struct.pack(">IIII", 2051, len(digits), 28, 28) + digits.tobytes(),
            struct.pack(">II", 2049, len(classes)) + classes.tobytes(),
        )
        for name, content in zip(names, contents, strict=True):
            (raw / (f"{name}.gz" if packed else name)).write_bytes(
                gzip.compress(content) if packed else content
            )
    return pixels, labels


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_taken_as_it_is_with_its_test_split_held_out(tmp_path, packed):
    pixels, labels = write_mnist(tmp_path, packed=packed)
    source = TorchvisionImages("MNIST", str(tmp_path), download=False)
    assert len(source) == 40 and source.typical_size() == (28, 28)
    data = ImageData(source, 28, 1, 8)
    data.prepare()
    assert data.name == "mnist" and data.num_classes == 10
    assert np.array_equal(data.train_images[torch.arange(40)][:, 0].numpy(), pixels[:40])
    assert np.array_equal(data.holdout_images[torch.arange(12)][:, 0].numpy(), pixels[40:])
    assert np.array_equal(data.train_labels, labels[:40]) and np.array_equal(
        data.holdout_labels, labels[40:]
    )
    none = ImageData(source, 28, 1, 8, holdout=0)
    none.prepare()
    assert (
        none.holdout_images is None and none.holdout_labels is None and len(none.train_images) == 40
    )


def test_mnist_at_another_size_and_in_colour(tmp_path):
    pixels, labels = write_mnist(tmp_path)
    data = ImageData(
        TorchvisionImages("MNIST", str(tmp_path)), 32, 3, 8, cache_dir=str(tmp_path / "cache")
    )
    data.prepare()
    assert data.train_images.shape == (40, 3, 32, 32) and data.holdout_images.shape == (
        12,
        3,
        32,
        32,
    )
    expected = np.asarray(
        Image.fromarray(pixels[41]).convert("RGB").resize((32, 32), Image.Resampling.LANCZOS)
    )
    assert np.array_equal(
        data.holdout_images[torch.tensor([1])][0].numpy(), expected.transpose(2, 0, 1)
    )
    assert np.array_equal(data.holdout_labels, labels[40:])


def test_without_files_and_network_one_message_names_the_way_on(tmp_path, monkeypatch, capfd):
    import urllib.request

    def offline(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(UserError) as caught:
        len(TorchvisionImages("MNIST", str(tmp_path)))
    message = str(caught.value)
    assert (
        str(tmp_path / "MNIST" / "raw") in message
        and "dataset=egg" in message
        and "\n" not in message
    )
    assert all(name in message for name in FILES)
    assert capfd.readouterr().out == ""


def test_a_damaged_file_is_an_error_that_names_the_folder(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / FILES[0]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="raw"):
        len(TorchvisionImages("MNIST", str(tmp_path), download=False))


def test_an_unknown_torchvision_set_is_named():
    with pytest.raises(UserError, match="dataset.source.dataset=EMNISTT"):
        len(TorchvisionImages("EMNISTT", "."))


def test_colour_sets_are_taken_as_they_are(monkeypatch):
    from torchvision import datasets

    pixels = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)

    class CIFAR10:
        filename = "cifar-10-python.tar.gz"

        def __init__(self, root, train):
            rows = slice(0, 20) if train else slice(20, 30)
            self.data, self.targets = pixels[rows], [i % 10 for i in range(30)][rows]

    monkeypatch.setattr(datasets, "CIFAR10", CIFAR10)
    data = ImageData(TorchvisionImages("CIFAR10", "."), 32, 3, 8)
    data.prepare()
    assert data.name == "cifar10" and data.num_classes == 10
    assert np.array_equal(
        data.train_images[torch.arange(20)].numpy(), pixels[:20].transpose(0, 3, 1, 2)
    )
    assert np.array_equal(
        data.holdout_images[torch.arange(10)].numpy(), pixels[20:].transpose(0, 3, 1, 2)
    )


CONF = Path(__file__).parents[1] / "conf"


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "dataset").glob("*.yaml")))
def test_every_dataset_file_builds(name, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"dataset={name}", "seed=7", f"dataset.root={tmp_path}"])
    data = instantiate(cfg.dataset)
    assert isinstance(data, ImageData) and data.seed == 7 and data.source.root == tmp_path


def test_real_mnist(real_data):
    source = TorchvisionImages("MNIST", str(real_data), download=False)
    assert len(source) == 60_000 and source.num_test == 10_000
    first = source.array()[0, 0]
    assert source.label(0) == 5 and first.sum() == 27_525 and source.label(60_000) == 7


def test_a_root_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(UserError, match=r"/typo does not exist: give the folder"):
        len(FolderImages(str(tmp_path / "typo")))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a folder"):
        len(FolderImages(str(tmp_path / "file")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no usable image"):
        len(FolderImages(str(tmp_path / "empty")))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(UserError, match="no usable image"):
        FolderImages(str(tmp_path / "notes")).typical_size()


def test_typical_size_is_the_median_of_the_headers(tmp_path):
    for i, size in enumerate([(10, 20), (12, 24), (200, 300)]):
        Image.new("RGB", size[::-1]).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"x")
    assert (
        FolderImages(str(tmp_path)).typical_size() == (12, 24)
        and len(FolderImages(str(tmp_path))) == 4
    )


def test_folders_are_classes_when_asked_for(tmp_path):
    for label, shade in (("흰색", 250), ("brown", 90)):
        (tmp_path / label).mkdir()
        for i in range(5):
            Image.new("RGB", (9, 9), (shade, i * 20, 0)).save(tmp_path / label / f"{i}.png")
    data = ImageData(
        FolderImages(str(tmp_path), labels=True),
        8,
        3,
        4,
        cache_dir=str(tmp_path / ".cache"),
        holdout=0,
    )
    data.prepare()
    assert data.num_classes == 2
    red = data.train_images[torch.arange(10)][:, 0].float().mean((1, 2))
    assert torch.equal(data.train_labels == 0, red < 170)  # "brown" sorts before "흰색"
    unasked = ImageData(FolderImages(str(tmp_path)), 8, 3, 4, cache_dir=str(tmp_path / ".cache"))
    unasked.prepare()
    assert unasked.train_labels is None and unasked.num_classes is None
    Image.new("RGB", (9, 9)).save(tmp_path / "beside.png")
    with pytest.raises(UserError, match="dataset.labels=true"):
        ImageData(
            FolderImages(str(tmp_path), labels=True), 8, cache_dir=str(tmp_path / ".cache")
        ).prepare()
