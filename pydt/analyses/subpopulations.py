"""Sub-populations: the target images that a source group moves most, against the mean of their class.

    e_k(x) = influence of group k on image x - mean influence of k on the images of x's class

is the influence on the difference of the image's output from the mean of its class, one regression for every image
(Jain et al. 2023, section 4.1). A group's images are those of largest e_k. They are found by a random half of the
models and valued by the other, both ways, over several random splits; one-sided t, q over the groups
(Benjamini-Hochberg).

Cost: two fits of (models / 2, images) and two of (models / 2, groups) for every split. Why the rule is judged and not
the list, and what lost: docs/analyses.md, "Sub-populations".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import LEVEL, Array, EnsembleView, detectable
from pydt.analyses.sample_splitting import ERROR_OF_WAYS, SPLITS, halves
from pydt.base import ConfigError, extremes, influence_table, t975, to_frame, whole
from pydt.ensemble import Plan
from pydt.estimation import benjamini_hochberg, best_method, influences
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
    percent_text,
    plus_minus,
    quoted,
)
from pydt.store import Record, Store

_SHOWN = 12  # groups of which a page shows images


@dataclass(frozen=True, eq=False)
class SubPopulations:
    """The images that each group moves most; see the module's head.

    Attributes:
        groups: names, all of the plan's or the one asked for. output, unit, models: what was estimated from.
        ids, labels: int64 (images,): positions in the target's judged data, and classes; classes: their names.
        effect, stderr: float32 (groups, images): e_k of every image by all models, and its standard error.
        found: int64 (groups, size): the images shown, as positions in `ids`, the most moved first.
        claimed: float64 (groups,): mean e_k of those by the models that found them, biased upwards.
        judged, judged_stderr: the same rule, found by one half of the models and valued by the other. df: of its t.
        p, q: one-sided, of judged > 0; q over all groups of the plan, also where one was asked for.
        overlap: share of the images that two halves of the models find in common; by_chance: without influence.
    """

    groups: tuple[str, ...]
    output: str
    unit: str
    models: int
    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    effect: npt.NDArray[np.float32]
    stderr: npt.NDArray[np.float32]
    found: npt.NDArray[np.int64]
    claimed: Array
    judged: Array
    judged_stderr: Array
    df: float
    p: Array
    q: Array
    overlap: Array
    by_chance: float
    splits: int
    _view: EnsembleView = field(repr=False)

    def ranked(self, group: str) -> npt.NDArray[np.int64]:
        """All images, as positions in `ids`, from the one that the group moves up most, against its class, on.

        Raises:
            ConfigError: no such group.
        """
        if group not in self.groups:
            raise ConfigError(f"no group {group!r}", "SubPopulations", f"there are: {', '.join(self.groups[:8])}")
        return np.argsort(-self.effect[self.groups.index(group)], kind="stable").astype(np.int64)

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each group: "group", "claimed", and "judged" with "stderr", "low",
        "high" (95 %), "p" (one-sided) and "q".

        Raises:
            ConfigError: pandas is not installed.
        """
        reach = t975(self.df) * self.judged_stderr
        columns = {"group": list(self.groups), "claimed": self.claimed, "judged": self.judged}
        columns |= {"stderr": self.judged_stderr, "low": self.judged - reach, "high": self.judged + reach, "p": self.p}
        return to_frame({**columns, "q": self.q}, "SubPopulations", unit=self.unit)

    def plot(self, ax: Any = None) -> Any:
        """Draw what the most moved images of each group are worth by other models, with 95 % intervals: the groups with
        the highest and the lowest.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shown = extremes(self.judged)
        label = f"effect on the images found ({self.unit}), 95 % intervals"
        reach = t975(self.df) * self.judged_stderr[shown]
        names = [self.groups[i] for i in shown]
        return interval_plot(names, self.judged[shown], reach, label, ax=ax, of=len(self.groups))

    def __repr__(self) -> str:
        sizes = (len(self.groups), "group"), (len(self.ids), self._view.thing), (self.models, "model")
        facts = ", ".join(count(n, what) for n, what in sizes)
        sure = [self.groups[i] for i in np.argsort(self.q, kind="stable") if self.q[i] < LEVEL]
        named = f": {listed(sure, 3)}" if sure else ""
        return f"SubPopulations({facts}, {self.unit}; {count(len(sure), 'group')} at q < {LEVEL}{named})"

    def _repr_html_(self) -> str:
        reach = t975(self.df) * self.judged_stderr
        return influence_table(repr(self), self.groups, self.judged, reach, self.q)

    def page(self) -> Page:
        """What a reader sees: the images of the surest groups, every group's effect, and all as CSV."""
        order = np.lexsort((-self.judged / np.maximum(self.judged_stderr, 1e-30), self.q))
        shown = [(k, x, rank) for k in range(len(self.groups)) for rank, x in enumerate(self.found[k], 1)]
        names, thing = self._view.named("all"), self._view.thing
        columns = (
            Column("group", lambda one: self.groups[one[0]]),
            Column("rank", lambda one: one[2]),
            Column(thing, lambda one: names[one[1]]),
            *([Column("class", lambda one: self.classes[self.labels[one[1]]])] if self.classes else []),
            Column(f"effect ({self.unit})", lambda one: self.effect[one[:2]]),
            Column("stderr", lambda one: self.stderr[one[:2]]),
        )
        blocks = _blocks(self, order)
        return Page(
            name="subpopulations",
            title="Sub-populations",
            question=(
                f"Which {thing}s of {self._view.target_name} does a group move most, against the mean of "
                f"{'their class' if self.classes else 'all'}?"
            ),
            answer=self._view.told(_answer(self, order)),
            blocks=blocks,
            csv={f"{thing}s.csv": csv_of(shown, columns), "groups.csv": csv_of(order, _columns(self))},
            method=_method(self),
        )


