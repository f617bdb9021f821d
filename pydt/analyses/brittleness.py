"""Brittleness: the smallest set of source groups without which models would get a target image wrong.

    mu(R) = mean margin of the models + sum over all groups of b_k (p_k(R) - share of the models that keep k)

is the mean margin of models of the plan's kind that keep no group of R, with p_k(R) the chance that they keep group k;
R flips an image where mu(R) < 0 < mean margin. Sets are found with ridge influences by a random half of the models and
judged with unbiased influences by the other half, both ways over several splits; `verify` trains anew. Derivation and
what lost: docs/analyses.md, "How retraining is judged". More than 500 lines: the analysis and its page, which stand
together as in the other analyses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import Array, EnsembleView
from pydt.analyses.rates import Compared, Rate, blocks_of, compare, rate_of
from pydt.analyses.retraining import Retraining, group_images, matched, other_draws, without
from pydt.analyses.sample_splitting import SPLITS, error_of_ways, halves
from pydt.base import ConfigError, EstimateError, Result, Short, generator, records, seed31, whole
from pydt.design import Design
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import Fit, best_method, influences
from pydt.reporting import (
    Block,
    Column,
    Curve,
    Images,
    Intervals,
    Page,
    Table,
    count,
    csv_of,
    curve_plot,
    listed,
    number,
    percent_range,
    percent_text,
)
from pydt.store import Record, Row, Store

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_SHOWN = 24  # images with pictures
_LEAST_LACKING = 5  # models that lack a set, where their share of wrong predictions is told


@dataclass(frozen=True, repr=False)
class Brittle(Short):
    """An image that is right in the majority, and the smallest set that would flip it.

    Attributes:
        position: in the target's judged data. label: its class. margin: mean over all models.
        groups: the set found by all models, most important first; empty where up to `most` groups do not suffice.
        probability: that the set found by one half of the models flips it, as the other half judges; 0 where none is
            found. Mean over splits, both ways.
        found: share of the halves that find a set.
    """

    position: int
    label: str
    margin: float
    groups: tuple[str, ...]
    probability: float
    found: float


@dataclass(frozen=True, repr=False)
class Verified(Short):
    """How often fresh trainings get the most probably brittle images wrong.

    Attributes:
        images: positions in the target's judged data, of those with two trainings or more in each arm.
        set, random, full: without the image's set, without a random one, with the whole source.
        compared: the first against the second. retrained, failed: trainings.
    """

    images: tuple[int, ...]
    set: Rate
    random: Rate
    full: Rate
    compared: Compared
    retrained: int
    failed: int


@dataclass(frozen=True, eq=False, repr=False)
class Brittleness(Result):
    """How few groups flip images.

    Attributes:
        images: those right in the majority, the smallest and most probable sets first.
        judged: images of the report half. models, splits: used. most: groups in a set at most.
        limits: int64 (most,), 1 .. most. What follows: shares of the right images, float64 (most,), by sets up to them.
        claimed: flipped, by the half that finds the sets. flipped, flipped_stderr: as the other half judges.
        random, random_stderr: by random sets of the same sizes. already: without any removal.
        more: flipped less random of sets up to `most`, and its error.
        lacking: (share wrong, its error, models an image) of models of the judging half that lack the whole set
            ("set"), the random one ("random"), or anything ("all"); None where no image has five such models.
        verified: what retraining gave, if asked for.
    """

    images: tuple[Brittle, ...]
    judged: int
    models: int
    most: int
    splits: int
    limits: npt.NDArray[np.int64]
    claimed: Array
    flipped: Array
    flipped_stderr: Array
    random: Array
    random_stderr: Array
    already: Array
    more: tuple[float, float]
    lacking: dict[str, tuple[float, float, float]] | None
    verified: Verified | None
    _view: EnsembleView = field(repr=False)
    _where: npt.NDArray[np.int64] = field(repr=False)

    def _columns(self) -> dict[str, Any]:
        return records(Brittle, self.images)

    def __repr__(self) -> str:
        flipped, error = 100 * self.flipped[-1], 100 * self.flipped_stderr[-1]
        line = f"sets of at most {count(self.most, 'group')} flip {flipped:.1f} +- {error:.1f} % of them"
        right = f"{len(self.images):,} of {count(self.judged, 'image')} right in the majority"
        return f"Brittleness({count(self.models, 'model')}; {right}; {line}, random ones {100 * self.random[-1]:.1f} %)"

    def plot(self, ax: Any = None) -> Any:
        """Draw the share of the images that sets of groups flip, and that random ones do, by the size of a set.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        values, errors = (
            100 * np.stack(parts) for parts in ([self.flipped, self.random], [self.flipped_stderr, self.random_stderr])
        )
        labels = "groups in a set, at most", "% of the right images, one standard error"
        names, x = ("sets found", "random sets"), [str(one) for one in self.limits]
        return curve_plot(names, x, values, np.stack([errors, errors], 1), labels, "Images that flip", ax)

    def page(self) -> Page:
        """The page of this analysis."""
        retrained = (0, 0) if self.verified is None else (self.verified.failed, self.verified.retrained)
        blocks = _blocks(self)  # before the answer, which tells of images that cannot be decoded
        return Page(
            name="brittleness",
            title="Brittleness",
            question=f"How few groups decide whether an image of {self._view.target_name} is read right, and which?",
            answer=self._view.told(_answer(self), *retrained),
            blocks=blocks,
            csv={
                "images.csv": csv_of(self.images, _IMAGES),
                "shares.csv": csv_of(range(self.most), _share_columns(self)),
            },
            method=_METHOD.format(splits=self.splits, most=count(self.most, "group")),
        )


