"""Quantiles of distributions."""

from __future__ import annotations

Z975 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def t975(df: float | None, tests: int = 1) -> float:
    """The 97.5 % quantile of Student's t with `df` degrees of freedom (of the normal if `df` is None); of several
    `tests` the one with which all their intervals hold at once (Bonferroni).
    """
    if df is None and tests == 1:
        return Z975
    from scipy.special import ndtri, stdtrit

    level = 1 - 0.025 / tests
    return float(ndtri(level) if df is None else stdtrit(df, level))
