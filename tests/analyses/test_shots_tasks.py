"""Tests of which tasks are one target at several numbers of shots."""

from dataclasses import replace

import numpy as np
import pytest

from pydt.analyses.shots_tasks import shots_of, shots_tasks, with_shots
from pydt.base import ConfigError
from pydt.data import Groups
from pydt.design import random
from pydt.ensemble import Function, Plan, quickstart_plan
from pydt.store import Measure


@pytest.fixture(scope="module")
def plan() -> Plan:
    made = quickstart_plan(20)
    return replace(made, tasks=[task for task in made.tasks if task.shots == 5])


def test_tasks_are_ordered_by_shots_and_the_whole_pool_comes_last(plan: Plan) -> None:
    first = plan.tasks[0]
    several = replace(plan, tasks=tuple(replace(first, shots=k, name=f"at {k}") for k in ("full", 10, 2)))
    found = shots_tasks(several.record())
    assert found.shots == (2, 10, "full")
    assert found.tasks == tuple(several.task(f"at {k}").digest for k in found.shots)
    assert (found.target, found.mode) == (first.target.name, "probe")


def test_another_way_to_transfer_is_another_question(plan: Plan) -> None:
    first = plan.tasks[0]
    more = [
        replace(first, shots=k, penalty=p, name=f"{k} {p}") for k, p in ((1, 10.0), (20, 10.0), (1, 3.0), (20, 1.0))
    ]
    several = replace(plan, tasks=(first, *more))
    assert [one.shots for one in shots_of(several.record())] == [(1, 5, 20)]


def test_of_two_tasks_of_the_same_shots_the_first_counts(plan: Plan) -> None:
    first = plan.tasks[0]
    several = replace(plan, tasks=(first, replace(first, seed=9, name="again"), replace(first, shots=1, name="one")))
    assert shots_tasks(several.record()).tasks == (several.tasks[2].digest, first.digest)


def test_added_tasks_keep_the_plans_own_first_and_leave_out_what_a_class_cannot_give(plan: Plan) -> None:
    made = with_shots(plan, (1, 5, 10_000, "full"))
    assert made.tasks[0] is plan.tasks[0]
    assert [task.shots for task in made.tasks] == [5, 1, "full"]
    assert {task.seed for task in made.tasks} == {plan.tasks[0].seed}, "draws are nested"
    assert with_shots(made, (1, 5, "full")) is made, "nothing is missing"
    named = replace(plan, tasks=(replace(plan.tasks[0], name="mine"),))
    assert [task.name for task in with_shots(named, (1,)).tasks] == ["mine", "mine, 1-shot"]


def test_a_task_on_the_whole_pool_gives_its_few_shot_tasks_several_draws(plan: Plan) -> None:
    full = replace(plan, tasks=(replace(plan.tasks[0], shots="full", name=""),))
    assert [task.draws for task in with_shots(full, (2,)).tasks] == [1, 8]


def test_what_is_not_there_is_named(plan: Plan) -> None:
    with pytest.raises(ConfigError, match="no target of the plan has two numbers of shots"):
        shots_tasks(plan.record())
    record = with_shots(plan, (1,)).record()
    with pytest.raises(ConfigError, match=r"no target .handwriten digits.*handwritten digits"):
        shots_tasks(record, target="handwriten digits")
    with pytest.raises(ConfigError, match="no mode 'finetune'"):
        shots_tasks(record, mode="finetune")
    with pytest.raises(ConfigError, match="no task 'five'"):
        shots_tasks(record, tasks={1: plan.tasks[0].name, 5: "five"})
    with pytest.raises(ConfigError, match="name at least two"):
        shots_tasks(record, tasks={1: plan.tasks[0].name})
    with pytest.raises(ConfigError, match="5 is a Task"):
        shots_tasks(record, tasks={1: plan.tasks[0].name, 5: plan.tasks[0]})
    with pytest.raises(ConfigError, match="both tasks and a target or mode"):
        shots_tasks(record, tasks={1: "one", 5: "five"}, mode="probe")
    with pytest.raises(ConfigError, match="shots 'all' is not a whole number"):
        with_shots(plan, ["all"])
    with pytest.raises(ConfigError, match="shots"):
        shots_tasks(record, tasks={0: plan.tasks[0].name, 5: plan.tasks[0].name})


def test_measures_are_named_by_their_shots() -> None:
    def row(row: object) -> dict[str, np.ndarray]:
        return {}

    measures = tuple(Measure(name, 4) for name in ("one", "all"))
    plan = Plan(Groups([f"g{i}" for i in range(6)]), design=random(6, 20, 0.5), recipe=Function(row), tasks=measures)
    with pytest.raises(ConfigError, match="no target of the plan"):
        shots_tasks(plan.record())
    found = shots_tasks(plan.record(), tasks={"full": "all", 1: "one"})
    assert found.shots == (1, "full")
    assert found.tasks == (measures[0].digest, measures[1].digest)
    with pytest.raises(ConfigError, match="has no number of shots"):
        with_shots(plan)
