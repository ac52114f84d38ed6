"""A generator as model hubs know one: `HubGenerator.from_pretrained(folder or name)`, and
`push_to_hub`."""

from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from gan_lightning.errors import UserError
from gan_lightning.files import read_safetensors, untrusted
from gan_lightning.latents import inputs
from gan_lightning.sampling import build_trusted, built, known_config


class HubGenerator(  # type: ignore[misc]
    nn.Module,
    PyTorchModelHubMixin,
    library_name="gan-lightning",
    pipeline_tag="unconditional-image-generation",
):
    """Latents (B, latent_dim), and labels (B,) for a conditional generator, to images (B, C, H, W)
    in [-1, 1].

    The arguments are config.json, which a stranger may have written: networks of this package alone
    are built, and only as large as their weights. Without weights it has a shape and no values.
    Raises UserError.
    """

    def __init__(
        self,
        network: dict[str, Any],
        latent_dim: int,
        num_classes: int | None = None,
        dataset: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        given = {"network": network, "latent_dim": latent_dim, "num_classes": num_classes}
        with untrusted("config.json"), torch.device("meta"):
            self.known = known_config(given | {"dataset": dataset or {}})
            self.generator = build_trusted(self.known["network"]["generator"])

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.generator(*inputs(z, labels))

    @classmethod
    def _load_as_safetensor(
        cls, model: Any, model_file: str, map_location: str, strict: bool
    ) -> Any:
        weights, _ = read_safetensors(model_file)
        own = {name.removeprefix("generator."): weight for name, weight in weights.items()}
        with untrusted(model_file), torch.no_grad():
            model.generator = built(model.known, own)
        return model.to(map_location).eval()

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise UserError("it holds no model.safetensors, and nothing else is read")
