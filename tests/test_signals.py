"""Each signal against a closed form, a brute-force computation or an independent library."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pooled import Pooled
from test_watch import SIZE, Blobs, blobs
from torch import nn

from gan_lightning.data.images import to_float, to_uint8
from gan_lightning.diagnosis import signals as s
from gan_lightning.measure import distances as D
from gan_lightning.measure.snapshot import Moment, Reals


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=30),
    st.lists(st.integers(-4, 4), min_size=1, max_size=30),
)
def test_auc_equals_counting_every_pair(high, low):
    wins = sum((a > b) + 0.5 * (a == b) for a in high for b in low) / (len(high) * len(low))
    assert s.auc(torch.tensor(high).float(), torch.tensor(low).float()) == pytest.approx(
        wins, abs=1e-12
    )
    swapped = s.auc(torch.tensor(low).float(), torch.tensor(high).float())
    assert swapped == pytest.approx(1 - wins, abs=1e-12)


def test_auc_keeps_its_meaning_under_a_rising_map_of_the_logits():
    a, b = torch.randn(50, generator=rng()), torch.randn(70, generator=rng(1))
    assert s.auc(a, b) == pytest.approx(s.auc(5 * a + 3, 5 * b + 3), abs=1e-12)
    assert math.isnan(s.auc(a[:0], b))


def test_auc_error_is_the_spread_of_auc_on_equal_distributions():
    values = [
        s.auc(torch.randn(40, generator=rng(i)), torch.randn(25, generator=rng(1000 + i)))
        for i in range(600)
    ]
    assert np.mean(values) == pytest.approx(0.5, abs=0.01)
    assert np.std(values) == pytest.approx(s.auc_error(40, 25), rel=0.1)


def test_r_v_in_closed_form():
    train, held, fake = (
        torch.tensor([3.0, 1.0, -1.0, 1.0]),
        torch.tensor([0.0]),
        torch.tensor([-3.0]),
    )
    assert s.r_v(train, held, fake) == pytest.approx(1 / 4)
    assert s.r_v(train, train, fake) == 0
    assert s.r_v(train, fake, fake) == 1
    assert math.isnan(s.r_v(fake, held, train))


def images(count, seed=0, size=16):
    return torch.randn(count, 3, size, size, generator=rng(seed)).mul(0.4).clamp(-1, 1)


def test_quality_is_zero_without_and_grows_with_each_defect():
    reals = images(256)
    features = lambda x: Pooled()(to_uint8(x))  # noqa: E731
    real = features(reals)
    same = np.mean([D.energy(features(images(256, seed)), real) for seed in range(1, 9)])
    assert same == pytest.approx(0, abs=0.004)
    small = np.mean(
        [
            D.energy(features(images(64, seed)), features(images(64, 100 + seed)))
            for seed in range(1, 9)
        ]
    )
    assert small == pytest.approx(0, abs=0.015)  # no bias by the sample's size
    fakes = images(256, 1)
    smooth = nn.functional.avg_pool2d(fakes, 3, 1, 1)
    defects = {
        "shift": [(fakes + a).clamp(-1, 1) for a in (0.05, 0.2, 0.5)],
        "blur": [torch.lerp(fakes, smooth, a) for a in (0.2, 0.5, 1.0)],
        "collapse": [torch.lerp(fakes, fakes[:1].expand_as(fakes), a) for a in (0.3, 0.6, 1.0)],
    }
    for name, doses in defects.items():
        values = [D.energy(features(x), real) for x in doses]
        assert values[0] < values[1] < values[2], (name, values)
        assert values[2] > 0.1, (name, values)


def test_saturation_and_contrast():
    x = torch.tensor([1.0, -1.0, 0.0, 0.5]).view(1, 1, 2, 2).repeat(3, 1, 1, 1)
    assert s.saturated(x) == 0.5
    assert s.image_std(x) == pytest.approx(float(x[0].std()))
    assert s.image_std(torch.full((3, 1, 4, 4), 0.7)) < 1e-6


def test_ends():
    x = torch.tensor([[-1.0, 0.5], [-0.5, 0.75], [0.0, 1.0]]).view(3, 1, 1, 2)
    assert s.ends(x) == (-0.5, 0.75)


def test_nyquist_of_patterns_a_wave_a_ramp_and_noise():
    at = torch.arange(16)
    board, stripes = (-1.0) ** (at[:, None] + at), ((-1.0) ** at).expand(16, 16)
    # mirrored, a pattern turns its sign at the edge: a square wave, of whose lines those next to the corners are counted
    near, far = (2 / (16 * math.sin(k * math.pi / 32)) ** 2 for k in (1, 15))
    for pattern, power in ((board, near**2 + 2 * near * far), (stripes, near), (stripes.T, near)):
        amplitude, peak = s.nyquist(0.02 * pattern[None, None])
        assert amplitude == pytest.approx(0.02 * 127.5 * power**0.5, rel=1e-4) and peak > 20
    wave = torch.cos(3 * math.pi * (at + 0.5) / 16).expand(1, 1, 16, 16)
    assert s.nyquist(wave)[0] < 1e-3
    with torch.autocast("cpu", torch.bfloat16):  # as a run in bf16-mixed looks at itself
        assert s.nyquist(wave)[0] < 1e-3
    assert (
        s.nyquist(torch.linspace(-1, 1, 16).expand(1, 3, 16, 16))[0] < 0.5
    )  # its edges differ by the whole range
    amplitude, peak = s.nyquist(torch.randn(400, 1, 16, 16, generator=rng()))
    # flat but for the symmetry: lines at 0 carry twice, lines at the very end none of the power of the others
    assert peak == pytest.approx((2 * 8 / 9 + 4 / 9) / 3, rel=0.15)
    assert amplitude == pytest.approx(
        127.5 * 20**0.5 / 32, rel=0.1
    )  # of variance 1 each line holds (1 / 32)^2
    assert all(math.isfinite(v) for v in s.nyquist(torch.zeros(2, 3, 28, 28)))


def test_agreement_of_mean_images():
    images = torch.rand(64, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 0.2
    images[:, :, 4:12, 8:16] += 0.5  # a subject in the middle
    assert s.agreement(images[:16], images) > 0.95
    assert s.agreement(1 - images[:16], images) == pytest.approx(-s.agreement(images[:16], images))
    assert s.agreement(2 * images[:16] - 1, images) == pytest.approx(
        s.agreement(images[:16], images)
    )
    assert math.isnan(s.agreement(images[:, :1], images))


def test_mode_gap_in_units_of_the_spread():
    x = torch.randn(200, 1, 4, 4, generator=rng())
    assert s.mode_gap(x, x) == 0
    assert s.mode_gap(x + 0.5, x) == pytest.approx(0.5, rel=0.1)


def test_copies_and_duplicates_are_told():
    train, held = torch.randn(100, 6, generator=rng()), torch.randn(50, 6, generator=rng(1))
    copied = train[:50] + 0.01 * torch.randn(50, 6, generator=rng(2))
    assert s.copy_ratio(copied, held, train) < 0.05
    assert s.copy_ratio(torch.randn(50, 6, generator=rng(3)), held, train) == pytest.approx(
        1, abs=0.25
    )
    assert s.duplicates(train) == 0
    assert s.duplicates(torch.cat([train, train])) == 1


def test_modes_are_found_and_the_missing_ones_counted():
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    truth = torch.arange(4).repeat(50)
    points = centres[truth] + torch.randn(200, 2, generator=rng())
    found = s.kmeans(points, 4)
    assert all(len(found[truth == j].unique()) == 1 for j in range(4)) and len(found.unique()) == 4
    counts = s.mode_counts(points[truth != 2], points, truth)
    assert counts.tolist() == [50, 50, 0, 50]
    shares = torch.full((4,), 0.25)
    assert s.missing_modes(counts, shares) == (0.25, 2, 0.0)
    assert s.missing_modes(torch.tensor([50, 50, 4, 50]), shares)[0] == 0  # rare is not missing
    assert s.missing_modes(torch.tensor([10, 10, 0, 10]), shares) == (
        0.0,
        -1,
        1.0,
    )  # too few were due to say so
    assert (
        s.missing_modes(torch.tensor([90, 90, 0]), torch.tensor([0.49, 0.49, 0.02]))[0] == 0
    )  # an outlier


def test_travel_and_update_ratio():
    assert s.travel(torch.tensor([3.0, 4.0]), torch.zeros(2), 10.0) == pytest.approx(0.5)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    before = s.weights(net)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.01)
    assert s.update_ratio(net, before) == pytest.approx(0.01, rel=1e-3)
    assert s.update_ratio(net, before, 4) == pytest.approx(0.005, rel=1e-3)
    nn.init.zeros_(net[0].weight)
    assert math.isfinite(
        s.update_ratio(net, s.weights(net))
    )  # a zero-initialised layer is left out


def test_the_first_bad_tensor_is_named():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert s.all_finite(net) is None
    net[1].running_var[0] = math.inf
    assert s.all_finite(net) == "1.running_var"
    net[0].weight.data[1, 1] = math.nan
    assert s.all_finite(net) == "0.weight"
    assert s.first_bad({"steps": torch.tensor(3)}) is None


# -- stub generators: the look itself, exactly -----------------------------------------------------------------------


class Stub:
    """What a look needs of a module, with images by `make(count, generator)` and logits by the image's mean."""

    device, dtype, latent_dim, num_classes, generator_ema, step = (
        torch.device("cpu"),
        torch.float32,
        4,
        None,
        None,
        7,
    )
    config: dict = {}
    generator = nn.Identity()
    nimg = 56

    def __init__(self, make):
        self.make, self.draw = make, torch.Generator().manual_seed(3)

    def sample(self, z, labels=None, ema=True):
        return to_float(self.make(len(z), self.draw))

    def score(self, images, labels=None):
        return images.mean((1, 2, 3))


