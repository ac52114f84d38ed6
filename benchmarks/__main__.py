"""`make bench`: everything this machine can measure in a few minutes, each figure beside its baseline.

    python -m benchmarks [--data DIR] [--only NAME ...]

DIR (or GAN_LIGHTNING_DATA) holds MNIST/raw; random images stand in otherwise. Prints the figures and writes
benchmarks/RESULTS.md with the machine, the versions, the date and the commands.
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.throughput import machine

ROOT = Path(__file__).parent.parent


def commands(data: str | None) -> dict[str, list[str]]:
    where = ["--data", data] if data else []
    return {
        "throughput": ["-m", "benchmarks.throughput", *where, "--steps", "100", "--rounds", "3"],
        "loader": ["-m", "benchmarks.loader", *where, "--rounds", "3", "--seconds", "2"],
        "start": ["-m", "benchmarks.start", *where, "--rounds", "3"],
        "watching": ["-m", "benchmarks.watching", *where, "--rounds", "1"],
        "growth": ["-m", "benchmarks.growth", "--plots", "benchmarks/plots"],
    }


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("GAN_LIGHTNING_DATA") or None)
    parser.add_argument("--only", nargs="*", choices=commands(None))
    options = parser.parse_args()
    path = ROOT / "benchmarks" / "RESULTS.md"
    kept = dict(
        re.findall(
            r"^## (\w+)\n\n(.*?)(?=^## |\Z)",
            path.read_text() if path.is_file() else "",
            re.M | re.S,
        )
    )
    failed = []
    for name, command in commands(options.data).items():
        if options.only and name not in options.only:
            continue
        print(f"\n== {name}: python {' '.join(command)}", flush=True)
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        if process.wait():
            failed.append(name)
        shown = " ".join(command).replace(options.data or "\0", "DIR")
        where = f"{machine(torch.device('cpu'))}, {datetime.date.today()}"
        kept[name] = f"{where}\n\n```\n$ python {shown}\n{''.join(lines)}```\n\n"
    sections = [f"## {name}\n\n{kept[name]}" for name in commands(None) if name in kept]
    head = "# Measured\n\nMedians; baselines take turns in the same run.\n\n"
    path.write_text(head + "".join(sections).rstrip() + "\n")
    if failed:
        print(f"error: {', '.join(failed)} ended early", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
