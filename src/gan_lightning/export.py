"""`gan-lightning export`: a trained generator as other programs take it."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_lightning.data.images import to_uint8
from gan_lightning.errors import UserError
from gan_lightning.files import EXPORTED, write_json, write_safetensors, write_whole
from gan_lightning.latents import classes, inputs, latents
from gan_lightning.networks.pretrained import rgb
from gan_lightning.places import make_folder
from gan_lightning.sampling import Sampler, load_generator
from gan_lightning.text import printable

TOLERANCE = 1e-4  # of pixels in [-1, 1], between torch and the exported graph
SHAPE = ("image_size", "image_channels", "fit", "background")  # of the data, not where they lie


def export_cli(
    checkpoint: str, format: str, out: str, trust: str | None, license: str | None
) -> None:
    """Writes the generator as `format` says. UserError."""
    sampler = load_generator(checkpoint, trust, "cpu")
    if format == "hub":
        from gan_lightning.card import write_card

        folder = make_folder(out)
        weights = {f"generator.{name}": w for name, w in weights_of(sampler).items()}
        write_safetensors(folder / EXPORTED, weights, {"format": "pt"})
        write_json(folder / "config.json", config_of(sampler))
        page, old = folder / "README.md", folder / "README.old.md"
        before = page.read_bytes() if page.is_file() else None
        write_card(folder, sampler, Path(checkpoint), license)
        more = ""
        if before not in (None, page.read_bytes()):  # somebody's words may be in it
            old.write_bytes(before)
            more = f", which was another one ({old.name})"
        print(f"{printable(folder)}: {EXPORTED}, config.json, and README.md to be read over{more}")
        return
    make_folder(str(Path(out).parent))
    if format == "onnx":
        worst = write_onnx(sampler, Path(out))
        print(f"{printable(out)}: as torch to {worst:.1g}, in batches of any size")
        # torch-fidelity 0.4 draws labels by np.int, which numpy 2 lacks
        if not sampler.num_classes:
            print(
                f"torch-fidelity scores it so: fidelity --fid --input1 {printable(out)}"
                " --input1-model-z-type normal --input1-model-num-samples 10000"
                f" --input1-model-z-size {sampler.config['latent_dim']} --input2 FOLDER"
            )
        return
    weights = weights_of(sampler)
    write_safetensors(out, weights, {"config": json.dumps(config_of(sampler))})
    count = sum(weight.numel() for weight in weights.values())
    print(f"{printable(out)}: {count:,} values, its configuration in the metadata")


def weights_of(sampler: Sampler) -> dict[str, Tensor]:
    return {name: weight.contiguous() for name, weight in sampler.generator.state_dict().items()}


def config_of(sampler: Sampler) -> dict[str, Any]:
    """What `load_generator` needs to know, and nothing of where the data lay."""
    config = {key: sampler.config[key] for key in ("network", "latent_dim", "num_classes")}
    config["network"] = {"generator": config["network"]["generator"]}
    data = sampler.config["dataset"]
    config["dataset"] = {key: data[key] for key in SHAPE if data.get(key) is not None}
    return config | {"averaged": sampler.averaged, "nimg": sampler.nimg}


# -- ONNX --------------------------------------------------------------------------------------


class ForScores(nn.Module):
    """To uint8 RGB images, which torch-fidelity takes, and to floats."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixels = self.generator(*inputs(z, labels))
        return to_uint8(rgb(pixels)), pixels


def write_onnx(sampler: Sampler, path: Path) -> float:
    """ONNX with a batch of any size: z (B, latent_dim), labels (B,) if conditional, to images (B,
    3, H, W) uint8 and pixels (B, C, H, W) in [-1, 1]. Their largest difference from torch's;
    UserError where that is too large.
    """
    import onnxruntime

    model = ForScores(sampler.generator).eval()
    example = _inputs(sampler, range(2))
    names = ["z", "labels"][: len(example)]
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.onnx.export(
            model,
            example,
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=["images", "pixels"],
            dynamic_shapes={name: {0: batch} for name in names},
        )
    assert program is not None
    program.model.metadata_props["config"] = json.dumps(config_of(sampler))
    packed = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(packed, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seeds in (range(1), range(1, 6), range(6, 70)):
        some = _inputs(sampler, seeds)
        given = {name: x.numpy() for name, x in zip(names, some, strict=True)}
        images, pixels = (torch.from_numpy(x) for x in session.run(None, given))
        with torch.no_grad():
            ours = model(*some)
        worst = max(worst, float((pixels - ours[1]).abs().max()))
        worst += float((images.int() - ours[0].int()).abs().max() > 1)  # rounded otherwise
    if not worst <= TOLERANCE:
        raise UserError(f"{path} is not written: its images would be {worst:.1g} from torch's")
    write_whole(path, lambda file: file.write(packed))
    return worst


def _inputs(sampler: Sampler, seeds: range) -> tuple[Tensor, ...]:
    z = latents(seeds, sampler.config["latent_dim"])
    return inputs(z, classes(seeds, sampler.num_classes))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes are for who writes networks."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
