"""What the rules have to know of a run's parts, as facts of plain values."""

from typing import Any

from torch.optim import SGD


def parts(module: Any, source: Any = None) -> dict[str, dict[str, Any]]:
    """By part of a GAN in training, what its class says of itself; ordinary where it is silent."""
    generator, loss = module.generator, module.loss
    optimizer_g, optimizer_d, *_ = module.optimizers(use_pl_optimizer=False)  # the aid may have one
    return {
        "loss": {
            "name": type(loss).__name__,
            "centred": getattr(loss, "middle", 0.0) is not None,
            **_flags(loss, "paired", "critic", "needs_penalty", "saturating"),
        },
        "generator": {
            "family": str(getattr(generator, "family", "")),
            **_flags(generator, "fully_connected"),
        },
        # adaptive: with a step of its own for every weight
        "optimizer_g": {"adaptive": not isinstance(optimizer_g, SGD)},
        "optimizer_d": {"adaptive": not isinstance(optimizer_d, SGD)},
        "source": {"experiment": str(getattr(source, "experiment", ""))},
    }


def _flags(part: Any, *names: str) -> dict[str, bool]:
    return {name: bool(getattr(part, name, False)) for name in names}
