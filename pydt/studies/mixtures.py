"""What each source brings in mixtures, by shots, beside what the study found of it alone.

    in mixtures  influence of a source on the accuracy of rows on mixtures (what adding its images brings), less the
                 mean influence of all sources
    alone        accuracy of the study's arm of the source (same method, same size), less the mean of all sources

Both are of the report half, and both are means over trainings, few-shot draws and images with the errors of the study:
rows of the ensemble stand for seeds (`pydt.estimation.RowSeeds`). Being less their means, they say which source, not
how much pre-training brings; "added" is the influence itself. The score half says which source is first; p is adjusted
by Holm's method over the sources at one target, mode and number of shots, as the study's are.

A change with shots is the difference between the last and the first number of shots on a straight line through all of
them, evenly spaced; its error is that of one line for each training, draw and image.

Over 500 lines, since the result and its page stand together.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import ConfigError, Short, StoreError, html_table, to_frame
from pydt.ensemble import Plan
from pydt.estimation import RowSeeds, crossed, crossed_apart, holm, rank_agreement, spread
from pydt.reporting import (
    Block,
    Column,
    Multiples,
    Page,
    Table,
    count,
    csv_of,
    curve_plot,
    digits_for,
    number,
    p_text,
    quoted,
)
from pydt.store import HALVES, Record, Store, per_draw
from pydt.studies.grid import Place, Values, shots_text, stacked
from pydt.studies.mixture_plan import arms_of, mixture_plan
from pydt.studies.study import FULL, Study
from pydt.studies.values import AUROC, Cell, halves_of

LEVEL = 0.05
MIXTURES, ALONE, DIFFERENCE, ADDED = "mixtures", "alone", "difference", "added"
CHANGE = "change"
"""In the place of shots: the change from the fewest to the most."""
_ENOUGH = 16  # seeds for the agreement of orders, which needs variances and no degrees of freedom


@dataclass(frozen=True)
class SourceEffect:
    """One number about one source at one target and mode.

    Attributes:
        shots: number of shots, "full", or "change".
        answer: "mixtures", "alone", or "difference": the first less the second; "added": what adding the source brings
            in mixtures, not less the mean of all.
        value, stderr, df, low, high, p: as in `pydt.estimation.Crossed`, in fractions; 95 % each by itself.
        p_holm: over the sources, of this answer at this place.
    """

    target: str
    mode: str
    shots: int | str
    source: str
    answer: str
    value: float
    stderr: float
    df: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")

    @property
    def sure(self) -> bool:
        """Whether it is told from 0."""
        return self.p_holm < LEVEL


@dataclass(frozen=True, repr=False)
class AllSources(Short):
    """What mixtures and the study say of all sources together at one place.

    Attributes:
        first, alone: the sources that are first on the score half, in mixtures and alone.
        spread, spread_alone: standard deviation of what the sources bring, noise taken off (`pydt.estimation.spread`).
        reached: the accuracy of rows with 1, 2, ... sources, NaN where there are none.
        average, low, high: what adding a source brings on average in mixtures, 95 %.
        kendall, expected, p, detectable: how alike the two order the sources, see `pydt.estimation.RankAgreement`.
    """

    target: str
    mode: str
    shots: int | str
    first: str
    alone: str
    spread: float
    spread_alone: float
    reached: tuple[float, ...]
    average: float
    low: float
    high: float
    kendall: float
    expected: float
    p: float
    detectable: bool


@dataclass(frozen=True, eq=False)
class MixturesByShots:
    """What sources bring in mixtures and alone, by shots.

    Attributes:
        method, size: of the study. sources: names.
        rows, failed: of the ensemble, those that count and those that failed.
        effects: one for each target, mode, number of shots ("change" last), answer and source.
        places: one for each target, mode and number of shots.
        pictures: by source, examples of it.
        notes: what a reader must know of how they were trained.
    """

    method: str
    size: int
    sources: tuple[str, ...]
    rows: int
    failed: int
    effects: tuple[SourceEffect, ...]
    places: tuple[AllSources, ...]
    notes: tuple[str, ...]
    pictures: Mapping[str, np.ndarray]

    def of(self, **about: Any) -> list[SourceEffect]:
        """The effects with these attributes: `of(target="digits", answer="alone", shots=1)`."""
        return [one for one in self.effects if all(getattr(one, name) == value for name, value in about.items())]

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each of `effects`, in fractions; columns are their attributes.

        Raises:
            ConfigError: pandas is not installed.
        """
        lines = [asdict(one) for one in self.effects]
        return to_frame({name: [line[name] for line in lines] for name in lines[0]} if lines else {}, "MixturesByShots")

    def plot(self, target: str | None = None, mode: str | None = None, ax: Any = None) -> Any:
        """Draw what adding each source to others brings, by number of shots, with 95 % intervals.

        Args:
            target, mode: names; the first by default. ax: `matplotlib.axes.Axes` to draw into.

        Returns:
            the axes.

        Raises:
            ConfigError: nothing is known of this target and mode.
        """
        known = list(dict.fromkeys((one.target, one.mode) for one in self.places))
        place = next((p for p in known if target in (None, p[0]) and mode in (None, p[1])), None)
        if place is None:
            mend = f"there are: {', '.join(f'{a!r}, {b!r}' for a, b in known)}"
            raise ConfigError(f"no target {target!r} with mode {mode!r}", "MixturesByShots.plot", mend)
        lines = [
            [one for one in self.of(target=place[0], mode=place[1], source=name, answer=ADDED) if one.shots != CHANGE]
            for name in self.sources
        ]
        values, low, high = (
            np.array([[100 * getattr(one, part) for one in line] for line in lines])
            for part in ("value", "low", "high")
        )
        ticks = ["all" if one.shots == FULL else str(one.shots) for one in lines[0]]
        labels = "shots", "what adding the source brings (points), 95 % intervals"
        reach = np.stack([values - low, high - values], 1)
        return curve_plot(self.sources, ticks, values, reach, labels, f"{place[0]}, {place[1]}", ax)

    def __repr__(self) -> str:
        facts = f"{count(len(self.sources), 'source')}, {count(self.rows, 'row')}, {self.failed:,} failed"
        sure = sum(one.sure for one in self.effects)
        return (
            f"MixturesByShots({self.method}, {self.size:,} images: {facts}; {sure} of {len(self.effects)} effects sure)"
        )

    def _repr_html_(self) -> str:
        heads = "target", "mode", "shots", "first in mixtures", "first alone"
        rows = ((one.target, one.mode, one.shots, one.first, one.alone) for one in self.places)
        return html_table(repr(self), heads, rows, len(self.places), "places")

    def page(self) -> Page:
        """What a reader sees: both answers beside each other, source by source, and where they differ."""
        both = dict.fromkeys((one.target, one.mode) for one in self.effects)
        blocks: list[Block] = [_panels(self, *place, *what) for place in both for what in _PANELS]
        if changes := self.of(shots=CHANGE):
            title = "Change from the fewest to the most shots"
            blocks.append(Table.of(changes, [c for c in _COLUMNS if c.name != "shots"], title, _CHANGE_NOTE))
        blocks.append(Table.of(self.places, _TOGETHER, "All sources together", _TOGETHER_NOTE))
        return Page(
            name="mixtures",
            title="Mixtures: sources as groups",
            question="Does a source bring in mixtures what it brings alone, and at how many shots?",
            answer=[*sentences(self), *self.notes],
            blocks=blocks,
            csv={"sources.csv": csv_of(self.effects, _COLUMNS), "together.csv": csv_of(self.places, _TOGETHER)},
            method=_METHOD,
        )


