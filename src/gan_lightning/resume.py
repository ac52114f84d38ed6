"""Going on from a checkpoint: what a run takes over of it, value by value."""

import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor

from gan_lightning.config import lookup
from gan_lightning.errors import UserError
from gan_lightning.files import read_checkpoint, same_kind, untrusted, write_whole
from gan_lightning.gan import GAN
from gan_lightning.patterns import NoMatch, match
from gan_lightning.text import brief, printable

COUNT = {"ready": int, "completed": int, "started?": int, "processed?": int}
PROGRESS = {"total": COUNT, "current": COUNT}
BATCHES = PROGRESS | {"is_last_batch": bool}
STREAM = {"epoch": int, "position": int}
STEPS = {"optimizer": {"step": PROGRESS, "zero_grad": PROGRESS}}
FIT_LOOP = {  # Lightning sets attributes by these names
    "state_dict": {"combined_loader?": [STREAM]},
    "epoch_loop.state_dict": {"_batches_that_stepped": int},
    "epoch_loop.batch_progress": BATCHES,
    "epoch_loop.scheduler_progress": PROGRESS,
    "epoch_loop.automatic_optimization.state_dict": {},
    "epoch_loop.automatic_optimization.optim_progress": STEPS,
    "epoch_loop.manual_optimization.state_dict": {},
    "epoch_loop.manual_optimization.optim_step_progress": PROGRESS,
    "epoch_loop.val_loop.state_dict": {},
    "epoch_loop.val_loop.batch_progress": BATCHES,
    "epoch_progress": PROGRESS,
}
SETTING = (bool, float, str, None, [float])
OPTIMIZER = {
    "state": {int: {str: (Tensor, float)}},
    "param_groups": [{"params": [int], str: SETTING}],
}
RANDOM = {
    "python": [(int, [int], float, None)],
    "numpy": [(str, [int], float)],
    "torch": Tensor,
    "cuda": (Tensor, None),
    "buffers?": {str: Tensor},
}
STATE = {
    "nimg": int,
    "step": int,
    "epoch": int,
    "global_step": int,
    "loops": {"fit_loop": FIT_LOOP},
    "optimizer_states": [OPTIMIZER],
    "random": [RANDOM],
    "callbacks": {str: dict},  # each callback matches its own
    "ImageData?": (STREAM, {}),
}
SAME = (  # of the configuration, in the file and now
    "dataset.image_size",
    "dataset.image_channels",
    "latent_dim",
    "num_classes",
    "network",
    "optimizer_g._target_",
    "optimizer_d._target_",
)


