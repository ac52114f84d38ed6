"""Trains a GAN. `python train.py --help` shows every knob; see README.md."""

import os
import sys

from gan_lightning import interrupt

if __name__ == "__main__":
    interrupt.install()  # first of all: a signal may come at any moment

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from gan_lightning.entry import guarded, in_words  # noqa: E402

CONF = os.path.join(os.path.dirname(os.path.abspath(__file__)), "conf")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    with in_words():
        from gan_lightning.run import train  # heavy imports only now that the configuration stands

        return train(cfg)


if __name__ == "__main__":
    sys.exit(guarded(main, CONF))
