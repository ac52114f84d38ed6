"""Scores with their yardsticks, copies, the callback, and the command line."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from pooled import Pooled
from torch import Tensor, nn

from gan_lightning.errors import UserError
from gan_lightning.metrics.evaluate import (
    Evaluator,
    _real_data,
    class_labels,
    copies_strip,
    evaluate_cli,
    wilson,
)
from gan_lightning.metrics.quality import Quality


def photographs(n: int, seed: int, size: int = 24) -> Tensor:
    """Coloured soft discs on a slanted ground, uint8 (n, 3, size, size)."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    cy, cx, r = (
        torch.rand(3, n, 1, 1, generator=g) * torch.tensor([0.6, 0.6, 0.25]).view(3, 1, 1, 1) + 0.2
    ) * size
    disc = torch.sigmoid(r - ((y - cy) ** 2 + (x - cx) ** 2).sqrt())[:, None]
    colour = torch.rand(n, 3, 1, 1, generator=g) * 160 + 60
    slope = torch.rand(2, n, 1, 1, 1, generator=g) * 3
    ground = slope[0] * x + slope[1] * y
    return (
        (disc * colour + (1 - disc) * ground + 4 * torch.randn(n, 3, size, size, generator=g))
        .clamp(0, 255)
        .to(torch.uint8)
    )


