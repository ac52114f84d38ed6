"""Images a second by one process and by two, one thread each, in turns in the same run; and what a step sends.

    python -m benchmarks.scale [--rounds N] [--steps N]

Every round measures each network with one process and with two of the same batch each; printed are the medians and, as the
machine may have other work, the smallest and largest of the rounds and the machine's load.
"""

import argparse
import os
import statistics
import sys
import time
from typing import Any

import torch
from lightning import Callback

from benchmarks.pair import Batches, build, fit, join, split

CASES: dict[str, tuple[int, list[str]]] = {
    "mlp, 28 px": (
        28,
        ["network=mlp", "dataset.image_channels=1", "dataset.batch_size=64", "augment=none"],
    ),
    "dcgan, 32 px": (32, ["dataset.batch_size=16"]),
    "dcgan, 64 px": (64, ["dataset.batch_size=16"]),
}
COMMON = ["dataset=egg", "trainer.accelerator=cpu", "trainer.precision=32-true", "total_kimg=1000"]


class Clock(Callback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.times.append(time.perf_counter())


def seconds_per_step(name: str, world: int, steps: int) -> tuple[float, int, int]:
    """(seconds a step, images of all processes in it, weights of both networks); the first five steps do not count."""
    size, overrides = CASES[name]
    cfg, module = build([*COMMON, f"dataset.image_size={size}", *overrides])
    clock, batch = Clock(), cfg.dataset.batch_size
    images = torch.rand(1, batch, cfg.dataset.image_channels, size, size)
    fit(module, Batches(images.expand(steps + 5, -1, -1, -1, -1), 0, 1), world, [clock])
    gaps = [b - a for a, b in zip(clock.times[4:], clock.times[5:], strict=False)]
    weights = sum(
        p.numel() for part in (module.generator, module.discriminator) for p in part.parameters()
    )
    return statistics.fmean(gaps), batch * world, weights


def main() -> int:
    from gan_lightning.run import quieten

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    quieten()
    torch.set_num_threads(1)
    rank, other = split()
    for name in CASES:
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(options.rounds):
            for world in (1, 2) if rank == 0 else (2,):  # process 1 waits meanwhile
                seconds, images, weights = seconds_per_step(name, world, options.steps)
                speeds[world].append(images / seconds)
        if rank == 0:
            one, two = (
                f"{statistics.median(v):.0f} ({min(v):.0f} to {max(v):.0f})"
                for v in speeds.values()
            )
            ratio = statistics.median(b / a for a, b in zip(speeds[1], speeds[2], strict=True))
            print(
                f"{name}: images a second 1 process {one}, 2 processes {two}, median ratio of a round {ratio:.2f};\n"
                f"  {weights:,} weights, {8 * weights / 1e6:.1f} MB reduced a step; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    return join(other, 0)


if __name__ == "__main__":
    sys.exit(main())
