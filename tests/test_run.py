"""Whole runs: what they leave behind, stopping and going on, several processes, sweeps, mistakes."""

import csv
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning import interrupt
from gan_lightning.entry import in_words
from gan_lightning.errors import UserError

ROOT = Path(__file__).parent.parent
# small networks with everything in them that has a state: dropout, BatchNorm, EMA, ADA, a lazy penalty, LeCam
TINY = [
    "dataset=folder", "dataset.image_size=16", "dataset.batch_size=8", "metrics=none", "diagnosis=off", "latent_dim=8", "console.every_steps=0",
    "network.generator.channels=16", "network.generator.min_channels=8", "network.discriminator.channels=16",
    "network.discriminator.min_channels=8", "augment=ada", "loss.gamma=0.1", "loss.penalty_every=2", "loss.lecam_weight=0.1",
    "trainer.log_every_n_steps=2", "observer.max_fraction=99",
]  # fmt: skip


def weights(path: Path) -> dict:
    return torch.load(path / "checkpoints/last.ckpt", weights_only=True)


def assert_same(a: dict, b: dict) -> None:
    assert (a["nimg"], a["step"]) == (b["nimg"], b["step"])
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name
    for one, other in zip(a["optimizer_states"], b["optimizer_states"], strict=True):
        for k, state in one["state"].items():
            assert all(torch.equal(value, other["state"][k][name]) for name, value in state.items())
    assert torch.equal(a["random"][0]["torch"], b["random"][0]["torch"])


@pytest.fixture
def tiny(train_run, photos):
    return lambda name, *more: train_run(name, *TINY, f"dataset.root={photos}", *more)[0]


@pytest.mark.parametrize(
    "stop", [0.032, 0.072, 0.104], ids=["mid-epoch", "epoch-end", "second-epoch"]
)
def test_stopping_and_going_on_is_never_having_stopped(tiny, stop):
    """72 training images in batches of 8 are 9 steps an epoch; weights, optimisers and random states agree to the bit."""
    whole = tiny("whole", "trainer.max_epochs=2")
    tiny("first", f"total_kimg={stop}", "trainer.max_epochs=2")
    stopped = weights(whole.parent / "first")
    assert stopped["nimg"] == stop * 1000
    rest = tiny(
        "rest", f"ckpt_path={whole.parent}/first/checkpoints/last.ckpt", "trainer.max_epochs=2"
    )
    assert weights(rest)["nimg"] == 144
    assert_same(weights(whole), weights(rest))


def test_a_finished_run_goes_on_with_more_epochs(tiny):
    whole = tiny("whole", "trainer.max_epochs=2")
    tiny("first", "trainer.max_epochs=1")
    rest = tiny(
        "rest", f"ckpt_path={whole.parent}/first/checkpoints/last.ckpt", "trainer.max_epochs=2"
    )
    assert_same(weights(whole), weights(rest))


def test_going_on_with_new_settings(tiny):
    """The configuration's learning rate wins over the checkpoint's, and the average may be new."""
    first = tiny("first", "total_kimg=0.04", "ema.halflife_kimg=0", "augment=none")
    rest = tiny(
        "rest",
        f"ckpt_path={first}/checkpoints/last.ckpt",
        "total_kimg=0.048",
        "optimizer_g.lr=0.1",
        "lr=0.5",  # typed last, it sets both
        "optimizer_d.betas=[0.5,0.9]",
    )
    group = weights(rest)["optimizer_states"][1]["param_groups"][0]
    assert weights(rest)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5
    assert group["lr"] == 0.5 and tuple(group["betas"]) == (0.5, 0.9)
    assert any(name.startswith("generator_ema") for name in weights(rest)["state_dict"])


def test_going_on_without_the_classes_says_how(train_run, tmp_path, photos):
    for name in "ab":
        (tmp_path / "classes" / name).mkdir(parents=True)
    for k, path in enumerate(sorted(photos.glob("*.png"))):
        (tmp_path / "classes" / "ab"[k % 2] / path.name).write_bytes(path.read_bytes())
    settings = [*TINY, f"dataset.root={tmp_path}/classes", "dataset.labels=true"]
    first, _ = train_run("first", *settings, "conditional=true", "total_kimg=0.016")
    with pytest.raises(UserError, match="add conditional=true to the command"):
        train_run("rest", *settings, f"ckpt_path={first}/checkpoints/last.ckpt", "total_kimg=0.032")


def test_a_schedule_ends_with_the_epochs_and_lines_come_before_the_first_generator_step(
    tiny, capsys
):
    run = tiny(
        "run",
        "trainer.max_epochs=2",
        "schedule.lr_final=0.1",
        "n_critic=5",
        "console.every_steps=1",
    )
    state = weights(run)
    images = 2 * 9 * 8  # 72 training images of 80
    last = 0.1 + 0.9 * (1 + math.cos(math.pi * (images - 8) / images)) / 2
    assert state["nimg"] == images
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(5e-4 * last)
    said = [line for line in capsys.readouterr().out.splitlines() if "g_loss" in line]
    assert len(said) == 18 and "g_loss nan" in said[0] and "g_loss nan" not in said[4]


