"""What the diagnosis measures of a snapshot, with the same meaning for every loss.

Images are float (B, C, H, W) in [-1, 1], logits (B,), features (N, F).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.data.images import LEVELS, to_uint8
from gan_lightning.ema import batch_norms
from gan_lightning.latents import seeded
from gan_lightning.measure import distances as D
from gan_lightning.measure.snapshot import IMAGES, Moment, Reals

REMEMBERED = 8  # snapshots over which the fakes of each mode are counted


# -- logits ------------------------------------------------------------------------------------


def auc(high: Tensor, low: Tensor) -> float:
    """The area under the ROC curve: P(a logit of `high` > one of `low`). NaN when one is empty."""
    if not len(high) or not len(low):
        return math.nan
    ordered, high = low.double().sort().values, high.double().contiguous()
    wins = torch.searchsorted(ordered, high) + torch.searchsorted(ordered, high, right=True)
    return float(wins.double().mean() / (2 * len(low)))


def auc_error(n: int, m: int) -> float:
    """Standard deviation of `auc` between samples of one distribution (Mann and Whitney 1947)."""
    return math.sqrt((n + m + 1) / (12 * n * m))


def r_v(train_logits: Tensor, heldout_logits: Tensor, fake_logits: Tensor) -> float:
    """(E D(train) - E D(held out)) / (E D(train) - E D(fake)) (Karras et al. 2020, ADA).

    0: no overfitting, 1: held-out images look fake. NaN where fakes rank as high as training
    images.
    """
    train, apart = train_logits.mean(), (train_logits.mean() - fake_logits.mean())
    return float((train - heldout_logits.mean()) / apart) if apart > 1e-6 else math.nan


# -- pixels ------------------------------------------------------------------------------------


def saturated(images: Tensor) -> float:
    """Fraction of values with |x| > 0.99."""
    return float((images.abs() > 0.99).float().mean())


def image_std(images: Tensor) -> float:
    """Median over the images of the standard deviation of their values; 0 = flat images."""
    return float(images.float().flatten(1).std(1).median())


def ends(images: Tensor) -> tuple[float, float]:
    """The darkest and the brightest value of an image, median over the images."""
    values = images.float().flatten(1)
    return float(values.amin(1).median()), float(values.amax(1).median())


def agreement(a: Tensor, b: Tensor) -> float:
    """Correlation of mean images, pooled to 8 x 8: near -1 where one is inverted.

    NaN where a mean image is flat or shapes differ.
    """
    if a.shape[1:] != b.shape[1:]:
        return math.nan
    means = [F.adaptive_avg_pool2d(x.float(), 8).mean(0).flatten() for x in (a, b)]
    return float(torch.corrcoef(torch.stack(means))[0, 1])


def nyquist(images: Tensor) -> tuple[float, float]:
    """(amplitude in grey levels of 255, peak) of a pattern with a period of two pixels.

    The amplitude is that of the corners (N/2, 0), (0, N/2), (N/2, N/2) of the mean spectrum; the
    peak is their mean power over that of 0.6 to 0.9 of Nyquist, and tells a checkerboard from noise
    (flat).
    """
    grey = images.float().mean(1)
    # of the images mirrored, or the jump from edge to edge would count as a pattern: sums of
    # cosines, of which all but the first and the last stand for two of the Fourier transform
    (fy, rows, times_y), (fx, columns, times_x) = (_cosines(n, grey) for n in grey.shape[1:])
    times = times_y[:, None] * times_x
    # snapshots compute as training does; bf16 is too coarse here
    with torch.autocast(grey.device.type, enabled=False):
        power = (rows @ grey @ columns.T).square().mean(0) * times
    high_y, high_x, low_y, low_x = fy[:, None] > 0.93, fx > 0.93, fy[:, None] < 0.07, fx < 0.07
    corners = (high_y & low_x) | (low_y & high_x) | (high_y & high_x)
    radius = torch.maximum(fy[:, None], fx)
    around = (radius > 0.6) & (radius < 0.9)
    at_corners, beside = (power[mask].sum() / times[mask].sum() for mask in (corners, around))
    return LEVELS * float(power[corners].sum()) ** 0.5, float(at_corners / beside.clamp_min(1e-16))


def _cosines(n: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of n mirrored values: frequencies over Nyquist, transform, how often each counts."""
    k = torch.arange(n + 1, device=like.device, dtype=like.dtype)
    times = torch.full_like(k, 2.0)
    times[[0, -1]] = 1.0
    return k / n, torch.cos(math.pi / n * k[:, None] * (k[:-1] + 0.5)) / n, times


