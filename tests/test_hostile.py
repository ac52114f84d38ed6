"""Files of strangers: whatever a checkpoint or a run folder holds, no code of theirs runs, and the answer is one line."""

import base64
import copy
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import composed, start

from gan_lightning.cli import main
from gan_lightning.errors import UserError

SPRUNG = "trap-sprung"
TINY = (
    "dataset=folder", "dataset.image_size=16", "dataset.batch_size=8", "network=mlp", "network.generator.hidden=[16]",
    "network.discriminator.hidden=[16]", "latent_dim=4", "observer.every_kimg=1", "checkpoints.every_kimg=1",
    "trainer.enable_progress_bar=false", "dataset.cache_dir=cache",
)  # fmt: skip


class Trap:
    """Unpickled by anything but a weights-only reader, it leaves a file behind."""

    def __reduce__(self):
        return (Path.touch, (Path(SPRUNG),))


def call(target, *args):
    """What Hydra would run, in the forms it takes."""
    return {"_target_": target, "_args_": list(args)}


TOUCH = call("subprocess.check_call", ["touch", SPRUNG])
SYMPY = {"_target_": "sympy.sympify", "a": f"__import__('os').system('touch {SPRUNG}')"}
RESOLVER = "${oc.env:HOME}"


@pytest.fixture(scope="module")
def made(tmp_path_factory, photos):
    """A finished run of 2 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        typed = [*TINY, f"dataset.root={photos}", "total_kimg=0.016"]
        return start(composed(*typed), Path("run").absolute(), *typed)[0]


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of it to spoil."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def go_on(made, photos, tmp_path):
    """go_on(path): trains on from a checkpoint."""
    typed = [*TINY, f"dataset.root={photos}", "total_kimg=0.032"]
    typed += [f"dataset.cache_dir={made.parent}/cache"]
    cfg = composed(*typed)

    def on(path):
        mine = copy.deepcopy(cfg)
        mine.ckpt_path = str(path)
        return start(mine, tmp_path / "rest", *typed)[0]

    return on


def put(path, value):
    """A function that sets a nested place of a checkpoint; a list index is a number, `...` all of a dict's keys."""

    def change(checkpoint):
        *way, last = path
        at = checkpoint
        for key in way:
            at = at[key]
        at[last] = value

    return change


def first_weight(checkpoint, value):
    """Replaces the first weight of the generator and of its average."""
    for side in ("generator.", "generator_ema."):
        name = next(
            name
            for name in checkpoint["state_dict"]
            if name.startswith(side) and name.endswith("weight")
        )
        checkpoint["state_dict"][name] = (
            value(checkpoint["state_dict"][name]) if callable(value) else value
        )


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def shared(levels=12):
    """A list that refers to itself so often that all of it would fill the memory."""
    value = [0] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


