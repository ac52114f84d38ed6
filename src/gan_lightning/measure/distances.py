"""Distances between two sets of features (N, F), (M, F): pure functions."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor


def gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and a factor L (F, F) of the covariance L L^T, in float64."""
    x = x.double()
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / (len(x) - 1))
    return mean, vectors * values.clamp_min(0).sqrt()


def frechet(real: Tensor, fake: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to both sets (Heusel et al. 2017)."""
    return frechet_of(gaussian(real), gaussian(fake))


def frechet_of(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Squared Fréchet distance of two results of `gaussian`.

    The trace of (A B)^(1/2) is the sum of the singular values of L_a^T L_b: no matrix root.
    """
    cross = torch.linalg.svdvals(a[1].T @ b[1]).sum()
    apart = (a[0] - b[0]).square().sum() + a[1].square().sum() + b[1].square().sum() - 2 * cross
    return max(0.0, float(apart))


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased squared MMD of equally long sets, kernel (x.y / F + 1)^3 (Bińkowski et al. 2018)."""
    x, y, n = x.double(), y.double(), len(x)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    k_xx, k_yy = kernel(x, x), kernel(y, y)
    within = k_xx.sum() - k_xx.trace() + k_yy.sum() - k_yy.trace()
    return float(within / (n * (n - 1)) - 2 * kernel(x, y).mean())


def kid(
    real: Tensor, fake: Tensor, subsets: int = 50, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and deviation of `polynomial_mmd` over random subsets, each at most half of a set."""
    size = max(2, min(subset_size, len(real) // 2, len(fake) // 2))
    draw = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        x, y = (s[torch.randperm(len(s), generator=draw)[:size]] for s in (real, fake))
        values.append(polynomial_mmd(x, y))
    found = torch.tensor(values, dtype=torch.float64)
    return float(found.mean()), float(found.std(correction=0))


def pairwise(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (N, M), by matrix product, in the features' own precision."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.T)
    return squares.clamp_min_(0).sqrt_()


def nearest(
    queries: Tensor, base: Tensor, k: int = 1, exclude: Tensor | None = None, chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """Distances and rows (Q, k) of the k nearest of base; `exclude` (Q,): a row each must skip."""
    values, indices = [], []
    for start in range(0, len(queries), chunk):
        d = pairwise(queries[start : start + chunk], base)
        if exclude is not None:
            d.scatter_(1, exclude[start : start + chunk, None], math.inf)
        found = d.topk(k, largest=False)
        values.append(found.values)
        indices.append(found.indices)
    return torch.cat(values), torch.cat(indices)


def radii(x: Tensor, k: int = 5) -> Tensor:
    """Distance (N,) of each row to its k-th nearest other one, in float64."""
    x = x.double()
    return nearest(x, x, k, torch.arange(len(x)))[0][:, -1]


def prdc_terms(
    real: Tensor, fake: Tensor, radius_real: Tensor | None = None, k: int = 5, chunk: int = 512
) -> dict[str, Tensor]:
    """What precision, density (per fake), recall and coverage (per real) are the means of.

    `radius_real`: `radii` of the reals, where they are known: of thousands they take longest.
    """
    radius_real = radii(real, k) if radius_real is None else radius_real
    radius_fake = radii(fake, k)
    real, fake = real.double(), fake.double()
    inside = torch.zeros(len(fake), dtype=torch.float64)
    recall, coverage = [], []
    for start in range(0, len(real), chunk):
        d = pairwise(real[start : start + chunk], fake)
        radius = radius_real[start : start + chunk]
        inside += (d < radius[:, None]).sum(0)
        recall.append((d < radius_fake).any(1))
        coverage.append(d.amin(1) < radius)
    per_real = {"recall": torch.cat(recall).double(), "coverage": torch.cat(coverage).double()}
    return {"precision": (inside > 0).double(), "density": inside / k} | per_real


def precision_recall_density_coverage(real: Tensor, fake: Tensor) -> dict[str, float]:
    """By 5 nearest, more than 5 rows in each (Kynkäänniemi et al. 2019, Naeem et al. 2020)."""
    return {name: float(values.mean()) for name, values in prdc_terms(real, fake).items()}


def coverage_null(n_real: int, n_fake: int) -> float:
    """Coverage expected of a perfect generator: 1 - P(the 5 nearest others are all reals)."""
    k = min(5, n_real - 1)
    return 1 - math.prod((n_real - 1 - i) / (n_real - 1 + n_fake - i) for i in range(k))


def spread(x: Tensor) -> float:
    """Mean distance between two different rows."""
    n = len(x)
    return float(torch.cdist(x, x).sum() / max(1, n * (n - 1)))


def diversity(fake: Tensor, real: Tensor) -> float:
    """Mean distance of two fakes over that of two reals: 0 is one image."""
    return spread(fake) / max(spread(real), 1e-12)


def energy(fake: Tensor, real: Tensor) -> float:
    """Energy distance in units of the reals' spread (Székely and Rizzo 2013), unbiased."""
    apart = 2 * float(torch.cdist(fake, real).mean()) - spread(fake) - spread(real)
    return apart / max(spread(real), 1e-12)


def permutation_test(a: Tensor, b: Tensor, rounds: int = 99) -> tuple[float, float]:
    """`energy` of two sets, and the largest of `rounds` random divisions of both together."""
    both, n = torch.cat([a, b]), len(a)
    distances, draw = torch.cdist(both, both), torch.Generator().manual_seed(0)

    def between(order: Tensor) -> float:
        i, j = order[:n], order[n:]
        within = (float(distances[k][:, k].sum()) / max(1, len(k) * (len(k) - 1)) for k in (i, j))
        return 2 * float(distances[i][:, j].mean()) - sum(within)

    scale = max(spread(b), 1e-12)
    chance = max(between(torch.randperm(len(both), generator=draw)) for _ in range(rounds))
    return between(torch.arange(len(both))) / scale, chance / scale


def bootstrap(
    statistic: Callable[[Tensor], float], n: int, resamples: int = 30, seconds: float = 2.0
) -> float | None:
    """Half width of the 95 % interval of `statistic(rows (n,))`: 1.96 deviations over resamples.

    Not quantiles, which miss a Fréchet distance as resampling inflates it. Stops after `seconds`;
    None where fewer than 5 resamples fitted in.
    """
    draw, start = torch.Generator().manual_seed(0), time.monotonic()
    values: list[float] = []
    while len(values) < resamples and time.monotonic() - start < seconds:
        values.append(statistic(torch.randint(n, (n,), generator=draw)))
    if len(values) < 5:
        return None
    return 1.96 * float(torch.tensor(values, dtype=torch.float64).std())