def mode_gap(train: Tensor, evaluated: Tensor) -> float:
    """Mean |G in train mode - G in eval mode| on the same z, in deviations over the images."""
    return float((train - evaluated).abs().mean() / evaluated.std(0).mean().clamp_min(1e-3))


# -- features ----------------------------------------------------------------------------------


def copy_ratio(fake: Tensor, heldout: Tensor, train: Tensor) -> float:
    """Median distance to the nearest training image, fakes over reals: below 1 = copies."""
    fakes, reals = (D.nearest(x, train)[0].median() for x in (fake, heldout))
    return float(fakes / reals.clamp_min(1e-12))


def duplicates(features: Tensor) -> float:
    """Fraction of rows with another row nearer than 2 % of the mean pairwise distance."""
    if len(features) < 2:
        return 0.0
    distance = D.nearest(features, features, exclude=torch.arange(len(features)))[0]
    return float((distance < 0.02 * max(D.spread(features), 1e-12)).float().mean())


def kmeans(features: Tensor, k: int) -> Tensor:
    """Cluster of each row (N,): Lloyd's algorithm from farthest-point seeds."""
    centres = features[features.norm(dim=1).argmin()][None]
    for _ in range(k - 1):
        centres = torch.cat([centres, features[D.nearest(features, centres)[0].argmax()][None]])
    for _ in range(20):
        member = D.nearest(features, centres)[1][:, 0]
        kept = ((member == j, centre) for j, centre in enumerate(centres))
        centres = torch.stack([features[own].mean(0) if own.any() else old for own, old in kept])
    return D.nearest(features, centres)[1][:, 0]


def mode_counts(fake: Tensor, reference: Tensor, modes: Tensor) -> Tensor:
    """How many fakes fall to each mode (K,), that of most of the 5 nearest reference rows."""
    near = D.nearest(fake, reference, min(5, len(reference)))[1]
    votes = F.one_hot(modes[near], int(modes.max()) + 1).sum(1)
    return torch.bincount(votes.argmax(1), minlength=votes.shape[1])


def missing_modes(
    counts: Tensor, fractions: Tensor, below: float = 0.1, expected: float = 20
) -> tuple[float, int, float]:
    """(fraction of modes under `below` of their expected count, the rarest, its count over that).

    Modes of which fewer than `expected` were due are left out (outlier photographs).
    """
    due = fractions * counts.sum()
    known = due >= expected
    if not known.any():
        return 0.0, -1, 1.0
    found = torch.where(known, counts / due.clamp_min(1e-12), torch.inf)
    return float((found[known] < below).float().mean()), int(found.argmin()), float(found.min())


def travel(mean: Tensor, previous: Tensor, scale: float) -> float:
    """How far the fakes' mean feature has moved since the last snapshot, in reals' spreads."""
    return float((mean - previous).norm()) / max(scale, 1e-12)


# -- weights -----------------------------------------------------------------------------------


def weights(network: nn.Module) -> list[Tensor]:
    """Detached copies of the weight matrices and kernels (no biases, no norm scales)."""
    return [p.detach().clone() for p in network.parameters() if p.ndim > 1]


