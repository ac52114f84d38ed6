"""Headings of the verdict, from labels.yaml."""

from pathlib import Path

from gan_lightning.diagnosis.rules import LANGUAGES, load
from gan_lightning.errors import UserError

LABELS: dict[str, dict[str, str]] = load(Path(__file__).parent / "labels.yaml")


def known(language: str) -> str:
    """The language, or UserError where there is none of that name."""
    if language not in LANGUAGES:
        there = ", ".join(LANGUAGES)
        raise UserError(f"diagnosis.language={language} is unknown; there are {there}")
    return language


def label(name: str, language: str = "en", **values: str) -> str:
    """A verdict or a heading."""
    return LABELS[name][language].format(**values)
