"""Whether a group moves single target examples beyond the rest of their class, tested on other models than found them.

    r_ij = y_ij - b_j m_ij,  y: output of model i on example j; m: mean output on the other examples of j's class;
                             b: how far j goes along with them (least squares, within [0, 3])

A group that moves all of a class, each example as easily moved as it is, has no influence on r. For each group one half
of the models finds the examples of largest influence / stderr on r (a `share` of all, five at least), and b; the other
half estimates the influence on the mean of r over them: one scalar a model, so its t test is exact however examples
depend on each other. Then the halves change places; twice the mean of the two p values is a p value (Vovk and Wang
2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import Array
from pydt.analyses.sample_splitting import halves
from pydt.design import Design
from pydt.estimation import influences, method_for, upper_tail
from pydt.store import Record

Rows = npt.NDArray[np.int64]

FEWEST = 20  # finished rows
_CELLS = 1 << 25  # influences held at once


def two_halves(masks: Design, seed: int) -> tuple[Rows, Rows]:
    """Two halves of the models; repeated and complementary masks stay together."""
    return next(iter(halves(masks, 1, "uneven", seed)))


@dataclass(frozen=True, eq=False)
class Uneven:
    """The influence test of all groups.

    Attributes:
        p, effect, stderr: (groups,); p before Holm's procedure. df: of the t test.
        examples: (groups, top), those that the first half found, as columns of the outputs.
        models: in each half.
    """

    p: Array
    effect: Array
    stderr: Array
    df: float
    examples: Rows
    models: tuple[int, int]


def uneven(
    record: Record, masks: Design, outputs: npt.NDArray[np.float32], labels: Rows, share: float, seed: int
) -> Uneven:
    """Whether each group moves single examples beyond the rest of their class; see the module's head.

    Args:
        record: of the plan. masks: of the finished rows.
        outputs: (rows, examples). labels: (examples,) their classes.
        share: of the examples that are found for each group. seed: of the halves.
    """
    parts = two_halves(masks, seed)
    top = min(max(5, round(share * len(labels))), len(labels))
    p, effects, errors, examples, free = [], [], [], [], np.inf
    for first, second in (parts, parts[::-1]):
        slopes = _slopes(outputs[first], labels)
        finding, judging = (masks.take(rows) for rows in (first, second))
        left, right = (outputs[rows] - slopes * _rest(outputs[rows], labels) for rows in (first, second))
        chosen = _largest(finding, left, method_for(record, finding), top)
        means = np.stack([right[:, one].mean(1) for one in chosen], axis=1)
        value, stderr, df = own_influences(judging, means, method_for(record, judging))
        p.append(upper_tail(value, stderr, df))
        effects.append(value)
        errors.append(stderr)
        examples.append(chosen)
        free = min(free, float(df.min()))
    return Uneven(
        p=np.minimum(p[0] + p[1], 1),
        effect=(effects[0] + effects[1]) / 2,
        stderr=np.sqrt(errors[0] ** 2 + errors[1] ** 2) / 2,
        df=free,
        examples=examples[0],
        models=(len(parts[0]), len(parts[1])),
    )


def _rest(outputs: npt.NDArray[Any], labels: Rows) -> Array:
    """Mean output on the other examples of each example's class (on all others where the class has no other)."""
    outputs = np.asarray(outputs, np.float64)
    count = np.bincount(labels)
    sums = np.zeros((len(outputs), len(count)))
    for label in np.flatnonzero(count):
        sums[:, label] = outputs[:, labels == label].sum(1)
    alone = count[labels] < 2
    rest = (sums[:, labels] - outputs) / np.where(alone, 1, count[labels] - 1)
    rest[:, alone] = (outputs.sum(1, keepdims=True) - outputs[:, alone]) / max(len(labels) - 1, 1)
    return rest


def _slopes(outputs: npt.NDArray[Any], labels: Rows) -> Array:
    y, rest = np.asarray(outputs, np.float64), _rest(outputs, labels)
    y, rest = y - y.mean(0), rest - rest.mean(0)
    energy = (rest**2).sum(0)
    return np.clip(np.divide((y * rest).sum(0), energy, out=np.zeros_like(energy), where=energy > 0), 0, 3)


def _largest(design: Design, residual: Array, method: str, top: int) -> Rows:
    """For each group the examples with the largest influence / stderr on r, (groups, top)."""
    groups = design.groups
    best, at = np.full((groups, 0), -np.inf, np.float32), np.zeros((groups, 0), np.int64)
    width = max(256, _CELLS // groups)
    for start in range(0, residual.shape[1], width):
        fit = influences(design, residual[:, start : start + width], method)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.nan_to_num(fit.unbiased / fit.stderr, nan=-np.inf)
        best = np.concatenate([best, t], axis=1)
        at = np.concatenate([at, np.broadcast_to(np.arange(start, start + t.shape[1]), t.shape)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :top]
        best, at = np.take_along_axis(best, order, 1), np.take_along_axis(at, order, 1)
    return at


def own_influences(
    design: Design, outputs: Array, method: str, groups: Rows | None = None
) -> tuple[Array, Array, Array]:
    """Influence of group groups[i] (by default i) on output i, its stderr and degrees of freedom, (outputs,) each."""
    groups = np.arange(outputs.shape[1]) if groups is None else groups
    found = np.empty((3, outputs.shape[1]))
    width = max(64, _CELLS // design.groups)
    for start in range(0, outputs.shape[1], width):
        part = slice(start, start + width)
        fit = influences(design, outputs[:, part], method)
        own = groups[part], np.arange(len(groups[part]))
        found[:, part] = [one[own] for one in (fit.unbiased, fit.stderr, np.broadcast_to(fit.df, fit.stderr.shape))]
    return found[0], found[1], found[2]
