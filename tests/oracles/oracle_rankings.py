"""Rankings and what hangs on them, the slow and obvious way, in float64."""

from __future__ import annotations

import numpy as np


def paper(masks: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Mean output with a group minus mean output without it, by loops over models: (groups, targets)."""
    models, groups = masks.shape
    found = np.zeros((groups, outputs.shape[1]))
    for k in range(groups):
        for j in range(outputs.shape[1]):
            with_k, without, n_with, n_without = 0.0, 0.0, 0, 0
            for i in range(models):
                if masks[i, k]:
                    with_k, n_with = with_k + float(outputs[i, j]), n_with + 1
                else:
                    without, n_without = without + float(outputs[i, j]), n_without + 1
            found[k, j] = with_k / n_with - without / n_without
    return found


def least_squares(masks: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Coefficients, standard errors and degrees of freedom; of masks of one size those that sum to zero."""
    x = masks - masks.mean(0)
    y = outputs - outputs.mean(0)
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-9, hermitian=True)
    values = inverse @ x.T @ y
    df = len(x) - 1 - np.linalg.matrix_rank(x, tol=1e-6)
    noise = ((y - x @ values) ** 2).sum(0) / df
    return values, np.sqrt(np.diag(inverse)[:, None] * noise), df


def step_up(p: np.ndarray, dependent: bool) -> np.ndarray:
    """q values of one family: the least level at which each test would be rejected."""
    flat = p.reshape(-1)
    n = len(flat)
    penalty = sum(1 / i for i in range(1, n + 1)) if dependent else 1.0
    rejected = (flat[None] <= flat[:, None]).sum(1)  # at the threshold of each
    level = np.minimum(flat * n * penalty / rejected, 1)
    return np.array([level[flat >= one].min() for one in flat]).reshape(p.shape)
