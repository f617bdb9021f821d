"""The difference of means: v = mean of y with the group - mean without.

    V = c ((1 - rho) s^2 + rho T)

T is the variance of y within "with" and "without", rho = (R - 1) x the mean squared correlation between mask columns:
1 for independent masks, 0 for orthogonal ones. With too few models for OLS, V = c T.

s^2 is computed in float32 where outputs are float16 or float32, K >= 256 and more than 1 % of the variance is left:
within 1e-4, where its own sampling error is sqrt(2 / (R - p)).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pydt.base import EstimateError
from pydt.estimation.backend import WIDTH
from pydt.estimation.estimators.common import Estimator, Found, Options, Solver, adjusted, error_word, linear, sandwich
from pydt.estimation.inputs import Array
from pydt.estimation.mask_geometry import Geometry, Regression
from pydt.estimation.robust import Arms
from pydt.estimation.sums import Sums, Tile

_ALIKE = 0.9  # rho from which on both arms' spreads stand for all: what that overstates is at most a tenth of V
_SINGLE_GROUPS = 256  # below this many groups float32 saves nothing
_SINGLE_RANGE = 1e24  # sums of squares whose squares float32 can hold
_SINGLE_LEFT = 1e-2  # share of the variance that must be left for a residual to be computed in float32: 1e-5 accurate


def prepare(geometry: Geometry, options: Options) -> Solver:
    groups, models, plain = geometry.groups, geometry.masks.models, geometry.plain
    exact, backend = options.exact, geometry.backend
    up = backend.up
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
    word = error_word(geometry, options.robust, regression is not None or free >= 1, regression)
    # Both arms of a column hold one half of each pair, so their spreads are one.
    arms = Arms(geometry) if word == "robust" and kind != "pair" else None

    def errors(plain_sums: Sums, unit_sums: Sums, within: Array | None, single: bool) -> tuple[Any, Any, Array, Array]:
        """Values, their errors, the noise, and the residual sum of squares."""
        cross = plain.centre(plain_sums, single)
        energy = geometry.used.energy(unit_sums)
        # half-differences have cross products of their own
        own = geometry.used.centre(unit_sums, single) if kind == "pair" else cross
        left, noise = energy, np.zeros_like(energy)
        if regression is not None:
            left = regression.left(own[:groups], energy)
            noise = regression.noise(left, within)
        if free < 1:
            assert within is not None
            energy = within
        values, found = backend.pooled_errors(own, scale, weight, rho, energy, noise, spare)
        if kind == "pair":
            values = up(scale)[:, None] * cross
        return values, found, noise if regression is not None else energy / spare, left

    def left_by_ols(arms: Arms, tile: Tile, regression: Regression) -> Any:
        """V of what OLS leaves, in place of the noise: what the other groups do is out of it."""
        sums = tile.units.first(groups)
        base = up(regression.inverse) @ geometry.real.centre(sums)
        cross = geometry.used.centre(tile.units) - up(geometry.used.centred[:, :groups]) @ base
        rest = linear(geometry.real, sums, base)
        found, _ = arms.variance(
            tile, cross, lambda rows, y: rest(rows, backend.masks(geometry.masks, rows)[:, :groups], y), exact
        )
        return found * ((geometry.units - 1) / regression.df)

    def solve(tile: Tile) -> Found:
        energy, found_df = geometry.used.energy(tile.units), df
        single = not exact and groups >= _SINGLE_GROUPS
        values, stderr, noise, left = errors(tile.plain, tile.units, tile.within, single)
        if single:
            outside = (energy < 1 / _SINGLE_RANGE) | (energy > _SINGLE_RANGE)
            outside[tile.width :] = False
            unsure = np.flatnonzero(outside | (left < _SINGLE_LEFT * energy))
            if unsure.size:
                # Padded as tiles are: the same bits whichever targets are unsure.
                unsure = np.pad(unsure, (0, -unsure.size % WIDTH), mode="edge")
                within = None if tile.within is None else tile.within[unsure]
                values[:, unsure], stderr[:, unsure], noise[unsure], _ = errors(
                    tile.plain.of(unsure), tile.units.of(unsure), within, False
                )
        if arms is not None:
            variance, pooled = arms.variance(tile, plain.centre(tile.plain), exact=exact)
            if regression is not None:
                # Columns more alike than independent draws: what the other groups do weighs more than one spread says.
                more = (scale * np.maximum(rho - 1, 0))[: arms.columns]
                variance += up(more)[:, None] * (pooled - up(noise)).clip(0)
                if rho[0] < _ALIKE:
                    own = up(np.minimum(rho[: arms.columns, None], 1))
                    variance = own * variance + (1 - own) * left_by_ols(arms, tile, regression)
            stderr[: arms.columns] = variance**0.5
        if kind == "given":
            real, sums = geometry.real, tile.units.first(groups)
            base, known = backend.zeros(groups, len(energy)), 1
            others: Any = 0
            if regression is not None:
                base, known = up(regression.inverse) @ real.centre(sums), regression.parameters
                others = (up(stderr[:groups]) ** 2 - backend.outer(scale[:groups], noise)).clip(0)
            project = np.diag(1 / np.diag(real.centred))
            variance, found_df = sandwich(geometry, tile, project, linear(real, sums, base), known)
            stderr[:groups] = (variance + others) ** 0.5
        if word == "none":
            stderr[:], noise, found_df = np.nan, np.full_like(noise, np.nan), np.nan
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
    if regression is None:  # of single examples the matrix is made only where it is asked for
        return Solver(solve, lambda: geometry.real.centred, imbalance=1 / geometry.units, errors=word, df=alone)
    covariance = geometry.real.centred  # alone: a fit must not keep the geometry alive
    return Solver(solve, lambda: covariance, imbalance=float(rho[0]) / geometry.units, errors=word, df=alone)


def predictor(centred: Array, constants: int) -> Array:
    level = (centred**2).sum(0)[:, None]
    return np.divide(centred.T, level, out=np.zeros_like(centred.T), where=level > 0)


DIFFERENCE = Estimator(
    "difference",
    "difference of means",
    prepare,
    law="the difference of means' squared error falls with 1 / models",
    least=lambda groups, parameters: 3,
    options=("precision",),
    predictor=predictor,
)
