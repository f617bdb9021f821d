"""The view of a plan's rows: what is said of rows that failed."""

from __future__ import annotations

from pydt.analyses.ensemble_view import with_failed


def test_rows_that_failed_are_told_first_where_they_are_many() -> None:
    assert with_failed(["said"], 0, 100, "retrainings") == ["said"]
    told = with_failed(["said"], 2, 100, "rows", " (p = 0.3)")
    assert told == ["said", "2 of 100 rows failed and are left out (p = 0.3)."]
    first, *rest = with_failed(["said"], 3, 100, "retrainings")
    assert first.startswith("No verdict: 3 of 100 retrainings failed, more than 2%")
    assert rest == ["said"]
