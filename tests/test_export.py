"""What leaves the program makes the same images elsewhere, and nothing in it is obeyed when it comes back."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from saved import checkpoint

from gan_lightning import load_generator
from gan_lightning.cli import main
from gan_lightning.errors import UserError
from gan_lightning.latents import latents

CASES = [("mlp", 1, 3), ("dcgan", 3, None), ("resnet", 4, 2)]  # family, channels, classes


def export(path: Path, out: Path, *more: str) -> Path:
    assert main(["export", str(path), "--out", str(out), *more]) == 0
    return out


@pytest.mark.parametrize(("family", "channels", "num_classes"), CASES)
def test_weights_and_hub_folders_load_without_the_checkpoint(
    family, channels, num_classes, tmp_path
):
    path = checkpoint(tmp_path / "x.ckpt", family, channels, num_classes)
    expected = load_generator(path, device="cpu")
    export(path, tmp_path / "g.safetensors")
    export(path, tmp_path / "hub", "--format", "hub")
    path.unlink()
    for other in ("g.safetensors", "hub"):
        sampler = load_generator(tmp_path / other, device="cpu")
        assert torch.equal(sampler.images(5, 3), expected.images(5, 3))
        assert sampler.averaged and sampler.nimg == 3000
        assert sampler.config["dataset"] == expected.config["dataset"]
    again = [
        "sample",
        str(tmp_path / "hub"),
        "--seed",
        "3",
        "--num-images",
        "1",
        "--device",
        "cpu",
        "--out",
    ]
    assert main([*again, str(tmp_path / "s")]) == 0
    made = np.array(Image.open(tmp_path / "s" / "000000.png"))
    image = expected.images(1, 3)[0].permute(1, 2, 0).numpy().squeeze()
    assert np.array_equal(made, image)


@pytest.mark.parametrize(("family", "channels", "num_classes"), CASES)
def test_onnx_makes_torchs_images_in_batches_of_any_size(family, channels, num_classes, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    path = checkpoint(tmp_path / "x.ckpt", family, channels, num_classes)
    file = export(path, tmp_path / "g.onnx", "--format", "onnx")
    assert [entry.name for entry in tmp_path.glob("g.onnx*")] == ["g.onnx"]  # no data beside it
    session = runtime.InferenceSession(str(file))
    sampler = load_generator(path, device="cpu")
    for count in (1, 7):
        z = latents(range(50, 50 + count), 8)
        labels = torch.arange(count) % num_classes if num_classes else None
        given = {"z": z.numpy()} | ({"labels": labels.numpy()} if num_classes else {})
        images, pixels = session.run(None, given)
        with torch.no_grad():
            own = sampler.generator(z) if labels is None else sampler.generator(z, labels)
        assert np.abs(pixels - own.numpy()).max() < 1e-4 and own.std() > 0.05
        assert images.dtype == np.uint8 and images.shape == (count, 3, 16, 16)
        expected = sampler.generate(z, labels).expand(-1, 3 if channels == 1 else -1, -1, -1)
        assert np.abs(images.astype(int) - expected[:, :3].numpy()).max() <= 1


def test_onnx_that_differs_is_not_written(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")

    class Other(runtime.InferenceSession):
        def run(self, *given):
            images, pixels = super().run(*given)
            return images, pixels + np.float32(2e-4)

    monkeypatch.setattr(runtime, "InferenceSession", Other)
    path = checkpoint(tmp_path / "x.ckpt", "mlp")
    assert main(["export", str(path), "--format", "onnx", "--out", str(tmp_path / "g.onnx")]) == 1
    assert "is not written: its images would be 0.0002 from torch's" in capsys.readouterr().err
    assert not (tmp_path / "g.onnx").exists()


def test_torch_fidelity_takes_the_onnx_file_for_a_generator(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Means(FeatureExtractorBase):
        """Mean colours: nothing has to be downloaded."""

        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list():
            return ("means",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "means"

        @staticmethod
        def can_be_compiled():
            return False

        def forward(self, images):
            assert images.dtype == torch.uint8 and images.shape[1] == 3
            return (images.double().mean((2, 3)),)

    fidelity.register_feature_extractor("means", Means)
    path = checkpoint(tmp_path / "x.ckpt", "dcgan", 1)
    file = export(path, tmp_path / "g.onnx", "--format", "onnx")
    size = {f"input{k}_model_z_size": 8 for k in (1, 2)}
    kind = {f"input{k}_model_num_classes": 0 for k in (1, 2)}
    count = {f"input{k}_model_num_samples": 100 for k in (1, 2)}
    same = fidelity.calculate_metrics(
        input1=str(file), input2=str(file), fid=True, cuda=False, verbose=False, cache=False,
        feature_extractor="means", **size, **kind, **count,
    )  # fmt: skip
    assert abs(same["frechet_inception_distance"]) < 1e-6  # both draw the same latents
    conditional = checkpoint(tmp_path / "c.ckpt", "mlp", 3, 5)
    file = export(conditional, tmp_path / "c.onnx", "--format", "onnx")
    generator = fidelity.GenerativeModelONNX(str(file), 8, "normal", 5)
    z, labels = latents(range(4), 8), torch.tensor([0, 4, 1, 2])
    expected = load_generator(conditional, device="cpu").generate(z, labels)
    assert (generator(z, labels).int() - expected.int()).abs().max() <= 1


def in_a_run(tmp_path: Path, nimg: int = 3000) -> Path:
    """A checkpoint in a run with scores."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    rows = [
        {"name": "frechet_lite2_400", "value": 123.44, "floor": 90.0, "ceiling": 800.0, "n": 400},
        {"name": "near_copies_lite2_400", "value": 0.0125, "floor": None, "ceiling": 1, "n": 400},
    ]
    best = {"nimg": 2000, "name": "frechet_lite2_100", "value": 200.5, "n": 100, "floor": 95.0}
    best |= {"ceiling": 700.0, "scores": {"frechet_lite2": 200.5, "recall_lite2": 0.25}}
    scores = {"scores": rows, "nimg": nimg, "best": best, "n": 400}
    (run / "scores.json").write_text(json.dumps(scores))
    root = "/home/somebody/private/my | photos"
    return checkpoint(run / "checkpoints" / "last.ckpt", root=root)


