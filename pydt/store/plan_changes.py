"""What differs between two plans, in words that people know from their plan files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydt.store.block_format import Finder
from pydt.store.plan_record import Record

_MOST = 6  # differences that are told
_NAMED = 3  # groups that are named
_SHOWN = 40  # letters of a value


def changes(old: Record, new: Record) -> list[str]:
    """What differs: "source photos: 160 -> 140 examples, without ships", "recipe.lr 0.3 -> 0.1"."""
    found = [
        f"{name} {_shown(getattr(old, name))} -> {_shown(getattr(new, name))}"
        for name in ("by", "seed")
        if getattr(old, name) != getattr(new, name)
    ]
    found += _of_source(old, new)
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


def _of_source(old: Record, new: Record) -> Iterator[str]:
    """What differs in the source: its name and examples, and which groups went and came."""
    if old.source == new.source and old.units == new.units:
        return
    facts, other = old.source_facts, new.source_facts
    if facts["name"] != other["name"]:
        parts = [f"source {facts['name']} -> {other['name']}"]
    elif old.source == new.source:
        parts = ["other groups"]
    elif (before := facts.get("examples")) != (after := other.get("examples")):
        parts = [f"source {other['name']}: {_shown(before)} -> {_shown(after)} examples"]
    else:
        parts = [f"source {other['name']}: other examples"]
    if old.by == new.by:
        theirs, ours = dict.fromkeys(old.names), dict.fromkeys(new.names)
        for word, names in (("without", theirs), ("with", ours)):
            gone = [name for name in names if name not in theirs or name not in ours]
            if gone:
                more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
                parts.append(f"{word} {', '.join(map(_shown, gone[:_NAMED]))}{more}")
    yield ", ".join(parts)


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
            yield f"{where}.{name}", _listed(value)


def _listed(value: Any) -> Any:
    """A value as JSON has it: lists in place of tuples."""
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
