"""Least squares on all groups at once: v = G^-1 X'y, V = s^2 G^-1.

For masks of one size the pseudo-inverse, whose values sum to zero (in every stratum). A placebo column gets what it
would get if it alone joined the regression; it never changes the values of real groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pydt.base import EstimateError
from pydt.estimation.estimators.common import Estimator, Found, Options, Solver, adjusted, error_word, linear, sandwich
from pydt.estimation.inputs import Array
from pydt.estimation.mask_geometry import Geometry, Regression
from pydt.estimation.robust import Sandwich
from pydt.estimation.sums import Tile


def prepare(geometry: Geometry, options: Options) -> Solver:
    fitted = Fitted(geometry, geometry.regression, options.robust)

    def solve(tile: Tile) -> Found:
        values, variance, df, noise, placebos = fitted.find(tile)
        explained = adjusted(geometry, noise, geometry.used.energy(tile.units))
        return Found(values, variance.clip(0) ** 0.5, df, noise, explained, placebos=placebos)

    parameters = geometry.regression.parameters * geometry.masks.models / geometry.units
    return fitted.solver(solve, parameters=parameters)


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

    def _values(self, tile: Tile) -> tuple[Any, Any, Array]:
        """Influences, cross products of all columns, and the noise."""
        cross, energy = self._geometry.used.centre(tile.units), self._geometry.used.energy(tile.units)
        values = self._geometry.backend.up(self.inverse) @ cross[: len(self.inverse)]
        left = np.maximum(energy - self._geometry.backend.dots(values, cross[: len(self.inverse)]), 0)
        return values, cross, self._regression.noise(left, tile.within)

    def find(self, tile: Tile) -> tuple[Any, Any, float, Array, tuple[Any, Any] | None]:
        """Influences, their variances, degrees of freedom, the noise, and placebos with their errors: each as what it
        would get if it, alone, joined the groups (block elimination)."""
        geometry, k, backend = self._geometry, self._geometry.groups, self._geometry.backend
        values, cross, noise = self._values(tile)
        df, spread = self._regression.df, np.r_[np.diag(self.inverse), 1 / self._own if self._shown else []]
        variance = backend.outer(spread, noise)
        if self._sandwich is not None:
            known = slice(len(self._sandwich.df))
            variance[known] = self._sandwich.variance(tile, values, variance[known])
        placebos = None
        if self._shown:
            extra = cross[k:] - backend.up(geometry.used.centred[k:, :k]) @ values
            placebos = extra / backend.up(self._own)[:, None], variance[k:] ** 0.5
        variance = variance[:k]
        if geometry.masks.units.kind == "given":
            residual = linear(geometry.real, tile.units.first(k), values)
            variance, df = sandwich(geometry, tile, self.inverse, residual, self._regression.parameters)
            if self.errors == "none":
                variance, df = variance * np.nan, np.nan
        return values, variance, df, noise, placebos

    def _contrast(self, tile: Tile, weights: Array) -> tuple[Any, Any]:
        assert self._sandwich is not None
        backend = self._geometry.backend
        values, _, noise = self._values(tile)
        classical = backend.outer(np.einsum("ck,kl,cl->c", weights, self.inverse, weights, optimize=True), noise)
        return backend.up(weights) @ values, self._sandwich.variance(tile, values, classical, weights)

    def solver(self, solve: Callable[[Tile], Found], folds: tuple[int, ...] = (), parameters: float = 0.0) -> Solver:
        """The solver of a method whose errors are these."""
        contrast = None if self._sandwich is None else self._contrast
        inverse = self.inverse  # alone: a fit must not keep the geometry alive
        return Solver(solve, lambda: inverse, folds, parameters, errors=self.errors, df=self.df, contrast=contrast)


def predictor(centred: Array, constants: int) -> Array:
    gram = centred.T @ centred
    eigenvalues, vectors = np.linalg.eigh(gram)
    good = eigenvalues > 1e-9 * eigenvalues[-1]
    if good.sum() < len(gram) - constants:
        raise EstimateError(
            f"{len(centred)} models of the other folds cannot tell {len(gram)} groups apart",
            "masks",
            'train more models, or use method="ridge"',
        )
    return (vectors[:, good] / eigenvalues[good]) @ (vectors[:, good].T @ centred.T)


OLS = Estimator(
    "ols",
    "least squares on all groups at once",
    prepare,
    law=None,
    least=lambda groups, parameters: parameters + max(2, math.ceil(groups / 2)),
    needs_regression=True,
    predictor=predictor,
)
