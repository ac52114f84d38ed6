"""How the cost grows: time per image against batch, resolution, processes and size of the set; memory against steps.

    python -m benchmarks.growth [--plots DIR] [--quick]

Each line of figures stands beside what is expected. Times are medians of whole steps of the module in Lightning.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.throughput import compose, our_run
from gan_lightning.data.images import ImageStore
from gan_lightning.data.loader import BatchStream

EXPERIMENTS = ["vanilla_mnist", "mnist", "egg"]


def photos(folder: Path, count: int, size: int) -> Path:
    """A folder of random images."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.fromarray(torch.randint(0, 256, (size, size, 3), dtype=torch.uint8).numpy()).save(
            folder / f"{k}.png", compress_level=0
        )
    return folder


def seconds_per_image(scratch: str, folder: Path, size: int, batch: int, steps: int) -> float:
    from hydra.utils import instantiate

    from gan_lightning.recipe import choose

    cfg = compose("dataset=folder", f"dataset.root={folder}", f"dataset.image_size={size}", f"dataset.batch_size={batch}",
                  f"dataset.cache_dir={scratch}/cache", f"logger.csv.save_dir={scratch}")  # fmt: skip
    choose(cfg, instantiate(cfg.dataset.source), False)
    run = our_run(cfg, torch.device("cpu"), scratch)
    return statistics.median(1 / run(steps) for _ in range(2))


def of_batch(scratch: str, quick: bool) -> dict[int, float]:
    folder = photos(Path(scratch) / "b", 200, 32)
    return {
        batch: seconds_per_image(scratch, folder, 32, batch, 6)
        for batch in ((8, 32) if quick else (4, 8, 16, 32, 64))
    }


def of_resolution(scratch: str, quick: bool) -> dict[int, float]:
    return {
        size: seconds_per_image(scratch, photos(Path(scratch) / f"r{size}", 40, size), size, 8, 4)
        for size in ((32, 64) if quick else (32, 64, 128, 256))
    }


def of_dataset(scratch: str, quick: bool) -> dict[int, float]:
    """The loader alone, as the networks do not know the size of the set."""
    figures = {}
    for count in (1000, 100_000) if quick else (1000, 10_000, 100_000, 1_000_000):
        stream = BatchStream(ImageStore(torch.zeros(count, 1, 28, 28, dtype=torch.uint8)), None, 64)
        items, shown, start = iter(stream), 0, time.perf_counter()
        while time.perf_counter() - start < 2:
            try:
                shown += len(next(items)[0])
            except StopIteration:
                items = iter(stream)
        figures[count] = (time.perf_counter() - start) / shown
    return figures


def of_processes(scratch: str, quick: bool) -> dict[int, float]:
    """Whole runs of 1 and 2 processes of one thread each: a long one's time minus a short one's, per image of all."""
    folder, figures = photos(Path(scratch) / "p", 400, 32), {}
    for count in (1, 2):
        seconds = []
        for kimg in (0.64, 1.92 if quick else 3.2):
            overrides = ["dataset=folder", f"dataset.root={folder}", "dataset.image_size=32", "dataset.batch_size=16", "metrics=none", "diagnosis=off",
                         f"trainer.devices={count}", "trainer.accelerator=cpu", f"total_kimg={kimg}", f"dataset.cache_dir={scratch}/cache",
                         f"hydra.run.dir={scratch}/p{count}_{kimg}", "observer.every_kimg=100", "checkpoints.every_kimg=100"]  # fmt: skip
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "train.py", *overrides],
                cwd=Path(__file__).parent.parent,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            seconds.append(time.perf_counter() - start)
        figures[count] = (seconds[1] - seconds[0]) / (1000 * (1.92 if quick else 3.2) - 640)
    return figures


