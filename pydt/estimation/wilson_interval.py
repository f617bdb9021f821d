"""Wilson's interval of a share (Journal of the American Statistical Association 1927)."""

from __future__ import annotations


def wilson(rate: float, trials: float, quantile: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a rate that so many independent trials had.

    The default is the normal's quantile, rounded: its further digits would change published intervals by 1e-8.
    """
    t = quantile
    centre = (rate + t**2 / (2 * trials)) / (1 + t**2 / trials)
    reach = t / (1 + t**2 / trials) * (rate * (1 - rate) / trials + t**2 / (4 * trials**2)) ** 0.5
    return max(centre - reach, 0.0), min(centre + reach, 1.0)