SCORES, WATCH = ("callbacks", "Observer", "metrics"), ("callbacks", "Observer", "diagnosis")
GENERATOR = ("config", "network", "generator")
# what is done to a good checkpoint; every one of these has to be refused on going on
RESUMED = {
    "an object": put(("more",), Trap()),
    "features to instantiate": put((*SCORES, "features"), TOUCH),
    "features through sympy": put((*SCORES, "features"), SYMPY),
    "an evaluator": put((*SCORES, "evaluator"), TOUCH),
    "a method's name": put((*SCORES, "objective"), 1.0),
    "a dunder": put((*SCORES, "__class__"), "x"),
    "history of the wrong type": put((*SCORES, "history"), "none"),
    "best is a target": put((*SCORES, "best"), TOUCH),
    "another folder": put((*WATCH, "folder"), "/tmp"),
    "thresholds": put((*WATCH, "thresholds"), {}),
    "records are numbers": put((*WATCH, "records"), [1, 2]),
    "a record without a step": put((*WATCH, "records"), [{"kind": "full"}]),
    "counts are words": put((*WATCH, "memory", "counts"), [["a"]]),
    "a budget of words": put(("callbacks", "Observer", "budget", "spent"), "0"),
    "callbacks are a list": put(("callbacks",), []),
    "loops are missing": put(("loops",), None),
    "loops with an attribute": put(
        ("loops", "fit_loop", "epoch_progress", "total", "increment_ready"), 1
    ),
    "loops with words": put(("loops", "fit_loop", "epoch_progress", "total", "ready"), "3"),
    "a negative nimg": put(("nimg",), -5),
    "nimg in words": put(("nimg",), "16"),
    "nimg beyond counting": put(("nimg",), 10**400),
    "a step that is a float": put(("step",), 2.5),
    "random is code": put(("random",), [TOUCH]),
    "random of the wrong length": put(("random", 0, "torch"), torch.zeros(3, dtype=torch.uint8)),
    "random words": put(("random", 0, "python"), ("a", "b", "c")),
    "no optimisers": put(("optimizer_states",), []),
    "optimiser of another shape": put(
        ("optimizer_states", 0, "state", 0, "exp_avg"), torch.zeros(3)
    ),
    "optimiser not finite": put(
        ("optimizer_states", 0, "state", 0, "exp_avg_sq"), torch.full((16, 4), torch.nan)
    ),
    "optimiser with a setting": put(
        ("optimizer_states", 0, "param_groups", 0, "_target_"), "os.system"
    ),
    "optimiser of other weights": put(
        ("optimizer_states", 0, "param_groups", 0, "params"), [0, 1, 7, 3]
    ),
    "stream in words": put(("ImageData",), {"epoch": "0", "position": 0}),
    "progressive from the file": put((*GENERATOR, "progressive"), TOUCH),
    "a resolver": put((*GENERATOR, "hidden"), RESOLVER),
    "another network": put((*GENERATOR, "_target_"), "subprocess.Popen"),
    "configuration is a list": put(("config",), [1]),
    "configuration holds a tensor": put(("config", "latent_dim"), torch.ones(1)),
    "configuration nested deep": put(("config", "x"), nested(200)),
    "configuration like a bomb": put(("config", "x"), shared()),
    "an optimiser of another kind": put(("config", "optimizer_g", "_target_"), "torch.optim.SGD"),
    "weights not finite": lambda c: first_weight(c, lambda w: w * torch.nan),
    "weights of another shape": lambda c: first_weight(c, torch.zeros(2, 2)),
    "weights that are words": lambda c: first_weight(c, "heavy"),
    "weights that are sparse": lambda c: first_weight(c, lambda w: w.to_sparse()),
    "weights larger than the file": lambda c: first_weight(c, torch.zeros(1).expand(10**6, 10**6)),
    "a weight too many": put(("state_dict", "generator.more"), torch.zeros(1)),
    "version of no program": put(("state_dict",), {}),
}
# and these on sampling, evaluating and exporting
SAMPLED = [
    "an object", "a resolver", "another network", "configuration is a list", "configuration holds a tensor", "configuration nested deep",
    "configuration like a bomb", "weights not finite", "weights of another shape", "weights that are words", "weights that are sparse",
    "weights larger than the file", "version of no program",
]  # fmt: skip
NETWORKS = {
    "latent_dim in words": put(("config", "latent_dim"), "8"),
    "latent_dim beyond memory": lambda c: (c["config"].update(latent_dim=10**12), c["config"]["network"]["generator"].update(latent_dim=10**12)),
    "two latent_dims": put(("config", "latent_dim"), 9),
    "hidden layers without end": put((*GENERATOR, "hidden"), [65536] * 50),
    "image_size beyond memory": put((*GENERATOR, "image_size"), 10**9),
    "a depth without end": lambda c: c["config"]["network"].update(generator={
        "_target_": "gan_lightning.networks.dcgan.Generator", "latent_dim": 4, "image_size": 16, "image_channels": 3, "depth": 10**9}),
    "a depth of ten thousand": lambda c: c["config"]["network"].update(generator={
        "_target_": "gan_lightning.networks.dcgan.Generator", "latent_dim": 4, "image_size": 16, "image_channels": 3, "depth": 10**4}),
    "no generator": put(("config", "network"), {}),
    "classes without end": lambda c: (c["config"].update(num_classes=10**12), c["config"]["network"]["generator"].update(num_classes=10**12)),
}  # fmt: skip


def spoil(run: Path, change) -> Path:
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    checkpoint = copy.deepcopy(checkpoint)
    change(checkpoint)
    path = run / "checkpoints" / "evil.ckpt"
    torch.save(checkpoint, path)
    return path


def test_no_stranger_is_gone_on_from(run, go_on):
    """All in one test, as one good run serves them all."""
    for name, change in RESUMED.items():
        path = spoil(run, change)
        with pytest.raises(UserError) as error:
            go_on(path)
        assert "\n" not in str(error.value), name
        assert not Path(SPRUNG).exists(), name


def test_the_good_one_is_gone_on_from(run, go_on):
    path = spoil(run, lambda checkpoint: None)
    rest = go_on(path)
    assert torch.load(rest / "checkpoints/last.ckpt", weights_only=True)["nimg"] == 32


def commands(path: Path, photos: Path) -> list[list[str]]:
    out = str(path.parent / "out")
    return [
        ["sample", str(path), "--out", out, "--num-images", "2"],
        ["interpolate", str(path), "--out", out, "--rows", "1", "--steps", "2"],
        ["evaluate", str(path), "--data", str(photos), "--cache-dir", str(path.parent / "cache")],
        ["export", str(path), "--out", out + ".safetensors"],
        ["export", str(path), "--out", out, "--format", "hub"],
        ["find", str(next(photos.iterdir())), str(path), "--out", out],
    ]


