"""Influences on several outputs of the same rows at once, such as one target at several numbers of shots.

The J columns share their rows, so the errors of one group's J values are correlated. `influences` is called once, on
the J columns and the difference of each pair of them:

    cov(a, b) = (V_a + V_b - V_{a-b}) / 2        of one group; V its squared standard errors

This is exact wherever V is quadratic in the outputs: of OLS, with errors of any kind. That of the difference takes the
larger of two variances, so it is near: with few more rows than groups its smallest eigenvalues are too small, and
`any_change` has the degrees of freedom that OLS leaves (12 % of p were below 0.05: 62 groups, 70 rows). Rounding
aside, the correlations are positive semidefinite; negative eigenvalues become 0, then the diagonal 1 again. The LASSO
is refused: its penalty is another for each column, so the difference of two columns' influences is not that of their
difference. With the covariance above, 17 % of groups had a trend at p < 0.05 where none was (62 groups, 90 rows; the
difference of means 5 %).

    multiplier   95 % quantile q of max_j |t_j|, t a multivariate t of these correlations r and df degrees of freedom.
                 With r = L L', z = |z| u of independent normals and m(u) = max_j |(L u)_j|:
                 P(max > q) = mean over directions u of P(F(J, df) > (q / m(u))^2 / J), so that only u is simulated.
    any change   d the J - 1 differences from the first column, W their covariance:
                 d' W^-1 d (df - J + 2) / (df (J - 1)) ~ F(J - 1, df - J + 2)                    (Hotelling)

Cost: that of `influences` on J (J + 1) / 2 targets, and 2 ms a group for the multiplier.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, Result, extremes, generator, refuse_other_rows, t975, to_array
from pydt.estimation.estimators import ESTIMATORS
from pydt.estimation.influence import best_method, influences
from pydt.estimation.inputs import Array
from pydt.estimation.multiple_testing import benjamini_hochberg
from pydt.reporting import curve_plot, interval_plot

DIRECTIONS = 16384
_BINS = 256  # of m(u)
_HALVINGS = 14  # of the interval that holds the multiplier: to 1/16,000 of it
_AT_ONCE = 1 << 22  # entries of simulated values
_RANK = 1e-6  # eigenvalues below it, relative to the largest, are 0: standard errors come as float32
_CURVES = 6  # groups of a plot
_NONE = 1e-12  # a variance below it, relative to that of the values, is 0


@dataclass(frozen=True, eq=False, repr=False)
class Trend(Result):
    """How each group's influence changes along a straight line from the first to the last column; NaN where unknown.

    Attributes:
        values: (groups,) the line's last value minus its first, in the unit of the outputs.
        stderr: (groups,) their standard errors. df: (groups,) degrees of freedom.
        p: (groups,) two-sided t test of no change. q: Benjamini-Hochberg over the groups.
    """

    values: Array
    stderr: Array
    df: Array
    p: Array
    q: Array

    def _columns(self) -> dict[str, Any]:
        names = [one.name for one in dataclasses.fields(self)]
        return {"group": range(len(self.values)), **{name: getattr(self, name) for name in names}}

    def plot(self, ax: Any = None) -> Any:
        """Draw the largest changes up and down with their 95 % intervals.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shown = extremes(self.values)
        reach = self.stderr[shown] * [t975(df) for df in self.df[shown].tolist()]
        names = [f"group {i}" for i in shown]
        label = "change of the influence, 95 % intervals"
        return interval_plot(names, self.values[shown], reach, label, ax=ax, of=len(self.values))


