"""An ensemble that was trained elsewhere, as the rows of a plan: its masks and outputs are checked, nothing is trained.

Outputs are read some rows at a time and may be memory maps of any numbers; they are stored as float32, in blocks
(`pydt.store.block_format`). The rows' names hold a digest of all outputs, so other outputs of the same masks are
another plan. A row whose outputs are not finite, or that was never written, is stored as failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import DataError, DesignError, column_names, digest, one_of, refuse_other_rows, shown, to_array, whole
from pydt.design import Design
from pydt.store.block_format import write_block
from pydt.store.cells import Cells
from pydt.store.measure import Measure
from pydt.store.plan_record import FORMAT, MOST_ROWS, Drawn, Record
from pydt.store.rows import VALUE

IMPORTED = "imported"
"""The method, among a plan's settings, of rows that were trained elsewhere."""
_AT_ONCE = 1 << 22  # numbers that are read at once
_MOST = 1 << 31  # entries of the masks
_BLOCK_ROWS, _BLOCK_BYTES = 16384, 1 << 30
_LOOKED = 64  # examples by which rows of zeros are told from rows that were never written
_FEWEST = 8  # examples from which on a row of zeros is no accident where no other row has one
_SHOWN = 3
Numbers = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Imported:
    """Masks and outputs that passed the checks.

    Attributes:
        record: the plan. measures: its tasks. outputs: of each, as given, (models, examples).
        reasons: of each measure, why rows failed, by their number.
    """

    record: Record
    measures: tuple[Measure, ...]
    outputs: tuple[Numbers, ...]
    reasons: tuple[dict[int, str], ...]

    def put(self, store: Cells) -> int:
        """Write the cells that a store lacks; how many these were. Each block is whole or not there."""
        written = 0
        for column in range(len(self.measures)):
            missing = np.flatnonzero(~store.there(self.record.cells[:, column]))
            failed = np.isin(missing, list(self.reasons[column]))
            size = 4 * len(self.measures[column].examples()["half"])
            step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // size))
            for rows in (missing[~failed], missing[failed]):
                for start in range(0, len(rows), step):
                    self._block(store, column, rows[start : start + step])
            written += len(missing)
        return written

    def _block(self, store: Cells, column: int, rows: npt.NDArray[np.int64]) -> None:
        keys = [key.tobytes().hex() for key in self.record.cells[rows, column]]
        number = dict(zip(keys, rows.tolist(), strict=True))
        write_block(store.folder, keys, lambda key: self._cell(key, number[key], column))

    def _cell(self, key: str, row: int, column: int) -> tuple[dict[str, Numbers], dict[str, Any]]:
        """Arrays and metadata of a row, as a driver would have written them."""
        record, reason = self.record, self.reasons[column].get(row)
        values = {} if reason else {VALUE: self.measures[column].values(self.outputs[column][row])}
        about = {"source": record.source, "units": record.units, "recipe": record.recipe}
        named = {"task": record.tasks[column]["digest"], "training": record.trainings[row].tobytes().hex()}
        state: dict[str, Any] = {"status": "failed" if reason else "ok", "reason": reason, "scalars": {}}
        drawn = {"groups": len(record.names), "seed": record.rows[row].seed, **record.named(row)}
        return values, {**about, **named, **drawn, **state, "key": key, "format": FORMAT}


def checked_arrays(
    masks: Any,
    outputs: Any,
    *,
    groups: Any,
    examples: Any,
    about: Mapping[str, Any],
    name: str,
    source: str,
    by: str,
    seeds: Any,
    bitorder: str,
) -> Imported:
    """What `pydt.Store.from_arrays` writes; arguments and errors are its own, `about` are those of a `Measure`."""
    for text, what in ((source, "source"), (by, "by")):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"is {text!r}", f"from_arrays, {what}", "give a text")
    given = outputs if isinstance(outputs, Mapping) else {name: outputs}
    for key, values in given.items():
        refuse_other_rows(DataError, **{"masks": masks, _place(key, len(given)): values})
    if not given:
        raise DataError("no outputs", "from_arrays", "give an array, or {name: array}")
    arrays = {key: _outputs(values, _place(key, len(given))) for key, values in given.items()}
    groups = _labels(masks) if groups is None else groups
    packed, names = _masks(masks, groups, by, bitorder, arrays)
    ids = {key: _labels(values) if examples is None else examples for key, values in given.items()}
    measures = tuple(_measure(key, array, ids[key], about, len(packed)) for key, array in arrays.items())
    if len({measure.name for measure in measures}) < len(measures):
        raise DataError("two measures have one name", "outputs", "give each its own")
    looked = [_look(array, measure) for array, measure in zip(arrays.values(), measures, strict=True)]
    if len({row for _, reasons in looked for row in reasons}) == len(packed):
        raise DataError(f"every row failed: {next(iter(looked[0][1].values()), 'no row is whole')}", "outputs", _FINITE)
    contents = {measure.name: content for measure, (content, _) in zip(measures, looked, strict=True)}
    record = _record(packed, names, measures, contents, _seeds(seeds, packed), source, by)
    return Imported(record, measures, tuple(arrays.values()), tuple(reasons for _, reasons in looked))


