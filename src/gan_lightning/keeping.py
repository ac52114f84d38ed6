"""When the last checkpoint is written: never two minutes ago."""

import os
import threading
import time
from contextlib import suppress
from typing import Any, Protocol

import torch
from lightning import Callback, Trainer

from gan_lightning import interrupt

USUAL = 60.0  # seconds; with what takes long announced (`next_nimg`) none is two minutes old
TOUCH = 30.0


class Keeper(Protocol):
    """What Guard needs of the callback that writes checkpoints."""

    last: Any
    saved_at: int

    def save(self, trainer: Trainer, module: Any, name: str) -> None: ...


class Guard(Callback):
    """Placed first: has last.ckpt written before what may take long; its date says that it is all.

    Where several processes agree, every second or so, on stopping and on writing.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.agreed = 0  # the signal that asked any of the processes to stop
        self.steps = self.next = 0
        self.ended = 0.0  # when the last step did; 0 within one
        self.shielded = False
        self.over = threading.Event()

    @staticmethod
    def of(trainer: Any) -> "Guard":
        return next(callback for callback in trainer.callbacks if isinstance(callback, Guard))

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.steps = self.next = 0
        self.module, self.clock = module, time.monotonic()
        self.over = threading.Event()
        if trainer.is_global_zero:
            threading.Thread(target=self._touch, daemon=True, name="guard").start()

    def on_train_batch_start(
        self, trainer: Trainer, module: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.steps and not self.shielded:
            # a second signal does not come before the first checkpoint
            self.shielded = interrupt.saving.acquire()
        interrupt.step_begins()
        self.ended, self.began = 0.0, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps += 1
        self.ended = time.monotonic()
        age, step = self.ended - self.clock, self.ended - self.began
        late = age > max(5.0, USUAL - step) or age > 2 and _evaluation_due(trainer, module)
        if trainer.world_size > 1:
            late = self._agree(trainer, late, step)
        if self.steps == 1 or late:
            self.save(trainer, module)
        self._unshield()
        interrupt.step_ended(breakable=trainer.world_size == 1)

    def save(self, trainer: Trainer, module: Any) -> None:
        self.keeper.save(trainer, module, "last.ckpt")
        self.clock = time.monotonic()

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        if self.keeper.saved_at != module.nimg:  # before the last scores, which take a while
            self.save(trainer, module)

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        whole = self.ended > 0 and trainer.world_size == 1
        if whole and isinstance(exception, interrupt.Stopped):
            self.on_train_end(trainer, module)
        self.teardown(trainer, module, "fit")

    def teardown(self, trainer: Trainer, module: Any, stage: str) -> None:
        self._unshield()
        self.over.set()

    def _unshield(self) -> None:
        if self.shielded:
            self.shielded = False
            interrupt.saving.release()

    def _agree(self, trainer: Trainer, late: bool, step: float) -> bool:
        """Whether to write, the same in every process, and `agreed`; asks about once a second."""
        if self.steps < self.next:
            return False
        soon = max(1, min(50, int(1.0 / max(step, 1e-3))))
        facts = torch.tensor([interrupt.asked(), late, -soon], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(facts, torch.distributed.ReduceOp.MAX)
        self.agreed, decided, soon = facts.tolist()
        self.next = self.steps - soon
        interrupt.agree(self.agreed)
        return bool(decided)

    def _touch(self) -> None:
        """A last.ckpt that holds all there is does not grow old."""
        while not self.over.wait(TOUCH):
            if self.ended and self.keeper.saved_at == self.module.nimg:
                with suppress(OSError):
                    os.utime(self.keeper.last)


def _evaluation_due(trainer: Any, module: Any) -> bool:
    """Whether a callback is about to take scores."""
    due = (getattr(callback, "next_nimg", None) for callback in trainer.callbacks)
    return any(isinstance(nimg, int) and module.nimg >= nimg for nimg in due)
