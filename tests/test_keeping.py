"""Nothing is lost: when checkpoints are written, what signals do, what stays of a run that goes on in its folder."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_run import TINY, weights

from gan_lightning import interrupt
from gan_lightning.errors import UserError
from gan_lightning.files import _HOST
from gan_lightning.keeping import Guard


class Clock:
    """time.monotonic that is moved by hand."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("gan_lightning.keeping.time.monotonic", lambda: self.now)


class Keeps:
    last, saved_at = Path("nowhere"), -1

    def __init__(self, clock):
        self.clock, self.writes = clock, []

    def save(self, trainer, module, name):
        self.writes.append((name, module.nimg, self.clock.now))
        self.saved_at = module.nimg


class Module:
    nimg = 0


@pytest.fixture
def steps(monkeypatch):
    """steps((seconds of a step, seconds of the pause after it, images at which scores are due), …) -> what was written."""
    from types import SimpleNamespace

    clock = Clock(monkeypatch)
    keeper, module = Keeps(clock), Module()
    guard = Guard(keeper)
    scores = SimpleNamespace(next_nimg=10**9)
    trainer = SimpleNamespace(world_size=1, is_global_zero=False, callbacks=[guard, scores])
    guard.on_train_start(trainer, module)

    def run(*plan):
        for seconds, pause, due in plan:
            scores.next_nimg = due
            guard.on_train_batch_start(trainer, module, None, 0)
            clock.now += seconds
            module.nimg += 8
            guard.on_train_batch_end(trainer, module, None, None, 0)
            clock.now += pause
        interrupt.over()
        return [
            (nimg, round(now - 1000)) for name, nimg, now in keeper.writes if name == "last.ckpt"
        ]

    return run


NEVER = 10**9


def test_the_first_step_is_kept_and_then_every_minute(steps):
    written = steps(*[(1, 0, NEVER)] * 200)
    assert written[0] == (8, 1)
    assert [now for _, now in written] == [1, 61, 121, 181]


def test_never_older_than_two_minutes_beside_long_evaluations(steps):
    """40 seconds of scores after every third step: before each of them all there is gets written."""
    plan = [(10, 0, NEVER), (10, 0, NEVER), (10, 40, 0)] * 5
    written = steps(*plan)
    moments = [now for _, now in written] + [350]
    assert max(b - a for a, b in zip(moments, moments[1:], strict=False)) <= 110
    assert {24, 48, 72, 96, 120} <= {nimg for nimg, _ in written}


def test_a_pause_that_nobody_announces_is_allowed_for_the_next_time(steps):
    """50 seconds after every fourth step of 10: from the second on the age never passes 110 seconds."""
    written = steps(*([(10, 0, NEVER)] * 3 + [(10, 50, NEVER)]) * 6)
    moments = [now for _, now in written] + [540]
    assert max(b - a for a, b in zip(moments, moments[1:], strict=False)) <= 110


def test_a_run_goes_on_in_its_folder_with_the_curves_that_were_there(train_run, photos):
    """Stopped at 32 images of 72 and, after it, curves and pictures of a stretch that was lost."""
    settings = [o for o in TINY if o != "diagnosis=off"] + [
        f"dataset.root={photos}",
        "diagnosis.light_every=1",
    ]
    whole, _ = train_run("whole", *settings, "total_kimg=0.072", "observer.every_kimg=0.016")
    run, _ = train_run("run", *settings, "total_kimg=0.032", "observer.every_kimg=0.016")
    for line in ("40,0.5,0.5\n", "not a row\n"):
        with open(run / "csv/metrics.csv", "a") as file:
            file.write(line)
    with open(run / "signals.jsonl", "a") as file:
        file.write(
            json.dumps({"kind": "light", "nimg": 40, "step": 5, "loss_d": 99.0}) + '\n{"kind": "li'
        )
    (run / "images/fake_images_kimg_000000.040.png").write_bytes(b"of the lost stretch")
    last = f"ckpt_path={run}/checkpoints/last.ckpt"
    train_run("run", *settings, last, "total_kimg=0.072", "observer.every_kimg=0.016")
    curves = []
    for place in (whole, run):
        with open(place / "csv/metrics.csv", newline="") as file:
            curves.append([(r["step"], r["loss/d"]) for r in csv.DictReader(file) if r["loss/d"]])
    assert curves[0] == curves[1] and [step for step, _ in curves[0]] == ["16", "32", "48", "64"]
    records = [json.loads(line) for line in (run / "signals.jsonl").read_text().splitlines()]
    steps = [r["step"] for r in records if r["kind"] in ("light", "full")]
    assert sorted(set(steps)) == list(range(1, 10)) and 99.0 not in [
        r.get("loss_d") for r in records
    ]
    assert sum("ended" in r for r in records) == 1
    assert not (run / "images/fake_images_kimg_000000.040.png").exists()
    assert (run / "images/fake_images_kimg_000000.016.png").is_file()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("3 losses/d")] == [16, 32, 48, 64]
    assert torch.equal(weights(run)["random"][0]["torch"], weights(whole)["random"][0]["torch"])


