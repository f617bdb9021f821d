"""What orders the groups of a kept list: influences on one task, or on one target at all its numbers of shots.

    one task     the influence, as the report has it
    all shots    the mean over the J numbers of shots of t_j = influence / standard error, as the page by shots orders
                 them (`pydt.analyses.shots_lists.common_score`), and its standard error
                 sqrt(sum of the correlations of the errors of all pairs of t) / J

Whether the order predicts other models, and whether two halves of them agree, is asked of one output of each model: the
task's; or the mean over the numbers of shots of its outputs, each divided by the median standard error there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import Array, EnsembleView
from pydt.analyses.shots_lists import common_score
from pydt.analyses.shots_tasks import FULL, shots_of, shots_tasks
from pydt.base import ConfigError, t975, whole
from pydt.estimation import benjamini_hochberg, joint_influences, mean_output, method_for, overall, p_values
from pydt.reporting import count, quoted

COMMON = "common"
"""One order of the groups for all numbers of shots."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of all groups, each (groups,), with the half-widths of their 95 % intervals and two-sided q.

    `score` and `judged` are the outputs of each model, (models,), on both halves. `shots`: of all of them, else ().
    """

    values: Array
    stderr: Array
    reach: Array
    q: Array
    estimand: str
    method: str
    models: int
    score: Array
    judged: Array
    unit: str
    shots: tuple[int | str, ...] = ()


def of_task(view: EnsembleView, output: str) -> Scores:
    """The influences on one task."""
    fit = overall(view.store, view.record, view.task, output)
    values, stderr = np.asarray(fit.unbiased, np.float64), np.asarray(fit.stderr, np.float64)
    reach = stderr * [t975(one) for one in np.broadcast_to(fit.df, values.shape)]
    score, judged = (mean_output(view.store, view.record, view.task, output, half) for half in ("score", "report"))
    about = fit.estimand, fit.method, fit.models, score, judged, view.unit(output).name
    return Scores(values, stderr, reach, np.asarray(fit.q, np.float64), *about)


def of_all_shots(view: EnsembleView, output: str, task: bool) -> Scores:
    """The common order of one target's numbers of shots; of the view's task if that was asked for."""
    asked = next((one for one in shots_of(view.record) if view.task in one.tasks), None)
    if asked is None:
        if task:
            wrong = f"task {view.described['name']!r} has one number of shots"
            raise ConfigError(wrong, "keep", "name a task whose target has several, or leave shots out")
        asked = shots_tasks(view.record)
    found, judged = (
        np.stack([mean_output(view.store, view.record, one, output, half) for one in asked.tasks], 1)
        for half in ("score", "report")
    )
    method = method_for(view.record, view.masks)
    method = "difference" if method == "lasso" else method  # the LASSO has no joint errors
    joint = joint_influences(view.masks, found, method)
    values, pairs = common_score(joint.values, joint.stderr), np.nan_to_num(joint.correlation)
    stderr = np.sqrt(np.maximum(pairs.sum((1, 2)), 0)) / len(asked.shots)
    reach = stderr * [t975(df) for df in joint.df.tolist()]
    error = np.nanmedian(joint.stderr, 0)
    weights = np.divide(1 / len(error), error, out=np.zeros_like(error), where=error > 0)
    q = benjamini_hochberg(p_values(values, stderr, joint.df))
    about = joint.estimand, method, joint.models, found @ weights, judged @ weights, "standard errors"
    return Scores(values, stderr, reach, q, *about, asked.shots)


def target_of(view: EnsembleView, shots: tuple[int | str, ...]) -> str:
    """What the influences are on, in a sentence."""
    if shots:
        named = ["all labelled images" if one == FULL else str(one) for one in shots]
        last = named.pop() + ("" if shots[-1] == FULL else " shots")
        return f"{view.target_name} (one order for {', '.join(named)} and {last})"
    return view.target_name + (f" (task {quoted(view.described['name'])})" if len(view.record.tasks) > 1 else "")


def left_out(values: Array, lower: npt.NDArray[np.bool_] | None, drop: Any, top: Any, sure: bool) -> list[int]:
    """Positions of the groups that go, the lowest first."""
    upwards = np.argsort(-values, kind="stable")[::-1].tolist()
    if sure:
        if lower is None:
            mend = "single examples are tested as a whole, none on its own: use drop=N or top=N"
            raise ConfigError("sure of single examples", "keep", mend)
        return [i for i in upwards if lower[i]]
    word, asked = ("drop", drop) if drop is not None else ("top", top)
    if len(values) < 2:
        raise ConfigError("one group", "keep", "there is nothing to leave out")
    asked = whole(asked, word, "keep", 1, error=ConfigError)
    if asked >= len(values):
        empty = "nothing is left" if word == "drop" else "nothing is left out"
        wrong = empty if asked == len(values) else "there are not so many"
        asks = f"{word} {asked:,} of {count(len(values), 'group')}: {wrong}"
        raise ConfigError(asks, "keep", f"use 1 to {len(values) - 1}")
    return upwards[: asked if word == "drop" else len(values) - asked]
