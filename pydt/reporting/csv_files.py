"""Every number of the report as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydt.reporting.text import finite

if TYPE_CHECKING:
    pass


def csv_text(name: str) -> str:
    """A text no spreadsheet runs as a formula: an apostrophe goes before = + - @ tab, carriage return, apostrophe."""
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
