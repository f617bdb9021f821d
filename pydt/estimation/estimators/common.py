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
from pydt.base import EstimateError
from pydt.estimation.inputs import Array, Rows
from pydt.estimation.robust import Arms, Sandwich
from pydt.estimation.sufficient_statistics import WIDTH, Columns, Geometry, Regression, Sums, Tile

_ALIKE = 0.9  # rho from which on both arms' spreads stand for all: what that overstates is at most a tenth of V
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
    """A method on given masks: how it treats a tile, which folds it needs of it, and what holds for all targets.

    Attributes:
        errors: "classical", "robust", "clusters" or "none", as in `Fit`.
        df: of the groups and of the placebos, (columns,) each, where masks alone decide; else `Found.df` counts.
        contrast: tile, weights (contrasts, groups) -> contrasts and their variances (contrasts, targets), where the
            correlations of the errors are not those that `covariance` tells.
    """

    solve: Callable[[Tile], Found]
    covariance: Callable[[], Array]
    folds: tuple[int, ...] = ()
    parameters: float = 0.0
    imbalance: float = 0.0  # variance of the correlation of two columns, as far as errors count it
    errors: str = "classical"
    df: tuple[Array, Array] | None = None
    contrast: Callable[[Tile, Array], tuple[Array, Array]] | None = None


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


def difference(geometry: Geometry, exact: bool, robust: bool) -> Plan:
    groups, models, plain = geometry.groups, geometry.masks.models, geometry.plain
    # A placebo column that few models all drew alike says nothing: NaN.
    with_it = np.where((plain.count > 0) & (plain.count < models), plain.count, np.nan)
    scale, weight = 1 / with_it + 1 / (models - with_it), 1 / geometry.spread
    kind = geometry.masks.units.kind
    free = geometry.units - 1 - geometry.intercept
    if free < 1 and geometry.spare < 1:
        raise EstimateError(f"{models} models have no spread to judge by", "masks", "train at least 3 models")
    regression = geometry.regression_or_none
    if regression is not None and not regression.sure:
        regression = None
    if free < 1:  # two masks: only their repeats show the noise
        weight = np.zeros_like(weight)
    spare = float(free if free >= 1 else geometry.spare)
    df = spare
    if regression is not None:
        rho = geometry.rho
        share = min(float(rho[0]), 1.0)
        df = 1 / ((1 - share) ** 2 / regression.df + share**2 / spare)
    else:
        rho = np.ones(len(scale))
    word = error_word(geometry, robust, regression is not None or free >= 1, regression)
    # Both arms of a column hold one half of each pair, so their spreads are one.
    arms = Arms(geometry) if word == "robust" and kind != "pair" else None

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

    def left_by_ols(arms: Arms, tile: Tile, regression: Regression) -> Array:
        """V of what OLS leaves, in place of the noise: what the other groups do is out of it."""
        sums = tile.units.first(groups)
        base = regression.inverse @ geometry.real.centre(sums)
        cross = geometry.used.centre(tile.units) - geometry.used.centred[:, :groups] @ base
        rest = linear(geometry.real, sums, base)
        found, _ = arms.variance(
            tile, cross, lambda rows, y: rest(rows, geometry.masks.masks(rows)[:, :groups], y), exact
        )
        return found * ((geometry.units - 1) / regression.df)

    def solve(tile: Tile) -> Found:
        energy, found_df = geometry.used.energy(tile.units), df
        single = not exact and groups >= _SINGLE_GROUPS
        values, stderr, noise, left = errors(tile.plain, tile.units, tile.within, single)
        if single:
            outside = (energy < 1 / _SINGLE_RANGE) | (energy > _SINGLE_RANGE)
            unsure = np.flatnonzero(outside | (left < _SINGLE_LEFT * energy))
            if unsure.size:
                unsure = np.pad(
                    unsure, (0, -unsure.size % WIDTH), mode="edge"
                )  # as tiles are: same bits among any others
                within = None if tile.within is None else tile.within[unsure]
                values[:, unsure], stderr[:, unsure], noise[unsure], _ = errors(
                    tile.plain.of(unsure), tile.units.of(unsure), within, False
                )
        if arms is not None:
            variance, pooled = arms.variance(tile, plain.centre(tile.plain), exact=exact)
            if regression is not None:
                # Columns more alike than independent draws: what the other groups do weighs more than one spread says.
                more = (scale * np.maximum(rho - 1, 0))[: arms.columns]
                variance += more[:, None] * np.maximum(pooled - noise, 0)
                if rho[0] < _ALIKE:
                    own = np.minimum(rho[: arms.columns, None], 1)
                    variance = own * variance + (1 - own) * left_by_ols(arms, tile, regression)
            stderr[: arms.columns] = np.sqrt(variance)
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
        if word == "none":
            stderr, noise, found_df = np.full_like(stderr, np.nan), np.full_like(noise, np.nan), np.nan
        explained = np.nan if regression is None else adjusted(geometry, noise, energy)
        placebos = (values[groups:], stderr[groups:]) if geometry.placebos else None
        coarse = None
        if tile.step is not None:  # a rounding has variance step^2 / 12, and enters values and errors alike
            with np.errstate(divide="ignore"):  # infinite where nothing is left to err by
                coarse = np.divide(tile.step, np.sqrt(12 * noise), out=np.zeros_like(noise), where=tile.step > 0)
        return Found(
            values[:groups], stderr[:groups], found_df, noise, explained, placebos=placebos, quantisation=coarse
        )

    alone = None if arms is None else arms.split_df(geometry, df)
    if regression is None:  # where single examples are the groups, only who asks for it has a matrix of them made
        return Plan(solve, lambda: geometry.real.centred, imbalance=1 / geometry.units, errors=word, df=alone)
    covariance = geometry.real.centred  # by itself: a fit must not keep what else the masks gave
    return Plan(solve, lambda: covariance, imbalance=float(rho[0]) / geometry.units, errors=word, df=alone)


