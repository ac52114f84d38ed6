"""gan-lightning: what one does beside training. Heavy imports only inside the commands."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from gan_lightning import interrupt, places
from gan_lightning.entry import complain, in_short
from gan_lightning.errors import UserError
from gan_lightning.files import clear_abandoned, expanded, write_whole
from gan_lightning.names import DATA_SETS, FEATURES
from gan_lightning.text import printable, tolerant_output

N = TypeVar("N", int, float)


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; {self.prog} --help shows what is possible")
        sys.exit(2)


def number(kind: Callable[[str], N], right: Callable[[N], bool], words: str) -> Callable[[str], N]:
    """What argparse reads a number with; it prints `words` for any other."""

    def read(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not right(value):
            raise argparse.ArgumentTypeError(f"{text} should be a {words}")
        return value

    return read


positive = number(int, lambda n: 1 <= n <= 10**9, "whole number of at least 1")
few = number(int, lambda n: 1 <= n <= 100, "whole number from 1 to 100")
whole = number(int, lambda n: n >= 0, "whole number of at least 0")
any_whole = number(int, lambda n: True, "whole number")
factor = number(float, lambda n: 0 < n < 100, "number above 0 and below 100")
part = number(float, lambda n: 0 <= n < 1, "number from 0 to below 1")


def image_size(text: str) -> int | list[int]:
    sides = [int(side) if side.isascii() and side.isdigit() else 0 for side in text.split("x")]
    if len(sides) > 2 or not all(4 <= side <= 2048 for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text} should be 4 to 2048 pixels, as 64 or 96x128 (height x width)"
        )
    return sides[0] if len(sides) == 1 else sides


def text_like(pattern: str, words: str) -> Callable[[str], str]:
    """What argparse reads a text with; it prints `words` for one that is not like the pattern."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise argparse.ArgumentTypeError(f"{text or 'what is empty'} should be {words}")
        return text

    return read


