"""Failure debugging: images that models of the whole source get wrong, the source group that each owes it to, and what
happens without that group (Jain et al. 2023, section 4.2).

    failing images     wrong in `share` of `models` trainings on the whole source, whose seeds serve nothing else
    the blamed group   of an image: the most negative influence on its margin, from the plan's rows alone
    flips              right in fresh trainings without the blamed group: other seeds, other few-shot draws

Controls on the same images: without a random group of about as many images, and with the whole source. Trainings
without a group serve all images that blame it. What is selected on what, and the errors: docs/analyses.md, "How
retraining is judged". More than 500 lines: the analysis and its page, which stand together as in the other analyses.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pydt.analyses.ensemble_view import EnsembleView
from pydt.analyses.rates import Compared, Rate, blocks_of, compare, rate_of
from pydt.analyses.retraining import Retraining, group_images, other_draws, without
from pydt.base import ConfigError, Result, Short, StoreError, generator, real, records, seed31, whole
from pydt.data import pictures, places
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import influences, method_for
from pydt.reporting import (
    PICTURES,
    Column,
    Images,
    Intervals,
    Page,
    Table,
    called,
    count,
    csv_of,
    interval_plot,
    percent_range,
    percent_text,
    points,
)
from pydt.store import HALVES, Row, Store

if TYPE_CHECKING:
    from pydt.training import Task


ARMS = {
    "blamed": "without the blamed group",
    "random": "without a random group",
    "full": "with the whole source",
}
_NEAREST = 8  # groups of about as many images, among which the random one is drawn; more where more are as large


@dataclass(frozen=True, repr=False)
class Flips(Short):
    """How often fresh models get some failing images right.

    Attributes:
        blamed, random, full: without the blamed group, without a random one, with the whole source.
        compared, kept: the first against the second, and against the third.
    """

    blamed: Rate
    random: Rate
    full: Rate
    compared: Compared
    kept: Compared


@dataclass(frozen=True, repr=False)
class Failure(Short):
    """A failing image.

    Attributes:
        position: in the target's judged data set; half: "score" or "report".
        label, predicted: its class, and the models' most frequent wrong prediction.
        wrong: share of the models on the whole source that get it wrong.
        group: the blamed one; influence, stderr, q: of that group on the image's margin.
        blamed, random, full: share of fresh trainings that get it right; None where its group was not retrained.
    """

    position: int
    half: str
    label: str
    predicted: str
    wrong: float
    group: str
    influence: float
    stderr: float
    q: float
    blamed: float | None = None
    random: float | None = None
    full: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Failures(Result):
    """Failing images and what became of them.

    Attributes:
        images: all that fail, those of the most blamed group first.
        judged: how many images were looked at.
        flips: of the images whose blamed group was retrained; None if there is no such image.
        unseen: of report-half images, by the group that their score-half fellows blame; None if there are none.
        groups: (name, images that blame it, flips or None where it was not retrained), most images first.
        retrained: rows that were trained for it, or found in the store. failed: those that gave no outputs.
        share, models: as given.
        pictures: uint8 (H, W, C) of the first of `images`.
    """

    images: tuple[Failure, ...]
    judged: int
    flips: Flips | None
    unseen: Flips | None
    groups: tuple[tuple[str, int, Flips | None], ...]
    retrained: int
    failed: int
    share: float
    models: int
    pictures: tuple[np.ndarray, ...]
    _view: EnsembleView = field(repr=False)

    def _columns(self) -> dict[str, Any]:
        return records(Failure, self.images)

    def __repr__(self) -> str:
        line = f"{len(self.images):,} of {count(self.judged, 'image')} fail, {len(self.groups):,} groups are blamed"
        told = ""
        if self.flips is not None:
            rates = [f"{getattr(self.flips, arm).rate:.0%} {words}" for arm, words in ARMS.items()]
            told = f"; fresh models get right: {', '.join(rates)}"
        return f"Failures({line}; {self.retrained:,} rows retrained, {self.failed:,} failed{told})"

    def plot(self, ax: Any = None) -> Any:
        """Draw how often fresh models get failing and unseen images right in each arm, with 95 % intervals; nothing
        where nothing was retrained.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        sets = {"failing": self.flips, "unseen": self.unseen}
        rates = {
            f"{name}, {words}": getattr(flips, arm)
            for name, flips in sets.items()
            if flips is not None
            for arm, words in ARMS.items()
        }
        value, low, high = (
            np.array([100 * getattr(one, end) for one in rates.values()]) for end in ("rate", "low", "high")
        )
        return interval_plot(list(rates), value, [value - low, high - value], "% right, 95 % intervals", ax=ax)

    def page(self) -> Page:
        """The page of this analysis."""
        return _page(self)


