"""Learning rates: what is chosen, from what, that it is stored, and that no judged label has a say."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stub_images import blobs
from stub_processes import started, wait_for
from stub_rows import environment

from pydt import design
from pydt.base import ConfigError, DataError, TrainError
from pydt.data import Dataset, GuardedTarget, Target
from pydt.ensemble import ChosenRates, Plan, RowInput, choose_rates, chosen_rates, run, run_row, write_plan
from pydt.store import Outcome, Store, read_choices, status, verify
from pydt.training import FineTune, Recipe, Scratch, Task, train, transfer

RATES = (0.1, 0.001, 0.01)
RECIPE = Recipe(network="convnet-4", epochs=1, batch_size=32)
TUNE = FineTune(epochs=2, batch_size=8)


def plan_of(source: Dataset, target: Target, rows: int = 6, **task: Any) -> Plan:
    how = {"mode": "finetune", "shots": 2, "draws": 2, "finetune": TUNE, "name": "tuned", **task}
    tasks = [Task(target, **how), Task(target, name="probed")]
    return Plan(source, design=design.random(8, rows), recipe=RECIPE, tasks=tasks, seed=5)


@pytest.fixture
def plan(source: Dataset, target: Target) -> Plan:
    return plan_of(source, target)


def choose(plan: Plan, folder: Path, rates: Any = RATES, rows: int = 3, runner: Any = run_row) -> ChosenRates:
    with ThreadPoolExecutor(1) as one:
        return choose_rates(plan, folder, rates, rows, one, runner=runner, progress=False)


calls: list[tuple[int, tuple[Any, ...]]] = []


def counting(given: RowInput) -> dict[str, Outcome]:
    row, tasks = given.row, given.tasks
    calls.append((row.seed, tasks))
    return run_row(given)


class Stopping(ThreadPoolExecutor):
    """Ctrl-C when the second row is handed out and the first one is done."""

    first: Any = None

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Any:
        if self.first is not None:
            self.first.result()
            raise KeyboardInterrupt
        self.first = super().submit(function, *arguments, **named)
        return self.first


@dataclass(frozen=True)
class Failing:
    """Rows of made-up numbers: the lower the rate, the lower the loss, but only the highest is right; some fail at one
    rate, or (None) at all.
    """

    rate: float | None
    seeds: tuple[int, ...]

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        row, tasks = given.row, given.tasks
        found = {}
        for task in tasks:
            random = np.random.default_rng([row.seed, int(1e4 * task.finetune.lr)])
            logits = random.normal(size=(4, task.draws, len(task.examples()["ids"]))).astype(np.float32)
            logits[0] += 10 * (1 - task.finetune.lr)
            logits[3] = task.examples()["labels"] if task.finetune.lr == max(RATES) else -1
            bad = row.seed in self.seeds and self.rate in (None, task.finetune.lr)
            found[task.digest] = Outcome(status="failed", reason="NaN") if bad else Outcome({"primitives": logits})
        return found


def loss_of(outputs: Any, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy (draws,) by torch, from logits of two classes that have the same primitives."""
    correct, _, others, _ = torch.from_numpy(outputs.primitives).double()
    two = torch.stack([correct, others], 2).reshape(-1, 2)
    loss = torch.nn.functional.cross_entropy(two, torch.zeros(len(two), dtype=torch.int64), reduction="none")
    return loss.reshape(correct.shape).mean(1).numpy()


