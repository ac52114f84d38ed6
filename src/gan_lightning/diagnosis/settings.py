"""What the rules may ask of a run's settings: numbers and predicates, read from its configuration
and facts.

Every public name of `Settings` can stand in a rule's YAML: in a condition (`gamma > 10 and not
paired`) or in an override (`loss.gamma={gamma*4}`). No name is evaluated as code, and nothing is
imported that a file names: what has to be known of a loss, a network or an optimiser was written
down as facts when the run began (`parts.py`).
"""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from gan_lightning.config import key_of, lookup

SANE_LR = (1e-5, 4e-3)  # where Adam's learning rates for GANs are found in publications
OF_AN_EXPERIMENT = {"network", "loss", "ema", "augment"}  # typed, they would win over a pasted one
Get = Callable[[str, Any], Any]


def setting(config: Any, path: str, default: Any = None) -> Any:
    """A nested configuration value by its dotted name; `default` where it is missing or null."""
    value = lookup(config, path)
    return default if value is None else value


class Settings:
    """`facts`: of the run, its configuration among them; `shown`: thousand images so far.

    A number that is None, or an empty text, has no value here, and an override with it is left out.
    """

    def __init__(self, facts: dict[str, Any], shown: float = 0.0) -> None:
        self._config = facts.get("config", {})
        self.shown = shown

        def get(path: str, default: Any) -> Any:
            return setting(self._config, path, default)

        def fact(path: str, default: Any) -> Any:
            return setting(facts, path, default)

        self._read_loss(get, fact)
        self._read_length(get)
        self._read_rates(get, fact)
        self._read_data(get, fact)
        self._read_networks(get, fact)

    def named(self, name: str) -> Any:
        """A public attribute; raises ValueError where there is none of that name."""
        if name.startswith("_") or not hasattr(self, name):
            raise ValueError(f"there is no {name} in Settings")
        return getattr(self, name)

    def changes(self, override: str) -> bool:
        """Whether the override says something else than the configuration does."""
        key, _, value = override.partition("=")
        if key == "lr":  # typed last it takes the place of both (config.let_last_rate_win)
            return any(rate != float(value) for rate in self.lr.values())
        now = self.family if key == "network" else str(setting(self._config, key))
        return bool(now != value)

    def _read_loss(self, get: Get, fact: Get) -> None:
        self.paired: bool = fact("loss.paired", False)
        self.critic: bool = fact("loss.critic", False)
        self.needs_penalty: bool = fact("loss.needs_penalty", False)
        self.saturating: bool = fact("loss.saturating", False)
        self.centred: bool = fact("loss.centred", True)
        self.gamma: float = get("loss.gamma", 0.0)
        self.gp_weight: float = get("loss.gp_weight", 0.0)
        self.penalised = self.gamma > 0 or self.gp_weight > 0
        self.grad_clip: float = get("grad_clip", 0.0)
        self.n_critic: int = get("n_critic", 1)

    def _read_length(self, get: Get) -> None:
        self.total: float = get("total_kimg", 0.0)
        self.epochs: int = get("trainer.max_epochs", -1)
        self.ended_by_epochs = self.epochs > 0 and self.shown < self.total
        limit = get("trainer.max_time", None)
        self.ended_by_clock = (
            bool(limit) and self.epochs <= 0 and self.shown < (self.total or math.inf)
        )
        self.longer_time = _doubled(limit) if limit else ""
        self.endless_warmup = get("schedule.warmup_kimg", 0.0) > 0.2 * (self.total or 200)
        self.halflife: float = get("ema.halflife_kimg", 0.0)
        self.shorter_halflife = max(0.1, min(10, 0.05 * (self.total or 200), self.halflife / 4))
        # of the run; 0 where its length is unknown or `rampup` keeps the half-life short
        known = self.total and not get("ema.rampup", 0.0)
        self.halflife_fraction = self.halflife / self.total if known else 0.0

    def _read_rates(self, get: Get, fact: Get) -> None:
        """Learning rates and what to put in their place; any rate of SGD's raises no doubt."""
        adaptive = {side: fact(f"optimizer_{side}.adaptive", True) for side in "gd"}
        betas = [(get(f"optimizer_{side}.betas", None) or [0.9])[0] for side in "gd"]
        self.beta_g, self.beta_d = map(float, betas)
        self.usual_lr = 5e-4 if min(betas) == 0 else 2e-4
        self.lr = {side: get(f"optimizer_{side}.lr", 2e-4) for side in "gd"}
        self.low = {side: SANE_LR[0] if adaptive[side] else 0.0 for side in "gd"}
        self.high = {side: SANE_LR[1] if adaptive[side] else math.inf for side in "gd"}
        self.lr_g, self.lr_d = g, d = self.lr["g"], self.lr["d"]
        self.both_lr_high = all(self.lr[side] > self.high[side] for side in "gd")
        self.both_lr_low = all(self.lr[side] < self.low[side] for side in "gd")
        self.lr_g_high = g > self.high["g"]
        self.largest_lr = max((self.lr[side] for side in "gd" if adaptive[side]), default=0.0)
        self.hot, self.cold = "gd" if g >= d else "dg"  # the side with the larger rate, the other
        self.sane_d = self._sane("d")
        self.lower_g, self.lower_d = self._lower("g"), self._lower("d")
        self.lower_hot, self.lower_cold = self._lower(self.hot), self._lower(self.cold)
        self.higher_g, self.higher_d = self._higher("g"), self._higher("d")
        self.faster_d = min(d * 4, self.high["d"])
        self.slow_g = g < 1e-4 <= d
        # of two rates far apart the generator's is further from the usual one
        self.hasty_g = d >= self.low["d"] and g * d > self.usual_lr**2
        # a generator that takes fewer steps needs larger ones; a critic's extra ones are meant
        steps = 1 if self.critic else self.n_critic
        self.matching_lr_g = min(d, 1e-3) * min(steps, 5) ** 0.5
        self.lead_d = d * steps / max(g, 1e-12)
        # without a step of its own for every weight a GAN's learning rate can hardly be right
        self.sgd_g = not adaptive["g"] and g <= SANE_LR[1]
        self.sgd_d = not adaptive["d"] and d <= SANE_LR[1]

    def _sane(self, side: str) -> float:
        """The other network's learning rate where it is an ordinary one, else a usual one."""
        other = "d" if side == "g" else "g"
        rate = self.lr[other]
        return rate if self.low[other] <= rate <= self.high[other] else self.usual_lr

    def _lower(self, side: str) -> float | None:
        rate = self.lr[side]
        if rate < 4 * self.low[side]:  # it is low enough
            return None
        return rate / 4 if rate <= self.high[side] else self._sane(side)

    def _higher(self, side: str) -> float:
        rate, high = self.lr[side], self.high[side]
        return min(rate * 10, high) if self.low[side] <= rate < high else self._sane(side)

    def _read_data(self, get: Get, fact: Get) -> None:
        self.experiment: str = fact("source.experiment", "")
        self.n_train = int(fact("n_train", 10**9))
        self.n_holdout = fact("n_holdout", 1)
        self.mode_images = fact("mode_images", fact("n_holdout", math.inf))
        self.channels = fact("channels", None)
        self.image_channels = get("dataset.image_channels", None)
        self.batch: int = get("dataset.batch_size", 64)
        self.batch_size = int(fact("batch_size", self.batch))
        self.fair_batch = min(32, self.n_train)
        self.augmented = bool(get("augment.ops", []))
        self.adaptive_augment = bool(get("augment.ada_target", 0.0))
        # more often than conf/augment says is possible without showing in the samples
        often = get("augment.p", 0.0) > get("augment.max_p", 0.8)
        self.augment_leaks = self.augmented and often

    def _read_networks(self, get: Get, fact: Get) -> None:
        self.fully_connected: bool = fact("generator.fully_connected", False)
        self.family: str = fact("generator.family", "")
        self.batchnorm_g: bool = fact("batchnorm_g", False)
        self.batchnorm_d: bool = fact("batchnorm_d", False)
        self.latent_dim: int = get("latent_dim", 100)
        self.width_g = _width(get("network.generator", {}))
        self.width_d = _width(get("network.discriminator", {}))
        self.norm_g_batch = get("network.generator.norm", "") == "batch"
        self.norm_d = bool(get("network.discriminator.norm", ""))
        self.upsample: str = get("network.generator.upsample", "")
        self.coarse_upsampling = self.upsample in ("transposed", "resize")
        group = get("network.discriminator.minibatch_stddev", 0)
        self.ungrouped = bool(group and self.batch_size % group)
        self.grouped_batch = max(group or 4, self.batch // (group or 4) * (group or 4))
        self._size = size = get("dataset.image_size", None)
        # digits are learnt without pretrained features, and these want images to be seen at 32
        # pixels or more
        smallest = min(size) if isinstance(size, list) else size or 0
        self.aidable = not get("aid._target_", "") and smallest >= 32
        # an experiment chose fully connected networks without penalty and EMA, and nothing typed
        # would stand in the way of another experiment pasted behind it
        typed = {key_of(o).partition(".")[0] for o in get("overrides", [])}
        chosen = "experiment" in typed and not OF_AN_EXPERIMENT & typed
        self.bare = self.fully_connected and not self.penalised and not self.halflife and chosen

    @property
    def convolvable(self) -> bool:
        """The convolutional networks can make images of this size."""
        if self._size is None:
            return False
        from gan_lightning.networks.blocks import doublings

        try:
            return bool(doublings(self._size))
        except ValueError:
            return False


def _doubled(limit: str | dict[str, float]) -> str:
    """Twice a time of trainer.max_time, as days:hours:minutes:seconds."""
    if isinstance(limit, str):
        units = ("days", "hours", "minutes", "seconds")
        limit = dict(zip(units, map(int, limit.split(":")), strict=True))
    minutes, seconds = divmod(round(2 * timedelta(**limit).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return "{:02}:{:02}:{:02}:{:02}".format(*divmod(hours, 24), minutes, seconds)


def _width(network: dict[str, Any]) -> float:
    """Channels where a network has most of them, or values of its widest layer."""
    if channels := setting(network, "channels"):  # of which there are never fewer than the least
        return float(max(channels, setting(network, "min_channels", 0)))
    return float(max(setting(network, "hidden", []), default=math.inf))
