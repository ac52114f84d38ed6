"""gan-lightning: what one does beside training. Heavy imports only inside the commands."""

import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from annotated_types import Interval
from typer.exceptions import TyperException

from gan_lightning import interrupt, places
from gan_lightning.entry import complain, in_short
from gan_lightning.errors import UserError
from gan_lightning.files import clear_abandoned, expanded, write_whole
from gan_lightning.names import DATA_SETS, FEATURES
from gan_lightning.ranges import Count, Pixels, Truncation, Whole, complaint, words
from gan_lightning.text import printable, tolerant_output

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=False,
    help="What one does beside training; see also: python train.py --help",
    context_settings={"help_option_names": ["-h", "--help"]},
)


# -- kinds of options ----------------------------------------------------------------------


def number(kind: Any) -> Callable[[str], Any]:
    """Reads a number of this type, as `ranges` has it."""

    def read(text: str) -> Any:
        try:
            value: Any = float(text) if float in getattr(kind, "__args__", (kind,)) else int(text)
        except ValueError:
            value = text
        if complaint("", kind, value):
            raise typer.BadParameter(f"{text} should be {words(kind)}")
        return value

    return read


def image_size(text: str) -> int | list[int]:
    sides = [int(side) if side.isascii() and side.isdigit() else 0 for side in text.split("x")]
    if len(sides) > 2 or any(complaint("", Pixels, side) for side in sides):
        raise typer.BadParameter(
            f"{text} should be 4 to 2048 pixels, as 64 or 96x128 (height x width)"
        )
    return sides[0] if len(sides) == 1 else sides


def like(pattern: str, right: str) -> Callable[[str], str]:
    """Reads a text that matches; `right` says what would."""
    import re

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise typer.BadParameter(f"{text or 'what is empty'} should be {right}")
        return text

    return read


path = like(r".*\S.*", "a path (is a variable of the shell not set?)")
device = like(r"cpu|cuda(:\d+)?|mps|xpu(:\d+)?", "cpu, cuda, cuda:1 or mps")
package = like(r"[^\W\d]\w*(\.[^\W\d]\w*)*", "the name of a package")
Few = Annotated[int, Interval(ge=1, le=100)]


def argument(metavar: str, help: str) -> Any:
    return typer.Argument(parser=path, metavar=metavar, help=help, show_default=False)


def option(read: Callable[[str], Any], metavar: str, help: str, *names: str) -> Any:
    return typer.Option(*names, parser=read, metavar=metavar, help=help)


SHORTER = "latents times this: below 1 more regular images, fewer kinds"
Checkpoint = Annotated[str, argument("CHECKPOINT", "as logs/.../checkpoints/last.ckpt")]
RunFolder = Annotated[str, argument("RUN_DIR", "the folder of a run")]
SeedOption = Annotated[int, option(number(int), "SEED", "the same seed gives the same images")]
Trust = Annotated[
    str | None, option(package, "PACKAGE", "also build networks of this package of yours")
]
Device = Annotated[str | None, option(device, "DEVICE", "cpu, cuda, ...; else the best there is")]
Shorten = Annotated[float, option(number(Truncation), "T", SHORTER)]
Out = Annotated[str, option(path, "FOLDER", "where the images go")]
CacheDir = Annotated[str, option(path, "FOLDER", "keeps decoded images and features")]


# -- the commands --------------------------------------------------------------------------


@app.command()
def sample(
    checkpoint: Checkpoint,
    num_images: Annotated[int, option(number(Count), "N", "how many")] = 64,
    out: Out = "samples",
    format: Annotated[
        Literal["png", "npz"], typer.Option(help="one file each, or one array N x H x W x C")
    ] = "png",
    grid: Annotated[bool, typer.Option("--grid", help="also grid.png of the first 64")] = False,
    label: Annotated[
        int | None,
        option(number(Whole), "CLASS", "only this class, where there are any", "--class"),
    ] = None,
    seed: SeedOption = 0,
    trust: Trust = None,
    device: Device = None,
    truncation: Shorten = 1.0,
) -> None:
    """Generate images from a checkpoint."""
    places.checkpoint_file(checkpoint)
    places.can_be_folder("--out ", out, write=True)
    import numpy as np
    import torch
    from rich.progress import Progress

    from gan_lightning import pictures
    from gan_lightning.sampling import load_generator

    sampler = load_generator(checkpoint, trust, device)
    classes = sampler.num_classes
    if label is not None and label >= (classes or 0):
        known = (
            f"its classes are 0 to {classes - 1}" if classes else "it was trained without classes"
        )
        raise UserError(f"--class {label} does not fit this generator: {known}")
    folder = make_folder(out)
    images_of = folder.glob("[0-9]" * 6 + ".png")
    older = sum(format == "npz" or int(path.stem) >= num_images for path in images_of)
    if older:
        print(
            f"{printable(folder)} also holds {older} images of another time: whoever scores this"
            " folder scores those as well"
        )
    kept: list[torch.Tensor] = []
    done = 0
    with Progress() as progress:
        task = progress.add_task("images", total=num_images)
        for images in sampler.blocks(num_images, seed, label, truncation):
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
    weights = "averaged" if sampler.averaged else "raw"
    print(f"{num_images} images in {printable(folder)}, by {weights} weights")
    if truncation != 1:
        print(f"of truncated latents: --truncation {truncation:g}")


