"""Processes that train as one: what process 0 decides for all, and noticing one that has died.

They meet at a TCP store of torch's. Heavy imports wait until they are needed.
"""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from gan_lightning.errors import UserError, first_line
from gan_lightning.files import alive
from gan_lightning.ranks import Place, find_place, settle, slurm_run
from gan_lightning.ranks import restarted as restarted

PATIENCE = 300  # seconds to wait for others before training; GAN_LIGHTNING_WAIT sets another
BEATS = 20  # seconds without a sign of life after which a process counts as dead
GRACE = 15  # seconds that a process has to end by itself after another one has died
DAY = 24 * 3600
LOST = r"gloo|nccl|connection|peer|store|timed out|socket"  # in errors of who has lost a partner
HELP = r"--(help|hydra-help|version|info|shell|cfg)|-[hcsi]$"
WELL = "training"  # the state of a process that has not left
Sign = dict[str, Any]  # of life

company: "Company | None" = None  # of this process, once it has any


# -- before the configuration stands -----------------------------------------------------------


def arguments(typed: list[str]) -> list[str]:
    """The command line, with what process 0 has decided for the others, which fall silent.

    Raises UserError where no decision comes or both were told different things.
    """
    global company
    place, swept = find_place(os.environ), bool({"-m", "--multirun"} & {*typed})
    told_folder = any(argument.startswith("hydra.run.dir=") for argument in typed)
    step = slurm_run(os.environ)
    own = [*typed]
    if step and not swept and not told_folder:
        own.append(f"hydra.run.dir=logs/${{hydra:runtime.choices.dataset}}/{step}")
    if place.kind == "alone" or any(re.match(HELP, argument) for argument in typed):
        return own
    if swept:
        right = "python train.py -m ..., with trainer.devices=N for several"
        raise UserError(f"a sweep starts its runs' processes itself: {right}")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    company = Company(place, [argument for argument in typed if not argument.startswith("hydra")])
    if place.rank == 0:
        company.open()
        return own
    hush()
    if place.kind == "child" and told_folder:
        return typed
    company.open()
    decided = company.hear()
    if differ := " ".join(sorted({*decided["typed"]} ^ {*company.typed})):
        raise UserError(f"process 0 was started with other settings than this one: {differ}")
    from gan_lightning.config import assign

    return [*typed, assign("hydra.run.dir", decided["folder"])]


def hush() -> None:
    """From here on only fatal errors are printed."""
    import logging
    import warnings

    sys.stdout.flush()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # for what is not Python, too
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)


def leave(failure: str | None = None) -> bool:
    """At the end of the process, with what it ended in: whether it should say so itself."""
    return company is None or company.leave(failure)


# -- once it stands ----------------------------------------------------------------------------


def take_place(cfg: Any, overrides: list[str], on_gpu: bool) -> Place:
    """This process's place, after `ranks.settle`. Raises UserError."""
    place = company.place if company else Place()
    typed = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    count, nodes = settle(place, cfg.trainer, typed, on_gpu)
    told = place.kind in ("torchrun", "slurm")
    rank = place.rank if told else place.node * count + place.local_rank
    place = replace(place, rank=rank, world=count * nodes, per_node=count)
    if company:
        company.place = place
    return place


def gather(place: Place) -> "Company | None":
    """Watches over the others from before Lightning starts its own; None for one that is alone."""
    global company
    if place.world == 1:
        return None
    if company is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # where Lightning and its children look
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        company = Company(replace(place, address="127.0.0.1", port=port))
    company.open()
    company.watch()
    return company