_FINITE = "give finite numbers; NaN says that a row failed"


def _labels(values: Any) -> Any:
    """The names of a table's columns, if they are all different; None of an array, or of numbers that count them."""
    names = column_names(values, values.shape[1]) if len(getattr(values, "shape", ())) == 2 else None
    if names is None or names == tuple(range(len(names))) or len(set(map(str, names))) < len(names):
        return None
    return tuple(map(str, names))


def _place(key: Any, of: int) -> str:
    return "outputs" if of == 1 else f"outputs of {getattr(key, 'name', key)!r}"


def _outputs(values: Any, where: str) -> Numbers:
    """Numbers (models, examples), without a copy."""
    if hasattr(values, "detach") and str(values.dtype) == "torch.bfloat16":  # numpy has none
        values = values.detach().float()
    found = to_array(values, where, DataError)
    if found.dtype.kind not in "biuf" or found.dtype.itemsize > 8:
        raise DataError(f"are of type {found.dtype}, not numbers", where, "give one number for each model and example")
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim == 3:
        mend = "give one number for each example, such as the margin of its class, or the mean over what is repeated"
        raise DataError(f"are of shape {found.shape}, not (models, examples)", where, mend)
    if found.ndim != 2 or 0 in found.shape:
        raise DataError(f"are of shape {found.shape}, not (models, examples)", where, "give one row for each model")
    return found


