"""Does the diagnosis find what was planted, keep quiet on healthy runs, and does its prescription help?

    python -m benchmarks.diagnosis --data DIR [--seeds 1 2 3] [--only NAME ...] [--minutes M] [--table]

DIR holds MNIST/raw and eggs_candling. Every planted fault is trained with each seed on MNIST and on rendered eggs,
beside healthy runs; then each fault once more with exactly the printed override. Runs live in logs/diagnosis/ and are
not made twice, so that hours on two cores can be spent in pieces; --table writes benchmarks/DIAGNOSIS.md from what
there is, without running anything. Thresholds were set on MNIST; the eggs and photographs only check them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "logs" / "diagnosis"

# a plain convolutional GAN, small enough that a run is about a minute on two cores
BASE = [
    "network.generator.channels=64", "network.discriminator.channels=64", "network.generator.min_channels=16",
    "network.discriminator.min_channels=16", "dataset.batch_size=32", "metrics=none", "trainer.accelerator=cpu",
    "pictures.every_kimg=1000", "checkpoints.every_kimg=1000", "console.every_steps=500", "total_kimg=48", "diagnosis.full_every=100",
]  # fmt: skip
SETS = {
    "mnist": ["dataset=mnist", "dataset.root={data}", "augment=none"],
    "egg": ["dataset=egg", "dataset.image_size=32", "augment=diffaugment"],
}
NOTE = [
    "network=mlp",
    "loss.gamma=0",
    "ema.halflife_kimg=0",
    "optimizer_g.betas=[0.9,0.999]",
    "optimizer_d.betas=[0.9,0.999]",
]


@dataclass
class Fault:
    """What is planted by overrides, or by code where no setting can do it, and which names count as found."""

    overrides: list[str]
    names: set[str]
    plant: str = ""  # a function below
    sets: tuple[str, ...] = ("mnist", "egg")
    curable: bool = True  # can an override undo it? (code that was planted cannot be undone by one)


FAULTS = {
    "d_too_strong": Fault(["optimizer_g.lr=5e-5", "optimizer_d.lr=1e-3", "n_critic=5"], {"d_too_strong"}),
    "d_too_weak": Fault(["optimizer_d.lr=1e-6"], {"d_too_weak"}),
    "d_overfits": Fault(["augment=none", "loss.gamma=0", "total_kimg=64"], {"d_overfits"}, "fifty"),
    "full_collapse": Fault(["latent_dim=1", "optimizer_g.lr=1e-6"], {"full_collapse", "lr_too_low"}),
    "oscillation": Fault([*NOTE, "optimizer_g.lr=2e-3", "optimizer_d.lr=2e-3"], {"oscillation", "partial_collapse"}),
    "divergence": Fault(["optimizer_g.lr=0.1", "optimizer_d.lr=0.1"], {"divergence", "lr_too_high"}),
    "infinity": Fault([], {"divergence"}, "infinity", curable=False),
    "dead_output": Fault([], {"dead_output"}, "saturate", curable=False),
    "checkerboard": Fault(["network.generator._target_=benchmarks.plants.Checkered", "~network.generator.upsample", "~network.generator.norm"], {"checkerboard"}, curable=False),
    "wrong_range": Fault([], {"wrong_range"}, "unnormalised", curable=False),
    "inverted": Fault([], {"wrong_range"}, "inverted", curable=False),
    "too_few": Fault([], {"dataset_too_small", "d_overfits"}, "twenty"),
    "lr_too_high": Fault(["optimizer_g.lr=5e-2", "optimizer_d.lr=5e-2"], {"lr_too_high", "divergence"}),
    "lr_too_low": Fault(["optimizer_g.lr=1e-6"], {"lr_too_low"}),
    "stale_ema": Fault(["ema.halflife_kimg=500", "ema.rampup=0"], {"stale_ema"}),
    "mode_dropping": Fault([], {"mode_dropping"}, "without_ones", sets=("mnist",), curable=False),
    "stopped_early": Fault(["total_kimg=3.2"], {"stopped_early"}),
}  # fmt: skip

LOSSES = ["loss=bce", "loss=hinge", "loss=lsgan", "loss=rpgan", "loss=wgan_gp"]
HEALTHY = {
    **{f"{data}_{loss.partition('=')[2]}": (data, [loss]) for data in SETS for loss in LOSSES},
    "mnist_batch16": ("mnist", ["dataset.batch_size=16"]),
    "mnist_batch64": ("mnist", ["dataset.batch_size=64", "total_kimg=64"]),
    "mnist_lr": ("mnist", ["optimizer_g.lr=5e-4", "optimizer_d.lr=5e-4"]),
    "mnist_latent": ("mnist", ["latent_dim=32"]),
    "mnist_group": ("mnist", ["network.generator.norm=group"]),
    "mnist_seed7": ("mnist", ["seed=7"]),
    "egg_64": ("egg", ["dataset.image_size=64", "dataset.batch_size=16"]),
    "egg_resnet": ("egg", ["network=resnet", "network.generator.channels=64", "network.discriminator.channels=64"]),
    "egg_ada": ("egg", ["augment=ada"]),
    "egg_seed7": ("egg", ["seed=7"]),
    "photos": ("photos", []),
    "photos_rpgan": ("photos", ["loss=rpgan"]),
}
SETS["photos"] = ["dataset=folder", "dataset.root={data}/eggs_candling", "dataset.image_size=32", "augment=diffaugment"]


# -- faults that no setting can plant ------------------------------------------------------------------------------


def fifty(module: Any, data: Any) -> None:
    keep(data, 50)


def twenty(module: Any, data: Any) -> None:
    keep(data, 20)


def keep(data: Any, count: int) -> None:
    import torch

    from gan_lightning.data.images import ImageStore

    data.train_images = ImageStore(data.train_images[torch.arange(count)])
    data.train_labels = None if data.train_labels is None else data.train_labels[:count]
    data.batch_size = min(data.batch_size, count)


def without_ones(module: Any, data: Any) -> None:
    from gan_lightning.data.images import ImageStore

    rows = (data.train_labels != 1).nonzero()[:, 0]
    data.train_images, data.train_labels = ImageStore(data.train_images[rows]), data.train_labels[rows]


def saturate(module: Any, data: Any) -> None:
    """Pushes the last layer far up before every forward pass, as a step that was too large would."""
    import torch

    def push(layer: Any, inputs: Any) -> None:
        with torch.no_grad():
            layer.bias.clamp_(min=10.0)

    module.generator.image.register_forward_pre_hook(push)


def infinity(module: Any, data: Any) -> None:
    import torch

    original = module.g_step

    def step(*arguments: Any) -> None:
        original(*arguments)
        if module.step == 400:
            with torch.no_grad():
                module.generator.image.weight[0, 0, 0, 0] = float("inf")

    module.g_step = step


def unnormalised(module: Any, data: Any) -> None:
    original = data.on_after_batch_transfer
    data.on_after_batch_transfer = lambda batch, index: (lambda x, y: ((x + 1) / 2, y))(*original(batch, index))


def inverted(module: Any, data: Any) -> None:
    original = data.on_after_batch_transfer
    data.on_after_batch_transfer = lambda batch, index: (lambda x, y: (-x, y))(*original(batch, index))


PLANTS: dict[str, Callable[[Any, Any], None]] = {
    f.__name__: f for f in (fifty, twenty, without_ones, saturate, infinity, unnormalised, inverted)
}


# -- running -------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    kind: str  # fault, healthy or cure
    name: str
    data: str
    seed: int
    overrides: list[str]
    plant: str = ""
    done: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = RUNS / self.kind / self.data / self.name / str(self.seed)
        self.done = self.folder / "job.json"


def jobs(data: str, seeds: list[int]) -> list[Job]:
    def base(name: str) -> list[str]:
        return [override.format(data=data) for override in SETS[name]] + BASE

    planned = []
    for seed in seeds:
        for name, fault in FAULTS.items():
            for where in fault.sets:
                planned.append(Job("fault", name, where, seed, merge(base(where), fault.overrides), fault.plant))
    for number, (name, (where, overrides)) in enumerate(HEALTHY.items()):
        planned.append(Job("healthy", name, where, 100 + number, merge(base(where), overrides)))
    return planned


def merge(base: list[str], more: list[str]) -> list[str]:
    from gan_lightning.diagnosis.verdict import follow

    for override in more:
        base = [*base, override] if override.startswith("~") else follow(base, override)
    return base


def run(job: Job) -> None:
    """One job in a process of its own; leaves job.json behind even where the run was ended by a fatal finding."""
    job.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.diagnosis", "--one", job.plant or "none", "--", *job.overrides]
    command += [] if any(o.startswith("seed=") for o in job.overrides) else [f"seed={job.seed}"]
    started = time.monotonic()
    with open(job.folder / "log.txt", "w") as log:
        code = subprocess.run(
            [*command, f"hydra.run.dir={job.folder}"], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        ).returncode
    path = job.folder / "diagnosis.json"
    diagnosis = json.loads(path.read_text()) if path.is_file() else None
    summary = {"kind": job.kind, "name": job.name, "data": job.data, "seed": job.seed, "overrides": job.overrides, "plant": job.plant,
               "code": code, "seconds": round(time.monotonic() - started, 1), "diagnosis": diagnosis, "quality": quality(job.folder)}  # fmt: skip
    job.done.write_text(json.dumps(summary, indent=1))
    found = [f["name"] for f in active(diagnosis)] if diagnosis else ["no diagnosis"]
    print(
        f"{job.kind} {job.data} {job.name} {job.seed}: {', '.join(found) or 'nothing'}  ({summary['seconds']} s, quality {summary['quality']})",
        flush=True,
    )


def quality(folder: Path) -> float | None:
    """The run's last quality (0 = like the data), the mean of its last two full looks."""
    path = folder / "signals.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    values = [r["quality"] for r in records if r.get("kind") == "full" and r.get("quality") is not None]
    return round(statistics.mean(values[-2:]), 4) if values else None