class Company:
    """The store where processes meet, and a thread that says "alive" and looks after the others.

    Where one has died, `over` says which, and this process ends at most `GRACE` seconds later,
    whatever it waits for. `every`: seconds between two looks.
    """

    def __init__(self, place: Place, typed: Sequence[str] = (), every: float = 1.0) -> None:
        self.place, self.typed, self.every = place, list(typed), every
        self.over, self.lost = "", -1  # why nobody can go on, and whose end it was
        self.silent = False  # process 0 says why
        self.complete = False  # all should be there by now
        self.late = 0  # looks since then at which one was missing
        self.store: Any = None
        self.sign: Sign = {"host": socket.gethostname(), "pid": os.getpid()}
        self.sign |= {"state": WELL, "text": ""}
        self.seen: dict[int, tuple[Sign, int]] = {}  # the last sign, looks since it changed
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()
        # torchrun keeps its store when it starts everything again
        self.prefix = f"gan_lightning/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/"
        self.patience = float(os.environ.get("GAN_LIGHTNING_WAIT") or PATIENCE)

    # -- the store -----------------------------------------------------------------------------

    def open(self) -> None:
        """Opens the store (process 0) or waits for it, once. Raises UserError."""
        if self.store is None:
            agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            self.store = self._connect(serve=self.place.rank == 0 and not agent)

    def _connect(self, serve: bool = False) -> Any:
        from torch.distributed import TCPStore

        address, port = where = self.place.address, self.place.port
        limit = timedelta(seconds=self.patience)
        try:
            socket.getaddrinfo(address, port)
            # multi_tenant: Lightning's process group will open this process's server once more
            return TCPStore(
                *where, is_master=serve, multi_tenant=serve, timeout=limit, wait_for_workers=False
            )
        except socket.gaierror as error:
            wrong = f"MASTER_ADDR={address} is no known address ({error.strerror})"
        except RuntimeError as error:  # torch's, as all of its stores'
            place, why = f"{address}:{port}", first_line(error)
            wrong = f"{place} cannot be opened ({why}): set MASTER_PORT to a free port"
            if not serve:
                right = "see that MASTER_ADDR and MASTER_PORT are its address and port"
                wrong = f"no process 0 at {place} after {self.patience:.0f} seconds ({why})"
                wrong += f": start the first node, or {right}"
        raise UserError(wrong)

    def tell(self, folder: str | Path) -> None:
        """Process 0: the run folder, to all others."""
        if self.place.rank == 0:
            self._put("run", {"folder": os.path.abspath(folder), "typed": self.typed})

    def hear(self) -> dict[str, Any]:
        """The others: the run folder and the settings of process 0."""
        return self._await("run", self.patience)

    @contextmanager
    def first(self) -> Iterator[None]:
        """What is within is done by process 0 first, so that the others find what it has made."""
        if self.place.rank and self.place.kind != "child":
            self._await("prepared", DAY)
        yield
        if self.place.rank == 0:
            self._put("prepared", {})
        self.complete = True

    def _put(self, key: str, value: dict[str, Any], store: Any = None) -> None:
        (store or self.store).set(self.prefix + key, json.dumps(value))

    def _await(self, key: str, seconds: float) -> dict[str, Any]:
        """What process 0 puts under a key."""
        try:
            self.store.wait([self.prefix + key], timedelta(seconds=seconds))
            said = json.loads(self.store.get(self.prefix + key))
        except RuntimeError as error:
            silent = f"or decided nothing within {seconds:.0f} seconds ({first_line(error)})"
            raise UserError(f"process 0 has died before the training began, {silent}") from None
        if "failed" in said:
            self.silent = said["failed"]  # it has said why
            raise UserError("process 0 has ended before the training began")
        return said

    # -- signs of life -------------------------------------------------------------------------

    def watch(self) -> None:
        if self.thread is None:
            self.thread = threading.Thread(target=self._watch, name="company", daemon=True)
            self.thread.start()

    @property
    def others(self) -> list[int]:
        return [rank for rank in range(self.place.world or 1) if rank != self.place.rank]

    def _say(self, store: Any) -> None:
        self._put(f"alive/{self.place.rank}", self.sign | {"beat": time.monotonic()}, store)

    def _read(self, store: Any, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
        names = {rank: f"{self.prefix}alive/{rank}" for rank in ranks}
        there = [rank for rank in names if rank in self.seen or store.check([names[rank]])]
        values = store.multi_get([names[rank] for rank in there]) if there else []
        return {rank: json.loads(value) for rank, value in zip(there, values, strict=True)}

    def _watch(self) -> None:
        try:
            store = self._connect()
            while not self.over and self.sign["state"] == WELL:
                self._look(store)
                time.sleep(self.every)
        except (RuntimeError, UserError) as error:
            if self.sign["state"] == WELL and not self.over:
                self.lost = 0
                self.over = f"{self._name(0)} has died or cannot be reached ({first_line(error)})"
        if self.over:
            self._end_soon()

    def _look(self, store: Any) -> None:
        self._say(store)
        found = self._read(store, self.others)
        for rank, sign in found.items():
            old, age = self.seen.get(rank, ({}, 0))
            # in own looks, not by the clock: a computer that slept has not lost its processes
            self.seen[rank] = sign, age + 1 if old == sign else 0
            if not self.over and (why := self._why_lost(rank, *self.seen[rank])):
                self.lost, self.over = rank, why
        missing = [str(rank) for rank in self.others if rank not in found]
        self.late = self.late + 1 if self.complete and missing else 0
        if self.late > self.patience and not self.over:
            world, late = self.place.world, ", ".join(missing[:5])
            self.over = f"of {world} processes {late} did not appear in {self.late} seconds"

    def _why_lost(self, rank: int, sign: dict[str, Any], age: int) -> str:
        """Why a process counts as dead, from its last sign of life; "" where it does not."""
        if sign["state"] == "failed":
            self.silent = self.silent or rank == 0
            ended = f"{self._name(rank)} ended: "
            return ("" if re.match(r"process \d+ of", sign["text"]) else ended) + sign["text"]
        if sign["state"] == WELL and sign["host"] == self.sign["host"] and not alive(sign["pid"]):
            return f"{self._name(rank)} has died"
        if sign["state"] == WELL and age > BEATS:
            return f"{self._name(rank)} has given no sign of life for {age} seconds"
        return ""

    def _name(self, rank: int) -> str:
        sign = self.seen.get(rank, ({}, 0))[0]
        where = f" (process id {sign['pid']} on {sign['host']})" if sign else ""
        return f"process {rank} of {self.place.world or 'several'}{where}"

    # -- the end -------------------------------------------------------------------------------

    @property
    def speaker(self) -> bool:
        """Whether this process says why all end: process 0, or one for it on each machine."""
        stands_in = self.lost == 0 and (self.place.rank == 1 or self.place.local_rank == 0)
        return not self.silent and (self.place.rank == 0 or stands_in)

    def _end_soon(self) -> None:
        """Ends this process, which may be waiting for a dead one, unless it does so by itself."""
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            if self.sign["state"] != WELL:
                return
            time.sleep(0.1)
        if self.speaker:
            os.write(2, f"error: {self.over}\n".encode("utf-8", "backslashreplace"))
        os._exit(1)

    def blame(self, error: BaseException) -> str:
        """`over` where an error comes from another process's death; "" for one of its own."""
        if not self.over and not re.search(LOST, f"{type(error).__name__} {error}", re.I):
            return ""
        if threading.current_thread() is threading.main_thread():
            # torchrun ends the others at once: first say why
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end = time.monotonic() + BEATS + 10
        while not self.over and time.monotonic() < end:
            time.sleep(0.1)
        return self.over

    def leave(self, failure: str | None = None) -> bool:
        """Tells the others how this process ends; True where it should say so itself.

        Process 0 waits until the others have left, for the store goes with it.
        """
        with self.lock:
            if self.sign["state"] != WELL:
                return not self.silent
            self.sign |= {"state": "done" if failure is None else "failed", "text": failure or ""}
        if self.store is None:
            return True
        reached = False  # process 0, which will say it
        with suppress(RuntimeError):
            self._say(self.store)
            if self.place.rank == 0:
                self._wait_for_others()
            else:
                first = self._read(self.store, [0]).get(0, {})
                reached = first.get("state") in (WELL, "failed") and not self.over
        if failure is None or self.place.rank == 0:
            return True
        return self.speaker if self.over else not (self.silent or reached)

    def _wait_for_others(self) -> None:
        if not self.complete:  # they wait for a decision
            for key in ("run", "prepared"):
                self._put(key, {"failed": bool(self.sign["text"])})
            time.sleep(0.5)
        end = time.monotonic() + GRACE
        while self.thread and not self.over and time.monotonic() < end:
            found = self._read(self.store, self.others).items()
            if not any(s["state"] == WELL and not self._why_lost(r, s, 0) for r, s in found):
                return
            time.sleep(0.1)
