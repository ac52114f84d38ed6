"""What people see of a run on a board, as TensorBoard: which panes, in which order, under which
names.

A leaf, quick to import; the loggers themselves are in loggers.py. The CSV file has every value
under its own key.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from gan_lightning.config import key_of, lookup

PICTURES = "1 pictures"  # boards sort groups by name: what matters comes first
GROUPS = {
    "metric": "2 scores",
    "loss": "3 losses",
    "penalty": "3 losses",
    "score": "4 discriminator",  # its mean logits
    "grad_norm": "5 gradients",
    "diagnosis": "6 findings",
    "lr": "7 settings that move",
    "augment": "7 settings that move",
    "signal": "8 signals",
}
STILL = "678"  # groups in which a value that never changes is no pane
# said elsewhere: the axis itself, and what a record of the diagnosis repeats
TWICE = r"progress/.*|signal/(time_fraction|lr_fraction|(loss|penalty|grad_norm|update_ratio)_.*|score_(real|fake))|metric/.*_floor"

MATTER = (  # settings in the table of runs, beside what was typed
    "lr latent_dim n_critic dataset.batch_size dataset.image_size network.generator.channels"
    " loss.gamma augment.p ema.halflife_kimg total_kimg seed"
).split()
UNSAID = r"\+*(hydra|retry|ckpt_path|sweep)"
CHOICES = "experiment dataset network loss augment aid".split()


def panes(values: Mapping[str, float]) -> dict[str, float]:
    """Values by the name of their pane, those that would be seen twice left out.

    Scores go without their number of images, so that one run has one curve; a Fréchet distance,
    which depends on that number, is drawn as what it is above real images' with the same number.
    """
    found = {}
    for key, value in values.items():
        group, _, name = key.partition("/")
        if re.fullmatch(TWICE, key):
            continue
        if group == "metric":
            floor = values.get(f"{key}_floor")
            name = re.sub(r"_\d+k?$", "", name)
            if floor is not None and name.startswith(("frechet", "fid")):
                name, value = f"above_real_{name}", value - floor  # the first of its group
        if group in ("lr", "augment"):  # which share a pane's group
            name = f"{group}_{name}"
        found[f"{GROUPS[group]}/{name}" if group in GROUPS else key] = value
    return found


class Moving:
    """Holds back what has not changed yet; its first value comes with the first that differs."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[int, float]] = {}
        self.shown: set[str] = set()

    def __call__(
        self, values: Mapping[str, float], nimg: int
    ) -> list[tuple[int, dict[str, float]]]:
        """(images shown, values) to draw, in order."""
        moments: dict[int, dict[str, float]] = {}
        for name, value in values.items():
            if name[0] in STILL and name not in self.shown:
                at_rest = 0.0 if name.startswith(GROUPS["diagnosis"]) else value
                began, first = self.first.setdefault(name, (nimg, at_rest))
                if value == first:
                    continue
                self.shown.add(name)
                if began != nimg:
                    moments.setdefault(began, {})[name] = first
            moments.setdefault(nimg, {})[name] = value
        return sorted(moments.items())


class Board:
    """Before a Lightning logger among the bases: a logger that people look at. Text is Markdown."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.moving = Moving()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for nimg, values in self.draw(metrics, step):
            super().log_metrics(values, nimg)  # type: ignore[misc]

    def draw(
        self, values: Mapping[str, float], nimg: int | None
    ) -> list[tuple[int, dict[str, float]]]:
        """(images shown, values by the name of their pane) to draw, in order."""
        return self.moving(panes(values), nimg or 0)

    def go_on(self, nimg: int | None) -> None:
        """The earlier part of the run in this folder ended after so many images; None: no part."""

    def show_settings(self, settings: Mapping[str, Any]) -> None:
        """Of the run, for a table of runs."""
        self.log_hyperparams(dict(settings))  # type: ignore[attr-defined]

    def show_picture(self, name: str, picture: Tensor, nimg: int) -> None:
        """uint8 (C, H, W)."""

    def show_text(self, name: str, text: str, nimg: int) -> None:
        pass

    def show_samples(self, features: Tensor, images: Tensor, kinds: Sequence[str]) -> None:
        """(N, F), uint8 (N, C, H, W) and what each of them is."""


def boards(trainer: Any) -> Iterable[Board]:
    return (logger for logger in trainer.loggers if isinstance(logger, Board))


def show_picture(trainer: Any, name: str, picture: Tensor, nimg: int) -> None:
    for board in boards(trainer):
        board.show_picture(f"{PICTURES}/{name}", picture, nimg)


def show_text(trainer: Any, name: str, text: str, nimg: int) -> None:
    for board in boards(trainer):
        board.show_text(name, text, nimg)


def show_samples(trainer: Any, features: Tensor, images: Tensor, kinds: Sequence[str]) -> None:
    for board in boards(trainer):
        board.show_samples(features, images, kinds)


def settings(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """What a table of runs shows: its choices, what usually matters, and what was typed."""
    chosen = {group: choices[group] for group in CHOICES if choices.get(group)}
    # places have no meaning for another machine
    typed = [one for one in config.get("overrides", ()) if not re.match(UNSAID, one)]
    if line := " ".join(one for one in typed if "/" not in one):
        # TensorBoard shows the first five names, and "lr" would not be among them
        chosen["as typed"] = line
    for key in dict.fromkeys([*MATTER, *map(key_of, typed)]):
        value = lookup(config, key)
        if isinstance(value, list):
            value = str(value)
        place = isinstance(value, str) and "/" in value
        if isinstance(value, int | float | str) and key not in chosen and not place:
            chosen[key] = value
    return chosen
