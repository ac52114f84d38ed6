"""From records to a verdict: JSON, Markdown, a table, and the one command to run next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_lightning import files, record
from gan_lightning.config import assign, key_of
from gan_lightning.diagnosis import rules, words
from gan_lightning.diagnosis.findings import Finding, diagnose, preflight, status
from gan_lightning.diagnosis.history import RECORD, History, Thresholds
from gan_lightning.diagnosis.rules import LANGUAGES, RULES, SEVERITIES, common
from gan_lightning.diagnosis.settings import setting
from gan_lightning.errors import UserError
from gan_lightning.text import console as plain_console
from gan_lightning.text import continued

if TYPE_CHECKING:
    from rich.console import Console

Verdict = dict[str, Any]
SHOWN = 3  # findings named in the terminal: one cause has many symptoms, but is what is wanted
MOST = 4  # numbers beside a finding
GROUPS = ("loss", "augment", "network", "dataset", "experiment")
COLOURS = {"fatal": "red", "fault": "red", "warning": "yellow"}


def judge(
    h: History,
    thresholds: Mapping[str, Thresholds],
    language: str = "en",
    run_dir: str | Path = ".",
) -> Verdict:
    """{verdict, summary, command, checks_passed, checks_off, findings, ...}, plain types only.

    `verdict` is fatal, fault, warning, improving, healthy, unclear or too_early; findings that are
    resolved do not count.
    """
    findings = diagnose(h, thresholds)
    passed, off = status(h, findings, thresholds)
    active = [f for f in findings if not f.resolved]
    verdict = _in_one_word(h, active, common(thresholds))
    first = active[0] if active else None
    override, restart = (first.override, first.restart) if first else ("", "")
    if verdict in ("too_early", "unclear") and not override and h.facts.get("ended") and h.records:
        longer = RULES["stopped_early"]
        override, restart = longer.remedy(h.settings), longer.restart
    remarks = preflight(h.facts, thresholds) if h.facts else []
    title = RULES[first.name].words(language).title if first else ""
    last = h.records[-1] if h.records else {}
    return {
        "verdict": verdict,
        "summary": words.label(verdict, language, title=title),
        "command": command(h, override, restart, run_dir) if override else "",
        "checks_passed": passed,
        "checks_off": off,
        "findings": [f.as_dict(language) for f in findings],
        "remarks": [f.as_dict(language) for f in remarks if f.severity == "note"],
        "kimg": last.get("nimg", 0) / 1000,
        "language": language,
    }


def _in_one_word(h: History, active: list[Finding], t: Thresholds) -> str:
    verdict = min((f.severity for f in active), key=SEVERITIES.index, default="healthy")
    if verdict == "note":
        verdict = "improving" if any(f.name == "stopped_early" for f in active) else "healthy"
    if verdict in ("healthy", "improving") and h.early(t):
        return "too_early"
    poor = bool(h.full) and h["quality"][-1] > t["poor"]  # which is never called healthy
    return "unclear" if verdict == "healthy" and poor else verdict


# -- the command to run next ----------------------------------------------------------------------


def follow(overrides: list[str], override: str) -> list[str]:
    """The overrides with one more, in the place of the same key or of keys of its group."""
    key = key_of(override)
    replaced = ("optimizer_g.lr", "optimizer_d.lr") if key == "lr" else ()

    def stays(typed: str) -> bool:
        inside_group = key in GROUPS and typed.startswith(key + ".")
        return typed != key and typed not in replaced and not inside_group

    return [*(typed for typed in overrides if stays(key_of(typed))), override]


def again(typed: Sequence[str], *more: str) -> str:
    """The command of a run with these overrides, but for where it began, and with `more`."""
    overrides = [o for o in typed if not o.startswith(("retry.", "ckpt_path="))]
    for override in more:
        overrides = follow(overrides, override)
    return record.command(overrides)


def command(h: History, override: str, restart: str, run_dir: str | Path) -> str:
    """The command that runs the same again with `override`, from the checkpoint if that will do."""
    typed = setting(h.facts.get("config", {}), "overrides", [])
    last = assign("ckpt_path", Path(run_dir) / "checkpoints" / "last.ckpt")
    return again(typed, override, *([last] if restart == "checkpoint" else []))


# -- saying it ------------------------------------------------------------------------------------


def markdown(v: Verdict) -> str:
    """diagnosis.md."""

    def say(name: str) -> str:
        return words.label(name, v["language"])

    lines = [f"# {say('diagnosis')}", "", f"**{v['summary']}** ({v['kimg']:g} kimg)", ""]
    for f in v["findings"]:
        since = f"{say('since')} {f['since_kimg']:g} kimg"
        lines += [
            f"## {f['title']} `{f['name']}`{_resolved(v, f)}",
            "",
            f["why"],
            "",
            f"- {f['severity']}, {say('sure')} {f['confidence']:.0%}, {since}",
            f"- {say('evidence')}: {', '.join(_numbers(f))}",
            f"- {say('change')}: `{f['override']}`",
            "",
        ]
    if v["command"]:
        lines += [f"{say('next')}:", "", "```bash", continued(v["command"]), "```", ""]
    lines += [f"{say('passed')}: {', '.join(v['checks_passed']) or '-'}", ""]
    lines += [f"- {f['title']}. {f['why']} `{f['override']}`" for f in v["remarks"]]
    lines += [""] * bool(v["remarks"])
    if v["checks_off"]:
        lines += [f"{say('off')}: {', '.join(v['checks_off'])}", ""]
    return "\n".join(lines)


def _numbers(finding: dict[str, Any]) -> list[str]:
    return [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in finding["evidence"].items()
    ]


def show(
    v: Verdict, everything: bool = False, console: Console | None = None, hint: str = "all"
) -> None:
    """The verdict in the terminal: in words, the first finding's reason, and the command to run
    next.

    `everything`: all findings with their reasons, and the names of all checks. `hint`: the label
    that says where else these are.
    """
    from rich.text import Text

    console = console or plain_console()

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style))

    def label(name: str, **values: str) -> str:
        return words.label(name, v["language"], **values)

    say("")
    colour = COLOURS.get(v["verdict"], "green")
    say(f"{label('diagnosis')}: {v['summary']}", f"bold {colour}")
    ordered = sorted(v["findings"], key=lambda f: f["resolved"])
    full = [f for f in ordered if everything or not f["resolved"]]
    full = full if everything else full[:1]
    for number, f in enumerate(full):
        title = "" if not number and f["title"] in v["summary"] else _title(v, f) + ". "
        change = f" [{f['override']}]" if number and f["override"] else ""
        say(f"{title}{f['why']}{change}")
        say(f"  {_basis(v, f, everything)}", "dim")
    if rest := [f for f in ordered if f not in full]:
        titles = [_title(v, f) for f in rest[: SHOWN - 1]]
        titles += [f"+{len(rest) - len(titles)}"] * (len(rest) > len(titles))
        say(f"{label('more')}: {'; '.join(titles)}", "dim")
    checks = {name: v[f"checks_{name}"] for name in ("passed", "off") if v[f"checks_{name}"]}
    if everything:
        for name, found in checks.items():
            say(f"{label(name)}: {', '.join(found)}", "dim")
    elif checks:
        counts = (label(f"{name}_count", n=str(len(found))) for name, found in checks.items())
        say(f"{', '.join(counts)} ({label(hint)})", "dim")
    if v["command"]:
        say(f"{label('next')}:")
        console.print(Text(f"  {v['command']}", style="bold"), soft_wrap=True)


def _title(v: Verdict, f: dict[str, Any]) -> str:
    return f["title"].rstrip(".") + _resolved(v, f)


def _basis(v: Verdict, f: dict[str, Any], everything: bool) -> str:
    numbers = _numbers(f)[: None if everything else MOST]
    values = {"sure": f"{f['confidence']:.0%}", "kimg": f"{f['since_kimg']:.3g}"}
    basis = words.label("basis", v["language"], **values)
    return f"[{f['name']}] {basis}: {', '.join(numbers)}"


def _resolved(v: Verdict, f: dict[str, Any]) -> str:
    return f" ({words.label('resolved', v['language'])})" if f["resolved"] else ""


def write(v: Verdict, run_dir: str | Path) -> None:
    """diagnosis.json and diagnosis.md in the run folder, each replaced as a whole."""
    files.write_json(Path(run_dir) / "diagnosis.json", plain(v), indent=2)
    files.write_text(Path(run_dir) / "diagnosis.md", markdown(v))


def plain(value: Any) -> Any:
    """The same with NaN and infinity as null, so that every JSON reader takes it."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- gan-lightning diagnose -----------------------------------------------------------------------