def mixtures_by_shots(study: Study, store: Store | str | os.PathLike[str], plan: Plan | None = None) -> MixturesByShots:
    """What each source of a finished study brings in mixtures, beside what it brings alone.

    Args:
        study: as it was run.
        store: of the study and of the mixtures.
        plan: of mixtures, as `mixture_plan` makes it; by default that of the study's first method and largest size that
            has the most rows in the store.

    Raises:
        ConfigError: as `mixture_plan`; a plan that is none of this study's mixtures.
        StoreError: rows of the study are missing, or too few rows of mixtures are finished.
    """
    store = store if isinstance(store, Store) else Store(store)
    own, record = _asked(study, store, plan)
    (size,), (method,) = own.sizes, own.methods
    finished = store.finished(record)
    if len(finished) < 2 * len(own.sources) + 2:
        mend = "run the plan of mixtures into this store first: pydt.run(pydt.mixture_plan(study, store), store)"
        raise StoreError(f"{len(finished)} finished rows of mixtures", str(store.folder), mend)
    masks = np.asarray(store.design(record).take(finished))[:, [record.names.index(name) for name in own.sources]]
    rows, halves = RowSeeds(masks), halves_of(own, store)
    names = tuple(own.sources)
    effects: list[SourceEffect] = []
    places: list[AllSources] = []
    asked = own.asked(own.arms[0])
    for (target, mode), of in itertools.groupby(asked, lambda one: (one.target, one.mode)):
        both = {}
        for one in of:
            cells = {half: [every[arm.name, one.task.name] for arm in own.arms] for half, every in halves.items()}
            both[one.shots] = _read(store, record, finished, cells, one.task.name)
            places.append(_together(rows, masks.sum(1), Place(target, mode, one.shots), both[one.shots], names))
        effects += _effects(rows, target, mode, both, names)
    failed = len(store.failed(record))
    return MixturesByShots(
        method,
        size,
        names,
        len(finished),
        failed,
        tuple(effects),
        tuple(places),
        _notes(own, record, failed),
        store.thumbnails(record),
    )


