"""All that the masks alone decide: counts, Gram matrices, folds, correlations, and the factor of OLS.

Cost: K^2 models / 64 for a Gram matrix of K groups, K^3 / 3 once where OLS is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import EstimateError, threads
from pydt.estimation.backend import HOST, Host
from pydt.estimation.inputs import Array, Masks, Rows, name_groups
from pydt.estimation.sums import Columns


@dataclass(frozen=True, eq=False)
class Folds:
    """label: fold of each row, -1 = not used; rows: those of each fold; parts: their columns as units."""

    label: Rows
    rows: list[Rows]
    parts: list[Columns]


def count_columns(packed: npt.NDArray[np.uint8], columns: int) -> Columns:
    """Packed masks as they are, uint8 (rows, ceil(columns / 8))."""
    packed = np.ascontiguousarray(packed)
    parts = [
        _core.unpack(packed[i : i + 256], columns).view(np.uint8).sum(0, dtype=np.uint16)
        for i in range(0, len(packed), 256)
    ]

    def gram() -> Array:
        counts = _core.gram(packed, columns, threads())
        found: Array = counts.view(np.float64)
        for row, integers in zip(found, counts, strict=True):  # in place
            row[:] = integers
        return found

    return Columns(float(len(packed)), np.sum(parts, 0, np.float64), gram)


class Geometry:
    """All that the masks alone decide, each part computed when first read; `backend`: of what is made with targets."""

    def __init__(self, masks: Masks, backend: Host = HOST):
        self.masks, self.backend = masks, backend
        self._folds: dict[int, Folds] = {}

    @property
    def groups(self) -> int:
        return self.masks.groups

    @property
    def placebos(self) -> int:
        return self.masks.placebos

    @cached_property
    def strata(self) -> list[Rows]:
        """The groups of each stratum; none for "add"."""
        label = self.masks.strata
        return [] if label is None else [np.flatnonzero(label == i) for i in range(self.masks.constants)]

    def centre(self, values: Any) -> Any:
        """Values (groups, ...) less the mean of their stratum: what masks of fixed sizes can say of them."""
        values = values - 0  # a copy of any kind of array
        for stratum in self.strata:
            values[stratum] -= values[stratum].mean(0)
        return values

    @cached_property
    def one_size(self) -> Array:
        """(columns,): (n - 1) / n in a stratum of n groups, which turns a value against the average *other* group into
        one against the average group; 1 for "add"; placebos: the mean of the groups'."""
        share = np.ones(self.groups)
        for stratum in self.strata:
            share[stratum] = (len(stratum) - 1) / len(stratum)
        return np.r_[share, np.full(self.placebos, share.mean())]

    @property
    def intercept(self) -> int:
        return self.masks.units.intercept

    @property
    def units(self) -> int:
        """Number of independent units."""
        return self.masks.units.count

    @cached_property
    def used_rows(self) -> Rows | None:
        """The rows that the regression uses; None: all of them."""
        used = self.masks.units.used
        return None if used.all() else np.flatnonzero(used)

    @cached_property
    def spare(self) -> int:
        """Used rows less their different masks: the degrees of freedom of the variance within masks."""
        units = self.masks.units
        label = (2 * units.label + (units.sign > 0))[units.used]
        return len(label) - len(np.unique(label))

    def saturated(self, parameters: int) -> bool:
        """Whether clusters of the caller's own hold whole masks, no more than parameters: then residuals sum to zero in
        each."""
        units = self.masks.units
        if units.cluster_count > parameters:
            return False
        kept = self.masks.masks(np.arange(self.masks.models))[:, : self.groups]
        label = np.unique(kept, axis=0, return_inverse=True)[1].reshape(-1)
        pairs = np.unique(np.stack([label, units.clusters]), axis=1)
        return bool(label.max() < parameters and pairs.shape[1] == label.max() + 1)

    @cached_property
    def plain(self) -> Columns:
        """All rows as they are."""
        return self._count(None)

    @cached_property
    def _used_as_they_are(self) -> Columns:
        return self.plain if self.used_rows is None else self._count(self.used_rows)

    @cached_property
    def used(self) -> Columns:
        """The used rows as units."""
        return self._as_units(self._used_as_they_are)

    @cached_property
    def real(self) -> Columns:
        """`used` without the placebos."""
        return self.used.first(self.groups)

    def folds(self, number: int) -> Folds:
        """The rows cut into `number` folds; raises where there are fewer clusters."""
        if number not in self._folds:
            label = self.masks.folds(number)
            rows = [np.flatnonzero(label == i) for i in range(number)]
            self._folds[number] = Folds(label, rows, [self._as_units(self._count(part)) for part in rows])
        return self._folds[number]

    def _count(self, rows: Rows | None) -> Columns:
        return count_columns(self.masks.packed if rows is None else self.masks.packed[rows], self.masks.columns)

    def _as_units(self, plain: Columns) -> Columns:
        if self.masks.units.kind != "pair":
            return plain
        return Columns(plain.rows, np.zeros_like(plain.count), lambda: plain.gram - plain.rows / 4)

    @cached_property
    def spread(self) -> Array:
        """Sum of squares of each centred column, NaN where it never varies (a placebo of few models)."""
        plain = self._used_as_they_are
        pair = self.masks.units.kind == "pair"
        diagonal = plain.count - (plain.rows / 4 if pair else plain.count / plain.rows * plain.count)
        return np.where(diagonal > 0, diagonal, np.nan)

    @cached_property
    def rho(self) -> Array:
        """Mean squared correlation with the groups' columns, in units of what independent draws have, per column.

        One number for all groups (their mean), one for all placebos.
        """
        k, rows, columns = self.groups, self.units - self.intercept, self.masks.columns
        if k == 1:
            return np.ones(columns)
        gram, scale = self.used.centred, 1 / np.sqrt(self.spread)
        inner, own = gram[:k, :k], scale[:k]
        weight = own**2
        among = sum(float(one * (row**2 @ weight)) for one, row in zip(weight, inner, strict=True)) - k
        for stratum in self.strata:  # whose groups are correlated by -1 / (n - 1), whatever is drawn
            n, part = len(stratum), own[stratum]
            known = 1 / (n - 1)
            among += 2 * known * (float(part @ inner[np.ix_(stratum, stratum)] @ part) - n) + known**2 * n * (n - 1)
        inside = max(among, 0.0) / (k * (k - 1))
        outside = ((gram[k:, :k] * np.outer(scale[k:], own)) ** 2).mean() if columns > k else 0.0
        return rows * np.r_[np.full(k, inside), np.full(columns - k, outside)]

    @cached_property
    def regression(self) -> Regression:
        """OLS on all groups. Raises where the masks cannot tell them apart, or leave nothing to judge the noise by."""
        return regress(self)

    @cached_property
    def regression_or_none(self) -> Regression | None:
        try:
            return self.regression
        except EstimateError:
            return None

    @cached_property
    def uncovered(self) -> float:
        """Sum over units of rows x (1 - leverage) in OLS."""
        units, inverse = self.masks.units, self.regression.inverse
        rows = np.flatnonzero(units.used)
        _, first, number = np.unique(units.label[rows], return_index=True, return_counts=True)
        mean = np.full(self.groups, 0.5) if units.kind == "pair" else self.real.count / self.real.rows
        total = 0.0
        for start in range(0, len(first), 1024):
            size = number[start : start + 1024]
            masks = self.masks.masks(rows[first[start : start + 1024]])[:, : self.groups] - mean
            leverage = size * (((masks @ inverse) * masks).sum(1) + self.intercept / self.real.rows)
            total += float(size @ (1 - leverage))
        return total