@app.command()
def interpolate(
    checkpoint: Checkpoint,
    rows: Annotated[int, option(number(Few), "N", "walks")] = 6,
    steps: Annotated[int, option(number(Few), "N", "images of a walk")] = 10,
    out: Out = "samples",
    seed: SeedOption = 0,
    trust: Trust = None,
    device: Device = None,
    truncation: Shorten = 1.0,
) -> None:
    """Walk between random latents: interpolation.png and interpolation.gif."""
    places.checkpoint_file(checkpoint)
    places.can_be_folder("--out ", out, write=True)
    import torch

    from gan_lightning import pictures
    from gan_lightning.sampling import load_generator, seeded

    sampler = load_generator(checkpoint, trust, device)
    labels = torch.arange(rows) % sampler.num_classes if sampler.num_classes else None
    draw = seeded(seed)
    ends = [sampler.latents(rows, draw, truncation) for _ in range(2)]
    angle = torch.linspace(0, torch.pi / 2, steps)[:, None, None]
    # on the sphere, where latents live; (steps, rows, latent_dim)
    walk = ends[0] * angle.cos() + ends[1] * angle.sin()
    frames = torch.stack([sampler.generate(z, labels) for z in walk])  # (steps, rows, C, H, W)
    folder = make_folder(out)
    strip = pictures.grid(frames.transpose(0, 1).flatten(0, 1), steps)
    pictures.save(strip, folder / "interpolation.png")
    there_and_back = [*frames, *frames.flip(0)[1:-1]]
    film = [pictures.to_image(pictures.grid(frame, rows)) for frame in there_and_back]
    pictures.save_film(film, folder / "interpolation.gif", 120)
    print(f"interpolation.png and interpolation.gif in {printable(folder)}")


@app.command()
def export(
    checkpoint: Checkpoint,
    trust: Trust = None,
    out: Annotated[str, option(path, "FILE", "where it goes")] = "generator.safetensors",
) -> None:
    """The generator alone, as safetensors."""
    places.checkpoint_file(checkpoint)
    if Path(out).is_dir():
        file = Path(out) / "generator.safetensors"
        raise UserError(f"--out {out} is a folder: give a file name, as {file}")
    places.can_be_folder("--out ", str(Path(out).parent), write=True)
    import json

    from safetensors.torch import save

    from gan_lightning.sampling import load_generator

    sampler = load_generator(checkpoint, trust, "cpu")
    weights = {name: weight.contiguous() for name, weight in sampler.generator.state_dict().items()}
    kept = {key: sampler.config[key] for key in ("network", "latent_dim", "num_classes")}
    make_folder(str(Path(out).parent))
    packed = save(weights, metadata={"config": json.dumps(kept)})
    write_whole(out, lambda file: file.write(packed))
    count = sum(weight.numel() for weight in weights.values())
    print(f"{printable(out)}: {count:,} values, its configuration in the metadata")


NAMED = ", ".join(DATA_SETS)


