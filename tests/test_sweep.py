"""The end of a sweep: its runs in order, what they are called, the sheet of their pictures."""

import json
import math
from pathlib import Path

import hydra
import numpy as np
import pytest
from conftest import CONF, compose
from PIL import Image

from gan_lightning import sweep
from gan_lightning.commandline import explain
from gan_lightning.config import varied
from gan_lightning.errors import UserError
from gan_lightning.sweep import (
    Summary,
    contact_sheet,
    finish,
    job_overrides,
    launcher,
    objective_of,
    runs,
)


def job(
    root: Path,
    name: str,
    *overrides: str,
    code: int = 0,
    objective=None,
    verdict="healthy",
    picture=True,
    result=True,
):
    folder = root / name
    (folder / ".hydra").mkdir(parents=True)
    lines = "".join(f"    - {o}\n" for o in overrides)
    (folder / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  overrides:\n    task:\n{lines}")
    sweep.record(folder, overrides, code, 0.0)
    (folder / "diagnosis.json").write_text(
        json.dumps({"verdict": verdict, "summary": f"it is {verdict}"})
    )
    if result:
        (folder / "result.json").write_text(json.dumps({"objective": objective, "nimg": 5000}))
    if picture:
        (folder / "images").mkdir()
        for k, moment in enumerate(("kimg_000001", "kimg_000002")):
            pixels = np.full((20, 40, 3), 100 * k, np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"fake_images_{moment}.png")
    return folder


@pytest.fixture
def four(tmp_path):
    job(tmp_path, "0", "dataset=egg", "lr=0.1", objective=2.0)
    job(tmp_path, "1", "dataset=egg", "lr=0.2", objective=1.0)
    job(tmp_path, "2", "dataset=egg", "lr=0.3", code=1, verdict="fatal", result=False)
    job(tmp_path, "3", "dataset=egg", "lr=0.4", code=1, picture=False, result=False)
    return tmp_path


def test_the_best_comes_first(four):
    found = runs(four)
    assert [(r.folder, r.state, r.objective, r.kimg) for r in found] == [
        ("1", "ended", 1.0, 5.0),
        ("0", "ended", 2.0, 5.0),
        ("2", "diverged", None, None),
        ("3", "failed", None, None),
    ]
    assert varied([r.overrides for r in found]) == ["lr=0.2", "lr=0.1", "lr=0.3", "lr=0.4"]
    found[0].overrides[1] = "lr=0.20000123456"
    assert (
        varied([r.overrides for r in found])[0] == "lr=0.2"
    )  # as many digits as anybody wants to read
    assert found[0].picture == str(four / "1/images/fake_images_kimg_000002.png")


def test_a_damaged_folder_does_not_hide_the_others(four):
    (four / "0" / "result.json").write_text("{")
    found = runs(four)
    assert [r.folder for r in found] == ["1", "0", "2", "3"] and "result.json" in found[1].verdict
    (four / "4" / ".hydra").mkdir(parents=True)  # one that is going on
    (four / "4" / ".hydra" / "hydra.yaml").write_text(
        "hydra:\n  overrides:\n    task:\n    - lr=0.5\n"
    )
    assert [(r.state, r.overrides) for r in runs(four) if r.folder == "4"] == [
        ("stopped", ["lr=0.5"])
    ]


def test_the_table_and_the_sheet(four, capsys):
    Summary(str(four)).on_multirun_start(config=None)
    finish()
    out = capsys.readouterr().out
    assert [out.index(f"lr=0.{k}") for k in (2, 1, 3, 4)] == sorted(
        out.index(f"lr=0.{k}") for k in (2, 1, 3, 4)
    )
    assert (
        "4 runs, best first" in out
        and "diverged" in out
        and "failed" in out
        and "it is healthy" in out
    )
    assert [r["folder"] for r in json.loads((four / "sweep.json").read_text())] == [
        "1",
        "0",
        "2",
        "3",
    ]
    with Image.open(four / "contact_sheet.png") as sheet:
        assert sheet.width == 3 * 324  # three of the four have pictures
        pixels = np.asarray(sheet)
    assert (pixels[2 : 2 + 160, 2 : 2 + 320] == 100).all()  # the last grid, twice as wide as high
    assert (pixels[162:] > 128).any()  # captions
    finish()  # once
    assert capsys.readouterr().out == ""


def test_no_picture_no_sheet(tmp_path):
    job(tmp_path, "0", "lr=1", picture=False, objective=1.0)
    assert contact_sheet(runs(tmp_path), {"0": "lr=1"}, tmp_path / "sheet.png") is False
    assert not (tmp_path / "sheet.png").exists()


def test_a_long_caption_is_cut_into_lines():
    assert sweep.wrapped("lr=0.1 " + "x" * 300, 320).count("\n") == 6  # 45 letters in a line


def test_what_a_sweeper_is_told(four):
    assert objective_of(four / "1", 0) == 1.0
    assert objective_of(four / "2", 1) == math.inf
    with pytest.raises(UserError, match="exit code 1"):
        objective_of(four / "3", 1)
    job(four, "4", "metrics=none")
    with pytest.raises(UserError, match="no score"):
        objective_of(four / "4", 0)


def test_a_job_is_not_told_of_its_sweep():
    assert job_overrides(
        ["sweep=lr_gamma", "lr=1", "hydra.mode=MULTIRUN", "+sweep=x", "dataset=egg"]
    ) == [
        "lr=1",
        "dataset=egg",
    ]
    assert launcher("hydra/launcher=submitit_slurm") == "hydra/launcher=cluster"
    assert launcher("dataset.root=submitit_local") == "dataset.root=submitit_local"


READY = sorted(path.stem for path in (Path(CONF) / "sweep").glob("*.yaml"))


@pytest.mark.parametrize("name", [name for name in READY if name != "search"])
def test_every_run_of_a_ready_sweep_composes(name):
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from gan_lightning.schema import validate

    with hydra.initialize_config_dir(CONF, version_base="1.3"):  # once: it reads every file once
        cfg = hydra.compose("config", [f"sweep={name}", "dataset=egg"], return_hydra_config=True)
        assert cfg.hydra.mode.name == "MULTIRUN"
        typed = [f"{key}={value}" for key, value in cfg.hydra.sweeper.params.items()]
        parsed = OverridesParser.create().parse_overrides(typed)
        (jobs,) = BasicSweeper.split_arguments(parsed, None)
        assert len(jobs) == {"lr_gamma": 9, "losses": 5, "seeds": 3}[name]
        for overrides in jobs:
            validate(hydra.compose("config", ["dataset=egg", "logger=none", *overrides]))


def test_the_search_needs_its_extra_and_says_so():
    pytest.importorskip("hydra")
    try:
        import hydra_plugins.hydra_optuna_sweeper  # noqa: F401
    except ImportError:
        with pytest.raises(Exception) as raised:
            compose("sweep=search")
        assert (
            explain(raised.value)
            == "hydra/sweeper=optuna needs an extra: pip install 'gan-lightning[search]'"
        )
    else:
        assert compose("sweep=search", "dataset=egg").hydra.sweeper.study_name == "egg"


def test_a_sweep_is_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    sweep.one_process()  # left over in the environment
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "there")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(UserError, match="start it as one process"):
        sweep.one_process()
