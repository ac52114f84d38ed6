"""Who this process is among those that train together, as told by whoever started it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gan_lightning.errors import UserError
from gan_lightning.text import brief


@dataclass(frozen=True)
class Place:
    """This process among others; `world` None: the configuration will tell."""

    kind: str = "alone"  # or torchrun, slurm, nodes (a command on each), child (of Lightning's)
    rank: int = 0
    local_rank: int = 0
    node: int = 0
    world: int | None = 1
    per_node: int | None = None  # processes on this machine
    address: str = ""
    port: int = 0


def find_place(env: Mapping[str, str]) -> Place:
    """By the environment variables; raises UserError where they do not fit together."""
    if "TORCHELASTIC_RUN_ID" in env:
        return Place(
            "torchrun",
            rank=_number(env, "RANK"),
            local_rank=_number(env, "LOCAL_RANK"),
            node=_number(env, "GROUP_RANK"),
            world=_number(env, "WORLD_SIZE"),
            per_node=_number(env, "LOCAL_WORLD_SIZE"),
            address=env["MASTER_ADDR"],
            port=_number(env, "MASTER_PORT"),
        )
    if _slurm_tasks(env) > 1:
        return _slurm_place(env)
    if {"MASTER_ADDR", "MASTER_PORT"} <= env.keys() and {"NODE_RANK", "LOCAL_RANK"} & env.keys():
        kind = "child" if "LOCAL_RANK" in env else "nodes"
        local, node = _number(env, "LOCAL_RANK", "0"), _number(env, "NODE_RANK", "0")
        # until the configuration says how many there are, it matters only which is the first
        rank, port = int(local + node > 0), _number(env, "MASTER_PORT")
        return Place(kind, rank, local, node, None, None, env["MASTER_ADDR"], port)
    return Place()


def _number(env: Mapping[str, str], name: str, default: str = "") -> int:
    value = env.get(name, default)
    if not re.fullmatch(r"\d+", value):
        raise UserError(f"{name}={value} in the environment should be a whole number")
    return int(value)


# -- SLURM -------------------------------------------------------------------------------------


def _step(env: Mapping[str, str]) -> str | None:
    return env.get("SLURM_STEP_ID", env.get("SLURM_STEPID"))


def _slurm_tasks(env: Mapping[str, str]) -> int:
    """Tasks of this SLURM step; 0 outside and in interactive shells."""
    interactive = env.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return 0 if interactive else _number(env, "SLURM_NTASKS", "0")


def _slurm_place(env: Mapping[str, str]) -> Place:
    from lightning.fabric.plugins.environments import SLURMEnvironment

    tasks, nodes = _slurm_tasks(env), _number(env, "SLURM_NNODES", "1")
    if _step(env) is None:
        right = "put srun before python (or ask for --ntasks=1)"
        raise UserError(
            f"SLURM has {tasks} tasks for this job, and this is not one of them: {right}"
        )
    if tasks % nodes:
        uneven = f"SLURM: {tasks} tasks on {nodes} nodes are not the same number on each"
        raise UserError(f"{uneven}: use --ntasks-per-node")
    # Lightning insists on the first and reads the others itself
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(tasks // nodes))
    slurm = SLURMEnvironment(auto_requeue=False)
    ranks = slurm.global_rank(), slurm.local_rank(), slurm.node_rank()
    return Place("slurm", *ranks, tasks, tasks // nodes, slurm.main_address, slurm.main_port)


def slurm_run(env: Mapping[str, str]) -> str | None:
    """This SLURM step's run folder, the same when the job is requeued; None outside of steps."""
    name = f"{env.get('SLURM_JOB_ID', '')}_{_step(env) or ''}"
    known = re.fullmatch(r"[\w.-]+_[\w.-]+", name) and _slurm_tasks(env)
    return f"slurm_{name}" if known else None


def restarted(env: Mapping[str, str]) -> bool:
    """Whether SLURM has requeued this job."""
    return env.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


# -- once the configuration stands -------------------------------------------------------------


def settle(place: Place, trainer: Any, typed: Mapping[str, str], on_gpu: bool) -> tuple[int, int]:
    """Sets and returns the trainer's `devices` and `num_nodes`, as processes were started.

    Raises UserError where `typed`, the command line's values by key, ask for something else, where
    a node lacks what it needs to find the others, and for more processes than cores.
    """
    if place.world and place.per_node:  # torchrun and SLURM have told
        started = {"devices": place.per_node, "num_nodes": place.world // place.per_node}
        for key, number in started.items():
            asked = typed.get(f"trainer.{key}", "auto")
            if asked not in (str(number), "-1", "auto"):
                right = f"{place.kind} has started {number} here, leave trainer.{key} out"
                raise UserError(f"trainer.{key}={asked}: {right}")
            trainer[key] = number
    count, nodes = processes(trainer.devices, on_gpu), trainer.num_nodes
    if not isinstance(nodes, int) or nodes < 1:
        raise UserError(f"trainer.num_nodes={nodes} should be a whole number of at least 1")
    what = "torchrun --nproc_per_node" if place.kind == "torchrun" else "trainer.devices"
    if on_gpu:
        check_gpus(what, trainer.devices, processes(-1, on_gpu))
    elif count > (cores := os.cpu_count() or 1):
        right = f"one for each process: {cores} is the most that is right"
        raise UserError(f"{what}={count}: this machine has {cores} cores, {right}")
    if place.kind in ("alone", "nodes") and nodes > 1:
        _check_nodes(os.environ, nodes)
    return count, nodes


def processes(devices: Any, on_gpu: bool) -> int:
    """How many processes `trainer.devices` means on one machine."""
    if (named := _named(devices)) is None:
        import torch

        return torch.cuda.device_count() if on_gpu else 1
    return named if isinstance(named, int) else len(named)


def check_gpus(what: str, devices: Any, there: int) -> None:
    """Raises UserError where torch sees fewer, or none of such a number."""
    named = _named(devices)
    if named is not None and (named if isinstance(named, int) else max(named) + 1) > there:
        sees = f"{there} GPU{'s' * (there != 1)} here, numbered from 0"
        raise UserError(f"{what}={brief(devices)}: torch sees {sees}")


def _named(devices: Any) -> int | list[int] | None:
    """How many, or which; None: all."""
    if devices in (-1, "-1", "auto"):
        return None
    if isinstance(devices, str):
        return int(devices) if devices.isdigit() else [int(d) for d in devices.split(",") if d]
    return devices if isinstance(devices, int) else list(devices)


def _check_nodes(env: Mapping[str, str], nodes: int) -> None:
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    if missing := [name for name in names if not env.get(name)]:
        raise UserError(
            f"trainer.num_nodes={nodes} needs {', '.join(missing)} in the environment of every"
            f" node's command: the first node's address, a free port there, and 0 to {nodes - 1},"
            " as MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 NODE_RANK=0"
        )
    if _number(env, "NODE_RANK") >= nodes:
        right = f"should be one of 0 to {nodes - 1}, as trainer.num_nodes={nodes}"
        raise UserError(f"NODE_RANK={env['NODE_RANK']} {right}")