# ---- values ---------------------------------------------------------------------------------------------------------


def _asked(study: Study, store: Store, plan: Plan | None) -> tuple[Study, Record]:
    """The study of the plan's method and size alone, and the plan as the store has it."""
    where = "mixtures_by_shots"
    if plan is None:
        own = arms_of(study)
        made = mixture_plan(study, store).record()
        known = [one for one in store.designs() if _like(one) == _like(made)]
        if not known:
            mend = "run the plan of mixtures into this store first: pydt.run(pydt.mixture_plan(study, store), store)"
            raise StoreError("holds no rows of mixtures of this study", str(store.folder), mend)
        return own, max(known, key=lambda one: len(store.finished(one)))
    if not isinstance(plan, Plan):
        raise ConfigError(f"is a {type(plan).__name__}", f"{where}, plan", "make it with pydt.mixture_plan")
    record = plan.record()
    for method, recipe in study.methods.items():
        for size in study.sizes if recipe.digest == record.recipe else ():
            if len(plan.source) == size * len(study.sources):
                made = mixture_plan(study, store, method=method, size=size).record()
                if _like(made) == _like(record):
                    return arms_of(study, method, size), store.plan(record)
    raise ConfigError("is no plan of mixtures of this study", f"{where}, plan", "make it with pydt.mixture_plan")


def _like(record: Record) -> tuple[Any, ...]:
    """What plans of the same mixtures have in common, whatever their masks and seeds."""
    return record.source, record.units, record.recipe, {task["digest"] for task in record.tasks}


@dataclass(frozen=True, eq=False)
class _Both:
    """Values of one target and mode at one number of shots.

    mixtures: float32 (rows, draws, images). alone: float64 (sources, seeds, draws, images). weights, labels: of the
    images. scored: (mixtures (rows,), alone (sources,)), means of the score half.
    """

    mixtures: npt.NDArray[np.float32]
    alone: Values
    weights: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    scored: tuple[Values, Values]


