"""Retraining: rows without some groups, trained beside the rows of a plan in the same store and judged on the report
half with few-shot draws that the plan never saw.

A row's seed and random set follow from what it is, not from its place in a list: more repeats or sizes keep the rows
that are there, and analyses share them. A random set of groups is drawn anew for every repeat and matched in images to
what it is compared with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pydt.base import ConfigError, Short, generator, one_of, seed31, t975
from pydt.ensemble import Plan, Runner, announce, run_rows
from pydt.reporting import ACCURACY, Metric
from pydt.store import Measure, Record, Row, Store

if TYPE_CHECKING:
    from pydt.training import Recipe, Task


KINDS = ("full", "drop bottom", "drop random", "drop top")
CONTROL = "drop random"
LENGTHS = ("epochs", "steps")
OWN = "own"
"""The length of rows that a program of the user's trains: it decides how long."""
LINE = "kind", "dropped", "rows", "failed", "mean", "sd", "low", "high"


@dataclass(frozen=True, eq=False, repr=False)
class Arm(Short):
    """All retrained rows of one kind without the same number of groups.

    Attributes:
        kind: one of KINDS, or what an analysis calls it; dropped: groups left out.
        names: of the groups that each row left out.
        accuracy: float64 (rows,) the task's metric on the report half, mean over draws: a fraction, or of a
            `pydt.Measure` the number as rows store it.
        correct: float32 (rows, examples) share of draws that were right; for AUROC the images' values, see
            `pydt.training.transfer.auroc`; of a measure its values.
        failed: further rows of this arm that gave no outputs.
        metric: of the task: its name, unit and direction.
    """

    kind: str
    dropped: int
    rows: tuple[Row, ...]
    names: tuple[tuple[str, ...], ...]
    accuracy: np.ndarray
    correct: np.ndarray
    failed: int = 0
    metric: Metric = ACCURACY

    @property
    def mean(self) -> float:
        return float(self.accuracy.mean())

    @property
    def goodness(self) -> float:
        """The mean, with the sign by which more is better."""
        return self.metric.sign * self.mean

    @property
    def sd(self) -> float | None:
        """Spread between retrainings; None for a single row."""
        return float(self.accuracy.std(ddof=1)) if len(self.accuracy) > 1 else None

    @property
    def reach(self) -> float:
        """Half the width of the mean's 95 % interval over retrainings, on the same images; NaN of a single row."""
        n = len(self.accuracy)
        return math.nan if self.sd is None else t975(n - 1) * self.sd / math.sqrt(n)

    @property
    def line(self) -> tuple[Any, ...]:
        """What a table of pandas says of it: `LINE`."""
        sd, low, high = math.nan if self.sd is None else self.sd, self.mean - self.reach, self.mean + self.reach
        return self.kind, self.dropped, len(self.rows), self.failed, self.mean, sd, low, high


@dataclass(frozen=True, eq=False)
class Retraining:
    """Where an analysis retrains (beside the rows of a plan, in its store) and how: see `pydt.run`."""

    store: Store
    plan: Plan
    runner: Runner
    executor: Executor | None
    workers: int | None
    progress: bool | str
    limit: float | None = None

    def announce(self, tasks: tuple[Task, ...], jobs: Sequence[tuple[Recipe, Sequence[Row]]]) -> None:
        """Say how many retrainings are about to begin, and how long they will take."""
        listed = [(recipe, tasks, rows) for recipe, rows in jobs]
        announce(self.store, self.plan, listed, self.executor, self.workers, self.progress)

    def run(self, tasks: tuple[Task, ...], rows: Sequence[Row], recipe: Recipe | None = None) -> Store:
        """Train rows that are not stored yet, by default with the plan's recipe, and transfer each to all tasks.

        Returns:
            The store with these rows as its plan: `finished()` are positions in `rows`.
        """
        plan = self.plan
        return run_rows(
            plan.source, plan.by, recipe or plan.recipe, tasks, rows, self.store.folder, self.executor,
            workers=self.workers, runner=self.runner, progress=self.progress, limit=self.limit,
        )  # fmt: skip


def recipes_of(plan: Plan, steps: str, where: str = "removal_curve") -> dict[str, Any]:
    """The recipe for each length asked for.

    Args:
        steps: "epochs" for the plan's epochs, where a smaller source trains for fewer steps; "same" for the steps that
            the full source takes; "both". A recipe with `steps` allows only "same"; a function or a command has one
            length, its own, whatever is asked but "same".
        where: that asks.
    """
    one_of(steps, ("epochs", "same", "both"), "steps", where)
    recipe = plan.recipe
    if not hasattr(recipe, "budget"):  # a function or a command
        if steps == "same":
            mend = "leave it out: the program that trains a row decides how long it trains"
            raise ConfigError(f'"same" of a {type(recipe).__name__}, which has no steps', "steps", mend)
        return {OWN: recipe}
    budget = recipe.budget[0]
    if budget != "epochs":
        if steps == "epochs":
            mend = f'use "same", or a plan whose recipe has no {budget}'
            raise ConfigError(f"the recipe says {budget}, not epochs", "steps", mend)
        return {"steps": recipe}
    from pydt.training import steps_of

    found = {"epochs": recipe, "steps": replace(recipe, epochs=None, steps=steps_of(recipe, len(plan.source)))}
    return {name: found[name] for name in LENGTHS if steps in ("both", {"epochs": "epochs", "steps": "same"}[name])}


