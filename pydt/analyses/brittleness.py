"""Brittleness: the smallest set of source groups without which models would get a target image wrong.

Margins add up over groups, approximately: margin = constant + sum over kept groups of b_k + noise. Models of the plan's
kind that keep no group of a set R keep every other group k with the chance p_k(R), so their mean margin is

    mu(R) = mean margin of the models + sum over all groups of b_k (p_k(R) - share of the models that keep k)

    masks of n of the K groups   p_k = n / (K - |R|) outside R: as many groups as before, drawn from the rest
    all other masks              p_k as before outside R

and 0 within R. That is a statement about models like those that were measured, of the plan's size, not about the whole
source without R: no mask shows how a group acts in company it never had. "The majority is right" means here that the
mean margin is above zero (on the embedded sample the two agree on 99.8 % of the images); a set flips an image where
mu(R) < 0. The smallest set is exact: for each size the groups with the largest b_k (times their share, of other masks)
lower mu most, so they are taken one after the other (as Ilyas et al. 2022, "Datamodels", do with training
examples; Jain et al. 2023, section 4.2, take one group).

Sums of the largest of many noisy numbers are too large, so sets are searched with ridge influences, which are shrunk
as far as predicts best, and nothing is believed of them: they are found by a random half of the models and judged by
the other half, both ways over several random splits. There mu(R) and its variance d'Vd + s^2 / m (d: by how much the
chances to be kept change) come from unbiased influences, and the probability of a flip is that of Student's t below
zero. The same is done for random sets of the same sizes. And it is looked up, without any training, what models of the
judging half that happen to lack the whole set do with the image, against those that lack the random one.

`verify` trains anew: the whole source, without an image's set, and without random sets of as many groups and images.

What lost: sets from least squares. On the embedded sample (300 models, 599 images) they call 10 % of the images flipped
by up to 8 groups; 10 % of these flip when judged. Ridge calls 1.5 %; 70 % of these do, against 35 % for random sets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import ERROR_OF_WAYS, Array, EnsembleView
from pydt.analyses.rates import Block as Runs
from pydt.analyses.rates import Compared, Rate, compare, rate_of
from pydt.analyses.retraining import Retraining, group_images, matched, other_draws, without
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError, EstimateError, generator, seed31, whole
from pydt.design import Design
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import Fit, best_method, influences
from pydt.reporting import Block, Curve, Images, Intervals, Page, Table, count, listed, number
from pydt.store import Record, Row, Store

_SPLITS = 10
_SHOWN = 24
_LEAST_LACKING = 5  # models without a set, of which it is told what they do


@dataclass(frozen=True)
class Brittle:
    """An image that is right in the majority, and the smallest set that would flip it.

    Attributes:
        position: in the target's judged data; label: its class; margin: mean over all models.
        groups: the set that all models name, most important first; empty where up to `most` groups do not suffice.
        probability: that the set which one half of the models names flips it, as the other half judges; where it names
            none, that counts as 0. Mean over splits, both ways.
        found: share of the halves that name a set.
    """

    position: int
    label: str
    margin: float
    groups: tuple[str, ...]
    probability: float
    found: float


@dataclass(frozen=True)
class Verified:
    """What retraining did to the most probably brittle images: shares of fresh trainings that get them wrong.

    Attributes:
        images: positions in the target's judged data. set, random, full: without the image's set, without a random one,
            with the whole source; compared: the first against the second. retrained, failed: models. Images with fewer
        than two trainings that gave outputs, without the set or without a random one, are left out.
    """

    images: tuple[int, ...]
    set: Rate
    random: Rate
    full: Rate
    compared: Compared
    retrained: int
    failed: int


@dataclass(frozen=True, eq=False)
class Brittleness:
    """How few groups flip images; see the top of this file.

    Attributes:
        images: those right in the majority, the smallest and most probable sets first; judged: all of the report half.
        models, most, splits: as used; `most` groups in a set at most.
        limits: int64 (most,), 1 .. most. Shares of the right images, float64 (most,), of sets up to each limit:
            claimed by the half that finds them; flipped, flipped_stderr: expected as the other half judges; random,
            random_stderr: by random sets of the same sizes; already: without any removal.
        more: flipped less random of sets up to `most`, and the error of that.
        lacking: rates in models of the judging half that lack the whole set, by "set", "random" (those that lack the
            random set) and "all" (all of that half): (share wrong, its error, models an image); None where sets are so
            large that no image has five such models.
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

    def page(self) -> Page:
        """What a reader sees."""
        names = ("position", "label", "margin", "groups", "probability", "found")
        rows = [(b.position, b.label, b.margin, ", ".join(b.groups), b.probability, b.found) for b in self.images]
        heads = ("groups at most", "claimed", "judged", "stderr", "random sets", "stderr of random", "without removal")
        parts = (self.claimed, self.flipped, self.flipped_stderr, self.random, self.random_stderr, self.already)
        shares = [(int(k), *(float(part[i]) for part in parts)) for i, k in enumerate(self.limits)]
        blocks = _blocks(self, heads, shares)
        v = self.verified
        failed, total = (0, 0) if v is None else (v.failed, v.retrained)
        return Page(
            name="brittleness",
            title="Brittleness",
            question=f"How few groups decide whether an image of {self._view.target_name} is read right, and which?",
            answer=self._view.told(_answer(self), failed, total),
            blocks=blocks,
            csv={"images.csv": (names, rows), "shares.csv": (heads, shares)},
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
        plan: a plan of the store, or its digest; by default the store's own. A Plan where `verify` retrains.
        task: which of the plan's tasks; the first by default.
        most: groups in a set at most; by default a quarter of them.
        verify: how many images to retrain for, those whose sets flip them most probably: `repeats` trainings without
            each set, as many without random ones, and as many on the whole source. 0 trains nothing.
        seed: of the random halves, sets and trainings.
        runner, executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: more groups than can be removed, `verify` without a Plan, or fewer than two repeats.
        EstimateError: a stratified design; half of the models do not tell the groups apart.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    view = EnsembleView.of(store, plan, task)
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
        _way(masks, margin, finding, judging, most, generator("brittleness", seed, split, way))
        for split, pair in enumerate(halves(masks, _SPLITS, "brittleness", seed))
        for way, (finding, judging) in enumerate((pair, pair[::-1]))
    ]
    order, size = _sets(masks, margin, most)
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
    shares = np.array(
        [[way.shares(part, most) for way in ways] for part in ("claimed", "flipped", "random", "already")]
    )
    errors = ERROR_OF_WAYS * shares.std(1, ddof=1)
    verified = None
    if verify:
        assert isinstance(plan, Plan)
        chosen = sorted((x for x in right if size[x]), key=lambda x: -probability[x])[:verify]
        retraining = Retraining(view.store, plan, runner, executor, workers, progress)
        sets = _members(order, size, masks.groups)
        verified = _verify(view, retraining, np.array(chosen, np.int64), sets, repeats, seed) if chosen else None
    return Brittleness(
        images=images,
        judged=len(mean),
        models=len(masks),
        most=most,
        splits=_SPLITS,
        limits=np.arange(1, most + 1),
        claimed=shares[0].mean(0),
        flipped=shares[1].mean(0),
        flipped_stderr=errors[1],
        random=shares[2].mean(0),
        random_stderr=errors[2],
        already=shares[3].mean(0),
        more=_mean_of_ways(shares[1][:, -1] - shares[2][:, -1]),
        lacking=_lacking(ways),
        verified=verified,
        _view=view,
        _where=sorted_,
    )


