"""Sums over blocks of a plan's rows, and the tree in which they merge: the arithmetic of `accumulate.py`.

A block is `Frame.block` consecutive rows of the plan. Blocks merge in a dyadic tree: node (level, i) holds blocks
i 2^level .. (i + 1) 2^level - 1. A node is a function of which of its rows arrived and of their outputs alone, so its
bits say nothing of order, machine or number of threads. Per line (the folds; last, for foldover masks, the rows whose
complement never came, which only the difference of means reads) it keeps, in float64,

    total = 1'Z    squares = 1'Z^2    cross = M'Z        Z = Y - shift, shift = the first row of the node that arrived
    within         scatter of the rows around the mean of their mask        (masks that repeat)
    pairs          sum over foldover pairs of (difference of sums)^2 / rows  (foldover)

and the mean of each mask that also occurs outside of the node. Two nodes merge with d = right shift - left shift, n =
rows and c = M'1 of the right one:

    total += n d    squares += d (2 total + n d)    cross += c d'        (of the right one, then both are added)
    within += n1 n2 / (n1 + n2) (mean1 - mean2)^2                        for a mask in both (Chan, Golub, LeVeque 1983)
    pairs -= r1 r2 / (r1 + r2) (half-difference1 - half-difference2)^2   for a pair in both

`within` and `pairs` do not depend on the shift. Counts and M'M come from the masks, which the design knows: they are
not stored. Layout: cross (lines, columns, targets), columns = groups followed by placebos.

Cost: a merge touches 3 lines x columns x targets numbers, a block costs block x columns x targets / 6 look-ups. Hence
the rows of a block: a power of two, at least 256, and at least 8 for each group. What lost: 256 rows for any number of
groups. Five folds of sums take 40 bytes a group and target and rows 4 (float32), so sums of fewer than 10 rows a
group are larger than the rows, and with 1000 groups merging would cost as much as summing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.cores import threads
from pydt.design import Design
from pydt.errors import EstimateError
from pydt.inputs import Array, Masks, Rows, Units, rank_within, read_masks

FOLDS = 5
_LEAST = 256
_PER_GROUP = 8
_CELLS = 1 << 20  # entries of the outputs that are turned into float64 at once


@dataclass(frozen=True, eq=False)
class Frame:
    """What a design alone says about its sums.

    Attributes:
        masks: those of the whole plan, and how rows enter the errors.
        folds: held-out folds; 5, or as many as there are independent masks.
        fold: int64 (models,); -1 = half of a pair that the plan does not complete.
        label: int64 (models,): the mask of each row. partner: row with the complement, -1 = none (foldover only).
        first, last: first and last block in which a label, or its complement, occurs.
    """

    design: Design
    masks: Masks
    folds: int
    fold: Rows
    label: Rows
    partner: Rows
    block: int
    first: Rows
    last: Rows

    @property
    def packed(self) -> npt.NDArray[np.uint8]:
        return self.masks.packed

    @property
    def columns(self) -> int:
        return self.masks.columns

    @property
    def units(self) -> Units:
        return self.masks.units

    @property
    def lines(self) -> int:
        return self.folds + (self.units.kind == "pair")

    @property
    def scatters(self) -> int:
        """Rows of `Node.scatter`: within, pairs."""
        return {"single": 0, "repeat": 1, "pair": 2}[self.units.kind]

    @property
    def blocks(self) -> int:
        """Whole blocks; the rows after them are never summed before they are looked at."""
        return len(self.packed) // self.block

    @cached_property
    def node_bytes(self) -> int:
        """The most that a node takes for one target."""
        sums = self.lines * (self.columns + 2) + self.scatters * self.folds
        return 8 * (sums + 1 + self.open_masks)

    @cached_property
    def open_masks(self) -> int:
        """Masks that occur in more than one block."""
        return int((self.last > self.first).sum()) if self.scatters else 0

    def span(self, level: int, index: int) -> slice:
        """The rows of a node."""
        return slice((index << level) * self.block, ((index + 1) << level) * self.block)

    def line(self, rows: Rows) -> Rows:
        """The line of each row, if these rows (ascending, whole blocks) are those that arrived."""
        line = self.fold[rows]
        if self.units.kind == "pair":
            mates = self.partner[rows]
            place = np.minimum(np.searchsorted(rows, mates), len(rows) - 1)
            line = np.where((mates >= 0) & (rows[place] == mates), line, self.folds)
        return line

    def tally(self, rows: Rows, level: int, index: int) -> Tally:
        """The counts of a node of which these rows arrived."""
        line = self.line(rows)
        count = np.zeros((self.lines, self.columns), np.int64)
        for start in range(0, len(rows), 4096):
            part = slice(start, start + 4096)
            masks = _core.unpack(np.ascontiguousarray(self.packed[rows[part]]), self.columns)
            for i in range(self.lines):
                count[i] += masks[line[part] == i].sum(0, dtype=np.int64)
        labels = sizes = np.zeros(0, np.int64)
        if self.scatters:
            labels, sizes = np.unique(self.label[rows[line < self.folds]], return_counts=True)
            open_ = self.still_open(labels, level, index)
            labels, sizes = labels[open_], sizes[open_]
        return Tally(np.bincount(line, minlength=self.lines), count, labels, sizes)

    def still_open(self, labels: Rows, level: int, index: int) -> npt.NDArray[np.bool_]:
        """Whether these masks also occur outside of a node."""
        return (self.first[labels] < index << level) | (self.last[labels] >= (index + 1) << level)

    def fold_of(self, labels: Rows) -> Rows:
        """The fold of all rows of a mask."""
        return self._fold_of[labels]

    @cached_property
    def _fold_of(self) -> Rows:
        found = np.full(len(self.first), -1, np.int64)
        used = self.fold >= 0
        found[self.label[used]] = self.fold[used]
        return found


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of a node: rows (lines,), count = M'1 (lines, columns), and labels and rows of the open masks."""

    rows: Rows
    count: Rows
    labels: Rows
    sizes: Rows


