"""Sweeps in which every job is a process of its own, here or on a cluster.

In Hydra's own launcher a crash would end the sweep, and Lightning starts a job's further ranks by
repeating the command line, `-m` and all.
"""

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from gan_lightning import sweep
from gan_lightning.errors import UserError
from gan_lightning.process import train_process
from gan_lightning.text import printable


@dataclass
class ProcessConf:
    _target_: str = "hydra_plugins.gan_lightning_launcher.launcher.ProcessLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="process", node=ProcessConf, provider="gan_lightning"
)


def run_job(
    config: DictConfig, overrides: Sequence[str], number: int, script: str | None = None
) -> tuple[JobReturn, bool]:
    """One job of a sweep as `python train.py <overrides>`: what Hydra wants to know, and whether to
    stop.

    A run that diverges is the worst there is and did not fail: a search learns from it, and a grid
    goes on.
    """
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
    told, began = sweep.job_overrides(overrides), time.monotonic()
    print(f"\njob {number}: {printable(' '.join(told))}  ->  {printable(folder)}", flush=True)
    code, stopped = train_process(told, folder, script)
    sweep.record(folder, told, code, began)
    status, value = JobStatus.COMPLETED, None
    try:
        value = sweep.objective_of(folder, code)
        if math.isinf(value):
            print(f"job {number} has diverged and counts as the worst", flush=True)
    except UserError as error:
        if code:  # without scores a grid is a sweep as well; a search says what it lacks
            status, value = JobStatus.FAILED, UserError(f"job {number} ({' '.join(told)}): {error}")
    result = JobReturn(list(overrides), config, working_dir=str(folder), status=status)
    result.return_value = value
    return result, stopped


class ProcessLauncher(Launcher):
    """Runs `python train.py <overrides>` per job, one after the other."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        sweep.one_process()
        self.loader, self.config = hydra_context.config_loader, config
        written = Path(config.hydra.sweep.dir) / "multirun.yaml"
        if written.is_symlink():  # Hydra would write through it
            written.unlink()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        results = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.loader.load_sweep_config(self.config, list(overrides))
            result, stopped = run_job(config, overrides, number)
            results.append(result)
            if stopped:
                raise KeyboardInterrupt
        return results


try:
    from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher, SlurmLauncher
except ImportError:  # the extra `cluster` is not installed
    pass
else:

    class OwnProcess:
        """hydra-submitit-launcher's, but the job is a process of its own, which can die and
        start others."""

        def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
            sweep.one_process()
            self.script, self.folder = os.path.abspath(sys.argv[0]), os.getcwd()
            # the function is not needed, and what it refers to might not travel
            super().setup(hydra_context=hydra_context, task_function=None, config=config)  # type: ignore[misc]

        def __call__(
            self, overrides: list[str], dir_key: str, number: int, job_id: str, state: Any
        ) -> JobReturn:
            from hydra.core.singleton import Singleton
            from hydra.core.utils import setup_globals

            Singleton.set_state(state)
            setup_globals()
            os.chdir(self.folder)
            assert self.hydra_context is not None  # type: ignore[attr-defined]
            config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)  # type: ignore[attr-defined]
            return run_job(config, overrides, number, self.script)[0]

    class ProcessLocalLauncher(OwnProcess, LocalLauncher):  # type: ignore[misc]
        """`hydra/launcher=cluster_local`: all jobs at once on this machine."""

    class ProcessSlurmLauncher(OwnProcess, SlurmLauncher):  # type: ignore[misc]
        """`hydra/launcher=cluster`: every job a job of SLURM's."""

    @dataclass
    class ProcessLocalConf(LocalQueueConf):  # type: ignore[misc]
        _target_: str = "hydra_plugins.gan_lightning_launcher.launcher.ProcessLocalLauncher"

    @dataclass
    class ProcessSlurmConf(SlurmQueueConf):  # type: ignore[misc]
        _target_: str = "hydra_plugins.gan_lightning_launcher.launcher.ProcessSlurmLauncher"

    for _name, _conf in (("cluster_local", ProcessLocalConf), ("cluster", ProcessSlurmConf)):
        ConfigStore.instance().store(
            group="hydra/launcher", name=_name, node=_conf, provider="gan_lightning"
        )
