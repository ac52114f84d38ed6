"""The callback on real, tiny runs: what it writes, that it changes nothing, that it stops what cannot go on."""

import copy
import json
import math
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from pooled import Pooled
from torch import nn
from torch.utils.data import DataLoader

from gan_lightning.data.images import to_float
from gan_lightning.diagnosis import watch as watch_module
from gan_lightning.diagnosis.findings import Finding
from gan_lightning.diagnosis.watch import TrainingDiverged, Watch
from gan_lightning.ema import EMA
from gan_lightning.errors import UserError
from gan_lightning.gan import GAN
from gan_lightning.losses import BCE
from gan_lightning.networks import dcgan
from gan_lightning.observer import EARLY, Observer

CONF = yaml.safe_load(
    (Path(__file__).parents[1] / "conf" / "diagnosis" / "default.yaml").read_text()
)
THRESHOLDS: dict = {}  # but the rules' own
SIZE = 16


def blobs(count, seed, classes=4):
    """Images with one bright square at one of four places: (uint8 (N, 1, 16, 16), labels)."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 60, (count, 1, SIZE, SIZE), generator=draw)
    for i, label in enumerate(labels.tolist()):
        y, x = divmod(label, 2)
        dy, dx = torch.randint(0, 3, (2,), generator=draw).tolist()
        images[i, 0, 8 * y + dy : 8 * y + dy + 5, 8 * x + dx : 8 * x + dx + 5] += 180
    return images.to(torch.uint8), labels


class Blobs(L.LightningDataModule):
    name, batch_size, num_classes = "blobs", 8, 4

    def __init__(self, scale=True, holdout=100, count=200):
        super().__init__()
        self.scale = scale
        self.train_images, self.train_labels = blobs(count, 0)
        self.holdout_images, self.holdout_labels = blobs(holdout, 1) if holdout else (None, None)

    def train_dataloader(self):
        rows = torch.utils.data.TensorDataset(self.train_images, self.train_labels)
        return DataLoader(rows, batch_size=self.batch_size, shuffle=True, drop_last=True)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, labels = batch
        return to_float(images) if self.scale else images / 255, labels


class StopAt(L.Callback):
    def __init__(self, step, do=None):
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer, pl_module, *args):
        if pl_module.step == self.step:
            if self.do:
                self.do(pl_module)
            else:
                trainer.should_stop = True


def gan(**settings):
    torch.manual_seed(0)
    adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99))
    small = {"image_size": SIZE, "image_channels": 1, "channels": 8, "min_channels": 8}
    config = {
        "latent_dim": 8,
        "overrides": ["dataset=egg"],
        "dataset": {"batch_size": 8},
        "diagnosis": CONF,
    }
    networks = (
        dcgan.Generator(latent_dim=8, **small),
        nn.Sequential(nn.Dropout(0.1), dcgan.Discriminator(**small)),
    )
    return GAN(*networks, BCE(), adam, adam, latent_dim=8, ema=EMA(0.1), config=config, **settings)


def fit(folder, *callbacks, data=None, module=None, steps=60):
    module = module or gan()
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, log_every_n_steps=5, callbacks=[*callbacks, StopAt(steps)],
    )  # fmt: skip
    trainer.fit(module, datamodule=data or Blobs())
    return module


def observer(max_fraction=99.0, every_kimg=0.16, **settings):
    """The observer with a diagnosis alone, and that diagnosis."""
    doctor = Watch(THRESHOLDS, light_every=10, **settings)
    taken = Observer(every_kimg, max_fraction, diagnosis=doctor, features=Pooled())
    return taken, doctor


def watch(**settings):
    return observer(**settings)[0]


def lines(folder):
    return [json.loads(line) for line in (Path(folder) / "signals.jsonl").read_text().splitlines()]


def test_a_run_is_written_down_and_ends_with_a_verdict(tmp_path, capsys):
    fit(tmp_path, watch())
    facts, *records = lines(tmp_path)
    seen = next(r for r in records if "seen_apart" in r)
    records.remove(seen)
    assert seen["kind"] == "facts" and seen["seen_apart"] < 1.5 * seen["seen_chance"] < 0.1
    assert facts["kind"] == "facts" and facts["batchnorm_g"]
    assert (facts["n_train"], facts["n_holdout"]) == (200, 100)
    assert records.pop() == {"kind": "facts", "ended": True}
    steps = [r["step"] for r in records]
    assert steps == sorted(steps) and [r["nimg"] for r in records] == [8 * step for step in steps]
    full = [r for r in records if r["kind"] == "full"]
    assert {r["step"] for r in full} == {20, 25, 40, 50, 60}
    for name in ("quality", "quality_ema", "diversity", "coverage", "auc_train", "auc_heldout",
                 "r_v", "mode_gap", "nyquist_fake", "copy_ratio", "modes_missing", "travel",
                 "grad_norm_g", "update_ratio_d", "time_fraction", "loss_d", "score_real"):  # fmt: skip
        assert math.isfinite(full[-1][name]), name
    verdict = json.loads((tmp_path / "diagnosis.json").read_text())
    assert {"verdict", "checks_passed", "findings"} <= set(verdict)
    assert verdict["summary"] in capsys.readouterr().out
    assert verdict["summary"] in (tmp_path / "diagnosis.md").read_text()


def test_watching_changes_nothing(tmp_path):
    watched, alone = fit(tmp_path / "a", watch()), fit(tmp_path / "b")
    for (name, a), b in zip(watched.state_dict().items(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [p.training for p in watched.modules()] == [p.training for p in alone.modules()]


def test_its_memory_goes_through_a_safe_checkpoint(tmp_path):
    taken, doctor = observer()
    fit(tmp_path, taken)
    torch.save(taken.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again, memory = observer()
    again.load_state_dict(state)
    assert memory.records == doctor.records and memory.memory == doctor.memory
    assert again.budget.spent == pytest.approx(taken.budget.spent)
    fit(tmp_path / "resumed", again, steps=10)
    rest = lines(tmp_path / "resumed")[1:4]
    assert [r["step"] for r in rest] == [r["step"] for r in doctor.records[:3]]


@pytest.mark.parametrize("other", [False, True])
def test_what_was_seen_of_other_data_is_forgotten(tmp_path, other):
    (one, first), (two, second) = observer(), observer()
    fit(tmp_path / "first", one)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    data = Blobs()
    if other:
        data.content_hash = "other"
        two.cache_dir = tmp_path / "cache"
        # of another size and with three modes
        second.memory = {"mean": first.memory["mean"][1:], "counts": [[1.0, 2.0, 3.0]]}
    fit(tmp_path / "second", two, data=data, steps=30)
    new = next(r for r in second.records[len(first.records) :] if r["kind"] == "full")
    assert ("travel" in new) is not other


def test_thinning_keeps_looks_of_both_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr("gan_lightning.diagnosis.watch.KEPT", 6)
    taken, doctor = observer(every_kimg=0.016)
    doctor.light_every = 1
    fit(tmp_path, taken, steps=60)
    for kind in ("light", "full"):
        steps = [r["step"] for r in doctor.records if r["kind"] == kind]
        assert 3 <= len(steps) <= 7 and steps[0] < 5 and steps == sorted(steps), (kind, steps)


def test_without_time_there_is_one_look_at_the_end(tmp_path):
    taken, doctor = observer(max_fraction=0.0)
    fit(tmp_path, taken, steps=130)
    assert [r["step"] for r in doctor.records if r["kind"] == "full"] == [130]
    light = sorted({*range(10, 131, 10), *(early for early in EARLY if early <= 130)})
    at_cadence = {20 * k for k in range(1, 7)}
    assert sorted({r["step"] for r in doctor.records}) == sorted({*light, *at_cadence})
    assert all(r["time_fraction"] > 0 for r in doctor.records)


# one step passes before an infinite pixel weight shows in a loss: tanh hides it until its gradient has spread
@pytest.mark.parametrize(
    "where,step", [("generator.layers.10.weight", 35), ("discriminator.1.head.linear.weight", 34)]
)
def test_a_number_that_is_none_ends_the_run_with_its_name(tmp_path, where, step):
    def poison(module):
        dict(module.named_parameters())[where].data.view(-1)[0] = math.inf

    with pytest.raises(TrainingDiverged, match=f"step {step} ") as error:
        fit(tmp_path, StopAt(33, poison), watch())
    assert (
        isinstance(error.value, UserError)
        and "loss/d" in str(error.value)
        and "\n" not in str(error.value)
    )
    verdict = json.loads((tmp_path / "diagnosis.json").read_text())
    assert verdict["verdict"] == "fatal"
    (found,) = [f for f in verdict["findings"] if f["severity"] == "fatal"]
    assert found["name"] == "divergence" and found["evidence"]["step"] == step and found["override"]


def test_a_bad_weight_is_found_before_it_spreads_at_a_snapshot(tmp_path):
    with pytest.raises(
        TrainingDiverged, match="generator.layers.0.weight is not finite at step 30"
    ):
        fit(
            tmp_path,
            StopAt(30, lambda m: m.generator.layers[0].weight.data.view(-1)[:1].fill_(math.inf)),
            watch(),
        )


def test_stopping_can_be_turned_off(tmp_path):
    poison = StopAt(30, lambda m: m.generator.layers[0].weight.data.fill_(math.nan))
    fit(tmp_path, poison, watch(stop_on_fatal=False), steps=40)
    assert json.loads((tmp_path / "diagnosis.json").read_text())["verdict"] == "fatal"


def test_ctrl_c_gives_the_verdict_too(tmp_path, capsys):
    def interrupt(module):
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, watch(), StopAt(55, interrupt))
        raise KeyboardInterrupt  # Lightning may end the fit in peace
    verdict = json.loads((tmp_path / "diagnosis.json").read_text())
    assert verdict["kimg"] == 0.4 and verdict["summary"] in capsys.readouterr().out


def test_a_fault_of_the_data_is_said_before_the_first_step(tmp_path, capsys):
    fit(tmp_path, watch(), data=Blobs(scale=False), steps=5)
    out = capsys.readouterr().out
    assert out.count("before the start: The training pixels are not what they should be.") == 1
    verdict = json.loads((tmp_path / "diagnosis.json").read_text())
    assert verdict["verdict"] == "fault" and verdict["findings"][0]["name"] == "wrong_range"


class Altered(Blobs):
    """Something in front of the networks that nobody wrote down."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        return self.change(images), labels


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.roll(4, 3),
        lambda x: torch.nn.functional.avg_pool2d(x, 5, 1, 2),
        lambda x: torch.cat([x[:, :, :8], 0 * x[:, :, 8:]], 2),
    ],
    ids=["shifted", "blurred", "cut"],
)
def test_images_that_are_altered_on_the_way(tmp_path, change):
    fit(tmp_path, watch(), data=Altered(change))
    found = json.loads((tmp_path / "diagnosis.json").read_text())["findings"][0]
    assert found["name"] == "altered_images" and found["override"].startswith("dataset._target_=")
    assert found["evidence"]["distance_to_stored"] > 2 * found["evidence"]["distance_by_chance"]


