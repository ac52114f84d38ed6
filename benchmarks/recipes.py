"""The recipes' results: every experiment with three seeds, scored alike. Resumable; hours on two cores.

    python -m benchmarks.recipes --data DIR [--only NAME ...] [--seeds 1 2 3] [--table]

DIR holds MNIST/raw and eggs_candling (any folder of photographs). Runs live in logs/recipes/NAME/SEED and are not made
twice; results are gathered into benchmarks/recipes.jsonl, and --table prints them as Markdown without running anything.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "recipes.jsonl"

# name: (overrides, what to score against)
RECIPES = {
    "vanilla_mnist_5_epochs": (
        ["experiment=vanilla_mnist", "trainer.max_epochs=5", "dataset.root={data}"],
        "mnist",
    ),
    "mnist": (["experiment=mnist", "dataset.root={data}"], "mnist"),
    "egg": (["experiment=egg"], "egg"),
    "few_photos": (
        ["experiment=few_photos", "dataset.root={data}/eggs_candling"],
        "{data}/eggs_candling",
    ),
    "few_photos_64": (
        ["experiment=few_photos", "total_kimg=60", "dataset.root={data}/eggs_candling"],
        "{data}/eggs_candling",
    ),
    "few_photos_128": (
        ["experiment=few_photos", "dataset.image_size=128", "dataset.root={data}/eggs_candling"],
        "{data}/eggs_candling",
    ),
}


def run(name: str, seed: int, data: str) -> None:
    overrides, against = RECIPES[name]
    folder = ROOT / "logs" / "recipes" / name / str(seed)
    filled = [override.format(data=data) for override in overrides]
    started = time.monotonic()
    if not (folder / "result.json").is_file():
        command = [
            sys.executable,
            "train.py",
            *filled,
            f"seed={seed}",
            "trainer.accelerator=cpu",
            f"hydra.run.dir={folder}",
        ]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.parent / f"{seed}.log", "w") as log:
            subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=subprocess.STDOUT)
        (folder / "minutes.txt").write_text(f"{(time.monotonic() - started) / 60:.2f}")
    minutes = float((folder / "minutes.txt").read_text())
    target = against.format(data=data)
    command = [
        sys.executable,
        "-m",
        "gan_lightning",
        "evaluate",
        str(folder / "checkpoints/last.ckpt"),
        "--data",
        target,
        "--json",
    ]
    command += ["--data-root", data] if target == "mnist" else []
    scores = json.loads(
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    )
    result = json.loads((folder / "result.json").read_text())
    line = {
        "name": name,
        "seed": seed,
        "minutes": minutes,
        "nimg": result["nimg"],
        "scores": scores,
    }
    with open(RESULTS, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line)[:400], flush=True)


def results() -> dict[tuple[str, int], dict]:
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    return {(line["name"], line["seed"]): line for line in map(json.loads, lines)}


def table() -> str:
    """Median and range over the seeds of every score."""
    rows = [
        "| recipe | seeds | images shown | minutes | score | median | range | floor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in RECIPES:
        runs = [line for (other, _), line in sorted(results().items()) if other == name]
        for position, score in enumerate(runs[0]["scores"]["scores"] if runs else []):
            values = [r["scores"]["scores"][position]["value"] for r in runs]
            rows.append(
                f"| {name} | {len(runs)} | {runs[0]['nimg']:,} | {statistics.median(r['minutes'] for r in runs):.1f} | {score['name']} | "
                f"{statistics.median(values):.4g} | {min(values):.4g} to {max(values):.4g} | {score.get('floor') or 0:.4g} |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=False, help="folder with MNIST/raw and eggs_candling")
    parser.add_argument("--only", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        if not options.data:
            sys.exit("error: --data DIR is needed: the folder with MNIST/raw and eggs_candling")
        for seed in options.seeds:
            for name in options.only:
                if (name, seed) not in results():
                    run(name, seed, str(Path(options.data).resolve()))
    print(table())


if __name__ == "__main__":
    main()
