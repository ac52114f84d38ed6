"""The run's folder: nothing leads elsewhere, and what an earlier part of the run left stays."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from gan_lightning.errors import UserError
from gan_lightning.files import clear_abandoned, no_links, read_text, write_text

PARTS = ("checkpoints", "images", "results", "csv", "tensorboard", "data_check", ".hydra")
RESULTS = ("scores.json", "result.json", "diagnosis.json", "diagnosis.md")


def moment_name(nimg: int, every: float) -> str:
    """For files: thousands of images, with decimals where the cadence `every` has them."""
    return f"kimg_{nimg // 1000:06d}" if every % 1000 == 0 else f"kimg_{nimg / 1000:010.3f}"


def claim(run_dir: Path, state: dict[str, Any], ckpt_path: str | None) -> int | None:
    """Makes the folder ready for a run that goes on from `state`, read from `ckpt_path`, if any.

    Curves and pictures up to that checkpoint stay where it lies in this folder; returns the images
    shown then, else None. Raises UserError where a link would lead elsewhere.
    """
    here = bool(state) and Path(str(ckpt_path)).resolve().is_relative_to(run_dir.resolve())
    nimg = state["nimg"] if here else None
    _clean(run_dir, nimg, state)
    return nimg


@rank_zero_only
def _clean(run_dir: Path, nimg: int | None, state: dict[str, Any]) -> None:
    no_links(run_dir, *PARTS)
    run_dir.mkdir(parents=True, exist_ok=True)
    clear_abandoned(run_dir, *(run_dir / part for part in PARTS))
    for name in RESULTS:  # what an earlier run in the same folder came to is not this one's
        (run_dir / name).unlink(missing_ok=True)
    _trim(run_dir / "csv" / "metrics.csv", _rows, nimg)
    _trim(run_dir / "signals.jsonl", _records, nimg)
    if nimg is not None:
        epochs = state["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"]
        _drop_pictures(run_dir, {"kimg": nimg / 1000, "epoch": epochs})


@rank_zero_only
def write_config(run_dir: Path, text: str) -> None:
    write_text(run_dir / "config.yaml", text)


def _trim(path: Path, cut: Callable[[str, int], Iterator[str]], nimg: int | None) -> None:
    """Leaves what `cut` gives of the file, nothing without an `nimg`; not through a link."""
    kept = ""
    if nimg is not None and path.is_file() and not path.is_symlink():
        with suppress(UserError, csv.Error):  # larger than any that this program writes
            kept = "".join(cut(read_text(path), nimg))
    if kept:
        write_text(path, kept)
    else:
        path.unlink(missing_ok=True)


def _rows(text: str, nimg: int) -> Iterator[str]:
    """The header and the whole rows of a CSV file up to a step."""
    names: list[str] = []
    for line in text.splitlines(keepends=True):
        row = next(csv.reader([line]), [])
        if not names and "step" not in row:
            return
        with suppress(ValueError):
            whole = line.endswith("\n") and len(row) == len(names)
            if not names or whole and float(row[names.index("step")]) <= nimg:
                yield line
        names = names or row


def _records(text: str, nimg: int) -> Iterator[str]:
    """The lines of JSON up to a step, but for the one that says the run has ended."""
    for line in text.splitlines():
        with suppress(ValueError, RecursionError, TypeError):
            record = json.loads(line)
            if record.get("nimg", 0) <= nimg and "ended" not in record:
                yield line + "\n"


def _drop_pictures(run_dir: Path, reached: dict[str, float]) -> None:
    """Pictures and probabilities of moments after the checkpoint."""
    for path in (*run_dir.glob("images/fake_images_*"), *run_dir.glob("results/discriminator_*")):
        moment = re.search(r"_(kimg|epoch)_([\d.]+)\.(?:png|npy)$", path.name)
        if moment and float(moment[2]) > reached[moment[1]]:
            path.unlink()
