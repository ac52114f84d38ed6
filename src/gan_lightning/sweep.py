"""How a sweep ends: a table of its runs, best first, and a sheet of their last pictures, whatever became of them."""

import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from gan_lightning.config import key_of, lookup
from gan_lightning.errors import UserError
from gan_lightning.files import ANY, read_json, read_yaml, write_json, write_whole

# no override of a job: a job that was told of its sweep would begin it anew
SWEEP_ONLY = ("sweep", "hydra.mode", "hydra/sweeper", "hydra/launcher")
WORDS = {"failed": "failed", "diverged": "diverged", "stopped": "not finished", "ended": ""}


@dataclass
class Run:
    """One run of a sweep: `state` is ended, diverged (a fatal finding), failed or stopped (nothing says how it ended)."""

    folder: str  # within the sweep's
    overrides: list[str]
    state: str
    objective: float | None  # lower is better
    verdict: str  # the diagnosis' summary
    kimg: float | None
    picture: str | None  # its last grid

    def rank(self) -> tuple[bool, float, bool, str]:
        """Best first: by objective, then runs without one, then diverged and failed ones."""
        return self.objective is None, self.objective or 0.0, self.state != "ended", self.folder


def job_overrides(overrides: Sequence[str]) -> list[str]:
    """What of a sweep's command line its jobs are told."""
    return [o for o in overrides if key_of(o) not in SWEEP_ONLY]


def objective_of(folder: Path, code: int) -> float:
    """What a sweeper is told of a run that ended with this exit code: the objective, infinity where it diverged.

    Raises UserError for a run that failed or came to no score, with what would help.
    """
    result = read_json(folder / "result.json", RESULT) if (folder / "result.json").is_file() else {}
    if result.get("objective") is not None and not code:
        return float(result["objective"])
    if _verdict(folder)[0] == "fatal":
        return math.inf
    if code:
        raise UserError(f"it ended with exit code {code}")
    raise UserError("it came to no score: metrics=none, or its last lines say why")


JOB = {"exit_code": int, "minutes": float, "overrides": [str]}
RESULT = {"objective": (float, None), str: ANY}


def _verdict(folder: Path) -> tuple[str, str]:
    if not (folder / "diagnosis.json").is_file():
        return "", ""
    found = read_json(folder / "diagnosis.json", {"verdict": str, "summary": str, str: ANY})
    return found["verdict"], found["summary"]


def runs(root: Path) -> list[Run]:
    """The runs below a sweep's folder, best first."""
    found = []
    folders = {path.parents[1] for path in root.glob("**/.hydra/hydra.yaml")} | {
        p.parent for p in root.glob("**/job.json")
    }
    for folder in sorted(folders):
        try:
            found.append(_run(root, folder))
        except UserError as error:  # one damaged folder does not hide the others
            found.append(
                Run(str(folder.relative_to(root)), [], "failed", None, str(error), None, None)
            )
    return sorted(found, key=Run.rank)


def _run(root: Path, folder: Path) -> Run:
    result = (
        read_json(folder / "result.json", RESULT) if (folder / "result.json").is_file() else None
    )
    job = read_json(folder / "job.json", JOB) if (folder / "job.json").is_file() else {}
    composed = (
        folder / ".hydra" / "hydra.yaml"
    )  # of a run that is going on, or whose sweep was ended from outside
    overrides = job.get("overrides") or [
        str(o) for o in lookup(read_yaml(composed), "hydra.overrides.task") or []
    ]
    verdict, summary = _verdict(folder)
    code, whole = job.get("exit_code", 0), result is not None
    state = (
        "diverged" if verdict == "fatal" else "failed" if code else "ended" if whole else "stopped"
    )
    grids = sorted((folder / "images").glob("fake_images_*.png"))
    samples = folder / "images" / "samples.png"
    picture = samples if samples.is_file() else grids[-1] if grids else None
    kimg = (result or {}).get("nimg")
    return Run(
        str(folder.relative_to(root)),
        overrides,
        state,
        result["objective"] if result and state == "ended" else None,
        summary,
        kimg / 1000 if isinstance(kimg, int) else None,
        str(picture) if picture else None,
    )


def varied(found: Sequence[Run]) -> dict[str, str]:
    """Of each run's overrides those that not all runs share, in one line, by folder."""
    common = set.intersection(*(set(run.overrides) for run in found)) if len(found) > 1 else set()
    own = {
        run.folder: " ".join(o for o in run.overrides if o not in common) or "(as it is)"
        for run in found
    }
    return {
        folder: re.sub(r"\d\.\d{5,}(e[+-]?\d+)?", lambda m: f"{float(m[0]):.4g}", text)
        for folder, text in own.items()
    }


