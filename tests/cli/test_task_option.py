"""--task and --output of the commands that read results: by the beginning of a name, and pages beside each other."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_influence import Additive, filled, many_classes, plan_of
from typer.testing import CliRunner

from pydt import design
from pydt.analyses import analyse, counterfactual
from pydt.analyses.counterfactual import stored
from pydt.base import ConfigError, PydtError, StoreError
from pydt.cli.app import app
from pydt.data import Target
from pydt.ensemble import PlanFile, RowInput, read_plan, write_plan
from pydt.store import Outcome, Store, merge
from pydt.training import Task

HARMS = {"many": 4, "one shot": 7, "one sample": 9}


class ByTask:
    """One class harms each task."""

    harms = HARMS

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        for task in given.tasks:
            count = len(task.target.described()["labels"])
            effects = np.zeros((20, count))
            effects[self.harms[task.name]] = -3.0
            found |= Additive(np.zeros(count), effects, common=0.1)(replace(given, tasks=(task,)))
        return found


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory, target: Target) -> PlanFile:
    folder = tmp_path_factory.mktemp("tasks")
    plan = plan_of(many_classes(), target, design.random(20, 60, alpha=0.5, seed=3))
    tasks = [Task(target, shots=k, draws=2, name=name) for k, name in zip((2, 1, 5), HARMS, strict=True)]
    write_plan(replace(plan, tasks=tasks), folder / "plan.toml")
    found = read_plan(folder / "plan.toml")
    filled(found.dir, found.plan, ByTask())
    return found


def pydt(*arguments: Any) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def file_of(read: PlanFile) -> Path:
    return read.dir.parent / "plan.toml"


def test_a_task_is_named_by_the_beginning_of_its_name(read: PlanFile) -> None:
    store = Store(read.dir)
    for asked in ("one sh", "ONE SHOT", "one shot", read.plan.tasks[1].digest):
        assert store.described(asked)["name"] == read.plan.task(asked).name == "one shot"
    for asked, why in {
        "one s": "2 tasks begin with 'one s'.*name one of: 'one shot', 'one sample'",
        "two shots": "no task 'two shots'.*did you mean 'one shot'.*known: 'many', 'one shot', 'one sample'",
        "": "no task ''.*known: 'many', 'one shot', 'one sample'",
    }.items():
        with pytest.raises(StoreError, match=why):
            store.described(asked)
        with pytest.raises(ConfigError, match=why):
            read.plan.task(asked)


def test_a_whole_name_goes_before_longer_ones(target: Target) -> None:
    tasks = tuple(Task(target, shots=k, name=name) for k, name in enumerate(("digits, all", "digits"), 1))
    plan = replace(plan_of(many_classes(), target, design.random(20, 4, seed=0)), tasks=tasks)
    assert plan.task("digits").name == "digits"


def test_the_report_is_about_the_task_and_output_that_were_asked_for(read: PlanFile) -> None:
    pydt("report", read.dir, "--task", "one sh", "--output", "margin")
    found = json.loads((read.dir / "results.json").read_text())
    assert found["output"] == "margin"
    assert min(found["groups"], key=lambda group: group["value"])["name"] == "c7"
    with pytest.raises(ConfigError, match="margins"):
        pydt("report", read.dir, "--output", "margins")


def test_pages_about_other_tasks_and_outputs_stand_beside_the_first(read: PlanFile) -> None:
    folder = read.dir / "analyses"
    file = file_of(read)
    pydt("analyse", file, "--only", "ranking-target")
    before = (folder / "ranking-target.html").read_bytes(), (folder / "ranking-target" / "influences.csv").read_bytes()
    pydt("analyse", file, "--only", "ranking-target", "--task", "one sh")
    pydt("analyse", file, "--only", "ranking-target", "--task", "one sh", "--output", "margin")
    assert before[0] == (folder / "ranking-target.html").read_bytes()
    assert before[1] == (folder / "ranking-target" / "influences.csv").read_bytes()
    names = ["ranking-target", "ranking-target-one-shot", "ranking-target-one-shot-margin"]
    index = dict(json.loads((folder / "index.json").read_text()))
    assert list(index) == names, "those of one analysis stand together"
    titles = [index[name]["title"] for name in names]
    assert [title.split(" · ")[1:] for title in titles] == [["many"], ["one shot"], ["one shot", "margin"]]
    assert "c7" in index["ranking-target-one-shot"]["answer"] or "c7" in (folder / f"{names[1]}.html").read_text()
    for name in names:
        assert (folder / name / "influences.csv").is_file()
        assert f'href="{name}/influences.csv"' in (folder / f"{name}.html").read_text()


def test_a_task_is_looked_at_by_the_analyses_that_look_at_tasks(read: PlanFile) -> None:
    done = analyse(read.plan, read.dir, only=["shots", "rates"], task="one sa")
    assert done.pages == ("shots",), "the page of all numbers of shots, to which this one belongs"
    assert "rates" in done.failed, "which is about the plan, and names no rates here"
    with pytest.raises(PydtError, match="no task 'two'"):
        analyse(read.plan, read.dir, only=["stability"], task="two")
    with pytest.raises(ConfigError, match="marginal"):
        analyse(read.plan, read.dir, only=["stability"], output="marginal")


def test_tasks_whose_short_names_are_alike_are_told_apart_by_their_digests(tmp_path: Path, target: Target) -> None:
    plan = plan_of(many_classes(), target, design.random(20, 60, alpha=0.5, seed=3))
    names = (
        "first",
        "a very long name of a target, 5-shot probe",
        "a very long name of a target, 10-shot probe",
        "数字",
    )
    tasks = [Task(target, shots=1, draws=2, seed=i, name=name) for i, name in enumerate(names)]
    plan = replace(plan, tasks=tasks)

    class Alike(ByTask):
        def __call__(self, given: RowInput) -> dict[str, Outcome]:
            count = 120
            return Additive(np.zeros(count), np.zeros((20, count)), common=1.0)(given)

    filled(tmp_path, plan, Alike())
    made = [analyse(plan, tmp_path, only=["ranking-target"], task=name).pages for name in names]
    assert len(set(made)) == 4
    assert made[0] == ("ranking-target",)
    assert made[3] == (f"ranking-target-{plan.tasks[3].digest[:8]}",)
    assert max(len(name) for (name,) in made) <= 61


def test_a_wrong_task_is_refused_before_anything_is_trained(tmp_path: Path, target: Target) -> None:
    plan = plan_of(many_classes(), target, design.random(20, 10, seed=3))
    write_plan(plan, tmp_path / "plan.toml", dir="rows")
    for command in (["analyse", "--train"], ["analyse"], ["prove"], ["keep", "--top", 2]):
        with pytest.raises(PydtError) as caught:
            pydt(command[0], tmp_path / "plan.toml", *command[1:], "--task", "nothing")
        if "--train" in command:
            assert "no task 'nothing'" in str(caught.value)
    assert not (tmp_path / "rows" / "rows").exists()


def test_each_task_has_a_proof_of_its_own(tmp_path: Path, target: Target) -> None:
    plan = plan_of(many_classes(), target, design.random(20, 60, alpha=0.5, seed=3))
    plan = replace(
        plan, tasks=[Task(target, shots=k, draws=2, name=name) for k, name in zip((2, 1, 5), HARMS, strict=True)]
    )
    store, harms = filled(tmp_path, plan, ByTask()), list(HARMS.values())
    harmed = dict(HARMS) | {f"{name}, other draws": group for name, group in HARMS.items()}

    class Again(ByTask):
        harms = harmed

    with ThreadPoolExecutor(1) as executor:
        for task in ("one sh", "many"):
            # of one length: stores of several recipes cannot be merged
            more: Any = {"drop": [1], "repeats": 2, "steps": "epochs", "runner": Again(), "executor": executor}
            counterfactual(store, plan, task=task, **more)
    for task, group in zip(plan.tasks[:2], harms, strict=False):
        found = stored(store, store.plan(plan), task.digest)
        assert found is not None
        (worst,) = {names for arm in found.arms if arm.kind == "drop bottom" for names in arm.names}
        assert worst == (f"c{group}",)
    assert stored(store, store.plan(plan), plan.tasks[2].digest) is None
    other = Store.create(tmp_path / "merged")
    merge(other.folder, store.folder)
    assert stored(Store(other.folder), store.plan(plan), plan.tasks[1].digest) is not None
