"""One self-contained page per run, and one that compares several; nothing on them is fetched."""

from gan_lightning.report.compare import write_comparison
from gan_lightning.report.page import write_report

__all__ = ["write_comparison", "write_report"]
