"""Influence by shots: what each group of the source does to the target as the number of labelled images grows.

    column j              the models' output (mean over the score half) with the j-th number of shots; all columns have
                          the same rows, the same judged images and nested few-shot draws
    influence at j        coefficient of a group in the regression of column j on the masks; the covariance of its
                          errors over j is estimated, too: `joint_influences`
    does it change        one test a group, of a straight line over the places of the numbers of shots; q over groups
    how much is explained parts of the variance between models at each number of shots: `variance_shares`
    same order            correlation of true influences at two numbers of shots: `true_agreement`
    one list for all      `pydt.analyses.shots_lists`, and by retraining `pydt.analyses.shots_removal`

The numbers are in `shots_numbers`, what is said of them in `shots_page`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from pydt.analyses.ensemble_view import LEVEL, Array, EnsembleView
from pydt.analyses.shots_kinds import kinds_of
from pydt.analyses.shots_lists import lists_of
from pydt.analyses.shots_numbers import ShotsNumbers
from pydt.analyses.shots_page import page_of, tick
from pydt.analyses.shots_removal import kept_lists
from pydt.analyses.shots_tasks import shots_tasks
from pydt.base import ConfigError, EstimateError, html_table, to_frame, whole
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import (
    VarianceShares,
    benjamini_hochberg,
    holm,
    joint_influences,
    method_for,
    p_values,
    true_agreements,
    variance_shares,
)
from pydt.reporting import (
    Page,
    called_output,
    count,
    curve_plot,
    listed,
)
from pydt.store import HALVES, Record, Store, per_draw, unit_of

_ROUNDING = 1e-9  # a spread below it, relative to the outputs, is that of sums
_ROWS = 2000  # of which the parts of the variance are made: more would cost minutes, and tell little more
_FEWEST_GROUPS = 5  # whose orders at two numbers of shots can be compared
_CURVES = 6  # groups of a plot


@dataclass(frozen=True, eq=False, repr=False)
class ByShots(ShotsNumbers):
    """Influences of all groups at J numbers of shots: attributes as of `ShotsNumbers`; see the module's head."""

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each group and number of shots: "group", "shots", "value", "stderr",
        "low" and "high" (95 %, of all numbers of shots at once); and of the group, the same on each of its lines,
        "change" with "change_stderr" and "change_q", and "kind". Its `attrs` name the unit.

        Raises:
            ConfigError: pandas is not installed.
        """
        groups, shots = self.values.shape
        parts = {"value": self.values, "stderr": self.stderr, "low": self.low, "high": self.high}
        trend = {"change": self.trend.values, "change_stderr": self.trend.stderr, "change_q": self.trend.q}
        return to_frame(
            {
                "group": [name for name in self.groups for _ in range(shots)],
                "shots": list(self.shots) * groups,
                **{name: part.reshape(-1) for name, part in parts.items()},
                **{name: np.repeat(part, shots) for name, part in trend.items()},
                "kind": [kind for kind in self.kinds for _ in range(shots)],
            },
            "ByShots",
            unit=self.unit,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the six groups whose influence changes most surely, by number of shots.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shown = self.order()[:_CURVES]
        reach = np.stack([self.values[shown] - self.low[shown], self.high[shown] - self.values[shown]], 1)
        labels = "shots", f"influence ({self.unit}), 95 % intervals"
        changed = count(int((self.trend.q < LEVEL).sum()), "group")
        title = f"{changed} of {len(self.groups):,} surely change with shots"
        names = [self.groups[i] for i in shown]
        return curve_plot(names, [tick(k) for k in self.shots], self.values[shown], reach, labels, title, ax)

    def __repr__(self) -> str:
        facts = f"{count(len(self.groups), 'group')}, {count(self.models, 'model')}, {self.unit}"
        changed = [self.groups[i] for i in self.order() if self.trend.q[i] < LEVEL]
        named = f": {listed(changed, 3)}" if changed else ""
        shots = ", ".join(map(str, self.shots))
        return f"ByShots({shots} shots: {facts}; {count(len(changed), 'group')} surely change at q < {LEVEL}{named})"

    def _repr_html_(self) -> str:
        order = self.order()
        ends = f"at {tick(self.shots[0])}", f"at {tick(self.shots[-1])}"
        rows = (
            (self.groups[i], *self.values[i, [0, -1]], self.trend.values[i], self.trend.q[i], self.kinds[i])
            for i in order
        )
        return html_table(repr(self), ("group", *ends, "change", "q", "what it does"), rows, len(order), "groups")

    def page(self) -> Page:
        """What a reader sees."""
        return page_of(self)


def influence_by_shots(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    *,
    target: str | None = None,
    mode: str | None = None,
    tasks: Mapping[int | str, str] | None = None,
    output: str | None = None,
    sizes: Sequence[int] | None = None,
    repeats: int = 0,
    steps: str = "same",
    seed: int = 0,
    runner: Runner = run_row,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool | str = True,
) -> ByShots:
    """Find out which groups matter at how many labelled images of a class ("shots"), and whether one list serves all.

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own.
        target, mode: name of the target, and the way to transfer; by default those of the first that the plan has at
            two numbers of shots or more.
        tasks: number of shots (or "full") -> name of a task, where the plan does not say itself: of measures.
        output: of which the influences are (see `pydt.store.units_of`); by default the target's metric.
        repeats: how often each list of lowest groups is left out and the rest retrained, see `kept_lists` in
            `pydt.analyses.shots_removal`; 0 retrains nothing. This needs a Plan.
        sizes: numbers of lowest groups that are left out then; by default a quarter and a half of the groups.
        steps: "same" retrains for the steps that the full source takes, "epochs" for the plan's epochs.
        seed: of random halves, simulations and retrainings.
        runner, executor, workers, progress: of the retrainings, see `pydt.run`.

    Raises:
        ConfigError: no target at two numbers of shots; an unknown name or output; tasks beside a target or mode, or of
            different units; retraining without a Plan, or with an argument out of range; sizes without repeats.
        EstimateError: all models have the same output at all numbers of shots but one, or there are too few of them.
        StoreError: no such plan, or fewer than ten finished rows.
    """
    whole(seed, "seed", "influence_by_shots", error=ConfigError)
    if sizes is not None and not repeats:
        raise ConfigError("sizes without retraining", "influence_by_shots", "ask for repeats, too: repeats=6")
    opened = store if isinstance(store, Store) else Store(store)
    asked = shots_tasks(opened.plan(plan), target, mode, tasks)
    view = EnsembleView.of(opened, plan, asked.tasks[0])
    output = view.output(output)
    drawn = [_means(view, task, output) for task in asked.tasks]
    varies = [bool(np.ptp(score) > _ROUNDING * np.abs(score).max()) for score in (one.mean(1) for one, _ in drawn)]
    if sum(varies) < 2:
        wrong = (
            f"all models have the same {called_output(output)} at {len(varies) - sum(varies)} of {len(varies)} numbers"
        )
        raise EstimateError(f"{wrong} of shots", "influence_by_shots", "there is nothing to compare: choose an output")
    shots = tuple(k for k, one in zip(asked.shots, varies, strict=True) if one)
    tasks_there = tuple(task for task, one in zip(asked.tasks, varies, strict=True) if one)
    drawn = [pair for pair, one in zip(drawn, varies, strict=True) if one]
    scores, reports = [score for score, _ in drawn], [report for _, report in drawn]
    found, judged = (np.stack([one.mean(1) for one in parts], 1) for parts in (scores, reports))
    method = method_for(view.record, view.masks)
    method = "difference" if method == "lasso" else method  # the LASSO has no joint errors
    joint = joint_influences(view.masks, found, method)
    if not np.isfinite(joint.stderr).any():
        mend = "train models on more different masks"
        raise EstimateError(f"{count(joint.models, 'model')} leave no errors of influences", "influence_by_shots", mend)
    trend = joint.trend()
    low, high = joint.low, joint.high
    mean_q = benjamini_hochberg(p_values(*joint.contrast(np.full(len(shots), 1 / len(shots))), joint.df))
    agreement = {} if len(joint.values) < _FEWEST_GROUPS else true_agreements(joint, seed)
    p = holm([one.p_same for one in agreement.values()])
    kept = None
    if repeats:
        varying = replace(asked, shots=shots, tasks=tasks_there)
        kept = kept_lists(
            opened, cast("Plan", plan), varying, joint.values, joint.stderr, sizes=sizes, repeats=repeats, steps=steps,
            seed=seed, runner=runner, executor=executor, workers=workers, progress=progress,
        )  # fmt: skip
    return ByShots(
        shots=shots,
        constant=tuple(k for k in asked.shots if k not in shots),
        groups=view.record.names,
        output=output,
        unit=view.unit(output).name,
        models=joint.models,
        method=method,
        estimand=joint.estimand,
        values=joint.values,
        stderr=joint.stderr,
        low=low,
        high=high,
        trend=trend,
        any_change=joint.any_change(),
        mean_q=mean_q,
        kinds=kinds_of(joint.values, low, high, trend.q, mean_q),
        shares=_shares(view, tasks_there, scores, reports, seed),
        agreement=agreement,
        differ=dict(zip(agreement, p.tolist(), strict=True)),
        lists=lists_of(view.masks, found, judged, method, seed),
        kept=kept,
        _view=view,
        **dict(zip(("spread", "spread_low", "spread_high"), joint.spread(), strict=True)),
    )


def _means(view: EnsembleView, task: str, output: str) -> tuple[Array, Array]:
    """Mean output of each model with each draw over the score half, and over the report half, in the output's unit:
    float64 (models, draws). Each stored cell is read once."""
    store, record = view.store, view.record
    column = [known["digest"] for known in record.tasks].index(task)
    described = record.tasks[column]
    unit = unit_of(described, output)
    if unit != view.unit(output):
        wrong = f"{unit.name} of {described['name']!r}, {view.unit(output).name} of {view.described['name']!r}"
        raise ConfigError(wrong, "influence_by_shots, tasks", "compare tasks of one unit")
    examples = store.examples(task, "all", record)
    weights = np.stack([examples["weights"] * (examples["half"] == HALVES[half]) for half in HALVES], 1) * unit.factor
    parts = []
    for position in store.finished(record).tolist():
        key = record.cells[position, column].tobytes().hex()
        drawn = per_draw(store.get(key), examples["labels"], output, str(store.path(key)))
        parts.append(drawn.astype(np.float64) @ weights)
    both = np.stack(parts)
    return both[..., 0], both[..., 1]


def _shares(
    view: EnsembleView, tasks: Sequence[str], scores: list[Array], reports: list[Array], seed: int
) -> VarianceShares | None:
    """Parts of the variance between models, from at most `_ROWS` of them; None where these are too few."""
    models = len(view.masks)
    chosen = np.linspace(0, models - 1, min(models, _ROWS)).round().astype(np.int64)
    parts = ([one[chosen] for one in own] for own in (scores, reports))
    try:
        return variance_shares(view.masks.take(chosen), *parts, part=[_part(view, task) for task in tasks], seed=seed)
    except EstimateError:
        return None


def _part(view: EnsembleView, task: str) -> float:
    """Of the noise of images in the difference of both halves, the part of the score half."""
    score, report = (
        float((view.store.examples(task, half, view.record)["weights"].astype(np.float64) ** 2).sum())
        for half in HALVES
    )
    return score / (score + report)