def ols(geometry: Geometry, robust: bool) -> Plan:
    fitted = Fitted(geometry, geometry.regression, robust)

    def solve(tile: Tile) -> Found:
        values, variance, df, noise, placebos = fitted.find(tile)
        explained = adjusted(geometry, noise, geometry.used.energy(tile.units))
        return Found(values, np.sqrt(np.maximum(variance, 0)), df, noise, explained, placebos=placebos)

    parameters = geometry.regression.parameters * geometry.masks.models / geometry.units
    return fitted.plan(solve, parameters=parameters)


def error_word(geometry: Geometry, robust: bool, sure: bool, regression: Regression | None) -> str:
    """What the errors rest on, as `Fit.errors` has it."""
    if geometry.masks.units.kind == "given":
        return "none" if regression is not None and geometry.saturated(regression.parameters) else "clusters"
    if not sure:
        return "none"
    # Of two masks, only what their repeats show in common is an error.
    return "robust" if robust and geometry.units - geometry.intercept > 1 else "classical"


class Fitted:
    """OLS with its errors, as far as masks alone decide."""

    def __init__(self, geometry: Geometry, regression: Regression, robust: bool):
        self._geometry, self._regression = geometry, regression
        self.errors = error_word(geometry, robust, regression.sure, regression)
        self.inverse = regression.inverse  # now, by all threads of BLAS
        k, gram = geometry.groups, geometry.used.centred
        self._shadow = gram[k:, :k] @ self.inverse
        self._own = np.diag(gram)[k:] - (self._shadow * gram[k:, :k]).sum(1)
        self._shown = geometry.placebos and self._own.min() > 1e-9 * np.diag(gram).max()
        self._sandwich, self.df = None, None
        if self.errors == "robust":
            joined = np.c_[-self._shadow, np.eye(geometry.placebos)] / self._own[:, None] if self._shown else None
            self._sandwich = Sandwich(geometry, self.inverse, joined)
            df = np.full(geometry.masks.columns, regression.df)
            known = np.where(self._sandwich.hangs, regression.df, self._sandwich.df)
            df[: len(known)] = known
            self.df = df[:k], df[k:]

    def _values(self, tile: Tile) -> tuple[Array, Array, Array]:
        """Influences, cross products of all columns, and the noise."""
        cross, energy = self._geometry.used.centre(tile.units), self._geometry.used.energy(tile.units)
        values = self.inverse @ cross[: len(self.inverse)]
        left = np.maximum(energy - np.einsum("kn,kn->n", values, cross[: len(self.inverse)]), 0)
        return values, cross, self._regression.noise(left, tile.within)

    def find(self, tile: Tile) -> tuple[Array, Array, float, Array, tuple[Array, Array] | None]:
        """Influences, their variances, degrees of freedom, the noise, and placebos with their errors: each as what it
        would get if it, alone, joined the groups (block elimination)."""
        geometry, k = self._geometry, self._geometry.groups
        values, cross, noise = self._values(tile)
        df, spread = self._regression.df, np.r_[np.diag(self.inverse), 1 / self._own if self._shown else []]
        variance = np.outer(spread, noise)
        if self._sandwich is not None:
            known = slice(len(self._sandwich.df))
            variance[known] = self._sandwich.variance(tile, values, variance[known])
        placebos = None
        if self._shown:
            extra = cross[k:] - geometry.used.centred[k:, :k] @ values
            placebos = extra / self._own[:, None], np.sqrt(variance[k:])
        variance = variance[:k]
        if geometry.masks.units.kind == "given":
            residual = linear(geometry.real, tile.units.first(k), values)
            variance, df = sandwich(geometry, tile, self.inverse, residual, self._regression.parameters)
            if self.errors == "none":
                variance, df = np.full_like(variance, np.nan), np.nan
        return values, variance, df, noise, placebos

    def _contrast(self, tile: Tile, weights: Array) -> tuple[Array, Array]:
        assert self._sandwich is not None
        values, _, noise = self._values(tile)
        classical = np.outer(np.einsum("ck,kl,cl->c", weights, self.inverse, weights, optimize=True), noise)
        return weights @ values, self._sandwich.variance(tile, values, classical, weights)

    def plan(self, solve: Callable[[Tile], Found], folds: tuple[int, ...] = (), parameters: float = 0.0) -> Plan:
        """The plan of a method whose errors are these."""
        contrast = None if self._sandwich is None else self._contrast
        inverse = self.inverse  # by itself: a fit must not keep what else the masks gave
        return Plan(solve, lambda: inverse, folds, parameters, errors=self.errors, df=self.df, contrast=contrast)
