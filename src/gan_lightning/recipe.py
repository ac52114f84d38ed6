"""Fills in what the configuration leaves `null`, from the images and the device."""

from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

NETWORKS = ("network.generator", "network.discriminator")
# the keys for which `null` means "chosen here"; the networks' image_size by way of the data set's
CHOSEN = {
    f"{part}.{key}" for part in NETWORKS for key in ("image_size", "channels", "min_channels")
}
CHOSEN |= {"dataset.image_size", "dataset.batch_size", "network.generator.depth", "augment.p"}
CHOSEN |= {"loss.gamma", "trainer.precision", "total_kimg", "checkpoints.every_kimg"}


class Sized(Protocol):
    def __len__(self) -> int: ...
    def typical_size(self) -> tuple[int, int]: ...


def choose(cfg: DictConfig, source: Sized, on_gpu: bool) -> list[tuple[str, str]]:
    """Sets every `null` knob; returns (override, reason) pairs in the order chosen."""
    from gan_lightning.networks.blocks import height_width

    chosen: list[tuple[str, str]] = []
    where = "a GPU" if on_gpu else "the CPU"

    def settle(key: str, value: Any, reason: str) -> None:
        assert key in CHOSEN
        if OmegaConf.select(cfg, key, default=0) is None:
            OmegaConf.update(cfg, key, value)
            text = f"{value:g}" if isinstance(value, float) else str(value).lower()
            chosen.append((f"{key}={text}", reason))

    count, size = len(source), source.typical_size()
    fitting = 128 if on_gpu else 64
    side = next((s for s in (128, 64, 32) if s <= min(fitting, *size)), 32)
    settle("dataset.image_size", side, f"the images are {size[1]} x {size[0]}, on {where}")
    height, width = height_width(cfg.dataset.image_size)
    pixels = height * width
    settle(
        "dataset.batch_size",
        max(1, min(64 if pixels <= 32**2 or on_gpu else 16, count // 4)),
        f"{count:,} images of {width} x {height} on {where}",
    )
    batch = cfg.dataset.batch_size
    small, size_named = pixels <= 32**2, f"for {width} x {height} pixels"
    for network in NETWORKS:
        settle(f"{network}.channels", 128 if small else 256, size_named)
        settle(f"{network}.min_channels", 32 if small else 16, size_named)
    settle("network.generator.depth", 1 if small else 2, size_named)
    settle("augment.p", 0.5 if count < 5000 else 0.2 if count < 20000 else 0.0, f"{count:,} images")
    settle("loss.gamma", round(gamma(pixels, batch), 4), f"{size_named} in batches of {batch}")
    convolutional = OmegaConf.select(cfg, "network.generator.channels") is not None
    settle(
        "trainer.precision",
        "bf16-mixed" if convolutional and fast_bf16(on_gpu) else "32-true",
        f"on {where}",
    )
    if cfg.trainer.max_epochs is None:  # Lightning's own word for no limit would be 1,000 epochs
        cfg.trainer.max_epochs = -1
    epochs, usual = cfg.trainer.max_epochs, length(pixels, on_gpu)
    if epochs == -1 and not cfg.trainer.max_time:
        settle("total_kimg", usual, f"on {where}")
    total = cfg.total_kimg or (epochs * count / 1000 if epochs > 0 else usual)
    settle("checkpoints.every_kimg", round(total / 4, 3), "4 checkpoints to keep")
    return chosen


def fast_bf16(on_gpu: bool) -> bool:
    """Whether the device computes in bf16 itself: without it bf16 is far slower than fp32."""
    import torch

    if on_gpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def gamma(pixels: int, batch: int) -> float:
    """R1's strength, 0.5 for 64 pixels in batches of 16.

    Ten times the 0.0002 · pixels / batch of Karras et al. (2020), for far smaller networks; ten
    times more again leaves the generator without a signal (benchmarks/RECIPES.md).
    """
    return 0.002 * pixels / batch


def length(pixels: int, on_gpu: bool) -> float:
    """Thousand images to show: 10 to 40 minutes of two CPU cores, an hour of a GPU."""
    small, middle, large = (9000.0, 3000.0, 1200.0) if on_gpu else (300.0, 100.0, 40.0)
    return small if pixels <= 32**2 else middle if pixels <= 64**2 else large
