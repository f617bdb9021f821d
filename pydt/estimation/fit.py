"""What a regression hands back: influences, how sure they are, and what is computed from them only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, to_array
from pydt.estimation.estimators import ESTIMATORS
from pydt.estimation.inputs import Array
from pydt.estimation.multiple_testing import TARGETS_AT_ONCE, Single, q_values


@dataclass(frozen=True, eq=False)
class Fit:
    """Influences and how sure they are. For one-dimensional outputs the axis of targets is missing everywhere. With
    robust errors of OLS a fit keeps a reference to the outputs, for `contrast`; they are not copied.

    Attributes:
        method, estimand: "swap" (compared with the average other group, of its stratum where the design has strata) or
            "add" (what adding the group does).
        values: float32 (groups, targets), in the unit of the outputs.
        unbiased: float32 (groups, targets): what `stderr` and `q` speak of: `values`; lasso: de-biased; ridge: NaN.
        stderr: float32 (groups, targets); unbiased +- t(df) x stderr covers. For ridge: sampling error of `values`.
        q: float32 (groups, targets): Benjamini-Hochberg over the groups of one target; two-sided t test. NaN for ridge.
            Computed when first asked for.
        errors: what `stderr` and `df` rest on: "classical", "robust", "clusters" (the sandwich over clusters of the
            caller's own), or "none": the masks leave no freedom to judge by (as many parameters as distinct masks;
            columns so alike that the LASSO cannot be de-biased), so `stderr`, `df` and `q` are NaN. Pass
            clusters=numpy.arange(models) to call rows of one mask independent, if a mask does nothing but what its
            groups do. A target that is the same in all models has NaN errors, too; its q is 1.
        penalty: (targets,) or None; of ridge and lasso.
        gap, iterations, converged: (targets,) of lasso, else None. gap: duality gap / half the centred sum of squares.
            iterations: int64, sweeps of the solver over all fits of a target but its path. converged: all of them have
            a gap of at most 1e-5 of what the cross-fit leaves unexplained (of a tenth of the sum of squares, where less
            is left; the fold that chose the penalty alone: 2e-4); False for a target that is NaN.
        df: degrees of freedom of the t distribution: (targets,), or with robust errors (groups, targets), from the
            masks alone; `least_df` is the least of each target.
        noise: (targets,) variance of one model's output that the errors rest on.
        training_noise, mask_noise: (targets,); None where no mask repeats. The variance that the groups do not explain
            linearly, in two parts: between trainings of one mask, and between masks (None without models enough for
            OLS). The latter is unbiased, so it may fall below zero; of pairs it counts only what a mask and its
            complement do not share.
        explained: (targets,) share of the variance between units that all groups explain: adjusted R2 (difference,
            ols; NaN without models enough), by generalised cross-validation (ridge), cross-fitted (lasso).
        models: rows. counts: int64 (groups,) models that kept each group. parameters: rows that the fit uses up.
        quantisation: (targets,) with precision="int16", else None: by how much, at most, rounding the outputs moves a
            value: root mean square in units of its standard error (infinite where that is 0).
        placebo_values, placebo_stderr, placebo_q: (placebos, targets), or None without a Design; placebo_df: as `df`.
        correlation: (groups, groups) of the errors of one target, from the masks alone, with one variance for all
            models; computed when first asked for.
    """

    method: str
    estimand: str
    values: Single
    unbiased: Single
    stderr: Single
    penalty: Array | None
    gap: Array | None
    iterations: npt.NDArray[np.int64] | None
    converged: npt.NDArray[np.bool_] | None
    df: Array
    noise: Array
    training_noise: Array | None
    mask_noise: Array | None
    explained: Array
    models: int
    counts: npt.NDArray[np.int64]
    parameters: float
    placebo_values: Single | None
    placebo_stderr: Single | None
    placebo_df: Array | None
    quantisation: Array | None
    errors: str
    _covariance: Callable[[], Array] = field(repr=False)
    _imbalance: float = field(default=0.0, repr=False)
    _contrast: Callable[[Array], tuple[Array, Array]] | None = field(default=None, repr=False)

    @property
    def least_df(self) -> Array:
        """The least degrees of freedom of any group, (targets,)."""
        return self.df.min(0) if np.ndim(self.df) == np.ndim(self.stderr) else self.df

    @cached_property
    def q(self) -> Single:
        return q_values(self.unbiased, self.stderr, self.df)

    @cached_property
    def placebo_q(self) -> Single | None:
        if self.placebo_values is None or self.placebo_stderr is None:
            return None
        if ESTIMATORS[self.method].biased:
            return np.full_like(self.placebo_values, np.nan)
        assert self.placebo_df is not None
        return q_values(self.placebo_values, self.placebo_stderr, self.placebo_df)

    @cached_property
    def correlation(self) -> Array:
        covariance = self._covariance()
        scale = 1 / np.sqrt(np.maximum(np.diag(covariance), 1e-300))
        return covariance * np.outer(scale, scale)

    def contrast(self, weights: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weighted sums of influences: c'b and its standard error.

        With robust errors of OLS the variance is the sum over units of (c'P)_u^2 e_u^2 / (1 - h_u): every call reads
        the outputs once more. Else it is c'Vc, V from `stderr` and the masks' known correlations. NaN where `stderr`
        is. For an interval take the least `df` of the groups that have a weight.

        Of the difference, errors of v_k and v_l share what groups k and l do to each other's means, b_k b_l rho / R:
        V counts it where it widens a contrast.

        Args:
            weights: (groups,) or (contrasts, groups). With estimand "swap" only weights that sum to zero (in every
                stratum) are free of the arbitrary zero of the influences.

        Returns:
            value and standard error, each (targets,) or (contrasts, targets); of `values` for ridge, else of
            `unbiased`.

        Raises:
            EstimateError: weights of another shape, or not finite; a fit with clusters of the caller's own, whose
                errors have unknown correlations; outputs that were changed since the fit.
        """
        if self.errors == "clusters":
            mend = "leave the clusters out, or make one group of the groups and fit again"
            raise EstimateError("errors over clusters of your own have unknown correlations", "contrast", mend)
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
        source = self.values if ESTIMATORS[self.method].biased else self.unbiased
        source, stderr = (array.reshape(len(self.counts), -1) for array in (source, self.stderr))
        several = np.atleast_2d(c)
        value, error = (np.empty((len(several), source.shape[1])) for _ in range(2))
        exact = None if self._contrast is None else self._contrast(several)
        for start in range(0, source.shape[1], TARGETS_AT_ONCE):
            part = slice(start, start + TARGETS_AT_ONCE)
            found, wide = (array[:, part].astype(np.float64) for array in (source, stderr))
            value[:, part] = several @ found
            if exact is not None:
                slack = np.abs(several) @ (np.abs(found) + wide) * 1e-5
                if (np.abs(exact[0][:, part] - value[:, part]) > slack).any():
                    mend = "fit again, or ask for contrasts before they are changed"
                    raise EstimateError("they were changed since the fit", "outputs", mend)
                error[:, part] = np.sqrt(np.maximum(exact[1][:, part], 0))
                continue
            for one, weight in enumerate(several):
                scaled = weight[:, None] * wide
                variance = np.maximum((scaled * (self.correlation @ scaled)).sum(0), 0)
                if self._imbalance:
                    shared = value[one, part] ** 2 - ((weight[:, None] * found) ** 2).sum(0)
                    variance = variance + self._imbalance * np.maximum(shared, 0)
                error[one, part] = np.sqrt(variance)
        shape = c.shape[:-1] + self.stderr.shape[1:]
        return value.reshape(shape), error.reshape(shape)
