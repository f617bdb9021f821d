"""Statistics of an ensemble that is still being trained: rows come in any order, on any number of machines.

    accumulator = pydt.Accumulator(design)
    accumulator.add(7, outputs_of_row_7)             # rows of the plan, as they finish
    accumulator.merge(pydt.Accumulator.load(path))   # those of another machine
    fit = pydt.influences(accumulator, method="lasso")   # of what has arrived

A block of consecutive plan rows is summed once the last of them has come, in plan order and per fold, and blocks merge
in a fixed tree (`blocks.py`): an accumulator's numbers, and the bytes of its file, depend on which rows it has and on
nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.blocks import Leaf, Node, frame_of, merge_halves
from pydt.cells import encode, load
from pydt.design import Design
from pydt.errors import DesignError, EstimateError, StoreError
from pydt.files import as_path, digest, write_atomic
from pydt.inputs import Rows
from pydt.view import Form, View, row_numbers, row_values

_Key = tuple[int, int]  # level and index of a node
FORMAT = 1
_MISSING, _HERE, _SKIPPED = 0, 1, 2
_AGAIN = "make the accumulator anew from the stored outputs, or take a copy of the file that is whole"
_CELLS = 1 << 22  # entries checked at once


class Accumulator:
    """Sufficient statistics of the rows of a design, five folds of them, from rows in any order.

    Args:
        design: the plan. Rows that are never added cost nothing but their masks, so make it as long as it may become.
        targets: the columns of the outputs to accumulate; default: all. With too little memory for all of them, go over
            the outputs once for each tile of columns.
        memory: bytes that outputs and sums may take. What would exceed it is refused before it is allocated.
        nan: "raise" refuses rows with a NaN or infinite output; "flag" takes them: such a target gets NaN.

    Memory. With K groups and placebos, B rows in a block (the power of two from max(256, 8 groups) on) and b of them
    in the plan, rows that come roughly in plan order take, per target, up to

        B s + 8 (log2 b + 2) (F (K + 4) + 1) bytes    s = bytes of an output, F = 5 folds (6 for foldover)

    one block of rows, the nodes of the tree and one that is being made; `bytes_per_target` is the exact number. Every
    further block that has begun and lacks rows holds B s more, `nbytes` says how much there is. A plan of less than B
    rows is kept as its rows: they are smaller than their sums. Masks that occur in several blocks add 8 bytes each to
    every node. M'M is not stored: the design knows it.

    Raises:
        DesignError: not a design.
        EstimateError: groups in no or in every model; a mask and its complement far apart; an argument out of range.
    """

    def __init__(
        self, design: Design, targets: slice | None = None, *, memory: int | None = None, nan: str = "raise"
    ) -> None:
        if not isinstance(design, Design):
            raise DesignError(
                f"{type(design).__name__} is not a design", "design", "wrap masks with pydt.Design.explicit"
            )
        if targets is not None and not _is_range(targets):
            raise EstimateError(f"{targets!r} is not a slice forward", "targets", "pass slice(start, stop)")
        _check_memory(memory)
        if nan not in ("raise", "flag"):
            raise EstimateError(f"{nan!r} is not a way to treat NaN", "nan", 'use "raise" or "flag"')
        self.targets, self.memory, self.nan = targets, memory, nan
        self._frame = frame_of(design)
        self._state = np.zeros(len(design), np.uint8)
        self._form: Form | None = None
        self._buffers: dict[int, npt.NDArray[Any]] = {}
        self._nodes: dict[tuple[int, int], Node | None] = {}

    @property
    def design(self) -> Design:
        return self._frame.design

    @property
    def rows(self) -> Rows:
        """Plan rows that have arrived, int64, ascending."""
        return np.flatnonzero(self._state == _HERE)

    @property
    def skipped(self) -> Rows:
        """Plan rows that will never come, int64, ascending."""
        return np.flatnonzero(self._state == _SKIPPED)

    @property
    def missing(self) -> Rows:
        """Plan rows that have neither arrived nor been skipped, int64, ascending."""
        return np.flatnonzero(self._state == _MISSING)

    @property
    def nbytes(self) -> int:
        """Bytes that outputs and sums take now."""
        nodes = sum(node.nbytes for node in self._nodes.values() if node is not None)
        return nodes + sum(buffer.nbytes for buffer in self._buffers.values())

    def bytes_per_target(self, dtype: npt.DTypeLike = np.float32) -> int:
        """The most that one target takes if the rows come in plan order; the formula is in the class's docstring."""
        rows = min(self._frame.block, len(self._state)) * np.dtype(dtype).itemsize
        return rows + (self._frame.node_bytes * (self._frame.blocks.bit_length() + 1) if self._frame.blocks else 0)

    def add(self, index: Any, outputs: Any) -> None:
        """Take in rows.

        Args:
            index: plan row, or plan rows (r,), in any order.
            outputs: (targets,) for one row, (r, targets) for several: floats of one dtype for the life of the
                accumulator, any strides; of one target also a number, or (r,). Copied.

        Raises:
            EstimateError: a row outside of the plan, twice, or already there; other targets or dtypes than before; a
                NaN or infinite output; more memory than allowed. Nothing is added then.
        """
        rows, values, form = self._check(index, outputs)
        self._refuse(rows)
        frame, after = self._frame, self._state.copy()
        after[rows] = _HERE
        starts = np.unique(rows // frame.block).tolist()
        complete = [b for b in starts if self._is_complete(after, b)]
        self._afford(form, starts, set(self._nodes), complete)
        self._form = form
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], [b * frame.block for b in [*starts, starts[-1] + 1]])
        for i, block in enumerate(starts):
            some = order[bounds[i] : bounds[i + 1]]
            if block not in self._buffers:
                self._buffers[block] = np.empty((self._size(block), form.count), form.dtype)
            self._buffers[block][rows[some] - block * frame.block] = values[some, form.columns]
            self._state[rows[some]] = _HERE
            self._settle([block] if block in complete else [])

    def skip(self, index: Any) -> None:
        """Mark rows as never coming: those that failed. Their half of a foldover pair is left out of the regression.

        Raises:
            EstimateError: a row outside of the plan, twice, or one that has arrived or was skipped before.
        """
        rows = row_numbers(index, len(self._state))
        self._refuse(rows)
        self._state[rows] = _SKIPPED
        blocks = np.unique(rows // self._frame.block).tolist()
        self._settle([b for b in blocks if self._is_complete(self._state, b)])

    def merge(self, other: Accumulator) -> None:
        """Take in the rows of another accumulator of the same design and targets; `other` stays as it is.

        Any number of accumulators of disjoint rows, merged in any order, give the same bits.

        Raises:
            EstimateError: other designs, targets or dtypes; rows that both have (named); more memory than allowed.
        """
        if not isinstance(other, Accumulator):
            raise EstimateError(f"{type(other).__name__} is not an accumulator", "merge", "pass a pydt.Accumulator")
        if other.design != self.design:
            raise EstimateError("is of another design", "merge", "accumulate rows of one plan")
        if (other.targets, other.nan) != (self.targets, self.nan):
            raise EstimateError(
                f"has targets={other.targets}, nan={other.nan!r}, this one targets={self.targets}, nan={self.nan!r}",
                "merge",
                "make both with the same arguments",
            )
        if self._form and other._form and self._form != other._form:
            raise EstimateError(
                f"has outputs {other._form}, this one {self._form}", "merge", "add outputs of one shape and dtype"
            )
        both = np.flatnonzero((self._state > 0) & (other._state > 0) & (self._state + other._state < 2 * _SKIPPED))
        self._overlap(both, "merge")
        form, after = self._form or other._form, np.maximum(self._state, other._state)
        nodes = self._nodes | other._nodes
        for at in sorted(nodes):  # blocks that both have skipped may be part of a node here and stand alone there
            if any((level, at[1] >> level - at[0]) in nodes for level in range(at[0] + 1, 64)):
                del nodes[at]
        keys = {*nodes}
        done = {b for level, index in keys for b in range(index << level, (index + 1) << level)}
        complete = [b for b in range(self._frame.blocks) if b not in done and self._is_complete(after, b)]
        if form is not None:
            self._afford(form, [*other._buffers], keys, complete)
        self._form = form
        for block, theirs in other._buffers.items():
            place = other._place(block)
            if block not in self._buffers:
                self._buffers[block] = np.empty_like(theirs)
            self._buffers[block][place] = theirs[place]
        self._state = after
        self._nodes = nodes
        self._settle(complete)

    def statistics(self) -> View:
        """A view of what has arrived so far, blocks that lack rows included; rows added later do not change it.

        Raises:
            EstimateError: nothing has arrived.
        """
        if self._form is None:
            raise EstimateError("no row has arrived", "accumulator", "add rows first")
        nodes = tuple((*at, node) for at, node in self._nodes.items() if node is not None)
        buffers = tuple(sorted(self._buffers.items()))
        return View(self._frame, self._form, self.nan == "flag", self.rows, nodes, buffers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a safetensors file: equal rows, equal bytes. It is made in memory first.

        Raises:
            StoreError: the file cannot be written.
        """
        frame = self._frame
        arrays: dict[str, npt.NDArray[Any]] = {"masks": frame.packed, "state": self._state}
        for (level, index), node in self._nodes.items():
            if node is not None:
                arrays |= {f"node {level} {index} {name}": getattr(node, name) for name in Node.ARRAYS}
        for block, buffer in self._buffers.items():
            arrays[f"rows {block}"] = buffer[self._place(block)]
        write_atomic(as_path(path, "Accumulator.save", made=True), encode(arrays, self._facts()))

    @staticmethod
    def load(path: str | os.PathLike[str], *, memory: int | None = None) -> Accumulator:
        """The accumulator that `save` wrote, bit for bit.

        Raises:
            StoreError: the file is not there, damaged, of another version, or of a design that is now drawn otherwise.
            EstimateError: it takes more than `memory` bytes, or that is no number of bytes.
        """
        return _load(as_path(path, "Accumulator.load"), memory)

    def _check(self, index: Any, outputs: Any) -> tuple[Rows, npt.NDArray[Any], Form]:
        """Rows, all their outputs (rows, width), and the form that these have."""
        rows = row_numbers(index, len(self._state))
        values, flat = row_values(rows, index, outputs)
        form = Form.of(self.targets, values.shape[1], values.dtype, flat)
        if self._form is not None and form != self._form:
            raise EstimateError(
                f"are {form}, those before {self._form}", "outputs", "add outputs of one shape and dtype"
            )
        columns, step = form.columns, max(1, _CELLS // form.count)
        for start in range(0, len(rows) if self.nan == "raise" else 0, step):
            finite = np.isfinite(values[start : start + step, columns])
            if not finite.all():
                row, target = np.argwhere(~finite)[0]
                number = columns.start + target * columns.step
                raise EstimateError(
                    f"the output is {values[start + row, number]}",
                    f"outputs, row {rows[start + row]}, target {number}",
                    'skip the row, or make the accumulator with nan="flag" to get NaN for such targets only',
                )
        return rows, values, form

    def _refuse(self, rows: Rows) -> None:
        self._overlap(np.sort(rows[self._state[rows] != _MISSING]), "index")

    def _overlap(self, rows: Rows, where: str) -> None:
        if rows.size:
            more = f", ... ({rows.size} in all)" if rows.size > 10 else ""
            named = ", ".join(map(str, rows[:10])) + more
            done = "skipped" if np.all(self._state[rows] == _SKIPPED) else "there"
            raise EstimateError(
                f"{'row' if rows.size == 1 else 'rows'} {named} {'is' if rows.size == 1 else 'are'} {done} already",
                where,
                "add every row once: a row twice would count twice",
            )

    def _afford(self, form: Form, touched: list[int], keys: set[_Key], complete: list[int]) -> None:
        """Refuse what would exceed `memory`: rows of these blocks, some of them complete, besides these nodes."""
        if self.memory is None:
            return
        frame, each = self._frame, self.bytes_per_target(form.dtype)
        if each * form.count > self.memory:
            fit = self.memory // each
            first = self.targets.start or 0 if self.targets else 0
            mend = f"pass targets=slice({first}, {first + fit}) and go over the outputs in tiles, or allow more"
            raise EstimateError(
                f"{form.count} targets take {each * form.count} bytes, {self.memory} hold {fit} targets",
                "memory",
                mend if fit else f"allow at least {each} bytes",
            )
        begun = {*self._buffers}.union(b for b in touched if b not in complete)
        rows = sum(map(self._size, begun))
        if set(touched) - begun:  # blocks that come whole hold their rows one after the other
            rows += frame.block
        nodes = most = len(keys)
        for level, _ in _steps(keys, complete):
            most = max(most, nodes + 1)
            nodes += 1 if level == 0 else -1
        need = form.count * (rows * form.dtype.itemsize + most * frame.node_bytes)
        if need > self.memory:
            raise EstimateError(
                f"{len(begun)} unfinished blocks and {most} sums take {need} bytes of the {self.memory} allowed",
                "memory",
                "add rows in plan order, take fewer targets, or allow more",
            )

    def _facts(self) -> dict[str, Any]:
        """The metadata of the file. Masks of one's own are among its arrays."""
        frame, described = self._frame, self.design.to_dict()
        described.pop("masks", None)
        return {
            "kind": "accumulator",
            "format": FORMAT,
            "design": described,
            "sums": digest("sums", frame.block, frame.folds, frame.fold),
            "targets": self.targets and [self.targets.start, self.targets.stop, self.targets.step],
            "nan": self.nan,
            "form": self._form and self._form.to_list(),
        }

    def _size(self, block: int) -> int:
        return min(self._frame.block, len(self._state) - block * self._frame.block)

    def _place(self, block: int) -> Rows:
        """Which rows of a block have arrived, counted from its first."""
        return np.flatnonzero(self._state[self._frame.span(0, block)] == _HERE)

    def _is_complete(self, state: npt.NDArray[np.uint8], block: int) -> bool:
        return block < self._frame.blocks and bool(state[self._frame.span(0, block)].all())

    def _settle(self, complete: list[int]) -> None:
        """Sum blocks of which no row is missing, and merge what can be merged."""
        frame, nodes = self._frame, self._nodes
        for level, index in _steps({*nodes}, complete):
            if level:
                left, right = (nodes.pop((level - 1, 2 * index + side)) for side in (0, 1))
                nodes[level, index] = merge_halves(frame, left, right, level, index)
                continue
            nodes[0, index] = None
            if index in self._buffers:
                place = self._place(index)
                one = Leaf(frame, place + index * frame.block, place, 0, index)
                nodes[0, index] = one.sum(self._buffers[index])
                del self._buffers[index]


def _is_range(targets: Any) -> bool:
    """Whether it is a slice of whole numbers that does not go backward."""
    try:
        return isinstance(targets, slice) and targets.indices(1)[2] > 0
    except (TypeError, ValueError):
        return False


def _check_memory(memory: Any) -> None:
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int) or memory < 1):
        raise EstimateError(f"{memory!r} is not a number of bytes", "memory", "pass a whole number, as 2 << 30")


