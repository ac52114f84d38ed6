"""The note's loop, here and as a whole process that benchmarks/watching.py times from outside.

    python -m benchmarks.note --data DIR --images 240000

DIR holds MNIST/raw. Shows at least so many images in batches of 64, and does nothing else: no pictures, no scores.
Imports no more than such a program would.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

BATCH = 64
PREPARE = transforms.Compose(
    [transforms.Resize(28), transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
)


class Clock:
    """Seconds on the device between two calls."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def networks(device: torch.device) -> tuple[nn.Module, nn.Module]:
    """The note's generator and discriminator, the latter with its sigmoid."""
    g, d = [], []
    for a, b in ((100, 256), (256, 512), (512, 1024)):
        g += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
    for a, b in ((784, 1024), (1024, 512), (512, 256)):
        d += [nn.Linear(a, b), nn.LeakyReLU(0.2), nn.Dropout(0.3)]
    generator = nn.Sequential(*g, nn.Linear(1024, 784), nn.Tanh())
    return generator.to(device), nn.Sequential(*d, nn.Linear(256, 1), nn.Sigmoid()).to(device)


def note_loop(loader: DataLoader, device: torch.device) -> Callable[[int], float]:
    """The note's program as one would write it down: images a second over `steps` steps."""
    generator, discriminator = networks(device)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4)
    criterion, clock = nn.BCELoss(), Clock(device)
    batches = iter(loader)

    def run(steps: int) -> float:
        nonlocal batches
        start, shown = clock(), 0
        for _ in range(steps):
            try:
                images, _ = next(batches)
            except StopIteration:
                batches = iter(loader)
                images, _ = next(batches)
            real = images.view(len(images), -1).to(device)
            ones, zeros = (
                torch.ones(len(real), 1, device=device),
                torch.zeros(len(real), 1, device=device),
            )
            fake = generator(torch.randn(len(real), 100, device=device))
            d_loss = criterion(discriminator(real), ones) + criterion(
                discriminator(fake.detach()), zeros
            )
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()
            g_loss = criterion(discriminator(fake), ones)
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            shown += len(real)
        return shown / (clock() - start)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, required=True)
    options = parser.parse_args()
    digits = datasets.MNIST(options.data, transform=PREPARE)
    loader = DataLoader(digits, batch_size=BATCH, shuffle=True)
    note_loop(loader, torch.device("cpu"))(-(-options.images // BATCH))


if __name__ == "__main__":
    main()
