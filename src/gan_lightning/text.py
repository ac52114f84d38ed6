"""Text of others on the terminal: it is shown, never obeyed."""

import re
import sys
from typing import Any


def printable(text: object) -> str:
    """In one line, with what a terminal would obey (as line ends) escaped."""

    def shown(letter: str) -> str:
        return letter.encode("unicode_escape", "surrogatepass").decode()

    return "".join(c if c.isprintable() else shown(c) for c in str(text))


def brief(value: object, most: int = 60) -> str:
    """A configuration's value as it would be typed, on one line of at most `most` letters."""
    text = printable(value) if not isinstance(value, int | list | tuple | dict) else ""
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, int):
        text = str(value) if abs(value) < 10**30 else "a number beyond counting"
    elif isinstance(value, float):
        if value.is_integer() and 1000 <= abs(value) < 1e15:
            text = str(int(value))
        elif float(f"{value:g}") == value:
            text = f"{value:g}"
    elif isinstance(value, dict):
        text = "{...}"
    elif isinstance(value, list | tuple):
        text = f"[{','.join(brief(item) for item in value)}]"
    return text if len(text) <= most else text[: most - 3] + "..."


def continued(command: str, width: int = 90) -> str:
    """A shell's command over several lines, where it is longer than one."""
    lines = [""]
    for word in re.findall(r"""(?:'[^']*'|"[^"]*"|\S)+""", command):
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return " \\\n  ".join(line for line in lines if line)


def tolerant_output() -> None:
    """Lets stdout and stderr escape the letters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def console(**settings: Any) -> Any:
    """rich's Console, which prints as `printable` does, not markup or control codes."""
    from rich.console import Console
    from rich.segment import Segment

    def shown(text: str) -> str:
        return "\n".join(map(printable, text.split("\n")))

    class Plain(Console):
        def render_str(self, text: str, **settings: Any) -> Any:  # before it is measured
            return super().render_str(shown(text), **settings)

        def render(self, *args: Any, **settings: Any) -> Any:  # what was styled by the caller
            for text, style, control in super().render(*args, **settings):
                yield Segment(text if control else shown(text), style, control)

    return Plain(**({"markup": False, "highlight": False} | settings))
