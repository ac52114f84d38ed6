"""The loop of running, following the first prescription, and running again, with the runs
themselves left out.
"""

import json

import pytest

from gan_lightning import process
from gan_lightning import retry as R
from gan_lightning.errors import UserError


def finding(override, restart="scratch", resolved=False, severity="fault"):
    return {
        "name": "x",
        "override": override,
        "restart": restart,
        "resolved": resolved,
        "severity": severity,
    }


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Stands for train.py: each call takes the next (findings, objective) and notes the command."""

    def prepare(*outcomes):
        outcomes, commands = list(outcomes), []

        def run(command):
            """In the place of subprocess.Popen."""
            commands.append(command[2:])
            folder = next(o for o in command if o.startswith("hydra.run.dir=")).partition("=")[2]
            findings, objective = outcomes.pop(0)
            path = tmp_path / folder
            (path / "checkpoints").mkdir(parents=True)
            (path / "checkpoints/last.ckpt").touch()
            (path / "diagnosis.json").write_text(
                json.dumps({"verdict": "fault" if findings else "healthy", "findings": findings})
            )
            (path / "result.json").write_text(json.dumps({"objective": objective}))
            return type("Done", (), {"wait": lambda self: 0})()

        monkeypatch.setattr(process.subprocess, "Popen", run)
        return commands

    return prepare


def test_follows_prescriptions_until_healthy(runs, tmp_path):
    commands = runs(
        ([finding("gone=1", resolved=True), finding("optimizer_d.lr=0.1")], 50.0),
        ([finding("loss=rpgan", restart="checkpoint")], 20.0),
        ([], 30.0),
    )
    assert R.retry(["dataset=egg", "optimizer_d.lr=1", "retry.minutes=9"], tmp_path, 9) == 20.0
    plain = [[o for o in c if not o.startswith(("hydra.", "retry.seconds_left"))] for c in commands]
    assert plain[0] == ["dataset=egg", "optimizer_d.lr=1"]
    assert plain[1] == ["dataset=egg", "optimizer_d.lr=0.1"]
    assert plain[2] == [
        "dataset=egg",
        "optimizer_d.lr=0.1",
        "loss=rpgan",
        f"ckpt_path={tmp_path}/attempt_2/checkpoints/last.ckpt",
    ]
    board = json.loads((tmp_path / "leaderboard.json").read_text())
    assert [(row["change"], row["objective"]) for row in board] == [
        ("", 50.0),
        ("optimizer_d.lr=0.1", 20.0),
        ("loss=rpgan", 30.0),
    ]


def test_a_prescription_is_followed_once(runs, tmp_path):
    commands = runs(([finding("n_critic=1")], 5.0), ([finding("n_critic=1")], 5.0))
    R.retry([], tmp_path, 9)
    assert len(commands) == 2


def test_a_note_is_no_prescription(runs, tmp_path):
    commands = runs(([finding("total_kimg=9", severity="note")], 5.0))
    assert R.retry([], tmp_path, 9) == 5.0 and len(commands) == 1


def test_the_budget_ends_it(runs, tmp_path, monkeypatch):
    commands = runs(([finding("n_critic=1")], 5.0))
    clock = iter([0.0, 0.0, 0.0, 530.0, 541.0])
    monkeypatch.setattr(R.time, "monotonic", lambda: next(clock))
    R.retry([], tmp_path, 10)
    assert len(commands) == 1 or "retry.seconds_left=60" in commands[1]


def test_a_later_attempt_that_fails_leaves_the_finished_ones(runs, tmp_path, monkeypatch):
    runs(([finding("n_critic=1")], 5.0))
    first, start = process.subprocess.Popen, iter([True, False])
    broken = lambda command: type("Done", (), {"wait": lambda self: 1})()  # noqa: E731
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda command: (first if next(start) else broken)(command)
    )
    assert R.retry([], tmp_path, 9) == 5.0
    assert [
        row["objective"] for row in json.loads((tmp_path / "leaderboard.json").read_text())
    ] == [5.0]


def test_a_run_that_does_not_start_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda command: type("Done", (), {"wait": lambda self: 1})()
    )
    with pytest.raises(UserError, match="exit code 1"):
        R.retry([], tmp_path, 10)
