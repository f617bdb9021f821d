"""One row: everything that decides its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import DataError, TrainError, digest, escaped, shown
from pydt.store import VALUE, Kept, Measure, Outcome, Row


@dataclass(frozen=True, eq=False)
class Context:
    """What all rows of a run share."""

    source: Any
    by: str
    recipe: Any
    tasks: tuple[Any, ...]

    @cached_property
    def units(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Group of each example, int64 (examples,), -1 for none; and the groups' names."""
        unit, names = self.source.units(self.by)
        return np.asarray(unit, np.int64), tuple(names)

    @cached_property
    def units_digest(self) -> str:
        """Digest of the partition into groups."""
        return digest("units", self.units[0], list(self.units[1]))

    @cached_property
    def source_digest(self) -> str:
        """Digest of what the recipe reads of the source."""
        read = getattr(self.recipe, "source_digest", None)  # rows of a user's own have recipes of their own
        return str(self.source.digest if read is None else read(self.source))

    def keep_examples(self, row: Row) -> np.ndarray:
        """The examples a row trains on, bool (examples,): those of kept groups and those of no group."""
        return np.append(row.mask, True)[self.units[0]]  # -1 reads the appended entry


@dataclass(eq=False)
class Told:
    """What a runner says about a row besides its outputs.

    Attributes:
        notes: go into the store's log. log: what a program printed; a file of the store keeps it if the row fails.
    """

    notes: list[str] = field(default_factory=list)
    log: str = ""


def is_own(recipe: Any) -> bool:
    """Whether the user computes the rows (`pydt.Function`, `pydt.Command`): pydt trains nothing."""
    return hasattr(recipe, "compute")


@dataclass(frozen=True, eq=False)
class RowInput:
    """What a row is computed from: the argument of a runner.

    Attributes:
        context: what all rows of the run share. row: mask and seed.
        tasks: the measures (or tasks) whose outputs are wanted.
        new_scratch: makes the folder `scratch`.
        limit: seconds after which a program that computes the row must be ended; None: no limit, or the worker is.
        told: what the runner says besides its outputs.
    """

    context: Context
    row: Row
    tasks: tuple[Any, ...]
    new_scratch: Callable[[], Path]
    limit: float | None = None
    told: Told = field(default_factory=Told)

    @cached_property
    def scratch(self) -> Path:
        """An empty folder for the runner's files, which is removed after the row."""
        return self.new_scratch()

    @property
    def seed(self) -> int:
        """Of everything random in the row."""
        return self.row.seed

    @property
    def mask(self) -> np.ndarray:
        """The kept groups, bool (groups,)."""
        return self.row.mask

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the kept groups."""
        names = self.context.units[1]
        return tuple(names[i] for i in np.flatnonzero(self.mask))

    @property
    def keep(self) -> np.ndarray:
        """The examples to train on, bool (examples,): those of kept groups and those of no group."""
        return self.context.keep_examples(self.row)

    @property
    def examples(self) -> np.ndarray:
        """Positions of the examples to train on, int64 (n,)."""
        return np.flatnonzero(self.keep)

    @property
    def ids(self) -> tuple[str, ...]:
        """What identifies the examples to train on."""
        keys = self.context.source.all_keys()
        return tuple(keys[i] for i in self.examples.tolist())

    @property
    def device(self) -> str:
        """Where to compute: "cpu" or "cuda", as the recipe says; of several GPUs a worker sees its own alone."""
        return str(getattr(self.context.recipe, "device", "cpu"))

    @property
    def threads(self) -> int:
        """How many threads to use."""
        return int(self.context.recipe.threads)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the recipe (`pydt.Function(f, settings={...})`)."""
        return deepcopy(dict(getattr(self.context.recipe, "settings", {})))


Runner = Callable[[RowInput], Mapping[str, Any]]
"""Computes a row: the outputs of each task by its name, as `outcomes_of` reads them."""


def run_row(given: RowInput) -> Mapping[str, Any]:
    """Compute a row as the plan's recipe says: the default runner.

    A `pydt.Recipe` trains a source model and transfers it: one outcome for each digest of a task; a transfer that fails
    is the outcome of its task alone.

    Raises:
        TrainError: training diverged or the like: the row is stored as failed for all tasks.
        ConfigError: the network does not fit the images of source or target; raised before training.
        PydtError: what a function or a command of the user's gave is no output of the row.
    """
    context, row, tasks = given.context, given.row, given.tasks
    if is_own(context.recipe):
        return context.recipe.compute(given)
    from pydt.training import train, trial

    keep = context.keep_examples(row)
    trial(context.source, keep, context.recipe, tasks)
    return _transferred(train(context.source, keep, context.recipe, row.seed), row, tasks)


