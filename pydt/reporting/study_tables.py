"""Every number of a study as CSV: one file a table, fractions in full precision, units in the heads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydt.base import as_path, write_atomic
from pydt.reporting.csv_files import csv_file
from pydt.reporting.text import finite

TABLES: dict[str, tuple[str, ...]] = {
    "accuracy": (
        *("target", "mode", "shots", "kind", "source", "size", "method", "mean", "stderr", "df", "low", "high"),
        *("seeds", "draws", "images", "sd_seeds", "sd_draws", "failed", "rate"),
    ),
    "spread": (
        *("target", "mode", "shots", "size", "method", "sources", "tau", "low", "high", "p", "range"),
        *("range_of_noise", "best", "worst"),
    ),
    "pairs": (
        *("axis", "target", "mode", "shots", "size", "at", "first", "second", "difference", "stderr", "df"),
        *("low", "high", "p", "p_holm", "family"),
    ),
    "equivalence": (*("target", "mode", "shots", "method", "first", "size", "second", "times", "low", "high", "told"),),
    "ranks": ("over", "target", "mode", "shots", "method", "size", "first", "second", "kendall", "expected_by_noise"),
    "scratch": (
        *("target", "mode", "source", "size", "method", "shots", "difference", "low", "high", "p_holm"),
        *("stops_paying_at", "told"),
    ),
}
"""The files, without .csv, and the order of their columns; further keys of its records follow."""

_SHARES = (
    *("mean", "stderr", "low", "high", "sd_seeds", "sd_draws", "tau", "range", "range_of_noise", "range_high"),
    *("difference", "hidden"),
)
_UNITS = {
    **dict.fromkeys(_SHARES, "fraction"),
    **{"size": "images", "images": "of the target", "shots": "labelled images per class", "times": "times as many"},
    **{"failed": "seeds", "rate": "learning rate", "stops_paying_at": "labelled images per class"},
    **dict.fromkeys(("kendall", "expected_by_noise", "low_by_noise"), "-1 to 1"),
}
_TIMES = {"low": "times as many", "high": "times as many"}  # in equivalence.csv


def head(table: str, key: str) -> str:
    """The head of a column: its key, with the unit in brackets if it has one."""
    unit = (_TIMES if table == "equivalence" else {}).get(key) or _UNITS.get(key)
    return f"{key} ({unit})" if unit else key


def study_csv(results: Mapping[str, Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Write the tables of a study as CSV: UTF-8, a head with units, an empty cell for None, nothing that is a formula.

    The files are accuracy.csv, spread.csv, pairs.csv, equivalence.csv, ranks.csv and scratch.csv (one line for each
    gain). A file for which `results` holds nothing has its head alone. Accuracies and differences are fractions.

    Args:
        results: of a study, as results.json holds them.
        folder: made if it is missing.

    Returns:
        the paths, in the order above.

    Raises:
        StoreError: the folder cannot be written.
    """
    results, place, written = finite(results), as_path(folder, "study_csv", made=True), []
    for table, columns in TABLES.items():
        records = results.get(table) or []
        if table == "scratch":
            records = [{**record, **gain} for record in records for gain in record["gains"]]
        keys = _keys(records, columns)
        lines = [[record.get(key) for key in keys] for record in records]
        write_atomic(place / f"{table}.csv", csv_file([head(table, key) for key in keys], lines))
        written.append(place / f"{table}.csv")
    return written


def _keys(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """The table's columns, and after them the further keys; lists are JSON in one cell."""
    return list(dict.fromkeys([*columns, *(key for record in records for key in record if key != "gains")]))
