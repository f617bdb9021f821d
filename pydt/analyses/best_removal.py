"""The best number of groups to leave out, by cross-fitting: the best of several numbers looks better than it is.

K is chosen by one half of the report images and of the rows of each arm, and judged by the other, both ways round:

    K_1 = argmax mean(images A, rows A),   gain_1 = mean(K_1; images B, rows B) - mean(full; images B, rows B)
    gain = (gain_1 + gain_2) / 2,          stderr^2 = (s_1^2 + s_2^2 + 2 rho s_1 s_2) / 4,    rho = 0.36

Why this rho, and what was simulated: docs/analyses.md, "How retraining is judged".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pydt.analyses.counterfactual import Spread, contrast
from pydt.analyses.retraining import Arm
from pydt.base import Short, generator

FEWEST = 4
"""Rows of an arm: two in each half, so that each has a spread."""
_RHO = 0.36  # correlation of the two directions' errors at its largest


@dataclass(frozen=True, repr=False)
class Best(Short):
    """The number of lowest groups to leave out, and what that gains: fractions of the metric, or of a `pydt.Measure`
    numbers as rows store them; positive where it is better.

    Attributes:
        length: "epochs" or "steps".
        size: the best number by all images and rows; 0: leave nothing out.
        chosen: what each half chose for the other.
        gain, stderr, low, high: over the full source, judged by the half that did not choose; 95 %.
        claimed: the best number's gain by all images and rows: too good on average.
        runs: rows of each candidate in a half; images: in a half (or other examples).
    """

    length: str
    size: int
    chosen: tuple[int, int]
    gain: float
    stderr: float
    low: float
    high: float
    claimed: float
    runs: int
    images: int


def best_size(
    length: str,
    arms: Sequence[Arm],
    weights: np.ndarray,
    labels: np.ndarray,
    alike: Sequence[Sequence[Arm]] | None = None,
) -> Best | None:
    """The best number by cross-fitting, the first arm being "full"; None with fewer than four rows in an arm, or where
    one of the two halves of the examples has none of any weight.

    Args:
        length: put into the result. weights, labels: (images,) of the metric and the classes.
        alike: for each arm those whose rows vary alike, itself among them: then the spread between retrainings is that
            of all their rows, instead of the arm's own in the half that judges. Needed where arms have few rows.
    """
    sides = halves_of(labels)
    if min(len(arm.rows) for arm in arms) < FEWEST or not (weights[sides].any() and weights[~sides].any()):
        return None
    halves = [[part_of(arm, i, sides == bool(i), weights, labels) for arm in arms] for i in range(2)]
    chosen, gains, errors, reaches = [0, 0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for i in range(2):
        k = int(np.argmax([arm.goodness for arm in halves[i]]))
        if k:
            own = sides != bool(i)
            spreads = None if alike is None else spreads_of((alike[k], alike[0]), own, weights, labels)
            both, share = (halves[1 - i][k], halves[1 - i][0]), weights_of(weights, labels, own)
            found = contrast(*both, share, labels[own], spreads=spreads)
            chosen[i], gains[i], errors[i] = arms[k].dropped, found.difference, found.stderr
            reaches[i] = (found.high - found.low) / 2
    everywhere = max(arms, key=lambda arm: arm.goodness)
    gain, reach = float(np.mean(gains)), joined(*reaches)
    return Best(
        length,
        everywhere.dropped,
        (chosen[0], chosen[1]),
        gain,
        joined(*errors),
        gain - reach,
        gain + reach,
        everywhere.goodness - arms[0].goodness,
        min(len(arm.rows) for arm in arms) // 2,
        int(min(sides.sum(), (~sides).sum())),
    )


def joined(one: float, other: float) -> float:
    """The error, or half the interval, of the mean of both directions."""
    return float(np.sqrt(one**2 + other**2 + 2 * _RHO * one * other)) / 2


def halves_of(labels: np.ndarray) -> np.ndarray:
    """Which images are in the second half, bool (images,): of each class every other one, in a random order."""
    random = generator("halves of the report images", len(labels))
    second = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        second[members[(int(label) % 2) :: 2]] = True
    return second


def weights_of(weights: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The weights of some of the images, each class keeping its share of the metric."""
    found = weights[chosen].astype(np.float64)
    for label in np.unique(labels[chosen]):
        if own := weights[chosen & (labels == label)].sum():
            found[labels[chosen] == label] *= weights[labels == label].sum() / own
    return found * (weights.sum() / found.sum())


def part_of(arm: Arm, which: int, images: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> Arm:
    """Every other row of an arm, from the first or the second on, on some of the images."""
    rows, names, correct = arm.rows[which::2], arm.names[which::2], arm.correct[which::2]
    return _on(replace(arm, rows=rows, names=names, correct=correct), images, weights, labels)


def spreads_of(
    alike: tuple[Sequence[Arm], Sequence[Arm]], images: np.ndarray, weights: np.ndarray, labels: np.ndarray
) -> tuple[Spread, Spread]:
    """Of two lists of arms, on some of the images."""
    one, other = (Spread.of([_on(arm, images, weights, labels) for arm in arms]) for arms in alike)
    return one, other


def _on(arm: Arm, images: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> Arm:
    """An arm on some of the images."""
    correct = arm.correct[:, images]
    return replace(arm, accuracy=correct.astype(np.float64) @ weights_of(weights, labels, images), correct=correct)
