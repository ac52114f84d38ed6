"""RUN_DIR/report.html: the verdict, the pictures over time, the scores, the curves, the
settings."""

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from gan_lightning import record
from gan_lightning.diagnosis.rules import load
from gan_lightning.files import inside, write_text
from gan_lightning.report.images import frames, tile_sides, uri
from gan_lightning.report.panes import FIRST, panes
from gan_lightning.report.reading import Seen, read_run

WORDS: dict[str, dict[str, str]] = load(Path(__file__).parent / "words.yaml")


def say(language: str) -> dict[str, str]:
    """The page's own words."""
    return {name: words[language] for name, words in WORDS.items()}


def render(template: str, language: str, **values: Any) -> str:
    loader = PackageLoader("gan_lightning")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    page = environment.get_template(template)
    return page.render(language=language, say=say(language), **values)


def number(value: Any) -> str:
    return (
        ""
        if not isinstance(value, int | float)
        else f"{value:.3g}"
        if abs(value) < 100
        else f"{value:,.0f}"
    )


def in_korean(check: dict[str, Any]) -> dict[str, Any]:
    """The data check as the Korean page says it; what has no words there stays as it is."""
    known = load(Path(__file__).parent / "check_ko.yaml")

    def row(text: str) -> str:
        for pattern, korean in known["values"].items():
            if found := re.fullmatch(pattern, text):
                return found.expand(korean)
        return text

    def said(remark: dict[str, Any]) -> dict[str, Any]:
        words = known["remarks"].get(remark["name"], {"texts": []})
        names = [str(file) for group in remark.get("files", []) for file in group]
        more = f" … ({len(names)})" if len(names) > 5 else ""
        values = {"names": ", ".join(names[:5]) + more, **remark.get("numbers", {})}
        for text in words["texts"]:
            with suppress(KeyError, ValueError, TypeError):
                done = {"title": words["title"], "text": text.format(**values)}
                # a stranger's own text is no format
                action = words["action"].format(**values) if "action" in words else remark["action"]
                return remark | done | {"action": action}
        return remark

    counts = {known["counts"].get(name, name): row(text) for name, text in check["counts"].items()}
    return check | {"counts": counts, "remarks": [said(remark) for remark in check["remarks"]]}


def write_report(run_dir: Path) -> Path:
    """Writes RUN_DIR/report.html and returns its path. Raises UserError where it is no run."""
    seen = read_run(run_dir)
    if seen.language == "ko" and seen.check:
        seen.check = in_korean(seen.check)
    moments = frames(seen)
    findings = [f for f in seen.diagnosis.get("findings", []) if not f["resolved"]]
    gone = [f for f in seen.diagnosis.get("findings", []) if f["resolved"]]
    data = {
        "frames": moments,
        "panes": panes(seen),
        "marks": [mark(f) for f in [*findings, *gone] if f.get("since_kimg") is not None],
        "tile": tile_sides(seen.grids[-1]) if moments else None,
        "seed": seen.seed,
        "first": FIRST,
        "sample": shlex.join(["gan-lightning", "sample", f"{run_dir}/checkpoints/last.ckpt"]),
        "say": say(seen.language),
    }
    page = render(
        "report.html.j2",
        seen.language,
        seen=seen,
        findings=findings,
        gone=gone,
        frames=moments,
        data=data,
        first=FIRST,
        real=uri(inside(run_dir, "images/real_images.png")),
        sheet=uri(inside(run_dir, "data_check/contact_sheet.png")),
        thumbnails={r["name"]: thumbnail(seen, r["name"]) for r in seen.check.get("remarks", [])},
        totals=totals(seen),
        advice=record.ours(seen.diagnosis.get("command", "")),
        command_line=record.ours(seen.parts[-1]["command"]) if seen.parts else "",
    )
    path = run_dir / "report.html"
    write_text(path, page)
    return path


def mark(finding: dict[str, Any]) -> dict[str, Any]:
    title = finding.get("title") or finding["name"]
    return {"x": finding["since_kimg"], "title": title, "resolved": finding["resolved"]}


def thumbnail(seen: Seen, remark: str) -> str:
    name = remark.replace(" ", "_")
    safe = name.replace("_", "").isalnum()
    return uri(inside(seen.folder, f"data_check/remark_{name}.png")) if safe else ""


def totals(seen: Seen) -> dict[str, Any]:
    """Images shown and minutes, over all parts of the run; None where it is not known."""
    minutes = [part["minutes"] for part in seen.parts if part["minutes"] is not None]
    counts = [part["nimg"] for part in seen.parts if part["nimg"] is not None]
    last = max((curve[-1][0] for curve in seen.curves.values()), default=None)
    return {"minutes": sum(minutes) or None, "images": max(counts, default=last)}
