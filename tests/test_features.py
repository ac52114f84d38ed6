"""Extractors: shapes, fixed hashes, the cache, and the way back when Inception cannot be had."""

import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_lightning.errors import UserError
from gan_lightning.measure import distances as D
from gan_lightning.measure import features as X


def images(n: int = 12, c: int = 3, h: int = 16, w: int = 16) -> Tensor:
    return torch.randint(
        0, 256, (n, c, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def data(**other: Any) -> Any:
    known: dict[str, Any] = {
        "name": "photos",
        "train_images": images(80),
        "holdout_images": None,
        "train_labels": None,
    }
    return SimpleNamespace(**(known | {"num_classes": None, "content_hash": "0"} | other))


def bars(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Grey 28 x 28 pictures whose class is the row of a bright bar: a classifier learns them in seconds."""
    g = torch.Generator().manual_seed(seed)
    labels, x = (
        torch.randint(10, (n,), generator=g),
        torch.randint(0, 60, (n, 1, 28, 28), generator=g),
    )
    for row, label in zip(x, labels, strict=True):
        row[0, 2 + 2 * int(label) : 5 + 2 * int(label)] += 150
    return x.to(torch.uint8), labels


def discs(n: int, whole: bool, seed: int) -> Tensor:
    """Bright discs on a dark ground, uint8 (n, 3, 64, 64); not `whole`: their quarters change places."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    cy, cx, r = (
        torch.rand(3, n, 1, 1, generator=g) * torch.tensor([8.0, 8.0, 8.0]).view(3, 1, 1, 1)
    ) + torch.tensor([28.0, 28.0, 14.0]).view(3, 1, 1, 1)
    found = torch.sigmoid(r - ((y - cy) ** 2 + (x - cx) ** 2).sqrt())[:, None] * (
        100 + 100 * torch.rand(n, 3, 1, 1, generator=g)
    )
    return (found if whole else found.roll((32, 32), (2, 3))).to(torch.uint8)


def test_lite2_sees_shapes_and_not_only_colours() -> None:
    before = torch.get_rng_state()
    net = X.Lite2()
    real, other, turned = (
        net(discs(48, whole, seed)) for whole, seed in ((True, 0), (True, 1), (False, 2))
    )
    assert torch.equal(before, torch.get_rng_state())
    assert real.shape == (48, 352) and real.dtype == torch.float32
    assert torch.allclose(net(discs(48, True, 0)[:3]), real[:3], atol=1e-4)  # each image by itself
    floor = D.frechet(real, other)
    assert D.frechet(real, turned) > 5 * floor > 0
    assert D.precision_recall_density_coverage(real, other)["precision"] > 0.7
    assert D.precision_recall_density_coverage(real, turned)["precision"] < 0.1
    assert net.hash == X.Lite2().hash and len(net.hash) == 8


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 24), (4, 33, 17)])
def test_lite2_takes_images_of_any_size(shape: tuple[int, int, int]) -> None:
    found = X.Lite2()(images(3, *shape))
    assert found.shape == (3, 352) and found.isfinite().all()


def test_a_module_by_target_and_bad_names(tmp_path: Path) -> None:
    found = X.build_extractor({"_target_": "torch.nn.Flatten"}, data(), tmp_path)
    assert found.name == "flatten" and found(images()).shape == (12, 768)
    other = X.build_extractor({"_target_": "torch.nn.Flatten", "start_dim": 1}, data(), tmp_path)
    assert (
        other.hash != found.hash and X.Lite2().hash == "9948e411"
    )  # settings count, defaults stay comparable
    with pytest.raises(UserError, match="digits, lite2, inception"):
        X.build_extractor("fid", data(), tmp_path)
    with pytest.raises(UserError, match="labelled"):
        X.build_extractor("digits", data(), tmp_path)
    with pytest.raises(UserError, match="uint8"):
        X.Lite2()(images().float())


def test_default_by_dataset(tmp_path: Path) -> None:
    assert X.build_extractor(None, data(), tmp_path).name == "lite2"
    assert (
        X.build_extractor(None, data(name="mnist"), tmp_path).name == "lite2"
    )  # a few digits cannot teach a classifier


def test_digits_learn_and_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (train, labels), (test, test_labels) = bars(2000, 0), bars(400, 1)
    known = {
        "train_labels": labels,
        "holdout_images": test,
        "holdout_labels": test_labels,
        "num_classes": 10,
    }
    before = torch.get_rng_state()
    net = X.build_extractor("digits", data(train_images=train, **known), tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    p = net.probabilities(net(test))
    assert (
        float((p.argmax(1) == test_labels).float().mean()) == pytest.approx(net.accuracy)
        and net.accuracy >= 0.99
    )
    assert torch.allclose(p.sum(1), torch.ones(400), atol=1e-5) and net(test).shape == (400, 64)
    assert net(images(4, 3, 40, 40)).shape == (4, 64)  # other shapes are brought to 28 x 28 grey
    capsys.readouterr()
    again = X.build_extractor("digits", data(train_images=train, **known), tmp_path)
    assert (
        again.hash == net.hash
        and torch.equal(again(test), net(test))
        and not capsys.readouterr().out
    )
    with pytest.raises(UserError, match="99%"):
        shuffled = known | {"holdout_labels": test_labels.flip(0)}
        X.build_extractor(
            "digits",
            data(train_images=train[:600], **shuffled | {"train_labels": labels[:600]}),
            tmp_path / "other",
        )


def test_training_the_classifier_leaves_every_random_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU's as well, where a run whose cache had the classifier would draw other noise."""
    net, seeded = X.Digits(), list[int]()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.default_generator.manual_seed(5)
    before = torch.get_rng_state()
    labels = torch.randint(10, (256,), generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match="reached"):  # nothing is to be learnt from noise
        net.train_on(images(256, 1, 28, 28), labels, (images(64, 1, 28, 28), labels[:64]))
    assert torch.equal(torch.get_rng_state(), before) and not seeded


def test_inception_falls_back_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*args: Any, **kwargs: Any) -> nn.Module:
        raise OSError("no network\nlong story")

    pytest.importorskip("torchmetrics.image.fid")  # while torch_fidelity is what it is
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert X.build_extractor("inception", data(), tmp_path).name == "lite2"
    assert "pip install 'gan-lightning[inception]'" in capsys.readouterr().out
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", offline)
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    assert X.build_extractor("inception", data(), tmp_path).name == "lite2"
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "no network" in said and "inception_weights" in said
    with pytest.raises(UserError, match="nowhere.pth"):
        X.build_extractor("inception", data(), tmp_path, "nowhere.pth")


def test_a_broken_cache_file_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"half")
    assert X.cached(path, lambda: torch.ones(2)).sum() == 2
    assert "made again" in capsys.readouterr().out
    assert X.cached(path, lambda: torch.zeros(2)).sum() == 2
