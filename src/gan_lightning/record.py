"""What a run was started with and by what: RUN_DIR/run.json."""

import datetime
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gan_lightning.files import inside, read_json, write_json

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "timm")
PART = {
    "command": str,
    "began": str,
    "ended": (str, None),
    "minutes": (float, None),
    "nimg": (int, None),
    "device": str,
    "commit": (str, None),
    "versions": {str: str},
}
RECORD = {"parts": [PART]}


def command(overrides: Sequence[str]) -> str:
    return shlex.join(["python", "train.py", *overrides])


def ours(text: str) -> str:
    """A command as this program writes it; "" for any other one."""
    try:
        words = shlex.split(text)
    except ValueError:
        return ""
    return text if words[:2] == ["python", "train.py"] and shlex.join(words) == text else ""


def read(run_dir: Path) -> list[dict[str, Any]]:
    """The parts of a run, one for each start; [] where nothing was recorded. Raises UserError."""
    path = inside(run_dir, "run.json")
    return read_json(path, RECORD)["parts"] if path else []


def begin(run_dir: Path, overrides: Sequence[str], device: str, goes_on: bool) -> None:
    """Adds a part to the record, or begins a new one."""
    part = {
        "command": command(overrides),
        "began": _now(),
        "ended": None,
        "minutes": None,
        "nimg": None,
        "device": device,
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }
    earlier = read(run_dir) if goes_on else []
    write_json(run_dir / "run.json", {"parts": [*earlier, part]})


def end(run_dir: Path, nimg: int, seconds: float) -> None:
    """How the last part ended."""
    *earlier, part = read(run_dir)
    part |= {"ended": _now(), "minutes": round(seconds / 60, 2), "nimg": nimg}
    write_json(run_dir / "run.json", {"parts": [*earlier, part]})


def commit() -> str | None:
    """The revision of this checkout, -dirty where files have changed; None for none."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    call = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
