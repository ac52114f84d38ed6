"""What `mkdocs build` needs beside docs/: the pages that lie elsewhere, and links that hold there."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = [
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"benchmarks/{p.name}" for p in (ROOT / "benchmarks").glob("*.md")),
]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages outside docs/ under their own paths."""
    for name in PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    """Links between pages, wherever they lie; one into the source becomes its words alone."""
    place = page.file.src_uri
    home = dirname(place if place in PAGES else join("docs", place))

    def moved(found: re.Match[str]) -> str:
        words, target, anchor = found[1], normpath(join(home, found[2])), found[3] or ""
        target = target.removeprefix("docs/")
        if files.get_file_from_path(target) is None:
            return words if target.startswith(("src/", "tests/", "conf/")) else found[0]
        return f"[{words}]({relpath(target, dirname(place) or '.')}{anchor})"

    return LINK.sub(moved, markdown)
