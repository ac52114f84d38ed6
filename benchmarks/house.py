"""How large the house is, against its limits: `python -m benchmarks.house` ends with 1 where one is exceeded.

Limits follow what has been reached; the aims stand beside them.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src"
LIMITS = {  # (not to be exceeded, aimed at)
    "lines of Python": (14_450, 4_500),
    "average line": (42.0, 42.0),
    "longest function": (60, 60),
    "longest file": (400, 400),
}


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """(lines, where) of every function, with its decorators' and docstring's lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.end_lineno - node.lineno + 1, f"{path.relative_to(ROOT)}: {node.name}"


def measured() -> dict[str, tuple[float, str]]:
    """What stands in LIMITS, and where it is."""
    texts = {path: path.read_text() for path in sorted(ROOT.rglob("*.py"))}
    lines = {path: len(text.splitlines()) for path, text in texts.items()}
    file = max(lines, key=lambda path: lines[path])
    function = max(found for path in texts for found in functions(path))
    return {
        "lines of Python": (sum(lines.values()), f"{len(lines)} files"),
        "average line": (sum(map(len, texts.values())) / sum(lines.values()) - 1, ""),
        "longest function": function,
        "longest file": (lines[file], str(file.relative_to(ROOT))),
    }


def main() -> int:
    exceeded = 0
    for name, (value, where) in measured().items():
        limit, aim = LIMITS[name]
        exceeded += value > limit
        print(f"{name}: {value:,.5g} (limit {limit:,.5g}, aim {aim:,.5g}) {where}")
    return int(exceeded > 0)


if __name__ == "__main__":
    sys.exit(main())
