"""What many parts cost: few pilots, what is stored is not counted, bytes as they will be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, stub_row

from pydt.base import ConfigError
from pydt.data import Dataset, Target
from pydt.ensemble import Context, Part, choose_rates_of, cost_of, run_parts
from pydt.store import Row
from pydt.training import FineTune, Recipe, Task

RECIPE = Recipe(network="convnet-4", epochs=1, batch_size=32)


def tasks_of(target: Target) -> tuple[Task, ...]:
    tuned = Task(target, mode="finetune", shots=1, draws=3, finetune=FineTune(epochs=1), name="1")
    more = [replace(tuned, shots=shots, name=str(shots)) for shots in (2, 3, "full")]
    return Task(target, shots=2, draws=2, name="probed"), tuned, *more


@pytest.fixture
def parts(source: Dataset, target: Target) -> list[Part]:
    recipes = {"a": RECIPE, "b": replace(RECIPE, epochs=2), "scratch": Recipe(network="convnet-4", method="none")}
    return [
        Part(Context(source.sample(n, seed), "class", recipe, tasks_of(target)), (Row(np.ones(8), seed),),
             f"{n} images, {name}, seed {seed}")
        for n in (80, 160) for name, recipe in recipes.items() for seed in (1, 2)
    ]  # fmt: skip


def run(parts: list[Part], folder: Path, keep: str = "none") -> None:
    with ThreadPoolExecutor(1) as one:
        run_parts(parts, folder, one, progress=False, keep=keep)


@pytest.mark.slow
def test_one_pilot_a_recipe_and_none_once_like_rows_are_stored(parts: list[Part], tmp_path: Path) -> None:
    cost = cost_of(parts, tmp_path, workers=2, price=3.0)
    assert (cost.rows, cost.stored, cost.kept, cost.workers, cost.timed) == (12, 0, 0, 2, 3)
    assert cost.seconds > cost.longest > 0
    assert cost.hours == max(cost.seconds / 2, cost.longest) / 3600
    assert cost.money == 3 * cost.hours
    assert str(cost).splitlines()[0] == "12 rows, 0 of them stored"
    assert not tmp_path.joinpath("rows").exists()

    done = [part for part in parts if part.name.endswith("seed 1")]
    run(done, tmp_path)
    size = sum(path.stat().st_size for path in (tmp_path / "rows").rglob("*.safetensors"))
    assert cost.bytes == pytest.approx(2 * size, rel=0.1)
    rest = cost_of(parts, tmp_path, workers=2)
    assert (rest.rows, rest.stored, rest.timed) == (12, 6, 0)
    assert rest.bytes == pytest.approx(size, rel=0.01)
    whole = cost_of(done, tmp_path)
    assert (whole.rows, whole.stored, whole.seconds, whole.hours, whole.bytes) == (6, 6, 0, 0, 0)


@pytest.mark.slow
def test_rows_whose_networks_are_in_the_bank_train_nothing(parts: list[Part], tmp_path: Path) -> None:
    few = [parts[0], parts[6]]
    run(
        [Part(replace(one.context, tasks=one.context.tasks[:1]), one.rows, one.name) for one in few],
        tmp_path,
        "weights",
    )
    cost = cost_of(few, tmp_path, keep="weights")
    assert (cost.stored, cost.kept, cost.bank_bytes) == (0, 2, 0)
    fresh = cost_of(few, keep="weights")
    entry = next((tmp_path / "bank").rglob("*.safetensors")).stat().st_size
    assert fresh.kept == 0
    assert fresh.bank_bytes == pytest.approx(2 * entry, rel=0.4), "the header of a small file is much of it"


@pytest.mark.slow
def test_trials_count_until_the_rates_are_chosen(parts: list[Part], tmp_path: Path) -> None:
    first, rates = parts[:1], (0.001, 0.01)
    cost = cost_of(first, tmp_path, tried=first, rates=rates)
    assert 0 < cost.trials < cost.seconds
    assert "trials of learning rates" in str(cost)
    with ThreadPoolExecutor(1) as one:
        choose_rates_of(first, tmp_path, rates, one, progress=False)
    assert cost_of(first, tmp_path, tried=first, rates=rates).trials == 0


def test_rows_of_the_users_own_are_timed_whole() -> None:
    context = Context(StubSource(), "class", StubRecipe(seconds=0.01), (StubTask(), StubTask("letters")))
    rows = tuple(Row(np.ones(GROUPS, bool), seed) for seed in (1, 2, 3))
    cost = cost_of([Part(context, rows[:2], "a"), Part(context, rows, "b")], workers=1, runner=stub_row)
    assert (cost.rows, cost.timed) == (3, 1)
    assert cost.seconds == pytest.approx(3 * cost.longest)


def test_bad_input_is_refused(parts: list[Part]) -> None:
    with pytest.raises(ConfigError, match="workers"):
        cost_of(parts, workers=0)
    with pytest.raises(ConfigError, match="price"):
        cost_of(parts, price=-1.0)
    with pytest.raises(ConfigError, match="at least one"):
        cost_of([])