def active(diagnosis: dict[str, Any]) -> list[dict[str, Any]]:
    return [f for f in diagnosis["findings"] if not f["resolved"]]


def cures(seeds: list[int]) -> list[Job]:
    """For every fault run whose first finding prints an override: the same run with exactly that."""
    planned = []
    for path in sorted(RUNS.glob("fault/*/*/*/job.json")):
        done = json.loads(path.read_text())
        first = next((f for f in active(done["diagnosis"]) if f["override"]), None) if done["diagnosis"] else None
        if first and FAULTS[done["name"]].curable and done["seed"] in seeds:
            planned.append(
                Job(
                    "cure",
                    done["name"],
                    done["data"],
                    done["seed"],
                    merge(done["overrides"], [first["override"]]),
                    done["plant"],
                )
            )
    return planned


def one(plant: str, overrides: list[str]) -> None:
    """`train.py` with a fault planted between building and fitting."""
    import runpy

    if plant != "none":
        from gan_lightning import run as R

        original = R.Trainer.fit

        def fit(self: Any, module: Any, **more: Any) -> None:
            PLANTS[plant](module, more["datamodule"])
            original(self, module, **more)

        R.Trainer.fit = fit  # type: ignore[method-assign]
    sys.argv = [str(ROOT / "train.py"), *overrides]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


