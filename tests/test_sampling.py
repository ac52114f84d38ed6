"""Samples need the checkpoint alone, are the same for the same seed, and a file's code is never run."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning.cli import main
from gan_lightning.data.images import to_float, to_uint8
from gan_lightning.errors import UserError
from gan_lightning.latents import latents
from gan_lightning.measure.snapshot import Moment
from gan_lightning.sampling import (
    build_trusted,
    load_generator,
    read_checkpoint,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A file as training writes it, with averaged weights that differ from the raw ones."""
    return write(tmp_path_factory.mktemp("run") / "last.ckpt")


def write(path: Path, channels: int = 3, num_classes: int | None = None, **more) -> Path:
    from gan_lightning.networks.dcgan import Generator

    torch.manual_seed(0)
    node = {
        "_target_": "gan_lightning.networks.dcgan.Generator", "latent_dim": 8, "image_size": 16, "image_channels": channels,
        "channels": 16, "min_channels": 8, "num_classes": num_classes,
    }  # fmt: skip
    raw = Generator(8, 16, channels, 16, 8, num_classes=num_classes).state_dict()
    averaged = Generator(8, 16, channels, 16, 8, num_classes=num_classes).state_dict()
    weights = {f"generator.{k}": v for k, v in raw.items()} | {
        f"generator_ema.{k}": v for k, v in averaged.items()
    }
    config = {"latent_dim": 8, "num_classes": num_classes, "network": {"generator": node}} | more
    torch.save({"config": config, "state_dict": weights}, path)
    return path


def sample(checkpoint, out, *more):
    assert main(["sample", str(checkpoint), "--out", str(out), "--device", "cpu", *more]) == 0


def test_png_and_grid(checkpoint, tmp_path):
    sample(checkpoint, tmp_path, "--num-images", "3", "--grid")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "grid.png",
    ]
    assert Image.open(tmp_path / "000002.png").size == (16, 16)


def test_npz_same_seed_same_images_however_many(checkpoint, tmp_path):
    for name, count, seed in (("a", 300, 1), ("b", 20, 1), ("c", 20, 2)):
        sample(
            checkpoint,
            tmp_path / name,
            "--num-images",
            str(count),
            "--seed",
            str(seed),
            "--format",
            "npz",
        )
    a, b, c = (np.load(tmp_path / name / "images.npz") for name in "abc")
    assert (
        a.files == ["images"]
        and a["images"].shape == (300, 16, 16, 3)
        and a["images"].dtype == np.uint8
    )
    assert np.array_equal(a["images"][:20], b["images"]) and not np.array_equal(
        b["images"], c["images"]
    )
    assert len(np.unique(a["images"].reshape(300, -1), axis=0)) == 300


def test_a_list_of_seeds_names_its_files(checkpoint, tmp_path, capsys):
    sample(checkpoint, tmp_path, "--seed", "9,3,5-6,3", "--grid")
    names = [f"seed{seed:06d}.png" for seed in (3, 5, 6, 9)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", *names]
    expected = load_generator(checkpoint, device="cpu").images(1, 5)[0]
    found = torch.from_numpy(np.array(Image.open(tmp_path / names[1]))).permute(2, 0, 1)
    assert (found.int() - expected.int()).abs().max() <= 1
    capsys.readouterr()
    sample(checkpoint, tmp_path, "--seed", "3,5", "--num-images", "2")
    assert "also holds 2 images of another time" in capsys.readouterr().out
    sample(checkpoint, tmp_path, "--num-images", "2")
    assert "also holds 4 images of another time" in capsys.readouterr().out


@pytest.mark.parametrize("seed", ["3,", "5-2", "x", "-3,4", "0-1000000", "1-9999999999", "١"])
def test_a_seed_is_a_number_or_a_list(checkpoint, seed, capsys):
    assert main(["sample", str(checkpoint), "--seed", seed]) == 2
    right = "should be a whole number, or a list as 3,17,40-47"
    assert f"'--seed': {seed} {right}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sample --seed 1,2 --num-images 3", "--num-images 3 contradicts --seed"),
        ("interpolate --seed 1,2 --rows 3", "--rows 3 contradicts --seed"),
        ("interpolate --seed 1-1", "--seed lists 1 images: a walk goes through 2 to 101"),
        ("interpolate --class 0", "--class 0 does not fit this generator"),
    ],
)
def test_seeds_that_contradict(checkpoint, command, words, capsys):
    name, *more = command.split()
    assert main([name, str(checkpoint), *more]) == 1
    assert capsys.readouterr().err.startswith(f"error: {words}")


