"""Misleading source groups and examples: those that harm a target class or a single target example (Jain et al. 2023,
section 4.3: misleading source examples).

One half of the models finds, for each class or example, the groups of most negative influence / stderr; the other half
estimates their influence, of classes on the report half of the target instead of the score half. One-sided p;
Benjamini-Hochberg over all claims gives q. The two estimates side by side show what selection alone would have claimed.
Of single source images (`by="example"`) no significance is asked: thousands are ranked on as few models as a study of
groups has. `pydt.plan_models` says how many would find one.

Beside a target image stand the images of the group most like it, and the source image of all that is (correlation of
8 x 8 grey means): a group that misleads often shows the same shape under another label.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import LEVEL, EnsembleView, detectable
from pydt.analyses.leakage.influence_test import FEWEST, Array, own_influences, two_halves
from pydt.analyses.leakage.similarity import Rows, coarse, common_side, greys, nearest
from pydt.base import SHOWN, ConfigError, Result, Short, one_of, records, t975, whole
from pydt.data import Dataset, pictures, places
from pydt.ensemble import Plan
from pydt.estimation import benjamini_hochberg, influences, method_for, upper_tail
from pydt.reporting import (
    Block,
    Column,
    Images,
    Intervals,
    Page,
    Table,
    count,
    csv_of,
    digits_for,
    interval_plot,
    listed,
    number,
    plus_minus,
    quoted,
    signs,
)
from pydt.store import HALVES, Store

_EXAMPLES = 12  # target examples that are looked at where none is named
_SHOWN = 16  # claims with pictures
_AT_ONCE = 4096  # source images


@dataclass(frozen=True, repr=False)
class Claim(Short):
    """A group that looks harmful for a class or an example.

    Attributes:
        of: the class, or the key of the example. label: the example's class.
        group: its name.
        found, found_stderr: influence by the models that found it. effect, stderr: by the others.
        df: degrees of freedom of the others' estimate.
        p: one-sided, of an influence that is not negative. q: over all claims; NaN where no significance is asked.
        target: position (judged data set) of the target image shown: the example, or the class's most harmed one.
        members: positions of the group's images most like it. neighbour: of the source image most like it.
    """

    of: str
    label: str
    group: str
    found: float
    found_stderr: float
    effect: float
    stderr: float
    df: float
    p: float
    q: float
    target: int
    members: tuple[int, ...]
    neighbour: int


@dataclass(frozen=True, eq=False, repr=False)
class Misleading(Result):
    """Claims: those with q < 0.05 first, then by the t statistic of the models that found them.

    Attributes:
        per: "class" or "example". models: that found, that judged. groups: how many were ranked.
        images: that found, that judged (per "class"). asked: whether significance is asked.
    """

    claims: tuple[Claim, ...]
    per: str
    models: tuple[int, int]
    groups: int
    images: tuple[int, int]
    asked: bool
    estimand: str
    output: str
    unit: str
    _plan: Plan
    _target: Dataset
    _view: EnsembleView

    @property
    def sure(self) -> tuple[Claim, ...]:
        """The claims with q below 0.05."""
        return tuple(claim for claim in self.claims if claim.q < LEVEL)

    def _columns(self) -> dict[str, Any]:
        return records(Claim, self.claims)

    def __repr__(self) -> str:
        sure = [f"{one.group} for {one.of}" for one in self.sure]
        told = f"{len(sure):,} at q < {LEVEL}{': ' if sure else ''}{listed(sure, 3) if sure else ''}"
        facts = f"{count(len(self.claims), 'claim')} per {self.per}, {count(self.groups, 'group')}, {self.unit}"
        return f"Misleading({facts}; {told if self.asked else 'no significance is asked'})"

    def plot(self, ax: Any = None) -> Any:
        """Draw the influences of the first claims by the models that did not find them, with 95 % intervals.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shown = self.claims[:SHOWN]
        values, reach = np.array([[one.effect, t975(one.df) * one.stderr] for one in shown]).reshape(-1, 2).T
        label = f"influence ({self.unit}), 95 % intervals"
        return interval_plot([f"{one.of}: {one.group}" for one in shown], values, reach, label, ax=ax)

    def page(self) -> Page:
        """The page of this analysis."""
        return _page(self)