@dataclass(frozen=True, eq=False)
class Node:
    """The sums of some rows; never changed once made. Arrays end in an axis of targets."""

    tally: Tally
    shift: Array
    total: Array
    squares: Array
    cross: Array
    scatter: Array
    means: Array

    ARRAYS = ("shift", "total", "squares", "cross", "scatter", "means")

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in self.ARRAYS)

    def part(self, targets: slice) -> Node:
        return Node(self.tally, *(getattr(self, name)[..., targets] for name in self.ARRAYS))

    def less(self, gone: Node) -> Node:
        """The sums without some of their rows; the means of open masks are of no use any more."""
        with np.errstate(all="ignore"):
            gone = gone.moved(self.shift)
            rows, count = self.tally.rows - gone.tally.rows, self.tally.count - gone.tally.count
            names = ("total", "squares", "cross", "scatter")
            rest = {name: getattr(self, name) - getattr(gone, name) for name in names}
        return replace(self, tally=replace(self.tally, rows=rows, count=count), **rest)

    def without(self, targets: npt.NDArray[np.bool_]) -> Node:
        """The same with zeros for some of the targets."""
        return Node(self.tally, *(np.where(targets, 0, getattr(self, name)) for name in self.ARRAYS))

    def moved(self, shift: Array) -> Node:
        """The same sums about another shift."""
        d = self.shift - shift
        rows = self.tally.rows[:, None]
        cross = self.tally.count[:, :, None] * d
        cross += self.cross
        squares = self.squares + d * (2 * self.total + rows * d)
        return replace(self, shift=shift, total=self.total + rows * d, squares=squares, cross=cross)