def test_the_line_counts_steps(tiny, capsys):
    tiny("run", "trainer.max_epochs=1", "console.every_steps=4")
    said = [
        line.split("step ")[1].split()[0]
        for line in capsys.readouterr().out.splitlines()
        if "g_loss" in line
    ]
    assert said == ["4/9", "8/9"]


def test_a_schedule_knows_of_epochs_cut_short(tiny):
    state = weights(
        tiny(
            "run", "trainer.max_epochs=2", "trainer.limit_train_batches=3", "schedule.lr_final=0.1"
        )
    )
    last = 0.1 + 0.9 * (1 + math.cos(math.pi * 5 / 6)) / 2  # the last of 2 x 3 steps
    assert state["nimg"] == 48
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(5e-4 * last)


def test_what_a_run_leaves_behind(tiny):
    run = tiny("run", "total_kimg=0.16", "observer.every_kimg=0.04", "checkpoints.every_kimg=0.08")
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "csv/metrics.csv",
        "checkpoints/last.ckpt",
        "images/real_images.png",
        "images/training.gif",
    } <= names
    assert {
        "checkpoints/kimg_000000.080.ckpt",
        "checkpoints/kimg_000000.160.ckpt",
        "images/fake_images_kimg_000000.120.png",
    } <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not [name for name in names if "partial" in name]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {  # no pane for rates and augmentation, which stand still
        "3 losses/d",
        "3 losses/g",
        "3 losses/r1",
        "3 losses/lecam",
        "4 discriminator/real",
        "4 discriminator/fake",
        "5 gradients/d",
        "5 gradients/g",
    }
    assert set(tags["images"]) == {"1 pictures/real", "1 pictures/generated"}
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    steps = list(range(16, 161, 16))  # every 2 steps of 8 images
    assert [event.step for event in events.Scalars("3 losses/d")] == steps
    with open(
        run / "csv/metrics.csv", newline=""
    ) as file:  # which has all, under the keys of the code
        rows = list(csv.DictReader(file))
    assert {"loss/d", "score/real", "lr/g", "augment/p", "grad_norm/d"} <= set(rows[0])
    kimg = [float(row["progress/kimg"]) for row in rows if row["progress/kimg"]]
    assert kimg == pytest.approx([step / 1000 for step in steps])


