"""p values of many tests at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.estimation.inputs import Array

Single = npt.NDArray[np.float32]
_TILE = 256  # targets whose q values are computed at once


def _q_values(values: Single, stderr: Single, df: Array) -> Single:
    shape, size = values.shape, len(values)
    df = np.broadcast_to(df, shape).reshape(size, -1)
    values, stderr = values.reshape(size, -1), stderr.reshape(size, -1)
    q = np.empty(values.shape, np.float32)
    for start in range(0, q.shape[1], _TILE):
        part = slice(start, start + _TILE)
        q[:, part] = benjamini_hochberg(p_values(values[:, part], stderr[:, part], df[:, part]))
    return q.reshape(shape)


def p_values(values: npt.NDArray[Any], stderr: npt.NDArray[Any], df: Array) -> Array:
    """Two-sided t test; a value of zero gives 1, whatever its error (of a constant target none is known)."""
    from scipy import special

    values, stderr = values.astype(np.float64), stderr.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(values / stderr)
    t, df = np.where(values == 0, 0, t), np.where(values == 0, 1, df)
    return 2 * special.stdtr(np.broadcast_to(df, t.shape), -t)


def benjamini_hochberg(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """q values of p values (tests,) or (tests, families), family by family: min over j >= i of p_(j) tests / j.

    A p value that is NaN is no test: its q is NaN, and the others are a family without it.
    """
    p = np.asarray(p, np.float64)
    if not len(p):
        return p.copy()
    order = np.argsort(p, axis=0)  # NaN last
    ranks = np.arange(1, len(p) + 1).reshape((-1,) + (1,) * (p.ndim - 1))
    steps = np.take_along_axis(p, order, 0) * np.isfinite(p).sum(axis=0) / ranks
    least = np.fmin.accumulate(steps[::-1], axis=0)[::-1]
    q = np.empty_like(p)
    np.put_along_axis(q, order, np.minimum(least, 1), 0)
    return np.where(np.isnan(p), np.nan, q)


def benjamini_yekutieli(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """q values of p values of any shape as one family whose tests may depend on each other in any way.

    Those of Benjamini and Hochberg times 1 + 1/2 + ... + 1/tests (Benjamini and Yekutieli, Annals of Statistics 2001).
    """
    p = np.asarray(p, np.float64)
    tests = int(np.isfinite(p).sum())
    penalty = (1 / np.arange(1, tests + 1)).sum()
    return np.minimum(benjamini_hochberg(p.reshape(-1)) * penalty, 1).reshape(p.shape)