path = text_like(r".*\S.*", "a path (is a variable of the shell not set?)")
device = text_like(r"cpu|cuda(:\d+)?|mps|xpu(:\d+)?", "cpu, cuda, cuda:1 or mps")
package = text_like(r"[^\W\d]\w*(\.[^\W\d]\w*)*", "the name of a package")


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="gan-lightning",
        description="What one does beside training; see also: python train.py --help",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=words,
            description=words,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    def noise(sub: argparse.ArgumentParser, truncation: float | None, reject: float | None) -> None:
        otherwise = "; as the run's sampling.{} otherwise" if truncation is None else ""
        shorter = "the noise times T: below 1 more regular images, fewer kinds" + otherwise.format(
            "truncation"
        )
        sub.add_argument("--truncation", type=factor, metavar="T", default=truncation, help=shorter)
        steadier = (
            "leave out this share of the noise, where images change fastest: fewer misshapen ones"
        )
        steadier += otherwise.format("reject")
        sub.add_argument("--reject", type=part, metavar="SHARE", default=reject, help=steadier)

    def from_checkpoint(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "checkpoint", type=path, help="a checkpoint file, as logs/.../checkpoints/last.ckpt"
        )
        sub.add_argument(
            "--seed",
            type=any_whole,
            default=0,
            help="of the noise: the same seed gives the same images",
        )
        sub.add_argument(
            "--trust",
            type=package,
            metavar="PACKAGE",
            help="also build networks that live in this package of yours",
        )
        sub.add_argument(
            "--device", type=device, help="cpu, cuda, ...; the best there is otherwise"
        )
        noise(sub, None, None)

    sample = command("sample", "generate images from a checkpoint")
    from_checkpoint(sample)
    sample.add_argument("--num-images", type=positive, default=64)
    sample.add_argument("--out", type=path, default="samples", help="folder for the images")
    sample.add_argument(
        "--format",
        choices=["png", "npz"],
        default="png",
        help="one file each, or one array N x H x W x C",
    )
    sample.add_argument("--grid", action="store_true", help="also grid.png of the first 64")
    sample.add_argument(
        "--class",
        dest="label",
        type=whole,
        help="only this class, of a class-conditional generator",
    )

    interpolate = command(
        "interpolate", "walk between random points of the noise: a strip and an animation"
    )
    from_checkpoint(interpolate)
    interpolate.add_argument("--rows", type=few, default=6, help="walks")
    interpolate.add_argument("--steps", type=few, default=10, help="images of a walk")
    interpolate.add_argument(
        "--out",
        type=path,
        default="samples",
        help="folder for interpolation.png and interpolation.gif",
    )

    export = command("export", "the generator alone, as safetensors")
    export.add_argument(
        "checkpoint", type=path, help="a checkpoint file, as logs/.../checkpoints/last.ckpt"
    )
    export.add_argument(
        "--trust",
        type=package,
        metavar="PACKAGE",
        help="also build networks that live in this package of yours",
    )
    export.add_argument("--out", type=path, default="generator.safetensors")

    evaluate = command(
        "evaluate", "score a checkpoint, or any folder of generated images, against real ones"
    )
    evaluate.add_argument("path", type=path, help="a checkpoint file or a folder of images")
    evaluate.add_argument(
        "--data",
        type=path,
        required=True,
        help=f"the real images: a folder, or {', '.join(DATA_SETS)}",
    )
    evaluate.add_argument("--data-root", type=path, help="where a named data set lies")
    evaluate.add_argument("--features", choices=FEATURES, help="by data set otherwise")
    evaluate.add_argument(
        "--num-images",
        type=positive,
        help="images to score; as many as there are real ones otherwise",
    )
    noise(evaluate, 1.0, 0.0)
    evaluate.add_argument(
        "--inception-weights",
        type=path,
        metavar="FILE",
        help="for --features inception, without a network",
    )
    evaluate.add_argument(
        "--cache-dir",
        type=path,
        default="data/cache",
        help="folder for decoded images and features",
    )
    evaluate.add_argument("--out", type=path, metavar="FOLDER",
                          help="for nearest_photographs.png; the run's images/ or samples/ otherwise")  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="JSON instead of a table")
    evaluate.add_argument(
        "--trust",
        type=package,
        metavar="PACKAGE",
        help="also build networks that live in this package of yours",
    )

    check = command("check", "look at a folder of images before training on it")
    check.add_argument("folder", type=path)
    check.add_argument(
        "--image-size", type=image_size, default=64, help="as 64, or 96x128 (height x width)"
    )
    check.add_argument("--fit", choices=["crop", "pad", "stretch"], default="crop")
    check.add_argument("--channels", type=int, choices=[1, 3, 4], default=3)
    check.add_argument("--out", type=path, help="folder for check.json and contact_sheet.png")
    check.add_argument(
        "--cache-dir", type=path, default="data/cache", help="folder for decoded images"
    )

    diagnose = command("diagnose", "the verdict on a run, finished or going on, from its records")
    diagnose.add_argument("run_dir", type=path)
    diagnose.add_argument("--language", choices=["en", "ko"])

    report = command("report", "one self-contained HTML page of a run")
    report.add_argument("run_dir", type=path)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    tolerant_output()
    if arguments is None:  # a process of its own
        interrupt.install()
    options = vars(parser().parse_args(arguments))
    name = options.pop("command")
    try:
        check_paths(name, options)
        return COMMANDS[name](**options)
    except UserError as error:
        return complain(str(error))
    except OSError as error:
        return complain(in_short(error))
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


def check_paths(command: str, options: dict[str, Any]) -> None:
    """Raises UserError for a path that cannot be right, before anything is read or made."""
    if "checkpoint" in options:
        places.checkpoint_file(options["checkpoint"])
    if "run_dir" in options:
        places.run_folder(options["run_dir"])
    if "folder" in options:
        places.folder("", options["folder"])
    if command == "evaluate":
        check_data(options)
    if options.get("cache_dir"):
        places.can_be_folder("--cache-dir ", options["cache_dir"])
    if out := options.get("out"):
        if command == "export" and Path(out).is_dir():
            raise UserError(
                f"--out {out} is a folder: give a file name, as {Path(out) / 'generator.safetensors'}"
            )
        places.can_be_folder(
            "--out ", str(Path(out).parent) if command == "export" else out, write=True
        )


