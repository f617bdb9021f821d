"""Quantiles of distributions."""

from __future__ import annotations

# The 0.975 quantiles of Student's t for 1..10 degrees of freedom; above that the expansion below is exact to 4 digits.
_T975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def t975(df: float | None) -> float:
    """The 97.5 % quantile of Student's t; of the normal when `df` is None. Abramowitz & Stegun 26.7.5 above df = 10."""
    z = 1.959964
    if df is None:
        return z
    if df < 10.5:
        return _T975[max(1, round(df)) - 1]
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
