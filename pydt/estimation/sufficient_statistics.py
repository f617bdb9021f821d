"""Statistics of masks and outputs: outputs are read in place, and summed tile by tile of targets.

Estimators take a `Statistics`: its `geometry`, and from `tiles` the sums of a few hundred targets at a time, so that
memory is that of the result. Cost: one pass over the outputs however many folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import EstimateError, threads
from pydt.estimation.inputs import Array, Inputs, Masks, Rows
from pydt.estimation.mask_geometry import Geometry
from pydt.estimation.sums import WIDTH, Sums, Tile

TILE_ENTRIES = 1 << 19  # of a (groups, targets) matrix in float64, in one tile: 4 MB
LARGEST = 1e73  # sum of squares up to which neither sums of 384 outputs in float32 nor influences overflow
SMALLEST = 1e-64  # and from which on, unless it is 0, standard errors are far from float32's least number


def unfit(squares: Array) -> npt.NDArray[np.bool_]:
    """Targets whose sum of squares says that float32 cannot hold their influences; NaN and infinite ones, too."""
    return ~(squares <= LARGEST) | ((squares > 0) & (squares < SMALLEST))


class Statistics:
    """Masks and outputs, as estimators read them: outputs in place, once for each number of folds.

    With `coarse`, sums of all rows are those of outputs rounded to 1023 steps.

    Attributes:
        geometry: of the masks.
        targets, flat: number of targets; whether the outputs were one-dimensional.
        exact: the outputs are float64, so nothing is computed in float32.
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
    """The targets of each tile, 8,192 at most.

    Those beyond a multiple of 64 come last, to be padded with zeros: BLAS adds a narrower matrix in another order, and
    a target would have other bits alone than among others.
    """
    width = max(WIDTH, TILE_ENTRIES // max(columns, 64) // WIDTH * WIDTH)
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
