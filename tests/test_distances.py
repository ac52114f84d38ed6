"""Distances against closed forms, torchmetrics, prdc, and growing doses of what they must see."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_lightning.measure import distances as D


def draw(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


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


@pytest.mark.parametrize("n,m", [(40, 40), (60, 20)])
def test_coverage_null_is_what_equal_distributions_give(n: int, m: int) -> None:
    pairs = ((draw(n, 3, i), draw(m, 3, 500 + i)) for i in range(200))
    values = [D.precision_recall_density_coverage(*pair)["coverage"] for pair in pairs]
    assert np.mean(values) == pytest.approx(D.coverage_null(n, m), abs=0.02)
    assert D.coverage_null(10**6, 10**6) == pytest.approx(1 - 0.5**5, abs=1e-4)


def test_energy_of_points_in_closed_form() -> None:
    # two fakes at 0, two reals at -1 and +1: 2 * 1 - 0 - 2, over 2
    reals = torch.tensor([[-1.0], [1.0]])
    assert D.energy(torch.zeros(2, 1), reals) == pytest.approx(0)
    assert D.energy(torch.full((2, 1), 5.0), reals) == pytest.approx((2 * 5 - 2) / 2)


def test_diversity_is_a_ratio_of_mean_distances() -> None:
    x = draw(60, 5, 0)
    pairs = [(i, j) for i in range(60) for j in range(60) if i != j]
    brute = np.mean([float((x[i] - x[j]).norm()) for i, j in pairs])
    assert D.spread(x) == pytest.approx(brute, rel=1e-4)
    assert D.diversity(0.3 * x, x) == pytest.approx(0.3, rel=1e-4)
    assert D.diversity(x[:1].repeat(60, 1), x) == pytest.approx(0, abs=1e-3)


def test_a_permutation_test_by_hand_and_by_chance() -> None:
    """(|0-2| + |0-3| + |1-2| + |1-3|) / 2 - 1 - 1 over 1; halves of one set differ by chance."""
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert D.permutation_test(a, b, 1)[0] == pytest.approx(2 * 2 - 1 - 1)
    one, other, moved = (draw(200, 8, seed) for seed in range(3))
    distance, chance = D.permutation_test(one, other)
    assert abs(distance) < 1.5 * chance < 0.02
    assert D.permutation_test(moved + 0.5, other)[0] > 3 * chance


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
