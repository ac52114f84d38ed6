"""The cache: all good files in, all bad ones listed, found again, shared, never half and never damaged."""

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

from gan_lightning.data import cache as caching
from gan_lightning.data.cache import scan
from gan_lightning.data.images import ImageStore, Shape, fit
from gan_lightning.data.sources import FolderImages
from gan_lightning.errors import UserError

RGB = Image.fromarray(np.arange(32 * 48 * 3, dtype=np.uint32).reshape(32, 48, 3).astype(np.uint8))


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
    result, pixels = scan(FolderImages(str(folder)), Shape(8, 8), tmp_path / "cache")
    assert pixels.shape == (500, 3, 8, 8) and len(result) == 500
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
    result, pixels = scan(FolderImages(str(folder)), Shape(8, 8), folder.parent / "cache")
    assert len(result) + len(result.bad) == 1
    assert len(pixels) == len(result)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_listed(tmp_path):
    RGB.save(tmp_path / "a.png")
    RGB.save(tmp_path / "b.png")
    os.chmod(tmp_path / "b.png", 0)
    result, _ = scan(FolderImages(str(tmp_path)), Shape(8, 8), tmp_path / ".cache")
    assert result.names == ["a.png"] and "permission" in result.bad["b.png"]


def photos(folder: Path, n: int) -> FolderImages:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / f"{i:03d}.png").write_bytes(png(random.Random(i)))
    return FolderImages(str(folder))


def test_the_cache_is_used_again_and_follows_files_and_settings(tmp_path, monkeypatch):
    folder, cache = tmp_path / "photos", tmp_path / "cache"
    _, first = scan(photos(folder, 5), Shape(8, 8), cache)
    with monkeypatch.context() as patch:
        patch.setattr(caching, "_build", lambda *_: pytest.fail("decoded again"))
        result, again = scan(FolderImages(str(folder)), Shape(8, 8), cache)
    assert torch.equal(first, again) and result.thumbs.shape == (5, 16, 16)
    again[:] = 0  # a private copy: the file stays as it is
    assert torch.equal(scan(FolderImages(str(folder)), Shape(8, 8), cache)[1], first)
    assert scan(FolderImages(str(folder)), Shape(12, 8), cache)[1].shape == (5, 3, 12, 8)
    (folder / "new.png").write_bytes(png(random.Random(99)))
    assert len(scan(FolderImages(str(folder)), Shape(8, 8), cache)[0]) == 6
    (folder / "000.png").write_bytes(png(random.Random(77)))
    os.utime(folder / "000.png", ns=(1, 1))
    assert not torch.equal(scan(FolderImages(str(folder)), Shape(8, 8), cache)[1][0], first[0])


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
                scan(source, Shape(8, 8), cache)
        assert not list(cache.glob("*.json")) and not list(cache.glob("*.tmp"))
    assert len(scan(source, Shape(8, 8), cache)[0]) == 5


@pytest.mark.parametrize(
    "damage", ["cut pixels", "changed pixels", "no pixels", "cut facts", "facts of another kind"]
)
def test_a_damaged_cache_is_built_again_with_a_line_that_says_so(damage, tmp_path):
    source, cache = photos(tmp_path / "photos", 5), tmp_path / "cache"
    good = scan(source, Shape(8, 8), cache)[1].clone()
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
    abandoned = cache / ".eggs-0f.u8.elsewhere-1-ab.partial"
    abandoned.write_text("half")
    os.utime(abandoned, (0, 0))
    said: list[str] = []
    again = scan(source, Shape(8, 8), cache, said.append)[1]
    assert torch.equal(good, again)
    assert len(said) == 1 and "is damaged" in said[0] and str(facts) in said[0]
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".lock", ".u8"]
    assert torch.equal(scan(source, Shape(8, 8), cache, said.append)[1], good) and len(said) == 1


def test_a_cache_that_holds_the_data_need_not_be_writable(tmp_path, monkeypatch):
    source, cache = photos(tmp_path / "photos", 5), tmp_path / "cache"
    good = scan(source, Shape(8, 8), cache)[1].clone()
    for name in ("open", "mkdir", "unlink", "replace"):
        monkeypatch.setattr(
            os, name, lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "no", "cache"))
        )
    assert torch.equal(scan(source, Shape(8, 8), cache)[1], good)


def _scan_slowly(folder: str, cache: str, log: str) -> None:
    real = caching._build

    def build(*arguments):
        with open(log, "a") as file:
            file.write("built\n")
        time.sleep(0.5)
        real(*arguments)

    caching._build = build
    result, pixels = scan(FolderImages(folder), Shape(8, 8), Path(cache))
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


def test_a_large_set_is_mapped_read_only_and_is_the_same(tmp_path, monkeypatch):
    source, shape, folder = photos(tmp_path / "photos", 6), Shape(8, 8), tmp_path / "cache"
    (tmp_path / "photos" / "001.png").write_bytes(b"broken")
    small = scan(source, shape, folder)[1].clone()
    monkeypatch.setattr(caching, "CHECKED", 10)
    result, pixels = scan(source, shape, folder)
    assert len(result) == 5 and torch.equal(pixels, small)
    rows = torch.tensor([4, 0, 2])
    assert torch.equal(ImageStore(pixels)[rows], small[rows])


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="dataset.cache_dir="):
        scan(photos(tmp_path / "photos", 2), Shape(8, 8), tmp_path / "file")


def test_names_that_are_no_text_are_kept(tmp_path):
    folder = tmp_path / "photos"
    photos(folder, 2)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(png(random.Random(5)))
    result, _ = scan(FolderImages(str(folder)), Shape(8, 8), tmp_path / "cache")
    assert len(result) == 3
    assert json.loads(json.dumps(result.names)) == result.names
