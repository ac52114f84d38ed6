"""What the generator made is found again, and photographs are looked at as the data were."""

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from saved import checkpoint

from gan_lightning.cli import main
from gan_lightning.data.images import to_float
from gan_lightning.errors import UserError
from gan_lightning.find import Eye, Finder, enlarged, read_photo
from gan_lightning.sampling import load_generator


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt", num_classes=2)


def test_distances_are_lengths_of_features_and_pixels():
    eye, draw = Eye(), torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 1, 16, 16, generator=draw) * 2 - 1 for _ in range(2))
    found = eye.distances(eye.see(a), eye.see(b))
    shown = (F.interpolate(x.expand(-1, 3, -1, -1), (96, 96), mode="bilinear") for x in (a, b))
    expected = (a - b).square().mean((1, 2, 3))
    for x, y in zip(*(eye.net(x, 3) for x in shown), strict=True):
        expected += 2 - 2 * torch.cosine_similarity(x, y).mean((1, 2))
    torch.testing.assert_close(found, expected)
    assert torch.equal(eye.distances(eye.see(a), eye.see(a)), torch.zeros(2))


def test_what_the_generator_made_is_found_again(path):
    sampler = load_generator(path, device="cpu")
    targets = sampler.images(2, 10**6)  # of both classes
    finder = Finder(sampler, steps=40)
    began, calls = time.process_time(), []
    found = finder.find(to_float(targets), lambda: calls.append(1))
    assert time.process_time() - began < 60 and len(calls) == 40
    others = sampler.images(1000, 2 * 10**6)
    for target, image, distance, random in zip(
        targets, found.images, found.distances, found.random, strict=True
    ):
        away = (to_float(image) - to_float(target)).square().mean()
        nearest = (to_float(others) - to_float(target)).square().mean((1, 2, 3)).min()
        assert away < nearest and distance < random.min()
    made = sampler.generate(found.z, found.labels)
    assert (made.int() - found.images.int()).abs().max() <= 1
    length = found.z.norm(dim=1)
    assert (length > 8**0.5 - 2.001).all() and (length < 8**0.5 + 2.001).all()


def test_a_class_is_kept_to(path):
    sampler = load_generator(path, device="cpu")
    found = Finder(sampler, 2, label=1).find(to_float(sampler.images(4)))
    assert found.labels.tolist() == [1, 1, 1, 1]
    found = Finder(sampler, 2).find(to_float(sampler.images(3, 4)), one_class=True)
    assert len(set(found.labels.tolist())) == 1


def test_a_photograph_is_fitted_as_the_data_were(path, tmp_path):
    """Padded by the grey level 7, as the checkpoint's data."""
    Image.new("RGBA", (40, 20), (250, 100, 0, 255)).save(tmp_path / "wide.png")
    image = read_photo(str(tmp_path / "wide.png"), load_generator(path, device="cpu"))
    assert image.shape == (3, 16, 16) and image.dtype == torch.uint8
    assert (image[:, :3] == 7).all() and (image[:, 13:] == 7).all()
    assert (image[:, 6:10].float().mean((1, 2)) - torch.tensor([250.0, 100, 0])).abs().max() < 2


def test_a_file_that_is_no_photograph(path, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="x.jpg cannot be used: not an image that can be read"):
        read_photo(str(tmp_path / "x.jpg"), load_generator(path, device="cpu"))


def test_the_command_and_a_morph(path, tmp_path, capsys):
    sampler = load_generator(path, device="cpu")
    photos = []
    for seed in (2, 4):  # among those that the search begins with
        image = sampler.images(1, seed)[0].permute(1, 2, 0).numpy()
        photos.append(str(tmp_path / f"{seed}.png"))
        Image.fromarray(image).save(photos[-1])
    out = tmp_path / "found"
    command = ["find", photos[0], str(path), "--to", photos[1], "--steps", "2", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"{photos[0]}: distance" in said and "the best of 256" in said
    names = ["found.png", "latent.safetensors", "morph.gif", "morph.png"]
    assert sorted(entry.name for entry in out.iterdir()) == names
    kept = load_file(out / "latent.safetensors")
    assert kept["z"].shape == (2, 8) and kept["labels"].tolist() == [0, 0]
    assert Image.open(out / "found.png").size == (2 * 132, 2 * 144)
    assert Image.open(out / "morph.gif").n_frames == 24 + 22
    strip = np.array(Image.open(out / "morph.png"))
    assert strip.shape[0] == 32
    first = np.array(Image.open(photos[0]))
    width = strip.shape[1] // 10
    left = (width - 16) // 2
    assert np.array_equal(strip[2:18, left : left + 16], first)


def test_enlarged_pixels_are_squares():
    image = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    large = enlarged(image)
    assert large.shape == (1, 1, 128, 128) and (large[0, 0, :64, 64:] == 1).all()
