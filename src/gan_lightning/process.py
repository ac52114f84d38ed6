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
    """Runs `train.py`, or `script`, into `folder`: its exit code, and whether to stop.

    A signal is handed on to the run, which is waited for; one to the run alone stops only that.
    """
    command = [sys.executable, script or sys.argv[0], *overrides, assign("hydra.run.dir", folder)]
    process = subprocess.Popen(command)
    with interrupt.waiting_for(process):
        try:
            code = process.wait()
        except KeyboardInterrupt:  # where the signals are not taken over
            return process.wait(), True
    return code, bool(interrupt.asked())
