"""Does the diagnosis find what was planted, keep quiet on healthy runs, and does its prescription help?

    python -m benchmarks.diagnosis --data DIR [--on SET ...] [--seeds 1 2 3] [--only NAME ...] [--workers 2] [--minutes M] [--table]

DIR holds MNIST/raw and eggs_candling. Every planted fault is trained with each seed on MNIST and on rendered eggs,
beside healthy runs; then each fault once more with exactly the printed override. Runs live in logs/diagnosis/ and are
not made twice, so that hours on two cores can be spent in pieces, with one thread each. Findings are read again from
the runs' records with the rules and thresholds of now, so a changed threshold needs no new runs (but a changed
override asks for its cure again). --table writes the tables into benchmarks/DIAGNOSIS.md without running anything.
Thresholds were set on MNIST; the eggs and photographs only check them. `--on fashion` does the same on Fashion-MNIST
(DIR holds FashionMNIST/raw as well), which no rule or threshold was ever made or changed for, into a table of its own.
"""

import argparse
import copy
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "logs" / "diagnosis"

# a plain convolutional GAN, small enough that a run is well under a minute on one core
BASE = [
    "network.generator.channels=32", "network.discriminator.channels=32", "network.generator.min_channels=16",
    "network.discriminator.min_channels=16", "network.generator.upsample=resize", "dataset.batch_size=16", "trainer.accelerator=cpu", "total_kimg=24",
    "metrics.num_images=1000", "checkpoints.every_kimg=1000", "console.every_steps=500", "observer.every_kimg=1.6",
    "observer.max_fraction=0.3",  # of half a minute: a real run has time for as many snapshots within its 5 %
]  # fmt: skip
SETS = {
    "mnist": ["dataset=mnist", "dataset.root={data}", "augment=none"],
    "egg": ["dataset=egg", "dataset.image_size=32", "augment=diffaugment"],
    "fashion": ["dataset=fashion_mnist", "dataset.root={data}", "augment=none"],
    "photos": [
        "dataset=folder",
        "dataset.root={data}/eggs_candling",
        "dataset.image_size=32",
        "augment=diffaugment",
    ],
}
LIKE = {"fashion": "mnist"}  # the same faults and healthy runs as there
NOTE = ["network=mlp", "loss.gamma=0", "ema.halflife_kimg=0", "optimizer_g.betas=[0.9,0.999]", "optimizer_d.betas=[0.9,0.999]"]  # fmt: skip


@dataclass
class Fault:
    """What is planted by overrides, or by code where no setting can do it, and which names count as found."""

    overrides: list[str]
    names: set[str]
    plant: str = ""  # a function below
    sets: tuple[str, ...] = ("mnist", "egg")
    curable: bool = True  # can an override undo it? (code that was planted cannot be undone by one)
    healthy: list[str] | None = (
        None  # overrides of a healthy run with the same plant, where no override undoes that
    )


