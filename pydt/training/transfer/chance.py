"""Whether zero-shot outputs do better than chance: those of a head in the wrong order, or of strange words, do not.

Chance is what the same predictions give on shuffled labels. With a_c predictions and b_c labels of class c, the number
of right ones is then m = sum of a_c b_c / n on average, with variance (Hoeffding 1951)

    (m n - sum of a_c b_c (a_c + b_c) / n + m^2) / (n - 1)

so a model that names one class always is at chance, however frequent the class. An AUROC is 1/2 by chance, with the
variance of Mann and Whitney's statistic; the mean over classes has at most the mean of their deviations.
"""

from __future__ import annotations

import math

import numpy as np


def against_chance(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy of int (n,) predictions, that by chance, and the one-sided p (normal, corrected for continuity)."""
    n = len(labels)
    classes = int(max(predictions.max(), labels.max())) + 1
    a, b = (np.bincount(given, minlength=classes).astype(np.float64) for given in (predictions, labels))
    right, mean = float((predictions == labels).sum()), float(a @ b) / n
    variance = (mean * n - float((a * b) @ (a + b)) / n + mean**2) / max(n - 1, 1)
    return _facts(right / n, mean / n, (right - 0.5 - mean) / n, max(variance, 0.0) ** 0.5 / n)


def auroc_against_chance(auroc: dict[int, float], labels: np.ndarray, half: np.ndarray) -> dict[str, float]:
    """The same of the mean of the AUROCs of the halves, by the number of each."""
    squares = []
    for part in auroc:
        own = labels[half == part]
        counts = np.bincount(own).astype(np.float64)
        counts = counts[counts > 0]
        squares.append(float(np.mean(np.sqrt((len(own) + 1) / (12 * counts * (len(own) - counts))))) ** 2)
    mean = float(np.mean(list(auroc.values())))
    return _facts(mean, 0.5, mean - 0.5, sum(squares) ** 0.5 / len(squares))


def _facts(found: float, chance: float, above: float, deviation: float) -> dict[str, float]:
    p = 0.5 * math.erfc(above / deviation / 2**0.5) if deviation > 0 else 1.0
    return {"zero_shot_accuracy": found, "zero_shot_by_chance": chance, "zero_shot_p": p}
