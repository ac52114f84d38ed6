"""Whether `find` finds again what the generator made: python -m benchmarks.find --checkpoint CKPT

A target counts as found where the found image is nearer to it than the nearest of 1,000 others of the same generator:
by pixels, by the features of the search (EfficientNet-Lite0 and pixels), and by features that the search never saw
(EfficientNet-Lite2, as in the scores). The search begins with seeds 0 to 255, none of which is a target.
"""

import argparse
import json
import time

import torch
from torch import Tensor

from gan_lightning.data.images import to_float
from gan_lightning.find import CHUNK, RANDOM, Eye, Finder
from gan_lightning.measure.features import Lite2
from gan_lightning.sampling import load_generator

TARGETS, OTHERS = 10**6, 2 * 10**6  # first seeds


class Nearest:
    """Distances of images to targets, one pair each or against all others, by three measures."""

    def __init__(self, others: Tensor) -> None:
        self.eye, self.lite2 = Eye(), Lite2()
        self.seen, self.features = self.search(others), self.lite2(others)
        self.pixels = to_float(others).flatten(1)

    @torch.no_grad()
    def search(self, images: Tensor) -> list[Tensor]:
        parts = [self.eye.see(to_float(part)) for part in images.split(CHUNK)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    @torch.no_grad()
    def compare(self, target: Tensor, found: Tensor) -> dict[str, tuple[float, float]]:
        """uint8 (1, C, H, W) each: by measure the found image's distance and the nearest other's."""
        goal, own = self.search(target), self.search(found)
        by_eye = self.eye.distances(own, goal), self.eye.distances(self.seen, goal).min()
        feature, pixel = self.lite2(target), to_float(target).flatten(1)
        by_lite2 = (self.lite2(found) - feature).norm(), torch.cdist(feature, self.features).min()
        by_pixel = (
            (to_float(found).flatten(1) - pixel).norm(),
            torch.cdist(pixel, self.pixels).min(),
        )
        measured = {"search": by_eye, "lite2": by_lite2, "pixels": by_pixel}
        return {name: (float(a), float(b)) for name, (a, b) in measured.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--targets", type=int, default=100)
    parser.add_argument("--others", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--together", type=int, default=10, help="targets of one search")
    given = parser.parse_args()
    sampler = load_generator(given.checkpoint, device="cpu")
    nearest = Nearest(sampler.images(given.others, OTHERS))
    finder = Finder(sampler, given.steps)
    rows, spent = [], 0.0
    for start in range(0, given.targets, given.together):
        count = min(given.together, given.targets - start)
        targets = sampler.images(count, TARGETS + start)
        began = time.process_time()
        found = finder.find(to_float(targets)).images
        spent += time.process_time() - began
        rows += [nearest.compare(targets[k : k + 1], found[k : k + 1]) for k in range(count)]
        line: dict[str, object] = {
            "targets": len(rows),
            "cpu_seconds_each": round(spent / len(rows), 1),
        }
        for name in rows[0]:
            ratios = torch.tensor([row[name][0] / row[name][1] for row in rows])
            line[name] = {
                "found": int((ratios < 1).sum()),
                "median_ratio": round(float(ratios.median()), 3),
                "worst_ratio": round(float(ratios.max()), 3),
            }
        print(json.dumps(line), flush=True)
    print(f"{given.steps} steps, {finder.restarts} restarts from the best of {RANDOM}")


if __name__ == "__main__":
    main()
