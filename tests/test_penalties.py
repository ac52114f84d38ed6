"""A linear critic w·x has gradient w everywhere: every penalty has a closed form, and so has its gradient in w."""

import pytest
import torch

from gan_lightning.penalties import squared_gradient, wgan_gp

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
