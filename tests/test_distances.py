"""Distances against closed forms, torchmetrics, prdc, and growing doses of what they must see."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_lightning.metrics import distances as D


def draw(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


def pictures(n: int = 150, size: int = 24, seed: int = 0) -> Tensor:
    """Coloured soft discs, uint8 (n, 3, size, size): dark, bright, small and large ones."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    cy, cx, r = (
        torch.rand(3, n, 1, 1, generator=g) * torch.tensor([0.4, 0.4, 0.25]).view(3, 1, 1, 1) + 0.2
    ) * size
    disc = torch.sigmoid(r - ((y - cy) ** 2 + (x - cx) ** 2).sqrt())[:, None]
    colour = torch.rand(n, 3, 1, 1, generator=g) * 120 + 60
    texture = torch.randn(n, 3, size, size, generator=g) * 12
    return (disc * (colour + texture) + 30).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("shift, scale", [(0.0, 1.0), (0.5, 1.0), (0.0, 2.0), (1.0, 0.5)])
def test_frechet_of_gaussians(shift: float, scale: float) -> None:
    d = 6
    x = draw(4000, d, 0)
    x = (x - x.mean(0)) @ torch.linalg.inv(
        torch.linalg.cholesky(torch.cov(x.T))
    ).T  # exactly N(0, 1) in its moments
    assert D.frechet(x, x * scale + shift) == pytest.approx(
        d * shift**2 + d * (1 - scale) ** 2, abs=1e-4
    )


def test_frechet_of_singular_sets() -> None:
    x = draw(20, 64, 0)
    assert D.frechet(x, x) == pytest.approx(0, abs=1e-8)
    assert D.frechet(x, x + 1) == pytest.approx(64, rel=1e-6)
    one = x[:1].expand(20, -1)  # one image again and again: no covariance at all
    wanted = (x.double().mean(0) - one[0]).square().sum() + x.double().var(0).sum()
    assert D.frechet(x, one) == pytest.approx(float(wanted), rel=1e-6)


class Flat(torch.nn.Module):
    """Images are features already."""

    num_features = 8

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_frechet_and_kid_agree_with_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    real, fake = draw(600, 8, 0).double(), draw(500, 8, 1, 0.3, 1.2).double()
    fid = FrechetInceptionDistance(feature=Flat(), input_img_size=(1, 2, 4)).set_dtype(
        torch.float64
    )
    kid = KernelInceptionDistance(feature=Flat(), subsets=20, subset_size=200)
    for metric in (fid, kid):
        metric.update(real.view(-1, 1, 2, 4), real=True)
        metric.update(fake.view(-1, 1, 2, 4), real=False)
    assert D.frechet(real, fake) == pytest.approx(float(fid.compute()), rel=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        mean, std = kid.compute()
    assert D.kid(real, fake, 20, 200, seed=5) == pytest.approx((float(mean), float(std)), rel=1e-4)


def test_kid_is_unbiased_and_fits_small_sets() -> None:
    values = [D.kid(draw(60, 4, 2 * s), draw(60, 4, 2 * s + 1))[0] for s in range(30)]
    mean, error = np.mean(values), np.std(values) / math.sqrt(30)
    assert abs(mean) < 4 * error and error < 0.1
    # closed form: kernel (x.y / d + 1)^3 between two points
    x, y = torch.zeros(2, 1), torch.full((2, 1), 2.0)
    assert D.polynomial_mmd(x, y) == pytest.approx(1 + 5**3 - 2 * 1)


@pytest.mark.parametrize("n, m, shift", [(200, 150, 0.0), (120, 300, 0.7), (40, 40, 3.0)])
def test_precision_recall_density_coverage_is_prdc(n: int, m: int, shift: float) -> None:
    from prdc import compute_prdc

    real, fake = draw(n, 5, 0), draw(m, 5, 1, shift)
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=5)
    found = D.precision_recall_density_coverage(real, fake)
    assert found == pytest.approx(wanted, abs=1e-12)
    assert D.prdc_terms(real, fake, chunk=7)["density"].mean() == pytest.approx(wanted["density"])


def test_coverage_of_a_perfect_generator_is_near_its_null() -> None:
    found = D.precision_recall_density_coverage(draw(1500, 3, 0), draw(1500, 3, 1))["coverage"]
    assert found == pytest.approx(1 - 0.5**5, abs=0.015)


def test_nearest_against_cdist() -> None:
    x, y = draw(30, 4, 0).double(), draw(50, 4, 1).double()
    values, rows = D.nearest(x, y, 3, chunk=8)
    wanted = torch.cdist(x, y).topk(3, largest=False)
    assert torch.allclose(values, wanted.values) and torch.equal(rows, wanted.indices)
    assert (D.nearest(y, y, 1, torch.arange(50), chunk=8)[1][:, 0] != torch.arange(50)).all()


def test_shifted_and_mirrored_images_are_found_among_the_views() -> None:
    x = pictures(60)
    base = D.quiet(x).float().flatten(1)
    moved = torch.roll(x.flip(3), (1, -1), (2, 3))
    distance, where, which = D.relative_nearest(
        [D.quiet(v).float().flatten(1) for v in D.views(moved)], base
    )
    assert torch.equal(where, torch.arange(60)) and (which >= 9).all() and distance.max() < 1e-3


def test_bootstrap_of_a_mean() -> None:
    x = draw(400, 1, 0)[:, 0]
    half = D.bootstrap(lambda index: float(x[index].mean()), 400, resamples=400)
    assert half == pytest.approx(1.96 * float(x.std()) / 20, rel=0.15)
    assert D.bootstrap(lambda index: 0.0, 400, resamples=3) is None


def test_nothing_touches_the_random_state() -> None:
    before, x = torch.get_rng_state(), draw(80, 4, 0)
    D.kid(x, x)
    D.bootstrap(lambda index: 0.0, 80)
    assert torch.equal(before, torch.get_rng_state())
