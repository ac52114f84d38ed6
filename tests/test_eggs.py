"""The rendered eggs: the same for the same seed, an egg in every picture, and a folder that is never half taken."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lightning.data import eggs
from gan_lightning.data.sources import EggImages
from gan_lightning.errors import UserError


def test_the_same_seed_gives_the_same_eggs_and_another_seed_others():
    first = eggs.render(3, 64, seed=1)
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, eggs.render(3, 64, seed=1))
    assert not np.array_equal(first, eggs.render(4, 64, seed=1))
    assert not np.array_equal(first, eggs.render(3, 64, seed=2))


def test_eggs_lie_in_the_middle_whole_and_vary():
    pictures = np.stack([eggs.render(i, 48) for i in range(100)]).astype(float)
    middle = pictures[:, 18:30, 18:30].mean((1, 2))
    assert (middle.std(0) > 20).all()  # shells of several colours
    ground = pictures[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(1)
    assert (ground.std(0) > 20).all()
    apart = np.abs(middle - ground).max(1)
    assert np.median(apart) > 30 and (apart > 8).mean() > 0.9  # an egg differs from what it lies on
    assert 40 < pictures.mean() < 210


def test_the_outline_is_an_egg_not_an_ellipse():
    """Between the widest place and the ends it is longer towards the point than towards the blunt end."""
    u = np.linspace(-1, 1, 2001)
    for k in (0.25, 0.55):  # the ends of the renderer's range
        radius = np.sqrt((1 - u * u) * np.exp(k * u))
        widest = u[radius.argmax()]
        assert 0.05 < widest < 0.3


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_an_empty_folder_is_filled_once(tmp_path, monkeypatch, capsys):
    source = EggImages(str(tmp_path), number=5, size=16)
    assert len(source) == 5 and names(tmp_path) == [f"egg_{i:04d}.jpg" for i in range(5)]
    assert "rendering 5 egg images" in capsys.readouterr().out
    with Image.open(tmp_path / "egg_0003.jpg") as image:
        assert image.size == (16, 16)
        assert (
            np.abs(np.asarray(image).astype(int) - eggs.render(3, 16)).mean() < 12
        )  # JPEG's loss only
    monkeypatch.setattr(eggs, "write", lambda *_: pytest.fail("rendered again"))
    assert len(EggImages(str(tmp_path), number=5, size=16)) == 5


def test_the_users_own_photographs_are_used_and_left_alone(tmp_path, monkeypatch):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "egg_0000.jpg")
    before = (tmp_path / "egg_0000.jpg").read_bytes()
    monkeypatch.setattr(eggs, "write", lambda *_: pytest.fail("rendered over photographs"))
    source = EggImages(str(tmp_path), number=5, size=16)
    assert len(source) == 1 and source.typical_size() == (20, 30)
    assert (
        os.listdir(tmp_path) == ["egg_0000.jpg"]
        and (tmp_path / "egg_0000.jpg").read_bytes() == before
    )


@pytest.mark.parametrize("where", ["rendering", "moving"])
def test_an_interrupted_rendering_is_done_again_and_never_half_taken(tmp_path, monkeypatch, where):
    real, calls = os.replace, []

    def write(folder, number, size, seed):
        Image.fromarray(eggs.render(0, size)).save(folder / "egg_0000.jpg")
        raise KeyboardInterrupt

    def replace(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(eggs, "write", write) if where == "rendering" else patch.setattr(
            os, "replace", replace
        )
        with pytest.raises(KeyboardInterrupt):
            len(EggImages(str(tmp_path), number=5, size=16))
    assert len(EggImages(str(tmp_path), number=5, size=16)) == 5
    assert len(names(tmp_path)) == 5 and not (tmp_path / ".rendering").exists()


def test_the_default_folder_is_made_but_a_named_one_must_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(EggImages(number=2, size=16)) == 2 and len(names(tmp_path / "data/egg")) == 2
    with pytest.raises(UserError, match="does not exist: give the folder"):
        len(EggImages("typo"))