def read(run_dir: str | Path) -> History:
    """A run's records from signals.jsonl, but for a last unfinished line. Raises UserError."""
    path = files.inside(run_dir, "signals.jsonl")
    if path is None:
        levels = "*/signals.jsonl", "*/*/signals.jsonl"
        below = sorted(path for level in levels for path in Path(run_dir).glob(level))
        right = "give the folder of a run that was started without diagnosis=off"
        if below:
            right = f"give one of the {len(below)} runs in it, as {below[0].parent}"
        raise UserError(f"{run_dir} holds no signals.jsonl: {right}")
    facts: dict[str, Any] = {}
    records: list[dict[str, Any]] = []
    for line in files.read_json_lines(path, (RECORD, {"kind": str, str: files.ANY})):
        if line["kind"] == "facts":
            facts |= line
        elif line["kind"] in ("light", "full") and {"nimg", "step"} <= line.keys():
            if records and records[-1]["step"] == line["step"]:
                records.pop()  # the look at the end says more about the same step
            records.append(line)
    config = files.inside(run_dir, "config.yaml")
    if config is not None:
        facts["config"] = files.read_yaml(config)
    return History(records, facts)


def diagnose_cli(
    run_dir: str, language: str | None = None, more: Sequence[str] = (), everything: bool = False
) -> int:
    """`gan-lightning diagnose RUN_DIR`: the verdict again from a run's records, on one that is
    going on too.

    `more`: modules with rules of one's own; those that the folder names are not imported. Writes
    nothing.
    """
    if language is not None:
        words.known(language)
    for module in more:
        rules.add_rules(module)
    h = read(run_dir)
    with files.untrusted(run_dir):
        thresholds = h.setting("diagnosis.thresholds") or h.facts.get("thresholds", {})
        files.match(thresholds, {str: {str: float}}, "diagnosis.thresholds")
        spoken = h.setting("diagnosis.language")
        spoken = spoken if spoken in LANGUAGES else "en"
        verdict = judge(h, thresholds, language or spoken, run_dir)
        left_out = [m for m in h.setting("diagnosis.rules", []) if m not in more]
    show(verdict, everything, hint="all_option")
    if left_out:
        plain_console().print(f"without the rules of {', '.join(map(str, left_out))}: see --rules")
    return 0