def look(make, data=None):
    data = data or Blobs(holdout=200, count=400)
    module = Stub(partial(make, data))
    symptoms, memory = s.Symptoms(Reals(data, Pooled())), {"mean": [], "counts": []}
    for _ in range(4):
        seen = symptoms.see(Moment(module, symptoms.reals, 128), memory)
    known = {name: symptoms.facts[name] for name in ("coverage_null", "nyquist_real")}
    return seen | known


def perfect(data, count, draw):
    return blobs(count, int(torch.randint(10**6, (1,), generator=draw)))[0]


def one_image(data, count, draw):
    return data.train_images[:1].expand(count, -1, -1, -1)


def copies(data, count, draw):
    rows = torch.randint(len(data.train_images), (count,), generator=draw)
    return (
        (
            data.train_images[rows].int()
            + torch.randint(-3, 4, (count, 1, SIZE, SIZE), generator=draw)
        )
        .clamp(0, 255)
        .to(torch.uint8)
    )


def three_classes(data, count, draw):
    return perfect(data, 2 * count, draw)[(torch.arange(2 * count) % 4 != 2)][:count]


def one_class(data, count, draw):
    return perfect(data, 4 * count, draw)[::4]


def test_a_perfect_generator_looks_like_the_data():
    seen = look(perfect)
    assert abs(seen["quality"]) < 0.02
    assert seen["diversity"] == pytest.approx(1, abs=0.05)
    assert seen["coverage"] == pytest.approx(seen["coverage_null"], abs=0.07)
    assert seen["auc_train"] == pytest.approx(0.5, abs=0.1)
    assert seen["copy_ratio"] == pytest.approx(1, abs=0.1)
    assert seen["modes_missing"] == 0 and seen["travel"] < 0.2
    assert seen["nyquist_fake"] == pytest.approx(seen["nyquist_real"], rel=0.3)


