"""Labels, group columns and captions: from what a user gives to codes and names, by one rule.

text      Bytes are UTF-8, or refused. White space, NUL bytes and byte order marks at both ends are cut, and letters are
          composed (Unicode NFC), so "é" is one text however it was typed.
numbers   1, 1.0 and numpy's or torch's 1 are one number. Labels that are all texts of whole numbers ("0", "10", "9")
          are sorted as numbers, and count as numbers where `classes` names no such text.
missing   None, NaN, NaT, pandas' and Arrow's NA, what numpy masks, and the empty text.

Two values of one list that are spelled differently but are one label by these rules ("cat" and "cat ", 1 and "1", "7"
and "007") are refused: whether they mean one class is not guessed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, KeysView, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pydt.base import DataError, shown

Columns = dict[str, tuple[np.ndarray, tuple[str, ...]]]
Classes = Mapping[Any, Any] | Sequence[str]

UNUSED = "class names without images, left out"
"""Remark about classes that a data set names, but has no example of."""
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_EDGES = re.compile(r"\A[\s\0\ufeff]+|[\s\0\ufeff]+\Z")
_SHOWN = 5  # positions and names in a message
_MEND = "give integers or strings"


def as_text(value: str | bytes) -> str:
    """A text by the rule above; raises ValueError for bytes that are not UTF-8, or a lone surrogate."""
    text = value.decode() if isinstance(value, bytes) else str.__str__(value)
    text.encode()
    return unicodedata.normalize("NFC", _EDGES.sub("", text))


def renumber(codes: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The same partition without the names that no example has; -1 stays -1."""
    present = np.unique(codes[codes >= 0])
    number = np.full(len(names) + 1, -1, np.int64)  # the last place serves the code -1
    number[present] = np.arange(len(present))
    return number[codes], tuple(names[i] for i in present)


# ---- the values of a column ----------------------------------------------------------------------------------------


def entries(values: Any, what: str, length: int) -> Sequence[Any] | np.ndarray:
    """The entries of a column, in order: of a list, array, tensor, or a column of pandas, polars, Arrow or `datasets`.
    An array (length,) of integers, floats or bools as it is; anything else as a list, None where it is masked.
    """
    unordered = isinstance(values, (Mapping, Set)) and not isinstance(values, KeysView)
    if unordered or table_names(values) is not None:
        mend = f"give one column of it, one entry per image: {what.split()[0]}=[...]"
        raise DataError(f"a {type(values).__name__} is no list", what, mend)
    if not _several(values):
        raise DataError(f"{values!r} for {length} images", what, "give exactly one per image")
    try:
        found: Any = _listed(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"do not form one list ({error})", what, f"{_MEND}, one per image") from error
    shape = found.shape if isinstance(found, np.ndarray) else (len(found),)
    if shape != (length,):
        one_hot = f": {what}.argmax(1) of rows with a single 1" if len(shape) == 2 and what == "labels" else ""
        raise DataError(f"shape {shape} for {length} images", what, f"give exactly one per image{one_hot}")
    if isinstance(found, list) or found.dtype.kind in "biuf":
        return found
    return list(found) if found.dtype.kind in "mM" else found.tolist()  # numpy makes numbers of some dates


def _several(values: Any) -> bool:
    """Whether something holds several values: a text or an array of no dimension does not."""
    if isinstance(values, (str, bytes)) or getattr(values, "shape", None) == ():
        return False
    return isinstance(values, Iterable) or hasattr(values, "__array__")


def _listed(values: Any) -> Any:
    """A column as an array (any shape) or a list."""
    if hasattr(values, "detach"):
        return values.detach().cpu().numpy()
    for method in ("to_pylist", "to_list"):  # Arrow's; those of pandas and polars
        if callable(getattr(values, method, None)):
            return list(getattr(values, method)())
    if isinstance(values, np.ma.MaskedArray) and values.ndim == 1:
        return values.tolist()
    if isinstance(values, np.ndarray) or (hasattr(values, "__array__") and hasattr(values, "dtype")):
        return np.asarray(values)
    return list(values)


def table_names(values: Any) -> list[Any] | None:
    """The names of the columns of a table of pandas, polars, Arrow or `datasets`; None if it is no table."""
    names = getattr(values, "column_names", None)
    names = getattr(values, "columns", None) if names is None else names
    if isinstance(values, Mapping) or names is None or isinstance(names, (str, Mapping)):
        return None
    return list(names) if isinstance(names, Iterable) and hasattr(values, "__getitem__") else None


