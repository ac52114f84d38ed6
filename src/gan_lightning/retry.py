"""`retry.minutes=60`: run, take the first prescription, run again, and say what helped."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from gan_lightning.config import assign
from gan_lightning.diagnosis.verdict import follow
from gan_lightning.errors import UserError
from gan_lightning.files import write_json
from gan_lightning.process import train_process
from gan_lightning.text import console, printable

SHORTEST = 60  # seconds under which another run is not worth starting


@dataclass
class Attempt:
    folder: str
    change: str  # the override followed, "" for the first
    verdict: str
    finding: str
    objective: float | None  # lower is better
    minutes: float


def retry(overrides: list[str], run_dir: Path, minutes: float) -> float | None:
    """Runs `train.py` as often as the budget allows, each time with the first finding's override added.

    Each attempt is a process and a folder of its own below `run_dir`; ends with a leaderboard, printed and written to
    leaderboard.json, and returns the best objective. Raises UserError where the first attempt does not even run.
    """
    end = time.monotonic() + 60 * minutes
    overrides = [o for o in overrides if not o.startswith(("retry.", "hydra."))]
    attempts: list[Attempt] = []
    tried: set[str] = set()
    change = ""
    while not attempts or end - time.monotonic() > SHORTEST:
        folder = run_dir / f"attempt_{len(attempts) + 1}"
        print(f"\nattempt {len(attempts) + 1}: {printable(' '.join(overrides))}", flush=True)
        try:
            # half of the budget at most, so that the runs compare and there is one to follow the first prescription
            attempt, override = run_once(
                overrides, folder, change, min(30 * minutes, end - time.monotonic())
            )
        except UserError as error:
            if not attempts:
                raise
            print(f"{printable(error)}: the attempts before it count", flush=True)
            break
        attempts.append(attempt)
        if override is None or override["override"] in tried:
            break
        change = override["override"]
        tried.add(change)
        overrides = follow([o for o in overrides if not o.startswith("ckpt_path=")], change)
        last = folder / "checkpoints" / "last.ckpt"
        if override["restart"] == "checkpoint" and last.is_file():
            overrides = follow(overrides, assign("ckpt_path", last))
    write_json(run_dir / "leaderboard.json", [vars(attempt) for attempt in attempts], indent=2)
    show(attempts)
    scores = [attempt.objective for attempt in attempts if attempt.objective is not None]
    return min(scores, default=None)


def run_once(
    overrides: list[str], folder: Path, change: str, seconds: float
) -> tuple[Attempt, dict[str, str] | None]:
    """One attempt, and the first finding that is still there and has an override to follow."""
    limit = f"retry.seconds_left={max(SHORTEST, int(seconds))}"
    started = time.monotonic()
    code, stop = train_process([*overrides, limit], folder)
    spent = (time.monotonic() - started) / 60
    if not (folder / "diagnosis.json").is_file():
        raise UserError(
            f"the attempt in {folder} ended with exit code {code} and without a diagnosis"
        )
    diagnosis = json.loads((folder / "diagnosis.json").read_text(encoding="utf-8"))
    result = folder / "result.json"
    objective = json.loads(result.read_text())["objective"] if result.is_file() else None
    open_ones = [
        f
        for f in diagnosis["findings"]
        if not f["resolved"] and f["override"] and f["severity"] != "note"
    ]
    first = open_ones[0] if open_ones and not stop else None
    name = open_ones[0]["name"] if open_ones else ""
    return Attempt(
        str(folder), change, diagnosis["verdict"], name, objective, round(spent, 2)
    ), first


def show(attempts: list[Attempt]) -> None:
    from rich.table import Table

    table = Table(title="what helped (lower is better)")
    for column in ("attempt", "change", "score", "verdict", "finding", "minutes"):
        table.add_column(column)
    ranked = sorted(attempts, key=lambda a: (a.objective is None, a.objective))
    for attempt in ranked:
        score = "-" if attempt.objective is None else f"{attempt.objective:.4g}"
        name = Path(attempt.folder).name
        table.add_row(
            name,
            attempt.change or "(as it was)",
            score,
            attempt.verdict,
            attempt.finding,
            f"{attempt.minutes:.1f}",
        )
    console().print(table)