def _steps(keys: set[_Key], complete: list[int]) -> Iterator[_Key]:
    """The nodes to make, in order, once these blocks are complete besides these nodes; `keys` becomes what is left."""

    def up(at: _Key) -> Iterator[_Key]:
        while (at[0], at[1] ^ 1) in keys:
            keys.difference_update((at, (at[0], at[1] ^ 1)))
            at = at[0] + 1, at[1] >> 1
            keys.add(at)
            yield at

    for at in sorted(keys):
        if at in keys:
            yield from up(at)
    for block in complete:
        keys.add((0, block))
        yield 0, block
        yield from up((0, block))


def _load(path: Path, memory: int | None) -> Accumulator:
    """`Accumulator.load`. The header is compared with the file's size before the rest is taken in."""
    _check_memory(memory)
    try:
        size = path.stat().st_size
        if memory is not None and size > memory:
            raise EstimateError(f"takes {size} bytes of the {memory} allowed", str(path), "allow more")
        arrays, facts = load(path)
    except MemoryError:
        raise StoreError("does not fit in memory", str(path), "read it on a machine with more") from None
    except FileNotFoundError:
        raise StoreError("is not there", str(path), "name a file that Accumulator.save wrote") from None
    except StoreError as error:
        raise StoreError(error.what, str(path), _AGAIN) from error
    if facts.get("kind") != "accumulator" or facts.get("format") != FORMAT:
        what = f"is not an accumulator of format {FORMAT} ({facts.get('kind')!r}, format {facts.get('format')!r})"
        raise StoreError(what, str(path), "read it with the version of pydt that wrote it")
    try:
        made = _restored(arrays, facts)
    except Exception as error:  # whatever does not fit together means the same here
        raise StoreError(f"is damaged ({error})", str(path), _AGAIN) from error
    if made is None:
        mend = "read it with the version of pydt that wrote it"
        raise StoreError("this pydt draws other masks or folds from its design", str(path), mend)
    made.memory = memory
    return made