def plain(value: Any, what: str, position: int) -> bool | int | str | None:
    """One entry as a bool, int or text; None where it is missing; anything else is refused, with its position."""
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (str, bytes)):
        try:
            return as_text(value) or None
        except ValueError as error:
            raise DataError(f"{shown(value)} at position {position} is not UTF-8", what, "decode it first") from error
    if isinstance(value, (np.datetime64, np.timedelta64)):
        if np.isnat(value):
            return None
        raise DataError(f"{shown(value)} at position {position}", what, _MEND)
    if hasattr(value, "as_py"):
        return plain(value.as_py(), what, position)
    if hasattr(value, "item") and math.prod(getattr(value, "shape", (0,))) == 1:
        return plain(value.item(), what, position)
    try:
        if value != value:
            return None
        if isinstance(value, (bool, int)) or (isinstance(value, float) and value.is_integer()):
            return value if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        pass  # an array, or something of its own
    raise DataError(f"{shown(value)} at position {position}", what, _MEND)


def is_missing(value: Any) -> bool:
    """Whether `plain` takes a value for missing."""
    try:
        return plain(value, "", 0) is None
    except DataError:
        return False


def _bare(value: str | bytes) -> str | bytes:
    """The text or bytes of an instance of any subclass of str or bytes."""
    return str.__str__(value) if isinstance(value, str) else bytes(value)


def listed(values: Iterable[Any], total: int | None = None) -> str:
    """The first few of some values for a message, and that there are more."""
    values = list(values)
    return ", ".join(map(str, values[:_SHOWN])) + (", ..." if (total or len(values)) > _SHOWN else "")


def positions(missing: np.ndarray, of: str = "images") -> str:
    """Where something is missing: "position 3", or the first few positions and the count."""
    places = np.flatnonzero(missing)
    if len(places) == 1:
        return f"position {places[0]}"
    return f"positions {listed(places.tolist())} ({len(places):,} of {len(missing):,} {of})"


@dataclass(frozen=True)
class _Coded:
    """A column as codes int64 (n,), -1 where it is missing, and the plain value and the name of each code."""

    codes: np.ndarray
    values: list[bool | int | str]
    names: tuple[str, ...]

    @property
    def numbers(self) -> list[int] | None:
        return _numbers(self.values)


def _numbers(values: list[bool | int | str]) -> list[int] | None:
    """The whole numbers that values are or spell; None if any is none."""
    if any(isinstance(value, str) and not _NUMBER.fullmatch(value) for value in values):
        return None
    return [int(value) for value in values]


def _coded(values: Any, what: str, length: int) -> _Coded:
    found = entries(values, what, length)
    if isinstance(found, np.ndarray):
        return _coded_numbers(found, what)
    codes = np.empty(length, np.int64)
    known: dict[tuple[type, Any], int] = {}
    raw: dict[str, Any] = {}  # name -> its first spelling
    number: dict[str, int] = {}
    kept: list[bool | int | str] = []
    for position, value in enumerate(found):
        simple = isinstance(value, (str, bytes, int, float))  # others may be of no hash, or change
        code = known.get((value.__class__, value)) if simple else None
        if code is None:
            one = plain(value, what, position)
            code = -1
            if one is not None:
                name = str(one)
                given = one if not isinstance(value, (str, bytes)) else _bare(value)
                if name not in raw:
                    raw[name], number[name] = given, len(kept)
                    kept.append(one)
                elif type(given) is not type(raw[name]) or given != raw[name]:
                    _refuse_collision(raw[name], given, what)
                code = number[name]
            if simple:
                known[value.__class__, value] = code
        codes[position] = code
    return _sorted(codes, kept, what)


def _coded_numbers(found: np.ndarray, what: str) -> _Coded:
    missing = np.isnan(found) if found.dtype.kind == "f" else np.zeros(len(found), bool)
    if found.dtype.kind == "f":
        found = np.where(missing, 0, found)
        wrong = (np.abs(found) >= 2**53) | (found != np.round(found))
        if wrong.any():
            at = int(wrong.argmax())
            raise DataError(f"{found[at]} at position {at}: not whole numbers", what, _MEND)
        found = found.astype(np.int64)
    distinct, inverse = np.unique(found[~missing], return_inverse=True)
    codes = np.full(len(found), -1, np.int64)
    codes[~missing] = inverse
    return _Coded(codes, distinct.tolist(), tuple(map(str, distinct.tolist())))


