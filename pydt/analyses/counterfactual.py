"""Remove and retrain: what really happens without the groups that the influences blame.

Influences rank the groups on the score half of the target; rows without the lowest, the highest and random groups are
judged on the report half, against the whole source ("gains": does leaving them out pay?) and against the random groups
("contrasts": does it matter which?). They take as many steps as the whole source does. With d_i the difference between
two arms' mean outputs on image i, of weight w_i:

    stderr_images^2 = sum over classes of n_c var(w_i d_i within class c)
    stderr^2 = stderr_retraining^2 (Welch's) + stderr_images^2 - sum over arms, images of weight^2 rest^2 / rows

with y = mean + row + image + rest. Degrees of freedom, and what is done where nothing varies: docs/analyses.md, "How
retraining is judged".
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.analyses.retraining import (
    CONTROL,
    KINDS,
    LINE,
    OWN,
    Arm,
    Retraining,
    arm_rows,
    arms_of,
    group_images,
    other_draws,
    recipes_of,
)
from pydt.base import (
    Z975,
    ConfigError,
    Form,
    StoreError,
    Unreadable,
    canonical_json,
    html_table,
    one_of,
    read_json,
    t975,
    to_frame,
    whole,
)
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import overall, wilson
from pydt.reporting import ACCURACY, Metric, count, interval_plot, number
from pydt.store import Record, Store

if TYPE_CHECKING:
    from pydt.training import Task


QUICK = 5
"""Retrainings of each of the three arms of a quick proof."""
_Z80 = 0.8416  # quantile of a power of 80 %
_ROUNDING = 1e-9  # an error below it, relative to the outputs, is that of their float32
_LEAST_DF_REACH = 13.0  # standard errors in half a 95 % interval, of 1 degree of freedom 12.7
_COLUMNS = (
    *(*LINE, "difference", "difference_stderr", "difference_low", "difference_high", "p"),
    *("gain", "gain_stderr", "gain_low", "gain_high", "gain_p"),
)
_FORM: Form = {"plan?": str, "rows": str, "full?": str, "task": str, "ranked_task?": str, "length?": str}


@dataclass(frozen=True)
class Contrast:
    """How much better an arm is than another one, such as the random control of the same size.

    Attributes:
        kind, dropped: of the arm. n, control_n: rows of both.
        difference: positive where the arm is better, also where lower values are. It and what follows: fractions, or
            of a `pydt.Measure` numbers as rows store them.
        stderr_retraining: Welch's. stderr_images: of images (or other examples) drawn class by class; NaN where the
            report half has one alone. stderr: of both, or of the one that is known.
        low, high: 95 %. p: two-sided, of the same test, so below 0.05 where the interval excludes 0. NaN where nothing
            varies and the values are no shares of what is right.
    """

    kind: str
    dropped: int
    n: int
    control_n: int
    difference: float
    stderr_retraining: float
    stderr_images: float
    stderr: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The judged arms, compared with the random control and with the whole source.

    Attributes:
        contrasts: of each other arm with the random control of its size. gains: of each with the whole source.
        failed: rows that gave no outputs.
        task: digest of the task they were judged on. record: the rows as the store describes them; where those of the
            whole source have a recipe of their own, full_record describes these.
        length: what is equal to the whole source's training: "steps" or "epochs"; "own" for a program of the user's.
    """

    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]
    failed: int
    task: str
    record: Record
    gains: tuple[Contrast, ...] = ()
    length: str = "epochs"
    full_record: Record | None = None

    @property
    def records(self) -> tuple[Record, ...]:
        """All rows, as the store describes them."""
        return (self.record,) if self.full_record is None else (self.full_record, self.record)

    @property
    def main(self) -> int | None:
        """The number of groups that was to be left out first: that of the main comparison, whatever came out."""
        dropped = (int((~row.mask).sum()) for row in self.record.rows)
        return next((size for size in dropped if size), None)

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each arm: "kind", "dropped", "rows", "failed"; "mean", "sd", "low",
        "high" of the task's metric over retrainings (95 %, Student's t); against the random control of its size
        "difference", "difference_stderr", "difference_low", "difference_high" (95 %) and "p", and against the whole
        source "gain", "gain_stderr", "gain_low", "gain_high" and "gain_p", NaN where there is none.
        Numbers are those of `arms` and `contrasts`: fractions, or of a measure as rows store them.

        Raises:
            ConfigError: pandas is not installed.
        """
        known = [{(one.kind, one.dropped): one for one in found} for found in (self.contrasts, self.gains)]
        lines = []
        for arm in self.arms:
            both = (found.get((arm.kind, arm.dropped)) for found in known)
            lines.append((*arm.line, *(x for one in both for x in _numbers(one))))
        columns = zip(*lines, strict=True) if lines else [()] * len(_COLUMNS)
        return to_frame(dict(zip(_COLUMNS, map(list, columns), strict=True)), "Counterfactual")

    def plot(self, ax: Any = None) -> Any:
        """Draw the mean metric of each arm with its 95 % interval over retrainings (on the same images).

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        metric = self._metric
        values = metric.scale * np.array([arm.mean for arm in self.arms])
        reach = metric.scale * np.array([arm.reach for arm in self.arms])
        about = ", ".join(filter(None, (metric.suffix.strip(), metric.direction)))
        label = f"{metric.name}{f' ({about})' if about else ''}, 95 % over retrainings"
        return interval_plot([_called(arm) for arm in self.arms], values, reach, label, ax=ax, zero=False)

    @property
    def _metric(self) -> Metric:
        return self.arms[0].metric if self.arms else ACCURACY

    def _level(self, arm: Arm) -> str:
        metric = self._metric
        return f"{number(metric.scale * arm.mean, metric.decimals(1, arm.sd))}{metric.suffix}"

    def __repr__(self) -> str:
        rows = sum(len(arm.rows) for arm in self.arms)
        line = f"Counterfactual({count(len(self.arms), 'arm')}, {count(rows, 'row')}, {self.failed:,} failed)"
        levels = [f"{_called(arm)} {self._level(arm)}" for arm in self.arms if arm.kind == "full"]
        told = [f"{self._metric.name}: {levels[0]}"] if levels else []
        for found, what in ((self.contrasts, "random"), (self.gains, "the whole source")):
            told += [self._against(one, what) for one in found if one.dropped == self.main][:1]
        return "\n".join([line, "; ".join(told)]) if told else line

    def _against(self, one: Contrast, what: str) -> str:
        metric = self._metric
        digits = metric.decimals(1, one.stderr)
        value, low, high = (number(metric.scale * x, digits, True) for x in (one.difference, one.low, one.high))
        return f"{one.kind} {one.dropped} against {what} {value} ({low} to {high}) {metric.unit}".rstrip()

    def _repr_html_(self) -> str:
        judged, gained = (
            {(one.kind, one.dropped): self._against(one, what) for one in found}
            for found, what in ((self.contrasts, "random"), (self.gains, "the whole source"))
        )
        rows = (
            (_called(arm), len(arm.rows), self._level(arm), *(of.get((arm.kind, arm.dropped), "") for of in both))
            for arm in self.arms
            for both in [(gained, judged)]
        )
        heads = "arm", "rows", self._metric.name, "better than the whole source", "better than random groups"
        return html_table(repr(self), heads, rows, len(self.arms), "arms")

    def arm(self, kind: str, dropped: int) -> Arm:
        """The arm of a kind and size; raises ConfigError if there is none."""
        for arm in self.arms:
            if (arm.kind, arm.dropped) == (kind, dropped):
                return arm
        known = ", ".join(f"{arm.kind} {arm.dropped}" for arm in self.arms)
        raise ConfigError(f"no arm {kind!r} of {dropped}", "Counterfactual", f"there are: {known}")


