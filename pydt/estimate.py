"""Influences of groups on outputs, with standard errors that hold over fresh designs.

Model, one target at a time: y = mu + M b + noise, M 0/1 (models m x groups K). Arrays are (groups, targets), float64
inside and float32 outside. Everything is computed from the statistics of `moments.py`; X is M less its column means,
G = X'X, n1 and n0 the models with and without a group, c = 1/n1 + 1/n0 = 1/G_kk, R the independent units (rows,
unless masks repeat or complement each other) and p the parameters.

Estimands. Masks of one size ("swap") say how a group compares with the average group: OLS and the de-biased LASSO
estimate b - mean(b). The plain difference of means estimates b_k - mean of the *other* b = K/(K-1) (b_k - mean(b))
there. All other masks ("add") estimate b.

    difference   v = mean of y with the group - mean without
    ols          v = G^-1 X'y; for masks of one size the pseudo-inverse, whose values sum to zero
    ridge        v = (G + penalty I)^-1 X'y: minimises |y - Xb|^2 + penalty |b|^2 (scikit-learn's Ridge). The penalty
                 minimises generalised cross-validation, or the error on `cv` folds
    lasso        v minimises |y - Xb|^2 / (2m) + penalty |b|_1 (scikit-learn's Lasso). The penalty minimises the error
                 on a held-out fifth (or on `cv` folds); then all rows are used. With fewer than five independent
                 masks there are as many folds as those

Standard errors. s^2 is the residual variance of OLS on all groups, R - p degrees of freedom.

    ols          V = s^2 G^-1 (pseudo-inverse).
    difference   conditional on the masks its noise is c s^2, but the other groups are not balanced between the two
                 means, and over fresh designs that is a second error. Let T be the variance of y within "with" and
                 "without" (noise plus all that the other groups do) and rho = (R - 1) x mean squared correlation
                 between mask columns: 1 for masks drawn independently, 0 for orthogonal ones. Then V = c ((1 - rho)
                 s^2 + rho T). The residual alone covers 46 % instead of 95 % on random masks at R2 = 0.9; the raw
                 spread alone is far too wide on whole foldover blocks. With too few models for OLS, V = c T.
    lasso        `unbiased` is cross-fitted: mean over five folds of the coefficients from the other four, plus the
                 difference of means of the residuals on the fold itself. The difference of means is the inverse of the
                 design's *known* mask covariance applied to X'r / m: alpha (1 - alpha) I for Bernoulli masks and
                 foldover, alpha (1 - alpha) K/(K-1) (I - 11'/K) for masks of one size (a factor (K-1)/K, then
                 centring); alpha is each column's own. Given the penalty, coefficients and fold are independent, so it
                 is unbiased for every group and any m. The penalty itself is one number per target chosen on all rows:
                 that dependence is not corrected (a choice inside every training part costs several paths more), and
                 coverage with it is tested. The variance is c tau^2 with tau^2 the variance of those residuals within
                 "with" and "without": noise plus what the LASSO missed. Masks that are far more correlated than
                 independent draws, or nearly orthogonal by design (rho < 1/2: foldover), or fewer than five, get OLS
                 inference where there are models enough; without them foldover keeps c tau^2 (a little wide), and
                 masks of one's own get NaN.
    ridge        s^2 (G + penalty)^-1 G (G + penalty)^-1: the sampling error only. It is biased, so `unbiased` and `q`
                 are NaN.

Clusters of the caller's own (neither repeats nor complements) get a sandwich over clusters, t with clusters - 1
degrees. Placebo columns never change the values of real groups: each gets what it would get if it alone joined the
regression.

Cost: one pass over the outputs, m K targets; OLS adds K^3 + K^2 targets. What lost: de-biasing in-sample residuals with
a degrees-of-freedom factor (4-13 % smaller errors, but 94 % coverage or less on dense truths with few models, and
wrong on orthogonal masks); Welch's two variances (needs M'Y^2, differs by 1 %); noise from in-sample LASSO residuals
(too small).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.design import Design, to_array
from pydt.errors import EstimateError
from pydt.moments import (
    Array,
    Inputs,
    Moments,
    Regression,
    choose_penalty,
    column_correlation,
    lasso,
    read,
    regress,
    regress_or_none,
    spread_of,
)

METHODS = ("difference", "ols", "ridge", "lasso")
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Fit:
    """Influences and how sure they are. For one-dimensional outputs the axis of targets is missing everywhere.

    Attributes:
        method, estimand: "swap" (compared with the average other group) or "add" (what adding the group does).
        values: float32 (groups, targets), in the unit of the outputs.
        unbiased: float32 (groups, targets): what `stderr` and `q` speak of: `values`; lasso: de-biased; ridge: NaN.
        stderr: float32 (groups, targets); unbiased +- t(df) x stderr covers. For ridge: sampling error of `values`.
        q: float32 (groups, targets): Benjamini-Hochberg over the groups of one target; two-sided t test. NaN for ridge.
        penalty, gap: (targets,) or None. gap = duality gap / half the centred sum of squares (lasso only).
        df: (targets,) degrees of freedom of the t distribution.
        noise: (targets,) variance of one model's output that the errors rest on.
        explained: (targets,) share of the variance between units that all groups explain: adjusted R2 (difference,
            ols; NaN without models enough), by generalised cross-validation (ridge), cross-fitted (lasso).
        models: rows. counts: int64 (groups,) models that kept each group. parameters: rows that the fit uses up.
        placebo_values, placebo_stderr, placebo_q: (placebos, targets), or None without a Design.
        correlation: (groups, groups) of the errors of one target, from the masks alone.
    """

    method: str
    estimand: str
    values: npt.NDArray[np.float32]
    unbiased: npt.NDArray[np.float32]
    stderr: npt.NDArray[np.float32]
    q: npt.NDArray[np.float32]
    penalty: Array | None
    gap: Array | None
    df: Array
    noise: Array
    explained: Array
    models: int
    counts: npt.NDArray[np.int64]
    parameters: float
    placebo_values: npt.NDArray[np.float32] | None
    placebo_stderr: npt.NDArray[np.float32] | None
    placebo_q: npt.NDArray[np.float32] | None
    correlation: Array

    def contrast(self, weights: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weighted sums of influences: c'b and its standard error sqrt(c'Vc), V from the design's known correlations.

        Args:
            weights: (groups,) or (contrasts, groups). With estimand "swap" only weights that sum to zero are free of
                the arbitrary zero of the influences.

        Returns:
            value and standard error, each (targets,) or (contrasts, targets); of `values` for ridge, else of
            `unbiased`.

        Raises:
            EstimateError: weights of another shape, or not finite.
        """
        c = to_array(weights, "weights", EstimateError)
        if c.dtype.kind not in "biuf":
            raise EstimateError(f"dtype {c.dtype} is not one of numbers", "weights", "pass one finite weight per group")
        c = c.astype(np.float64)
        if c.ndim not in (1, 2) or c.shape[-1] != len(self.counts) or not np.isfinite(c).all():
            raise EstimateError(
                f"weights of shape {c.shape} for {len(self.counts)} groups",
                "weights",
                "pass one finite weight per group",
            )
        source = self.values if self.method == "ridge" else self.unbiased
        stderr = self.stderr.astype(np.float64).reshape(len(self.counts), -1)
        scaled = np.atleast_2d(c)[:, :, None] * stderr[None]
        variance = np.stack([(part * (self.correlation @ part)).sum(0) for part in scaled])
        shape = c.shape[:-1] + self.stderr.shape[1:]
        return c @ source.astype(np.float64), np.sqrt(np.maximum(variance, 0)).reshape(shape)


