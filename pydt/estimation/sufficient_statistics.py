"""Statistics of masks and outputs: outputs are read in place, and summed tile by tile of targets.

Estimators take a `Statistics`: its `geometry`, and from `tiles` the sums of a few hundred targets at a time, so that
memory is that of the result. Cost: one pass over the outputs however many folds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError
from pydt.estimation.backend import HOST, Host
from pydt.estimation.inputs import Array, Inputs, Masks, Rows, on_host
from pydt.estimation.mask_geometry import Geometry
from pydt.estimation.sums import Sums, Tile

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

    def __init__(self, given: Inputs, coarse: bool = False, backend: Host = HOST):
        self.coarse = coarse
        self.backend = backend
        self.geometry = Geometry(given, backend)
        self.given = given
        self.targets, self.flat = given.outputs.shape[1], given.flat
        self.exact = backend.exact or given.outputs.dtype == np.float64
        first = on_host(given.outputs[0]).astype(np.float64)
        self._shift = np.where(np.isfinite(first), first, 0)

    def tiles(self, *folds: int) -> Iterator[Tile]:
        """All targets, in order, each with the folds asked for. Raises where an output is NaN, unless it is to be
        flagged, and where there are fewer clusters than folds."""
        geometry, units, backend = self.geometry, self.given.units, self.backend
        by_unit = units.kind in ("repeat", "pair")
        rows = {number: geometry.folds(number).rows for number in folds}
        selections = {
            number: [_Selection(self.given, backend, part, by_unit) for part in parts] for number, parts in rows.items()
        }
        whole = selections[folds[0]] if folds else None
        whole = whole or [_Selection(self.given, backend, geometry.used_rows, by_unit, self.coarse)]
        rest = None if units.used.all() else _Selection(self.given, backend, np.flatnonzero(~units.used), False)
        masks = None
        if geometry.spare and units.kind == "pair":
            label = 2 * units.label + (units.sign > 0)
            masks = _Between(backend, np.flatnonzero(units.used), label, np.ones(self.given.models))
        for part, y, shift in self._read(sum(folds)):
            yield self._tile(part, y, shift, whole, selections, rest, masks)

    def _read(self, folds: int) -> Iterator[tuple[slice, Any, Array]]:
        """Targets, outputs and shift of each tile."""
        units = self.given.units
        longest = max(int(np.bincount(rows).max()) for rows in (units.label, units.clusters))
        return self.backend.tiles(self.given.outputs, self._shift, self.given.columns, folds, longest)

    def _tile(
        self,
        part: slice,
        y: Any,
        shift: Array,
        whole: list[_Selection],
        selections: dict[int, list[_Selection]],
        rest: _Selection | None,
        masks: _Between | None,
    ) -> Tile:
        """Of some targets: whole adds up to the used rows, rest are the others, masks tell trainings of one apart."""
        geometry, by_unit = self.geometry, whole[0].between is not None
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
        outputs = partial(self.backend.rows, y, shift=shift, broken=broken)
        return Tile(part, plain, unit, parts, within, broken, outputs, whole[0].step)

    def _raise_broken(self, target: int) -> None:
        outputs = self.given.outputs
        with np.errstate(all="ignore"):
            every = [self.backend.moments(y, shift)[1][: part.stop - part.start] for part, y, shift in self._read(0)]
        squares = np.concatenate(every)
        count = int(unfit(squares).sum())
        column = on_host(outputs[:, target]).astype(np.float64)
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

    def __init__(self, backend: Host, rows: Rows, label: Rows, sign: Array):
        self.backend = backend
        self.order = rows[np.argsort(label[rows], kind="stable")]
        label = label[self.order]
        edges = np.flatnonzero(label[1:] != label[:-1]) + 1
        self.starts = np.r_[0, edges, len(label)]
        self.sign = np.ascontiguousarray(sign[self.order])

    def squares(self, outputs: Any, shift: Array) -> Array:
        return self.backend.unit_squares(outputs, shift, self.starts, self.sign, self.order)


class _Selection:
    """Some rows, ready to be summed."""

    def __init__(self, given: Masks, backend: Host, rows: Rows | None, by_unit: bool, coarse: bool = False):
        self.backend = backend
        self.rows = rows
        self.coarse = coarse
        self.step: Array | None = None  # of the outputs that were summed last
        self.codes = backend.codes(given.packed, given.columns, rows)
        self.pair = by_unit and given.units.kind == "pair"
        units = given.units
        every = np.arange(given.models) if rows is None else rows
        self.between = _Between(backend, every, units.label, units.sign) if by_unit else None

    def sums(self, outputs: Any, shift: Array) -> Sums:
        """Of the rows as they are."""
        found = self.backend.sums(self.codes, outputs, shift, self.rows, self.coarse)
        self.step = found[3]
        return Sums(*found[:3], self.backend)

    def units(self, plain: Sums, outputs: Any, shift: Array) -> Sums:
        """The same rows as units."""
        if self.between is None:
            return plain
        squares = self.between.squares(outputs, shift)
        if not self.pair:
            return replace(plain, squares=squares)
        cross = plain.cross - self.backend.up(plain.total) / 2
        return Sums(np.zeros_like(plain.total), squares, cross, self.backend)


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
