"""Whether the rows of a run learn at all: their settings are judged together, whichever part they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydt.ensemble.parts import Work
from pydt.store import Outcome, at_chance, weak

_JUDGED = 3  # rows of a recipe after which a warning says that networks hardly learn; it does not wait for the end


class Learning:
    """Rows of this run by their recipes.

    `add` and `last` give what is to be said, each once: fields of a log entry, of which "text" is shown.
    """

    def __init__(self) -> None:
        self._trained: dict[str, list[tuple[Work, int, dict[str, Any]]]] = {}  # rows by recipe, with their scalars
        # scalars of zero-shot rows by recipe and digest of the task, with the task's name
        self._zero_shot: dict[str, dict[str, tuple[str, list[dict[str, Any]]]]] = {}
        self._at_chance: set[tuple[str, str]] = set()

    def add(self, work: Work, row: int, outcomes: Mapping[int, Outcome]) -> Iterator[dict[str, Any]]:
        """One more row: its outcomes by position of the task."""
        recipe = work.record.recipe
        own = self._trained.setdefault(recipe, [])
        own += [(work, row, dict(one.scalars)) for one in list(outcomes.values())[:1] if one.status == "ok"]
        for position, outcome in outcomes.items():
            if "zero_shot_p" in outcome.scalars:
                task = work.record.tasks[position]
                of_task = self._zero_shot.setdefault(recipe, {}).setdefault(task["digest"], (task["name"], []))
                of_task[1].append(dict(outcome.scalars))
        if len(own) == _JUDGED:
            yield from self._look(recipe)

    def last(self) -> Iterator[dict[str, Any]]:
        """At the end of the run."""
        for recipe, own in self._trained.items():
            if len(own) != _JUDGED:
                yield from self._look(recipe)

    def _look(self, recipe: str) -> Iterator[dict[str, Any]]:
        """Networks that hardly learnt their source, or diverged; and, once a task, zero-shot at chance."""
        if own := self._trained[recipe]:
            work, parts = own[0][0], list(dict.fromkeys(work.name for work, _, _ in own))
            named = f"{work.name}{f' and {len(parts) - 1} more' if len(parts) > 1 else ''}: " if work.name else ""
            found = weak([scalars for _, _, scalars in own], work.record.settings)
            for text in found.notes("rows", None if named else [row for _, row, _ in own]):
                yield {"event": "hardly learnt", "rows": len(found.at), "of": found.judged, "text": f"{named}{text}"}
        for task, (name, scalars) in self._zero_shot.get(recipe, {}).items():
            if (recipe, task) not in self._at_chance and (low := at_chance(scalars, "rows")) is not None:
                self._at_chance.add((recipe, task))
                yield {"event": "at chance", "task": task, "text": f"{name}: {low}"}
