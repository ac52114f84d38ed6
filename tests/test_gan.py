"""The alternation against the note's program written out plainly; n_critic, penalties and schedules by arithmetic."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import Photos, compose
from lightning import LightningDataModule, Trainer
from omegaconf import open_dict
from torch.utils.data import DataLoader

from gan_lightning.augment import Augment
from gan_lightning.callbacks import Deadline
from gan_lightning.ema import EMA
from gan_lightning.errors import UserError
from gan_lightning.gan import GAN
from gan_lightning.losses import BCE, LSGAN, RpGAN, Wasserstein
from gan_lightning.recipe import choose
from gan_lightning.run import build_module
from gan_lightning.schedule import Schedule


def build(cfg, on_gpu=False):
    """The module `train.py` would make of this configuration and 60,000 digits."""
    with open_dict(cfg):
        choose(cfg, Photos(60_000, (28, 28)), on_gpu)
        return build_module(cfg, {}, on_gpu)


class Fixed(LightningDataModule):
    """Hands out given batches of floats."""

    def __init__(self, batches):
        super().__init__()
        self.batches, self.batch_size = batches, len(batches[0])

    def train_dataloader(self):
        return DataLoader([(batch, None) for batch in self.batches], batch_size=None)


def fit(module, batches, precision="64-true", **settings):
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, precision=precision, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(module, datamodule=Fixed(batches))
    return trainer


class GivenMasks(torch.nn.Module):
    """Dropout whose masks come from a list, one per call."""

    def __init__(self, masks):
        super().__init__()
        self.masks = iter(masks)

    def forward(self, x):
        return x * next(self.masks)


def test_parity_with_the_notes_program():
    """20 steps of `experiment=vanilla_mnist` and of the note's loop, in double precision, from equal weights, batches,
    noise and dropout masks: all weights agree to 1e-6."""
    steps, batch = 20, 64
    cfg = compose("experiment=vanilla_mnist")
    assert (cfg.trainer.max_epochs, cfg.dataset.batch_size, cfg.seed) == (100, 64, 42)
    torch.manual_seed(0)
    module = build(cfg).double()
    masks = {
        width: [
            [(torch.rand(rows, width) > 0.3).double() / 0.7 for rows in (2 * batch, batch)]
            for _ in range(steps)
        ]
        for width in (1024, 512, 256)
    }
    images = [torch.rand(batch, 1, 28, 28, dtype=torch.float64) * 2 - 1 for _ in range(steps)]
    noise = [torch.randn(batch, 100, dtype=torch.float64) for _ in range(steps)]

    # the note's program, in the note's order
    g, d = copy.deepcopy(module.generator), copy.deepcopy(module.discriminator)
    g_linear = [layer for layer in g.layers if isinstance(layer, torch.nn.Linear)]
    d_linear = [layer for layer in d.layers if isinstance(layer, torch.nn.Linear)]
    g_optimizer, d_optimizer = (
        torch.optim.Adam(g.parameters(), lr=2e-4),
        torch.optim.Adam(d.parameters(), lr=2e-4),
    )

    def generate(z):
        for layer in g_linear[:-1]:
            z = F.leaky_relu(layer(z), 0.2)
        return torch.tanh(g_linear[-1](z))

    def judge(x, dropout):
        for layer, mask in zip(d_linear[:-1], dropout, strict=True):
            x = F.leaky_relu(layer(x), 0.2) * mask
        return torch.sigmoid(d_linear[-1](x))

    ones, zeros = (
        torch.ones(batch, 1, dtype=torch.float64),
        torch.zeros(batch, 1, dtype=torch.float64),
    )
    for k in range(steps):
        both, single = ([masks[width][k][which] for width in (1024, 512, 256)] for which in (0, 1))
        fake = generate(noise[k])
        d_optimizer.zero_grad()
        real_loss = F.binary_cross_entropy(
            judge(images[k].flatten(1), [m[:batch] for m in both]), ones
        )
        fake_loss = F.binary_cross_entropy(judge(fake.detach(), [m[batch:] for m in both]), zeros)
        (real_loss + fake_loss).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        F.binary_cross_entropy(judge(fake, single), ones).backward()
        g_optimizer.step()

    # the module
    layers = module.discriminator.layers
    for place, width in ((2, 1024), (5, 512), (8, 256)):
        layers[place] = GivenMasks([mask for step in masks[width] for mask in step])
    draws = iter(noise)
    module.latents = lambda count: next(draws)
    before = [p.clone() for p in module.parameters()]
    fit(module, images)
    for (name, ours), theirs, old in zip(
        module.named_parameters(), [*g.parameters(), *d.parameters()], before, strict=True
    ):
        assert (ours - theirs).abs().max() < 1e-6, name
        assert (ours - old).abs().max() > 1e-4, name  # and they did move


class Scale(torch.nn.Module):
    """G(z) = w·z as a 1 x 2 x 2 image, D(x) = v·x: everything can be computed by hand."""

    def __init__(self, start):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, x):
        return (
            (self.weight * x).view(-1, 1, 2, 2)
            if self.weight.dim() == 0
            else x.flatten(1) @ self.weight
        )


def tiny(loss=None, **settings):
    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    return GAN(
        Scale(0.5),
        Scale([1.0, 2.0, 3.0, 4.0]),
        loss or Wasserstein(),
        sgd,
        sgd,
        latent_dim=4,
        **settings,
    )


BATCHES = [torch.full((2, 1, 2, 2), float(k + 1), dtype=torch.float64) for k in range(6)]


def test_one_step_by_hand_and_progress_in_images():
    """Wasserstein: D moves along mean real - mean fake, then G along what the new D likes."""
    module = tiny()
    z = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]], dtype=torch.float64)
    module.latents = lambda count: z
    fit(module, BATCHES[:1])
    d = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64) + 0.1 * (
        1 - torch.tensor([0.25, 0.25, 0, 0], dtype=torch.float64)
    )
    torch.testing.assert_close(module.discriminator.weight.data, d)
    assert float(module.generator.weight) == pytest.approx(0.5 + 0.1 * float((d[0] + d[1]) / 2))
    assert module.nimg == 2 and module.step == 1


@pytest.mark.parametrize(("n_critic", "updates"), [(1, 6), (2, 3), (4, 1)])
def test_n_critic(n_critic, updates):
    module = tiny(n_critic=n_critic)
    seen = []
    original = module.g_step
    module.g_step = lambda *a: (seen.append(module.step), original(*a))
    fit(module, BATCHES)
    assert len(seen) == updates and module.step == 6 and module.nimg == 12
    assert seen == [k for k in range(6) if (k + 1) % n_critic == 0]


def test_r1_lazily_with_its_gain():
    """D linear: R1 is ½·gamma·‖v‖², every second step, twice as strong: v shrinks by lr·2·gamma there and only there."""
    with_r1, without = tiny(Wasserstein(gamma=0.5, penalty_every=2)), tiny()
    for module in (with_r1, without):
        module.latents = lambda count: torch.zeros(2, 4, dtype=torch.float64)
    fit(without, BATCHES[:2])
    fit(with_r1, BATCHES[:2])
    start = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(
        without.discriminator.weight.data - with_r1.discriminator.weight.data, 0.1 * 2 * 0.5 * start
    )
    assert float(with_r1.last["penalty/r1"]) == pytest.approx(30)


def test_r2_and_gp_enter_the_loss():
    module = tiny(Wasserstein(gamma=0.5, r2=True, gp_weight=10.0))
    fit(module, BATCHES[:1])
    norm = 30**0.5
    assert float(module.last["penalty/r2"]) == pytest.approx(30)
    assert float(module.last["penalty/gp"]) == pytest.approx((norm - 1) ** 2, rel=1e-6)


def test_lecam_follows_the_logits():
    module = tiny(BCE(lecam_weight=0.1))
    fit(module, BATCHES[:1])
    assert module.loss.mean_logits[0] == pytest.approx(
        0.01 * 10
    )  # real logits are 1+2+3+4 for an image of ones


@pytest.mark.parametrize(
    ("loss", "share"), [(BCE(), 1.0), (LSGAN(), 0.25), (RpGAN(), 0.5), (Wasserstein(), 0.5)]
)
def test_ada_counts_from_between_real_and_generated(loss, share):
    """All logits are above 0; of least squares' targets 1 and 0 a quarter of them is nearer to 1; half are above the fakes'."""
    module = tiny(loss, augment=Augment(["flip"], p=0.5, ada_target=0.6, ada_kimg=1))
    logits = torch.tensor([0.1, 0.2, 0.3, 0.9], dtype=torch.float64)
    fakes = logits + torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    module.logits = lambda real, fake, labels, **how: (
        logits + 0 * module.discriminator.weight,
        fakes + 0 * fake.sum(),
    )
    before = float(module.augment.p)
    fit(module, BATCHES[:1])
    mean_sign = 2 * share - 1
    step = 2 / 1000 if mean_sign > 0.6 else -2 / 1000
    assert float(module.augment.p) == pytest.approx(before + step)


def test_schedules_by_images_shown():
    module = tiny(schedule=Schedule(warmup_kimg=0.004, lr_final=0.0), total_kimg=0.012)
    rates = []
    original = module.d_step
    module.d_step = lambda *a: (
        rates.append(module.optimizers()[1].param_groups[0]["lr"]),
        original(*a),
    )
    fit(module, BATCHES)
    cosine = [(1 + torch.cos(torch.tensor(torch.pi * k / 6)).item()) / 2 for k in range(6)]
    warm = [0.25, 0.75, 1, 1, 1, 1]
    expected = [0.1 * w * c for w, c in zip(warm, cosine, strict=True)]
    assert rates == pytest.approx(expected)


def test_progress_follows_the_images_or_the_clock_whichever_is_ahead():
    module = tiny(total_kimg=1.0)
    module.nimg = 500
    assert module.progress == 0.5
    module.nimg, module.time_fraction = 0, 0.25
    assert module.progress == 0.25
    module.total_kimg = None
    assert module.progress == 0.25 and module.planned_nimg is None


def test_a_deadline_tells_the_share_of_its_time():
    module, deadline = tiny(), Deadline({"seconds": 1000})
    fit(module, BATCHES, callbacks=[deadline])
    spent = deadline.time_elapsed()
    assert 0 < module.time_fraction <= spent / 1000 < 1


def test_gradient_clipping():
    module = tiny(grad_clip=0.01)
    fit(module, BATCHES[:1])
    start = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert float((module.discriminator.weight.data - start).norm()) == pytest.approx(
        0.1 * 0.01, rel=1e-4
    )


def test_fakes_are_reused_or_made_anew():
    for reuse, count in ((True, 6), (False, 12)):
        module = tiny(reuse_fakes=reuse)
        draws = []
        original = module.latents
        module.latents = lambda n, original=original, draws=draws: (draws.append(n), original(n))[1]
        fit(module, BATCHES)
        assert len(draws) == count


def test_average_follows_the_generator():
    module = tiny(ema=EMA(halflife_kimg=0.002, rampup=0.0))  # half-life of 2 images = one step
    path = []
    original = module.g_step
    module.g_step = lambda *a: (original(*a), path.append(float(module.generator.weight)))
    fit(module, BATCHES)
    average = 0.5
    for weight in path:
        average += 0.5 * (weight - average)
    assert float(module.generator_ema.weight) == pytest.approx(average)


def test_looking_changes_nothing():
    cfg = compose(
        "network.generator.channels=32",
        "network.discriminator.channels=32",
        "network.discriminator.norm=batch",
        "loss.gamma=1",
        "augment.p=1",
    )
    module = build(cfg)
    state = copy.deepcopy(module.state_dict())
    random = torch.get_rng_state()
    module.generator.layers[0].eval()  # a part that someone froze stays frozen
    images = module.sample(4)
    assert images.shape == (4, 1, 28, 28) and module.score(images).shape == (4,)
    torch.testing.assert_close(module.sample(4), images)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(
        torch.equal(a, b) for a, b in zip(state.values(), module.state_dict().values(), strict=True)
    )
    assert module.generator.training and not module.generator.layers[0].training


def test_bf16_keeps_penalties_in_full_precision():
    cfg = compose(
        "network.generator.channels=32",
        "network.discriminator.channels=32",
        "loss.gamma=1",
        "loss.penalty_every=1",
        "augment.p=0.5",
    )
    module = build(cfg)
    fit(module, [torch.rand(8, 1, 28, 28) * 2 - 1 for _ in range(3)], precision="bf16-mixed")
    assert module.last["penalty/r1"].dtype == torch.float32 and module.last["penalty/r1"].isfinite()
    assert all(p.isfinite().all() for p in module.parameters())


def test_losses_are_of_full_precision_logits():
    """The difference of two logits near 100 is far finer than bf16, whose steps are 0.5 there."""
    module = tiny(RpGAN())
    linear = torch.nn.Linear(4, 1)
    module.fast = None, lambda images: linear(images.flatten(1)).flatten()
    with torch.autocast("cpu", torch.bfloat16):
        real, fake = module.logits(torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), None)
    assert real.dtype == fake.dtype == torch.float32


def test_compiled_steps_are_the_plain_ones():
    """Weights after 50 steps, lazy R1 and EMA included, within 1e-4 of each other."""
    weights = []
    for compiled in (False, True):
        cfg = compose(
            "experiment=vanilla_mnist",
            "network.discriminator.dropout=0",
            "network.generator.hidden=[32]",
            "network.discriminator.hidden=[32]",
            "loss.gamma=0.1",
            "ema.halflife_kimg=1",
            f"compile={str(compiled).lower()}",
        )
        torch.manual_seed(0)
        module = build(cfg)
        start = [p.detach().clone() for p in module.parameters()]
        images = [torch.rand(16, 1, 28, 28) * 2 - 1 for _ in range(50)]
        fit(module, images, precision="32-true")
        weights.append([p.detach() for p in module.parameters()])
    for plain, compiled, before in zip(*weights, start, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(plain, before, rtol=1e-3)


def test_samples_and_checkpoints_show_the_recalibrated_ema():
    cfg = compose(
        "network.generator.channels=32",
        "network.discriminator.channels=32",
        "ema.halflife_kimg=1",
        "augment=none",
        "loss.gamma=0",
    )
    torch.manual_seed(0)
    module = build(cfg)
    module.generator_ema.layers[2].running_mean.fill_(3.0)
    checkpoint = {"state_dict": module.state_dict()}
    names = set(checkpoint["state_dict"])
    module.on_save_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == names  # the blur's constants are no part of it
    saved = copy.deepcopy(module.generator_ema)
    saved.load_state_dict(
        {
            k.removeprefix("generator_ema."): v
            for k, v in checkpoint["state_dict"].items()
            if k.startswith("generator_ema.")
        }
    )
    z = torch.randn(4, 100)
    torch.testing.assert_close(saved.eval()(z), module.sample(z))
    assert not torch.allclose(module.generator_ema.eval()(z), module.sample(z))


def test_a_discriminator_that_never_trains_is_refused():
    with pytest.raises(UserError, match="n_critic=0"):
        tiny(n_critic=0)