def test_a_walk_meets_the_seeds_it_was_given(tmp_path):
    path = write(tmp_path / "c.ckpt", num_classes=3)
    walk = ["interpolate", str(path), "--seed", "3,17,40", "--steps", "3", "--out", str(tmp_path)]
    assert main(walk) == 0
    strip = np.array(Image.open(tmp_path / "interpolation.png")).astype(int)
    assert strip.shape == (2 * 32, 3 * 20, 3)
    images = load_generator(path, device="cpu").generate(
        latents([3, 17, 40], 8), torch.zeros(3).long()
    )
    for row, column, k in ((0, 0, 0), (0, 2, 1), (1, 0, 1), (1, 2, 2)):
        tile = strip[32 * row + 2 : 32 * row + 18, 20 * column + 2 : 20 * column + 18]
        assert np.abs(tile - images[k].permute(1, 2, 0).numpy()).max() <= 1
        assert strip[32 * row + 19 : 32 * row + 32, 20 * column : 20 * column + 20].max() > 100
    assert Image.open(tmp_path / "interpolation.gif").n_frames == 5 + 3  # 17 once, and back


def test_a_film_as_mp4(checkpoint, tmp_path, monkeypatch, capsys):
    av = pytest.importorskip("av")
    walk = ["interpolate", str(checkpoint), "--rows", "1", "--steps", "3", "--mp4", "--out"]
    assert main([*walk, str(tmp_path)]) == 0
    with av.open(str(tmp_path / "interpolation.mp4")) as film:
        frames = [frame.to_image() for frame in film.decode(video=0)]
    assert len(frames) == 4 and frames[0].size == (256, 256)
    gif = Image.open(tmp_path / "interpolation.gif").convert("RGB")
    there = np.array(gif.resize(frames[0].size, Image.Resampling.NEAREST)).astype(int)
    assert np.abs(np.array(frames[0]) - there).mean() < 8  # of 255; two lossy formats
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*walk, str(tmp_path)]) == 1
    right = "error: --mp4 needs the package av: pip install 'gan-lightning[video]'"
    assert capsys.readouterr().err.strip() == right


def test_averaged_weights_are_taken(checkpoint):
    sampler = load_generator(checkpoint, device="cpu")
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert sampler.averaged
    assert all(
        torch.equal(value, saved[f"generator_ema.{name}"])
        for name, value in sampler.generator.state_dict().items()
    )


def test_grey_and_class(tmp_path):
    path = write(tmp_path / "c.ckpt", channels=1, num_classes=3)
    sample(path, tmp_path / "one", "--num-images", "4", "--class", "2")
    assert Image.open(tmp_path / "one/000000.png").mode == "L"
    assert main(["sample", str(path), "--class", "3", "--out", str(tmp_path / "x")]) == 1


def test_labels_one_by_one(tmp_path):
    sampler = load_generator(write(tmp_path / "x.ckpt", num_classes=3))
    labels = torch.randint(3, (300,), generator=torch.Generator().manual_seed(0))
    mixed = sampler.images(300, 0, labels)
    for label in range(3):
        alone = sampler.images(300, 0, label)
        assert torch.equal(mixed[labels == label], alone[labels == label])
        assert not torch.equal(mixed[labels != label], alone[labels != label])


def test_a_tile_of_trainings_picture_is_made_again_by_its_seed(tmp_path):
    """Tile k of seed S is `sample --seed S+k`, its class included."""
    sampler = load_generator(write(tmp_path / "x.ckpt", num_classes=3), device="cpu")
    module = SimpleNamespace(latent_dim=8, num_classes=3, nimg=0, step=0)
    module.sample = lambda z, labels: to_float(sampler.generate(z, labels))
    tiles = to_uint8(Moment(module, seed=5).grid)
    for tile in (0, 2, 63):
        alone = sampler.images(1, 5 + tile)[0]
        assert (tiles[tile].int() - alone.int()).abs().max() <= 1  # batches round differently
    assert not torch.equal(tiles[0], tiles[3])


def test_truncation_shortens_the_noise(checkpoint, tmp_path):
    sampler, z = (
        load_generator(checkpoint, device="cpu"),
        latents(range(1, 5), 8),
    )
    for truncation in (0.5, 1):
        out = tmp_path / str(truncation)
        sample(
            checkpoint,
            out,
            "--num-images",
            "4",
            "--seed",
            "1",
            "--format",
            "npz",
            "--truncation",
            str(truncation),
        )
        expected = sampler.generate(truncation * z).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(np.load(out / "images.npz")["images"], expected)


