"""Kills one process of a run of two, in every way to start them, and looks at how the other one ends.

    python -m benchmarks.deaths [--only NAME ...]

Right is: an exit code that is not 0 within a minute, a sentence that names the process that died, nothing left running,
no partial file, and a checkpoint that can be read. Linux only (it finds the processes in /proc).
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUN = [
    "dataset=egg",
    "dataset.source.number=64",
    "dataset.image_size=16",
    "dataset.batch_size=8",
    "metrics=none",
    "diagnosis=off",
    "latent_dim=8",
    "network.generator.channels=16",
    "network.generator.min_channels=8",
    "network.discriminator.channels=16",
    "network.discriminator.min_channels=8",
    "trainer.accelerator=cpu",
    "total_kimg=100000",
    "console.every_steps=1",
    "checkpoints.every_kimg=0.4",
    "observer.every_kimg=100000",
    "hydra.run.dir=run",
]
TRAIN = [sys.executable, str(ROOT / "train.py")]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc_per_node=2",
    str(ROOT / "train.py"),
]
# name: (commands, what only the environment of the process to kill holds)
CASES = {
    "Lightning's process 1": ([([*TRAIN, "trainer.devices=2"], {})], "LOCAL_RANK=1"),
    "Lightning's process 0": ([([*TRAIN, "trainer.devices=2"], {})], ""),
    "torchrun's process 1": ([(TORCHRUN, {})], "RANK=1"),
    "torchrun's process 0": ([(TORCHRUN, {})], "RANK=0"),
    "the second node": (
        [([*TRAIN, "trainer.num_nodes=2"], {"NODE_RANK": str(k)}) for k in (0, 1)],
        "NODE_RANK=1",
    ),
    "the first node": (
        [([*TRAIN, "trainer.num_nodes=2"], {"NODE_RANK": str(k)}) for k in (0, 1)],
        "NODE_RANK=0",
    ),
}


def family(pids: list[int]) -> list[int]:
    """These processes and all that descend from them."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [*pids]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def kill_one(name: str) -> tuple[bool, str]:
    """(whether all went as it should, one line)."""
    from gan_lightning.files import alive, read_checkpoint

    commands, mark = CASES[name]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as scratch:
        folder, started = Path(scratch), []
        (folder / "data" / "egg").mkdir(parents=True)
        for k, (command, more) in enumerate(commands):
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if more else {}
            with open(folder / f"out{k}", "w") as out, open(folder / f"err{k}", "w") as err:
                env = os.environ | {"OMP_NUM_THREADS": "1"} | meeting | more
                started.append(
                    subprocess.Popen([*command, *RUN], cwd=folder, env=env, stdout=out, stderr=err)
                )
        end = time.monotonic() + 300
        while time.monotonic() < end and not list(folder.glob("run/checkpoints/kimg*.ckpt")):
            time.sleep(0.2)
        members = family([process.pid for process in started])
        trainers = [
            pid
            for pid in members
            if "torch.distributed.run" not in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        victim = (
            next(pid for pid in trainers if mark in environment(pid)) if mark else started[0].pid
        )
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        codes = [process.wait(timeout=120) for process in started]
        while any(map(alive, members)) and time.monotonic() - began < 120:
            time.sleep(0.1)
        seconds = time.monotonic() - began
        said = "".join((folder / f"err{k}").read_text() for k in range(len(started)))
        sentence = next(
            (line for line in said.splitlines() if f"process id {victim} on " in line), ""
        )
        kept = sorted(folder.glob("run/checkpoints/*.ckpt"))
        whole = (
            bool(kept)
            and all(read_checkpoint(path)["nimg"] > 0 for path in kept)
            and not list(folder.rglob("*partial*"))
        )
        good = all(codes) and bool(sentence) and whole and seconds < 60
        words = sentence.partition(";")[0] or said[-300:]
        return (
            good,
            f"{'good' if good else 'BAD'}  {name}: exit codes {codes}, all gone after {seconds:.1f} s, {len(kept)} whole: {words}",
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=CASES, metavar="NAME")
    results = []
    for name in parser.parse_args().only or CASES:
        good, line = kill_one(name)
        results.append(good)
        print(line, flush=True)
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