def subpopulations(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    group: str | None = None,
    *,
    task: Any = None,
    output: str | None = None,
    size: int | None = None,
    seed: int = 0,
) -> SubPopulations:
    """Find for each group (or one) the judged target images it helps most, against the mean of their class (F8).

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own. With a Plan the page shows the images.
        group: the name of one group; all are found, and this one is returned.
        task: which of the plan's tasks; the first by default.
        output: of which the influences are (see `pydt.store.units_of`); "probability" by default, of a measure "value".
        size: images a group; eight, or a tenth of the images if that is less.
        seed: of the random halves of the models.

    Raises:
        ConfigError: an unknown group or output, fewer than ten target examples, or a size beyond a tenth of them.
        EstimateError: half of the models do not tell the groups apart.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    whole(seed, "seed", "subpopulations", error=ConfigError)
    from scipy import special

    view = EnsembleView.of(store, plan, task, needs=("ten",))
    output = view.output(output, "probability")
    names = view.record.names
    if group is not None and group not in names:
        raise ConfigError(f"no group {group!r}", "group", f"there are: {', '.join(names[:8])}")
    labels = view.labels("all")
    usual = max(1, min(8, len(labels) // 10))
    size = usual if size is None else whole(size, "size", "subpopulations", 1, error=ConfigError)
    if 10 * size > len(labels):
        raise ConfigError(f"{size} of {len(labels)} {view.thing}s", "size", "ask for at most a tenth of them")
    moved = _against_class(view.outputs(output, "all"), labels)
    masks = view.masks
    fit = influences(masks, moved, best_method(masks))
    found = _largest(fit.unbiased, size)
    judged, square, common = np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names))
    df = np.inf
    for parts in halves(masks, SPLITS, "sub-populations", seed):
        lists = []
        for rows in parts:
            half = masks.take(rows)
            lists.append(_largest(influences(half, moved[rows], best_method(half)).unbiased, size))
        common += [len(np.intersect1d(one, other)) / size for one, other in zip(*lists, strict=True)]
        for chosen, rows in zip(lists, parts[::-1], strict=True):
            half = masks.take(rows)
            means = np.stack([moved[np.ix_(rows, one)].mean(1, dtype=np.float64) for one in chosen], axis=1)
            valued = influences(half, means, best_method(half))
            judged += np.diag(valued.unbiased)
            square += np.diag(valued.stderr).astype(np.float64) ** 2
            df = min(df, float(np.min(valued.df)))
    ways = 2 * SPLITS
    judged, stderr = judged / ways, ERROR_OF_WAYS * np.sqrt(square / ways)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(stderr > 0, judged / stderr, 0.0)
    p = special.stdtr(df, -t)
    which = np.arange(len(names)) if group is None else np.array([names.index(group)])
    return SubPopulations(
        groups=tuple(names[k] for k in which),
        output=output,
        unit=view.unit(output).name,
        models=fit.models,
        ids=np.asarray(view.store.examples(view.task, "all", view.record)["ids"], np.int64),
        labels=labels,
        classes=tuple(view.classes),
        effect=fit.unbiased[which],
        stderr=fit.stderr[which],
        found=found[which],
        claimed=np.take_along_axis(fit.unbiased, found, 1).mean(1, dtype=np.float64)[which],
        judged=judged[which],
        judged_stderr=stderr[which],
        df=df,
        p=p[which],
        q=benjamini_hochberg(p)[which],
        overlap=(common / SPLITS)[which],
        by_chance=size / len(labels),
        splits=SPLITS,
        _view=view,
    )


def _against_class(outputs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Outputs (models, images) less the mean of each model over the images of the same class."""
    moved = np.empty_like(outputs)
    for c in np.unique(labels):
        here = labels == c
        moved[:, here] = outputs[:, here] - outputs[:, here].mean(1, keepdims=True, dtype=np.float64)
    return moved


