"""`make faults`: runs that are killed at random moments, and files of strangers.

    python -m benchmarks.faults [--kills N] [--only KIND ...] [--folder DIR] [--fresh]

Each trial starts a run, ends it with SIGKILL or a polite signal (some of them twice) at a random moment, types the same
command again (with ckpt_path=.../last.ckpt where that file is there) and compares what comes out with a run that nobody
disturbed: weights, optimisers and random states to the bit, the curves step by step, sampled images byte by byte. A trial
that has ended is in DIR/trials.jsonl and is not made again. Processes are forked from one that has imported everything,
which saves eight seconds each; two trials go through Lightning's launcher as a user's would. Writes benchmarks/FAULTS.md.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
POLITE = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
# small networks with everything in them that has a state: dropout, EMA, ADA, a lazy penalty, LeCam
TINY = (
    "dataset=folder dataset.image_size=16 dataset.batch_size=8 latent_dim=8 network.generator.channels=16"
    " network.generator.min_channels=8 network.discriminator.channels=16 network.discriminator.min_channels=8 augment=ada"
    " loss.gamma=0.1 loss.penalty_every=2 loss.lecam_weight=0.1 trainer.log_every_n_steps=2 trainer.accelerator=cpu"
    " trainer.enable_progress_bar=false console.every_steps=1 hydra.run.dir=run"
).split()
LIGHT = ["metrics=none", "diagnosis=off"]
WIDE = "network=mlp network.generator.hidden=[384] network.discriminator.hidden=[384]".split()
MLP = [o for o in TINY if not o.startswith("network.")]
KINDS: dict[str, tuple[list[str], int]] = {  # what is typed, and the share of the trials
    "training": (
        [*TINY, *LIGHT, "dataset.root=../small", "trainer.max_epochs=4", "observer.every_kimg=0.1"],
        16,
    ),
    "scores, diagnosis": (
        [*TINY, "dataset.root=../small", "total_kimg=0.12", "observer.every_kimg=0.05"],
        3,
    ),
    "writing checkpoints": (
        [
            *MLP,
            *WIDE,
            *LIGHT,
            "dataset.root=../small",
            "trainer.max_epochs=3",
            "checkpoints.every_kimg=0.008",
        ],
        14,
    ),
    "decoding images": (
        [*TINY, *LIGHT, "dataset.root=../large", "total_kimg=0.024", "dataset.cache_dir=cache"],
        10,
    ),
    "sampling": ([], 10),
    "two processes": (
        [*TINY, *LIGHT, "dataset.root=../small", "trainer.max_epochs=4", "trainer.devices=2"],
        8,
    ),
    "two processes, launched": (
        [*TINY, *LIGHT, "dataset.root=../small", "trainer.max_epochs=4", "trainer.devices=2"],
        1,
    ),
}


@dataclass
class Trial:
    kind: str
    number: int
    signals: str  # as SIGTERM, or SIGTERM SIGTERM
    moment: float  # share of an undisturbed run's time
    exit: str
    there: str  # what the killed run had left
    wrong: str  # "" where all was as it should be
    seconds: float


# -- processes -----------------------------------------------------------------------------------------------------------


def fork(arguments: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> int:
    """`python train.py …`, or `gan-lightning …` where the first word is a command of its, in a process of its own; its id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment or {})
        program = str(ROOT / "train.py")
        sys.argv = [program, *arguments]
        if arguments[0] == "sample":
            from gan_lightning.cli import main

            sys.argv[0] = "gan-lightning"
            code = main()
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def start(kind: str, folder: Path, more: Sequence[str] = ()) -> list[int]:
    """The processes of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [*KINDS[kind][0], *more]
    if kind == "sampling":
        model = folder.parent / "model.ckpt"
        return [
            fork(["sample", str(model), "--num-images", "400", "--grid", "--out", "out"], folder)
        ]
    if kind == "two processes, launched":
        command = [sys.executable, str(ROOT / "train.py"), *arguments]
        with open(folder / "log.txt", "a") as log:
            process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        return [process.pid]
    if kind != "two processes":
        return [fork(arguments, folder)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
    }
    return [fork(arguments, folder, common | {"LOCAL_RANK": str(rank)}) for rank in range(2)]


def ended(pids: list[int], seconds: float) -> list[int] | None:
    """Exit codes, negative for a signal; None where one is still there after so long (they are killed then)."""
    codes: dict[int, int] = {}
    end = time.monotonic() + seconds
    while len(codes) < len(pids):
        for pid in set(pids) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            for pid in set(pids) - codes.keys():
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return None
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            pass


# -- what is compared ----------------------------------------------------------------------------------------------------


def state(folder: Path) -> dict[str, Any] | None:
    import torch

    path = folder / "run" / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True) if path.is_file() else None


def differs(a: Any, b: Any, where: str = "") -> str:
    """The first place at which two checkpoints' values are not equal to the bit; "" for none."""
    import torch

    if isinstance(a, torch.Tensor):
        return "" if isinstance(b, torch.Tensor) and torch.equal(a, b) else where
    if isinstance(a, dict):
        if not isinstance(b, dict) or a.keys() != b.keys():
            return where
        return next(filter(None, (differs(a[key], b[key], f"{where}.{key}") for key in a)), "")
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return where
        return next(
            filter(
                None,
                (differs(x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))),
            ),
            "",
        )
    return "" if a == b else where


