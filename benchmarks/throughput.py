"""Images a second: the note's loop, a bare loop of the same mathematics, and this project's run, side by side.

    python -m benchmarks.throughput [--gpu] [--data DIR] [--steps N] [--rounds N]

The three take turns (A B C A B C …) in one process; figures are medians of images per second, without set-up.
DIR holds MNIST/raw; random images of the same shape stand in otherwise (the arithmetic does not care, the note's
decoding is then done on an in-memory stand-in of torchvision's class). `--gpu` adds the convolutional recipes and
uses nothing but torch, torchvision, lightning, hydra-core and this checkout; "compiled" is ours with
compile=true.
"""

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import hydra
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from lightning import Callback, Trainer
from omegaconf import DictConfig, OmegaConf, open_dict
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets

from benchmarks.note import PREPARE, Clock, note_loop
from gan_lightning.recipe import choose
from gan_lightning.run import build_module

CONF = str(Path(__file__).parent.parent / "conf")
# read at a process's first matrix product on a GPU; `vanilla_mnist` is deterministic and would come too late with it
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


class Digits(Dataset):
    """MNIST as torchvision serves it, on random pixels."""

    def __init__(self, pixels: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index].numpy(), mode="L")), 0


def bare_loop(
    cfg: DictConfig, pixels: Tensor, device: torch.device, batch: int
) -> Callable[[int], float]:
    """The best plain loop for the same networks and mathematics, without Lightning: the yardstick of its overhead."""
    with open_dict(cfg):
        module = build_module(cfg, {}, device.type == "cuda").to(device)
    generator, discriminator, augment = module.generator, module.discriminator, module.augment
    g_optimizer = module.make_optimizer_g(generator.parameters())
    d_optimizer = module.make_optimizer_d(discriminator.parameters())
    pixels = pixels.to(device)
    clock, step, order, at = Clock(device), 0, torch.randperm(len(pixels), device=device), 0
    bf16 = "bf16" in str(cfg.trainer.precision)

    def one_step(real: Tensor, penalise: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            fake = generator(torch.randn(len(real), cfg.latent_dim, device=device)).float()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16 and not penalise):
            real.requires_grad_(penalise)
            if module.joint and not penalise:
                real_logits, fake_logits = discriminator(
                    augment(torch.cat([real, fake.detach()]))
                ).chunk(2)
            else:
                real_logits, fake_logits = (
                    discriminator(augment(real)),
                    discriminator(augment(fake.detach())),
                )
            loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
            if penalise:
                (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
                loss = (
                    loss
                    + cfg.loss.penalty_every
                    * cfg.loss.gamma
                    / 2
                    * gradient.square().sum((1, 2, 3)).mean()
                )
        d_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        d_optimizer.step()
        discriminator.requires_grad_(False)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = F.softplus(-discriminator(augment(fake))).mean()
        g_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        g_optimizer.step()
        discriminator.requires_grad_(True)
        if module.generator_ema is not None:
            torch._foreach_lerp_(
                list(module.generator_ema.parameters()), list(generator.parameters()), 0.001
            )

    def run(steps: int) -> float:
        nonlocal step, at, order
        start = clock()
        for _ in range(steps):
            if at + batch > len(pixels):
                order, at = torch.randperm(len(pixels), device=device), 0
            rows = order[at : at + batch]
            at += batch
            real = (pixels[rows].float() / 127.5 - 1).contiguous(memory_format=module.memory_format)
            one_step(real, cfg.loss.gamma > 0 and step % cfg.loss.penalty_every == 0)
            step += 1
        return steps * batch / (clock() - start)

    return run


class Timed(Callback):
    """Images a second over `steps` steps, without Lightning's set-up and without the last checkpoint and pictures."""

    warm = 80  # steps that do not count: torch.compile works within them

    def __init__(self, clock: Clock, steps: int) -> None:
        self.clock, self.last = clock, self.warm + steps
        self.start = self.speed = 0.0

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        if not self.start and module.step >= self.warm:
            self.start, self.first = self.clock(), module.nimg
        elif not self.speed and module.step >= self.last:
            self.speed = (module.nimg - self.first) / (self.clock() - self.start)


def our_run(
    cfg: DictConfig, device: torch.device, scratch: str, **settings: Any
) -> Callable[[int], float]:
    """This project's module in Lightning's Trainer with the callbacks and loggers of a real run."""
    from gan_lightning.run import build_trainer

    def run(steps: int) -> float:
        local = cfg.copy()
        with open_dict(local):
            local.trainer.limit_train_batches = None
            local.trainer.max_epochs = -1
            local.trainer.accelerator = "cuda" if device.type == "cuda" else "cpu"
            local.total_kimg = (steps + Timed.warm) * local.dataset.batch_size / 1000
            local.metrics, local.diagnosis = {}, {}
            local.observer.every_kimg = local.checkpoints.every_kimg = 1e9
            local.console.every_steps = 0
            for key, value in settings.items():
                OmegaConf.update(local, key.replace("__", "."), value)
            data = instantiate(local.dataset, source=instantiate(local.dataset.source))
            with redirect_stdout(io.StringIO()):
                data.prepare()
            module = build_module(local, {}, device.type == "cuda")
            trainer = build_trainer(local, Path(scratch))
        timed = Timed(Clock(device), steps)
        trainer.callbacks.insert(
            0, timed
        )  # the last step ends with a checkpoint, which is none of its cost
        trainer.fit(module, datamodule=data)
        return timed.speed

    return run


def compose(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        cfg = hydra.compose(
            "config", ["logger=csv", f"logger.csv.save_dir={tempfile.gettempdir()}", *overrides]
        )
    return cfg


def take_turns(
    runs: dict[str, Callable[[int], float]], steps: int, rounds: int
) -> dict[str, float]:
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            torch.use_deterministic_algorithms(False)  # one run's wish must not rule the next
            torch.backends.cudnn.benchmark = False
            speeds[name].append(run(steps))
    return {
        name: statistics.median(values[1:]) for name, values in speeds.items()
    }  # the first round warms up


def vanilla(
    data: Path | None, device: torch.device, steps: int, rounds: int, scratch: str
) -> dict[str, float]:
    """Images a second of the note's loop, the bare loop and ours, batch 64."""
    cfg = compose(
        "experiment=vanilla_mnist",
        f"dataset.root={data or 'none'}",
        f"logger.csv.save_dir={scratch}",
    )
    if data:
        digits: Dataset = datasets.MNIST(data, transform=PREPARE)
        pixels = digits.data[:, None]  # type: ignore[attr-defined]
    else:
        pixels = torch.randint(0, 256, (60000, 1, 28, 28), dtype=torch.uint8)
        digits = Digits(pixels[:, 0], PREPARE)
        stand_in(cfg, scratch, pixels)
    choose(cfg, instantiate(cfg.dataset.source), device.type == "cuda")
    loader = DataLoader(digits, batch_size=64, shuffle=True)
    runs = {
        "note": note_loop(loader, device),
        "bare": bare_loop(cfg, pixels, device, 64),
        "ours": our_run(cfg, device, scratch),
    }
    if device.type == "cuda":
        runs["compiled"] = our_run(cfg, device, scratch, compile=True)
    return take_turns(runs, steps, rounds)


def stand_in(cfg: DictConfig, scratch: str, pixels: Tensor) -> None:
    """Random pixels as MNIST's files, for machines without the data."""
    import numpy as np

    folder = Path(scratch) / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for split, images in (("train", pixels.numpy()[:, 0]), ("t10k", pixels.numpy()[:10000, 0])):
        header = np.array([2051, len(images), 28, 28], ">i4").tobytes()
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.arange(len(images), dtype=np.uint8) % 10
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            np.array([2049, len(images)], ">i4").tobytes() + labels.tobytes()
        )
    cfg.dataset.root = scratch


def recipe(
    name: str,
    overrides: list[str],
    pixels: Tensor,
    device: torch.device,
    steps: int,
    rounds: int,
    scratch: str,
) -> dict[str, float]:
    """Images a second of the bare loop and ours, for a convolutional recipe on random images."""
    folder = Path(scratch) / f"photos_{name}"
    folder.mkdir(exist_ok=True)
    for k, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).squeeze().numpy()).save(
            folder / f"{k:05d}.png", compress_level=0
        )
    cfg = compose(*overrides, "dataset=folder", f"dataset.root={folder}", f"dataset.image_size={pixels.shape[-1]}", f"dataset.image_channels={pixels.shape[1]}",
                  f"dataset.cache_dir={scratch}/cache", f"logger.csv.save_dir={scratch}")  # fmt: skip
    choose(cfg, instantiate(cfg.dataset.source), device.type == "cuda")
    runs = {
        "bare": bare_loop(cfg, pixels, device, cfg.dataset.batch_size),
        "ours": our_run(cfg, device, scratch),
    }
    if device.type == "cuda" and name == "64":  # both take a minute to be ready
        runs["compiled"] = our_run(cfg, device, scratch, compile=True)
        runs["tuned"] = our_run(cfg, device, scratch, trainer__benchmark=True)
    return take_turns(runs, steps, rounds)


