"""Decoding and fitting: good files of every kind come out right."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gan_lightning.data import images
from gan_lightning.data.images import (
    Shape,
    decode,
    fit,
    flatten,
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
    thin = min(height / width * target[1], width / height * target[0])
    if how == "pad" and thin <= 0.5:  # less than half a pixel wide: nothing is left
        assert (pixels == 255).all()
    elif how == "pad":
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
