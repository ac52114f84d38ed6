"""From command to first step, and --help: seconds of fresh processes, and what the time goes into.

python -m benchmarks.start [--data DIR] [--rounds N]
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMALL = [
    "trainer.accelerator=cpu",
    "metrics=none",
    "diagnosis=off",
    "console.every_steps=1",
    "trainer.limit_train_batches=1",
    "trainer.max_epochs=1",
]


def seconds(command: list[str], until: str | None = None, **options) -> float:  # type: ignore[no-untyped-def]
    """Until the process ends, or prints a line that matches."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, **options
    )
    assert process.stdout is not None
    spent = None
    for line in process.stdout:
        if until and spent is None and re.search(until, line):
            spent = time.perf_counter() - start
    process.wait()
    return spent if spent is not None else time.perf_counter() - start


def imports() -> dict[str, float]:
    """Seconds each heavy package adds, in the order in which a run loads them."""
    code = "import time\nfor name in ('hydra', 'torch', 'torchvision', 'lightning', 'gan_lightning.run'):\n"
    code += "    t = time.perf_counter(); __import__(name); print(name, time.perf_counter() - t)"
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    ).stdout.splitlines()
    return {name: float(spent) for name, spent in (line.split() for line in lines)}


def measure(data: Path | None, rounds: int) -> dict[str, float]:
    figures: dict[str, list[float]] = {}
    dataset = [f"dataset.root={data}"] if data else ["dataset=egg"]
    with tempfile.TemporaryDirectory() as scratch:
        run = [
            sys.executable,
            "train.py",
            *dataset,
            *SMALL,
            f"hydra.run.dir={scratch}/run",
            f"dataset.cache_dir={scratch}/cache",
        ]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        seconds(run, env=environment)  # builds the cache
        for _ in range(rounds):
            for name, spent in {
                "python train.py --help": seconds([sys.executable, "train.py", "--help"]),
                "gan-lightning --help": seconds([sys.executable, "-m", "gan_lightning", "--help"]),
                "command to first step": seconds(run, "d_loss", env=environment),
                **{f"  import {name}": spent for name, spent in imports().items()},
            }.items():
                figures.setdefault(name, []).append(spent)
    return {name: statistics.median(values) for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with MNIST/raw; rendered eggs otherwise")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name, spent in measure(options.data, options.rounds).items():
        print(f"{name:30} {spent:6.2f} s")


if __name__ == "__main__":
    main()
