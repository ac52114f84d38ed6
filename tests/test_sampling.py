"""Samples need the checkpoint alone, are the same for the same seed, and a file's code is never run."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning.cli import main
from gan_lightning.errors import UserError
from gan_lightning.sampling import (
    DIRECTIONS,
    STEP,
    Sampler,
    build_trusted,
    load_generator,
    read_checkpoint,
    seeded,
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


def test_truncation_shortens_the_noise(checkpoint, tmp_path):
    sampler, z = (
        load_generator(checkpoint, device="cpu"),
        torch.randn(256, 8, generator=torch.Generator().manual_seed(1_000_003)),
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
        expected = sampler.generate(truncation * z[:4]).permute(0, 2, 3, 1).numpy()
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


@pytest.mark.parametrize("option", ["--truncation", "--reject"])
def test_noise_is_a_matter_of_checkpoints(option, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--data", "egg", option, "0.8"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: --truncation and --reject are for checkpoints"
    )


class Bend(torch.nn.Module):
    """Noise (B, 2) to images (B, 1, 4, 4) whose brightness changes ever faster with the first number above 0 (for class 1
    above 1), and not at all with the second."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.register_buffer("pattern", torch.linspace(-1, 1, 16).view(1, 1, 4, 4))

    def forward(self, z, labels=None):
        x = z[:, 0] if labels is None else z[:, 0] - labels.float()
        return 0.5 * self.pattern + self.slope * x.clamp(min=0).square()[:, None, None, None]


def bend(slope=0.01, num_classes=None) -> Sampler:
    return Sampler(
        Bend(slope), {"latent_dim": 2, "num_classes": num_classes}, torch.device("cpu"), True
    )


def test_the_jacobian_norm_is_an_images_change_as_a_fraction_of_its_contrast():
    found = bend().jacobian_norm(torch.tensor([[-2.0, 0.0], [1.0, 3.0], [5.0, 0.0]]))
    contrast = 0.5 * torch.linspace(-1, 1, 16).std()
    along = torch.randn(DIRECTIONS, 2, generator=torch.Generator().manual_seed(0))[:, 0]
    # ((x + step d)^2 - x^2) / step = 2 x d + step d^2
    fast = [
        0.01 * (2 * x * along + STEP * along.square()).square().mean().sqrt() / contrast
        for x in (1.0, 5.0)
    ]
    torch.testing.assert_close(found, torch.stack([torch.tensor(0.0), *fast]), rtol=1e-3, atol=1e-5)


def test_rejected_noise_is_drawn_anew_and_the_rest_stays():
    plain, kept = (bend().noise(2000, seeded(3), None, reject=reject) for reject in (0.0, 0.3))
    edge = 0.524  # which .3 of all normal numbers exceed; 256 of them tell it to within .1
    assert kept[:, 0].max() < edge + 0.25
    assert torch.equal(kept[plain[:, 0] < edge - 0.25], plain[plain[:, 0] < edge - 0.25])
    changed = (kept != plain).any(1).double().mean()
    assert 0.2 < changed < 0.4
    # what is drawn anew is normal below the edge: by the closed form its mean is -phi(edge) / .7
    assert kept[:, 0].mean() == pytest.approx(-0.348 / 0.7, abs=0.15)
    few, more = (bend().noise(count, seeded(3), None, reject=0.3) for count in (20, 256))
    assert torch.equal(few, more[:20])


def test_every_class_has_a_limit_of_its_own():
    labels = torch.arange(2000) % 2
    kept = bend(num_classes=2).noise(2000, seeded(0), labels, reject=0.1)[:, 0]
    for label in (
        0,
        1,
    ):  # both bend where x - label > 0, and 1.28 is what .1 of all normal numbers exceed
        assert 1.0 < kept[labels == label].max() < 1.6


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_where_nothing_is_faster_nothing_is_rejected(slope):
    plain = bend(slope).noise(50, seeded(0), None)
    assert torch.equal(
        bend(slope).noise(50, seeded(0), None, truncation=0.7, reject=0.9), 0.7 * plain
    )


def test_a_checkpoint_brings_its_way_of_sampling_and_the_command_wins(tmp_path, capsys):
    own = write(tmp_path / "own.ckpt", sampling={"truncation": 0.5, "reject": 0.3})
    none = write(tmp_path / "none.ckpt")
    for name, path, more in (
        ("a", own, ()),
        ("b", none, ("--truncation", "0.5", "--reject", "0.3")),
        ("c", own, ("--reject", "0")),
        ("d", none, ("--truncation", "0.5")),
        ("e", own, ("--truncation", "1", "--reject", "0")),
        ("f", none, ()),
    ):
        sample(path, tmp_path / name, "--num-images", "40", "--format", "npz", *more)
        assert ("--truncation 0.5 --reject 0.3" in capsys.readouterr().out) == (name in "ab")
    a, b, c, d, e, f = (np.load(tmp_path / name / "images.npz")["images"] for name in "abcdef")
    assert np.array_equal(a, b) and np.array_equal(c, d) and np.array_equal(e, f)
    assert not np.array_equal(a, c) and not np.array_equal(c, e)
    changed = (a != c).any((1, 2, 3)).sum()  # of 40, .3 on average
    assert 3 <= changed <= 22


@pytest.mark.parametrize("value", ["-0.1", "1", "nan", "x"])
def test_reject_is_a_share_short_of_all(checkpoint, value, capsys):
    assert main(["sample", str(checkpoint), f"--reject={value}"]) == 2
    assert f"'--reject': {value} should be a number from 0 to below 1" in capsys.readouterr().err


def test_a_walk_goes_between_steady_ends(tmp_path):
    own, none = (
        write(tmp_path / "own.ckpt", sampling={"reject": 0.5}),
        write(tmp_path / "none.ckpt"),
    )
    for name, path, more in (("a", own, ()), ("b", none, ("--reject", "0.5")), ("c", none, ())):
        assert (
            main(
                [
                    "interpolate",
                    str(path),
                    "--rows",
                    "6",
                    "--steps",
                    "2",
                    "--out",
                    str(tmp_path / name),
                    *more,
                ]
            )
            == 0
        )
    a, b, c = ((tmp_path / name / "interpolation.png").read_bytes() for name in "abc")
    assert a == b != c


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
    assert Image.open(tmp_path / "interpolation.png").size == (4 * 18 + 2, 2 * 18 + 2)
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
