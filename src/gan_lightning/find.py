"""`gan-lightning find`: the latent of a photograph, and ways between two of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning import pictures
from gan_lightning.data.images import Shape, fit, flatten, open_file, reason_for, to_float, to_uint8
from gan_lightning.drawing import opened, save_films, walk
from gan_lightning.errors import UserError
from gan_lightning.files import expanded, write_safetensors
from gan_lightning.latents import classes, inputs, latents, picked
from gan_lightning.networks.pretrained import EfficientNetLite, rgb
from gan_lightning.places import make_folder
from gan_lightning.sampling import Sampler
from gan_lightning.text import printable

RANDOM = 256  # images that the search begins with
CHUNK = 32  # images at once through a network
SIDE = 96  # pixels of the smaller side at which the features are taken
STAGES = 3  # maps at strides 4, 8 and 16


class Eye(nn.Module):
    """How far images are apart, in pixels and in features (after Zhang et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNetLite(0)

    def see(self, images: Tensor) -> list[Tensor]:
        """Float (B, C, H, W) in [-1, 1] to what is compared, each (B, ...)."""
        factor = SIDE / min(images.shape[2:])
        size = [round(side * factor) for side in images.shape[2:]]
        shown = F.interpolate(rgb(images), size, mode="bilinear", antialias=factor < 1)
        return [images, *(F.normalize(x, dim=1) for x in self.net(shown, STAGES))]

    def distances(self, seen: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """(B,): the pixels' mean square and, for each map, the mean square of places' vectors."""
        each = [(x - y).square() for x, y in zip(seen, target, strict=True)]
        features = sum(x.sum(1).mean((1, 2)) for x in each[1:])
        return each[0].mean((1, 2, 3)) + features


@dataclass
class Found:
    """Latents, their images uint8 (n, C, H, W), and `random` distances (n, RANDOM)."""

    z: Tensor
    labels: Tensor | None
    images: Tensor
    distances: Tensor
    random: Tensor


class Finder:
    """The search for latents: the best of random ones, improved by Adam (Kingma and Ba 2015)."""

    restarts = 3  # of those

    def __init__(self, sampler: Sampler, steps: int = 150, label: int | None = None) -> None:
        self.sampler, self.steps = sampler, steps
        self.dim = sampler.config["latent_dim"]
        self.eye = Eye().to(sampler.device)
        sampler.generator.requires_grad_(False)
        seeds = range(RANDOM)
        self.z = latents(seeds, self.dim).to(sampler.device)
        labels = classes(seeds, sampler.num_classes)
        if labels is not None:
            labels = labels if label is None else torch.full_like(labels, label)
            labels = labels.to(sampler.device)
        self.labels = labels
        with torch.no_grad():
            parts = torch.arange(RANDOM).split(CHUNK)
            made = [self.eye.see(self._images(self.z[i], picked(labels, i))) for i in parts]
        self.seen = [torch.cat(maps) for maps in zip(*made, strict=True)]

    def find(
        self, targets: Tensor, tell: Callable[[], None] = lambda: None, one_class: bool = False
    ) -> Found:
        """Of float images (n, C, H, W) in [-1, 1]; `tell` is called after every step.

        `one_class`: all in the class that suits the first, as there is no way between classes.
        """
        with torch.no_grad():
            goal = self.eye.see(targets.to(self.sampler.device))
            each = zip(*(x.split(1) for x in goal), strict=True)
            random = torch.stack([self.eye.distances(self.seen, one) for one in each])
        start = random.topk(self.restarts, largest=False).indices  # (n, restarts)
        rows = start.flatten()
        labels = picked(self.labels, rows)
        if labels is not None and one_class:
            labels = labels[:1].expand(len(rows))
        goal = [x.repeat_interleave(self.restarts, 0) for x in goal]
        z = self._improved(self.z[rows].clone(), labels, goal, tell)
        with torch.no_grad():
            images = to_uint8(self._images(z, labels))
            ends = self.eye.distances(self.eye.see(to_float(images)), goal).view_as(start)
        best = ends.argmin(1) + torch.arange(len(targets), device=z.device) * self.restarts
        chosen = None if labels is None else labels[best].cpu()
        return Found(z[best].cpu(), chosen, images[best].cpu(), ends.amin(1).cpu(), random.cpu())

    def _improved(
        self, z: Tensor, labels: Tensor | None, goal: list[Tensor], tell: Callable[[], None]
    ) -> Tensor:
        z.requires_grad_(True)
        adam = torch.optim.Adam([z], lr=0.1, betas=(0.9, 0.99))
        # random latents' lengths deviate by 0.7; beyond, generators make what they never learnt
        shortest, longest = (max(0.1, math.sqrt(self.dim) + side) for side in (-2, 2))
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / self.steps))
            loss = self.eye.distances(self.eye.see(self._images(z, labels)), goal).sum()
            (z.grad,) = torch.autograd.grad(loss, z)
            adam.step()
            with torch.no_grad():
                length = z.norm(dim=1, keepdim=True)
                z.mul_(length.clamp(shortest, longest) / length.clamp_min(1e-6))
            tell()
        return z.detach()

    def _images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.sampler.generator(*inputs(z, labels)).float()