def _read(
    store: Store, record: Record, finished: npt.NDArray[np.int64], cells: Mapping[str, Sequence[Cell]], name: str
) -> _Both:
    """The values at one place.

    Args:
        cells: by half, those of the sources. name: of the task.
    """
    position, digest = next((i, task["digest"]) for i, task in enumerate(record.tasks) if task["name"] == name)
    about, report = store.task(digest), cells["report"]
    output = AUROC if report[0].asked.task.target.metric == AUROC else "correct"
    keys = [record.cells[i, position].tobytes().hex() for i in finished.tolist()]
    values = np.stack([per_draw(store.get(key), about["labels"], output, str(store.path(key))) for key in keys])
    mine, score = (about["half"] == HALVES[half] for half in ("report", "score"))
    scored = values[..., score].mean(1, dtype=np.float64) @ about["weights"][score].astype(np.float64)
    alone, means = stacked(report), np.array([cell.mean for cell in cells["score"]])
    if alone is None or alone.shape[1] < 2:
        wrong = f"fewer than two seeds have all sources on {name}"
        raise StoreError(wrong, str(store.folder), "the errors of the study need two: add seeds to it")
    return _Both(values[..., mine].astype(np.float32), alone, report[0].weights, report[0].labels, (scored, means))


def _effects(
    rows: RowSeeds, target: str, mode: str, both: Mapping[int | str, _Both], names: Sequence[str]
) -> list[SourceEffect]:
    """All numbers of one target and mode, p adjusted."""
    first = next(iter(both.values()))
    weighed, each = (first.weights, first.labels), np.eye(len(names))
    centred = each - each.mean(0)
    slope = np.arange(len(both)) - (len(both) - 1) / 2
    slope *= (len(both) - 1) / max(float(slope @ slope), 1.0)
    found = []
    for s, name in enumerate(names):
        at: dict[int | str, tuple[Values, ...]] = {
            shots: (rows.of(of.mixtures, centred[s]), of.alone[s] - of.alone.mean(0), rows.of(of.mixtures, each[s]))
            for shots, of in both.items()
        }
        if len(both) > 1:  # one draw, of all labelled images, stands beside each draw of fewer
            lines = (sum(w * of[i] for w, of in zip(slope, at.values(), strict=True)) for i in range(3))
            at[CHANGE] = tuple(np.asarray(line) for line in lines)
        for shots, (mixed, alone, added) in at.items():
            numbers = {
                answer: crossed(x, *weighed, difference=True)
                for answer, x in ((MIXTURES, mixed), (ALONE, alone), (ADDED, added))
            }
            numbers[DIFFERENCE] = crossed_apart(mixed, alone, *weighed)
            for answer, of in numbers.items():
                values = of.mean, of.stderr, of.df, of.low, of.high, of.p
                found.append(SourceEffect(target, mode, shots, name, answer, *values))
    return _adjusted(found)


def _adjusted(found: Sequence[SourceEffect]) -> list[SourceEffect]:
    """With Holm's p over the sources of each answer at each number of shots."""
    families: dict[tuple[str, int | str], list[int]] = {}
    for i, one in enumerate(found):
        families.setdefault((one.answer, one.shots), []).append(i)
    p = np.full(len(found), np.nan)
    for own in families.values():
        p[own] = holm(np.array([found[i].p for i in own]))
    return [replace(one, p_holm=float(adjusted)) for one, adjusted in zip(found, p, strict=True)]


