"""Difference of means and OLS on sums, and what every method shares: its plan, and errors over clusters of one's own.

Formulas at the top of estimate.py. A method looks at the masks once and then takes tiles of targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.errors import EstimateError
from pydt.inputs import Array, Rows
from pydt.moments import Columns, Geometry, Regression, Sums, Tile

_SINGLE_GROUPS = 256  # below this many groups float32 saves nothing
_SINGLE_RANGE = 1e24  # sums of squares whose squares float32 can hold
_SINGLE_LEFT = 1e-2  # share of the variance that must be left for a residual to be computed in float32: 1e-5 accurate


@dataclass
class Found:
    """What a method finds for one tile, (groups, targets) or (targets,)."""

    values: npt.NDArray[Any]
    stderr: npt.NDArray[Any]
    df: Array | float
    noise: Array
    explained: Array | float
    unbiased: npt.NDArray[Any] | None = None  # None: the values
    penalty: Array | None = None
    gap: Array | None = None
    iterations: npt.NDArray[np.int64] | None = None
    converged: npt.NDArray[np.bool_] | None = None
    placebos: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None  # values, standard errors
    quantisation: Array | None = None


@dataclass
class Plan:
    """A method on given masks: how it treats a tile, which folds it needs of it, and what holds for all targets."""

    solve: Callable[[Tile], Found]
    covariance: Callable[[], Array]
    folds: tuple[int, ...] = ()
    parameters: float = 0.0
    imbalance: float = 0.0  # variance of the correlation of two columns, as far as errors count it


Residual = Callable[[Rows, Array, Array], Array]


def linear(columns: Columns, sums: Sums, values: Array) -> Residual:
    intercept = columns.intercept(sums, values)
    return lambda rows, masks, y: y - intercept - masks @ values


def sandwich(
    geometry: Geometry, tile: Tile, project: Array, residual: Residual, parameters: float
) -> tuple[Array, float]:
    """Sum over clusters of (sum over its rows of project x mask x residual)^2, with the usual small-sample factor."""
    clusters, models, groups = geometry.masks.units.cluster_count, geometry.masks.models, geometry.groups
    if clusters < 2:
        raise EstimateError("all models are in one cluster", "clusters", "there must be at least two")
    assert tile.outputs is not None
    mean = geometry.plain.count[:groups] / models
    variance: Any = 0.0
    order = np.argsort(geometry.masks.units.clusters, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(geometry.masks.units.clusters))[:-1]):
        masks = geometry.masks.masks(rows)[:, :groups]
        variance = variance + (((masks - mean) @ project).T @ residual(rows, masks, tile.outputs(rows))) ** 2
    factor = clusters / (clusters - 1) * (models - 1) / max(models - parameters, 1)
    return variance * factor, float(clusters - 1)


def adjusted(geometry: Geometry, noise: Array, energy: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - noise * (geometry.units - geometry.intercept) / energy


def difference(geometry: Geometry, exact: bool) -> Plan:
    groups, models, plain = geometry.groups, geometry.masks.models, geometry.plain
    # A placebo column that few models all drew alike says nothing: NaN.
    with_it = np.where((plain.count > 0) & (plain.count < models), plain.count, np.nan)
    scale, weight = 1 / with_it + 1 / (models - with_it), 1 / geometry.spread
    kind = geometry.masks.units.kind
    free = geometry.units - 1 - geometry.intercept
    if free < 1 and geometry.spare < 1:
        raise EstimateError(f"{models} models have no spread to judge by", "masks", "train at least 3 models")
    if free < 1:  # two masks: only their repeats show the noise
        weight = np.zeros_like(weight)
    regression = geometry.regression_or_none
    spare = float(free if free >= 1 else geometry.spare)
    df = spare
    if regression is not None:
        rho = geometry.rho
        share = min(float(rho[0]), 1.0)
        df = 1 / ((1 - share) ** 2 / regression.df + share**2 / spare)
    else:
        rho = np.ones(len(scale))

    def errors(plain_sums: Sums, unit_sums: Sums, within: Array | None, single: bool) -> tuple[Any, Any, Array, Array]:
        """Values, their errors, the noise, and the residual sum of squares."""
        cross = _core.centred(plain_sums.cross, plain.count / models, plain_sums.total, single)
        energy = geometry.used.energy(unit_sums)
        own = cross
        if kind == "pair":  # half-differences have cross products of their own
            own = geometry.used.centre(unit_sums).astype(cross.dtype)
        left, noise = energy, np.zeros_like(energy)
        if regression is not None:
            left = regression.left(own[:groups], energy)
            noise = regression.noise(left, within)
        if free < 1:
            assert within is not None
            energy = within
        values, found = _core.pooled_errors(own, scale, weight, rho, energy, noise, spare)
        if kind == "pair":
            values = (scale[:, None] * cross).astype(np.float32)
        return values, found, noise if regression is not None else energy / spare, left

    def solve(tile: Tile) -> Found:
        energy, found_df = geometry.used.energy(tile.units), df
        single = not exact and groups >= _SINGLE_GROUPS
        values, stderr, noise, left = errors(tile.plain, tile.units, tile.within, single)
        if single:
            outside = (energy < 1 / _SINGLE_RANGE) | (energy > _SINGLE_RANGE)
            unsure = np.flatnonzero(outside | (left < _SINGLE_LEFT * energy))
            if unsure.size:
                within = None if tile.within is None else tile.within[unsure]
                values[:, unsure], stderr[:, unsure], noise[unsure], _ = errors(
                    tile.plain.of(unsure), tile.units.of(unsure), within, False
                )
        if kind == "given":
            real, sums = geometry.real, tile.units.first(groups)
            base, known = np.zeros((groups, len(energy))), 1
            others: Any = 0
            if regression is not None:
                base, known = regression.inverse @ real.centre(sums), regression.parameters
                others = np.maximum(stderr[:groups].astype(np.float64) ** 2 - np.outer(scale[:groups], noise), 0)
            project = np.diag(1 / np.diag(real.centred))
            variance, found_df = sandwich(geometry, tile, project, linear(real, sums, base), known)
            stderr[:groups] = np.sqrt(variance + others)
        explained = np.nan if regression is None else adjusted(geometry, noise, energy)
        placebos = (values[groups:], stderr[groups:]) if geometry.placebos else None
        coarse = None
        if tile.step is not None:  # a rounding has variance step^2 / 12, and enters values and errors alike
            with np.errstate(divide="ignore"):  # infinite where nothing is left to err by
                coarse = np.divide(tile.step, np.sqrt(12 * noise), out=np.zeros_like(noise), where=tile.step > 0)
        return Found(
            values[:groups], stderr[:groups], found_df, noise, explained, placebos=placebos, quantisation=coarse
        )

    if regression is None:  # where single examples are the groups, only who asks for it has a matrix of them made
        return Plan(solve, lambda: geometry.real.centred, imbalance=1 / geometry.units)
    covariance = geometry.real.centred  # by itself: a fit must not keep what else the masks gave
    return Plan(solve, lambda: covariance, imbalance=float(rho[0]) / geometry.units)


def ols(geometry: Geometry) -> Plan:
    regression = geometry.regression
    inverse = regression.inverse  # now, by all threads of BLAS

    def solve(tile: Tile) -> Found:
        cross, energy = geometry.used.centre(tile.units), geometry.used.energy(tile.units)
        values = inverse @ cross[: geometry.groups]
        left = np.maximum(energy - np.einsum("kn,kn->n", values, cross[: geometry.groups]), 0)
        noise = regression.noise(left, tile.within)
        variance, df = ols_variance(geometry, tile, regression, values, noise)
        placebos = placebos_of(geometry, inverse, cross, values, noise)
        explained = adjusted(geometry, noise, energy)
        return Found(values, np.sqrt(np.maximum(variance, 0)), df, noise, explained, placebos=placebos)

    parameters = regression.parameters * geometry.masks.models / geometry.units
    return Plan(solve, lambda: inverse, parameters=parameters)


def ols_variance(
    geometry: Geometry, tile: Tile, regression: Regression, values: Array, noise: Array
) -> tuple[Array, float]:
    if geometry.masks.units.kind == "given":
        residual = linear(geometry.real, tile.units.first(geometry.groups), values)
        return sandwich(geometry, tile, regression.inverse, residual, regression.parameters)
    return np.outer(np.diag(regression.inverse), noise), regression.df


def placebos_of(
    geometry: Geometry, inverse: Array, cross: Array, values: Array, noise: Array
) -> tuple[Array, Array] | None:
    """What each placebo column would get if it, alone, joined the groups in the regression (block elimination)."""
    k = geometry.groups
    if not geometry.placebos:
        return None
    gram = geometry.used.centred
    own = np.diag(gram)[k:] - ((gram[k:, :k] @ inverse) * gram[k:, :k]).sum(1)
    if own.min() <= 1e-9 * np.diag(gram).max():
        return None
    return (cross[k:] - gram[k:, :k] @ values) / own[:, None], np.sqrt(np.outer(1 / own, noise))
