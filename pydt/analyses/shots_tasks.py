"""Which tasks of a plan are one target at several numbers of shots, and the tasks that it would need for more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pydt.base import ConfigError, digest, place_by_name, suggest, whole
from pydt.ensemble import Plan
from pydt.store import Record

SHOTS: tuple[int | str, ...] = (1, 2, 5, 10, 20, "full")
"""Numbers of shots of a question that names none."""
FULL = "full"
_NOT_ASKED = "name", "shots", "draws", "seed"  # settings of a task: tasks that differ in these alone belong together


@dataclass(frozen=True)
class ShotsTasks:
    """One target, transferred to in one way at several numbers of shots.

    Attributes:
        shots: from the fewest to the most, "full" last; tasks: digest of the task at each.
        target: what it is called; mode: the way to transfer, "" for measures.
    """

    shots: tuple[int | str, ...]
    tasks: tuple[str, ...]
    target: str
    mode: str


def shots_of(record: Record) -> tuple[ShotsTasks, ...]:
    """All that a plan has at two numbers of shots or more, in the order of its tasks."""
    found: dict[str, dict[int | str, Mapping[str, Any]]] = {}
    for task in record.tasks:
        settings = task["settings"]
        if settings.get("shots", 0) == 0:
            continue  # a measure, or zero-shot
        how = {name: value for name, value in settings.items() if name not in (*_NOT_ASKED, "target")}
        alike = found.setdefault(digest("one question", task["target"], how), {})
        alike.setdefault(settings["shots"], task)  # of two with one number of shots the first
    return tuple(_made(tasks) for tasks in found.values() if len(tasks) > 1)


def shots_tasks(
    record: Record, target: str | None = None, mode: str | None = None, tasks: Mapping[int | str, str] | None = None
) -> ShotsTasks:
    """The tasks that a question by shots is about.

    Args:
        target, mode: names; by default those of the first that the plan has at two numbers of shots or more.
        tasks: number of shots -> name or digest of a task: for measures of the user's own, or where tasks differ in
            more than their shots.

    Raises:
        ConfigError: there are none, or an unknown name; fewer than two numbers of shots; tasks beside a target or mode.
    """
    where = "influence_by_shots"
    if tasks is not None:
        if target is not None or mode is not None:
            raise ConfigError("both tasks and a target or mode", where, "name the tasks alone: they say both")
        return _named(record, tasks)
    found = shots_of(record)
    if not found:
        wrong = f"no target of the plan has two numbers of shots: {', '.join(task['name'] for task in record.tasks)}"
        mend = (
            "list several in the file of the plan, shots = [1, 5], or let `pydt analyse FILE --only shots --train` add "
        )
        mend += "them; of measures name the tasks: tasks={1: NAME, 5: NAME}"
        raise ConfigError(wrong, where, mend)
    for name, asked in (("target", target), ("mode", mode)):
        known = tuple(dict.fromkeys(getattr(one, name) for one in found))
        if asked is not None and asked not in known:
            raise ConfigError(f"no {name} {asked!r} at two numbers of shots", where, suggest(str(asked), known))
    fit = [one for one in found if target in (None, one.target) and mode in (None, one.mode)]
    if not fit:
        pairs = "; ".join(f"{one.target}, {one.mode}" for one in found)
        raise ConfigError(f"no {target!r} by {mode!r} at two numbers of shots", where, f"there are: {pairs}")
    return fit[0]


def with_shots(plan: Plan, shots: Sequence[int | str] = SHOTS) -> Plan:
    """The plan with its first target at these numbers of shots, too; those above the images of a class are left out.

    Raises:
        ConfigError: the first task is a measure, or has no shots; shots that are no whole number and not "full".
    """
    first = plan.tasks[0]
    if getattr(first, "shots", 0) == 0:
        mend = "name tasks of your own: tasks={1: NAME, 5: NAME}"
        raise ConfigError("has no number of shots", f"task {first.name!r}", mend)
    from pydt.training import Task

    labels = first.target.train.labels[first.target.split["pool"]]
    most = int(np.bincount(labels, minlength=len(first.target.classes)).min())
    draws = first.draws if first.shots != FULL else Task.draws
    known = next((one.shots for one in shots_of(plan.record()) if first.digest in one.tasks), (first.shots,))
    named = first.name != replace(first, name="").name
    more = [
        replace(first, shots=k, draws=draws, name=f"{first.name}, {k}-shot" if named else "")
        for k in shots
        if k not in known and (k == FULL or whole(k, "shots", "with_shots", 1, error=ConfigError) <= most)
    ]
    return replace(plan, tasks=(*plan.tasks, *more)) if more else plan


def _named(record: Record, tasks: Mapping[int | str, str]) -> ShotsTasks:
    """The tasks that the user names by their shots."""
    where = "influence_by_shots, tasks"
    if not isinstance(tasks, Mapping):
        raise ConfigError(f"is a {type(tasks).__name__}", where, "give {number of shots: name of a task}")
    found = {}
    names, digests = ([task[part] for task in record.tasks] for part in ("name", "digest"))
    for shots, asked in tasks.items():
        if shots != FULL:
            whole(shots, "shots", where, 1, error=ConfigError)
        if not isinstance(asked, str):
            raise ConfigError(f"{shots} is a {type(asked).__name__}", where, "give the name of a task")
        found[shots] = record.tasks[place_by_name(asked, names, digests, "task", where, ConfigError)]
    if len(found) < 2:
        raise ConfigError(f"{len(found)} number of shots", where, "name at least two")
    return _made(found)


def _made(tasks: Mapping[int | str, Mapping[str, Any]]) -> ShotsTasks:
    shots = sorted(tasks, key=lambda k: (k == FULL, 0 if k == FULL else k))
    settings = tasks[shots[0]]["settings"]
    named = settings["target"]["name"]
    return ShotsTasks(tuple(shots), tuple(tasks[k]["digest"] for k in shots), named, settings.get("mode", ""))
