import pytest
import torch
from torch import nn

from gan_lightning.ema import ema_decay, make_ema, update_ema


def test_half_is_forgotten_after_the_half_life():
    assert ema_decay(64, 10**9, halflife_kimg=0.64, rampup=0) ** 10 == pytest.approx(0.5)


def test_rampup_shortens_the_half_life():
    assert ema_decay(100, 2000, halflife_kimg=10, rampup=0.05) == pytest.approx(0.5)  # half-life 100 images
    assert ema_decay(100, 10**7, halflife_kimg=10, rampup=0.05) == pytest.approx(0.5**0.01)


def test_weights_are_averaged_buffers_copied_and_the_raw_ones_kept():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = make_ema(network)
    before = [p.clone() for p in network.parameters()]
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    network(torch.randn(8, 2))
    update_ema(average, network, decay=0.75)
    for old, raw, mean in zip(before, network.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(mean, old + 0.25)
        torch.testing.assert_close(raw, old + 1)
        assert not mean.requires_grad
    for raw, copied in zip(network.buffers(), average.buffers(), strict=True):
        assert torch.equal(raw, copied)
    assert network.training and not average.training
