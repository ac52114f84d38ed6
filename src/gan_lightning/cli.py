"""gan-lightning: what one does beside training. Heavy imports only inside the commands."""

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from annotated_types import Interval
from typer.exceptions import TyperException

from gan_lightning import interrupt, places
from gan_lightning.entry import complain, in_short
from gan_lightning.errors import UserError
from gan_lightning.files import expanded, is_exported
from gan_lightning.names import DATA_SETS, FEATURES
from gan_lightning.ranges import Count, Fit, Pixels, Truncation, Whole, complaint, words
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

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise typer.BadParameter(f"{text or 'what is empty'} should be {right}")
        return text

    return read


def seeds(text: str) -> int | list[int]:
    """A whole number, or a list of seeds as 3,17,40-47."""
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    found: list[int] = []
    for part in text.split(","):
        first, last = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part), 0
        last = int(first[2] or first[1]) if first else -1
        if not first or not 0 <= last - int(first[1]) < MOST_SEEDS - len(found):
            raise typer.BadParameter(
                f"{text or 'what is empty'} should be a whole number, or a list as 3,17,40-47"
            )
        found += range(int(first[1]), last + 1)
    return found


path = like(r".*\S.*", "a path (is a variable of the shell not set?)")
device = like(r"cpu|cuda(:\d+)?|mps|xpu(:\d+)?", "cpu, cuda, cuda:1 or mps")
words_only = like(r"[\w .,:()/+-]*[^\W_][\w .,:()/+-]*", "words, as cc-by-4.0")
package = like(r"[^\W\d]\w*(\.[^\W\d]\w*)*", "the name of a package")
MOST_SEEDS = 10**6  # that a list may hold
Few = Annotated[int, Interval(ge=1, le=100)]
Steps = Annotated[int, Interval(ge=1, le=10_000)]


def argument(metavar: str, help: str) -> Any:
    return typer.Argument(parser=path, metavar=metavar, help=help, show_default=False)


def option(read: Callable[[str], Any], metavar: str, help: str, *names: str) -> Any:
    return typer.Option(*names, parser=read, metavar=metavar, help=help)


SHORTER = "latents times this: below 1 more regular images, fewer kinds"
Checkpoint = Annotated[
    str, argument("CHECKPOINT", "as logs/.../checkpoints/last.ckpt, or what export wrote")
]
RunFolder = Annotated[str, argument("RUN_DIR", "the folder of a run")]
Label = Annotated[
    int | None, option(number(Whole), "CLASS", "only this class, where there are any", "--class")
]
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
    num_images: Annotated[
        int | None, option(number(Count), "N", "how many; 64 if left out")
    ] = None,
    out: Out = "samples",
    format: Annotated[
        Literal["png", "npz"], typer.Option(help="one file each, or one array N x H x W x C")
    ] = "png",
    grid: Annotated[
        bool, typer.Option("--grid", help="also grid.png of the first 64, seeds beneath")
    ] = False,
    label: Label = None,
    seed: Annotated[Any, option(seeds, "SEEDS", "of the first image, or of all: 3,17,40-47")] = "0",
    trust: Trust = None,
    device: Device = None,
    truncation: Shorten = 1.0,
) -> None:
    """Generate images from a checkpoint."""
    options = dict(locals())
    if isinstance(seed, list) and num_images not in (None, len(seed)):
        listed = f"--seed lists {len(seed)} images"
        raise UserError(f"--num-images {num_images} contradicts --seed: {listed}, leave one out")
    places.generator(checkpoint)
    places.can_be_folder("--out ", out, write=True)
    from gan_lightning.drawing import sample_cli

    sample_cli(**options)


@app.command()
def interpolate(
    checkpoint: Checkpoint,
    rows: Annotated[int | None, option(number(Few), "N", "walks; 6 if left out")] = None,
    steps: Annotated[int, option(number(Few), "N", "images of a walk")] = 10,
    out: Out = "samples",
    mp4: Annotated[bool, typer.Option("--mp4", help="also interpolation.mp4")] = False,
    label: Label = None,
    seed: Annotated[
        Any, option(seeds, "SEEDS", "of the first walk's start, or one walk through all: 3,17,40")
    ] = "0",
    trust: Trust = None,
    device: Device = None,
    truncation: Shorten = 1.0,
) -> None:
    """Walk between latents, as PNG and as GIF."""
    options = dict(locals())
    if isinstance(seed, list):
        if rows not in (None, len(seed) - 1):
            raise UserError(f"--rows {rows} contradicts --seed: a list is one walk, leave one out")
        if not 2 <= len(seed) <= 101:
            raise UserError(f"--seed lists {len(seed)} images: a walk goes through 2 to 101")
    places.generator(checkpoint)
    places.can_be_folder("--out ", out, write=True)
    if mp4:
        places.needs("--mp4", "av", "video")
    from gan_lightning.drawing import interpolate_cli

    interpolate_cli(**options)