def test_the_notes_files(train_run, tmp_path):
    """After every epoch a grid, D's probabilities as an 8 x 8 array, and at the end the animation."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for k in range(70):
        Image.fromarray(np.full((28, 28), k, np.uint8)).save(folder / f"{k}.png")
    run, _ = train_run(
        "run", "experiment=vanilla_mnist", "dataset=folder", f"dataset.root={folder}", "dataset.image_size=28",
        "dataset.image_channels=1", "dataset.batch_size=32", "dataset.drop_last=false", "dataset.holdout=0",
        "trainer.max_epochs=2", "metrics=none", "diagnosis=off",
    )  # fmt: skip
    for epoch in (1, 2):
        outputs = np.load(run / f"results/discriminator_outputs_epoch_{epoch:04d}.npy")
        assert outputs.shape == (8, 8) and (outputs > 0).all() and (outputs < 1).all()
        assert Image.open(run / f"images/fake_images_epoch_{epoch:04d}.png").size == (
            8 * 30 + 2,
            8 * 30 + 2,
        )
    with Image.open(run / "images/training.gif") as animation:
        assert animation.n_frames == 2
    assert weights(run)["nimg"] == 140  # the last, smaller batches count


def test_an_epoch_that_was_cut_short_has_no_picture_but_the_run_has(train_run, photos):
    run, _ = train_run(
        "run",
        *TINY,
        f"dataset.root={photos}",
        "observer.every_kimg=0",
        "total_kimg=0.032",
        "trainer.max_epochs=2",
    )
    assert [path.name for path in (run / "images").glob("fake_images_*")] == [
        "fake_images_kimg_000000.032.png"
    ]


@pytest.mark.parametrize(
    "limit", ["total_kimg=0.04", "trainer.max_epochs=1", "trainer.max_time=00:00:00:02"]
)
def test_the_bar_in_a_terminal(tiny, limit, monkeypatch, capsys):
    """Every way to end a run, with the bar that only a terminal shows."""
    from functools import partial

    from gan_lightning import callbacks

    monkeypatch.setattr(
        callbacks, "Console", partial(callbacks.Console, force_terminal=True, width=120)
    )
    run = tiny("run", limit)
    out = capsys.readouterr().out
    shown = weights(run)["nimg"]
    aims = {"total_kimg=0.04": " of 40", "trainer.max_epochs=1": " of 72"}
    assert f"{shown:,}{aims.get(limit, '')} images  " in out and "/s" in out
    # no lines of losses beside a bar, unless asked for
    assert "d_loss" not in out


def test_max_time_ends_mid_epoch_and_going_on_has_its_time_again(tiny):
    first = tiny("first", "trainer.max_time=00:00:00:01", "trainer.max_epochs=10000")
    shown = weights(first)["nimg"]
    rest = tiny(
        "rest",
        f"ckpt_path={first}/checkpoints/last.ckpt",
        "trainer.max_time=00:00:00:01",
        "trainer.max_epochs=10000",
    )
    assert 0 < shown < weights(rest)["nimg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("latent_dim=9", "add latent_dim=8"),
        ("dataset.image_size=32", "add dataset.image_size=16"),
        ("network=mlp", "same network"),
    ],
)
def test_a_checkpoint_that_does_not_fit(tiny, change, words):
    from gan_lightning.errors import UserError

    first = tiny("first", "total_kimg=0.016")
    drop = [o for o in TINY if change == "network=mlp" and o.startswith("network.")]
    assert bool(drop) == (change == "network=mlp")
    more = [change] if not drop else ["network.generator.channels=24"]
    with pytest.raises(UserError, match=words):
        tiny("rest", f"ckpt_path={first}/checkpoints/last.ckpt", *more)


def test_conditional(tmp_path, train_run):
    for name in ("a", "b", "c"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for k in range(8):
            pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "classes" / name / f"{k}{name}.png")
    root = [f"dataset.root={tmp_path}/classes", "dataset.holdout=0"]
    run, _ = train_run(
        "run", *TINY, *root, "dataset.labels=true", "conditional=true", "total_kimg=0.04"
    )
    assert weights(run)["config"]["num_classes"] == 3
    assert any(name.startswith("discriminator.head.classes") for name in weights(run)["state_dict"])


# -- as a user types it ------------------------------------------------------------------------------------------


def launch(*overrides: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | (env or {})
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides], cwd=cwd, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def typed(*overrides: str, cwd: Path) -> tuple[int, str, str]:
    process = launch(*overrides, cwd=cwd)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def interrupted(number: signal.Signals, *overrides: str, cwd: Path) -> tuple[int, str, str]:
    """A long run of the tiny networks that gets a signal once it trains."""
    process = launch(
        *overrides,
        *TINY,
        "trainer.accelerator=cpu",
        "total_kimg=1000",
        "console.every_steps=1",
        cwd=cwd,
    )
    for line in process.stdout:
        if "d_loss" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one process per core")
@pytest.mark.parametrize("start", ["devices", "nodes"])
def test_two_processes(start, photos, tmp_path):
    """One folder, one set of files, one process that speaks, equal weights at the end (the run compares them itself)."""
    command = [*TINY, f"dataset.root={photos}", "trainer.accelerator=cpu", "total_kimg=0.096"]
    if start == "devices":
        code, out, err = typed(
            *command, "trainer.devices=2", "hydra.run.dir=logs/folder/run", cwd=tmp_path
        )
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        nodes = [
            launch(
                *command, "trainer.num_nodes=2", cwd=tmp_path, env=meeting | {"NODE_RANK": str(k)}
            )
            for k in (1, 0)
        ]
        silent, (out, err) = (process.communicate(timeout=240) for process in nodes)
        code = max(process.returncode for process in nodes)
        assert silent == ("", "")
    assert code == 0, err
    assert "2 processes hold equal weights" in out and out.count("effort:") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "logs"]
    (run,) = (tmp_path / "logs" / "folder").iterdir()
    assert len(list((run / "tensorboard").glob("events*"))) == 1
    assert [path.name for path in run.glob("*.log")] == []
    saved = weights(run)
    assert saved["nimg"] == 96 and saved["step"] == 6 and len(saved["random"]) == 2
    assert not torch.equal(
        saved["random"][0]["torch"], saved["random"][1]["torch"]
    )  # noise of one's own


def test_sigterm_to_a_sweep_reaches_its_job(photos, tmp_path):
    """The job ends in good order, with its checkpoint, and no further one begins."""
    sweep = ["-m", "seed=1,2", "hydra.sweep.dir=sweep"]
    code, _, err = interrupted(signal.SIGTERM, *sweep, f"dataset.root={photos}", cwd=tmp_path)
    assert code == 143 and "Traceback" not in err
    assert weights(tmp_path / "sweep" / "0")["step"] > 0
    assert not (tmp_path / "sweep" / "1").exists()


def test_a_sweep_leaves_one_folder_per_job(photos, tmp_path):
    code, out, err = typed(
        "-m",
        *TINY,
        f"dataset.root={photos}",
        "seed=1,2",
        "trainer.accelerator=cpu",
        "total_kimg=0.016",
        "hydra.sweep.dir=sweep",
        cwd=tmp_path,
    )
    assert code == 0, err
    for job in "01":
        assert json.loads((tmp_path / "sweep" / job / "result.json").read_text())["nimg"] == 16


def test_ctrl_c_ends_in_good_order(photos, tmp_path):
    code, out, err = interrupted(
        signal.SIGINT, f"dataset.root={photos}", "hydra.run.dir=run", cwd=tmp_path
    )
    assert code == 130 and "Traceback" not in err
    assert "tensorboard" in out and "stopped by Ctrl-C" in out
    assert weights(tmp_path / "run")["step"] > 0


def test_three_photographs_are_too_few(train_run, photos, tmp_path):
    (tmp_path / "three").mkdir()
    for photo in sorted(photos.iterdir())[:3]:
        shutil.copy(photo, tmp_path / "three")
    with pytest.raises(UserError, match="^three: 3 images are too few to learn from: 50 or more"):
        train_run("run", *TINY, f"dataset.root={tmp_path / 'three'}")


# what only the hardware, the data or a library can tell; all others are in test_mistakes.py
MISTAKES = [
    ([f"ckpt_path={__file__}"], "refused|cannot be read"),
    (["trainer.accelerator=gpu"], "trainer.accelerator=gpu: torch sees no GPU"),
    (["+optimizer_g.weight_decya=1"], "weight_decya"),
    (["network.generator._target_=gan_lightning.networks.dcgan.Genrator"], "Genrator"),
    (["conditional=true"], "conditional=true needs class labels"),
    (["dataset.batch_size=1000"], "dataset.batch_size=1000 is larger than the 72 training images"),
    (["dataset.root={empty}"], "holds no usable image"),
]


@pytest.mark.parametrize(("overrides", "words"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_no_run(
    overrides, words, photos, tmp_path, monkeypatch, capsys
):
    """The same path as `python train.py`, in this process."""
    if "trainer.accelerator=gpu" in overrides and torch.cuda.is_available():
        pytest.skip("no mistake where there is a GPU")
    import re
    import runpy

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    data = [
        "dataset=folder",
        f"dataset.root={photos}",
        "dataset.image_size=16",
        "metrics=none",
        "dataset.cache_dir=cache",
    ]
    overrides = [one.format(empty=tmp_path / "empty") for one in overrides]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), *data, *overrides])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(interrupt, "install", lambda: None)  # the signals stay pytest's
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("INFO")]
    assert end.value.code == 1
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert re.search(words, lines[0]), lines[0]
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts]
    assert all(
        "data_check" in path.parts
        for path in left
        if ".hydra" not in path.parts and path.suffix != ".log"
    ), left
    assert bool(left) == any(
        "data_check" in path.parts for path in left
    )  # the check is worth keeping, nothing else is
    assert left or not (tmp_path / "logs").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_was_there_stays(there, tmp_path, monkeypatch):
    import runpy

    (tmp_path / "empty").mkdir()
    if there:
        (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    command = ["train.py", "dataset=folder", "dataset.root=empty", "hydra.run.dir=runs/mine"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == (
        ["empty", "runs", "runs/mine"] if there else ["empty"]
    )


def test_a_stack_trace_on_demand(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("GAN_LIGHTNING_GUARDED", raising=False)
    with pytest.raises(UserError, match="mine"), in_words():
        raise UserError("mine")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["network.generator.upsample=magic"], "upsample=magic"),
        (["dataset.image_size=30"], "image_size=30 .*nearest are 28 and 32"),
    ],
)
def test_a_mistake_that_only_the_data_shows(tiny, overrides, words):
    from hydra.errors import InstantiationException

    from gan_lightning.commandline import explain
    from gan_lightning.errors import UserError

    with pytest.raises((UserError, InstantiationException)) as raised:
        tiny("run", *overrides)
    import re

    line = str(raised.value) if isinstance(raised.value, UserError) else explain(raised.value)
    assert "\n" not in line and re.search(words, line), line


def test_help_is_quick_and_light():
    """No heavy import: --help has to answer at once."""
    for command in ([str(ROOT / "train.py"), "--help"], ["-m", "gan_lightning", "--help"]):
        code = "import sys; sys.argv = sys.argv[1:]; import runpy\n"
        code += "try: runpy.run_module('gan_lightning', run_name='__main__') if sys.argv[0] == '-m' else runpy.run_path(sys.argv[0], run_name='__main__')\n"
        code += "except SystemExit: pass\n"
        code += "print('HEAVY', sorted({'torch', 'torchvision', 'lightning', 'numpy'} & set(sys.modules)))"
        out = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=60
        ).stdout
        assert out.rstrip().endswith("HEAVY []"), out[-500:]
