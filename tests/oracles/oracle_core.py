"""What the core should compute, slowly and plainly in numpy, written from the definitions and not from the C++."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
MASK32 = 0xFFFFFFFF


def philox4x32_10(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 in Python integers, as in the paper: ten rounds, the key bumped between them."""
    c, k = list(counter), list(key)
    for turn in range(10):
        if turn:
            k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right & MASK32, (left >> 32) ^ c[3] ^ k[1], left & MASK32]
    return c


def random_bits(seed: int, stream: int, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    out = []
    for number in ids.tolist():
        number &= 2**64 - 1
        w = philox4x32_10([number & MASK32, number >> 32, stream & MASK32, stream >> 32], [seed & MASK32, seed >> 32])
        out.append(w[0] | w[1] << 32)
    return np.array(out, dtype=np.uint64)


def epoch_order(seed: int, epoch: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    keys = random_bits(seed, epoch << 8 | 1, ids).tolist()
    rank = sorted(range(len(ids)), key=lambda i: (keys[i], int(ids[i]), i))
    return np.array(rank, dtype=np.int64)


def gram(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    wide = masks.astype(np.float64)
    return (wide.T @ wide).astype(np.int64)  # exact below 2^53


def subset_sums(masks: NDArray[np.bool_], outputs: Floats, shift: Floats) -> NDArray[np.float64]:
    """By selection and not by multiplication, so that NaN stays in its row."""
    centred = (outputs.astype(np.float64) - shift).astype(np.longdouble)
    out = np.zeros((masks.shape[1], outputs.shape[1]))
    for k in range(masks.shape[1]):
        out[k] = centred[masks[:, k]].sum(axis=0)
    return out


def subset_sums_in_order(masks: NDArray[np.bool_], outputs: Floats, shift: Floats) -> NDArray[np.float64]:
    """The order of additions that the core promises, in the outputs' precision (at least float32): 3 rows one after
    another, two of those, four of those one after another, two of those: 48 rows; 8 of these one after another, and
    what they give in float64.
    """
    kind = np.float64 if outputs.dtype == np.float64 else np.float32
    centred = (outputs.astype(np.float64) - shift).astype(kind)
    groups, count = masks.shape[1], outputs.shape[1]
    blocks = -(-len(masks) // 48)
    padded = np.zeros((blocks * 48, groups, count), kind)
    padded[: len(masks)] = np.where(masks[:, :, None], centred[:, None, :], kind(0))
    rows = padded.reshape(blocks, 16, 3, groups, count)
    sums = (rows[:, :, 0] + rows[:, :, 1]) + rows[:, :, 2]
    sums = (sums[:, 0::2] + sums[:, 1::2]).reshape(blocks, 2, 4, groups, count)
    sums = ((sums[:, :, 0] + sums[:, :, 1]) + sums[:, :, 2]) + sums[:, :, 3]
    sums = sums[:, 0] + sums[:, 1]
    total = np.zeros((groups, count))
    for start in range(0, blocks, 8):
        run = sums[start]
        for block in sums[start + 1 : start + 8]:
            run = run + block
        total += run
    return total


def subset_sums_int16(
    masks: NDArray[np.bool_], outputs: Floats, shift: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every finite target rounded to 511 steps either way, then summed in integers."""
    centred = (outputs.astype(np.float64) - shift).astype(np.float32)
    step = np.abs(centred).max(axis=0, initial=0).astype(np.float64) / 511
    scale = np.where(step > 0, 1 / np.where(step > 0, step, 1), 0).astype(np.float32)
    return (masks.astype(np.int64).T @ np.rint(centred * scale).astype(np.int64)) * step, step


def column_moments(outputs: Floats, shift: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centred = (outputs.astype(np.float64) - shift).astype(np.longdouble)
    return centred.sum(axis=0).astype(np.float64), (centred**2).sum(axis=0).astype(np.float64)
