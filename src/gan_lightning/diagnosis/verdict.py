"""From records to a verdict: JSON, Markdown, a table in the terminal, and the one command to run next."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_lightning.config import assign, key_of
from gan_lightning.diagnosis import words
from gan_lightning.diagnosis.preflight import preflight
from gan_lightning.diagnosis.rules import (
    RECORD,
    SEVERITIES,
    History,
    Thresholds,
    diagnose,
    longer,
    setting,
    status,
)
from gan_lightning.errors import UserError
from gan_lightning.files import (
    ANY,
    inside,
    match,
    read_json_lines,
    read_yaml,
    untrusted,
    write_json,
    write_text,
)
from gan_lightning.text import console as plain_console

if TYPE_CHECKING:
    from rich.console import Console

Verdict = dict[str, Any]
SHOWN = 3  # findings in the terminal: one cause has many symptoms, and a student wants the cause


def follow(overrides: list[str], override: str) -> list[str]:
    """The command line's overrides with `override` in the place of what it replaces: the same key, or keys of the same group."""
    key = key_of(override)
    group = "." not in key and key in ("loss", "augment", "network", "dataset", "experiment")
    kept = [
        o
        for o in overrides
        if (k := key_of(o)) != key
        and not (group and k.startswith(key + "."))
        and not (key == "lr" and k in ("optimizer_g.lr", "optimizer_d.lr"))
    ]
    return [*kept, override]


def judge(
    h: History, thresholds: dict[str, Thresholds], language: str = "en", run_dir: str | Path = "."
) -> Verdict:
    """{verdict, summary, command, checks_passed, checks_off, findings, ...}, plain types only.

    `verdict` is fatal, fault, warning, improving, healthy or too_early; findings that have gone again do not count.
    """
    findings = diagnose(h, thresholds)
    passed, off = status(h, findings, thresholds)
    active = [f for f in findings if not f.resolved]
    verdict = min((f.severity for f in active), key=SEVERITIES.index, default="healthy")
    if verdict == "note":
        verdict = "improving" if any(f.name == "stopped_early" for f in active) else "healthy"
    steps = thresholds.get("common", {}).get("steps", 0)
    early = len(h.full) < 3 or h.full[-1]["step"] < steps
    # poor pictures are never called healthy: where no rule is sure of a cause yet, more steps will tell
    poor = bool(h.full) and h["quality"][-1] > thresholds.get("common", {}).get("poor", math.inf)
    if (verdict in ("healthy", "improving") and early) or (verdict == "healthy" and poor):
        verdict = "too_early"
    first = active[0] if active else None
    override, restart = (first.override, first.restart) if first else ("", "")
    if verdict == "too_early" and not override and h.facts.get("ended") and h.records:
        override, restart = longer(h), "checkpoint"
    last = h.records[-1] if h.records else {}
    return {
        "verdict": verdict,
        "summary": words.label(
            verdict, language, title=words.title(first.name, language) if first else ""
        ),
        "command": command(h, override, restart, run_dir) if override else "",
        "checks_passed": passed,
        "checks_off": off,
        "findings": [f.as_dict(language) for f in findings],
        "remarks": [
            f.as_dict(language) for f in preflight(h.facts, thresholds) if f.severity == "note"
        ]
        if h.facts
        else [],
        "kimg": last.get("nimg", 0) / 1000,
        "steps": last.get("step", 0),
        "share_of_time": last.get("share"),
        "language": language,
    }


def command(h: History, override: str, restart: str, run_dir: str | Path) -> str:
    """The literal command line that runs the same again with `override`, going on from the last checkpoint where that is enough."""
    typed = setting(h.facts.get("config", {}), "overrides", [])
    overrides = follow([o for o in typed if not o.startswith(("retry.", "ckpt_path="))], override)
    if restart == "checkpoint":
        overrides = follow(
            overrides, assign("ckpt_path", Path(run_dir) / "checkpoints" / "last.ckpt")
        )
    return shlex.join(["python", "train.py", *overrides])


def markdown(v: Verdict) -> str:
    """diagnosis.md."""

    def say(name: str) -> str:
        return words.label(name, v["language"])

    lines = [f"# {say('diagnosis')}", "", f"**{v['summary']}** ({v['kimg']:g} kimg)", ""]
    for f in v["findings"]:
        gone = f" ({say('gone')})" if f["resolved"] else ""
        lines += [f"## {f['title']} `{f['name']}`{gone}", "", f["why"], ""]
        lines += [f"- {f['severity']}, {say('sure')} {f['confidence']:.0%}, {say('since')} {f['since_kimg']:g} kimg",
                  f"- {say('evidence')}: {_numbers(f)}", f"- {say('change')}: `{f['override']}`", ""]  # fmt: skip
    lines += [f"{say('passed')}: {', '.join(v['checks_passed']) or '-'}", ""]
    lines += [f"- {f['title']}. {f['why']} `{f['override']}`" for f in v["remarks"]] + [""] * bool(
        v["remarks"]
    )
    if v["checks_off"]:
        lines += [f"{say('off')}: {', '.join(v['checks_off'])}", ""]
    if v["command"]:
        lines += [f"{say('next')}:", "", "```bash", v["command"], "```", ""]
    return "\n".join(lines)


