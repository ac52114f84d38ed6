"""What scores cost: `python benchmarks/metrics.py DATA_DIR [--threads 2] [--images 10000]`, DATA_DIR with MNIST/raw.

Prints the seconds of each step: the preparation, once, then digits against the 10,000 test digits, reals cached.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gan_lightning.metrics import distances as D
from gan_lightning.metrics.evaluate import Evaluator

from gan_lightning.data.datamodule import ImageData
from gan_lightning.data.sources import TorchvisionImages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--cache", help="keep the cache here (default: a temporary folder)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    def timed(what: str, function: Any, *inputs: Any, **options: Any) -> Any:
        start = time.monotonic()
        result = function(*inputs, **options)
        print(f"{what:<58}{time.monotonic() - start:8.1f} s", flush=True)
        return result

    with TemporaryDirectory() as folder:
        cache = args.cache or folder
        source = TorchvisionImages("MNIST", str(args.data), download=False)
        data = ImageData(source, 28, 1, cache_dir=cache)
        evaluator = timed(
            "prepare: digit classifier (once)", Evaluator, data, "digits", cache_dir=cache
        )
        print(f"  test accuracy {evaluator.extractor.accuracy:.2%}")
        reals = data.train_images[
            torch.arange(len(data.train_images) - args.images, len(data.train_images))
        ]
        timed("prepare: features of the reals, floor (once)", evaluator.evaluate, reals, light=True)
        found = timed(
            "features, Frechet, KID, PRDC, class histogram, diversity",
            evaluator.evaluate,
            reals,
            light=True,
        )
        x = timed("  of these: features", evaluator.extractor, reals)
        real = evaluator._features(*evaluator.folds[0][0])
        timed("  of these: Frechet", D.frechet, real, x)
        timed("  of these: KID", D.kid, real, x, 10)
        timed("  of these: precision, recall, density, coverage", D.prdc_terms, real, x)
        timed("the same with bootstrap intervals", evaluator._measure, reals, False, light=True)
        timed(
            "all, first time (sliced Wasserstein and copies of the reals)",
            evaluator.evaluate,
            reals,
        )
        timed("all with intervals, sliced Wasserstein, copies", evaluator.evaluate, reals)
        print(
            f"  {found.main.name} of training digits {found.main.value:.3f} (floor {found.main.floor:.3f})"
        )


if __name__ == "__main__":
    main()
