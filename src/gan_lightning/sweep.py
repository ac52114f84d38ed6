"""How a sweep ends: a table of its runs, best first, and a sheet of their last pictures."""

import math
import os
import shlex
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from gan_lightning.config import key_of, lookup, varied
from gan_lightning.errors import UserError
from gan_lightning.files import read_json, read_yaml, write_json
from gan_lightning.patterns import ANY
from gan_lightning.ranks import find_place
from gan_lightning.text import console

# no override of a job: a job that was told of its sweep would begin it anew
SWEEP_ONLY = ("sweep", "hydra.mode", "hydra/sweeper", "hydra/launcher")
WORDS = {"stopped": "not finished", "ended": "no score"}


@dataclass
class Run:
    """One run of a sweep: `state` is ended, diverged, failed, or stopped (nothing says how)."""

    folder: str  # within the sweep's
    overrides: list[str]
    state: str
    objective: float | None  # lower is better
    verdict: str  # the diagnosis' summary
    kimg: float | None
    picture: str | None  # its last grid

    @property
    def score(self) -> str:
        if self.objective is not None:
            return f"{self.objective:.4g}"
        return WORDS.get(self.state, self.state)

    def rank(self) -> tuple[bool, float, bool, str]:
        """Best first: by objective, then runs without one, then diverged and failed ones."""
        return self.objective is None, self.objective or 0.0, self.state != "ended", self.folder


def job_overrides(overrides: Sequence[str]) -> list[str]:
    """What of a sweep's command line its jobs are told."""
    return [o for o in overrides if key_of(o) not in SWEEP_ONLY]


def objective_of(folder: Path, code: int) -> float:
    """What a sweeper is told of a run with this exit code: the objective, infinity where it
    diverged.

    Raises UserError for a run that failed or came to no score, with what would help.
    """
    objective = _read(folder / "result.json", RESULT).get("objective")
    if objective is not None and not code:
        return float(objective)
    if _read(folder / "diagnosis.json", DIAGNOSIS).get("verdict") == "fatal":
        return math.inf
    if code:
        raise UserError(f"it ended with exit code {code}")
    raise UserError("it came to no score: metrics=none, or its last lines say why")


JOB = {"exit_code": int, "minutes": float, "overrides": [str]}
RESULT = {"objective": (float, None), "nimg?": int, str: ANY}
DIAGNOSIS = {"verdict": str, "summary": str, str: ANY}


def _read(path: Path, pattern: Any) -> dict[str, Any]:
    """What a file of a run holds; {} where there is none."""
    return read_json(path, pattern) if path.is_file() else {}


def runs(root: Path) -> list[Run]:
    """The runs below a sweep's folder, best first."""
    found = []
    folders = {path.parents[1] for path in root.glob("**/.hydra/hydra.yaml")}
    for folder in sorted(folders | {path.parent for path in root.glob("**/job.json")}):
        name = str(folder.relative_to(root))
        try:
            found.append(_run(name, folder))
        except UserError as error:  # one damaged folder does not hide the others
            found.append(Run(name, [], "failed", None, str(error), None, None))
    return sorted(found, key=Run.rank)


def _run(name: str, folder: Path) -> Run:
    job, result = _read(folder / "job.json", JOB), _read(folder / "result.json", RESULT)
    diagnosis = _read(folder / "diagnosis.json", DIAGNOSIS)
    overrides = job.get("overrides")
    if not overrides:  # of a run that is going on, or whose sweep was ended from outside
        composed = read_yaml(folder / ".hydra" / "hydra.yaml")
        overrides = [str(one) for one in lookup(composed, "hydra.overrides.task") or []]
    state = "ended" if result else "stopped"
    if job.get("exit_code"):
        state = "failed"
    if diagnosis.get("verdict") == "fatal":
        state = "diverged"
    grids = sorted(folder.glob("images/fake_images_*.png"))
    return Run(
        name,
        overrides,
        state,
        result["objective"] if state == "ended" else None,
        diagnosis.get("summary", ""),
        result["nimg"] / 1000 if "nimg" in result else None,
        str(grids[-1]) if grids else None,
    )


def summarise(root: Path) -> list[Run]:
    """Prints the table, and writes sweep.json and contact_sheet.png into the sweep's folder."""
    from rich.table import Table

    found = runs(root)
    if not found:
        return found
    own = varied([run.overrides for run in found])
    names = {run.folder: said or "(as it is)" for run, said in zip(found, own, strict=True)}
    table = Table(
        title=f"{len(found)} runs, best first: by each run's best score above real images'"
    )
    for column in ("", "run", "overrides", "above real", "kimg", "verdict"):
        side: Any = "right" if column in ("", "above real", "kimg") else "left"
        table.add_column(column, overflow="fold", justify=side)
    for place, run in enumerate(found, 1):
        kimg = "" if run.kimg is None else f"{run.kimg:g}"
        table.add_row(str(place), run.folder, names[run.folder], run.score, kimg, run.verdict)
    console().print(table)
    write_json(root / "sweep.json", [asdict(run) for run in found])
    if contact_sheet(found, names, root / "contact_sheet.png"):
        print(f"pictures:     {root / 'contact_sheet.png'}", flush=True)
    print(f"on one page:  gan-lightning report {shlex.quote(str(root))}", flush=True)
    return found


def contact_sheet(
    found: Sequence[Run], names: dict[str, str], path: Path, side: int = 320, most: int = 60
) -> bool:
    """The last grids, best first, at most `most`, `side` pixels wide, each over its caption."""
    from PIL import Image

    from gan_lightning import pictures

    shown = [run for run in found if run.picture][:most]
    if not shown:
        return False
    tiles = []
    for run in shown:
        with Image.open(str(run.picture), formats=("PNG",)) as file:
            picture = file.convert("RGB")
        tall = max(1, round(picture.height * side / picture.width))
        tiles.append(picture.resize((side, tall)))
    captions = [f"{run.folder}: {run.score}\n{wrapped(names[run.folder], side)}" for run in shown]
    pictures.save_image(pictures.captioned(tiles, captions, 4), path)
    return True


def wrapped(text: str, side: int) -> str:
    return "\n".join(textwrap.wrap(text, side // 7))  # 7 pixels a letter


# -- from the beginning to the end of one ---------------------------------------------------

_begun: Path | None = None


class Summary(Callback):
    """Hydra's callback in `conf/config.yaml`: remembers where the sweep is, for `finish`.

    Hydra tells nobody of a sweep's end where a job has failed or somebody pressed Ctrl-C, so the
    entry point calls `finish`.
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
    """An argument as typed, but for the extra's names of launchers, in whose place ours are
    taken."""
    key, _, value = argument.partition("=")
    return f"{key}={LAUNCHERS.get(value, value)}" if key == "hydra/launcher" else argument


def one_process() -> None:
    """Raises UserError where several processes would each run the whole sweep."""
    if find_place(os.environ).world != 1:
        raise UserError(
            "a sweep starts its runs' processes itself: start it as one process,"
            " with trainer.devices=N for several"
        )


def record(folder: Path, overrides: Sequence[str], code: int, began: float) -> None:
    """job.json in a run's folder: how it ended."""
    minutes = round((time.monotonic() - began) / 60, 2)
    job = {"exit_code": code, "minutes": minutes, "overrides": list(overrides)}
    write_json(folder / "job.json", job)
