"""What the page shows of a run, read from its folder; files of strangers are matched first."""

import csv
import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gan_lightning import record
from gan_lightning.config import lookup
from gan_lightning.errors import UserError
from gan_lightning.files import inside, read_json, read_text, read_yaml, untrusted
from gan_lightning.patterns import ANY

NUMBER = (float, None)
FINDING = {
    "name": str,
    "title?": str,
    "why": str,
    "override": str,
    "resolved": bool,
    "severity?": str,
    "since_kimg?": NUMBER,
    "evidence": {str: ANY},
    str: ANY,
}
DIAGNOSIS = {
    "verdict": str,
    "summary": str,
    "command?": str,
    "language?": str,
    "findings": [FINDING],
    "checks_passed?": [str],
    "checks_off?": [str],
    str: ANY,
}
SCORE = {
    "name": str,
    "value": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "floor": NUMBER,
    "ceiling": NUMBER,
    "n": int,
    "better?": str,
    str: ANY,
}
RESULT = {"objective": NUMBER, str: ANY}
SCORES = {"scores": [SCORE], str: ANY}
REMARK = {
    "name": str,
    "text": str,
    "action": str,
    "numbers?": {str: NUMBER},
    "files?": [[str]],
    str: ANY,
}
CHECK = {"name": str, "counts": {str: str}, "remarks": [REMARK], str: ANY}

Curve = list[tuple[float, float]]  # images shown, value


@dataclass
class Seen:
    """A run as its folder has it; what is not there yet is empty."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    settings: str = ""
    diagnosis: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)
    grids: list[Path] = field(default_factory=list)
    result: float | None = None  # the best score above real images'

    @property
    def main(self) -> dict[str, Any] | None:
        """The Fréchet distance."""
        found = (s for s in self.scores if s["name"].startswith(("frechet", "fid")))
        return next(found, None)

    @property
    def objective(self) -> float | None:
        """Its best score above real images', of a run that has not ended its last."""
        if self.result is not None or not self.main or self.main["value"] is None:
            return self.result
        return float(self.main["value"] - (self.main["floor"] or 0))

    @property
    def language(self) -> str:
        said = self.diagnosis.get("language") or lookup(self.config, "diagnosis.language")
        return "ko" if said == "ko" else "en"

    @property
    def title(self) -> str:
        name = self.check.get("name") or lookup(self.config, "dataset.name")
        return str(name or self.folder.resolve().name)

    @property
    def seed(self) -> int:
        """Of the grid's first image."""
        seed = lookup(self.config, "observer.seed")
        return seed if isinstance(seed, int) else 0


def read_run(folder: Path) -> Seen:
    """Raises UserError where the folder is no run, or a file in it is none of this program's."""
    metrics, config = inside(folder, "csv/metrics.csv"), inside(folder, "config.yaml")
    if not metrics and not config:
        raise UserError(f"{folder} is no run: it holds no config.yaml and no csv/metrics.csv")
    scores = _json(folder, "scores.json", SCORES)
    grids = (folder / "images").glob("fake_images_*.png")
    return Seen(
        folder,
        read_yaml(config) if config else {},
        read_text(config) if config else "",
        _json(folder, "diagnosis.json", DIAGNOSIS),
        scores.get("scores", []),
        _json(folder, "data_check/check.json", CHECK),
        read_curves(metrics) if metrics else {},  # logger=none has none
        record.read(folder),
        sorted(path for path in grids if inside(folder, f"images/{path.name}")),
        _json(folder, "result.json", RESULT).get("objective"),
    )


def _json(folder: Path, name: str, pattern: Any) -> dict[str, Any]:
    path = inside(folder, name)
    return read_json(path, pattern) if path else {}


def read_curves(path: Path) -> dict[str, Curve]:
    """Key to (images shown, value) pairs, finite ones."""
    curves: dict[str, dict[float, float]] = {}  # the last word on a moment counts
    with untrusted(path):
        header, *rows = csv.reader(read_text(path).replace("\0", "").splitlines()) or [[]]
        at = header.index("step") if "step" in header else len(header)
        for row in rows:
            # a live run's last line may be cut anywhere
            with suppress(ValueError, IndexError):
                step = float(row[at])
                for key, text in zip(header, row, strict=False):
                    if key != "step" and text and math.isfinite(value := float(text)):
                        curves.setdefault(key, {})[step] = value
    return {key: list(curve.items()) for key, curve in curves.items()}
