"""The page holds what the run left behind, in itself, and escapes what comes from outside."""

import json

import numpy as np
import pytest
from PIL import Image

from gan_lightning.errors import UserError
from gan_lightning.report import chart, read_curves, write_report


@pytest.fixture
def run(tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv/metrics.csv").write_text(
        "loss/d,loss/g,metric/frechet_random_100,step\n1.5,2.5,,64\n1.0,,41.0,128\n,,42.0,192\n"
    )
    (tmp_path / "images").mkdir()
    for name in ("real_images", "fake_images_epoch_0001", "fake_images_epoch_0002"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"images/{name}.png")
    finding = {
        "name": "x",
        "title": "Too <b>strong</b>",
        "why": "because",
        "since_kimg": 1,
        "evidence": {"auc": 0.99},
        "override": "n_critic=1",
        "resolved": False,
    }
    verdict = {
        "verdict": "fault",
        "summary": "Not well",
        "findings": [finding],
        "checks_passed": ["y"],
        "command": "python train.py n_critic=1",
    }
    (tmp_path / "diagnosis.json").write_text(json.dumps(verdict))
    score = {
        "name": "frechet_random_100",
        "value": 42.0,
        "low": 40.0,
        "high": 44.0,
        "floor": 2.0,
        "ceiling": None,
        "n": 100,
    }
    (tmp_path / "scores.json").write_text(json.dumps({"scores": [score]}))
    return tmp_path


def test_everything_is_on_the_page_and_nothing_is_fetched(run):
    page = write_report(run).read_text()
    for words in (
        "Too &lt;b&gt;strong&lt;/b&gt;",
        "n_critic=1",
        "auc 0.99",
        "frechet_random_100",
        "40 to 44",
        "epoch 0002",
        "metric/frechet_random_100",
    ):
        assert words in page
    assert (
        page.count("data:image/png;base64,") == 2 + 2
    )  # real, the latest, and both for the slider
    assert "http://" not in page and "https://" not in page
    assert not list(run.glob("*.partial"))


def test_a_young_run_has_a_page_too(run):
    for name in (
        "diagnosis.json",
        "scores.json",
        "images/real_images.png",
        "images/fake_images_epoch_0001.png",
        "images/fake_images_epoch_0002.png",
    ):
        (run / name).unlink()
    assert "loss/d" in write_report(run).read_text()


def test_curves(run):
    assert read_curves(run / "csv/metrics.csv") == {
        "loss/d": [(64, 1.5), (128, 1.0)], "loss/g": [(64, 2.5)], "metric/frechet_random_100": [(128, 41.0), (192, 42.0)],
    }  # fmt: skip


def test_chart_spans_its_data():
    drawn = chart("t", {"a": [(0.0, 1.0), (1000.0, 3.0), (2000.0, float("inf"))]})
    assert (drawn["low"], drawn["high"], drawn["right"]) == ("1", "3", "1 thousand images")
    assert drawn["lines"][0]["points"] == "52.0,160.0 420.0,10.0"


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no run"):
        write_report(tmp_path)
