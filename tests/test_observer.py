"""The observer on tiny runs: one cadence, one budget, scores, the best checkpoint, pictures."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from pooled import Pooled, dataset, noisy, photographs
from torch import Tensor, nn

from gan_lightning.errors import UserError
from gan_lightning.measure.scores import Score
from gan_lightning.measure.scoring import Scoring
from gan_lightning.observer import Observer


class Toy(pl.LightningModule):
    """The least an observer meets: images get better or worse by what `noise` says for a step."""

    latent_dim, num_classes, generator_ema, planned_nimg, progress = 4, None, None, None, 0.0
    config: dict = {}

    def __init__(self, noise: list[float]) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 1), nn.Dropout())
        self.noise, self.nimg = noise, 0
        self.seen: list[float] = []

    @property
    def step(self) -> int:
        return self.nimg // 10

    def sample(self, z: Tensor, labels: Tensor | None = None, ema: bool = True) -> Tensor:
        sigma = self.noise[min(self.step, len(self.noise) - 1)]
        torch.rand(3)  # a careless network
        return noisy(photographs(len(z), int(z[0, 0].abs() * 1e4)), sigma).float() / 127.5 - 1

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return images.mean((1, 2, 3))

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

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
        self.__dict__ |= vars(dataset(photographs(240, 0), None, "toy"))

    def train_dataloader(self) -> Any:
        rows = torch.utils.data.TensorDataset(torch.ones(40, 1, 2, 2))
        return torch.utils.data.DataLoader(rows, batch_size=10, shuffle=True)


class Flat(Toy):
    """Its training batches need no meaning."""

    def training_step(self, batch: Any, index: int) -> Tensor:
        return super().training_step([batch[0].flatten(1)], index)


def fit(
    root: Path, noise: list[float], epochs: int = 1, observed: bool = True, **options: Any
) -> tuple[Toy, Observer]:
    torch.manual_seed(0)
    scoring = Scoring(**{key: options.pop(key) for key in ("patience", "more") if key in options})
    usual = {"every_kimg": 0.01, "max_fraction": 999.0, "features": Pooled(), "metrics": scoring}
    observer = Observer(**usual | {"cache_dir": root.parent / "toy"} | options)
    module = Flat(noise)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=root, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[observer] if observed else None,
    )  # fmt: skip
    trainer.fit(module, ToyData())
    return module, observer


@pytest.mark.parametrize(
    ("undecided", "expected"), [(True, (True, 64, 0)), (False, (True, 0, 100))]
)
def test_snapshots_for_a_verdict_go_before_scores(undecided: bool, expected: tuple) -> None:
    """Of 20 earned seconds 4 are for pictures, 10 for the diagnosis, which has spent 8, 6 for
    scores; 7 are left."""
    observer: Any = Observer(metrics=Scoring(), max_fraction=1.0)
    observer.watch = SimpleNamespace(undecided=undecided)
    observer.scoring = SimpleNamespace(off=False, fewer=lambda seconds, each: 100)
    observer.budget = SimpleNamespace(
        left=lambda progress: 7.0, spent=13.0, allowed=float, whole=lambda progress: 40.0
    )
    observer.cadence.count = 20
    for kind, seconds, count in (("picture", 2.0, 1), ("signals", 4.0, 64), ("score", 1.4, 100)):
        observer.costs.took(kind, seconds, count)
    observer.costs.spent["signals"] = 8.0
    assert observer._wanted(SimpleNamespace(progress=0.5, step=500), True) == expected


def test_it_keeps_the_best_and_leaves_training_alone(tmp_path: Path) -> None:
    noise = [60.0, 40.0, 5.0, 30.0, 50.0]
    plain, _ = fit(tmp_path, noise, observed=False)
    module, observer = fit(tmp_path, noise)
    scoring = observer.scoring
    assert module.seen == plain.seen  # training's random numbers are its own
    for a, b in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
    assert scoring is not None and [h["nimg"] for h in scoring.history] == [10, 20, 30, 40]
    best, first = scoring.best, scoring.history[0]
    assert best is not None and best["nimg"] == 20
    assert observer.objective() == best["value"] - best["floor"]
    assert abs(best["value"] - first["floor"]) < 0.5 * first["floor"]
    assert first["floor"] < first["value"] < first["ceiling"]
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)
    kept = saved["callbacks"]["Observer"]
    assert [h["nimg"] for h in kept["metrics"]["history"]] == [10, 20]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["scores"][0]["name"] == "frechet_pooled_240"
    assert scores["history"][-1]["nimg"] == 40
    assert (tmp_path / "images" / "nearest_photographs.png").is_file()
    resumed = Observer(metrics=Scoring())
    resumed.load_state_dict(kept)
    assert resumed.scoring is not None and resumed.scoring.best == best
    assert resumed.scoring.history == scoring.history[:2]


def test_patience_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, observer = fit(tmp_path, [5.0, 5.0, 30.0, 40.0, 50.0, 60.0], 5, patience=2)
    assert 30 <= module.nimg <= 60 and observer.scoring and observer.scoring.stale == 2
    assert "metrics.patience" in capsys.readouterr().out


def test_a_snapshot_is_made_smaller_and_put_off_until_it_fits(tmp_path: Path) -> None:
    scoring = Scoring()
    scoring.images = 2000
    assert scoring.fewer(100.0, 0.01) == 2000 and scoring.fewer(6.0, 0.01) == 500
    assert scoring.fewer(0.0, 0.01) == 125 == scoring.fewer(100.0, 0.01)
    _, observer = fit(tmp_path, [5.0], max_fraction=0.0)
    assert observer.scoring and not observer.scoring.history
    # one picture and one look at the end, which is then the objective
    names = [path.name for path in (tmp_path / "images").glob("fake_images_*")]
    assert names == ["fake_images_kimg_000000.040.png"]
    written = json.loads((tmp_path / "scores.json").read_text())["scores"][0]
    assert observer.objective() == written["value"] - written["floor"]


def test_a_score_never_ends_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linear = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}
    module, observer = fit(tmp_path, [5.0], features=linear)
    assert observer.scoring and observer.scoring.off
    assert module.nimg == 40 and observer.objective() is None
    assert capsys.readouterr().out.count("metrics: off for this run: ") == 1


class Brightness:
    """A score of somebody else's."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, snapshot: Any) -> Score:
        value = self.scale * float(snapshot.fakes.float().mean())
        return Score(f"brightness_{len(snapshot.fakes)}", value, n=len(snapshot.fakes))


class Mean(nn.Module):
    """Features of somebody else's: the mean colour of each quarter."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


class Darkest:
    """A picture maker of somebody else's."""

    def __call__(self, moment: Any) -> Tensor:
        return moment.fakes[moment.fakes.float().mean((1, 2, 3)).argmin()]


def test_scores_features_and_pictures_by_target(tmp_path: Path) -> None:
    """From outside the package: what a user writes behind +metrics.more, features and so on."""
    here = __name__
    _, observer = fit(
        tmp_path,
        [5.0],
        features={"_target_": f"{here}.Mean"},
        more={"light": {"_target_": f"{here}.Brightness", "scale": 2.0}},
        pictures={"darkest": {"_target_": f"{here}.Darkest"}},
    )
    assert observer.scoring
    scores = json.loads((tmp_path / "scores.json").read_text())
    names = [s["name"] for s in scores["scores"]]
    assert names[0] == "frechet_mean_240" and names[-1] == "brightness_240"
    assert "brightness" in observer.scoring.history[0]["scores"]
    assert (tmp_path / "images" / "darkest_kimg_000000.040.png").is_file()


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="num_images=20 should be a whole number from 50"):
        Scoring(num_images=20)