# -- the table -----------------------------------------------------------------------------------------------------


def finished(kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RUNS.glob(f"{kind}/*/*/*/job.json"))]


def table() -> str:
    faults, healthy, cured = (
        finished("fault"),
        finished("healthy"),
        {(j["data"], j["name"], j["seed"]): j for j in finished("cure")},
    )
    lines = [
        "| fault | set | runs | first | any | delay, kimg | first override | quality: fault, with the override |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first_right = total = recovered = treated = 0
    healthy_quality = {
        where: statistics.median(
            [j["quality"] for j in healthy if j["data"] == where and j["quality"] is not None] or [float("nan")]
        )
        for where in SETS
    }
    for name, fault in FAULTS.items():
        for where in fault.sets:
            runs = [j for j in faults if j["name"] == name and j["data"] == where and j["diagnosis"]]
            if not runs:
                continue
            found = [[f["name"] for f in active(j["diagnosis"])] for j in runs]
            top = sum(bool(f) and f[0] in fault.names for f in found)
            anywhere = sum(bool(set(f) & fault.names) for f in found)
            delays = [f["since_kimg"] for j in runs for f in j["diagnosis"]["findings"] if f["name"] in fault.names]
            total, first_right = total + len(runs), first_right + top
            again = [cured[key] for j in runs if (key := (where, name, j["seed"])) in cured]
            override = next((f["override"] for j in runs for f in active(j["diagnosis"])[:1]), "")
            before = statistics.median([j["quality"] for j in runs if j["quality"] is not None] or [float("nan")])
            after = statistics.median([j["quality"] for j in again if j["quality"] is not None] or [float("nan")])
            if again:
                treated += 1
                recovered += after <= max(1.5 * healthy_quality[where], 0.05)
            lines.append(
                f"| {name} | {where} | {len(runs)} | {top} | {anywhere} | {statistics.median(delays) if delays else '-'} | `{override}` | {before:.3g}, {after:.3g} |"
            )
    alarms = [j for j in healthy if j["diagnosis"] and [f for f in active(j["diagnosis"]) if f["severity"] != "note"]]
    lines += [
        "",
        f"Recall, first finding right: {first_right} of {total}. ",
        f"False alarms: {len(alarms)} of {len(healthy)} healthy runs.",
    ]
    lines += [
        f"Recovered with the printed override (quality at most 1.5 times the healthy runs' or .05): {recovered} of {treated} faults.",
        "",
    ]
    lines += ["| healthy run | set | findings | quality |", "|---|---|---|---|"]
    for j in healthy:
        lines.append(
            f"| {j['name']} | {j['data']} | {', '.join(f['name'] for f in active(j['diagnosis'])) if j['diagnosis'] else 'no diagnosis'} | {j['quality']} |"
        )
    return "\n".join(lines)


def main() -> None:
    if "--one" in sys.argv:
        at = sys.argv.index("--one")
        return one(sys.argv[at + 1], sys.argv[at + 3 :])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--only", nargs="*", help="names of faults or healthy runs")
    parser.add_argument("--kinds", nargs="*", default=["fault", "healthy", "cure"])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so many")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    if not options.table:
        if not options.data:
            sys.exit("error: --data DIR is needed: the folder with MNIST/raw and eggs_candling")
        for part in (lambda: jobs(str(Path(options.data).resolve()), options.seeds), lambda: cures(options.seeds)):
            for job in part():
                wanted = job.kind in options.kinds and (not options.only or job.name in options.only)
                if wanted and not job.done.is_file() and time.monotonic() < end:
                    run(job)
    print(table())


if __name__ == "__main__":
    main()