def test_a_card_that_was_edited_is_not_lost(tmp_path, capsys):
    path = in_a_run(tmp_path)
    export(path, tmp_path / "eggs", "--format", "hub")
    assert "README.old.md" not in capsys.readouterr().out
    (tmp_path / "eggs/README.md").write_text("my words")
    export(path, tmp_path / "eggs", "--format", "hub")
    assert "README.old.md" in capsys.readouterr().out
    export(path, tmp_path / "eggs", "--format", "hub")  # its own is not what to keep
    assert "README.old.md" not in capsys.readouterr().out
    assert (tmp_path / "eggs/README.old.md").read_text() == "my words"
    assert "frechet_lite2_400" in (tmp_path / "eggs/README.md").read_text()


def test_the_card_says_what_is_known(tmp_path):
    card_of = pytest.importorskip("huggingface_hub").ModelCard
    export(in_a_run(tmp_path), tmp_path / "eggs", "--format", "hub", "--license", "CC BY 4.0")
    card = card_of.load(tmp_path / "eggs" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value) == ("frechet_lite2_400", 123.44)
    assert "| frechet_lite2_400 | 123.4 | 90 | 800 | 400 |" in card.text
    assert "1.2% of 400 images are near-copies" in card.text and "16 x 16" in card.text
    assert "my _ photos" in card.text and "3,000 images shown" in card.text
    whole = "".join(path.read_text() for path in (tmp_path / "eggs").glob("*.[mj]*[dn]"))
    assert "somebody" not in whole  # where the photographs lie is nobody's business
    assert Image.open(tmp_path / "eggs" / "samples.png").size == (8 * 20, 4 * 32)


def test_the_card_of_another_moment(tmp_path):
    """Of the best checkpoint with the scores noted then; of any other with none."""
    from gan_lightning.card import scores_of

    path = in_a_run(tmp_path)
    assert [row["value"] for row in scores_of(path, 2000)] == [200.5, 0.25]
    assert scores_of(path, 2000)[0] == {
        "name": "frechet_lite2_100", "value": 200.5, "n": 100, "floor": 95.0, "ceiling": 700.0,
    }  # fmt: skip
    assert scores_of(path, 1000) == [] and scores_of(tmp_path / "x.ckpt", 3000) == []


