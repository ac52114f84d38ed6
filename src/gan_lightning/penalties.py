"""Gradient penalties: pure functions. `logits` (B,) must have been computed from `images` (B, C, H, W) with a graph."""

from collections.abc import Callable

import torch
from torch import Tensor


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of the squared norm of d logit / d image, 0-d, differentiable.

    ½·gamma times this is R1 on real images and R2 on generated ones (Mescheder et al. 2018).
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def wgan_gp(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Mean of (‖d critic / d x‖ - 1)² at random points between real and fake pairs (Gulrajani et al. 2017), 0-d."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(real, fake, share).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # the norm of an all-zero gradient has no derivative: 1e-12 under the root keeps it finite without changing the value
    return ((gradient.square().flatten(1).sum(1) + 1e-12).sqrt() - 1).square().mean()
