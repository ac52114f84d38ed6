"""What looking at a run costs: whole processes with and without, and the note's loop, taking turns.

    python -m benchmarks.watching [--data DIR] [--kimg 240] [--rounds 3] [--overrides KEY=VALUE ...]

`experiment=vanilla_mnist` with scores, diagnosis and snapshots, beside the same with `metrics=none
diagnosis=off`, and beside the note's loop, which does nothing but train (benchmarks/note.py; left out
with other overrides). DIR holds MNIST/raw; four epochs are 240 kimg. A first run, which does not
count, fills the cache. Prints the seconds on the clock and those of the processor, which say more
on a busy machine.
"""

import argparse
import operator
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
NOTE = ["experiment=vanilla_mnist"]


def whole(*arguments: str) -> tuple[float, float]:
    """(seconds on the clock, of the processor) of one process of Python."""
    used, began = processor(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, processor() - used


def processor() -> float:
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return of_children.ru_utime + of_children.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("GAN_LIGHTNING_DATA") or "data")
    parser.add_argument("--kimg", type=float, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", help="kept from an earlier call; a temporary one otherwise")
    parser.add_argument("--overrides", nargs="*", default=NOTE)
    options = parser.parse_args()
    data = str(Path(options.data).resolve())
    with tempfile.TemporaryDirectory() as folder:
        ours = [
            "train.py",
            *options.overrides,
            f"dataset.root={data}",
            f"dataset.cache_dir={options.cache or folder}",
            f"hydra.run.dir={folder}/run",
            f"total_kimg={options.kimg}",
            "trainer.accelerator=cpu",
        ]
        processes = {"with": ours, "without": [*ours, *OFF]}
        if options.overrides == NOTE:
            images = str(round(1000 * options.kimg))
            processes["note"] = ["-m", "benchmarks.note", "--data", data, "--images", images]
        if not options.cache:
            whole(*ours)
        turns = [
            {name: whole(*one) for name, one in processes.items()} for _ in range(options.rounds)
        ]
    for k, what in enumerate(("on the clock", "of the processor")):
        seconds = {name: [turn[name][k] for turn in turns] for name in processes}
        for other in (name for name in processes if name != "with"):
            ratio = statistics.median(map(operator.truediv, seconds["with"], seconds[other]))
            times = (f"{statistics.median(seconds[name]):.1f} {name}" for name in ("with", other))
            print(f"seconds {what}: {', '.join(times)}, ratio {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