def misleading(
    store: Store | str | os.PathLike[str],
    plan: Plan,
    per: str = "class",
    *,
    of: Sequence[str] | Sequence[int] | None = None,
    task: Any = None,
    output: str = "margin",
    top: int = 2,
    seed: int = 0,
) -> Misleading:
    """The source groups (or images, of a plan by example) that harm single target classes or examples most.

    Args:
        store: where the plan's rows are, or its folder.
        plan: with its source, whose images are shown.
        per: "class" or "example".
        of: names of target classes, or positions of examples in the judged data set; by default all classes, or the
            examples that the half which finds gets wrong most often.
        task: one of the plan's tasks, the first by default. output: see `pydt.store.derive`.
        top: groups named for each class or example.
        seed: of the halves.

    Raises:
        ConfigError: no pydt.Plan, or one without images or of measures; unknown classes, examples, outputs or `per`.
        StoreError: no such task, or fewer than 20 finished rows.
    """
    whole(seed, "seed", "misleading", error=ConfigError)
    one_of(per, ("class", "example"), "per", "misleading")
    top = whole(top, "top", "misleading", 1, error=ConfigError)
    view = EnsembleView.of(store, plan, task, FEWEST, ("images", "logits"))
    values = view.outputs(output, "all")
    first, second = two_halves(view.masks, seed)
    names, classes = plan.context.units[1], view.target.classes
    of_column, finds, judges = asked_about(view, per, of, first)
    seeking, judging = view.masks.take(first), view.masks.take(second)
    fit = influences(seeking, _means(values[first], finds), method_for(view.record, seeking))
    with np.errstate(invalid="ignore", divide="ignore"):
        t = fit.unbiased / fit.stderr
    t = np.where(t < 0, t, np.inf)
    order = np.argsort(t, axis=0, kind="stable")[:top].T  # (columns, top)
    column, rank = np.nonzero(np.take_along_axis(t.T, order, 1) < np.inf)
    group = order[column, rank]
    method = method_for(view.record, judging)
    outputs = _means(values[second], judges)[:, column]
    effect, stderr, df = own_influences(judging, outputs, method, group)
    p = upper_tail(-effect, stderr, df)
    significance = view.record.by != "example"
    q = benjamini_hochberg(p) if significance else np.full(len(p), np.nan)
    shown = [_most_harmed(view, values, finds[c], first, int(k)) for c, k in zip(column, group, strict=True)]
    members, neighbours = _alike(view, plan, np.array(shown, np.int64), group)
    keys = view.target.judged.all_keys()
    claims = [
        Claim(
            of=classes[of_column[c]] if per == "class" else keys[of_column[c]],
            label=classes[view.examples["labels"][finds[c][0]]],
            group=names[k],
            found=float(fit.unbiased[k, c]),
            found_stderr=float(fit.stderr[k, c]),
            effect=float(effect[i]),
            stderr=float(stderr[i]),
            df=float(df[i]),
            p=float(p[i]),
            q=float(q[i]),
            target=shown[i],
            members=members[i],
            neighbour=int(neighbours[i]),
        )
        for i, (c, k) in enumerate(zip(column.tolist(), group.tolist(), strict=True))
    ]
    # Not by the effect: the first would then be chosen by the models that judge it.
    claims.sort(key=lambda claim: (not claim.q < LEVEL, claim.found / claim.found_stderr))
    return Misleading(
        claims=tuple(claims),
        per=per,
        models=(len(first), len(second)),
        groups=len(names),
        images=(sum(map(len, finds)), sum(map(len, judges))),
        asked=significance,
        estimand=fit.estimand,
        output=output,
        unit=view.unit(output).name,
        _plan=plan,
        _target=view.target.judged,
        _view=view,
    )