def dataset(train: Tensor, holdout: Tensor | None, key: str = "photos") -> Any:
    return SimpleNamespace(
        train_images=train, holdout_images=holdout, train_labels=None, holdout_labels=None, num_classes=None,
        name=key, content_hash=key, prepare=lambda: None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def photos() -> Any:
    return dataset(photographs(240, 0), photographs(60, 1))


@pytest.fixture(scope="module")
def evaluator(photos: Any, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    return Evaluator(photos, Pooled(), cache_dir=tmp_path_factory.mktemp("cache"))


def noisy(x: Tensor, sigma: float, seed: int = 3) -> Tensor:
    return (
        (x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))
        .clamp(0, 255)
        .to(torch.uint8)
    )


def test_every_score_has_its_yardsticks(evaluator: Evaluator) -> None:
    fresh = photographs(240, 2)
    scores = evaluator.evaluate(
        fresh, ceiling_fakes=lambda n: noisy(torch.full((n, 3, 24, 24), 127), 10)
    )
    names = [s.name for s in scores.scores]
    assert (
        names[0] == "frechet_pooled_240"
        and "kid_pooled_240" in names
        and "recall_pooled_240" in names
    )
    assert names[-1] == "near_copies_pooled_240"
    assert not any("fid" in name for name in names) and len(scores.extractor_hash) == 8
    for s in scores.scores[:-1]:
        assert (
            s.floor is not None
            and s.ceiling is not None
            and s.low is not None
            and s.high is not None
            and s.n == 240
        )
        assert s.low <= s.value <= s.high
        worst, sign = s.ceiling, 1 if s.better == "lower" else -1
        assert sign * (worst - s.value) > 3 * abs(s.value - s.floor), (
            s
        )  # fresh reals: at the floor, far from the ceiling
    near = scores.scores[-1]
    assert (
        near.value < 0.1
        and near.floor is not None
        and near.floor < 0.1
        and near.ceiling is not None
    )
    assert near.ceiling > 0.95  # of planted copies
    json.dumps(scores.as_dict())


def test_worse_images_score_worse(evaluator: Evaluator) -> None:
    fresh = photographs(240, 2)
    values = [evaluator.evaluate(noisy(fresh, s), light=True).main.value for s in (0, 10, 20, 40)]  # type: ignore[union-attr]
    assert values == sorted(values) and values[-1] > 5 * values[0]
    one = evaluator.evaluate(fresh[:1].expand(240, -1, -1, -1), light=True)
    found = {s.name: s.value for s in one.scores}
    assert found["recall_pooled_240"] < 0.05


def test_too_few_images_give_no_number(evaluator: Evaluator, photos: Any, tmp_path: Path) -> None:
    scores = evaluator.evaluate(photos.train_images[:49])
    assert scores.main is None and "too few" in scores.warnings[0]
    few = Evaluator(dataset(photographs(40, 0), None, "few"), Pooled(), cache_dir=tmp_path)
    assert few.evaluate(photographs(500, 1)).scores == []
    with pytest.raises(UserError, match="uint8"):
        evaluator.evaluate(photos.train_images[:, :1])


def test_reference_is_a_large_holdout(tmp_path: Path) -> None:
    data = dataset(photographs(1300, 0, 8), photographs(1100, 1, 8), "large")
    evaluator = Evaluator(data, Pooled(), cache_dir=tmp_path)
    assert (
        evaluator.limit == 1100
        and evaluator.folds[0][0][0] is data.holdout_images
        and len(evaluator.folds) == 1
    )
    scores = evaluator.evaluate(photographs(1000, 2, 8), light=True)
    assert scores.main.name == "frechet_pooled_1k"  # type: ignore[union-attr]
    kept = sorted(p.name for p in tmp_path.iterdir())
    stamp = [p.stat().st_mtime_ns for p in sorted(tmp_path.iterdir())]
    again = Evaluator(data, Pooled(), cache_dir=tmp_path).evaluate(
        photographs(1000, 2, 8), light=True
    )
    assert again.scores == scores.scores and kept == sorted(p.name for p in tmp_path.iterdir())
    assert stamp == [
        p.stat().st_mtime_ns for p in sorted(tmp_path.iterdir())
    ]  # the reals were measured once


@pytest.mark.parametrize("duplicates", [False, True])
def test_copies_are_found_and_held_out_photographs_are_not(
    duplicates: bool, tmp_path: Path
) -> None:
    train, unseen = photographs(180, 0), photographs(100, 7)
    if duplicates:  # burst shots: a third of the photographs, thrice, each a little different
        train = torch.cat([train, *(noisy(train[:60], 4, s) for s in range(2))])
    evaluator = Evaluator(
        dataset(train, photographs(60, 1), f"copies{duplicates}"), Pooled(), cache_dir=tmp_path
    )

    def rate(images: Tensor) -> float:
        return float((evaluator.near_copies(images)[0] < 1).float().mean())

    assert rate(unseen) < 0.1 and rate(evaluator.data.holdout_images) < 0.1
    assert rate(noisy(train[:100], 8)) > 0.95
    assert rate(noisy(torch.roll(train[:100].flip(3), (1, 1), (2, 3)), 4)) > 0.95
    found = evaluator.near_copies(noisy(train[100:150], 5))[1]
    assert duplicates or torch.equal(found, torch.arange(100, 150))


def test_copies_among_real_eggs(real_data: Path, tmp_path: Path) -> None:
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    files = sorted((real_data / "eggs_candling").glob("*.jpg"))
    if len(files) < 300:
        pytest.skip("no eggs_candling")
    x = torch.stack([pil_to_tensor(Image.open(f).convert("RGB").resize((64, 64))) for f in files])
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    evaluator = Evaluator(dataset(x[:540], x[540:600], "eggs"), Pooled(), cache_dir=tmp_path)
    unseen, copies = evaluator.near_copies(x[600:])[0], evaluator.near_copies(noisy(x[:100], 10))[0]
    assert float((unseen < 1).float().mean()) < 0.1 and float((copies < 1).float().mean()) > 0.95


def test_strip_shows_pairs() -> None:
    train = photographs(50, 0)
    strip = copies_strip(noisy(train[10:18], 3), train, torch.arange(10, 18))
    assert strip.shape == (3, 2 * (24 + 2) + 2, 4 * (48 + 2) + 2) and strip.dtype == torch.uint8
    assert torch.equal(strip[:, 2:26, 26:50], train[10])


# -- callback ----------------------------------------------------------------------------------------------------------


class Toy(pl.LightningModule):
    """The least that a callback meets: its images get better or worse by what `noise` says for each step."""

    def __init__(self, noise: list[float]) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 1), nn.Dropout())
        self.noise, self.latent_dim, self.num_classes, self.nimg = noise, 4, None, 0
        self.config = {"total_kimg": None}
        self.seen: list[float] = []

    def sample(self, z: Tensor, labels: Tensor | None = None, ema: bool = True) -> Tensor:
        sigma = self.noise[min(self.nimg // 10, len(self.noise) - 1)]
        torch.rand(3)  # a careless network
        return noisy(photographs(len(z), 11), sigma).float() / 127.5 - 1

    def training_step(self, batch: Any, index: int) -> Tensor:
        assert self.training and self.layer.training
        self.nimg += 10
        self.seen.append(float(torch.rand(1)))
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)

    def save_checkpoint(self, path: Path) -> None:
        self.trainer.save_checkpoint(path)


class ToyData(pl.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.__dict__ |= vars(dataset(photographs(120, 0), None, "toy"))

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.ones(40, 4)), batch_size=10, shuffle=True
        )


def fit(
    root: Path, noise: list[float], epochs: int = 1, resume: Path | None = None, **options: Any
) -> tuple[Toy, Quality | None]:
    torch.manual_seed(0)
    quality = (
        Quality(**({"cache_dir": str(root / "cache"), "features": Pooled()} | options))
        if options
        else None
    )
    module = Toy(noise)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=root, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[quality] if quality else None,
    )  # fmt: skip
    trainer.fit(module, ToyData(), ckpt_path=resume)
    return module, quality