def test_the_least_loss_on_validation_images_is_chosen(plan: Plan, tmp_path: Path) -> None:
    found = choose(plan, tmp_path)
    whole = plan.tasks[0].target
    labels = whole.train.labels[whole.split["validation"]]
    for one in found.table:
        losses, right = [], []
        for row in plan.rows()[:3]:
            trained = train(plan.source, plan.context.keep_examples(row), plan.recipe, row.seed)
            trial = replace(plan.tasks[0], part="validation", finetune=replace(TUNE, lr=one.rate))
            outputs = transfer(trained, trial, row.seed)
            assert outputs.primitives.shape == (4, 2, 20)
            assert set(outputs.scalars) == {"validation_accuracy"}
            losses.append(loss_of(outputs, labels))
            right.append((outputs.primitives[3] == labels).mean())
        assert one.loss == pytest.approx(np.mean(losses), abs=1e-6)
        assert one.accuracy == pytest.approx(np.mean(right))
        assert (one.rows, one.draws, one.images, one.failed) == (3, 2, 20, 0)
    assert [one.rate for one in found.table] == sorted(RATES)
    best = min(found.table, key=lambda one: one.loss or np.inf)
    assert [one.chosen for one in found.table] == [one is best for one in found.table]
    assert found.plan.tasks[0] == plan.tasks[0].at(best.rate)
    assert found.plan.tasks[0].digest != plan.tasks[0].digest
    assert found.plan.tasks[1] is plan.tasks[1]
    assert best.behind == best.behind_stderr == 0


def test_the_rows_of_the_chosen_plan_follow_from_it_alone(plan: Plan, tmp_path: Path) -> None:
    made = choose(plan, tmp_path / "chosen").plan
    task = plan.tasks[0].at(made.tasks[0].finetune.lr)
    by_hand = replace(plan, tasks=[task, plan.tasks[1]])
    assert made.digest == by_hand.digest
    with ThreadPoolExecutor(1) as one:
        ours = run(made, tmp_path / "chosen", one, progress=False)
        theirs = run(by_hand, tmp_path / "by hand", one, progress=False)
    assert np.array_equal(ours.outputs("tuned"), theirs.outputs("tuned"))
    assert status(tmp_path / "chosen")["rows"] == 6, "of the plan, not of its trials"
    assert verify(tmp_path / "chosen")["verified"]


def test_a_choice_names_the_source_as_plans_do_captions_included(target: Target, tmp_path: Path) -> None:
    images, labels = blobs(12, 8, 0)
    words = [f"a square at place {label}" for label in labels]
    captioned = Dataset.from_arrays(images, labels, captions=words, name="captioned")
    plan = replace(plan_of(captioned, target, mode="lp-ft"), recipe=replace(RECIPE, method="clip"))
    found = choose(plan, tmp_path, rows=1)
    (choice,) = read_choices(Store(tmp_path))
    record = found.plan.record()
    assert {name: choice[name] for name in ("source", "units", "recipe")} == {
        "source": record.source,
        "units": record.units,
        "recipe": record.recipe,
    }
    assert choice["source"] != captioned.digest


def test_all_rates_of_a_row_are_one_training(plan: Plan, tmp_path: Path) -> None:
    calls.clear()

    def told() -> list[tuple[int, int]]:
        return [(seed, len(tasks)) for seed, tasks in calls]

    first = choose(plan, tmp_path, runner=counting)
    assert told() == [(row.seed, 3) for row in plan.rows()[:3]]
    assert choose(plan, tmp_path, runner=counting).table == first.table
    assert choose(plan, tmp_path, tuple(reversed(RATES)), runner=counting).table == first.table
    assert len(calls) == 3, "a stored choice runs nothing"
    choose(plan, tmp_path, (*RATES, 0.03), runner=counting)
    assert told()[3:] == [(row.seed, 1) for row in plan.rows()[:3]], "only the new rate"
    assert choose(plan, tmp_path, rows=2, runner=counting).table[0].rows == 2, "another question, of stored trials"
    assert len(calls) == 6


