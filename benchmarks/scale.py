"""Images a second by one process and by two, one thread each, in turns in the same run; and what a step sends.

    python -m benchmarks.scale [--rounds N] [--steps N]

Every round measures each network with one process and with two of the same batch each; printed are the medians and, as the
machine may have other work, the smallest and largest of the rounds and the machine's load.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from benchmarks.two_as_one import Batches, Photos

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


def seconds_per_step(name: str, rank: int, world: int, steps: int) -> tuple[float, int, int]:
    """(seconds a step, images of all processes in it, weights of both networks); the first five steps do not count."""
    from hydra import compose, initialize_config_dir
    from lightning import Trainer
    from lightning.fabric.plugins.environments import LightningEnvironment

    from gan_lightning.recipe import choose
    from gan_lightning.run import build_module
    from gan_lightning.strategy import Together

    size, overrides = CASES[name]
    with initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"):
        cfg = compose("config", [*COMMON, f"dataset.image_size={size}", *overrides])
    choose(cfg, Photos(), on_gpu=False)
    torch.manual_seed(0)
    module, clock, batch = build_module(cfg, {}), Clock(), cfg.dataset.batch_size
    images = torch.rand(1, batch, cfg.dataset.image_channels, size, size).expand(
        steps + 5, -1, -1, -1, -1
    )
    several: dict[str, Any] = {"devices": world, "strategy": Together()}
    alone: dict[str, Any] = {"devices": 1, "plugins": [LightningEnvironment()]}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[clock],
        enable_model_summary=False,
        use_distributed_sampler=False,
        **(several if world > 1 else alone),
    )
    trainer.fit(module, Batches(images, 0, 1))
    gaps = [b - a for a, b in zip(clock.times[4:], clock.times[5:], strict=False)]
    weights = sum(
        p.numel() for part in (module.generator, module.discriminator) for p in part.parameters()
    )
    return statistics.fmean(gaps), batch * world, weights


def start_other() -> subprocess.Popen[bytes]:
    """This becomes process 0 of 2 as torchrun would start it, and starts process 1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "scale",
        "GROUP_RANK": "0",
    }
    os.environ |= common | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
    }
    other = os.environ | {"RANK": "1", "LOCAL_RANK": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.scale", *sys.argv[1:]], env=other
    )


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
    rank = int(os.environ.get("RANK", 0))
    process = start_other() if "RANK" not in os.environ else None
    for name in CASES:
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(options.rounds):
            for world in (1, 2) if rank == 0 else (2,):  # process 1 waits meanwhile
                seconds, images, weights = seconds_per_step(name, rank, world, options.steps)
                speeds[world].append(images / seconds)
        if rank == 0:
            shown = [
                f"{statistics.median(v):.0f} ({min(v):.0f} to {max(v):.0f})"
                for v in speeds.values()
            ]
            ratio = statistics.median(b / a for a, b in zip(speeds[1], speeds[2], strict=True))
            print(
                f"{name}: images a second 1 process {shown[0]}, 2 processes {shown[1]}, median ratio of a round {ratio:.2f};"
            )
            print(
                f"  {weights:,} weights, {8 * weights / 1e6:.1f} MB reduced a step; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    return process.wait() if process else 0


if __name__ == "__main__":
    sys.exit(main())
