"""Remarks on a plan's data: what was left out, and what is not shown as it is stored.

A run prints them at its start and keeps them in DIR/notes/<digest of the plan>.json: the report has no images.
"""

from __future__ import annotations

from typing import Any

from pydt.data import Dataset, Target


def remarks(context: Any) -> list[str]:
    """A sentence for each remark (`Dataset.notes`) on source and targets of a `pydt.ensemble.row.Context`."""
    parts = [context.source]
    for task in context.tasks:
        parts += [task.target.train, task.target.test] if isinstance(task.target, Target) else []
    told = [f"{data.name}: {text}" for data in parts if isinstance(data, Dataset) for text in data.notes()]
    return list(dict.fromkeys(told))
