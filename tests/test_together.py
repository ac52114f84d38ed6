"""Who is who among several processes, what they are told, and what one of them notices."""

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from conftest import compose

from gan_lightning import augment, together
from gan_lightning.augment import Augment
from gan_lightning.errors import UserError
from gan_lightning.ranks import check_gpus, processes
from gan_lightning.strategy import environment, requeue
from gan_lightning.together import (
    Company,
    Place,
    arguments,
    find_place,
    restarted,
    slurm_run,
    take_place,
)

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "5",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "2",
    "WORLD_SIZE": "6",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "there",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_JOB_ID": "4217",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "gpu[07-08]",
}


@pytest.fixture
def env(monkeypatch):
    """Sets the environment to these variables and no others that matter here; company is gone afterwards."""
    monkeypatch.setattr(together, "company", None)

    def change(values):
        for name in [
            n
            for n in os.environ
            if n.startswith(("SLURM_", "MASTER_", "NODE_RANK", "LOCAL_RANK", "TORCHELASTIC"))
        ]:
            monkeypatch.delenv(name)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(
            "SLURM_NTASKS_PER_NODE", ""
        )  # so that what find_place sets is taken back
        monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
        return os.environ

    return change


def test_who_is_who(env):
    assert find_place(env({})) == Place()
    assert find_place(env(TORCHRUN)) == Place("torchrun", 5, 1, 2, 6, 2, "there", 29500)
    assert find_place(env(SLURM)) == Place("slurm", 3, 1, 1, 4, 2, "gpu07", 4217 + 15000)
    node = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "NODE_RANK": "1"}
    assert find_place(env(node)) == Place("nodes", 1, 0, 1, None, None, "a", 1)
    assert find_place(env(node | {"NODE_RANK": "0"})).rank == 0
    assert find_place(env(node | {"LOCAL_RANK": "1", "NODE_RANK": "0"})) == Place(
        "child", 1, 1, 0, None, None, "a", 1
    )
    assert find_place(env(TORCHRUN | SLURM)).kind == "torchrun"  # as with Lightning
    assert find_place(env(SLURM | {"SLURM_NTASKS": "1"})) == Place()
    assert find_place(env(SLURM | {"SLURM_JOB_NAME": "bash"})) == Place()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}, "put srun before python"),
        (SLURM | {"SLURM_NTASKS": "3"}, "--ntasks-per-node"),
        (SLURM | {"SLURM_NTASKS": "many"}, "SLURM_NTASKS=many"),
        ({k: v for k, v in TORCHRUN.items() if k != "RANK"}, "RANK= in the environment"),
    ],
)
def test_an_environment_that_does_not_fit(env, values, words):
    with pytest.raises(UserError, match=words):
        find_place(env(values))


def place_of(env, values, *overrides):
    env(values)
    place = find_place(os.environ)
    together.company = Company(place) if place.kind != "alone" else None
    cfg = compose("trainer.accelerator=cpu", *overrides)
    return take_place(cfg, list(overrides), on_gpu=False), cfg


def test_devices_follow_from_torchrun_and_slurm(env, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    place, cfg = place_of(env, TORCHRUN)
    assert (cfg.trainer.devices, cfg.trainer.num_nodes, place.rank, place.world) == (2, 3, 5, 6)
    place, cfg = place_of(env, SLURM, "trainer.devices=2")  # said once more is no contradiction
    assert (cfg.trainer.devices, cfg.trainer.num_nodes, place.rank, place.world) == (2, 2, 3, 4)
    node = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "NODE_RANK": "1"}
    place, cfg = place_of(env, node, "trainer.num_nodes=2", "trainer.devices=2")
    assert (place.rank, place.world, place.per_node) == (2, 4, 2)
    assert (
        place_of(env, node | {"LOCAL_RANK": "1"}, "trainer.num_nodes=2", "trainer.devices=2")[
            0
        ].rank
        == 3
    )
    assert place_of(env, {}, "trainer.devices=2")[0] == Place("alone", 0, 0, 0, 2, 2)


