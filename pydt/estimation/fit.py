"""What a regression hands back: influences, how sure they are, and what is computed from them only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import ConfigError, EstimateError, extremes, html_table, influence_table, to_array, to_frame
from pydt.estimation.estimators import ESTIMATORS
from pydt.estimation.inputs import Array
from pydt.estimation.multiple_testing import TARGETS_AT_ONCE, Single, q_values
from pydt.reporting import count, interval_plot

_LEVEL = 0.05
_TESTED = 1 << 20  # influences up to which a line of text is worth the time of their q values


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
        groups, targets: their names, where masks or outputs came as tables with named columns, else None.
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
    groups: tuple[Any, ...] | None = None
    targets: tuple[Any, ...] | None = None
    _covariance: Callable[[], Array] = field(kw_only=True)
    _imbalance: float = 0.0
    _contrast: Callable[[Array], tuple[Array, Array]] | None = None

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

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each group and target: "group", "target" (not of one-dimensional
        outputs), "value", "unbiased", "stderr", "low" and "high" (95 %, of `unbiased`), "q", "kept" (models with it).

        All numbers of an influence stand on one line; `frame.pivot(index="group", columns="target", values="value")`
        makes a wide table. Groups and targets without names have their positions.

        Raises:
            ConfigError: pandas is not installed.
        """
        shape = self.values.shape
        groups = range(shape[0]) if self.groups is None else self.groups
        columns: dict[str, Any] = {"group": _repeated(groups, self.values[:1].size)}
        if len(shape) == 2:
            columns["target"] = _repeated(range(shape[1]) if self.targets is None else self.targets, 1, shape[0])
        reach = self._reach()
        parts: dict[str, Any] = {"value": self.values, "unbiased": self.unbiased, "stderr": self.stderr}
        parts |= {"low": self.unbiased - reach, "high": self.unbiased + reach, "q": self.q}
        columns |= {name: np.asarray(part).reshape(-1) for name, part in parts.items()}
        columns["kept"] = np.repeat(self.counts, self.values[:1].size)
        return to_frame(columns, "Fit")

    def plot(self, target: Any = 0, ax: Any = None) -> Any:
        """Draw the highest and the lowest influences on a target with their 95 % intervals; ridge has none.

        Args:
            target: its name, or its position.
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.

        Raises:
            ConfigError: no such target.
        """
        at = self._target(target)
        values, reach = self._column(at)
        shown = extremes(values)
        names = [self._group(i) for i in shown]
        named = "" if self.targets is None else f" on {self.targets[at]}"
        label = f"influence{named}, 95 % intervals"
        return interval_plot(names, values[shown], reach[shown], label, ax=ax, of=len(values))

    def __repr__(self) -> str:
        targets = self.values[:1].size
        facts = f"{count(len(self.counts), 'group')}, {count(targets, 'target')}, {count(self.models, 'model')}"
        explained = np.atleast_1d(self.explained)
        explained = explained[np.isfinite(explained)]
        on_average = " on average" if targets > 1 else ""
        told = [f"explains {100 * explained.mean():.0f} %{on_average}"] if explained.size else []
        if self.values.size <= _TESTED and not np.isnan(self.q).all():
            sure = int((self.q < _LEVEL).sum())
            told.append(f"{sure:,} {'influence' if sure == 1 else 'influences'} at q < {_LEVEL}")
        return f"Fit({self.method}, {self.estimand}: {facts}{'; ' if told else ''}{', '.join(told)})"

    def _repr_html_(self) -> str:
        if self.values[:1].size > 1:
            return self._targets_html()
        values, reach = self._column(0)
        q = self.q.reshape(-1)
        return influence_table(repr(self), [self._group(i) for i in range(len(values))], values, reach, q)

    def _targets_html(self) -> str:
        """One line for each target: what is explained, and its highest and lowest group."""
        explained, targets = np.broadcast_to(self.explained, self.values.shape[1]), self.values.shape[1]

        def line(j: int) -> tuple[Any, ...]:
            ends = extremes(self._column(j)[0])
            high, low = (self._group(ends[i]) if len(ends) else "" for i in (0, -1))
            return (j if self.targets is None else self.targets[j]), explained[j], high, low

        heads = "target", "explained", "highest group", "lowest group"
        return html_table(repr(self), heads, (line(j) for j in range(targets)), targets, "targets")

    def _group(self, at: int) -> str:
        return str(at if self.groups is None else self.groups[at])

    def _target(self, wanted: Any) -> int:
        """Position of a target, by name or position."""
        names, targets = self.targets or (), self.values[:1].size
        if wanted in names:
            return names.index(wanted)
        if isinstance(wanted, int | np.integer) and 0 <= wanted < targets:
            return int(wanted)
        known = ", ".join(map(repr, names[:8])) if names else f"0 to {targets - 1}"
        raise ConfigError(f"no target {wanted!r} among {targets}", "Fit.plot", f"there are: {known}")

    def _column(self, target: int) -> tuple[Array, Array]:
        """The influences that intervals speak of (`values` for ridge) on one target, and the intervals' half-widths."""
        from scipy.special import stdtrit

        biased, groups = ESTIMATORS[self.method].biased, len(self.counts)
        parts = self.values if biased else self.unbiased, self.stderr, np.broadcast_to(self.df, self.values.shape)
        values, stderr, df = (part.reshape(groups, -1)[:, target].astype(np.float64) for part in parts)
        return values, np.full(groups, np.nan) if biased else np.asarray(stdtrit(df, 0.975) * stderr)

    def _reach(self) -> Array:
        """Half-widths of the 95 % intervals of `unbiased`, of its shape; NaN for ridge."""
        from scipy.special import stdtrit

        if ESTIMATORS[self.method].biased:
            return np.full(self.values.shape, np.nan)
        return np.asarray(stdtrit(self.df, 0.975) * self.stderr.astype(np.float64))


def _repeated(names: Any, each: int, times: int = 1) -> list[Any]:
    """Every name `each` times, all of them `times` times."""
    return [name for name in names for _ in range(each)] * times
