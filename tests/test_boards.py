"""What people see on a board: the panes, the table of runs, the projector; and other trackers where they are installed."""

import json
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

from gan_lightning import boards
from gan_lightning.errors import UserError
from gan_lightning.loggers import MLflow, TensorBoard, Trackio, Wandb

VALUES = {
    "loss/d": 1.0,
    "score/real": 2.0,
    "progress/kimg": 3.0,
    "signal/loss_d": 1.0,
    "signal/coverage": 0.5,
}
PICTURE = torch.arange(3 * 20 * 20).reshape(3, 20, 20).to(torch.uint8)


def test_what_matters_comes_first_and_nothing_twice():
    scores = {"metric/frechet_lite2_2k": 100.0, "metric/frechet_lite2_2k_floor": 30.0}
    scores |= {"metric/recall_lite2_2k": 0.5, "metric/recall_lite2_2k_floor": 0.9}
    assert boards.panes(VALUES | scores) == {
        "3 losses/d": 1.0,
        "4 discriminator/real": 2.0,
        "8 signals/coverage": 0.5,
        "2 scores/above_real_frechet_lite2": 70.0,  # 100 - 30
        "2 scores/recall_lite2": 0.5,
    }
    assert boards.panes({"mine": 1.0, "my/own": 2.0}) == {"mine": 1.0, "my/own": 2.0}
    assert sorted(boards.panes(VALUES | scores))[0].startswith("2 scores/above_real")


def test_what_never_changes_is_no_pane():
    moving = boards.Moving()
    p, rule, loss = "7 settings that move/augment_p", "6 findings/stuck", "3 losses/d"
    assert moving({p: 0.5, rule: 0.0, loss: 1.0}, 8) == [(8, {loss: 1.0})]
    assert moving({p: 0.5, rule: 0.0, loss: 1.0}, 16) == [(16, {loss: 1.0})]
    # its first value comes with the first that differs
    assert moving({p: 0.6, rule: 1.0}, 24) == [(8, {p: 0.5, rule: 0.0}), (24, {p: 0.6, rule: 1.0})]
    assert moving({p: 0.6, rule: 0.0}, 32) == [(32, {p: 0.6, rule: 0.0})]
    # a rule that fires at the first look and stays is one
    assert boards.Moving()({rule: 1.0}, 8) == [(8, {rule: 1.0})]


def test_the_table_of_runs_has_what_was_typed_and_no_places():
    config = {
        "lr": 0.1,
        "dataset": {"batch_size": 4, "root": "/photos"},
        "ema": {"rampup": 0.5},
        "loss": {"gamma": None},
        "optimizer_g": {"betas": [0.0, 0.9]},
        "overrides": ["ema.rampup=0.5", "dataset.root=/photos", "hydra.run.dir=x", "loss=bce", "optimizer_g.betas=[0,0.9]"],
    }  # fmt: skip
    found = boards.settings(config, {"dataset": "egg", "loss": "bce", "experiment": None})
    assert found == {
        "dataset": "egg",
        "loss": "bce",
        "as typed": "ema.rampup=0.5 loss=bce optimizer_g.betas=[0,0.9]",
        "lr": 0.1,
        "dataset.batch_size": 4,
        "ema.rampup": 0.5,
        "optimizer_g.betas": "[0.0, 0.9]",
    }


def shown(board, name="1 pictures/generated"):
    """Everything that a board can be shown."""
    board.go_on(None)
    board.show_settings({"lr": 0.1, "loss": "bce", "conditional": True})
    for step in (8, 16):
        board.log_metrics(VALUES | {"augment/p": 0.5, "diagnosis/stuck": 0.0}, step)
    board.show_picture(name, PICTURE, 16)
    board.show_text("1 verdict", "**fine** <b>", 16)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10, 1, 20, 30), generator=draw).to(torch.uint8)
    board.show_samples(
        torch.randn(10, 40, generator=draw), images, ["real"] * 5 + ["generated"] * 5
    )
    board.save()
    board.finalize("success")


def test_tensorboard(tmp_path):
    shown(TensorBoard(tmp_path, "tensorboard", ""))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {
        "3 losses/d",
        "4 discriminator/real",
    }  # what stood still is none
    assert [event.step for event in events.Scalars("3 losses/d")] == [8, 16]
    assert tags["images"] == ["1 pictures/generated"]
    plugin = events.PluginTagToContent("hparams")
    assert set(plugin) == {"_hparams_/session_start_info", "_hparams_/session_end_info"}
    start = parse_session_start_info_plugin_data(plugin["_hparams_/session_start_info"])
    assert start.hparams["lr"].number_value == 0.1 and start.hparams["loss"].string_value == "bce"
    assert "1 verdict/text_summary" in events.PluginTagToContent("text")


def test_the_projector(tmp_path):
    from PIL import Image

    shown(TensorBoard(tmp_path, "tensorboard", ""))
    folder = tmp_path / "tensorboard" / "projector"
    points = [line.split("\t") for line in (folder / "points.tsv").read_text().splitlines()]
    assert (len(points), {len(row) for row in points}) == (
        10,
        {10},
    )  # at most as many axes as points
    assert (folder / "kinds.tsv").read_text().split() == ["real"] * 5 + ["generated"] * 5
    assert Image.open(folder / "sprite.png").size == (4 * 30, 3 * 30)
    x = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    # distances survive, as ten points lie in nine dimensions: drawn in the order that `shown` has
    images_first = torch.Generator().manual_seed(0)
    torch.randint(0, 256, (10, 1, 20, 30), generator=images_first)
    x = torch.randn(10, 40, generator=images_first)
    y = torch.tensor([[float(value) for value in row] for row in points])
    torch.testing.assert_close(torch.pdist(y), torch.pdist(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("board", [Wandb, MLflow, Trackio])
def test_a_package_that_is_not_there_is_one_line(board, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    name = board.__name__.lower()
    with pytest.raises(UserError, match=f"^logger={name} needs the package {name}: pip install"):
        board()


def test_wandb_offline(tmp_path):
    pytest.importorskip("wandb")
    shown(Wandb(save_dir=str(tmp_path), project="p", offline=True))
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb")) and list(folder.rglob("*generated*.png"))


def test_mlflow_offline(tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/m.db"
    shown(MLflow("p", tracking_uri=uri, artifact_location=str(tmp_path / "files")))
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("p").experiment_id])
    assert run.data.params["lr"] == "0.1" and run.info.status == "FINISHED"
    assert run.data.metrics["3 losses/d"] == 1.0 and "8 signals/coverage" not in run.data.metrics
    files = [path.name for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert "1_verdict.md" in files and any("generated" in name for name in files)


def test_trackio_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in [name for name in sys.modules if name.startswith("trackio")]:
        monkeypatch.delitem(sys.modules, name)
    pytest.importorskip("trackio")
    shown(Trackio("p", "r"))
    import sqlite3

    (file,) = tmp_path.rglob("*.db")
    rows = sqlite3.connect(file).execute("select metrics from metrics").fetchall()
    logged = [json.loads(row) for (row,) in rows]
    assert [row["3 losses/d"] for row in logged if "3 losses/d" in row] == [1.0, 1.0]
    assert any("1 pictures/generated" in row for row in logged)
