"""What looking at a run costs: whole processes with and without, in pairs that take turns.

    python -m benchmarks.watching [--data DIR] [--epochs 4] [--rounds 3] [--overrides KEY=VALUE ...]

`experiment=vanilla_mnist` with scores, diagnosis and snapshots, beside the same with `metrics=none
diagnosis=off`. DIR holds MNIST/raw. A first run, which does not count, fills the cache. Prints the
seconds on the clock and those of the processor, which say more on a busy machine.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
OFF = ["metrics=none", "diagnosis=off"]


def whole(overrides: list[str], folder: str) -> tuple[float, float]:
    """(seconds on the clock, of the processor) of one process."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={folder}/run"]
    used, began = processor(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, processor() - used


def processor() -> float:
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return of_children.ru_utime + of_children.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("GAN_LIGHTNING_DATA") or "data")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", help="kept from an earlier call; a temporary one otherwise")
    parser.add_argument("--overrides", nargs="*", default=["experiment=vanilla_mnist"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        usual = [
            *options.overrides,
            f"dataset.root={Path(options.data).resolve()}",
            f"dataset.cache_dir={options.cache or folder}",
            f"trainer.max_epochs={options.epochs}",
            "trainer.accelerator=cpu",
        ]
        if not options.cache:
            whole(usual, folder)
        pairs = [(whole(usual, folder), whole(usual + OFF, folder)) for _ in range(options.rounds)]
    for k, what in enumerate(("on the clock", "of the processor")):
        looked, alone = (statistics.median(pair[side][k] for pair in pairs) for side in (0, 1))
        more = statistics.median(one[k] / other[k] - 1 for one, other in pairs)
        print(f"seconds {what}: {looked:.1f} with, {alone:.1f} without, {more:+.1%}", flush=True)


if __name__ == "__main__":
    main()
