"""Asked to stop: Ctrl-C, SIGTERM, a closed terminal, and SLURM's signal before the time is over.

A thread hears of every signal as it arrives. Before the first step the process ends there and then;
while it trains the run looks at `asked()` between two steps and ends in good order. A second signal
ends it at once, but for a checkpoint that is just being written.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from gan_lightning import files

# Windows has two of these
POLITE = [number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP")]
SAME = 0.5  # seconds: one signal may come from the terminal and from a launcher that hands it on
GRACE = 5.0  # seconds that an evaluation may still take once the run has been asked to stop
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


class Stopped(KeyboardInterrupt):
    """Raised between two steps, where an evaluation would keep a stopping run too long."""


class _State:
    """What this process knows; one process, one run."""

    number = 0  # the first signal, 0: none
    arrived = 0.0
    training = False  # a step has begun: what follows ends in good order
    between = False  # two steps: the weights are whole, and an evaluation may be broken off
    installed = False
    job: subprocess.Popen[bytes] | None = None  # the run that this process waits for


_state = _State()
saving = threading.RLock()  # held while there has to be a checkpoint afterwards
children: list[Callable[[int], Any]] = []  # each ends processes that must not outlive this one
_terminals: list[int] = []  # of standard output and error, those that were one at the start


# -- hearing -----------------------------------------------------------------------------------


def install() -> None:
    """Takes the signals over, in the main thread, as the first thing a process does."""
    main = threading.current_thread() is threading.main_thread()
    if os.name != "posix" or _state.installed or not main:
        return
    if os.environ.get("SLURM_JOB_ID") and signal.SIGUSR1 not in POLITE:
        POLITE.append(signal.SIGUSR1)
    _terminals.extend(stream for stream in (1, 2) if os.isatty(stream))
    out, into = os.pipe()
    os.set_blocking(into, False)
    signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    _state.installed = True
    take()
    signal.signal(signal.SIGALRM, _break_off)
    threading.Thread(target=_listen, args=(out,), daemon=True, name="signals").start()
    os.register_at_fork(after_in_child=_forked)


def take() -> None:
    """Sets the handlers, also where a library has put its own; nohup's ignoring of SIGHUP stays."""
    for number in POLITE if _state.installed else ():
        if not (number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            # the thread does all; there has to be some handler for it to be told
            signal.signal(number, lambda number, frame: None)


def _forked() -> None:
    """In a forked worker, whose signals are not the run's: one to all is for the run to answer."""
    if _state.installed:
        signal.set_wakeup_fd(-1)
        for number in POLITE:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        _state.installed = False


def _listen(pipe: int) -> None:
    while True:
        for number in os.read(pipe, 64):
            if number in POLITE:
                _arrived(number)


def _arrived(number: int) -> None:
    now = time.monotonic()
    if _state.number and now - _state.arrived < SAME:
        return
    first, _state.arrived = not _state.number, now
    agree(number)
    if _state.job is not None:  # it ends in good order, and is waited for
        with contextlib.suppress(OSError):
            _state.job.send_signal(number)
    elif first and _state.training:
        _tell(f"\n{name(number)}: stopping after this step, with a checkpoint (again: at once)\n")
        threading.Thread(target=_hurry, daemon=True).start()
    else:
        leave(number)


def _hurry() -> None:
    time.sleep(GRACE)
    while _state.training:
        if _state.between:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        time.sleep(1)


def _break_off(number: int, frame: Any) -> None:
    if _state.number and _state.between:
        _state.between = False
        raise Stopped


# -- ending ------------------------------------------------------------------------------------


def leave(number: int) -> None:
    """Ends the process here and now, in one line and with the signal's exit code."""
    with contextlib.suppress(Exception):
        saving.acquire(timeout=60)
        _tell(f"\nerror: interrupted by {name(number)}\n")
        for stream in (sys.stdout, sys.stderr):
            if stream.isatty():
                stream.write("\x1b[?25h")  # the cursor, which a progress bar hides
            stream.flush()
    files.discard_unfinished()
    for kill in children:
        with contextlib.suppress(Exception):
            kill(signal.SIGKILL)
    os._exit(128 + number)


def _tell(text: str) -> None:
    """To the terminal past all buffers; where it is gone, later prints raise nothing."""
    with contextlib.suppress(OSError):
        for stream in _terminals:
            if not os.isatty(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        if all(os.environ.get(key, "0") in ("", "0") for key in RANKS):
            os.write(2, text.encode())


# -- what a run asks and says ------------------------------------------------------------------


def asked() -> int:
    """The signal that asked this process to stop; 0: none did."""
    return _state.number


def agree(number: int) -> None:
    """A process of this run was asked; the first signal counts."""
    _state.number = _state.number or number


def name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def exit_code() -> int:
    """128 and the signal, as shells say it; 0 where nobody asked."""
    return 128 + _state.number if _state.number else 0


def step_begins() -> None:
    """From here on a signal waits for the end of the step."""
    _state.training, _state.between = True, False


def step_ended(breakable: bool) -> None:
    """The weights are whole; `breakable`: what follows may be broken off."""
    _state.between = breakable


def over() -> None:
    """Training has ended, in whatever way."""
    _state.training = _state.between = False


@contextlib.contextmanager
def waiting_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within, signals go to this process, which is waited for."""
    _state.job = process
    try:
        yield
    finally:
        _state.job = None
