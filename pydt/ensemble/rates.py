"""Learning rates of transfer, chosen on validation images from a grid that is equal for all tasks of a plan (or parts).

A trial is a row of the same store: one of the plan's own trainings, transferred at one rate of the grid, which stores
outputs of validation images alone. Its target is guarded (`pydt.data.GuardedTarget`): the judged halves are not there.

    loss of a rate = mean over rows, draws and images of log(1 + exp(logsumexp of the other logits - correct logit))

The least loss is chosen. R rows and D draws are crossed, so

    variance of the mean = var(row means) / R + var(draw means) / D - var(residuals) / (R D)

and not less than either of the first two terms. A row that fails at one rate alone rules that rate out; one that fails
at all of them tells nothing of rates and is left out. Parts choose apart from each other: adding one changes no choice.
Where no rate is left, a plan is refused; a task of a part is undecided, and the other parts go on.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pydt.base import ConfigError, PydtError, TrainError, digest, real, whole
from pydt.data import guarded
from pydt.ensemble.driver import run_asked
from pydt.ensemble.parts import Asked, Part, asked_of
from pydt.ensemble.plan import Context, Plan, check, make_record
from pydt.ensemble.row import Runner, run_row
from pydt.ensemble.tried_rates import RatesResult, TriedRate
from pydt.store import Record, Row, Store, primitives_of, read_choice, write_choice

if TYPE_CHECKING:
    from pydt.data import GuardedTarget, Target
    from pydt.training import Task

ROWS = 4
"""Rows of a plan on which rates are tried, unless it says otherwise."""
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class ChosenRates(RatesResult):
    """Chosen learning rates.

    Attributes:
        plan: the plan with the chosen rate in each of its tasks that has one.
        table: one entry for each task and rate, rates from the lowest to the highest.
        notes: what a reader must know: failures, and choices at the edge of the grid.
    """

    plan: Plan
    table: tuple[TriedRate, ...]
    notes: tuple[str, ...]

    @property
    def tried(self) -> tuple[TriedRate, ...]:
        """As `table`."""
        return self.table


def choose_rates(
    plan: Plan,
    dir: str | os.PathLike[str],
    rates: Sequence[float],
    rows: int = ROWS,
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    runner: Runner = run_row,
    progress: bool | str = True,
    limit: float | None = None,
    keep_bytes: int | None = None,
) -> ChosenRates:
    """Choose the learning rate of every task of a plan whose mode has one, by the loss on validation images.

    All tasks try the same rates on the same rows. Trials and choices are stored in `dir`: the same call continues a
    killed one, and runs nothing once the choices are stored. The networks of the rows are kept in the store's bank: a
    rate added later, and the same rows of the plan, train no source (with the default runner; rows of a drawn design of
    more than 4,096 groups have other names in a plan, and are trained again).

    Args:
        plan: whose tasks get a rate.
        dir: folder of the store, made if needed.
        rates: the grid, two or more.
        rows: on so many rows of the plan, its first ones; all, if it has fewer.
        executor, workers, runner, progress, limit, keep_bytes: as in `pydt.run`.

    Returns:
        The plan with the chosen rates, and how each rate did.

    Raises:
        ConfigError: rates that are no numbers above 0, that are repeated, or fewer than two; no task has a rate.
        DataError: a target has no validation images.
        TrainError: at every rate some row failed, or all rows did.
        PydtError: as `pydt.run`.
    """
    asked = _asked(plan, rates, rows)
    more: dict[str, Any] = {"workers": workers, "runner": runner, "progress": progress, "limit": limit}
    _choose([("", asked)], dir, executor, keep_bytes=keep_bytes, **more)
    found = _stored(dir, asked)
    assert found is not None
    return _result(plan, asked, found)


def chosen_rates(
    plan: Plan, dir: str | os.PathLike[str], rates: Sequence[float], rows: int = ROWS
) -> ChosenRates | None:
    """What `choose_rates` with these arguments has stored; None if it has not chosen yet.

    Raises:
        PydtError: as `choose_rates` for bad arguments; a stored choice is damaged.
    """
    asked = _asked(plan, rates, rows)
    found = _stored(dir, asked)
    return None if found is None else _result(plan, asked, found)


@dataclass(frozen=True, eq=False, repr=False)
class RatesOfPart(RatesResult):
    """Chosen learning rates of a part.

    Attributes:
        tasks: of the part, with the chosen rate in each that has one.
        table: one entry for each task and rate, rates from the lowest to the highest.
        notes: what a reader must know: failures, and choices at the edge of the grid.
        undecided: names of the tasks at which some row failed at every rate; they have the lowest one.
    """

    tasks: tuple[Any, ...]
    table: tuple[TriedRate, ...]
    notes: tuple[str, ...]

    @property
    def tried(self) -> tuple[TriedRate, ...]:
        """As `table`."""
        return self.table

    @property
    def undecided(self) -> tuple[str, ...]:
        return tuple(tried.task for tried in self.table if tried.chosen and tried.loss is None)


def choose_rates_of(
    parts: Sequence[Part],
    dir: str | os.PathLike[str],
    rates: Sequence[float],
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    runner: Runner = run_row,
    progress: bool | str = True,
    limit: float | None = None,
    same_code: bool = False,
    keep_bytes: int | None = None,
) -> list[RatesOfPart]:
    """`choose_rates` for many parts, in one run: each part chooses its own rates, on all of its rows.

    Args:
        parts: whose tasks get a rate; one without a task that has a rate stays as it is.
        rates: the grid, two or more.
        dir, executor, workers, runner, progress, limit, same_code, keep_bytes: as in `run_parts`.

    Returns:
        The choices, one entry a part.

    Raises:
        PydtError: as `choose_rates`, the part is named; but a task for which no rate works is undecided.
    """
    asked = _asked_of(parts, rates)
    more: dict[str, Any] = {"workers": workers, "runner": runner, "progress": progress, "limit": limit}
    _choose(
        [(one.name, of) for one, of in zip(asked_of(parts), asked, strict=True)],
        dir,
        executor,
        keep_bytes=keep_bytes,
        same_code=same_code,
        undecided=True,
        **more,
    )
    found = [_of_part(part, of, _stored(dir, of, True)) for part, of in zip(parts, asked, strict=True)]
    assert None not in found
    return [one for one in found if one is not None]


def chosen_rates_of(
    parts: Sequence[Part], dir: str | os.PathLike[str], rates: Sequence[float]
) -> list[RatesOfPart | None]:
    """What `choose_rates_of` with these arguments has stored, one entry a part; None where it has not chosen yet.

    Raises:
        PydtError: as `choose_rates_of` for bad arguments; a stored choice is damaged.
    """
    asked = _asked_of(parts, rates)
    return [_of_part(part, of, _stored(dir, of, True)) for part, of in zip(parts, asked, strict=True)]


def check_rates(plan: Plan, rates: Any, rows: Any) -> tuple[float, ...]:
    """The rates, from the lowest to the highest; raises what `choose_rates` does before anything is trained."""
    grid = _grid(rates)
    whole(rows, "rows", "choose_rates", 1, error=ConfigError)
    if not _with_rates(plan.context):
        modes = ", ".join(sorted({repr(task.mode) for task in plan.tasks}))
        raise ConfigError(f"no task has a learning rate (mode {modes})", "rates", "leave the rates out")
    return grid


def check_rates_of(parts: Sequence[Part], rates: Any) -> tuple[float, ...]:
    """The rates, from the lowest to the highest; raises what `choose_rates_of` does before anything is trained."""
    _asked_of(parts, rates)
    return _grid(rates)


def _grid(rates: Any) -> tuple[float, ...]:
    mend = "give a list of two or more, for instance [0.003, 0.01, 0.03, 0.1]"
    if isinstance(rates, (str, bytes)) or not hasattr(rates, "__iter__"):
        raise ConfigError(f"is {rates!r}, not a list", "rates", mend)
    grid = sorted(real(rate, f"rates[{i}]", None, above=0) for i, rate in enumerate(rates))
    if len(grid) < 2:
        one = "is one rate, which leaves nothing to choose" if grid else "is empty"
        alone = "give two or more, or put the one into the task: finetune.lr" if grid else mend
        raise ConfigError(one, "rates", alone)
    for low, high in itertools.pairwise(grid):
        if low == high:
            raise ConfigError(f"{low:g} is there twice", "rates", "give each rate once")
    return tuple(grid)


def _with_rates(context: Context) -> list[Task]:
    """The tasks of a context that have a rate; raises ConfigError where none could be chosen for them."""
    if hasattr(context.recipe, "compute"):
        wrong = f"rows of a pydt.{type(context.recipe).__name__} have no learning rate that pydt knows"
        raise ConfigError(wrong, "rates", "leave the rates out; a rate of your own is a setting of your rows")
    tasks = [task for task in context.tasks if task.rate is not None]
    if tasks and getattr(context.recipe, "method", None) == "none" and context.recipe.scratch.lr is not None:
        wrong = f"is {context.recipe.scratch.lr:g}, with which untrained networks are fine-tuned whatever rate is tried"
        raise ConfigError(wrong, "Recipe.scratch.lr", "leave it out, or leave the rates out")
    for task in tasks:
        guarded(task.target)  # refuses one without validation images
    return tasks


def tried_of(choice: Mapping[str, Any]) -> list[TriedRate]:
    """A stored choice as a table."""
    same = {"task": choice["name"], **{name: choice[name] for name in ("rows", "draws", "images")}}
    tried = [{name: value for name, value in one.items() if name != "trial"} for one in choice["grid"]]
    return [TriedRate(**same, **one, chosen=one["rate"] == choice["chosen"]) for one in tried]


def notes_of(tried: Sequence[TriedRate]) -> list[str]:
    """What a reader must know of the choice of one task."""
    notes, task = [], tried[0].task
    if all(one.failed for one in tried):
        return [f"{task}: at every rate a row failed, so no rate was chosen"]
    for one in tried:
        if one.failed:
            which = f"{one.failed} of {one.rows} rows" if one.rows > 1 else "the row"
            notes.append(f"{task}: at the rate {one.rate:g}, {which} failed, so it was not chosen")
    return notes + edge_notes(tried)


def edge_notes(tried: Sequence[TriedRate]) -> list[str]:
    """A note if the choice of one task is at an edge of the grid."""
    notes, task = [], tried[0].task
    for end, word in ((tried[0], "lowest"), (tried[-1], "highest")):
        if end.chosen:
            side = "lower" if word == "lowest" else "higher"
            notes.append(f"{task}: the chosen rate {end.rate:g} is the {word} of the grid: a {side} one may be better")
    return notes


@dataclass(frozen=True)
class _Asked:
    """A task, its trials from the lowest to the highest rate, the rows to try them on, and the source keys of those."""

    task: Task
    rates: tuple[float, ...]
    trials: tuple[Task, ...]
    rows: tuple[Row, ...]
    context: Context
    trainings: list[str]

    @cached_property
    def digest(self) -> str:
        return digest("choice of a rate", self.trainings, [trial.digest for trial in self.trials])


class _Trials:
    """Trials of tasks, made once for all parts that share a task or a target."""

    def __init__(self, grid: tuple[float, ...]) -> None:
        self.grid = grid
        self._targets: dict[int, tuple[Target, GuardedTarget]] = {}  # by id, of objects that are held here
        self._trials: dict[int, tuple[Task, tuple[Task, ...]]] = {}

    def of(self, task: Task) -> tuple[Task, ...]:
        """The trials of a task, from the lowest to the highest rate."""
        if id(task) not in self._trials:
            target = task.target
            if id(target) not in self._targets:
                self._targets[id(target)] = target, guarded(target)
            trial = replace(task, target=self._targets[id(target)][1], part="validation")
            name = f"{task.name}, rate {{!r}} on validation images"
            self._trials[id(task)] = task, tuple(replace(trial.at(r), name=name.format(r)) for r in self.grid)
        return self._trials[id(task)][1]

    def asked(self, context: Context, rows: tuple[Row, ...]) -> list[_Asked]:
        """One question for each task of a context that has a rate."""
        tasks = _with_rates(context)
        trainings = list(make_record(context, rows).sources) if tasks else []
        return [_Asked(task, self.grid, self.of(task), rows, context, trainings) for task in tasks]


def _asked(plan: Plan, rates: Any, rows: int) -> list[_Asked]:
    trials = _Trials(check_rates(plan, rates, rows))
    return trials.asked(plan.context, tuple(dict.fromkeys(plan.rows()[:rows])))


def _asked_of(parts: Sequence[Part], rates: Any) -> list[list[_Asked]]:
    """The questions of each part."""
    trials, found = _Trials(_grid(rates)), []
    for one, part in zip(asked_of(parts), parts, strict=True):
        try:
            found.append(trials.asked(part.context, tuple(dict.fromkeys(part.rows))))
        except PydtError as error:
            raise type(error)(error.what, f"{one.name}, {error.where}", error.mend) from error
    if not any(found):
        raise ConfigError("no task of any part has a learning rate", "rates", "leave the rates out")
    return found


def _choose(
    parts: Sequence[tuple[str, Sequence[_Asked]]],
    dir: str | os.PathLike[str],
    executor: Executor | None,
    *,
    runner: Runner,
    undecided: bool = False,
    **more: Any,
) -> None:
    """Run the trials of named parts, and store the choices that are not stored yet."""
    left = [(name, asked) for name, asked in parts if _stored(dir, asked, undecided) is None]
    if not left:
        return
    jobs = []
    for name, asked in left:
        context = replace(asked[0].context, tasks=tuple(trial for one in asked for trial in one.trials))
        check(context, asked[0].rows)
        jobs.append(Asked(name, context, make_record(context, asked[0].rows)))
    store = run_asked(jobs, dir, executor, runner=runner, keep="weights" if runner is run_row else "none", **more)
    for (_, asked), job in zip(left, jobs, strict=True):
        for number, one in enumerate(asked):
            write_choice(store, _choice(store, job.record, one, number * len(one.trials), undecided))


def _stored(
    dir: str | os.PathLike[str], asked: Sequence[_Asked], undecided: bool = False
) -> list[dict[str, Any]] | None:
    """The stored choices, one for each question; None if one is missing, or undecided where that is none."""
    if not asked:
        return []
    if not (Path(dir) / "store.json").exists():
        return None
    store = Store(dir)
    found = [choice for one in asked if (choice := read_choice(store, one.digest)) is not None]
    if not undecided:
        found = [choice for choice in found if not all(tried["failed"] for tried in choice["grid"])]
    return found if len(found) == len(asked) else None


def _result(plan: Plan, asked: Sequence[_Asked], found: Sequence[dict[str, Any]]) -> ChosenRates:
    tasks, table, notes = _chosen(plan.tasks, asked, found)
    return ChosenRates(replace(plan, tasks=tasks), table, notes)


def _of_part(part: Part, asked: Sequence[_Asked], found: Sequence[dict[str, Any]] | None) -> RatesOfPart | None:
    return None if found is None else RatesOfPart(*_chosen(part.context.tasks, asked, found))


def _chosen(
    tasks: Sequence[Task], asked: Sequence[_Asked], found: Sequence[dict[str, Any]]
) -> tuple[tuple[Task, ...], tuple[TriedRate, ...], tuple[str, ...]]:
    """Tasks with their chosen rates, table and notes."""
    rate = {one.task.name: choice["chosen"] for one, choice in zip(asked, found, strict=True)}
    # equal questions of plans that call a task otherwise have one stored choice
    tables = [tried_of({**choice, "name": one.task.name}) for one, choice in zip(asked, found, strict=True)]
    notes = tuple(note for table in tables for note in notes_of(table))
    with_rates = tuple(task.at(rate[task.name]) if task.name in rate else task for task in tasks)
    return with_rates, tuple(tried for table in tables for tried in table), notes


def _choice(store: Store, record: Record, asked: _Asked, column: int, undecided: bool) -> dict[str, Any]:
    """The choice of a task's rate by the stored trials, whose first task is at `column` of their plan.

    Raises:
        TrainError: no rate is left, and that is not to be stored as undecided.
    """
    number = len(asked.trials)
    labels = store.task(asked.trials[0].digest)["labels"]
    found: dict[tuple[int, int], Array] = {}
    reason = "no reason given"
    for i, j in np.ndindex(len(asked.rows), number):
        key = record.keys[i][column + j]
        outcome = store.get(key)
        if outcome.status == "ok":
            found[i, j] = _loss_and_right(primitives_of(outcome, len(labels), str(store.path(key))), labels)
        else:
            reason = outcome.reason or reason
    rows = sorted({i for i, _ in found})
    if not rows and undecided:
        rows = list(range(len(asked.rows)))
    failed = [sum((i, j) not in found for i in rows) for j in range(number)]
    if (not rows or all(failed)) and not undecided:
        wrong = "at every rate a row failed" if rows else "every trial failed"
        mend = "try lower rates too, or mend what the reason names"
        raise TrainError(f"{wrong} ({reason})", f"rates of task {asked.task.name!r}", mend)
    # (loss and share of right predictions, rows, draws) of each rate at which no row failed
    values = {j: np.stack([found[i, j] for i in rows], 1) for j in range(number) if not failed[j]}
    best = min(values, key=lambda j: (values[j][0].mean(), j), default=0)  # the lowest rate on a tie
    grid = []
    for j, trial in enumerate(asked.trials):
        own = values.get(j)
        of = (None, None, None) if own is None else (own[0], own[1], own[0] - values[best][0])
        (loss, stderr), (accuracy, its), (behind, that) = map(_mean, of)
        numbers = {"loss": loss, "stderr": stderr, "accuracy": accuracy, "accuracy_stderr": its}
        numbers |= {"behind": behind, "behind_stderr": that}
        grid.append({"rate": asked.rates[j], "trial": trial.digest, "failed": failed[j], **numbers})
    chosen = asked.rates[best]
    return {
        "question": asked.digest,
        "task": asked.task.at(chosen).digest,
        "name": asked.task.name,
        "target": asked.task.target.digest,
        "source": asked.context.source_digest,
        "units": asked.context.units_digest,
        "recipe": asked.context.recipe.digest,
        "trainings": asked.trainings,
        "images": len(labels),
        "rows": len(rows),
        "draws": values[best].shape[2] if values else asked.task.draws,
        "chosen": chosen,
        "grid": grid,
    }


def _loss_and_right(primitives: np.ndarray, labels: np.ndarray) -> Array:
    """Mean cross-entropy and share of right predictions, float64 (2, draws)."""
    correct, _, others, prediction = primitives.astype(np.float64)
    return np.stack([np.logaddexp(0.0, others - correct).mean(1), (prediction == labels).mean(1)])


def _mean(values: Array | None) -> tuple[float | None, float | None]:
    """Mean and standard error of values (rows, draws); formula at the top. None for what is not known."""
    if values is None:
        return None, None
    mean, (rows, draws) = float(values.mean()), values.shape
    of_rows, of_draws = values.mean(1), values.mean(0)
    parts = [of.var(ddof=1) / len(of) for of in (of_rows, of_draws) if len(of) > 1]
    if not parts:
        return mean, None
    variance = sum(parts)
    if len(parts) == 2:
        rest = values - of_rows[:, None] - of_draws + mean
        variance -= (rest**2).sum() / ((rows - 1) * (draws - 1) * rows * draws)
    return mean, float(np.sqrt(max(variance, *parts)))
