"""Lightning's loggers, with curves that stay when a run goes on in its folder, and errors that name the file."""

import csv
import io
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from gan_lightning.files import append_text, naming, write_text


def go_on(loggers: Iterable[Logger], nimg: int | None) -> None:
    """Tells the loggers after how many images this part of the run begins; None: there is no earlier part."""
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.begin(nimg)


class _Rows(ExperimentWriter):
    """Adds to the rows that are there (folder.py has left those that count); a link is not written through."""

    def _check_log_dir_exists(self) -> None:
        self.metrics_keys = self._there()[0]

    def _there(self) -> tuple[list[str], list[dict[str, Any]]]:
        if not os.path.isfile(self.metrics_file_path):
            return [], []
        with open(self.metrics_file_path, newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or []), list(reader)

    def save(self) -> None:
        """Writes what has been logged since the last time."""
        if not self.metrics:
            return
        text = io.StringIO(newline="")
        new = self._record_new_keys()  # with which all rows are written again
        writer = csv.DictWriter(text, self.metrics_keys, lineterminator="\n")
        if new:
            writer.writeheader()
            writer.writerows(self._there()[1])
        writer.writerows(self.metrics)
        write = write_text if new else append_text
        write(self.metrics_file_path, text.getvalue())
        self.metrics = []


class CSV(CSVLogger):
    """csv/metrics.csv."""

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _Rows(log_dir=self.log_dir)
        return self._experiment


class TensorBoard(TensorBoardLogger):
    """tensorboard/events…, with errors that name the folder."""

    def begin(self, nimg: int | None) -> None:
        """What earlier files in the folder hold of later steps is not shown; without an earlier part all of it is not."""
        if os.path.isdir(self.log_dir) and os.listdir(self.log_dir):
            self._kwargs["purge_step"] = 0 if nimg is None else nimg + 1
        threading.excepthook = _quiet(threading.excepthook, self.log_dir)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with naming(self.log_dir):
            super().log_metrics(metrics, step)

    def save(self) -> None:
        """Without Lightning's hparams.yaml: the run's config.yaml holds all of it."""
        with naming(self.log_dir):
            self.experiment.flush()

    def finalize(self, status: str) -> None:
        with naming(self.log_dir):
            super().finalize(status)


def _quiet(before: Any, folder: str) -> Any:
    """TensorBoard writes in a thread; an error of the disk there comes up in the next call, named, and needs no trace."""

    def hook(args: Any) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            before(args)
        elif isinstance(args.exc_value, OSError) and args.exc_value.filename is None:
            args.exc_value.filename = folder

    return hook
