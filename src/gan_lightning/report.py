"""One self-contained HTML page per run: the verdict, the pictures over time, the curves, the settings."""

import base64
import csv
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from gan_lightning.errors import UserError
from gan_lightning.files import (
    ANY,
    LARGEST_PICTURE,
    inside,
    read_json,
    read_text,
    untrusted,
    write_text,
)

PANES = {  # title: log keys that share an axis
    "loss": ["loss/d", "loss/g"],
    "discriminator's mean logit": ["score/real", "score/fake"],
    "gradient norm": ["grad_norm/d", "grad_norm/g"],
    "augmentation": ["augment/p"],
}
FINDING = {
    "name": str,
    "why": str,
    "override": str,
    "resolved": bool,
    "evidence": {str: ANY},
    str: ANY,
}
DIAGNOSIS = {"findings": [FINDING], "checks_passed?": [str], str: ANY}  # what the page shows of it
NUMBER = (float, None)
SCORE = {
    "name": str,
    "value": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "floor": NUMBER,
    "ceiling": NUMBER,
    "n": int,
    str: ANY,
}
SCORES = {"scores": [SCORE], str: ANY}
COLOURS = ["#1b6ca8", "#d1495b", "#2e933c", "#8d6a9f"]
WIDTH, HEIGHT, LEFT = 420, 180, 52  # of a chart, in SVG units


def write_report(run_dir: Path) -> Path:
    """Writes RUN_DIR/report.html and returns its path. Raises UserError where the folder is no run."""
    metrics = inside(run_dir, "csv/metrics.csv")
    if not metrics and not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir} is no run: it holds no config.yaml and no csv/metrics.csv")
    curves = read_curves(metrics) if metrics else {}  # logger=none has none
    panes = PANES | {
        name: [name]
        for name in sorted(curves)
        if name.startswith("metric/") and not name.endswith("_floor")
    }
    grids = sorted((run_dir / "images").glob("fake_images_*.png"))
    shown = grids[:: max(1, -(-len(grids) // 40))] + grids[-1:]
    settings = inside(run_dir, "config.yaml")
    page = Environment(loader=PackageLoader("gan_lightning"), autoescape=True).get_template("report.html.j2").render(
        title=str(run_dir),
        diagnosis=written(run_dir, "diagnosis.json", DIAGNOSIS),
        scores=written(run_dir, "scores.json", SCORES),
        real=picture(inside(run_dir, "images/real_images.png")),
        grids=[
            {"name": path.stem.removeprefix("fake_images_").replace("_", " "), "data": picture(inside(run_dir, f"images/{path.name}"))}
            for path in dict.fromkeys(shown)
        ],
        charts=[chart(title, {key: curves[key] for key in wanted if key in curves}) for title, wanted in panes.items() if set(wanted) & set(curves)],
        settings=read_text(settings) if settings else "",
    )  # fmt: skip
    path = run_dir / "report.html"
    write_text(path, page)
    return path


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Key to (images shown, value) pairs."""
    curves: dict[str, list[tuple[float, float]]] = {}
    with untrusted(path):
        for row in csv.DictReader(read_text(path).replace("\0", "").splitlines()):
            # a live run's last line may be cut anywhere
            with suppress(TypeError, ValueError, KeyError):
                step = float(row.pop("step"))
                for key, text in row.items():
                    if isinstance(key, str) and text:
                        value = float(text)
                        curves.setdefault(key, []).append((step, value))
    return curves


def written(run_dir: Path, name: str, pattern: Any) -> Any:
    """A JSON file of the run as `pattern` says, None where there is none; raises UserError for any other content."""
    path = inside(run_dir, name)
    return None if path is None else read_json(path, pattern)


def picture(path: Path | None) -> str:
    """A PNG as the page holds it; nothing for one that is larger than any of this program's."""
    if path is None or path.stat().st_size > LARGEST_PICTURE:
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def chart(title: str, curves: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Polylines in SVG units, at most 400 points each, and the numbers at the ends of the axes."""
    points = [point for curve in curves.values() for point in curve if abs(point[1]) < float("inf")]
    right = max((x for x, _ in points), default=1) or 1
    values = sorted(y for _, y in points)
    low, high = (values[0], values[-1]) if values else (0.0, 1.0)
    span = (high - low) or 1.0
    lines = []
    for number, (key, curve) in enumerate(curves.items()):
        thin = curve[:: max(1, len(curve) // 400)]
        steps = [
            (LEFT + x / right * (WIDTH - LEFT), HEIGHT - 20 - (y - low) / span * (HEIGHT - 30))
            for x, y in thin
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps if abs(y) < float("inf"))
        lines.append(
            {
                "key": key,
                "colour": COLOURS[number % len(COLOURS)],
                "points": path,
                "last": f"{curve[-1][1]:.4g}",
            }
        )
    return {
        "title": title,
        "lines": lines,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "right": f"{right / 1000:g} thousand images",
    }
