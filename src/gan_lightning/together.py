"""Processes that train as one: who this one is, what process 0 decides for all, and noticing one that has died.

Who is who comes from whoever started them: torchrun, SLURM's srun, the user on each node (MASTER_ADDR, MASTER_PORT,
NODE_RANK), or Lightning on one machine. They meet at a TCP store of torch, which Lightning's process group uses later
as well. No heavy import before it is needed: a command of one process does not pay for this.
"""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from gan_lightning.errors import UserError

PATIENCE = (
    300  # seconds to wait for other processes before training; GAN_LIGHTNING_WAIT sets another
)
BEATS = 20  # seconds without a sign of life after which a process counts as dead
GRACE = 15  # seconds that a process has to end by itself after another one has died
LOST = r"gloo|nccl|connection|peer|store|timed out|socket"  # in the errors of a collective whose partner is gone


@dataclass(frozen=True)
class Place:
    """This process among those that train together; `world` is None where only the configuration will tell."""

    kind: str = "alone"  # alone, torchrun, slurm, nodes (one command per node), child (started by Lightning)
    rank: int = 0
    local_rank: int = 0
    node: int = 0
    world: int | None = 1
    per_node: int | None = None  # processes on this machine
    address: str = ""
    port: int = 0


def find_place(env: Mapping[str, str]) -> Place:
    """Who this process is by its environment variables; raises UserError where they do not fit together."""
    if "TORCHELASTIC_RUN_ID" in env:
        rank, local, node, world, per_node, port = (
            _number(env, name)
            for name in (
                "RANK",
                "LOCAL_RANK",
                "GROUP_RANK",
                "WORLD_SIZE",
                "LOCAL_WORLD_SIZE",
                "MASTER_PORT",
            )
        )
        return Place("torchrun", rank, local, node, world, per_node, env["MASTER_ADDR"], port)
    if _slurm_tasks(env) > 1:
        return _slurm_place(env)
    if (
        "MASTER_ADDR" in env
        and "MASTER_PORT" in env
        and ("NODE_RANK" in env or "LOCAL_RANK" in env)
    ):
        local, node = _number(env, "LOCAL_RANK", 0), _number(env, "NODE_RANK", 0)
        kind = "child" if "LOCAL_RANK" in env else "nodes"
        # the configuration says how many there are on a node; until then it matters only which of them is the first
        rank = 0 if local == node == 0 else 1
        return Place(
            kind, rank, local, node, None, None, env["MASTER_ADDR"], _number(env, "MASTER_PORT")
        )
    return Place()


