"""Failure debugging: images that models of the whole source get wrong, the source group that each owes it to, and what
happens without that group (Jain et al. 2023, section 4.2).

What is selected on what, so that no output that picks an image or a group is counted for it:

    failing images     wrong (the most frequent prediction over the draws) in `share` of `models` trainings on the whole
                       source, whose seeds serve nothing else; with the few-shot draws of the plan
    the blamed group   of an image: the most negative influence on its margin, from the plan's rows alone
    flips              right in fresh trainings without the blamed group: other seeds, other few-shot draws

Two controls are judged on the same images by equally fresh trainings: without a random group of about as many images,
another one for every repeat, and with the whole source. The last one says how many of the images were only unlucky when
they were found: an image chosen for being wrong is right more often the next time.

An image owes its blamed group to its own margins in the plan's rows. The check `unseen` does without: report-half
images are judged without the group that their *fellows* of the score half blame on average, images of the same class
with the same wrong prediction. Of an unseen image nothing was looked at but that it fails, and as what. (Where `most`
leaves groups out, the blames of all images decide which.)

Trainings without a group serve all images that blame it, and the random group of a repeat is the same for all of them,
unless it is the blamed one. With `most` trainings in all, the groups that most images blame come first.

Rates and how they compare carry intervals over images and retrainings; see `pydt.analyses.rates`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.analyses.ensemble_view import EnsembleView
from pydt.analyses.rates import Block, Compared, Rate, compare, rate_of
from pydt.analyses.retraining import Retraining, group_images, other_draws, without
from pydt.base import ConfigError, StoreError, generator, real, seed31
from pydt.data import pictures
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import influences, method_for
from pydt.reporting import PICTURES, Images, Intervals, Page, Table, called
from pydt.store import HALVES, Record, Row, Store

if TYPE_CHECKING:
    from pydt.training import Task


ARMS = ("blamed", "random", "full")
_NEAREST = 8  # groups of about as many images, among which the random one is drawn; more where more are as large


@dataclass(frozen=True)
class Flips:
    """Flip rates of one set of images without the blamed group, without a random one, and with the whole source;
    compared, kept: the first against the second and against the third."""

    blamed: Rate
    random: Rate
    full: Rate
    compared: Compared
    kept: Compared


@dataclass(frozen=True)
class Failure:
    """A failing image.

    Attributes:
        position: in the target's judged data set; half: "score" or "report".
        label, predicted: its class, and what the models say most often.
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