def brittleness(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    *,
    task: Any = None,
    most: int | None = None,
    verify: int = 0,
    repeats: int = 5,
    seed: int = 0,
    runner: Runner = run_row,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool | str = True,
) -> Brittleness:
    """Find for each report image the smallest set of groups whose removal is predicted to flip the majority.

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own. `verify` needs the Plan itself.
        task: which of the plan's tasks; the first by default.
        most: groups in a set at most; by default a quarter of them.
        verify: how many images to retrain for, those whose sets flip them most probably: `repeats` trainings without
            each set, as many without random ones, and as many on the whole source. 0 trains nothing.
        seed: of the random halves, sets and trainings.
        runner, executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: more groups than can be removed, `verify` without a Plan, fewer than two repeats, or a measure,
            which has no margins.
        EstimateError: a stratified design, or half of the models do not tell the groups apart.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    whole(seed, "seed", "brittleness", error=ConfigError)
    view = EnsembleView.of(store, plan, task, needs=("logits",))
    if verify and not isinstance(plan, Plan):
        raise ConfigError("is needed to retrain", "plan", "pass the pydt.Plan itself, or verify=0")
    if verify < 0 or repeats < 2:
        raise ConfigError(f"verify={verify}, repeats={repeats}", "brittleness", "use at least 0 and 2")
    masks = view.masks
    if masks.constants > 1:
        mend = "use a design without strata"
        raise EstimateError("a stratified design replaces groups stratum by stratum", "brittleness", mend)
    spare = masks.groups - 1 - (int(masks[0].sum()) if masks.estimand == "swap" else 0)
    usual = max(1, min(masks.groups // 4, spare))
    most = usual if most is None else whole(most, "most", "brittleness", 1, error=ConfigError)
    if most > spare:
        raise ConfigError(f"{most} of {masks.groups} groups", "most", f"at most {spare} leave masks to draw")
    margin = view.outputs("margin", "report")
    ways = [
        one_way(masks, margin, finding, judging, most, generator("brittleness", seed, split, way))
        for split, pair in enumerate(halves(masks, SPLITS, "brittleness", seed))
        for way, (finding, judging) in enumerate((pair, pair[::-1]))
    ]
    order, size = smallest_sets(masks, margin, most)
    mean = margin.mean(0, dtype=np.float64)
    probability = np.mean([np.where(way.size > 0, way.flipped, 0.0) for way in ways], axis=0)
    found = np.mean([way.size > 0 for way in ways], axis=0)
    right = np.flatnonzero(mean > 0)
    sorted_ = right[np.lexsort((-probability[right], np.where(size[right] > 0, size[right], most + 1)))]
    ids, labels = view.store.examples(view.task, "report", view.record)["ids"], view.labels("report")
    images = tuple(
        Brittle(
            int(ids[x]),
            view.classes[labels[x]],
            float(mean[x]),
            tuple(view.record.names[k] for k in order[: size[x], x]),
            float(probability[x]),
            float(found[x]),
        )
        for x in sorted_
    )
    claimed, flipped, random, already = (
        np.array([way.shares(part, most) for way in ways]) for part in ("claimed", "flipped", "random", "already")
    )
    verified = None
    if verify:
        assert isinstance(plan, Plan)
        chosen = sorted((x for x in right if size[x]), key=lambda x: -probability[x])[:verify]
        retraining = Retraining(view.store, plan, runner, executor, workers, progress)
        sets = members(order, size, masks.groups)
        verified = _verify(view, retraining, np.array(chosen, np.int64), sets, repeats, seed) if chosen else None
    return Brittleness(
        images=images,
        judged=len(mean),
        models=len(masks),
        most=most,
        splits=SPLITS,
        limits=np.arange(1, most + 1),
        claimed=claimed.mean(0),
        flipped=flipped.mean(0),
        flipped_stderr=error_of_ways(flipped),
        random=random.mean(0),
        random_stderr=error_of_ways(random),
        already=already.mean(0),
        more=_mean_of_ways(flipped[:, -1] - random[:, -1]),
        lacking=_lacking(ways),
        verified=verified,
        _view=view,
        _where=sorted_,
    )


@dataclass(frozen=True, eq=False)
class Way:
    """One half finds sets, the other judges them.

    Attributes:
        size: (images,) groups of the set that flips an image, 0 for none. right: images that the finding half gets
            right.
        flipped, random, already: (images,) probability of a wrong majority without the set, without a random one of
            that size, without removal.
        seen: "set", "random", "all" -> (share wrong, number), (images,) each, of the judging models that lack the set,
            the random one, or anything.
    """

    size: Ints
    right: int
    flipped: Array
    random: Array
    already: Array
    seen: dict[str, tuple[Array, Ints]]

    def shares(self, part: str, most: int) -> list[float]:
        """Share of the right images that flip by sets up to each size."""
        value = np.ones(len(self.size)) if part == "claimed" else getattr(self, part)
        named = (self.size > 0) & (self.size <= np.arange(1, most + 1)[:, None])
        return list((named * value).sum(1) / max(self.right, 1))


def one_way(
    masks: Design, margin: npt.NDArray[np.float32], finding: Ints, judging: Ints, most: int, random: np.random.Generator
) -> Way:
    """Sets found by the models `finding`, judged by the models `judging`."""
    order, size = smallest_sets(masks.take(finding), margin[finding], most)
    sets = members(order, size, masks.groups)
    drawn = np.argsort(random.random(sets.shape), axis=0).argsort(axis=0) < size
    half = masks.take(judging)
    # One variance for all models: each image weighs the groups in a way of its own (see `chance_wrong`).
    fit = influences(half, margin[judging], best_method(half), errors="classical")
    kept, wrong = np.asarray(half), margin[judging] < 0
    mean = margin[judging].mean(0, dtype=np.float64)
    flipped, by_chance, already = (chance_wrong(fit, kept, mean, removed) for removed in (sets, drawn, sets & False))
    seen = {"all": (wrong.mean(0), np.full(len(size), len(judging)))}
    for name, removed in (("set", sets), ("random", drawn)):
        lacks = kept.astype(np.float32) @ removed.astype(np.float32) == 0
        seen[name] = ((lacks & wrong).sum(0) / np.maximum(lacks.sum(0), 1), lacks.sum(0))
    return Way(size, int((margin[finding].mean(0) > 0).sum()), flipped, by_chance, already, seen)


def smallest_sets(masks: Design, margin: npt.NDArray[np.float32], most: int) -> tuple[Ints, Ints]:
    """The groups whose removal lowers each image's mean margin most, (most, images), and how many of them flip it, 0
    where `most` do not, or it is wrong already.
    """
    values = influences(masks, margin, "ridge").values.astype(np.float64)
    kept = np.asarray(masks)
    share, mean = kept.mean(0), margin.mean(0, dtype=np.float64)
    swap = masks.estimand == "swap"
    weight = values if swap else values * share[:, None]
    order = np.argsort(-weight, axis=0, kind="stable")[:most]
    taken = np.cumsum(np.take_along_axis(weight, order, 0), axis=0)
    if swap:
        chance = int(kept[0].sum()) / (masks.groups - np.arange(1, most + 1))
        without_sets = mean - share @ values + chance[:, None] * (values.sum(0) - taken)
    else:
        without_sets = mean - taken
    flips = (without_sets < 0) & (mean > 0)
    return order, np.where(flips.any(0), flips.argmax(0) + 1, 0)


def members(order: Ints, size: Ints, groups: int) -> Bools:
    """The first `size` groups of each column as a mask, bool (groups, images)."""
    found = np.zeros((groups, order.shape[1]), bool)
    np.put_along_axis(found, order, np.arange(len(order))[:, None] < size, 0)
    return found


def chance_wrong(fit: Fit, kept: Bools, mean: Array, removed: Bools) -> Array:
    """Probability that the mean margin without the removed groups, bool (groups, images), is below zero."""
    from scipy import special

    share = kept.mean(0)[:, None]
    chance = np.where(removed, 0.0, share)
    if fit.estimand == "swap":
        chance = np.where(removed, 0.0, int(kept[0].sum()) / (len(removed) - removed.sum(0)))
    moved = chance - share
    scaled = moved * fit.stderr
    variance = (scaled * (fit.correlation @ scaled)).sum(0) + fit.noise / len(kept)
    shifted = mean + (fit.unbiased * moved).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(variance > 0, -shifted / np.sqrt(np.maximum(variance, 0)), np.inf * -np.sign(shifted))
    return np.asarray(special.stdtr(fit.least_df, t))


def _lacking(ways: Sequence[Way]) -> dict[str, tuple[float, float, float]] | None:
    """What judging models that lack a set do with its image, pooled over images that have enough such models."""
    found: dict[str, list[tuple[float, float]]] = {"set": [], "random": [], "all": []}
    for way in ways:
        known = (way.size > 0) & (way.seen["set"][1] >= _LEAST_LACKING) & (way.seen["random"][1] >= _LEAST_LACKING)
        if known.any():
            for name, (share, number_of) in way.seen.items():
                found[name].append((float(share[known].mean()), float(number_of[known].mean())))
    if len(found["set"]) < 2:
        return None
    parts = {name: np.array(pairs) for name, pairs in found.items()}
    return {name: (*_mean_of_ways(p[:, 0]), float(p[:, 1].mean())) for name, p in parts.items()}


def _verify(
    view: EnsembleView, retraining: Retraining, chosen: Ints, sets: Bools, repeats: int, seed: int
) -> Verified | None:
    """Train the whole source, without each chosen image's set and without random ones; how often it is wrong then."""
    plan = retraining.plan
    task = other_draws(next(one for one in plan.tasks if one.digest == view.task))
    groups, images = len(sets), group_images(plan)
    rows = [Row(without(groups), seed31("brittleness, full", seed, i), "full") for i in range(repeats)]
    of: list[tuple[str, int]] = [("full", -1)] * repeats
    for at, x in enumerate(chosen.tolist()):
        own = np.flatnonzero(sets[:, x])
        for i in range(repeats):
            key = (seed, x, i)
            drawn = matched(generator("brittleness, random set", *key), images, len(own), float(images[own].sum()))
            for kind, gone in (("set", own), ("random", drawn)):
                rows.append(Row(without(groups, gone), seed31(f"brittleness, {kind}", *key), f"drop {kind}"))
                of.append((kind, at))
    retraining.announce((task,), [(plan.recipe, rows)])
    done = retraining.run((task,), rows)
    finished = done.finished().tolist()
    ran = {arm: [i for i in finished if of[i] == arm] for arm in dict.fromkeys(of)}
    left = [at for at in range(len(chosen)) if min(len(ran["set", at]), len(ran["random", at])) > 1]
    if len(ran["full", -1]) < 2 or not left:
        return None
    chosen = chosen[left]
    wrong = dict(zip(finished, done.outputs(task, "margin", "report")[:, chosen] < 0, strict=True))
    arms = {kind: blocks_of([ran[kind, at] for at in left], wrong) for kind in ("set", "random")}
    arms["full"] = blocks_of([ran["full", -1]] * len(left), wrong)
    ids = view.store.examples(view.task, "report", view.record)["ids"]
    rates = {kind: rate_of(blocks, len(chosen)) for kind, blocks in arms.items()}
    return Verified(
        images=tuple(int(ids[x]) for x in chosen),
        **rates,
        compared=compare(arms["set"], arms["random"], len(chosen)),
        retrained=len(rows),
        failed=len(rows) - len(finished),
    )


