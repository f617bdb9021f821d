"""Ridge regression: v = (G + penalty I)^-1 X'y, which minimises |y - Xb|^2 + penalty |b|^2 (scikit-learn's Ridge).

The penalty minimises generalised cross-validation, or the error on `cv` folds. Where there are no more masks than
parameters (R <= p), rows that repeat them count as rows, and s^2 is the variance between them.

    V = s^2 (G + penalty)^-1 G (G + penalty)^-1,   s^2 = |r|^2 / tr (I - S)^2

r is the residual, S the map from y to the fit. V is the sampling error only: the estimate is biased.
"""

from __future__ import annotations

import numpy as np

from pydt.estimation.estimators.common import (
    Estimator,
    Found,
    Options,
    Solver,
    blind,
    error_word,
    linear,
    no_judge,
    sandwich,
)
from pydt.estimation.inputs import Array
from pydt.estimation.mask_geometry import Geometry
from pydt.estimation.sums import Tile


def prepare(geometry: Geometry, options: Options) -> Solver:
    groups, real, cv = geometry.groups, geometry.real, options.cv
    backend = geometry.backend
    up, down = backend.up, backend.down
    intercept = geometry.intercept
    # Where masks are no more than parameters, what they leave says nothing; rows that repeat them do.
    spare = geometry.spare if geometry.units <= groups - geometry.masks.constants + intercept else 0
    rows = geometry.units + spare
    eigenvalues, vectors = np.linalg.eigh(real.centred)
    eigenvalues = np.maximum(eigenvalues, 0)
    grid = eigenvalues.mean() * np.geomspace(1e-3, 1e4, 71)
    shrunk = eigenvalues / (eigenvalues + grid[:, None])  # (penalties, groups)
    trace = intercept + shrunk.sum(1)
    held = []
    if cv is not None:
        for part in geometry.folds(cv).parts:
            fold = part.first(groups)
            train = real - fold
            held.append((fold, train, *np.linalg.eigh(train.centred)))
        if blind([train.centred for _, train, _, _ in held]):
            raise no_judge(cv)
    gram = geometry.used.centred
    shadow = gram[groups:, :groups] @ vectors
    own = np.diag(gram)[groups:, None] + grid - shadow**2 @ (1 / (eigenvalues[:, None] + grid))  # (placebos, penalties)
    shown = geometry.placebos and np.all(own > 1e-9 * np.diag(gram).max())
    penalties = []

    def solve(tile: Tile) -> Found:
        cross, energy = geometry.used.centre(tile.units), geometry.used.energy(tile.units)
        # the direction in which no mask varies holds rounding, which the penalty alone would divide
        turned = up(vectors).T @ geometry.centre(cross[:groups])
        explained_by = (2 - shrunk) / (eigenvalues + grid[:, None])  # (penalties, groups)
        left = np.maximum(energy - down(up(explained_by) @ turned**2), 0)
        if tile.within is not None and spare:
            left, energy = left + tile.within, energy + tile.within
        gcv = left * rows / np.maximum(rows - trace, 1e-9)[:, None] ** 2
        error = np.zeros_like(left)
        for i, (fold, train, e, v) in enumerate(held):
            assert cv is not None
            here = tile.folds[cv][i].first(groups)
            rest = tile.units.first(groups) - here
            v, fold_gram = up(v), up(fold.gram)
            t = v.T @ geometry.centre(train.centre(rest))
            for j, one in enumerate(grid):
                values = v @ (t / up(np.maximum(e, 0) + one)[:, None])
                mean = train.intercept(rest, values)
                total = here.total - fold.rows * mean - backend.weigh(fold.count, values)
                inner = here.cross - backend.outer(fold.count, mean) - fold_gram @ values
                more = down((values * (here.cross + inner)).sum(0))
                error[j] += here.squares - mean * (here.total + total) - more
        chosen = (error if held else gcv).argmin(0)
        penalty, targets = grid[chosen], np.arange(len(energy))
        penalties.append(penalty[: tile.width])
        shrink = 1 / (up(eigenvalues)[:, None] + up(penalty))
        values = up(vectors) @ (turned * shrink)
        free = rows - intercept - (2 * shrunk - shrunk**2).sum(1)[chosen]  # far below 1 where a fit nearly interpolates
        df, noise = np.maximum(free, 1.0), left[chosen, targets] / np.maximum(free, 1e-9)
        if tile.within is not None and spare:
            df, noise = np.full_like(free, spare), tile.within / spare
        if geometry.masks.units.kind == "given":
            variance = backend.zeros(*values.shape)
            fitted = linear(real, tile.units.first(groups), values)
            for one in np.unique(chosen):
                same = np.flatnonzero(chosen == one)
                inverse = vectors / (eigenvalues + grid[one]) @ vectors.T
                all_targets, df[same] = sandwich(geometry, tile, inverse, fitted, trace[one])
                variance[:, same] = all_targets[:, same]
        else:
            variance = up(vectors) ** 2 @ (up(eigenvalues)[:, None] * shrink**2) * up(noise)
        placebos = None
        if geometry.placebos:
            level = own[:, chosen] if shown else np.full((geometry.placebos, 1), np.nan)
            placebos = (cross[groups:] - up(gram[groups:, :groups]) @ values) / up(level), np.sqrt(noise / level)
        with np.errstate(invalid="ignore", divide="ignore"):
            explained = 1 - gcv[chosen, targets] * (rows - intercept) / energy
        stderr = variance.clip(0) ** 0.5
        return Found(values, stderr, df, noise, explained, values * np.nan, penalty, placebos=placebos)

    def covariance() -> Array:
        typical = 1 / (eigenvalues + np.median(np.concatenate(penalties)))
        return (vectors * eigenvalues * typical**2) @ vectors.T

    word = error_word(geometry, False, True, None)
    return Solver(solve, covariance, () if cv is None else (cv,), errors=word)


def predictor(centred: Array, constants: int) -> Array:
    """With the penalty groups x mean variance of a mask column: the best when half of the variance is linear."""
    penalty = (centred**2).sum(0).sum() / len(centred)
    if centred.shape[1] > len(centred):  # (X'X + p)^-1 X' = X' (XX' + p)^-1: a matrix of rows
        return np.linalg.solve(centred @ centred.T + penalty * np.eye(len(centred)), centred).T
    gram = centred.T @ centred
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), centred.T)


RIDGE = Estimator(
    "ridge",
    "ridge regression",
    prepare,
    law="ridge regression's squared error falls with 1 / models",
    least=lambda groups, parameters: 10,
    options=("cv",),
    biased=True,
    predictor=predictor,
)
