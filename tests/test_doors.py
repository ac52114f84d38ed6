"""Every door at once: a package of somebody else's brings a loss, networks, a data set, a rule, a score and features,
and a run trains with all of them."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from gan_lightning.diagnosis.rules import RULES

PARTS = '''
import numpy as np
import torch
from torch import nn

from gan_lightning.data.images import Original
from gan_lightning.losses import Loss
from gan_lightning.measure.scores import Score
from PIL import Image


class Squared(Loss):
    """Least squares around 2 and -2."""

    def d(self, real_logits, fake_logits):
        return ((real_logits - 2) ** 2).mean() + ((fake_logits + 2) ** 2).mean()

    def g(self, real_logits, fake_logits):
        return ((fake_logits - 2) ** 2).mean()


class Painter(nn.Module):
    def __init__(self, latent_dim, image_size, image_channels, **others):
        super().__init__()
        self.shape = image_channels, image_size, image_size
        self.layer = nn.Linear(latent_dim, image_channels * image_size**2)

    def forward(self, z):
        return self.layer(z).tanh().view(-1, *self.shape)  # (B, C, H, W)


class Critic(nn.Module):
    def __init__(self, image_size, image_channels, **others):
        super().__init__()
        self.layer = nn.Linear(image_channels * image_size**2, 1)

    def forward(self, images):
        return self.layer(images.flatten(1))[:, 0]  # (B,)


class Shades:
    """Sixty-four pictures of one shade each."""

    name, num_test, num_classes = "shades", 0, None

    def __init__(self, root, labels):
        self.root = root

    def __len__(self):
        return 64

    def typical_size(self):
        return 8, 8

    def file_name(self, number):
        return f"shade {number}"

    def fingerprint(self):
        return "64 shades"

    def unusable(self):
        return {}

    def label(self, number):
        return 0

    def array(self):
        return None

    def open(self, number, at_least=0):
        pixels = np.full((8, 8, 3), 4 * number, np.uint8)
        pixels[:, : number % 8] = 255 - 4 * number
        return Original(Image.fromarray(pixels), (8, 8), "RGB", str(number))


class Lightness:
    def __call__(self, snapshot):
        return Score(f"lightness_{len(snapshot.fakes)}", float(snapshot.fakes.float().mean()), n=len(snapshot.fakes))


class Quarters(nn.Module):
    """uint8 (N, C, H, W) to the mean colour of each quarter (N, 4 C)."""

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)
'''
SYMPTOMS = """
from gan_lightning.diagnosis.history import Certain


def few_pictures(h, t):
    count = h.fact("n_train")
    return Certain(0.9, {"images": count}) if count < t["enough"] else None
"""
ENTRY = """
severity: warning
needs: [n_train]
thresholds:
  enough: 100
evidence: [n_train]
remedies: [latent_dim=7]
before_start: true
en: {title: There are few pictures, why: More would help.}
ko: {title: 그림이 적습니다, why: 더 있으면 좋습니다.}
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    home = tmp_path / "somebodys"
    (home / "rules").mkdir(parents=True)
    (home / "__init__.py").touch()
    (home / "parts.py").write_text(PARTS)
    (home / "symptoms.py").write_text(SYMPTOMS)
    (home / "rules" / "few_pictures.yaml").write_text(ENTRY)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    RULES.pop("few_pictures", None)
    for name in [name for name in sys.modules if name.startswith("somebodys")]:
        del sys.modules[name]


def test_a_run_with_everything_from_outside(outside, train_run):
    folder, objective = train_run(
        "run",
        "dataset=folder",
        "dataset.root=nowhere",
        "dataset.source._target_=somebodys.parts.Shades",
        "dataset.image_size=8",
        "dataset.batch_size=8",
        "dataset.holdout=0",
        "network=mlp",
        "network.generator._target_=somebodys.parts.Painter",
        "network.discriminator._target_=somebodys.parts.Critic",
        "loss._target_=somebodys.parts.Squared",
        "~loss.label_smoothing",
        "features._target_=somebodys.parts.Quarters",
        "+metrics.more.lightness._target_=somebodys.parts.Lightness",
        "diagnosis.rules=[somebodys.symptoms]",
        "latent_dim=4",
        "trainer.log_every_n_steps=2",
        "total_kimg=0.064",
        "observer.max_fraction=99",
        "trainer.enable_progress_bar=false",
    )
    scores = {
        s["name"]: s["value"] for s in json.loads((folder / "scores.json").read_text())["scores"]
    }
    assert any(name.startswith("frechet_quarters") for name in scores)
    with Image.open(folder / "images/fake_images_kimg_000000.064.png") as picture:
        made = np.asarray(picture).reshape(-1)
    light = next(value for name, value in scores.items() if name.startswith("lightness"))
    assert 0 < light < 255 and made.max() > 0
    verdict = json.loads((folder / "diagnosis.json").read_text())
    found = {finding["name"]: finding for finding in verdict["findings"]}
    assert found["few_pictures"]["override"] == "latent_dim=7"
    assert found["few_pictures"]["evidence"] == {"images": 64}
    losses = [line.split(",") for line in (folder / "csv/metrics.csv").read_text().splitlines()]
    assert "loss/d" in losses[0] and objective is not None
    assert "shades" in (folder / "report.html").read_text()