def curve(folder: Path) -> list[tuple[str, str]]:
    """(step, discriminator's loss) of metrics.csv."""
    with open(folder / "run" / "csv" / "metrics.csv", newline="") as file:
        return [(row["step"], row["loss/d"]) for row in csv.DictReader(file) if row["loss/d"]]


def events(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "run" / "tensorboard")).Reload()
    return [event.step for event in found.Scalars("loss/d")]


def compare(kind: str, folder: Path, whole: Path) -> str:
    """What differs from the undisturbed run; "" for nothing."""
    if left := [
        str(path) for path in folder.rglob("*") if path.suffix in (".partial", ".part", ".tmp")
    ]:
        return f"temporary files: {left}"
    if kind == "sampling":
        return images(folder, whole, all_of_them=True)
    ours, theirs = state(folder), state(whole)
    if ours is None or theirs is None:
        return "no last.ckpt"
    kept = ("nimg", "step", "state_dict", "optimizer_states", "random", "ImageData")
    if place := differs({k: ours[k] for k in kept}, {k: theirs[k] for k in kept}):
        return f"last.ckpt differs at {place}"
    if curve(folder) != curve(whole):
        return "metrics.csv differs"
    return "" if events(folder) == events(whole) else "TensorBoard's curve differs"


def images(folder: Path, whole: Path, all_of_them: bool) -> str:
    ours = {path.name: path.read_bytes() for path in (folder / "out").glob("*.png")}
    theirs = {path.name: path.read_bytes() for path in (whole / "out").glob("*.png")}
    if all_of_them and ours.keys() != theirs.keys():
        return "images are missing"
    return next((f"{name} differs" for name, data in ours.items() if theirs.get(name) != data), "")


# -- trials --------------------------------------------------------------------------------------------------------------


def undisturbed(kind: str, folder: Path) -> float:
    """Makes the run to compare with, twice: the second, with warm files, gives the seconds."""
    for name in ("first", "whole"):
        shutil.rmtree(folder / name, ignore_errors=True)
        began = time.monotonic()
        codes = ended(start(kind, folder / name), 180)
        if codes is None or any(codes):
            raise SystemExit(
                f"error: an undisturbed run ended with {codes}: see {folder / name / 'log.txt'}"
            )
    if wrong := compare(kind, folder / "first", folder / "whole"):
        raise SystemExit(f"error: two undisturbed runs differ: {wrong}")
    return time.monotonic() - began


def disturb(
    kind: str, pids: list[int], moment: float, draw: random.Random
) -> tuple[list[int], list[int] | None]:
    """Sends signals after so many seconds: (signals sent, exit codes)."""
    time.sleep(moment)
    number = draw.choice([signal.SIGKILL, signal.SIGKILL, *POLITE])
    sent = [number]
    send(pids, number)
    if number != signal.SIGKILL and draw.random() < 0.3:
        time.sleep(0.7)
        send(pids, number)
        sent.append(number)
    return sent, ended(pids, 90)


def answer(sent: list[int], codes: list[int] | None, folder: Path) -> str:
    """What is wrong with how a run ended; "" for nothing."""
    text = (folder / "log.txt").read_text(errors="replace")
    if codes is None:
        return "it did not end"
    # the last moments of a process that has done all are Python's own: there a signal counts as the system counts it
    right = (
        {-sent[0], 0}
        if sent[0] == signal.SIGKILL
        else {POLITE[sent[0]], -sent[0], 0, -signal.SIGKILL}
    )
    if (
        sent[0] != signal.SIGKILL
        and codes[0] == -sent[0]
        and "images shown in" not in text
        and "images in out" not in text
    ):
        return "the signal was not answered"
    if sent[0] != signal.SIGKILL and codes[0] == -signal.SIGKILL:
        return "killed where it should have ended by itself"
    if not set(codes) <= right:
        return f"exit codes {codes}"
    if "Traceback" in text:
        return "a traceback"
    if (
        sent[0] != signal.SIGKILL
        and codes[0] > 0
        and "stopp" not in text
        and "interrupted by" not in text
    ):
        return "no message"
    stepped = "d_loss" in text and sent[0] != signal.SIGKILL
    return "no checkpoint though a step was made" if stepped and state(folder) is None else ""


