"""From a run folder to words, JSON and a command that is right to paste."""

import json
import math
import shlex

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console
from test_rules import CONFIG, FAULTS, stream, with_

from gan_lightning.diagnosis import verdict
from gan_lightning.diagnosis.history import History
from gan_lightning.errors import UserError


def run_folder(folder, history, language="en", overrides=("dataset=egg", "optimizer_g.lr=0.05")):
    """What a run leaves behind, from an injected history."""
    folder.mkdir(parents=True, exist_ok=True)
    config = history.facts["config"] | {
        "overrides": list(overrides),
        "diagnosis": {"language": language},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [history.facts | {"kind": "facts"}, *history.records]
    (folder / "signals.jsonl").write_text(
        "\n".join(json.dumps(verdict.plain(line)) for line in lines) + "\n"
    )
    return folder


@pytest.mark.parametrize(
    "overrides,override,expected",
    [
        (["dataset=egg", "loss=bce"], "loss=rpgan", ["dataset=egg", "loss=rpgan"]),
        (["loss.gamma=0", "seed=1"], "loss=rpgan", ["seed=1", "loss=rpgan"]),
        (["loss.gamma=0", "loss=bce"], "loss.gamma=1", ["loss=bce", "loss.gamma=1"]),
        (["+grad_clip=5"], "grad_clip=1", ["grad_clip=1"]),
        (
            ["optimizer_g.lr=0.1", "optimizer_d.lr=0.1"],
            "optimizer_g.lr=0.001",
            ["optimizer_d.lr=0.1", "optimizer_g.lr=0.001"],
        ),
        ([], "n_critic=1", ["n_critic=1"]),
    ],
)
def test_follow_replaces_what_the_override_replaces(overrides, override, expected):
    assert verdict.follow(overrides, override) == expected


@pytest.mark.parametrize("rule", FAULTS)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_verdict_has_all_its_parts(rule, language):
    signals, config, facts = FAULTS[rule]
    v = verdict.judge(stream(facts, settings=config, **signals), {}, language)
    assert json.loads(json.dumps(v)) == v
    found = v["findings"][0]
    assert found["name"] == rule and rule not in v["checks_passed"]
    assert {
        "severity",
        "confidence",
        "since_kimg",
        "resolved",
        "evidence",
        "why",
        "override",
    } <= set(found)
    assert v["verdict"] == found["severity"] and found["title"] in v["summary"]
    assert v["command"] == shlex.join(["python", "train.py", found["override"]])
    assert any("가" <= c <= "힣" for c in found["why"]) == (language == "ko")
    text = verdict.markdown(v)
    assert found["why"] in text and f"`{found['override']}`" in text and v["command"] in text


@pytest.mark.parametrize(
    "facts,signals,steps,expected",
    [
        ({"ended": True}, {}, None, "healthy"),
        ({}, {}, [25, 50], "too_early"),
        (
            {"ended": True},
            {"quality": lambda i, s: 0.1 + 0.4 * math.exp(-s / 1000)},
            None,
            "unclear",
        ),
        ({"ended": True}, {"quality": lambda i, s: 0.9 - s / 10000}, None, "improving"),
        (
            {},
            {
                "diversity": lambda i, s: 0.01 if s < 3000 else 0.9,
                "quality": lambda i, s: 0.5 if s < 3000 else 0.01,
            },
            None,
            "healthy",
        ),
        ({"n_train": 20}, {}, None, "warning"),
    ],
)
def test_the_verdict_in_one_word(facts, signals, steps, expected):
    history = stream(facts, **({"steps": steps} if steps else {}), **signals)
    v = verdict.judge(history, {})
    assert v["verdict"] == expected
    if expected == "healthy":
        assert v["command"] == "" and "d_too_strong" in v["checks_passed"]


def test_going_on_names_the_checkpoint(tmp_path):
    history = stream(
        {
            "ended": True,
            "config": with_(CONFIG, overrides=["dataset=egg", "retry.seconds_left=60"]),
        },
        quality=lambda i, s: 0.9 - s / 10000,
    )
    v = verdict.judge(history, {}, run_dir=tmp_path)
    assert (
        v["command"]
        == f"python train.py dataset=egg total_kimg=800 ckpt_path={tmp_path}/checkpoints/last.ckpt"
    )


def test_a_run_that_ended_too_early_is_told_how_to_go_on(tmp_path):
    config = with_(CONFIG, trainer__max_epochs=40, overrides=["dataset=egg"])
    for facts, typed in (({}, ""), ({"ended": True}, "trainer.max_epochs=80")):
        v = verdict.judge(stream(facts | {"config": config}, steps=[25, 50]), {}, run_dir=tmp_path)
        checkpoint = f"{tmp_path}/checkpoints/last.ckpt"
        assert v["command"] == (
            f"python train.py dataset=egg {typed} ckpt_path={checkpoint}" if typed else ""
        )
    assert verdict.judge(History([], {"ended": True, "config": config}), {})["command"] == ""


def test_diagnose_gives_the_same_verdict_from_the_records(tmp_path, capsys):
    signals, config, facts = FAULTS["lr_too_high"]
    history = stream(facts, settings=config, **signals)
    folder = run_folder(tmp_path / "run", history)
    assert verdict.diagnose_cli(str(folder)) == 0
    out = capsys.readouterr().out
    assert "lr_too_high" in out and "python train.py dataset=egg optimizer_g.lr=0.001" in out
    again = verdict.judge(verdict.read(folder), {})
    assert again["findings"] == verdict.judge(history, {})["findings"]
    assert sorted(p.name for p in folder.iterdir()) == ["config.yaml", "signals.jsonl"]
    verdict.diagnose_cli(str(folder), "ko")
    assert "학습률" in capsys.readouterr().out


def test_a_run_that_is_going_on_can_be_read(tmp_path):
    folder = run_folder(tmp_path, stream())
    with open(folder / "signals.jsonl", "a") as file:
        file.write('{"kind": "score", "frechet": 3.0}\n{"nimg": 12, "ste')
    assert [r["step"] for r in verdict.read(folder).records] == [
        r["step"] for r in stream().records
    ]


def test_what_is_no_run_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no signals.jsonl"):
        verdict.diagnose_cli(str(tmp_path))
    run = run_folder(tmp_path / "egg" / "today", stream())
    with pytest.raises(UserError, match=f"give one of the 1 runs in it, as {run}$"):
        verdict.diagnose_cli(str(tmp_path))
    with pytest.raises(UserError, match="language=fr"):
        verdict.diagnose_cli(str(run_folder(tmp_path / "a", stream())), "fr")


def test_rules_that_a_folder_names_are_not_imported(tmp_path, monkeypatch, capsys):
    """But said to be missing, as the verdict of the run itself may have had a finding of theirs."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text("raise SystemExit(3)")
    folder = run_folder(tmp_path / "run", stream())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["diagnosis"]["rules"] = ["trap"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert verdict.diagnose_cli(str(folder)) == 0
    assert "without the rules of trap: see --rules" in capsys.readouterr().out


def test_written_files_are_whole_and_hold_no_nan(tmp_path):
    signals, config, facts = FAULTS["dataset_too_small"]
    v = verdict.judge(stream(facts | {"duplicates": float("nan")}, settings=config, **signals), {})
    verdict.write(v, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["diagnosis.json", "diagnosis.md"]
    text = (tmp_path / "diagnosis.json").read_text()
    assert "NaN" not in text and json.loads(text)["verdict"] == "warning"


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("width", [40, 80])
def test_names_of_healthy_checks_are_said_when_asked_for(width, language, tmp_path):
    v = verdict.judge(
        stream(**FAULTS["lr_too_high"][0], steps=[*range(0, 2000, 100)]), {}, language
    )
    v["checks_passed"], v["checks_off"] = ["stale_ema", "checkerboard"], ["wrong_range"]
    said = []
    for everything in (False, True):
        with open(tmp_path / "out", "w", encoding="utf-8") as file:
            verdict.show(v, everything, Console(file=file, width=width, highlight=False))
        said.append((tmp_path / "out").read_text(encoding="utf-8"))
        lines = [line for line in said[-1].splitlines() if "train.py" not in line]
        assert all(cell_len(line) <= width for line in lines)
    short, full = said
    names = [*v["checks_passed"], *v["checks_off"]]
    assert not [name for name in names if name in short] and "2" in short and "1" in short
    assert all(name in full for name in names)
    first, *rest = (f for f in v["findings"] if not f["resolved"])
    assert f"[{first['name']}]" in short and all(f["override"] in full for f in rest)


@pytest.mark.parametrize("width", [40, 100])
def test_the_table_is_plain_where_there_is_no_terminal(width, tmp_path):
    v = verdict.judge(stream(**FAULTS["full_collapse"][0]), {})
    with open(tmp_path / "out", "w") as file:
        verdict.show(v, console=Console(file=file, width=width, highlight=False))
    text = (tmp_path / "out").read_text()
    assert (
        "\x1b" not in text and v["command"] in text
    )  # the command is on one line, whatever the width
    verdict.show(
        verdict.judge(History([], {}), {}), console=Console(file=open(tmp_path / "empty", "w"))
    )