def check_data(options: dict[str, Any]) -> None:
    """What `evaluate` is to score, and against what."""
    typed, data, root = options["path"], options["data"], options["data_root"]
    scored = expanded(typed)
    if (scored / "checkpoints").is_dir() or not scored.is_dir():
        places.checkpoint_file(typed)
    elif options["truncation"] != 1 or options["reject"] != 0:
        raise UserError(
            f"--truncation and --reject are for checkpoints: the images in {typed} are made already"
        )
    if data in DATA_SETS:
        if root:
            places.folder("--data-root ", root, f"the folder in which {data} lies")
    elif root:
        raise UserError(f"--data-root is for {', '.join(DATA_SETS)}: leave it out with a folder")
    elif not expanded(data).is_dir():
        near = difflib.get_close_matches(data, DATA_SETS, n=1)
        meant = f", did you mean {near[0]}?" if near else ""
        places.folder(
            "--data ", data, f"a folder of images, or one of {', '.join(DATA_SETS)}{meant}"
        )
    if options["inception_weights"]:
        places.file(
            "--inception-weights ",
            options["inception_weights"],
            "the file with Inception's weights",
        )


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
    older = [
        path
        for path in folder.glob("[0-9]" * 6 + ".png")
        if format == "npz" or int(path.stem) >= num_images
    ]
    if older:
        print(
            f"{printable(folder)} also holds {len(older)} images of another time: whoever scores this folder scores those as well"
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
    print(
        f"{num_images} images in {printable(folder)}, by {'averaged' if sampler.averaged else 'raw'} weights"
    )
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
    walk = (
        ends[0] * angle.cos() + ends[1] * angle.sin()
    )  # on the sphere, where noise lives; (steps, rows, latent_dim)
    frames = torch.stack([sampler.generate(z, labels) for z in walk])  # (steps, rows, C, H, W)
    folder = make_folder(out)
    pictures.save(
        pictures.grid(frames.transpose(0, 1).flatten(0, 1), steps), folder / "interpolation.png"
    )
    film = [
        pictures.to_image(pictures.grid(frame, rows)) for frame in [*frames, *frames.flip(0)[1:-1]]
    ]
    pictures.save_film(film, folder / "interpolation.gif", 120)
    print(f"interpolation.png and interpolation.gif in {printable(folder)}")
    return 0


def export(checkpoint: str, out: str, trust: str | None) -> int:
    import json

    from safetensors.torch import save

    from gan_lightning.sampling import load_generator

    sampler = load_generator(checkpoint, trust, "cpu")
    weights = {name: weight.contiguous() for name, weight in sampler.generator.state_dict().items()}
    kept = {key: sampler.config[key] for key in ("network", "latent_dim", "num_classes")}
    make_folder(str(Path(out).parent))
    packed = save(weights, metadata={"config": json.dumps(kept)})
    write_whole(out, lambda file: file.write(packed))
    print(
        f"{printable(out)}: {sum(w.numel() for w in weights.values()):,} values, its configuration in the metadata"
    )
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
    out: str | None,
    json: bool,
    trust: str | None,
) -> int:
    from gan_lightning.evaluate import evaluate_cli

    return evaluate_cli(
        path,
        data,
        data_root,
        features,
        num_images,
        json,
        trust,
        cache_dir,
        inception_weights,
        truncation,
        reject,
        out,
    )


def check(
    folder: str,
    image_size: int | list[int],
    fit: str,
    channels: int,
    out: str | None,
    cache_dir: str,
) -> int:
    from gan_lightning.data.check import check_folder

    return check_folder(folder, image_size, fit, channels, out, cache_dir)


def diagnose(run_dir: str, language: str | None) -> int:
    from gan_lightning.diagnosis.verdict import diagnose_cli

    return diagnose_cli(run_dir, language)


def report(run_dir: str) -> int:
    from gan_lightning.report import write_report

    print(printable(write_report(Path(run_dir))))
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
