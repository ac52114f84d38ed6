"""A training run as a process of its own, as sweeps and `retry.minutes` start them."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gan_lightning import interrupt
from gan_lightning.config import assign


def train_process(
    overrides: Sequence[str], folder: Path, script: str | None = None
) -> tuple[int, bool]:
    """Runs `train.py` with these overrides into `folder`: (exit code, whether somebody asked to stop meanwhile).

    `script`: where train.py is, for a process that was not started by it.

    A signal to this process is handed on to the run, which ends in good order and is waited for; one to the run alone is
    no wish to stop more than that.
    """
    command = [sys.executable, script or sys.argv[0], *overrides, assign("hydra.run.dir", folder)]
    process = subprocess.Popen(command)
    with interrupt.waiting_for(process):
        try:
            code = process.wait()
        except KeyboardInterrupt:  # where the signals are not taken over
            return process.wait(), True
    return code, bool(interrupt.asked())
