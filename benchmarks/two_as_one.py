"""Whether steps of two processes with 32 images each are the steps of one with 64, for every network without batch norm.

    python -m benchmarks.two_as_one [--only NAME ...]

Each case takes three steps by plain gradient descent (Adam would turn a rounding error beside 0 into a whole step) with the
lazy penalty in the first and the third. Both sides get the same images, noise and augmentation: what is drawn for a batch
is drawn for the whole one, of which process r takes every second from r on. Printed is the largest difference of any
weight, ADA's strength and LeCam's averages included, beyond four units of rounding of the largest weight in its tensor, as
a share of the largest change that the steps made to that tensor; exit code 1 beyond 1e-3.
"""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LIMIT = 1e-3
STEPS, BATCH = 3, 64
COMMON = [
    "dataset=egg",
    "dataset.image_size=32",
    "optimizer_g._target_=torch.optim.SGD",
    "optimizer_d._target_=torch.optim.SGD",
    "lr=0.05",
    "latent_dim=16",
    "loss.penalty_every=2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "total_kimg=0.192",
]
SMALL = [
    f"network.{side}.{key}=16"
    for side in ("generator", "discriminator")
    for key in ("channels", "min_channels")
]
DCGAN = [*SMALL, "network.generator.norm=none"]
CASES: dict[str, list[str]] = {
    "mlp": ["network=mlp", "network.discriminator.dropout=0", "augment=none", "loss.gamma=0.1"],
    "dcgan, ADA, LeCam": [*DCGAN, "augment=ada", "loss.gamma=0.5", "loss.lecam_weight=0.1"],
    "dcgan, pairs": [*DCGAN, "loss=rpgan", "augment=ada"],
    "dcgan, gradient penalty": [*DCGAN, "loss=wgan_gp", "augment=ada", "n_critic=2"],
    "dcgan, hinge": [*DCGAN, "loss=hinge", "loss.gamma=0", "grad_clip=0.5", "reuse_fakes=false"],
    "dcgan, least squares, one pass": [
        *DCGAN,
        "loss=lsgan",
        "loss.gamma=0",
        "network.discriminator.minibatch_stddev=0",
    ],
    "dcgan, group norm": [
        *SMALL,
        "network.generator.norm=group",
        "network.discriminator.norm=group",
        "loss.gamma=0.1",
    ],
    "dcgan, spectral norm": [
        *SMALL,
        "network.generator.norm=spectral",
        "network.discriminator.norm=spectral",
        "loss.gamma=0",
    ],
    "dcgan, steered by noise, skips": [
        *SMALL,
        "network.generator.norm=group",
        "network.generator.depth=2",
    ],
    "dcgan, aid": [*DCGAN, "aid=sliced", "aid.side=32", "loss.gamma=0.1"],
    "resnet, pairs": ["network=resnet", *SMALL, "loss=rpgan", "augment=ada"],
}


class Shared(TorchFunctionMode):
    """What is drawn at random for a batch, drawn for the batches of all processes together."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__()
        self.rank, self.world, self.draw = rank, world, torch.Generator().manual_seed(5)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.rand, torch.randn) and "generator" not in kwargs:
            return func(args[0] * self.world, *args[1:], generator=self.draw, **kwargs)[
                self.rank :: self.world
            ]
        if func is torch.Tensor.uniform_:
            size = (len(args[0]) * self.world, *args[0].shape[1:])
            return args[0].copy_(
                torch.empty(size).uniform_(*args[1:], generator=self.draw)[self.rank :: self.world]
            )
        return func(*args, **kwargs)


class Batches:
    """What Lightning takes for one loader; of a list it would take every item for one."""

    def __init__(self, batches: Tensor, rank: int, world: int) -> None:
        self.batches = [(batch[rank::world].contiguous(), None) for batch in batches]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, None]]:
        return iter(self.batches)


class Photos:
    def __len__(self) -> int:
        return 6000

    def typical_size(self) -> tuple[int, int]:
        return 32, 32


def states(
    overrides: list[str], rank: int, world: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and buffers before and after the steps."""
    from hydra import compose, initialize_config_dir
    from lightning import Trainer
    from lightning.fabric.plugins.environments import LightningEnvironment

    from gan_lightning.recipe import choose
    from gan_lightning.run import build_module
    from gan_lightning.strategy import Together

    with initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"):
        cfg = compose("config", [*COMMON, *overrides])
    choose(cfg, Photos(), on_gpu=False)
    torch.manual_seed(0)
    module = build_module(cfg, {})
    if module.aid is not None:
        photos = torch.rand(96, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
        module.aid.fit([(photos, None)])
    images = torch.rand(STEPS, BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = {name: value.clone() for name, value in module.state_dict().items()}
    several: dict[str, Any] = {"devices": world, "strategy": Together()}
    alone: dict[str, Any] = {"devices": 1, "plugins": [LightningEnvironment()]}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **(several if world > 1 else alone),
    )
    with Shared(rank, world):
        trainer.fit(module, Batches(images, rank, world))
    return before, {name: value.clone() for name, value in module.state_dict().items()}


def difference(before: dict[str, Tensor], one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """The largest of any tensor, as the module says."""
    worst = 0.0
    for name, value in one.items():
        if name.startswith("aid."):  # the same latest images in another order
            continue
        moved = float((value.float() - before[name].float()).abs().max())
        off = float((value.float() - two[name].float()).abs().max())
        rounding = (
            4 * torch.finfo(torch.float32).eps * float(value.float().abs().max())
        )  # of the weight itself
        worst = max(worst, (off - rounding) / max(moved, 1e-6))
    return worst


def main() -> int:
    from gan_lightning.run import quieten

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=CASES, metavar="NAME")
    names = parser.parse_args().only or list(CASES)
    quieten()
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", 0))
    if "RANK" not in os.environ:
        # by itself first, while there is no process group; then it starts the other process
        alone = {name: states(CASES[name], 0, 1) for name in names}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "test",
            "GROUP_RANK": "0",
        }
        os.environ |= common | {
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "RANK": "0",
            "LOCAL_RANK": "0",
        }
        other = os.environ | {"RANK": "1", "LOCAL_RANK": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.two_as_one", *sys.argv[1:]], env=other
        )
    found = {}
    for name in names:
        _, after = states(CASES[name], rank, 2)
        if rank == 0:
            found[name] = difference(*alone[name], after)
            print(f"{found[name]:.1e}  {name}", flush=True)
    return process.wait() or int(max(found.values()) > LIMIT) if rank == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