FAULTS = {
    "d_too_strong": Fault(["optimizer_g.lr=5e-5", "optimizer_d.lr=1e-3", "n_critic=5"], {"d_too_strong"}),
    "d_too_weak": Fault(["optimizer_d.lr=1e-6"], {"d_too_weak"}),
    "d_overfits": Fault(["augment=none", "loss.gamma=0", "total_kimg=32"], {"d_overfits"}, "fifty", healthy=["total_kimg=32"]),
    "full_collapse": Fault(["latent_dim=1", "optimizer_g.lr=1e-6"], {"full_collapse", "lr_too_low"}),
    "one_image": Fault([], {"full_collapse"}, "deaf", curable=False),
    "note": Fault([*NOTE, "dataset.batch_size=64", "total_kimg=128"], {"partial_collapse", "full_collapse", "oscillation", "mode_dropping"}),
    "oscillation": Fault([*NOTE, "optimizer_g.lr=2e-3", "optimizer_d.lr=2e-3"], {"oscillation", "partial_collapse", "full_collapse"}),
    "divergence": Fault(["optimizer_g.lr=0.1", "optimizer_d.lr=0.1"], {"divergence", "lr_too_high"}),
    "infinity": Fault([], {"divergence"}, "infinity", curable=False),
    "dead_output": Fault([], {"dead_output"}, "saturate", curable=False),
    "checkerboard": Fault([], {"checkerboard"}, "checkered", curable=False),
    "wrong_range": Fault([], {"wrong_range"}, "unnormalised", curable=False),
    "inverted": Fault([], {"wrong_range"}, "inverted", curable=False),
    "too_few": Fault([], {"dataset_too_small", "d_overfits"}, "twenty", curable=False),
    "copies_times_ten": Fault([], {"dataset_too_small", "d_overfits"}, "tenfold", curable=False),
    "lr_too_high": Fault(["optimizer_g.lr=5e-2", "optimizer_d.lr=5e-2"], {"lr_too_high", "divergence"}),
    "lr_too_low": Fault(["optimizer_g.lr=1e-6"], {"lr_too_low"}),
    "stale_ema": Fault(["ema.halflife_kimg=500", "ema.rampup=0"], {"stale_ema"}),
    "mode_dropping": Fault([], {"mode_dropping"}, "without_ones", sets=("mnist",), curable=False),
    "stopped_early": Fault(["total_kimg=12"], {"stopped_early"}, curable=False),  # no fault: it says to go on
}  # fmt: skip

# not in the catalogue: nothing in the rules was made for them; any finding that is no note counts
UNSEEN = {
    "gamma_1000": Fault(["loss.gamma=1000"], set()),
    "weight_decay": Fault(["+optimizer_g.weight_decay=1"], set()),
    "endless_warmup": Fault(["schedule.warmup_kimg=100000"], set()),
    "deaf_discriminator": Fault([], set(), "frozen", curable=False),
    "swapped": Fault([], set(), "swapped", curable=False),
    "momentum": Fault(["optimizer_g.betas=[0.99,0.999]", "optimizer_d.betas=[0.99,0.999]", "loss.gamma=0"], set()),
    "half_range": Fault([], set(), "half_range", curable=False),
    "one_noise": Fault([], set(), "one_noise", curable=False),
    "few_noises": Fault([], set(), "few_noises", curable=False),
    "sorted": Fault([], set(), "in_order", curable=False),
    "accumulated": Fault([], set(), "accumulated", curable=False),
    "cut_reals": Fault([], set(), "cut_reals", curable=False),
    "label_smoothing": Fault(["loss.label_smoothing=0.9"], set()),
    "n_critic_50": Fault(["n_critic=50"], set()),
    "latent_dim_1": Fault(["latent_dim=1"], set()),
    "tiny_generator": Fault(["network.generator.channels=4", "network.generator.min_channels=2"], set()),
    "always_augmented": Fault(["augment=diffaugment", "augment.p=1"], set()),
    "sgd": Fault([f"optimizer_{side}._target_=torch.optim.SGD" for side in "gd"], set()),
    "no_norm": Fault(["network.generator.norm=none"], set()),
    "minimax": Fault(["loss=minimax"], set()),
    "batch_1": Fault(["dataset.batch_size=1", "total_kimg=6"], set()),
    "norm_in_d": Fault(["network.discriminator.norm=batch"], set()),
    "fast_generator": Fault(["optimizer_g.lr=4e-3", "optimizer_d.lr=1e-4"], set()),
    "no_average": Fault(["ema.halflife_kimg=0", "lr=2e-3", "loss.gamma=0"], set()),
    "tiny_discriminator": Fault(["network.discriminator.channels=2", "network.discriminator.min_channels=1"], set()),
}  # fmt: skip

