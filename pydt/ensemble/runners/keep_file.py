"""What a program trains on, as a file that it reads: one writer for each format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pydt.base import ConfigError, shown

if TYPE_CHECKING:
    from pydt.ensemble.row import RowInput


class KeepFormat(NamedTuple):
    """Suffix of the file, and what writes it for a row."""

    suffix: str
    write: Callable[[RowInput, Path], None]


def _ids(row: RowInput, path: Path) -> None:
    path.write_text("".join(f"{one}\n" for one in row.ids), "utf-8")


def _groups(row: RowInput, path: Path) -> None:
    path.write_text("".join(f"{one}\n" for one in row.groups), "utf-8")


def _positions(row: RowInput, path: Path) -> None:
    np.save(path, row.examples, allow_pickle=False)


def _parquet(row: RowInput, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    group, names = row.context.units
    own = [names[i] if i >= 0 else None for i in group[row.examples].tolist()]
    pyarrow.parquet.write_table(pyarrow.table({"id": list(row.ids), "group": pyarrow.array(own, "string")}), path)


KEEP_FORMATS = {
    "ids": KeepFormat(".txt", _ids),
    "groups": KeepFormat(".txt", _groups),
    "npy": KeepFormat(".npy", _positions),
    "parquet": KeepFormat(".parquet", _parquet),
}
"""What stands in the file: "ids" the id of each kept example, a line each; "groups" the name of each kept group, a line
each; "npy" int64 positions of the kept examples; "parquet" columns "id" and "group" of the kept examples."""


def check_keep(keep: str, source: Any, by: str) -> None:
    """Refuse a source whose names do not fit a format.

    Raises:
        ConfigError: a name has a line break or half a character, or the package that writes the format is missing.
    """
    if keep == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"needs pyarrow ({error})", 'Command.keep="parquet"', "pip install pyarrow") from error
    if keep == "npy":
        return
    names = [*source.units(by)[1]] if keep in ("groups", "parquet") else []
    names += source.all_keys() if keep in ("ids", "parquet") else []
    where, mend = f'Command.keep="{keep}"', 'use keep="npy", or give other names'
    for name in names:
        if keep != "parquet" and name.splitlines() != [name]:
            raise ConfigError(f"{shown(name)} is not one line", where, mend)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{name!a} cannot be written as UTF-8", where, mend) from None
