"""Removal curves: what leaving out the worst, the best, random or all but hand-picked groups does, and how many to
leave out (Jain et al. 2023, section 3 and its table of best removals).

Groups are ranked on the score half by the plan's rows; fresh rows without some of them are judged on the report half,
against "full" (what leaving the groups out gains) and against random sets of as many groups and images (what it matters
which groups they are), at equal epochs and at equal steps. The best number of groups is chosen by one half of images
and rows and judged by the other (`pydt.analyses.best_removal`). Errors and simulations: docs/analyses.md, "How
retraining is judged".
"""

from __future__ import annotations

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
    Arm,
    Retraining,
    arm_rows,
    arms_of,
    group_images,
    matched,
    other_draws,
    without,
)
from pydt.base import ConfigError, generator, one_of, seed31, suggest
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import overall
from pydt.reporting import METRICS, Column, Curve, Intervals, Page, Table, called, called_output, csv_of, listed, points
from pydt.store import Row, Store

if TYPE_CHECKING:
    from pydt.training import Task


KINDS = ("bottom", "top", "random")
LENGTHS = ("epochs", "steps")
_NAMED = 12  # of the lowest groups


@dataclass(frozen=True, eq=False)
class Point:
    """One arm of the curve.

    Attributes:
        length: "epochs" or "steps": what is equal to the full source's training.
        arm: its kind is "full", "drop bottom", "drop top", "drop random", "keep NAME" or "random as NAME".
        images: left out, mean over rows.
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
    """

    points: tuple[Point, ...]
    best: tuple[Best, ...]
    ranked: tuple[str, ...]
    retrained: int
    failed: int
    metric: str
    _view: EnsembleView = field(repr=False)

    def point(self, kind: str, dropped: int, length: str = "epochs") -> Point:
        """The point of a kind, a number of groups and a length; raises ConfigError if there is none."""
        for point in self.points:
            if (point.arm.kind, point.arm.dropped, point.length) == (kind, dropped, length):
                return point
        known = ", ".join(f"{point.arm.kind} {point.arm.dropped} at equal {point.length}" for point in self.points)
        raise ConfigError(f"no point {kind!r} of {dropped} at equal {length}", "Removal", f"there are: {known}")

    def keep(self, length: str = "epochs") -> tuple[str, ...]:
        """The groups that stay when the best number of lowest ones is left out."""
        for best in self.best:
            if best.length == length:
                return self.ranked[best.size :]
        mend = f"ask for kind 'bottom' with at least {FEWEST} repeats"
        raise ConfigError(f"no best number at equal {length}", "Removal.keep", mend)

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
            A recipe with `steps` allows only "same".
        seed: of the retrainings and the random sets.
        runner, executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: an argument out of range, or a keep list with an unknown group, all groups or none.
        StoreError: the plan has too few finished rows to rank by.
    """
    view = EnsembleView.of(store, plan, task)
    store, task = view.store, plan.task(task)
    names, images = plan.context.units[1], group_images(plan)
    sizes = _sizes(len(names), sizes)
    lists = left_out(names, keep_lists)
    for kind in kinds:
        one_of(kind, KINDS, "kind", "removal_curve")
    if repeats < 2:
        raise ConfigError(f"{repeats} repeats", "removal_curve", "use at least 2: one row has no spread")
    recipes = _recipes(plan, steps)
    values = np.asarray(overall(store, plan, task, output).unbiased)
    wanted = [f"drop {kind}" for kind in KINDS if kind in kinds]
    rows = arm_rows(values, images, sizes, [repeats] * len(sizes), seed, wanted)
    rows += list_rows(lists, images, repeats, seed)
    fresh = other_draws(task)
    full = [row for row in rows if row.kind == "full"]
    rest = [row for row in rows if row.kind != "full"]
    jobs = [(plan.recipe, full)] + [(recipe, rest) for recipe in recipes.values() if rest]
    retraining = Retraining(store, plan, runner, executor, workers, progress)
    retraining.announce(fresh, jobs)
    found, failed = {}, 0
    for recipe, own in jobs:
        done = retraining.run(fresh, own, recipe)
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
        metric=task.target.metric,
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


def _recipes(plan: Plan, steps: str) -> dict[str, Any]:
    """The recipe for each length asked for."""
    one_of(steps, ("epochs", "same", "both"), "steps", "removal_curve")
    recipe = plan.recipe
    budget = recipe.budget[0]
    if budget != "epochs":
        if steps == "epochs":
            mend = f'use "same", or a plan whose recipe has no {budget}'
            raise ConfigError(f"the recipe says {budget}, not epochs", "steps", mend)
        return {"steps": recipe}
    from pydt.training import steps_of

    found = {"epochs": recipe, "steps": replace(recipe, epochs=None, steps=steps_of(recipe, len(plan.source)))}
    return {name: found[name] for name in LENGTHS if steps in ("both", {"epochs": "epochs", "steps": "same"}[name])}


def _sizes(groups: int, sizes: Sequence[int] | None) -> list[int]:
    wanted = [round(i * groups / 8) for i in range(1, 7)] if sizes is None else list(sizes)
    kept = sorted({int(size) for size in wanted if sizes is not None or 0 < size < groups})
    if not kept or kept[0] < 1 or kept[-1] >= groups:
        raise ConfigError(f"sizes {wanted} of {groups} groups", "removal_curve", f"use numbers from 1 to {groups - 1}")
    return kept


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

_WORDS = {"epochs": "equal epochs", "steps": "equal steps"}
_NAMES = {
    "drop bottom": "without the lowest",
    "drop top": "without the highest",
    "drop random": "without random ones",
    "full": "nothing left out",
}
_METHOD = """Groups are ranked by their influence on the score half. Retrainings without some of them are transferred
with other few-shot draws and judged on the report half (Jain et al. 2023, section 3). The best number K is chosen on
one half of the report images by half of the retrainings of each size, and judged by the rest, both ways round:

    gain = mean of both directions of: mean(without the K lowest) - mean(nothing left out)