def influences(
    masks: Any,
    outputs: Any,
    method: str = "difference",
    *,
    groups: int | None = None,
    clusters: npt.ArrayLike | None = None,
    cv: int | None = None,
    nan: str = "raise",
    out: npt.NDArray[np.float32] | None = None,
) -> Fit:
    """Regress outputs on masks: the influence of every group on every target, with standard errors.

    Args:
        masks: a Design, any 0/1 array-like (models, groups), or packed uint8 (models, ceil(groups / 8)) with `groups`.
        outputs: (models, targets) of any float dtype and strides: arrays, memory maps, tensors; or (models,).
        method: "difference", "ols", "ridge" or "lasso"; formulas at the top of this file.
        groups: number of groups, for packed masks.
        clusters: (models,) labels of rows that belong together; by default repeated and complementary masks.
        cv: folds on which ridge and lasso choose their penalty, instead of their defaults.
        nan: "raise" names the first NaN or infinite output; "flag" gives NaN for its target alone.
        out: float32 array of the shape of `values` to write them into.

    Raises:
        EstimateError: inputs that do not fit together; groups in no or in every model, or that masks cannot tell apart.
    """
    if method not in METHODS:
        raise EstimateError(f"unknown method {method!r}", "method", f"use one of {', '.join(METHODS)}")
    if cv is not None and method not in ("ridge", "lasso"):
        raise EstimateError(f"{method} has no penalty to choose", "cv", "leave it out, or use ridge or lasso")
    given = read(masks, outputs, groups, clusters, nan)
    shape = (given.groups,) if given.flat else (given.groups, given.outputs.shape[1])
    if out is not None:
        if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32:
            raise EstimateError(f"is not a float32 array of shape {shape}", "out", "make it with numpy.empty")
        if not out.flags.writeable:
            raise EstimateError("is read-only", "out", 'pass an array that may be written; a memory map opened "r+"')
    found = {"difference": _difference, "ols": _ols, "ridge": _ridge, "lasso": _lasso}[method](given, cv)
    return _finish(given, method, found, out)