def _largest(values: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.int64]:
    """The columns of the largest values of each row, int64 (rows, size), the largest first."""
    return np.argsort(-values, axis=1, kind="stable")[:, :size].astype(np.int64)


def _answer(found: SubPopulations, order: npt.NDArray[np.intp]) -> list[str]:
    sure = [k for k in order if found.q[k] < LEVEL]
    size, models, things = found.found.shape[1], count(found.models, "model"), f"{found._view.thing}s"
    rest = "the rest of their class" if found.classes else "the rest"
    if len(found.groups) == 1:
        one = plus_minus(float(found.judged[0]), float(found.judged_stderr[0]))
        what = "moves" if sure else "does not surely move"
        first = (
            f"{quoted(found.groups[0])} {what} its {size} {things} more than {rest}: {one} {found.unit} in models "
            f"that did not choose them (q = {number(float(found.q[0]), 3)} over all groups; {models})."
        )
    elif sure:
        first = (
            f"{len(sure)} of {len(found.groups)} groups have {things} that they surely move more than {rest}, "
            f"{listed([found.groups[k] for k in sure], 3)} most clearly ({models}, q < {LEVEL})."
        )
    else:
        least = detectable(float(np.median(found.judged_stderr)), found.df, len(found.groups), LEVEL)
        first = (
            f"No group surely moves some {things} more than {rest} ({models}); one that moves by "
            f"{number(least, digits_for(least))} {found.unit} more those that half of the models find would have been "
            "sure with a chance of 80 %."
        )
    mean = float(found.judged.mean()), float(found.claimed.mean())
    digits = digits_for(float(np.sqrt((found.judged_stderr**2).mean())))
    several = " on average over the groups" if len(found.groups) > 1 else ""
    best = f" (the clearest group: {percent_text(found.overlap.max())})" if several else ""
    return [
        first,
        f"The {size} {things} look as if moved by {number(mean[1], digits, True)} {found.unit}{several}, but they were "
        f"chosen for that. Found by one half of the models and valued by the other, the same rule gives "
        f"{number(mean[0], digits, True)} ({found.splits} random splits, both ways).",
        f"Two halves of the models find {percent_text(found.overlap.mean())} of the {things} in common{several}"
        f"{best}, against {percent_text(found.by_chance, 1)} by chance: so far can a list itself be trusted.",
    ]


