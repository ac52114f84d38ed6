"""compare.html: several runs side by side, best first, with what differs between them."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gan_lightning.config import key_of, lookup, varied
from gan_lightning.errors import UserError
from gan_lightning.files import inside, write_text
from gan_lightning.report.images import uri
from gan_lightning.report.panes import short, thin
from gan_lightning.report.reading import Seen, read_run

COMPARED = 60  # runs on a page
OWN = ("ckpt_path", "hydra.run.dir", "hydra.sweep.dir")  # where something lies


def expand(folders: Sequence[Path]) -> list[Path]:
    """Runs as they are; a sweep's folder stands for its runs. Raises UserError for neither."""
    found: list[Path] = []
    for folder in folders:
        alone = inside(folder, "config.yaml") or inside(folder, "csv/metrics.csv")
        below = sorted(path.parent for path in folder.glob("*/config.yaml"))
        # a link may lead to a run of somebody else's
        below = [path for path in below if inside(folder, f"{path.name}/config.yaml")]
        if not alone and not below:
            raise UserError(f"{folder} is no run and no sweep: it holds no config.yaml")
        found += [folder] if alone else below
    return list(dict.fromkeys(found))


def differences(runs: Sequence[Seen]) -> list[str]:
    """What was typed for each run and not for all of them, in one line."""
    typed = (lookup(run.config, "overrides") for run in runs)
    lines = [[str(one) for one in line] if isinstance(line, list) else [] for line in typed]
    return varied([[one for one in line if key_of(one) not in OWN] for line in lines])


def rank(run: Seen) -> float:
    return math.inf if run.objective is None else run.objective


def write_comparison(folders: Sequence[Path]) -> Path:
    """Writes compare.html into what holds all the runs. Raises UserError for what is no run."""
    from gan_lightning.report.page import render

    paths = expand(folders)[:COMPARED]
    runs = sorted((read_run(path) for path in paths), key=rank)
    place = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    mixed = len({run.check.get("name") for run in runs}) > 1
    cards = [_card(run, place, own) for run, own in zip(runs, differences(runs), strict=True)]
    series = [_main_curve(run, card["name"]) for run, card in zip(runs, cards, strict=True)]
    series = [one for one in series if len(one["points"]) > 1]
    pane = {"title": "curve_score", "series": series, "bands": []}
    data = {"panes": [pane] if series else [], "marks": [], "first": 1}
    page = render("compare.html.j2", runs[0].language, cards=cards, data=data, mixed=mixed)
    write_text(place / "compare.html", page)
    return place / "compare.html"


def _card(run: Seen, place: Path, differs: str) -> dict[str, Any]:
    name = os.path.relpath(run.folder.resolve(), place)
    page = f"./{quote(name)}/report.html" if inside(run.folder, "report.html") else ""
    picture = uri(run.grids[-1]) if run.grids else ""
    summary = run.diagnosis.get("summary", "")
    return {
        "name": name,
        "page": page,
        "picture": picture,
        "score": run.main,
        "above": run.objective,
        "summary": summary,
        "differs": differs,
    }


def _main_curve(run: Seen, name: str) -> dict[str, Any]:
    keys = (k for k in run.curves if k.startswith(("metric/frechet", "metric/fid")))
    key = next((k for k in keys if not k.endswith("_floor")), None)
    return {
        "name": f"{name} {short(key) if key else ''}",
        "points": thin(run.curves[key]) if key else [],
    }
