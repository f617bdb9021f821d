"""Two targets compared: which groups help one and hurt the other, and whether one list to keep serves both.

    influence on a, b   two columns of outputs of the same models, with the covariance of one group's errors:
                        `joint_influences`. Each has the output that is its task's metric, in its unit
    difference          value on a - value on b, var = V_a + V_b - 2 cov; t test, q over the groups (Benjamini and
                        Hochberg). Not where the units differ: a difference of points and nats means nothing
    opposed             a group helps one target and hurts the other: p = the larger of both one-sided p, 1 where the
                        signs are equal (Gail and Simon 1985, for two), q over the groups; and both simultaneous
                        intervals exclude 0
    same order          correlation of the true influences: `true_agreement`
    one list            of the lowest quarter of the groups, against each target's own: `pydt.analyses.shots_lists`

One list serves both where its groups are surely below the average group on both targets, no cost against an own list is
surely above 0, and the largest that it may be is below half of what the list gains (that it is below all of it was met
by 6 of 25 pairs of unrelated targets). Its intervals hold for both at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydt.analyses.ensemble_view import LEVEL, Array, EnsembleView, detectable
from pydt.analyses.shots_lists import lists_of
from pydt.analyses.two_targets_numbers import TargetNumbers
from pydt.analyses.two_targets_page import labels, page_of
from pydt.base import UNNAMED, ConfigError, EstimateError, Result, html_table, whole
from pydt.ensemble import Plan
from pydt.estimation import (
    benjamini_hochberg,
    joint_influences,
    mean_output,
    method_for,
    p_values,
    true_agreement,
)
from pydt.reporting import Page, called_output, count, legible, listed, scatter_plot
from pydt.store import Record, Store, unit_of

_ROUNDING = 1e-9  # a spread below it, relative to the outputs, is that of sums
_FEWEST_GROUPS = 5  # whose orders can be compared
_FEW_NAMES = 3  # groups that a line names


@dataclass(frozen=True, eq=False, repr=False)
class TaskComparison(TargetNumbers, Result):
    """Influences of all groups on two targets: attributes as of `TargetNumbers`; see the module's head."""

    def _columns(self) -> dict[str, Any]:
        parts = {"value": self.values, "stderr": self.stderr, "low": self.low, "high": self.high}
        of_group = {
            "difference": self.difference,
            "difference_stderr": self.difference_stderr,
            "difference_q": self.difference_q,
            "opposed_q": self.opposed_q,
            "kind": np.array(self.kinds(), object),
        }
        return {
            "group": [name for name in self.groups for _ in range(2)],
            "task": [*self.tasks] * len(self.groups),
            **{name: part.reshape(-1) for name, part in parts.items()},
            **{name: np.repeat(part, 2) for name, part in of_group.items()},
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw the influences on one target against those on the other; groups that disagree are named.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        reach = self.high - self.values
        x, y = self.values.T
        return scatter_plot(self.groups, x, y, reach, labels(self), self.disagree(), ax)

    def __repr__(self) -> str:
        facts = f"{count(len(self.groups), 'group')}, {count(self.models, 'model')}"
        told = {True: "one list serves both", False: "choose for each", None: "one list: cannot be told"}[self.serves]
        opposed = [self.groups[i] for i in self.order() if self.opposed[i]]
        named = f": {listed(opposed, _FEW_NAMES)}" if opposed else ""
        what = f"{count(len(opposed), 'group')} help one and hurt the other{named}"
        return f"TaskComparison({self.tasks[0]} and {self.tasks[1]}: {facts}; {told}; {what})"

    def _repr_html_(self) -> str:
        order = self.order()
        heads = "group", *self.tasks, "difference", "q", "what it does"
        kinds = self.kinds()
        rows = ((self.groups[i], *self.values[i], self.difference[i], self.difference_q[i], kinds[i]) for i in order)
        return html_table(repr(self), heads, rows, len(order), "groups")

    def page(self) -> Page:
        """What a reader sees."""
        return page_of(self)


def compare_tasks(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    *,
    tasks: Sequence[Any] | None = None,
    output: str | None = None,
    seed: int = 0,
) -> TaskComparison:
    """Compare what the groups do to two targets: where they disagree, and whether one list to keep serves both.

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own.
        tasks: two tasks of the plan, their names, the beginnings of these, or digests; by default its first one, and
            the next with another target (or else the second). One target at several numbers of shots is what
            `influence_by_shots` is for; two of them are compared here, too.
        output: of which the influences are (see `pydt.store.units_of`); by default each target's metric.
        seed: of random halves of the models, and of simulations.

    Raises:
        ConfigError: the plan has one task alone; not two different tasks; an unknown output.
        EstimateError: all models have the same output on a task, or there are too few of them.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    whole(seed, "seed", "compare_tasks", error=ConfigError)
    opened = store if isinstance(store, Store) else Store(store)
    record = opened.plan(plan)
    described = _two(opened, record, tasks)
    view = EnsembleView.of(opened, plan, described[0]["digest"])
    digests = [one["digest"] for one in described]
    chosen = [opened.metric_output(one, record, output) for one in digests]
    units = [unit_of(one, name).name for one, name in zip(described, chosen, strict=True)]
    found, judged = (
        np.stack([mean_output(opened, record, *of, half) for of in zip(digests, chosen, strict=True)], 1)
        for half in ("score", "report")
    )
    for one, name, values in zip(described, chosen, found.T, strict=True):
        if np.ptp(values) <= _ROUNDING * np.abs(values).max():
            wrong = f"all models have the same {called_output(name)} on {one['name']!r}"
            raise EstimateError(wrong, "compare_tasks", "there is nothing to compare: choose another output")
    method = method_for(record, view.masks)
    method = "difference" if method == "lasso" else method  # the LASSO has no joint errors
    joint = joint_influences(view.masks, found, method)
    if not np.isfinite(joint.stderr).any():
        mend = "train models on more different masks"
        raise EstimateError(f"{count(joint.models, 'model')} leave no errors of influences", "compare_tasks", mend)
    groups = len(joint.values)
    difference = error = p = np.full(groups, np.nan)
    if units[0] == units[1]:
        difference, error = joint.contrast([1, -1])
        p = p_values(difference, error, joint.df)
    opposed_p, opposed = _opposed(joint.values, joint.stderr, joint.df)
    opposed_q = benjamini_hochberg(opposed_p)
    sure = ((joint.low > 0) | (joint.high < 0)).all(1)
    least = np.nan
    if units[0] == units[1]:
        least = detectable(float(np.nanmedian(error)), float(np.nanmedian(joint.df)), groups, LEVEL / 2)
    return TaskComparison(
        tasks=(described[0]["name"], described[1]["name"]),
        names=_called(described),
        groups=record.names,
        outputs=(chosen[0], chosen[1]),
        units=(units[0], units[1]),
        models=joint.models,
        method=method,
        estimand=joint.estimand,
        values=joint.values,
        stderr=joint.stderr,
        low=joint.low,
        high=joint.high,
        df=joint.df,
        difference=difference,
        difference_stderr=error,
        difference_p=p,
        difference_q=benjamini_hochberg(p),
        opposed_p=opposed_p,
        opposed_q=opposed_q,
        opposed=opposed & sure & (opposed_q < LEVEL),
        detectable=least,
        spread=joint.spread()[0],
        agreement=None if groups < _FEWEST_GROUPS else true_agreement(joint, 0, 1, seed),
        lists=lists_of(view.masks, found, judged, method, seed),
        _view=view,
    )


def pairs_of(record: Record) -> list[tuple[str, str]]:
    """Digests of two tasks for each two different targets of a plan: the first two that are transferred to alike, with
    as many shots; else the first of each."""
    by_target: dict[str, list[dict[str, Any]]] = {}
    for task in record.tasks:
        by_target.setdefault(task["target"], []).append(task)
    of_each = list(by_target.values())
    return [_alike(one, other) for i, one in enumerate(of_each) for other in of_each[i + 1 :]]


def _alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> tuple[str, str]:
    def how(task: dict[str, Any]) -> tuple[Any, ...]:
        return task["settings"].get("mode"), task["settings"].get("shots")

    found = next(((a, b) for a in one for b in other if how(a) == how(b)), (one[0], other[0]))
    return found[0]["digest"], found[1]["digest"]


def _two(store: Store, record: Record, tasks: Sequence[Any] | None) -> list[dict[str, Any]]:
    """The entries of the two tasks in the record."""
    where = "compare_tasks"
    if len(record.tasks) < 2:
        mend = "put a second table [[tasks]] into the file of the plan, or give pydt.Plan two tasks; rows of the same "
        mend += "masks are then transferred to both"
        raise ConfigError(f"the plan has one task alone, {record.tasks[0]['name']!r}", where, mend)
    if tasks is None:
        pairs = pairs_of(record)
        tasks = pairs[0] if pairs else [task["digest"] for task in record.tasks[:2]]
    known = ", ".join(repr(task["name"]) for task in record.tasks)
    if isinstance(tasks, str) or not isinstance(tasks, Sequence) or len(tasks) != 2:
        raise ConfigError(f"tasks is {tasks!r}", where, f"name two of: {known}")
    found = [store.described(task, record) for task in tasks]
    if found[0]["digest"] == found[1]["digest"]:
        raise ConfigError(f"both tasks are {found[0]['name']!r}", where, f"name two different ones of: {known}")
    return found


def _called(described: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """What sentences call the tasks: their targets, where these have different names."""
    targets = [legible(one["settings"]["target"]["name"], 40) for one in described]
    if len(set(targets)) < 2 or UNNAMED in targets:
        targets = [legible(one["name"], 40) for one in described]
    return targets[0], targets[1]


def _opposed(values: Array, stderr: Array, df: Array) -> tuple[Array, np.ndarray]:
    """p that each group's values have opposite signs, and where those seen have."""
    one_sided = p_values(values, stderr, df[:, None]) / 2
    opposite = values[:, 0] * values[:, 1] < 0
    p = np.where(opposite, one_sided.max(1), 1.0)
    return np.where(np.isnan(one_sided).any(1), np.nan, p), opposite