def _blocks(found: SubPopulations, order: npt.NDArray[np.intp]) -> list[Block]:
    view, blocks = found._view, list[Block]()
    thumbnails, lying = view.store.thumbnails(view.record), view.store.captions(view.record)
    for k in order[:_SHOWN] if view.target is not None else ():
        captions = [
            f"{found.classes[found.labels[x]]} {number(float(found.effect[k, x]), 1, True)}" for x in found.found[k]
        ]
        value = plus_minus(float(found.judged[k]), float(found.judged_stderr[k]))
        title = f"{quoted(found.groups[k])}: {value} {found.unit}" + ("" if found.q[k] < LEVEL else " (not sure)")
        own = list(thumbnails.get(found.groups[k], ())[:3])
        images = view.pictures(found.found[k], "all")
        if images:
            theirs = [*lying.get(found.groups[k], ()), "", "", ""][: len(own)]
            named = [*(place.rpartition("/")[2] for place in theirs), *captions]
            where = [*theirs, *view.places(found.found[k], "all")]
            heads = "from the group", f"{view.target_name}: moved most, with class and effect"
            blocks.append(Images([*own, *images], named, title, places=where, beside=len(own), heads=heads))
    reach = t975(found.df) * found.judged_stderr
    names = [found.groups[k] for k in order]
    note = (
        f"Mean effect on the group's {view.thing}s against {'their class' if found.classes else 'all'}, found by one "
        f"half of the models and valued by the other; 95 % interval; filled: q < {LEVEL}."
    )
    intervals = Intervals(
        names,
        found.judged[order],
        (found.judged - reach)[order],
        (found.judged + reach)[order],
        found.unit,
        "Every group",
        note,
        (found.q[order] < LEVEL).tolist(),
        thumbnails or None,
        places=lying,
    )
    return [*blocks, intervals, Table.of(order, _columns(found), "Every group in numbers")]


def _columns(found: SubPopulations) -> tuple[Column, ...]:
    """What a page tells of a group; the records are positions of groups."""

    names, things = found._view.named("all"), f"{found._view.thing}s"

    def first(k: int) -> str:
        return listed([names[x] for x in found.found[k]], 3)

    def classes(k: int) -> str:
        labels, counts = np.unique(found.labels[found.found[k]], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:3]
        return ", ".join(f"{found.classes[labels[i]]} x{counts[i]}" for i in most)

    return (
        Column("group", lambda k: found.groups[k]),
        Column(f"classes of its {things}", classes) if found.classes else Column(f"its {things}", first),
        Column("as shown", found.claimed.__getitem__),
        Column("judged", found.judged.__getitem__),
        Column("stderr", found.judged_stderr.__getitem__),
        Column("p, one-sided", found.p.__getitem__, digits=3),
        Column("q", found.q.__getitem__, digits=3),
        Column("found by both halves", found.overlap.__getitem__),
    )


def _method(found: SubPopulations) -> str:
    view, thing, of = found._view, found._view.thing, " of class c" if found.classes else ""
    on = found.output if thing == "example" else f"{found.output} of the correct class"
    turned = f"\n\n{view.turned}" if view.turned else ""
    return f"""For group k and {thing} x{of}, on the {on}:

    effect of k on x = influence of k on x - mean influence of k{f" on the {thing}s{of}" if of else ""}

(Jain et al. 2023, section 4.1). The {thing}s named have the largest effect by all models. The effect claimed is that of
the rule: found by a random half of the models, valued by the other half, both ways over {found.splits} random splits;
one-sided t test, q over the groups (Benjamini-Hochberg). The paper shows such images, without a test.{turned}"""
