"""What was left out of a plan's data, what is not shown as it is stored, and which images source and target share: told
when a run starts, kept in its store as DIR/notes/<digest of the plan>.json, and told again by the report, which has no
images any more.
"""

from __future__ import annotations

from typing import Any


def remarks(context: Any) -> list[str]:
    """What is to be said of the images of the source and the targets of a `pydt.ensemble.plan.Context`, a sentence
    each; see
    `Dataset.notes`.
    """
    from pydt.data import Dataset, Target

    parts = [context.source]
    for task in context.tasks:
        parts += [task.target.train, task.target.test] if isinstance(task.target, Target) else []
    told = [f"{data.name}: {text}" for data in parts if isinstance(data, Dataset) for text in data.notes()]
    return list(dict.fromkeys(told))