def read_training_state(path: str | Path) -> dict[str, Any]:
    """A checkpoint to go on from: only what is written here, each value of its type. UserError."""
    checkpoint = read_checkpoint(path)
    if not {"nimg", "step", "random", "optimizer_states"} <= checkpoint.keys():
        right = "give a checkpoint that a run wrote"
        raise UserError(f"ckpt_path={path} holds no training state: {right}")
    with untrusted(path):
        names = {name.removesuffix("?") for name in STATE}
        found = {name: value for name, value in checkpoint.items() if name in names}
        loops = match(found.get("loops"), {"fit_loop": dict, str: dict}, "loops")
        found["loops"] = {"fit_loop": loops["fit_loop"]}
        state = match(found, STATE, "the training state")
        loaders = state["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
        streams = [state.get("ImageData", {}), *loaders]
        counts = [state["nimg"], state["step"], *(n for one in streams for n in one.values())]
        if len(loaders) > 1 or min(counts) < 0:
            raise NoMatch("nimg, step and the place in the data should be 0 or more")
    state |= {key: checkpoint[key] for key in ("config", "state_dict")}
    # whatever the file says: Lightning would migrate it to the installed version
    return state | {"lr_schedulers": [], "pytorch-lightning_version": lightning.__version__}


def must_fit(state: dict[str, Any], config: dict[str, Any], path: str) -> None:
    """Raises UserError, naming the key to set, where `config` cannot go on from `state`."""
    total, seen, epochs = (
        config["total_kimg"],
        state["nimg"] / 1000,
        config["trainer"]["max_epochs"],
    )
    if total and seen >= total:
        raise UserError(
            f"total_kimg={total:g} is already reached: {path} has seen {seen:g} thousand images; "
            f"raise it, as total_kimg={2 * total:g}"
        )
    done = state["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"]
    if 0 < epochs <= done:
        reached = f"{path} has seen {done} epochs; raise it"
        raise UserError(f"trainer.max_epochs={epochs} is already reached: {reached}")
    for key in SAME:
        was = lookup(state["config"], key)
        if was == lookup(config, key):
            continue
        right = f"add {printable(shlex.quote(f'{key}={brief(was)}'))} to the command"
        if key == "network":
            right = "choose the same network and its settings"
        if key == "num_classes":
            conditional = str(was is not None).lower()
            right = f"add conditional={conditional} to the command and take the same data"
        raise UserError(f"ckpt_path={path} was trained with another {key}: {right}")


def must_load(state: dict[str, Any], module: GAN, path: str) -> None:
    """Raises UserError where weights or optimisers' values are not this module's."""
    with untrusted(path):
        loaded = state["state_dict"]
        module.adapt_weights(loaded)
        own = module.state_dict()
        if odd := own.keys() ^ loaded.keys():
            differ = "its weights are not those of the networks it names"
            raise NoMatch(f"{differ} ({ascii(min(odd))[:80]})")
        for name, weight in loaded.items():
            same_kind(weight, own[name], f"weight {name}")
        for part in state["random"]:
            _check_random(part)
            for name, value in part.get("buffers", {}).items():
                if name not in own:
                    raise NoMatch(f"a process's buffer {ascii(name)[:80]} is none of this run's")
                same_kind(value, own[name], f"buffer {name}")
        parts, saved = module.trained(), state["optimizer_states"]
        if len(saved) not in (2, 3):
            raise NoMatch("it should hold the states of two or three optimisers")
        # the aid's heads may be newly on, and begin anew, or off
        for one, (network, make) in zip(saved, parts, strict=False):
            _check_optimizer(one, list(network.parameters()), make)


def _check_random(state: dict[str, Any]) -> None:
    """Tries these states; NumPy alone would take a position that lies outside of its words."""
    if state["numpy"][2] not in range(625):
        raise NoMatch("NumPy's random state is beyond its end")
    np.random.RandomState().set_state(tuple(state["numpy"]))
    random.Random().setstate(state["python"])
    torch.Generator().set_state(state["torch"])


def _check_optimizer(saved: dict[str, Any], weights: list[Any], make: Callable[[Any], Any]) -> None:
    """One group over all weights; of each the values that this optimiser keeps."""
    example = torch.nn.Parameter(torch.zeros(2))
    example.grad = torch.zeros(2)
    optimizer = make([example])
    optimizer.step()
    kept, (settings,) = optimizer.state[example], optimizer.param_groups
    groups = saved["param_groups"]
    same = [group.keys() for group in groups] == [settings.keys()]
    same &= [group["params"] for group in groups] == [list(range(len(weights)))]
    same &= all(number in range(len(weights)) for number in saved["state"])
    if not same or any(values.keys() != kept.keys() for values in saved["state"].values()):
        raise NoMatch("an optimiser's state is not that of these networks")
    for number, values in saved["state"].items():
        for name, value in values.items():
            if isinstance(kept[name], Tensor):
                like = weights[number] if kept[name].shape == example.shape else kept[name]
                same_kind(value, like, f"the optimiser's {name}")


class CheckpointFiles(CheckpointIO):
    """Checkpoint files for Lightning: whole or not at all, and checked."""

    def __init__(self, read: Callable[[Any], dict[str, Any]] = read_training_state) -> None:
        self.read = read

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        write_whole(path, lambda file: torch.save(checkpoint, file), durable=True)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return self.read(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
