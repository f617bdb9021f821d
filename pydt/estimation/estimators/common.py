"""What estimators share: what they take and find, errors over clusters of the caller's own, folds that can judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError
from pydt.estimation.inputs import Array, Rows
from pydt.estimation.mask_geometry import Geometry, Regression
from pydt.estimation.sums import Columns, Sums, Tile


@dataclass
class Found:
    """What a method finds for one tile: (groups, targets) of the backend, or (targets,) of numpy."""

    values: Any
    stderr: Any
    df: Array | float
    noise: Array
    explained: Array | float
    unbiased: Any = None  # None: the values
    penalty: Array | None = None
    gap: Array | None = None
    iterations: npt.NDArray[np.int64] | None = None
    converged: npt.NDArray[np.bool_] | None = None
    placebos: tuple[Any, Any] | None = None  # values, standard errors
    quantisation: Array | None = None


@dataclass
class Solver:
    """A method on given masks: how it treats a tile, which folds it needs of it, and what holds for all targets.

    Attributes:
        errors: "classical", "robust", "clusters" or "none", as in `Fit`.
        df: of the groups and of the placebos, (columns,) each, where masks alone decide; else `Found.df` counts.
        contrast: tile, weights (contrasts, groups) -> contrasts and their variances (contrasts, targets), where
            `covariance` does not hold.
    """

    solve: Callable[[Tile], Found]
    covariance: Callable[[], Array]
    folds: tuple[int, ...] = ()
    parameters: float = 0.0
    imbalance: float = 0.0  # variance of the correlation of two columns, as far as errors count it
    errors: str = "classical"
    df: tuple[Array, Array] | None = None
    contrast: Callable[[Tile, Array], tuple[Any, Any]] | None = None


@dataclass(frozen=True)
class Options:
    """What the caller chose.

    Attributes:
        exact: the outputs are float64, so nothing is computed in float32.
        robust: errors that hold where groups change the variance.
        cv: folds that choose the penalty, None for the method's own way. l1_ratio: share of |b|_1 in the penalty.
    """

    exact: bool
    robust: bool
    cv: int | None = None
    l1_ratio: float = 1.0


@dataclass(frozen=True)
class Estimator:
    """A method of `influences`.

    Attributes:
        name: of the method. phrase: what pages call it.
        prepare: the method on given masks.
        options: arguments of `influences` that it takes, of "cv", "l1_ratio" and "precision".
        needs_regression: it needs models enough for OLS.
        biased: no standard error or test speaks of `values`, and there is no `unbiased`.
        predictor: masks of training rows less their means (rows, groups), directions in which masks never vary -> the
            matrix (groups, rows) that turns outputs into influences. None: influences are not linear in the outputs.
        law: how the squared error falls with the number of models; None: with [G^-1]_kk of the design's masks.
        least: groups, parameters of OLS -> independent models from which on `best_method` takes it.
        successor: the method that `best_method` takes instead once there are models enough for that one.
    """

    name: str
    phrase: str
    prepare: Callable[[Geometry, Options], Solver]
    law: str | None
    least: Callable[[int, int], int]
    options: tuple[str, ...] = ()
    needs_regression: bool = False
    biased: bool = False
    predictor: Callable[[Array, int], Array] | None = None
    successor: str | None = None


Residual = Callable[[Rows, Any, Any], Any]


def linear(columns: Columns, sums: Sums, values: Any) -> Residual:
    backend = sums.backend
    intercept = backend.up(columns.intercept(sums, values))
    return lambda rows, masks, y: y - intercept - backend.product(masks, values)


def sandwich(
    geometry: Geometry, tile: Tile, project: Array, residual: Residual, parameters: float
) -> tuple[Any, float]:
    """Sum over clusters of (sum over its rows of project x mask x residual)^2, with the usual small-sample factor."""
    clusters, models, groups = geometry.masks.units.cluster_count, geometry.masks.models, geometry.groups
    if clusters < 2:
        raise EstimateError("all models are in one cluster", "clusters", "there must be at least two")
    backend = geometry.backend
    mean, to_values = backend.up(geometry.plain.count[:groups] / models), backend.up(project)
    variance: Any = 0.0
    order = np.argsort(geometry.masks.units.clusters, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(geometry.masks.units.clusters))[:-1]):
        masks = backend.masks(geometry.masks, rows)[:, :groups]
        left = residual(rows, masks, tile.outputs(rows))
        variance = variance + backend.product(((masks - mean) @ to_values).T, left) ** 2
    factor = clusters / (clusters - 1) * (models - 1) / max(models - parameters, 1)
    return variance * factor, float(clusters - 1)


def adjusted(geometry: Geometry, noise: Array, energy: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - noise * (geometry.units - geometry.intercept) / energy


def error_word(geometry: Geometry, robust: bool, sure: bool, regression: Regression | None) -> str:
    """What the errors rest on, as `Fit.errors` has it."""
    if geometry.masks.units.kind == "given":
        return "none" if regression is not None and geometry.saturated(regression.parameters) else "clusters"
    if not sure:
        return "none"
    # Of two masks, only what their repeats show in common is an error.
    return "robust" if robust and geometry.units - geometry.intercept > 1 else "classical"


def blind(trains: list[Array]) -> bool:
    """Whether every training part, of these centred Gram matrices, lacks a group (or has it in all of its models)."""
    return all((np.diag(gram) < 1e-9).any() for gram in trains)


def no_judge(folds: int) -> EstimateError:
    what = f"whichever of {folds} folds is held out, some group never varies in the rest: no fold can judge a penalty"
    return EstimateError(what, "cv", "leave it out, or train models on more different masks")
