"""What a run says on the terminal before its first step and after its last."""

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from gan_lightning.gan import GAN
from gan_lightning.text import printable

SHORT = {  # of what was chosen, as a person would say it; "" goes without saying
    "dataset.image_size": "{} pixels",
    "dataset.batch_size": "batches of {}",
    "network.generator.channels": "{} channels",
    "network.discriminator.channels": "",
    "network.generator.min_channels": "",
    "network.discriminator.min_channels": "",
    "network.generator.depth": "",
    "trainer.precision": "{}",
    "total_kimg": "{},000 images to show",
    "checkpoints.every_kimg": "",
}
MAIN = "frechet", "fid", "recall", "near_copies"  # scores at the end


def recipe(chosen: Iterable[tuple[str, str]]) -> str:
    """One line of the (override, reason) pairs that were chosen; "" where nothing was."""
    said = []
    for override, _ in chosen:
        key, _, value = override.partition("=")
        said.append(SHORT.get(key, "{}").format(value if key in SHORT else override))
    line = ", ".join(filter(None, said))
    return f"recipe:  {line}  (config.yaml has all, console.reasons=true says why)" if line else ""


def images(data: Any) -> str:
    """One line: how many, of which size, how many are held out."""
    height, width = data.train_images.shape[2:]
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}[data.train_images.shape[1]]
    held = data.holdout_images
    rest = f", {len(held):,} more held out" if held is not None else ""
    return f"data:    {len(data.train_images):,} images of {width} x {height}, {colours}{rest}"


def device(trainer: Trainer, module: GAN, reasons: bool = False) -> str:
    """One line: where it runs, how large the networks are; `reasons`: what was chosen, too."""
    root = trainer.strategy.root_device
    if root.type == "cuda":
        where = torch.cuda.get_device_name(root)
    else:
        count = torch.get_num_threads()
        where = f"{root.type} with {count} thread{'s' * (count > 1)}"
    if trainer.world_size > 1:
        where = f"{trainer.world_size} x {where}"
    counts = {
        name: sum(p.numel() for p in network.parameters())
        for name, network in (("G", module.generator), ("D", module.discriminator))
    }
    sizes = (f"{name} {_millions(count)}" for name, count in counts.items())
    line = f"{where}, {trainer.precision}; weights: {', '.join(sizes)}"
    if reasons:
        last = module.memory_format == torch.channels_last
        memory = "channels last" if last else "plain memory format"
        count_d = "one pass" if module.joint else "two passes"
        line += f"; {memory}, {count_d} of D for real and generated"
    return line


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"


def shortened(path: Path) -> Path:
    """As it would be typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def farewell(run_dir: Path, module: GAN, earlier: int, seconds: float) -> list[str]:
    """The last lines: where everything is, what it came to, and two commands to go on with."""
    place = shortened(run_dir)
    shown, last = (
        printable(shlex.quote(str(path))) for path in (place, place / "checkpoints" / "last.ckpt")
    )
    folder = Path(sys.executable).parent
    here = folder.is_relative_to(Path.cwd())
    prefix = shlex.quote(f"{folder.relative_to(Path.cwd())}/") if here else ""
    after = f", after {earlier:,} in the run it went on from" if earlier else ""
    lines = [""]
    if (run_dir / "report.html").is_file():
        lines.append(f"report:    {printable(place / 'report.html')}")
    lines.append(f"pictures:  {printable(place / 'images')}")
    lines += map("score:     {}".format, _scores(run_dir / "scores.json"))
    shown_images = f"{module.nimg - earlier:,} images shown in {seconds / 60:.1f} minutes{after}"
    lines.append(f"effort:    {shown_images}")
    lines += [
        f"look:      {prefix}tensorboard --logdir {shown}",
        f"sample:    {prefix}gan-lightning sample {last} --num-images 64 --out samples --grid",
    ]
    return lines


def _scores(path: Path) -> list[str]:
    lines = []
    for score in json.loads(path.read_text())["scores"] if path.is_file() else ():
        if score["name"].startswith(MAIN):
            floor = "" if score["floor"] is None else f"  (real {score['floor']:.4g})"
            lines.append(f"{score['name']} {score['value']:.4g}{floor}")
    return lines
