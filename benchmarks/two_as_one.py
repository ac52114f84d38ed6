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
import sys
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks.pair import Batches, build, fit, join, split

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


def states(
    overrides: list[str], rank: int, world: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and buffers before and after the steps."""
    _, module = build([*COMMON, *overrides])
    if module.aid is not None:
        photos = torch.rand(96, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
        module.aid.fit([(photos, None)])
    images = torch.rand(STEPS, BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with Shared(rank, world):
        fit(module, Batches(images, rank, world), world)
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


def compare(names: list[str]) -> int:
    """Prints the difference of each case; the exit code."""
    from gan_lightning.run import quieten

    quieten()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU once looked at does not survive the fork
    torch.set_num_threads(1)
    # by itself first, while there is no process group
    alone = {name: states(CASES[name], 0, 1) for name in names}
    rank, other = split()
    worst = 0.0
    for name in names:
        before, one = alone[name]
        found = difference(before, one, states(CASES[name], rank, 2)[1])
        worst = max(worst, found)
        if rank == 0:
            print(f"{found:.1e}  {name}", flush=True)
    return join(other, int(worst > LIMIT))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=CASES, metavar="NAME")
    return compare(parser.parse_args().only or list(CASES))


if __name__ == "__main__":
    sys.exit(main())
