"""Distances between two sets: pure functions of two feature tensors (N, D) or two image tensors uint8 (N, C, H, W).

Sets may differ in size. Nothing here touches the global random state: what samples, samples from its own seed.
"""

import math
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and a factor L (D, D), L L^T = covariance, of features (N, D), in float64; singular ones are fine."""
    x = x.double()
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / (len(x) - 1))
    return mean, vectors * values.clamp_min(0).sqrt()


def frechet_of(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Squared Frechet distance of two results of `gaussian`.

    The trace of (A B)^(1/2) is the sum of the singular values of L_a^T L_b: no matrix root, and
    nothing lost where there are fewer samples than dimensions.
    """
    cross = torch.linalg.svdvals(a[1].T @ b[1]).sum()
    return max(
        0.0,
        float((a[0] - b[0]).square().sum() + a[1].square().sum() + b[1].square().sum() - 2 * cross),
    )


def frechet(real: Tensor, fake: Tensor) -> float:
    """Squared Frechet distance of the Gaussians fitted to two feature sets (N, D), (M, D). Heusel et al. 2017."""
    return frechet_of(gaussian(real), gaussian(fake))


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased squared MMD of two equally long feature sets (N, D), kernel (x.y / D + 1)^3. Binkowski et al. 2018."""
    x, y, n = x.double(), y.double(), len(x)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    k_xx, k_yy = kernel(x, x), kernel(y, y)
    within = k_xx.sum() - k_xx.trace() + k_yy.sum() - k_yy.trace()
    return float(within / (n * (n - 1)) - 2 * kernel(x, y).mean())


def kid(
    real: Tensor, fake: Tensor, subsets: int = 50, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation of `polynomial_mmd` over random subsets, each at most half of the smaller set."""
    size = max(2, min(subset_size, len(real) // 2, len(fake) // 2))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        x = real[torch.randperm(len(real), generator=generator)[:size]]
        values.append(
            polynomial_mmd(x, fake[torch.randperm(len(fake), generator=generator)[:size]])
        )
    found = torch.tensor(values, dtype=torch.float64)
    return float(found.mean()), float(found.std(correction=0))


def pairwise(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (N, M) of the rows of x (N, D) and y (M, D), by matrix product, in their own precision."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.T)
    return squares.clamp_min_(0).sqrt_()


def nearest(
    queries: Tensor, base: Tensor, k: int = 1, exclude: Tensor | None = None, chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """Distances and indices (Q, k) of the k nearest rows of base; `exclude` (Q,): the row each query must skip."""
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
    """Distance (N,) of each row of x (N, D) to its k-th nearest other one, in float64."""
    x = x.double()
    return nearest(x, x, k, torch.arange(len(x)))[0][:, -1]


def prdc_terms(
    real: Tensor, fake: Tensor, k: int = 5, chunk: int = 512, radius_real: Tensor | None = None
) -> dict[str, Tensor]:
    """What precision, density (per fake), recall and coverage (per real) are the means of: see the function below.

    `radius_real`: `radii` of the reals, where they are known: of thousands they take most of the time.
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
    return {"precision": (inside > 0).double(), "density": inside / k, **per_real}


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkaanniemi et al. 2019), density, coverage (Naeem et al. 2020) of fakes, by k nearest.

    Needs more than k rows in each (N, D), (M, D). Coverage of a perfect generator is near 1 - (N / (N + M))^k.
    """
    return {name: float(values.mean()) for name, values in prdc_terms(real, fake, k).items()}


def views(images: Tensor) -> Iterator[Tensor]:
    """18 versions of (N, C, H, W): as it is first, mirrored, and shifted by a 64th of its size (at least a pixel)."""
    step = max(1, round(min(images.shape[2:]) / 64))
    shifts = [(y, x) for y in (0, -step, step) for x in (0, -step, step)]
    return (
        torch.roll(version, shift, (2, 3))
        for version in (images, images.flip(3))
        for shift in shifts
    )


def quiet(images: Tensor, side: int = 16) -> Tensor:
    """uint8 (N, C, H, W) with the darkest and brightest tenth levelled, averaged to `side` pixels on the shorter side.

    Averaging takes noise away; levelling first, because noise that is clipped at black or white would leave a shade.
    """
    height, width = images.shape[2:]
    size = [min(s, max(side, round(s * side / min(height, width)))) for s in (height, width)]
    return F.adaptive_avg_pool2d(images.clamp(24, 231).float(), size).round().to(torch.uint8)


def relative_nearest(
    variants: list[Tensor], base: Tensor, k: int = 50, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Distance (Q,) to the nearest of base over the mean to the k nearest, that one's index, the variant's number.

    Relative as in Carlini et al. 2023: dark or plain photographs lie close together without being copies, and a burst
    of shots shorter than k hardly changes the scale. Each query comes in variants (Q, D): the nearest counts; the scale
    is the first's. `exclude` (Q,): rows of base that are the query itself.
    """
    k = max(1, min(k, len(base) // 4))
    scale = best = where = which = torch.zeros(0)
    for number, variant in enumerate(variants):
        d, i = nearest(variant, base, k if number == 0 else 1, exclude)
        if number == 0:
            scale, best, where = d.mean(1).clamp_min(1e-12), d[:, 0], i[:, 0]
            which = torch.zeros_like(where)
        closer = d[:, 0] < best
        best, where = torch.where(closer, d[:, 0], best), torch.where(closer, i[:, 0], where)
        which = which.masked_fill(closer, number)
    return best / scale, where, which


def copy_threshold(copies: Tensor, held_out: Tensor) -> float:
    """Bound on a distance below which an image counts as a near-copy, from planted copies (A,) and held-out reals (B,).

    Between the two where they are apart; never above the held-outs' 5 % quantile, so that at most 5 % of them pass.
    """
    high, low = float(copies.quantile(0.99)), float(held_out.quantile(0.05))
    return math.sqrt(high * low) if high < low else low


def bootstrap(
    statistic: Callable[[Tensor], float],
    n: int,
    resamples: int = 30,
    seconds: float = 2.0,
    seed: int = 0,
) -> float | None:
    """Half width of the 95 % interval of `statistic(index (n,))`: 1.96 deviations over resamples of n rows.

    Deviations, not quantiles: resampling inflates a Frechet distance, so quantiles would miss the value. Stops after
    `seconds`; None where fewer than 5 resamples fitted in.
    """
    generator, start = torch.Generator().manual_seed(seed), time.monotonic()
    values: list[float] = []
    while len(values) < resamples and time.monotonic() - start < seconds:
        values.append(statistic(torch.randint(n, (n,), generator=generator)))
    return (
        1.96 * float(torch.tensor(values, dtype=torch.float64).std()) if len(values) >= 5 else None
    )