def _sorted(codes: np.ndarray, values: list[bool | int | str], what: str) -> _Coded:
    """Numbers in the order of numbers, anything else in that of its name."""
    truths, numerals = ([v for v in values if type(v) is kind] for kind in (bool, int))
    if truths and numerals:
        raise DataError(f"{truths[0]!r} and {numerals[0]!r} in one list", what, "give either numbers or true and false")
    numbers = _numbers(values)
    order = sorted(range(len(values)), key=(lambda i: str(values[i])) if numbers is None else numbers.__getitem__)
    if numbers is not None:
        for i, j in pairwise(order):
            if numbers[i] == numbers[j]:
                _refuse_collision(values[i], values[j], what)
    rank = np.full(len(values) + 1, -1, np.int64)  # the last place serves the code -1
    rank[order] = np.arange(len(order))
    ordered = [values[i] for i in order]
    return _Coded(rank[codes], ordered, tuple(map(str, ordered)))


def _refuse_collision(one: Any, other: Any, what: str) -> None:
    mend = "spell what is one label alike everywhere, and give different labels names that differ in letters"
    raise DataError(f"{shown(one)} and {shown(other)} are one name by the rules for text", what, mend)


# ---- labels, columns, captions -------------------------------------------------------------------------------------


def class_table(classes: Any, what: str = "classes", twins: bool = False) -> dict[int, str]:
    """Class names by number, sorted by number.

    Args:
        classes: a list of names in the order of the numbers; {number: name} or {name: number}; a Series of pandas,
            which is a mapping by its index. Several names of one class (a tuple, as ImageNet's; several keys of one
            number) are joined by commas.
        what: how an error calls it.
        twins: tell equal names of different numbers apart by the number, instead of refusing them.
    """
    if table_names(classes) is not None:
        raise DataError(f"a {type(classes).__name__} is no list of texts", what, "give one column of it")
    index = getattr(classes, "index", None)
    if isinstance(index, Iterable) and list(index) != list(range(len(classes))):  # a Series of pandas
        if len(set(index)) < len(classes):
            raise DataError("its index has an entry twice", what, "give every number one name, or a list")
        classes = classes.to_dict()
    if isinstance(classes, Mapping):
        pairs = _pairs(classes, what)
    else:
        mend = f"give {what}=[...], one text each"
        if isinstance(classes, Set) and not isinstance(classes, KeysView):
            mend = f"give a list in the order of the numbers, or {{number: name}}: sorted({what}), if that is the order"
            raise DataError(f"a {type(classes).__name__} has no order", what, mend)
        if not _several(classes):
            raise DataError(f"{classes!r} is no list of texts", what, mend)
        names = _listed(classes)
        pairs = list(enumerate(names.tolist() if isinstance(names, np.ndarray) else names))
    table: dict[int, str] = {}
    raw: dict[int, Any] = {}
    for number, given in pairs:
        parts = given if isinstance(given, (tuple, list)) else (given,)
        found = [plain(part, what, number) for part in parts]
        if None in found or not found:
            raise DataError(f"no name of class {number} ({shown(given)})", what, "name every class")
        name = ", ".join(str(part) for part in found)
        table[number], raw[number] = (f"{table[number]}, {name}", raw[number]) if number in table else (name, given)
    by_name: dict[str, list[int]] = {}
    for number, name in table.items():
        by_name.setdefault(name, []).append(number)
    for name, same in by_name.items():
        one, *others = (raw[number] for number in same)
        if others and not (twins and all(other == one for other in others)):
            twice = f"the same name twice: {shown(one)} and {shown(others[0])}"
            raise DataError(twice, what, "give every class a name of its own")
        if others:
            table |= {number: f"{name} ({number})" for number in same}
    return dict(sorted(table.items()))


def _pairs(classes: Mapping[Any, Any], what: str) -> list[tuple[int, Any]]:
    """(number, name) of a mapping of either direction."""
    keys, values = list(classes), list(classes.values())

    def all_numbers(given: list[Any]) -> bool:
        return all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in given)

    def spelled(given: list[Any]) -> list[bool]:
        return [isinstance(value, str) and bool(_NUMBER.fullmatch(value)) for value in given]

    as_json = all(spelled(keys)) and not any(spelled(values))  # where every key is a text
    if (all_numbers(keys) or as_json) and not any(isinstance(value, (int, np.integer)) for value in values):
        return [(int(key), value) for key, value in classes.items()]
    if all_numbers(values) and all(isinstance(key, (str, bytes, tuple)) for key in keys):
        return [(int(value), key) for key, value in classes.items()]
    given = shown(dict(list(classes.items())[:3]))
    raise DataError(f"{given} does not say what is a number and what a name", what, "give {number: name}, or a list")