def update_ratio(network: nn.Module, before: list[Tensor], updates: int = 1) -> float:
    """Median over weights of |change| / |weight| per update, updates as independent ones."""
    now = [p.detach() for p in network.parameters() if p.ndim > 1]
    if not now:
        return math.nan
    size = torch.stack([w.norm() for w in before])
    change = torch.stack([(a - b).norm() for a, b in zip(now, before, strict=True)])
    ratio = (change / size)[size > 0]
    return float(ratio.median()) / math.sqrt(max(1, updates)) if len(ratio) else math.nan


def first_bad(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with a NaN or an infinity, or None. One device sync."""
    named = {name: t for name, t in tensors.items() if t.is_floating_point()}
    if not named:
        return None
    good = torch.stack([torch.isfinite(t.detach()).all() for t in named.values()]).tolist()
    return next((name for name, ok in zip(named, good, strict=True) if not ok), None)


def all_finite(module: nn.Module) -> str | None:
    """None when every weight and buffer is finite, else the first bad one's name."""
    return first_bad(module.state_dict(keep_vars=True))


# -- a snapshot --------------------------------------------------------------------------------


class Symptoms:
    """What the reals are like, computed once, and a snapshot's signals beside it."""

    def __init__(self, reals: Reals) -> None:
        self.reals, data, few = reals, reals.data, reals.few
        train, held = data.train_images, data.holdout_images
        self.train, labels = reals.train(IMAGES)
        self.held_out = held is not None and len(held) > 0
        # what the fakes' features are compared with
        self.use_held = self.held_out and len(held) >= 64
        store, order = (held, reals.held_order) if self.use_held else (train, reals.order)
        self.real = reals.features(store, order[:IMAGES])
        self.held = reals.features(held, reals.held_order[:IMAGES]) if self.held_out else None
        self.spread = D.spread(self.real)
        flip = bool(getattr(data, "flip", False))
        shown = self.train[:few].clone()
        if flip:  # as training may show them
            shown[1::2] = shown[1::2].flip(-1)
        noise = 0.08 * torch.randn(64, *self.train.shape[1:], generator=seeded(0))
        self.stored, grey = reals.kept(
            f"shown{'-flip' * flip}", lambda: [reals.see(to_uint8(x)) for x in (shown, noise)]
        )
        self.grey = max(D.energy(grey, self.real), 1e-6)  # quality's unit: flat grey images
        store, labels, order = train, data.train_labels, reals.order
        if self.held_out and len(held) >= 500:  # or clusters are too small to be missed
            store, labels, order = held, data.holdout_labels, reals.held_order
        rows = order[:1024]
        self.reference = reals.features(store, rows)
        # labels are certain; clusters may be outliers, so of them nearly nothing must be there
        self.missing = {"below": 0.02, "expected": 30.0}
        self.modes = kmeans(self.reference, max(2, min(10, len(rows) // 10)))
        if labels is not None:
            self.missing, self.modes = {"below": 0.1, "expected": 20.0}, labels[rows]
        self.fractions = torch.bincount(self.modes) / len(self.modes)
        self.all_train: Tensor | None = None
        if len(train) <= 2048 and self.held_out:
            self.all_train = reals.features(train, torch.arange(len(train)))
        amplitude, self.real_peak = nyquist(self.train)
        self.facts = self._facts(labels is not None, amplitude)

    def _facts(self, labelled: bool, amplitude: float) -> dict[str, Any]:
        data, train = self.reals.data, self.train
        darkest, brightest = ends(train)
        # real images taken for real, by the protocol of the fakes' precision
        a, b = (self.real, self.stored) if self.use_held else (self.real[::2], self.real[1::2])
        facts = {
            "mode_images": len(self.reference),
            "mode_labels": labelled,
            "n_train": len(data.train_images),
            "n_holdout": len(self.reals.held_order),
            "dataset": data.name,
            "stored_mean": float(train.mean()),
            "mean_error": float(train.mean((1, 2, 3)).std()),
            "duplicates": duplicates(self.stored),
            "precision_real": D.precision_recall_density_coverage(a, b)["precision"],
            "coverage_null": D.coverage_null(len(self.real), self.reals.few),
            "saturated_real": saturated(train),
            "nyquist_real": amplitude,
            "darkest_real": darkest,
            "brightest_real": brightest,
        }
        if data.train_labels is not None and data.holdout_labels is not None:
            known = data.train_labels, data.holdout_labels
            counts = [torch.bincount(labels, minlength=data.num_classes) for labels in known]
            trained, held = (c / c.sum() for c in counts)
            # classes that are held out but not trained on
            untrained = (trained < 0.1 * held) & (counts[1] >= 5)
            facts["untrained_classes"] = untrained.nonzero()[:, 0].tolist()
        return facts

    def see(self, moment: Moment, memory: dict[str, list[Any]]) -> dict[str, float] | None:
        """The signals of a snapshot; None where a pixel is not finite.

        `memory`: "mean" feature and mode "counts" of the last snapshots, which it updates.
        """
        if first_bad({"pixels": moment.raw}):
            return None
        raw, fake = moment.raw, moment.raw_features
        near = D.precision_recall_density_coverage(self.real, fake)
        # of fewer fakes than usual a perfect generator covers less
        usual = D.coverage_null(len(self.real), len(fake)) / self.facts["coverage_null"]
        darkest, brightest = ends(raw)
        seen = {
            "quality_raw": D.energy(fake, self.real) / self.grey,
            "diversity": D.diversity(fake, self.real),
            "precision": near["precision"],
            "coverage": near["coverage"] / usual,
            "saturated_fake": saturated(raw),
            "saturated_real": self.facts["saturated_real"],
            "image_std": image_std(raw),
            "darkest_fake": darkest,
            "brightest_fake": brightest,
            **self._logits(moment),
            **self._modes(fake, memory),
        }
        seen["quality"] = seen["quality_raw"]
        if moment.module.generator_ema is not None and not moment.young:
            seen["quality_ema"] = D.energy(moment.ema_features, self.real) / self.grey
            seen["quality"] = min(seen["quality_ema"], seen["quality_raw"])
        if self.all_train is not None and self.held is not None:
            seen["copy_ratio"] = copy_ratio(fake, self.held, self.all_train)
        seen["nyquist_fake"], peak = nyquist(raw)
        seen["nyquist_peak"] = peak / max(self.real_peak, 1e-12)
        if batch_norms(moment.module.generator):
            train_mode = moment.train_mode
            seen["mode_gap"] = mode_gap(train_mode, raw[: len(train_mode)])
        return seen

    def _logits(self, moment: Moment) -> dict[str, float]:
        train, fake = moment.train_logits, moment.fake_logits
        seen = {"auc_train": auc(train, fake)}
        if self.held_out:
            held = moment.held_logits
            seen |= {
                "auc_heldout": auc(held, fake),
                "auc_memory": auc(train, held),
                "auc_memory_error": auc_error(len(train), len(held)),
                "r_v": r_v(train, held, fake),
            }
        return seen

    def _modes(self, fake: Tensor, memory: dict[str, list[Any]]) -> dict[str, float]:
        seen = {}
        if memory["mean"]:
            seen["travel"] = travel(fake.mean(0), torch.tensor(memory["mean"]), self.spread)
        counts = mode_counts(fake, self.reference, self.modes).tolist()
        memory["mean"] = fake.mean(0).tolist()
        memory["counts"] = [*memory["counts"][1 - REMEMBERED :], counts]
        over_all = torch.tensor(memory["counts"]).sum(0)
        missing, rarest, fraction = missing_modes(over_all, self.fractions, **self.missing)
        return seen | {
            "modes_missing": missing,
            "rarest_mode": float(rarest),
            "rarest_fraction": fraction,
        }