def machine(device: torch.device) -> str:
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    return f"{name}, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    import tempfile

    from gan_lightning.run import quieten

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--data", type=Path, help="folder with MNIST/raw")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    quieten()
    device = torch.device("cuda" if options.gpu else "cpu")
    if options.gpu and not torch.cuda.is_available():
        sys.exit("error: --gpu: torch sees no GPU here")
    print(machine(device))
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        figures["vanilla_mnist"] = v = vanilla(
            options.data, device, options.steps, options.rounds, scratch
        )
        print(
            f"vanilla_mnist, batch 64, images a second: the note's loop {v['note']:,.0f}, bare {v['bare']:,.0f}, ours {v['ours']:,.0f}"
        )
        print(
            f"  ours / note {v['ours'] / v['note']:.2f}   ours / bare {v['ours'] / v['bare']:.3f}",
            flush=True,
        )
        if "compiled" in v:
            ratio = v["compiled"] / v["note"]
            print(
                f"  compiled: {v['compiled']:,.0f}, {ratio:.1f} times the note's loop", flush=True
            )
        for size, channels in ((28, 1), (64, 3), *(((128, 3), (256, 3)) if options.gpu else ())):
            pixels = torch.randint(0, 256, (2000, channels, size, size), dtype=torch.uint8)
            figures[f"dcgan_{size}"] = v = recipe(
                str(size), [], pixels, device, max(10, options.steps // 10), options.rounds, scratch
            )
            print(
                f"dcgan {size} px, images a second: "
                + ", ".join(f"{name} {speed:,.0f}" for name, speed in v.items())
                + f", ours / bare {v['ours'] / v['bare']:.3f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
