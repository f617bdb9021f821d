"""Learning rates of many parts, chosen in one run: each as alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydt.base import ConfigError, TrainError
from pydt.data import Dataset, Target
from pydt.design import Design
from pydt.ensemble import (
    Context,
    Part,
    Plan,
    RatesOfPart,
    RowInput,
    choose_rates,
    choose_rates_of,
    chosen_rates,
    chosen_rates_of,
)
from pydt.store import Outcome, Row, Store
from pydt.training import FineTune, Recipe, Task

RATES = (0.1, 0.001, 0.01)
RECIPE = Recipe(network="convnet-4", epochs=1, batch_size=32)
calls: list[tuple[str, int]] = []


@dataclass(frozen=True)
class Made:
    """Rows of made-up numbers, of which the best rate depends on the source; those of `fails` fail at every rate."""

    fails: str = ""

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        name, found = given.context.source.name, {}
        calls.append((name, given.row.seed))
        for task in given.tasks:
            if name == self.fails:
                found[task.digest] = Outcome(status="failed", reason="NaN")
                continue
            random = np.random.default_rng([given.row.seed, *name.encode(), int(1e4 * task.finetune.lr)])
            logits = random.normal(size=(4, task.draws, len(task.examples()["ids"]))).astype(np.float32)
            logits[0] += 3 * random.normal()
            found[task.digest] = Outcome({"primitives": logits})
        return found


@pytest.fixture
def tasks(target: Target) -> tuple[Task, ...]:
    tuned = Task(target, mode="finetune", shots=2, draws=2, finetune=FineTune(epochs=2, batch_size=8), name="tuned")
    return tuned, Task(target, name="probed"), replace(tuned, shots=3, name="tuned, 3")


@pytest.fixture
def parts(source: Dataset, tasks: tuple[Task, ...]) -> list[Part]:
    named = [replace(source.sample(100, seed), name=f"sample {seed}") for seed in range(3)]
    return [Part(Context(one, "class", RECIPE, tasks), (Row(np.ones(8), 5),), one.name) for one in named]


def choose(parts: list[Part], folder: Path, fails: str = "", rates: Any = RATES) -> list[RatesOfPart]:
    calls.clear()
    with ThreadPoolExecutor(1) as one:
        return choose_rates_of(parts, folder, rates, one, runner=Made(fails), progress=False)


def choices(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "choices").iterdir()}


def test_each_part_chooses_what_it_chooses_alone(parts: list[Part], tmp_path: Path) -> None:
    assert chosen_rates_of(parts, tmp_path / "all", RATES) == [None] * 3
    found = choose(parts, tmp_path / "all")
    for part, one in zip(parts, found, strict=True):
        alone = Plan(
            part.context.source,
            design=Design.explicit(np.ones((1, 8), bool)),
            recipe=RECIPE,
            tasks=part.context.tasks,
            seeds=(5,),
        )
        with ThreadPoolExecutor(1) as thread:
            by_plan = choose_rates(alone, tmp_path / "alone", RATES, 1, thread, runner=Made(), progress=False)
        assert [task.digest for task in one.tasks] == [task.digest for task in by_plan.plan.tasks]
        assert (one.table, one.notes) == (by_plan.table, by_plan.notes)
        assert one.tasks[1] is part.context.tasks[1]
    assert choices(tmp_path / "all") == choices(tmp_path / "alone")
    assert len(choices(tmp_path / "all")) == 3 * 2
    rates = {(one.tasks[0].finetune.lr, one.tasks[2].finetune.lr) for one in found}
    assert len(rates) > 1, "parts choose apart"
    again = chosen_rates_of(parts, tmp_path / "all", RATES)
    assert [one and one.table for one in again] == [one.table for one in found]


def test_a_part_added_later_runs_alone_and_changes_no_choice(parts: list[Part], tmp_path: Path) -> None:
    choose(parts[:2], tmp_path)
    assert len(calls) == 2
    before = choices(tmp_path)
    assert [one is None for one in chosen_rates_of(parts, tmp_path, RATES)] == [False, False, True]
    choose(parts, tmp_path)
    assert calls == [("sample 2", 5)]
    assert before.items() < choices(tmp_path).items()
    choose(parts, tmp_path)
    assert calls == []


def test_a_part_without_rates_stays_as_it_is(parts: list[Part], tasks: tuple[Task, ...], tmp_path: Path) -> None:
    probed = Part(replace(parts[0].context, tasks=tasks[1:2]), parts[0].rows, "probed")
    found = choose([probed, parts[1]], tmp_path)
    assert (found[0].tasks, found[0].table, found[0].notes) == (tasks[1:2], (), ())
    with pytest.raises(ConfigError, match="no task of any part has a learning rate"):
        choose([probed], tmp_path)
    with pytest.raises(ConfigError, match="is one rate"):
        choose(parts, tmp_path, rates=(0.1,))


def test_a_part_for_which_no_rate_works_is_undecided_and_the_others_choose(parts: list[Part], tmp_path: Path) -> None:
    found = choose(parts, tmp_path, fails="sample 1")
    assert [one.undecided for one in found] == [(), ("tuned", "tuned, 3"), ()]
    assert [task.finetune.lr for task in found[1].tasks[::2]] == [0.001] * 2  # the lowest, for want of a better one
    assert [tried.loss for tried in found[1].table] == [None] * 6
    assert found[1].notes == tuple(
        f"{task}: at every rate a row failed, so no rate was chosen" for task in ("tuned", "tuned, 3")
    )
    again = choose(parts, tmp_path)  # is stored, too
    assert calls == []
    assert [one.table for one in again] == [one.table for one in found]
    assert {record.kind for record in Store(tmp_path).plans().values()} == {"rows"}


def test_a_plan_takes_no_undecided_choice_of_a_part(parts: list[Part], tmp_path: Path) -> None:
    choose(parts[1:2], tmp_path, fails="sample 1")
    context, one = parts[1].context, Design.explicit(np.ones((1, 8), bool))
    plan = Plan(context.source, design=one, recipe=RECIPE, tasks=context.tasks, seeds=(5,))
    assert chosen_rates(plan, tmp_path, RATES, 1) is None
    with ThreadPoolExecutor(1) as thread, pytest.raises(TrainError, match="every trial failed"):
        choose_rates(plan, tmp_path, RATES, 1, thread, runner=Made(), progress=False)