Residual = Callable[[npt.NDArray[np.intp], Array, Array], Array]


def linear(given: Inputs, moments: Moments, values: Array) -> Residual:
    intercept = moments.intercept(values)
    return lambda rows, masks, y: y - intercept - masks @ values


def only(residual: Residual, targets: npt.NDArray[np.intp]) -> Residual:
    return lambda rows, masks, y: residual(rows, masks, y)[:, targets]


def sandwich(given: Inputs, project: Array, residual: Residual, parameters: float) -> tuple[Array, float]:
    """Sum over clusters of (sum over its rows of project x mask x residual)^2, with the usual small-sample factor."""
    clusters = given.units.cluster_count
    if clusters < 2:
        raise EstimateError("all models are in one cluster", "clusters", "there must be at least two")
    mean = given.masks(np.arange(given.models))[:, : given.groups].mean(0)
    variance: Any = 0.0
    order = np.argsort(given.units.clusters, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(given.units.clusters))[:-1]):
        masks = given.masks(rows)[:, : given.groups]
        y = np.where(given.broken, 0, given.outputs[rows].astype(np.float64) - given.shift)
        variance = variance + (((masks - mean) @ project).T @ residual(rows, masks, y)) ** 2
    factor = clusters / (clusters - 1) * (given.models - 1) / max(given.models - parameters, 1)
    return variance * factor, float(clusters - 1)


def best_method(masks: Any, *, groups: int | None = None, clusters: npt.ArrayLike | None = None) -> str:
    """The method whose `unbiased` and `stderr` these masks support: "ols" where OLS has models enough, else "lasso".

    Enough: the masks tell all groups apart, and the degrees of freedom of the residual, as OLS counts them (models
    with one mask count once, unless all masks are needed for the groups and only repeats show the noise), are at least
    2 and at least half of the groups. Below that its errors are several times those of the LASSO. Where the LASSO has
    no folds, because all masks repeat or complement each other, any degree of freedom will do.

    Args:
        masks, groups, clusters: as for `influences`.

    Raises:
        EstimateError: masks that do not fit together; groups in no or in every model.
    """
    array = masks if isinstance(masks, Design) else np.atleast_1d(to_array(masks, "masks", EstimateError))
    given = read(array, np.zeros(max(len(array), 1), np.float32), groups, clusters)
    ols = regress_or_none(given, given.measure().first(given.groups))
    if ols is None:
        return "lasso"
    free = ols.df if given.units.kind != "given" else given.units.cluster_count - ols.parameters
    return "ols" if free >= max(2, given.groups / 2) or given.units.cluster_count < 2 else "lasso"


@dataclass
class _Found:
    """What a method returns, (groups, targets) or (targets,), float64."""

    values: Array
    stderr: Array
    df: Array
    noise: Array
    explained: Array
    correlation: Array
    parameters: float
    unbiased: Array | None = None  # None: the values
    penalty: Array | None = None
    gap: Array | None = None
    placebos: tuple[Array, Array, Array] | None = None  # values, standard errors, degrees of freedom


