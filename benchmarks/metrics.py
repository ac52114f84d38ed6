"""What scores cost: `python benchmarks/metrics.py DATA_DIR [--threads 2] [--images 10000]`, DATA_DIR with MNIST/raw.

Prints the seconds of each step: the preparation, once, then digits against the 10,000 test digits, reals cached.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gan_lightning.data.loader import ImageData
from gan_lightning.data.sources import TorchvisionImages
from gan_lightning.measure import distances as D
from gan_lightning.measure.copies import Copies
from gan_lightning.measure.features import build_extractor
from gan_lightning.measure.scores import Scores, evaluate
from gan_lightning.measure.snapshot import Reals, Snapshot


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
        extractor = timed(
            "prepare: digit classifier (once)", build_extractor, "digits", data, cache
        )
        reals, count = Reals(data, extractor, cache), len(data.train_images)
        images = data.train_images[torch.arange(count - args.images, count)]

        def scored(**options: Any) -> Scores:
            return evaluate(Snapshot(reals, images), **options)

        timed("prepare: features of the reals, floor (once)", scored)
        timed("features, Fréchet, KID, PRDC, class histogram", scored)
        x = timed("  of these: features", reals.see, images)
        real, _, radii = reals.known(0)
        timed("  of these: Fréchet", D.frechet, real, x)
        timed("  of these: KID", D.kid, real, x, 10)
        timed("  of these: PRDC", D.prdc_terms, real, x, radius_real=radii)
        timed("the same with bootstrap intervals", scored, seconds=4.0)
        timed("all, first time (copies of the reals)", scored, seconds=4.0, copies=Copies(reals))
        found = timed("all with intervals and copies", scored, seconds=4.0, copies=Copies(reals))
        main = found.scores[0]
        print(f"  {main.name} of training digits {main.value:.3f} (floor {main.floor:.3f})")


if __name__ == "__main__":
    main()
