"""The data check: one folder per fault, each found and nothing else beside it; clean folders give no remark."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from gan_lightning.data import check, eggs
from gan_lightning.data.check import check_folder
from gan_lightning.data.loader import ImageData
from gan_lightning.data.sources import FolderImages
from gan_lightning.pictures import grid


@pytest.fixture(scope="session")
def clean(tmp_path_factory) -> Path:
    """120 rendered eggs."""
    folder = tmp_path_factory.mktemp("eggs")
    eggs.write(folder, 120, 64, seed=5)
    return folder


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Pretrained features only where a test is about them."""
    if "eyes" not in request.fixturenames:
        monkeypatch.setattr(check, "LOOKED_AT", range(0))


@pytest.fixture
def eyes():
    """The test looks with pretrained features, as the check does."""


def remarks(folder: Path, **options) -> dict[str, object]:
    data = ImageData(
        FolderImages(str(folder)),
        **{"image_size": 64, "cache_dir": str(folder / ".cache")} | options,
    )
    data.prepare()
    return {remark.name: remark for remark in data.check_report.remarks}


def copied(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "photos", ignore=shutil.ignore_patterns(".*")))


def each(folder: Path, change, every: int = 1) -> None:
    for path in sorted(folder.glob("*.jpg"))[::every]:
        with Image.open(path) as image:
            changed = change(image.convert("RGB"))
        changed.save(path, quality=95)


def test_a_clean_folder_gives_no_remark(clean):
    assert not remarks(clean)
    assert not remarks(clean, fit="pad") and not remarks(clean, fit="stretch")


def test_ten_copies_of_each_file(clean, tmp_path):
    folder = copied(clean, tmp_path)
    for path in sorted(folder.glob("*.jpg")):
        for i in range(9):
            shutil.copy(path, folder / f"{path.stem}_copy{i}.jpg")
    found = remarks(folder)
    assert set(found) == {"exact copies"}
    assert found["exact copies"].numbers == {"images": 1080, "groups": 120}


def test_copies_saved_again_are_near_copies(clean, tmp_path):
    folder = copied(clean, tmp_path)
    for path in sorted(folder.glob("*.jpg"))[:6]:
        with Image.open(path) as image:
            image.resize((90, 90)).save(folder / f"again_{path.stem}.jpg", quality=60)
    found = remarks(folder)
    assert set(found) == {"near copies"} and found["near copies"].numbers == {
        "images": 6,
        "groups": 6,
    }


def test_copies_that_only_a_trained_eye_sees(clean, tmp_path, eyes):
    """Mirrored ones, all, and some of those that were cut; and nothing of a clean folder."""
    assert not remarks(clean)
    folder = copied(clean, tmp_path)
    changes = [
        ImageOps.mirror,
        lambda image: image.crop((2, 2, 62, 62)),
    ]
    for path, change in zip(sorted(folder.glob("*.jpg")), changes * 4, strict=False):
        with Image.open(path) as image:
            change(image).save(folder / f"again_{path.stem}.jpg", quality=90)
    found = remarks(folder)
    assert set(found) == {"near copies"} and 5 <= found["near copies"].numbers["images"] <= 8
    for pair in found["near copies"].files:
        assert len(pair) == 2 and pair[0] == f"again_{pair[1]}"


