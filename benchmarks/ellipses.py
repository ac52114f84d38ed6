"""Whole eggs, counted by machine: the share of images in which something nearly elliptic stands out.

    python -m benchmarks.ellipses PATH [--size 64] [--count 600] [--truncation 1]

PATH is a checkpoint, of which --count samples are drawn (--truncation as for `gan-lightning sample`), or a folder of
images, which are all resized to --size. Six maps of an image (brightest colour difference, red, green, red against blue and green, brightness) are cut
at six levels each; of every cut the two largest connected shapes of 3 to 60 % of the image are filled and compared with the
ellipse of the same moments.
An image's figure is the best overlap (intersection over union) found. It misses what no ellipse shows (a second egg, colours)
and takes a lamp for an egg, so it compares sets of the same kind and does not say how many eggs are whole: put the real
photographs beside it. Needs scipy, which the development requirements bring along.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from gan_lightning.data.sources import FolderImages
from gan_lightning.sampling import load_generator

SIDE = 96  # pixels at which shapes are compared
Y, X = np.mgrid[:SIDE, :SIDE]
LEVELS = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65)


def overlap(shape: NDArray[np.bool_]) -> float:
    """Intersection over union of a shape with the ellipse of its own moments; 1 for an ellipse, .83 for a square."""
    ys, xs = np.nonzero(shape)
    spread = np.cov(np.stack([ys, xs])) + np.eye(2) / 12  # a pixel is not a point
    away = np.stack([Y - ys.mean(), X - xs.mean()], -1)
    ellipse = np.einsum("...i,ij,...j", away, np.linalg.inv(spread), away) <= 4
    return float((ellipse & shape).sum() / (ellipse | shape).sum())


def roundest(image: NDArray[np.uint8]) -> float:
    """The best overlap of any shape in an RGB image (H, W, 3); 0 where nothing stands out."""
    pixels = ndimage.zoom(
        image.astype(float), (SIDE / image.shape[0], SIDE / image.shape[1], 1), order=1
    )
    red, green, blue = np.moveaxis(pixels, -1, 0)
    best = 0.0
    for plane in (np.ptp(pixels, -1), red, green, red - blue, red - green, pixels.mean(-1)):
        plane = ndimage.gaussian_filter(plane, 0.8)
        low, high = np.percentile(plane, [2, 99])
        for level in LEVELS if high - low >= 12 else ():  # grey levels
            found, _ = ndimage.label(plane > low + level * (high - low))
            sizes = np.bincount(found.ravel())[1:]
            for k in np.argsort(sizes)[::-1][:2]:
                shape = ndimage.binary_fill_holes(found == k + 1)
                edge = shape[[0, -1]].sum() + shape[:, [0, -1]].sum()
                if 0.03 <= sizes[k] / SIDE**2 <= 0.6 and edge <= SIDE / 4:
                    best = max(best, overlap(shape))
    return best


def images_of(path: Path, size: int, count: int, **noise: float) -> list[NDArray[np.uint8]]:
    if path.is_file():
        samples = load_generator(path).images(count, seed=3, **noise)[:, :3].permute(0, 2, 3, 1)
        return list(samples.expand(-1, -1, -1, 3).numpy())
    source = FolderImages(str(path))
    source.prepare()
    pictures = (source.open(number)[0].convert("RGB") for number in range(len(source)))
    return [
        np.array(picture.resize((size, size), Image.Resampling.LANCZOS)) for picture in pictures
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--truncation", type=float, default=1.0)
    options = parser.parse_args()
    images = images_of(
        options.path,
        options.size,
        options.count,
        truncation=options.truncation,
    )
    found = np.array([roundest(image) for image in images])
    shares = "  ".join(
        f"above .{int(100 * t)}: {(found > t).mean():.3f}" for t in (0.85, 0.88, 0.90, 0.92, 0.94)
    )
    print(f"{len(found)} images, mean overlap {found.mean():.3f}; {shares}")


if __name__ == "__main__":
    main()
