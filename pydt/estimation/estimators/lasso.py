"""The LASSO and the elastic net, de-biased.

`values` minimise |y - Xb|^2 / (2m) + penalty (l1_ratio |b|_1 + (1 - l1_ratio) |b|^2 / 2) (scikit-learn's Lasso and
ElasticNet). The penalty is the one of a path that errs least on a held-out fifth, on five such folds where there are at
most 500 independent masks, or on `cv` folds.

`unbiased` is cross-fitted: the mean over five folds of the coefficients from the other four, plus the difference of
means of the residuals on the fold itself. V = c tau^2, tau^2 the variance of those residuals within "with" and
"without". Masks far from independent draws (rho > 1.5, or < 1/2) and fewer than five masks get OLS inference instead,
where there are models enough.

Why that is unbiased, and the path: docs/how-pydt-estimates.md; the solver: docs/lasso-solver.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pydt.base import EstimateError
from pydt.estimation.estimators.common import Estimator, Found, Options, Solver, blind, error_word, no_judge, sandwich
from pydt.estimation.estimators.ols import Fitted
from pydt.estimation.inputs import Array, Rows
from pydt.estimation.mask_geometry import Geometry
from pydt.estimation.robust import Arms
from pydt.estimation.sums import Columns, Counts, Sums, Tile

_FOLDS = 5
_STEP = 0.01 ** (1 / 99)  # from one penalty of the path to the next: 100 steps to 1/100 of the largest
_STEPS, _STEPS_FEW = 150, 66  # to 1/1000; to 1/20 with fewer models than groups
_FEW = 500  # independent models up to which every fold judges the penalty: a fifth of them is a noisy judge
_PATIENCE = 3  # worse steps that end a path which has found something: csrc/lasso.cpp
_ROUGH, _FOLD, FINE = 1e-4, 5e-6, 1e-6  # duality gaps over half of what is left: on the path; of folds; of the values
CONVERGED, _LEAST = 1e-5, 0.1  # what counts as converged; of that share of the sum of squares at least (float32 values)


class _Problem(Counts):
    """Least squares on some rows, scaled as the solver takes it: by rows, so penalties are those of scikit-learn."""

    def __init__(self, columns: Columns):
        super().__init__(columns.rows, columns.count)
        self.gram = np.outer(columns.count / -columns.rows, columns.count)
        self.gram += columns.gram
        self.gram /= columns.rows

    def of(self, sums: Sums) -> tuple[Array, Any, Array]:
        cross = self.centre(sums)
        cross /= self.rows
        return self.gram, cross, self.energy(sums) / self.rows


class _Held:
    """Held-out rows as the training rows see them: less the training means."""

    def __init__(self, fold: Columns, train: Counts):
        self.fold, self.train, self.mean = fold, train, train.count / train.rows
        self.lean = fold.count - fold.rows * self.mean
        self.gram = fold.gram - np.outer(self.mean, fold.count) - np.outer(self.lean, self.mean)

    def of(self, sums: Sums, train: Sums) -> tuple[Array, Any, Array]:
        level = train.total / self.train.rows
        outer = sums.backend.outer
        cross = sums.cross - outer(self.lean, level) - outer(self.mean, sums.total)
        return self.gram, cross, sums.squares - level * (2 * sums.total - self.fold.rows * level)


def prepare(geometry: Geometry, options: Options) -> Solver:
    groups, units, backend = geometry.groups, geometry.units, geometry.backend
    up = backend.up
    cv, l1_ratio, robust = options.cv, options.l1_ratio, options.robust
    number = min(_FOLDS, geometry.masks.units.cluster_count)
    if number < 2:
        other = "train models on more different masks"
        if geometry.regression_or_none is not None:
            other = 'use method="ols", which these masks allow'
        raise EstimateError("all masks repeat or complement each other: the LASSO has no folds", "masks", other)
    parts, both, total = geometry.folds(number).parts, geometry.used, geometry.real
    label = geometry.folds(number).label
    trains = [_Problem(total - part.first(groups)) for part in parts]
    whole = _Problem(total)
    choice = number if cv is None else cv
    # the first fold judges alone, and its path has solved the first training part
    one_judge = cv is None and geometry.masks.units.cluster_count > _FEW
    if choice == number:
        candidates = list(zip(parts[: 1 if one_judge else number], trains, strict=False))
    else:
        candidates = [(part, _Problem(total - part.first(groups))) for part in geometry.folds(choice).parts]
    # As of as many masks as groups, with one group each: then nothing speaks against little shrinkage.
    unjudged = blind([train.gram for train in trains] if cv is None else [train.gram for _, train in candidates])
    if unjudged and cv is not None:
        raise no_judge(cv)
    held = [_Held(part.first(groups), train) for part, train in candidates]
    clusters = geometry.masks.units.clusters
    judges = [len(np.unique(clusters[rows])) for rows in geometry.folds(choice).rows]
    steps: Array = _STEP ** np.arange(_STEPS if units > groups else _STEPS_FEW, dtype=np.float64)

    free = units - geometry.intercept
    scale = up(1 / geometry.spread[:, None])
    one_size = up(geometry.one_size[:, None])
    # The known mask covariance does not hold of nearly orthogonal masks, of those far more correlated than independent
    # draws, nor of a few different masks.
    rho, pairs = float(geometry.rho[0]), groups * (groups - 1) / 2
    tied = bool(pairs) and rho > 1.5 + 6 * math.sqrt(2 / pairs)
    regression = geometry.regression_or_none if tied or rho < 0.5 or number < _FOLDS else None
    if regression is None and free < 2:
        raise EstimateError(
            f"{units} independent models have no spread to judge by", "masks", "train at least 3 models"
        )
    fitted = None if regression is None else Fitted(geometry, regression, robust)
    word = error_word(geometry, robust, not tied, None)
    arms = Arms(geometry) if fitted is None and word == "robust" and geometry.masks.units.kind != "pair" else None

    def choose(tile: Tile, units: Sums) -> tuple[Array, Any, Array]:
        """Penalty, coefficients on the first training part, and their gap."""
        if unjudged:
            return (
                backend.largest(whole.of(units)[1]) / l1_ratio * _STEP ** (_STEPS - 1),
                None,
                np.zeros(len(units.total)),
            )
        error, top = np.zeros((len(steps), len(units.total))), np.zeros(len(units.total))
        for i, ((_, train), test) in enumerate(zip(candidates, held, strict=True)):
            here = tile.folds[choice][i].first(groups)
            rest = units - here
            problem = train.of(rest)
            path = backend.lasso_path(
                *problem, *test.of(here, rest), steps, l1_ratio=l1_ratio, tolerance=_ROUGH,
                patience=_PATIENCE if one_judge else len(steps), held_rows=judges[i],
            )  # fmt: skip
            error += path[0]
            top += backend.largest(problem[1]) / l1_ratio
            if i == 0:
                start, gap = path[1:3]
        return top / len(held) * steps[error.argmin(0)], start, gap

    def solve(tile: Tile) -> Found:
        sums = tile.units.first(groups)
        penalty, start, accuracy = choose(tile, sums)
        problem = whole.of(sums)
        values, gap, sweeps = backend.lasso(*problem, penalty, start, l1_ratio=l1_ratio, tolerance=FINE)
        worst = np.maximum(gap, accuracy * (CONVERGED / (2 * _ROUGH)) if one_judge else 0)
        energy = problem[2] * total.rows
        if geometry.masks.units.kind == "pair":  # the gap is quoted against the rows, not the half-differences
            spread = geometry.plain.energy(tile.plain)
            gap = gap * np.divide(energy, spread, out=np.zeros_like(energy), where=spread > 0)

        mean, slopes, intercepts = backend.zeros(*sums.cross.shape), [], []
        moved, left, shift = backend.zeros(*tile.units.cross.shape), np.zeros_like(energy), np.zeros_like(energy)
        for i, (part, train) in enumerate(zip(parts, trains, strict=True)):
            here = tile.folds[number][i]
            rest = sums - here.first(groups)
            if i == 0 and one_judge and start is not None:
                slope = start
            else:
                slope, accuracy, more = backend.lasso(
                    *train.of(rest), penalty, values, l1_ratio=l1_ratio, tolerance=_FOLD
                )
                worst, sweeps = np.maximum(worst, accuracy), sweeps + more
            intercept = train.intercept(rest, slope)
            found = part.residuals(here, slope, intercept)
            mean += slope * (part.rows / total.rows)
            shift, left, moved = shift + found.total, left + found.squares, moved + found.cross
            slopes.append(slope)
            intercepts.append(up(intercept))
        moved -= backend.outer(both.count / both.rows, shift)
        left = np.maximum(left - geometry.intercept * shift**2 / both.rows, 0)
        tau = left / free
        with np.errstate(invalid="ignore", divide="ignore"):
            explained = 1 - tau * free / energy
        if unjudged:  # the cross-fit extrapolates
            tau, explained = np.full_like(tau, np.nan), np.full_like(tau, np.nan)
        share = np.divide(left, energy, out=np.ones_like(left), where=energy > 0)
        converged = worst <= CONVERGED * np.clip(share, _LEAST, 1)
        df: Array | float = float(free - 1)
        if fitted is not None:
            unbiased, variance, df, _, placebos = fitted.find(tile)
        else:

            def residual(rows: Rows, masks: Any, y: Any) -> Any:
                fold = label[rows[0]]
                return y - intercepts[fold] - backend.product(masks, slopes[fold])

            def residuals(rows: Rows, y: Any) -> Any:
                for fold in range(number):
                    own = np.flatnonzero(label[rows] == fold)
                    masks = backend.masks(geometry.masks, rows[own])[:, :groups]
                    y[own] -= intercepts[fold] + backend.product(masks, slopes[fold])
                return y - up(shift / both.rows)

            own = None if arms is None else arms.variance(tile, moved, residuals, options.exact)[0]
            moved *= scale
            variance = (up(left) - moved**2 / scale).clip(0) * scale / (free - 1)
            if own is not None:
                variance[: len(own)] = own
            variance *= one_size**2
            moved *= one_size
            placebos = (moved[groups:], variance[groups:] ** 0.5) if geometry.placebos else None
            unbiased, variance = mean + moved[:groups], variance[:groups]
            unbiased = geometry.centre(unbiased)
            if geometry.masks.units.kind == "given":
                project = np.diag(geometry.one_size[:groups] / np.diag(total.centred))
                variance, df = sandwich(geometry, tile, project, residual, 1)
            if tied:
                unbiased, variance = unbiased * np.nan, variance * np.nan
        stderr = variance.clip(0) ** 0.5
        return Found(values, stderr, df, tau, explained, unbiased, penalty, gap, sweeps, converged, placebos)

    folds = (number,) if choice == number else (number, choice)
    if fitted is not None:
        return fitted.solver(solve, folds)
    alone = None if arms is None else arms.split_df(geometry, float(free - 1))
    return Solver(solve, lambda: total.centred, folds, errors=word, df=alone)


LASSO = Estimator(
    "lasso",
    "the de-biased LASSO",
    prepare,
    law="the LASSO's squared error falls with 1 / models",
    least=lambda groups, parameters: 10,
    options=("cv", "l1_ratio"),
    successor="ols",
)
