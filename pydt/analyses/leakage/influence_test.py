"""Whether a group moves single target examples beyond the rest of their class, tested on other models than found them.

For model i and target example j of class c let r_ij = y_ij - b_j m_ij, with y the output, m_ij the mean output on the
other examples of class c, and b_j how far j goes along with them (least squares, within [0, 3]). A group that moves all
of a class, each example as easily moved as it is, has no influence on r. For each group one half of the models finds
the examples with the largest influence / stderr on r (a `share` of all, five at least), and the other half estimates
the group's influence on the mean of r over them: an ordinary scalar output, so its t test is exact, however examples
depend on each other (b comes from the half that finds, too). Then the halves change places; the sum of the two p values
is one (Vovk and Wang 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import Subject
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError, StoreError
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.estimation import influences, method_for
from pydt.store import UNITS, Record

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_FEWEST = 20  # finished rows
_CELLS = 1 << 25  # influences held at once


@dataclass(frozen=True, eq=False)
class Asked:
    """The rows, outputs and examples that an analysis of a plan with its images looks at.

    Attributes:
        target: of the task. design: masks of the finished rows.
        outputs: float32 (models, examples), in the unit, score half first. labels, half, ids: of the examples; ids are
            positions in the judged data set.
    """

    seen: Subject
    record: Record
    plan: Plan
    target: Any
    design: Design
    outputs: npt.NDArray[np.float32]
    labels: Rows
    half: npt.NDArray[np.uint8]
    ids: Rows
    unit: str

    @staticmethod
    def of(store: Any, plan: Any, task: Any, output: str) -> Asked:
        """Raises ConfigError and StoreError, as `leaks` says."""
        if not isinstance(plan, Plan):
            mend = "give the pydt.Plan itself (pydt.read_plan reads one from its file)"
            raise ConfigError(f"is a {type(plan).__name__}; the images of its source are needed", "plan", mend)
        if output not in UNITS:
            raise ConfigError(f"no influences on output {output!r}", "output", f"choose one of: {', '.join(UNITS)}")
        seen = Subject.of(store, plan, task)
        if len(seen.masks) < _FEWEST:
            mend = f"train at least {_FEWEST} first"
            raise StoreError(f"{len(seen.masks)} finished rows", str(seen.store.folder), mend)
        examples = seen.store.examples(seen.task, "all", seen.record)
        asked = next(one for one in plan.tasks if one.digest == seen.task)
        outputs = seen.outputs(output, "all")
        labels, half, ids = (examples[name] for name in ("labels", "half", "ids"))
        unit = UNITS[output][0]
        return Asked(seen, seen.record, plan, asked.target, seen.masks, outputs, labels, half, ids, unit)

    @property
    def right(self) -> npt.NDArray[np.float32]:
        """The share of draws in which each example was right, float32 (models, examples)."""
        return self.seen.outputs("correct", "all") / np.float32(UNITS["correct"][1])

    def split(self, seed: int) -> tuple[Rows, Rows]:
        """Two halves of the models, repeated and complementary masks in one of them."""
        return next(iter(halves(self.design, 1, "uneven", seed)))


def holm(p: Array, level: float) -> npt.NDArray[np.bool_]:
    """Which hypotheses Holm's procedure rejects: the chance of any false rejection is at most `level`."""
    order = np.argsort(p, kind="stable")
    passed = p[order] <= level / np.arange(len(p), 0, -1)
    rejected = np.zeros(len(p), bool)
    rejected[order] = np.logical_and.accumulate(passed)
    return rejected


def upper_tail(values: Array, stderr: Array, df: Any) -> Array:
    """One-sided p values of t statistics; without an error, 1 unless the value is above 0."""
    from scipy import special

    with np.errstate(invalid="ignore", divide="ignore"):
        t = values / stderr
    p = special.stdtr(np.broadcast_to(df, t.shape), -t)
    return np.where(np.isnan(t), 1.0, p)


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


def uneven(asked: Asked, share: float, seed: int) -> Uneven:
    """Whether each group moves single examples beyond the rest of their class; see the top of this file."""
    parts = asked.split(seed)
    top = min(max(5, round(share * len(asked.ids))), len(asked.ids))
    p, effects, errors, examples, free = [], [], [], [], np.inf
    for first, second in (parts, parts[::-1]):
        slopes = _slopes(asked.outputs[first], asked.labels)
        chosen = _largest(asked, first, slopes, top)
        value, stderr, df = _judge(asked, second, slopes, chosen)
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


def _largest(asked: Asked, rows: Rows, slopes: Array, top: int) -> Rows:
    """For each group the examples with the largest influence / stderr on r, (groups, top)."""
    design = asked.design.take(rows)
    method, groups = method_for(asked.record, design), design.groups
    residual = asked.outputs[rows] - slopes * _rest(asked.outputs[rows], asked.labels)
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


def _judge(asked: Asked, rows: Rows, slopes: Array, chosen: Rows) -> tuple[Array, Array, Array]:
    """Of each group its influence on the mean of r over its examples, with stderr and degrees of freedom."""
    design = asked.design.take(rows)
    method = method_for(asked.record, design)
    residual = asked.outputs[rows] - slopes * _rest(asked.outputs[rows], asked.labels)
    return own_influences(design, np.stack([residual[:, one].mean(1) for one in chosen], axis=1), method)


def own_influences(
    design: Design, outputs: Array, method: str, groups: Rows | None = None
) -> tuple[Array, Array, Array]:
    """Influence of group groups[i] (by default i) on output i, its stderr and degrees of freedom, (outputs,) each."""
    groups = np.arange(outputs.shape[1]) if groups is None else groups
    value, stderr, df = (np.empty(outputs.shape[1]) for _ in range(3))
    width = max(64, _CELLS // design.groups)
    for start in range(0, outputs.shape[1], width):
        part = slice(start, start + width)
        fit = influences(design, outputs[:, part], method)
        own = groups[part], np.arange(len(groups[part]))
        value[part], stderr[part], df[part] = (
            fit.unbiased[own],
            fit.stderr[own],
            np.broadcast_to(fit.df, fit.stderr.shape)[own],
        )
    return value, stderr, df
