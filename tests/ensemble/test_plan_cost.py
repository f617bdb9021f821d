"""What a plan will cost, from rows that were timed."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stub_rows

from pydt import design
from pydt.base import ConfigError, PydtError, StoreError
from pydt.data import Dataset, Groups, Target
from pydt.ensemble import Command, Function, Plan, RowInput, announce, cost, run
from pydt.ensemble.plan_cost import Cost
from pydt.store import Measure, Outcome, Row, Store, compact, status
from pydt.training import Recipe, Task

CALLS: list[int] = []


def _relog(folder: Path, seconds: list[float]) -> None:
    """Give the rows in a log other times."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    rows = [entry for entry in entries if entry["event"] == "row"]
    for entry, time in zip(rows, seconds, strict=True):
        entry["seconds"] = time
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))


def test_rows_that_are_stored_are_not_paid_again(tmp_path: Path) -> None:
    run(stub_rows.plan(4), tmp_path, workers=1, runner=stub_rows.stub_row, progress=False)
    _relog(tmp_path, [10.0, 20.0, 30.0, 40.0])
    whole = stub_rows.plan(4)
    found = cost(whole, tmp_path, workers=2, price=3.0, runner=stub_rows.stub_row)
    assert (found.rows, found.stored, found.seconds, found.timed) == (4, 4, 25.0, 4)
    assert (found.hours, found.bytes, found.money) == (0.0, 0.0, 0.0)


def test_rows_of_fewer_tasks_tell_neither_time_nor_size(tmp_path: Path) -> None:
    first = stub_rows.plan(6)
    run(first, tmp_path, workers=1, runner=stub_rows.stub_row, progress=False)
    _relog(tmp_path, [1000.0] * 6)
    more = replace(first, tasks=(*first.tasks, stub_rows.StubTask(name="more")))
    found = cost(more, tmp_path, workers=1, runner=stub_rows.stub_row)
    assert (found.rows, found.stored) == (6, 0)
    assert found.timed > 0
    assert found.seconds < 100, "of the pilot, not of the log"
    assert found.row_bytes > cost(first, tmp_path, workers=1, runner=stub_rows.stub_row).row_bytes


def counted_row(given: RowInput) -> dict[str, Outcome]:
    """A runner that counts the trainings of this process."""
    row, tasks = given.row, given.tasks
    CALLS.append(row.seed)
    random = np.random.default_rng(row.seed)
    found = {}
    for task in tasks:
        primitives = random.normal(size=(4, task.draws, len(task.target.described()["labels"])))
        primitives[3] = random.integers(0, 4, primitives.shape[1:])
        found[task.digest] = Outcome({"primitives": primitives.astype(np.float32)})
    return found


def trained(plan: Plan, folder: Path, stop: str | None = None) -> int:
    """How many rows a run trains."""
    CALLS.clear()
    with ThreadPoolExecutor(1) as executor:
        run(plan, folder, executor, runner=counted_row, progress=False, stop=stop)
    return len(CALLS)


def test_the_plan_command_counts_what_a_run_will_train(tmp_path: Path, source: Dataset, target: Target) -> None:
    def made(rows: int = 30, *tasks: Task, seeds: list[int] | None = None) -> Plan:
        tasks = tasks or (Task(target, draws=1),)
        return Plan(source, design=design.random(8, rows, seed=2), recipe=Recipe(), tasks=tasks, seeds=seeds)

    pixels, labels, classes = np.asarray(target.train.images), target.train.labels, target.classes
    called_otherwise = Target(Dataset.from_arrays(pixels, labels, classes, name="the same, renamed"))
    steps: dict[str, tuple[Plan, int]] = {
        "as it is": (made(), 30),
        "again": (made(), 0),
        "its task renamed": (made(30, Task(target, draws=1, name="new name")), 0),
        "its target renamed": (made(30, Task(called_otherwise, draws=1)), 0),
        "longer": (made(44), 14),
        "longer, and its task renamed": (made(50, Task(target, draws=1, name="another")), 6),
        "shorter": (made(20), 0),
        "a task more": (made(30, Task(target, draws=1), Task(target, draws=2, name="second")), 30),
        "tasks in another order": (made(30, Task(target, draws=2, name="second"), Task(target, draws=1)), 0),
        "the second task alone": (made(34, Task(target, draws=2, name="second")), 4),
    }
    for what, (plan, expected) in steps.items():
        found = cost(plan, tmp_path, workers=1, runner=counted_row)
        assert found.rows - found.stored == expected, what
        assert f"{found.stored} of them stored" in str(found)
        assert trained(plan, tmp_path) == expected, what
        assert status(tmp_path, plan)["missing"] == 0
    masks = np.asarray(design.random(8, 6, seed=9))
    twice = Plan(
        source, design=design.Design.explicit(np.concatenate([masks, masks])), recipe=Recipe(),
        tasks=(Task(target, draws=1),), seeds=[*range(6), *range(6)],
    )  # fmt: skip
    found = cost(twice, tmp_path, workers=1, runner=counted_row)
    assert (found.rows, found.rows - found.stored) == (6, 6), "each training is counted once, as a run shows it"
    assert trained(twice, tmp_path) == 6