@dataclass(frozen=True, eq=False)
class _Way:
    """One half finds sets, the other judges them.

    Attributes:
        size: int64 (images,), groups of the set that flips an image, 0 for none; right: how many images are right in
            the finding half.
        flipped, random, already: float64 (images,), probability of a wrong majority without the set, without a random
            one of that size, without removal.
        seen: "set", "random", "all" -> (share wrong, number) of the judging models that lack the set (the random one;
            or nothing), (images,) each.
    """

    size: npt.NDArray[np.int64]
    right: int
    flipped: Array
    random: Array
    already: Array
    seen: dict[str, tuple[Array, npt.NDArray[np.int64]]]

    def shares(self, part: str, most: int) -> list[float]:
        """Share of the right images that flip by sets up to each size."""
        value = np.ones(len(self.size)) if part == "claimed" else getattr(self, part)
        named = (self.size > 0) & (self.size <= np.arange(1, most + 1)[:, None])
        return list((named * value).sum(1) / max(self.right, 1))


def _way(
    masks: Design,
    margin: npt.NDArray[np.float32],
    finding: npt.NDArray[np.intp],
    judging: npt.NDArray[np.intp],
    most: int,
    random: np.random.Generator,
) -> _Way:
    order, size = _sets(masks.take(finding), margin[finding], most)
    sets = _members(order, size, masks.groups)
    drawn = np.argsort(random.random(sets.shape), axis=0).argsort(axis=0) < size
    half = masks.take(judging)
    # One variance for all models: each image weighs the groups in a way of its own (see `_wrong`).
    fit = influences(half, margin[judging], best_method(half), errors="classical")
    kept, wrong = np.asarray(half), margin[judging] < 0
    mean = margin[judging].mean(0, dtype=np.float64)
    flipped, by_chance, already = (_wrong(fit, kept, mean, removed) for removed in (sets, drawn, sets & False))
    seen = {"all": (wrong.mean(0), np.full(len(size), len(judging)))}
    for name, removed in (("set", sets), ("random", drawn)):
        lacks = kept.astype(np.float32) @ removed.astype(np.float32) == 0
        seen[name] = ((lacks & wrong).sum(0) / np.maximum(lacks.sum(0), 1), lacks.sum(0))
    return _Way(size, int((margin[finding].mean(0) > 0).sum()), flipped, by_chance, already, seen)


