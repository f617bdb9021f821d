"""What a program wrote: one reader for each format. Nothing of it is run, and sizes are checked before it is read."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydt.base import DataError, PydtError, open_npy, read, shown

_LARGEST = 1 << 30  # bytes of numbers
_LONGEST = 1 << 28  # bytes of text; as Python objects it takes up to 20 times as much


def _npy(path: Path, names: Sequence[str]) -> dict[str, Any]:
    found = open_npy(path)
    if math.prod(found.shape) * max(found.itemsize, 4) > _LARGEST:
        raise DataError(f"has the shape {found.shape}: more than {_LARGEST:,} bytes", None, "write fewer draws")
    return {names[0]: found}


def _safetensors(path: Path, names: Sequence[str]) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(read(path, _LARGEST)))
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: bfloat16
        raise DataError(f"is no safetensors file of numbers ({error})", None, "save float32 tensors") from error


def _json(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        found = json.loads(read(path, _LONGEST), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON ({error})", None, "write {measure: numbers} with json.dump") from error
    if not isinstance(found, dict):
        raise DataError(f"holds {shown(found)}, not an object", None, "write {measure: numbers} with json.dump")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, each of whose keys is there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DataError(f"has {shown(twice)} twice", None, "write each measure and each id once")
    return found


def _csv(path: Path, names: Sequence[str]) -> dict[str, Any]:
    mend = "begin it with a line: id,value" + ("" if len(names) == 1 else ",task")
    try:
        rows = csv.reader(io.StringIO(read(path, _LONGEST).decode("utf-8-sig"), newline=""), strict=True)
        head = next(rows, [])
        if not {"id", "value"} <= set(head) or (len(names) > 1 and "task" not in head):
            raise DataError(f"has the head {','.join(head)[:80]!r}", None, mend)
        columns = {name: head.index(name) for name in ("id", "value", "task") if name in head}
        found: dict[str, dict[str, float]] = {}
        for row in filter(None, rows):
            if len(row) != len(head):
                raise DataError(f"line {rows.line_num} has {len(row)} fields, not {len(head)}", None, "quote commas")
            own = found.setdefault(row[columns["task"]] if "task" in columns else names[0], {})
            key, value = row[columns["id"]], row[columns["value"]]
            if key in own:
                raise DataError(f"line {rows.line_num} has the id {shown(key)} again", None, "write each id once")
            try:
                own[key] = float(value)
            except ValueError:
                wrong = f"line {rows.line_num} has the value {shown(value)}, which is no number"
                raise DataError(wrong, None, "write numbers") from None
    except (ValueError, csv.Error) as error:
        raise DataError(f"is no CSV of numbers ({error})", None, mend) from error
    return dict(found)


OUT_FORMATS: dict[str, Callable[[Path, Sequence[str]], dict[str, Any]]] = {
    "npy": _npy,
    "csv": _csv,
    "json": _json,
    "safetensors": _safetensors,
}
"""Outputs by name of the measure, from a file with this suffix: "npy" of one measure alone, (examples,) or (draws,
examples); "csv" with columns id and value, and task where there are several; "json" {measure: number, numbers or
{id: number}}; "safetensors" a tensor of each measure."""


def read_out(out: str, path: Path, names: Sequence[str]) -> dict[str, Any]:
    """What a program wrote, by name of the measure.

    Raises:
        FileNotFoundError: there is no file. DataError: it is not of the format.
    """
    path.stat()
    try:
        return OUT_FORMATS[out](path, names)
    except DataError as error:
        raise DataError(f"its output file {error.what}", None, error.mend) from error
    except PydtError as error:  # of `read`
        mend = f"write a regular file of {_LARGEST if out == 'safetensors' else _LONGEST:,} bytes at most"
        wrong = error.what.removeprefix("is damaged (").removesuffix(")")
        raise DataError(f"its output file is not read: {wrong}", None, mend) from error
