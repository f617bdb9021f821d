"""One row: everything that decides its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pydt.base import TrainError, digest
from pydt.store import Outcome, Row


@dataclass(frozen=True, eq=False)
class Context:
    """What all rows of a run share: the first argument of a runner."""

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


Runner = Callable[[Context, Row, tuple[Any, ...]], dict[str, Outcome]]


def run_row(context: Context, row: Row, tasks: tuple[Any, ...]) -> dict[str, Outcome]:
    """Train one row and transfer it to tasks: the default runner.

    Returns:
        One outcome for each digest of a task. A transfer that fails is the outcome of its task alone.

    Raises:
        TrainError: training diverged or the like: the row is stored as failed for all tasks.
        ConfigError: the network does not fit the images of source or target; raised before training.
    """
    from pydt.training import train, transfer, trial

    keep = context.keep_examples(row)
    trial(context.source, keep, context.recipe, tasks)
    trained = train(context.source, keep, context.recipe, row.seed)
    outcomes = {}
    for task in tasks:
        try:
            outputs = transfer(trained, task, row.seed)
            outcomes[task.digest] = Outcome(outputs.arrays, {**trained.metrics, **outputs.scalars})
        except TrainError as error:
            outcomes[task.digest] = Outcome(status="failed", reason=str(error))
    return outcomes