LOSSES = ["loss=bce", "loss=hinge", "loss=lsgan", "loss=rpgan", "loss=wgan_gp"]
HEALTHY = {
    **{
        f"{data}_{loss.partition('=')[2]}": (data, [loss])
        for data in ("mnist", "egg")
        for loss in LOSSES
    },
    **{
        f"{data}_wgan_gp": (data, ["loss=wgan_gp", "n_critic=5"]) for data in ("mnist", "egg")
    },  # as published
    "mnist_batch32": ("mnist", ["dataset.batch_size=32", "total_kimg=48"]),
    "mnist_batch64": ("mnist", ["dataset.batch_size=64", "total_kimg=96"]),
    "mnist_lr": ("mnist", ["optimizer_g.lr=1e-3", "optimizer_d.lr=1e-3"]),
    "mnist_latent": ("mnist", ["latent_dim=32"]),
    "mnist_group": ("mnist", ["network.generator.norm=group"]),
    "mnist_seed7": ("mnist", ["seed=7"]),
    "mnist_classes": ("mnist", ["conditional=true"]),
    "egg_64": ("egg", ["dataset.image_size=64", "network.generator.upsample=smooth"]),
    "egg_resnet": (
        "egg",
        ["network=resnet", "network.generator.channels=64", "network.discriminator.channels=64"],
    ),
    "egg_ada": ("egg", ["augment=ada", "network.generator.upsample=smooth"]),
    "egg_batch32": ("egg", ["dataset.batch_size=32", "total_kimg=48"]),
    "egg_seed7": ("egg", ["seed=7"]),
    "photos": ("photos", []),
    "photos_rpgan": ("photos", ["loss=rpgan"]),
    "photos_64": (
        "photos",
        ["dataset.image_size=64", "network.generator.upsample=smooth", "total_kimg=32"],
    ),
}


# -- faults that no setting can plant ------------------------------------------------------------------------------


def fifty(module: Any, data: Any) -> None:
    keep(data, 50)
    if module.augment.ops:  # what recipe.choose sets for so few, where it knows of them
        module.augment.p.fill_(0.5)
        module.augment.active = True


def twenty(module: Any, data: Any) -> None:
    keep(data, 20)


def keep(data: Any, count: int) -> None:
    import torch

    from gan_lightning.data.images import ImageStore

    data.train_images = ImageStore(data.train_images[torch.arange(count)])
    data.train_labels = None if data.train_labels is None else data.train_labels[:count]
    data.batch_size = min(data.batch_size, count)


def tenfold(module: Any, data: Any) -> None:
    """Sixty images, ten times each."""
    import torch

    from gan_lightning.data.images import ImageStore

    rows = torch.arange(60).repeat(10)
    data.train_images = ImageStore(data.train_images[rows])
    data.train_labels = None if data.train_labels is None else data.train_labels[rows]


def deaf(module: Any, data: Any) -> None:
    """A generator that does not hear its noise."""
    module.generator.register_forward_pre_hook(lambda layer, inputs: (inputs[0] * 0, *inputs[1:]))
    if module.generator_ema is not None:
        module.generator_ema.register_forward_pre_hook(
            lambda layer, inputs: (inputs[0] * 0, *inputs[1:])
        )


def checkered(module: Any, data: Any) -> None:
    """A pattern of two pixels over every image, as crossed strides leave it; the generator cannot take it back."""

    def stamp(layer: Any, inputs: Any, images: Any) -> Any:
        import torch

        rows, columns = torch.arange(images.shape[2])[:, None], torch.arange(images.shape[3])
        return (images + 0.15 * (1 - 2 * ((rows + columns) % 2))).clamp(-1, 1)

    for network in (module.generator, module.generator_ema):
        network.register_forward_hook(stamp)


def frozen(module: Any, data: Any) -> None:
    """A discriminator with an optimiser that forgets to step."""
    import torch

    module.make_optimizer_d = lambda parameters: torch.optim.SGD(parameters, lr=0.0)


