"""What an accumulator must hold, from all rows at once in float64: nothing shared with the package but the masks."""

from __future__ import annotations

import numpy as np


def sums(masks: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """Counts, M'1, 1'Y, 1'Y^2 and M'Y of some rows."""
    m, y = masks.astype(np.float64), outputs.astype(np.float64)
    return {
        "rows": np.float64(len(m)),
        "count": m.sum(0),
        "total": y.sum(0),
        "squares": (y**2).sum(0),
        "cross": m.T @ y,
    }


def within(masks: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, int]:
    """Scatter around the mean of the mask, and its degrees of freedom."""
    y, found, free = outputs.astype(np.float64), np.zeros(outputs.shape[1]), 0
    for mask in np.unique(masks, axis=0):
        same = y[(masks == mask).all(1)]
        found += ((same - same.mean(0)) ** 2).sum(0)
        free += len(same) - 1
    return found, free


def pairs(masks: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Sum over masks with group 0 and their complements of (difference of sums)^2 / rows."""
    y, found = outputs.astype(np.float64), np.zeros(outputs.shape[1])
    for mask in np.unique(masks[masks[:, 0]], axis=0):
        with_it, without = (y[(masks == m).all(1)] for m in (mask, ~mask))
        found += (with_it.sum(0) - without.sum(0)) ** 2 / (len(with_it) + len(without))
    return found
