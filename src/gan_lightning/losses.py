"""Adversarial losses on raw logits. Law: a higher logit means "more real", for every loss.

Each class has `d(real_logits, fake_logits)`, what the discriminator minimises, and `g(real_logits, fake_logits)`, what
the generator minimises; both take shape (B,) and return a 0-d mean. `paired` says that the generator's loss
compares with real logits, so the caller has to compute them; `probabilities`, that the sigmoid of a logit is the
probability that an image is real; `middle`, the logit halfway between real and generated (0 where it is not named), or
None where only differences mean anything.
"""

import torch.nn.functional as F
from torch import Tensor

from gan_lightning.ranges import BelowOne, checked


class BCE:
    """Non-saturating cross-entropy (Goodfellow et al. 2014): targets 1 for real, 0 for generated; real term + fake term.

    `label_smoothing` s lowers the real target to 1 - s (one-sided, Salimans et al. 2016); 0 <= s < 1.
    """

    paired = False
    probabilities = True

    @checked
    def __init__(self, label_smoothing: BelowOne = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        # softplus(-x) = -log sigmoid(x), exact for large |x|; a target of 1 - s adds s * x to it
        return (
            F.softplus(-real_logits).mean()
            + self.label_smoothing * real_logits.mean()
            + F.softplus(fake_logits).mean()
        )

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return F.softplus(-fake_logits).mean()


class Minimax(BCE):
    """The saturating original, min_G E[log(1 - D(G(z)))]: its gradient vanishes when D is sure; here to see why not."""

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -F.softplus(fake_logits).mean()


class LSGAN:
    """Least squares with targets 1 for real, 0 for generated (Mao et al. 2017)."""

    paired = False
    probabilities = False
    middle = 0.5

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return 0.5 * (fake_logits - 1).square().mean()


class Hinge:
    """Hinge loss (Lim & Ye 2017): no gradient from images judged beyond the margin of 1."""

    paired = False
    probabilities = False

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class Wasserstein:
    """Critic difference (Arjovsky et al. 2017); needs a gradient penalty (`loss=wgan_gp` sets one)."""

    paired = False
    probabilities = False
    middle = None

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class RpGAN:
    """Relativistic pairing (Jolicoeur-Martineau 2018): each fake against one real; with R1 + R2 this is R3GAN (Huang 2024)."""

    paired = True
    probabilities = False
    middle = None

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(fake_logits - real_logits).mean()

    def g(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None
        return F.softplus(real_logits - fake_logits).mean()


def lecam(real_logits: Tensor, fake_logits: Tensor, ema_real: Tensor, ema_fake: Tensor) -> Tensor:
    """LeCam regulariser (Tseng et al. 2021): logits (B,) are pulled towards the other side's moving average (0-d)."""
    return (
        F.relu(real_logits - ema_fake).square().mean()
        + F.relu(ema_real - fake_logits).square().mean()
    )
