"""Copies are found, and stay on one side of the hold-out."""

import numpy as np
import pytest

from gan_lightning.data.similar import groups, hold_out, look_alike, pairs_below


def twins(mirrored: bool) -> np.ndarray:
    """Sixty thumbnails and, behind them, each once more with noise."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (60, 8, 8)).astype(np.uint8)
    one = np.kron(coarse, np.ones((1, 2, 2), np.uint8))
    other = np.clip(one.astype(int) + draw.integers(-4, 5, one.shape), 0, 255).astype(np.uint8)
    return np.concatenate([one, other[:, :, ::-1] if mirrored else other])


@pytest.mark.parametrize("mirrored", [False, True])
def test_twins_are_found_and_never_parted(mirrored):
    thumbs = twins(mirrored)
    assert sorted(look_alike(thumbs).tolist()) == [[row, row + 60] for row in range(60)]
    held = set(hold_out([f"{i:03d}" for i in range(120)], thumbs, 0.2))
    assert 16 <= len(held) <= 24
    assert all((row in held) == (row + 60 in held) for row in range(60))


def test_pairs_are_those_of_the_definition():
    """Also across blocks of 1,024, and where hundreds are equal."""
    draw = np.random.default_rng(0)
    thumbs = draw.integers(90, 130, (1500, 4, 4)).astype(np.uint8)
    flat = thumbs.reshape(1500, -1).astype(float)
    for row in (3, 1030):
        apart = np.sqrt(((flat[row] - flat) ** 2).mean(1))
        right = np.flatnonzero(apart <= np.minimum(12, (flat[row].std() + flat.std(1)) / 8))
        found = pairs_below(thumbs, thumbs)
        assert found[found[:, 0] == row, 1].tolist() == right.tolist()
    equal = np.repeat(thumbs[:1], 500, axis=0)
    assert len(look_alike(equal)) == 499 and len(groups(500, look_alike(equal))) == 1


def test_groups_hang_together():
    pairs = np.array([[0, 3], [3, 5], [1, 2], [7, 6]])
    assert groups(8, pairs) == [[0, 3, 5], [1, 2], [4], [6, 7]]
    assert groups(3, np.zeros((0, 2), int)) == [[0], [1], [2]]
