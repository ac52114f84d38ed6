"""Checkpoints as training writes them, of small generators whose every value is drawn."""

import importlib
from pathlib import Path
from typing import Any

import torch

FAMILIES = {
    "mlp": {"hidden": [16, 24]},
    "dcgan": {"channels": 16, "min_channels": 8},
    "resnet": {"channels": 16, "min_channels": 8},
}


def checkpoint(
    path: Path,
    family: str = "dcgan",
    channels: int = 3,
    num_classes: int | None = None,
    scale: float = 1.0,
    **dataset: Any,
) -> Path:
    """Images of 16 x 16 of 8 numbers; BatchNorm has seen something. `scale`: of the weights."""
    module = importlib.import_module(f"gan_lightning.networks.{family}")
    shape = {"latent_dim": 8, "image_size": 16, "image_channels": channels}
    node = shape | {"num_classes": num_classes} | FAMILIES[family]
    torch.manual_seed(0)
    weights = module.Generator(**node).state_dict()
    draw = torch.Generator().manual_seed(1)
    for name, w in weights.items():
        if w.is_floating_point():
            fan = w[0].numel() if w.ndim > 1 else 10
            noise = torch.randn(w.shape, generator=draw) * scale / fan**0.5
            weights[name] = 1 + noise.abs() if name.endswith("running_var") else noise
    node["_target_"] = f"gan_lightning.networks.{family}.Generator"
    data = {"image_size": 16, "image_channels": channels, "fit": "pad", "background": 7}
    config = {
        "latent_dim": 8,
        "num_classes": num_classes,
        "network": {"generator": node},
        "dataset": data | dataset,
    }
    state = {f"generator_ema.{name}": weight for name, weight in weights.items()}
    torch.save({"config": config, "state_dict": state, "nimg": 3000, "step": 9}, path)
    return path
