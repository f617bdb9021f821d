"""The rows of a plan so far: what a stopping rule and the progress display see."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.base import EstimateError, StoreError, Unreadable
from pydt.design import Design
from pydt.estimation import Look, StoppingRule, best_method, influences
from pydt.reporting import Metric
from pydt.store import HALVES, VALUE, Outcome, Record, Store, averaged, unit_of

if TYPE_CHECKING:
    from pydt.estimation import Fit


@dataclass(frozen=True, eq=False)
class Judged:
    """How a task judges the outputs of a row.

    Attributes:
        labels: of its examples. report, report_weights: positions and weights of the report half; score,
            score_weights: of the score half, in points.
    """

    labels: np.ndarray
    report: np.ndarray
    report_weights: np.ndarray
    score: np.ndarray
    score_weights: np.ndarray

    @classmethod
    def of(cls, store: Store, record: Record) -> Judged:
        """How the first task of a plan does."""
        described = store.task(record.tasks[0]["digest"])
        report, score = (np.flatnonzero(described["half"] == HALVES[half]) for half in ("report", "score"))
        factor = unit_of(record.tasks[0], store.metric_output(None, record)).factor
        weights = described["weights"]
        return cls(described["labels"], report, weights[report], score, weights[score] * factor)


class Interim:
    """One number for each row of a plan: the metric of its first task on the score half, in points. Rows come in any
    order.

    The number follows from the row's stored outputs alone, so a stopping rule decides the same whoever trained a row
    and when. A row that failed for any task has none (NaN), as in `Store.outputs`.

    Args:
        design: of the plan; None for a list of rows, where there is nothing to estimate.
        stored: positions of stored rows in plan order, which `read` reads.
        judged: what `Judged.of` gives, where it is at hand.

    Attributes:
        output: of which the numbers are the weighted means: "correct", "auroc" or "value"; unit: in which they are.
        metric: how the task's metric reads.
        values, known: float64 and bool, one entry a row: the numbers, and which rows have come in.
        last: the rule's last look.
        damaged: stored rows that `read` found damaged, now in quarantine.
    """

    def __init__(
        self, store: Store, record: Record, design: Any, stored: Iterable[int], judged: Judged | None = None
    ) -> None:
        self.store, self.record, self.design = store, record, design
        self.last = Look(False, 0, 0, 0, "no look yet")
        self.damaged: list[int] = []
        self._same = record.first
        self._unread = deque(stored)
        self.values = np.full(len(self._same), np.nan)
        self.known = np.zeros(len(self._same), bool)
        self._prefix = 0
        self.output = store.metric_output(None, record)
        self.unit = unit_of(record.tasks[0], self.output)
        self.metric = Metric.of_task(record.tasks[0])
        self._judged = judged or Judged.of(store, record)

    def level(self, outcome: Outcome) -> float | None:
        """The metric of a row of the first task on the report half, as rows store it; None if it does not say."""
        if self.output != VALUE:
            told = outcome.scalars.get("report_accuracy")
            return told if isinstance(told, float) else None
        if outcome.status != "ok":
            return None
        judged = self._judged
        values = averaged(outcome, judged.labels, VALUE, "a row", judged.report)
        return float(values.astype(np.float64) @ judged.report_weights)

    @property
    def estimable(self) -> bool:
        """Whether influences can be estimated: there is a design with more rows than groups."""
        return isinstance(self.design, Design) and len(self.design) > self.design.groups + 1

    def add(self, row: int, outcomes: Mapping[int, Outcome]) -> None:
        """Add a row: outcomes by position of the task; the others are read from the store."""
        found = [outcomes.get(i) or self.store.get(key) for i, key in enumerate(self.record.keys[row])]
        if all(outcome.status == "ok" for outcome in found):
            where = str(self.store.path(self.record.keys[row][0]))
            values = averaged(found[0], self._judged.labels, self.output, where, self._judged.score)
            self.values[row] = values.astype(np.float64) @ self._judged.score_weights
        self.known[row] = True

    def read(self, seconds: float = 0.0) -> bool:
        """Read stored rows for so long, one at least; returns whether more are left."""
        end = time.monotonic() + seconds
        while self._unread:
            row = self._unread.popleft()
            try:
                self.add(row, {})
            except Unreadable:
                self._unread.appendleft(row)  # the next call raises, too
                raise
            except StoreError:
                self.damaged.append(row)
            if time.monotonic() >= end:
                break
        return bool(self._unread)

    def look(self, rule: StoppingRule) -> Look:
        """Apply the rule to the longest complete prefix of the plan."""
        while self._prefix < len(self._same) and self.known[self._same[self._prefix]]:
            self._prefix += 1
        if self._prefix >= self.last.next and not self.last.stopped:
            self.last = rule.look(self.design, self.values[self._same[: self._prefix]], self.last)
        return self.last

    def settled(self, rule: StoppingRule) -> bool:
        """Whether the stored rows satisfy a rule."""
        while not self.look(rule).stopped and self.read():
            pass
        return self.look(rule).stopped

    def fit(self) -> Fit | None:
        """Influences by OLS on the rows so far; None where they are too few, or stored ones are not read yet."""
        rows = np.flatnonzero(np.isfinite(self.values[self._same]))
        if not self.estimable or self._unread or len(rows) < self.design.groups + 2:
            return None
        try:
            masks = self.design.take(rows)
            if best_method(masks) == "ols":
                return influences(masks, self.values[self._same[rows]], "ols")
        except EstimateError:
            pass  # for instance a group that no row has kept so far
        return None
