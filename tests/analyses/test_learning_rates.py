"""The page of learning rates: what was chosen, how surely, and what the reader must know."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_truth
from stub_store import choice

from pydt import design
from pydt.analyses import analyse
from pydt.analyses.learning_rates import learning_rates
from pydt.analyses.report import results
from pydt.base import StoreError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan
from pydt.reporting import Curve
from pydt.store import Store, write_choice
from pydt.training import FineTune, Recipe, Task


@pytest.fixture
def plan(source: Dataset, target: Target) -> Plan:
    how: dict[str, Any] = {"mode": "finetune", "shots": 2, "draws": 3}
    tasks = [Task(target, **how, finetune=FineTune(lr=0.01), name="one"), Task(target, name="probed")]
    tasks.append(Task(target, **how, finetune=FineTune(lr=0.03, epochs=3), name="two"))
    return Plan(source, design=design.random(8, 12), recipe=Recipe(), tasks=tasks)


def tried(rate: float, loss: float | None, behind: float | None, error: float = 0.02) -> dict[str, Any]:
    numbers = {"loss": loss, "accuracy": None if loss is None else 0.5 + rate, "behind": behind}
    errors = {"stderr": 0.1, "accuracy_stderr": 0.03, "behind_stderr": error if behind else 0.0}
    errors = {name: None if loss is None else value for name, value in errors.items()}
    return {"rate": rate, "trial": f"{int(1e6 * rate):032x}", "failed": int(loss is None), **numbers, **errors}


def store_choice(
    store: Store, plan: Plan, task: Task, chosen: float, grid: list[dict[str, Any]], draws: int = 3
) -> None:
    record = plan.record()
    about = {"source": record.source, "units": record.units, "recipe": record.recipe, "target": task.target.digest}
    counts = {"images": 20, "rows": 4, "draws": draws}
    choice = {
        **about,
        **counts,
        "question": task.digest,
        "task": task.digest,
        "name": "another name",
        "trainings": [],
        "chosen": chosen,
    }
    write_choice(store, {**choice, "grid": grid})


@pytest.fixture
def store(plan: Plan, tmp_path: Path) -> Store:
    made = Store.create(tmp_path)
    made.put_plan(plan.record())
    grid = [tried(0.001, 1.5, 0.3), tried(0.01, 1.2, 0.0), tried(0.1, None, None)]
    store_choice(made, plan, plan.tasks[0], 0.01, grid)
    store_choice(made, plan, plan.tasks[2], 0.03, [tried(0.003, 0.91, 0.01), tried(0.03, 0.9, 0.0)])
    return made


def test_the_page_tells_what_was_chosen_and_how_surely(plan: Plan, store: Store) -> None:
    page = learning_rates(store, plan).page()
    assert page.answer == [
        "\u201cone\u201d: of 3 rates 0.01 has the least loss, 1.20 \u00b1 0.10 (4 rows x 3 draws, 20 labelled "
        "validation images; \u00b1 is the standard error, with 2 degrees of freedom); "
        "the next, 0.001, is 0.300 \u00b1 0.020 behind.",
        "\u201ctwo\u201d: of 2 rates 0.03 has the least loss, 0.90 \u00b1 0.10 (4 rows x 3 draws, 20 labelled "
        "validation images; \u00b1 is the standard error, with 2 degrees of freedom); "
        "the next, 0.003, is 0.010 \u00b1 0.020 behind, so the two cannot be told apart.",
        "one: at the rate 0.1, 1 of 4 rows failed, so it was not chosen.",
        "two: the chosen rate 0.03 is the highest of the grid: a higher one may be better.",
    ]
    curves = [block for block in page.blocks if isinstance(block, Curve)]
    assert [curve.title.split(":")[0] for curve in curves] == ["Loss", "Accuracy"] * 2
    rates, values, low, high = curves[0].series["rates"]
    assert curves[0].log
    assert list(rates) == [0.001, 0.01], "no point where a row failed"
    assert np.allclose(values, [1.5, 1.2])
    reach = 4.303 * 0.1  # t of two degrees of freedom: three draws
    assert np.allclose([low, high], [values - reach, values + reach], atol=1e-3)
    assert curves[0].line == 0.01
    assert "95 % bars" in {curve.bars for curve in curves}
    assert not curves[0].log_y
    assert np.allclose(curves[1].series["rates"][1], [50.1, 51.0])


def test_two_draws_are_too_few_for_intervals_and_losses_decades_apart_are_readable(plan: Plan, tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.put_plan(plan.record())
    grid = [tried(0.001, 0.861, 0.061, 0.013), tried(0.01, 0.8, 0.0), tried(0.1, 40.0, 39.2, 5.0)]
    store_choice(store, plan, plan.tasks[0], 0.01, grid, draws=2)
    page = learning_rates(store, plan).page()
    assert "0.80 \u00b1 0.10 (4 rows x 2 draws" in page.answer[0]
    assert "with 1 degree of freedom" in page.answer[0]
    assert page.answer[0].endswith("is 0.061 \u00b1 0.013 behind; 2 draws are too few to tell.")
    loss, right = (block for block in page.blocks if isinstance(block, Curve))
    assert loss.bars == right.bars == "bars of one standard error"
    assert loss.log_y
    _, values, low, high = loss.series["rates"]
    assert np.allclose([values - low, high - values], 0.1)
    columns, rows = page.csv["rates.csv"]
    where = list(columns).index("loss low")
    assert {row[where] for row in rows} == {None}


def test_intervals_end_at_what_is_possible(plan: Plan, tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.put_plan(plan.record())
    store_choice(store, plan, plan.tasks[0], 0.48, [tried(0.1, 0.9, 0.7), tried(0.48, 0.2, 0.0)])
    loss, right = (block for block in learning_rates(store, plan).page().blocks if isinstance(block, Curve))
    assert loss.series["rates"][2][1] == 0.0, "0.2 - 4.3 x 0.1"
    assert right.series["rates"][3][1] == 100.0, "98 + 4.3 x 3"


def test_every_number_is_in_the_csv_file(plan: Plan, store: Store) -> None:
    done = analyse(plan, store.folder, only=["rates"])
    assert done.pages == ("rates",)
    with open(store.folder / "analyses" / "rates" / "rates.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], float(row["rate"]), row["failed"]) for row in rows] == [
        ("one", 0.001, "0"), ("one", 0.01, "0"), ("one", 0.1, "1"), ("two", 0.003, "0"), ("two", 0.03, "0"),
    ]  # fmt: skip
    assert rows[2]["loss"] == rows[2]["loss low"] == ""
    assert float(rows[0]["loss"]) == 1.5


def test_only_choices_of_this_plan_are_shown(plan: Plan, store: Store, source: Dataset, target: Target) -> None:
    other = Plan(source, design=design.random(8, 12), recipe=Recipe(epochs=2), tasks=plan.tasks)
    store.put_plan(other.record())
    with pytest.raises(StoreError, match=r"no learning rate of this plan was chosen.*\[rates\]"):
        learning_rates(store, other)
    told: list[str] = []
    done = analyse(other, store.folder, tell=told.append)
    assert "rates" not in done.failed, "most plans have none: it is not missed where it was not asked for"
    assert "rates" in analyse(other, store.folder, only=["rates"]).failed
    assert len(learning_rates(store, plan).choices) == 2


def test_a_report_tells_the_validation_images_of_its_own_choices_alone(tmp_path: Path) -> None:
    store = stub_truth.trained(stub_truth.plan(), tmp_path)
    record = store.plan()
    about = {"source": record.source, "units": record.units, "task": record.tasks[0]["digest"]}
    for question, recipe, used in (("1", "e" * 32, False), ("2", record.recipe, True)):
        write_choice(store, choice(question=question * 32, recipe=recipe, **about))
        assert results(store)["question"]["validation_used"] is used


def test_a_damaged_choice_is_named(plan: Plan, store: Store) -> None:
    (file, *_) = sorted((store.folder / "choices").iterdir())
    file.write_text(file.read_text().replace('"images":20', '"images":21'))
    with pytest.raises(StoreError, match=rf"{file.stem}.*checksum does not match.*delete this one file"):
        learning_rates(store, plan)
    assert "checksum" in analyse(plan, store.folder).failed["rates"]
