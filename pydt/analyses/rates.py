"""Rates over images and trainings: how often trainings get images right, with both in the error.

Rows serve images: y = mean + row + image + rest. With d_j the mean of image j of M (or a weighted sum of its means in
several arms) and e_rj the part of row r, of n, in its error,

    e_rj = sum over arms of weight (y_rj - mean_j) / sqrt(n (n - 1)),
    variance = var(d) / M + sum over rows of ((sum_j e_rj)^2 - sum_j e_rj^2) / (M (M - 1))

Intervals: Wilson's of a rate, Fieller's of a ratio. Why, and how well they hold: docs/analyses.md, "How retraining is
judged".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pydt.base import t975
from pydt.estimation import wilson

Block = tuple[Sequence[int], np.ndarray, np.ndarray]
"""Numbers of rows, positions of the images that they all serve, and right (rows, images) as 0 or 1. A number stands for
the same row wherever it occurs."""


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval. images: how many. runs: rows for each image, at least."""

    rate: float
    low: float
    high: float
    images: int
    runs: int


@dataclass(frozen=True)
class Compared:
    """Two rates on the same images: their difference with error and 95 % interval, and their ratio with its interval;
    infinite where the second may be zero."""

    difference: float
    stderr: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float


def blocks_of(rows: Sequence[Sequence[int]], right: Mapping[int, np.ndarray]) -> list[Block]:
    """The blocks of images of which number j is served by `rows[j]`; right[i] is bool (images,), of row i."""
    served: dict[tuple[int, ...], list[int]] = {}
    for j, own in enumerate(rows):
        served.setdefault(tuple(own), []).append(j)
    return [
        (own, np.array(images), np.array([right[i][images] for i in own], np.float64)) for own, images in served.items()
    ]


def rate_of(blocks: Sequence[Block], images: int) -> Rate:
    """The rate of all blocks together, of so many images."""
    value, variance, df = spread([blocks], [1.0], images)
    return _wilson(value, variance, df, images, min(len(rows) for rows, _, _ in blocks))


def compare(blocks: Sequence[Block], others: Sequence[Block], images: int) -> Compared:
    """One arm against another on the same images."""
    both = [blocks, others]
    value, variance, df = spread(both, (1, -1), images)
    t = t975(df)
    (first, one, _), (second, other, _), (_, total, _) = (spread(both, c, images) for c in ((1, 0), (0, 1), (1, 1)))
    covariance = (total - one - other) / 2
    if not second:  # no flip at all is no proof of a rate of zero
        other = (rate_of(others, images).high / t) ** 2
    bounds = fieller(first, second, one, other, covariance, df)
    reach = t * variance**0.5
    ratio = first / second if second else np.inf
    below = above = reach
    if not variance:  # all images alike in both arms is no proof that they always are: Newcombe (1998)
        a, b = rate_of(blocks, images), rate_of(others, images)
        below = ((a.rate - a.low) ** 2 + (b.high - b.rate) ** 2) ** 0.5
        above = ((a.high - a.rate) ** 2 + (b.rate - b.low) ** 2) ** 0.5
    value = round(value, 12)  # equal rates differ by rounding alone
    return Compared(value, variance**0.5, value - below, value + above, ratio, bounds[0], bounds[1])


def spread(arms: Sequence[Sequence[Block]], weights: Sequence[float], images: int) -> tuple[float, float, float]:
    """A weighted sum of rates, its variance over images and rows, and degrees of freedom; formula at the top.

    Args:
        arms: the blocks of each. weights: of the arms. images: in all.
    """
    means, fewest, parts = np.zeros(images), np.inf, []
    for weight, arm in zip(weights, arms, strict=True):
        for rows, own, right in arm if weight else ():
            n = len(rows)
            means[own] += weight * right.mean(0)
            error = weight * (right - right.mean(0)) / (n * (n - 1)) ** 0.5
            number, image = np.meshgrid(rows, own, indexing="ij")
            parts.append((number.ravel(), image.ravel(), error.ravel()))
            fewest = min(fewest, n)
    number, image, error = (np.concatenate(column) for column in zip(*parts, strict=True))
    _, row = np.unique(number, return_inverse=True)
    cell, where = np.unique(row * images + image, return_inverse=True)
    each = np.bincount(where, error)
    together = np.bincount(cell // images, each)
    by_run = float(together @ together) / images**2
    if images == 1:
        return float(means.mean()), by_run, fewest - 1
    by_image = float(means.var(ddof=1)) / images
    shared = float(together @ together - each @ each) / (images * (images - 1))
    # Estimates of variances may cross by chance: the whole is never less than that of images or of rows alone.
    variance = max(by_image + shared, by_image, by_run)
    freedom = by_image**2 / (images - 1) + by_run**2 / (fewest - 1)
    return float(means.mean()), variance, variance**2 / freedom if freedom else 1.0


def _wilson(rate: float, variance: float, df: float, images: int, rows: int) -> Rate:
    """Wilson's interval for as many independent trials as give the variance; where all are alike, for the images."""
    if variance > 0:
        return Rate(rate, *wilson(rate, rate * (1 - rate) / variance, t975(df)), images, rows)
    return Rate(rate, *wilson(rate, float(images)), images, rows)


def fieller(
    one: float, other: float, variance: float, other_variance: float, covariance: float, df: float
) -> tuple[float, float]:
    """95 % interval of one / other, both at least 0: all r with (one - r other)^2 <= t^2 var(one - r other), r >= 0."""
    t2 = t975(df) ** 2
    a = other**2 - t2 * other_variance
    b = one * other - t2 * covariance
    c = one**2 - t2 * variance
    inside = b**2 - a * c
    if a > 0:
        root = max(inside, 0.0) ** 0.5
        return max((b - root) / a, 0.0), (b + root) / a
    if c <= 0 or inside < 0:  # the numerator may be zero, too: nothing is excluded
        return 0.0, np.inf
    # The denominator may be zero: open above. a r^2 - 2 b r + c <= 0 from its one positive root on.
    low = c / (2 * b) if a == 0 and b > 0 else (b - inside**0.5) / a if a < 0 else np.inf
    return max(low, 0.0), np.inf