def test_a_walk_is_truncated_too(checkpoint, tmp_path):
    for name, more in (("a", ()), ("b", ("--truncation", "1")), ("c", ("--truncation", "0.5"))):
        walk = [
            "interpolate",
            str(checkpoint),
            "--rows",
            "1",
            "--steps",
            "2",
            "--out",
            str(tmp_path / name),
            *more,
        ]
        assert main(walk) == 0
    a, b, c = ((tmp_path / name / "interpolation.png").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
def test_truncation_is_a_number_above_0(checkpoint, value, capsys):
    assert main(["sample", str(checkpoint), "--truncation", value]) == 2
    assert f"'--truncation': {value} should be a number above 0" in capsys.readouterr().err


def test_truncation_is_a_matter_of_checkpoints(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--data", "egg", "--truncation", "0.8"]) == 1
    assert capsys.readouterr().err.startswith("error: --truncation is for checkpoints")


def test_export_into_a_folder_is_refused(checkpoint, tmp_path, capsys):
    assert main(["export", str(checkpoint), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: --out {tmp_path} is a folder")


def test_interpolation_and_export(checkpoint, tmp_path):
    assert (
        main(
            ["interpolate", str(checkpoint), "--rows", "2", "--steps", "4", "--out", str(tmp_path)]
        )
        == 0
    )
    assert Image.open(tmp_path / "interpolation.png").size == (4 * 20, 2 * 32)
    assert Image.open(tmp_path / "interpolation.gif").n_frames == 6  # there and back
    from safetensors.torch import load_file

    assert main(["export", str(checkpoint), "--out", str(tmp_path / "g.safetensors")]) == 0
    ours = load_generator(checkpoint, device="cpu").generator.state_dict()
    assert all(
        torch.equal(ours[name], value)
        for name, value in load_file(tmp_path / "g.safetensors").items()
    )


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap-sprung"),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("trap", "refused"),
        (pickle.dumps(Trap()), "refused"),
        (b"", "cannot be read|refused"),
        (b"no checkpoint at all", "refused|cannot be read"),
        (b"text beginning with an opcode", "refused|cannot be read"),
        ({"config": "words", "state_dict": {}}, "no configuration"),
        ({"state_dict": {}}, "no configuration"),
        ({"config": {"network": {}}, "state_dict": {}}, "holds no generator"),
    ],
    ids=["trap", "bare pickle", "empty", "text", "opcode", "words", "no config", "no network"],
)
def test_files_that_are_refused(content, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.ckpt"
    if content == "trap":
        torch.save({"config": {}, "state_dict": {}, "more": Trap()}, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=words):
        load_generator(path)
    assert not Path("trap-sprung").exists()
    assert main(["sample", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "gan_lightning.networks_evil.X",
        "gan_lightning.networks.__import__",
        "subprocess.Popen",
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_networks_from_elsewhere_are_refused(target, nested, tmp_path):
    node = {"_target_": target, "command": "touch trap-sprung"}
    if nested:
        node = {"_target_": "gan_lightning.networks.mlp.Generator", "latent_dim": [node]}
    path = write(tmp_path / "x.ckpt", network={"generator": node})
    with pytest.raises(
        UserError, match="network.generator.latent_dim should be" if nested else "wants to build"
    ):
        load_generator(path)


RUN = {"_target_": "torch.utils.collect_env.run", "command": "touch trap-sprung"}


@pytest.mark.parametrize(
    "node",
    [
        RUN | {"_target_": "gan_lightning.networks.blocks.torch.utils.collect_env.run"},
        {"_target_": "gan_lightning.networks.blocks.torch.load", "f": "evil.pt", "weights_only": False},
        {"_target_": "gan_lightning.networks.blocks.spectral_norm", "module": None},
        {"_target_": "gan_lightning.networks.mlp.Generator", "latent_dim": 8, "image_size": 16, "image_channels": 3, "hidden": (RUN,)},
        {"_target_": "gan_lightning.networks.mlp.Generator", "latent_dim": 8, "image_size": 16, "image_channels": 3,
         "hidden": "${oc.create:'{_target_: torch.utils.collect_env.run, command: touch trap-sprung}'}"},
    ],
    ids=["through an import", "torch.load", "a function", "a tuple", "a resolver"],
)  # fmt: skip
def test_ways_around_are_closed(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Trap(), tmp_path / "evil.pt")
    path = write(tmp_path / "x.ckpt", network={"generator": node})
    with pytest.raises(
        UserError, match="wants to build|cannot be built|was not written by this program"
    ):
        load_generator(path)
    assert not Path("trap-sprung").exists()


def test_a_device_that_is_not_there(checkpoint):
    with pytest.raises(UserError, match="--device cudaa"):
        load_generator(checkpoint, device="cudaa")


def test_trusted_package(tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(
        "from gan_lightning.networks.dcgan import Generator as Mine\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "nets.py").write_text(
        "from gan_lightning.networks.dcgan import Generator as Mine\n"
    )
    path = write(tmp_path / "x.ckpt")
    saved = torch.load(path, weights_only=True)
    saved["config"]["network"]["generator"]["_target_"] = "mine.nets.Mine"
    torch.save(saved, path)
    with pytest.raises(UserError, match="--trust mine"):
        load_generator(path)
    assert load_generator(path, trust="mine", device="cpu").images(2).shape == (2, 3, 16, 16)


def test_a_trusted_package_beside_train_py_is_found_by_the_console_script(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(
        "from torch import nn\n\nclass Net(nn.Identity):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    assert type(build_trusted({"_target_": "beside.Net"}, "beside")).__name__ == "Net"


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")