class Regression:
    """OLS on all groups by Cholesky of G = LL' (plus 11' in the directions that masks of one size leave open).

    The noise needs only |L^-1 c|^2.
    """

    def __init__(
        self, lower: Array, close: Callable[[Array], Array], df: float, parameters: int, spare: int, backend: Host
    ):
        self._lower, self._backend = lower, backend
        self._close = close  # takes those directions out again
        self._spare = spare
        self.df = df
        self.parameters = parameters

    @cached_property
    def inverse(self) -> Array:
        factor = invert_lower(self._lower)
        return self._close(factor.T @ factor)

    @cached_property
    def _explained(self) -> Callable[[Any], Array]:
        return self._backend.substitution(self._lower)

    def left(self, cross: Any, energy: Array) -> Array:
        """Residual sum of squares (targets,), from centred cross products; in the precision of `cross`."""
        return np.maximum(energy - self._explained(cross), 0)

    @property
    def sure(self) -> bool:
        """Whether the noise can be told: not with as many parameters as masks, except of one group."""
        return bool(self.df >= 1)

    def noise(self, left: Array, within: Array | None) -> Array:
        """s^2 (targets,): of the residual; of one group on two masks, of their repeats; NaN where it cannot be told."""
        if not self._spare:
            return left / self.df
        assert within is not None
        return within / self.df


