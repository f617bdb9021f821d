"""Sub-populations: the target images that a source group moves most, against the mean of their class.

A source class without a counterpart among the target's labels often teaches a part of one: ostriches a kind of "bird",
a seven with a bar a kind of "7" (Jain et al. 2023, section 4.1, "granular sub-populations"). For group k and image x of
class c let

    e_k(x) = influence of k on x  -  mean over the images x' of class c of the influence of k on x'

the influence on the difference of the image's output from the mean of its class, which is one regression for every
image: what k does to the whole class is taken off. The images of a group are those with the largest e_k.

Of hundreds of images the largest e_k are large by chance. So the effect that is claimed is that of the rule and not of
the list: the images are found by a random half of the models, and their mean e_k is estimated by the other half, as the
regression of one number a model, with its standard error; both ways, over several random splits. A group's images are a
finding where that effect is surely above zero (one-sided t; q over the groups, Benjamini-Hochberg). The list that is
shown is found by all models. How often two halves of the models find the same images says how far the list itself can
be trusted.

Judged images of both halves of the target take part: no group is selected here that is judged on them later, and what
is found in some models is judged by others.

Cost: two fits of (models / 2, images) and two of (models / 2, groups) for every split. What lost: ranking images by e_k
over its standard error. On the embedded sample (300 models, 1,197 images, mean over 62 groups) two halves of the models
find 14 % of a group's eight images in common by e_k on the probability, 10 % by the ratio, 5 % by e_k on margins.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import ERROR_OF_WAYS, Array, EnsembleView, detectable
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError, t975, whole
from pydt.ensemble import Plan
from pydt.estimation import benjamini_hochberg, best_method, influences
from pydt.reporting import Block, Images, Intervals, Page, Table, count, digits_for, listed, number, plus_minus, quoted
from pydt.store import UNITS, Record, Store

LEVEL = 0.05
_SPLITS = 10
_SHOWN = 12  # groups of which a page shows images


@dataclass(frozen=True, eq=False)
class SubPopulations:
    """The images that each group moves most; see the top of this file.

    Attributes:
        groups: names, all of the plan's or the one asked for. output, unit, models: what was estimated from.
        ids, labels: int64 (images,): positions in the target's judged data, and classes; classes: their names.
        effect, stderr: float32 (groups, images): e_k of every image by all models, and its standard error.
        found: int64 (groups, size): the images shown, as positions in `ids`, the most moved first.
        claimed: float64 (groups,): mean e_k of those by the models that found them, which is too large.
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

    def page(self) -> Page:
        """What a reader sees: the images of the surest groups, every group's effect, and all as CSV."""
        order = np.lexsort((-self.judged / np.maximum(self.judged_stderr, 1e-30), self.q))
        shown = (
            (
                self.groups[k],
                rank + 1,
                int(self.ids[x]),
                self.classes[self.labels[x]],
                self.effect[k, x],
                self.stderr[k, x],
            )
            for k in range(len(self.groups))
            for rank, x in enumerate(self.found[k])
        )
        columns = ("group", "rank", "image", "class", f"effect ({self.unit})", "stderr")
        blocks = _blocks(self, order)
        return Page(
            name="subpopulations",
            title="Sub-populations",
            question=(
                f"Which images of {self._view.target_name} does a group move most, against the mean of their class?"
            ),
            answer=self._view.told(_answer(self, order)),
            blocks=blocks,
            csv={"images.csv": (columns, shown), "groups.csv": _table(self, order)},
            method=_METHOD.format(output=self.output, splits=self.splits),
        )


