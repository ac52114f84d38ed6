"""Both networks and their alternation; `d_step` and `g_step` mirror each other."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from gan_lightning.augment import Augment
from gan_lightning.ema import EMA, in_mode, recalibrated
from gan_lightning.errors import UserError
from gan_lightning.latents import inputs, latents
from gan_lightning.losses import Loss
from gan_lightning.networks.aid import SlicedAid
from gan_lightning.schedule import Schedule

MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]


class GAN(LightningModule):
    """A generator and a discriminator trained against each other, on raw logits.

    generator: (B, latent_dim) -> (B, C, H, W) in [-1, 1]; discriminator: (B, C, H, W) -> (B,); both
    take labels (B,) where `num_classes` is set. `nimg`: real images shown on all processes.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        optimizer_g: MakeOptimizer,
        optimizer_d: MakeOptimizer,
        latent_dim: int,
        augment: Augment | None = None,
        aid: SlicedAid | None = None,  # pretrained features in the generator's loss
        ema: EMA | None = None,
        schedule: Schedule | None = None,
        n_critic: int = 1,  # discriminator steps per generator step
        reuse_fakes: bool = True,  # the generator's step takes the discriminator's fakes
        num_classes: int | None = None,
        grad_clip: float | None = None,  # largest gradient norm of either network
        total_kimg: float | None = None,  # length of the run in thousand images
        channels_last: bool = False,
        compile: bool = False,  # torch.compile for both networks
        config: dict[str, Any] | None = None,  # goes into every checkpoint, to build the same again
    ) -> None:
        super().__init__()
        if n_critic < 1:
            raise UserError(f"n_critic={n_critic} should be a whole number of at least 1")
        self.automatic_optimization = False
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.generator = generator.to(memory_format=self.memory_format)
        self.discriminator = discriminator.to(memory_format=self.memory_format)
        self.ema, self.schedule = ema or EMA(0), schedule or Schedule()
        self.generator_ema = self.ema.copy_of(self.generator)
        self.loss, self.augment, self.aid = loss, augment or Augment(), aid
        self.make_optimizer_g, self.make_optimizer_d = optimizer_g, optimizer_d
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.n_critic, self.reuse_fakes = n_critic, reuse_fakes
        self.grad_clip, self.total_kimg = grad_clip, total_kimg
        self.config = config or {}
        networks = self.generator, self.discriminator
        # in a tuple, for they are no further parts of this module
        self.fast = tuple(map(torch.compile, networks)) if compile else networks
        self.nimg = self.step = 0  # real images shown; discriminator steps
        self.time_fraction = 0.0  # of the time that the run may take, where it is limited
        self.last: dict[str, Tensor] = {}  # by name, what the latest steps have measured
        self.last_logits: tuple[Tensor, Tensor] | None = None  # of the last step: real, fake
        self.recalibrated: tuple[Any, nn.Module] | None = None  # made for, EMA generator

    # -- one batch -------------------------------------------------------------------------------

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> None:
        """A discriminator step, every `n_critic`-th time then the generator's and the EMA's."""
        real = batch[0].contiguous(memory_format=self.memory_format)
        labels = batch[1] if self.num_classes else None
        images = len(real) * self.trainer.world_size
        self.set_learning_rates()
        updates_generator = (self.step + 1) % self.n_critic == 0
        with torch.set_grad_enabled(updates_generator and self.reuse_fakes):
            fake = self.generate(self.latents(len(real)), labels)
        self.d_step(real, fake.detach(), labels)
        if updates_generator:
            if not self.reuse_fakes:
                fake = self.generate(self.latents(len(real)), labels)
            self.g_step(real, fake, labels)
            if self.generator_ema is not None:
                shown = images * self.n_critic
                self.ema.update(self.generator_ema, self.generator, shown, self.nimg + images)
        self.step += 1
        self.nimg += images
        if self.step % self.log_every == 0:
            self.log_values()

    def d_step(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> None:
        r1, exact = self.loss.r1_due(self.step), self.loss.second_order(self.step)
        real.requires_grad_(r1)
        fake.requires_grad_(r1 and self.loss.r2)

        def critic(images: Tensor) -> Tensor:
            return self.discriminate(images, labels, exact)

        # penalties are of second order: bf16 would drown them
        with torch.autocast(self.device.type, enabled=False) if exact else nullcontext():
            real_logits, fake_logits = self.logits(real, fake, labels, apart=r1, exact=exact)
            loss = total = self.loss.d(real_logits, fake_logits)
            terms = self.loss.penalties(real, fake, real_logits, fake_logits, critic, self.step)
        for name, (weight, value) in terms.items():
            self.last[f"penalty/{name}"] = value.detach()
            total = total + weight * value
        self.last["loss/d"] = loss.detach()
        self.last_logits = real_logits.detach(), fake_logits.detach()
        self.descend(self.optimizer(1), self.discriminator, total, "grad_norm/d")
        level = fake_logits.detach() if self.loss.middle is None else self.loss.middle
        self.augment.adapt(real_logits.detach(), len(real) * self.trainer.world_size, level)

    def g_step(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> None:
        self.discriminator.requires_grad_(False)  # its gradients would be thrown away
        if self.loss.paired:
            real_logits, fake_logits = self.logits(real.detach(), fake, labels)
        else:
            real_logits, fake_logits = None, self.discriminate(fake, labels)
        loss = total = self.loss.g(real_logits, fake_logits)
        if self.aid is not None and self.progress >= self.aid.start:
            total = total + self.aid_term(self.aid, real, fake, labels)
        self.last["loss/g"] = loss.detach()
        self.descend(self.optimizer(0), self.generator, total, "grad_norm/g")
        self.discriminator.requires_grad_(True)

    def aid_term(self, aid: SlicedAid, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """What the aid adds to the generator's loss; its heads take a step before theirs."""
        heads = aid.heads if aid.heads and self.progress >= aid.heads.start else None
        gain = 2 if heads else 1  # each has every second step to itself then
        if heads is None or self.step // self.n_critic % 2:
            distance = aid(fake, labels)
            self.last["loss/aid"] = distance.detach()
            return gain * aid.weight * distance
        fake_maps = aid.maps(heads.augment(fake))
        with torch.no_grad():
            real_maps = aid.maps(heads.augment(real))
        loss, self.last["loss/heads"] = heads.d(real_maps, [x.detach() for x in fake_maps])
        self.descend(self.optimizer(2), heads, loss, "grad_norm/heads")
        return gain * heads.weight * heads.g(fake_maps)

    def descend(self, optimizer: Any, network: nn.Module, loss: Tensor, name: str) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if self.grad_clip:
            self.last[name] = nn.utils.clip_grad_norm_(network.parameters(), self.grad_clip)
        elif (self.step + 1) % self.log_every == 0:
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            self.last[name] = nn.utils.get_total_norm(gradients)
        optimizer.step()
        torch.clear_autocast_cache()  # it holds the old weights in bf16

    # -- the networks ----------------------------------------------------------------------------

    @property
    def joint(self) -> bool:
        """One pass over real and fake, which is faster, as no layer looks across the batch."""
        return getattr(self.discriminator, "batch_independent", False)

    def latents(self, count: int) -> Tensor:
        weight = self.weight
        return torch.randn(count, self.latent_dim, device=weight.device, dtype=weight.dtype)

    def generate(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.fast[0](*inputs(z, labels)).to(self.dtype)  # bf16 under autocast

    def discriminate(self, images: Tensor, labels: Tensor | None, exact: bool = False) -> Tensor:
        """Logits (B,) of augmented images; `exact`: twice differentiable."""
        network = self.discriminator if exact else self.fast[1]
        logits = network(*inputs(self.augment(images), labels))
        return logits.to(self.dtype)  # bf16 is too coarse for the difference of two

    def logits(
        self,
        real: Tensor,
        fake: Tensor,
        labels: Tensor | None,
        apart: bool = False,
        exact: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Logits (B,) of real and of fake images."""
        if apart or not self.joint:
            d = self.discriminate
            return d(real, labels, exact), d(fake, labels, exact)
        twice = None if labels is None else torch.cat([labels, labels])
        both = self.discriminate(torch.cat([real, fake]), twice, exact)
        return both[: len(real)], both[len(real) :]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of being real, where the loss gives logits that meaning; else the logits."""
        return logits.float().sigmoid() if self.loss.probabilities else logits.float()

    # -- what Lightning's own types leave open ---------------------------------------------------

    @property
    def weight(self) -> nn.Parameter:
        """Inputs have to be where it is, and of its type."""
        return next(self.generator.parameters())

    @property
    def log_every(self) -> int:
        """Steps between two logged ones."""
        trainer: Any = self.trainer
        return trainer.log_every_n_steps

    def optimizer(self, number: int) -> Any:
        """0: the generator's, 1: the discriminator's, 2: the heads'."""
        made: Any = self.optimizers()
        return made[number]

    # -- progress --------------------------------------------------------------------------------

    @property
    def planned_nimg(self) -> float | None:
        """Images shown at the end of the run; None where only the clock ends it."""
        ends = [self.total_kimg * 1000] if self.total_kimg else []
        trainer = self._trainer
        stream = getattr(getattr(trainer, "datamodule", None), "stream", None)
        if trainer is not None and stream is not None and (trainer.max_epochs or 0) > 0:
            part = min(1.0, trainer.num_training_batches / len(stream))  # limit_train_batches
            ends.append(float(trainer.max_epochs * stream.per_rank * trainer.world_size * part))
        return min(ends, default=None)

    @property
    def progress(self) -> float:
        """0 to 1, of the run in images or in time, whichever is further on."""
        end = self.planned_nimg
        return min(1.0, max(self.time_fraction, self.nimg / end if end else 0.0))

    def set_learning_rates(self) -> None:
        if self.schedule.constant:
            return
        factor = self.schedule.factor(self.nimg, self.progress)
        for optimizer, settings in zip(self.optimizers(), self.settings, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = settings["lr"] * factor

    def log_values(self) -> None:
        """The latest values to every logger; the x-axis is images shown."""
        assert self.last_logits is not None
        values = {name: float(value) for name, value in self.last.items()}
        for side, logits in zip(("real", "fake"), self.last_logits, strict=True):
            values[f"score/{side}"] = float(logits.mean())
        for side, optimizer in zip(("g", "d", "heads"), self.optimizers(), strict=False):
            values[f"lr/{side}"] = optimizer.param_groups[0]["lr"]
        values["progress/kimg"] = self.nimg / 1000
        if self.augment.active:
            values["augment/p"] = float(self.augment.p)
        for logger in self.loggers:
            logger.log_metrics(values, step=self.nimg)

    # -- to be looked at -------------------------------------------------------------------------

    def shown_generator(self) -> nn.Module:
        """The EMA generator, recalibrated once a step; without an EMA the generator."""
        if self.generator_ema is None:
            return self.generator
        made_for = self.step, self.weight.device, self.weight.dtype
        if self.recalibrated is None or self.recalibrated[0] != made_for:
            draw = torch.Generator().manual_seed(0)
            z = torch.randn(4, 64, self.latent_dim, generator=draw).to(self.weight)
            labels = self.some_labels(64)
            with torch.autocast(self.device.type, enabled=False):
                network = recalibrated(self.generator_ema, ((batch, *labels) for batch in z))
            self.recalibrated = made_for, network
        return self.recalibrated[1]

    def some_labels(self, count: int) -> tuple[Tensor, ...]:
        """Every class in turn, as a network's further arguments."""
        if not self.num_classes:
            return ()
        return (torch.arange(count, device=self.device) % self.num_classes,)

    @torch.no_grad()
    def sample(self, z: Tensor | int, labels: Tensor | None = None, ema: bool = True) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] of latents (B, latent_dim) or the seeds below a number."""
        if isinstance(z, int):
            z = latents(range(z), self.latent_dim)
        network = self.shown_generator() if ema else self.generator
        with in_mode(network, training=False):
            return network(z.to(self.weight), *self.further(labels, len(z)))

    @torch.no_grad()
    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Raw logits (B,) of images (B, C, H, W), in eval mode and without augmentation."""
        images = images.to(self.weight)
        with in_mode(self.discriminator, training=False):
            return self.discriminator(images, *self.further(labels, len(images)))

    def further(self, labels: Tensor | None, count: int) -> tuple[Tensor, ...]:
        if labels is None or not self.num_classes:
            return self.some_labels(count)
        return (labels.to(self.device),)

    # -- Lightning -------------------------------------------------------------------------------

    def trained(self) -> list[tuple[nn.Module, MakeOptimizer]]:
        """What is trained, each by an optimiser of its own."""
        parts: list[tuple[nn.Module, MakeOptimizer]] = [
            (self.generator, self.make_optimizer_g),
            (self.discriminator, self.make_optimizer_d),
        ]
        if self.aid is not None and self.aid.heads is not None:
            parts.append((self.aid.heads, self.aid.heads.make_optimizer))
        return parts

    def configure_optimizers(self) -> list[Optimizer]:
        made = [make(network.parameters()) for network, make in self.trained()]
        self.settings = [
            {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
            for optimizer in made
        ]
        return made

    def on_train_start(self) -> None:
        if self.aid is not None and not self.aid.fitted:
            trainer: Any = self.trainer
            self.aid.fit(trainer.datamodule.real_batches(self.device))
        # a checkpoint brings its optimisers' settings along; when going on, the configuration's win
        for optimizer, settings in zip(self.optimizers(), self.settings, strict=True):
            for group in optimizer.param_groups:
                group.update(settings)

    def save_checkpoint(self, path: Path) -> None:
        """Lightning's checkpoint; to be called by every process."""
        self.trainer.save_checkpoint(path)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"config": self.config, "nimg": self.nimg, "step": self.step}
        if self.generator_ema is not None:  # what the checkpoint's user samples from
            shown = self.shown_generator().state_dict()
            checkpoint["state_dict"] |= {f"generator_ema.{key}": w for key, w in shown.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.nimg, self.step, self.recalibrated = checkpoint["nimg"], checkpoint["step"], None
        self.adapt_weights(checkpoint["state_dict"])

    def adapt_weights(self, loaded: dict[str, Tensor]) -> None:
        """EMA, ADA, LeCam and the aid may be newly on or off: they start from what there is."""
        if self.aid is not None:
            saved = {k.removeprefix("aid."): w for k, w in loaded.items() if k.startswith("aid.")}
            self.aid.shape_like(saved)
        own = self.state_dict()
        optional = ("generator_ema.", "augment.", "loss.", "aid.")
        for key in [key for key in loaded if key.startswith(optional) and key not in own]:
            del loaded[key]
        for key in [key for key in own if key.startswith(optional) and key not in loaded]:
            raw = key.replace("generator_ema.", "generator.")
            loaded[key] = loaded.get(raw, own[key]).clone()
