"""The command: scores of a folder of images, and the data they are compared with."""

import json
import sys
from pathlib import Path

import pytest
import torch
from pooled import photographs

from gan_lightning.errors import UserError
from gan_lightning.evaluate import _of_checkpoint, _pictures_of, evaluate_cli, real_data
from gan_lightning.sampling import Sampler, build_trusted


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
    assert found["extractor"] == "lite2"
    assert {score["ceiling"] for score in found["scores"]} == {None}  # no generator, none untrained
    assert "resized to 64x64" in said.err and "remarks" not in said.err.partition("made: ")[2]
    assert (tmp_path / "samples" / "made" / "nearest_photographs.png").is_file()
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


@pytest.mark.parametrize(("data", "own"), [("photos", True), ("egg", True), ("others", False)])
def test_a_runs_own_pictures_are_not_replaced_by_those_of_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, own: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / "run/config.yaml").touch()
    place = _pictures_of(path, data, {"root": str(tmp_path / "photos")})
    assert place == (tmp_path / "run/images" if own else Path("samples/last"))


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


def test_the_untrained_yardstick_is_no_grey_image(tmp_path: Path) -> None:
    """Before its first step BatchNorm knows no statistics, and its images would be alike."""
    network = {"_target_": "gan_lightning.networks.dcgan.Generator", "image_size": 32}
    network |= {"latent_dim": 8, "channels": 32, "min_channels": 8, "image_channels": 3}
    config = {"network": {"generator": network | {"norm": "batch"}}, "latent_dim": 8}
    generator = build_trusted(config["network"]["generator"]).eval()
    sampler = Sampler(generator, config, torch.device("cpu"), False)
    _, untrained = _of_checkpoint(sampler, None, None, 1.0, 64)  # type: ignore[arg-type]
    assert untrained.shape == (64, 3, 32, 32)
    assert untrained.float().std(0).mean() > 10 > sampler.images(64).float().std(0).mean()