def asked_about(view: EnsembleView, per: str, of: Any, rows: Rows) -> tuple[list[int], list[Rows], list[Rows]]:
    """The classes, or positions in the judged data set, that are asked about; the columns of the outputs by which each
    is found, and by which it is judged. `rows`: the models that find.
    """
    labels, half, ids = (view.examples[name] for name in ("labels", "half", "ids"))
    if per == "class":
        classes = list(view.target.classes)
        wanted = classes if of is None else list(of)
        if unknown := [name for name in wanted if name not in classes]:
            raise ConfigError(f"no class {unknown[0]!r}", "of", f"choose from: {', '.join(classes[:20])}")
        parts = [
            [np.flatnonzero((labels == classes.index(name)) & (half == HALVES[one])) for one in HALVES]
            for name in wanted
        ]
        there = [i for i, part in enumerate(parts) if len(part[0]) and len(part[1])]
        if not there:
            mend = "name others; a class is found on one half of the target and judged on the other"
            raise ConfigError(
                f"no class with images in both halves among {', '.join(wanted[:20]) or 'none'}", "of", mend
            )
        return (
            [classes.index(wanted[i]) for i in there],
            [parts[i][HALVES["score"]] for i in there],
            [parts[i][HALVES["report"]] for i in there],
        )
    if of is None:
        right = view.outputs("correct", "all")[rows].mean(axis=0)
        chosen = np.sort(np.argsort(right, kind="stable")[:_EXAMPLES])
    else:
        place = {int(i): column for column, i in enumerate(ids)}
        if unknown := [i for i in of if i not in place]:
            mend = "give positions in target.judged, of its score or report half"
            raise ConfigError(f"no judged example {unknown[0]!r}", "of", mend)
        chosen = np.array([place[int(i)] for i in of], np.int64)
        if not len(chosen):
            raise ConfigError("names no example", "of", "name some, or leave it out")
    columns = [np.array([i]) for i in chosen]
    return ids[chosen].tolist(), columns, columns


def _means(outputs: npt.NDArray[np.float32], columns: Sequence[Rows]) -> Array:
    return np.stack([outputs[:, one].mean(axis=1, dtype=np.float64) for one in columns], axis=1)


def _most_harmed(view: EnsembleView, outputs: npt.NDArray[np.float32], columns: Rows, rows: Rows, group: int) -> int:
    """Position (judged data set) of the example that the group harms most, by the models of `rows`."""
    ids = view.examples["ids"]
    if len(columns) == 1:
        return int(ids[columns[0]])
    masks, own = view.masks.take(rows), outputs[rows][:, columns].astype(np.float64)
    value = own_influences(masks, own, method_for(view.record, masks), np.full(len(columns), group))[0]
    return int(ids[columns[int(np.argmin(value))]])


def _alike(
    view: EnsembleView, plan: Plan, targets: Rows, groups: Rows, most: int = 2
) -> tuple[list[tuple[int, ...]], Rows]:
    """For each target image the members of its group most like it, and the source image most like it."""
    source, judged = plan.source, view.target.judged
    side = common_side(source, judged)
    wanted = coarse(greys(judged, targets, side, view.passed))
    unit_of = plan.context.units[0]
    most = min(most, int(np.bincount(unit_of[unit_of >= 0]).min()))
    neighbours, best = np.zeros(len(targets), np.int64), np.full(len(targets), -2.0, np.float32)
    kept: list[list[tuple[float, int]]] = [[] for _ in targets]
    for start in range(0, len(source), _AT_ONCE):
        part = np.arange(start, min(start + _AT_ONCE, len(source)))
        known = coarse(greys(source, part, side, view.passed))
        index, found = nearest(wanted, known, 1)
        if len(targets):
            better = found[:, 0] > best
            neighbours[better], best[better] = part[index[better, 0]], found[better, 0]
        for i, group in enumerate(groups):
            own = np.flatnonzero(unit_of[part] == group)
            alike = np.where(known[own].any(1), known[own] @ wanted[i], -1)  # of one shade, or not decoded
            kept[i] += [(-float(value), int(part[own[n]])) for n, value in enumerate(alike)]
            kept[i] = sorted(kept[i])[:most]
    return [tuple(position for _, position in one) for one in kept], neighbours


_METHOD = """
Jain et al. 2023, section 4.3, show the source images of most negative influence on a target example. Here one half of
the models finds the groups (the most negative influence / standard error), the other half estimates their influence, of
classes on target images that did not find them; p is one-sided, q Benjamini-Hochberg over all claims.

    influence = that of `overall`, on the mean output over the class's images, or on one image's output

Pictures: the target image (of a class the most harmed one), the group's images most like it, and the source image of
all most like it (correlation of 8 x 8 grey means).
"""