def _numbers(one: Contrast | None) -> tuple[float, ...]:
    return (math.nan,) * 5 if one is None else (one.difference, one.stderr, one.low, one.high, one.p)


def _called(arm: Arm) -> str:
    return f"{arm.kind} {arm.dropped:,}" if arm.dropped else arm.kind


def counterfactual(
    store: Store | str | os.PathLike[str],
    plan: Plan,
    *,
    task: Task | str | None = None,
    output: str | None = None,
    drop: Sequence[int] | None = None,
    repeats: int = 14,
    other_repeats: int = 4,
    kinds: Sequence[str] = ("bottom", "top", "random"),
    steps: str = "same",
    seed: int = 0,
    runner: Runner = run_row,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool = True,
    limit: float | None = None,
) -> Counterfactual:
    """Retrain without the worst, the best and random groups, and judge on the report half.

    Args:
        store: where the plan's rows are, or its folder; the new rows go there, too, and are not trained twice.
        plan: whose influences rank the groups.
        task: which of its tasks, or its name; the first by default. Retrained models are transferred with other
            few-shot draws.
        output: whose influences rank the groups (see `pydt.store.derive`); by default the target's metric.
        drop: numbers of groups to leave out, by default a third, a sixth and a half. The first is the main comparison.
        repeats: rows of each arm without the first number of groups, and of the full source.
        other_repeats: of other arms.
        kinds: of groups that are left out. A report needs "bottom" and "random".
        steps: "same": every retraining takes as many steps as the whole source does; "epochs": the plan's epochs, so a
            smaller source trains for fewer steps. Of a `pydt.Function` or `pydt.Command`, which decides this, there is
            one length.
        seed: of the retrainings and the random sets.
        runner, executor, workers, progress, limit: see `pydt.run`.

    Raises:
        ConfigError: a number of groups that leaves nothing, fewer than two repeats, or steps that the recipe lacks.
        StoreError: the plan has too few finished rows to rank by.
    """
    whole(seed, "seed", "counterfactual", error=ConfigError)
    store = store if isinstance(store, Store) else Store(store)
    if not isinstance(plan, Plan):
        mend = "give the pydt.Plan itself; imported rows cannot be retrained but by a plan of your own: its recipe a "
        mend += "pydt.Function or pydt.Command that trains on the same groups"
        raise ConfigError(f"is a {type(plan).__name__}, which trains nothing", "counterfactual, plan", mend)
    task = plan.task(task)
    groups = len(plan.context.units[1])
    sizes = numbers_to_drop(groups, drop)
    if repeats < 2 or other_repeats < 2:
        mend = "use at least 2: one row has no spread"
        raise ConfigError(f"{repeats} and {other_repeats} repeats", "counterfactual", mend)
    for kind in kinds:
        one_of(kind, ("bottom", "top", "random"), "kind", "counterfactual")
    one_of(steps, ("same", "epochs"), "steps", "counterfactual")
    own = not hasattr(plan.recipe, "budget")
    ((length, recipe),) = recipes_of(plan, "epochs" if own else steps, "counterfactual").items()
    values = np.asarray(overall(store, plan, task, output).unbiased)
    arms = [kind for kind in KINDS[1:] if kind.removeprefix("drop ") in kinds]
    rows = arm_rows(values, group_images(plan), sizes, [repeats] + [other_repeats] * (len(sizes) - 1), seed, arms)
    fresh = other_draws(task)
    # The rows of the whole source keep the plan's recipe: other analyses share them.
    jobs = [(plan.recipe, rows)] if recipe == plan.recipe else [(plan.recipe, rows[:repeats]), (recipe, rows[repeats:])]
    retraining = Retraining(store, plan, runner, executor, workers, progress, limit)
    records = [retraining.run((fresh,), part, used).plan() for used, part in jobs]
    # So that a report needs nothing but the folder: it shows the last counterfactual of a plan and task.
    link = {"plan": plan.digest, "rows": records[-1].digest, "task": fresh.digest, "ranked_task": task.digest}
    link |= {"length": length} if len(records) == 1 else {"length": length, "full": records[0].digest}
    path = _link(store, plan.digest, "" if task.digest == plan.tasks[0].digest else task.digest)
    store.write(path.relative_to(store.folder), canonical_json(link).encode())
    return judge(store, records, fresh.digest, length)