def trial(kind: str, number: int, folder: Path, seconds: float, seed: int) -> Trial | None:
    """One disturbed run and what came of it; None where the run was over before the signal."""
    draw = random.Random(f"{kind} {number} {seed}")
    here, whole = folder / f"{number}", folder / "whole"
    shutil.rmtree(here, ignore_errors=True)
    moment = draw.uniform(0.02, 1.0)
    began = time.monotonic()
    sent, codes = disturb(kind, start(kind, here), moment * seconds, draw)
    if codes is not None and not any(codes):
        return None
    wrong = answer(sent, codes, here)
    saved = state(here)
    there = "nothing" if saved is None else f"{saved['nimg']} images shown"
    if kind == "sampling":
        there = f"{len(list(here.glob('out/*.png')))} images"
        wrong = wrong or images(here, whole, all_of_them=False)
    done = saved is not None and saved["nimg"] == (state(whole) or {})["nimg"]
    (here / "log.txt").rename(here / "disturbed.txt")
    if not done:
        more = [] if saved is None else ["ckpt_path=run/checkpoints/last.ckpt"]
        again = ended(start(kind, here, more), 180)
        wrong = wrong or (
            "" if again == [0] * len(again or [1]) else f"going on ended with {again}"
        )
    names = " ".join(signal.Signals(n).name for n in sent)
    wrong = wrong or (
        ""
        if done and kind != "sampling" and _same_weights(here, whole)
        else compare(kind, here, whole)
    )
    if not wrong:
        shutil.rmtree(here)
    return Trial(
        kind,
        number,
        names,
        round(moment, 3),
        str(codes),
        there,
        wrong,
        round(time.monotonic() - began, 1),
    )


def _same_weights(here: Path, whole: Path) -> bool:
    """For a run that was ended after its last step, whose last curves need not be written."""
    a, b = state(here), state(whole)
    return bool(a and b) and not differs(a["state_dict"], b["state_dict"])


