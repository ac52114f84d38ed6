"""Copies stay on one side of the hold-out."""

import numpy as np
import pytest

from gan_lightning.data.similar import hold_out


@pytest.mark.parametrize("mirrored", [False, True])
def test_twins_are_never_parted(mirrored):
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (60, 8, 8)).astype(np.uint8)
    one = np.kron(coarse, np.ones((1, 4, 4), np.uint8))
    other = np.clip(one.astype(int) + draw.integers(-4, 5, one.shape), 0, 255).astype(np.uint8)
    thumbs = np.concatenate([one, other[:, :, ::-1] if mirrored else other])
    held = set(hold_out([f"{i:03d}" for i in range(120)], thumbs, 0.2))
    assert 16 <= len(held) <= 24
    assert all((row in held) == (row + 60 in held) for row in range(60))
