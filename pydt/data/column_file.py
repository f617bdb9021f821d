"""Group columns from a CSV file keyed by image file.

    file,site,camera
    cats/0.jpg,garden,A7
    cats/1.jpg,,A7            an empty entry: in no group of this column

The first column, whatever its name, has the files as the data set names them: paths below its folder. Every image has
one line; files that were left out because they are broken may have one.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydt.base import DataError, StoreError, as_path, read, suggest
from pydt.data.labels import encode_columns
from pydt.data.table import ExampleTable

T = TypeVar("T", bound=ExampleTable)
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_FEW = 5  # names that an error lists
_SEARCHED = 2000  # names among which the nearest is looked for


def with_columns(table: T, path: str | os.PathLike[str]) -> T:
    """The table with the group columns of a CSV file.

    Raises:
        DataError: the file cannot be read, is not separated by commas, or a line is ragged, names an unknown file or
            one that another line names; or an image has no line. File, line and mend are named.
    """
    place = as_path(path, "columns", DataError)
    head, lines = _parsed(place)
    known, left_out = {key: i for i, key in enumerate(table.all_keys())}, table.left_out
    entries: dict[str, list[str]] = {name: [""] * len(table) for name in head[1:]}
    seen: dict[str, int] = {}
    for number, row in lines:
        where, file = f"{place}, line {number}", row[0]
        if file in seen:
            raise DataError(f"{file!r} has line {seen[file]} already", where, "give each file one line")
        if file not in known and file not in left_out:
            raise DataError(f"no file {file!r}", where, _mend(file, list(known)))
        seen[file] = number
        if file in known:
            for name, value in zip(head[1:], row[1:], strict=True):
                entries[name][known[file]] = value
    if missing := [key for key in known if key not in seen]:
        few = ", ".join(map(repr, missing[:_FEW])) + (", ..." if len(missing) > _FEW else "")
        mend = "give each file a line; an empty entry puts it into no group"
        raise DataError(f"{len(missing):,} of {len(known):,} images have no line: {few}", str(place), mend)
    try:
        return replace(table, columns={**table.columns, **encode_columns(entries, len(table))})
    except DataError as error:
        raise DataError(error.what, f"{place}, {error.where}", error.mend) from error


def _parsed(place: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The head, and line number and fields of each further line."""
    try:
        text = read(place).decode("utf-8-sig")
    except (OSError, StoreError) as error:
        raise DataError(f"cannot be read ({error})", str(place), "name a CSV file") from error
    except UnicodeDecodeError as error:
        mend = 'save it as UTF-8 (spreadsheets call that "CSV UTF-8")'
        raise DataError(f"is no UTF-8 at byte {error.start:,}", str(place), mend) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if row:
                rows.append((reader.line_num, row))
    except csv.Error as error:
        mend = 'put texts with commas or quotes into quotes: "a ""b"", c"'
        raise DataError(f"is no CSV ({error})", f"{place}, line {reader.line_num}", mend) from error
    if not rows:
        raise DataError("is empty", str(place), "begin it with a line: file,site")
    (number, head), *lines = rows
    _check_head(head, f"{place}, line {number}")
    for number, row in lines:
        if len(row) != len(head):
            wrong = f"has {len(row)} field{'' if len(row) == 1 else 's'}, the first line has {len(head)}"
            mend = "give each column an entry, and put those with commas into quotes"
            raise DataError(wrong, f"{place}, line {number}", mend)
    return head, lines


def _check_head(head: Sequence[str], where: str) -> None:
    """Refuse a head that names no columns, or one twice."""
    if len(head) < 2:
        other = next((mark for mark in _SEPARATORS if mark in head[0]), None)
        if other is not None:
            raise DataError(f"is separated by {_SEPARATORS[other]}", where, "separate fields by commas: file,site")
        raise DataError("has one column, the files", where, "add columns with names: file,site")
    for i, name in enumerate(head[1:], 2):
        if not name.strip():
            raise DataError(f"column {i} has no name", where, "name it, as in file,site")
        if name in head[1 : i - 1]:
            raise DataError(f"column {name!r} is there twice", where, "give each column a name of its own")


def _mend(file: str, known: list[str]) -> str:
    """What to do about an unknown file."""
    if "\\" in file and file.replace("\\", "/") in known:
        return f"write {file.replace(chr(92), '/')!r}"
    if alike := [key for key in known if key.rpartition("/")[2] == file.replace("\\", "/").rpartition("/")[2]]:
        return f"name it below the folder, as {alike[0]!r}"
    near = suggest(file, known) if len(known) <= _SEARCHED else ""
    return near if near.startswith("did you") else f"name files below the folder, as {known[0]!r}"