def test_a_run_that_begins_anew_in_a_folder_does_not_mix_its_curves(train_run, photos):
    settings = [*TINY, f"dataset.root={photos}"]
    train_run("run", *settings, "total_kimg=0.064")
    run, _ = train_run("run", *settings, "total_kimg=0.032")
    with open(run / "csv/metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["loss/d"]] == ["16", "32"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("3 losses/d")] == [16, 32]


def test_links_under_the_names_of_a_run_are_not_written_through(train_run, photos, tmp_path):
    run, secret = tmp_path / "run", tmp_path / "secret"
    secret.write_text("mine")
    names = [
        "signals.jsonl", "csv/metrics.csv", "csv/hparams.yaml", "config.yaml", "result.json", "scores.json",
        "diagnosis.json", "diagnosis.md", "images/real_images.png", "images/training.gif", "images/fake_images_kimg_000000.016.png",
        "results/discriminator_outputs_kimg_000000.016.npy", "checkpoints/last.ckpt", "tensorboard/hparams.yaml",
        "data_check/check.json", "data_check/contact_sheet.png", "train.log", ".hydra/config.yaml",
    ]  # fmt: skip
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).symlink_to(secret)
    settings = [o for o in TINY if o not in ("diagnosis=off", "metrics=none")]
    train_run(
        "run", *settings, f"dataset.root={photos}", "total_kimg=0.032", "observer.every_kimg=0.016"
    )
    assert secret.read_text() == "mine"
    assert weights(run)["nimg"] == 32 and (run / "csv/metrics.csv").is_file()
    (run / "images").rename(tmp_path / "elsewhere")
    (run / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="images is a link"):
        train_run("run", *settings, f"dataset.root={photos}", "total_kimg=0.032")


def test_a_full_disk_ends_a_run_with_the_path_and_the_last_good_checkpoint(
    train_run, photos, full_disk
):
    settings = [*TINY, f"dataset.root={photos}", "checkpoints.every_kimg=0.016"]
    full_disk(500_000)  # some of the checkpoints
    with pytest.raises(OSError) as error:
        train_run("run", *settings, "total_kimg=1")
    run = Path("run")
    assert "run/checkpoints/" in str(error.value.filename) or "run/images/" in str(
        error.value.filename
    )
    assert error.value.errno == errno.ENOSPC
    assert weights(run)["nimg"] >= 8 and not [p for p in run.rglob("*") if "partial" in p.name]


def test_temporary_files_of_a_killed_run_are_cleared(train_run, photos):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = Path("run/checkpoints") / f".last.ckpt.{_HOST}-{gone.pid}-ab12.partial"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    train_run("run", *TINY, f"dataset.root={photos}", "total_kimg=0.016")
    assert not left.exists() and weights(Path("run"))["nimg"] == 16


# -- signals, in a process of its own --------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
from gan_lightning import interrupt
interrupt.install()
def log(text): os.write(1, (text + "\\n").encode())
if "training" in sys.argv:
    interrupt.step_begins()
if "saving" in sys.argv:
    interrupt.saving.acquire()
    interrupt.step_begins()
interrupt.children.append(lambda number: log(f"killed with {number}"))
log("ready")
for k in range(600):
    time.sleep(0.01)
    if "saving" in sys.argv and k > 120:
        log("saved")
        interrupt.saving.release()
        time.sleep(5)
    if interrupt.asked() and "patient" in sys.argv:
        log("in good order")
        sys.exit(interrupt.exit_code())
"""


def signalled(
    *words: str, numbers: list[signal.Signals], pause: float = 0.7, environment=None
) -> tuple[int, str, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | (environment or {}),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    for k, number in enumerate(numbers):
        if k:
            import time

            time.sleep(pause)
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_before_the_first_step_a_signal_ends_the_process_there_and_then(number, code):
    ended, out, err = signalled(numbers=[number])
    assert ended == code and "error: interrupted by" in err and "Traceback" not in err
    assert "killed with 9" in out  # processes of its own do not outlive it


def test_while_training_it_waits_for_the_step():
    ended, out, err = signalled("training", "patient", numbers=[signal.SIGTERM])
    assert ended == 143 and "in good order" in out and "stopping after this step" in err


def test_one_signal_that_comes_twice_within_a_moment_is_one():
    """A terminal sends Ctrl-C to every process, and some hand it on to one another."""
    ended, out, _ = signalled(
        "training", "patient", numbers=[signal.SIGINT, signal.SIGINT], pause=0.0
    )
    assert ended == 130 and "in good order" in out


def test_the_second_ends_it_at_once_and_says_so():
    ended, out, err = signalled("training", numbers=[signal.SIGTERM, signal.SIGTERM])
    assert ended == 143 and "good order" not in out and "error: interrupted by SIGTERM" in err


def test_the_second_waits_for_a_checkpoint_that_is_being_written():
    ended, out, _ = signalled("saving", numbers=[signal.SIGTERM, signal.SIGTERM])
    assert ended == 143 and "saved" in out


def test_slurms_signal_counts_only_under_slurm():
    assert signalled(numbers=[signal.SIGUSR1], environment={"SLURM_JOB_ID": "1"})[0] == 138
    assert (
        signalled(numbers=[signal.SIGUSR1], environment={"SLURM_JOB_ID": ""})[0] == -signal.SIGUSR1
    )


def test_a_long_evaluation_is_broken_off_and_the_weights_are_kept(train_run, photos, monkeypatch):
    """Asked to stop within scores that would take forever: raised between two steps, kept, told."""
    from gan_lightning.measure.scoring import Scoring

    def forever(self, trainer, moment, seconds):
        interrupt._state.number = signal.SIGTERM
        interrupt._break_off(signal.SIGALRM, None)
        raise AssertionError("not broken off")

    monkeypatch.setattr(Scoring, "take", forever)
    monkeypatch.setattr(interrupt._state, "number", 0)
    settings = [o for o in TINY if o != "metrics=none"] + [
        f"dataset.root={photos}",
        "observer.every_kimg=0.032",
    ]
    with pytest.raises(SystemExit) as end:
        train_run("run", *settings, "total_kimg=1")
    assert end.value.code == 143 and weights(Path("run"))["nimg"] == 32
