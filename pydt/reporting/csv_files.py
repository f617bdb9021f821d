"""Every number of the report as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydt.base import as_path, write_atomic
from pydt.reporting.metric import Metric
from pydt.reporting.text import finite

COLUMNS: dict[str, tuple[str, ...]] = {
    "groups.csv": ("rank", "name", "value", "stderr", "df", "q", "models", "unit"),
    "placebos.csv": ("name", "value", "stderr", "df", "q", "unit"),
    "counterfactual.csv": ("kind", "dropped", "seed", "accuracy", "names", "unit"),
    "arms.csv": ("kind", "dropped", "n", "mean", "sd", "stderr", "failed", "unit"),
    "contrasts.csv": (
        *("kind", "dropped", "n", "control", "control_n", "difference", "stderr_retraining", "stderr_images"),
        *("stderr", "low", "high", "p", "unit"),
    ),
    "rows.csv": ("row", "accuracy", "output", "unit", "output_unit"),
    "target_classes.csv": ("group", "target_class", "influence", "stderr", "q", "unit"),
    "tasks.csv": ("task", "models", "groups", "agreement", "correlation", "p", "significant_groups", "retrained"),
}
"""The files of `write_csv` and the order of their columns."""
_LEVELS = ("counterfactual.csv", "arms.csv", "contrasts.csv", "rows.csv")  # of these, numbers are as rows store them


def csv_text(name: str) -> str:
    """A text that no spreadsheet runs as a formula: with an apostrophe before = + - @ tab, return and apostrophe."""
    return "'" + name if name[:1] in ("=", "+", "-", "@", "\t", "\r", "'") else name


def csv_file(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A CSV file: UTF-8, a header line, an empty cell for None and NaN, numbers in full precision, lists as JSON."""

    def cell(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return json.dumps(finite(value), ensure_ascii=False)
        return csv_text(value) if isinstance(value, str) else finite(value)

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([csv_text(column) for column in columns])
    writer.writerows([cell(value) for value in row] for row in rows)
    return stream.getvalue().encode("utf-8", "backslashreplace")


def ranked(groups: Sequence[dict]) -> list[tuple[int, dict]]:
    """(position in the source, group), highest value first, groups without a value last; ties in source order."""
    return sorted(enumerate(groups), key=lambda item: (item[1]["value"] is None, -(item[1]["value"] or 0.0)))


def write_csv(results: Mapping, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every number as CSV: UTF-8, a header line, an empty cell for None, numbers in full precision.

    The files and their columns are `COLUMNS`; groups stand in ranked order, lists of names are JSON in one cell, and
    accuracies and differences are fractions. Of a `pydt.Measure` the column "accuracy" is called "value"; levels and
    differences are as rows store them. A difference is positive where it is better, also where lower values
    are. The column "unit" says it: "fraction", or a unit such as that of the influences. tasks.csv has a line for each
    task; the other files are of the first. Files for which `results` holds nothing have their header alone.

    Raises:
        StoreError: the folder cannot be written.
    """
    results = finite(results)
    level = Metric.of(results.get("question") or {}).key
    rows, classes = results.get("rows") or {}, results.get("target_classes") or {"names": [], "influence": []}
    nothing = [[None] * len(line) for line in classes["influence"]]
    others = [task for task in results.get("tasks") or [] if "results" in task]
    tables: dict[str, list[dict]] = {
        "groups.csv": [{"rank": i + 1, **group} for i, (_, group) in enumerate(ranked(results["groups"]))],
        **{f"{key}.csv": results.get(key) or [] for key in ("placebos", "counterfactual", "arms")},
        "contrasts.csv": [*(results.get("contrasts") or []), *(results.get("gains") or [])],
        "rows.csv": [
            {"row": i, level: value, "output": output}
            for i, (value, output) in enumerate(zip_longest(rows.get(level) or [], rows.get("output") or []))
        ],
        "target_classes.csv": [
            {"group": group["name"], "target_class": name, "influence": value, "stderr": error, "q": q}
            for group, *lines in zip(
                results["groups"],
                classes["influence"],
                classes.get("stderr") or nothing,
                classes.get("q") or nothing,
                strict=False,
            )
            for name, value, error, q in zip(classes["names"], *lines, strict=True)
        ],
    }
    tables["tasks.csv"] = [
        _line(results),
        *(_line({**results, **task["results"], "task": task["name"]}) for task in others),
    ]
    metric, own = Metric.of(results.get("question") or {}), results.get("unit")
    stored = "fraction" if metric.scale == 100 else metric.unit
    place, written = as_path(folder, "write_csv", made=True), []
    for name, columns in COLUMNS.items():
        columns = tuple(level if column == "accuracy" else column for column in columns)
        units = {"unit": stored if name in _LEVELS else own, "output_unit": own}
        lines = [[{**line, **units}.get(column) for column in columns] for line in tables[name]]
        write_atomic(place / name, csv_file(columns, lines))
        written.append(place / name)
    return written


def _line(results: Mapping) -> dict[str, Any]:
    """The line of a task in tasks.csv."""
    verdict = results.get("verdict") or {}
    return {
        "task": results.get("task"),
        "models": results.get("models"),
        "groups": len(results["groups"]),
        "agreement": (results.get("agreement") or {}).get("correlation"),
        "correlation": verdict.get("correlation"),
        "p": verdict.get("p"),
        "significant_groups": verdict.get("significant_groups"),
        "retrained": "yes" if results.get("arms") else "no",
    }
