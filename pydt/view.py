"""What had arrived in an accumulator at one moment, as the estimators read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.blocks import FOLDS, Frame, Leaf, Node, combine
from pydt.design import estimand_of, to_array
from pydt.errors import EstimateError
from pydt.inputs import Array, Masks, Rows, Units, as_outputs, name_groups, strata_of
from pydt.moments import Geometry, Statistics, Sums, Tile, tile_slices, unfit


@dataclass(frozen=True)
class Form:
    """What the outputs of an accumulator look like: width as they are added, and the columns that are kept."""

    width: int
    count: int
    columns: slice
    dtype: np.dtype[Any]
    flat: bool

    def __str__(self) -> str:
        return f"{self.dtype} of {self.width} targets" + (", without an axis of targets" if self.flat else "")

    @staticmethod
    def of(targets: slice | None, width: int, dtype: np.dtype[Any], flat: bool) -> Form:
        columns = slice(*(targets or slice(None)).indices(width))
        count = len(range(width)[columns])
        if not count:
            raise EstimateError(f"{targets} holds none of {width} targets", "targets", "choose columns that exist")
        return Form(width, count, columns, dtype, flat)

    def to_list(self) -> list[Any]:
        return [self.width, self.dtype.name, self.flat]


@dataclass(frozen=True, eq=False)
class Arrived(Masks):
    """The masks of the rows that have arrived, with the folds that the whole plan gives them.

    Attributes:
        fold: int64 (models,), numbered from 0 without gaps; -1 = not used.
    """

    fold: Rows

    def folds(self, number: int, seed: int = 0) -> Rows:
        there = int(self.fold.max()) + 1
        if number != there:
            mend = "keep the outputs for other folds" if there == FOLDS else "add more rows"
            raise EstimateError(f"{number} folds, but the rows were summed in {there}", "cv", f"use {there}, or {mend}")
        return self.fold


class View(Statistics):
    """What had arrived in an accumulator when it was asked: what `pydt.influences` reads.

    Attributes:
        rows: int64, the plan rows it holds, ascending.
    """

    def __init__(
        self,
        frame: Frame,
        form: Form,
        flag: bool,
        rows: Rows,
        nodes: tuple[tuple[int, int, Node], ...],
        buffers: tuple[tuple[int, npt.NDArray[Any]], ...],
        gone: tuple[tuple[Rows, Array], ...] = (),
    ):
        self.rows, self.targets, self.flat, self.exact = rows, form.count, form.flat, form.dtype == np.float64
        self._frame, self._form, self._flag = frame, form, flag
        self._nodes, self._buffers, self._gone = nodes, buffers, gone

    @cached_property
    def geometry(self) -> Geometry:  # type: ignore[override]  # made when it is asked for: few rows have none
        """Raises EstimateError where the rows that arrived cannot say anything about a group."""
        frame = self._frame
        masks, units, line = frame.masks, frame.units, self._line
        packed = np.ascontiguousarray(masks.packed[self.rows])
        real = _core.pack((np.arange(masks.columns) < masks.groups)[None])
        for bits, name in ((np.bitwise_or.reduce(packed), "none"), (~np.bitwise_and.reduce(packed), "each")):
            wrong = np.flatnonzero(~_core.unpack((bits & real[0])[None], masks.columns)[0, : masks.groups])
            if wrong.size:
                what = f"{name_groups(wrong)} in {name} of the {len(self.rows)} models that have arrived"
                raise EstimateError(what, "accumulator", "add more rows")
        used, label = line < frame.folds, units.label[self.rows]
        if not used.any():
            raise EstimateError("no mask has arrived with its complement", "accumulator", "add more rows")
        clusters, count = _renumbered(units.clusters[self.rows]), len(np.unique(label[used]))
        here = Units(units.kind, clusters, used, label, units.sign[self.rows], count)
        fold = np.where(used, np.searchsorted(np.unique(line[used]), line), -1)
        estimand = estimand_of(packed & real, masks.groups)
        strata = strata_of(estimand, masks.groups, masks.strata)
        return Geometry(Arrived(packed, masks.groups, masks.placebos, estimand, here, strata, fold))

    def tiles(self, *folds: int) -> Iterator[Tile]:
        frame, geometry = self._frame, self.geometry
        for number in folds:
            geometry.folds(number)
        there = np.unique(self._line[self._line < frame.folds]).tolist()
        for part in tile_slices(self.targets, frame.columns):
            node = self.sums(part)
            broken = unfit(node.squares.sum(0))
            if broken.any():
                if not self._flag:
                    target = self._form.columns.start + self._form.columns.step * int(part.start + broken.argmax())
                    raise EstimateError(
                        "outputs are too large or small for float32 influences",
                        f"target {target}",
                        "scale the outputs",
                    )
                node = node.without(broken)
            lines = [Sums(node.total[i], node.squares[i], node.cross[i]) for i in range(frame.lines)]
            units, within = [lines[i] for i in there], None
            plain = sum(lines[1:], start=lines[0])
            if geometry.spare:
                within = np.maximum(node.scatter[0].sum(0), 0)
            if frame.units.kind == "repeat":
                units = [replace(lines[i], squares=lines[i].squares - node.scatter[0, i]) for i in there]
            elif frame.units.kind == "pair":
                units = [self._half(lines[i], node.scatter[1, i]) for i in there]
            whole = sum(units[1:], start=units[0]) if frame.scatters else plain
            yield Tile(part, plain, whole, dict.fromkeys(folds, units), within, broken, None)

    @staticmethod
    def _half(sums: Sums, squares: Array) -> Sums:
        """Sums of half-differences."""
        return Sums(np.zeros_like(sums.total), squares, sums.cross - sums.total / 2)

    def sums(self, targets: slice = slice(None)) -> Node:
        """The sums of all rows, line by line, for some of the targets."""
        frame, nodes = self._frame, [(level, index, node.part(targets)) for level, index, node in self._nodes]
        nodes += [(0, block, one.sum(buffer[:, targets])) for block, one, buffer in self._leaves]
        root = combine(frame, nodes)
        assert root is not None  # there is at least one row
        for one, outputs in self._lost:
            root = root.less(one.sum(outputs[:, targets]))
        return root

    def remove(self, index: Any, outputs: Any) -> View:
        """The view without some of its rows: a model that turns out to be wrong, or a jackknife.

        Their sums are taken off again, which is not bit-exact: the rounding of the sums they were part of stays, about
        1e-16 (for float32 outputs 1e-6) of the sums before. Where that is too much, accumulate without them. Rows
        whose masks repeat or complement each other are removed together.

        Args:
            index, outputs: as they were added.

        Raises:
            EstimateError: a row that is not there, a part of a cluster, all rows, or (where the row itself is still
                held) other outputs than were added.
        """
        rows = row_numbers(index, len(self._frame.packed))
        values, _ = row_values(rows, index, outputs)
        absent = rows[~np.isin(rows, self.rows)]
        if absent.size:
            raise EstimateError(f"row {absent[0]} is not there", "index", "remove rows that were added")
        if values.shape[1] != self._form.width:
            raise EstimateError(f"{values.shape[1]} targets, not {self._form.width}", "outputs", "pass whole rows")
        if len(rows) == len(self.rows):
            raise EstimateError("these are all rows", "index", "leave some")
        clusters = self._frame.units.clusters
        rest = self.rows[~np.isin(self.rows, rows)]
        torn = rest[np.isin(clusters[rest], clusters[rows])]
        if self._frame.scatters and torn.size:
            raise EstimateError(
                f"row {torn[0]} has the mask, or the complement, of a row that is removed",
                "index",
                "remove both: they are one cluster",
            )
        order = np.argsort(rows)
        rows, values = rows[order], values[order, self._form.columns]
        held = np.zeros(len(rows), bool)
        for block, buffer in self._buffers:
            place = rows - self._frame.span(0, block).start
            here = np.flatnonzero((place >= 0) & (place < len(buffer)))
            held[here] = True
            same = np.array_equal(buffer[place[here]], values[here].astype(buffer.dtype), equal_nan=True)
            if not same:
                raise EstimateError("are not what was added", "outputs", "pass the outputs that these rows had")
        summed = rows[~held], values[~held].astype(np.float64)
        gone = (*self._gone, summed) if len(summed[0]) else self._gone
        return View(self._frame, self._form, self._flag, rest, self._nodes, self._buffers, gone)

    @cached_property
    def _line(self) -> Rows:
        """The line of each row."""
        return self._frame.line(self.rows)

    @cached_property
    def _leaves(self) -> list[tuple[int, Leaf, npt.NDArray[Any]]]:
        """Blocks of which not all rows have arrived."""
        found = []
        for block, buffer in self._buffers:
            start = self._frame.span(0, block).start
            rows = self.rows[slice(*np.searchsorted(self.rows, (start, start + len(buffer))))]
            if len(rows):
                found.append((block, Leaf(self._frame, rows, rows - start, 0, block), buffer))
        return found

    @cached_property
    def _lost(self) -> list[tuple[Leaf, Array]]:
        """Rows that were removed from sums."""
        whole = (len(self._frame.packed) // self._frame.block).bit_length()  # a node of this level holds every row
        return [(Leaf(self._frame, rows, np.arange(len(rows)), whole, 0), outputs) for rows, outputs in self._gone]


def _renumbered(labels: Rows) -> Rows:
    """Labels from 0 in order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.reshape(-1)].astype(np.int64)


def row_numbers(index: Any, models: int) -> Rows:
    rows = np.atleast_1d(to_array(index, "index", EstimateError))
    if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu":
        raise EstimateError(
            f"shape {rows.shape} and dtype {rows.dtype} are not row numbers", "index", "pass whole numbers (r,)"
        )
    outside = rows[(rows < 0) | (rows >= models)]
    if outside.size:
        raise EstimateError(f"row {outside[0]} is not in the plan", "index", f"pass numbers from 0 to {models - 1}")
    values, counts = np.unique(rows, return_counts=True)
    if counts.max() > 1:
        raise EstimateError(f"row {values[counts.argmax()]} is there twice", "index", "name every row once")
    return rows.astype(np.int64)


def row_values(rows: Rows, index: Any, outputs: Any) -> tuple[npt.NDArray[Any], bool]:
    """Outputs (rows, width), and whether they came without an axis of targets."""
    if np.ndim(index) == 0:
        outputs = (outputs if hasattr(outputs, "detach") else to_array(outputs, "outputs", EstimateError))[None]
    values, flat = as_outputs(outputs)
    if len(values) != len(rows):
        raise EstimateError(f"{len(values)} rows of outputs for {len(rows)} rows", "outputs", "pass one row for each")
    return values, flat
