"""Sufficient statistics: the part that masks alone decide, once; the part of the outputs, tile by tile of targets.

    Columns   rows    count = M'1 (groups,)      gram = M'M (groups, groups)                  of masks M (rows, groups)
    Sums      total = 1'Y (targets,)    squares = 1'Y^2 (targets,)    cross = M'Y (groups, targets)    of outputs Y

in float64, with Y less a shift per target (its first row), so that a large common offset costs no digits. Statistics of
disjoint sets of rows add, and a training fold is the total less the held-out fold: cross-validation costs one pass.

As units (see inputs.py; rows stay the rows):

    repeat    squares becomes the sum of (sum of y)^2 / rows over units
    pair      count = total = 0, cross -> cross - total / 2, gram -> gram - rows / 4, squares -> sum of (difference of
              sums)^2 / rows

Estimators take a `Statistics`: its `geometry`, and from `tiles` the sums of a few hundred targets at a time, so that
memory is that of the result. Cost: one pass over the outputs however many folds, and K^3 once where OLS is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import EstimateError, threads
from pydt.estimation.inputs import Array, Inputs, Masks, Rows, name_groups

WIDTH = 64  # targets that a tile is a multiple of
_TILE = 1 << 19  # entries of a (groups, targets) matrix in float64 that are worked on at once: 4 MB
LARGEST = 1e73  # sum of squares up to which neither sums of 384 outputs in float32 nor influences overflow
SMALLEST = 1e-64  # and from which on, unless it is 0, standard errors are far from float32's least number


def unfit(squares: Array) -> npt.NDArray[np.bool_]:
    """Targets whose sum of squares says that float32 cannot hold their influences; NaN and infinite ones, too."""
    return ~(squares <= LARGEST) | ((squares > 0) & (squares < SMALLEST))


def weigh(weights: Array, values: npt.NDArray[Any]) -> Array:
    """weights @ values (targets,); of float32 values the same bits whatever targets stand beside one."""
    if values.dtype != np.float32:
        return weights @ values
    return _core.sparse_product(np.ascontiguousarray(weights[None]), values, threads())[0]


@dataclass(frozen=True, eq=False)
class Counts:
    """How many rows there are, and how many of them keep each column."""

    rows: float
    count: Array

    def centre(self, sums: Sums) -> npt.NDArray[Any]:
        """Cross products of columns and targets less their means."""
        return _core.centred(np.ascontiguousarray(sums.cross), self.count / self.rows, sums.total, False)

    def energy(self, sums: Sums) -> Array:
        """Sums of squares of the targets less their means."""
        return np.maximum(sums.squares - sums.total**2 / self.rows, 0)

    def intercept(self, sums: Sums, values: npt.NDArray[Any]) -> Array:
        return (sums.total - weigh(self.count[: len(values)], values)) / self.rows


@dataclass(frozen=True, eq=False)
class Columns(Counts):
    """What masks alone decide about some rows; `a - b` is that of the rest. The Gram matrix is made when it is asked
    for: where single examples are the groups nobody does, and it would not fit."""

    _gram: Callable[[], Array]

    @cached_property
    def gram(self) -> Array:
        return self._gram()

    def __sub__(self, other: Columns) -> Columns:
        gram = self.gram - other.gram
        return Columns(self.rows - other.rows, self.count - other.count, lambda: gram)

    def first(self, groups: int) -> Columns:
        """The same without the columns after the first `groups`."""
        if groups == len(self.count):
            return self
        return Columns(self.rows, self.count[:groups], lambda: self.gram[:groups, :groups])

    @cached_property
    def centred(self) -> Array:
        """Gram matrix of the columns less their means."""
        centred = np.outer(self.count / -self.rows, self.count)  # no third matrix: there may be 20,000 groups
        centred += self.gram
        return centred

    def residuals(self, sums: Sums, values: npt.NDArray[np.float32], intercept: Array) -> Sums:
        """Statistics of y - intercept - M values on these rows; columns after those of `values` have none."""
        k = len(values)
        cross = _core.sparse_product(np.ascontiguousarray(self.gram[:, :k]), values, threads())
        np.subtract(sums.cross, cross, out=cross)
        cross -= np.outer(self.count, intercept)
        total = sums.total - self.rows * intercept - weigh(self.count[:k], values)
        squares = sums.squares - intercept * (sums.total + total)
        squares -= np.einsum("kn,kn->n", values, sums.cross[:k] + cross[:k])
        return Sums(total, np.maximum(squares, 0), cross)


@dataclass(frozen=True, eq=False)
class Sums:
    """What the outputs add, for some targets; `a + b` and `a - b`: of all rows of both, and of the rest."""

    total: Array
    squares: Array
    cross: Array

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.total + other.total, self.squares + other.squares, self.cross + other.cross)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.total - other.total, self.squares - other.squares, self.cross - other.cross)

    def first(self, groups: int) -> Sums:
        return replace(self, cross=self.cross[:groups])

    def of(self, targets: npt.NDArray[Any]) -> Sums:
        """The same for some of the targets."""
        return Sums(self.total[targets], self.squares[targets], np.ascontiguousarray(self.cross[:, targets]))

    def clear(self, targets: npt.NDArray[np.bool_]) -> None:
        """Zeros for some of the targets, in place."""
        self.total[targets], self.squares[targets], self.cross[:, targets] = 0, 0, 0


@dataclass(frozen=True, eq=False)
class Tile:
    """Statistics of some targets, and of targets that are all zeros after them (see `tile_slices`).

    Attributes:
        part: which targets.
        plain: of all rows as they are.
        units: of the used rows as units (the same object as `plain` where units are rows).
        folds: by number of folds, of each fold as units; they add up to `units`.
        within: (targets,) sum of squares of the used rows about the mean of their mask; None where no mask repeats.
        broken: bool (targets,): a NaN or infinite output; their sums are zeros.
        outputs: rows -> their outputs less the shift, float64 (rows, targets).
        step: (targets,) what outputs were rounded to before they were summed; None where they were not.
    """

    part: slice
    plain: Sums
    units: Sums
    folds: dict[int, list[Sums]]
    within: Array | None
    broken: npt.NDArray[np.bool_]
    outputs: Callable[[Rows], Array]
    step: Array | None = None

    @property
    def width(self) -> int:
        """How many targets there are without the zeros."""
        return self.part.stop - self.part.start


@dataclass(frozen=True, eq=False)
class Folds:
    """label: fold of each row, -1 = not used; rows: those of each fold; parts: their columns as units."""

    label: Rows
    rows: list[Rows]
    parts: list[Columns]


class Geometry:
    """All that estimators take from the masks alone, each computed when it is first asked for."""

    def __init__(self, masks: Masks):
        self.masks = masks
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

    def centre(self, values: Array) -> Array:
        """Values (groups, ...) less the mean of their stratum: what masks of fixed sizes can say of them."""
        values = values.copy()
        for stratum in self.strata:
            values[stratum] -= values[stratum].mean(0)
        return values

    def lift(self, gram: Array, level: float) -> Array:
        """gram + level x the projection on the directions in which no mask varies (groups, groups)."""
        gram = gram.copy() if self.strata else gram
        for stratum in self.strata:
            gram[np.ix_(stratum, stratum)] += level / len(stratum)
        return gram

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
        """Whether clusters of the caller's own hold whole masks, of which there are no more than parameters: then
        residuals add up to nothing in each."""
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
        packed = self.masks.packed if rows is None else np.ascontiguousarray(self.masks.packed[rows])
        parts = [_core.unpack(packed[i : i + 256], self.masks.columns).sum(0) for i in range(0, len(packed), 256)]
        return Columns(float(len(packed)), np.sum(parts, 0, np.float64), lambda: self._gram(packed))

    def _gram(self, packed: npt.NDArray[np.uint8]) -> Array:
        counts = _core.gram(packed, self.masks.columns, threads())
        gram: Array = counts.view(np.float64)
        for row, integers in zip(gram, counts, strict=True):  # in place
            row[:] = integers
        return gram

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
        for stratum in self.strata:  # groups of one are correlated by -1 / (groups - 1) whatever is drawn
            n, part = len(stratum), own[stratum]
            lift = 1 / (n - 1)
            among += 2 * lift * (float(part @ inner[np.ix_(stratum, stratum)] @ part) - n) + lift**2 * n * (n - 1)
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
        """Sum over units of rows x (1 - leverage) in OLS: how much of what one mask is peculiar in is left by it."""
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


class Statistics:
    """What every estimator reads. Outputs are read in place, once for each number of folds.

    With `coarse`, sums of all rows are those of outputs rounded to 1023 steps.

    Attributes:
        geometry: what masks alone decide.
        targets, flat: number of targets; whether the outputs were one-dimensional.
        exact: the outputs were float64, so nothing may be computed in less.
    """

    def __init__(self, given: Inputs, coarse: bool = False):
        self.coarse = coarse
        self.geometry = Geometry(given)
        self.given = given
        self.targets, self.flat = given.outputs.shape[1], given.flat
        self.exact = given.outputs.dtype == np.float64
        first = given.outputs[0].astype(np.float64)
        self._shift = np.where(np.isfinite(first), first, 0)

    def tiles(self, *folds: int) -> Iterator[Tile]:
        """All targets, in order, each with the folds asked for. Raises where an output is NaN, unless it is to be
        flagged, and where there are fewer clusters than folds."""
        geometry, units = self.geometry, self.given.units
        by_unit = units.kind in ("repeat", "pair")
        rows = {number: geometry.folds(number).rows for number in folds}
        selections = {
            number: [_Selection(self.given, part, by_unit) for part in parts] for number, parts in rows.items()
        }
        whole = selections[folds[0]] if folds else [_Selection(self.given, geometry.used_rows, by_unit, self.coarse)]
        rest = None if units.used.all() else _Selection(self.given, np.flatnonzero(~units.used), False)
        masks = None
        if geometry.spare and units.kind == "pair":
            label = 2 * units.label + (units.sign > 0)
            masks = _Between(np.flatnonzero(units.used), label, np.ones(self.given.models))
        for part in tile_slices(self.targets, self.given.columns * (2 if folds else 1)):  # folds hold many of them
            y, shift = self.given.outputs[:, part], self._shift[part]
            if (more := -y.shape[1] % WIDTH) > 0:
                y, shift = np.pad(y, ((0, 0), (0, more))), np.pad(shift, (0, more))
            with np.errstate(all="ignore"):
                rows_of = [one.sums(y, shift) for one in whole]
                units_of = [one.units(sums, y, shift) for one, sums in zip(whole, rows_of, strict=True)]
                plain = _add(rows_of)
                unit = _add(units_of) if by_unit else plain
                within = None
                if geometry.spare:
                    within = np.maximum(plain.squares - (unit.squares if masks is None else masks.squares(y, shift)), 0)
                plain = plain if rest is None else plain + rest.sums(y, shift)
            parts = {number: units_of if one is whole else [s.units(s.sums(y, shift), y, shift) for s in one]
                     for number, one in selections.items()}  # fmt: skip
            broken = unfit(plain.squares)
            if broken.any():
                if not self.given.flag:
                    self._raise_broken(int(part.start + broken.argmax()))
                for sums in (plain, unit, *(one for some in parts.values() for one in some)):
                    sums.clear(broken)
                within = None if within is None else np.where(broken, 0, within)
            yield Tile(part, plain, unit, parts, within, broken, _outputs(y, shift, broken), whole[0].step)

    def _raise_broken(self, target: int) -> None:
        outputs = self.given.outputs
        with np.errstate(all="ignore"):
            squares = _core.column_moments(outputs, self._shift, threads())[1]
        count = int(unfit(squares).sum())
        column = outputs[:, target].astype(np.float64)
        rows = np.flatnonzero(~np.isfinite(column))
        size = "small" if squares[target] < 1 else "large"
        found = f"{column[rows[0]]}" if rows.size else f"too {size} for float32 influences: rescale the target"
        row = rows[0] if rows.size else int(np.abs(column).argmax())
        raise EstimateError(
            f"the output is {found} ({count} such targets)",
            f"outputs, row {row}, target {target}",
            'drop the row, or pass nan="flag" to get NaN for these targets only',
        )


class _Between:
    """Sum over units of (signed sum of y)^2 / rows of the unit, for the units among some rows."""

    def __init__(self, rows: Rows, label: Rows, sign: Array):
        self.order = rows[np.argsort(label[rows], kind="stable")]
        label = label[self.order]
        edges = np.flatnonzero(label[1:] != label[:-1]) + 1
        self.starts = np.r_[0, edges, len(label)]
        self.sign = np.ascontiguousarray(sign[self.order])

    def squares(self, outputs: npt.NDArray[Any], shift: Array) -> Array:
        return _core.unit_squares(outputs, shift, self.starts, self.sign, threads(), self.order)


class _Selection:
    """Some rows, ready to be summed."""

    def __init__(self, given: Masks, rows: Rows | None, by_unit: bool, coarse: bool = False):
        self.rows = rows
        self.coarse = coarse
        self.step: Array | None = None  # of the outputs that were summed last
        self.codes = _core.codes(given.packed, given.columns, rows)
        self.pair = by_unit and given.units.kind == "pair"
        units = given.units
        every = np.arange(given.models) if rows is None else rows
        self.between = _Between(every, units.label, units.sign) if by_unit else None

    def sums(self, outputs: npt.NDArray[Any], shift: Array) -> Sums:
        """Of the rows as they are."""
        if self.coarse:
            cross, self.step = _core.subset_sums_int16(self.codes, outputs, shift, threads(), self.rows)
        else:
            cross = _core.subset_sums(self.codes, outputs, shift, threads(), self.rows)
        return Sums(*_core.column_moments(outputs, shift, threads(), self.rows), cross)

    def units(self, plain: Sums, outputs: npt.NDArray[Any], shift: Array) -> Sums:
        """The same rows as units."""
        if self.between is None:
            return plain
        squares = self.between.squares(outputs, shift)
        if not self.pair:
            return replace(plain, squares=squares)
        return Sums(np.zeros_like(plain.total), squares, plain.cross - plain.total / 2)


def _outputs(y: npt.NDArray[Any], shift: Array, broken: npt.NDArray[np.bool_]) -> Callable[[Rows], Array]:
    return lambda rows: np.where(broken, 0, y[rows].astype(np.float64) - shift)


def tile_slices(targets: int, columns: int) -> Iterator[slice]:
    """The targets, as many at a time as are worked on at once; 8,192 at most, as rows of outputs are, too.

    Those that make no whole 64 come last, by themselves, to be filled up with zeros: BLAS adds what is narrower in
    another order, and a target would have other bits alone than among others.
    """
    width = max(WIDTH, _TILE // max(columns, 64) // WIDTH * WIDTH)
    whole = targets // WIDTH * WIDTH
    yield from (slice(start, min(start + width, whole)) for start in range(0, whole, width))
    if whole < targets:
        yield slice(whole, targets)


def _add(parts: list[Sums]) -> Sums:
    if len(parts) == 1:
        return parts[0]
    whole = parts[0] + parts[1]
    for part in parts[2:]:
        for into, one in zip(
            (whole.total, whole.squares, whole.cross), (part.total, part.squares, part.cross), strict=True
        ):
            into += one
    return whole


class Regression:
    """OLS on all groups by Cholesky of G = LL' (plus 11' in the directions that masks of one size leave open).

    The noise needs only |L^-1 c|^2: K^2 targets / 2 multiplications, by forward substitution in blocks of 128 whose
    diagonal is inverted once. What lost: values first, then their product with c (twice the work); L^-1 formed whole
    (K^3 / 3 more, a minute at 20,000 groups).
    """

    def __init__(self, lower: Array, close: Callable[[Array], Array], df: float, parameters: int, spare: int):
        self._lower = lower
        self._close = close  # takes those directions out again
        self._spare = spare
        self.df = df
        self.parameters = parameters

    @cached_property
    def inverse(self) -> Array:
        factor = invert_lower(self._lower)
        return self._close(factor.T @ factor)

    @cached_property
    def _double(self) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]]]:
        """L, and the inverses of its diagonal blocks."""
        starts = range(0, len(self._lower), _BLOCK)
        return self._lower, [np.linalg.inv(self._lower[i : i + _BLOCK, i : i + _BLOCK]) for i in starts]

    @cached_property
    def _single(self) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]]]:
        lower, blocks = self._double
        return lower.astype(np.float32), [block.astype(np.float32) for block in blocks]

    def left(self, cross: npt.NDArray[Any], energy: Array) -> Array:
        """Residual sum of squares (targets,), from centred cross products; in the precision of `cross`."""
        lower, blocks = self._double if cross.dtype == np.float64 else self._single
        solved, explained = np.empty_like(cross), np.zeros(len(energy))
        for block, start in zip(blocks, range(0, len(cross), _BLOCK), strict=True):
            part = cross[start : start + _BLOCK]
            if start:
                part = part - lower[start : start + _BLOCK, :start] @ solved[:start]
            part = np.matmul(block, part, out=solved[start : start + _BLOCK])
            square = part * part
            if len(square) % 32 == 0:  # runs of 32 in the precision of `cross`: twice as fast, and as good
                square = square.reshape(-1, 32, len(energy)).sum(1)
            explained += square.sum(0, dtype=np.float64)
        return np.maximum(energy - explained, 0)

    @property
    def sure(self) -> bool:
        """Whether the noise can be told: not where there are as many parameters as masks, as what a mask does by
        itself is then seen nowhere. Of one group a mask does nothing by itself: with it, or without."""
        return bool(self.df >= 1)

    def noise(self, left: Array, within: Array | None) -> Array:
        """s^2 (targets,): of the residual; of repeats, where one group was kept or not; NaN where it cannot be told."""
        if not self._spare:
            return left / self.df
        assert within is not None
        return within / self.df


_BLOCK = 128


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


def regress(geometry: Geometry) -> Regression:
    """The factor of the groups' Gram matrix; raises where they cannot be told apart, or no noise can be told."""
    size = geometry.groups
    parameters = size - geometry.masks.constants + geometry.intercept
    if geometry.units < parameters:
        what = f"{geometry.masks.models} models ({geometry.units} independent ones) cannot tell {size} groups apart"
        mend = f'this concerns {name_groups(np.arange(size))}: train more models, or use method="ridge" or "lasso"'
        raise EstimateError(what, "masks", mend)
    gram = geometry.real.centred
    level = np.trace(gram) / size
    whole = geometry.lift(gram, level)
    try:
        lower: Any = np.linalg.cholesky(whole)
        pivots = np.diag(lower) ** 2 / np.diag(whole)
    except np.linalg.LinAlgError:
        pivots = np.zeros(1)
    if pivots.min() < 1e-9:  # a pivot is what the earlier groups do not explain of a group
        _raise_rank(geometry, gram)
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
    return Regression(lower, lambda inverse: geometry.lift(inverse, -1 / level), df, parameters, spare)


def _raise_rank(geometry: Geometry, gram: Array) -> None:
    mend = 'use method="ridge" or "lasso", or merge these groups (of a stratified design, pass the Design)'
    scale = 1 / np.sqrt(np.diag(gram))
    eigenvalues, vectors = np.linalg.eigh(gram * np.outer(scale, scale))
    null = vectors[:, eigenvalues < 1e-9 * eigenvalues[-1]] * scale[:, None]
    null = geometry.centre(null)
    null = null / np.maximum(np.abs(null).max(), 1e-300)
    mixed = np.flatnonzero(np.abs(null).max(1) > 1e-6) if null.size else np.arange(len(gram))
    raise EstimateError(f"{name_groups(mixed)} cannot be told apart by these masks", "masks", mend)