def outcomes_of(given: Any, tasks: tuple[Any, ...]) -> dict[str, Outcome]:
    """What a runner returned, by digest of the task.

    Args:
        given: by name or digest of each task, an `Outcome`, or what `Measure.values` takes. Others are left out: of a
            plan's measures some may be stored already, and what is retrained serves one alone.

    Raises:
        DataError: a task is missing, or its outputs are not those of its examples.
    """
    mend = "return {name: outputs} for each of: " + ", ".join(repr(task.name) for task in tasks)
    if not isinstance(given, Mapping):
        raise DataError(f"its runner returned {type(given).__name__}, not a dict", None, mend)
    found, known = {}, {name for task in tasks for name in (task.name, task.digest)}
    others = [name for name in given if name not in known]
    for task in tasks:
        values = given.get(task.name, given.get(task.digest))
        if values is None and others:
            raise DataError(f"its runner returned outputs of {others[0]!r}, which is no task", None, mend)
        if values is None:
            raise DataError(f"its runner returned no outputs of {task.name!r}", None, mend)
        if isinstance(values, Outcome) or not isinstance(task, Measure):
            found[task.digest] = values
        else:
            found[task.digest] = _finite(task, task.values(values))
    return found


def _finite(task: Measure, values: np.ndarray) -> Outcome:
    """The outcome of a measure: failed where a number is not finite, as after a training that diverged."""
    lost = np.flatnonzero(~np.isfinite(values).all(0))
    if not len(lost):
        return Outcome({VALUE: values})
    first = task.keys()[0 if task.shared else int(lost[0])]
    many = f" ({len(lost):,} of {values.shape[1]:,} are not finite)" if len(lost) > 1 and not task.shared else ""
    value = float(values[:, lost[0]][~np.isfinite(values[:, lost[0]])][0])
    return Outcome(status="failed", reason=f"{task.name} of example {shown(first)} is {value}{many}")


def keep_row(
    given: RowInput, keep: str, kept: Kept | None, facts: Mapping[str, str]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """`run_row` with a bank: the same outcomes, from what was kept of the training where that suffices.

    Args:
        keep: what to keep of a training, of `pydt.store.KEEP`.
        kept: what an earlier training of this row left.
        facts: what computes here, by the names in `pydt.store.FACTS`.

    Returns:
        the outcomes; and "network" ("trained", "bank" or "untrained"), of one from the bank "trained_by" (what computed
        it) and, if there is something to keep, "kept".
    """
    context, row, tasks = given.context, given.row, given.tasks
    if is_own(context.recipe):
        return run_row(given), {}
    from pydt.training import learns, train, trial

    examples = context.keep_examples(row)
    trial(context.source, examples, context.recipe, tasks)
    if not learns(context.recipe):
        return run_row(given), {"network": "untrained"}
    if kept is not None and (outcomes := _from_bank(context, row, tasks, kept)) is not None:
        return outcomes, {"network": "bank", "trained_by": dict(kept.facts)}
    told: dict[str, Any] = {"network": "trained"}
    try:
        trained = train(context.source, examples, context.recipe, row.seed)
    except TrainError as error:
        more = {} if keep == "none" else {"kept": Kept(keep, reason=escaped(str(error)), facts=facts)}
        return _failed(tasks, str(error)), told | more
    outcomes = _transferred(trained, row, tasks)
    if keep != "none":
        joins = kept is not None and kept.kind == "features" and kept.facts == facts
        before = kept.arrays if kept is not None and joins else {}
        told["kept"] = Kept(keep, _arrays(trained, tasks, keep, before), trained.metrics, facts=facts)
    return outcomes, told


def _from_bank(context: Context, row: Row, tasks: tuple[Any, ...], kept: Kept) -> dict[str, Outcome] | None:
    """The outcomes, if what was kept suffices for them."""
    from pydt.training import Absent, from_features, restore, serve

    if kept.reason is not None:
        return _failed(tasks, kept.reason)
    if kept.kind == "weights":
        return _transferred(restore(context.source, context.recipe, row.seed, kept.arrays, kept.metrics), row, tasks)
    if not serve(tasks):
        return None
    try:
        return _transferred(from_features(context.recipe, kept.arrays, kept.metrics), row, tasks)
    except Absent:
        return None


def _arrays(trained: Any, tasks: tuple[Any, ...], keep: str, before: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What to keep of a training; features join those that the same code kept `before` of other targets."""
    from pydt.training import features_of, weights_of

    if keep == "weights":
        return weights_of(trained)
    return {**before, **features_of(trained, tasks)}


def _failed(tasks: tuple[Any, ...], reason: str) -> dict[str, Outcome]:
    return {task.digest: Outcome(status="failed", reason=reason) for task in tasks}


def _transferred(trained: Any, row: Row, tasks: tuple[Any, ...]) -> dict[str, Outcome]:
    from pydt.training import transfer

    outcomes = {}
    for task in tasks:
        try:
            outputs = transfer(trained, task, row.seed)
            outcomes[task.digest] = Outcome(outputs.arrays, {**trained.metrics, **outputs.scalars})
        except TrainError as error:
            outcomes[task.digest] = Outcome(status="failed", reason=str(error))
    return outcomes
