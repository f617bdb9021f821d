"""Plans: what can be asked, and what is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, plan, stub_design

import pydt.design
from pydt.base import ConfigError, DataError, DesignError, PydtError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run_rows
from pydt.ensemble.plan import check
from pydt.store import Row
from pydt.store.plan_record import row_seeds


def test_seeds_come_from_the_plan_and_never_change_with_its_length() -> None:
    assert row_seeds(5, 100)[:10] == row_seeds(5, 10)
    assert len(set(row_seeds(5, 100)) | set(row_seeds(6, 100))) == 200
    assert all(0 <= seed < 2**31 for seed in row_seeds(5, 100))
    assert max(row_seeds(5, 100)) > 2**29
    job = Plan(StubSource(), design=stub_design(4), recipe=StubRecipe(), tasks=[StubTask()], seed=5)
    assert tuple(row.seed for row in job.rows()) == row_seeds(5, 4)


def test_examples_in_no_unit_are_always_kept() -> None:
    keep = plan(1).context.keep_examples(Row([1, 0, 0, 0, 0, 1], 0))
    assert np.flatnonzero(keep).tolist() == [0, 1, 10, 11, 12, 13]


def _with(**changes: Any) -> Any:
    def make() -> Plan:
        given = {"source": StubSource(), "design": stub_design(3), "recipe": StubRecipe(), "tasks": [StubTask()]}
        return Plan(**{**given, **changes})

    return make


class EverythingInUnits(StubSource):
    def units(self, by: str) -> tuple[np.ndarray, tuple[str, ...]]:
        return np.arange(14) % GROUPS, tuple("abcdef")


class EmptyUnit(StubSource):
    def units(self, by: str) -> tuple[np.ndarray, tuple[str, ...]]:
        return np.arange(14) % (GROUPS - 1), tuple("abcdef")


@pytest.mark.parametrize(
    ("make", "kind", "pattern"),
    [
        (_with(tasks=[]), ConfigError, "tasks: is empty"),
        (_with(tasks=[StubTask(), StubTask()]), ConfigError, "two tasks are called 'digits'"),
        (_with(tasks=StubTask()), ConfigError, r"one StubTask, not a list.*tasks=\[task\]"),
        (_with(tasks=[StubTask(), StubSource()]), ConfigError, r"tasks\[1\]: is of type StubSource"),
        (_with(source=None), ConfigError, r"Plan\.source: is None"),
        (_with(recipe=None), ConfigError, r"Plan\.recipe: is None"),
        (_with(recipe=StubRecipe), ConfigError, r"Plan\.recipe: is of type type"),
        (_with(design=np.ones((3, GROUPS))), DesignError, r"is of type ndarray.*pydt\.Design\.explicit"),
        (_with(seed=-1), ConfigError, "Plan: seed -1 is out of range"),
        (_with(seeds=[1, 2, -1]), ConfigError, r"Plan: seeds\[2\] -1 is out of range"),
        (_with(seeds=[1.5, 2, 3]), ConfigError, r"Plan: seeds\[0\] 1\.5 is not a whole number"),
        (_with(seeds=3), ConfigError, r"Plan\.seeds: is one int"),
        (_with(seeds=[1, 2]), ConfigError, "2 seeds for 3 rows"),
        (_with(design=stub_design(3, groups=5)), DesignError, r"5 groups, but the source has 6.*groups=6"),
        (_with(source=EmptyUnit()), DataError, "no examples in f"),
    ],
)
def test_plans_that_cannot_mean_anything(make: Any, kind: type[PydtError], pattern: str) -> None:
    with pytest.raises(kind, match=pattern) as caught:
        make()
    assert caught.value.mend


def test_target_images_must_have_the_channels_of_the_source(source: Dataset, target: Target) -> None:
    from pydt.training import Recipe, Task

    images = np.repeat(target.train.images, 3, axis=3)
    colour = Task(Target(Dataset.from_arrays(images, target.train.labels, name="colour blobs")), shots=2)
    how: dict[str, Any] = {"design": pydt.design.design.random(8, 3), "recipe": Recipe()}
    with pytest.raises(
        DataError, match=r"colour blobs has images of 3 channels, the source blobs of 1\..*repeat"
    ) as caught:
        Plan(source, tasks=[colour], **how)
    assert caught.value.where == f"task {colour.name!r}"
    with pytest.raises(DataError, match="3 channels"):
        run_rows(source, "class", how["recipe"], [colour], [Row(np.ones(8), 0)], "/nowhere")


def test_a_row_without_units_may_train_on_what_is_always_kept() -> None:
    rows = [Row([1] * GROUPS, 0), Row([0] * GROUPS, 0)]
    check(_with()().context, rows)
    with pytest.raises(DesignError, match="row 1: keeps nothing"):
        check(_with(source=EverythingInUnits())().context, rows)


def test_a_task_by_name_or_digest() -> None:
    plan = _with(tasks=[StubTask(), StubTask("letters")])()
    first, second = plan.tasks
    assert plan.task() is first
    assert plan.task("letters") is plan.task(second.digest) is plan.task(second) is second
    with pytest.raises(ConfigError, match=r"no task 'leters'.*letters"):
        plan.task("leters")


def test_plan_has_a_digest_of_everything() -> None:
    make = [
        _with(),
        _with(source=StubSource("other")),
        _with(by="font"),
        _with(design=stub_design(3, seed=1)),
        _with(tasks=[StubTask("letters")]),
        _with(seeds=[1, 2, 3]),
        _with(seed=1),
        _with(recipe=StubRecipe(threads=2)),
    ]
    assert len({plan().digest for plan in make}) == len(make)
    assert _with()().digest == _with()().digest
    with pytest.raises(AttributeError):
        _with()().by = "font"  # type: ignore[misc]
