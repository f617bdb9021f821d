"""One row: everything that decides its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydt.base import TrainError
from pydt.ensemble.plan import Context
from pydt.store import Outcome, Row

Runner = Callable[["Context", Row, tuple[Any, ...]], dict[str, Outcome]]


def run_row(context: Context, row: Row, tasks: tuple[Any, ...]) -> dict[str, Outcome]:
    """Train one row and transfer it to tasks: the default runner.

    Returns:
        One outcome per task digest.

    Raises:
        TrainError: the training gave nothing usable; that is a result, and all cells of the row are stored as failed.
            One in a transfer only spoils the cell of its task.
        ConfigError: the network does not fit the images of source or target; told before anything is trained.
    """
    from pydt.training import train, transfer, trial

    keep = context.keep_examples(row)
    trial(context.source, keep, context.recipe, tasks)
    trained = train(context.source, keep, context.recipe, row.seed)
    outcomes = {}
    for task in tasks:
        try:
            outputs = transfer(trained, task, row.seed)
            outcomes[task.digest] = Outcome({"primitives": outputs.primitives}, {**trained.metrics, **outputs.scalars})
        except TrainError as error:
            outcomes[task.digest] = Outcome(status="failed", reason=str(error))
    return outcomes
