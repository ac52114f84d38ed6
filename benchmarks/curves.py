"""Curves of healthy and of sick runs, for docs/curves.md.

    python -m benchmarks.curves --data DIR [--only NAME ...]   train, keep the figures
    python -m benchmarks.curves --draw                         pictures and page from them

DIR holds MNIST/raw. Each run takes a minute or two of one core and lives in logs/curves;
what is kept of it stands in benchmarks/curves.jsonl, one run a line, and its last samples
in docs/curves. Drawing needs matplotlib.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "logs" / "curves"
FIGURES = ROOT / "benchmarks" / "curves.jsonl"
PAGE = ROOT / "docs" / "curves.md"
PICTURES = ROOT / "docs" / "curves"

# so many looks, that there is a curve in a run of two minutes
LOOKS = [
    "trainer.accelerator=cpu",
    "observer.every_kimg=1.6",
    "observer.max_fraction=0.3",
    "diagnosis.light_every=20",
    "checkpoints.every_kimg=0",
]
SMALL = [  # a convolutional GAN that one core trains in a minute
    "augment=none",
    "dataset.batch_size=16",
    "network.generator.channels=32",
    "network.discriminator.channels=32",
    "network.generator.min_channels=16",
    "network.discriminator.min_channels=16",
    "metrics.num_images=1000",
    "total_kimg=24",
]
EGGS = ["dataset=egg", "dataset.image_size=32", "dataset.source.number=60", "dataset.root=data/egg60"]
CHANGES = {  # what makes a run what it is; the rest is as in SMALL, or the note's
    "healthy": [],
    "lr_too_high": ["lr=0.05"],
    "d_too_strong": ["optimizer_g.lr=5e-5", "optimizer_d.lr=1e-3", "n_critic=5"],
    "d_too_weak": ["optimizer_d.lr=1e-6"],
    "collapse": ["experiment=vanilla_mnist", "trainer.max_epochs=2"],
    "overfits": [*EGGS, "loss.gamma=0"],
}
LIGHT = ("loss_d", "loss_g", "score_real", "score_fake")
FULL = ("quality", "coverage", "auc_heldout", "auc_train")


def overrides(name: str, data: str = "DIR") -> list[str]:
    """The command line of a run, behind `python train.py`."""
    changes = CHANGES[name]
    digits = [] if "dataset=egg" in changes else [f"dataset.root={data}"]
    small = [] if name == "collapse" else SMALL
    looks = [one for one in LOOKS if name != "collapse" or "every_kimg=1.6" not in one]
    looks += ["observer.every_kimg=6.4"] if name == "collapse" else []
    return [*changes, *digits, *small, *looks]


def train(name: str, data: str) -> None:
    folder = RUNS / name
    command = [sys.executable, "train.py", *overrides(name, data), f"hydra.run.dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def kept(name: str) -> dict[str, Any]:
    """What stays of a run: its command, its verdict and the curves."""
    folder = RUNS / name
    verdict = json.loads((folder / "diagnosis.json").read_text())
    lines = (folder / "signals.jsonl").read_text().splitlines()
    records = [one for one in map(json.loads, lines) if one["kind"] in ("light", "full")]
    scores = json.loads((folder / "scores.json").read_text())
    return {
        "name": name,
        "command": " ".join(["python", "train.py", *overrides(name)]),
        "kimg": verdict["kimg"],
        "summary": verdict["summary"],
        "findings": [
            {key: one[key] for key in ("name", "resolved", "since_kimg", "confidence", "override")}
            for one in verdict["findings"]
        ],
        "scores": scores,
        "light": _columns(records, LIGHT),
        "full": _columns([one for one in records if one["kind"] == "full"], FULL),
    }


def _columns(records: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, list[Any]]:
    rounded = lambda value: float(f"{value:.4g}") if isinstance(value, float) else value  # noqa: E731
    return {key: [rounded(one.get(key)) for one in records] for key in ("nimg", *names)}