def stored(store: Store, record: Record, ranked: str | None = None) -> Counterfactual | None:
    """The counterfactual that was run for a plan, judged again from its rows; None if there was none, or if another
    task than `ranked` (a digest) ranked its groups."""
    path = _link(store, record.digest, ranked or "")
    path = path if path.is_file() else _link(store, record.digest)  # of the first task, or written before
    try:
        link = read_json(path, _FORM)
    except FileNotFoundError:
        return None
    except Unreadable:
        raise
    except StoreError as error:
        raise StoreError(error.what, str(path), "delete it and run the counterfactual again") from error
    if ranked is not None and link.get("ranked_task", record.tasks[0]["digest"]) != ranked:
        return None  # the oldest links name no task: the first ranked
    wanted = [link[name] for name in ("full", "rows") if name in link]
    if missing := next((one for one in wanted if one not in store.plans()), None):
        wrong = f"is about a plan {missing!r} that is not there"
        raise StoreError(wrong, str(path), "run it, or delete this file and run the counterfactual again")
    records = [store.plan(one) for one in wanted]
    return judge(store, records, link["task"], link.get("length") or _length_before(records[-1]))


def judge(store: Store, records: Sequence[Record], task: str, length: str) -> Counterfactual:
    """Arms and contrasts from finished counterfactual rows, on the report half."""
    arms = [arm for record in records for arm in arms_of(store, record, task)]
    examples = store.examples(task, "report", records[-1])
    weights, labels = examples["weights"], examples["labels"]
    control = {arm.dropped: arm for arm in arms if arm.kind == CONTROL}
    full = next((arm for arm in arms if arm.kind == "full"), None)
    others = [arm for arm in arms if arm.kind != "full"]
    contrasts = (compared(arm, control.get(arm.dropped), weights, labels) for arm in others)
    gains = (compared(arm, full, weights, labels) for arm in others)
    return Counterfactual(
        tuple(arms),
        tuple(filter(None, contrasts)),
        sum(len(store.failed(record)) for record in records),
        task,
        records[-1],
        tuple(filter(None, gains)),
        length,
        records[0] if len(records) > 1 else None,
    )


