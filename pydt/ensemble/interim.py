"""The rows of a plan as they come in: what a stopping rule and the live view look at."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.base import EstimateError, StoreError, Unreadable
from pydt.design import Design
from pydt.estimation import Look, StoppingRule, best_method, influences
from pydt.store import HALVES, UNITS, Outcome, Record, Store, derive, primitives_of

if TYPE_CHECKING:
    from pydt.estimation import Fit


class Interim:
    """The number of each row of a plan as rows come in, in any order: of output "correct", in points of accuracy.

    A row's number is computed from its own cells, always in the same way, whether it was trained a moment ago or found
    in the store. So what a stopping rule makes of the plan's first rows does not depend on who computed them and when.
    A row of which any cell failed has none (NaN), as in `Store.outputs`.

    Args:
        design: of the plan, or None for a list of rows: then there is nothing to estimate.
        stored: positions of the rows that are in the store already, in plan order; `read` takes them in.

    Attributes:
        last: what the rule said last.
        damaged: stored rows of which `read` found a cell damaged; it is in quarantine now.
    """

    def __init__(self, store: Store, record: Record, design: Any, stored: Iterable[int]) -> None:
        self.store, self.record, self.design = store, record, design
        self.last = Look(False, 0, 0, 0, "no look yet")
        self.damaged: list[int] = []
        self._same = record.first
        self._unread = deque(stored)
        self._values = np.full(len(self._same), np.nan)
        self._known = np.zeros(len(self._same), bool)
        self._prefix = 0
        described = store.task(record.tasks[0]["digest"])
        self._examples = len(described["labels"])
        self._chosen = np.flatnonzero(described["half"] == HALVES["score"])
        self._labels = described["labels"][self._chosen]
        self._weights = described["weights"][self._chosen] * UNITS["correct"][1]

    @property
    def estimable(self) -> bool:
        """Whether influences can be estimated at all: there is a design, and more rows planned than it has groups."""
        return isinstance(self.design, Design) and len(self.design) > self.design.groups + 1

    def add(self, row: int, outcomes: Mapping[int, Outcome]) -> None:
        """Take a row in; outcomes by position of the task, those that are not given are read from the store."""
        found = [outcomes.get(i) or self.store.get(key) for i, key in enumerate(self.record.keys[row])]
        if all(outcome.status == "ok" for outcome in found):
            where = str(self.store.path(self.record.keys[row][0]))
            primitives = primitives_of(found[0], self._examples, where)[..., self._chosen]
            draws = derive(primitives, self._labels, "correct")
            self._values[row] = draws.mean(axis=0).astype(np.float64) @ self._weights
        self._known[row] = True

    def read(self, seconds: float = 0.0) -> bool:
        """Take in stored rows for so long, one at least; whether there may be more."""
        end = time.monotonic() + seconds
        while self._unread:
            row = self._unread.popleft()
            try:
                self.add(row, {})
            except Unreadable:
                self._unread.appendleft(row)  # whoever asks next is told, too
                raise
            except StoreError:
                self.damaged.append(row)
            if time.monotonic() >= end:
                break
        return bool(self._unread)

    def look(self, rule: StoppingRule) -> Look:
        """What the rule makes of the rows from the plan's first on that are all there."""
        while self._prefix < len(self._same) and self._known[self._same[self._prefix]]:
            self._prefix += 1
        if self._prefix >= self.last.next and not self.last.stopped:
            self.last = rule.look(self.design, self._values[self._same[: self._prefix]], self.last)
        return self.last

    def settled(self, rule: StoppingRule) -> bool:
        """Whether the rows that are stored satisfy a rule."""
        while not self.look(rule).stopped and self.read():
            pass
        return self.look(rule).stopped

    def fit(self) -> Fit | None:
        """The influences by OLS on the rows there are; None where they are too few for it, or still to be read."""
        rows = np.flatnonzero(np.isfinite(self._values[self._same]))
        if not self.estimable or self._unread or len(rows) < self.design.groups + 2:
            return None
        try:
            masks = self.design.take(rows)
            if best_method(masks) == "ols":
                return influences(masks, self._values[self._same[rows]], "ols")
        except EstimateError:
            pass  # a group that no model has kept so far, or the like
        return None
