"""The target as a whole: one number a row, and what the groups do to it.

That number is the report's: the weighted mean of an output over the score half of a task, the plan's first unless said
otherwise. The report's ranking, a stopping rule and the live view all look at it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.cells import Outcome, Unreadable, derive, primitives_of
from pydt.design import Design
from pydt.errors import ConfigError, EstimateError, StoreError
from pydt.estimate import best_method, influences
from pydt.plan import Plan
from pydt.stopping import Look, StoppingRule
from pydt.store import HALVES, Record, Store

if TYPE_CHECKING:
    from pydt.fit import Fit

UNITS: dict[str, tuple[str, float]] = {
    "correct": ("points of accuracy", 100.0),
    "probability": ("points of probability", 100.0),
    "margin": ("margin units", 1.0),
    "softmax margin": ("log-odds", 1.0),
    "logit": ("logit units", 1.0),
}
"""In what influences on an output are given, and how many of these units the stored output's 1 is."""


def overall(
    store: Store,
    plan: Plan | Record | str | None = None,
    task: Any = None,
    output: str = "correct",
    without: Sequence[int] = (),
) -> Fit:
    """The influence of each group on the whole target: on the weighted mean of an output over the score half.

    OLS where there are models enough (see `best_method`), else the LASSO, whose de-biased estimates hold for fewer
    models than groups. Of single examples (`by="example"`) the difference of means, as Jain et al. 2023 have it: their
    number is in the thousands, and no matrix of examples x examples is ever made.

    Args:
        without: positions among the finished rows that are left out.

    Returns:
        a fit with `unbiased`, `stderr`, `q` of shape (groups,), in the unit that UNITS names.

    Raises:
        StoreError: fewer than ten rows are finished.
        ConfigError: an output without a unit.
    """
    record = store.plan(plan)
    design = store.design(record)
    finished = np.delete(store.finished(record), without)
    if len(finished) < 10:
        raise StoreError(
            f"{len(finished)} finished rows",
            str(store.folder),
            "train at least 10 first, better 3 to 5 a group",
        )
    masks = design.take(finished)
    outputs = np.delete(mean_output(store, record, task, output, "score"), without)
    return influences(masks, outputs, method_for(record, masks))


def method_for(record: Record, masks: Design) -> str:
    """The method of a plan's influences on these masks: see `overall`."""
    return "difference" if record.by == "example" else best_method(masks)


def mean_output(store: Store, record: Record, task: Any, output: str, half: str) -> np.ndarray:
    """The weighted mean of an output over the examples of a half, per finished row: float64 (models,), in its unit."""
    if output not in UNITS:
        raise ConfigError(f"no influences on output {output!r}", "output", f"choose one of: {', '.join(UNITS)}")
    task = record.tasks[0]["digest"] if task is None else task
    weights = store.examples(task, half, record)["weights"] * UNITS[output][1]
    return np.asarray(store.outputs(task, output, half, record), np.float64) @ weights


class SoFar:
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
