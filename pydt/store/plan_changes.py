"""What differs between two plans, in words that people know from their plan files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydt.store.block_format import Finder
from pydt.store.plan_record import Record

_MOST = 6  # differences that are told
_SHOWN = 40  # letters of a value
_TABLES = {"source": "source", "units": "groups", "by": "by", "seed": "seed"}


def changes(old: Record, new: Record) -> list[str]:
    """What differs: "recipe.lr 0.3 -> 0.1", "design.models 24 -> 25"; the source as a whole."""
    found = [
        f"{called} {_shown(getattr(old, name))} -> {_shown(getattr(new, name))}"
        if name in ("by", "seed")
        else f"another {called}"
        for name, called in _TABLES.items()
        if getattr(old, name) != getattr(new, name)
    ]
    if "another source" in found and "another groups" in found:
        found.remove("another groups")
    found = ["other groups" if one == "another groups" else one for one in found]
    found += _differences("recipe", old.settings, new.settings)
    found += _differences("design", old.design or {}, new.design or {})
    theirs, ours = ({task["name"]: task for task in record.tasks} for record in (old, new))
    found += [f"task {name!r} is gone" for name in theirs.keys() - ours.keys()]
    found += [f"task {name!r} is new" for name in ours.keys() - theirs.keys()]
    for name in theirs.keys() & ours.keys():
        if theirs[name]["digest"] != ours[name]["digest"]:
            told = _differences(f"task {name!r}", theirs[name]["settings"], ours[name]["settings"])
            found += told or [f"task {name!r} is another"]
    more = [f"{len(found) - _MOST} more"] if len(found) > _MOST else []
    return [*found[:_MOST], *more] or ["the seeds of its rows, or the order of its tasks"]


def shared(old: Record, new: Record) -> int:
    """How many rows of a plan are rows of the other one, for all its tasks."""
    return int((Finder(old.cells.reshape(-1, 16))(new.cells) >= 0).all(1).sum())


def _differences(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    theirs, ours = dict(_flat(where, old)), dict(_flat(where, new))
    for name in dict.fromkeys([*theirs, *ours]):
        if (one := theirs.get(name)) != (other := ours.get(name)):
            long = min(len(str(one)), len(str(other))) > _SHOWN
            yield f"another {name}" if long else f"{name} {_shown(one)} -> {_shown(other)}"


def _flat(where: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{where}.{name}", value)
        else:
            yield f"{where}.{name}", list(value) if isinstance(value, tuple) else value  # as JSON has it


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
