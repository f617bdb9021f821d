"""Remarks on a plan: images left out or not shown as they are stored, settings that nothing reads, and its design.

A run prints them at its start and keeps them in DIR/notes/<digest of the plan>.json: the report has no images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydt.data import Dataset, Target
from pydt.design import Design
from pydt.estimation import uncompared
from pydt.store import Record


def remarks(context: Any) -> list[str]:
    """A sentence for each remark (`Dataset.notes`) on source and targets of a `pydt.ensemble.row.Context`,
    and for each setting that its method or mode does not read.
    """
    parts = [context.source]
    for task in context.tasks:
        target = getattr(task, "target", None)
        parts += [target.train, target.test] if isinstance(target, Target) else []
    told = [f"{data.name}: {text}" for data in parts if isinstance(data, Dataset) for text in data.notes()]
    told += [
        f"method {context.recipe.method!r} does not read {name}: it changes nothing"
        for name in getattr(context.recipe, "ignored", ())
    ]
    told += context.recipe.remarks() if hasattr(context.recipe, "remarks") else []
    for task in context.tasks:
        unread = getattr(task, "ignored", ())
        told += [f"task {task.name!r}: mode {task.mode!r} does not read {name}: it changes nothing" for name in unread]
    return list(dict.fromkeys(told))


def changed_files(record: Record, others: Iterable[Record]) -> list[str]:
    """A sentence for each other plan of a store whose rows were made with these groups, but other contents of files
    that the recipe names in `depends`."""
    told = []
    for other in others:
        if (other.units, other.settings.get("method")) != (record.units, record.settings.get("method")):
            continue
        old, new = (one.settings.get("depends", {}) for one in (other, record))
        if names := sorted(name for name in old.keys() & new.keys() if old[name] != new[name]):
            what = f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} changed since plan {other.digest[:8]}"
            told.append(f"{what} was run into this store: its rows stay, those of this plan are computed")
    return told


def design_remark(design: Design, names: Sequence[str], method: str) -> str | None:
    """That no report can be made since groups are in no row or in every row; not of methods that train nothing."""
    if method in ("checkpoint", "none") or (found := uncompared(design, names)) is None:
        return None
    return f"{found[0]}, so no report can be made: {found[1]}"
