"""One self-contained HTML page per run: the verdict, the pictures over time, the curves, the settings."""

import base64
import csv
import json
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from gan_lightning.errors import UserError

PANES = {  # title: log keys that share an axis
    "loss": ["loss/d", "loss/g"],
    "discriminator's mean logit": ["score/real", "score/fake"],
    "gradient norm": ["grad_norm/d", "grad_norm/g"],
    "augmentation": ["augment/p"],
}
COLOURS = ["#1b6ca8", "#d1495b", "#2e933c", "#8d6a9f"]
WIDTH, HEIGHT, LEFT = 420, 180, 52  # of a chart, in SVG units


def write_report(run_dir: Path) -> Path:
    """Writes RUN_DIR/report.html and returns its path. Raises UserError where the folder is no run."""
    metrics = run_dir / "csv" / "metrics.csv"
    if not metrics.is_file() and not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir} is no run: it holds no config.yaml and no csv/metrics.csv")
    curves = read_curves(metrics) if metrics.is_file() else {}  # logger=none has none
    panes = PANES | {
        name: [name] for name in sorted(curves) if name.startswith("metric/") and not name.endswith("_floor")
    }
    grids = sorted((run_dir / "images").glob("fake_images_*.png"))
    shown = grids[:: max(1, -(-len(grids) // 40))] + grids[-1:]
    settings = run_dir / "config.yaml"
    page = Environment(loader=PackageLoader("gan_lightning"), autoescape=True).get_template("report.html.j2").render(
        title=str(run_dir),
        diagnosis=read_json(run_dir / "diagnosis.json"),
        scores=read_json(run_dir / "scores.json"),
        samples=picture(run_dir / "images" / "samples.png"),
        real=picture(run_dir / "images" / "real_images.png"),
        grids=[{"name": path.stem.removeprefix("fake_images_").replace("_", " "), "data": picture(path)} for path in dict.fromkeys(shown)],
        charts=[chart(title, {key: curves[key] for key in wanted if key in curves}) for title, wanted in panes.items() if set(wanted) & set(curves)],
        settings=settings.read_text(encoding="utf-8") if settings.is_file() else "",
    )  # fmt: skip
    path = run_dir / "report.html"
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Key to (images shown, value) pairs."""
    curves: dict[str, list[tuple[float, float]]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for key, text in row.items():
                if key != "step" and text not in ("", None):
                    curves.setdefault(key, []).append((float(row["step"]), float(text)))
    return curves


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def picture(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""


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
        steps = [(LEFT + x / right * (WIDTH - LEFT), HEIGHT - 20 - (y - low) / span * (HEIGHT - 30)) for x, y in thin]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps if abs(y) < float("inf"))
        lines.append(
            {"key": key, "colour": COLOURS[number % len(COLOURS)], "points": path, "last": f"{curve[-1][1]:.4g}"}
        )
    return {
        "title": title,
        "lines": lines,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "right": f"{right / 1000:g} thousand images",
    }