def refused(command: list[str], capsys, name: str) -> None:
    capsys.readouterr()
    assert main(command) == 1, (name, command)
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and "Traceback" not in "".join(lines), (name, lines)
    assert not Path(SPRUNG).exists(), name


def test_no_stranger_is_sampled_from(run, photos, capsys):
    for name, change in ({name: RESUMED[name] for name in SAMPLED} | NETWORKS).items():
        for command in commands(spoil(run, change), photos):
            refused(command, capsys, name)


def files(good: Path, folder: Path):
    """Whole files that are no checkpoints, or only look like one."""
    yield "a bare pickle", pickle.dumps(Trap())
    yield "an empty file", b""
    yield "half a checkpoint", good.read_bytes()[: good.stat().st_size // 2]
    yield "text", b"not a checkpoint"
    legacy = folder / "legacy.pt"
    torch.save(
        {"config": {}, "state_dict": {}, "more": Trap()},
        legacy,
        _use_new_zipfile_serialization=False,
    )
    yield "the format of old", legacy.read_bytes()
    bomb = folder / "bomb.zip"
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("archive/data/999", b"\0" * 10**7)
    yield "a zip that inflates", bomb.read_bytes()
    trap = folder / "trap.zip"
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(trap, "w") as new:
        for entry in old.infolist():
            new.writestr(
                entry.filename,
                pickle.dumps(Trap()) if entry.filename.endswith("data.pkl") else old.read(entry),
            )
    yield "another pickle inside", trap.read_bytes()


def test_no_other_file_is_taken_for_a_checkpoint(run, photos, go_on, capsys):
    for name, content in files(run / "checkpoints/last.ckpt", run):
        path = run / "checkpoints" / "evil.ckpt"
        path.write_bytes(content)
        for command in commands(path, photos):
            refused(command, capsys, name)
        with pytest.raises(UserError):
            go_on(path)
        assert not Path(SPRUNG).exists(), name


SIGNALS, CONFIG = "signals.jsonl", "config.yaml"
RUN_FOLDERS = {
    "code in the configuration": (CONFIG, f"!!python/object/apply:os.system ['touch {SPRUNG}']\n"),
    "a bomb of aliases": (CONFIG, "a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
    "configuration nested deep": (CONFIG, "[" * 5000 + "]" * 5000),
    "configuration is a number": (CONFIG, "5"),
    "thresholds are words": (CONFIG, "diagnosis: {thresholds: {common: {poor: much}}}\n"),
    "thresholds are a list": (CONFIG, "diagnosis: {thresholds: [1]}\n"),
    "learning rates are words": (CONFIG, "optimizer_g: {lr: fast}\noptimizer_d: {lr: [1]}\ndiagnosis: {thresholds: {common: {poor: 1}}}\n"),
    "numbers beyond counting": (SIGNALS, '{"kind": "full", "nimg": 1e999, "step": 1}\n{"kind": "full", "nimg": ' + "9" * 5000 + "}\n"),
    "half a line": (SIGNALS, '{"kind": "full", "nimg": 1'),
    "lines of lists": (SIGNALS, "[1]\n[]\n3\nnull\n"),
    "lines nested deep": (SIGNALS, '{"kind":' + "[" * 100000 + "\n"),
    "facts are words": (SIGNALS, '{"kind": "facts", "thresholds": "none", "config": "none", "n_train": "many"}\n'),
    "not a letter of UTF-8": (SIGNALS, b"\xff\xfe\x00\x01\n"),
    "curves cut anywhere": ("csv/metrics.csv", "step,loss/d,loss/g\n1,2\n1,x,y\n,,,,\n\0"),
    "scores are a list": ("scores.json", "[1, 2]"),
    "scores cut anywhere": ("scores.json", '{"scores": [{"na'),
    "a diagnosis of words": ("diagnosis.json", '"fine"'),
    "a diagnosis with markup": ("diagnosis.json", '{"verdict": "<script>alert(1)</script>", "findings": 3}'),
}  # fmt: skip


def test_run_folders_of_strangers(run, tmp_path, capsys):
    """`diagnose` and `report` answer or refuse in one line; nothing of the folder runs."""
    for name, (file, content) in RUN_FOLDERS.items():
        folder = tmp_path / "evil"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        for command in (["diagnose", str(folder)], ["report", str(folder)]):
            capsys.readouterr()
            code, err = main(command), capsys.readouterr().err
            assert code in (0, 1) and "Traceback" not in err, (name, command)
            assert (code == 0) or err.startswith("error: "), (name, command, err)
            assert not Path(SPRUNG).exists(), name
        page = folder / "report.html"
        assert not page.exists() or "<script>alert" not in page.read_text()


def test_a_link_out_of_the_folder_is_not_followed(run, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"do not show this")
    (run / "images" / "real_images.png").unlink()
    os.symlink(secret, run / "images" / "real_images.png")
    assert main(["report", str(run)]) == 0
    assert base64.b64encode(b"do not show this").decode() not in (run / "report.html").read_text()


def test_a_planted_link_is_replaced_and_not_written_through(tmp_path):
    from gan_lightning.files import write_json

    other = tmp_path / "other.txt"
    other.write_text("mine")
    os.symlink(other, tmp_path / "scores.json")
    write_json(tmp_path / "scores.json", {"a": 1})
    assert other.read_text() == "mine" and json.loads((tmp_path / "scores.json").read_text()) == {
        "a": 1
    }


def overlapping(checkpoint):
    """Optimiser's values that share one place at the end of a storage: written to as if they had one each, memory breaks."""
    for part in checkpoint["optimizer_states"]:
        for values in part["state"].values():
            for name in ("exp_avg", "exp_avg_sq"):
                shape = values[name].shape
                values[name] = torch.zeros(values[name].numel())[-1:].expand(shape)


MORE_RESUMED = {
    "overlapping memory": overlapping,
    "NumPy's position far out": put(("random", 0, "numpy", 2), 2**31 - 1),
    "NumPy's words too few": put(("random", 0, "numpy"), ["MT19937", [1, 2], 0, 0, 0.0]),
    "NumPy's state empty": put(("random", 0, "numpy"), []),
    "Python's state empty": put(("random", 0, "python"), ()),
    "many loaders": put(
        ("loops", "fit_loop", "state_dict"), {"combined_loader": [{"epoch": 0, "position": 1}] * 9}
    ),
    "a place before the beginning": put(("ImageData",), {"epoch": -5, "position": 0}),
}
MORE_NETWORKS = {
    "a discriminator": put((*GENERATOR, "_target_"), "gan_lightning.networks.mlp.Discriminator"),
    "a layer": lambda c: c["config"]["network"].update(
        generator={"_target_": "gan_lightning.networks.blocks.MinibatchStddev"}
    ),
    "the pretrained network": lambda c: c["config"]["network"].update(
        generator={"_target_": "gan_lightning.networks.pretrained.EfficientNetLite"}
    ),
}
MORE_FOLDERS = {
    "curves without a step": ("csv/metrics.csv", "a,b\n1,2\n"),
    "curves without names": ("csv/metrics.csv", ",,,,\n1,2,3,4\n"),
    "rows longer than the names": ("csv/metrics.csv", "step,loss/d\n1,2,3\n"),
    "a curve of words": ("csv/metrics.csv", "step,loss/d\n1,x\n"),
    "a field without end": ("csv/metrics.csv", "step,loss/d\n1," + "9" * 200_000),
    "a configuration without end": (CONFIG, "a:\n" + "- 1\n" * 900_000),
}


def test_strangers_that_were_met_later(run, go_on, photos, tmp_path, capsys):
    for name, change in MORE_RESUMED.items():
        path = spoil(run, change)
        with pytest.raises(UserError):
            go_on(path)
            pytest.fail(name)
    for name, change in MORE_NETWORKS.items():
        for command in commands(spoil(run, change), photos):
            refused(command, capsys, name)
    for name, (file, content) in MORE_FOLDERS.items():
        folder = tmp_path / "evil"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        (folder / file).write_text(content)
        for command in (["diagnose", str(folder)], ["report", str(folder)]):
            capsys.readouterr()
            code, err = main(command), capsys.readouterr().err
            assert (
                code in (0, 1)
                and "Traceback" not in err
                and (code == 0 or err.startswith("error: "))
            ), (
                name,
                command,
            )


def test_a_root_that_no_path_can_have(run, photos, capsys):
    for root in ("~nosuchuser/x", "a\0b", "\ud800"):
        path = spoil(run, put(("config", "dataset", "root"), root))
        little = ["--num-images", "32", "--json"]
        code = main(["evaluate", str(path), "--data", str(photos), *little])
        assert code in (0, 1) and "Traceback" not in capsys.readouterr().err


def test_a_link_out_of_the_folder_is_not_diagnosed(run, tmp_path):
    folder = tmp_path / "linked"
    folder.mkdir()
    os.symlink(run / "signals.jsonl", folder / "signals.jsonl")
    assert main(["diagnose", str(folder)]) == 1