def _together(rows: RowSeeds, held: npt.NDArray[np.int64], place: Place, at: _Both, names: Sequence[str]) -> AllSources:
    """What both answers say of all sources together; `held`: how many of them each row has."""
    each = np.eye(len(names))
    mixed = np.stack([rows.of(at.mixtures, one, _ENOUGH) for one in each])
    order = rank_agreement(mixed, at.alone, at.weights, at.labels, shared=("draws", "images"))
    taus = [spread(values, at.weights, at.labels).tau for values in (mixed, at.alone)]
    average = crossed(rows.of(at.mixtures, each.mean(0)), at.weights, at.labels, difference=True)
    accuracy = at.mixtures.mean(1, dtype=np.float64) @ at.weights
    reached = [accuracy[held == k].mean() if (held == k).any() else np.nan for k in range(1, len(names) + 1)]
    scored, alone = at.scored
    brings = [float(rows.of(scored[:, None, None], one).mean()) for one in each]
    first = names[int(np.argmax(brings))], names[int(np.argmax(alone))]
    return AllSources(
        *place,
        *first,
        spread=taus[0],
        spread_alone=taus[1],
        reached=tuple(map(float, reached)),
        average=average.mean,
        low=average.low,
        high=average.high,
        kendall=order.kendall,
        expected=order.expected,
        p=order.p,
        detectable=order.detectable,
    )


def _notes(own: Study, record: Record, failed: int) -> tuple[str, ...]:
    """What a reader must know of how rows of mixtures were trained."""
    (recipe,), (size,), many = own.methods.values(), own.sizes, len(own.sources)
    kind, number = recipe.budget
    told = f"Every row trains for {number:,} {kind}"
    told += ", however many sources it has" if kind != "epochs" else ": the more sources, the more steps"
    notes = [
        f"{told}; a row of k sources has k times {size:,} images, from {size:,} to {(many - 1) * size:,}. "
        "All rows share one sample of each source, so errors in mixtures do not contain which images were taken."
    ]
    rates = sorted({one for task in record.tasks if (one := _rate(task)) is not None})
    if own.rates and rates:
        told = ", ".join(f"{rate:g}" for rate in rates)
        notes.append(f"Learning rates of transfer are medians of those chosen for the sources alone: {told}.")
    if failed:
        notes.append(f"{count(failed, 'row')} of mixtures failed and {'is' if failed == 1 else 'are'} left out.")
    return tuple(notes)


def _rate(task: Mapping[str, Any]) -> float | None:
    how = task["settings"].get("finetune")
    return how["lr"] if how else None


# ---- words ----------------------------------------------------------------------------------------------------------


def sentences(found: MixturesByShots) -> list[str]:
    """What was found, the first sentence about the first target at the fewest shots."""
    at = found.places[0]
    return [_leader(found, at), _sizes(found, at), *_differences(found), _agreement(found), *_changes(found)]


def _where(shots: int | str) -> str:
    """Shots as a place in a sentence: "at 1 shot", "with all labelled images"."""
    return f"{'at' if isinstance(shots, int) and shots else 'with'} {shots_text(shots)}"


def _leader(found: MixturesByShots, at: AllSources) -> str:
    """Which source helps most in mixtures, and whether it does alone."""
    place = (
        f"({quoted(at.target)}, {quoted(at.mode)}, {count(found.rows, 'row')}, {count(len(found.sources), 'source')})"
    )
    about = {"target": at.target, "mode": at.mode, "shots": at.shots}
    one, other = (
        found.of(**about, source=name, answer=answer)[0] for name, answer in ((at.first, MIXTURES), (at.alone, ALONE))
    )
    sure, alone_sure = (effect.sure and effect.value > 0 for effect in (one, other))
    if at.first == at.alone:
        how = "helps most" if sure and alone_sure else "is first"
        told = "" if sure and alone_sure else "; told from the average source in neither"
        told = (
            f"; told from the average source {'in mixtures' if sure else 'alone'} only" if sure != alone_sure else told
        )
        return (
            f"In mixtures, as alone, {quoted(at.first)} {how} {_where(at.shots)}: {_points(one)} points in "
            f"mixtures, {_points(other)} alone{told} {place}."
        )
    mixed, alone = (
        f"{quoted(effect.source)} {'helps most' if helps else 'is first, but not told from the average source'}: "
        f"{_points(effect)} points"
        for effect, helps in ((one, sure), (other, alone_sure))
    )
    return f"In mixtures, {_where(at.shots)}, {mixed}; alone {alone} {place}."


