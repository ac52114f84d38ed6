"""Per network: shapes, one real CPU step that reaches every parameter, and clear refusals."""

import pytest
import torch
import torch.nn.functional as F

from gan_lightning.errors import UserError
from gan_lightning.networks import dcgan, mlp, resnet
from gan_lightning.networks.blocks import Blur, Dropout, MinibatchStddev, UpConv, doublings, ladder

SMALL = {"channels": 32, "min_channels": 8}
CASES = [
    pytest.param(mlp, 28, 1, {}, {}, id="mlp"),
    pytest.param(mlp, [8, 12], 3, {}, {}, id="mlp-wide"),
    pytest.param(dcgan, 28, 1, SMALL, SMALL, id="dcgan-28"),
    pytest.param(dcgan, 64, 3, SMALL, SMALL, id="dcgan-64"),
    pytest.param(dcgan, [96, 128], 3, SMALL | {"depth": 2}, SMALL | {"depth": 2}, id="dcgan-wide"),
    pytest.param(
        dcgan,
        32,
        4,
        SMALL | {"upsample": "transposed", "norm": "group"},
        SMALL | {"norm": "group"},
        id="dcgan-group",
    ),
    pytest.param(
        dcgan,
        32,
        3,
        SMALL | {"norm": "spectral"},
        SMALL | {"norm": "spectral", "minibatch_stddev": 0},
        id="dcgan-spectral",
    ),
    pytest.param(
        dcgan, 32, 3, SMALL | {"norm": "none"}, SMALL | {"norm": "batch"}, id="dcgan-batch"
    ),
    pytest.param(dcgan, 256, 3, SMALL | {"upsample": "smooth"}, SMALL, id="dcgan-256"),
    pytest.param(dcgan, 64, 3, SMALL | {"depth": 2}, SMALL | {"depth": 2}, id="dcgan-deep"),
    pytest.param(
        dcgan,
        [24, 32],
        1,
        SMALL | {"norm": "none", "upsample": "transposed"},
        SMALL,
        id="dcgan-none",
    ),
    pytest.param(
        resnet, 32, 3, SMALL | {"min_channels": 16}, SMALL | {"min_channels": 16}, id="resnet-32"
    ),
    pytest.param(resnet, [64, 48], 4, SMALL, SMALL, id="resnet-wide"),
]


def shape_of(size, channels):
    return (channels, size, size) if isinstance(size, int) else (channels, *size)


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(("family", "size", "channels", "for_g", "for_d"), CASES)
def test_one_step_reaches_every_parameter(family, size, channels, for_g, for_d, num_classes):
    torch.manual_seed(0)
    generator = family.Generator(10, size, channels, num_classes=num_classes, **for_g)
    discriminator = family.Discriminator(size, channels, num_classes=num_classes, **for_d)
    with (
        torch.no_grad()
    ):  # zero-initialised layers hide the ones in front of them from the first gradient
        for p in [*generator.parameters(), *discriminator.parameters()]:
            p.add_(0.01 * torch.randn_like(p))
    labels = (torch.arange(4) % num_classes,) if num_classes else ()
    fake = generator(torch.randn(4, 10), *labels)
    assert fake.shape == (4, *shape_of(size, channels)) and -1 <= fake.min() and fake.max() <= 1
    logits = discriminator(fake, *labels)
    assert logits.shape == (4,)
    (logits * torch.tensor([1.0, -2.0, 3.0, -4.0])).sum().backward()
    # a bias in front of BatchNorm is subtracted again: its gradient is 0 by design
    for network, settings in ((generator, for_g), (discriminator, for_d)):
        normed = (
            settings.get("norm", "batch" if network is generator and family is dcgan else "none")
            == "batch"
        )
        for name, p in network.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), name
            if not (normed and name.endswith("bias")):
                assert p.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("family", "for_d"), [(mlp, {"dropout": 0.0}), (dcgan, SMALL | {"minibatch_stddev": 0})]
)
def test_batch_independence_is_as_declared(family, for_d):
    torch.manual_seed(0)
    discriminator = family.Discriminator(28, 1, **for_d)
    assert discriminator.batch_independent
    a, b = torch.randn(2, 4, 1, 28, 28)
    torch.testing.assert_close(
        discriminator(torch.cat([a, b])), torch.cat([discriminator(a), discriminator(b)])
    )


def test_minibatch_stddev_is_declared_dependent():
    assert not dcgan.Discriminator(28, 1, **SMALL).batch_independent
    assert not dcgan.Discriminator(
        28, 1, **SMALL, norm="batch", minibatch_stddev=0
    ).batch_independent


