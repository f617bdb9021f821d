"""Plans: what can be asked, and what is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, plan, stub_design

import pydt.design
from pydt.base import ConfigError, DataError, DesignError, PydtError
from pydt.data import Dataset, Groups, Target
from pydt.ensemble import Command, Function, Plan, RowInput, choose_rates, cost, run, run_rows
from pydt.ensemble.plan import check
from pydt.store import Measure, Row
from pydt.store.plan_record import row_seeds
from pydt.training import Recipe, Task


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


def computed(given: RowInput) -> dict[str, float]:
    return {"loss": float(given.mask.sum())}


def _own(**changes: Any) -> Plan:
    """A plan of a function's rows."""
    given: dict[str, Any] = {"source": Groups(["a", "b", "c"], by="site"), "design": stub_design(3, groups=3)}
    return Plan(**{**given, "recipe": Function(computed), "tasks": [Measure("loss")], **changes})


@pytest.mark.parametrize(
    ("changes", "kind", "pattern"),
    [
        ({"recipe": computed}, ConfigError, r"Plan\.recipe: is of type function.*recipe=pydt\.Function\(computed\)"),
        ({"recipe": "python train.py"}, ConfigError, r"Plan\.recipe: is of type str.*as a list.*pydt\.Command\(\["),
        ({"recipe": ["python", "a.py"]}, ConfigError, r"Plan\.recipe: is of type list.*recipe=pydt\.Command\(\["),
        ({"recipe": Recipe()}, ConfigError, r"Plan\.source: has no images that a pydt\.Recipe could train on"),
        ({"source": ["a", "b"]}, ConfigError, r"Plan\.source: is of type list.*pydt\.Groups"),
        ({"by": "class"}, DataError, r"no partition 'class'.*it has one: 'site'"),
        ({"design": stub_design(3, groups=4)}, DesignError, r"4 groups, but the source has 3.*groups=3"),
        ({"tasks": [Measure("loss"), Measure("loss", 5)]}, ConfigError, "two tasks are called 'loss'"),
        ({"tasks": "loss"}, ConfigError, r"one str, not a list"),
        ({"tasks": ["loss"]}, ConfigError, r"tasks\[0\]: is of type str.*give pydt\.Measure objects"),
        ({"tasks": []}, ConfigError, r"tasks: is empty.*pydt\.Measure"),
    ],
)
def test_rows_of_ones_own_with_what_does_not_fit_them(changes: Any, kind: type[PydtError], pattern: str) -> None:
    with pytest.raises(kind, match=pattern):
        _own(**changes)


def test_images_are_trained_on_by_a_recipe_and_measured_by_nothing_else(source: Dataset, target: Target) -> None:
    how: dict[str, Any] = {"source": source, "design": pydt.design.design.random(8, 3)}
    with pytest.raises(ConfigError, match=r"task 'loss': is a pydt\.Measure.*pydt\.Task\(target\)"):
        _own(**how, recipe=Recipe())
    for recipe in (Function(computed), Command(["true", "{out}"])):
        with pytest.raises(ConfigError, match=r"is a pydt\.Task.*pydt\.Measure\(name, examples\)"):
            _own(**how, recipe=recipe, tasks=[Task(target)])
    assert _own(**how).by == "class", "images have groups, too"


def test_own_rows_have_neither_rates_nor_networks_to_keep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rates: rows of a pydt\.Function have no learning rate"):
        choose_rates(_own(), tmp_path, [0.1, 0.2])
    for call in (lambda: run(_own(), tmp_path, keep="weights"), lambda: cost(_own(), keep="features")):
        with pytest.raises(ConfigError, match="but a runner of your own computes the rows"):
            call()
    assert not list(tmp_path.iterdir())


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