def invert_lower(lower: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The inverse of a lower triangular matrix, by halves: [[A, 0], [B, C]] -> [[A^-1, 0], [-C^-1 B A^-1, C^-1]]."""
    size = len(lower)
    if size <= 64:
        return np.tril(np.linalg.inv(lower))
    half = size // 2
    found = np.zeros_like(lower)
    found[:half, :half] = invert_lower(lower[:half, :half])
    found[half:, half:] = invert_lower(lower[half:, half:])
    found[half:, :half] = -(found[half:, half:] @ lower[half:, :half]) @ found[:half, :half]
    return found


def lift(gram: Array, strata: list[Rows], level: float) -> Array:
    """gram + level x the projection on the directions in which no mask varies (groups, groups)."""
    gram = gram.copy() if strata else gram
    for stratum in strata:
        gram[np.ix_(stratum, stratum)] += level / len(stratum)
    return gram


def factor(gram: Array, strata: list[Rows]) -> tuple[Array, float] | None:
    """L and `level` of LL' = gram + level x that projection; None where masks cannot tell the groups apart."""
    level = np.trace(gram) / len(gram)
    whole = lift(gram, strata, level)
    try:
        lower: Any = np.linalg.cholesky(whole)
    except np.linalg.LinAlgError:
        return None
    # A pivot is what the earlier groups do not explain of a group.
    return None if (np.diag(lower) ** 2 / np.diag(whole)).min() < 1e-9 else (lower, level)


def regress(geometry: Geometry) -> Regression:
    """The factor of the groups' Gram matrix; raises where they cannot be told apart, or no noise can be told."""
    size = geometry.groups
    parameters = size - geometry.masks.constants + geometry.intercept
    if geometry.units < parameters:
        what = f"{geometry.masks.models} models ({geometry.units} independent ones) cannot tell {size} groups apart"
        mend = f'this concerns {name_groups(np.arange(size))}: train more models, or use method="ridge" or "lasso"'
        raise EstimateError(what, "masks", mend)
    gram = geometry.real.centred
    found = factor(gram, geometry.strata)
    if found is None:
        raise _unidentified(geometry, gram)
    lower, level = found
    df, spare = float(geometry.units - parameters), 0
    if df < 1 <= geometry.spare:  # as many parameters as masks: repeats show the noise, but nothing else
        spare = geometry.spare
        df = float(spare) if size == 1 else np.nan
    if df < 1:
        models = geometry.masks.models
        raise EstimateError(
            f"{models} models leave nothing to tell the noise of {size} groups from",
            "masks",
            f'train more than {parameters * models // geometry.units} models, or use method="ridge" or "lasso"',
        )
    return Regression(
        lower, lambda inverse: lift(inverse, geometry.strata, -1 / level), df, parameters, spare, geometry.backend
    )


def _unidentified(geometry: Geometry, gram: Array) -> EstimateError:
    mend = 'use method="ridge" or "lasso", or merge these groups (of a stratified design, pass the Design)'
    scale = 1 / np.sqrt(np.diag(gram))
    eigenvalues, vectors = np.linalg.eigh(gram * np.outer(scale, scale))
    null = vectors[:, eigenvalues < 1e-9 * eigenvalues[-1]] * scale[:, None]
    null = geometry.centre(null)
    null = null / np.maximum(np.abs(null).max(), 1e-300)
    mixed = np.flatnonzero(np.abs(null).max(1) > 1e-6) if null.size else np.arange(len(gram))
    return EstimateError(f"{name_groups(mixed)} cannot be told apart by these masks", "masks", mend)