def _number(env: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = env.get(name, default)
    if value is None or not re.fullmatch(r"\d+", str(value)):
        raise UserError(
            f"{name}={'' if value is None else value} in the environment should be a whole number"
        )
    return int(value)


def _slurm_tasks(env: Mapping[str, str]) -> int:
    """Tasks of this SLURM step; 0 outside SLURM and in its interactive shells (as Lightning tells them)."""
    if "SLURM_NTASKS" not in env or env.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return 0
    return _number(env, "SLURM_NTASKS")


def _slurm_place(env: Mapping[str, str]) -> Place:
    from lightning.fabric.plugins.environments import SLURMEnvironment

    tasks, nodes = _slurm_tasks(env), _number(env, "SLURM_NNODES", 1)
    if not {"SLURM_STEP_ID", "SLURM_STEPID"} & env.keys():
        raise UserError(
            f"SLURM has {tasks} tasks for this job, and this is not one of them: put srun before python (or ask for --ntasks=1)"
        )
    if tasks % nodes:
        raise UserError(
            f"SLURM: {tasks} tasks on {nodes} nodes are not the same number on each: use --ntasks-per-node"
        )
    # Lightning insists on the first and reads the others itself
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(tasks // nodes))
    slurm = SLURMEnvironment(auto_requeue=False)
    return Place(
        "slurm",
        slurm.global_rank(),
        slurm.local_rank(),
        slurm.node_rank(),
        tasks,
        tasks // nodes,
        slurm.main_address,
        slurm.main_port,
    )


def slurm_run(env: Mapping[str, str]) -> str | None:
    """The name of this SLURM step's run folder, the same again when the job is requeued; None outside of steps."""
    step = env.get("SLURM_STEP_ID", env.get("SLURM_STEPID"))
    job = env.get("SLURM_JOB_ID")
    if (
        job is None
        or step is None
        or not re.fullmatch(r"[\w.-]+", f"{job}_{step}")
        or not _slurm_tasks(env)
    ):
        return None
    return f"slurm_{job}_{step}"


def restarted(env: Mapping[str, str]) -> bool:
    """Whether SLURM has requeued this job."""
    return env.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


# -- before the configuration stands -----------------------------------------------------------------------------------

company: "Company | None" = None  # of this process, once it has any


def arguments(typed: list[str]) -> list[str]:
    """The command line, for a process that is not the first with what process 0 has decided; it also falls silent.

    Waits for process 0 where it decides. Raises UserError where that does not come or where both were told different things.
    """
    global company
    place = find_place(os.environ)
    if place.kind == "alone" or asked_for_help(typed):
        return [*typed, *_slurm_folder(typed)]
    if {"-m", "--multirun"} & {*typed}:
        raise UserError(
            "a sweep starts its runs' processes itself: python train.py -m ..., with trainer.devices=N for several"
        )
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    company = Company(place, [argument for argument in typed if not argument.startswith("hydra")])
    if place.rank == 0:
        company.open()
        return [*typed, *_slurm_folder(typed)]
    hush()
    given = [*typed]
    if not (
        place.kind == "child" and any(argument.startswith("hydra.run.dir=") for argument in typed)
    ):
        company.open()
        decided = company.hear()
        differ = {*decided["typed"]} ^ {*company.typed}
        if differ:
            raise UserError(
                f"process 0 was started with other settings than this one: {' '.join(sorted(differ))}"
            )
        given.append(f"hydra.run.dir={_in_quotes(decided['folder'])}")
    return given


def asked_for_help(typed: list[str]) -> bool:
    """Whether nothing will be trained."""
    return any(
        re.match(r"--(help|hydra-help|version|info|shell|cfg)|-[hcsi]$", argument)
        for argument in typed
    )


def _slurm_folder(typed: list[str]) -> list[str]:
    name = slurm_run(os.environ)
    if name is None or any(
        argument.startswith(("hydra.run.dir=", "-m", "--multirun")) for argument in typed
    ):
        return []
    return [f"hydra.run.dir=logs/${{hydra:runtime.choices.dataset}}/{name}"]


def _in_quotes(path: str) -> str:
    from gan_lightning.config import assign

    return assign("", path)[1:]


def hush() -> None:
    """From here on this process prints nothing but fatal errors."""
    import logging
    import warnings

    sys.stdout.flush()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # for what is not Python, too
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)


def leave(failure: str | None = None) -> bool:
    """To be called at the end of the process, with what it ended in; returns whether it should say so itself."""
    if company is None:
        return True
    return company.leave(failure)


# -- once it stands ----------------------------------------------------------------------------------------------------


def take_place(cfg: Any, overrides: list[str], on_gpu: bool) -> Place:
    """Sets trainer.devices and trainer.num_nodes as the processes were started, and returns this one's place among them.

    Raises UserError where the command line asks for something else, where a node lacks what it needs to find the others, and
    for more processes than cores.
    """
    place = company.place if company else Place()
    typed = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    if place.kind in ("torchrun", "slurm"):
        assert place.world and place.per_node
        nodes = place.world // place.per_node
        for key, count in (("trainer.devices", place.per_node), ("trainer.num_nodes", nodes)):
            if key in typed and typed[key] not in (str(count), "-1", "auto"):
                raise UserError(
                    f"{key}={typed[key]}: {place.kind} has started {count} here, leave {key} out"
                )
        cfg.trainer.devices, cfg.trainer.num_nodes = place.per_node, nodes
    count, nodes = processes(cfg.trainer.devices, on_gpu), cfg.trainer.num_nodes
    if not isinstance(nodes, int) or nodes < 1:
        raise UserError(f"trainer.num_nodes={nodes} should be a whole number of at least 1")
    if not on_gpu and count > (cores := os.cpu_count() or 1):
        what = (
            f"torchrun --nproc_per_node={count}"
            if place.kind == "torchrun"
            else f"trainer.devices={count}"
        )
        raise UserError(
            f"{what}: this machine has {cores} cores, one for each process: {cores} is the most that is right"
        )
    if place.kind in ("alone", "nodes") and nodes > 1:
        _check_nodes(os.environ, nodes)
    rank = (
        place.rank if place.kind in ("torchrun", "slurm") else place.node * count + place.local_rank
    )
    place = replace(place, rank=rank, world=count * nodes, per_node=count)
    if company:
        company.place = place
    return place


def processes(devices: Any, on_gpu: bool) -> int:
    """How many processes `trainer.devices` means on one machine."""
    if devices in (-1, "-1", "auto"):
        import torch

        return torch.cuda.device_count() if on_gpu else 1
    if isinstance(devices, int):
        return devices
    if isinstance(devices, str):
        return (
            int(devices)
            if devices.isdigit()
            else len([part for part in devices.split(",") if part])
        )
    return len(devices)


def _check_nodes(env: Mapping[str, str], nodes: int) -> None:
    if missing := [
        name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if not env.get(name)
    ]:
        raise UserError(
            f"trainer.num_nodes={nodes} needs {', '.join(missing)} in the environment of every node's command: the first node's"
            f" address, a free port there, and 0 to {nodes - 1}, as MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 NODE_RANK=0"
        )
    if _number(env, "NODE_RANK") >= nodes:
        raise UserError(
            f"NODE_RANK={env['NODE_RANK']} should be one of 0 to {nodes - 1}, as trainer.num_nodes={nodes}"
        )


def gather(place: Place) -> "Company | None":
    """Starts watching over the others; None for a process that trains alone. Before Lightning starts its own processes."""
    global company
    if place.world == 1:
        return None
    if company is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # where Lightning and its children look
        company = Company(replace(place, address="127.0.0.1", port=port))
    company.open()
    company.watch()
    return company


class Company:
    """The store at which the processes meet, with a thread that says "alive" for this one and looks after the others.

    Process 0 watches all, the others watch process 0. Where one has died, `over` says which, and this process ends `GRACE`
    seconds later at the latest, whatever it is waiting for.
    """

    def __init__(self, place: Place, typed: Sequence[str] = ()) -> None:
        self.place, self.typed = place, list(typed)
        self.over = ""  # why nobody can go on
        self.silent = False  # process 0 says why
        self.complete = False  # all should be there by now
        self.store: Any = None
        self.state: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "state": "training",
            "text": "",
        }
        self.seen: dict[
            int, tuple[dict[str, Any], int]
        ] = {}  # the last sign of each, and how many looks ago it changed
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()
        # torchrun keeps its store when it starts everything again
        self.prefix = f"gan_lightning/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/"
        self.patience = float(os.environ.get("GAN_LIGHTNING_WAIT") or PATIENCE)

    # -- the store -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens the store (process 0) or finds it, waiting and saying so; a second call does nothing. Raises UserError."""
        if self.store is None:
            agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            self.store = self._connect(serve=self.place.rank == 0 and not agent)

    def _connect(self, serve: bool = False) -> Any:
        import torch.distributed as dist

        where = f"{self.place.address}:{self.place.port}"
        settings: dict[str, Any] = {
            "timeout": timedelta(seconds=self.patience),
            "wait_for_workers": False,
        }
        try:
            if not serve:
                self._find()
            # several stores of one process share one server: Lightning's process group will open it once more
            return dist.TCPStore(
                self.place.address, self.place.port, is_master=serve, multi_tenant=serve, **settings
            )
        except (dist.DistError, RuntimeError) as error:
            if serve:
                raise UserError(
                    f"{where} cannot be opened ({_short(error)}): set MASTER_PORT to a free port"
                ) from None
            raise UserError(f"process 0 at {where} does not answer ({_short(error)})") from None

    def _find(self) -> None:
        """Waits until somebody listens at the address."""
        began, said = time.monotonic(), False
        while True:
            try:
                socket.create_connection((self.place.address, self.place.port), timeout=5).close()
                return
            except OSError as error:
                where, waited = f"{self.place.address}:{self.place.port}", time.monotonic() - began
                if isinstance(error, socket.gaierror):
                    raise UserError(
                        f"MASTER_ADDR={self.place.address} is no known address ({error.strerror})"
                    ) from None
                if waited > self.patience:
                    raise UserError(
                        f"no process 0 at {where} after {waited:.0f} seconds ({_short(error)}): start the first node, or see"
                        " that MASTER_ADDR and MASTER_PORT are its address and port"
                    ) from None
                if waited > 10 and not said:
                    print(f"waiting for process 0 at {where}", file=sys.stderr, flush=True)
                    said = True
            time.sleep(0.3)

    def tell(self, folder: str | Path) -> None:
        """Process 0: the run folder, to all others."""
        if self.place.rank == 0:
            self.store.set(
                f"{self.prefix}run",
                json.dumps({"folder": os.path.abspath(folder), "typed": self.typed}),
            )

    def hear(self) -> dict[str, Any]:
        """The others: the run folder and the settings of process 0."""
        self._await("run")
        return json.loads(self.store.get(f"{self.prefix}run"))

    @contextmanager
    def first(self) -> Iterator[None]:
        """What is within is done by process 0 before all others do it, so that they find what it has made."""
        if self.place.rank and self.place.kind != "child":
            self._await("prepared", patient=True)
        yield
        if self.place.rank == 0:
            self.store.set(f"{self.prefix}prepared", "1")
        self.complete = True

    def _await(self, key: str, patient: bool = False) -> None:
        """Waits for process 0 to set a key; `patient`: as long as it lives."""
        end = time.monotonic() + self.patience
        try:
            while not self.store.check([self.prefix + key]):
                first = self._read(self.store, [0]).get(0, {})
                if first.get("state") in ("failed", "done"):
                    self.silent = bool(first.get("text"))  # it has said why
                    raise UserError("process 0 has ended before the training began")
                if self.over or (not patient and time.monotonic() > end):
                    raise UserError(
                        self.over
                        or f"process 0 has decided nothing within {self.patience:.0f} seconds"
                    )
                time.sleep(0.2)
        except RuntimeError as error:  # torch's, when the other end is gone
            raise UserError(
                f"{self._name(0)} has died before the training began ({_short(error)})"
            ) from None

    # -- signs of life -------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Starts the thread."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._watch, name="company", daemon=True)
            self.thread.start()

    def _write(self, store: Any) -> None:
        store.set(
            f"{self.prefix}alive/{self.place.rank}",
            json.dumps(self.state | {"beat": time.monotonic()}),
        )

    def _read(self, store: Any, ranks: list[int]) -> dict[int, dict[str, Any]]:
        there = [rank for rank in ranks if store.check([f"{self.prefix}alive/{rank}"])]
        values = store.multi_get([f"{self.prefix}alive/{rank}" for rank in there]) if there else []
        return {rank: json.loads(value) for rank, value in zip(there, values, strict=True)}

    def _watch(self) -> None:
        world = self.place.world or 1
        others = [0] if self.place.rank else list(range(1, world))
        waited = 0
        try:
            store = self._connect()
            while not self.over and self.state["state"] == "training":
                self._write(store)
                found = self._read(store, others)
                for rank, sign in found.items():
                    old, age = self.seen.get(rank, ({}, 0))
                    # counted in own looks and not by the clock: a computer that slept has not lost its processes
                    self.seen[rank] = (sign, age + 1 if old == sign else 0)
                    self.over = self.over or self._lost(rank, *self.seen[rank])
                others = [rank for rank in others if found.get(rank, {}).get("state") != "done"]
                waited = waited + 1 if self.complete and len(found) < len(others) else 0
                if waited > self.patience:
                    missing = [str(rank) for rank in others if rank not in found]
                    self.over = f"of {world} processes {', '.join(missing[:5])} did not appear in {waited} seconds"
                if self.place.rank and not self.over and store.check([f"{self.prefix}over"]):
                    self.over = store.get(f"{self.prefix}over").decode()
                if self.over and self.place.rank == 0:
                    store.set(f"{self.prefix}over", self.over)
                time.sleep(1)
        except (RuntimeError, UserError) as error:
            if self.state["state"] == "training":
                self.over = (
                    self.over or f"{self._name(0)} has died or cannot be reached ({_short(error)})"
                )
        if self.over:
            self._end_soon()

    def _lost(self, rank: int, sign: dict[str, Any], age: int) -> str:
        """Why a process counts as dead, from its last sign of life; "" where it does not."""
        if sign["state"] == "failed":
            self.silent = self.silent or rank == 0
            return f"{self._name(rank)} ended: {sign['text']}"
        gone = (
            sign["state"] == "training"
            and sign["host"] == self.state["host"]
            and _gone(sign["pid"])
        )
        if gone or (age > BEATS and sign["state"] == "training"):
            return f"{self._name(rank)} {'has died' if gone else f'has given no sign of life for {age} seconds'}"
        return ""

    def _name(self, rank: int) -> str:
        sign = self.seen.get(rank, ({}, 0))[0]
        where = f" (process id {sign['pid']} on {sign['host']})" if sign else ""
        return f"process {rank} of {self.place.world or 'several'}{where}"

    @property
    def speaker(self) -> bool:
        """Whether it is for this process to say why all end: process 0, or who stands in for it on each machine."""
        process_0 = re.match(r"process 0 ", self.over) is not None
        stands_in = process_0 and (self.place.rank == 1 or self.place.local_rank == 0)
        return not self.silent and (self.place.rank == 0 or stands_in)

    def _end_soon(self) -> None:
        """Ends this process, which may be waiting for a dead one for ever, unless it does so by itself."""
        for _ in range(GRACE * 10):
            time.sleep(0.1)
            if self.state["state"] != "training":
                return
        if self.speaker:
            os.write(2, f"error: {self.over}\n".encode("utf-8", "backslashreplace"))
        os._exit(1)

    def blame(self, error: BaseException, seconds: float = BEATS + 10) -> str:
        """Which process's death an error of this one comes from, as `over`; "" where it is an error of its own."""
        if not self.over and not re.search(LOST, f"{type(error).__name__} {error}", re.I):
            return ""
        if threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # torchrun ends the others at once: first say why
        others = [0] if self.place.rank else list(range(1, self.place.world or 1))
        end = time.monotonic() + seconds
        while not self.over and time.monotonic() < end:
            with suppress(
                RuntimeError
            ):  # the store went with process 0: the thread finds that, too
                for rank, sign in self._read(self.store, others).items():
                    self.seen[rank] = (sign, self.seen.get(rank, (sign, 0))[1])
                    self.over = self.over or self._lost(rank, *self.seen[rank])
            time.sleep(0.1)
        return self.over

    def leave(self, failure: str | None = None) -> bool:
        """Tells the others that this process ends, and how; True where it should say itself what it ended in.

        Process 0 waits until the others have left, for the store goes with it.
        """
        with self.lock:
            if self.state["state"] != "training":
                return not self.silent
            started = self.thread is not None
            self.state |= {"state": "done" if failure is None else "failed", "text": failure or ""}
        if self.store is None:
            return True
        reached = False
        with suppress(RuntimeError):
            self._write(self.store)
            first = self._read(self.store, [0]).get(0, {}) if self.place.rank else {}
            reached = first.get("state") in ("training", "failed") and not self.over
            if self.place.rank == 0 and started and not self.over:
                self._await_others()
        if failure is None or self.place.rank == 0:
            return True
        return self.speaker if self.over else not (self.silent or reached)

    def _await_others(self) -> None:
        left, end = list(range(1, self.place.world or 1)), time.monotonic() + GRACE
        while left and time.monotonic() < end:
            found = self._read(self.store, left)
            left = [
                r
                for r in left
                if r in found and found[r]["state"] == "training" and not self._lost(r, found[r], 0)
            ]
            time.sleep(0.1)


def _gone(pid: int) -> bool:
    """Whether a process of this machine is no more, or only waits to be buried; False where that cannot be told."""
    if not Path("/proc/self/stat").exists():
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
