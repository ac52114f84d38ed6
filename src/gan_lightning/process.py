"""A training run as a process of its own, as sweeps and `retry.minutes` start them."""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_lightning.config import assign


def train_process(overrides: Sequence[str], folder: Path, script: str | None = None) -> tuple[int, bool]:
    """Runs `train.py` with these overrides into `folder`: (exit code, whether somebody asked to stop meanwhile).

    `script`: where train.py is, for a process that was not started by it.

    Ctrl-C reaches the run by itself and SIGTERM is handed on to it: either way it ends in good order and is waited for.
    """
    process = subprocess.Popen([sys.executable, script or sys.argv[0], *overrides, assign("hydra.run.dir", folder)])
    stopped = False

    def hand_on(number: int, frame: Any) -> None:
        nonlocal stopped
        stopped = True
        process.send_signal(number)

    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, hand_on) if main_thread else None
    try:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            stopped = True
            code = process.wait()
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    return code, stopped
