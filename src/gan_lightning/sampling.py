"""From a checkpoint file to images, needing nothing else, and never running code that the file brings along."""

import importlib
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning.data.images import to_uint8
from gan_lightning.errors import UserError

BLOCK = 256  # noise is always drawn in blocks of this many, so that image k does not depend on how many are asked for
PIECE = 64  # images at once through the network: 256 of 256 pixels would take gigabytes


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; raises UserError for anything else, before running any of it."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a checkpoint, as .../checkpoints/last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is refused: it holds code or objects instead of weights only, or is no checkpoint"
        ) from None
    except Exception as error:  # a file of any other program can break the unpickler in any way
        words = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} cannot be read as a checkpoint: {words}") from None
    parts = [checkpoint.get(key) for key in ("config", "state_dict")] if isinstance(checkpoint, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{path} is no checkpoint of this program: it holds no configuration and weights")
    return checkpoint


def build_trusted(node: dict[str, Any], trust: str | None = None) -> torch.nn.Module:
    """A network from a file's configuration: a class that is defined in gan_lightning.networks or in package `trust`.

    Hydra does not take part: it would follow names through imports (x.layers.torch.load) and build what is nested
    in the values. Here a name is a module's and a class's, and values are values.
    """
    packages = ["gan_lightning.networks", *([trust] if trust else [])]
    if trust and os.getcwd() not in sys.path:  # as for `python train.py`, beside which the package lies
        sys.path.append(os.getcwd())
    target = str(node["_target_"])
    home, _, name = target.rpartition(".")
    if not any((home + ".").startswith(package + ".") for package in packages):
        raise UserError(
            f"the checkpoint wants to build {target}, which is not in {' or '.join(packages)}; "
            f"if you trust it, add --trust {target.split('.')[0]}"
        )
    try:
        network = getattr(importlib.import_module(home), name)
    except (ImportError, AttributeError):
        raise UserError(f"the checkpoint wants to build {target}, which does not exist") from None
    ours = isinstance(network, type) and issubclass(network, torch.nn.Module)
    if not ours or not any((network.__module__ + ".").startswith(package + ".") for package in packages):
        raise UserError(f"the checkpoint wants to build {target}, which is no network of {' or '.join(packages)}")
    try:
        return network(**{key: value for key, value in node.items() if key != "_target_"})
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the checkpoint's {target} cannot be built: {' '.join(str(error).split())[:120]}") from None


def seeded(seed: int) -> torch.Generator:
    """A source of noise on the CPU for any whole number."""
    return torch.Generator().manual_seed(seed % 2**63)


class Sampler:
    """A trained generator and its configuration."""

    def __init__(
        self, generator: torch.nn.Module, config: dict[str, Any], device: torch.device, averaged: bool
    ) -> None:
        self.generator, self.config, self.device, self.averaged = generator, config, device, averaged

    @property
    def num_classes(self) -> int | None:
        return self.config.get("num_classes")

    @torch.no_grad()
    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noise (B, latent_dim), and labels (B,) for a conditional generator, to uint8 images (B, C, H, W) on the CPU."""
        inputs = (z,) if labels is None else (z, labels)
        pieces = zip(*(x.to(self.device).split(PIECE) for x in inputs), strict=True)
        return torch.cat([to_uint8(self.generator(*piece).float().cpu()) for piece in pieces])

    def blocks(
        self, count: int, seed: int = 0, label: int | Tensor | None = None, truncation: float = 1.0
    ) -> Iterator[Tensor]:
        """uint8 (b, C, H, W) with b up to 256, `count` images in all; the same for the same seed and device.

        `label`: the class of all, or of each (count,); None: the classes in turn. `truncation`: the noise times this; below
        1 more regular images and fewer kinds of them (after Brock et al. 2019).
        """
        for start in range(0, count, BLOCK):
            z = torch.randn(BLOCK, self.config["latent_dim"], generator=seeded(seed * 1_000_003 + start))
            stop = min(BLOCK, count - start)
            labels = None
            if self.num_classes:
                labels = torch.arange(stop) % self.num_classes if label is None else torch.as_tensor(label)
                labels = labels[start : start + stop] if isinstance(label, Tensor) else labels.expand(stop)
            yield self.generate(truncation * z[:stop], labels)

    def images(self, count: int, seed: int = 0, label: int | Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """uint8 (count, C, H, W) on the CPU, as `blocks`."""
        return torch.cat(list(self.blocks(count, seed, label, truncation)))


def load_generator(path: str | Path, trust: str | None = None, device: str | None = None) -> Sampler:
    """The generator of a checkpoint, averaged weights where there are any. Raises UserError, see `read_checkpoint`."""
    checkpoint = read_checkpoint(path)
    config, weights = checkpoint["config"], checkpoint["state_dict"]
    averaged = any(key.startswith("generator_ema.") for key in weights)
    prefix = "generator_ema." if averaged else "generator."
    try:
        generator = build_trusted(config["network"]["generator"], trust)
    except KeyError:
        raise UserError(f"{path} says nothing of the generator's network") from None
    try:
        generator.load_state_dict({key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)})
    except RuntimeError as error:
        raise UserError(
            f"{path}: the weights do not fit the network it names: {str(error).splitlines()[-1].strip()}"
        ) from None
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        generator = generator.float().to(where).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used: {' '.join(str(error).split())[:120]}") from None
    return Sampler(generator, config, where, averaged)
