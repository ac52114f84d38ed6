"""Values and gradients against closed forms; the law: a higher logit means more real."""

import math

import pytest
import torch

from gan_lightning.errors import UserError
from gan_lightning.losses import (
    BCE,
    LSGAN,
    Hinge,
    Minimax,
    RpGAN,
    Wasserstein,
    lecam,
    squared_gradient,
    wgan_gp,
)

REAL, FAKE = (
    torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64),
    torch.tensor([-0.5, 1.5, 0.0], dtype=torch.float64),
)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def mean(values):
    return sum(values) / len(values)


r, f = REAL.tolist(), FAKE.tolist()
CLOSED = [
    (
        BCE(),
        -mean([math.log(sigmoid(x)) for x in r]) - mean([math.log(1 - sigmoid(x)) for x in f]),
        -mean([math.log(sigmoid(x)) for x in f]),
    ),
    (
        BCE(label_smoothing=0.1),
        -mean([0.9 * math.log(sigmoid(x)) + 0.1 * math.log(1 - sigmoid(x)) for x in r])
        - mean([math.log(1 - sigmoid(x)) for x in f]),
        -mean([math.log(sigmoid(x)) for x in f]),
    ),
    (
        Minimax(),
        -mean([math.log(sigmoid(x)) for x in r]) - mean([math.log(1 - sigmoid(x)) for x in f]),
        mean([math.log(1 - sigmoid(x)) for x in f]),
    ),
    (
        LSGAN(),
        0.5 * mean([(x - 1) ** 2 for x in r]) + 0.5 * mean([x**2 for x in f]),
        0.5 * mean([(x - 1) ** 2 for x in f]),
    ),
    (Hinge(), mean([max(0, 1 - x) for x in r]) + mean([max(0, 1 + x) for x in f]), -mean(f)),
    (Wasserstein(), mean(f) - mean(r), -mean(f)),
    (
        RpGAN(),
        -mean([math.log(sigmoid(a - b)) for a, b in zip(r, f, strict=True)]),
        -mean([math.log(sigmoid(b - a)) for a, b in zip(r, f, strict=True)]),
    ),
]
IDS = [
    type(loss).__name__ + str(getattr(loss, "label_smoothing", "") or "") for loss, _, _ in CLOSED
]


@pytest.mark.parametrize(("loss", "d", "g"), CLOSED, ids=IDS)
def test_values(loss, d, g):
    assert float(loss.d(REAL, FAKE)) == pytest.approx(d, abs=1e-12)
    assert float(loss.g(REAL, FAKE)) == pytest.approx(g, abs=1e-12)


@pytest.mark.parametrize("loss", [row[0] for row in CLOSED], ids=IDS)
def test_gradients_follow_the_law(loss):
    """From equal logits below every margin, D raises real and lowers fake, G raises fake; compared with differences."""
    real, fake = (torch.full((4,), 0.25, dtype=torch.float64, requires_grad=True) for _ in range(2))
    d_real, d_fake = torch.autograd.grad(loss.d(real, fake), (real, fake))
    assert (d_real < 0).all() and (d_fake > 0).all()
    (g_fake,) = torch.autograd.grad(loss.g(real, fake), fake)
    assert (g_fake < 0).all()
    assert torch.autograd.gradcheck(
        loss.d, (REAL.clone().requires_grad_(), FAKE.clone().requires_grad_())
    )
    assert torch.autograd.gradcheck(lambda x: loss.g(REAL, x), (FAKE.clone().requires_grad_(),))


def test_minimax_saturates_where_bce_does_not():
    logits = torch.full((4,), -10.0, dtype=torch.float64, requires_grad=True)
    (saturating,) = torch.autograd.grad(Minimax().g(None, logits), logits)
    (good,) = torch.autograd.grad(BCE().g(None, logits), logits)
    assert saturating.sum().item() == pytest.approx(-sigmoid(-10), rel=1e-9)
    assert good.sum().item() == pytest.approx(-sigmoid(10), rel=1e-9)


def test_extreme_logits_stay_finite():
    assert float(BCE().d(torch.tensor([-1000.0]), torch.tensor([1000.0]))) == 2000


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_impossible_smoothing(smoothing):
    with pytest.raises(UserError, match="label_smoothing"):
        BCE(smoothing)


def test_a_penalty_that_never_comes_is_refused():
    with pytest.raises(UserError, match="penalty_every=0"):
        BCE(penalty_every=0)


def test_lecam():
    value = lecam(REAL, FAKE, torch.tensor(1.0), torch.tensor(-1.0))
    assert float(value) == pytest.approx(
        mean([max(0, x + 1) ** 2 for x in r]) + mean([max(0, 1 - x) ** 2 for x in f])
    )


# -- penalties: a linear critic w·x has gradient w everywhere --------------------------------------

W = torch.tensor([0.3, -1.2, 0.5, 2.0], dtype=torch.float64)


def critic(weight):
    return lambda images: images.flatten(1) @ weight


def test_squared_gradient_of_a_linear_critic():
    weight = W.clone().requires_grad_()
    images = torch.randn(5, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    value = squared_gradient(critic(weight)(images), images)
    assert float(value) == pytest.approx(float(W.square().sum()), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, weight)
    torch.testing.assert_close(gradient, 2 * W)


def test_squared_gradient_of_a_quadratic_critic():
    """d/dx ½‖x‖² = x: the penalty is the mean squared norm of the images."""
    images = torch.randn(7, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    value = squared_gradient(images.square().sum((1, 2, 3)) / 2, images)
    assert float(value) == pytest.approx(float(images.square().sum((1, 2, 3)).mean()), rel=1e-12)


def test_wgan_gp_of_a_linear_critic():
    weight = W.clone().requires_grad_()
    real, fake = torch.randn(2, 6, 1, 2, 2, dtype=torch.float64)
    value = wgan_gp(critic(weight), real, fake)
    norm = W.norm()
    assert float(value) == pytest.approx(float((norm - 1) ** 2), rel=1e-9)
    (gradient,) = torch.autograd.grad(value, weight)
    torch.testing.assert_close(gradient, 2 * (norm - 1) * W / norm)


def test_wgan_gp_of_a_flat_critic_is_one_and_has_a_gradient():
    weight = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    real, fake = torch.randn(2, 6, 1, 2, 2, dtype=torch.float64)
    value = wgan_gp(critic(weight), real, fake)
    (gradient,) = torch.autograd.grad(value, weight)
    assert float(value) == pytest.approx(1, abs=1e-5) and gradient.isfinite().all()