def test_no_source_is_trained_twice(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def noting(source: Dataset, keep: Any, recipe: Recipe, seed: int) -> Any:
        trained.append(seed)
        return train(source, keep, recipe, seed)

    monkeypatch.setattr("pydt.training.train", noting)
    seeds = [row.seed for row in plan.rows()]
    choose(plan, tmp_path)
    choose(plan, tmp_path, (*RATES, 0.03))
    assert trained == seeds[:3]
    with ThreadPoolExecutor(1) as one:
        run(choose(plan, tmp_path).plan, tmp_path, one, progress=False)
    assert sorted(trained) == sorted(seeds)


def test_a_choosing_that_was_stopped_continues_to_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    with Stopping(1) as one, pytest.raises(KeyboardInterrupt, match="1 of 3 rows are stored"):
        choose_rates(plan, tmp_path / "stopped", RATES, 3, one, progress=False)
    assert chosen_rates(plan, tmp_path / "stopped", RATES, 3) is None
    choose(plan, tmp_path / "stopped")
    choose(plan, tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert len(list((tmp_path / "whole" / "choices").iterdir())) == 1


def files(folder: Path) -> dict[str, bytes]:
    """But for the log, and for the index of saved data, which knows when their files were written."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("log.jsonl", "index.pydt")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killed_drivers_continue_to_the_same_bytes_on_one_and_two_workers(
    plan: Plan, tmp_path: Path, marker: str
) -> None:
    for name in ("whole", "killed"):
        write_plan(plan, tmp_path / name / "study.toml", dir="store", rates=RATES, rate_rows=3)

    def start(name: str, workers: int) -> subprocess.Popen[bytes]:
        code = "from pydt.cli import main; main()"
        command = [sys.executable, "-c", code, "run", str(tmp_path / name / "study.toml"), "--workers", str(workers)]
        started.append(subprocess.Popen(command, env=environment(marker), start_new_session=True))
        return started[-1]

    def stored(name: str) -> int:
        return len(list((tmp_path / name / "store").glob("rows/*/*.safetensors")))

    assert start("whole", 1).wait(120) == 0
    assert stored("whole") == 3 * 3 + 6 * 2
    for goal in (1, 4, 8, 12):  # while rates are tried, and while the plan is trained
        driver = start("killed", 2)
        wait_for(lambda goal=goal, driver=driver: stored("killed") >= goal or driver.poll() is not None, 120)
        driver.kill()
        driver.wait()
    assert start("killed", 2).wait(120) == 0
    ours, theirs = files(tmp_path / "whole" / "store"), files(tmp_path / "killed" / "store")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def garbled(target: Target, digest: str) -> Target:
    """The same target with other labels in its judged halves, under the same digest."""
    labels = target.judged.labels.copy()
    for half in ("score", "report"):
        labels[target.split[half]] = (3 * labels[target.split[half]] + 1) % len(target.classes)
    side = "train" if target.test is None else "test"
    made = replace(target)
    object.__setattr__(made, side, replace(target.judged, labels=labels))
    vars(made).update(split=target.split, digest=digest)
    return made


@pytest.mark.parametrize("own_test", [False, True])
def test_judged_labels_have_no_say(source: Dataset, target: Target, tmp_path: Path, own_test: bool) -> None:
    images = target.train.images
    assert images is not None
    test = Dataset.from_arrays(255 - images, target.train.labels, target.classes) if own_test else None
    whole = Target(target.train, test, pool=40, validation=20)
    bad = garbled(whole, whole.digest)
    assert not np.array_equal(bad.described()["labels"], whole.described()["labels"])
    choose(plan_of(source, whole), tmp_path / "whole")
    choose(plan_of(source, bad), tmp_path / "garbled")
    ours, theirs = files(tmp_path / "whole"), files(tmp_path / "garbled")
    assert [name for name in ours if ours[name] != theirs.get(name)] == []


def test_a_trial_sees_a_guarded_target_and_is_no_task_of_a_plan(plan: Plan, tmp_path: Path) -> None:
    calls.clear()
    choose(plan, tmp_path, runner=counting)
    seen = [task for _, tasks in calls for task in tasks]
    assert all(isinstance(task.target, GuardedTarget) for task in seen)
    with pytest.raises(ConfigError, match="is a trial, judged on validation images"):
        replace(plan, tasks=[seen[0]])
    store = Store(tmp_path)
    (record,) = store.plans().values()
    for task in record.tasks:
        described = store.task(task["digest"])
        assert set(described["half"]) == {2}
        assert np.array_equal(described["ids"], plan.tasks[0].target.split["validation"])


def test_a_rate_at_which_a_row_failed_is_never_chosen(plan: Plan, tmp_path: Path) -> None:
    seeds = tuple(row.seed for row in plan.rows())
    found = choose(plan, tmp_path / "a", runner=Failing(0.001, seeds[:1]))
    assert [one.failed for one in found.table] == [1, 0, 0]
    assert found.table[0].loss is None
    assert [one.chosen for one in found.table] == [False, True, False], "by the loss"
    assert [one.accuracy for one in found.table] == [None, 0, 1]
    assert found.notes == ("tuned: at the rate 0.001, 1 of 3 rows failed, so it was not chosen",)
    alike = choose(plan, tmp_path / "b", runner=Failing(None, seeds[:1]))
    assert [(one.rows, one.failed) for one in alike.table] == [(2, 0)] * 3, "a row that always fails is left out"
    assert alike.notes == ("tuned: the chosen rate 0.001 is the lowest of the grid: a lower one may be better",)
    with pytest.raises(TrainError, match="rates of task 'tuned': every trial failed"):
        choose(plan, tmp_path / "c", runner=Failing(None, seeds))
    assert chosen_rates(plan, tmp_path / "c", RATES, 3) is None


def test_standard_errors_have_both_rows_and_draws(source: Dataset, target: Target, tmp_path: Path) -> None:
    """Planted spreads: of rows 0.5, of draws 0.3, of the rest 0.2; the error's square is right on average."""
    from pydt.ensemble.rates import _mean

    random = np.random.default_rng(0)
    rows, draws = 4, 6
    means, variances = [], []
    for _ in range(4000):
        values = 0.5 * random.normal(size=(rows, 1)) + 0.3 * random.normal(size=draws)
        mean, error = _mean(values + 0.2 * random.normal(size=(rows, draws)))
        assert error is not None
        means.append(mean)
        variances.append(error**2)
    true = 0.25 / rows + 0.09 / draws + 0.04 / (rows * draws)
    assert np.var(means) == pytest.approx(true, rel=0.1)
    assert np.mean(variances) == pytest.approx(true, rel=0.1)
    one = np.array([[1.0, 2.0, 4.0]])
    assert _mean(one)[1] == _mean(one.T)[1] == pytest.approx(one.std(ddof=1) / 3**0.5)
    assert _mean(one[:, :1]) == (1.0, None)


@pytest.mark.parametrize(
    ("rates", "wrong"),
    [
        ([], "rates: is empty"),
        (0.1, r"rates: is 0\.1, not a list"),
        ("0.1", r"rates: is '0\.1', not a list"),
        ([0.1], r"is one rate, which leaves nothing to choose.*finetune\.lr"),
        ([0.1, -0.01], r"rates\[1\] -0\.01 is out of range"),
        ([0.1, 0.0], r"rates\[1\] 0\.0 is out of range"),
        ([0.1, float("nan")], r"rates\[1\] nan is not a finite number"),
        ([float("inf"), 0.1], r"rates\[0\] inf is not a finite number"),
        ([0.1, 0.01, 0.1], r"rates: 0\.1 is there twice"),
        ([0.1, "x"], r"rates\[1\] 'x' is not a finite number"),
        ([0.1, True], r"rates\[1\] True is not a finite number"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(plan: Plan, tmp_path: Path, rates: Any, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        choose(plan, tmp_path / "store", rates)
    assert not (tmp_path / "store").exists()


def test_what_cannot_be_chosen_is_refused(source: Dataset, target: Target, plan: Plan, tmp_path: Path) -> None:
    probes = replace(plan, tasks=[plan.tasks[1]])
    scratch = replace(plan, recipe=replace(plan.recipe, method="none", scratch=Scratch(lr=0.1)))
    with pytest.raises(ConfigError, match=r"scratch\.lr: is 0\.1, .* whatever rate is tried"):
        choose(scratch, tmp_path / "store")
    with pytest.raises(ConfigError, match=r"no task has a learning rate \(mode 'probe'\)"):
        choose(probes, tmp_path / "store")
    with pytest.raises(DataError, match=r"four blobs: has no validation images.*validation=\.\.\."):
        choose(plan_of(source, replace(target, validation=0)), tmp_path / "store")
    for rows in (0, 1.5, True):
        with pytest.raises(ConfigError, match="choose_rates: rows"):
            choose(plan, tmp_path / "store", rows=rows)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()
    assert choose(plan_of(source, target, rows=2), tmp_path / "store", rows=9).table[0].rows == 2, "all there are"