@lru_cache(maxsize=4)
def frame_of(design: Design) -> Frame:
    """Everything about the sums of a design's rows that its masks decide.

    Raises:
        EstimateError: groups in no or in every model; a mask and its complement that lie in different blocks.
    """
    masks = read_masks(design)
    units, models = masks.units, len(design)
    block = max(_LEAST, 1 << (_PER_GROUP * design.groups - 1).bit_length())
    folds = min(FOLDS, units.cluster_count)
    if folds > 1:
        fold = masks.folds(folds)
    else:
        folds, fold = 1, np.where(units.used, 0, -1)
    label, partner = units.label, np.full(models, -1, np.int64)
    where = np.arange(models) // block
    if units.kind == "pair":
        label = 2 * units.label + (units.sign > 0)
        rank = rank_within(label)
        order = np.lexsort((units.sign, rank, units.label))
        mates = order[units.used[order]].reshape(-1, 2)
        partner[mates[:, 0]], partner[mates[:, 1]] = mates[:, 1], mates[:, 0]
        apart = np.flatnonzero((partner >= 0) & (where != where[partner]))
        if apart.size:
            one = apart[0]
            raise EstimateError(
                f"row {one} and its complement, row {partner[one]}, do not lie in one block of {block} rows",
                "design",
                "put the two next to each other, or keep the outputs and give them to pydt.influences",
            )
    first, last = (np.full(int(label.max()) + 2, edge, np.int64) for edge in (models, -1))
    np.minimum.at(first, label, where)
    np.maximum.at(last, label, where)
    if units.kind == "pair":  # both halves of a pair stay open as long as one of them does
        whole = len(first) // 2 * 2
        for edges, outer in ((first, np.minimum), (last, np.maximum)):
            both = outer(edges[0:whole:2], edges[1:whole:2])
            edges[0:whole:2] = edges[1:whole:2] = both
    return Frame(design, masks, folds, fold, label, partner, block, first, last)


