"""Zero-shot rows at chance: said once while rows are trained, and in the report, with the likely causes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import stub_report
from stub_rows import outcome
from stub_store import two_tasks

from pydt import design
from pydt.analyses.report import results
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, RowInput, run
from pydt.store import Outcome, Row
from pydt.store.learning_check import at_chance
from pydt.training import Recipe, Task


def said(p: float, accuracy: float = 0.11) -> dict[str, float]:
    return {"zero_shot_accuracy": accuracy, "zero_shot_by_chance": 0.1, "zero_shot_p": p}


def test_rows_at_chance_are_counted_among_those_that_say() -> None:
    assert at_chance([{}, {"report_accuracy": 0.1}]) is None
    assert at_chance([said(0.001), said(0.049), {}]) is None
    text = at_chance([said(0.001, 0.9), said(0.3), said(0.7, 0.09), {}], "rows")
    assert text is not None
    assert text.startswith("2 of 3 rows are not clearly better than chance without labelled images: 10.0 % on average")
    for cause in ("chance gives 10.0 %", "words of the captions", "zero_shot.names", "templates"):
        assert cause in text


def _lost(given: RowInput) -> dict[str, Outcome]:
    """Rows of which the second task is zero-shot, at chance."""
    context, row, tasks = given.context, given.row, given.tasks
    found = {}
    for task in tasks:
        one = outcome(context, row, task)  # type: ignore[arg-type]
        found[task.digest] = replace(one, scalars=one.scalars | (said(0.6) if task.name == "letters" else {}))
    return found


def test_a_run_says_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(1) as executor:
        store = run(two_tasks(8), tmp_path, executor, runner=_lost, progress=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "not clearly better than chance" in line]
    assert len(told) == 1
    assert told[0].startswith("letters: 3 of 3 rows are not clearly better than chance"), "early, not at the end"
    logged = [json.loads(line) for line in (store.folder / "log.jsonl").read_text().splitlines()]
    assert [entry["text"] for entry in logged if entry["event"] == "at chance"] == told


class Lost(stub_report.Stub):
    def _scalars(self, row: Row) -> dict[str, float | int | str]:
        return dict(said(0.5))


def test_the_report_notes_it(tmp_path: Path, source: Dataset, target: Target) -> None:
    plan = Plan(source, design=design.bernoulli(8, 40), recipe=Recipe(), tasks=(Task(target, draws=1),))
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path, executor, runner=Lost(0.6, 0.15, 0, frozenset()), progress=False)
    notes = [note for note in results(store)["notes"] if "not clearly better than chance" in note]
    assert len(notes) == 1
    assert notes[0].startswith("40 of 40 models are")