def swapped(module: Any, data: Any) -> None:
    """The generator's loss with its sign turned: it helps the discriminator."""
    original = module.loss.g
    module.loss.g = lambda real, fake: -original(real, fake)


def half_range(module: Any, data: Any) -> None:
    """A sigmoid's range at the end of the generator, for images from -1 to 1."""
    for network in (module.generator, module.generator_ema):
        network.register_forward_hook(lambda layer, inputs, images: (images + 1) / 2)


def one_noise(module: Any, data: Any) -> None:
    """One noise vector for a whole batch."""
    original = module.latents
    module.latents = lambda count: original(1).repeat(count, 1)


def few_noises(module: Any, data: Any) -> None:
    """The same batch of noise at every step."""
    import torch

    known = torch.randn(64, module.latent_dim, generator=torch.Generator().manual_seed(0))
    module.latents = lambda count: known[:count].to(module.device, module.dtype)


def in_order(module: Any, data: Any) -> None:
    """Nobody shuffles: all the zeros, then all the ones, or the eggs by brightness."""
    import torch

    from gan_lightning.data.loader import BatchStream

    stored = data.train_images[torch.arange(len(data.train_images))]
    order = (
        stored.float().mean((1, 2, 3)) if data.train_labels is None else data.train_labels
    ).argsort()
    BatchStream._rows = lambda stream, epoch: (
        order[: stream.per_rank],
        torch.zeros(stream.per_rank, dtype=torch.bool),
    )  # type: ignore[method-assign]


def accumulated(module: Any, data: Any) -> None:
    """The discriminator's gradients are never set to zero."""
    original = module.make_optimizer_d

    def make(parameters: Any) -> Any:
        optimizer = original(parameters)
        optimizer.zero_grad = lambda set_to_none=True: None
        return optimizer

    module.make_optimizer_d = make


def cut_reals(module: Any, data: Any) -> None:
    """Only the real images are augmented."""
    from gan_lightning.augment import Augment

    augment, original = Augment(["translation", "cutout"], p=1.0), data.on_after_batch_transfer
    data.on_after_batch_transfer = lambda batch, index: (lambda x, y: (augment(x), y))(
        *original(batch, index)
    )


def without_ones(module: Any, data: Any) -> None:
    from gan_lightning.data.images import ImageStore

    rows = (data.train_labels != 1).nonzero()[:, 0]
    data.train_images, data.train_labels = (
        ImageStore(data.train_images[rows]),
        data.train_labels[rows],
    )


def saturate(module: Any, data: Any) -> None:
    """Pushes the last layer far up before every forward pass, as a step that was too large would."""
    import torch

    def push(layer: Any, inputs: Any) -> None:
        with torch.no_grad():
            layer.bias.clamp_(min=10.0)

    last_layer(module.generator).register_forward_pre_hook(push)


def last_layer(network: Any) -> Any:
    return [layer for layer in network.modules() if getattr(layer, "bias", None) is not None][-1]


def infinity(module: Any, data: Any) -> None:
    import torch

    original = module.g_step

    def step(*arguments: Any) -> None:
        original(*arguments)
        if module.step == 400:
            with torch.no_grad():
                last_layer(module.generator).weight[0, 0, 0, 0] = float("inf")

    module.g_step = step


def unnormalised(module: Any, data: Any) -> None:
    original = data.on_after_batch_transfer
    data.on_after_batch_transfer = lambda batch, index: (lambda x, y: ((x + 1) / 2, y))(
        *original(batch, index)
    )


def inverted(module: Any, data: Any) -> None:
    original = data.on_after_batch_transfer
    data.on_after_batch_transfer = lambda batch, index: (lambda x, y: (-x, y))(
        *original(batch, index)
    )


PLANTS: dict[str, Callable[[Any, Any], None]] = {
    f.__name__: f
    for f in (
        fifty, twenty, tenfold, deaf, checkered, frozen, swapped, half_range, one_noise, few_noises, in_order, accumulated,
        cut_reals, without_ones, saturate, infinity, unnormalised, inverted,
    )
}  # fmt: skip


