"""Removal curves: what leaving out the worst, the best, random or all but hand-picked groups does, and how many to
leave out (Jain et al. 2023, section 3 and its table of best removals).

Groups are ranked on the score half by the plan's rows; fresh rows without some of them are judged on the report half,
against "full" (what leaving the groups out gains) and against random sets of as many groups and images (what it matters
which groups they are), at equal epochs and at equal steps. The best number of groups is chosen by one half of images
and rows and judged by the other (`pydt.analyses.best_removal`). Errors and simulations: docs/analyses.md, "How
retraining is judged". More than 500 lines: the curve and its page, which stand together as in the other analyses.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.analyses.best_removal import FEWEST, Best, best_size
from pydt.analyses.counterfactual import Contrast, compared
from pydt.analyses.ensemble_view import EnsembleView
from pydt.analyses.retraining import (
    CONTROL,
    LINE,
    OWN,
    Arm,
    Retraining,
    arm_rows,
    arms_of,
    group_images,
    matched,
    other_draws,
    recipes_of,
    without,
)
from pydt.base import ConfigError, Short, generator, html_table, one_of, seed31, suggest, to_frame, whole
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import overall
from pydt.reporting import (
    Column,
    Curve,
    Intervals,
    Metric,
    Page,
    Table,
    called,
    called_output,
    count,
    csv_of,
    curve_plot,
    listed,
    number,
)
from pydt.store import Row, Store

if TYPE_CHECKING:
    from pydt.training import Task


KINDS = ("bottom", "top", "random")
_NAMED = 12  # of the lowest groups


@dataclass(frozen=True, eq=False, repr=False)
class Point(Short):
    """One arm of the curve.

    Attributes:
        length: "epochs" or "steps": what is equal to the full source's training; "own" where the rows come from a
            program of the user's, which decides it.
        arm: its kind is "full", "drop bottom", "drop top", "drop random", "keep NAME" or "random as NAME".
        images: left out, mean over rows (or other examples).
        gain: against "full"; which: against random sets of as many groups and images. None where there is nothing to
            compare with, or fewer than two rows.
    """

    length: str
    arm: Arm
    images: float
    gain: Contrast | None
    which: Contrast | None


@dataclass(frozen=True, eq=False)
class Removal:
    """The curve.

    Attributes:
        ranked: all groups, the lowest influence first.
        retrained: rows that were trained for it, of which `failed` gave no outputs.
        metric: of the task: name, unit and direction.
    """

    points: tuple[Point, ...]
    best: tuple[Best, ...]
    ranked: tuple[str, ...]
    retrained: int
    failed: int
    metric: Metric
    _view: EnsembleView = field(repr=False)

    def point(self, kind: str, dropped: int, length: str | None = None) -> Point:
        """The point of a kind, a number of groups and a length (by default "epochs", or the one of a program of the
        user's); raises ConfigError if there is none."""
        length = self._usual if length is None else length
        for point in self.points:
            if (point.arm.kind, point.arm.dropped, point.length) == (kind, dropped, length):
                return point
        known = ", ".join(f"{point.arm.kind} {point.arm.dropped} at equal {point.length}" for point in self.points)
        raise ConfigError(f"no point {kind!r} of {dropped} at equal {length}", "Removal", f"there are: {known}")

    def keep(self, length: str | None = None) -> tuple[str, ...]:
        """The groups that stay when the best number of lowest ones is left out; length: as of `point`."""
        length = self._usual if length is None else length
        for best in self.best:
            if best.length == length:
                return self.ranked[best.size :]
        mend = f"ask for kind 'bottom' with at least {FEWEST} repeats, and a report half of at least two examples"
        raise ConfigError(f"no best number at equal {length}", "Removal.keep", mend)

    @property
    def _usual(self) -> str:
        return OWN if self.points[0].length == OWN else "epochs"

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each point: "length", "images" left out, of its arm what
        `Counterfactual.to_frame` says, and "gain" and "which" with "_stderr", "_low", "_high" and "_p" of each, NaN
        where there is none. Numbers are fractions, or of a measure as rows store them.

        Raises:
            ConfigError: pandas is not installed.
        """
        parts = "", "_stderr", "_low", "_high", "_p"
        names = ["length", "images", *LINE, *(f"{of}{part}" for of in ("gain", "which") for part in parts)]
        lines = []
        for point in self.points:
            both = (
                (math.nan,) * 5 if one is None else (one.difference, one.stderr, one.low, one.high, one.p)
                for one in (point.gain, point.which)
            )
            lines.append((point.length, point.images, *point.arm.line, *(x for of in both for x in of)))
        columns = map(list, zip(*lines, strict=True)) if lines else [[] for _ in names]
        return to_frame(dict(zip(names, columns, strict=True)), "Removal")

    def plot(self, length: str | None = None, ax: Any = None) -> Any:
        """Draw what leaving groups out gains against the full source, with 95 % intervals, by kind and number.

        Args:
            length: as of `point`. ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.

        Raises:
            ConfigError: nothing was retrained for this length.
        """
        known = list(dict.fromkeys(p.length for p in self.points))
        length = one_of(self._usual if length is None else length, known, "length", "Removal.plot")
        gains = {(p.arm.kind, p.arm.dropped): p.gain for p in self.points if p.length == length and p.gain is not None}
        kinds, sizes = list(dict.fromkeys(kind for kind, _ in gains)), sorted({size for _, size in gains})
        values, low, high = (
            self.metric.scale
            * np.array([[getattr(gains.get((kind, size)), part, math.nan) for size in sizes] for kind in kinds])
            for part in ("difference", "low", "high")
        )
        reach = np.stack([values - low, high - values], 1)
        labels = "groups left out", f"gain ({self.metric.unit or self.metric.name}), 95 % intervals"
        return curve_plot(kinds, [str(size) for size in sizes], values, reach, labels, _AT.get(length, length), ax)

    def __repr__(self) -> str:
        facts = f"{count(len(self.ranked), 'group')}, {count(self.retrained, 'row')} retrained, {self.failed:,} failed"
        best = [self._gained(f"without the {one.size} lowest", one, one.length) for one in self.best[:1]]
        return "\n".join([f"Removal({count(len(self.points), 'point')}: {facts})", *best])

    def _gained(self, what: str, one: Any, length: str) -> str:
        gain = one.gain if isinstance(one, Best) else one.difference
        digits = self.metric.decimals(1, (one.high - one.low) / 4)
        value, low, high = (number(self.metric.scale * x, digits, True) for x in (gain, one.low, one.high))
        return f"{what}, {_AT.get(length, length)}: {value} ({low} to {high}) {self.metric.unit}".rstrip()

    def _repr_html_(self) -> str:
        rows = (
            (p.length, p.arm.kind, p.arm.dropped, len(p.arm.rows), self._gained("gain", p.gain, p.length))
            for p in self.points
            if p.gain is not None
        )
        heads = "equal", "arm", "groups left out", "rows", "against the full source"
        return html_table(repr(self), heads, rows, sum(p.gain is not None for p in self.points), "points")

    def page(self) -> Page:
        """The page of this analysis."""
        return _page(self)


def removal_curve(
    store: Store | str | os.PathLike[str],
    plan: Plan,
    *,
    task: Task | str | None = None,
    output: str | None = None,
    sizes: Sequence[int] | None = None,
    kinds: Sequence[str] = KINDS,
    keep_lists: Mapping[str, Sequence[str]] | None = None,
    repeats: int = 8,
    steps: str = "both",
    seed: int = 0,
    runner: Runner = run_row,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool | str = True,
) -> Removal:
    """Retrain without the worst, the best and random groups at several sizes, and judge on the report half.

    Groups are ranked on the score half by the plan's rows. The best number is chosen on one half of the report images
    by half of the retrainings of each size, and judged on the other images by the others. No keep list, random set or
    size depends on any output.

    The number of retrainings, and how long they will take, is printed before they begin. Rows that this or
    `counterfactual` has trained before are not trained again.

    Args:
        store: where the plan's rows are, or its folder; the new rows go there, too.
        plan: whose influences rank the groups.
        task: which of its tasks, or its name; the first by default. Retrained models are transferred with other
            few-shot draws.
        output: whose influences rank the groups (see `pydt.store.derive`); by default the target's metric.
        sizes: numbers of groups to leave out; by default 1, 2, 3, 4, 5 and 6 eighths of them.
        kinds: of "bottom", "top" and "random". Without "random" the effect of which groups are left out cannot be told
            from the effect of how many.
        keep_lists: by name, the groups that stay, such as those picked by hand. Each is compared with as many
            retrainings on random sets of as many groups and about as many images.
        repeats: retrainings of each arm; the best number needs at least four.
        steps: "epochs" trains all for the plan's epochs, "same" for the steps that the full source takes, "both" both.
            A recipe with `steps` allows only "same". Of a `pydt.Function` or `pydt.Command` there is one length, that
            which the program has: leave it out.
        seed: of the retrainings and the random sets.
        runner, executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: an argument out of range, or a keep list with an unknown group, all groups or none.
        StoreError: the plan has too few finished rows to rank by.
    """
    whole(seed, "seed", "removal_curve", error=ConfigError)
    view = EnsembleView.of(store, plan, task)
    store, task = view.store, plan.task(task)
    names, images = plan.context.units[1], group_images(plan)
    sizes = sizes_of(len(names), sizes, [round(i * len(names) / 8) for i in range(1, 7)], "removal_curve")
    lists = left_out(names, keep_lists)
    for kind in kinds:
        one_of(kind, KINDS, "kind", "removal_curve")
    if repeats < 2:
        raise ConfigError(f"{repeats} repeats", "removal_curve", "use at least 2: one row has no spread")
    recipes = recipes_of(plan, steps)
    values = np.asarray(overall(store, plan, task, output).unbiased)
    wanted = [f"drop {kind}" for kind in KINDS if kind in kinds]
    rows = arm_rows(values, images, sizes, [repeats] * len(sizes), seed, wanted)
    rows += list_rows(lists, images, repeats, seed)
    fresh = other_draws(task)
    full = [row for row in rows if row.kind == "full"]
    rest = [row for row in rows if row.kind != "full"]
    jobs = [(plan.recipe, full)] + [(recipe, rest) for recipe in recipes.values() if rest]
    retraining = Retraining(store, plan, runner, executor, workers, progress)
    retraining.announce((fresh,), jobs)
    found, failed = {}, 0
    for recipe, own in jobs:
        done = retraining.run((fresh,), own, recipe)
        found[recipe.digest, own[0].kind == "full"] = arms_of(done, done.plan(), fresh.digest)
        failed += len(done.failed())
    judged = done.examples(fresh.digest, "report")
    weights, labels = judged["weights"], judged["labels"]
    curve: list[Point] = []
    best = []
    for length, recipe in recipes.items():
        arms = found[plan.recipe.digest, True] + found.get((recipe.digest, False), [])
        curve += _points(length, arms, images, weights, labels)
        candidates = [arm for arm in arms if arm.kind in ("full", "drop bottom")]
        if len(candidates) > 1 and candidates[0].kind == "full":
            best.append(best_size(length, candidates, weights, labels))
    return Removal(
        points=tuple(curve),
        best=tuple(one for one in best if one is not None),
        ranked=tuple(names[i] for i in np.argsort(values, kind="stable")),
        retrained=sum(len(own) for _, own in jobs),
        failed=failed,
        metric=Metric.of_task(view.described),
        _view=view,
    )


def _points(
    length: str, arms: Sequence[Arm], images: np.ndarray, weights: np.ndarray, labels: np.ndarray
) -> list[Point]:
    """Each arm against the full source and against random groups."""
    known = {(arm.kind, arm.dropped): arm for arm in arms}
    full = known.get(("full", 0))
    found = []
    for arm in arms:
        control = f"random as {arm.kind.removeprefix('keep ')}" if arm.kind.startswith("keep ") else CONTROL
        lost = float(np.mean([images[~row.mask].sum() for row in arm.rows]))
        gain, which = (compared(arm, other, weights, labels) for other in (full, known.get((control, arm.dropped))))
        found.append(Point(length, arm, lost, gain, which))
    return found


def sizes_of(groups: int, sizes: Sequence[int] | None, usual: Sequence[int], where: str) -> list[int]:
    """Numbers of groups to leave out, ascending: those that were asked for, or the usual ones that there can be.

    Raises:
        ConfigError: there is none, or one that is no whole number from 1 to groups - 1.
    """
    if sizes is None:
        sizes = [size for size in usual if 0 < size < groups]
    if isinstance(sizes, (str, int)) or not len(sizes):
        mend = f"give a list of numbers from 1 to {groups - 1}"
        raise ConfigError(f"sizes {sizes!r} of {groups} groups", where, mend)
    return sorted({whole(size, "size", f"{where}, sizes", 1, groups - 1, ConfigError) for size in sizes})


def left_out(names: Sequence[str], lists: Mapping[str, Sequence[str]] | None) -> dict[str, np.ndarray]:
    """By name of the list, the positions of the groups that it leaves out."""
    found = {}
    for name, kept in (lists or {}).items():
        where = f"keep_lists[{name!r}]"
        if isinstance(kept, str):
            raise ConfigError("is one text, not a list", where, "give the names of the groups that stay")
        for group in kept:
            if group not in names:
                raise ConfigError(f"no group {group!r}", where, suggest(group, names))
        found[str(name)] = np.flatnonzero([group not in set(kept) for group in names])
        if not 0 < len(found[str(name)]) < len(names):
            raise ConfigError(f"keeps {len(set(kept))} of {len(names)} groups", where, "keep some and leave some out")
    return found


def list_rows(lists: Mapping[str, np.ndarray], images: np.ndarray, repeats: int, seed: int) -> list[Row]:
    """The rows without what each list leaves out, and as many without random groups of as many images."""
    rows = []
    for name, dropped in lists.items():
        own = Row(without(len(images), dropped), 0)
        for repeat in range(repeats):
            # By what is kept and not by the name: a renamed list trains nothing anew.
            key = seed, own.keep.hex(), repeat
            rows.append(replace(own, seed=seed31("keep list", *key), kind=f"keep {name}"))
            random = matched(generator("random as list", *key), images, len(dropped), float(images[dropped].sum()))
            rows.append(Row(without(len(images), random), seed31("random as list", *key), f"random as {name}"))
    return rows


# ---- the page ------------------------------------------------------------------------------------------------------

_AT = {"epochs": "at equal epochs", "steps": "at equal steps", OWN: "as the program trains"}
_NAMES = {
    "drop bottom": "without the lowest",
    "drop top": "without the highest",
    "drop random": "without random ones",
    "full": "nothing left out",
}
_METHOD = """Groups are ranked by their influence on the score half. Retrainings without some of them are transferred
with other few-shot draws and {judged}

At equal epochs a smaller source is trained for fewer steps, at equal steps its images are seen more often."""
_OWN_METHOD = """Groups are ranked by their influence on the score half. Retrainings without some of them have seeds of
their own and are {judged}"""
_JUDGED = """judged on the report half (Jain et al. 2023, section 3). The best number K is chosen on one half of the
report {examples} by half of the retrainings of each size, and judged by the rest, both ways round:

    gain = mean of both directions of: mean(without the K lowest) - mean(nothing left out)
"""


def _best_columns(found: Removal) -> list[Column]:
    """Of a best number."""
    metric = found.metric
    digits = None if metric.share else metric.decimals(2, _error(found))
    shown: dict[str, Any] = {"scale": metric.scale, "digits": digits}
    return [
        *_length_column(found),
        Column("best K", "size"),
        Column("chosen by halves", lambda best: f"{best.chosen[0]}, {best.chosen[1]}"),
        *(Column(part, **shown) for part in ("gain", "low", "high")),
        Column("claimed where chosen", "claimed", **shown),
        Column("n", "runs"),
        Column(metric.examples, "images"),
    ]


def _length_column(found: Removal) -> list[Column]:
    """What is equal, where there is a choice."""
    return [Column("equal", "length")] if found.points[0].length != OWN else []


def _error(found: Removal) -> float | None:
    """The typical error of a difference, as rows store values."""
    errors = [c.stderr for p in found.points for c in (p.gain, p.which) if c is not None]
    return float(np.median(errors)) if errors else None


def _arm_columns(found: Removal) -> list[Column]:
    """Of a point: in the metric's unit in the table, as rows store values in the CSV file."""
    metric = found.metric
    digits = None if metric.share else metric.decimals(2, _error(found))
    shown: dict[str, Any] = {"scale": metric.scale, "digits": digits}

    def part(contrast: str, name: str) -> Callable[[Point], float | None]:
        return lambda point: getattr(getattr(point, contrast), name, None)

    columns = [
        *_length_column(found),
        Column("kind", attrgetter("arm.kind"), lambda point: _NAMES.get(point.arm.kind, point.arm.kind)),
        Column("left out", attrgetter("arm.dropped")),
        Column(f"{metric.examples} left out", "images"),
        Column("n", lambda point: len(point.arm.rows)),
        Column("failed", attrgetter("arm.failed")),
        Column(_called(found), attrgetter("arm.mean"), **shown),
        Column("sd", attrgetter("arm.sd"), **shown),
    ]
    for of, what, error in (("gain", "gain", "stderr"), ("which", "against random", "stderr of that")):
        columns += [
            Column(what, part(of, "difference"), **shown),
            Column(error, part(of, "stderr"), only="table", **shown),
            *(Column(f"{what}, {name}", part(of, name), only="csv") for name in ("stderr", "low", "high", "p")),
        ]
    return columns


def _called(found: Removal) -> str:
    """The metric in a sentence."""
    return found.metric.name if found.metric.measured else called_output(found._view.output())


def unit_of_gains(metric: Metric) -> str:
    """Of gains: in points of what, or with their direction."""
    if not metric.measured:
        return f"points of {metric.name}"
    unit = metric.unit or metric.name
    return unit + (f" ({metric.direction}: + is a lower {metric.name})" if metric.direction else "")


def _page(found: Removal) -> Page:
    metric = found.metric
    unit, bests, arms = unit_of_gains(metric), _best_columns(found), _arm_columns(found)
    blocks: list[Any] = []
    for length in dict.fromkeys(point.length for point in found.points):
        own = [point for point in found.points if point.length == length]
        at = "" if length == OWN else f" {_AT[length]}"
        blocks += [*_curve(own, at, unit, metric), *_against_random(own, at, unit, metric)]
    if found.best:
        blocks.append(Table.of(found.best, bests, "The best number of lowest groups to leave out", f"In {unit}."))
    errors = "errors of both parts" if _many(found) else "errors of the retrainings alone"
    note = f"In {unit}; sd between retrainings, {errors}."
    blocks.append(Table.of(found.points, arms, "All retrainings", note))
    csv = {"arms.csv": csv_of(found.points, arms), "best.csv": csv_of(found.best, bests)}
    for best in found.best:
        csv[f"keep-{best.length}.csv"] = csv_of(found.keep(best.length), [Column("group", str)])
    source = called(found._view.record.source_facts["name"], "source")
    where = "" if metric.measured else f" on {found._view.target_name}"
    question = (
        f"What does the {_called(found)}{where} gain or lose when the worst, the best or random groups of {source} are "
        "left out?"
    )
    answer = found._view.told(_answer(found), found.failed, found.retrained)
    method = _METHOD if found.points[0].length != OWN else _OWN_METHOD
    method = method.format(judged=_JUDGED.format(examples=metric.examples).rstrip())
    return Page("removal", "Removal curves", question, answer, blocks, csv, method)


def _many(found: Removal) -> bool:
    """Whether the report half has several examples, so that their part of the errors is known."""
    return found.points[0].arm.correct.shape[1] > 1


def _curve(points: Sequence[Point], at: str, unit: str, metric: Metric) -> list[Curve]:
    series: dict[str, Any] = {}
    for kind in ("drop bottom", "drop top", CONTROL):
        gains = [p.gain for p in points if p.arm.kind == kind and p.gain is not None]
        if gains:
            bars = ([metric.scale * getattr(g, part) for g in gains] for part in ("difference", "low", "high"))
            series[_NAMES[kind]] = ([g.dropped for g in gains], *bars)
    if not series:
        return []
    gains = [p.gain for p in points if p.gain is not None]
    over = f"retrainings and {metric.examples}" if not math.isnan(gains[0].stderr_images) else "retrainings alone"
    note = f"At least n = {min(gain.n for gain in gains)} retrainings a point; 95 % over {over}."
    return [Curve(series, "groups left out", unit, f"Gain over the full source{at}", note)]


def _against_random(points: Sequence[Point], at: str, unit: str, metric: Metric) -> list[Intervals]:
    found = [(p.arm, p.which) for p in points if p.which is not None]
    if not found:
        return []
    values, low, high = ([metric.scale * getattr(c, part) for _, c in found] for part in ("difference", "low", "high"))
    names = [
        f"{_NAMES[arm.kind]} {arm.dropped}" if arm.kind in _NAMES else f"{arm.kind}, {arm.dropped} left out"
        for arm, _ in found
    ]
    marked = [c.low > 0 or c.high < 0 for _, c in found]
    title = f"Against random sets of as many groups and {metric.examples}" + (f",{at}" if at else "")
    return [Intervals(names, values, low, high, unit, title, marked=marked)]


def _answer(found: Removal) -> list[str]:
    metric, name = found.metric, _called(found)
    unit = metric.unit and f" {metric.unit}"
    sentences = []
    better = f" ({metric.direction}; + is an improvement)" if metric.direction else ""
    for b in found.best:
        sure = "a gain" if b.low > 0 else "a loss" if b.high < 0 else "which may be nothing"
        by = f"{_changes(metric, name)} {change(metric, b.gain, b.low, b.high)}{better}"
        gains = f"{without_lowest(b.chosen)} {by}, {sure}."
        nothing = "the best number of lowest groups to leave out is none at all."
        at = "" if b.length == OWN else f"{_AT[b.length]}, "
        told = f"{at}{nothing if b.chosen == (0, 0) else gains}"
        claimed = number(metric.scale * b.claimed, metric.decimals(2, b.stderr), True)
        sentences += [
            told[0].upper() + told[1:],
            f"It was chosen by one half of the report {metric.examples} ({b.images}) and of the retrainings ({b.runs} "
            f"each) and judged by the other half; choosing and judging on everything would have claimed "
            f"{claimed}{unit} without {b.size} groups.",
        ]
    for kind, word in (("drop bottom", "lowest"), ("drop top", "highest")):
        which = [p.which for p in found.points if p.arm.kind == kind and p.which is not None]
        if which:
            up, down = sum(c.low > 0 for c in which), sum(c.high < 0 for c in which)
            reach = float(np.median([(c.high - c.low) / 2 for c in which]))
            width = number(metric.scale * reach, metric.decimals(2, reach / 2))
            sentences.append(
                f"Leaving out the {word} groups is better than leaving out as many random ones in {up} and worse "
                f"in {down} of {len(which)} comparisons (95 % intervals, each by itself; they reach "
                f"{width}{unit} to either side in the median, so that smaller differences could not have been told)."
            )
    for p in found.points:
        if p.arm.kind.startswith("keep ") and p.gain is not None:
            gain, random = (one and change(metric, one.difference, one.low, one.high) for one in (p.gain, p.which))
            against = f"; against random groups {random}" if random else ""
            how = "" if p.length == OWN else f"{_AT[p.length].removeprefix('at ')}, "
            sentences.append(
                f"To keep only {p.arm.kind.removeprefix('keep ')} ({p.arm.dropped} groups left out, {how}"
                f"n = {len(p.arm.rows)}) {_changes(metric, name)} {gain}{better} against the full source{against}."
            )
    size = max([max(b.size, *b.chosen) for b in found.best], default=0)
    size = size or max([p.arm.dropped for p in found.points if p.arm.kind == "drop bottom"], default=0)
    if sentences and size:
        are = f"The {size:,} lowest groups, the lowest first, are" if size > 1 else "The lowest group is"
        sentences.append(f"{are} {listed(found.ranked[:size], _NAMED)}.")
    if sentences and not _many(found):
        sentences.append(
            "The report half has one example: intervals hold the retrainings alone, and no best number can be chosen "
            "by one half of the examples and judged by the other."
        )
    return sentences or ["No two arms with two retrainings each are there to be compared."]


def change(metric: Metric, value: float, low: float, high: float) -> str:
    """A change with its unit and interval, from numbers as rows store them."""
    digits = metric.decimals(2, (high - low) / 4)
    size, *ends = (number(metric.scale * one, digits, True) for one in (value, low, high))
    return f"{size}{metric.unit and f' {metric.unit}'} ({ends[0]} to {ends[1]})"


def _changes(metric: Metric, name: str) -> str:
    """The verb before a change."""
    return f"changes {name} by" if metric.higher_is_better else f"improves {name} by"


def without_lowest(chosen: tuple[int, int], ranking: str = "") -> str:
    """What was left out: the numbers that the two halves chose, of the lowest groups of a ranking."""
    few, many = min(chosen), max(chosen)
    lowest = (f"the {many:,} lowest groups" if many > 1 else "the lowest group") + ranking
    if few == many:
        return f"leaving out {lowest}"
    return f"leaving out {f'the {few:,}' if few else 'none'} or {lowest} (each chosen by one half)"
