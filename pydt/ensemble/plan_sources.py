"""The sources of plan files: tables that name a data set or groups, and the files with an entry for each example."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import ConfigError, DataError, StoreError, one_of, open_npy, parse, read, shown
from pydt.data import READERS, Dataset, Groups, read_container
from pydt.data.samples import glyphs, textures
from pydt.ensemble.toml_table import Table, placed

_SOURCES = {kind: reader.options for kind, reader in READERS.items()} | {"saved": (), "sample": ("each", "seed")}
# the samples that are targets; the others are scripts of pydt.data.samples.glyphs
_TARGETS: dict[str, Callable[[], Dataset]] = {
    "digits": lambda: glyphs.digits().train,
    "textures": lambda: textures().train,
    "textures-test": lambda: textures().judged,
}


def source_of(table: Table, folder: Path) -> Dataset | Groups:
    """The source of a plan: `groups`, `ids`, `name` and `by` of `pydt.Groups`, or a data set."""
    if "groups" not in table:
        return dataset_of(table, folder, ("groups",))
    expected, given = table.take("digest", str, None), table.rest(("groups", "ids", "name", "by"))
    for name in given.keys() & {"groups", "ids"}:
        with placed(table.where(name)):
            given[name] = entries(given[name], folder, mapping=name == "groups")
    with placed(table.where()):
        made = Groups(given.pop("groups"), **given)
    _expect(made.digest, expected, table.where("groups"))
    return made


def dataset_of(table: Table, folder: Path, also: tuple[str, ...] = ()) -> Dataset:
    """The data set that a table names; `also` are other keys that could stand in its place."""
    kinds = [kind for kind in sorted(_SOURCES) if kind in table]
    if len(kinds) != 1:
        table.rest((*_SOURCES, *also, "digest")) if not kinds else None
        found, known = " and ".join(kinds) or "none", ", ".join(sorted((*_SOURCES, *also)))
        raise ConfigError(f"{found} given", table.where(), f"give one of: {known}")
    kind, expected = kinds[0], table.take("digest", str, None)
    value = table.take(kind, str)
    given = table.rest(_SOURCES[kind])
    with placed(table.where("" if kind == "images" else kind)):  # labels and columns are files, too
        if kind == "saved":
            made = Dataset.open(folder / value)
        elif kind == "sample":
            made = _sample(value, given)
        else:
            # TOML has no word for nothing
            given |= {name: None for name in ("label", "caption") if given.get(name) is False}
            if kind == "folder" and "columns" in given:
                given["columns"] = _column_file(given["columns"], folder)
            if kind == "folder" and isinstance(given.get("captions"), str):
                with placed("captions"):
                    given["captions"] = _captions(folder / given["captions"])
            made = read_container(kind, folder / value, **(_columns(given, folder) if kind == "images" else given))
    _expect(made.digest, expected, table.where(kind))
    return made


def _expect(digest: str, expected: str | None, where: str) -> None:
    if expected not in (None, digest):
        wrong = f"holds the data {digest}, the plan is about {expected}"
        raise DataError(wrong, where, "restore the data, or remove the digest to plan anew")


def _sample(name: str, given: dict[str, Any]) -> Dataset:
    if name not in _TARGETS:
        one_of(name, [*glyphs.SCRIPTS, *_TARGETS], "sample", None)
        return glyphs.source(name, **given)
    if given:
        raise ConfigError(f"{next(iter(given))} does not apply to {name!r}", None, "remove it")
    return _TARGETS[name]()


def _column_file(value: Any, folder: Path) -> Path:
    """The CSV file of columns beside a folder of images."""
    if not isinstance(value, str):
        raise ConfigError(f"is {shown(value)}", "columns", 'name a CSV file: columns = "photos.csv"')
    return folder / value


def _columns(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Options for arrays; those that name files are read."""
    if given.get("labels") is None:
        raise ConfigError("is missing", "labels", 'name a file beside it: labels = "labels.npy"')
    columns = given.get("columns", {})
    if not isinstance(columns, dict):
        raise ConfigError(f"is {columns!r}, not a table", "columns", 'name files: columns.style = "styles.npy"')

    files = {name: _column(given[name], folder) for name in ("labels", "captions") if name in given}
    return given | files | {"columns": {name: _column(value, folder) for name, value in columns.items()}}


def _column(value: Any, folder: Path) -> Any:
    return entries_in(folder / value) if isinstance(value, str) else value


def entries(value: Any, folder: Path, mapping: bool = False) -> Any:
    """An entry for each example: a list, or the file of that name; with `mapping` also a table of lists.

    Raises:
        ConfigError: it is neither. DataError: the file cannot be read.
    """
    found = entries_in(folder / value) if isinstance(value, str) else value
    if (isinstance(found, dict) and not mapping) or not isinstance(found, (dict, list, np.ndarray)):
        raise ConfigError(f"is {shown(value)}, no list", None, "give a list, or name a file with an entry a line")
    return found


def entries_in(path: Path) -> Any:
    """A file with an entry for each example: .npy, .json (a list), or text with one a line."""
    if path.suffix == ".npy":
        return open_npy(path)
    try:
        text = read(path).decode("utf-8-sig")
        if path.suffix == ".json":
            return parse(text)
        text = text.replace("\r\n", "\n").removesuffix("\n")
        return text.split("\n") if text else []  # splitlines would also split at characters that a caption may have
    except (OSError, StoreError, UnicodeDecodeError) as error:
        mend = "name a .npy file, a .json file, or a UTF-8 text file"
        raise DataError(f"cannot be read ({error})", str(path), mend) from error


def _captions(path: Path) -> dict[str, str]:
    """Captions by file: of a CSV file whose head has `file` and `caption`, or of lines "file<tab>caption"."""
    try:
        text = io.StringIO(read(path).decode("utf-8-sig"), newline="")
        if path.suffix.lower() == ".csv":
            head, *rows = [row for row in csv.reader(text, strict=True) if row] or [[]]
        else:
            head, rows = ["file", "caption"], [line.rstrip("\r\n").split("\t", 1) for line in text if line.strip()]
    except (OSError, StoreError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read ({error})", str(path), "name a UTF-8 file") from error
    if not {"file", "caption"} <= set(head):
        raise DataError(f"has the head {','.join(head)[:80]!r}", str(path), "begin it with a line: file,caption")
    file, caption, found = head.index("file"), head.index("caption"), {}
    for number, row in enumerate(rows, 1):
        if len(row) != len(head) or row[file] in found:
            wrong = f"names {row[file]!r} again" if len(row) == len(head) else f"has {len(row)} fields, not {len(head)}"
            mend = (
                "give each file once" if len(row) == len(head) else "quote captions with commas; no line without both"
            )
            raise DataError(f"entry {number} {wrong}", str(path), mend)
        found[row[file]] = row[caption]
    return found
