"""What happens around training: the console, checkpoints, stopping in good order."""

import hashlib
import math
import random
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from gan_lightning import interrupt
from gan_lightning.diagnosis.signals import all_finite
from gan_lightning.errors import UserError
from gan_lightning.folder import moment_name
from gan_lightning.keeping import Guard

USUAL = 200  # steps between two lines
SOON = 20  # steps after which the run says how long it takes
BRIEF = 5.0  # seconds that need no announcement
NARROW = 60  # columns; a terminal with fewer shows no time left


class Cadence:
    """Due once in every `every_kimg` thousand images, wherever the steps fall; 0 is never."""

    def __init__(self, every_kimg: float) -> None:
        self.every = every_kimg * 1000
        self.done = 0

    def due(self, nimg: int) -> bool:
        turn = int(nimg / self.every) if self.every else 0
        due, self.done = turn > self.done, turn
        return due


class ConsoleLine(Callback):
    """How far a run is: a bar where there is a terminal, else every so many steps a line.

    `every_steps`: lines with the losses and D's probabilities; null: 200 without a bar, none beside
    it; 0: none.
    """

    def __init__(self, every_steps: int | None, bar: bool = True) -> None:
        self.every_steps, self.bar = every_steps, bar
        self.progress: Progress | None = None

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.start = (time.monotonic(), module.nimg)
        self.warm = False
        console = Console()
        self.print = console.print
        bar = self.bar and console.is_terminal
        self.every = (0 if bar else USUAL) if self.every_steps is None else self.every_steps
        self.seen = module.step // self.every if self.every else 0
        self.told = module.step + SOON
        if bar:
            # what is least needed goes first where a terminal is narrow
            columns = [TextColumn("{task.description}"), BarColumn(None)]
            columns += [TimeRemainingColumn(compact=True)] * (console.width >= NARROW)
            self.progress = Progress(*columns, console=console, expand=True)
            ends = module.planned_nimg or self._deadline(trainer)
            self.task = self.progress.add_task("starting", total=1.0 if ends else None)
            self.progress.start()
            self.shown = 0.0

    @staticmethod
    def _deadline(trainer: Any) -> "Deadline | None":
        return next((one for one in trainer.callbacks if isinstance(one, Deadline)), None)

    def _speed(self, module: Any) -> float:
        """Images a second."""
        return (module.nimg - self.start[1]) / max(time.monotonic() - self.start[0], 1e-9)

    def _told(self, trainer: Any, module: Any) -> None:
        """How long it takes, once the first steps are timed."""
        speed, deadline = self._speed(module), self._deadline(trainer)
        line = f"time:    {speed:,.0f} images a second"
        ends = [(module.planned_nimg - module.nimg) / speed] if module.planned_nimg else []
        ends += [deadline.time_remaining() or 0.0] if deadline else []
        if ends:
            left = min(ends)
            if left < BRIEF:
                return
            line += f": about {duration(left)} more, until {clock(left)}"
        self.print(line, highlight=False, soft_wrap=True)

    def _describe(self, trainer: Any, module: Any) -> str:
        total = None if self._deadline(trainer) else module.planned_nimg  # the clock may end it
        aim = f" of {total:,.0f}" if total else ""
        parts = [f"{module.nimg:,}{aim} images", f"{self._speed(module):,.0f}/s"]
        scores = (getattr(callback, "score", None) for callback in trainer.callbacks)
        if score := next((found for found in scores if found), ""):
            parts.append(score)
        assert self.progress is not None
        room = self.progress.console.width - NARROW // 3
        while len(parts) > 1 and sum(map(len, parts)) + 2 * len(parts) > room:
            parts.pop()
        return "  ".join(parts)

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if not self.warm:  # the first step takes long and says nothing of the others
            self.warm, self.start = True, (now, module.nimg)
        if self.progress is not None and now - self.shown > 0.5:
            description = self._describe(trainer, module)
            self.progress.update(self.task, completed=module.progress, description=description)
            self.shown = now
        if self.told and module.step >= self.told and now - self.start[0] > 1:
            self.told = 0
            self._told(trainer, module)
        before, self.seen = self.seen, module.step // self.every if self.every else 0
        if self.seen > before and module.last_logits is not None:
            self._line(trainer, module, batch_idx)

    def _line(self, trainer: Trainer, module: Any, batch_idx: int) -> None:
        assert module.last_logits is not None
        real, fake = (float(module.probabilities(logits).mean()) for logits in module.last_logits)
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        losses = (float(module.last.get(f"loss/{side}", math.nan)) for side in "dg")
        self.print(
            f"epoch {trainer.current_epoch + 1}{epochs}  step {batch_idx + 1}/{trainer.num_training_batches}  "
            f"images {module.nimg:,}  d_loss {next(losses):.4f}  g_loss {next(losses):.4f}  "
            f"D(x) {real:.3f}  D(G(z)) {fake:.3f}",
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        if self.progress is not None:
            self.progress.update(self.task, description=self._describe(trainer, module))
        self.close()

    @rank_zero_only
    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        self.close()


def duration(seconds: float) -> str:
    """In words, as coarse as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def clock(seconds: float) -> str:
    """The time of day in so many seconds, with the day where it is not today's."""
    then = datetime.now() + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if then.date() == datetime.now().date() else f"{then:%a %d %b %H:%M}"


class Stop(Callback):
    """Ends the run between two steps: after `total_kimg`, or when it is asked to (interrupt.py).

    Placed before Checkpoints, which then keeps the very step the run stopped at.
    """

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # several processes have to stop at the same step: Guard tells each of them
        asked = interrupt.asked() if trainer.world_size == 1 else Guard.of(trainer).agreed
        if asked or (module.total_kimg and module.nimg >= module.total_kimg * 1000):
            trainer.should_stop = True


class Deadline(Timer):
    """`trainer.max_time`, placed before Checkpoints; a run that goes on has its whole time again.

    Tells the module which fraction of it is over, for its schedules.
    """

    def __init__(self, duration: Any) -> None:
        super().__init__(duration, interval="step", verbose=False)

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        spent, left = self.time_elapsed(), self.time_remaining() or 0.0
        fraction = spent / max(1e-9, spent + left)
        if trainer.world_size == 1:
            module.time_fraction = fraction
        elif batch_idx % 50 == 0:
            # clocks differ, and every process needs the same learning rate
            module.time_fraction = trainer.strategy.broadcast(fraction)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class Checkpoints(Callback):
    """checkpoints/last.ckpt when the run stops or Guard asks for it, checkpoints/kimg_000100.ckpt
    every `every_kimg`.

    A file appears whole or not at all, and weights that are not finite never replace good ones.
    """

    def __init__(self, folder: Path, every_kimg: float) -> None:
        self.folder, self.cadence = folder, Cadence(every_kimg)
        self.last = folder / "last.ckpt"
        self.saved_at = -1  # nimg of last.ckpt
        self.ended = False

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.cadence.due(module.nimg)

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.cadence.due(module.nimg):
            self.save(trainer, module, f"{moment_name(module.nimg, self.cadence.every)}.ckpt")
        if trainer.should_stop:
            self.save(trainer, module, "last.ckpt")
            self.ended = True

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        if trainer.world_size > 1:
            compare_ranks(trainer, module)
        if not self.ended:  # with the last scores in it
            self.save(trainer, module, "last.ckpt")

    def save(self, trainer: Trainer, module: Any, name: str) -> None:
        if all_finite(module) is None:
            with interrupt.saving:
                module.save_checkpoint(self.folder / name)
            if name == "last.ckpt":
                self.saved_at = module.nimg


def compare_ranks(trainer: Trainer, module: Any) -> None:
    """Raises UserError where the processes' weights are no longer equal to the bit."""
    mine = hashlib.sha256()
    for weight in module.parameters():
        mine.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    digests: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(digests, mine.hexdigest())
    if len(set(digests)) > 1:
        raise UserError(
            "the processes hold different weights: they did not get the same configuration or lost step"
        )
    if trainer.is_global_zero:
        print(f"{trainer.world_size} processes hold equal weights", flush=True)


class RandomState(Callback):
    """Every random state, into checkpoints and back, per process; placed last, for training to go
    on from.

    Of several processes also each one's buffers: under manual optimisation DDP leaves them to
    themselves, and LeCam's averages and ADA's strength have a say in the gradients.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loaded: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        state: Any = np.random.get_state(legacy=True)
        kind, words, *rest = state
        mine: dict[str, Any] = {
            "python": random.getstate(),
            "numpy": [kind, words.tolist(), *rest],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if module.device.type == "cuda" else None,
        }
        states: list[Any] = [mine]
        if trainer.world_size > 1:
            mine["buffers"] = {name: buffer.cpu() for name, buffer in self.buffers(module).items()}
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, mine)
        checkpoint["random"] = states

    @staticmethod
    def buffers(module: Any) -> dict[str, Tensor]:
        # not the frozen weights of the aid's network
        kept = module.state_dict(keep_vars=True).keys()
        named = ((name, buffer) for name, buffer in module.named_buffers() if name in kept)
        return {
            name: buffer.detach() for name, buffer in named if not name.startswith("generator_ema.")
        }

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint["random"]  # each value is of its type (resume.RANDOM)

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        wrapped: Any = trainer.strategy.model
        if hasattr(wrapped, "broadcast_buffers"):
            # which it would do once, before the first step
            wrapped.broadcast_buffers = False
        if self.loaded is None or trainer.global_rank >= len(self.loaded):
            if trainer.global_rank:  # equal weights, but noise of one's own
                torch.manual_seed(self.seed + trainer.global_rank)
            return
        state = self.loaded[trainer.global_rank]
        try:
            random.setstate(state["python"])
            np.random.set_state(tuple(state["numpy"]))
            torch.set_rng_state(state["torch"].cpu())
            if state["cuda"] is not None and module.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda"].cpu())
            for name, buffer in self.buffers(module).items():
                if name in state.get("buffers", {}):
                    buffer.copy_(state["buffers"][name])
        except (ValueError, TypeError, RuntimeError, OverflowError):
            raise UserError(
                "the checkpoint's random states are not those of this program: it is damaged"
            ) from None