At equal epochs a smaller source is trained for fewer steps, at equal steps its images are seen more often."""
_BESTS = [
    Column("equal", "length"),
    Column("best K", "size"),
    Column("chosen by halves", lambda best: f"{best.chosen[0]}, {best.chosen[1]}"),
    Column("gain", scale=100),
    Column("low", scale=100),
    Column("high", scale=100),
    Column("claimed where chosen", "claimed", scale=100),
    Column("n", "runs"),
    Column("images"),
]


def _arm_columns(output: str) -> list[Column]:
    """Of a point: points of the metric in the table, fractions in the CSV file."""

    def part(contrast: str, name: str) -> Callable[[Point], float | None]:
        return lambda point: getattr(getattr(point, contrast), name, None)

    columns = [
        Column("equal", "length"),
        Column("kind", attrgetter("arm.kind"), lambda point: _NAMES.get(point.arm.kind, point.arm.kind)),
        Column("left out", attrgetter("arm.dropped")),
        Column("images left out", "images"),
        Column("n", lambda point: len(point.arm.rows)),
        Column("failed", attrgetter("arm.failed")),
        Column(called_output(output), attrgetter("arm.mean"), scale=100),
        Column("sd", attrgetter("arm.sd"), scale=100),
    ]
    for of, what, error in (("gain", "gain", "stderr"), ("which", "against random", "stderr of that")):
        columns += [
            Column(what, part(of, "difference"), scale=100),
            Column(error, part(of, "stderr"), only="table", scale=100),
            *(Column(f"{what}, {name}", part(of, name), only="csv") for name in ("stderr", "low", "high", "p")),
        ]
    return columns


def _page(found: Removal) -> Page:
    unit, output = f"points of {METRICS[found.metric]}", found._view.output()
    blocks: list[Any] = []
    for length in dict.fromkeys(point.length for point in found.points):
        own = [point for point in found.points if point.length == length]
        blocks += [*_curve(own, _WORDS[length], unit), *_against_random(own, _WORDS[length], unit)]
    if found.best:
        blocks.append(Table.of(found.best, _BESTS, "The best number of lowest groups to leave out", f"In {unit}."))
    note = f"In {unit}; sd between retrainings, errors of both parts."
    blocks.append(Table.of(found.points, _arm_columns(output), "All retrainings", note))
    csv = {"arms.csv": csv_of(found.points, _arm_columns(output)), "best.csv": csv_of(found.best, _BESTS)}
    for best in found.best:
        csv[f"keep-{best.length}.csv"] = csv_of(found.keep(best.length), [Column("group", str)])
    source = called(found._view.record.source_facts["name"], "source")
    question = (
        f"What does the {called_output(output)} on {found._view.target_name} gain or lose when the worst, the best or "
        f"random groups of {source} are left out?"
    )
    answer = found._view.told(_answer(found), found.failed, found.retrained)
    return Page("removal", "Removal curves", question, answer, blocks, csv, _METHOD)


def _curve(points: Sequence[Point], length: str, unit: str) -> list[Curve]:
    series: dict[str, Any] = {}
    for kind in ("drop bottom", "drop top", CONTROL):
        gains = [p.gain for p in points if p.arm.kind == kind and p.gain is not None]
        if gains:
            bars = ([100 * getattr(g, part) for g in gains] for part in ("difference", "low", "high"))
            series[_NAMES[kind]] = ([g.dropped for g in gains], *bars)
    if not series:
        return []
    n = min(p.gain.n for p in points if p.gain is not None)
    note = f"At least n = {n} retrainings a point; 95 % over retrainings and images."
    return [Curve(series, "groups left out", unit, f"Gain over the full source at {length}", note)]


def _against_random(points: Sequence[Point], length: str, unit: str) -> list[Intervals]:
    found = [(p.arm, p.which) for p in points if p.which is not None]
    if not found:
        return []
    values, low, high = ([100 * getattr(c, part) for _, c in found] for part in ("difference", "low", "high"))
    names = [
        f"{_NAMES[arm.kind]} {arm.dropped}" if arm.kind in _NAMES else f"{arm.kind}, {arm.dropped} left out"
        for arm, _ in found
    ]
    marked = [c.low > 0 or c.high < 0 for _, c in found]
    title = f"Against random sets of as many groups and images, at {length}"
    return [Intervals(names, values, low, high, unit, title, marked=marked)]


def _answer(found: Removal) -> list[str]:
    sentences, metric = [], called_output(found._view.output())
    for b in found.best:
        sure = "a gain" if b.low > 0 else "a loss" if b.high < 0 else "which may be nothing"
        gains = f"{_lowest(b)} changes {metric} by {points(b.gain, b.low, b.high, 2)}, {sure}."
        nothing = "the best number of lowest groups to leave out is none at all."
        sentences += [
            f"At {_WORDS[b.length]}, {nothing if b.chosen == (0, 0) else gains}",
            f"It was chosen by one half of the report images ({b.images}) and of the retrainings ({b.runs} each) and "
            f"judged by the other half; choosing and judging on everything would have claimed {100 * b.claimed:+.2f} "
            f"points without {b.size} groups.",
        ]
    for kind, word in (("drop bottom", "lowest"), ("drop top", "highest")):
        which = [p.which for p in found.points if p.arm.kind == kind and p.which is not None]
        if which:
            better, worse = sum(c.low > 0 for c in which), sum(c.high < 0 for c in which)
            reach = float(np.median([(c.high - c.low) / 2 for c in which]))
            sentences.append(
                f"Leaving out the {word} groups is better than leaving out as many random ones in {better} and worse "
                f"in {worse} of {len(which)} comparisons (95 % intervals, each by itself; they reach {100 * reach:.2f} "
                "points to either side in the median, so that smaller differences could not have been told)."
            )
    for p in found.points:
        if p.arm.kind.startswith("keep ") and p.gain is not None:
            gain, random = (one and points(one.difference, one.low, one.high, 2) for one in (p.gain, p.which))
            against = f"; against random groups {random}" if random else ""
            sentences.append(
                f"To keep only {p.arm.kind.removeprefix('keep ')} ({p.arm.dropped} groups left out, "
                f"{_WORDS[p.length]}, n = {len(p.arm.rows)}) changes {metric} by {gain} against the full "
                f"source{against}."
            )
    size = max([max(b.size, *b.chosen) for b in found.best], default=0)
    size = size or max([p.arm.dropped for p in found.points if p.arm.kind == "drop bottom"], default=0)
    if sentences and size:
        are = f"The {size:,} lowest groups, the lowest first, are" if size > 1 else "The lowest group is"
        sentences.append(f"{are} {listed(found.ranked[:size], _NAMED)}.")
    return sentences or ["No two arms with two retrainings each are there to be compared."]


def _lowest(best: Best) -> str:
    """What was left out for the gain: the numbers that the two halves chose."""
    few, many = min(best.chosen), max(best.chosen)
    lowest = f"the {many:,} lowest groups" if many > 1 else "the lowest group"
    if few == many:
        return f"leaving out {lowest}"
    return f"leaving out {f'the {few:,}' if few else 'none'} or {lowest} (each chosen by one half)"