@app.command()
def export(
    checkpoint: Checkpoint,
    format: Annotated[
        Literal["safetensors", "onnx", "hub"],
        typer.Option(help="weights; a graph for other programs; a folder for a model hub"),
    ] = "safetensors",
    license: Annotated[
        str | None, option(words_only, "TEXT", "of the data, for the hub's card, as cc-by-4.0")
    ] = None,
    trust: Trust = None,
    out: Annotated[
        str | None, option(path, "PATH", "where it goes; generator... if left out")
    ] = None,
) -> None:
    """The generator alone, to take it elsewhere."""
    places.generator(checkpoint)
    if format == "hub":
        out = out or "generator"
        places.can_be_folder("--out ", out, write=True)
    else:
        if license:
            raise UserError("--license goes on the card of --format hub")
        out = out or f"generator.{format}"
        if expanded(out).is_dir():
            raise UserError(
                f"--out {out} is a folder: give a file name, as {Path(out) / 'generator'}.{format}"
            )
        places.can_be_folder("--out ", str(Path(out).parent), write=True)
    if format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            places.needs("--format onnx", package, "onnx")
    from gan_lightning.export import export_cli

    export_cli(checkpoint, format, out, trust, license)


@app.command()
def find(
    photo: Annotated[str, argument("PHOTO", "an image file")],
    checkpoint: Checkpoint,
    to: Annotated[str | None, option(path, "PHOTO2", "another, for a morph between both")] = None,
    out: Annotated[str, option(path, "FOLDER", "where the pictures go")] = "found",
    steps: Annotated[int, option(number(Steps), "N", "of the search")] = 150,
    mp4: Annotated[bool, typer.Option("--mp4", help="with --to, also morph.mp4")] = False,
    label: Label = None,
    trust: Trust = None,
    device: Device = None,
) -> None:
    """The latent that comes closest to a photograph."""
    options = dict(locals())
    for key, file in (("", photo), ("--to ", to)):
        if file:
            places.file(key, file, "an image file")
    places.generator(checkpoint)
    places.can_be_folder("--out ", out, write=True)
    if mp4 and not to:
        raise UserError("--mp4 films the way to a second photograph: add --to PHOTO2")
    if mp4:
        places.needs("--mp4", "av", "video")
    from gan_lightning.find import find_cli

    find_cli(**options)


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
            path,
            "FOLDER",
            "for nearest_photographs.png; the run's images/ or samples/NAME if left out",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table")] = False,
    trust: Trust = None,
) -> int:
    """Score a checkpoint, or a folder of images."""
    options = dict(locals())
    check_data(path, data, data_root)
    if expanded(path).is_dir() and not is_exported(path) and truncation != 1:
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
    fit: Annotated[Fit, typer.Option(help="as dataset.fit")] = "crop",
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
def report(
    run_dirs: Annotated[list[str], argument("RUN_DIR...", "folders of runs, or of a sweep")],
) -> None:
    """One self-contained HTML page of a run; of several also one that compares them."""
    for run_dir in run_dirs:
        places.run_folder(run_dir)
    from gan_lightning.report import compare, write_comparison, write_report

    runs = compare.expand([Path(run_dir) for run_dir in run_dirs])
    written = [write_report(run) for run in runs]
    if len(runs) > 1:
        written = [write_comparison(runs)]
    print(printable(written[0]))


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    tolerant_output()
    if arguments is None:  # a process of its own
        interrupt.install()
    try:
        code = app(arguments, prog_name="gan-lightning", standalone_mode=False) or 0
    except TyperException as error:
        said = error.format_message().rstrip(".").replace("Value error, ", "")
        context = getattr(error, "ctx", None)
        page = context.command_path if context else "gan-lightning"
        complain(f"{said}; {page} --help shows what is possible")
        return 2
    except UserError as error:
        return complain(str(error))
    except OSError as error:
        return complain(in_short(error))
    if code == 130:
        complain("interrupted")
    return code