def compared(arm: Arm | None, control: Arm | None, weights: np.ndarray, labels: np.ndarray) -> Contrast | None:
    """The contrast of two arms with two rows or more each; None without one of them, or with fewer rows."""
    if arm is None or control is None or control is arm or min(len(arm.rows), len(control.rows)) < 2:
        return None
    return contrast(arm, control, weights, labels)


@dataclass(frozen=True)
class Spread:
    """Variance of the metric between retrainings of one mask, and the degrees of freedom that estimate it."""

    variance: float
    df: int

    @classmethod
    def of(cls, arms: Sequence[Arm]) -> Spread:
        """Pooled over arms whose rows vary alike; arms of the same rows count once, those of one row do not."""
        own = list({arm.rows: arm.accuracy for arm in arms if len(arm.rows) > 1}.values())
        df = np.array([len(values) - 1 for values in own])
        return cls(float(np.average([values.var(ddof=1) for values in own], weights=df)), int(df.sum()))


def contrast(
    arm: Arm,
    control: Arm,
    weights: np.ndarray,
    labels: np.ndarray,
    *,
    tests: int = 1,
    spreads: tuple[Spread, Spread] | None = None,
) -> Contrast:
    """Compare two arms on the same examples.

    Args:
        weights, labels: (examples,) of the metric, and the classes.
        tests: of several all intervals hold at once (Bonferroni); p is that of one.
        spreads: of both arms; by default each arm's own (Welch).
    """
    from scipy import stats

    difference = arm.goodness - control.goodness
    own = [Spread(float(a.accuracy.var(ddof=1)), len(a.accuracy) - 1) for a in (arm, control)]
    used = own if spreads is None else spreads
    parts = [spread.variance / len(a.accuracy) for a, spread in zip((arm, control), used, strict=True)]
    retraining = float(np.sqrt(sum(parts)))
    values, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    labels = np.where(sizes[inverse] > 1, inverse, len(values))
    by_images = _between_images((arm.correct.mean(0) - control.correct.mean(0)) * weights, labels)
    rest = 0.0
    for a in (arm, control):
        n, count = a.correct.shape
        residual = a.correct - a.correct.mean(0) - a.correct.mean(1, keepdims=True) + a.correct.mean()
        rest += float(weights**2 @ (residual**2).sum(0)) / (n - 1) * count / max(count - 1, 1) / n
    # Estimates of variances may cross by chance: the whole is never less than one of its parts.
    stderr = float(np.sqrt(max(retraining**2 + by_images - rest, retraining**2, by_images)))
    if stderr > _ROUNDING * max(float(np.abs(a.correct).max()) for a in (arm, control)):
        within = sum(part**2 / spread.df for part, spread in zip(parts, used, strict=True))
        df = stderr**4 / (within + by_images**2 / max(len(labels) - len(np.unique(labels)), 1))
        below = above = t975(df, tests) * stderr
        p = float(2 * stats.t.sf(abs(difference) / stderr, df))
    elif arm.metric.measured and not all(np.isin(a.correct, (0, 1)).all() for a in (arm, control)):
        below = above = p = math.nan
    else:
        images = float(weights.sum() ** 2 / (weights**2).sum())
        reach, *quantile = (Z975,) if tests == 1 else (t975(None, tests),) * 2
        one, other = (wilson(float(np.clip(a.mean, 0, 1)), images, *quantile) for a in (arm, control))
        below = float(np.hypot(arm.mean - one[0], other[1] - control.mean))
        above = float(np.hypot(one[1] - arm.mean, control.mean - other[0]))
        below, above = (below, above) if arm.metric.higher_is_better else (above, below)
        p = float(2 * stats.norm.sf(reach * abs(difference) / (below if difference > 0 else above)))
    return Contrast(
        arm.kind,
        arm.dropped,
        len(arm.accuracy),
        len(control.accuracy),
        difference,
        retraining,
        by_images**0.5 if len(weights) > 1 else math.nan,
        stderr,
        difference - below,
        difference + above,
        p,
    )


