import pytest
import torch
from torch import nn

from gan_lightning.ema import EMA, recalibrated


def test_half_is_forgotten_after_the_half_life():
    assert EMA(halflife_kimg=0.64, rampup=0).decay(64, 10**9) ** 10 == pytest.approx(0.5)


def test_rampup_shortens_the_half_life():
    ema = EMA(halflife_kimg=10, rampup=0.05)
    assert ema.decay(100, 2000) == pytest.approx(0.5)  # half-life 100 images
    assert ema.decay(100, 10**7) == pytest.approx(0.5**0.01)


def test_weights_are_averaged_buffers_copied_and_the_raw_ones_kept():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = EMA(halflife_kimg=0.1, rampup=0)
    average = ema.copy_of(network)
    before = [p.clone() for p in network.parameters()]
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    network(torch.randn(8, 2))
    ema.update(average, network, images=200, nimg=200)  # two half-lives
    for old, raw, mean in zip(before, network.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(mean, old + 0.75)
        torch.testing.assert_close(raw, old + 1)
        assert not mean.requires_grad
    for raw, copied in zip(network.buffers(), average.buffers(), strict=True):
        assert torch.equal(raw, copied)
    assert network.training and not average.training


def test_recalibration_measures_the_statistics_of_the_average_itself():
    """Afterwards eval mode normalises with the mean and variance over all given batches, and nothing else has changed."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5, momentum=0.3)).double().eval()
    network[1].running_mean.fill_(7.0)  # another network's
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = [torch.randn(50, 3, dtype=torch.float64) for _ in range(4)]
    shown = recalibrated(network, [(batch,) for batch in batches])
    inside = [network[0](batch) for batch in batches]
    torch.testing.assert_close(
        shown[1].running_mean, torch.stack([x.mean(0) for x in inside]).mean(0)
    )
    torch.testing.assert_close(
        shown[1].running_var, torch.stack([x.var(0) for x in inside]).mean(0)
    )
    assert shown[1].momentum == 0.3 and not any(part.training for part in shown.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    plain = nn.Linear(3, 3)
    assert recalibrated(plain, []) is plain


def test_no_half_life_no_average():
    assert EMA(halflife_kimg=0).copy_of(nn.Linear(2, 2)) is None