def _page(found: Misleading) -> Page:
    source, target = found._plan.source, found._target
    labels, classes = source.labels, source.classes
    keys, theirs = source.all_keys(), target.all_keys()
    blocks: list[Block] = []
    shown = found.claims[:_SHOWN]
    if shown:
        parts = [
            (d, ids) for one in shown for d, ids in ((target, [one.target]), (source, [*one.members, one.neighbour]))
        ]
        images = [picture for data, ids in parts for picture in pictures(data, ids, passed=found._view.passed)]
        where = [place for data, ids in parts for place in places(data, ids)]
        captions = [
            f"{claim.label} | {claim.group} ({plus_minus(claim.effect, claim.stderr)}) | "
            f"nearest: {classes[labels[claim.neighbour]]}"
            for claim in shown
        ]
        note = (
            "Of each tile: the target image, images of the group most like it, and last the source image most like it."
        )
        title = "What is said to harm which images"
        blocks.append(Images(images, captions, title, note, together=2 + len(shown[0].members), places=where))
        effects = np.array([claim.effect for claim in found.claims])
        reach = np.array([t975(claim.df) * claim.stderr for claim in found.claims])
        blocks.append(
            Intervals(
                [f"{claim.of}: {claim.group}" for claim in found.claims],
                effects,
                effects - reach,
                effects + reach,
                found.unit,
                "Influence by the models that did not find it",
                f"Filled: q < {LEVEL:g}. {signs(found.estimand).capitalize()}.",
                marked=[claim.q < LEVEL for claim in found.claims],
            )
        )
    columns = (
        Column(found.per, "of"),
        Column("its class", "label"),
        Column("group"),
        Column("by those that found it", "found"),
        Column("by the others", "effect"),
        Column("stderr"),
        Column("p, one-sided", "p"),
        Column("q"),
        Column("target_key", lambda claim: theirs[claim.target], only="csv"),
        Column("members", lambda claim: " ".join(keys[i] for i in claim.members), only="csv"),
        Column("neighbour", lambda claim: keys[claim.neighbour], only="csv"),
    )
    blocks.append(Table.of(found.claims, columns, "Claims"))
    return Page(
        name="misleading" if found.per == "class" else "misleading-examples",
        title=f"Misleading for a target {found.per}",
        question=f"Which parts of the source harm which target {'classes' if found.per == 'class' else 'images'}?",
        answer=found._view.told(_sentences(found)),
        blocks=blocks,
        csv={"claims.csv": csv_of(found.claims, columns)},
        method=_METHOD,
    )


def _sentences(found: Misleading) -> list[str]:
    things = "source images" if not found.asked else "groups"
    if not found.claims:
        return [
            f"None of {found.groups:,} {things} has a negative influence by the {found.models[0]} models that look for "
            "one, so none was judged by the others: harm that these do not see would have been missed."
        ]
    first, sure, many = found.claims[0], found.sure, len(found.claims)
    of = (
        f"class {quoted(first.of)}"
        if found.per == "class"
        else f"target image {first.of} of class {quoted(first.label)}"
    )
    judged = f"{plus_minus(first.effect, first.stderr)} {found.unit}"
    told = f"{quoted(first.group)} on {of}: {judged} by models that did not find it"
    if not found.asked:
        said = [f"The source image that looked worst is {told}."]
        said.append(
            f"No significance is asked of single images: {found.groups:,} were ranked with {found.models[0]} models. "
            "The list is for looking at; pydt.plan_models says how many models would find an effect of a given size."
        )
    elif sure:
        said = [f"{len(sure)} of {many} claims of harm hold with other models (q < {LEVEL:g}); the clearest: {told}."]
    else:
        errors, df = zip(*((claim.stderr, claim.df) for claim in found.claims), strict=True)
        least = detectable(float(np.median(errors)), float(np.median(df)), many, LEVEL)
        said = [
            f"None of {many} claims of harm holds with other models (q < {LEVEL:g}); what looked worst: {told}.",
            f"A single true harm among them would have been confirmed with a chance of 80 % from "
            f"{number(least, digits_for(least))} {found.unit} on; a smaller one could have been missed.",
        ]
    judges = f"{found.models[1]} others" + (f" and {found.images[1]} other images" if found.per == "class" else "")
    mean = [float(np.mean([getattr(claim, name) for claim in found.claims])) for name in ("found", "effect")]
    digits = digits_for(float(np.median([claim.stderr for claim in found.claims])))
    by_both = [number(value, digits, True) for value in mean]
    said.append(
        f"{found.models[0]} models found the claims, {judges} judged them: on average {by_both[0]} {found.unit} by "
        f"those that found them and {by_both[1]} by the others; the difference is what selection alone would have "
        "claimed."
    )
    return said