def summarise(root: Path) -> list[Run]:
    """Prints the table and writes it to sweep.json, and the pictures to contact_sheet.png, both in the sweep's folder."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = runs(root)
    if not found:
        return found
    names = varied(found)
    table = Table(title=f"{len(found)} runs, best first (a lower score is better)")
    for column in ("", "run", "overrides", "score", "kimg", "verdict"):
        table.add_column(
            column, overflow="fold", justify="right" if column in ("", "score", "kimg") else "left"
        )
    for place, run in enumerate(found, 1):
        score = f"{run.objective:.4g}" if run.objective is not None else WORDS[run.state] or "none"
        kimg = "" if run.kimg is None else f"{run.kimg:g}"
        cells = (str(place), run.folder, names[run.folder], score, kimg, run.verdict)
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)
    write_json(root / "sweep.json", [asdict(run) for run in found])
    if contact_sheet(found, names, root / "contact_sheet.png"):
        print(f"pictures:     {root / 'contact_sheet.png'}", flush=True)
    return found


def contact_sheet(
    found: Sequence[Run], names: dict[str, str], path: Path, side: int = 320, most: int = 60
) -> bool:
    """The last grid of each run that has one, best first, at most `most`, each `side` pixels wide with its caption below."""
    from PIL import Image, ImageDraw, ImageFont

    shown = [run for run in found if run.picture][:most]
    if not shown:
        return False
    font = ImageFont.load_default(12)
    columns = min(len(shown), 4)
    tiles = []
    for run in shown:
        with Image.open(str(run.picture)) as file:
            picture = file.convert("RGB")
        picture = picture.resize((side, max(1, round(picture.height * side / picture.width))))
        score = (
            f"{run.objective:.4g}" if run.objective is not None else WORDS[run.state] or "no score"
        )
        lines = [f"{run.folder}: {score}", *_wrapped(names[run.folder], font, side)]
        tile = Image.new("RGB", (side, picture.height + 16 * len(lines) + 4), "white")
        tile.paste(picture, (0, 0))
        ImageDraw.Draw(tile).multiline_text(
            (2, picture.height + 2), "\n".join(lines), "black", font, spacing=3
        )
        tiles.append(tile)
    height = max(tile.height for tile in tiles)
    sheet = Image.new(
        "RGB", (columns * (side + 8), -(-len(tiles) // columns) * (height + 8)), "white"
    )
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % columns * (side + 8) + 4, k // columns * (height + 8) + 4))
    write_whole(path, lambda file: sheet.save(file, format="PNG"))
    return True


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """Text in lines of at most `width` pixels, cut between words, and within those that are longer."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width - 4:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if font.getlength(lines[-1] + letter) > width - 4:
                lines.append("")
            lines[-1] += letter
    return lines


# -- from the beginning to the end of one ------------------------------------------------------------------------------

_begun: Path | None = None


class Summary(Callback):
    """Hydra's callback in `conf/config.yaml`: remembers where the sweep is, for `finish`.

    Hydra tells nobody of a sweep's end where a job has failed or somebody pressed Ctrl-C, so the entry point calls `finish`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        global _begun
        _begun = Path(self.folder or config.hydra.sweep.dir)


def finish() -> None:
    """The table and the pictures of this process's sweep, if it has begun one."""
    global _begun
    root, _begun = _begun, None
    if root is not None and root.is_dir():
        summarise(root)


# under the extra's own names its jobs would run inside its own processes, and the first mistake would end the sweep
LAUNCHERS = {"submitit_local": "cluster_local", "submitit_slurm": "cluster"}


def launcher(argument: str) -> str:
    """An argument as typed, but for the extra's names of launchers, in whose place ours are taken."""
    key, _, value = argument.partition("=")
    return f"{key}={LAUNCHERS.get(value, value)}" if key == "hydra/launcher" else argument


def one_process() -> None:
    """Raises UserError where several processes would each run the whole sweep."""
    several = [
        name
        for name in ("WORLD_SIZE", "SLURM_NTASKS")
        if os.environ.get(name, "1") not in ("", "0", "1")
    ]
    if several and ("TORCHELASTIC_RUN_ID" in os.environ or "SLURM_STEP_ID" in os.environ):
        raise UserError(
            "a sweep starts its runs' processes itself: start it as one process, with trainer.devices=N for several"
        )


def record(folder: Path, overrides: Sequence[str], code: int, began: float) -> None:
    """job.json in a run's folder: how it ended."""
    minutes = round((time.monotonic() - began) / 60, 2)
    write_json(
        folder / "job.json", {"exit_code": code, "minutes": minutes, "overrides": list(overrides)}
    )