def _difference(given: Inputs, cv: int | None) -> _Found:
    groups, models = given.groups, given.models
    raw = given.plain()
    moments = raw if given.units.kind in ("single", "given") else given.measure()
    # A placebo column that few models all drew alike says nothing: NaN.
    with_it = np.where((raw.count > 0) & (raw.count < models), raw.count, np.nan)[:, None]
    without = models - with_it
    values = raw.cross / with_it - (raw.total - raw.cross) / without
    scale = 1 / with_it + 1 / without
    gram, cross, energy = moments.centred
    free = given.units.count - 1 - given.units.intercept
    if free < 1:  # two masks: only their repeats show the noise
        noise, free = given.repeats()
        if free < 1:
            raise EstimateError(f"{models} models have no spread to judge by", "masks", "train at least 3 models")
        spread = np.broadcast_to(noise, cross.shape)
    else:
        spread = np.maximum(energy - cross**2 / spread_of(gram)[:, None], 0) / free
    real = moments.first(groups)
    ols = regress_or_none(given, real)
    rho = column_correlation(given, gram)
    if ols is None:
        variance, df, noise = scale * spread, float(free), energy / max(free, 1)
        explained = np.full(len(noise), np.nan)
    else:
        noise = ols.noise
        more = np.maximum(spread - noise, 0)
        variance = scale * (noise + rho[:, None] * more)
        share = min(float(rho[0]), 1.0)
        df = 1 / ((1 - share) ** 2 / ols.df + share**2 / free)
        explained = _adjusted(given, noise, energy)
    if given.units.kind == "given":
        base = np.zeros_like(cross[:groups]) if ols is None else ols.values
        known = 1 if ols is None else ols.parameters
        variance[:groups], df = sandwich(given, np.diag(1 / np.diag(gram)[:groups]), linear(given, real, base), known)
        if ols is not None:
            variance[:groups] += rho[0] * (scale * more)[:groups]
    stderr, dfs = np.sqrt(variance), np.full(values.shape[1], df)
    placebos = (values[groups:], stderr[groups:], dfs) if given.placebos else None
    correlation = _correlation(gram[:groups, :groups])
    return _Found(values[:groups], stderr[:groups], dfs, noise, explained, correlation, 0, placebos=placebos)


def _ols(given: Inputs, cv: int | None) -> _Found:
    moments = given.measure()
    ols = regress(given, moments.first(given.groups))
    energy = moments.centred[2]
    variance, df = _ols_variance(given, moments, ols)
    placebos = _placebos(given, moments, ols.inverse, ols.values, ols.noise, np.full(len(energy), ols.df))
    return _Found(
        ols.values,
        np.sqrt(np.maximum(variance, 0)),
        np.full(len(energy), df),
        ols.noise,
        _adjusted(given, ols.noise, energy),
        _correlation(ols.inverse),
        ols.parameters * given.models / given.units.count,
        placebos=placebos,
    )


def _ols_variance(given: Inputs, moments: Moments, ols: Regression) -> tuple[Array, float]:
    if given.units.kind == "given":
        return sandwich(given, ols.inverse, linear(given, moments.first(given.groups), ols.values), ols.parameters)
    return np.outer(np.diag(ols.inverse), ols.noise), ols.df


def _ridge(given: Inputs, cv: int | None) -> _Found:
    groups = given.groups
    if cv is None:
        moments, held = given.measure(), []
    else:
        held = given.folds(cv)[1]
        moments = sum(held[1:], start=held[0])
    gram, cross, energy = moments.first(groups).centred
    rows, intercept = given.units.count, given.units.intercept
    eigenvalues, vectors = np.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, 0)
    turned = vectors.T @ cross
    grid = eigenvalues.mean() * np.geomspace(1e-3, 1e4, 71)
    shrunk = eigenvalues / (eigenvalues + grid[:, None])  # (penalties, groups)
    left = energy - ((2 - shrunk) / (eigenvalues + grid[:, None])) @ turned**2
    left = np.maximum(left, 0)
    trace = intercept + shrunk.sum(1)
    gcv = left * rows / np.maximum(rows - trace, 1e-9)[:, None] ** 2
    if held:
        error = np.zeros_like(left)
        for fold in (part.first(groups) for part in held):
            train = moments.first(groups) - fold
            part, cross_part, _ = train.centred
            e, v = np.linalg.eigh(part)
            t = v.T @ cross_part
            for i, penalty in enumerate(grid):
                values = v @ (t / (np.maximum(e, 0) + penalty)[:, None])
                error[i] += fold.residuals(values, train.intercept(values))[1]
    chosen = (error if held else gcv).argmin(0)
    penalty, targets = grid[chosen], np.arange(len(energy))
    shrink = 1 / (eigenvalues[:, None] + penalty)
    values = vectors @ (turned * shrink)
    df = np.maximum(rows - intercept - (2 * shrunk - shrunk**2).sum(1)[chosen], 1.0)
    noise = left[chosen, targets] / df
    variance = vectors**2 @ (eigenvalues[:, None] * shrink**2) * noise
    typical = 1 / (eigenvalues + np.median(penalty))
    shadows = [np.full((given.placebos, len(energy)), np.nan) for _ in range(2)]
    fitted = linear(given, moments.first(groups), values)
    for one in np.unique(chosen):
        same = np.flatnonzero(chosen == one)
        inverse = vectors / (eigenvalues + grid[one]) @ vectors.T
        if given.units.kind == "given":
            variance[:, same], df[same] = sandwich(given, inverse, only(fitted, same), trace[one])
        got = _placebos(given, moments.of(same), inverse, values[:, same], noise[same], df[same], grid[one])
        if got is not None:
            shadows[0][:, same], shadows[1][:, same] = got[:2]
    placebos = (*shadows, df) if given.placebos else None
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = 1 - gcv[chosen, targets] * (rows - intercept) / energy
    correlation = _correlation((vectors * eigenvalues * typical**2) @ vectors.T)
    stderr, unknown = np.sqrt(np.maximum(variance, 0)), np.full_like(values, np.nan)
    return _Found(values, stderr, df, noise, explained, correlation, 0.0, unknown, penalty, placebos=placebos)