@dataclass(frozen=True, eq=False, repr=False)
class JointFit(Result):
    """Influences on J columns of outputs of the same rows, and how sure they are together.

    Attributes:
        method, estimand, errors, models, counts: as in `Fit`.
        values: float64 (groups, J), in the unit of the outputs: `unbiased` of `influences`.
        covariance: float64 (groups, J, J) of the errors of one group's J values, positive semidefinite. NaN where the
            standard error of `influences` is, such as in a column that is the same in all rows.
        df: float64 (groups,) degrees of freedom, the least of all columns.
        explained: float64 (J,) share of each column's variance that all groups explain, as in `Fit`.
        least_df: degrees of freedom of the least sure part of the covariance, where it is a sum of parts: of the
            difference of means what OLS leaves.
    """

    method: str
    estimand: str
    errors: str
    models: int
    counts: npt.NDArray[np.int64]
    values: Array
    covariance: Array
    df: Array
    explained: Array
    least_df: float = np.inf

    def _columns(self) -> dict[str, Any]:
        groups, columns = self.values.shape
        parts = {"value": self.values, "stderr": self.stderr, "low": self.low, "high": self.high}
        places = {"group": np.repeat(np.arange(groups), columns), "column": np.tile(np.arange(columns), groups)}
        return {**places, **{name: part.reshape(-1) for name, part in parts.items()}, "df": self.df.repeat(columns)}

    def plot(self, ax: Any = None) -> Any:
        """Draw the six groups whose influence changes most surely over the columns.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shown = np.argsort(self.trend().p, kind="stable")[:_CURVES]
        reach = np.stack([self.values[shown] - self.low[shown], self.high[shown] - self.values[shown]], 1)
        labels = "column of outputs", "influence, 95 % intervals of all columns at once"
        x, title = [str(i) for i in range(self.values.shape[1])], f"the surest changes of {len(self.values):,} groups"
        return curve_plot([f"group {i}" for i in shown], x, self.values[shown], reach, labels, title, ax)

    @property
    def stderr(self) -> Array:
        """Standard errors (groups, J)."""
        return np.asarray(np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2)))

    @property
    def correlation(self) -> Array:
        """Correlations (groups, J, J) of the errors of one group's J values."""
        scale = np.where(self.stderr > 0, self.stderr, 1.0)
        scale = np.where(np.isnan(self.stderr), np.nan, scale)
        found = self.covariance / (scale[:, :, None] * scale[:, None, :])
        found[:, np.arange(scale.shape[1]), np.arange(scale.shape[1])] = np.where(np.isnan(scale), np.nan, 1.0)
        return found

    @cached_property
    def multiplier(self) -> Array:
        """(groups,): values +- multiplier x stderr hold for all columns of one group at once, with a chance of 95 %.

        Columns without a standard error do not count; NaN for a group that has none.
        """
        known = ~np.isnan(self.stderr) & ~np.isnan(self.df)[:, None]
        found = np.full(len(self.df), np.nan)
        patterns, which = np.unique(known, axis=0, return_inverse=True)
        for i, columns in enumerate(patterns):
            if columns.any():
                at = which.reshape(-1) == i
                found[at] = _multipliers(self.correlation[at][:, columns][:, :, columns], self.df[at])
        return found

    @property
    def low(self) -> Array:
        """Lower ends (groups, J) of the simultaneous 95 % intervals."""
        return self.values - self.multiplier[:, None] * self.stderr

    @property
    def high(self) -> Array:
        """Upper ends (groups, J) of the simultaneous 95 % intervals."""
        return self.values + self.multiplier[:, None] * self.stderr

    @property
    def independent(self) -> Array:
        """Covariances (groups, J, J) of errors that are independent between groups and, less their mean over groups,
        are as large as those of the values: for masks of one size, whose errors sum to 0, K / (K - 1) times theirs."""
        groups = len(self.values)
        return self.covariance * (groups / (groups - 1) if self.estimand == "swap" and groups > 1 else 1.0)

    def spread(self) -> tuple[Array, Array, Array]:
        """Standard deviation over the groups of the true values in each column, with a 95 % interval; each (J,).

        Its square is the mean over the groups of (value - mean)^2 K / (K - 1) - e^2, with e^2 of `independent`. The
        interval is that of this mean, its error with that of the e^2, which groups share: sqrt(2 / df) of them.
        """
        groups = len(self.values)
        noise = np.diagonal(self.independent, axis1=1, axis2=2)
        terms = (self.values - self.values.mean(0)) ** 2 * groups / max(groups - 1, 1) - noise
        with np.errstate(invalid="ignore", divide="ignore"):
            shared = (noise * np.sqrt(2 / self.df)[:, None]).mean(0)
            reach = t975(groups - 1) * np.hypot(terms.std(0, ddof=min(groups - 1, 1)) / np.sqrt(groups), shared)
        square = terms.mean(0)
        low, high = (np.sqrt(np.maximum(end, 0.0)) for end in (square - reach, square + reach))
        return np.sqrt(np.maximum(square, 0.0)), low, high

    def contrast(self, weights: npt.ArrayLike) -> tuple[Array, Array]:
        """Weighted sums over the columns of each group's values.

        Args:
            weights: (J,) or (n, J). Columns of weight 0 do not count, even where their errors are unknown.

        Returns:
            values and standard errors, each (groups,) or (n, groups).

        Raises:
            EstimateError: weights of another shape, or not finite.
        """
        given = to_array(weights, "weights", EstimateError)
        columns = self.values.shape[1]
        if given.dtype.kind not in "biuf" or given.ndim not in (1, 2) or given.shape[-1] != columns:
            raise EstimateError(
                f"weights of shape {given.shape} for {columns} columns", "contrast", "give one a column"
            )
        if not np.isfinite(given).all():
            raise EstimateError("weights that are not finite", "contrast", "give one finite weight a column")
        several = np.atleast_2d(given.astype(np.float64))
        found = np.empty((2, len(several), len(self.values)))
        for i, one in enumerate(several):
            used = np.flatnonzero(one)
            found[0, i] = self.values[:, used] @ one[used]
            found[1, i] = np.einsum("i,kij,j->k", one[used], self.covariance[:, used][:, :, used], one[used])
        found[1] = np.sqrt(np.maximum(found[1], 0.0))
        return (found[0], found[1]) if given.ndim == 2 else (found[0, 0], found[1, 0])

    def trend(self) -> Trend:
        """The change from the first to the last column, along a straight line over the places 0, 1, ..., J - 1.

        This is the one test a group of "does its influence change over the columns?". A change that goes one way is
        found more often by it than by `any_change`.
        """
        columns = self.values.shape[1]
        places = np.arange(columns) - (columns - 1) / 2
        values, stderr = self.contrast(places * (columns - 1) / (places**2).sum())
        p = _two_sided(values, stderr, self.df)
        return Trend(values, stderr, self.df, p, benjamini_hochberg(p))

    def any_change(self) -> Array:
        """p values (groups,) of "all J values are equal": Hotelling's T2 of the J - 1 differences. NaN where a standard
        error or the degrees of freedom are missing.

        It looks for changes of any shape, also those without a trend.
        """
        from scipy.special import fdtrc

        differences = self.values[:, 1:] - self.values[:, :1]
        wide = self.covariance
        error = wide[:, 1:, 1:] - wide[:, 1:, :1] - wide[:, :1, 1:] + wide[:, :1, :1]
        known = np.isfinite(error.sum((1, 2)))
        roots, vectors = np.linalg.eigh(np.where(known[:, None, None], error, np.eye(error.shape[1])))
        total = np.trace(wide, axis1=1, axis2=2)
        real = roots > np.maximum(_RANK * roots[:, -1], _NONE * np.where(known, total, 1.0))[:, None]
        scores = np.einsum("kij,ki->kj", vectors, np.where(known[:, None], differences, 0.0)) ** 2
        square = np.divide(scores, roots, out=np.zeros_like(scores), where=real).sum(1)
        rank = real.sum(1)
        whole = np.minimum(self.df, self.least_df)  # a sum is as sure as its variances, not so its smallest eigenvalues
        left = whole - rank + 1
        with np.errstate(invalid="ignore", divide="ignore"):
            p = fdtrc(np.maximum(rank, 1), left, square * left / (whole * np.maximum(rank, 1)))
        p = np.where(rank == 0, 1.0, p)
        return np.where(known & (left > 0), p, np.nan)


