"""What alternating networks, dying processes and SLURM need of Lightning."""

import os
import re
import shutil
import signal
import subprocess
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
)
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from gan_lightning import interrupt
from gan_lightning.ranks import Place, slurm_run


class Launcher(_SubprocessScriptLauncher):
    """Lightning's launcher without its observer, which kills this process when a child dies.

    `together.Company` looks after the children and says which one it was.
    """

    def launch(
        self, function: Any, *args: Any, trainer: Trainer | None = None, **kwargs: Any
    ) -> Any:
        self.cluster_environment.validate_settings(
            num_devices=self.num_processes, num_nodes=self.num_nodes
        )
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


class Together(DDPStrategy):
    """Distributed data parallel for networks that take turns in the backward passes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(find_unused_parameters=True, **settings)

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)


def environment(place: Place) -> list[ClusterEnvironment]:
    """Where Lightning's processes come from, if its own detection would not do."""
    if place.kind == "slurm":
        # its own requeueing saves inside a step, from within a signal handler
        return [SLURMEnvironment(auto_requeue=False)]
    if place.kind in ("alone", "nodes", "child") and SLURMEnvironment.detect():
        return [LightningEnvironment()]  # one task of SLURM's: Lightning starts the others itself
    return []


def must_requeue() -> bool:
    """Whether SLURM's signal (`--signal=SIGUSR1@120`) has stopped this run."""
    return interrupt.asked() == signal.SIGUSR1 and slurm_run(os.environ) is not None


def requeue() -> str:
    """Puts this SLURM job back into the queue; says so, or why it is not there."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    command = shutil.which("scontrol")
    if not re.fullmatch(r"\d[\d_-]*", job) or command is None:
        why = "its number is odd" if command else "there is no scontrol here"
        return f"job {job or '(unknown)'} is not requeued: {why}"
    done = subprocess.run([command, "requeue", job], capture_output=True, text=True)
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"scontrol ended with {done.returncode}"
        return f"job {job} is not requeued: {why}"
    return f"job {job} is back in SLURM's queue and will go on from the last checkpoint"