@pytest.mark.parametrize(
    ("values", "overrides", "words"),
    [
        (TORCHRUN, ["trainer.devices=4"], "trainer.devices=4: torchrun has started 2 here"),
        (TORCHRUN, ["trainer.num_nodes=2"], "trainer.num_nodes=2: torchrun has started 3"),
        (
            TORCHRUN | {"LOCAL_WORLD_SIZE": "6"},
            [],
            "--nproc_per_node=6: this machine has 4 cores.* 4 is the most",
        ),
        ({}, ["trainer.devices=5"], "trainer.devices=5: this machine has 4 cores"),
        (
            {},
            ["trainer.num_nodes=2"],
            "trainer.num_nodes=2 needs MASTER_ADDR, MASTER_PORT, NODE_RANK",
        ),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1"}, ["trainer.num_nodes=2"], "needs NODE_RANK in"),
        (
            {"MASTER_ADDR": "a", "MASTER_PORT": "1", "NODE_RANK": "2"},
            ["trainer.num_nodes=2"],
            "NODE_RANK=2 .* 0 to 1",
        ),
    ],
)
def test_a_command_line_that_does_not_fit(env, monkeypatch, values, overrides, words):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with pytest.raises(UserError, match=words):
        place_of(env, values, *overrides)


def test_slurm_names_the_folder_and_lightning_learns_who_starts_processes(env):
    env(SLURM)
    assert slurm_run(os.environ) == "slurm_4217_0" and not restarted(os.environ)
    assert restarted({"SLURM_RESTART_COUNT": "2"}) and not restarted({"SLURM_RESTART_COUNT": "0"})
    assert (
        slurm_run({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}) is None
    )  # its runs could not be told apart
    (slurm,) = environment(find_place(os.environ))
    assert slurm.creates_processes_externally and not slurm.auto_requeue
    (own,) = environment(Place(world=2))  # one task of SLURM's with two devices
    assert type(own).__name__ == "LightningEnvironment"
    env(SLURM | {"SLURM_NTASKS": "1"})
    assert arguments(["a=1"]) == [
        "a=1",
        "hydra.run.dir=logs/${hydra:runtime.choices.dataset}/slurm_4217_0",
    ]
    assert arguments(["hydra.run.dir=mine"]) == ["hydra.run.dir=mine"]
    env({})
    assert environment(Place()) == [] and arguments(["a=1"]) == ["a=1"]


def test_requeue_asks_scontrol(env, tmp_path, monkeypatch):
    env(SLURM)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no scontrol" in requeue()
    fake = tmp_path / "scontrol"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    fake.chmod(0o755)
    assert "job 4217 is back in SLURM's queue" in requeue()
    env(SLURM | {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "7"})
    assert "job 40_7 is back" in requeue()
    assert (tmp_path / "asked").read_text() == "requeue 4217\nrequeue 40_7\n"
    fake.write_text("#!/bin/sh\necho no such job >&2\nexit 3\n")
    assert "not requeued: no such job" in requeue()


# -- companies of this process's threads -------------------------------------------------------------------------------


@pytest.fixture
def pair(monkeypatch):
    """Process 0 and process 1 of 2, at one store."""
    monkeypatch.setattr(together, "GRACE", 10**6)  # nothing here ends this process
    server = torch.distributed.TCPStore(
        "127.0.0.1",
        0,
        is_master=True,
        timeout=timedelta(seconds=20),
        wait_for_workers=False,
        multi_tenant=True,
    )
    places = [Place("torchrun", rank, rank, 0, 2, 2, "127.0.0.1", server.port) for rank in (0, 1)]
    companies = [Company(place, ["seed=1"], every=0.05) for place in places]
    for company in companies:
        company.open()
    yield companies
    for company in companies:
        company.sign["state"] = "done"


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def test_process_0_decides_and_goes_first(pair, tmp_path):
    first, second = pair
    first.tell(tmp_path / "run")
    assert second.hear() == {"folder": str(tmp_path / "run"), "typed": ["seed=1"]}
    order = []

    def wait():
        with second.first():
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    with first.first():
        time.sleep(0.1)
        order.append("first")
    thread.join(timeout=20)
    assert order == ["first", "second"]


