"""AUROC of one class against the rest and DeLong's variance, pair by pair."""

from __future__ import annotations

import numpy as np


def scores(logits: np.ndarray) -> np.ndarray:
    """Log-odds of each class, float32 (examples, classes): what is equal but for rounding ties."""
    found = np.empty(logits.shape)
    for i, c in np.ndindex(*logits.shape):
        rest = np.delete(logits[i], c)
        found[i, c] = logits[i, c] - (rest.max() + np.log(np.exp(rest - rest.max()).sum()))
    return found.astype(np.float32)


def kernel(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """1 where the positive's score is larger, 1/2 where equal, (positives, negatives)."""
    return (inside[:, None] > outside[None]) + 0.5 * (inside[:, None] == outside[None])


def auroc(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes present of the AUROC of one against the rest."""
    score = scores(logits)
    return float(np.mean([kernel(score[labels == c, c], score[labels != c, c]).mean() for c in np.unique(labels)]))


def delong(one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> float:
    """DeLong, DeLong and Clarke-Pearson 1988: variance of the difference of two AUROCs on the same images, two classes.

    Args:
        one, other: (examples,) scores of class 1. Zeros for `other` give the variance of the first AUROC alone.
    """
    parts = []
    for axis in (1, 0):  # means over the negatives: one number a positive; then the other way round
        a, b = (kernel(score[labels == 1], score[labels == 0]).mean(axis) for score in (one, other))
        covariance = np.cov(a, b, ddof=1)
        parts.append((covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / len(a))
    return float(sum(parts))
