"""gan-lightning: what one does beside training. Heavy imports only inside the commands."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gan_lightning import interrupt
from gan_lightning.entry import complain, in_short
from gan_lightning.errors import UserError
from gan_lightning.files import clear_abandoned, write_whole

N = TypeVar("N", int, float)


def number(kind: Callable[[str], N], right: Callable[[N], bool], words: str) -> Callable[[str], N]:
    """What argparse reads a number with; it prints `words` for any other."""

    def read(text: str) -> N:
        value = kind(text)
        if not right(value):
            raise ValueError
        return value

    read.__name__ = words
    return read


positive = number(int, lambda n: n >= 1, "whole number of at least 1")
factor = number(float, lambda n: 0 < n < float("inf"), "number above 0")
part = number(float, lambda n: 0 <= n < 1, "number from 0 to below 1")


def image_size(text: str) -> int | list[int]:
    sides = [positive(side) for side in text.split("x")]
    if len(sides) > 2:
        raise ValueError
    return sides[0] if len(sides) == 1 else sides


image_size.__name__ = "size, as 64 or 96x128 (height x width)"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="gan-lightning", description="What one does beside training; see also: python train.py --help"
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=words, description=words, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    def noise(sub: argparse.ArgumentParser, truncation: float | None, reject: float | None) -> None:
        otherwise = "; as the run's sampling.{} otherwise" if truncation is None else ""
        shorter = "the noise times T: below 1 more regular images, fewer kinds" + otherwise.format("truncation")
        sub.add_argument("--truncation", type=factor, metavar="T", default=truncation, help=shorter)
        steadier = "leave out this share of the noise, where images change fastest: fewer misshapen ones"
        steadier += otherwise.format("reject")
        sub.add_argument("--reject", type=part, metavar="SHARE", default=reject, help=steadier)

    def from_checkpoint(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("checkpoint", help="a checkpoint file, as logs/.../checkpoints/last.ckpt")
        sub.add_argument("--seed", type=int, default=0, help="of the noise: the same seed gives the same images")
        sub.add_argument("--trust", metavar="PACKAGE", help="also build networks that live in this package of yours")
        sub.add_argument("--device", help="cpu, cuda, ...; the best there is otherwise")
        noise(sub, None, None)

    sample = command("sample", "generate images from a checkpoint")
    from_checkpoint(sample)
    sample.add_argument("--num-images", type=positive, default=64)
    sample.add_argument("--out", default="samples", help="folder for the images")
    sample.add_argument(
        "--format", choices=["png", "npz"], default="png", help="one file each, or one array N x H x W x C"
    )
    sample.add_argument("--grid", action="store_true", help="also grid.png of the first 64")
    sample.add_argument("--class", dest="label", type=int, help="only this class, of a class-conditional generator")

    interpolate = command("interpolate", "walk between random points of the noise: a strip and an animation")
    from_checkpoint(interpolate)
    interpolate.add_argument("--rows", type=positive, default=6, help="walks")
    interpolate.add_argument("--steps", type=positive, default=10, help="images of a walk")
    interpolate.add_argument("--out", default="samples", help="folder for interpolation.png and interpolation.gif")

    export = command("export", "the generator alone, as safetensors")
    export.add_argument("checkpoint", help="a checkpoint file, as logs/.../checkpoints/last.ckpt")
    export.add_argument("--trust", metavar="PACKAGE", help="also build networks that live in this package of yours")
    export.add_argument("--out", default="generator.safetensors")

    evaluate = command("evaluate", "score a checkpoint, or any folder of generated images, against real ones")
    evaluate.add_argument("path", help="a checkpoint file or a folder of images")
    evaluate.add_argument("--data", required=True, help="the real images: a folder, or mnist, fashion_mnist, egg")
    evaluate.add_argument("--data-root", help="where a named data set lies")
    evaluate.add_argument("--features", help="digits, lite2, inception; by data set otherwise")
    evaluate.add_argument(
        "--num-images", type=positive, help="images to score; as many as there are real ones otherwise"
    )
    noise(evaluate, 1.0, 0.0)
    evaluate.add_argument("--inception-weights", metavar="FILE", help="for --features inception, without a network")
    evaluate.add_argument("--cache-dir", default="data/cache", help="folder for decoded images and features")
    evaluate.add_argument("--json", action="store_true", help="JSON instead of a table")
    evaluate.add_argument("--trust", metavar="PACKAGE", help="also build networks that live in this package of yours")

    check = command("check", "look at a folder of images before training on it")
    check.add_argument("folder")
    check.add_argument("--image-size", type=image_size, default=64, help="as 64, or 96x128 (height x width)")
    check.add_argument("--fit", choices=["crop", "pad", "stretch"], default="crop")
    check.add_argument("--channels", type=int, choices=[1, 3, 4], default=3)
    check.add_argument("--out", help="folder for check.json and contact_sheet.png")
    check.add_argument("--cache-dir", default="data/cache", help="folder for decoded images")

    diagnose = command("diagnose", "the verdict on a run, finished or going on, from its records")
    diagnose.add_argument("run_dir")
    diagnose.add_argument("--language", choices=["en", "ko"])

    report = command("report", "one self-contained HTML page of a run")
    report.add_argument("run_dir")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    if arguments is None:  # a process of its own
        interrupt.install()
    options = vars(parser().parse_args(arguments))
    name = options.pop("command")
    try:
        return COMMANDS[name](**options)
    except UserError as error:
        return complain(str(error))
    except OSError as error:
        return complain(in_short(error))
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


def sample(
    checkpoint: str,
    num_images: int,
    out: str,
    format: str,
    grid: bool,
    label: int | None,
    seed: int,
    trust: str | None,
    device: str | None,
    truncation: float | None,
    reject: float | None,
) -> int:
    import numpy as np
    import torch
    from rich.progress import Progress

    from gan_lightning import pictures
    from gan_lightning.networks.layers import unfinished
    from gan_lightning.sampling import PLAIN, load_generator

    sampler = load_generator(checkpoint, trust, device)
    if label is not None and not 0 <= label < (sampler.num_classes or 0):
        known = (
            f"its classes are 0 to {sampler.num_classes - 1}"
            if sampler.num_classes
            else "it was trained without classes"
        )
        raise UserError(f"--class {label} does not fit this generator: {known}")
    folder = make_folder(out)
    older = [path for path in folder.glob("[0-9]" * 6 + ".png") if format == "npz" or int(path.stem) >= num_images]
    if older:
        print(
            f"{folder} also holds {len(older)} images of another time: whoever scores this folder scores those as well"
        )
    noise = sampler.choose(truncation, reject)
    kept: list[torch.Tensor] = []
    done = 0
    with Progress() as progress:
        task = progress.add_task("images", total=num_images)
        for images in sampler.blocks(num_images, seed, label, **noise):
            if format == "png":
                for image in images:
                    pictures.save(image, folder / f"{done:06d}.png")
                    done += 1
            if format == "npz" or not kept:
                kept.append(images)
            progress.advance(task, len(images))
    if format == "npz":
        array = torch.cat(kept).permute(0, 2, 3, 1).numpy()
        write_whole(folder / "images.npz", lambda file: np.savez_compressed(file, images=array))
    if grid:
        pictures.save(pictures.grid(kept[0][:64]), folder / "grid.png")
    small = ", from before the networks had grown to the full size" if unfinished(sampler.generator) else ""
    print(f"{num_images} images in {folder}, by {'averaged' if sampler.averaged else 'raw'} weights{small}")
    if noise != PLAIN:
        print("not of all noise: --truncation {truncation:g} --reject {reject:g}".format(**noise))
    return 0


def interpolate(
    checkpoint: str,
    rows: int,
    steps: int,
    out: str,
    seed: int,
    trust: str | None,
    device: str | None,
    truncation: float | None,
    reject: float | None,
) -> int:
    import torch

    from gan_lightning import pictures
    from gan_lightning.sampling import load_generator, seeded

    sampler = load_generator(checkpoint, trust, device)
    labels = torch.arange(rows) % sampler.num_classes if sampler.num_classes else None
    draw, noise = seeded(seed), sampler.choose(truncation, reject)
    ends = [sampler.noise(rows, draw, labels, **noise) for _ in range(2)]
    angle = torch.linspace(0, torch.pi / 2, steps)[:, None, None]
    walk = ends[0] * angle.cos() + ends[1] * angle.sin()  # on the sphere, where noise lives; (steps, rows, latent_dim)
    frames = torch.stack([sampler.generate(z, labels) for z in walk])  # (steps, rows, C, H, W)
    folder = make_folder(out)
    pictures.save(pictures.grid(frames.transpose(0, 1).flatten(0, 1), steps), folder / "interpolation.png")
    film = [pictures.to_image(pictures.grid(frame, rows)) for frame in [*frames, *frames.flip(0)[1:-1]]]
    pictures.save_film(film, folder / "interpolation.gif", 120)
    print(f"interpolation.png and interpolation.gif in {folder}")
    return 0


def export(checkpoint: str, out: str, trust: str | None) -> int:
    import json

    from safetensors.torch import save

    from gan_lightning.sampling import load_generator

    sampler = load_generator(checkpoint, trust, "cpu")
    weights = {name: weight.contiguous() for name, weight in sampler.generator.state_dict().items()}
    kept = {key: sampler.config[key] for key in ("network", "latent_dim", "num_classes")}
    make_folder(str(Path(out).parent))
    if Path(out).is_dir():
        raise UserError(f"--out {out} is a folder: give a file name, as {Path(out) / 'generator.safetensors'}")
    packed = save(weights, metadata={"config": json.dumps(kept)})
    write_whole(out, lambda file: file.write(packed))
    print(f"{out}: {sum(w.numel() for w in weights.values()):,} values, its configuration in the metadata")
    return 0


def evaluate(
    path: str,
    data: str,
    data_root: str | None,
    features: str | None,
    num_images: int | None,
    truncation: float,
    reject: float,
    inception_weights: str | None,
    cache_dir: str,
    json: bool,
    trust: str | None,
) -> int:
    from gan_lightning.metrics.evaluate import evaluate_cli

    return evaluate_cli(
        path, data, data_root, features, num_images, json, trust, cache_dir, inception_weights, truncation, reject
    )


def check(folder: str, image_size: int | list[int], fit: str, channels: int, out: str | None, cache_dir: str) -> int:
    from gan_lightning.data.check import check_folder

    return check_folder(folder, image_size, fit, channels, out, cache_dir)


def diagnose(run_dir: str, language: str | None) -> int:
    from gan_lightning.diagnosis.verdict import diagnose_cli

    return diagnose_cli(run_dir, language)


def report(run_dir: str) -> int:
    from gan_lightning.report import write_report

    print(write_report(Path(run_dir)))
    return 0


COMMANDS = {f.__name__: f for f in (sample, interpolate, export, evaluate, check, diagnose, report)}


def make_folder(path: str) -> Path:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {path} cannot be made: {error.strerror}") from None
    clear_abandoned(Path(path))  # of a command that was killed
    return Path(path)


if __name__ == "__main__":
    sys.exit(main())