def memory(scratch: str, quick: bool) -> dict[str, list[float]]:
    """Peak memory (MiB) of each experiment's process after few and after four times as many steps; Linux only."""
    figures: dict[str, list[float]] = {}
    if not Path("/proc/self/status").exists():
        return figures
    # not ru_maxrss: a child's begins at its parent's
    code = """
import pathlib, runpy
try: runpy.run_path('train.py', run_name='__main__')
except SystemExit: pass
peak = pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]
print('PEAK', int(peak) / 1024)
"""
    folder = photos(Path(scratch) / "m", 200, 64)
    for name in EXPERIMENTS[:1] if quick else EXPERIMENTS:
        for steps in (25, 100):
            overrides = [f"experiment={name}", "dataset=folder", f"dataset.root={folder}", "metrics=none", "diagnosis=off", "trainer.accelerator=cpu",
                         f"dataset.cache_dir={scratch}/cache", f"hydra.run.dir={scratch}/run", "dataset.batch_size=16", "dataset.image_size=" + ("28" if "mnist" in name else "64"),
                         "dataset.image_channels=" + ("1" if "mnist" in name else "3"), f"total_kimg={steps * 16 / 1000}", "trainer.max_epochs=-1", "conditional=false"]  # fmt: skip
            out = subprocess.run(
                [sys.executable, "-c", code, *overrides],
                capture_output=True,
                text=True,
                cwd=Path(__file__).parent.parent,
            ).stdout
            figures.setdefault(name, []).append(float(out.rsplit("PEAK", 1)[1]))
    return figures


def plot(path: Path, title: str, figures: dict[int, float], slope: float) -> None:
    """Measured times per image on logarithmic axes beside the expected slope, as SVG text written by hand."""
    import math

    xs, ys = [math.log10(x) for x in figures], [math.log10(y) for y in figures.values()]
    expected = [ys[0] + slope * (x - xs[0]) for x in xs]
    low, high = min(ys + expected), max(ys + expected)

    def place(x: float, y: float) -> str:
        return f"{50 + 330 * (x - xs[0]) / ((xs[-1] - xs[0]) or 1):.0f},{200 - 170 * (y - low) / ((high - low) or 1):.0f}"

    lines = [f'<polyline fill="none" stroke="{colour}" stroke-dasharray="{dash}" points="{" ".join(place(x, y) for x, y in zip(xs, values, strict=True))}"/>'
             for values, colour, dash in ((ys, "#1b6ca8", "none"), (expected, "#999", "4"))]  # fmt: skip
    labels = "".join(
        f'<text x="{place(x, low).split(",")[0]}" y="220" text-anchor="middle">{key:g}</text>'
        for x, key in zip(xs, figures, strict=True)
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 240" font-family="sans-serif" font-size="10">'
        f'<rect width="420" height="240" fill="#fff"/><text x="10" y="15" font-size="12">{title} (dashed: expected slope {slope:g})</text>'
        f'<text x="5" y="35">{10**high * 1e3:.3g} ms</text><text x="5" y="200">{10**low * 1e3:.3g} ms</text>{labels}{"".join(lines)}</svg>\n'
    )


def measure(quick: bool, plots: Path | None) -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as scratch:
        figures = {
            "batch": (of_batch(scratch, quick), 0.0, "ms per image by batch size, 32 px"),
            "resolution": (
                of_resolution(scratch, quick),
                2.0,
                "ms per image by resolution, batch 8",
            ),
            "processes": (
                of_processes(scratch, quick),
                -1.0,
                "ms per image by number of processes, 32 px, one thread each",
            ),
            "images": (of_dataset(scratch, quick), 0.0, "loader: ms per image by size of the set"),
        }
        if plots:
            plots.mkdir(parents=True, exist_ok=True)
            for name, (values, slope, title) in figures.items():
                plot(plots / f"{name}.svg", title, values, slope)
        return {name: values for name, (values, _, _) in figures.items()} | {
            "memory": memory(scratch, quick)
        }


def main() -> None:
    from gan_lightning.run import quieten

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    quieten()
    for name, values in measure(options.quick, options.plots).items():
        for key, value in values.items():
            print(
                f"{name:12} {key!s:>14}  "
                + (
                    "  ".join(f"{v:.0f} MiB" for v in value)
                    if name == "memory"
                    else f"{value * 1e3:.4f} ms per image"
                )
            )


if __name__ == "__main__":
    main()
