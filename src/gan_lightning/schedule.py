"""Learning rates over a run."""

import math

from gan_lightning.ranges import Cadence, Fraction, checked


class Schedule:
    """A linear rise over `warmup_kimg` thousand images, then half a cosine down to `lr_final` of
    the rate."""

    @checked
    def __init__(self, warmup_kimg: Cadence = 0.0, lr_final: Fraction = 1.0) -> None:
        self.warmup_kimg, self.lr_final = warmup_kimg, lr_final

    @property
    def constant(self) -> bool:
        return not self.warmup_kimg and self.lr_final == 1

    def fade(self, progress: float) -> float:
        """From 1 at `progress` 0 to `lr_final` at 1."""
        return self.lr_final + (1 - self.lr_final) * (1 + math.cos(math.pi * progress)) / 2

    def factor(self, nimg: int, progress: float) -> float:
        """What the rates are multiplied by after `nimg` images, `progress` (0 to 1) of the run."""
        rise = min(1.0, (nimg + 1) / (self.warmup_kimg * 1000)) if self.warmup_kimg else 1.0
        return rise * self.fade(progress)
