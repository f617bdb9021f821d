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
    each = {id(data): data for data in parts if isinstance(data, Dataset)}  # tasks share targets
    told = _of_data(list(each.values()))
    targets = [target for task in context.tasks if isinstance(target := getattr(task, "target", None), Target)]
    told += [f"{target.name}: {text}" for target in targets for text in target.notes()]
    told += [
        f"method {context.recipe.method!r} does not read {name}: it changes nothing"
        for name in getattr(context.recipe, "ignored", ())
    ]
    told += context.recipe.remarks() if hasattr(context.recipe, "remarks") else []
    for task in context.tasks:
        unread = getattr(task, "ignored", ())
        told += [f"task {task.name!r}: mode {task.mode!r} does not read {name}: it changes nothing" for name in unread]
    return list(dict.fromkeys(told))


def _of_data(sets: Sequence[Dataset]) -> list[str]:
    """A sentence for each remark; what several data sets have in common is one sentence, with a number for each."""
    having: dict[str, list[str]] = {}
    for data in sets:
        for what, (many, _) in data.odd().items():
            having.setdefault(what, []).append(f"{many:,} in {data.name}")
    common = {what: listed for what, listed in having.items() if len(listed) > 1}
    told = [f"{what}: {', '.join(listed)}" for what, listed in common.items()]
    return told + [
        f"{data.name}: {text}"
        for data in sets
        for text in data.notes()
        if not any(text.startswith(f"{what}: ") for what in common)
    ]


class RemarksOf:
    """Remarks on the parts of a run; what many of them have in common is said once."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._said: dict[tuple[str, str], list[str]] = {}  # names of the parts by event and text

    def add(self, name: str, context: Any) -> list[str]:
        """The remarks on a part: images of targets that its source holds, then those of `remarks`."""
        copied, told = _copied(context), remarks(context)
        self._names.append(name)
        for event, texts in (("shared images", copied), ("data", told)):
            for text in texts:
                self._said.setdefault((event, text), []).append(name)
        return copied + told

    def told(self) -> list[tuple[str, str]]:
        """Event and text of each remark, with the name of the first part it is of, unless it is of all."""
        found = []
        for (event, text), names in sorted(self._said.items(), key=lambda one: one[0][0] == "data"):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            found.append((event, text if len(names) == len(self._names) else f"{names[0]}{more}: {text}"))
        return found


def _copied(context: Any) -> list[str]:
    """A sentence for each target that shares images with the source."""
    if not isinstance(context.source, Dataset):
        return []
    found = [task.target for task in context.tasks if isinstance(getattr(task, "target", None), Target)]
    targets = {target.digest: target for target in found}
    return [text for target in targets.values() for text in target.copied(context.source, *context.units)]


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