# -- the command -------------------------------------------------------------------------------


def find_cli(
    photo: str,
    checkpoint: str,
    to: str | None,
    out: str,
    steps: int,
    mp4: bool,
    label: int | None,
    trust: str | None,
    device: str | None,
) -> None:
    """found.png, latent.safetensors; with `to` also morph.png and morph.gif. UserError."""
    from rich.progress import Progress

    sampler = opened(checkpoint, trust, device, label)
    photos = [photo, *([to] if to else [])]
    targets = torch.stack([read_photo(path, sampler) for path in photos])
    finder = Finder(sampler, steps, label=label)
    with Progress() as progress:
        task = progress.add_task("searching", total=steps)
        found = finder.find(to_float(targets), lambda: progress.advance(task), one_class=True)
    folder = make_folder(out)
    _write(folder, targets, found, sampler)
    for path, distance, random in zip(photos, found.distances, found.random, strict=True):
        others = f"a random image's {random.median():.3g}, the best of {RANDOM}: {random.min():.3g}"
        print(f"{printable(path)}: distance {distance:.3g} ({others})")
    kinds = "found.png and latent.safetensors"
    if to:
        kinds += f", morph.png, {_morph(folder, targets, found, sampler, mp4)}"
    print(f"{kinds} in {printable(folder)}")


def read_photo(path: str, sampler: Sampler) -> Tensor:
    """A photograph as the generator's images are, uint8 (C, H, W). UserError."""
    channels, height, width = sampler.images(1).shape[1:]
    known = {key: sampler.config["dataset"].get(key) for key in ("fit", "background")}
    known = {key: value for key, value in known.items() if value is not None}
    shape = Shape(height, width, channels, **known)
    try:
        image = open_file(expanded(path), 2 * max(height, width)).image
        return torch.from_numpy(fit(flatten(image, channels, shape.background), shape).copy())
    except Exception as error:  # whatever Pillow raises
        raise UserError(f"{path} cannot be used: {reason_for(error)}") from None


def _write(folder: Path, targets: Tensor, found: Found, sampler: Sampler) -> None:
    pairs = torch.stack([targets, found.images], 1).flatten(0, 1)
    texts = ["photograph", "found"] * len(targets)
    sheet = pictures.labelled_grid(enlarged(pairs), texts, 2)
    pictures.save_image(sheet, folder / "found.png")
    kept = {"z": found.z} | ({} if found.labels is None else {"labels": found.labels})
    write_safetensors(folder / "latent.safetensors", kept)


def enlarged(images: Tensor) -> Tensor:
    """Pixels as squares, the smaller side of 128 or more."""
    factor = max(1, -(-128 // min(images.shape[2:])))
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def _morph(folder: Path, targets: Tensor, found: Found, sampler: Sampler, mp4: bool) -> str:
    labels = picked(found.labels, slice(1))
    way = walk(sampler, found.z[:1], found.z[1:], 24, labels)[0]  # (24, C, H, W)
    some = way[torch.linspace(0, len(way) - 1, 8).round().long()]
    strip = torch.cat([targets[:1], some, targets[1:]])
    texts = ["photograph", *[""] * len(some), "photograph"]
    pictures.save_image(pictures.labelled_grid(strip, texts, len(strip)), folder / "morph.png")
    return save_films(enlarged(way)[:, None], folder, "morph", mp4)
