"""From a checkpoint file to images, needing nothing else, and never running code that the file brings along."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning.data.images import to_uint8
from gan_lightning.errors import UserError
from gan_lightning.files import SCALAR, NoMatch, match, read_checkpoint, untrusted

BLOCK = 256  # noise is always drawn in blocks of this many, so that image k does not depend on how many are asked for
PLAIN = {"truncation": 1.0, "reject": 0.0}  # all noise as it is drawn
DIRECTIONS, STEP = 4, 0.3  # in which, and how far, noise is moved to see how fast an image changes
LARGEST_SIZE = 2**16  # of channels, pixels, noise: beyond, a file only wants to fill the memory
PIECE = 64  # images at once through the network: 256 of 256 pixels would take gigabytes


def build_trusted(
    node: dict[str, Any], trust: str | None = None, weights: dict[str, Tensor] | None = None
) -> torch.nn.Module:
    """A network from a file's configuration: a class that is defined in gan_lightning.networks or in package `trust`.

    `weights`: what it will hold; where they are not its own, nothing of their size is made. Raises UserError.

    Hydra does not take part: it would follow names through imports (x.layers.torch.load) and build what is nested
    in the values. Here a name is a module's and a class's, and values are values.
    """
    packages = ["gan_lightning.networks", *([trust] if trust else [])]
    if (
        trust and os.getcwd() not in sys.path
    ):  # as for `python train.py`, beside which the package lies
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
    if not ours or not any(
        (network.__module__ + ".").startswith(package + ".") for package in packages
    ):
        raise UserError(
            f"the checkpoint wants to build {target}, which is no network of {' or '.join(packages)}"
        )
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    if home.startswith("gan_lightning.networks") and name != "Generator":
        raise UserError(f"the checkpoint wants to build {target}, which is no generator")
    try:
        match(arguments, {str: (*SCALAR, [int])}, "its arguments")
        if weights is not None:
            _must_fit(network, arguments, weights)
        return network(**arguments)
    except (
        UserError,
        TypeError,
        ValueError,
        RuntimeError,
        KeyError,
        OverflowError,
        AttributeError,
    ) as error:
        raise UserError(
            f"the checkpoint's {target} cannot be built: {' '.join(str(error).split())[:120]}"
        ) from None


def _must_fit(
    network: type[torch.nn.Module], arguments: dict[str, Any], weights: dict[str, Tensor]
) -> None:
    """Raises NoMatch where such a network has other weights than these; found out without making any of them."""
    for name, value in arguments.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int) and abs(number) > LARGEST_SIZE:
                raise NoMatch(f"{name}={value} is larger than any network's")
    with torch.device("meta"):
        made = network(**arguments).state_dict()
    for name in made.keys() | weights.keys():
        have, want = (part[name].shape if name in part else None for part in (weights, made))
        if have != want:
            raise NoMatch(f"the weights do not fit the network it names ({ascii(name)[:80]})")
        if not torch.isfinite(weights[name]).all():
            raise NoMatch(f"weight {name} is not finite: training had diverged")


def seeded(seed: int) -> torch.Generator:
    """A source of noise on the CPU for any whole number."""
    return torch.Generator().manual_seed(seed % 2**63)


class Sampler:
    """A trained generator and its configuration."""

    def __init__(
        self,
        generator: torch.nn.Module,
        config: dict[str, Any],
        device: torch.device,
        averaged: bool,
    ) -> None:
        self.generator, self.config, self.device, self.averaged = (
            generator,
            config,
            device,
            averaged,
        )
        self.limits: dict[tuple[float, float, int], float] = {}  # see `limit`

    @property
    def num_classes(self) -> int | None:
        return self.config.get("num_classes")

    @torch.no_grad()
    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noise (B, latent_dim), and labels (B,) for a conditional generator, to uint8 images (B, C, H, W) on the CPU."""
        return torch.cat([to_uint8(piece.cpu()) for piece in self.pieces(z, labels)])

    def pieces(self, z: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
        """The images as float (b, C, H, W) on the device, a few at a time."""
        inputs = (z,) if labels is None else (z, labels)
        for piece in zip(*(x.to(self.device).split(PIECE) for x in inputs), strict=True):
            yield self.generator(*piece).float()

    def choose(self, truncation: float | None, reject: float | None) -> dict[str, float]:
        """What `blocks` takes: the values given, else those that the run's configuration has under `sampling`."""
        given = {"truncation": truncation, "reject": reject}
        return (
            PLAIN
            | self.config.get("sampling", {})
            | {k: v for k, v in given.items() if v is not None}
        )

    @torch.no_grad()
    def unsteadiness(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """How fast each image changes with its noise, as a share of its contrast, (B,) on the CPU.

        The norm of the Jacobian, from finite differences along a few fixed directions. It is large between the kinds of
        picture a generator knows, where it cannot but melt one into the other (Tanielian et al. 2020).
        """
        images = torch.cat(list(self.pieces(z, labels)))
        change = torch.zeros(len(z), device=self.device)
        for direction in torch.randn(DIRECTIONS, z.shape[1], generator=seeded(0)):
            moved = torch.cat(list(self.pieces(z + STEP * direction, labels)))
            change += (moved - images).square().flatten(1).mean(1) / STEP**2
        return ((change / DIRECTIONS).sqrt() / images.flatten(1).std(1).clamp(min=1e-3)).cpu()

    def limit(self, truncation: float, reject: float, label: int) -> float:
        """The unsteadiness that a share `reject` of the noise exceeds, measured on 256 noise vectors (of one class)."""
        key = truncation, reject, label
        if key not in self.limits:
            z = truncation * torch.randn(BLOCK, self.config["latent_dim"], generator=seeded(1))
            labels = torch.full((BLOCK,), label) if self.num_classes else None
            self.limits[key] = float(self.unsteadiness(z, labels).quantile(1 - reject))
        return self.limits[key]

    def noise(
        self,
        count: int,
        draw: torch.Generator,
        labels: Tensor | None,
        truncation: float = 1.0,
        reject: float = 0.0,
    ) -> Tensor:
        """Noise (count, latent_dim), always drawn for at least 256; see `blocks`."""
        shape = max(count, BLOCK), self.config["latent_dim"]
        z = truncation * torch.randn(shape, generator=draw)[:count]
        if reject:
            classes = [0] * count if labels is None else labels.tolist()
            limits = torch.tensor([self.limit(truncation, reject, label) for label in classes])
            left = torch.arange(count)
            for _ in range(100):  # enough for any share short of all
                left = left[
                    self.unsteadiness(z[left], None if labels is None else labels[left])
                    > limits[left]
                ]
                if not len(left):
                    break
                z[left] = truncation * torch.randn(shape, generator=draw)[left]
        return z

    def blocks(
        self, count: int, seed: int = 0, label: int | Tensor | None = None, **noise: float
    ) -> Iterator[Tensor]:
        """uint8 (b, C, H, W) with b up to 256, `count` images in all; the same for the same seed and device.

        `label`: the class of all, or of each (count,); None: the classes in turn. `truncation=T`: the noise times T; below
        1 more regular images and fewer kinds of them (after Brock et al. 2019). `reject=S`: noise is drawn anew where it
        belongs to the share S at which images change fastest; fewer images are misshapen.
        """
        for start in range(0, count, BLOCK):
            stop = min(BLOCK, count - start)
            labels = None
            if self.num_classes:
                labels = (
                    torch.arange(stop) % self.num_classes
                    if label is None
                    else torch.as_tensor(label)
                )
                labels = (
                    labels[start : start + stop]
                    if isinstance(label, Tensor)
                    else labels.expand(stop)
                )
            yield self.generate(
                self.noise(stop, seeded(seed * 1_000_003 + start), labels, **noise), labels
            )

    def images(
        self, count: int, seed: int = 0, label: int | Tensor | None = None, **noise: float
    ) -> Tensor:
        """uint8 (count, C, H, W) on the CPU, as `blocks`."""
        return torch.cat(list(self.blocks(count, seed, label, **noise)))


DATASET = {  # what of a run's data `evaluate` needs to know
    "image_size": (int, [int], None), "image_channels": (int, None), "fit": (str, None), "background": (int, None),
    "holdout": (float, None), "root": (str, None), "labels": (bool, None),
}  # fmt: skip
CONFIG = {
    "network": {"generator": {"_target_": str, str: (*SCALAR, [int])}, str: dict},
    "latent_dim": int,
    "num_classes": (int, None),
    "sampling": {"truncation?": float, "reject?": float},
    "dataset": {f"{key}?": pattern for key, pattern in DATASET.items()},
}


def _config(given: dict[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint's configuration that sampling and scoring need, each value checked. Raises NoMatch."""
    dataset = match(given.get("dataset", {}), {str: (*SCALAR, list, dict)}, "dataset")
    config = {key: given.get(key) for key in ("network", "latent_dim", "num_classes")}
    config["sampling"] = given.get("sampling", {})
    config["dataset"] = {key: value for key, value in dataset.items() if key in DATASET}
    config = match(config, CONFIG, "its configuration")
    if not 1 <= config["latent_dim"] <= LARGEST_SIZE:
        raise NoMatch(f"latent_dim={config['latent_dim']} is no length of noise")
    if config["num_classes"] is not None and not 1 <= config["num_classes"] <= LARGEST_SIZE:
        raise NoMatch(f"num_classes={config['num_classes']} is no number of classes")
    generator = config["network"]["generator"]
    for key, outer in (
        ("latent_dim", config),
        ("num_classes", config),
        ("image_size", config["dataset"]),
    ):
        if key in generator and key in outer and generator[key] != outer[key]:
            raise NoMatch(f"{key} is {outer[key]} in one place and {generator[key]} in another")
    truncation, reject = (
        config["sampling"].get("truncation", 1.0),
        config["sampling"].get("reject", 0.0),
    )
    if not (0 < truncation < 100 and 0 <= reject < 1):
        raise NoMatch(f"sampling: truncation={truncation}, reject={reject} are not possible")
    return config


@torch.no_grad()
def _must_make_images(generator: torch.nn.Module, config: dict[str, Any]) -> None:
    """Raises NoMatch where one noise vector does not become one image."""
    labels = (torch.zeros(1, dtype=torch.long),) if config["num_classes"] else ()
    made = generator.float().eval()(torch.zeros(1, config["latent_dim"]), *labels)
    if made.ndim != 4 or made.shape[:1] != (1,) or made.shape[1] not in (1, 3, 4):
        raise NoMatch(f"its generator makes {tuple(made.shape)} where an image should be")


def load_generator(
    path: str | Path, trust: str | None = None, device: str | None = None
) -> Sampler:
    """The generator of a checkpoint, averaged weights where there are any. Raises UserError, see `read_checkpoint`."""
    checkpoint = read_checkpoint(path)
    weights = checkpoint["state_dict"]
    averaged = any(key.startswith("generator_ema.") for key in weights)
    prefix = "generator_ema." if averaged else "generator."
    weights = {key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}
    with untrusted(path):
        config = _config(checkpoint["config"])
        generator = build_trusted(config["network"]["generator"], trust, weights)
        generator.load_state_dict(weights)
        _must_make_images(generator, config)
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        generator = generator.float().to(where).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {device} cannot be used: {' '.join(str(error).split())[:120]}"
        ) from None
    return Sampler(generator, config, where, averaged)