def _lasso(given: Inputs, cv: int | None) -> _Found:
    groups = given.groups
    number = min(_FOLDS, given.units.cluster_count)
    if number < 2:
        other = "train models on more different masks"
        if regress_or_none(given, given.measure().first(groups)) is not None:
            other = 'use method="ols", which these masks allow'
        raise EstimateError("all masks repeat or complement each other: the LASSO has no folds", "masks", other)
    label, parts = given.folds(number)
    both = sum(parts[1:], start=parts[0])
    folds, total = [part.first(groups) for part in parts], both.first(groups)
    if cv is None:
        held = folds[:1]
    else:
        held = folds if cv == number else [part.first(groups) for part in given.folds(cv)[1]]
    penalty = choose_penalty(total, held)
    gram, cross, energy = total.centred
    values, gap = lasso(gram / total.rows, cross / total.rows, energy / total.rows, penalty)
    if given.units.kind == "pair":  # the gap is quoted against the rows, not the half-differences
        spread = given.plain().centred[2]
        gap = gap * np.divide(energy, spread, out=np.zeros_like(energy), where=spread > 0)

    mean, slopes, intercepts = np.zeros_like(values), [], []
    moved, left, sums = np.zeros_like(both.cross), np.zeros_like(energy), np.zeros_like(energy)
    for part, fold in zip(parts, folds, strict=True):
        train = total - fold
        g, c, e = (piece / train.rows for piece in train.centred)
        slope, _ = lasso(g, c, e, penalty, values, 1e-5)
        intercept = train.intercept(slope)
        wide = np.concatenate([slope, np.zeros((given.placebos, len(energy)))])
        fold_sum, fold_squares, fold_cross = part.residuals(wide, intercept)
        mean += slope * (fold.rows / total.rows)
        sums, left, moved = sums + fold_sum, left + fold_squares, moved + fold_cross
        slopes.append(slope)
        intercepts.append(intercept)
    moved -= np.outer(both.count, sums / both.rows)
    free = given.units.count - given.units.intercept
    left = np.maximum(left - given.units.intercept * sums**2 / both.rows, 0)
    tau = left / free
    scale = 1 / spread_of(both.centred[0])[:, None]
    one_size = (groups - 1) / groups if given.estimand == "swap" else 1.0
    unbiased = mean + one_size * scale[:groups] * moved[:groups]
    if given.estimand == "swap":
        unbiased -= unbiased.mean(0)

    df = np.full(len(energy), float(free - 1))
    variance = one_size**2 * scale * np.maximum(left - scale * moved**2, 0) / (free - 1)
    correlation = _correlation(gram[:groups, :groups])
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = 1 - tau * free / energy
    if given.units.kind == "given":
        project = np.diag(one_size / np.diag(gram))

        def residual(rows: npt.NDArray[np.intp], masks: Array, y: Array) -> Array:
            fold = label[rows[0]]
            return y - intercepts[fold] - masks @ slopes[fold]

        variance[:groups], spare = sandwich(given, project, residual, 1)
        df[:] = spare
    placebos: Any = None
    if given.placebos:
        shifts = one_size * scale[groups:] * moved[groups:]
        placebos = (shifts, np.sqrt(variance[groups:]), df.copy())
    # Nearly orthogonal masks, and those far more correlated than independent draws, have another covariance; a few
    # different masks are no draws of it at all.
    rho, pairs = float(column_correlation(given, gram)[0]), groups * (groups - 1) / 2
    ols = regress_or_none(given, total)
    tied = bool(pairs) and rho > 1.5 + 6 * math.sqrt(2 / pairs)
    if ols is not None and (tied or rho < 0.5 or number < _FOLDS):
        unbiased = ols.values
        variance[:groups], df[:] = _ols_variance(given, total, ols)
        correlation = _correlation(ols.inverse)
        placebos = _placebos(given, both, ols.inverse, ols.values, ols.noise, np.full(len(energy), ols.df))
    elif tied:
        unbiased, variance[:groups] = np.full_like(values, np.nan), np.nan
    stderr = np.sqrt(variance[:groups])
    return _Found(values, stderr, df, tau, explained, correlation, 0.0, unbiased, penalty, gap, placebos)