def _restored(arrays: dict[str, npt.NDArray[Any]], facts: dict[str, Any]) -> Accumulator | None:
    """The accumulator of a file, its shapes compared with the design; None: its masks are now drawn otherwise."""
    masks, state, described = arrays.pop("masks"), arrays.pop("state"), facts["design"]
    groups, models = described["groups"], described["models"]
    columns = groups + described.get("placebos", 0)
    _expect("masks", masks, (models, -(-columns // 8)), np.uint8)
    _expect("state", state, (models,), np.uint8)
    if described["kind"] == "explicit":
        design = Design.explicit(_core.unpack(masks, groups))
    else:
        design = Design.from_dict(described)
    made = Accumulator(design, None if facts["targets"] is None else slice(*facts["targets"]), nan=facts["nan"])
    frame = made._frame
    if not np.array_equal(frame.packed, masks) or made._facts()["sums"] != facts["sums"]:
        return None
    if state.max() > _SKIPPED or (facts["form"] is None) != (not (state == _HERE).any()):
        raise ValueError("its rows do not fit")
    made._state = state.copy()
    if facts["form"] is not None:
        width, dtype, flat = facts["form"]
        if dtype not in ("float16", "float32", "float64") or type(flat) is not bool:
            raise ValueError("its outputs are of no known form")
        made._form = form = Form.of(made.targets, width, np.dtype(dtype), flat)
        keys: set[_Key] = set()
        complete = [b for b in range(frame.blocks) if made._is_complete(state, b)]
        for _ in _steps(keys, complete):
            pass
        for level, index in sorted(keys):
            rows = np.flatnonzero(state[frame.span(level, index)] == _HERE) + frame.span(level, index).start
            made._nodes[level, index] = None
            if len(rows):
                tally, n = frame.tally(rows, level, index), form.count
                wide = (frame.lines, n)
                shapes = (n,), wide, wide, (frame.lines, frame.columns, n), (frame.scatters, frame.folds, n)
                named = [f"node {level} {index} {name}" for name in Node.ARRAYS]
                for name, shape in zip(named, (*shapes, (len(tally.labels), n)), strict=True):
                    _expect(name, arrays[name], shape, np.float64)
                made._nodes[level, index] = Node(tally, *(arrays.pop(name) for name in named))
        for block in np.unique(np.flatnonzero(state == _HERE) // frame.block).tolist():
            if block not in complete:
                rows = made._place(block)
                held = arrays.pop(f"rows {block}")
                _expect(f"rows {block}", held, (len(rows), form.count), form.dtype)
                made._buffers[block] = np.empty((made._size(block), form.count), form.dtype)
                made._buffers[block][rows] = held
    if arrays:
        raise ValueError(f"it holds {min(arrays)!r}, too")
    return made


def _expect(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise ValueError(f"{name!r} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
