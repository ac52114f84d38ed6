"""Curves of healthy and of sick runs, for docs/curves.md.

    python -m benchmarks.curves --data DIR [--only NAME ...]   train, keep the figures
    python -m benchmarks.curves --draw                         pictures and page from them

DIR holds MNIST/raw. Each run takes one to five minutes of one core and lives in logs/curves;
what is kept of it stands in benchmarks/curves.jsonl, one run a line, and its last samples
in docs/curves. Drawing needs matplotlib.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "logs" / "curves"
FIGURES = ROOT / "benchmarks" / "curves.jsonl"
PAGE = ROOT / "docs" / "curves.md"
PICTURES = ROOT / "docs" / "curves"

# so many snapshots, that there is a curve in a run of two minutes
LOOKS = [
    "trainer.accelerator=cpu",
    "observer.max_fraction=0.3",
    "diagnosis.light_every=20",
    "checkpoints.every_kimg=0",
]
EVERY = {"collapse": 6.4}  # thousand images between two snapshots; else 1.6
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
CHANGES = {  # what makes a run what it is; the rest is as in SMALL, or the note's
    "healthy": [],
    "lr_too_high": ["lr=0.05"],
    "d_too_strong": ["optimizer_g.lr=5e-5", "optimizer_d.lr=1e-3", "n_critic=5"],
    "collapse": ["experiment=vanilla_mnist", "trainer.max_epochs=2"],
}
FINDING = ("name", "severity", "resolved", "since_kimg", "confidence", "override")
LIGHT = ("loss_d", "loss_g", "score_real", "score_fake")
FULL = ("quality", "coverage", "auc_heldout", "auc_train")


def overrides(name: str, data: str = "DIR") -> list[str]:
    """The command line of a run, behind `python train.py`."""
    changes = CHANGES[name]
    small = [] if name == "collapse" else SMALL
    every = f"observer.every_kimg={EVERY.get(name, 1.6)}"
    return [*changes, f"dataset.root={data}", *small, *LOOKS, every]


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
        "findings": [{key: one[key] for key in FINDING} for one in verdict["findings"]],
        "scores": scores,
        "light": _columns(records, LIGHT),
        "full": _columns([one for one in records if one["kind"] == "full"], FULL),
    }


def _columns(records: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {key: [_rounded(one.get(key)) for one in records] for key in ("nimg", *names)}


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def figures() -> dict[str, dict[str, Any]]:
    runs = map(json.loads, FIGURES.read_text().splitlines())
    return {run["name"]: run for run in runs}


def keep(name: str) -> None:
    """Puts a run's figures into the data file, and its last samples beside the page."""
    runs = (figures() if FIGURES.is_file() else {}) | {name: kept(name)}
    lines = [json.dumps(runs[key], ensure_ascii=False) for key in CHANGES if key in runs]
    FIGURES.write_text("\n".join(lines) + "\n")
    PICTURES.mkdir(exist_ok=True)
    last = max((RUNS / name / "images").glob("fake_images_*"))
    shutil.copyfile(last, PICTURES / f"{name}_samples.png")


# -- the picture of a run ------------------------------------------------------------------


def draw(run: dict[str, Any]) -> None:
    """Four panels of curves and the last samples, as docs/curves/NAME.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    figure, panels = plt.subplot_mosaic("ABE;CDE", figsize=(9, 4), layout="constrained")
    light, full = run["light"], run["full"]
    probabilities = {
        side: [_sigmoid(value) for value in light[f"score_{side}"]] for side in ("real", "fake")
    }
    _panel(panels["A"], "losses", light["nimg"], {"D": light["loss_d"], "G": light["loss_g"]})
    said = {"D(x)": probabilities["real"], "D(G(z))": probabilities["fake"]}
    _panel(panels["B"], "what D believes", light["nimg"], said, (0, 1))
    _panel(panels["C"], "distance from the data", full["nimg"], {"quality": full["quality"]})
    panels["C"].set(yscale="log", ylim=(0.003, 30))  # the same for all runs
    for height, words in ((0.1, "poor"), (0.03, "good")):
        panels["C"].axhline(height, color="grey", linewidth=0.6, linestyle=":")
        panels["C"].annotate(words, (0, height), color="grey", fontsize=7, va="bottom")
    shares = {"coverage": full["coverage"]}
    shares |= {"AUC, trained on": full["auc_train"], "AUC, held out": full["auc_heldout"]}
    _panel(panels["D"], "shares", full["nimg"], shares, (0, 1.02))
    for finding in [one for one in run["findings"][:1] if one["severity"] != "note"]:
        for panel in "ABCD":
            panels[panel].axvline(
                finding["since_kimg"], color="tab:red", linewidth=0.8, linestyle="--"
            )
    with Image.open(PICTURES / f"{run['name']}_samples.png") as samples:
        panels["E"].imshow(_corner(samples), cmap="gray", interpolation="nearest")
    panels["E"].set_title("samples at the end", fontsize=8)
    panels["E"].axis("off")
    figure.savefig(PICTURES / f"{run['name']}.png", dpi=110)
    plt.close(figure)


def _panel(
    panel: Any,
    title: str,
    nimg: list[int],
    curves: dict[str, list[Any]],
    ends: tuple[float, float] | None = None,
) -> None:
    for name, values in curves.items():
        there = [(x / 1000, y) for x, y in zip(nimg, values, strict=True) if y is not None]
        panel.plot(*zip(*there, strict=True), label=name, linewidth=1) if there else None
    panel.set_title(title, fontsize=8)
    panel.set_xlabel("thousand images shown", fontsize=7)
    panel.set_ylim(*(ends or (None, None)))
    panel.legend(framealpha=0.7, edgecolor="none", fontsize=7)


def _sigmoid(logit: float | None) -> float | None:
    return None if logit is None else 1 / (1 + math.exp(-max(-500.0, min(500.0, logit))))


def _corner(samples: Image.Image) -> Image.Image:
    """The first five rows and columns of a grid of eight, as they come."""
    side = samples.width * 5 // 8
    return samples.crop((0, 0, side, side))


# -- the page ------------------------------------------------------------------------------


def block(run: dict[str, Any]) -> str:
    """What docs/curves.md shows of a run: its picture, command, verdict and score."""
    name = run["name"]
    score = run["scores"]["scores"][0]
    found = [f"`{one['name']}`" + " (resolved)" * one["resolved"] for one in run["findings"]]
    change = f" Change: `{run['findings'][0]['override']}`." if run["findings"] else ""
    changes = " ".join(CHANGES[name])
    command = f"`{changes}`" if changes else "Nothing changed"
    return (
        f"![Curves and samples: {name}](curves/{name}.png)\n\n"
        f"{command}: {run['kimg']:g} thousand images shown. Score at the end: {score['name']}"
        f" {score['value']:.3g}, real images get {score['floor']:.3g}.\n\n"
        f"> **{run['summary']}** Found: {', '.join(found) or 'nothing'}.{change}\n"
    )


def page(text: str) -> str:
    """The page with each block between its marks as the data file has it."""
    for name, run in figures().items():
        marks = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, _, rest = text.partition(marks[0])
        old, mark, tail = rest.partition(marks[1])
        if mark:
            text = f"{head}{marks[0]}{block(run)}{mark}{tail}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("GAN_LIGHTNING_DATA"))
    parser.add_argument("--only", nargs="*", choices=CHANGES)
    parser.add_argument("--draw", action="store_true", help="train nothing")
    options = parser.parse_args()
    if not options.draw:
        for name in options.only or CHANGES:
            train(name, options.data)
            keep(name)
    for run in figures().values():
        draw(run)
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
