"""Each operation against what it must do per image; ADA's controller; nothing leaks."""

import pytest
import torch

from gan_lightning.augment import OPS, Augment, color, cutout, flip, translation
from gan_lightning.errors import UserError


def on(images, share=1.0):
    return torch.full((len(images), 1, 1, 1), share)


def images(batch=16, channels=3, height=16, width=24):
    return (
        torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2
        - 1
    )


@pytest.mark.parametrize("name", OPS)
def test_off_is_the_identity(name):
    x = images()
    torch.testing.assert_close(OPS[name](x, on(x, 0.0)), x)


@pytest.mark.parametrize("name", OPS)
def test_images_get_parameters_of_their_own_and_twice_a_gradient(name):
    torch.manual_seed(0)
    x = images()[:1].repeat(32, 1, 1, 1).requires_grad_()
    y = OPS[name](x, on(x))
    assert len({tuple(image.flatten().tolist()) for image in y.detach()}) > 1
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second.isfinite().all() and second.abs().sum() > 0


def test_translation_moves_whole_pixels_and_brings_in_grey():
    torch.manual_seed(1)
    x = images(64)
    y = translation(x, on(x))
    moves = set()
    for before, after in zip(x, y, strict=True):
        found = []
        for dy in range(-2, 3):
            for dx in range(-3, 4):
                want = torch.zeros_like(before)
                rows, columns = (
                    slice(max(0, -dy), 16 - max(0, dy)),
                    slice(max(0, -dx), 24 - max(0, dx)),
                )
                source = before[:, max(0, dy) : 16 + min(0, dy), max(0, dx) : 24 + min(0, dx)]
                want[:, rows, columns] = source
                if torch.equal(want, after):
                    found.append((dy, dx))
        assert len(found) == 1
        moves.add(found[0])
    assert {dy for dy, _ in moves} == set(range(-2, 3)) and {dx for _, dx in moves} == set(
        range(-3, 4)
    )


def test_cutout_removes_at_most_a_quarter_and_nothing_else():
    torch.manual_seed(2)
    x = images(200) + 3  # never 0
    y = cutout(x, on(x))
    gone = (y == 0).all(1)
    assert torch.equal(y, x * ~gone[:, None])
    share = gone.float().mean((1, 2))
    assert (
        share.max() <= 0.25 + 1e-6 and 0.08 < share.mean() < 0.2
    )  # centres are uniform: 0.75² · 0.25 = 0.14 expected


def test_flip_mirrors_about_half():
    torch.manual_seed(3)
    x = images(400)
    y = flip(x, on(x))
    mirrored = (y == x.flip(3)).all(3).all(2).all(1)
    assert torch.equal(y[~mirrored], x[~mirrored]) and 0.4 < mirrored.float().mean() < 0.6


def test_color_keeps_structure():
    """Brightness, saturation and contrast are affine per image: grey pixels stay an affine map of grey pixels."""
    torch.manual_seed(4)
    grey = images(8, channels=1).repeat(1, 3, 1, 1)
    y = color(grey, on(grey))
    for before, after in zip(grey, y, strict=True):
        slope = torch.linalg.lstsq(
            torch.stack([before.flatten(), torch.ones(before.numel())], 1), after.flatten()[:, None]
        ).solution.flatten()
        torch.testing.assert_close(after, before * slope[0] + slope[1], atol=1e-4, rtol=0)
        assert 0.5 <= slope[0] <= 1.5


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
def test_probability_per_operation_and_image(p):
    torch.manual_seed(5)
    augment = Augment(["cutout"], p=p)
    x = images(2000, 1, 8, 8) + 3
    changed = (augment(x) != x).flatten(1).any(1).float().mean()
    assert float(changed) == pytest.approx(p, abs=0.04)


def test_ada_follows_the_sign_of_its_error_and_respects_the_cap():
    augment = Augment(["flip"], p=0.0, ada_target=0.6, ada_kimg=1, max_p=0.8)
    augment.adapt(torch.ones(100), 100)
    assert float(augment.p) == pytest.approx(0.1)
    for _ in range(20):
        augment.adapt(torch.ones(100), 100)
    assert float(augment.p) == pytest.approx(0.8)
    augment.adapt(torch.cat([torch.ones(50), -torch.ones(50)]), 100)
    assert float(augment.p) == pytest.approx(0.7)
    assert "p" in augment.state_dict() and "p" not in Augment(["flip"], p=0.5).state_dict()


@pytest.mark.parametrize("arguments", [{"ops": ["rotate"]}, {"ops": ["flip"], "p": 1.5}])
def test_impossible_settings(arguments):
    with pytest.raises(UserError):
        Augment(**arguments)