def _masks(
    masks: Any, groups: Any, by: str, bitorder: str, outputs: Mapping[Any, Numbers]
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Masks as uint8 (models, ceil(groups / 8)), little bit first, and the names of the groups."""
    one_of(bitorder, ("little", "big"), "order of bits", "from_arrays", DataError)
    array = to_array(masks, "masks", DesignError)
    if array.ndim != 2 or 0 in array.shape:
        raise DesignError(f"are of shape {array.shape}, not (models, groups)", "masks", "give one row for each model")
    names = _names(groups)
    count = whole(groups, "groups", "from_arrays", 1) if isinstance(groups, (int, np.integer)) else len(names)
    models, columns = array.shape
    lengths = {key: len(values) for key, values in outputs.items()}
    wrong = next((key for key, length in lengths.items() if length != models), None)
    if wrong is not None:
        _refuse_lengths(array.shape, outputs[wrong].shape, _place(wrong, len(outputs)))
    is_packed = array.dtype == np.uint8 and columns == -(-count // 8) != count
    if count and columns != count and not is_packed:
        hint = "they are transposed: give masks.T" if models == count else "give one column for each group"
        packs = f", or packed bits, uint8 (models, {-(-count // 8)})" if array.dtype == np.uint8 else ""
        raise DesignError(f"of shape {array.shape} are not of {count:,} groups", "masks", hint + packs)
    count = count or columns
    if models * count > _MOST:
        wrong_size = f"of {models:,} models x {count:,} groups are more than {_MOST:,} entries"
        raise DesignError(wrong_size, "masks", f"give the first {_MOST // count:,} models, or join groups")
    if is_packed:
        packed = array if bitorder == "little" else np.packbits(np.unpackbits(array, axis=1), axis=1, bitorder="little")
        packed = np.array(packed)
        if 8 * columns > count and (packed[:, -1] >> (8 - (8 * columns - count))).any():
            other = {"little": "big", "big": "little"}[bitorder]
            mend = f'if they are from numpy.packbits, give bitorder="{other}"; the last bits of a row must be 0'
            raise DesignError(f"have bits beyond the {count:,} groups", "masks", mend)
    else:
        packed = _packed(array, groups is None)
    empty = np.flatnonzero(~packed.any(1))
    if len(empty):
        many = f" and {len(empty) - 1:,} more keep" if len(empty) > 1 else " keeps"
        mend = "leave these rows out of masks and outputs: rows that were never written look like this"
        if empty[0] == models - len(empty):
            mend += f"; here the first {empty[0]:,} are whole (on the command line --models {empty[0]})"
        raise DesignError(f"row {empty[0]:,}{many} no group", "masks", mend)
    return packed, names or tuple(f"{by} {i}" for i in range(count))


def _refuse_lengths(masks: tuple[int, ...], outputs: tuple[int, ...], where: str) -> None:
    """Say which of two arrays seems to be transposed, where their rows are not equally many."""
    wrong = f"{outputs[0]:,} rows for masks of {masks[0]:,} models"
    mend = "give one row of outputs for each row of masks"
    if outputs[1] == masks[0]:
        mend = f"they seem to be transposed: give {where.partition(' ')[0]}.T"
    elif outputs[0] == masks[1]:
        mend = "the masks seem to be transposed: give masks.T"
    elif outputs[0] + 1 == masks[0] or masks[0] + 1 == outputs[0]:
        mend += "; does one of two CSV files begin with a head of numbers?"
    raise DataError(wrong, where, mend)


def _packed(array: Numbers, unknown: bool) -> npt.NDArray[np.uint8]:
    """0/1 masks packed, some rows at a time."""
    models, groups = array.shape
    if array.dtype.kind not in "biuf":
        raise DesignError(f"are of type {array.dtype}", "masks", "give bool, or numbers 0 and 1")
    packed = np.empty((models, -(-groups // 8)), np.uint8)
    step = max(1, _AT_ONCE // groups)
    for start in range(0, models, step):
        part = np.asarray(array[start : start + step])
        if part.dtype != bool:
            wrong = np.argwhere((part != 0) & (part != 1))
            if len(wrong):
                row, group = wrong[0]
                mend = "give 0 for a group that was left out and 1 for one that was kept"
                if array.dtype == np.uint8 and unknown:
                    mend += "; packed bits need groups="
                where = f"masks, row {start + row}, group {group}"
                raise DesignError(f"{part[row, group]} is neither 0 nor 1", where, mend)
        packed[start : start + step] = np.packbits(part != 0, axis=1, bitorder="little")
    return packed


def _names(groups: Any) -> tuple[str, ...]:
    """The names of the groups as texts; none where their number, or nothing, is given."""
    if groups is None or isinstance(groups, (int, np.integer)):
        return ()
    found = _texts(groups, "groups")
    if not found or not all(found):
        raise DataError("a name is empty" if found else "no name", "groups", "give each group a name")
    if (twice := _repeated(found)) is not None:
        raise DataError(f"{shown(twice)} is there twice", "groups", "give each group a name of its own")
    return found


def _texts(values: Any, where: str) -> tuple[str, ...]:
    array = None if isinstance(values, (str, bytes)) else to_array(values, where, DataError)
    if array is None or array.ndim != 1 or array.dtype.kind not in "biuUO":
        raise DataError(f"{shown(values)} is no list of names", where, "give texts or whole numbers, one each")
    return tuple(map(str, array.tolist()))


def _repeated(values: tuple[str, ...]) -> str | None:
    seen: set[str] = set()
    return next((one for one in values if one in seen or seen.add(one)), None)  # type: ignore[func-returns-value]


def _measure(key: Any, array: Numbers, examples: Any, about: Mapping[str, Any], models: int) -> Measure:
    """The measure of an array: the key itself, or one of that name."""
    count = array.shape[1]
    if isinstance(key, Measure):
        if key.count != count:
            wrong = f"{count:,} columns for {key.count:,} examples"
            raise DataError(wrong, f"outputs of {key.name!r}", "give one column for each example")
        return key
    if examples is None:
        return Measure(key, count, **about)
    entries = _texts(examples, "examples")
    if len(entries) != count:
        hint = "; the outputs seem to be transposed: give outputs.T" if len(entries) == models != count else ""
        wrong = f"{len(entries):,} entries for {count:,} columns of outputs"
        raise DataError(wrong, "examples", f"give an id or a class for each column{hint}")
    if (twice := _repeated(entries)) is None:
        return Measure(key, list(entries), **about)
    if 2 * len(set(entries)) > count:
        wrong = f"{len(set(entries)):,} distinct entries of {count:,} are neither ids ({shown(twice)} is there twice)"
        mend = "give each example an id of its own, or its class; of a pydt.Measure as key of outputs both"
        raise DataError(f"{wrong} nor classes", "examples", mend)
    return Measure(key, count, **about, classes=np.asarray(to_array(examples, "examples", DataError)))


def _parts(array: Numbers) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The first row of each part, and its numbers as they are stored."""
    step = max(1, _AT_ONCE // array.shape[1])
    with np.errstate(over="ignore"):  # what is infinite in float32 makes a failed row
        for start in range(0, len(array), step):
            yield start, np.ascontiguousarray(array[start : start + step], "<f4")


def _look(array: Numbers, measure: Measure) -> tuple[str, dict[int, str]]:
    """Digest of the numbers, and why rows failed: not finite, or never written, which only zeros tell."""
    state, reasons = hashlib.sha256(), {}
    zero: list[int] = []
    others = array.shape[1] < _FEWEST or array.dtype.kind != "f"  # zeros may be what was measured
    for start, part in _parts(array):
        state.update(part.data)
        for row in np.flatnonzero(~np.isfinite(part).all(1)).tolist():
            reasons[start + row] = f"{measure.name!r} has outputs that are not finite"
        nothing = ~part.any(1)
        zero += (start + np.flatnonzero(nothing)).tolist()
        others = others or bool((part[~nothing, :_LOOKED] == 0).any())
    if not others and len(zero) < len(array):
        reasons |= dict.fromkeys(zero, f"{measure.name!r} was never written: all outputs are 0, of other rows none is")
    return digest(list(array.shape), state.hexdigest()), reasons


def _seeds(seeds: Any, packed: npt.NDArray[np.uint8]) -> tuple[int, ...]:
    """A seed for each row; two rows of one mask need two."""
    if seeds is None:
        return tuple(range(len(packed)))
    given = np.atleast_1d(to_array(seeds, "seeds", DataError)).tolist()
    found = tuple(whole(seed, f"seeds[{i}]", "from_arrays") for i, seed in enumerate(given))
    if len(found) != len(packed):
        raise DataError(f"{len(found):,} for {len(packed):,} models", "seeds", "give one seed for each row")
    first: dict[tuple[bytes, int], int] = {}
    for i, (mask, seed) in enumerate(zip(packed, found, strict=True)):
        if (before := first.setdefault((mask.tobytes(), seed), i)) != i:
            wrong = f"rows {before:,} and {i:,} have one mask and one seed"
            raise DataError(wrong, "seeds", "give each its own, or leave seeds out")
    return found


def _record(
    packed: npt.NDArray[np.uint8],
    names: tuple[str, ...],
    measures: tuple[Measure, ...],
    contents: Mapping[str, str],
    seeds: tuple[int, ...],
    source: str,
    by: str,
) -> Record:
    if len(packed) * len(measures) > MOST_ROWS:
        wrong = f"{len(packed):,} rows of {len(measures):,} measures are more than {MOST_ROWS:,}"
        raise DesignError(wrong, "masks", "give fewer models, or import the measures one by one")
    design = Design.explicit(np.unpackbits(packed, axis=1, count=len(names), bitorder="little"))
    tasks = tuple(
        {
            "digest": measure.digest,
            "name": measure.name,
            "target": measure.digest,
            "examples": len(measure.examples()["labels"]),
            "settings": measure.described(),
        }
        for measure in measures
    )
    return Record(
        kind="design",
        source=digest("imported source", list(names)),
        source_facts={"name": source},  # how many examples it has is not known
        units=digest("units", list(names)),
        by=by,
        names=names,
        recipe=digest(IMPORTED, dict(contents)),
        settings={"method": IMPORTED, "outputs": dict(contents)},
        tasks=tasks,
        design=design.to_dict(),
        seed=0,
        rows=Drawn(design.to_dict(), seeds, 0, design=design),
    )
