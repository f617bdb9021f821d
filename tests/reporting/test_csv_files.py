"""The report's CSV files hold every number, and nothing a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from stub_results import EVIL, results

from pydt.base import StoreError
from pydt.reporting import write_csv
from pydt.reporting.csv_files import COLUMNS, csv_text


def test_csv_holds_every_number(tmp_path: Any) -> None:
    given = results(EVIL)
    given["groups"][2]["stderr"] = None
    paths = write_csv(given, tmp_path / "csv")
    assert sorted(p.name for p in paths) == sorted(COLUMNS)
    tables = {}
    for path in paths:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        with open(path, encoding="utf-8", newline="") as file:
            assert tuple(next(csv.reader(file))) == COLUMNS[path.name]
        tables[path.name] = rows
        for row in rows:
            for cell in row.values():
                assert cell[:1] not in ("=", "+", "@", "\t", "\r")
                assert not cell.startswith("-") or float(cell) < 0

    def text(cell: str) -> str:
        return cell[1:] if cell.startswith("'") else cell

    ranked = sorted(given["groups"], key=lambda g: -g["value"])
    for rank, (row, group) in enumerate(zip(tables["groups.csv"], ranked, strict=True), 1):
        name = group["name"].encode("utf-8", "backslashreplace").decode()
        assert (int(row["rank"]), text(row["name"])) == (rank, name)
        assert float(row["value"]) == group["value"]
        assert row["stderr"] == ("" if group["stderr"] is None else repr(group["stderr"]))
        assert float(row["q"]) == group["q"]
    for name in ("contrasts", "arms", "placebos", "counterfactual"):
        for row, item in zip(tables[f"{name}.csv"], given[name], strict=True):
            for column in COLUMNS[f"{name}.csv"]:
                if column == "names":
                    listed = [n.encode("utf-8", "backslashreplace").decode() for n in item["names"]]
                    assert json.loads(row["names"].replace("\\ud800", "\\\\ud800")) == listed
                elif isinstance(item[column], str):
                    assert text(row[column]) == item[column]
                else:
                    assert float(row[column]) == item[column]
    assert [float(r["accuracy"]) for r in tables["rows.csv"]] == given["rows"]["accuracy"]
    influence = np.array([float(r["influence"]) for r in tables["target_classes.csv"]]).reshape(-1, 10)
    np.testing.assert_array_equal(influence, given["target_classes"]["influence"])
    assert csv_text("'=1") == "''=1"


def test_csv_where_nothing_can_be_written(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_csv(results(["a", "b"]), tmp_path / "file")