@dataclass(frozen=True, eq=False)
class Failures:
    """Failing images and what became of them.

    Attributes:
        images: all that fail, those of the most blamed group first.
        judged: how many images were looked at.
        flips: of the images whose blamed group was retrained; None if there is no such image.
        unseen: of report-half images, by the group that their score-half fellows blame; None if there are none.
        groups: (name, images that blame it, flips or None where it was not retrained), most images first.
        retrained: models trained (or found in the store) in all; failed: those that gave no outputs.
        share, models: as asked.
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

    def page(self) -> Page:
        """Rates, groups and pictures, for `pydt.reporting.write_pages`."""
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

    How many retrainings there are, and how long they will take, is said before they begin. What is in the store is not
    trained again.

    Args:
        store: where the plan's rows are (or its folder); the new rows go there, too.
        plan: whose rows say which group is to blame.
        task: which of its tasks, or its name; the first by default.
        share: of the models that get a failing image wrong, at least.
        models: trainings on the whole source that find the failing images.
        repeats: fresh trainings without each blamed group, without a random one and on the whole source; as many as
            `models` by default.
        most: trainings in all, those that are stored included; groups that fewer images blame are left out.
        output: of which the blaming influences are: "margin", or another number of `pydt.store.outputs.OUTPUTS`.
        seed: of the trainings and the random groups.
        runner, executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: an argument that makes no sense; `most` does not even suffice for one group.
        StoreError: the plan has too few finished rows.
    """
    view = EnsembleView.of(store, plan, task)
    store, record, task = view.store, view.record, plan.task(task)
    repeats = models if repeats is None else repeats
    share = real(share, "share", "failures", above=0, most=1)
    if models < 1 or repeats < 2:
        raise ConfigError(f"{models} models, {repeats} repeats", "failures", "use at least 1 and 2")
    if most < models + 3 * repeats:
        raise ConfigError(f"most {most}", "failures", f"one group takes {models + 3 * repeats} trainings")

    retraining = Retraining(store, plan, runner, executor, workers, progress)

    def train(rows: list[Row], judge: Task) -> Store:
        retraining.announce(judge, [(plan.recipe, rows)])
        return retraining.run(judge, rows)

    groups = len(record.names)
    whole = without(groups)
    finding = train([Row(whole, seed31("failures, finding", seed, i), "find") for i in range(models)], task)
    lost = len(finding.failed())
    if lost == models:
        raise StoreError(f"all {models} models failed", str(store.folder), "lower the learning rate")
    failing = _failing(finding, task, share)
    fit = _influences(store, record, task, output, failing.columns)
    blamed = fit[0].argmin(0)
    fellows = _fellows(fit[0], failing)
    tally = Counter([*blamed.tolist(), *fellows[fellows >= 0].tolist()])
    random = _random_groups(group_images(plan), tally, repeats, seed)
    pairs: dict[tuple[int, int], None] = {}  # (group, repeat) to be trained without
    chosen: list[int] = []
    for group, _ in sorted(tally.items(), key=lambda item: (-item[1], item[0])):
        more = {(g, i): None for i in range(repeats) for g in (group, int(random[group][i]))}
        if models + repeats + len({**pairs, **more}) > most:
            break
        pairs |= more
        chosen.append(group)
    rows = [Row(whole, seed31("counterfactual", seed, "full", 0, i), "full") for i in range(repeats)]
    rows += [Row(without(groups, [g]), seed31("failures", seed, g, i), "without") for g, i in pairs]
    runs = _Runs({}, {}, [], random)
    if chosen:
        judge = other_draws(task)
        done = train(rows, judge)
        lost += len(done.failed())
        runs = _Runs.of(done, judge, rows, list(pairs), random)
    every = [
        _flips(runs, failing.columns, np.where(np.isin(groups_of, chosen), groups_of, -1))
        for groups_of in (blamed, fellows)
    ]
    counts = Counter(blamed.tolist())
    order = sorted(
        range(len(blamed)), key=lambda j: (-counts[int(blamed[j])], int(blamed[j]), float(fit[0][blamed[j], j]))
    )
    images = [_failure(failing, j, int(blamed[j]), fit, record, task, runs, int(blamed[j]) in chosen) for j in order]
    by_group = [
        (record.names[g], n, _flips(runs, failing.columns, np.where(blamed == g, g, -1)) if g in chosen else None)
        for g, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    shown = pictures(task.target.judged, [image.position for image in images[:PICTURES]], passed=view.passed)
    return Failures(
        tuple(images),
        failing.judged,
        every[0],
        every[1],
        tuple(by_group),
        models + len(rows) if chosen else models,
        lost,
        share,
        models,
        tuple(shown),
        view,
    )


# ---- choosing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Failing:
    """Failing images: their columns among all judged ones, positions, halves (0 score, 1 report), labels, most frequent
    wrong predictions, and shares of models that get them wrong, each (images,); judged: how many were looked at."""

    columns: np.ndarray
    positions: np.ndarray
    half: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    wrong: np.ndarray
    judged: int


def _failing(store: Store, task: Task, share: float) -> _Failing:
    examples = store.task(task)
    said = store.outputs(task, "prediction", "all").astype(np.int64)
    wrong = said != examples["labels"]
    columns = np.flatnonzero((wrong.mean(0) >= share - 1e-9) & wrong.any(0))
    predicted = [np.bincount(said[wrong[:, j], j]).argmax() for j in columns]
    return _Failing(
        columns,
        examples["ids"][columns],
        examples["half"][columns],
        examples["labels"][columns],
        np.array(predicted, np.int64),
        wrong.mean(0)[columns],
        said.shape[1],
    )


def _influences(
    store: Store, record: Record, task: Task, output: str, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, standard errors and q (groups, images) of the influences on the failing images, from the plan's rows."""
    if not len(columns):
        return (np.zeros((len(record.names), 0)),) * 3
    masks = store.design(record).take(store.finished(record))
    outputs = store.outputs(task, output, "all", record)[:, columns]
    fit = influences(masks, outputs, method_for(record, masks))
    return np.asarray(fit.unbiased), np.asarray(fit.stderr), np.asarray(fit.q)


def _fellows(values: np.ndarray, failing: _Failing) -> np.ndarray:
    """The group that the score-half fellows of each report-half image blame on average, -1 where there is none."""
    found = np.full(len(failing.columns), -1)
    for j in np.flatnonzero(failing.half == HALVES["report"]):
        fellows = (failing.half == HALVES["score"]) & (failing.labels == failing.labels[j])
        fellows &= failing.predicted == failing.predicted[j]
        if fellows.any():
            found[j] = values[:, fellows].mean(1).argmin()
    return found


def _random_groups(images: np.ndarray, groups: Iterable[int], repeats: int, seed: int) -> dict[int, np.ndarray]:
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
class _Runs:
    """Fresh trainings: right bool (images,) by what was left out and repeat, numbers of the runs, and the controls."""

    right: dict[int, np.ndarray]
    number: dict[tuple[int, int], int]
    full: list[int]
    random: dict[int, np.ndarray]

    @staticmethod
    def of(
        store: Store, task: Task, rows: Sequence[Row], pairs: Sequence[tuple[int, int]], random: dict[int, np.ndarray]
    ) -> _Runs:
        """`pairs` (group, repeat) belong to the last rows; the first ones keep everything."""
        said = store.outputs(task, "prediction", "all")
        right = said == store.task(task)["labels"]
        finished = store.finished().tolist()
        first = len(rows) - len(pairs)
        number = {pairs[i - first]: i for i in finished if i >= first}
        return _Runs(dict(zip(finished, right, strict=True)), number, [i for i in finished if i < first], random)

    def arm(self, name: str, group: int) -> list[int]:
        """The runs of an arm for images that blame a group."""
        if name == "full":
            return self.full
        keys = [(group if name == "blamed" else int(other), i) for i, other in enumerate(self.random[group])]
        return [self.number[key] for key in keys if key in self.number]

    def blocks(self, arm: str, columns: np.ndarray, groups: np.ndarray) -> list[Block]:
        """(runs, positions of the images, right (runs, images)) for each set of images that the same runs serve."""
        served: dict[tuple[int, ...], list[int]] = {}
        for j, group in enumerate(groups):
            served.setdefault(tuple(self.arm(arm, int(group))), []).append(j)
        return [
            (list(runs), np.array(own), np.array([self.right[i][columns[own]] for i in runs], np.float64))
            for runs, own in served.items()
        ]


def _flips(runs: _Runs, columns: np.ndarray, groups: np.ndarray) -> Flips | None:
    """Rates of the images whose group is not -1 and has two runs in every arm; None if there are none."""
    usable = np.array([g >= 0 and all(len(runs.arm(arm, int(g))) > 1 for arm in ARMS) for g in groups], bool)
    columns, groups = columns[usable], groups[usable]
    if not len(columns):
        return None
    blocks = {arm: runs.blocks(arm, columns, groups) for arm in ARMS}
    rates = [rate_of(own, len(columns)) for own in blocks.values()]
    compared, kept = (compare(blocks["blamed"], blocks[other], len(columns)) for other in ("random", "full"))
    return Flips(rates[0], rates[1], rates[2], compared, kept)


def _failure(
    failing: _Failing,
    j: int,
    group: int,
    fit: tuple[np.ndarray, np.ndarray, np.ndarray],
    record: Record,
    task: Task,
    runs: _Runs,
    retrained: bool,
) -> Failure:
    rates: list[float | None] = [None] * len(ARMS)
    if retrained:
        own = [[runs.right[i][failing.columns[j]] for i in runs.arm(arm, group)] for arm in ARMS]
        rates = [float(np.mean(right)) if right else None for right in own]
    classes = task.target.classes
    return Failure(
        int(failing.positions[j]),
        next(name for name, code in HALVES.items() if code == failing.half[j]),
        classes[failing.labels[j]],
        classes[failing.predicted[j]],
        float(failing.wrong[j]),
        record.names[group],
        *(float(part[group, j]) for part in fit),
        *rates,
    )


# ---- the page ------------------------------------------------------------------------------------------------------

_METHOD = """An image fails where the most frequent prediction over the few-shot draws is wrong in most trainings on the
whole source (Jain et al. 2023, section 4.2). Its blamed group has the most negative influence on its margin, from the
plan's rows alone. It flips where a fresh training without that group, with other seeds and other draws, gets it right;
on the same images, the same is counted without a random group of about as many images, another one for every training,
and with the whole source. Rates carry Wilson's intervals for the variance over images and trainings, with d the image's
rate and e the part of a training in its error,

    variance = var(d) / images + sum over runs of ((sum of e)^2 - sum of e^2) / (images (images - 1))

their ratio Fieller's. Unseen images lie in the report half, and the group left out is the one that score-half images of
the same class with the same wrong prediction blame on average."""
_ARM_WORDS = {
    "blamed": "without the blamed group",
    "random": "without a random group",
    "full": "with the whole source",
}


def _page(found: Failures) -> Page:
    sets = [("failing images", found.flips), ("unseen images", found.unseen)]
    rates = [
        (name, words, getattr(flips, arm))
        for name, flips in sets
        if flips is not None
        for arm, words in _ARM_WORDS.items()
    ]
    measures = ("rate", "low", "high", "images", "runs")
    table = [(name, words, *(getattr(rate, m) for m in measures)) for name, words, rate in rates]
    columns = (
        "group",
        "images that blame it",
        *(f"{words}, %" for words in _ARM_WORDS.values()),
        "difference",
        "95 %: \u00b1",
    )
    lines: list[tuple[Any, ...]] = []
    for name, count, flips in found.groups:
        values: list[float | None] = [None] * 5
        if flips is not None:
            values = [100 * getattr(flips, arm).rate for arm in ARMS]
            reach = 50 * (flips.compared.high - flips.compared.low)
            values += [100 * flips.compared.difference, reach if flips.blamed.images > 2 else None]
        lines.append((name, count, *values))
    blocks: list[Any] = []
    if rates:
        value, low, high = ([100 * float(line[i]) for line in table] for i in (2, 3, 4))
        note = f"{min(line[6] for line in table)} models for each image or more; 95 % over images and models."
        title, unit = "How often fresh models get the images right", "% of fresh models"
        blocks.append(Intervals([f"{name}, {words}" for name, words, _ in rates], value, low, high, unit, title, note))
    blocks.append(Table(columns, lines, "Blamed groups", " ".join(_dashes(found))))
    if found.pictures:
        captions = [
            f"{i.label} as {i.predicted}, by {i.group}"
            + ("" if i.blamed is None or i.random is None else f": {_percent(i.blamed)}, {_percent(i.random)}")
            for i in found.images[: len(found.pictures)]
        ]
        note = (
            f"{len(captions)} of {len(found.images)}: class, usual prediction, blamed group; fresh models that get it "
            "right without that group and without a random one. Those of the most blamed groups first."
        )
        blocks.append(Images(found.pictures, captions, "Failing images", note))
    names = tuple(Failure.__dataclass_fields__)
    csv: dict[str, Any] = {
        "images.csv": (names, [tuple(getattr(image, name) for name in names) for image in found.images]),
        "groups.csv": (
            ("group", "images", *ARMS, "difference", "stderr", "low", "high", "ratio", "ratio_low", "ratio_high"),
            [(name, count, *_numbers(flips)) for name, count, flips in found.groups],
        ),
        "rates.csv": (("images", "arm", *measures), table),
    }
    source, target = called(found._view.record.source_facts["name"], "source"), found._view.target_name
    question = f"Which part of {source} makes models fail on images of {target}, and what if it is left out?"
    answer = found._view.told(_answer(found), found.failed, found.retrained)
    return Page("failures", "Failures", question, answer, blocks, csv, _METHOD)


def _dashes(found: Failures) -> Iterator[str]:
    """What the dashes in the table of groups mean, of those that it has."""
    if any(flips is None for _, _, flips in found.groups):
        yield "A row of dashes: not retrained, since fewer images blame it."
    if any(flips is not None and flips.blamed.images < 3 for _, _, flips in found.groups):
        yield "A dash after a difference: fewer than three images, too few for an interval."


def _numbers(flips: Flips | None) -> list[float | None]:
    """The rates as fractions, and how the first compares with the second."""
    if flips is None:
        return [None] * (len(ARMS) + 7)
    return [*(getattr(flips, arm).rate for arm in ARMS), *vars(flips.compared).values()]


def _answer(found: Failures) -> list[str]:
    count = len(found.images)
    first = f"{count} of {found.judged} images are wrong in most models of the whole source"
    how = f"Wrong: in at least {_percent(found.share)} of {found.models} models."
    if not count:
        return [f"{first}: there is nothing to debug.", how]
    if found.flips is not None:
        first += (
            f"; {_percent(found.flips.blamed.rate)} of fresh models without the group they blame get them right, "
            f"{_percent(found.flips.random.rate)} without a random one, {_percent(found.flips.full.rate)} with nothing "
            "left out"
        )
        if found.flips.compared.low <= 0 or found.flips.kept.low <= 0:
            first += ", so leaving it out is no proven cure"
    sentences = [f"{first}.", how]
    for what, flips in (("", found.flips), (" (unseen)", found.unseen)):
        if flips is None:
            continue
        b, r, f = (_rate_text(rate) for rate in (flips.blamed, flips.random, flips.full))
        c, k = flips.compared, flips.kept
        above = "no bound above" if not np.isfinite(c.ratio_high) else f"{c.ratio_high:.1f}"
        often = "more often than" if c.difference > 0 else "as often as"  # where the ratio is not known
        often = f"{c.ratio:.1f} times as often as" if np.isfinite(c.ratio) else often
        sentences += [
            f"Without the group they blame, {b} of fresh models get {flips.blamed.images} such images{what} right, "
            f"without a random one {r}, with the whole source {f}; {flips.blamed.runs} models each.",
            f"That is {often} without a random one (95 %: {c.ratio_low:.1f} to {above}), "
            f"{100 * c.difference:+.1f} points ({100 * c.low:+.1f} to {100 * c.high:+.1f})"
            + (", which may be nothing." if c.low <= 0 <= c.high else "."),
            f"Against the whole source: {100 * k.difference:+.1f} points ({100 * k.low:+.1f} to {100 * k.high:+.1f})"
            + (", which may be nothing." if k.low <= 0 <= k.high else "."),
        ]
    if left := sum(n for _, n, flips in found.groups if flips is None):
        sentences.append(f"{left} of the images blame groups that were not retrained, to save trainings.")
    sure = sum(image.q < 0.05 for image in found.images)
    sentences.append(
        f"{sure} of {count} blames are significant by themselves (q < 0.05 over the groups of an image); "
        f"{found.retrained} retrainings."
    )
    return sentences


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _rate_text(rate: Rate) -> str:
    return f"{_percent(rate.rate)} ({_percent(rate.low)} to {_percent(rate.high)})"
