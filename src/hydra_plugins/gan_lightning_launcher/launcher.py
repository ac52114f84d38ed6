"""Sweeps in which every job is a process of its own.

Lightning starts the further ranks of a job by repeating the command line, `-m` and all, so that in Hydra's own
launcher several devices and a sweep get into each other's way; a crash would also end the whole sweep.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from gan_lightning.errors import UserError
from gan_lightning.process import train_process


@dataclass
class ProcessConf:
    _target_: str = "hydra_plugins.gan_lightning_launcher.launcher.ProcessLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="process", node=ProcessConf, provider="gan_lightning")


class ProcessLauncher(Launcher):
    """Runs `python train.py <overrides>` per job, one after the other, and reads the objective it leaves behind."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return [self.job(list(overrides), initial_job_idx + k) for k, overrides in enumerate(job_overrides)]

    def job(self, overrides: list[str], number: int) -> JobReturn:
        config = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
        print(f"\njob {number}: {' '.join(overrides)}  ->  {folder}", flush=True)
        code, stopped = train_process(overrides, folder)
        if stopped:
            raise KeyboardInterrupt
        result = JobReturn(overrides=overrides, cfg=config, working_dir=str(folder))
        result.status = JobStatus.FAILED if code else JobStatus.COMPLETED
        if code:
            result.return_value = UserError(f"job {number} ({' '.join(overrides)}) ended with exit code {code}")
        else:
            result.return_value = json.loads((folder / "result.json").read_text())["objective"]
        return result
