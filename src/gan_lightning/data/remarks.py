"""What the data check has to say: remarks and their report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gan_lightning import pictures
from gan_lightning.files import write_json
from gan_lightning.text import printable


@dataclass
class Remark:
    """What is the matter, the one thing to do, and the files it concerns: alone, or in groups."""

    name: str
    text: str
    action: str  # an override, or what to do with which files
    numbers: dict[str, float]
    files: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = {key: round(float(value), 4) for key, value in self.numbers.items()}


@dataclass
class CheckReport:
    """What the images are (`counts`), what is the matter (`remarks`), and which files are none."""

    name: str
    counts: dict[str, str] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)  # file: reason
    thumbnails: dict[str, Tensor] = field(default_factory=dict)  # of a remark's files, (C, H, W)

    def lines(self) -> list[str]:
        """The remarks, a line each."""
        return [f"{remark.name}: {remark.text} -> {remark.action}" for remark in self.remarks]

    def table(self) -> Any:
        """For the terminal, a rich renderable."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(plain(self.name)), show_header=False, title_justify="left")
        for name, text in self.counts.items():
            table.add_row(name, Text(text))
        return Group(table, *(Text(line) for line in self.lines() or ["nothing to remark"]))

    def write(self, folder: Path, sheet: Tensor | None = None) -> None:
        """check.json, remark_NAME.png with its files, and the `sheet` as contact_sheet.png."""
        told = asdict(replace(self, thumbnails={}))
        del told["thumbnails"]
        write_json(folder / "check.json", told)
        for name, picture in self.thumbnails.items():
            pictures.save(picture, folder / f"remark_{name.replace(' ', '_')}.png")
        if sheet is not None:
            pictures.save(sheet, folder / "contact_sheet.png")


def plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # file names need not be text


def shown(names: Sequence[str]) -> str:
    """Some of the names, as they can be shown in a terminal."""
    more = f" and {len(names) - 5} more (all in check.json)" if len(names) > 5 else ""
    return ", ".join(map(printable, names[:5])) + more
