"""The command: scores of a folder of images, and the data they are compared with."""

import json
import sys
from pathlib import Path

import pytest
import torch
from pooled import photographs

from gan_lightning.errors import UserError
from gan_lightning.evaluate import evaluate_cli, real_data


def test_a_folder_of_images_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for name, count, seed, size in (("real", 110, 0, 24), ("made", 90, 2, 32)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(photographs(count, seed, size)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i}.png")
    Image.new("RGB", (300, 300)).save(
        tmp_path / "made" / "grid.png"
    )  # what `sample --grid` leaves there is no image
    monkeypatch.chdir(tmp_path)
    assert (
        evaluate_cli(str(tmp_path / "made"), str(tmp_path / "real"), None, None, None, True, None)
        == 0
    )
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["n"] == 90
    assert (
        found["extractor"] == "lite2"
        and found["scores"][0]["ceiling"] > found["scores"][0]["value"]
    )
    assert (
        "resized to 64x64" in said.err
        and (tmp_path / "samples" / "nearest_photographs.png").is_file()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "made",
        "real",
        "samples",
    ]  # nothing beside
    assert (
        evaluate_cli(str(tmp_path / "made"), str(tmp_path / "real"), None, "lite2", 60, False, None)
        == 0
    )
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(
        UserError, match="--features inception cannot be used"
    ):  # and not answered with another score
        evaluate_cli(
            str(tmp_path / "made"), str(tmp_path / "real"), None, "inception", 60, True, None
        )
    assert "60 images" in capsys.readouterr().out


def test_another_folder_need_not_have_the_classes_a_checkpoint_was_trained_on(
    tmp_path: Path,
) -> None:
    from PIL import Image

    for folder in ("trained/a", "trained/b", "other"):
        (tmp_path / folder).mkdir(parents=True)
        for i, image in enumerate(photographs(12, len(folder), 24)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / folder / f"{i}.png")
    settings = {"labels": True, "root": str(tmp_path / "trained"), "image_size": 24, "holdout": 0}
    own, other = (
        real_data(str(tmp_path / name), None, settings, str(tmp_path / "cache"))
        for name in ("trained", "other")
    )
    assert torch.bincount(own.train_labels).tolist() == [12, 12]
    assert other.train_labels is None and len(other.train_images) == 12