def _between_images(parts: np.ndarray, labels: np.ndarray) -> float:
    """Variance of the sum of `parts` (examples,) over drawing the examples of each class anew."""
    members = [parts[labels == label].astype(np.float64) for label in np.unique(labels)]
    return float(sum(len(own) * own.var(ddof=1) for own in members if len(own) > 1))


def numbers_to_drop(groups: int, drop: Sequence[int] | None) -> list[int]:
    """The numbers of groups to leave out; the first is the main comparison."""
    wanted = [groups // 3, groups // 6, groups // 2] if drop is None else list(drop)
    sizes = list(dict.fromkeys(int(size) for size in wanted if drop is not None or 0 < size < groups - 1))
    if not sizes or any(not 0 < size < groups for size in sizes):
        raise ConfigError(f"drop {wanted} of {groups} groups", "counterfactual", f"use numbers from 1 to {groups - 1}")
    return sizes


def detectable(one: Contrast) -> float:
    """The difference that retrainings like these tell from 0 in 4 of 5 cases, at 95 %; as rows store values.

    By the noncentral t of the degrees of freedom that the interval has; the standard error is divided by the median of
    what chance makes of it, which with few retrainings is below 1.
    """
    from scipy import special

    reach = (one.high - one.low) / 2
    if reach <= Z975 * one.stderr * (1 + _ROUNDING) or reach > _LEAST_DF_REACH * one.stderr:
        return reach * (1 + _Z80 / Z975)  # as of a normal: many degrees of freedom, or an interval of shares (Wilson)
    t = reach / one.stderr
    df = float(special.stdtridf(0.975, t))
    typical = math.sqrt(float(special.chdtri(df, 0.5)) / df)
    return one.stderr * float(special.nctdtrinc(df, 0.2, t)) / typical


def retrainings(groups: int, repeats: int = 14, other_repeats: int = 4) -> int:
    """How many rows `counterfactual` trains by default for so many groups; 0 where none can be left out."""
    if groups < 3:
        return 0
    sizes = numbers_to_drop(groups, None)
    return repeats + 3 * (repeats + other_repeats * (len(sizes) - 1))


def _length_before(record: Record) -> str:
    """What was equal in retrainings of before links named it: what the plan's recipe counts."""
    if record.settings.get("method") in ("function", "command"):
        return OWN
    return "steps" if {"steps", "samples"} & {*record.settings} else "epochs"


def _link(store: Store, plan: str, task: str = "") -> Any:
    return store.folder / "counterfactual" / f"{'-'.join(filter(None, (os.path.basename(plan), task)))}.json"