def other_draws(task: Task) -> Task:
    """The same task with few-shot draws that no plan with `task` has seen."""
    if isinstance(task, Measure):
        return task  # there are no draws: the retrained rows have seeds of their own
    # By the task's seed, since its digest changes with the version of what it describes.
    return replace(task, seed=seed31("counterfactual draws", task.seed), name=f"{task.name}, other draws")


def group_images(plan: Plan) -> np.ndarray:
    """Images, or other examples, of each group of a plan, int64 (groups,)."""
    units, names = plan.context.units
    return np.bincount(units[units >= 0], minlength=len(names))


def arm_rows(
    values: np.ndarray,
    images: np.ndarray,
    sizes: Sequence[int],
    repeats: Sequence[int],
    seed: int,
    kinds: Sequence[str] = KINDS[1:],
) -> list[Row]:
    """The rows of "full" (as many as the first of `repeats`) and, for each size, of the other kinds.

    Args:
        values: (groups,) by which they are ranked. images: (groups,) of each.
        sizes, repeats: groups left out, and rows for each.
        kinds: of KINDS, without "full". A random set has as many images as the others of its size have on average.
    """
    groups = len(values)
    order = np.argsort(values, kind="stable")
    wanted = [("full", 0, repeat) for repeat in range(repeats[0])]
    for size, count in zip(sizes, repeats, strict=True):
        wanted += [(kind, size, repeat) for repeat in range(count) for kind in kinds]
    rows = []
    for kind, size, repeat in wanted:
        arms = {"full": order[:0], "drop bottom": order[:size], "drop top": order[groups - size :]}
        if kind == CONTROL:
            alike = [images[arms[other]].sum() for other in kinds if other != CONTROL]
            mean = float(np.mean(alike)) if alike else size * float(images.mean())
            rows.append(random_row(images, size, repeat, seed, mean))
        else:
            rows.append(_row(kind, groups, arms[kind], repeat, seed))
    return rows


def random_row(images: np.ndarray, size: int, repeat: int, seed: int, wanted: float) -> Row:
    """The row of CONTROL without so many random groups, which have about as many images as `wanted`."""
    dropped = matched(generator("random groups", seed, size, repeat), images, size, wanted)
    return _row(CONTROL, len(images), dropped, repeat, seed)


def _row(kind: str, groups: int, dropped: np.ndarray, repeat: int, seed: int) -> Row:
    return Row(without(groups, dropped), seed31("counterfactual", seed, kind, len(dropped), repeat), kind)


def without(groups: int, dropped: npt.ArrayLike = ()) -> Any:
    """The mask that keeps all groups but those, bool (groups,)."""
    mask = np.ones(groups, bool)
    mask[np.asarray(dropped, np.int64)] = False
    return mask


def matched(random: np.random.Generator, images: np.ndarray, size: int, wanted: float) -> np.ndarray:
    """A random set of groups with about as many images as `wanted`, the closest of 64 draws.

    With groups of one size every draw matches and the first is taken, so the set is uniformly random.
    """
    draws = [random.permutation(len(images))[:size] for _ in range(64)]
    return min(draws, key=lambda dropped: abs(float(images[dropped].sum()) - wanted))


def arms_of(store: Store, record: Record, task: str) -> list[Arm]:
    """The finished rows by kind and number of groups left out, judged on the report half of a task."""
    rows = store.rows(record)
    correct = np.asarray(store.outputs(task, store.metric_output(task, record), "report", record))
    weights = store.examples(task, "report", record)["weights"]
    metric = Metric.of_task(store.described(task, record))
    lost = Counter((row.kind, int((~row.mask).sum())) for _, row, _ in store.failed(record))
    members: dict[tuple[str, int], list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault((row.kind, int((~row.mask).sum())), []).append(i)
    order = [*KINDS, *dict.fromkeys(kind for kind, _ in members if kind not in KINDS)]
    arms = []
    for (kind, dropped), where in sorted(members.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        chosen = tuple(rows[i] for i in where)
        names = tuple(tuple(record.names[j] for j in np.flatnonzero(~row.mask)) for row in chosen)
        accuracy = correct[where].astype(np.float64) @ weights
        arms.append(Arm(kind, dropped, chosen, names, accuracy, correct[where], lost[kind, dropped], metric))
    return arms