def joint_influences(masks: Any, outputs: Any, method: str | None = None, **more: Any) -> JointFit:
    """Influences of every group on J outputs of the same rows, with the covariance of their errors.

    Args:
        masks: as for `influences`.
        outputs: (models, J), J at least 2, in an order that means something, such as from the fewest to the most shots.
        method: "ols" or "difference"; by default "ols" where `best_method` says so, else "difference".
        more: as for `influences`: groups, bitorder, clusters, errors, nan.

    Raises:
        EstimateError: as `influences`; one column alone; ridge and lasso.
    """
    refuse_other_rows(EstimateError, masks=masks, outputs=outputs)
    y = to_array(outputs, "outputs", EstimateError)
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "biuf":
        wrong = f"outputs of shape {y.shape}, dtype {y.dtype}"
        raise EstimateError(wrong, "joint_influences", "give numbers (models, J) of at least 2 columns")
    if method is None:
        best = best_method(masks, **{k: v for k, v in more.items() if k in ("groups", "bitorder", "clusters")})
        method = "difference" if best == "lasso" else best
    if method == "lasso":
        wrong = "the LASSO's penalty differs by column, so their errors have no known covariance"
        raise EstimateError(wrong, "joint_influences", 'use "difference", or "ols" where there are models enough')
    if method in ESTIMATORS and ESTIMATORS[method].biased:
        mend = 'use "ols" where there are models enough, else "difference"'
        raise EstimateError(f"{method} has no unbiased influences to compare", "joint_influences", mend)
    y = y.astype(np.float64)
    columns = y.shape[1]
    first, second = np.triu_indices(columns, 1)
    fit = influences(masks, np.concatenate([y, y[:, first] - y[:, second]], 1), method, **more)
    variance = fit.stderr.astype(np.float64) ** 2
    own, of_pairs = variance[:, :columns], variance[:, columns:]
    same = (y[:, first] == y[:, second]).all(0)  # such a difference has no standard error: it is 0
    of_pairs = np.where(same, 0.0, of_pairs)
    covariance = np.empty((len(own), columns, columns))
    covariance[:, first, second] = (own[:, first] + own[:, second] - of_pairs) / 2
    covariance[:, second, first] = covariance[:, first, second]
    covariance[:, range(columns), range(columns)] = own
    df = np.broadcast_to(fit.df, variance.shape)[:, :columns]
    made = JointFit(
        fit.method,
        fit.estimand,
        fit.errors,
        fit.models,
        fit.counts,
        fit.unbiased[:, :columns].astype(np.float64),
        covariance,
        np.fmin.reduce(df, axis=1).astype(np.float64),
        np.asarray(fit.explained[:columns], np.float64),
    )
    if method == "difference" and np.isfinite(made.explained).any():
        made = dataclasses.replace(made, least_df=float(np.min(influences(masks, y, "ols", **more).df)))
    scale = made.stderr[:, :, None] * made.stderr[:, None, :]
    return dataclasses.replace(made, covariance=_semidefinite(made.correlation) * scale)