def test_upconv_is_doubling_then_convolution():
    torch.manual_seed(0)
    layer = UpConv(5, 4).double()
    x = torch.randn(2, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain)
    wanted = torch.autograd.grad(plain.square().sum(), [x, *layer.parameters()])
    for ours, theirs in zip(
        torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()]), wanted, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_blur_values():
    """A single bright pixel becomes the outer product of [1, 2, 1] / 4 with itself; a flat image stays, edges too."""
    blur, x = Blur(2).double(), torch.zeros(1, 2, 5, 5, dtype=torch.float64)
    x[0, 1, 2, 2] = 16
    wanted = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=torch.float64)
    torch.testing.assert_close(blur(x)[0, 1, 1:4, 1:4], wanted)
    assert blur(x)[0, 0].abs().sum() == 0 and blur(x).sum() == 16
    torch.testing.assert_close(blur(torch.ones_like(x)), torch.ones_like(x))
    assert not blur.state_dict()  # a checkpoint holds no constants


def test_minibatch_stddev_value():
    x = torch.randn(8, 5, 3, 3, dtype=torch.float64)
    y = MinibatchStddev(4)(x)
    assert torch.equal(y[:, :5], x)
    for start in (0, 1):  # groups are images 0, 2, 4, 6 and 1, 3, 5, 7
        want = x[start::2].std(0, correction=0).mean()
        torch.testing.assert_close(
            y[start::2, 5], want.float().double().expand(4, 3, 3), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("size", "base", "times"),
    [
        (28, (7, 7), 2),
        (32, (4, 4), 3),
        (48, (6, 6), 3),
        (64, (4, 4), 4),
        (256, (4, 4), 6),
        ([96, 128], (6, 8), 4),
    ],
)
def test_doublings(size, base, times):
    assert doublings(size) == (base, times)


@pytest.mark.parametrize(
    ("size", "base", "widths"),
    [
        (64, (4, 4), [128, 64, 32, 16, 16]),
        (48, (6, 6), [128, 64, 32, 16]),
        ([96, 128], (6, 8), [128, 64, 32, 16, 16]),
        (12, (6, 6), [128, 64]),
    ],
)
def test_ladder(size, base, widths):
    assert ladder(size, 128, 16) == (base, widths)


@pytest.mark.parametrize("depth", [0, 17, 10**9])
def test_a_depth_that_nobody_needs_is_refused(depth):
    with pytest.raises(UserError, match=f"depth={depth}"):
        dcgan.Generator(8, 16, 3, depth=depth)
    with pytest.raises(UserError, match=f"depth={depth}"):
        dcgan.Discriminator(16, 3, depth=depth)


@pytest.mark.parametrize("size", [4, 30, 100, [64, 70], 37])
@pytest.mark.parametrize(
    "network", [lambda s: dcgan.Generator(8, s, 3), lambda s: resnet.Discriminator(s, 3)]
)
def test_a_size_that_cannot_be_made_is_refused_by_name(size, network):
    with pytest.raises(ValueError, match="image_size=.*nearest"):
        network(size)


def test_labels_are_asked_for():
    for family in (mlp, dcgan, resnet):
        with pytest.raises(ValueError, match="needs labels"):
            family.Generator(8, 32, 1, num_classes=2)(torch.randn(2, 8))
        with pytest.raises(ValueError, match="needs labels"):
            family.Discriminator(32, 1, num_classes=2)(torch.randn(2, 1, 32, 32))


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_dropout_keeps_its_fraction_scales_the_rest_and_draws_every_value_apart(p):
    torch.manual_seed(0)
    x, count = torch.full((1000, 1001), 2.0, requires_grad=True), 1000 * 1001
    y = Dropout(p)(x)
    y.sum().backward()
    kept = y.detach() != 0
    torch.testing.assert_close(
        y.detach()[kept], torch.full((int(kept.sum()),), 2 / (1 - p)), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(x.grad, y.detach() / 2)
    # within four standard deviations of a fair draw, alone and in every pair of neighbours or of rows
    deviation = (p * (1 - p) / count) ** 0.5
    assert abs(kept.double().mean() - (1 - p)) < 4 * deviation
    for a, b in ((kept[:, 1:], kept[:, :-1]), (kept[:, 4:], kept[:, :-4]), (kept[1:], kept[:-1])):
        both = (a & b).double().mean()
        assert abs(both - (1 - p) ** 2) < 4 * ((1 - p) ** 2 * (1 - (1 - p) ** 2) / a.numel()) ** 0.5


def test_dropout_does_nothing_in_eval_mode_and_without_p():
    x = torch.randn(5, 7)
    assert torch.equal(Dropout(0.3).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