def pictures(folder: Path, count: int, size: int) -> None:
    import numpy as np
    from PIL import Image

    if folder.is_dir() and len(list(folder.iterdir())) == count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for k in range(count):
        pixels = np.kron(
            generator.integers(0, 256, (4, 4, 3)), np.ones((size // 4, size // 4, 1))
        ).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03d}.png")


def prepare(folder: Path) -> None:
    """Data that all trials share, and everything imported that they need."""
    import lightning  # noqa: F401
    import tensorboard.summary.writer.event_file_writer  # noqa: F401
    import torch
    import torch.utils.tensorboard  # noqa: F401
    import torchvision  # noqa: F401

    import gan_lightning.cli
    import gan_lightning.diagnosis.watch
    import gan_lightning.networks.dcgan
    import gan_lightning.observer
    import gan_lightning.run
    import gan_lightning.sampling  # noqa: F401

    torch.set_num_threads(1)  # a pool of threads would not outlive a fork
    for kind in KINDS:
        place = folder / kind.replace(" ", "_").replace(",", "")
        pictures(place / "small", 80, 16)
        if kind == "decoding images":
            pictures(place / "large", 160, 512)
        if kind == "sampling" and not (place / "model.ckpt").is_file():
            trained = place / "model"
            shutil.rmtree(trained, ignore_errors=True)
            trained.mkdir()
            arguments = [*TINY, *LIGHT, "dataset.root=../small", "total_kimg=0.024"]
            if ended([fork(arguments, trained)], 180) != [0]:
                raise SystemExit(f"error: see {trained / 'log.txt'}")
            shutil.copy(trained / "run" / "checkpoints" / "last.ckpt", place / "model.ckpt")


def trials(
    kind: str, wanted: int, folder: Path, log: Path, say: Callable[[str], None], seed: int
) -> list[Trial]:
    """The trials of a kind: those that are in the log, and as many more as are wanted."""
    lines = log.read_text().splitlines() if log.is_file() else []
    done = [Trial(**json.loads(line)) for line in lines]
    done = [one for one in done if one.kind == kind][:wanted]
    if len(done) == wanted:
        return done
    place = folder / kind.replace(" ", "_").replace(",", "")
    seconds = undisturbed(kind, place)
    say(f"{kind}: {seconds:.1f} s undisturbed")
    number = max((one.number for one in done), default=0)
    while len(done) < wanted:
        number += 1
        one = trial(kind, number, place, seconds, seed)
        if one is not None:
            done.append(one)
            with open(log, "a") as file:
                file.write(json.dumps(asdict(one)) + "\n")
            outcome = one.wrong or "equal"
            say(
                f"  {number}: {one.signals} at {one.moment:.0%}, {one.exit}, left {one.there}: {outcome}, {one.seconds} s"
            )
    return done


# -- files of strangers --------------------------------------------------------------------------------------------------


def hostile(folder: Path) -> tuple[str, dict[str, int]]:
    """What pytest says of tests/test_hostile.py, and the pairs of file and entry point in it."""
    sys.path[:0] = [str(ROOT / "tests")]
    import test_hostile as cases
    import torch

    good = folder / "any.ckpt"
    torch.save({"a": torch.zeros(1)}, good)
    whole = len(list(cases.files(good, folder)))
    spoiled = len(cases.SAMPLED) + len(cases.NETWORKS)
    counts = {"ckpt_path": len(cases.RESUMED) + whole}
    counts |= {name: spoiled + whole for name in ("sample", "interpolate", "evaluate", "export")}
    counts |= {name: len(cases.RUN_FOLDERS) for name in ("diagnose", "report")}
    command = [sys.executable, "-m", "pytest", "-n", "0", "tests/test_hostile.py"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return process.stdout.strip().splitlines()[-1], counts


# -- the page ------------------------------------------------------------------------------------------------------------


def page(found: dict[str, list[Trial]], verdict: str, counts: dict[str, int], command: str) -> str:
    from importlib.metadata import version

    every = [one for trials in found.values() for one in trials]
    good = sum(not one.wrong for one in every)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "hydra-core"))
    lines = [
        "# Faults", "", f"{datetime.date.today()}, Python {platform.python_version()}, {versions}, {platform.system()}", "",
        f"```\n$ {command}\n```", "", f"**{good} of {len(every)}** disturbed runs went on to what an undisturbed run comes to: weights,"
        " optimisers and random states equal to the bit on the CPU, the same curves, no temporary file left.", "",
        "| while | runs | equal | SIGKILL | polite | twice | started again | went on |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for kind, rows in found.items():
        hard = sum(one.signals == "SIGKILL" for one in rows)
        twice = sum(" " in one.signals for one in rows)
        again = sum(one.there in ("nothing", "0 images") for one in rows)
        equal = sum(not one.wrong for one in rows)
        numbers = (len(rows), equal, hard, len(rows) - hard, twice, again, len(rows) - again)
        lines.append(f"| {kind} | {' | '.join(map(str, numbers))} |")
    lines += ["", "Polite: SIGINT, SIGTERM or SIGHUP, to every process of the run; exit codes 130, 143 and 129, a message, no traceback,"
              " and a checkpoint where a step was made.", ""]  # fmt: skip
    if bad := [one for one in every if one.wrong]:
        lines += [
            "Not so:",
            "",
            *(
                f"- {one.kind} {one.number}, {one.signals} at {one.moment:.0%}: {one.wrong}"
                for one in bad
            ),
            "",
        ]
    total = sum(counts.values())
    lines += [f"Files of strangers (`tests/test_hostile.py`): {verdict}. {total} pairs of file and entry point:", "",
              "| entry point | files |", "|---|---|", *(f"| `{name}` | {n} |" for name, n in counts.items())]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", type=Path, default=ROOT / "logs" / "faults")
    parser.add_argument("--fresh", action="store_true", help="forget the trials of another time")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    shares = {kind: share for kind, (_, share) in KINDS.items()}
    wanted = {
        kind: -(-options.kills * share // sum(shares.values())) for kind, share in shares.items()
    }

    def say(text: str) -> None:
        print(text, flush=True)

    log = folder / "trials.jsonl"
    found = {
        kind: trials(kind, wanted[kind], folder, log, say, options.seed) for kind in options.only
    }
    wrong = sum(bool(one.wrong) for rows in found.values() for one in rows)
    if len(options.only) == len(KINDS):
        verdict, counts = hostile(folder)
        say(verdict)
        command = f"python -m benchmarks.faults --kills {options.kills} --seed {options.seed}"
        (ROOT / "benchmarks" / "FAULTS.md").write_text(page(found, verdict, counts, command))
        wrong += "failed" in verdict or "error" in verdict
    say(f"{wrong} went wrong" if wrong else "all as it should be")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
