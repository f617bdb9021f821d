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
        ConfigError: a name has a line break, or the package that writes the format is missing.
    """
    if keep == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"needs pyarrow ({error})", 'Command.keep="parquet"', "pip install pyarrow") from error
    if keep in ("ids", "groups"):
        names = source.all_keys() if keep == "ids" else source.units(by)[1]
        broken = next((name for name in names if len(name.splitlines()) != 1), None)
        if broken is not None:
            mend = 'use keep="npy", or give names of one line'
            raise ConfigError(f"{shown(broken)} is not one line", f'Command.keep="{keep}"', mend)
