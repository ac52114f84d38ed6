"""Scores with their yardsticks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pooled import Pooled, dataset, noisy, photographs

from gan_lightning.errors import UserError
from gan_lightning.latents import seeded
from gan_lightning.measure.copies import Copies
from gan_lightning.measure.scores import Scores, evaluate, must_compare, wilson
from gan_lightning.measure.snapshot import Reals, Snapshot, like_the_data


@pytest.fixture(scope="module")
def reals(tmp_path_factory: pytest.TempPathFactory) -> Reals:
    data = dataset(photographs(240, 0), photographs(60, 1))
    return Reals(data, Pooled(), tmp_path_factory.mktemp("cache"))


def scored(reals: Reals, images: torch.Tensor, **options: Any) -> Scores:
    return evaluate(Snapshot(reals, images), **options)


def test_every_score_has_its_yardsticks(reals: Reals) -> None:
    grey = scored(reals, noisy(torch.full((240, 3, 24, 24), 127), 10))
    ceilings = {s.protocol: s.value for s in grey.scores}
    snapshot = Snapshot(reals, photographs(240, 2), ceilings)
    scores = evaluate(snapshot, seconds=4.0, copies=Copies(reals))
    names = [s.name for s in scores.scores]
    assert names[0] == "frechet_pooled_240" and names[-1] == "near_copies_pooled_240"
    assert {"kid_pooled_240", "recall_pooled_240"} <= set(names)
    assert not any("fid" in name for name in names) and len(scores.extractor_hash) == 8
    for s in scores.scores[:-1]:
        assert None not in (s.floor, s.ceiling, s.low, s.high) and s.n == 240
        assert s.low <= s.value <= s.high  # type: ignore[operator]
        sign = 1 if s.better == "lower" else -1
        # fresh reals: at the floor, far from the ceiling
        assert sign * (s.ceiling - s.value) > 3 * abs(s.value - s.floor), s  # type: ignore[operator]
    near = scores.scores[-1]
    assert near.value < 0.1 and near.floor < 0.1  # type: ignore[operator]
    assert near.ceiling is None  # an untrained generator copies nothing
    json.dumps(scores.as_dict())


def test_worse_images_score_worse(reals: Reals) -> None:
    fresh = photographs(240, 2)
    values = [scored(reals, noisy(fresh, sigma)).scores[0].value for sigma in (0, 10, 20, 40)]
    assert values == sorted(values) and values[-1] > 5 * values[0]
    one = scored(reals, fresh[:1].expand(240, -1, -1, -1))
    assert {s.name: s.value for s in one.scores}["recall_pooled_240"] < 0.05


def test_too_few_images_give_no_number(reals: Reals, tmp_path: Path) -> None:
    scores = scored(reals, reals.data.train_images[:49])
    assert scores.main is None and "too few" in scores.warnings[0]
    few = Reals(dataset(photographs(40, 0), None, "few"), Pooled(), tmp_path)
    assert scored(few, photographs(500, 1)).scores == []
    with pytest.raises(UserError, match="uint8"):
        scored(reals, reals.data.train_images[:, :1])
    with pytest.raises(UserError, match="there is 1"):
        must_compare(Reals(dataset(photographs(1, 0), None, "one"), Pooled(), tmp_path))


def test_reference_is_a_large_holdout(tmp_path: Path) -> None:
    data = dataset(photographs(1300, 0, 8), photographs(1100, 1, 8), "large")
    reals = Reals(data, Pooled(), tmp_path)
    assert reals.limit == 1100 and len(reals.folds) == 1
    assert reals.folds[0].reference[0] is data.holdout_images
    scores = scored(reals, photographs(1000, 2, 8))
    assert scores.scores[0].name == "frechet_pooled_1k"
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = Reals(data, Pooled(), tmp_path)
    assert scored(again, photographs(1000, 2, 8)).scores == scores.scores
    # the reals were measured once
    assert again.once == 0 < reals.once
    assert kept == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_a_score_of_somebody_elses(reals: Reals) -> None:
    from gan_lightning.measure.scores import Score

    def brightness(snapshot: Snapshot) -> Score:
        return Score("brightness", float(snapshot.fakes.float().mean()), n=len(snapshot.fakes))

    found = scored(reals, photographs(60, 2), more=[brightness]).scores[-1]
    assert found.name == "brightness" and 0 < found.value < 255


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
    labels = like_the_data(known, 4000, seeded(0))
    assert labels is not None and float(labels.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert like_the_data(None, 10, seeded(0)) is None