@app.command()
def evaluate(
    path: Annotated[str, argument("PATH", "a checkpoint file or a folder of images")],
    data: Annotated[str, option(path, "DATA", f"the real images: a folder, or {NAMED}")],
    data_root: Annotated[str | None, option(path, "FOLDER", "where a named data set lies")] = None,
    features: Annotated[
        Literal[FEATURES] | None,  # type: ignore[valid-type]
        typer.Option(help="by data set if left out"),
    ] = None,
    num_images: Annotated[
        int | None, option(number(Count), "N", "as many as there are real ones if left out")
    ] = None,
    truncation: Shorten = 1.0,
    inception_weights: Annotated[
        str | None, option(path, "FILE", "for --features inception, without a network")
    ] = None,
    cache_dir: CacheDir = "data/cache",
    out: Annotated[
        str | None,
        option(
            path, "FOLDER", "for nearest_photographs.png; the run's images/ or samples/ if left out"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table")] = False,
    trust: Trust = None,
) -> int:
    """Score a checkpoint, or any folder of generated images, against real ones."""
    options = dict(locals())
    check_data(path, data, data_root)
    if expanded(path).is_dir() and truncation != 1:
        raise UserError(f"--truncation is for checkpoints: the images in {path} are made already")
    if inception_weights:
        what = "the file with Inception's weights"
        places.file("--inception-weights ", inception_weights, what)
    places.can_be_folder("--cache-dir ", cache_dir)
    if out:
        places.can_be_folder("--out ", out, write=True)
    from gan_lightning.evaluate import evaluate_cli

    return evaluate_cli(**options)


def check_data(path: str, data: str, root: str | None) -> None:
    """Raises UserError for what `evaluate` cannot score, or not against this."""
    scored = expanded(path)
    if (scored / "checkpoints").is_dir() or not scored.is_dir():
        places.checkpoint_file(path)
    if data in DATA_SETS:
        if root:
            places.folder("--data-root ", root, f"the folder in which {data} lies")
        return
    if root:
        raise UserError(f"--data-root is for {NAMED}: leave it out with a folder")
    near = difflib.get_close_matches(data, DATA_SETS, n=1)
    meant = f", did you mean {near[0]}?" if near else ""
    places.folder("--data ", data, f"a folder of images, or one of {NAMED}{meant}")


@app.command()
def check(
    folder: Annotated[str, argument("FOLDER", "of images")],
    image_size: Annotated[
        Any, option(image_size, "SIZE", "as 64, or 96x128 (height x width)")
    ] = "64",
    fit: Annotated[Literal["crop", "pad", "stretch"], typer.Option(help="as dataset.fit")] = "crop",
    channels: Annotated[Literal[1, 3, 4], typer.Option(help="grey, RGB or RGBA")] = 3,
    out: Annotated[
        str | None, option(path, "FOLDER", "for check.json and contact_sheet.png")
    ] = None,
    cache_dir: CacheDir = "data/cache",
) -> int:
    """Look at a folder of images before training on it."""
    places.folder("", folder)
    places.can_be_folder("--cache-dir ", cache_dir)
    if out:
        places.can_be_folder("--out ", out, write=True)
    from gan_lightning.data.check import check_folder

    return check_folder(folder, image_size, fit, channels, out, cache_dir)


@app.command()
def diagnose(
    run_dir: RunFolder,
    language: Annotated[Literal["en", "ko"] | None, typer.Option(help="as the run's")] = None,
    rules: Annotated[list[str], option(package, "PACKAGE", "a module with rules of your own")] = [],  # noqa: B006
    show_all: Annotated[bool, typer.Option("--all", help="also what was fine")] = False,
) -> int:
    """The verdict on a run, finished or going on, from its records."""
    places.run_folder(run_dir)
    from gan_lightning.diagnosis.verdict import diagnose_cli

    return diagnose_cli(run_dir, language, rules, show_all)


@app.command()
def report(run_dir: RunFolder) -> None:
    """One self-contained HTML page of a run."""
    places.run_folder(run_dir)
    from gan_lightning.report import write_report

    print(printable(write_report(Path(run_dir))))


def make_folder(path: str) -> Path:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {path} cannot be made: {error.strerror}") from None
    clear_abandoned(Path(path))  # of a command that was killed
    return Path(path)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    tolerant_output()
    if arguments is None:  # a process of its own
        interrupt.install()
    try:
        code = app(arguments, prog_name="gan-lightning", standalone_mode=False) or 0
    except TyperException as error:
        said = error.format_message().rstrip(".").replace("Value error, ", "")
        complain(f"{said}; gan-lightning --help shows what is possible")
        return 2
    except UserError as error:
        return complain(str(error))
    except OSError as error:
        return complain(in_short(error))
    if code == 130:
        complain("interrupted")
    return code


if __name__ == "__main__":
    sys.exit(main())
