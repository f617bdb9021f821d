"""Quantiles of distributions."""

from __future__ import annotations

Z975 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def t975(df: float | None) -> float:
    """The 97.5 % quantile of Student's t with `df` degrees of freedom; of the normal if `df` is None."""
    if df is None:
        return Z975
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))
