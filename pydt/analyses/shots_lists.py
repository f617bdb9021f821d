"""Does one list of the lowest groups serve all numbers of shots? Answered without retraining.

    list of a ranking   the n groups that it puts lowest: the ranking at each number of shots, and the common one, by
                        the mean over the numbers of shots of influence / standard error
    worth at j          mean influence at j of the groups on the list
    cost at j           worth of the common list - worth of j's own: above 0 where the own list finds lower groups

One half of the models, on the score half of the images, makes the lists; the other half, on the report half, values
them; both ways, over random splits (`pydt.analyses.sample_splitting`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydt.analyses.ensemble_view import Array
from pydt.analyses.sample_splitting import SPLITS, error_of_ways, halves
from pydt.base import EstimateError, Short
from pydt.design import Design
from pydt.estimation import ESTIMATORS, best_method, influences


@dataclass(frozen=True, eq=False, repr=False)
class Lists(Short):
    """What lists of the lowest groups are worth at each of J numbers of shots.

    Attributes:
        size: groups on a list. splits: random splits.
        worth, stderr: float64 (J + 1, J): row = whose list, the last the common one; column = where it is valued.
        cost, cost_stderr: float64 (J,), of the common list against the own.
        gain, gain_stderr: float64 (J + 1, J): by how much a list is below the mean of all groups.
    """

    size: int
    splits: int
    worth: Array
    stderr: Array
    cost: Array
    cost_stderr: Array
    gain: Array
    gain_stderr: Array


def common_score(values: Array, stderr: Array) -> Array:
    """What the common ranking orders groups by: the mean over the columns of value / standard error, (groups,); 0 where
    one is not known."""
    with np.errstate(invalid="ignore", divide="ignore"):
        t = values / stderr
    return np.asarray(np.where(np.isfinite(t), t, 0.0).mean(1))


def lists_of(masks: Design, found: Array, judged: Array, method: str, seed: int) -> Lists | None:
    """What the lists are worth; None where half of the models do not tell the groups apart.

    Args:
        found, judged: (models, J) outputs on the score half, and on the report half.
        method: of the influences of all models.
    """
    groups, columns = masks.groups, found.shape[1]
    size = max(1, round(groups / 4))
    ways, means = [], []
    try:
        for pair in halves(masks, SPLITS, "lists by shots", seed):
            for one, other in (pair, pair[::-1]):
                finding, judging = masks.take(one), masks.take(other)
                first = influences(finding, found[one], _rule(finding, method))
                second = influences(judging, judged[other], _rule(judging, method)).unbiased.astype(np.float64)
                values, stderr = first.unbiased.astype(np.float64), first.stderr.astype(np.float64)
                ranked = np.column_stack([values, common_score(values, stderr)])
                lowest = np.argsort(ranked, 0, kind="stable")[:size]
                ways.append([second[chosen].mean(0) for chosen in lowest.T])
                means.append(second.mean(0))
    except EstimateError:  # a group that one half of the models never keeps
        return None
    worth = np.array(ways)
    own = np.arange(columns)
    cost = worth[:, -1] - worth[:, own, own]
    gain = np.array(means)[:, None] - worth
    errors = [error_of_ways(one) for one in (worth, cost, gain)]
    return Lists(size, SPLITS, worth.mean(0), errors[0], cost.mean(0), errors[1], gain.mean(0), errors[2])


def _rule(masks: Design, method: str) -> str:
    """The method for a part of the models."""
    return best_method(masks) if ESTIMATORS[method].needs_regression else method