def _numbers(finding: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in finding["evidence"].items()
    )


def show(v: Verdict, console: Console | None = None) -> None:
    """The verdict in the terminal: the findings, the checks that passed, the command to run next."""
    from rich.table import Table
    from rich.text import Text

    console = console or plain_console()

    def say(name: str) -> str:
        return words.label(name, v["language"])

    colour = {"fatal": "red", "fault": "red", "warning": "yellow"}
    console.print(
        Text(
            f"\n{say('diagnosis')}: {v['summary']}",
            style=f"bold {colour.get(v['verdict'], 'green')}",
        )
    )
    if v["findings"]:
        table = Table(show_lines=True)
        for column in ("finding", "sure", "since", "evidence", "change"):
            table.add_column(say(column), overflow="fold")
        for f in v["findings"][:SHOWN]:
            gone = f" ({say('gone')})" if f["resolved"] else ""
            what = Text(
                f["title"],
                style="dim" if f["resolved"] else f"bold {colour.get(f['severity'], '')}".strip(),
            )
            table.add_row(what.append(f" [{f['name']}]{gone}\n{f['why']}", style="not bold default"), f"{f['confidence']:.0%}",
                          f"{f['since_kimg']:.3g} kimg", Text(_numbers(f).replace(", ", "\n")), Text(f["override"]))  # fmt: skip
        console.print(table)
    if rest := v["findings"][SHOWN:]:
        console.print(Text(f"{say('more')}: {', '.join(f['name'] for f in rest)}", style="dim"))
    if v["checks_passed"]:
        console.print(Text(f"{say('passed')}: {', '.join(v['checks_passed'])}"))
    if v["checks_off"]:
        console.print(Text(f"{say('off')}: {', '.join(v['checks_off'])}", style="dim"))
    if v["command"]:
        console.print(Text(f"{say('next')}:"))
        console.print(Text(f"  {v['command']}", style="bold"), soft_wrap=True)


def write(v: Verdict, run_dir: str | Path) -> None:
    """diagnosis.json and diagnosis.md in the run folder, each replaced as a whole."""
    write_json(Path(run_dir) / "diagnosis.json", plain(v), indent=2)
    write_text(Path(run_dir) / "diagnosis.md", markdown(v))


def plain(value: Any) -> Any:
    """The same with NaN and infinity as null, so that every JSON reader takes it."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(run_dir: str | Path) -> History:
    """A run's records from signals.jsonl; a last line that is still being written is left out. Raises UserError."""
    path = inside(run_dir, "signals.jsonl")
    if path is None:
        raise UserError(
            f"{run_dir} holds no signals.jsonl: it should be the folder of a run that was started without diagnosis=off"
        )
    facts: dict[str, Any] = {}
    records: list[dict[str, Any]] = []
    for record in read_json_lines(path, (RECORD, {"kind": str, str: ANY})):
        if record["kind"] == "facts":
            facts |= record
        elif (
            record["kind"] in ("light", "full") and {"nimg", "step"} <= record.keys()
        ):  # others are for people and plots
            if records and records[-1]["step"] == record["step"]:
                records.pop()  # the look at the end says more about the same step
            records.append(record)
    config = inside(run_dir, "config.yaml")
    if config is not None:
        facts["config"] = read_yaml(config)
    return History(records, facts)


def diagnose_cli(run_dir: str, language: str | None = None) -> int:
    """`gan-lightning diagnose RUN_DIR`: the verdict again from a run's records, on a run that is going on too. Writes nothing."""
    if language not in (None, *words.LANGUAGES):
        raise UserError(f"language={language} is unknown; there are {', '.join(words.LANGUAGES)}")
    h = read(run_dir)
    with untrusted(run_dir):
        thresholds = h.setting("diagnosis.thresholds") or h.facts.get("thresholds")
        if not thresholds:
            raise UserError(
                f"{run_dir}/config.yaml holds no diagnosis.thresholds: it should be the configuration that the run wrote"
            )
        match(thresholds, {str: {str: float}}, "diagnosis.thresholds")
        spoken = h.setting("diagnosis.language")
        verdict = judge(
            h, thresholds, language or (spoken if spoken in words.LANGUAGES else "en"), run_dir
        )
    show(verdict)
    return 0
