"""Influences the slow and obvious way, in float64 numpy: every formula written out, nothing shared, no shortcuts."""

from __future__ import annotations

import numpy as np


def difference(masks: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Mean with the group minus mean without it, group by group."""
    y = outputs.astype(np.float64)
    return np.stack([y[column].mean(0) - y[~column].mean(0) for column in masks.T.astype(bool)])


def ols(masks: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Minimum-norm least squares with an intercept, its standard errors and residual degrees of freedom."""
    x = masks - masks.mean(0)
    y = outputs.astype(np.float64)
    y = y - y.mean(0)
    inverse = np.linalg.pinv(x)
    values = inverse @ y
    df = len(x) - 1 - np.linalg.matrix_rank(x)
    noise = ((y - x @ values) ** 2).sum(0) / df
    return values, np.sqrt(np.outer((inverse**2).sum(1), noise)), df


def half_differences(masks: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """OLS without intercept of (y - y') / 2 on mask - 1/2, for pairs of neighbouring rows."""
    assert np.all(masks[0::2] + masks[1::2] == 1)
    x = masks[0::2] - 0.5
    y = outputs.astype(np.float64)
    y = (y[0::2] - y[1::2]) / 2
    inverse = np.linalg.pinv(x)
    values = inverse @ y
    df = len(x) - np.linalg.matrix_rank(x)
    noise = ((y - x @ values) ** 2).sum(0) / df
    return values, np.sqrt(np.outer((inverse**2).sum(1), noise)), df


def ridge(masks: np.ndarray, outputs: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Minimiser of |y - mu - M b|^2 + penalty |b|^2, target by target."""
    x = masks - masks.mean(0)
    y = outputs.astype(np.float64)
    y = y - y.mean(0)
    columns = [np.linalg.solve(x.T @ x + p * np.eye(x.shape[1]), x.T @ y[:, j]) for j, p in enumerate(penalty)]
    return np.stack(columns, axis=1)


def lasso_objective(masks: np.ndarray, outputs: np.ndarray, penalty: np.ndarray, values: np.ndarray) -> np.ndarray:
    """|y - mu - M b|^2 / (2 m) + penalty |b|_1 with the best mu, (targets,)."""
    x = masks - masks.mean(0)
    y = outputs.astype(np.float64)
    y = y - y.mean(0)
    return ((y - x @ values) ** 2).sum(0) / (2 * len(x)) + penalty * np.abs(values).sum(0)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """q_i = the smallest level at which the step-up procedure rejects test i."""
    ordered = np.sort(p)
    levels = [len(p) * ordered[j] / (j + 1) for j in range(len(p))]
    return np.array(
        [min(1.0, *(level for level, bound in zip(levels, ordered, strict=True) if bound >= one)) for one in p]
    )