def test_one_that_is_gone_is_named(pair, capfd):
    first, second = pair
    ended = subprocess.Popen(["true"])
    ended.wait()
    second.sign["pid"] = ended.pid
    second._say(second.store)
    first.watch()
    until(lambda: first.over)
    assert first.over.startswith(
        f"process 1 of 2 (process id {ended.pid} on "
    ) and first.over.endswith("has died")
    assert (
        first.blame(RuntimeError("Connection closed by peer")) == first.over
        and first.speaker
        and not second.speaker
    )


def test_one_that_fails_is_quoted_and_silent(pair):
    first, second = pair
    first._say(first.store)
    until(
        lambda: second._read(second.store, [0])
    )  # a store's `set` returns before the store has it
    assert second.leave("its disk is full") is False  # process 0 says it
    first.watch()
    until(lambda: first.over)
    assert first.over.endswith(": its disk is full") and first.over.startswith("process 1 of 2 (")


def test_one_that_is_silent_for_too_long(pair):
    first, _ = pair
    sign = {"host": "elsewhere", "pid": 1, "state": "training", "text": ""}
    assert first._why_lost(1, sign, together.BEATS) == ""
    assert "has given no sign of life for 21 seconds" in first._why_lost(
        1, sign, together.BEATS + 1
    )
    assert first._why_lost(1, sign | {"state": "done"}, 1000) == ""


def test_leaving_in_good_order_alarms_nobody(pair):
    first, second = pair
    for company in pair:
        company.watch()
    until(lambda: first.seen and second.seen)
    assert second.leave() and first.leave()
    assert not first.over and not second.over
    assert first.blame(ValueError("an error of its own")) == ""


def test_no_process_0(monkeypatch):
    monkeypatch.setenv("GAN_LIGHTNING_WAIT", "0.2")
    with pytest.raises(
        UserError, match="no process 0 at 127.0.0.1:9 after . seconds.*start the first node"
    ):
        Company(Place("nodes", 1, 0, 1, None, None, "127.0.0.1", 9)).open()


@pytest.mark.parametrize("devices", [3, "3", [0, 2], "0,2", "2,", [5]])
def test_more_gpus_than_there_are_is_one_line(devices):
    with pytest.raises(UserError, match=r"trainer.devices=.* torch sees 2 GPUs here"):
        check_gpus("trainer.devices", devices, 2)


@pytest.mark.parametrize("devices", [1, 2, "2", [0, 1], "0,1", "1,", -1, "-1", "auto"])
def test_as_many_gpus_as_there_are_pass(devices):
    check_gpus("trainer.devices", devices, 2)
    assert processes(devices, on_gpu=False) == {"[1]": 1, "1": 1, "1,": 1, "-1": 1, "auto": 1}.get(str(devices), 2)  # fmt: skip


# -- the same mathematics ----------------------------------------------------------------------------------------------


def test_adas_strength_follows_all_processes(monkeypatch):
    logits = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0])  # mean sign of all: 0
    alone, of_all = (Augment(["flip"], p=0.5, ada_target=0.6, ada_kimg=1) for _ in range(2))
    alone.adapt(logits[:4], 8)
    others = torch.sign(logits[4:]).mean()
    monkeypatch.setattr(augment, "mean_over_processes", lambda mean: (mean + others) / 2)
    of_all.adapt(logits[:4], 8)
    assert float(alone.p) == pytest.approx(0.508) and float(of_all.p) == pytest.approx(0.492)


def test_two_times_32_are_64():
    """One case of benchmarks/two_as_one.py, which has them all: weights, lazy R1, ADA's strength, LeCam's averages."""
    name = "dcgan, ADA, LeCam"
    case = [sys.executable, "-m", "benchmarks.two_as_one", "--only", name]
    assert subprocess.run(case, cwd=Path(__file__).parent.parent, timeout=120).returncode == 0
