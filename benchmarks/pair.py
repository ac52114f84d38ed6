"""A short run in one process or in two, without folder and loader: what two_as_one.py and scale.py have in common."""

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CONF = str(Path(__file__).parent.parent / "conf")


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


def build(overrides: list[str]) -> tuple[Any, Any]:
    """The configuration and the module of `python train.py <overrides>`."""
    from hydra import compose, initialize_config_dir

    from gan_lightning.recipe import choose
    from gan_lightning.run import build_module

    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("config", overrides)
    choose(cfg, Photos(), on_gpu=False)
    torch.manual_seed(0)
    return cfg, build_module(cfg, {})


def fit(module: Any, batches: Batches, world: int, callbacks: Sequence[Any] = ()) -> None:
    """Trains on each of these batches once."""
    from lightning import Trainer
    from lightning.fabric.plugins.environments import LightningEnvironment

    from gan_lightning.strategy import Together

    how: dict[str, Any] = {"plugins": [LightningEnvironment()]}
    if world > 1:
        how = {"strategy": Together()}
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **how,
    )
    trainer.fit(module, batches)


def split() -> tuple[int, int]:
    """Goes on as two processes, as torchrun would start them; (rank, the other's process id or 0)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = os.fork()
    rank = str(int(other == 0))
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "pair",
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": rank,
        "LOCAL_RANK": rank,
    }
    return int(rank), other


def join(other: int, code: int) -> int:
    """The end of both: process 1 is gone here, process 0 gets the larger exit code."""
    if other == 0:
        os._exit(code)
    return max(code, os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
