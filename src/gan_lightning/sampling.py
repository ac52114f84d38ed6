"""From a checkpoint, or what `export` wrote of it, to images; code in the file is never run."""

import importlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning.data.images import to_uint8
from gan_lightning.errors import UserError, first_line
from gan_lightning.files import (
    EXPORTED,
    expanded,
    is_exported,
    read_checkpoint,
    read_json,
    read_safetensors,
    same_kind,
    untrusted,
)
from gan_lightning.latents import classes, inputs, latents, picked
from gan_lightning.networks.blocks import height_width
from gan_lightning.patterns import ANY, SCALAR, NoMatch, match, plain

BLOCK = 256  # images at once in memory as numbers
LARGEST = 2**16  # channels, pixels, latent numbers: beyond, a file only wants to fill the memory
PIECE = 64  # images of up to 128 pixels at once through the network
OURS = "gan_lightning.networks"
WRONG: tuple[type[Exception], ...] = (UserError, TypeError, ValueError, RuntimeError, KeyError)
WRONG += (OverflowError, AttributeError)  # what wrong arguments of a network bring about


def build_trusted(
    node: dict[str, Any], trust: str | None = None, weights: dict[str, Tensor] | None = None
) -> torch.nn.Module:
    """A file's network: a class that is defined in gan_lightning.networks or in package `trust`.

    `weights`: what it will hold; of others nothing is made. Raises UserError. Not by Hydra, which
    would follow names through imports (x.layers.torch.load) and build what is nested in values.
    """
    network = _trusted_class(str(node["_target_"]), trust)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    try:
        match(arguments, {str: (*SCALAR, [int])}, "its arguments")
        if weights is not None:
            _must_fit(network, arguments, weights)
        return network(**arguments)
    except WRONG as error:
        target = node["_target_"]
        raise UserError(f"the checkpoint's {target} cannot be built: {first_line(error)}") from None


def _trusted_class(target: str, trust: str | None) -> type[torch.nn.Module]:
    packages = [OURS, *([trust] if trust else [])]
    if trust and os.getcwd() not in sys.path:  # as for `python train.py`, beside which it lies
        sys.path.append(os.getcwd())
    wants, allowed = f"the checkpoint wants to build {target}, which", " or ".join(packages)

    def within(module: str) -> bool:
        return any(f"{module}.".startswith(f"{package}.") for package in packages)

    home, _, name = target.rpartition(".")
    if not within(home):
        right = f"if you trust it, add --trust {target.partition('.')[0]}"
        raise UserError(f"{wants} is not in {allowed}; {right}")
    try:
        network = getattr(importlib.import_module(home), name)
    except (ImportError, AttributeError):
        raise UserError(f"{wants} does not exist") from None
    is_network = isinstance(network, type) and issubclass(network, torch.nn.Module)
    if not is_network or not within(network.__module__):
        raise UserError(f"{wants} is no network of {allowed}")
    if home.startswith(OURS) and name != "Generator":
        raise UserError(f"{wants} is no generator")
    return network


def _must_fit(
    network: type[torch.nn.Module], arguments: dict[str, Any], weights: dict[str, Tensor]
) -> None:
    """Raises NoMatch where such a network has other weights than these, without making any."""
    for name, value in arguments.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int) and abs(number) > LARGEST:
                raise NoMatch(f"{name}={value} is larger than any network's")
    with torch.device("meta"):
        made = network(**arguments).state_dict()
    if odd := made.keys() ^ weights.keys():
        differ = "it lacks, or has too many of, the network's weights"
        raise NoMatch(f"{differ}: {ascii(min(odd))[:80]}")
    for name, weight in weights.items():
        same_kind(weight, made[name], f"weight {name}")