def failures(
    store: Store | str | os.PathLike[str],
    plan: Plan,
    *,
    task: Task | str | None = None,
    share: float = 0.6,
    models: int = 10,
    repeats: int | None = None,
    most: int = 150,
    output: str = "margin",
    seed: int = 0,
    runner: Runner = run_row,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool | str = True,
) -> Failures:
    """Find images that models of the whole source get wrong, blame a source group, and retrain without it.

    The number of retrainings, and how long they will take, is printed before they begin. Stored rows are not trained
    again.

    Args:
        store: where the plan's rows are, or its folder; the new rows go there, too.
        plan: whose rows tell which group is to blame.
        task: which of its tasks, or its name; the first by default.
        share: of the models that get a failing image wrong, at least.
        models: trainings on the whole source that find the failing images.
        repeats: fresh trainings without each blamed group, without a random one and on the whole source; as many as
            `models` by default.
        most: trainings in all, those that are stored included; groups that fewer images blame are left out.
        output: whose influences tell which group is to blame (see `pydt.store.derive`).
        seed: of the trainings and the random groups.
        runner, executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: an argument out of range; `most` does not suffice for one group; a measure, which has no
            predictions.
        StoreError: the plan has too few finished rows.
    """
    whole(seed, "seed", "failures", error=ConfigError)
    view = EnsembleView.of(store, plan, task, needs=("logits",))
    store, record, task = view.store, view.record, plan.task(task)
    groups, repeats = len(record.names), models if repeats is None else repeats
    share = real(share, "share", "failures", above=0, most=1)
    if models < 1 or repeats < 2:
        raise ConfigError(f"{models} models, {repeats} repeats", "failures", "use at least 1 and 2")
    if most < models + 3 * repeats:
        raise ConfigError(f"most {most}", "failures", f"one group takes {models + 3 * repeats} trainings")

    retraining = Retraining(store, plan, runner, executor, workers, progress)

    def train(rows: list[Row], judge: Task) -> Store:
        retraining.announce((judge,), [(plan.recipe, rows)])
        return retraining.run((judge,), rows)

    finding = train([Row(without(groups), seed31("failures, finding", seed, i), "find") for i in range(models)], task)
    lost = len(finding.failed())
    if lost == models:
        raise StoreError(f"all {models} models failed", str(store.folder), "lower the learning rate")
    failing = _failing(finding, task, share)
    fit = _influences(view, output, failing.columns)
    blamed = fit[0].argmin(0)
    fellows = blamed_by_fellows(fit[0], failing)
    tally = Counter([*blamed.tolist(), *fellows[fellows >= 0].tolist()])
    random = random_groups(group_images(plan), tally, repeats, seed)
    pairs: dict[tuple[int, int], None] = {}  # (group, repeat) to be trained without
    chosen: list[int] = []
    for group, _ in sorted(tally.items(), key=lambda item: (-item[1], item[0])):
        more = {(g, i): None for i in range(repeats) for g in (group, int(random[group][i]))}
        if models + repeats + len({**pairs, **more}) > most:
            break
        pairs |= more
        chosen.append(group)
    rows = [Row(without(groups), seed31("counterfactual", seed, "full", 0, i), "full") for i in range(repeats)]
    rows += [Row(without(groups, [g]), seed31("failures", seed, g, i), "without") for g, i in pairs]
    fresh = _Fresh({}, {})
    if chosen:
        judge = other_draws(task)
        done = train(rows, judge)
        lost += len(done.failed())
        fresh = _Fresh.of(done, judge, repeats, list(pairs), {group: random[group] for group in chosen})
    counts = Counter(blamed.tolist())
    order = sorted(
        range(len(blamed)), key=lambda j: (-counts[int(blamed[j])], int(blamed[j]), float(fit[0][blamed[j], j]))
    )
    classes, halves = task.target.classes, {code: name for name, code in HALVES.items()}
    images = [
        Failure(
            int(failing.positions[j]),
            halves[failing.half[j]],
            classes[failing.labels[j]],
            classes[failing.predicted[j]],
            float(failing.wrong[j]),
            record.names[blamed[j]],
            *(float(part[blamed[j], j]) for part in fit),
            *fresh.rates(failing.columns[j], int(blamed[j])),
        )
        for j in order
    ]
    by_group = [
        (record.names[g], n, fresh.flips(failing.columns, np.where(blamed == g, g, -1)))
        for g, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    shown = pictures(task.target.judged, [image.position for image in images[:PICTURES]], passed=view.passed)
    return Failures(
        images=tuple(images),
        judged=failing.judged,
        flips=fresh.flips(failing.columns, blamed),
        unseen=fresh.flips(failing.columns, fellows),
        groups=tuple(by_group),
        retrained=models + len(rows) if chosen else models,
        failed=lost,
        share=share,
        models=models,
        pictures=tuple(shown),
        _view=view,
    )


# ---- choosing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Failing:
    """Images that most models of the whole source get wrong.

    Attributes:
        columns: among all judged images. positions: in the judged data set. half: 0 score, 1 report. All (images,).
        predicted: the most frequent wrong prediction. wrong: the share of models that get the image wrong.
        judged: how many images were looked at.
    """

    columns: np.ndarray
    positions: np.ndarray
    half: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    wrong: np.ndarray
    judged: int


def _failing(store: Store, task: Task, share: float) -> Failing:
    examples = store.task(task)
    said = store.outputs(task, "prediction", "all").astype(np.int64)
    wrong = said != examples["labels"]
    columns = np.flatnonzero((wrong.mean(0) >= share - 1e-9) & wrong.any(0))
    predicted = [np.bincount(said[wrong[:, j], j]).argmax() for j in columns]
    return Failing(
        columns,
        examples["ids"][columns],
        examples["half"][columns],
        examples["labels"][columns],
        np.array(predicted, np.int64),
        wrong.mean(0)[columns],
        said.shape[1],
    )


def _influences(view: EnsembleView, output: str, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, standard errors and q (groups, images) of the influences on some judged images."""
    if not len(columns):
        return (np.zeros((len(view.record.names), 0)),) * 3
    outputs = view.store.outputs(view.task, output, "all", view.record)[:, columns]
    fit = influences(view.masks, outputs, method_for(view.record, view.masks))
    return np.asarray(fit.unbiased), np.asarray(fit.stderr), np.asarray(fit.q)


def blamed_by_fellows(values: np.ndarray, failing: Failing) -> np.ndarray:
    """The group that the score-half fellows of each report-half image blame on average, -1 where there is none."""
    found = np.full(len(failing.columns), -1)
    for j in np.flatnonzero(failing.half == HALVES["report"]):
        fellows = (failing.half == HALVES["score"]) & (failing.labels == failing.labels[j])
        fellows &= failing.predicted == failing.predicted[j]
        if fellows.any():
            found[j] = values[:, fellows].mean(1).argmin()
    return found


def random_groups(images: np.ndarray, groups: Iterable[int], repeats: int, seed: int) -> dict[int, np.ndarray]:
    """For each of some groups another one of about as many images for every repeat, int64 (repeats,).

    In each repeat one random order of all groups serves them all: the first one that matches is taken.
    """
    orders = [generator("failures, random group", seed, i).permutation(len(images)) for i in range(repeats)]
    found = {}
    for group in groups:
        distance = np.abs(images - images[group]).astype(np.float64)
        distance[group] = np.inf
        fits = distance <= np.sort(distance)[min(_NEAREST, len(images) - 1) - 1]
        found[group] = np.array([order[fits[order].argmax()] for order in orders])
    return found


# ---- judging -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Fresh:
    """Fresh rows that gave outputs.

    Attributes:
        right: number of a row -> bool (judged images,).
        served: (arm, group) -> numbers of the rows of that arm for images that blame the group.
    """

    right: dict[int, np.ndarray]
    served: dict[tuple[str, int], list[int]]

    @staticmethod
    def of(store: Store, task: Task, full: int, pairs: Sequence[tuple[int, int]], random: Mapping[int, Any]) -> _Fresh:
        """The first `full` rows keep everything, the others lack the group of a (group, repeat) of `pairs`."""
        right = store.outputs(task, "prediction", "all") == store.task(task)["labels"]
        finished = store.finished().tolist()
        number = {pairs[i - full]: i for i in finished if i >= full}
        served = {}
        for group, others in random.items():
            served["blamed", group] = [number[group, i] for i in range(len(others)) if (group, i) in number]
            served["random", group] = [number[int(o), i] for i, o in enumerate(others) if (int(o), i) in number]
            served["full", group] = [i for i in finished if i < full]
        return _Fresh(dict(zip(finished, right, strict=True)), served)

    def rates(self, column: int, group: int) -> list[float | None]:
        """The share of each arm's rows that get an image right; None of an empty arm."""
        right = [[self.right[i][column] for i in self.served.get((arm, group), ())] for arm in ARMS]
        return [float(np.mean(own)) if own else None for own in right]

    def flips(self, columns: np.ndarray, groups: np.ndarray) -> Flips | None:
        """Rates of the images whose groups have two rows in every arm; None if there are none."""
        usable = np.array([all(len(self.served.get((arm, int(g)), ())) > 1 for arm in ARMS) for g in groups], bool)
        columns, groups = columns[usable], groups[usable]
        if not len(columns):
            return None
        right = {i: own[columns] for i, own in self.right.items()}
        blocks = {arm: blocks_of([self.served[arm, int(g)] for g in groups], right) for arm in ARMS}
        rates = {arm: rate_of(own, len(columns)) for arm, own in blocks.items()}
        compared, kept = (compare(blocks["blamed"], blocks[other], len(columns)) for other in ("random", "full"))
        return Flips(**rates, compared=compared, kept=kept)


# ---- the page ------------------------------------------------------------------------------------------------------

_METHOD = """An image fails where the most frequent prediction over the few-shot draws is wrong in most trainings on the
whole source (Jain et al. 2023, section 4.2). Its blamed group has the most negative influence on its margin, by the
plan's rows alone. It flips where a fresh training without that group, with other seeds and draws, gets it right. Rates
carry Wilson's intervals over images and trainings, with d an image's rate and e the part of a training in its error:

    variance = var(d) / images + sum over trainings of ((sum of e)^2 - sum of e^2) / (images (images - 1))

Unseen images lie in the report half; left out is the group that score-half images of the same class with the same wrong
prediction blame on average."""


class _Line(NamedTuple):
    """A rate, of which images, and in which arm."""

    images: str
    arm: str
    rate: Rate


def _page(found: Failures) -> Page:
    sets = {"failing images": found.flips, "unseen images": found.unseen}
    rates = [
        _Line(name, words, getattr(flips, arm)) for name, flips in sets.items() if flips for arm, words in ARMS.items()
    ]
    blocks: list[Any] = []
    if rates:
        value, low, high = ([100 * getattr(one.rate, part) for one in rates] for part in ("rate", "low", "high"))
        note = f"{min(one.rate.runs for one in rates)} models for each image or more; 95 % over images and models."
        title, unit = "How often fresh models get the images right", "% of fresh models"
        blocks.append(Intervals([f"{one.images}, {one.arm}" for one in rates], value, low, high, unit, title, note))
    dashes = []
    if any(flips is None for _, _, flips in found.groups):
        dashes.append("A row of dashes: not retrained, since fewer images blame it.")
    if any(flips is not None and flips.blamed.images < 3 for _, _, flips in found.groups):
        dashes.append("A dash after a difference: fewer than three images, too few for an interval.")
    blocks.append(Table.of(found.groups, _group_columns(), "Blamed groups", " ".join(dashes)))
    if found.pictures:
        captions = [
            f"{i.label} as {i.predicted}, by {i.group}"
            + ("" if i.blamed is None or i.random is None else f": {percent_text(i.blamed)}, {percent_text(i.random)}")
            for i in found.images[: len(found.pictures)]
        ]
        note = (
            f"{len(captions)} of {len(found.images)}: class, usual prediction, blamed group; fresh models that get it "
            "right without that group and without a random one. Those of the most blamed groups first."
        )
        where = places(found._view.target.judged, [i.position for i in found.images[: len(found.pictures)]])
        blocks.append(Images(found.pictures, captions, "Failing images", note, places=where))
    measures = [Column(part, attrgetter(f"rate.{part}")) for part in Rate.__dataclass_fields__]
    images = [Column(name) for name in Failure.__dataclass_fields__]
    csv = {
        "images.csv": csv_of(found.images, images),
        "groups.csv": csv_of(found.groups, _group_columns()),
        "rates.csv": csv_of(rates, [Column("images"), Column("arm"), *measures]),
    }
    source, target = called(found._view.record.source_facts["name"], "source"), found._view.target_name
    question = f"Which part of {source} makes models fail on images of {target}, and what if it is left out?"
    answer = found._view.told(_answer(found), found.failed, found.retrained)
    return Page("failures", "Failures", question, answer, blocks, csv, _METHOD)


def _group_columns() -> list[Column]:
    """Of the (name, images, Flips or None) of each blamed group: percent in the table, fractions in the CSV file."""

    def rate(arm: str) -> Callable[[Any], float | None]:
        return lambda one: one[2] and getattr(one[2], arm).rate

    def compared(part: str) -> Callable[[Any], float | None]:
        return lambda one: one[2] and getattr(one[2].compared, part)

    def reach(one: Any) -> float | None:
        return 50 * (one[2].compared.high - one[2].compared.low) if one[2] and one[2].blamed.images > 2 else None

    return [
        Column("group", itemgetter(0)),
        Column("images that blame it", itemgetter(1), only="table"),
        Column("images", itemgetter(1), only="csv"),
        *(Column(f"{words}, %", rate(arm), only="table", scale=100) for arm, words in ARMS.items()),
        *(Column(arm, rate(arm), only="csv") for arm in ARMS),
        Column("difference", compared("difference"), scale=100),
        Column("95 %: \u00b1", reach, only="table"),
        *(Column(part, compared(part), only="csv") for part in list(Compared.__dataclass_fields__)[1:]),
    ]


def _answer(found: Failures) -> list[str]:
    count = len(found.images)
    first = f"{count} of {found.judged} images are wrong in most models of the whole source"
    how = f"Wrong: in at least {percent_text(found.share)} of {found.models} models."
    if not count:
        return [f"{first}: there is nothing to debug.", how]
    if found.flips is not None:
        blamed, random, full = (percent_text(getattr(found.flips, arm).rate) for arm in ARMS)
        first += (
            f"; {blamed} of fresh models without the group they blame get them right, {random} without a random one, "
            f"{full} with nothing left out"
        )
        if found.flips.compared.low <= 0 or found.flips.kept.low <= 0:
            first += ", so leaving it out is no proven cure"
    sentences = [f"{first}.", how]
    for what, flips in (("", found.flips), (" (unseen)", found.unseen)):
        if flips is None:
            continue
        b, r, f = (percent_range(one.rate, one.low, one.high) for one in (flips.blamed, flips.random, flips.full))
        c, k = flips.compared, flips.kept
        above = "no bound above" if not np.isfinite(c.ratio_high) else f"{c.ratio_high:.1f}"
        often = "more often than" if c.difference > 0 else "as often as"  # where the ratio is not known
        often = f"{c.ratio:.1f} times as often as" if np.isfinite(c.ratio) else often
        against_random, against_full = (
            points(one.difference, one.low, one.high) + (", which may be nothing." if one.low <= 0 <= one.high else ".")
            for one in (c, k)
        )
        sentences += [
            f"Without the group they blame, {b} of fresh models get {flips.blamed.images} such images{what} right, "
            f"without a random one {r}, with the whole source {f}; {flips.blamed.runs} models each.",
            f"That is {often} without a random one (95 %: {c.ratio_low:.1f} to {above}), {against_random}",
            f"Against the whole source: {against_full}",
        ]
    if left := sum(n for _, n, flips in found.groups if flips is None):
        sentences.append(f"{left} of the images blame groups that were not retrained, to save trainings.")
    sure = sum(image.q < 0.05 for image in found.images)
    sentences.append(
        f"{sure} of {count} blames are significant by themselves (q < 0.05 over the groups of an image); "
        f"{found.retrained} retrainings."
    )
    return sentences
