"""Lightning's loggers, with curves that stay when a run goes on, and errors that name the file."""

import csv
import io
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from gan_lightning import pictures
from gan_lightning.boards import GROUPS, Board
from gan_lightning.files import append_text, naming, write_text
from gan_lightning.places import needs

AXES = 32  # of the projector's features: it turns them into 3 in any case


class _Rows(ExperimentWriter):
    """Adds to the rows that folder.py has left; a link is not written through."""

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
        writer = csv.DictWriter(text, self.metrics_keys, lineterminator="\n", extrasaction="ignore")
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


# -- TensorBoard ---------------------------------------------------------------------------


class TensorBoard(Board, TensorBoardLogger):
    """tensorboard/events…, with errors that name the folder."""

    def go_on(self, nimg: int | None) -> None:
        """What earlier files hold of later steps, or of another run, is not shown."""
        if os.path.isdir(self.log_dir) and os.listdir(self.log_dir):
            self._kwargs["purge_step"] = 0 if nimg is None else nimg + 1
        threading.excepthook = _quiet(threading.excepthook, self.log_dir)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with naming(self.log_dir):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def show_settings(self, settings: Mapping[str, Any]) -> None:
        """The tab HParams; which settings differ TensorBoard finds out itself."""
        from torch.utils.tensorboard.summary import hparams

        flat = {name: str(x) if isinstance(x, bool) else x for name, x in settings.items()}
        _, start, end = hparams(flat, {})
        with naming(self.log_dir):
            for summary in (start, end):
                self.experiment.file_writer.add_summary(summary)
            self.experiment.add_custom_scalars(LAYOUT)

    def show_picture(self, name: str, picture: Tensor, nimg: int) -> None:
        self.experiment.add_image(name, picture, nimg)

    def show_text(self, name: str, text: str, nimg: int) -> None:
        self.experiment.add_text(name, text, nimg)

    def show_samples(self, features: Tensor, images: Tensor, kinds: Sequence[str]) -> None:
        """The tab Projector: points with thumbnails of at most 64 pixels."""
        folder = Path(self.log_dir) / "projector"
        x = features.float() - features.float().mean(0)
        _, _, axes = torch.pca_lowrank(x, min(AXES, *x.shape), center=False)
        rows = ("\t".join(f"{value:.4g}" for value in row) for row in (x @ axes).tolist())
        side = min(64, max(images.shape[2:]))
        small = torch.nn.functional.interpolate(images.float(), (side, side), mode="area")
        columns = math.ceil(len(images) ** 0.5)
        sprite = pictures.grid(small.round().to(torch.uint8), columns, margin=0)
        write_text(folder / "points.tsv", "\n".join(rows) + "\n")
        write_text(folder / "kinds.tsv", "\n".join(kinds) + "\n")
        pictures.save(sprite, folder / "sprite.png")
        write_text(Path(self.log_dir) / "projector_config.pbtxt", PROJECTOR.format(side=side))

    def save(self) -> None:
        """Without Lightning's hparams.yaml: the run's config.yaml holds all of it."""
        with naming(self.log_dir):
            self.experiment.flush()

    def finalize(self, status: str) -> None:
        with naming(self.log_dir):
            super().finalize(status)


PROJECTOR = """embeddings {{
  tensor_name: "real and generated"
  tensor_path: "projector/points.tsv"
  metadata_path: "projector/kinds.tsv"
  sprite {{ image_path: "projector/sprite.png" single_image_dim: {side} single_image_dim: {side} }}
}}
"""


def _together(group: str, *names: str) -> list[Any]:
    return ["Multiline", [f"{GROUPS[group]}/{name}" for name in names]]


LAYOUT = {  # the tab Custom Scalars: what belongs together, in one chart
    "at a glance": {
        "score above real images' (0 is best)": [
            "Multiline",
            [f"{GROUPS['metric']}/above_real_.*"],
        ],
        "losses": _together("loss", "d", "g"),
        "discriminator's mean logit": _together("score", "real", "fake"),
        "gradient norm": _together("grad_norm", "d", "g"),
    }
}


def _quiet(before: Any, folder: str) -> Any:
    """TensorBoard writes in a thread: a disk's error comes up in the next call, as a line."""

    def hook(args: Any) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            before(args)
        elif isinstance(args.exc_value, OSError) and args.exc_value.filename is None:
            args.exc_value.filename = folder

    return hook


# -- other trackers ------------------------------------------------------------------------


class Wandb(Board, WandbLogger):
    """Weights & Biases, by Lightning's logger. Nothing leaves the machine with `offline`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        needs("logger=wandb", "wandb", "wandb")
        super().__init__(*args, **settings)

    def show_picture(self, name: str, picture: Tensor, nimg: int) -> None:
        self.log_image(name, [pictures.to_image(picture)], step=None, caption=[f"{nimg:,} images"])

    def show_text(self, name: str, text: str, nimg: int) -> None:
        import wandb

        self.experiment.summary[name] = text
        self.experiment.log({f"text/{name}": wandb.Html(f"<pre>{_escaped(text)}</pre>")})

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)


class MLflow(Board, MLFlowLogger):
    """MLflow, by Lightning's logger."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        needs("logger=mlflow", "mlflow", "mlflow")
        super().__init__(*args, **settings)

    def show_picture(self, name: str, picture: Tensor, nimg: int) -> None:
        image = pictures.to_image(picture)
        self.experiment.log_image(self.run_id, image, key=_plain(name), step=nimg)

    def show_text(self, name: str, text: str, nimg: int) -> None:
        self.experiment.log_text(self.run_id, text, f"{_plain(name)}.md")


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name)


class Trackio(Board, Logger):
    """Trackio, which keeps runs on this machine: `trackio show`."""

    def __init__(self, project: str = "gan-lightning", run_name: str | None = None) -> None:
        needs("logger=trackio", "trackio", "trackio")
        super().__init__()
        self.project, self.run_name = project, run_name
        self.settings: dict[str, Any] = {}
        self._run: Any = None

    name = property(lambda self: self.project)
    version = property(lambda self: self.run_name)

    @property
    def experiment(self) -> Any:
        """The run, begun when something is first logged."""
        import trackio

        if self._run is None:
            self._run = trackio.init(self.project, self.run_name, config=self.settings)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.settings |= dict(params)

    @rank_zero_only
    def _log(self, values: Mapping[str, Any], step: int | None) -> None:
        self.experiment.log(dict(values), step=step)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for nimg, values in self.draw(metrics, step):
            self._log(values, nimg)

    def show_picture(self, name: str, picture: Tensor, nimg: int) -> None:
        import trackio

        self._log({name: trackio.Image(pictures.to_image(picture))}, nimg)

    def show_text(self, name: str, text: str, nimg: int) -> None:
        import trackio

        self._log({name: trackio.Markdown(text)}, nimg)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None