# -- running -------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    kind: str  # fault, unseen, healthy, cure, or same: a healthy run with the same plant
    name: str
    data: str
    seed: int
    overrides: list[str]
    plant: str = ""
    cure: str = ""  # the override that was printed

    def __post_init__(self) -> None:
        self.folder = RUNS / self.kind / self.data / self.name / str(self.seed)

    def done(self) -> bool:
        path = self.folder / "job.json"
        return path.is_file() and json.loads(path.read_text())["overrides"] == self.overrides


def jobs(data: str, seeds: list[int], on: list[str]) -> list[Job]:
    def merged(where: str, more: list[str]) -> list[str]:
        return merge([override.format(data=data) for override in SETS[where]] + BASE, more)

    planned = []
    for seed in seeds:
        for kind, faults in (("fault", FAULTS), ("unseen", UNSEEN)):
            for where in on:
                for name, fault in faults.items():
                    if LIKE.get(where, where) in fault.sets or (kind, where) == (
                        "unseen",
                        "photos",
                    ):
                        planned.append(
                            Job(
                                kind, name, where, seed, merged(where, fault.overrides), fault.plant
                            )
                        )
                        if fault.healthy is not None:
                            planned.append(
                                Job(
                                    "same",
                                    name,
                                    where,
                                    seed,
                                    merged(where, fault.healthy),
                                    fault.plant,
                                )
                            )
        if seed == seeds[0]:
            for number, (name, (home, overrides)) in enumerate(HEALTHY.items()):
                for where in on:
                    if LIKE.get(where, where) == home:
                        planned.append(
                            Job("healthy", name, where, 100 + number, merged(where, overrides))
                        )
    return planned


def cures(planned: list[Job]) -> list[Job]:
    """For every finished fault run whose first finding prints an override: the same run with exactly that."""
    again = []
    for job in planned:
        if job.kind == "fault" and FAULTS[job.name].curable and job.done():
            override = next((f["override"] for f in findings(job.folder) if f["override"]), "")
            if override:
                overrides = merge(job.overrides, [override])
                again.append(
                    Job("cure", job.name, job.data, job.seed, overrides, job.plant, override)
                )
    return again


def merge(base: list[str], more: list[str]) -> list[str]:
    from gan_lightning.diagnosis.verdict import follow

    for override in more:
        base = [*base, override] if override.startswith("~") else follow(base, override)
    return base


