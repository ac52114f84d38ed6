"""`retry.minutes=60`: run, take the first prescription, run again, and say what helped."""

import json
import time
from pathlib import Path
from typing import Any

from gan_lightning.config import assign
from gan_lightning.diagnosis.verdict import follow
from gan_lightning.errors import UserError
from gan_lightning.files import write_json
from gan_lightning.process import train_process
from gan_lightning.text import console, printable

SHORTEST = 60  # seconds under which another run is not worth starting


def retry(overrides: list[str], run_dir: Path, minutes: float) -> float | None:
    """Runs `train.py` as often as `minutes` allow, each time with the first finding's override.

    Each attempt is a process and a folder of its own below `run_dir`. Prints and writes
    leaderboard.json, returns the best objective. Raises UserError where the first attempt does not
    even run.
    """
    end = time.monotonic() + 60 * minutes
    overrides = [o for o in overrides if not o.startswith(("retry.", "hydra."))]
    attempts: list[dict[str, Any]] = []
    change = ""
    while not attempts or end - time.monotonic() > SHORTEST:
        folder = run_dir / f"attempt_{len(attempts) + 1}"
        print(f"\nattempt {len(attempts) + 1}: {printable(' '.join(overrides))}", flush=True)
        # half of the budget at most, so that one run can follow the first prescription
        seconds = min(30 * minutes, end - time.monotonic())
        try:
            attempt, finding = run_once(overrides, folder, change, seconds)
        except UserError as error:
            if not attempts:
                raise
            print(f"{printable(error)}: the attempts before it count", flush=True)
            break
        attempts.append(attempt)
        if finding is None or finding["override"] in {a["change"] for a in attempts}:
            break
        change = finding["override"]
        overrides = follow([o for o in overrides if not o.startswith("ckpt_path=")], change)
        last = folder / "checkpoints" / "last.ckpt"
        if finding["restart"] == "checkpoint" and last.is_file():
            overrides = follow(overrides, assign("ckpt_path", last))
    write_json(run_dir / "leaderboard.json", attempts, indent=2)
    show(attempts)
    return min((a["objective"] for a in attempts if a["objective"] is not None), default=None)


def run_once(
    overrides: list[str], folder: Path, change: str, seconds: float
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """An attempt that follows override `change`, and the first finding that is left to follow."""
    limit = f"retry.seconds_left={max(SHORTEST, int(seconds))}"
    started = time.monotonic()
    code, stop = train_process([*overrides, limit], folder)
    spent = (time.monotonic() - started) / 60
    if not (folder / "diagnosis.json").is_file():
        ended = f"ended with exit code {code} and without a diagnosis"
        raise UserError(f"the attempt in {folder} {ended}")
    diagnosis = json.loads((folder / "diagnosis.json").read_text(encoding="utf-8"))
    result = folder / "result.json"
    left = [f for f in diagnosis["findings"] if f["override"] and not f["resolved"]]
    first = next((f for f in left if f["severity"] != "note"), None)
    attempt = {
        "folder": str(folder),
        "change": change,
        "verdict": diagnosis["verdict"],
        "finding": first["name"] if first else "",
        "objective": json.loads(result.read_text())["objective"] if result.is_file() else None,
        "minutes": round(spent, 2),
    }
    return attempt, None if stop else first


def show(attempts: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("attempt", "change", "score", "verdict", "finding", "minutes")
    table.title = "what helped (lower is better)"
    for a in sorted(attempts, key=lambda a: (a["objective"] is None, a["objective"])):
        score = "-" if a["objective"] is None else f"{a['objective']:.4g}"
        change, minutes = a["change"] or "(as it was)", f"{a['minutes']:.1f}"
        table.add_row(Path(a["folder"]).name, change, score, a["verdict"], a["finding"], minutes)
    console().print(table)
