"""GANs on digits or your own photographs. `load_generator(path)` gives a trained one; see
`Sampler`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_lightning.sampling import load_generator

__all__ = ["load_generator"]


def __getattr__(name: str) -> Any:  # torch is imported when it is asked for, not with the package
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gan_lightning import sampling

    return getattr(sampling, name)