class Sampler:
    """A trained generator and its configuration."""

    def __init__(
        self,
        generator: torch.nn.Module,
        config: dict[str, Any],
        device: torch.device,
        averaged: bool,
        nimg: int | None = None,
    ) -> None:
        self.generator, self.config, self.device = generator, config, device
        self.averaged = averaged  # by the EMA of the weights
        self.nimg = nimg  # real images shown in training, where it is known

    @property
    def num_classes(self) -> int | None:
        return self.config.get("num_classes")

    @property
    def piece(self) -> int:
        """Images at once through the network: fewer of large ones."""
        pixels = math.prod(height_width(self.config["network"]["generator"].get("image_size") or 1))
        return max(1, min(PIECE, PIECE * 128**2 // max(1, pixels)))

    @torch.no_grad()
    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """uint8 (B, C, H, W) on the CPU of latents (B, latent_dim) and labels (B,), if any."""
        parts = (x.to(self.device).split(self.piece) for x in inputs(z, labels))
        made = (self.generator(*part).float().cpu() for part in zip(*parts, strict=True))
        return torch.cat([to_uint8(part) for part in made])

    def make(
        self, seeds: Sequence[int], label: int | Tensor | None = None, truncation: float = 1.0
    ) -> Iterator[Tensor]:
        """uint8 (b, C, H, W) with b up to 256, one image a seed; a seed's image is always the same.

        `label`: the class of all, or of each (n,); None: in turn by seed. `truncation`: latents
        times this; below 1 more regular images of fewer kinds (after Brock et al. 2019).
        """
        labels = classes(seeds, self.num_classes)
        if labels is not None and label is not None:
            labels = torch.as_tensor(label).expand(len(seeds))
        for start in range(0, len(seeds), BLOCK):
            block = slice(start, start + BLOCK)
            z = truncation * latents(seeds[block], self.config["latent_dim"])
            yield self.generate(z, picked(labels, block))

    def images(
        self, count: int, seed: int = 0, label: int | Tensor | None = None, truncation: float = 1.0
    ) -> Tensor:
        """uint8 (count, C, H, W) on the CPU, of the seeds from `seed` on, as `make`."""
        return torch.cat(list(self.make(range(seed, seed + count), label, truncation)))


DATASET = {  # what of a run's data `evaluate` needs to know
    "image_size": (int, [int], None),
    "image_channels": (int, None),
    "fit": (str, None),
    "background": (int, None),
    "holdout": (float, None),
    "root": (str, None),
    "labels": (bool, None),
}
CONFIG = {
    "network": {"generator": {"_target_": str, str: (*SCALAR, [int])}, str: dict},
    "latent_dim": int,
    "num_classes": (int, None),
    "dataset": {f"{key}?": pattern for key, pattern in DATASET.items()},
}


def known_config(given: dict[str, Any]) -> dict[str, Any]:
    """What sampling and scoring need of a configuration, each value checked. Raises NoMatch."""
    dataset = match(given.get("dataset", {}), {str: (*SCALAR, list, dict)}, "dataset")
    config = {key: given.get(key) for key in ("network", "latent_dim", "num_classes")}
    config["dataset"] = {key: value for key, value in dataset.items() if key in DATASET}
    config = match(config, CONFIG, "its configuration")
    generator, twice = config["network"]["generator"], config | config["dataset"]
    for key in ("latent_dim", "num_classes", "image_size"):
        if key in generator and key in twice and generator[key] != twice[key]:
            raise NoMatch(f"{key} is {twice[key]} in one place and {generator[key]} in another")
    for key in ("latent_dim", "num_classes"):
        if config[key] not in range(1, LARGEST + 1) and (key, config[key]) != ("num_classes", None):
            raise NoMatch(f"{key}={config[key]} is not possible")
    return config


def load_generator(
    path: str | Path, trust: str | None = None, device: str | None = None
) -> Sampler:
    """The generator, its EMA if any, of a checkpoint, a .safetensors file or a folder for a hub.

    Raises UserError, see `read_checkpoint`.
    """
    given, weights = read_generator(path)
    with untrusted(path), torch.no_grad():
        config = known_config(given)
        generator = built(config, weights, trust)
        averaged = match(given.get("averaged", False), bool)
        nimg = match(given.get("nimg"), (int, None))
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return Sampler(generator.to(where), config, where, averaged, nimg)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used: {first_line(error)}") from None


def read_generator(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A stranger's configuration, and a generator's weights by name. Raises UserError."""
    path = expanded(path)
    if is_exported(path):
        weights, _ = read_safetensors(path / EXPORTED)
        config = read_json(path / "config.json", {str: ANY})
        return config, {name.removeprefix("generator."): w for name, w in weights.items()}
    if path.is_file() and path.suffix == ".safetensors":
        weights, texts = read_safetensors(path)
        with untrusted(path):
            config = plain(json.loads(texts["config"]))
            return match(config, {str: ANY}, "its configuration"), weights
    checkpoint = read_checkpoint(path)
    weights = checkpoint["state_dict"]
    averaged = any(key.startswith("generator_ema.") for key in weights)
    prefix = "generator_ema." if averaged else "generator."
    weights = {key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}
    return checkpoint["config"] | {"averaged": averaged, "nimg": checkpoint.get("nimg")}, weights


def built(
    config: dict[str, Any], weights: dict[str, Tensor], trust: str | None = None
) -> torch.nn.Module:
    """The generator with these weights, tried once. Raises UserError and NoMatch."""
    generator = build_trusted(config["network"]["generator"], trust, weights).float().eval()
    generator.load_state_dict(weights)
    label = [torch.tensor([config["num_classes"] - 1])] if config["num_classes"] else []
    made = generator(torch.zeros(1, config["latent_dim"]), *label).shape
    if len(made) != 4 or made[0] != 1 or made[1] not in (1, 3, 4):
        raise NoMatch(f"its generator makes {tuple(made)} where an image should be")
    return generator
