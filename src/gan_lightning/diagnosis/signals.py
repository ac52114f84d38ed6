"""What the diagnosis measures: pure functions of tensors, the same meaning for every loss.

Images are float (B, C, H, W) in [-1, 1], logits (B,), features (N, F). Nothing here knows of a Trainer or touches a random state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.data.images import LEVELS


def auc(high: Tensor, low: Tensor) -> float:
    """P(a score of `high` > a score of `low`), ties as one half: the area under the ROC curve, exact. NaN when one is empty."""
    if not len(high) or not len(low):
        return math.nan
    ordered, high = low.double().sort().values, high.double().contiguous()
    wins = torch.searchsorted(ordered, high) + torch.searchsorted(ordered, high, right=True)
    return float(wins.double().mean() / (2 * len(low)))


def auc_error(n: int, m: int) -> float:
    """Standard deviation of `auc` when both samples come from one distribution (Mann and Whitney 1947)."""
    return math.sqrt((n + m + 1) / (12 * n * m))


def r_t(train_logits: Tensor) -> float:
    """E[sign D(x_train)], in [-1, 1]; meaningless for relativistic and Wasserstein losses (Karras et al. 2020, ADA)."""
    return float(train_logits.sign().mean())


def r_v(train_logits: Tensor, heldout_logits: Tensor, fake_logits: Tensor) -> float:
    """(E D(train) - E D(held out)) / (E D(train) - E D(fake)): 0 no overfitting, 1 held-out photos look fake (ADA).

    NaN where D ranks fakes as high as the training images: the ratio has no meaning there.
    """
    train, spread = train_logits.mean(), (train_logits.mean() - fake_logits.mean())
    return float((train - heldout_logits.mean()) / spread) if spread > 1e-6 else math.nan


def spread(features: Tensor) -> float:
    """Mean distance between two different rows."""
    n = len(features)
    return float(torch.cdist(features, features).sum() / max(1, n * (n - 1)))


def diversity(fake: Tensor, real: Tensor) -> float:
    """Mean pairwise distance of the fakes over that of the reals: 0 = one image, about 1 = as varied as the data."""
    return spread(fake) / max(spread(real), 1e-12)


def quality(fake: Tensor, real: Tensor) -> float:
    """Energy distance between two feature sets in units of the reals' mean pairwise distance, minus its real-against-real floor.

    The floor of the plain estimator is 1/n + 1/m (its diagonal zeros); without it the expectation is 0 for a perfect
    generator, whatever the sample sizes. Lower is better; a grey image stands near 0.5 to 1 (Szekely and Rizzo 2013).
    """
    return (2 * float(torch.cdist(fake, real).mean()) - spread(fake) - spread(real)) / max(
        spread(real), 1e-12
    )


def apart(a: Tensor, b: Tensor, rounds: int = 99) -> tuple[float, float]:
    """(energy distance between two feature sets as in `quality`, the largest of `rounds` random divisions of both together).

    The first near or below the second: they may well be samples of one distribution (a permutation test).
    """
    both, n = torch.cat([a, b]), len(a)
    distances, draw = torch.cdist(both, both), torch.Generator().manual_seed(0)

    def between(order: Tensor) -> float:
        i, j = order[:n], order[n:]
        within = sum(
            float(distances[k][:, k].sum()) / max(1, len(k) * (len(k) - 1)) for k in (i, j)
        )
        return 2 * float(distances[i][:, j].mean()) - within

    orders = (torch.randperm(len(both), generator=draw).to(both.device) for _ in range(rounds))
    scale = max(spread(b), 1e-12)
    return between(torch.arange(len(both), device=both.device)) / scale, max(
        map(between, orders)
    ) / scale


def coverage_null(n_real: int, n_fake: int, k: int = 5) -> float:
    """Expected `coverage` of a perfect generator: 1 - P(the k nearest of n_real - 1 + n_fake others are all reals)."""
    k = min(k, n_real - 1)
    return 1 - math.prod((n_real - 1 - i) / (n_real - 1 + n_fake - i) for i in range(k))


def saturated(images: Tensor) -> float:
    """Share of values with |x| > 0.99."""
    return float((images.abs() > 0.99).float().mean())


def image_std(images: Tensor) -> float:
    """Median over the images of the standard deviation of their values; 0 = flat images."""
    return float(images.float().flatten(1).std(1).median())


def ends(images: Tensor) -> tuple[float, float]:
    """The darkest and the brightest value of an image, median over the images."""
    values = images.float().flatten(1)
    return float(values.amin(1).median()), float(values.amax(1).median())


def agreement(a: Tensor, b: Tensor) -> float:
    """Correlation of two sets' mean images, pooled to 8 x 8: near 1 for samples of one set, near -1 where one is inverted.

    Near 0 where images have nothing in common (photographs of anything); NaN where a mean image is flat or shapes differ.
    """
    if a.shape[1:] != b.shape[1:]:
        return math.nan
    means = [F.adaptive_avg_pool2d(x.float(), 8).mean(0).flatten() for x in (a, b)]
    return float(torch.corrcoef(torch.stack(means))[0, 1])


def nyquist(images: Tensor) -> tuple[float, float]:
    """(amplitude in grey levels of 255, peak) of a pattern with a period of two pixels.

    The amplitude is taken over the Nyquist corners (N/2, 0), (0, N/2), (N/2, N/2) of the mean power spectrum; the peak is
    their mean power over that of the band from 0.6 to 0.9 of Nyquist, and tells a checkerboard from noise (flat).
    """
    grey = images.float().mean(1)
    # of the images mirrored, or the jump from one edge of a smooth one to the other would count as a pattern; mirrored they
    # are sums of cosines, and every line but the first and the last stands for two of the Fourier transform
    (fy, rows, times_y), (fx, columns, times_x) = (_cosines(n, grey) for n in grey.shape[1:])
    times = times_y[:, None] * times_x
    with torch.autocast(
        grey.device.type, enabled=False
    ):  # a look computes as training does; bf16 is too coarse here
        power = (rows @ grey @ columns.T).square().mean(0) * times
    high_y, high_x, low_y, low_x = fy[:, None] > 0.93, fx > 0.93, fy[:, None] < 0.07, fx < 0.07
    corners = (high_y & low_x) | (low_y & high_x) | (high_y & high_x)
    radius = torch.maximum(fy[:, None], fx)
    around = (radius > 0.6) & (radius < 0.9)
    at_corners, beside = (power[mask].sum() / times[mask].sum() for mask in (corners, around))
    return LEVELS * float(power[corners].sum()) ** 0.5, float(at_corners / beside.clamp_min(1e-16))


def _cosines(n: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of n values and their mirror image: frequencies over Nyquist (n + 1,), the transform (n + 1, n), how often each counts."""
    k = torch.arange(n + 1, device=like.device, dtype=like.dtype)
    times = torch.full_like(k, 2.0)
    times[[0, -1]] = 1.0
    return k / n, torch.cos(math.pi / n * k[:, None] * (k[:-1] + 0.5)) / n, times