def _mean_of_ways(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(error_of_ways(values))


def _answer(found: Brittleness) -> list[str]:
    right, models = len(found.images), count(found.models, "model")
    named = [b for b in found.images if b.groups]
    sure = "" if found.more[0] > 2 * found.more[1] else ", not surely above zero"
    expected = percent_text(found.flipped[-1], 1, found.flipped_stderr[-1])
    by_random = percent_text(found.random[-1], 1, found.random_stderr[-1])
    sentences = [
        f"Of {right:,} images that {models} mostly read right, {expected} are expected to flip without up to "
        f"{count(found.most, 'group')} of their own, and {by_random} without as many random ones (difference "
        f"{percent_text(found.more[0], 1, found.more[1])}{sure}).",
        f"The half of the models that finds the sets claims {percent_text(found.claimed[-1], 1)}; expected is what the "
        "other half says of the same sets, and of random ones of the same sizes. Without any removal it finds "
        f"{percent_text(found.already[-1], 1)} of these images as good as wrong already ({found.splits} random splits, "
        "both ways).",
    ]
    if found.lacking is not None:
        own, random, everyone = (percent_text(share, 1, error) for share, error, _ in found.lacking.values())
        models_of = [number(many, 0) for _, _, many in found.lacking.values()]
        sentences.append(
            f"Models of the judging half that happen to lack a whole set are wrong on its image in {own} of cases, "
            f"those that lack the random set in {random}, all in {everyone} ({models_of[0]}, {models_of[1]} and "
            f"{models_of[2]} models an image on average; no training needed)."
        )
    best = max(named, key=lambda b: b.probability, default=None)
    if best is not None:
        sentences.append(
            f"All models name a set for {count(len(named), 'image')}; most probably it flips one of class {best.label} "
            f"(image {best.position}) without {listed(best.groups)}: {percent_text(best.probability, 1)}, counting "
            "halves that name no set as 0."
        )
    if found.verified is not None:
        v = found.verified
        rates = [percent_range(r.rate, r.low, r.high, 1) for r in (v.set, v.random, v.full)]
        sentences.append(
            f"Retrained on the whole source ({count(v.retrained, 'training')}, {v.set.runs} for each of "
            f"{count(len(v.images), 'image')}): wrong without the set in {rates[0]}, without a random set in "
            f"{rates[1]}, with everything in {rates[2]}; set against random "
            f"{number(100 * v.compared.difference, 1, True)} points "
            f"(95 % {number(100 * v.compared.low, 1, True)} to {number(100 * v.compared.high, 1, True)})."
        )
    return sentences


_IMAGES = [
    *(Column(name) for name in ("position", "label", "margin")),
    Column("groups", lambda image: ", ".join(image.groups)),
    *(Column(name) for name in ("probability", "found")),
]


def _share_columns(found: Brittleness) -> list[Column]:
    """Of the limits, by their position."""
    shares = {
        "claimed": found.claimed,
        "judged": found.flipped,
        "stderr": found.flipped_stderr,
        "random sets": found.random,
        "stderr of random": found.random_stderr,
        "without removal": found.already,
    }

    def column(name: str) -> Column:
        return Column(name, lambda i: float(shares[name][i]), digits=4)

    return [Column("groups at most", lambda i: int(found.limits[i])), *map(column, shares)]


def _blocks(found: Brittleness) -> list[Block]:
    series: dict[str, Any] = {}
    for line, share, error in (
        ("expected by other models", found.flipped, found.flipped_stderr),
        ("claimed by those that found the sets", found.claimed, None),
        ("random sets", found.random, found.random_stderr),
        ("without removal", found.already, None),
    ):
        bounds = (
            (None, None) if error is None else (np.maximum(100 * share - 196 * error, 0), 100 * share + 196 * error)
        )
        series[line] = (found.limits, 100 * share, *bounds)
    note = "Shares of the images that are right in the finding half."
    blocks: list[Block] = [
        Curve(series, "groups removed at most", "% of the images that are right", "Images that flip"),
        Table.of(range(found.most), _share_columns(found), "In numbers", note),
    ]
    shown = [i for i, b in enumerate(found.images) if b.groups][:_SHOWN]
    images = found._view.pictures(found._where[shown], "report")
    if images:
        sets = ((found.images[i], ", ".join(found.images[i].groups)) for i in shown)
        captions = [f"{b.label} without {names}: {percent_text(b.probability, 1)}" for b, names in sets]
        title, where = "The smallest sets, and how probably they flip their image", found._where[shown]
        blocks.insert(0, Images(images, captions, title, places=found._view.places(where, "report")))
    if found.verified is not None:
        v = found.verified
        rates = {"without the image's set": v.set, "without a random set": v.random, "whole source": v.full}
        value, low, high = ([100 * getattr(r, part) for r in rates.values()] for part in ("rate", "low", "high"))
        note = "95 % over images and trainings."
        blocks.append(Intervals(list(rates), value, low, high, "% of trainings wrong", "Retrained", note))
    return blocks


_METHOD = """Mean margin of models of the plan's kind that keep no group of a set R:

    mean margin + sum over groups of influence x (chance to be kept without R - share of the models that keep it)

An image flips where that falls below zero. The smallest set of up to {most} is found with ridge influences of
one random half of the models and judged with unbiased influences of the other half, whose error makes it a probability
({splits} splits, both ways). Ilyas et al. 2022 ("Datamodels") do so with training examples; Jain et al. 2023, section
4.2, remove the one most harmful class. This holds for models of the plan's size, not for the whole source."""
