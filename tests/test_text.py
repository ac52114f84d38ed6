"""Text of others is shown and not obeyed, in any encoding, and what is printed to be typed can be typed."""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import compose
from PIL import Image

from gan_lightning.cli import main
from gan_lightning.config import assign
from gan_lightning.text import brief, console, continued, printable, tolerant_output

EVIL = "a\x1b[31m\x1b]0;owned\x07 [red]b[/red]\r\n\u202eg\x9b\udcff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/photos/egg 1.png", "/photos/egg 1.png"),
        ("사진é😀", "사진é😀"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x07\x08\x7f\x9b", "\\x07\\x08\\x7f\\x9b"),
        ("gpj.\u202e\u2066x", "gpj.\\u202e\\u2066x"),
        ("\u2028\u200b", "\\u2028\\u200b"),
        ("\udcff", "\\udcff"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"), (True, "true"), (0.1, "0.1"), (1e-4, "0.0001"), (0.123456789, "0.123456789"), (1e9, "1000000000"),
        (float("nan"), "nan"), (float("inf"), "inf"), ([64, 64], "[64,64]"), ({"a": 1}, "{...}"), (10**400, "a number beyond counting"),
        ("x" * 100, "x" * 57 + "..."), ("a\x1bb", "a\\x1bb"),
    ],
)  # fmt: skip
def test_brief(value, shown):
    assert brief(value) == shown


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_console_obeys_nothing_but_the_program(encoding):
    from rich.table import Table
    from rich.text import Text

    file = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace", newline="")
    terminal = console(file=file, force_terminal=True, width=200)
    table = Table("name", title=EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL, style="bold"))
    for thing in (EVIL, table, Text(EVIL)):
        terminal.print(thing)
    file.flush()
    said = file.buffer.getvalue().decode(encoding)
    assert said.count("[red]b[/red]") == 5
    own = re.sub(r"\x1b\[[\d;]*m", "", said)  # the styles are the program's
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", own)
    assert "\x1b[31m" not in said


def photographs(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in names:
        pixels = np.kron(draw.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name, format="PNG")


def test_names_of_files_are_shown_by_the_check(tmp_path, monkeypatch, capsys):
    name = EVIL.replace("/", "|")  # the one letter that no file's name can hold
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / name, [f"{k}{name}" for k in range(12)])
    (tmp_path / name / f"bad{name}").write_text("no image")
    assert main(["check", name, "--out", "out", "--cache-dir", "cache"]) == 0
    said = "".join(capsys.readouterr())
    assert printable(f"bad{name}") in said and not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said
    )
    assert main(["check", f"{name}/none"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and printable(name) in said


@pytest.mark.parametrize(
    "path",
    [
        "logs/egg/x",
        "/my (photos)/a b",
        "run [a] 'b' \"c\"",
        "/a,b=c",
        "/사진/${x}",
        "~/x;rm -rf $(y)",
    ],
)
def test_printed_commands_can_be_typed(path):
    """What the shell makes of a printed override is one word, and Hydra reads the path from it."""
    (word,) = shlex.split(shlex.join([assign("ckpt_path", path)]))
    from omegaconf import OmegaConf

    assert OmegaConf.to_container(compose(word))["ckpt_path"] in (path, path.replace("${", "\\${"))


@pytest.mark.parametrize("width", [1, 30, 60, 1000])
def test_a_long_command_over_several_lines_is_the_same_to_a_shell(width):
    words = ["python", "train.py", "dataset.root=/my photos/it's", "x=[1, 2]", "ckpt_path=logs/a/last.ckpt"]  # fmt: skip
    text = continued(shlex.join(words), width)
    said = subprocess.run(["sh", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True)
    assert said.stdout.splitlines() == words
    lines = text.split(" \\\n  ")
    assert len(lines) == {1: 5, 30: 4, 60: 2, 1000: 1}[width]
    assert all(len(line) <= max(width, *(len(shlex.quote(word)) for word in words)) for line in lines)  # fmt: skip


def test_letters_that_an_encoding_lacks_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    tolerant_output()
    print("사진", flush=True)
    assert stream.buffer.getvalue() == b"\\uc0ac\\uc9c4\n"


def test_another_encoding_ends_nothing(tmp_path):
    photographs(tmp_path / "사진", [f"알{k}.png" for k in range(12)])
    command = [sys.executable, "-m", "gan_lightning", "check", "사진"]
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=120)
    assert out.returncode == 0, out.stderr
    assert b"\\uc0ac\\uc9c4" in out.stdout or b"\\udcec" in out.stdout  # the name, or its bytes
