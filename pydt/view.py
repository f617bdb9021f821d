"""What had arrived in an accumulator at one moment, as the estimators read it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.blocks import Array, Frame, Node, Rows, combine, leaf, threads
from pydt.design import to_array
from pydt.errors import EstimateError
from pydt.inputs import as_outputs

_WHOLE = 62  # the level of a node that holds every plan


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
class Statistics:
    """What had arrived in an accumulator when it was asked: everything that `pydt.influences` reads.

    Attributes:
        rows: int64, the plan rows it holds, ascending.
    """

    _frame: Frame
    _form: Form
    _nan: str
    rows: Rows
    _nodes: tuple[tuple[int, int, Node], ...]
    _buffers: tuple[tuple[int, npt.NDArray[Any]], ...]
    _gone: tuple[tuple[Rows, Array], ...] = ()

    @property
    def targets(self) -> int:
        return self._form.count

    def sums(self, targets: slice = slice(None)) -> Node:
        """The sums of all rows, line by line, for some of the targets."""
        frame, nodes = self._frame, [(level, index, node.part(targets)) for level, index, node in self._nodes]
        for block, buffer in self._buffers:
            start = frame.span(0, block).start
            rows = self.rows[slice(*np.searchsorted(self.rows, (start, start + len(buffer))))]
            if len(rows):
                nodes.append((0, block, leaf(frame, rows, buffer[:, targets], rows - start, 0, block)))
        root = combine(frame, nodes)
        assert root is not None  # there is at least one row
        for rows, outputs in self._gone:
            root = _less(root, leaf(frame, rows, outputs[:, targets], np.arange(len(rows)), _WHOLE, 0))
        return root

    def remove(self, index: Any, outputs: Any) -> Statistics:
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
        return replace(self, rows=rest, _gone=(*self._gone, summed) if len(summed[0]) else self._gone)

    @cached_property
    def _line(self) -> Rows:
        """The line of each row."""
        return self._frame.line(self.rows)

    @cached_property
    def _grams(self) -> list[Array]:
        """M'M of the rows of each line."""
        frame, parts = self._frame, [self.rows[self._line == i] for i in range(self._frame.lines)]
        packed = [np.ascontiguousarray(frame.packed[rows]) for rows in parts]
        return [_core.gram(part, frame.columns, threads()).astype(np.float64) for part in packed]


def _less(whole: Node, gone: Node) -> Node:
    with np.errstate(all="ignore"):
        gone = gone.moved(whole.shift)
        tally = replace(
            whole.tally, rows=whole.tally.rows - gone.tally.rows, count=whole.tally.count - gone.tally.count
        )
        names = ("total", "squares", "cross", "scatter")
        return replace(whole, tally=tally, **{name: getattr(whole, name) - getattr(gone, name) for name in names})


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