def encode_labels(
    labels: Any,
    classes: Any,
    length: int,
    mend: str = "label every image with integers or strings, or leave the image out",
    absent: int | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers, int64 (length,), and class names; see `Dataset.from_arrays`. `mend`: what to do about images
    without a label; `absent`: a number that stands for no label, if it names no class.
    """
    coded = _coded(labels, "labels", length)
    table = None if classes is None else class_table(classes)
    missing = coded.codes < 0
    words = "None, NaN or empty"
    if table is not None and absent in coded.values and absent not in table:
        missing |= coded.codes == coded.values.index(absent)
        words = f"None, NaN, empty or {absent}"
    if missing.any():
        raise DataError(f"no label at {positions(missing)} ({words})", "labels", mend)
    if table is None:
        return coded.codes, coded.names
    names = tuple(table.values())
    texts = [value for value in coded.values if isinstance(value, str)]
    if texts and len(texts) < len(coded.values):
        other = next(value for value in coded.values if not isinstance(value, str))
        raise DataError(f"{texts[0]!r} and {other!r} in one list", "labels", "give numbers or names of classes")
    known: list[int | None]
    if texts and (coded.numbers is None or any(text in names for text in texts)):
        place = {name: i for i, name in enumerate(names)}
        known = [place.get(text) for text in texts]
        said, meant = "label {!r} is not among the classes (position {})", "add it to classes"
    else:
        place_of = {number: i for i, number in enumerate(table)}
        known = [place_of.get(number) for number in coded.numbers or ()]
        said = f"label {{!r}} at position {{}} with {len(table)} classes"
        ends = list(table) == list(range(len(table)))
        meant = f"use 0..{len(table) - 1}" if ends else f"use one of {listed(table, len(table))}"
    unknown = np.array([code is None for code in known])[coded.codes]
    if unknown.any():
        at = int(unknown.argmax())
        raise DataError(said.format(coded.values[coded.codes[at]], at), "labels", meant)
    return np.array(known, np.int64)[coded.codes], names


def whole_numbers(texts: Sequence[str], what: str) -> list[int] | None:
    """The whole numbers that texts spell; None if any does not."""
    coded = _coded(texts, what, len(texts))
    return None if coded.numbers is None else np.array(coded.numbers, np.int64)[coded.codes].tolist()


def encode_columns(columns: Any, length: int) -> Columns:
    """Group columns, of a mapping name -> entries or a table, as codes and names; missing or -1: in no group."""
    names = list(columns) if isinstance(columns, Mapping) else table_names(columns)
    if columns is not None and names is None:
        mend = 'give a dict or a table: columns={"site": [...]}'
        raise DataError(f"a {type(columns).__name__}", "columns", mend)
    encoded: Columns = {}
    for name in names or ():
        if not isinstance(name, str):
            raise DataError(f"column name {name!r}", "columns", "give it as a string")
        if name in ("class", "example"):
            raise DataError(f"column name {name!r} is taken", "columns", "choose another")
        if (names or ()).count(name) > 1:
            raise DataError(f"column {name!r} is there twice", "columns", "give every column a name of its own")
        coded = _coded(columns[name], f"column {name!r}", length)
        codes = coded.codes
        if coded.numbers is not None and -1 in coded.numbers:
            codes = np.where(codes == coded.numbers.index(-1), -1, codes)
        encoded[name] = renumber(codes, coded.names)
    return encoded


def encode_captions(captions: Any, length: int) -> tuple[tuple[str, ...] | None, np.ndarray]:
    """One text per image, "" where it is missing (None if all are); and bool (length,), where it is missing."""
    if not _several(captions):
        raise DataError(f"{captions!r} is no list of texts", "captions", "give captions=[...], one text each")
    captions = captions if hasattr(captions, "__len__") else list(captions)
    if len(captions) != length:
        raise DataError(f"{len(captions)} captions for {length} images", "captions", "give one per image")
    texts: list[str] = []
    missing = np.zeros(length, bool)
    for position, value in enumerate(entries(captions, "captions", length)):
        value = value.as_py() if hasattr(value, "as_py") else value
        if isinstance(value, (str, bytes)):
            try:
                text = value.decode() if isinstance(value, bytes) else str.__str__(value)
                text.encode()
            except ValueError as error:
                what = f"{shown(value)} at position {position} is not UTF-8"
                raise DataError(what, "captions", "decode it first") from error
        else:
            if not is_missing(value):
                raise DataError(f"{shown(value)} at position {position} is no text", "captions", "give one text each")
            text, missing[position] = "", True
        texts.append(text.removeprefix("\ufeff"))
    return None if missing.all() else tuple(texts), missing