def _sizes(found: MixturesByShots, at: AllSources) -> str:
    """What a source adds to others, and how far sources differ."""
    low, average, high = (number(100 * x, 1, True) for x in (at.low, at.average, at.high))
    spread, alone = (number(100 * tau, 1) for tau in (at.spread, at.spread_alone))
    known = [(k, share) for k, share in enumerate(at.reached, 1) if np.isfinite(share)]
    reached = ", ".join(f"{number(100 * share, 1)} % with {k}" for k, share in known)
    about = {"target": at.target, "mode": at.mode, "shots": at.shots, "answer": ADDED}
    (first,) = found.of(**about, source=at.first)
    return (
        f"There, rows reach {reached} sources; adding {quoted(at.first)} to others brings {_points(first)} points, the "
        f"average source {average} ({low} to {high}). Sources differ by {spread} points in mixtures and by {alone} "
        "alone (standard deviation, noise taken off)."
    )


def _points(one: SourceEffect) -> str:
    """A value in points with its interval: +1.2 (0.3 to 2.1)."""
    digits = digits_for(100 * one.stderr) if one.stderr else 1
    low, value, high = (100 * x for x in (one.low, one.value, one.high))
    return f"{number(value, digits, True)} ({number(low, digits, True)} to {number(high, digits, True)})"


def _differences(found: MixturesByShots) -> list[str]:
    """Where the two answers differ."""
    every = [one for one in found.effects if one.answer == DIFFERENCE and one.shots != CHANGE]
    differ = sorted((one for one in every if one.sure), key=lambda one: one.p_holm)
    of = count(
        len(every), "combination of source, target, mode and shots", "combinations of source, target, mode and shots"
    )
    if not differ:
        reach = [100 * (one.high - one.low) / 2 for one in every]
        return [
            f"Nowhere do the two answers differ beyond noise ({of}; Holm over the sources). Half of the 95 % intervals "
            f"of their differences reach {number(float(np.median(reach)), 1)} points or more to each side."
        ]
    one = differ[0]
    return [
        f"The two answers differ in {len(differ):,} of {of} (Holm over the sources at each place; noise alone would "
        f"give {number(LEVEL * len(found.places), 1)} places on average), most surely for "
        f"{quoted(one.source)} on {quoted(one.target)}, {quoted(one.mode)}, {shots_text(one.shots)}: {_points(one)} "
        f"points in mixtures less alone ({p_text(one.p_holm)})."
    ]


def _agreement(found: MixturesByShots) -> str:
    """Whether the orders of the sources agree."""
    able = [one for one in found.places if one.detectable]
    many, total = len(found.sources), len(found.places)
    mean = number(float(np.mean([one.kendall for one in found.places])), 2, True)
    told = f"The orders of {many} sources in mixtures and alone have a rank correlation (Kendall) of {mean} on average"
    if not able:
        return f"{told}; with {many} sources and this noise even a reversed order could not have been told."
    differ = sum(one.p < LEVEL for one in able)
    return (
        f"{told}; a reversed order could have been told in {len(able)} of {total} places, and in {differ} of these the "
        "orders differ by more than noise."
    )


def _changes(found: MixturesByShots) -> list[str]:
    """Which sources' influence changes with shots."""
    said: list[str] = []
    for answer, what in _CHANGES.items():
        every = found.of(shots=CHANGE, answer=answer)
        sure = sorted((one for one in every if one.sure), key=lambda one: one.p_holm)
        text = f"{what}{'' if said else ' changes with shots'} in {len(sure)} of {len(every)}"
        text += "" if said else " combinations of source, target and mode (Holm over the sources)"
        if sure:
            one = sure[0]
            text += f", most surely {quoted(one.source)} on {quoted(one.target)}, {quoted(one.mode)}: {_points(one)} "
            text += "points"
        said += [text] if every else []
    return [f"{'; '.join(said)}."] if said else []


