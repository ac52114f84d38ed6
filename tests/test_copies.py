"""Near-copies: planted ones are found, photographs never seen are not."""

from pathlib import Path

import pytest
import torch
from pooled import Pooled, dataset, noisy, photographs
from torch import Tensor

from gan_lightning.measure.copies import Copies, copies_strip, quiet, relative_nearest, views
from gan_lightning.measure.snapshot import Reals


def test_shifted_and_mirrored_images_are_found_among_the_views() -> None:
    x = photographs(60, 0)
    moved = torch.roll(x.flip(3), (1, -1), (2, 3))
    distance, where, which = relative_nearest([quiet(v) for v in views(moved)], quiet(x))
    assert torch.equal(where, torch.arange(60)) and (which >= 9).all() and distance.max() < 5e-3


@pytest.mark.parametrize("duplicates", [False, True])
def test_copies_are_found_and_held_out_photographs_are_not(
    duplicates: bool, tmp_path: Path
) -> None:
    train, unseen = photographs(180, 0), photographs(100, 7)
    if duplicates:  # burst shots: a third of the photographs, thrice, each a little different
        train = torch.cat([train, *(noisy(train[:60], 4, s) for s in range(2))])
    data = dataset(train, photographs(60, 1), f"copies{duplicates}")
    copies = Copies(Reals(data, Pooled(), tmp_path))

    def rate(images: Tensor) -> float:
        return float((copies.near(images)[0] < 1).float().mean())

    assert rate(unseen) < 0.1 and rate(data.holdout_images) < 0.1
    assert rate(noisy(train[:100], 8)) > 0.95
    assert rate(noisy(torch.roll(train[:100].flip(3), (1, 1), (2, 3)), 4)) > 0.95
    found = copies.near(noisy(train[100:150], 5))[1]
    assert duplicates or torch.equal(found, torch.arange(100, 150))


def test_copies_among_real_eggs(real_data: Path, tmp_path: Path) -> None:
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    files = sorted((real_data / "eggs_candling").glob("*.jpg"))
    if len(files) < 300:
        pytest.skip("no eggs_candling")
    x = torch.stack([pil_to_tensor(Image.open(f).convert("RGB").resize((64, 64))) for f in files])
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    copies = Copies(Reals(dataset(x[:540], x[540:600], "eggs"), Pooled(), tmp_path))
    unseen, copied = (copies.near(y)[0] < 1 for y in (x[600:], noisy(x[:100], 10)))
    assert float(unseen.float().mean()) < 0.1 and float(copied.float().mean()) > 0.95


def test_strip_shows_pairs() -> None:
    train = photographs(50, 0)
    strip = copies_strip(noisy(train[10:18], 3), train, torch.arange(10, 18))
    assert strip.shape == (3, 2 * (24 + 2) + 2, 4 * (48 + 2) + 2) and strip.dtype == torch.uint8
    assert torch.equal(strip[:, 2:26, 26:50], train[10])
