"""Influences on the target as a whole, from a store.

The output of a row is the weighted mean over the score half of a task (the plan's first unless said otherwise). The
report's ranking, stopping rules and the live view all use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.base import EstimateError, StoreError
from pydt.design import Design
from pydt.estimation.influence import best_method, influences
from pydt.estimation.mask_coverage import uncompared
from pydt.store import Record, Store, unit_of

if TYPE_CHECKING:
    from pydt.estimation.fit import Fit


_AT_ONCE = 1 << 24  # outputs that are widened to float64 at once


def overall(
    store: Store,
    plan: Any = None,
    task: Any = None,
    output: str | None = None,
    without: Sequence[int] = (),
) -> Fit:
    """The influence of each group on the whole target: on the weighted mean of an output over the score half.

    The method is `method_for` the plan.

    Args:
        output: by default the one that is the task's metric.
        without: positions among the finished rows that are left out.

    Returns:
        a fit with `unbiased`, `stderr`, `q` of shape (groups,), in the unit of the output (`pydt.store.unit_of`).

    Raises:
        StoreError: fewer than ten rows are finished.
        EstimateError: a group is in none of them, or in all.
        ConfigError: an output without a unit.
    """
    record = store.plan(plan)
    design = store.design(record)
    finished = np.delete(store.finished(record), without)
    if len(finished) < 10:
        failed = store.failed(record)
        lost = f", {len(failed)} failed ({failed[0][2]})" if failed else ""
        mend = "train at least 10 first, better 3 to 5 a group"
        raise StoreError(f"{len(finished)} finished rows{lost}", str(store.folder), mend)
    masks = design.take(finished)
    if (found := uncompared(masks, record.names)) is not None:
        mend = (
            found[1] if uncompared(design, record.names) is not None else "run the plan on: later rows differ in them"
        )
        raise EstimateError(found[0], str(store.folder), mend)
    outputs = np.delete(mean_output(store, record, task, output, "score"), without)
    return replace(influences(masks, outputs, method_for(record, masks)), groups=record.names)


def method_for(record: Record, masks: Design) -> str:
    """The method of a plan's influences: `best_method`; of single examples (`by="example"`), of which there are
    thousands, the difference of means, as Jain et al. 2023 have it."""
    return "difference" if record.by == "example" else best_method(masks)


def mean_output(store: Store, record: Record, task: Any, output: str | None, half: str) -> np.ndarray:
    """The weighted mean of an output (by default the task's metric) over the examples of a half, per finished row:
    float64 (models,), in its unit."""
    output = store.metric_output(task, record, output)
    unit = unit_of(store.described(task, record), output)
    task = record.tasks[0]["digest"] if task is None else task
    weights = store.examples(task, half, record)["weights"] * unit.factor
    values = store.outputs(task, output, half, record)
    step = max(1, _AT_ONCE // values.shape[1])
    parts = [np.asarray(values[i : i + step], np.float64) @ weights for i in range(0, len(values), step)]
    return np.concatenate(parts) if parts else np.empty(0)
