"""Keeps RUN_DIR/report.html fresh while training goes on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning import Callback

from gan_lightning import record
from gan_lightning.errors import first_line
from gan_lightning.observer import Observer
from gan_lightning.report.page import write_report

EVERY = 60.0  # seconds between two pages, at least
PART = 100  # times what a page took: so that pages take a hundredth of a run at most


class LivePage(Callback):
    """A page costs part of the observer's budget, and never ends a run."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.due = 0.0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.due = time.monotonic() + EVERY

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.is_global_zero and time.monotonic() >= self.due:
            began = time.monotonic()
            with self.observer.budget.spending(module.device), suppress(Exception):
                write_report(Path(trainer.default_root_dir))
            self.due = time.monotonic() + max(EVERY, PART * (time.monotonic() - began))


@contextmanager
def recorded(
    module: Any, run_dir: Path, overrides: list[str], device: str, again: bool
) -> Iterator[None]:
    """Within, a run trains: run.json says what it was, and the page is written however it ends."""
    record.begin(run_dir, overrides, device, again)
    began = time.monotonic()

    def end() -> None:
        record.end(run_dir, module.nimg, time.monotonic() - began)
        write_report(run_dir)

    try:
        yield
    except BaseException:
        with suppress(Exception):  # what ended the run is what has to be said
            end()
        raise
    try:
        end()
    except Exception as problem:
        print(f"report.html: not written: {first_line(problem)}", flush=True)
