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
        items = [*given[name], *given["gains"]] if name == "contrasts" else given[name]
        for row, item in zip(tables[f"{name}.csv"], items, strict=True):
            for column in COLUMNS[f"{name}.csv"]:
                if column == "unit":
                    unit = given["unit"] if name == "placebos" else "fraction"
                    assert row["unit"] == unit
                elif column == "names":
                    listed = [n.encode("utf-8", "backslashreplace").decode() for n in item["names"]]
                    assert json.loads(row["names"].replace("\\ud800", "\\\\ud800")) == listed
                elif isinstance(item[column], str):
                    assert text(row[column]) == item[column]
                else:
                    assert float(row[column]) == item[column]
    assert [float(r["accuracy"]) for r in tables["rows.csv"]] == given["rows"]["accuracy"]
    influence = np.array([float(r["influence"]) for r in tables["target_classes.csv"]]).reshape(-1, 10)
    np.testing.assert_array_equal(influence, given["target_classes"]["influence"])
    assert {(row["unit"], row["output_unit"]) for row in tables["rows.csv"]} == {("fraction", given["unit"])}
    assert {row["unit"] for name in ("groups", "target_classes") for row in tables[f"{name}.csv"]} == {given["unit"]}
    (line,) = tables["tasks.csv"]
    assert (line["task"], line["agreement"], line["retrained"]) == (given["task"], "0.46", "yes")
    assert csv_text("'=1") == "''=1"


def test_tasks_have_a_line_each(tmp_path: Any) -> None:
    given, other = results(["a", "b", "c"]), results(["a", "b", "c"], seed=1, counterfactual=False)
    other = {key: value for key, value in other.items() if key not in ("models", "task")}
    other["agreement"] = {"correlation": -0.2, "low": -0.4, "high": 0.1}
    given["tasks"] = [
        {"name": "other", "digest": "0", "results": other},
        {"name": "none", "digest": "1", "error": "it has no rows"},
    ]
    write_csv(given, tmp_path)
    with open(tmp_path / "tasks.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["task"], first["retrained"]) == (given["task"], "yes")
    assert (second["task"], second["models"], second["agreement"], second["retrained"]) == (
        "other",
        "300",
        "-0.2",
        "no",
    )
    assert int(second["significant_groups"]) == other["verdict"]["significant_groups"]


def test_csv_where_nothing_can_be_written(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_csv(results(["a", "b"]), tmp_path / "file")