def test_an_odd_one_out(clean, tmp_path, eyes):
    folder = copied(clean, tmp_path)
    page = Image.new("RGB", (64, 64), "white")
    for k in range(0, 64, 8):
        ImageDraw.Draw(page).line((0, k, 64, 64 - k), fill="red", width=2)
    page.save(folder / "page.png")
    found = remarks(folder)
    assert set(found) == {"odd ones out"} and found["odd ones out"].files == [["page.png"]]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("blurred images", lambda image: image.filter(ImageFilter.GaussianBlur(3))),
        ("dark images", lambda image: image.point(lambda value: value // 10)),
        ("bright images", lambda image: image.point(lambda value: 220 + value // 8)),
    ],
)
def test_single_bad_photographs_are_named(clean, tmp_path, name, change):
    folder = copied(clean, tmp_path)
    spoilt = sorted(folder.glob("*.jpg"))[:3]
    for path in spoilt:
        with Image.open(path) as image:
            changed = change(image)
        changed.save(path, quality=95)
    found = remarks(folder)
    assert set(found) == {name} and found[name].files == [[path.name] for path in spoilt]


def test_panoramas(clean, tmp_path):
    folder = copied(clean, tmp_path)
    each(folder, lambda image: image.resize((200, 64)))
    found = remarks(folder)
    assert set(found) == {"far from the target's shape"}
    assert found["far from the target's shape"].action == "dataset.fit=pad"
    assert found["far from the target's shape"].numbers["median_lost"] == pytest.approx(
        1 - 64 / 200, abs=1e-3
    )
    assert not remarks(folder, fit="pad") and not remarks(folder, image_size=[64, 200])


def test_eight_images(clean, tmp_path):
    folder = copied(clean, tmp_path)
    for path in sorted(folder.glob("*.jpg"))[8:]:
        path.unlink()
    found = remarks(folder)
    assert set(found) == {"too few images"} and found["too few images"].numbers["distinct"] == 8
    assert found["too few images"].action == "augment=ada"


def test_all_blank(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(120):
        shade = rng.integers(0, 256, 3) + rng.normal(0, 1, (64, 64, 3))
        Image.fromarray(shade.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
    found = remarks(tmp_path)
    assert set(found) == {"blank images"} and found["blank images"].numbers["images"] == 120


def test_negatives_of_other_images(clean, tmp_path):
    folder = copied(clean, tmp_path)
    for path in sorted(folder.glob("*.jpg"))[:7]:
        with Image.open(path) as image:
            ImageOps.invert(image).save(folder / f"negative_{path.stem}.jpg", quality=95)
    found = remarks(folder)
    assert set(found) == {"inverted images"} and found["inverted images"].numbers["images"] == 7


def test_some_inverted_drawings(tmp_path):
    """Like digits, white on black, and a quarter of them black on white."""
    for i in range(200):
        rng = np.random.default_rng(i)
        picture = np.zeros((32, 32), np.uint8)
        for _ in range(4):
            y, x = rng.integers(6, 22, 2)
            picture[y : y + rng.integers(2, 10), x : x + rng.integers(2, 10)] = 255
        Image.fromarray(255 - picture if i % 4 == 0 else picture).save(tmp_path / f"{i:03d}.png")
    found = remarks(tmp_path, image_size=32, image_channels=1)
    assert set(found) == {"inverted images"}
    assert found["inverted images"].numbers == {"black": 150, "white": 50}


def test_half_grey_half_colour(clean, tmp_path):
    folder = copied(clean, tmp_path)
    each(folder, lambda image: image.convert("L"), every=2)
    found = remarks(folder)
    assert set(found) == {"grey images"} and found["grey images"].numbers == {
        "grey": 60,
        "colour": 60,
    }
    assert found["grey images"].action == "dataset.image_channels=1"
    assert not remarks(folder, image_channels=1)


def test_a_few_grey_ones_among_coloured_ones_are_named(clean, tmp_path):
    """Colour is not to be given up for them."""
    folder = copied(clean, tmp_path)
    each(folder, lambda image: image.convert("L"), every=10)
    found = remarks(folder)["grey images"]
    few = [path.name for path in sorted(folder.glob("*.jpg"))[::10]]
    assert found.numbers["grey"] == len(few) and found.action.startswith("remove these files")
    assert sum(name in found.action for name in few) == 5  # the rest is in check.json


def test_a_subject_far_from_the_centre(clean, tmp_path):
    folder = copied(clean, tmp_path)

    def aside(image: Image.Image) -> Image.Image:
        sheet = Image.new("RGB", (128, 128), image.getpixel((0, 0)))
        sheet.paste(image, (0, 0))
        return sheet

    each(folder, aside)
    found = remarks(folder)
    assert set(found) == {"off-centre subject"}
    assert (
        found["off-centre subject"].numbers["across"] < -0.12
        and found["off-centre subject"].numbers["down"] < -0.12
    )


def test_small_originals(clean, tmp_path):
    folder = copied(clean, tmp_path)
    each(folder, lambda image: image.resize((24, 24)))
    found = remarks(folder)
    assert (
        set(found) == {"small originals"}
        and found["small originals"].action == "dataset.image_size=16"
    )


def test_unusable_files_are_in_the_report_and_the_folder_is_left_as_it_was(clean, tmp_path, capsys):
    folder = copied(clean, tmp_path)
    (folder / "나쁜 파일.jpg").write_bytes(b"no image")
    before = {path: hashlib.sha1(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert (
        check_folder(str(folder), 64, out=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
        == 0
    )
    assert {
        path: hashlib.sha1(path.read_bytes()).hexdigest() for path in folder.iterdir()
    } == before
    report = json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))
    assert report["unusable"] == {"나쁜 파일.jpg": "not an image that can be read"}
    assert [remark["name"] for remark in report["remarks"]] == ["unusable files"]
    printed = capsys.readouterr().out
    assert (
        "120 usable, 1 files" in printed
        and "나쁜 파일.jpg" in printed
        and "contact_sheet.png" in printed
    )
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * 66 + 2, 8 * 66 + 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_grid_shows_every_picture_in_its_place(channels):
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, channels, 4, 6)
    sheet = grid(images, 4, gap=255)
    assert sheet.shape == (max(3, channels), 3 * 6 + 2, 4 * 8 + 2)
    for i in range(10):
        y, x = 2 + i // 4 * 6, 2 + i % 4 * 8
        assert (sheet[:, y : y + 4, x : x + 6] == i).all()
    assert (
        (sheet[:, :2] == 255).all()
        and (sheet[:, 6:8] == 255).all()
        and (sheet[:, 14:, 18:] == 255).all()
    )


def test_the_held_out_slice_follows_content_and_never_parts_near_copies(clean, tmp_path):
    folder = copied(clean, tmp_path)
    for path in sorted(folder.glob("*.jpg"))[:40]:
        with Image.open(path) as image:
            image.save(folder / f"again_{path.stem}.jpg", quality=70)

    def held(source_folder: Path) -> set[str]:
        data = ImageData(FolderImages(str(source_folder)), 64, cache_dir=str(tmp_path / "cache"))
        data.prepare()
        names = {}
        for path in sorted(source_folder.rglob("*.jpg")):
            pixels = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
            names[pixels.tobytes()] = (
                path.name.split("_", 1)[-1] if path.name.startswith("moved") else path.name
            )
        rows = torch.arange(len(data.holdout_images))
        assert len(data.holdout_images) + len(data.train_images) == 160
        return {names[picture.numpy().tobytes()] for picture in data.holdout_images[rows]}

    first = held(folder)
    assert 14 <= len(first) <= 16
    for name in first:  # both of a pair, or neither
        other = name.removeprefix("again_") if name.startswith("again_") else f"again_{name}"
        assert other in first or not (folder / other).exists()
    for path in sorted(
        folder.glob("*.jpg"), reverse=True
    ):  # other names, other places: the same pictures are held out
        place = folder / str(len(path.name) % 3)
        place.mkdir(exist_ok=True)
        os.replace(path, place / f"moved{hash(path.name) % 1000:03d}_{path.name}")
    assert held(folder) == first


def test_the_real_photographs(real_data, tmp_path, eyes):
    if not (real_data / "eggs_candling").is_dir():
        pytest.skip("no eggs_candling")
    found = remarks(real_data / "eggs_candling", cache_dir=str(tmp_path / "cache"))
    assert set(found) == {"near copies"}  # looked at: burst shots of the same egg, all of them
    assert 35 <= found["near copies"].numbers["groups"] <= 45


def test_a_folder_of_negatives(clean, tmp_path):
    """Nothing to compare with inside the folder: the colours of the world, turned round, tell."""
    folder = copied(clean, tmp_path)
    each(folder, ImageOps.invert)
    found = remarks(folder)
    assert set(found) == {"inverted images"} and found["inverted images"].numbers["share"] >= 0.6


def test_negatives_of_dim_photographs(clean, tmp_path):
    folder, lamp = copied(clean, tmp_path), np.array([0.6, 0.4, 0.25])
    each(folder, lambda image: Image.fromarray((np.asarray(image) * lamp).astype(np.uint8)))
    assert not remarks(folder)
    each(folder, ImageOps.invert)
    assert remarks(folder)["inverted images"].numbers["share"] == 1