def _sets(
    masks: Design, margin: npt.NDArray[np.float32], most: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """The groups whose removal lowers each image's mean margin most, (most, images), and how many flip it (0: not so
    many, or wrong already).
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


def _members(order: npt.NDArray[np.intp], size: npt.NDArray[np.int64], groups: int) -> npt.NDArray[np.bool_]:
    """The first `size` groups of each column as a mask, bool (groups, images)."""
    found = np.zeros((groups, order.shape[1]), bool)
    np.put_along_axis(found, order, np.arange(len(order))[:, None] < size, 0)
    return found


def _wrong(
    fit: Fit, kept: npt.NDArray[np.bool_], mean: Array, removed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
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


def _lacking(ways: Sequence[_Way]) -> dict[str, tuple[float, float, float]] | None:
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
    return {
        name: (float(p[:, 0].mean()), float(ERROR_OF_WAYS * p[:, 0].std(ddof=1)), float(p[:, 1].mean()))
        for name, p in parts.items()
    }


def _verify(
    view: EnsembleView,
    retraining: Retraining,
    chosen: npt.NDArray[np.int64],
    sets: npt.NDArray[np.bool_],
    repeats: int,
    seed: int,
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
    retraining.announce(task, [(plan.recipe, rows)])
    done = retraining.run(task, rows)
    finished = done.finished().tolist()
    ran = {arm: [i for i in finished if of[i] == arm] for arm in dict.fromkeys(of)}
    left = [at for at in range(len(chosen)) if min(len(ran["set", at]), len(ran["random", at])) > 1]
    if len(ran["full", -1]) < 2 or not left:
        return None
    chosen = chosen[left]
    wrong = dict(zip(finished, done.outputs(task, "margin", "report")[:, chosen] < 0, strict=True))

    def block(kind: str, at: int, served: npt.NDArray[np.intp]) -> Runs:
        return ran[kind, at], served, np.array([wrong[i][served] for i in ran[kind, at]], np.float64)

    arms = {kind: [block(kind, at, np.array([place])) for place, at in enumerate(left)] for kind in ("set", "random")}
    arms["full"] = [block("full", -1, np.arange(len(left)))]
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
    return float(values.mean()), float(ERROR_OF_WAYS * values.std(ddof=1))


def _percent(share: float, error: float | None = None) -> str:
    text = number(100 * share, 1)
    return f"{text} %" if error is None else f"{text} \u00b1 {number(100 * error, 1)} %"


def _answer(found: Brittleness) -> list[str]:
    right, models = len(found.images), count(found.models, "model")
    named = [b for b in found.images if b.groups]
    first = (
        f"Of {right:,} images that {models} mostly read right, {_percent(found.flipped[-1], found.flipped_stderr[-1])} "
        f"are expected to flip without up to {count(found.most, 'group')} of their own, and "
        f"{_percent(found.random[-1], found.random_stderr[-1])} without as many random ones (difference "
        f"{_percent(*found.more)}{'' if found.more[0] > 2 * found.more[1] else ', not surely above zero'})."
    )
    sentences = [
        first,
        f"The half of the models that finds the sets claims {_percent(found.claimed[-1])}; expected is what the "
        f"other half says of the same sets, and of random ones of the same sizes. Without any removal it finds "
        f"{_percent(found.already[-1])} of these images as good as wrong already ({found.splits} random splits, both "
        "ways).",
    ]
    if found.lacking is not None:
        own, random, everyone = (found.lacking[name] for name in ("set", "random", "all"))
        sentences.append(
            f"Models of the judging half that happen to lack a whole set are wrong on its image in "
            f"{_percent(own[0], own[1])} of cases, those that lack the random set in {_percent(random[0], random[1])}, "
            f"all in {_percent(everyone[0], everyone[1])} ({number(own[2], 0)}, {number(random[2], 0)} and "
            f"{number(everyone[2], 0)} models an image on average; no training needed)."
        )
    best = max(named, key=lambda b: b.probability, default=None)
    if best is not None:
        sentences.append(
            f"All models name a set for {count(len(named), 'image')}; most probably it flips one of class {best.label} "
            f"(image {best.position}) without {listed(best.groups)}: {_percent(best.probability)}, counting halves "
            "that name no set as 0."
        )
    if found.verified is not None:
        v = found.verified
        rates = [f"{_percent(r.rate)} ({_percent(r.low)} to {_percent(r.high)})" for r in (v.set, v.random, v.full)]
        sentences.append(
            f"Retrained on the whole source ({count(v.retrained, 'training')}, {v.set.runs} for each of "
            f"{count(len(v.images), 'image')}): wrong without the set in {rates[0]}, without a random set in "
            f"{rates[1]}, with everything in {rates[2]}; set against random "
            f"{number(100 * v.compared.difference, 1, True)} points "
            f"(95 % {number(100 * v.compared.low, 1, True)} to {number(100 * v.compared.high, 1, True)})."
        )
    return sentences


def _blocks(found: Brittleness, heads: Sequence[str], shares: list[tuple[Any, ...]]) -> list[Block]:
    k = found.limits
    series = {}
    for line, share, error in (
        ("expected by other models", found.flipped, found.flipped_stderr),
        ("claimed by those that found the sets", found.claimed, None),
        ("random sets", found.random, found.random_stderr),
        ("without removal", found.already, None),
    ):
        reach = 0 if error is None else 196 * error
        bounds = (None, None) if error is None else (np.maximum(100 * share - reach, 0), 100 * share + reach)
        series[line] = (k, 100 * share, *bounds)
    blocks: list[Block] = [
        Curve(series, "groups removed at most", "% of the images that are right", "Images that flip"),
        Table(
            heads,
            shares,
            "In numbers",
            "Shares of the images that are right in the finding half.",
            dict.fromkeys(heads[1:], 4),
        ),
    ]
    shown = [i for i, b in enumerate(found.images) if b.groups][:_SHOWN]
    images = found._view.pictures(found._where[shown], "report")
    if images:
        captions = [
            f"{b.label} without {', '.join(b.groups)}: {_percent(b.probability)}"
            for b in (found.images[i] for i in shown)
        ]
        blocks.insert(0, Images(images, captions, "The smallest sets, and how probably they flip their image"))
    if found.verified is not None:
        v = found.verified
        names = ("without the image's set", "without a random set", "whole source")
        value, low, high = (
            [100 * getattr(r, part) for r in (v.set, v.random, v.full)] for part in ("rate", "low", "high")
        )
        blocks.append(
            Intervals(names, value, low, high, "% of trainings wrong", "Retrained", "95 % over images and trainings.")
        )
    return blocks


_METHOD = """Mean margin of models of the plan's kind that keep no group of a set R:

    mean margin + sum over groups of influence x (chance to be kept without R - share of the models that keep it)

An image flips where that falls below zero. The smallest set of up to {most} is found with ridge influences of
one random half of the models and judged with unbiased influences of the other half, whose error makes it a probability
({splits} splits, both ways). Ilyas et al. 2022 ("Datamodels") ask so for training examples; Jain et al. 2023, section
4.2, remove the one most harmful class. It is said of models of the plan's size, not of the whole source."""
