"""Adversarial losses with their penalties. Law: a higher logit means "more real".

`d(real_logits, fake_logits)` is what the discriminator minimises, `g(real_logits, fake_logits)`
what the generator does; both take shape (B,) and return a 0-d mean.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.distributed import mean_over_processes
from gan_lightning.ranges import AtLeast0, BelowOne, Every, checked

Critic = Callable[[Tensor], Tensor]


class Loss(nn.Module):
    """gamma: R1, ½·gamma·‖∇D(real)‖² (Mescheder et al. 2018); r2: the same on generated images;
    both are taken every `penalty_every` steps, times that (Karras et al. 2020). gp_weight:
    WGAN-GP's penalty. lecam_weight: LeCam's.
    """

    paired = False  # g compares with real logits
    needs_penalty = False  # is nothing without a bounded gradient
    critic = False  # estimates a distance: it may be ahead, and gp_weight is its penalty
    saturating = False  # a sure discriminator leaves the generator no gradient
    probabilities = False  # sigmoid(logit) is the probability that an image is real
    middle: float | None = 0.0  # the logit between real and fake; None: only differences matter
    mean_logits: Tensor  # LeCam's moving averages of the real and the fake logits

    @checked
    def __init__(
        self,
        gamma: AtLeast0 = 0.0,
        r2: bool = False,
        gp_weight: AtLeast0 = 0.0,
        lecam_weight: AtLeast0 = 0.0,
        penalty_every: Every = 1,
    ) -> None:
        super().__init__()
        self.gamma, self.r2, self.gp_weight = gamma, r2, gp_weight
        self.lecam_weight, self.penalty_every = lecam_weight, penalty_every
        if lecam_weight > 0:
            self.register_buffer("mean_logits", torch.zeros(2))

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        raise NotImplementedError

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        raise NotImplementedError

    def r1_due(self, step: int) -> bool:
        """Whether R1 (and R2) are taken at this step."""
        return self.gamma > 0 and step % self.penalty_every == 0

    def second_order(self, step: int) -> bool:
        """Whether a gradient is differentiated at this step."""
        return self.gp_weight > 0 or self.r1_due(step)

    def penalties(
        self,
        real: Tensor,
        fake: Tensor,
        real_logits: Tensor,
        fake_logits: Tensor,
        critic: Critic,
        step: int,
    ) -> dict[str, tuple[float, Tensor]]:
        """{name: (weight, 0-d value)} of what is due; `critic` maps further images to logits."""
        found: dict[str, tuple[float, Tensor]] = {}
        if self.r1_due(step):
            weight = self.penalty_every * self.gamma / 2
            found["r1"] = weight, squared_gradient(real_logits, real)
            if self.r2:
                found["r2"] = weight, squared_gradient(fake_logits, fake)
        if self.gp_weight > 0:
            found["gp"] = self.gp_weight, wgan_gp(critic, real, fake)
        if self.lecam_weight > 0:
            now = torch.stack([real_logits.detach().mean(), fake_logits.detach().mean()])
            self.mean_logits.lerp_(mean_over_processes(now).to(self.mean_logits), 0.01)
            found["lecam"] = self.lecam_weight, lecam(real_logits, fake_logits, *self.mean_logits)
        return found


class BCE(Loss):
    """Non-saturating (Goodfellow et al. 2014), with label smoothing for real (Salimans et al.
    2016)."""

    probabilities = True

    @checked
    def __init__(self, label_smoothing: BelowOne = 0.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.label_smoothing = label_smoothing

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        # softplus(-x) = -log sigmoid(x), exact for large |x|; a target of 1 - s adds s * x to it
        smoothing = self.label_smoothing * real_logits.mean()
        return F.softplus(-real_logits).mean() + smoothing + F.softplus(fake_logits).mean()

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return F.softplus(-fake_logits).mean()


class Minimax(BCE):
    """The saturating original, min_G E[log(1 - D(G(z)))]: its gradient vanishes when D is sure."""

    saturating = True

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -F.softplus(fake_logits).mean()


class LSGAN(Loss):
    """Least squares with targets 1 for real, 0 for fake (Mao et al. 2017)."""

    middle = 0.5

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return 0.5 * (fake_logits - 1).square().mean()


class Hinge(Loss):
    """Hinge loss (Lim & Ye 2017): no gradient from images beyond the margin of 1."""

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class Wasserstein(Loss):
    """Critic difference (Arjovsky et al. 2017); `loss=wgan_gp` sets its gradient penalty."""

    critic = True
    needs_penalty = True
    middle = None

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class RpGAN(Loss):
    """Each fake against one real (Jolicoeur-Martineau 2018); with R1 + R2 R3GAN (Huang 2024)."""

    paired = True
    needs_penalty = True
    middle = None

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(fake_logits - real_logits).mean()

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None
        return F.softplus(real_logits - fake_logits).mean()


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of ‖d logit / d image‖², 0-d; `logits` (B,) have a graph."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def wgan_gp(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """Mean of (‖d critic / d x‖ - 1)² between real and fake (Gulrajani et al. 2017), 0-d."""
    weight = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(real, fake, weight).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # the norm of an all-zero gradient has no derivative: 1e-12 under the root keeps it finite
    return ((gradient.square().flatten(1).sum(1) + 1e-12).sqrt() - 1).square().mean()


def lecam(real_logits: Tensor, fake_logits: Tensor, ema_real: Tensor, ema_fake: Tensor) -> Tensor:
    """Logits (B,) are pulled towards the other side's moving average (Tseng et al. 2021), 0-d."""
    pulled = F.relu(real_logits - ema_fake).square().mean()
    return pulled + F.relu(ema_real - fake_logits).square().mean()
