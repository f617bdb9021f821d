"""p values of many tests at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.estimation.inputs import Array

Single = npt.NDArray[np.float32]
TARGETS_AT_ONCE = 256  # targets whose q values are computed at once


def q_values(values: Single, stderr: Single, df: Array) -> Single:
    """Benjamini and Hochberg's q of two-sided t tests over the groups of each target."""
    shape, size = values.shape, len(values)
    df = np.broadcast_to(df, shape).reshape(size, -1)
    values, stderr = values.reshape(size, -1), stderr.reshape(size, -1)
    q = np.empty(values.shape, np.float32)
    for start in range(0, q.shape[1], TARGETS_AT_ONCE):
        part = slice(start, start + TARGETS_AT_ONCE)
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


def upper_tail(values: Array, stderr: Array, df: Any) -> Array:
    """One-sided p values of t statistics; without an error, 1 unless the value is above 0."""
    from scipy import special

    with np.errstate(invalid="ignore", divide="ignore"):
        t = values / stderr
    p = special.stdtr(np.broadcast_to(df, t.shape), -t)
    return np.where(np.isnan(t), 1.0, p)


def benjamini_hochberg(p: npt.ArrayLike) -> Array:
    """q values of p values (tests,) or (tests, families), family by family: min over j >= i of p_(j) tests / j.

    A p value that is NaN is no test: its q is NaN, and the others are a family without it.
    """
    return _false_discovery(p, "bh")


def benjamini_yekutieli(p: npt.ArrayLike) -> Array:
    """q values of p values of any shape as one family whose tests may depend on each other in any way.

    Those of Benjamini and Hochberg times 1 + 1/2 + ... + 1/tests (Benjamini and Yekutieli, Annals of Statistics 2001).
    """
    p = np.asarray(p, np.float64)
    return _false_discovery(p.reshape(-1), "by").reshape(p.shape)


def _false_discovery(p: npt.ArrayLike, method: str) -> Array:
    from scipy.stats import false_discovery_control

    p = np.asarray(p, np.float64)
    families = p.reshape(len(p), math.prod(p.shape[1:]))
    tested = ~np.isnan(families)
    q = np.full(families.shape, np.nan)
    whole = tested.all(0) & tested.any(0)
    if whole.any():
        q[:, whole] = false_discovery_control(families[:, whole], axis=0, method=method)
    for one in np.flatnonzero(tested.any(0) & ~whole):
        at = tested[:, one]
        q[at, one] = false_discovery_control(families[at, one], method=method)
    return q.reshape(p.shape)


def holm(p: npt.ArrayLike) -> Array:
    """Holm's adjusted p values of any shape, as one family: what is at most a level is rejected at that level, with a
    chance of any false rejection of at most the level (Scandinavian Journal of Statistics 1979).

    The k-th smallest of n is the largest of (n - j + 1) p_(j) over j <= k, at most 1. A NaN is no test and stays NaN.
    """
    p = np.asarray(p, np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    known = p[tested]
    order = np.argsort(known, kind="stable")
    steps = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1))
    known[order] = np.minimum(steps, 1.0)
    adjusted[tested] = known
    return adjusted
