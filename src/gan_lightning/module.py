"""The one meeting point: both networks, the alternation, the average. `d_step` and `g_step` mirror each other."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from gan_lightning import penalties
from gan_lightning.augment import Augment
from gan_lightning.data.images import to_float
from gan_lightning.ema import ema_decay, make_ema, settled, update_ema
from gan_lightning.errors import UserError
from gan_lightning.graphs import Replayed
from gan_lightning.losses import lecam
from gan_lightning.networks.aid import SlicedAid

MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]


class GAN(LightningModule):
    """A generator and a discriminator trained against each other, by manual optimisation on raw logits.

    Networks: generator (B, latent_dim) -> (B, C, H, W) in [-1, 1]; discriminator (B, C, H, W) -> (B,); both take
    labels (B,) as a second argument where `num_classes` is set. Progress is `nimg`, the real images shown to the
    discriminators of all processes together.
    """

    mean_logits: Tensor  # LeCam's moving averages, real and fake

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        adversarial: Any,  # a class of losses.py
        optimizer_g: MakeOptimizer,
        optimizer_d: MakeOptimizer,
        latent_dim: int,
        n_critic: int = 1,  # discriminator updates per generator update
        fresh_noise: bool = False,  # draw new noise for the generator's step; else the discriminator's is used again
        augment: Augment | None = None,
        aid: SlicedAid | None = None,  # pretrained features in the generator's loss
        ema_halflife_kimg: float = 0.0,  # thousand images; 0: no average
        ema_rampup: float = 0.05,  # the half-life is at most this share of the images shown
        gamma: float = 0.0,  # R1: ½·gamma·‖∇D(real)‖²
        r2: bool = False,  # the same on generated images
        gp_weight: float = 0.0,  # WGAN-GP
        lecam_weight: float = 0.0,
        penalty_every: int = 1,  # R1 and R2 every so many steps, with the gain that makes up for it
        grad_clip: float | None = None,  # largest gradient norm of either network
        warmup_kimg: float = 0.0,  # the learning rates rise linearly over the first so many thousand images
        lr_final: float = 1.0,  # share of the learning rates left at the end, along a cosine
        gamma_final: float = 1.0,  # gamma at the end as a share of itself (it may grow), along a cosine
        total_kimg: float | None = None,  # stop after so many thousand images
        num_classes: int | None = None,
        channels_last: bool = False,
        cuda_graphs: bool = False,  # replay whole steps as CUDA graphs, on one GPU
        config: dict[str, Any]
        | None = None,  # what is needed to build the same again; goes into every checkpoint
    ) -> None:
        super().__init__()
        for name, value in {
            "latent_dim": latent_dim,
            "n_critic": n_critic,
            "loss.penalty_every": penalty_every,
        }.items():
            if value < 1:
                raise UserError(f"{name}={value} should be at least 1")
        if cuda_graphs and (n_critic != 1 or warmup_kimg or lr_final != 1 or gamma_final != 1):
            raise UserError(
                "cuda_graphs=true repeats one and the same step: n_critic=1 and no schedule go with it"
            )
        self.replayed = Replayed(self.both) if cuda_graphs else None
        self.automatic_optimization = False
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.generator = generator.to(memory_format=memory_format)
        self.discriminator = discriminator.to(memory_format=memory_format)
        self.generator_ema = make_ema(self.generator) if ema_halflife_kimg > 0 else None
        self.augment, self.aid = augment or Augment(), aid
        self.adversarial, self.make_optimizer_g, self.make_optimizer_d = (
            adversarial,
            optimizer_g,
            optimizer_d,
        )
        self.latent_dim, self.num_classes, self.n_critic, self.fresh_noise = (
            latent_dim,
            num_classes,
            n_critic,
            fresh_noise,
        )
        self.ema_halflife_kimg, self.ema_rampup = ema_halflife_kimg, ema_rampup
        self.gamma, self.r2, self.gp_weight, self.lecam_weight = gamma, r2, gp_weight, lecam_weight
        self.penalty_every, self.grad_clip = penalty_every, grad_clip
        self.warmup_kimg, self.lr_final, self.gamma_final = warmup_kimg, lr_final, gamma_final
        self.total_kimg = total_kimg
        self.memory_format, self.config = memory_format, config or {}
        if lecam_weight > 0:
            self.register_buffer("mean_logits", torch.zeros(2))
        # one pass over real and fake together is faster, and the same where no layer looks across the batch
        self.joint = getattr(discriminator, "batch_independent", False)
        self.nimg = self.step = 0
        self.time_share = 0.0  # of the time the run may take, where it is limited
        self.last: dict[str, Tensor] = {}
        self.last_logits: tuple[Tensor, Tensor] | None = (
            None  # of the last discriminator step: real, fake
        )
        self.shown: tuple[int, nn.Module] | None = (
            None  # the settled average and its step; no part of the state
        )

    # -- one batch -----------------------------------------------------------------------------------------------

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> None:
        images, labels = batch
        images = images.contiguous(memory_format=self.memory_format)
        size = getattr(self.trainer.datamodule, "batch_size", None) or len(images)
        # a turn of Lightning's loop may bring several batches, where its own cost would dominate
        for start in range(0, len(images), size):
            self.one_step(
                images[start : start + size],
                None if labels is None else labels[start : start + size],
            )

    def one_step(self, real: Tensor, labels: Tensor | None = None) -> None:
        """One discriminator step, every `n_critic`-th time followed by one generator step, then the average."""
        labels = labels if self.num_classes else None
        images = len(real) * self.trainer.world_size
        self.follow_schedule()
        measure = (self.step + 1) % self.trainer.log_every_n_steps == 0
        if self.replayed is None or measure:
            self.both(real, labels, measure)
        else:
            penalise = self.gamma > 0 and self.step % self.penalty_every == 0
            written, self.last_logits = self.replayed(penalise, real, labels)
            self.last |= written
        if (self.step + 1) % self.n_critic == 0 and self.generator_ema is not None:
            decay = ema_decay(
                images * self.n_critic, self.nimg + images, self.ema_halflife_kimg, self.ema_rampup
            )
            update_ema(self.generator_ema, self.generator, decay)
        self.step += 1
        self.nimg += images
        if measure:
            self.publish()

    def both(
        self, real: Tensor, labels: Tensor | None, measure: bool = False
    ) -> tuple[dict[str, Tensor], Any]:
        """The discriminator's update and, at its turn, the generator's; returns what this step wrote down on the way."""
        before, self.last = self.last, {}
        g_turn = (self.step + 1) % self.n_critic == 0
        with torch.set_grad_enabled(g_turn and not self.fresh_noise):
            fake = self.generate(self.noise(len(real)), labels)
        self.d_step(real, fake.detach(), labels, measure)
        if g_turn:
            if self.fresh_noise:
                fake = self.generate(self.noise(len(real)), labels)
            self.g_step(real, fake, labels, measure)
        written, self.last = self.last, before | self.last
        return written, self.last_logits

    def d_step(self, real: Tensor, fake: Tensor, labels: Tensor | None, measure: bool) -> None:
        penalise = self.step % self.penalty_every == 0
        r1, r2 = penalise and self.gamma > 0, penalise and self.gamma > 0 and self.r2
        # penalties are of second order: bf16 would drown them, so such a step is in full precision
        with (
            torch.autocast(self.device.type, enabled=False)
            if r1 or self.gp_weight > 0
            else nullcontext()
        ):
            real_logits, fake_logits = self.judge(
                real.requires_grad_(r1), fake.requires_grad_(r2), labels, apart=r1
            )
            loss = total = self.adversarial.d(real_logits, fake_logits)
            gamma = self.gamma * self.fade(self.gamma_final)
            if r1:
                penalty = penalties.squared_gradient(real_logits, real)
                self.last["penalty/r1"] = penalty.detach()
                total = total + self.penalty_every * gamma / 2 * penalty
            if r2:
                penalty = penalties.squared_gradient(fake_logits, fake)
                self.last["penalty/r2"] = penalty.detach()
                total = total + self.penalty_every * gamma / 2 * penalty
            if self.gp_weight > 0:
                penalty = penalties.wgan_gp(lambda x: self.discriminate(x, labels), real, fake)
                self.last["penalty/gp"] = penalty.detach()
                total = total + self.gp_weight * penalty
            if self.lecam_weight > 0:
                means = self.over_all(
                    torch.stack([real_logits.detach().mean(), fake_logits.detach().mean()])
                )
                self.mean_logits.lerp_(means.to(self.mean_logits), 0.01)
                total = total + self.lecam_weight * lecam(
                    real_logits, fake_logits, *self.mean_logits
                )
        self.last["loss/d"] = loss.detach()
        self.last_logits = real_logits.detach(), fake_logits.detach()
        self.update(self.optimizers()[1], self.discriminator, total, "grad_norm/d", measure)
        middle = getattr(self.adversarial, "middle", 0.0)
        level = fake_logits.detach() if middle is None else middle
        self.augment.adapt(
            real_logits.detach(), len(real) * self.trainer.world_size, level, self.over_all
        )

    def g_step(self, real: Tensor, fake: Tensor, labels: Tensor | None, measure: bool) -> None:
        self.discriminator.requires_grad_(False)  # its gradients would be thrown away
        if self.adversarial.paired:
            real_logits, fake_logits = self.judge(real.detach(), fake, labels)
        else:
            real_logits, fake_logits = None, self.discriminate(fake, labels)
        loss = self.adversarial.g(real_logits, fake_logits)
        self.last["loss/g"] = loss.detach()
        if self.aid is not None and self.share >= self.aid.start:
            distance = self.aid(fake, labels)
            self.last["loss/aid"] = distance.detach()
            loss = loss + self.aid.weight * distance
        self.update(self.optimizers()[0], self.generator, loss, "grad_norm/g", measure)
        self.discriminator.requires_grad_(True)

    def update(
        self, optimizer: Any, network: nn.Module, loss: Tensor, name: str, measure: bool
    ) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if self.grad_clip:
            self.last[name] = nn.utils.clip_grad_norm_(network.parameters(), self.grad_clip)
        elif measure:
            self.last[name] = nn.utils.get_total_norm(
                [p.grad for p in network.parameters() if p.grad is not None]
            )
        optimizer.step()
        torch.clear_autocast_cache()  # else the next of several steps in one turn would meet the old weights in bf16

    # -- the parts -----------------------------------------------------------------------------------------------

    def over_all(self, value: Tensor) -> Tensor:
        """The mean over all processes of a tensor that each has one of."""
        return (
            value
            if self.trainer.world_size == 1
            else self.trainer.strategy.reduce(value, reduce_op="mean")
        )

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, self.latent_dim, device=self.device, dtype=self.dtype)

    def generate(self, z: Tensor, labels: Tensor | None) -> Tensor:
        images = self.generator(z) if labels is None else self.generator(z, labels)
        return images.to(self.dtype)  # under autocast they come in bf16

    def discriminate(self, images: Tensor, labels: Tensor | None) -> Tensor:
        images = self.augment(images)
        logits = (
            self.discriminator(images) if labels is None else self.discriminator(images, labels)
        )
        return logits.to(
            self.dtype
        )  # under autocast they may come in bf16, too coarse for the difference of two

    def judge(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, apart: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits (B,) of real and of generated images, in one pass where that is the same."""
        if apart or not self.joint:
            return self.discriminate(real, labels), self.discriminate(fake, labels)
        both = self.discriminate(
            torch.cat([real, fake]), None if labels is None else torch.cat([labels, labels])
        )
        return both[: len(real)], both[len(real) :]

    def verdicts(self, logits: Tensor) -> Tensor:
        """The discriminator's outputs as its loss means them: probabilities of being real, or raw scores."""
        return logits.float().sigmoid() if self.adversarial.probabilities else logits.float()

    @property
    def planned(self) -> float | None:
        """Images shown at the end of the run; None where only the clock ends it."""
        ends = [self.total_kimg * 1000] if self.total_kimg else []
        stream = getattr(getattr(self._trainer, "datamodule", None), "stream", None)
        if self._trainer is not None and stream is not None and (self._trainer.max_epochs or 0) > 0:
            part = min(
                1.0, self._trainer.num_training_batches / len(stream)
            )  # trainer.limit_train_batches
            ends.append(
                float(self._trainer.max_epochs * stream.share * self._trainer.world_size * part)
            )
        return min(ends, default=None)

    @property
    def share(self) -> float:
        """Of the run that is over, in images or in time, whichever is further on."""
        end = self.planned
        return min(1.0, max(self.time_share, self.nimg / end if end else 0.0))

    def fade(self, final: float) -> float:
        """From 1 at the start to `final` at the planned end or when the time is over, along half a cosine."""
        return 1.0 if final == 1 else final + (1 - final) * (1 + math.cos(math.pi * self.share)) / 2

    def follow_schedule(self) -> None:
        if not self.warmup_kimg and self.lr_final == 1:
            return
        warm = min(1.0, (self.nimg + 1) / (self.warmup_kimg * 1000)) if self.warmup_kimg else 1.0
        for optimizer, settings in zip(self.optimizers(), self.settings, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = settings["lr"] * warm * self.fade(self.lr_final)

    def publish(self) -> None:
        """Writes the latest values to every logger; the x-axis is images shown."""
        assert self.last_logits is not None
        real_logits, fake_logits = self.last_logits
        values = {name: float(value) for name, value in self.last.items()}
        values |= {
            "score/real": float(real_logits.mean()),
            "score/fake": float(fake_logits.mean()),
            "lr/g": self.optimizers()[0].param_groups[0]["lr"],
            "lr/d": self.optimizers()[1].param_groups[0]["lr"],
            "progress/kimg": self.nimg / 1000,
        }
        if self.augment.active:
            values["augment/p"] = float(self.augment.p)
        for logger in self.loggers:
            logger.log_metrics(values, step=self.nimg)

    # -- looking at it -------------------------------------------------------------------------------------------

    def average(self) -> nn.Module:
        """The averaged generator as it is to be seen: with BatchNorm's statistics measured for its own weights."""
        assert self.generator_ema is not None
        if self.shown is None or self.shown[0] != self.step:
            draw = torch.Generator().manual_seed(0)
            noise = torch.randn(4, 64, self.latent_dim, generator=draw).to(self.device, self.dtype)
            labels = (
                ()
                if not self.num_classes
                else (torch.arange(64, device=self.device) % self.num_classes,)
            )
            with torch.autocast(self.device.type, enabled=False):
                self.shown = self.step, settled(self.generator_ema, ((z, *labels) for z in noise))
        return self.shown[1]

    @torch.no_grad()
    def sample(self, z: Tensor | int, labels: Tensor | None = None, ema: bool = True) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] from noise (B, latent_dim), by the average where there is one.

        A number instead of noise gives that many images of fixed noise; training's random stream is not touched.
        """
        if isinstance(z, int):
            z = torch.randn(z, self.latent_dim, generator=torch.Generator().manual_seed(0))
        if self.num_classes and labels is None:
            labels = torch.arange(len(z)) % self.num_classes
        network = self.average() if ema and self.generator_ema is not None else self.generator
        extra = () if labels is None or not self.num_classes else (labels.to(self.device),)
        with _evaluating(network):
            return network(z.to(self.device, self.dtype), *extra)

    @torch.no_grad()
    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Raw logits (B,) of images (B, C, H, W), in eval mode and without augmentation."""
        if self.num_classes and labels is None:
            labels = torch.arange(len(images)) % self.num_classes
        extra = () if labels is None or not self.num_classes else (labels.to(self.device),)
        with _evaluating(self.discriminator):
            return self.discriminator(images.to(self.device, self.dtype), *extra)

    # -- Lightning -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[Optimizer]:
        made = [
            self.make_optimizer_g(self.generator.parameters()),
            self.make_optimizer_d(self.discriminator.parameters()),
        ]
        for group in (group for optimizer in made for group in optimizer.param_groups):
            if self.replayed is not None and "capturable" in group:
                group["capturable"] = True
        self.settings = [
            {k: v for k, v in opt.param_groups[0].items() if k != "params"} for opt in made
        ]
        return made

    def on_train_start(self) -> None:
        if self.aid is not None and not self.aid.fitted:
            self.aid.fit(self.real_batches())
        # a checkpoint brings its optimisers' settings along; when going on, the configuration's win
        for optimizer, settings in zip(self.optimizers(), self.settings, strict=True):
            for group in optimizer.param_groups:
                group.update(settings)

    def real_batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The training images in [-1, 1] with their labels, in a fixed random order; where the data flip, mirrored ones too."""
        data = self.trainer.datamodule
        order = torch.randperm(len(data.train_images), generator=torch.Generator().manual_seed(0))
        for flipped in (False, True)[: 1 + bool(getattr(data, "flip", False))]:
            for rows in order.split(64):
                images = to_float(data.train_images[rows].to(self.device))
                labels = (
                    None if data.train_labels is None else data.train_labels[rows].to(self.device)
                )
                yield images.flip(3) if flipped else images, labels

    def save_checkpoint(self, path: Path) -> None:
        """Lightning's checkpoint; to be called by every process."""
        self.trainer.save_checkpoint(path)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"config": self.config, "nimg": self.nimg, "step": self.step}
        if self.generator_ema is not None:  # what the checkpoint's user samples from
            shown = self.average().state_dict()
            checkpoint["state_dict"] |= {
                f"generator_ema.{name}": value for name, value in shown.items()
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.nimg, self.step, self.shown = checkpoint["nimg"], checkpoint["step"], None
        self.adapt_weights(checkpoint["state_dict"])

    def adapt_weights(self, loaded: dict[str, Tensor]) -> None:
        """Going on with the average or ADA newly on or off is allowed: these parts start from what there is."""
        if self.aid is not None:
            self.aid.shape_like(
                {key.removeprefix("aid."): w for key, w in loaded.items() if key.startswith("aid.")}
            )
        own = self.state_dict()
        optional = ("generator_ema.", "augment.", "mean_logits", "aid.")
        for key in [key for key in loaded if key.startswith(optional) and key not in own]:
            del loaded[key]
        for key in [key for key in own if key.startswith(optional) and key not in loaded]:
            loaded[key] = loaded.get(key.replace("generator_ema.", "generator."), own[key]).clone()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode for a moment; every part comes back to the mode it was in."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