def run(job: Job) -> None:
    """One job in a process of its own; leaves job.json behind even where the run was ended by a fatal finding."""
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "benchmarks.diagnosis",
        "--one",
        job.plant or "none",
        "--",
        *job.overrides,
    ]
    command += [] if any(o.startswith("seed=") for o in job.overrides) else [f"seed={job.seed}"]
    started = time.monotonic()
    with open(job.folder / "log.txt", "w") as log:
        code = subprocess.run(
            [*command, f"hydra.run.dir={job.folder}"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ).returncode
    summary = {
        "overrides": job.overrides,
        "cure": job.cure,
        "code": code,
        "seconds": time.monotonic() - started,
    }
    (job.folder / "job.json").write_text(json.dumps(summary, indent=1))
    for path in (
        "tensorboard",
        "checkpoints",
        "results",
    ):  # a hundred runs of them would fill the disk
        shutil.rmtree(job.folder / path, ignore_errors=True)
    names = ", ".join(f["name"] for f in findings(job.folder)) or "nothing"
    print(
        f"{job.kind} {job.data} {job.name} {job.seed} {job.cure}: {names}  (score {score(job.folder)}, {summary['seconds']:.0f} s)",
        flush=True,
    )


def findings(folder: Path) -> list[dict[str, Any]]:
    """What the rules of now say of a run's records: the findings that are not resolved, the first one first."""
    from gan_lightning.diagnosis.verdict import judge, read
    from gan_lightning.errors import UserError

    try:
        verdict = judge(read(folder), {})
    except UserError:  # it ended before it began
        return []
    return [f for f in verdict["findings"] if not f["resolved"]]


def score(folder: Path) -> float | None:
    """The run's last Fréchet distance: on digit-classifier features for MNIST, on random ones for photographs."""
    path = folder / "scores.json"
    return round(json.loads(path.read_text())["scores"][0]["value"], 3) if path.is_file() else None


def one(plant: str, overrides: list[str]) -> None:
    """`train.py` with a fault planted between building and fitting."""
    import runpy

    if plant != "none":
        from gan_lightning import run as R
        from gan_lightning.measure.features import build_extractor
        from gan_lightning.measure.scoring import Scoring
        from gan_lightning.measure.snapshot import Reals
        from gan_lightning.observer import Observer

        original, begin = R.Trainer.fit, Scoring.begin

        def fit(self: Any, module: Any, **more: Any) -> None:
            whole = copy.copy(more["datamodule"])
            PLANTS[plant](module, more["datamodule"])
            if more["datamodule"].train_images is not whole.train_images:
                # or what is kept of all would be taken for theirs
                more["datamodule"].content_hash += plant
            for observer in (one for one in self.callbacks if isinstance(one, Observer)):
                # fifty digits cannot teach the classifier that measures digits
                observer.features = build_extractor(observer.features, whole, observer.cache_dir)

            def begin_whole(scoring: Scoring, reals: Reals) -> None:
                """The same yardstick for every run, also where images were taken away."""
                begin(scoring, Reals(whole, reals.extractor, reals.cache_dir))

            Scoring.begin = begin_whole  # type: ignore[method-assign]
            original(self, module, **more)

        R.Trainer.fit = fit  # type: ignore[method-assign]
    sys.argv = [str(ROOT / "train.py"), *overrides]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


# -- the table -----------------------------------------------------------------------------------------------------


def middle(values: Iterable[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{statistics.median(known):.3g}" if known else "–"


def most(names: Iterable[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def table(planned: list[Job], cured: list[Job]) -> str:
    """Markdown: recall, delays and cures per fault; what was not in the catalogue; the healthy runs."""
    done = [job for job in [*planned, *cured] if job.done()]
    said = {job.folder: [f for f in findings(job.folder)] for job in done}
    healthy = {where: [s for j in done if (j.kind, j.data) == ("healthy", where) and (s := score(j.folder))] for where in SETS}  # fmt: skip
    lines = [
        "| fault | set | runs | found first | found | since, kimg | said first | score | printed | score with it | times the healthy | runs within 1.5 |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|---|"]
    total = first = anywhere = treated = waiting = recovered = mended = repeated = 0
    for name, fault in FAULTS.items():
        for where in SETS:
            runs = [j for j in done if (j.kind, j.name, j.data) == ("fault", name, where)]
            if not runs:
                continue
            names = [[f["name"] for f in said[j.folder]] or ["nothing"] for j in runs]
            top, some = (
                sum(n[0] in fault.names for n in names),
                sum(bool(fault.names & set(n)) for n in names),
            )
            total, first, anywhere = total + len(runs), first + top, anywhere + some
            since = [
                f["since_kimg"] for j in runs for f in said[j.folder] if f["name"] in fault.names
            ]
            again = [j for j in done if (j.kind, j.name, j.data) == ("cure", name, where)]
            after = [s for j in again if (s := score(j.folder)) is not None]
            ratio = within = ""
            if fault.curable:
                treated, waiting = treated + bool(again), waiting + (not again)
                same = [
                    s
                    for j in done
                    if (j.kind, j.name, j.data) == ("same", name, where) and (s := score(j.folder))
                ]
                if after and (same or healthy[where]):
                    usual = statistics.median(same or healthy[where])
                    ratio = f"{(times := statistics.median(after) / usual):.2f}"
                    recovered += times <= 1.5
                    well = sum(s <= 1.5 * usual for s in after)
                    mended, repeated, within = (
                        mended + well,
                        repeated + len(again),
                        f"{well} of {len(again)}",
                    )
            lines.append(
                f"| {name} | {where} | {len(runs)} | {top} | {some} | {middle(since)} | {most(n[0] for n in names)} | {middle(score(j.folder) for j in runs)} "
                f"| {f'`{most(j.cure for j in again)}`' if again else '' if fault.curable else 'planted in code' if fault.plant else 'go on'} | {middle(after) if again else ''} | {ratio} | {within} |"
            )
    alarms = [
        j
        for j in done
        if j.kind == "healthy" and any(f["severity"] != "note" for f in said[j.folder])
    ]
    count = sum(j.kind == "healthy" for j in done)
    lines += [
        "",
        f"- First finding right: {first} of {total} runs ({first / max(1, total):.0%}); right at any place: {anywhere} ({anywhere / max(1, total):.0%}).",
        f"- False alarms: {len(alarms)} of {count} healthy runs ({len(alarms) / max(1, count):.0%}).",
        f"- With exactly the printed override the score comes within 1.5 times the healthy runs' median: {recovered} of {treated} faults that an override can undo (median of the seeds), and in {mended} of {repeated} runs; {waiting} faults not run again yet.",
        "",
        "Not in the catalogue (no rule was made for these):",
        "",
        "| planted | set | runs | said | score |",
        "|---|---|---|---|---|",
    ]
    for kind, head in (
        ("unseen", ""),
        ("healthy", "| healthy run | set | seed | said | score |\n|---|---|---|---|---|"),
    ):
        lines += ["", head] if head else []
        groups = dict.fromkeys((j.name, j.data) for j in done if j.kind == kind)
        for name, where in groups:
            runs = [j for j in done if (j.kind, j.name, j.data) == (kind, name, where)]
            said_names = "; ".join(
                dict.fromkeys(
                    ", ".join(f["name"] for f in said[j.folder]) or "nothing" for j in runs
                )
            )
            number = runs[0].seed if kind == "healthy" else len(runs)
            lines.append(
                f"| {name} | {where} | {number} | {said_names} | {middle(score(j.folder) for j in runs)} |"
            )
    return "\n".join(lines)


def write(text: str, mark: str) -> None:
    """Puts the tables between the marks of benchmarks/DIAGNOSIS.md; what people wrote around them stays."""
    path, begin, end = (
        ROOT / "benchmarks" / "DIAGNOSIS.md",
        f"<!-- {mark} -->",
        f"<!-- end of {mark} -->",
    )
    before, _, rest = path.read_text().partition(begin)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def main() -> None:
    if "--one" in sys.argv:
        at = sys.argv.index("--one")
        return one(sys.argv[at + 1], sys.argv[at + 3 :])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="the folder with MNIST/raw and eggs_candling")
    parser.add_argument("--on", nargs="*", choices=SETS, default=["mnist", "egg", "photos"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--only", nargs="*", help="names of faults or healthy runs")
    parser.add_argument(
        "--kinds", nargs="*", default=["fault", "same", "unseen", "healthy", "cure"]
    )
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="start no run after so many"
    )
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    planned = jobs(str(Path(options.data).resolve()), options.seeds, options.on)

    def go(job: Job) -> None:
        wanted = job.kind in options.kinds and (not options.only or job.name in options.only)
        if wanted and not job.done() and time.monotonic() < end:
            run(job)

    if not options.table:
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(go, planned))
            list(pool.map(go, cures(planned)))
    text = table(planned, cures(planned))
    print(text)
    write(text, options.on[0] if options.on in (["fashion"], ["photos"]) else "tables")


if __name__ == "__main__":
    main()
