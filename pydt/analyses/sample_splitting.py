"""Halves of the models: one chooses, the other judges; and the errors of such a cross-fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import Array
from pydt.base import EstimateError, generator
from pydt.design import Design
from pydt.estimation import Fit

SPLITS = 10
"""Random splits of the models over which a cross-fit is averaged."""
ERROR_OF_WAYS = 0.5**0.5
"""Standard error of a cross-fit (one half of the models chooses, the other judges, and back; several random splits) in
units of that of one way: that of two independent ways. The ways share models, and what is chosen varies; in simulations
(20 and 62 groups, with and without influence, images that share none to 60 % of their variance, 5 and 10 splits) it was
0.39 to 0.71."""


def halves(masks: Design, splits: int, *key: Any, size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random disjoint parts of the models, rows of each in order; repeated and complementary masks stay together.

    Args:
        key: of the random numbers.
        size: rows of each part, or fewer where a cluster does not fit; by default each part is a half.
    """
    order = np.argsort(masks.clusters, kind="stable")
    clusters = np.split(order, np.cumsum(np.bincount(masks.clusters))[:-1])
    half = len(masks) // 2 if size is None else size
    for split in range(splits):
        random = generator("disjoint models", *key, split)
        parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        counts = [0, 0]
        for one in random.permutation(len(clusters)):
            part = int(counts[1] < counts[0])
            if counts[part] + len(clusters[one]) <= half:
                parts[part].append(clusters[one])
                counts[part] += len(clusters[one])
        if min(counts) == 0:
            raise EstimateError(f"no two disjoint parts of {half} models", "masks", "train more models")
        yield np.sort(np.concatenate(parts[0])), np.sort(np.concatenate(parts[1]))


def error_of_ways(values: Array) -> Any:
    """Standard error of the mean over the ways of a cross-fit, of values (ways, ...)."""
    return ERROR_OF_WAYS * np.std(values, axis=0, ddof=1)


def average(fit: Fit, chosen: npt.NDArray[np.intp]) -> tuple[Array, Array]:
    """Mean influence on each column of the groups chosen for it, int (n, columns), and its standard error.

    The contrast c'b of `Fit.contrast` with a c for each column: sqrt(c'Vc), V of the fit's standard errors (robust or
    not) and the masks' correlations.
    """
    values, stderr = np.asarray(fit.unbiased, np.float64), np.asarray(fit.stderr, np.float64)
    weights = np.zeros_like(values)
    np.put_along_axis(weights, chosen, 1 / len(chosen), 0)
    scaled = weights * stderr
    return (weights * values).sum(0), np.sqrt(np.maximum((scaled * (fit.correlation @ scaled)).sum(0), 0))