def test_callback_keeps_the_best_and_leaves_training_alone(tmp_path: Path) -> None:
    noise = [60.0, 40.0, 5.0, 30.0, 50.0]
    plain, _ = fit(tmp_path, noise)
    module, quality = fit(tmp_path, noise, every_kimg=0.01, max_share=100.0)
    assert (
        quality is not None and module.seen == plain.seen
    )  # training's random numbers are its own
    assert all(
        torch.equal(a, b) for a, b in zip(module.parameters(), plain.parameters(), strict=True)
    )
    assert [h["nimg"] for h in quality.history] == [10, 20, 30, 40]
    assert (
        quality.best is not None
        and quality.best["nimg"] == 20
        and quality.objective() == quality.best["value"] - quality.best["floor"]
    )
    first = quality.history[0]
    assert (
        abs(quality.best["value"] - first["floor"])
        < 0.5 * first["floor"]
        < first["value"]
        < first["ceiling"]
    )
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)
    kept = next(v for k, v in saved["callbacks"].items() if "Quality" in k)
    assert [h["nimg"] for h in kept["history"]] == [10, 20]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (
        scores["scores"][0]["name"] == "frechet_pooled_120" and scores["history"][-1]["nimg"] == 40
    )
    assert (tmp_path / "images" / "nearest_photographs.png").is_file()
    resumed = Quality()
    resumed.load_state_dict(kept)
    assert resumed.history == quality.history[:2] and resumed.best == quality.best


def test_patience_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"every_kimg": 0.01, "max_share": 100.0, "patience": 2}
    module, quality = fit(tmp_path, [5.0, 5.0, 30.0, 40.0, 50.0, 60.0], 5, **options)
    assert quality is not None and 30 <= module.nimg <= 60 and quality.stale == 2
    assert "metrics.patience" in capsys.readouterr().out


def test_the_time_cap_halves_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    quality = Quality()
    quality.cost = 0.01
    assert quality._affordable(2000, 100.0) == 2000 and not capsys.readouterr().out
    assert quality._affordable(2000, 6.0) == 500
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "500 images, not 2000" in said
    assert quality._affordable(2000, 0.0) == 125


def test_a_score_at_the_end_is_the_objective_where_there_was_none_before(tmp_path: Path) -> None:
    _, quality = fit(tmp_path, [5.0], every_kimg=1000)
    assert quality is not None and quality.best is None
    written = json.loads((tmp_path / "scores.json").read_text())["scores"][0]
    assert quality.objective() == written["value"] - written["floor"]


def test_a_score_never_ends_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "every_kimg": 0.01,
        "max_share": 100.0,
        "features": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2},
    }
    module, quality = fit(tmp_path, [5.0], **options)
    assert quality is not None and quality.off and module.nimg == 40 and quality.objective() is None
    assert capsys.readouterr().out.count("metrics: off for this run: ") == 1


def test_one_real_image_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is 1"):
        Evaluator(dataset(photographs(1, 0), None, "one"), Pooled(), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("rate", "n", "low", "high"),  # Wilson's intervals as published: Newcombe (1998), table I
    [
        (0.0, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
    ],
)
def test_the_interval_of_a_rate(rate: float, n: int, low: float, high: float) -> None:
    assert wilson(rate, n) == pytest.approx((low, high), abs=1e-4)


def test_labels_come_as_often_as_in_the_data() -> None:
    known = torch.tensor([0] * 700 + [1] * 300)
    labels = class_labels(known, 4000)
    assert labels is not None and float(labels.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert class_labels(None, 10) is None


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="metrics.num_images=20"):
        Quality(num_images=20)


# -- command line ------------------------------------------------------------------------------------------------------


def test_a_folder_of_images_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for name, count, seed, size in (("real", 110, 0, 24), ("made", 90, 2, 32)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(photographs(count, seed, size)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i}.png")
    Image.new("RGB", (300, 300)).save(
        tmp_path / "made" / "grid.png"
    )  # what `sample --grid` leaves there is no image
    monkeypatch.chdir(tmp_path)
    assert (
        evaluate_cli(str(tmp_path / "made"), str(tmp_path / "real"), None, None, None, True, None)
        == 0
    )
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["n"] == 90
    assert (
        found["extractor"] == "lite2"
        and found["scores"][0]["ceiling"] > found["scores"][0]["value"]
    )
    assert (
        "resized to 64x64" in said.err
        and (tmp_path / "samples" / "nearest_photographs.png").is_file()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "made",
        "real",
        "samples",
    ]  # nothing beside
    assert (
        evaluate_cli(str(tmp_path / "made"), str(tmp_path / "real"), None, "lite2", 60, False, None)
        == 0
    )
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(
        UserError, match="--features inception cannot be used"
    ):  # and not answered with another score
        evaluate_cli(
            str(tmp_path / "made"), str(tmp_path / "real"), None, "inception", 60, True, None
        )
    assert "60 images" in capsys.readouterr().out


def test_another_folder_need_not_have_the_classes_a_checkpoint_was_trained_on(
    tmp_path: Path,
) -> None:
    from PIL import Image

    for folder in ("trained/a", "trained/b", "other"):
        (tmp_path / folder).mkdir(parents=True)
        for i, image in enumerate(photographs(12, len(folder), 24)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / folder / f"{i}.png")
    settings = {"labels": True, "root": str(tmp_path / "trained"), "image_size": 24, "holdout": 0}
    own, other = (
        _real_data(str(tmp_path / name), None, settings, str(tmp_path / "cache"))
        for name in ("trained", "other")
    )
    assert torch.bincount(own.train_labels).tolist() == [12, 12]
    assert other.train_labels is None and len(other.train_images) == 12