def mode_gap(train: Tensor, evaluated: Tensor) -> float:
    """Mean |G in train mode - G in eval mode| on the same z, in standard deviations of the eval output over the images."""
    return float((train - evaluated).abs().mean() / evaluated.std(0).mean().clamp_min(1e-3))


def nearest(queries: Tensor, others: Tensor) -> Tensor:
    """Distance of each row to its nearest row of `others` (N,)."""
    return torch.cdist(queries, others).min(1).values


def copy_ratio(fake: Tensor, heldout: Tensor, train: Tensor) -> float:
    """Median distance to the nearest training image, fakes over held-out reals: well below 1 = near copies."""
    return float(nearest(fake, train).median() / nearest(heldout, train).median().clamp_min(1e-12))


def duplicates(features: Tensor, share: float = 0.02) -> float:
    """Share of rows with another row nearer than `share` of the mean pairwise distance."""
    distance = torch.cdist(features, features).fill_diagonal_(math.inf)
    return float((distance.min(1).values < share * max(spread(features), 1e-12)).float().mean())


def kmeans(features: Tensor, k: int, rounds: int = 20) -> Tensor:
    """Cluster index of each row (N,): Lloyd's algorithm from farthest-point seeds, deterministic."""
    centres = features[features.norm(dim=1).argmin()][None]
    for _ in range(k - 1):
        centres = torch.cat([centres, features[nearest(features, centres).argmax()][None]])
    for _ in range(rounds):
        member = torch.cdist(features, centres).argmin(1)
        centres = torch.stack(
            [features[member == j].mean(0) if (member == j).any() else centres[j] for j in range(k)]
        )
    return torch.cdist(features, centres).argmin(1)


def mode_counts(fake: Tensor, reference: Tensor, modes: Tensor, k: int = 5) -> Tensor:
    """How many fakes fall to each mode (K,), by the majority of the k nearest reference rows, whose modes are (N,) ints."""
    near = torch.cdist(fake, reference).topk(min(k, len(reference)), largest=False).indices
    votes = F.one_hot(modes[near], int(modes.max()) + 1).sum(1)
    return torch.bincount(votes.argmax(1), minlength=votes.shape[1])


def missing_modes(
    counts: Tensor, shares: Tensor, below: float = 0.1, expected: float = 20
) -> tuple[float, int, float]:
    """(share of the modes that are missing, the rarest mode, its count over the expected one).

    Missing: under `below` of its expected count, where at least `expected` were due; modes that were due fewer are left
    out (outlier photos).
    """
    due = shares * counts.sum()
    known = due >= expected
    if not known.any():
        return 0.0, -1, 1.0
    found = torch.where(known, counts / due.clamp_min(1e-12), torch.inf)
    return float((found[known] < below).float().mean()), int(found.argmin()), float(found.min())


def travel(mean: Tensor, previous: Tensor, scale: float) -> float:
    """How far the fakes' mean feature has moved since the last check, in units of the reals' mean pairwise distance."""
    return float((mean - previous).norm()) / max(scale, 1e-12)


def weights(network: nn.Module) -> list[Tensor]:
    """Detached copies of the weight matrices and kernels (no biases, no norm scales)."""
    return [p.detach().clone() for p in network.parameters() if p.ndim > 1]


def update_ratio(network: nn.Module, before: list[Tensor], updates: int = 1) -> float:
    """Median over weight tensors of |change| / |weight| per update, updates counted as independent; zero tensors are left out."""
    now = [p.detach() for p in network.parameters() if p.ndim > 1]
    if not now:
        return math.nan
    size = torch.stack([w.norm() for w in before])
    change = torch.stack([(a - b).norm() for a, b in zip(now, before, strict=True)])
    ratio = (change / size)[size > 0]
    return float(ratio.median()) / math.sqrt(max(1, updates)) if len(ratio) else math.nan


def first_bad(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor that holds a NaN or an infinity, None where all are finite. One device sync."""
    named = [
        (n, t)
        for n, t in (tensors.items() if isinstance(tensors, Mapping) else tensors)
        if t.is_floating_point()
    ]
    if not named:
        return None
    good = torch.stack([torch.isfinite(t.detach()).all() for _, t in named]).tolist()
    return next((name for (name, _), ok in zip(named, good, strict=True) if not ok), None)


def all_finite(module: nn.Module) -> str | None:
    """None when every weight and buffer is finite, else the name of the first that is not (for whoever saves checkpoints)."""
    return first_bad(module.state_dict(keep_vars=True))
