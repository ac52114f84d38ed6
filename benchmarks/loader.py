"""How many batches a second the loader gives by itself, against the usual way to load the same pictures.

    python -m benchmarks.loader [--data DIR]

DIR holds MNIST/raw and, or, folders of images (each is measured); without it, rendered eggs are. "usual" is
torchvision's ImageFolder or MNIST with Resize, CenterCrop, ToTensor, Normalize in a DataLoader(num_workers=0); both
give shuffled float batches in [-1, 1]. Runs alternate A B A B; the figures are medians.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from gan_lightning.data import eggs
from gan_lightning.data.loader import ImageData
from gan_lightning.data.sources import FolderImages, TorchvisionImages

BATCH = 64


def batches_per_second(loader: Iterable, each: Callable, seconds: float) -> float:
    """Whole batches only, over as many epochs as fit into `seconds`."""
    count, start = 0, time.perf_counter()
    while True:
        for batch in loader:
            each(batch)
            count += 1
            if time.perf_counter() - start > seconds:
                return count / (time.perf_counter() - start)


def compare(name: str, data: ImageData, usual: DataLoader, rounds: int, seconds: float) -> None:
    start = time.perf_counter()
    data.prepare()
    built = time.perf_counter() - start
    stream = data.train_dataloader()
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(
            batches_per_second(
                stream, lambda batch: data.on_after_batch_transfer(batch, 0), seconds
            )
        )
        theirs.append(batches_per_second(usual, lambda batch: None, seconds))
    fast, slow = statistics.median(ours), statistics.median(theirs)
    size = "x".join(str(side) for side in data.train_images.shape[1:])
    print(f"{name} ({len(data.train_images)} of {size}, batch {BATCH}): prepared in {built:.1f} s")
    print(f"  cached {fast:9.1f} batches/s  {[round(value, 1) for value in ours]}")
    print(f"  usual  {slow:9.1f} batches/s  {[round(value, 1) for value in theirs]}")
    print(f"  ratio  {fast / slow:9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder with MNIST/raw and, or, folders of images"
    )
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="per measurement")
    args = parser.parse_args()
    print(
        f"python {sys.version.split()[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    options = {"batch_size": BATCH, "shuffle": True, "num_workers": 0, "drop_last": True}
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        if args.data is None:
            folders = [Path(scratch) / "eggs"]
            folders[0].mkdir()
            start = time.perf_counter()
            eggs.write(folders[0], 1000)
            print(f"1000 eggs at 128 px rendered in {time.perf_counter() - start:.1f} s")
        elif (args.data / "MNIST").is_dir():
            norm = transforms.Normalize((0.5,), (0.5,))
            mnist = datasets.MNIST(
                args.data, transform=transforms.Compose([transforms.ToTensor(), norm])
            )
            data = ImageData(TorchvisionImages("MNIST", str(args.data)), 28, 1, BATCH)
            compare("MNIST", data, DataLoader(mnist, **options), args.rounds, args.seconds)
        if args.data is not None:
            folders = [
                path
                for path in sorted(args.data.iterdir())
                if path.is_dir() and any(path.glob("*.[jp][pn]g"))
            ]
        steps = [
            transforms.Resize(args.image_size),
            transforms.CenterCrop(args.image_size),
            transforms.ToTensor(),
        ]
        steps.append(transforms.Normalize((0.5,) * 3, (0.5,) * 3))
        for number, folder in enumerate(folders):
            parent = Path(scratch) / f"usual{number}"  # ImageFolder wants a folder per class
            parent.mkdir()
            (parent / "class").symlink_to(folder.resolve(), target_is_directory=True)
            usual = DataLoader(
                datasets.ImageFolder(str(parent), transforms.Compose(steps)), **options
            )
            data = ImageData(
                FolderImages(str(folder)), args.image_size, 3, BATCH, cache_dir=f"{scratch}/cache"
            )
            compare(folder.name, data, usual, args.rounds, args.seconds)


if __name__ == "__main__":
    main()