def _two_sided(values: Array, stderr: Array, df: Array) -> Array:
    """Two-sided t tests; 1 where nothing varies and the value is 0; NaN without an error."""
    from scipy.special import stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where((values == 0) & (stderr == 0), 0.0, np.abs(values) / stderr)
    return np.asarray(2 * stdtr(df, -t))


def _semidefinite(correlation: Array) -> Array:
    """The correlations (groups, J, J) without negative eigenvalues, with a diagonal of 1; NaN stays."""
    missing = np.isnan(correlation)
    roots, vectors = np.linalg.eigh(np.where(missing, 0.0, correlation))
    made = np.einsum("kij,kj,klj->kil", vectors, np.maximum(roots, 0.0), vectors)
    scale = np.sqrt(np.maximum(np.diagonal(made, axis1=1, axis2=2), 1e-300))
    made /= scale[:, :, None] * scale[:, None, :]
    bad = roots[:, 0] < -1e-12
    return np.where(missing, np.nan, np.where(bad[:, None, None], made, correlation))


def _multipliers(correlation: Array, df: Array) -> Array:
    """95 % quantiles of max_j |t_j| for correlations (groups, J, J), J known columns; formula at the top."""
    from scipy.special import fdtrc, stdtrit

    groups, columns = correlation.shape[:2]
    low, high = stdtrit(df, 0.975), stdtrit(df, 1 - 0.025 / columns)
    if columns == 1:
        return np.asarray(low)
    roots, vectors = np.linalg.eigh(correlation)
    factor = vectors * np.sqrt(np.maximum(roots, 0.0))[:, None, :]
    directions = generator("simultaneous intervals").standard_normal((columns, DIRECTIONS))
    directions /= np.sqrt((directions**2).sum(0))
    centres = (np.arange(_BINS) + 0.5) / _BINS
    share = np.empty((groups, _BINS))
    step = max(1, _AT_ONCE // (columns * DIRECTIONS))
    for start in range(0, groups, step):
        most = np.abs(factor[start : start + step] @ directions).max(1)
        bins = np.minimum((most * _BINS).astype(np.int64), _BINS - 1)
        bins += np.arange(len(bins))[:, None] * _BINS
        share[start : start + step] = np.bincount(bins.ravel(), minlength=len(bins) * _BINS).reshape(-1, _BINS)
    share /= DIRECTIONS
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beyond = fdtrc(columns, df[:, None], (middle[:, None] / centres) ** 2 / columns)
        more = (share * beyond).sum(1) > 0.05
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.asarray((low + high) / 2)
