"""What the pages say can be typed, found and built: commands, links, quotations, and both READMEs in step."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(PAGES)}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)")
EXTRA = ("hydra/launcher=cluster", "sweep=search")  # need packages that may not be there


def blocks(text: str, language: str) -> list[str]:
    return [code for kind, code in FENCED.findall(text) if kind == language]


def commands(start: str) -> list[str]:
    """Every command line of all pages behind the words it starts with, comments left out."""
    lines = [
        line
        for text in TEXTS.values()
        for code in blocks(text, "bash")
        for line in code.splitlines()
    ]
    found = [re.search(rf"(?:^|\s){re.escape(start)}(?:\s+(.*))?$", line) for line in lines]
    return sorted(
        {shlex.join(shlex.split(match[1] or "", comments=True)) for match in found if match}
    )


def single(override: str) -> str:
    """One value of those that a sweep lists."""
    return override if re.search(r"[(\[{]", override) else override.partition(",")[0]


@pytest.mark.parametrize("line", commands("train.py") or commands("python train.py"))
def test_every_training_command_composes(line):
    from gan_lightning.config import key_of
    from gan_lightning.schema import validate

    overrides = [single(word) for word in shlex.split(line) if word != "-m"]
    overrides = [one for one in overrides if not one.startswith((*EXTRA, "hydra.launcher"))]
    if overrides == ["--help"]:
        return
    cfg = compose(*overrides)
    HydraConfig.instance().set_config(cfg)
    plain = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    if not re.search(r"[= ]my\.", line):  # a class of the reader's
        validate(plain, tuple(map(key_of, overrides)))


@pytest.mark.parametrize("line", commands("gan-lightning"))
def test_every_other_command_has_its_options(line, tmp_path):
    from typer.main import get_command

    from gan_lightning.cli import app

    name, *words = shlex.split(line)
    get_command(app).commands[name].make_context(name, words)  # raises for what it does not know


def test_make_has_what_the_pages_name():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = {line.split()[0] for line in commands("make")}
    assert named and named <= targets, named - targets


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-") for words in headings}
    return slugs | set(re.findall(r'<a id="([^"]*)"', text))


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(FENCED.sub("", TEXTS[page])):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        assert path.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(path.read_text()), f"{page}: {target}#{anchor}"


def test_every_page_can_be_reached_from_the_readme_and_stands_in_the_site():
    site = (ROOT / "mkdocs.yml").read_text()
    linked = TEXTS["README.md"] + TEXTS["docs/index.md"] + TEXTS["README.ko.md"]
    for page in (path.name for path in (ROOT / "docs").glob("*.md")):
        assert f": {page}\n" in site, page
        assert page in linked or page == "index.md", page


# -- the two READMEs -----------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) < 150
    assert len(TEXTS["README.ko.md"].splitlines()) < 150


def outline(text: str) -> dict[str, list[str]]:
    """What both languages have in common: heading levels, commands, pictures, links, rows' numbers."""
    code = [
        re.sub(r"\s*#.*", "", line) for one in blocks(text, "bash") for line in one.splitlines()
    ]
    prose = FENCED.sub("", text)
    links = [target.replace(".ko.md", ".md") for target, _ in LINK.findall(prose)]
    rows = [
        " ".join(re.findall(r"\d[\d.]*|`[^`]*`", row)) for row in re.findall(r"^\|.*", prose, re.M)
    ]
    return {
        "headings": re.findall(r"^#+(?= )", prose, re.M),
        "commands": code,
        "links": links,
        "rows": rows,
    }


def test_the_korean_readme_is_in_step():
    english, korean = outline(TEXTS["README.md"]), outline(TEXTS["README.ko.md"])
    for part, there in english.items():
        assert korean[part] == there, part
    assert len(english["headings"]) > 5 and len(english["commands"]) > 10


def test_scores_in_the_readme_stand_among_the_measured_ones():
    measured = re.findall(r"[\d,]*\.?\d+", (ROOT / "benchmarks" / "RECIPES.md").read_text())
    measured = {float(number.replace(",", "")) for number in measured}
    table = TEXTS["README.md"].partition("## Recipes")[2].partition("\n##")[0]
    rows = [row.split("|")[3:-1] for row in re.findall(r"^\| [`].*", table, re.M)]
    assert len(rows) >= 4
    for row in rows:
        assert {float(number) for number in row[-2:]} <= measured, row


# -- pages that are made from something else -----------------------------------------------


def test_the_curves_page_is_up_to_date():
    from benchmarks.curves import FIGURES, PAGE, PICTURES, figures, page

    assert PAGE.read_text() == page(PAGE.read_text()), "python -m benchmarks.curves --draw"
    assert FIGURES.is_file()
    for name in figures():
        assert (PICTURES / f"{name}.png").is_file()
        assert f"<!-- {name} -->" in PAGE.read_text()


def test_the_table_of_scores_is_up_to_date():
    from benchmarks.ranking import PAGE, page

    assert PAGE.read_text() == page(PAGE.read_text())


def test_the_note_quotes_the_source_as_it_is():
    """Each block under a path holds lines of that file, in their order and without their margin."""
    quoted = 0
    for code in [part for _, part in FENCED.findall(TEXTS["docs/note.md"])]:
        first, *lines = code.splitlines()
        named = re.fullmatch(r"# ((?:src|conf)/\S+)", first)
        if named:
            rest = map(str.strip, (ROOT / named[1]).read_text().splitlines())
            assert all(line in rest for line in lines), f"{named[1]}: {lines}"
            quoted += len(lines)
    assert quoted > 15


def test_tests_that_pages_name_exist():
    there = {
        match
        for path in Path(__file__).parent.glob("test_*.py")
        for match in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = {name for text in TEXTS.values() for name in re.findall(r"`(test_\w+)`", text)}
    assert named and named <= there, named - there