@pytest.mark.parametrize(
    "make,expected",
    [
        (
            one_image,
            lambda seen: (
                seen["diversity"] < 0.01 and seen["coverage"] < 0.1 and seen["quality"] > 0.3
            ),
        ),
        (copies, lambda seen: seen["copy_ratio"] < 0.4 and seen["quality"] < 0.02),
        (
            three_classes,
            lambda seen: (
                seen["modes_missing"] == 0.25
                and seen["rarest_mode"] == 2
                and seen["coverage"] > 0.5
            ),
        ),
        (one_class, lambda seen: seen["modes_missing"] == 0.75 and seen["coverage"] < 0.4),
        (
            lambda d, n, g: torch.full((n, 1, SIZE, SIZE), 255, dtype=torch.uint8),
            lambda seen: seen["saturated_fake"] == 1 and seen["image_std"] == 0,
        ),
    ],
)
def test_a_planted_generator_shows_in_its_signals(make, expected):
    seen = look(make)
    assert expected(seen), seen


def test_a_class_that_is_only_held_out_is_known_from_the_labels():
    data = Blobs(holdout=200, count=400)
    keep = data.train_labels != 2
    data.train_images, data.train_labels = data.train_images[keep], data.train_labels[keep]
    for known, found in ((data, [2]), (Blobs(), [])):
        assert s.Symptoms(Reals(known, Pooled())).facts["untrained_classes"] == found


def test_modes_are_found_without_labels_too():
    data = Blobs(holdout=200, count=400)
    data.train_labels = data.holdout_labels = None
    assert look(one_class, data)["modes_missing"] >= 0.5
    assert look(perfect, data)["modes_missing"] == 0


def test_pixels_that_are_none_are_noticed():
    data = Blobs()
    module, symptoms = Stub(partial(perfect, data)), s.Symptoms(Reals(data, Pooled()))
    nothing = torch.full((64, 1, SIZE, SIZE), math.nan)
    module.sample = lambda z, labels=None, ema=True: nothing[: len(z)]
    assert symptoms.see(Moment(module, symptoms.reals, 64), {"mean": [], "counts": []}) is None


@pytest.mark.parametrize(("slow", "step", "seen"), [(True, 400, 1), (True, 401, 2), (False, 7, 2)])
def test_slow_features_are_not_spent_on_a_young_ema(slow, step, seen):
    """How often 64 generated images are looked at: raw ones, and those by the EMA."""
    features = Pooled()
    features.scaled = slow
    module = Stub(partial(perfect, Blobs(holdout=200, count=400)))
    module.generator_ema, module.step = nn.Identity(), step
    symptoms = s.Symptoms(Reals(Blobs(holdout=200, count=400), features))
    extract, looks = features.features, []
    features.features = lambda images: looks.append(len(images)) or extract(images)
    found = symptoms.see(Moment(module, symptoms.reals, 64), {"mean": [], "counts": []})
    assert looks == [64] * seen and ("quality_ema" in found) is (seen == 2)