def test_rows_that_a_satisfied_rule_makes_needless_are_not_counted(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    plan = Plan(source, design=design.random(8, 60, seed=2), recipe=Recipe(), tasks=(Task(target, draws=1),))
    count = trained(plan, tmp_path, "stderr < 30")
    assert 0 < count < 60
    found = cost(plan, tmp_path, workers=1, runner=counted_row, stop="stderr < 30")
    assert found.rows == found.stored == Store(tmp_path, plan).stopped()["rows"]  # type: ignore[index]
    assert trained(plan, tmp_path, "stderr < 30") == 0
    without = cost(plan, tmp_path, workers=1, runner=counted_row)
    assert (without.rows, without.rows - without.stored) == (60, 60 - count)
    assert trained(plan, tmp_path) == 60 - count


def test_a_damaged_store_is_told_of_as_a_run_would(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        cost(stub_rows.plan(2), tmp_path, runner=stub_rows.stub_row)


def test_disk_is_known_of_a_compacted_store_too(tmp_path: Path) -> None:
    run(stub_rows.plan(8), tmp_path, workers=1, runner=stub_rows.stub_row, progress=False)
    files = cost(stub_rows.plan(8), tmp_path, workers=1).row_bytes
    compact(tmp_path, fewest=2)
    packed = sum(path.stat().st_size for path in tmp_path.glob("packed/*/*")) / 8
    assert 0.7 * packed < cost(stub_rows.plan(8), tmp_path, workers=1).row_bytes <= packed < files


def test_hours_disk_and_money_follow_from_one_row() -> None:
    found = Cost(rows=101, stored=1, workers=3, seconds=36.0, timed=1, row_bytes=2e6, price=2.0)
    assert found.hours == pytest.approx(34 * 0.01)  # 100 rows, three at once
    assert found.bytes == 200e6
    assert found.money == pytest.approx(0.68)
    assert "34 rounds" not in str(found)
    assert re.search(r"100 rows with 3 workers: 20 min, 200 MB of disk, 0.68 at 2.00 an hour", str(found))


def test_a_pilot_is_timed_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plan = stub_rows.plan(9, seconds=0.05)
    found = cost(plan, tmp_path / "not there yet", workers=2, runner=stub_rows.stub_row)
    assert (found.rows, found.stored, found.workers) == (9, 0, 2)
    assert found.timed >= 1
    assert found.seconds >= 0.05  # each row sleeps as long
    run(plan, tmp_path / "run", workers=1, runner=stub_rows.stub_row, progress=False)
    sizes = [path.stat().st_size for path in (tmp_path / "run" / "rows").glob("*/*.safetensors")]
    assert min(sizes) <= found.row_bytes <= max(sizes)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def length(given: RowInput) -> dict[str, float]:
    return {"loss": float(given.keep.sum())}


def _own(rows: int, recipe: Function | Command) -> Plan:
    """A plan of rows of one's own, with groups of 1, 2, 3 and 50 examples."""
    source = Groups(["a"] + ["b"] * 2 + ["c"] * 3 + ["d"] * 50)
    return Plan(source, design=design.bernoulli(4, rows), recipe=recipe, tasks=[Measure("loss")])


def test_rows_of_ones_own_are_timed_by_the_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = _own(4, Function(length))
    found = cost(plan, workers=1)
    assert (found.rows, found.stored, found.warning) == (4, 0, "")
    assert found.timed >= 1
    store = run(plan, tmp_path, workers=1, progress=False)
    _relog(tmp_path, [10.0, 20.0, 30.0, 40.0])
    assert cost(plan, tmp_path).seconds == 25
    jobs = [(plan.recipe, plan.tasks, [Row([0, 0, 0, 1], 5), Row([1, 0, 0, 0], 5), plan.rows()[0]])]
    assert announce(store, plan, jobs, None, 1, True) == 2  # type: ignore[arg-type]
    assert "3 retrainings, 1 of them stored; the others take about 50 s" in capsys.readouterr().err


def test_a_pilot_that_fails_names_no_file_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('no data.csv')")
    plan = _own(4, Command([sys.executable, "train.py", "{out}"], folder=str(tmp_path), tries=1))
    with pytest.raises(PydtError, match=r"printed last: no data\.csv\. mend the program; a run keeps all") as caught:
        cost(plan, workers=1)
    assert "pydt-pilot" not in str(caught.value)


@pytest.mark.parametrize(("given", "pattern"), [({"workers": 0}, "at least 1"), ({"price": -1.0}, "zero or more")])
def test_what_means_nothing_is_refused(given: dict[str, float], pattern: str) -> None:
    with pytest.raises(ConfigError, match=pattern):
        cost(stub_rows.plan(2), runner=stub_rows.stub_row, **given)  # type: ignore[arg-type]
