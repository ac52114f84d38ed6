"""Fixtures shared by all tests; the suite says once which real data it had."""

import os
from pathlib import Path

import pytest

DATA = os.environ.get("GAN_LIGHTNING_DATA")
os.environ.setdefault(
    "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
)  # before the first matrix product on a GPU, or never


def _has(name: str) -> bool:
    return bool(DATA) and (Path(DATA) / name).is_dir()


def pytest_report_header() -> str:
    had = [name for name in ("MNIST", "eggs_candling") if _has(name)]
    return f"real data (GAN_LIGHTNING_DATA={DATA or 'not set'}): {', '.join(had) or 'none, those tests are skipped'}"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; skips where GAN_LIGHTNING_DATA does not name one."""
    if not _has("MNIST"):
        pytest.skip("GAN_LIGHTNING_DATA names no folder with MNIST/raw")
    return Path(DATA)


CONF = str(Path(__file__).parent.parent / "conf")


def compose(*overrides: str):
    """The configuration of `python train.py <overrides>`."""
    import hydra

    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose("config", list(overrides), return_hydra_config=True)


class Photos:
    """A source of so many images of one size."""

    def __init__(self, count, size=(256, 256)):
        self.count, self.size = count, size

    def __len__(self):
        return self.count

    def typical_size(self):
        return self.size


def composed(*overrides: str):
    """As `compose`, for a run within the tests."""
    return compose("trainer.accelerator=cpu", "features={_target_: pooled.Pooled}", *overrides)


def start(cfg, folder: Path, *overrides: str):
    """Trains in this process what `composed` has made: (folder, objective)."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    from gan_lightning.run import train

    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        cfg.hydra.overrides.task = list(overrides)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    return folder, train(cfg)


@pytest.fixture
def train_run(tmp_path, monkeypatch):
    """Trains in this process as `python train.py` would: train_run("name", *overrides) -> (run folder, objective)."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *overrides: start(composed(*overrides), tmp_path / name, *overrides)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of 80 random 16 x 16 colour images."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for k in range(80):
        pixels = np.kron(generator.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03d}.png")
    return folder


@pytest.fixture
def full_disk(monkeypatch):
    """full_disk(n): after n more bytes nothing can be written."""
    import errno

    from gan_lightning import files

    write = files._Raw.write

    def after(left: int) -> None:
        def limited(self, data):
            nonlocal left
            left -= memoryview(data).nbytes
            if left < 0:
                self.failure = self.failure or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise self.failure
            return write(self, data)

        monkeypatch.setattr(files._Raw, "write", limited)

    return after