def test_mirrored_images_are_stored_ones_where_mirroring_was_asked_for(tmp_path):
    data = Altered(
        lambda x: torch.where(torch.arange(len(x))[:, None, None, None] % 2 == 0, x, x.flip(-1))
    )
    data.train_images[:, :, :, 8:] = 0  # what is there lies on the left, and mirroring shows
    for data.flip, found in ((True, False), (False, True)):
        fit(tmp_path / str(found), watch(), data=data)
        verdict = json.loads((tmp_path / str(found) / "diagnosis.json").read_text())
        assert ("altered_images" in [f["name"] for f in verdict["findings"]]) is found


def test_without_a_held_out_slice(tmp_path):
    fit(tmp_path, watch(), data=Blobs(holdout=0), steps=30)
    verdict = json.loads((tmp_path / "diagnosis.json").read_text())
    assert {"d_overfits", "copies_photos"} <= set(verdict["checks_off"])
    assert "holdout_off" in [r["name"] for r in verdict["remarks"]]


def test_a_change_in_the_findings_is_said_once(tmp_path, capsys, monkeypatch):
    def script(history, thresholds):
        step = history.records[-1]["step"]
        return (
            [Finding("oscillation", "fault", 0.5, 1.0, {}, "loss.gamma=1", resolved=step >= 60)]
            if step >= 50
            else []
        )

    monkeypatch.setattr(watch_module, "diagnose", script)
    fit(tmp_path, watch(language="ko"), steps=100)
    out = [
        line for line in capsys.readouterr().out.splitlines() if "kimg" in line and "제자리" in line
    ]
    assert (
        len(out) == 2
        and "새로 발견" in out[0]
        and "[loss.gamma=1]" in out[0]
        and "해결됨" in out[1]
    )


def test_language_is_checked():
    with pytest.raises(UserError, match="diagnosis.language=fr"):
        Watch(THRESHOLDS, language="fr")