def _adjusted(given: Inputs, noise: Array, energy: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - noise * (given.units.count - given.units.intercept) / energy


def _correlation(covariance: Array) -> Array:
    scale = 1 / np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    return covariance * np.outer(scale, scale)


def _placebos(
    given: Inputs, moments: Moments, inverse: Array, values: Array, noise: Array, df: Array, penalty: float = 0.0
) -> tuple[Array, Array, Array] | None:
    """What each placebo column would get if it, alone, joined the groups in the regression (block elimination)."""
    k = given.groups
    if not given.placebos:
        return None
    gram, cross, _ = moments.centred
    own = np.diag(gram)[k:] + penalty
    own = own - ((gram[k:, :k] @ inverse) * gram[k:, :k]).sum(1)
    if own.min() <= 1e-9 * np.diag(gram).max():
        return None
    found = (cross[k:] - gram[k:, :k] @ values) / own[:, None]
    return found, np.sqrt(np.outer(1 / own, noise)), df


def _finish(given: Inputs, method: str, found: _Found, out: npt.NDArray[np.float32] | None) -> Fit:
    def public(array: Array) -> npt.NDArray[np.float32]:
        single = np.where(given.broken, np.nan, array).astype(np.float32)
        return single[:, 0] if given.flat else single

    def per_target(array: Array) -> Array:
        array = np.where(given.broken, np.nan, array)
        return array[0] if given.flat else array

    values = public(found.values)
    if out is not None:
        out[...] = values
        values = out
    unbiased = found.values if found.unbiased is None else found.unbiased
    p = _p_values(unbiased, found.stderr, found.df)
    extra: list[Any] = [None, None, None]
    if found.placebos is not None:
        v, s, df = found.placebos
        flat = np.full_like(v, np.nan) if method == "ridge" else benjamini_hochberg(_p_values(v, s, df))
        extra = [public(v), public(s), public(flat)]
    return Fit(
        method=method,
        estimand=given.estimand,
        values=values,
        unbiased=values if found.unbiased is None else public(unbiased),
        stderr=public(found.stderr),
        q=public(benjamini_hochberg(p)),
        penalty=None if found.penalty is None else per_target(found.penalty),
        gap=None if found.gap is None else per_target(found.gap),
        df=per_target(found.df),
        noise=per_target(found.noise),
        explained=per_target(found.explained),
        models=given.models,
        counts=given.kept,
        parameters=found.parameters,
        placebo_values=extra[0],
        placebo_stderr=extra[1],
        placebo_q=extra[2],
        correlation=found.correlation,
    )


def _p_values(values: Array, stderr: Array, df: Array) -> Array:
    """Two-sided t test; a value and an error of zero (a constant target) give 1."""
    from scipy import special

    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(values / stderr)
    t = np.where((values == 0) & (stderr == 0), 0, t)
    return 2 * special.stdtr(np.broadcast_to(df, t.shape), -t)


def benjamini_hochberg(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """q values of p values (tests,) or (tests, families), family by family: min over j >= i of p_(j) tests / j."""
    p = np.asarray(p, np.float64)
    if not len(p):
        return p.copy()
    order = np.argsort(p, axis=0)
    ranks = np.arange(1, len(p) + 1).reshape((-1,) + (1,) * (p.ndim - 1))
    steps = np.take_along_axis(p, order, 0) * len(p) / ranks
    q = np.empty_like(p)
    np.put_along_axis(q, order, np.minimum(np.minimum.accumulate(steps[::-1], axis=0)[::-1], 1), 0)
    return q
