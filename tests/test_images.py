"""Decoding, fitting, the cache: good files of every kind come out right, bad ones are listed with a reason."""

import io
import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gan_lightning.data import images
from gan_lightning.data.images import (
    LazyStore,
    Shape,
    decode,
    fit,
    flatten,
    scan,
    to_float,
    to_uint8,
)
from gan_lightning.data.sources import FolderImages
from gan_lightning.errors import UserError


def gradient(height: int = 32, width: int = 48) -> np.ndarray:
    """A picture whose four corners differ: red grows to the right, green downwards."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)[None, :]
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    picture[..., 2] = 60
    return picture


def one(path: Path, shape: Shape) -> np.ndarray:
    source = FolderImages(str(path.parent))
    names = [source.file_name(i) for i in range(len(source))]
    return decode(source, names.index(path.name), shape).pixels


def test_scaling_there_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert (
        to_float(pixels).min() == -1
        and to_float(pixels).max() == 1
        and to_float(pixels).dtype == torch.float32
    )
    assert torch.equal(to_uint8(to_float(pixels)), pixels)
    assert to_uint8(torch.tensor([-3.0, 0.0, 3.0])).tolist() == [0, 128, 255]
    note = (pixels.float() / 255 - 0.5) / 0.5  # ToTensor and Normalize(0.5, 0.5)
    assert torch.allclose(to_float(pixels), note, atol=2e-7)


RGB = Image.fromarray(gradient())
GREY = RGB.convert("L")
LOSSY = 14  # grey levels that JPEG may be off


@pytest.mark.parametrize(
    "name, image, options, tolerance",
    [
        ("달걀 사진 🥚.jpg", RGB, {"quality": 95}, LOSSY),
        ("a b.png", RGB, {}, 0),
        ("c.webp", RGB, {"lossless": True}, 0),
        ("d.bmp", RGB, {}, 0),
        ("e.tiff", RGB, {"compression": "tiff_lzw"}, 0),
        ("f.gif", RGB.quantize(256), {}, 20),
        ("palette.png", RGB.quantize(256), {}, 20),
        ("cmyk.tif", RGB.convert("CMYK"), {}, 2),
        ("cmyk.jpg", RGB.convert("CMYK"), {"quality": 95}, LOSSY),
        ("png named so.jpg", RGB, {"format": "PNG"}, 0),
        ("no suffix", RGB, {"format": "PNG"}, 0),
    ],
)
def test_colour_files(tmp_path, name, image, options, tolerance):
    image.save(tmp_path / name, **options)
    pixels = one(tmp_path / name, Shape(32, 48)).astype(int)
    assert np.abs(pixels - gradient().transpose(2, 0, 1)).max() <= tolerance


@pytest.mark.parametrize(
    "name", "l.png l.jpg la.png i16.png i16.tiff i32.tiff f32.tiff bits.png".split()
)
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_files(tmp_path, name, channels):
    grey = np.asarray(GREY).astype(np.int64)
    kinds = {
        "l": GREY,
        "la": Image.merge("LA", (GREY, Image.new("L", GREY.size, 255))),
        "i16": Image.fromarray((grey * 257).astype(np.uint16)),
        "i32": Image.fromarray((grey * 257).astype(np.int32)),
        "f32": Image.fromarray((grey / 255).astype(np.float32)),
        "bits": GREY.point(lambda v: 255 * (v > 100)).convert("1"),
    }
    kind = name.partition(".")[0]
    kinds[kind].save(tmp_path / name)
    pixels = one(tmp_path / name, Shape(32, 48, channels)).astype(int)
    expected = 255 * (grey > 100) if kind == "bits" else grey
    assert pixels.shape == (channels, 32, 48)
    assert np.abs(pixels - expected).max() <= (4 if name == "l.jpg" else 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("background", [255, 0, 90])
def test_alpha_lies_over_the_background(tmp_path, mode, background):
    image = Image.new("RGBA", (20, 10), (200, 200, 200, 255))
    image.paste(
        (7, 7, 7, 0), (0, 0, 10, 10)
    )  # the hidden colour under full transparency must not show
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png")
    pixels = one(tmp_path / "a.png", Shape(10, 20, 3, "stretch", background))
    assert (pixels[:, :, :8] == background).all() and (
        np.abs(pixels[:, :, 12:].astype(int) - 200) <= 1
    ).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    turned = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1),
    }[orientation](gradient())  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "a.png", exif=exif)
    assert images.header(tmp_path / "a.png") == (32, 48)
    picture = decode(FolderImages(str(tmp_path)), 0, Shape(32, 48))
    assert picture.size == (32, 48)
    assert np.array_equal(picture.pixels, gradient().transpose(2, 0, 1))


@given(
    height=st.integers(1, 70), width=st.integers(1, 70), how=st.sampled_from(["crop", "pad", "stretch"]),
    target=st.tuples(st.integers(4, 40), st.integers(4, 40)), channels=st.sampled_from([1, 3]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_fitting_keeps_a_plain_colour_and_the_size_asked_for(height, width, how, target, channels):
    colour = (10, 120, 230)
    image = flatten(Image.new("RGB", (width, height), colour), channels)
    pixels = fit(image, Shape(*target, channels, how, 255))
    assert pixels.shape == (channels, *target) and pixels.dtype == np.uint8
    plain = np.array(colour if channels == 3 else [image.getpixel((0, 0))])[:, None, None]
    inside = (pixels == plain).all(0)
    if how == "pad":
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert len(rows) == target[0] or len(columns) == target[1]  # it touches two sides
        assert (
            abs(rows[0] - (target[0] - 1 - rows[-1])) <= 1
            and abs(columns[0] - (target[1] - 1 - columns[-1])) <= 1
        )
        assert (pixels[:, ~inside] == 255).all()
    else:
        assert inside.all()


def test_crop_takes_the_centre_and_is_antialiased():
    stripes = np.zeros((64, 192, 3), np.uint8)
    stripes[:, 64:128] = 255
    assert (fit(Image.fromarray(stripes), Shape(64, 64)) == 255).all()
    fine = np.zeros((256, 256), np.uint8)
    fine[:, ::2] = 255  # picking pixels would give all black or all white
    middle = fit(Image.fromarray(fine), Shape(32, 32, 1))[0, 4:-4, 4:-4].astype(int)
    assert np.abs(middle - 127).max() <= 3


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"fit": "zoom"}, "dataset.fit=zoom"),
        ({"channels": 2}, "dataset.image_channels=2"),
        ({"height": 0}, "dataset.image_size"),
        ({"background": 300}, "dataset.background=300"),
    ],
)
def test_impossible_settings_are_named(settings, named):
    with pytest.raises(UserError, match=named):
        Shape(**({"height": 8, "width": 8} | settings))


def png(rng: random.Random) -> bytes:
    file = io.BytesIO()
    noise = np.frombuffer(rng.randbytes(16 * 16 * 3), np.uint8).reshape(16, 16, 3)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def broken(folder: Path, kind: int, i: int) -> None:
    """Writes the i-th bad file, of one of ten kinds."""
    rng = random.Random(i)
    path = folder / f"bad_{i:03d}.png"
    if kind == 0:
        path.write_bytes(b"")
    elif kind == 1:
        path.write_bytes(png(rng)[: rng.randint(60, 600)])
    elif kind == 2:
        path.write_text("no image at all\n" * 20)
    elif kind == 3:
        path.symlink_to("nowhere.png")
    elif kind == 4:
        path.symlink_to(path.name)
    elif kind == 5:
        Image.new("1", (10_000, 9_000)).save(path)  # 90 megapixels in a file of a few kB
    elif kind == 6:
        path.with_suffix(".jpg").write_bytes(rng.randbytes(300))
    elif kind == 7:
        folder.joinpath(f"loop_{i}").symlink_to(folder, target_is_directory=True)
    elif kind == 8:
        os.mkfifo(path)
    else:
        file = io.BytesIO()
        noise = np.frombuffer(rng.randbytes(64 * 64 * 3), np.uint8).reshape(64, 64, 3)
        Image.fromarray(noise).save(file, ("JPEG", "WEBP", "TIFF", "BMP")[i % 4])
        path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])


def test_500_good_and_50_bad_files_give_500_images_and_50_reasons(tmp_path):
    folder = tmp_path / "사진 🥚"
    for i in range(500):
        place = folder / f"{i % 7} 폴더" / "deep er"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(png(random.Random(1000 + i)))
    (folder / ".DS_Store").write_bytes(b"hidden files are left alone")
    for i in range(50):
        broken(folder, i % 10, i)
    result, pixels = scan(FolderImages(str(folder)), Shape(8, 8), tmp_path / "cache", 1)
    assert pixels is not None and pixels.shape == (500, 3, 8, 8) and len(result) == 500
    assert len(result.bad) == 50 and all(result.bad.values())
    assert not set(result.bad) & set(result.names)
    reasons = " | ".join(result.bad.values())
    for (
        words
    ) in "empty|truncated|not an image|link to nothing|loops|megapixels|read already|regular".split(
        "|"
    ):
        assert words in reasons
    for name, row in zip(result.names[:20], pixels[:20], strict=True):
        expected = fit(Image.open(folder / name), Shape(8, 8))
        assert np.array_equal(row.numpy(), expected)


@given(cut=st.integers(0, 2000), flips=st.lists(st.integers(0, 10**6), max_size=6), kind=st.sampled_from(
    ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]))  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_no_damage_gets_through_as_anything_but_a_picture_or_a_reason(
    tmp_path_factory, cut, flips, kind
):
    file = io.BytesIO()
    RGB.save(file, kind)
    data = bytearray(file.getvalue()[: max(0, len(file.getvalue()) - cut)])
    for place in flips if data else []:
        data[place % len(data)] ^= 1 << (place % 8)
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a.img").write_bytes(bytes(data))
    result, pixels = scan(FolderImages(str(folder)), Shape(8, 8), folder.parent / "cache", 1)
    assert len(result) + len(result.bad) == 1
    assert (pixels is None) == (len(result) == 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_listed(tmp_path):
    RGB.save(tmp_path / "a.png")
    RGB.save(tmp_path / "b.png")
    os.chmod(tmp_path / "b.png", 0)
    result, _ = scan(FolderImages(str(tmp_path)), Shape(8, 8), tmp_path / ".cache", 1)
    assert result.names == ["a.png"] and "permission" in result.bad["b.png"]


def photos(folder: Path, n: int) -> FolderImages:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / f"{i:03d}.png").write_bytes(png(random.Random(i)))
    return FolderImages(str(folder))


def test_the_cache_is_used_again_and_follows_files_and_settings(tmp_path, monkeypatch):
    folder, cache = tmp_path / "photos", tmp_path / "cache"
    _, first = scan(photos(folder, 5), Shape(8, 8), cache, 1)
    with monkeypatch.context() as patch:
        patch.setattr(images, "_build", lambda *_: pytest.fail("decoded again"))
        result, again = scan(FolderImages(str(folder)), Shape(8, 8), cache, 1)
    assert torch.equal(first, again) and result.thumbs.shape == (5, 16, 16)
    again[:] = 0  # a private copy: the file stays as it is
    assert torch.equal(scan(FolderImages(str(folder)), Shape(8, 8), cache, 1)[1], first)
    assert scan(FolderImages(str(folder)), Shape(12, 8), cache, 1)[1].shape == (5, 3, 12, 8)
    (folder / "new.png").write_bytes(png(random.Random(99)))
    assert len(scan(FolderImages(str(folder)), Shape(8, 8), cache, 1)[0]) == 6
    (folder / "000.png").write_bytes(png(random.Random(77)))
    os.utime(folder / "000.png", ns=(1, 1))
    assert not torch.equal(scan(FolderImages(str(folder)), Shape(8, 8), cache, 1)[1][0], first[0])


def test_an_interrupted_build_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    source, cache = photos(tmp_path / "photos", 5), tmp_path / "cache"
    real = os.replace

    def cut(before: int):
        calls = []

        def replace(*names):
            calls.append(names)
            if len(calls) > before:
                raise KeyboardInterrupt
            real(*names)

        return replace

    for before in (0, 1):  # before the pixels are in place, and between the pixels and the facts
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", cut(before))
            with pytest.raises(KeyboardInterrupt):
                scan(source, Shape(8, 8), cache, 1)
        assert not list(cache.glob("*.json")) and not list(cache.glob("*.tmp"))
    assert len(scan(source, Shape(8, 8), cache, 1)[0]) == 5


@pytest.mark.parametrize(
    "damage", ["cut pixels", "changed pixels", "no pixels", "cut facts", "facts of another kind"]
)
def test_a_damaged_cache_is_built_again_with_a_line_that_says_so(damage, tmp_path):
    source, cache = photos(tmp_path / "photos", 5), tmp_path / "cache"
    good = scan(source, Shape(8, 8), cache, 1)[1].clone()
    pixels, facts = next(cache.glob("*.u8")), next(cache.glob("*.json"))
    data = bytearray(pixels.read_bytes())
    if damage == "cut pixels":
        pixels.write_bytes(data[:100])
    elif damage == "changed pixels":
        data[7] ^= 1
        pixels.write_bytes(data)
    elif damage == "no pixels":
        pixels.unlink()
    else:
        facts.write_text(facts.read_text()[:50] if damage == "cut facts" else '{"numbers": "many"}')
    (cache / "eggs-0f.0.tmp").write_text("abandoned")
    os.utime(cache / "eggs-0f.0.tmp", (0, 0))
    said: list[str] = []
    again = scan(source, Shape(8, 8), cache, 1, said.append)[1]
    assert torch.equal(good, again)
    assert len(said) == 1 and "is damaged" in said[0] and str(facts) in said[0]
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".lock", ".u8"]
    assert torch.equal(scan(source, Shape(8, 8), cache, 1, said.append)[1], good) and len(said) == 1


def test_a_cache_that_holds_the_data_need_not_be_writable(tmp_path, monkeypatch):
    source, cache = photos(tmp_path / "photos", 5), tmp_path / "cache"
    good = scan(source, Shape(8, 8), cache, 1)[1].clone()
    for name in ("open", "mkdir", "unlink", "replace"):
        monkeypatch.setattr(
            os, name, lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "no", "cache"))
        )
    assert torch.equal(scan(source, Shape(8, 8), cache, 1)[1], good)


def _scan_slowly(folder: str, cache: str, log: str) -> None:
    real = images._build

    def build(*arguments):
        with open(log, "a") as file:
            file.write("built\n")
        time.sleep(0.5)
        real(*arguments)

    images._build = build
    result, pixels = scan(FolderImages(folder), Shape(8, 8), Path(cache), 1)
    assert len(result) == len(pixels) == 5


def test_concurrent_runs_share_one_build(tmp_path):
    photos(tmp_path / "photos", 5)
    arguments = (str(tmp_path / "photos"), str(tmp_path / "cache"), str(tmp_path / "log"))
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_scan_slowly, args=arguments) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_beyond_the_limit_pictures_are_decoded_when_needed_and_are_the_same(tmp_path):
    source = photos(tmp_path / "photos", 6)
    (tmp_path / "photos" / "001.png").write_bytes(b"broken")
    kept, pixels = scan(source, Shape(8, 8), tmp_path / "cache", 1)
    result, none = scan(source, Shape(8, 8), tmp_path / "cache", 0)
    assert none is None and result.names == kept.names and len(result) == 5
    store = LazyStore(source, Shape(8, 8), result.numbers)
    rows = torch.tensor([4, 0, 2])
    assert store.shape == (5, 3, 8, 8) and torch.equal(store[rows], pixels[rows])


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="dataset.cache_dir="):
        scan(photos(tmp_path / "photos", 2), Shape(8, 8), tmp_path / "file", 1)


def test_names_that_are_no_text_are_kept(tmp_path):
    folder = tmp_path / "photos"
    photos(folder, 2)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(png(random.Random(5)))
    result, _ = scan(FolderImages(str(folder)), Shape(8, 8), tmp_path / "cache", 1)
    assert len(result) == 3
    assert json.loads(json.dumps(result.names)) == result.names


def test_four_channels_keep_alpha(tmp_path):
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[..., 0], pixels[:16, :, 3] = 200, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.new("RGB", (48, 32), (10, 20, 30)).save(tmp_path / "b.png")
    see_through, solid = (one(tmp_path / name, Shape(32, 48, 4)) for name in ("a.png", "b.png"))
    assert see_through.shape == (4, 32, 48)
    assert (
        (see_through[3, :16] == 255).all()
        and (see_through[3, 16:] == 0).all()
        and (see_through[0, :16] == 200).all()
    )
    assert [int(v) for v in solid[:, 0, 0]] == [10, 20, 30, 255]
