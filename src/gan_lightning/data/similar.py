"""Which pictures are copies of one another, and a held-out slice that parts none."""

from collections.abc import Sequence

import numpy as np


def pairs_below(first: np.ndarray, second: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Pairs (P, 2) of rows of thumbnails uint8 (N, S, S) and (M, S, S) that show one picture.

    They are at most `limit` times 12 grey levels, and a quarter of their contrast, apart.
    """
    a, b = (t.reshape(len(t), -1).astype(np.float32) - 128 for t in (first, second))
    size = a.shape[1]
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(a), 1024):
        part = a[start : start + 1024]
        squares = (part**2).sum(1)[:, None] + (b**2).sum(1) - 2 * part @ b.T
        contrast = (part.std(1)[:, None] + b.std(1)) / 8
        near = squares <= size * (limit * np.minimum(12, contrast)) ** 2 + 0.01
        found.append(np.argwhere(near) + (start, 0))
    return np.concatenate(found)


def look_alike(thumbs: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """`pairs_below` of thumbnails uint8 (N, S, S), mirrored or not; equal ones are chained."""
    flat = thumbs.reshape(len(thumbs), -1)
    _, first, same = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    single = thumbs[first]
    both = [pairs_below(single, other, limit) for other in (single, single[:, :, ::-1])]
    pairs = first[np.concatenate(both)]
    return np.concatenate([pairs[pairs[:, 0] < pairs[:, 1]], same_pairs(same.reshape(-1))])


def same_pairs(values: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) of rows that tie equal values together."""
    order = np.argsort(values, kind="stable")
    same = values[order[:-1]] == values[order[1:]]
    return np.stack([order[:-1][same], order[1:][same]], 1)


def groups(number: int, pairs: np.ndarray) -> list[list[int]]:
    """The rows 0 .. number - 1, in groups that hang together through `pairs`."""
    label = np.arange(number)
    before = None
    while before is None or not np.array_equal(before, label):
        before = label.copy()
        lowest = label[pairs].min(1)
        np.minimum.at(label, pairs[:, 0], lowest)
        np.minimum.at(label, pairs[:, 1], lowest)
        label = label[label]
    order = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    return [part.tolist() for part in np.split(order, cuts)]


def hold_out(digests: Sequence[str], thumbs: np.ndarray, fraction: float) -> list[int]:
    """About `fraction` of the rows, by content; copies, also mirrored, stay together. May be
    empty."""
    target = round(len(digests) * fraction)
    if not target:
        return []
    pairs = np.concatenate([look_alike(thumbs), same_pairs(np.array(digests))])
    alike = groups(len(digests), pairs)
    chosen: list[int] = []
    for rows in sorted(alike, key=lambda rows: min(digests[row] for row in rows)):
        if len(chosen) + len(rows) <= target:
            chosen += rows
    return sorted(chosen)