def subpopulations(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    group: str | None = None,
    *,
    task: Any = None,
    output: str = "probability",
    size: int | None = None,
    seed: int = 0,
) -> SubPopulations:
    """Find for each group (or one) the judged target images it helps most, against the mean of their class (F8).

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own. With a Plan the page shows the images.
        group: the name of one group; all are found, and this one is returned.
        task: which of the plan's tasks; the first by default.
        output: of which the influences are (see `pydt.store.UNITS`).
        size: images a group; eight, or a tenth of the images if that is less.
        seed: of the random halves of the models.

    Raises:
        ConfigError: an unknown group or output, or a size beyond a tenth of the images.
        EstimateError: half of the models do not tell the groups apart.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    from scipy import special

    view = EnsembleView.of(store, plan, task)
    names = view.record.names
    if group is not None and group not in names:
        raise ConfigError(f"no group {group!r}", "group", f"there are: {', '.join(names[:8])}")
    labels = view.labels("all")
    usual = max(1, min(8, len(labels) // 10))
    size = usual if size is None else whole(size, "size", "subpopulations", 1, error=ConfigError)
    if 10 * size > len(labels):
        raise ConfigError(f"{size} of {len(labels)} images", "size", "ask for at most a tenth of them")
    moved = _against_class(view.outputs(output, "all"), labels)
    masks = view.masks
    fit = influences(masks, moved, best_method(masks))
    found = _largest(fit.unbiased, size)
    judged, square, common = np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names))
    df = np.inf
    for parts in halves(masks, _SPLITS, "sub-populations", seed):
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
    ways = 2 * _SPLITS
    judged, stderr = judged / ways, ERROR_OF_WAYS * np.sqrt(square / ways)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(stderr > 0, judged / stderr, 0.0)
    p = special.stdtr(df, -t)
    which = np.arange(len(names)) if group is None else np.array([names.index(group)])
    return SubPopulations(
        groups=tuple(names[k] for k in which),
        output=output,
        unit=UNITS[output][0],
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
        overlap=(common / _SPLITS)[which],
        by_chance=size / len(labels),
        splits=_SPLITS,
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
    size, models = found.found.shape[1], count(found.models, "model")
    if len(found.groups) == 1:
        one = plus_minus(float(found.judged[0]), float(found.judged_stderr[0]))
        what = "moves" if sure else "does not surely move"
        first = (
            f"{quoted(found.groups[0])} {what} its {size} images more than their classes: {one} {found.unit} in models "
            f"that did not choose them (q = {number(float(found.q[0]), 3)} over all groups; {models})."
        )
    elif sure:
        first = (
            f"{len(sure)} of {len(found.groups)} groups have images that they surely move more than the rest of their "
            f"class, {listed([found.groups[k] for k in sure], 3)} most clearly ({models}, q < {LEVEL})."
        )
    else:
        least = detectable(float(np.median(found.judged_stderr)), found.df, len(found.groups), LEVEL)
        first = (
            f"No group surely moves some images more than the rest of their class ({models}); one that moves by "
            f"{number(least, digits_for(least))} {found.unit} more those that half of the models find would have been "
            "sure with a chance of 80 %."
        )
    mean = float(found.judged.mean()), float(found.claimed.mean())
    digits = digits_for(float(np.sqrt((found.judged_stderr**2).mean())))
    several = " on average over the groups" if len(found.groups) > 1 else ""
    best = f" (the clearest group: {100 * float(found.overlap.max()):.0f} %)" if several else ""
    return [
        first,
        f"The {size} images look as if moved by {number(mean[1], digits, True)} {found.unit}{several}, but they were "
        f"chosen for that. Found by one half of the models and valued by the other, the same rule gives "
        f"{number(mean[0], digits, True)} ({found.splits} random splits, both ways).",
        f"Two halves of the models find {100 * float(found.overlap.mean()):.0f} % of the images in common{several}"
        f"{best}, against {100 * found.by_chance:.1f} % by chance: so far can a list itself be trusted.",
    ]


def _blocks(found: SubPopulations, order: npt.NDArray[np.intp]) -> list[Block]:
    view, blocks = found._view, []
    thumbnails = view.store.thumbnails(view.record)
    for k in order[:_SHOWN]:
        captions = [
            f"{found.classes[found.labels[x]]} {number(float(found.effect[k, x]), 1, True)}" for x in found.found[k]
        ]
        value = plus_minus(float(found.judged[k]), float(found.judged_stderr[k]))
        title = f"{quoted(found.groups[k])}: {value} {found.unit}" + ("" if found.q[k] < LEVEL else " (not sure)")
        own = list(thumbnails.get(found.groups[k], ())[:2])
        images = view.pictures(found.found[k], "all")
        if images:
            named = [*["the group"] * len(own), *captions]
            blocks.append(Images([*own, *images], named, title))
    reach = t975(found.df) * found.judged_stderr
    names = [found.groups[k] for k in order]
    note = (
        "Mean effect on the group's images against their class, found by one half of the models and valued by the "
        f"other; 95 % interval; filled: q < {LEVEL}."
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
    )
    columns, rows = _table(found, order)
    return [*blocks, intervals, Table(columns, rows, "Every group in numbers", digits={"p, one-sided": 3, "q": 3})]


def _table(found: SubPopulations, order: npt.NDArray[np.intp]) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    columns = (
        "group",
        "classes of its images",
        "as shown",
        "judged",
        "stderr",
        "p, one-sided",
        "q",
        "found by both halves",
    )
    rows = []
    for k in order:
        labels, counts = np.unique(found.labels[found.found[k]], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:3]
        classes = ", ".join(f"{found.classes[labels[i]]} x{counts[i]}" for i in most)
        numbers = (found.claimed[k], found.judged[k], found.judged_stderr[k], found.p[k], found.q[k], found.overlap[k])
        rows.append((found.groups[k], classes, *map(float, numbers)))
    return columns, rows


_METHOD = """For group k and image x of class c, on the {output} of the correct class:

    effect of k on x = influence of k on x - mean influence of k on the images of class c

(Jain et al. 2023, section 4.1). The images shown have the largest effect by all models. The effect claimed is that of
the rule: found by a random half of the models, valued by the other half, both ways over {splits} random splits;
one-sided t test, q over the groups (Benjamini-Hochberg). The paper shows such images, without a test."""
