"""Which pictures are copies of one another, and a held-out slice that keeps copies on one side."""

from collections.abc import Sequence

import numpy as np


def perceptual_hash(thumbs: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S) grey thumbnails -> uint64 (N,): which of 64 slow cosine terms exceed their median (pHash)."""
    size = thumbs.shape[1]
    waves = np.cos(np.pi / size * (np.arange(size) + 0.5) * np.arange(8)[:, None]).astype(
        np.float32
    )
    terms = (waves @ thumbs.astype(np.float32) @ waves.T).reshape(-1, 64)
    bits = terms > np.median(terms[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def same_pairs(values: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) of rows that tie equal values together."""
    order = np.argsort(values, kind="stable")
    same = values[order[:-1]] == values[order[1:]]
    return np.stack([order[:-1][same], order[1:][same]], 1)


def close_pairs(hashes: np.ndarray, distance: int = 4) -> np.ndarray:
    """Pairs (P, 2) of rows whose 64-bit hashes differ in at most `distance` bits.

    Hashes that differ in few bits agree in one of `distance` + 1 pieces, so only those are compared; where thousands
    agree in a piece, each with its nearest in sorted order. Equal hashes are chained, not all paired.
    """
    found = [same_pairs(hashes)]
    single, first = np.unique(hashes, return_index=True)
    steps = 2048 if len(single) < 20_000 else 64 + 20_000_000 // len(single)
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        piece = (single >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.lexsort((single, piece))
        longest = int(np.unique(piece, return_counts=True)[1].max(initial=1))
        for step in range(1, min(longest, steps)):
            a, b = order[:-step], order[step:]
            near = (piece[a] == piece[b]) & (np.bitwise_count(single[a] ^ single[b]) <= distance)
            found.append(np.stack([first[a[near]], first[b[near]]], 1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def look_alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether thumbnails (P, S, S) show one picture: at most 12 grey levels and a quarter of their contrast apart.

    Hashes alone take pictures of one kind for copies: of eggs on dark ground, one pair in three.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    apart = np.sqrt(((a - b) ** 2).mean((1, 2)))
    return apart <= np.minimum(12, (a.std((1, 2)) + b.std((1, 2))) / 8)


def groups(number: int, pairs: np.ndarray) -> np.ndarray:
    """The smallest row that each of `number` rows hangs together with through `pairs`: (N,)."""
    label = np.arange(number)
    while len(pairs):
        before = label.copy()
        lowest = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        np.minimum.at(label, label[pairs[:, 0]], lowest)
        np.minimum.at(label, label[pairs[:, 1]], lowest)
        label = label[label]
        if np.array_equal(before, label):
            break
    return label


def hold_out(digests: Sequence[str], thumbs: np.ndarray, share: float) -> list[int]:
    """Rows to hold out: about `share` of them, chosen by content alone; near-duplicates (4 of 64 bits), mirrored ones
    too, are never parted.

    Where nearly everything resembles everything, only what `look_alike` confirms is kept together. May be empty.
    """
    target = round(len(digests) * share)
    if not target:
        return []
    # a mirrored twin is a copy as well: with dataset.flip it would be trained on
    both = np.concatenate([thumbs, thumbs[:, :, ::-1]])
    pairs = close_pairs(perceptual_hash(both))
    alike = pairs[look_alike(both[pairs[:, 0]], both[pairs[:, 1]])]
    best: list[int] = []
    for kept in (pairs % len(digests), alike % len(digests)):
        label = groups(len(digests), np.concatenate([kept, same_pairs(np.array(digests))]))
        members: dict[int, list[int]] = {}
        for row, group in enumerate(label.tolist()):
            members.setdefault(group, []).append(row)
        chosen: list[int] = []
        for rows in sorted(members.values(), key=lambda rows: min(digests[row] for row in rows)):
            if len(chosen) + len(rows) <= target:
                chosen += rows
        best = max(best, chosen, key=len)
        if 2 * len(best) >= target:
            break
    return sorted(best)