def test_the_hubs_own_library_loads_it(tmp_path):
    from gan_lightning.hub import HubGenerator

    path = checkpoint(tmp_path / "x.ckpt", "resnet", 3, 2)
    export(path, tmp_path / "hub", "--format", "hub")
    sampler, z = load_generator(path, device="cpu"), latents(range(4), 8)
    labels = torch.tensor([0, 1, 1, 0])
    network = HubGenerator.from_pretrained(tmp_path / "hub")
    with torch.no_grad():
        made = network(z, labels)
        torch.testing.assert_close(made, sampler.generator(z, labels))
    network.save_pretrained(tmp_path / "again")  # as push_to_hub does
    again = HubGenerator.from_pretrained(tmp_path / "again")
    assert torch.equal(again(z, labels), network(z, labels))
    assert torch.equal(
        load_generator(tmp_path / "again", device="cpu").images(3), sampler.images(3)
    )


def evil(config: dict) -> dict[str, dict]:
    node = config["network"]["generator"]

    def changed(**more) -> dict:
        return config | {"network": {"generator": node | more}}

    return {
        "another network": changed(_target_="subprocess.Popen"),
        "through an import": changed(_target_="gan_lightning.networks.blocks.torch.load"),
        "nested": changed(channels={"_target_": "os.system", "command": "touch sprung"}),
        "beyond memory": changed(channels=65536),
        "another size": changed(image_size=32),
        "latent_dim in words": config | {"latent_dim": "8"},
        "no network": {"latent_dim": 8, "num_classes": None, "network": {}},
        "a list": [1],
    }


def test_what_strangers_write_is_refused(tmp_path, capsys, monkeypatch):
    from gan_lightning.hub import HubGenerator

    monkeypatch.chdir(tmp_path)
    hub = export(checkpoint(tmp_path / "x.ckpt"), tmp_path / "hub", "--format", "hub")
    good = (hub / "config.json").read_text()
    weights = {
        k.removeprefix("generator."): w for k, w in load_file(hub / "model.safetensors").items()
    }
    for name, config in evil(json.loads(good)).items():
        (hub / "config.json").write_text(json.dumps(config))
        save_file(weights, "evil.safetensors", {"config": json.dumps(config)})
        for path in ("hub", "evil.safetensors"):
            capsys.readouterr()
            assert main(["sample", path, "--out", "out"]) == 1, (name, path)
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1 and lines[0].startswith("error: "), (name, path, lines)
        with pytest.raises((UserError, TypeError, AttributeError)):
            HubGenerator.from_pretrained("hub")
        assert not Path("sprung").exists() and not Path("out").exists(), name
    (hub / "config.json").write_text(good)
    (hub / "model.safetensors").rename(hub / "pytorch_model.bin")
    with pytest.raises(Exception):  # noqa: B017 - no pickle is read in its place
        HubGenerator.from_pretrained("hub")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0{}              "],
    ids=["empty", "odd", "bare"],
)
def test_files_that_are_no_safetensors(content, tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert main(["sample", str(path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert (
        said.startswith(f"error: {path} was not written by this program") and said.count("\n") == 1
    )


def test_mistakes_in_one_line(tmp_path, capsys, monkeypatch):
    path = str(checkpoint(tmp_path / "x.ckpt"))
    assert main(["export", path, "--license", "mit"]) == 1
    assert capsys.readouterr().err == "error: --license goes on the card of --format hub\n"
    assert main(["export", path, "--format", "hub", "--license", "<b>"]) == 2
    assert main(["export", path, "--format", "onnx", "--out", str(tmp_path)]) == 1
    assert "is a folder: give a file name, as" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["export", path, "--format", "onnx"]) == 1
    right = "--format onnx needs the package onnx: pip install 'gan-lightning[onnx]'"
    assert capsys.readouterr().err == f"error: {right}\n"


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, gan_lightning; print('torch' in sys.modules, gan_lightning.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False ['load_generator']\n"


def test_a_hub_folder_is_scored_as_its_checkpoint(tmp_path, monkeypatch, capsys):
    from pooled import photographs

    (tmp_path / "real").mkdir()
    for i, image in enumerate(photographs(110, 0, 16)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "real" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path / "x.ckpt", "mlp")
    export(path, tmp_path / "hub", "--format", "hub")
    found = []
    for scored in (str(path), "hub"):
        command = ["evaluate", scored, "--data", "real", "--json", "--truncation", "0.9"]
        capsys.readouterr()
        assert main(command) == 0
        found.append(json.loads(capsys.readouterr().out)["scores"][0]["value"])
    assert found[0] == found[1] > 0