class Leaf:
    """Some rows of one node, ready to be summed for any of the targets.

    Args:
        rows: plan rows, ascending, at least one; of node (level, index).
        place: int64: row place[i] of the outputs belongs to plan row rows[i].
    """

    def __init__(self, frame: Frame, rows: Rows, place: Rows, level: int, index: int):
        self._frame, self._place, self._tally = frame, place, frame.tally(rows, level, index)
        line = frame.line(rows)
        self._lines = [
            (i, np.ascontiguousarray(place[line == i]), _core.codes(frame.packed, frame.columns, rows[line == i]))
            for i in np.flatnonzero(self._tally.rows).tolist()
        ]
        self._find_masks(rows[line < frame.folds], place[line < frame.folds])

    def _find_masks(self, rows: Rows, place: Rows) -> None:
        """The rows that the regression uses, sorted by mask, as far as `scatter` and `means` speak of them."""
        frame, open_ = self._frame, self._tally.labels
        order = np.argsort(frame.label[rows], kind="stable") if frame.scatters else np.zeros(0, np.int64)
        labels, sizes = np.unique(frame.label[rows[order]], return_counts=True)
        place = place[order]
        if frame.units.kind == "repeat":  # a mask on its own scatters around nothing
            wanted = (sizes > 1) | np.isin(labels, open_)
            place, labels, sizes = place[np.repeat(wanted, sizes)], labels[wanted], sizes[wanted]
        self._by_mask, self._sizes, self._starts = place, sizes, np.cumsum(sizes) - sizes
        self._fold, self._open = frame.fold_of(labels), np.searchsorted(labels, open_)

    def sum(self, outputs: npt.NDArray[Any]) -> Node:
        """The sums of outputs float16/32/64 (any, targets), any strides."""
        frame, targets, count = self._frame, outputs.shape[1], threads()
        shift = outputs[self._place[0]].astype(np.float64)
        total, squares = np.zeros((2, frame.lines, targets))
        cross = np.zeros((frame.lines, frame.columns, targets))
        with np.errstate(all="ignore"):
            for i, rows, codes in self._lines:
                cross[i] = _core.subset_sums(codes, outputs, shift, count, rows)
                total[i], squares[i] = _core.column_moments(outputs, shift, count, rows)
            scatter, means = self._scatter(outputs, shift)
        return Node(self._tally, shift, total, squares, cross, scatter, means)

    def _scatter(self, outputs: npt.NDArray[Any], shift: Array) -> tuple[Array, Array]:
        """`Node.scatter` and `Node.means`."""
        frame, targets, sizes = self._frame, len(shift), self._sizes[:, None]
        scatter, means = np.zeros((frame.scatters, frame.folds, targets)), np.zeros((len(self._open), targets))
        if not len(sizes):
            return scatter, means
        width = max(1, _CELLS // len(self._by_mask))
        for part in (slice(start, start + width) for start in range(0, targets, width)):
            y = outputs[self._by_mask, part].astype(np.float64) - shift[part]
            mean = np.add.reduceat(y, self._starts, axis=0) / sizes
            means[:, part] = mean[self._open] + shift[part]
            if sizes.max() > 1:
                inner = np.add.reduceat((y - np.repeat(mean, self._sizes, axis=0)) ** 2, self._starts, axis=0)
                for i in range(frame.folds):
                    scatter[0, i, part] = inner[self._fold == i].sum(0)
            if frame.units.kind == "pair":
                between = sizes[::2] * (mean[1::2] - mean[::2]) ** 2 / 2
                for i in range(frame.folds):
                    scatter[1, i, part] = between[self._fold[::2] == i].sum(0)
        return scatter, means


def merge_halves(frame: Frame, left: Node | None, right: Node | None, level: int, index: int) -> Node | None:
    """The node (level, index) from its two halves; None = none of its rows arrived."""
    if left is None or right is None:
        return left or right
    with np.errstate(all="ignore"):
        moved = right.moved(left.shift)
        cross = moved.cross
        cross += left.cross
        a, b = left.tally, right.tally
        scatter = left.scatter + right.scatter
        labels, sizes, means = a.labels, a.sizes, left.means
        if len(a.labels) or len(b.labels):
            labels = np.union1d(a.labels, b.labels)
            na, nb = np.zeros((2, len(labels)), np.int64)
            ma, mb = np.zeros((2, len(labels), len(left.shift)))
            for n, m, node in ((na, ma, left), (nb, mb, right)):
                there = np.searchsorted(labels, node.tally.labels)
                n[there], m[there] = node.tally.sizes, node.means
            sizes, fold = na + nb, frame.fold_of(labels)
            both = (na * nb > 0)[:, None]
            weight = (na * nb / sizes)[:, None]
            further = np.where(both, weight * (ma - mb) ** 2, 0)
            means = np.where(both, ma + (mb - ma) * (nb / sizes)[:, None], np.where(na[:, None] > 0, ma, mb))
            for i in range(frame.folds):
                scatter[0, i] += further[fold == i].sum(0)
            if frame.units.kind == "pair":
                apart = (ma[1::2] - ma[::2] - mb[1::2] + mb[::2]) / 2
                less = np.where(both[::2], 2 * weight[::2] * apart**2, 0)
                for i in range(frame.folds):
                    scatter[1, i] -= less[fold[::2] == i].sum(0)
            keep = frame.still_open(labels, level, index)
            labels, sizes, means = labels[keep], sizes[keep], means[keep]
        tally = Tally(a.rows + b.rows, a.count + b.count, labels, sizes)
        return Node(tally, left.shift, left.total + moved.total, left.squares + moved.squares, cross, scatter, means)


def combine(frame: Frame, nodes: Iterable[tuple[int, int, Node | None]]) -> Node | None:
    """One node from disjoint ones: halves that are not there are left out, the order is that of the tree."""
    waiting = {(level, index): node for level, index, node in nodes}
    level = 0
    while len(waiting) > 1:
        for at in sorted(key for key in waiting if key[0] == level):
            if at not in waiting:
                continue
            parent = (level + 1, at[1] >> 1)
            left, right = (waiting.pop((level, 2 * parent[1] + side), None) for side in (0, 1))
            waiting[parent] = merge_halves(frame, left, right, *parent)
        level += 1
    return next(iter(waiting.values()), None)
