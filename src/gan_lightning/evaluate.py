"""`gan-lightning evaluate`: scores of a checkpoint, or of a folder of images of any program."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning.data.cache import scan
from gan_lightning.data.check import nothing_usable
from gan_lightning.data.images import Shape
from gan_lightning.data.loader import ImageData
from gan_lightning.data.sources import EggImages, FolderImages, TorchvisionImages
from gan_lightning.ema import recalibrated
from gan_lightning.errors import UserError
from gan_lightning.files import is_exported
from gan_lightning.latents import classes, inputs, latents, seeded
from gan_lightning.measure.copies import Copies
from gan_lightning.measure.features import build_extractor
from gan_lightning.measure.scores import Scores, evaluate, must_compare
from gan_lightning.measure.scoring import save_strip
from gan_lightning.measure.snapshot import Reals, Snapshot, like_the_data
from gan_lightning.sampling import BLOCK, Sampler, build_trusted, load_generator
from gan_lightning.text import console

WALKS = [f"{name}.{kind}" for name in ("interpolation", "morph") for kind in ("png", "gif", "mp4")]
OURS = "grid.png", "nearest_photographs.png", "found.png", *WALKS  # pictures of many images
TORCHVISION = {
    "mnist": ("MNIST", 28, 1),
    "fashion_mnist": ("FashionMNIST", 28, 1),
    "cifar10": ("CIFAR10", 32, 3),
}


def evaluate_cli(
    path: str,
    data: str,
    data_root: str | None,
    features: str | None,
    num_images: int | None,
    as_json: bool,
    trust: str | None,
    cache_dir: str = "data/cache",
    inception_weights: str | None = None,
    truncation: float = 1.0,
    out: str | None = None,
) -> int:
    """Prints scores, and writes the samples that come closest to photographs. UserError."""
    where = Path(path)
    # what is said on the way must not get into the JSON
    with contextlib.redirect_stdout(sys.stderr):
        if where.is_dir() and not is_exported(where):
            sampler = None
        else:
            sampler = load_generator(path, trust)
        settings = sampler.config.get("dataset", {}) if sampler else {}
        reals = _reals(data, data_root, settings, features, cache_dir, inception_weights)
        n = min(num_images or reals.limit, reals.limit)
        ceilings = {}
        if sampler is None:
            fakes = _folder(where, reals.data, n)
        else:
            fakes, untrained = _of_checkpoint(sampler, reals, trust, truncation, n)
            ceilings = {s.protocol: s.value for s in evaluate(Snapshot(reals, untrained)).scores}
        scores = evaluate(Snapshot(reals, fakes, ceilings), seconds=4.0, copies=Copies(reals))
        folder = Path(out) if out else _pictures_of(where, data, settings)
        picture = folder / "nearest_photographs.png"
        try:
            save_strip(picture, scores, fakes, reals.data)
        except OSError as error:
            scores.warnings.append(f"{picture} could not be written: {error.strerror}")
    if as_json:
        print(json.dumps(scores.as_dict()))
    else:
        _show(scores, f"{path} against {data}", picture)
    return 0 if scores.scores else 1


def _show(scores: Scores, title: str, picture: Path) -> None:
    terminal = console()
    if scores.scores:
        terminal.print(scores.table(title))
    for warning in scores.warnings:
        terminal.print(f"note: {warning}")
    if "nearest" in scores.details and picture.is_file():
        terminal.print(f"samples beside their nearest photographs: {picture}")


def _reals(
    data: str,
    root: str | None,
    settings: dict[str, Any],
    features: str | None,
    cache_dir: str,
    weights: str | None,
) -> Reals:
    real = real_data(data, root, settings, cache_dir)
    extractor = build_extractor(features, real, cache_dir, weights)
    # a run goes on with other features; here that would answer another question
    if features not in (None, extractor.name):
        raise UserError(f"--features {features} cannot be used here, for the reason above")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reals = Reals(real, extractor.to(device), cache_dir)
    must_compare(reals)
    return reals


def _of_checkpoint(
    sampler: Sampler, reals: Reals, trust: str | None, truncation: float, n: int
) -> tuple[Tensor, Tensor]:
    """n images of a generator, and of one that has learnt nothing, made as a run makes them."""
    labels = None
    if sampler.num_classes:
        labels = like_the_data(reals.data.train_labels, n, seeded(0))
    fakes = sampler.images(n, 0, labels, truncation)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        fresh = build_trusted(sampler.config["network"]["generator"], trust)
    fresh = fresh.to(sampler.device).eval()
    z = latents(range(BLOCK), sampler.config["latent_dim"])
    some = inputs(z, classes(range(BLOCK), sampler.num_classes))
    batches = (x.to(sampler.device).split(sampler.piece) for x in some)
    # or what BatchNorm has never measured would leave nothing but grey
    fresh = recalibrated(fresh, zip(*batches, strict=True))
    return fakes, Sampler(fresh, sampler.config, sampler.device, False).images(n, 0, labels)


def _pictures_of(path: Path, data: str, settings: dict[str, Any]) -> Path:
    """A checkpoint's run's own images/, else samples/NAME: not beside what is scored."""
    run = path.absolute().parent.parent
    own = data in (*TORCHVISION, "egg") or _trained_on(data, settings)
    ours = own and path.is_file() and (run / "config.yaml").is_file()
    return run / "images" if ours else Path("samples") / path.absolute().stem


def real_data(name: str, root: str | None, settings: dict[str, Any], cache_dir: str) -> ImageData:
    """By name or folder, in the shape a checkpoint was trained on, else 64 pixels or its own."""
    keep = ("image_size", "image_channels", "fit", "background", "holdout")
    options = {key: settings[key] for key in keep if settings.get(key) is not None}
    source: Any
    if name in TORCHVISION:
        dataset, size, channels = TORCHVISION[name]
        source = TorchvisionImages(dataset, root or "data")
        options = {"image_size": size, "image_channels": channels} | options
    elif name == "egg":
        source = EggImages(root or EggImages.DEFAULT_ROOT)
    else:
        # another folder need not have classes
        source = FolderImages(name, bool(settings.get("labels")) and _trained_on(name, settings))
    real = ImageData(source, shrink_batch=True, cache_dir=cache_dir, **options)
    real.prepare()
    return real


def _trained_on(folder: str, settings: dict[str, Any]) -> bool:
    """Whether it is the one that a configuration names, which is compared and never opened."""
    root = settings.get("root")
    return bool(root) and _absolute(str(root)) == _absolute(folder)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _folder(path: Path, real: Any, most: int) -> Tensor:
    """Up to `most` images of a folder as uint8 (n, C, H, W) like `real`, spread evenly over it."""
    source = FolderImages(str(path), without=OURS)
    _, channels, height, width = real.train_images.shape
    if source.typical_size() != (height, width):
        size = "x".join(map(str, source.typical_size()))
        resized = f"are resized to {height}x{width}, the size of the real ones"
        print(f"{path}: images of {size} pixels {resized}")
    found, made = scan(source, Shape(height, width, channels, "stretch"), real.cache_dir)
    if found.bad:
        print(f"{path}: {len(found.bad)} files are no usable images and are left out")
    if not len(made):
        raise nothing_usable(found, str(path))
    n = min(most, len(made))
    return made[torch.arange(n) * len(made) // n]