_CHANGES = {
    ADDED: "What adding a source to others brings",
    MIXTURES: "what it brings beside the average source",
    ALONE: "the same alone",
}


def _panels(found: MixturesByShots, target: str, mode: str, answers: Mapping[str, str], what: str) -> Block:
    """Small multiples: a panel for each source and answer."""
    lines = {
        f"{name}{how}": [
            one for one in found.of(target=target, mode=mode, source=name, answer=answer) if one.shots != CHANGE
        ]
        for name in found.sources
        for answer, how in answers.items()
    }
    shots, pictures = [one.shots for one in next(iter(lines.values()))], found.pictures
    shown = {panel: pictures[line[0].source] for panel, line in lines.items() if line[0].source in pictures}
    values, low, high = (
        np.array([[100 * getattr(one, part) for one in line] for line in lines.values()])
        for part in ("value", "low", "high")
    )
    return Multiples(
        list(lines),
        ["all" if k == FULL else str(k) for k in shots],
        values,
        low,
        high,
        "points",
        "labelled images a class",
        f"{target}, {mode}: {what}",
        "95 % each. A finding: somewhere told from 0 (Holm over the sources, Bonferroni over the shots).",
        marked=[min(one.p_holm for one in line) * len(line) < LEVEL for line in lines.values()],
        images=shown,
    )


_PANELS = (
    ({ADDED: ""}, "what adding a source to others brings"),
    ({MIXTURES: ", in mixtures", ALONE: ", alone"}, "what a source brings less what the average source does"),
)
_COLUMNS = [
    Column("target"),
    Column("mode"),
    Column("shots"),
    Column("source"),
    Column("answer"),
    Column("points", lambda one: 100 * one.value),
    Column("stderr", lambda one: 100 * one.stderr),
    Column("df", digits=1),
    Column("low", lambda one: 100 * one.low),
    Column("high", lambda one: 100 * one.high),
    Column("p", digits=4),
    Column("p_holm", digits=4),
]
_TOGETHER = [
    Column("target"),
    Column("mode"),
    Column("shots"),
    Column("first in mixtures", "first"),
    Column("first alone", "alone"),
    Column("spread in mixtures", "spread", digits=1, scale=100),
    Column("spread alone", "spread_alone", digits=1, scale=100),
    Column("rows with 1, 2, ... sources, in %", lambda one: ", ".join(f"{100 * share:.1f}" for share in one.reached)),
    Column("one more source", "average", digits=1, scale=100),
    Column("low", digits=1, scale=100),
    Column("high", digits=1, scale=100),
    Column("kendall", digits=2),
    Column("expected by noise", "expected", digits=2),
    Column("p", digits=3),
    Column("a reversed order would be told", lambda one: "yes" if one.detectable else "no"),
]
_CHANGE_NOTE = (
    "From the fewest to the most shots along a straight line over the shots, evenly spaced, in points; difference: in "
    "mixtures less alone. Holm over the sources of one target, mode and answer."
)
_TOGETHER_NOTE = (
    "In points. First: on the score half. Spread: standard deviation of what sources bring, noise taken off. One more "
    "source: what adding one brings on average, with 95 %. Kendall's rank correlation of the two orders, beside its "
    "mean if the true orders were equal, and the chance of one so low then."
)
_METHOD = """In mixtures: ordinary least squares of the rows' accuracy on which sources they hold; a source's influence
less the mean influence of all sources.

    accuracy of a row = constant + sum over its sources of influence + noise

Alone: the accuracy of the study's arm of the source, less the mean over the sources. Both on the report half, with
errors over trainings, few-shot draws and target images as crossed random factors; rows of one mixture are trainings of
their own. Sources are groups in the sense of Jain et al. 2023, section 2, and arms in that of Entezari et al. 2023."""
