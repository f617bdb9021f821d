"""What influences by shots mean for a decision, proved by retraining: whether each number of shots needs a list of
groups of its own, or one list serves all.

Rows without the lowest groups by each number of shots' own ranking and by one common ranking (the mean over shots of
value / stderr) are transferred at every number of shots and judged on the report half. The rows of "full", of the
random sets and of each own list are those of `pydt.removal_curve` with the same seed.

What is chosen is judged apart: the best number of each own list (`pydt.analyses.best_removal`) and the one list for all
(`pydt.analyses.one_list`). More than 500 lines: the lists and their part of a page, as in the other analyses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.best_removal import FEWEST, Best, best_size
from pydt.analyses.counterfactual import Contrast, compared
from pydt.analyses.one_list import OneList, one_list
from pydt.analyses.removal import change, sizes_of, unit_of_gains, without_lowest
from pydt.analyses.retraining import (
    CONTROL,
    Arm,
    Retraining,
    arm_rows,
    group_images,
    other_draws,
    random_row,
    recipes_of,
)
from pydt.analyses.shots_lists import common_score
from pydt.analyses.shots_tasks import FULL, ShotsTasks
from pydt.base import ConfigError, Result, Short, one_of, suggest, whole
from pydt.ensemble import Plan, Runner, run_row
from pydt.reporting import (
    Block,
    Column,
    Intervals,
    Metric,
    Multiples,
    Table,
    count,
    csv_of,
    curve_plot,
    listed,
    number,
)
from pydt.store import Row, Store

ALL = "all"
"""The list by the common ranking."""
_WHERE = "influence_by_shots"
_NAMED = 12  # of the lowest groups
_Key = tuple[int | str | None, int]  # whose ranking, and how many of its lowest groups are left out
_NOTHING: _Key = None, 0


@dataclass(frozen=True, eq=False, repr=False)
class ShotsList(Short):
    """One list without one number of its lowest groups, judged at every number of shots.

    Attributes:
        shots: whose ranking it is by, or `ALL`. left_out: names of the groups, the lowest first.
        arms: at each number of shots.
        gains: against "full"; which: against random sets of as many groups. None where an arm has fewer than two rows.
        over_common: of an own list at its own shots: how much better it is than the common list without as many groups;
            None where both leave out the same groups, and of the common list itself.
    """

    shots: int | str
    left_out: tuple[str, ...]
    arms: tuple[Arm, ...]
    gains: tuple[Contrast | None, ...]
    which: tuple[Contrast | None, ...]
    over_common: Contrast | None

    @property
    def size(self) -> int:
        return len(self.left_out)


@dataclass(frozen=True, eq=False, repr=False)
class KeptLists(Result):
    """What the lists gain at every number of shots.

    Attributes:
        shots: from the fewest to the most. sizes: numbers of lowest groups left out, ascending.
        ranked: by number of shots and `ALL`, all groups, the lowest first.
        lists: the own lists in order of shots, then the common one; of each by size.
        full: the arms of the full source at each number of shots; random: of the random sets, by size, and
            random_gains against "full". A random set has about as many images as the lists of its size have on average.
        best: of each number of shots the best number of its own list, chosen and judged apart; None with fewer than
            four rows in an arm.
        one: the one list for all; None with fewer than four rows in an arm.
        length: what is equal to the full source's training: "steps" or "epochs"; "own" for a program of the user's.
        metric: of the tasks. retrained: rows trained for it, of which `failed` gave no outputs.
    """

    shots: tuple[int | str, ...]
    sizes: tuple[int, ...]
    ranked: Mapping[int | str, tuple[str, ...]]
    lists: tuple[ShotsList, ...]
    full: tuple[Arm, ...]
    random: Mapping[int, tuple[Arm, ...]]
    random_gains: Mapping[int, tuple[Contrast | None, ...]]
    best: tuple[Best | None, ...]
    one: OneList | None
    length: str
    metric: Metric
    retrained: int
    failed: int

    def _columns(self) -> dict[str, Any]:
        parts = "difference", "stderr", "low", "high", "p"
        names = ["list", "left_out", "shots", *(f"{of}_{part}" for of in ("gain", "which") for part in parts)]
        lines = [
            (one.shots, one.size, k, *(getattr(found, part, np.nan) for found in both for part in parts))
            for one in self.lists
            for k, *both in zip(self.shots, one.gains, one.which, strict=True)
        ]
        return {name: [line[i] for line in lines] for i, name in enumerate(names)}

    def __repr__(self) -> str:
        sizes, shots = (", ".join(map(str, one)) for one in (self.sizes, self.shots))
        rows = f"{count(self.retrained, 'row')} retrained, {self.failed:,} failed"
        return f"KeptLists({shots} shots; without the {sizes} lowest of {len(self.ranked[ALL]):,} groups; {rows})"

    def plot(self, ax: Any = None) -> Any:
        """Draw what the common list gains over the whole source by number of shots, with 95 % intervals.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        common = [one for one in self.lists if one.shots == ALL]
        value, low, high = (
            self.metric.scale * np.array([[getattr(gain, part, np.nan) for gain in one.gains] for one in common])
            for part in ("difference", "low", "high")
        )
        names, x = [f"without the {one.size} lowest" for one in common], [str(k) for k in self.shots]
        labels = "shots", f"gain ({self.metric.unit or self.metric.name}), 95 % intervals"
        return curve_plot(names, x, value, np.stack([value - low, high - value], 1), labels, "One list for all", ax)

    def keep(self, shots: int | str = ALL, size: int | None = None) -> tuple[str, ...]:
        """The groups that stay by the list of a number of shots, or by the common one.

        Args:
            size: lowest groups left out, by default the best number.

        Raises:
            ConfigError: no such list, a size out of range, or no best number.
        """
        if shots not in self.ranked:
            raise ConfigError(
                f"no list {shots!r}", "KeptLists.keep", suggest(str(shots), [str(k) for k in self.ranked])
            )
        ranked = self.ranked[shots]
        if size is None:
            best = self.one if shots == ALL else self.best[self.shots.index(shots)]
            if best is None:
                mend = f"name a size, or ask for at least {FEWEST} repeats"
                raise ConfigError(f"no best number of {shots!r}", "KeptLists.keep", mend)
            size = best.size
        if not 0 <= size < len(ranked):
            wrong = f"size {size} of {len(ranked)} groups"
            raise ConfigError(wrong, "KeptLists.keep", f"use a number from 0 to {len(ranked) - 1}")
        return ranked[size:]

    def sentences(self) -> list[str]:
        """The verdict and what the one list gains, for the answer of a page. Failed rows are not spoken of here."""
        return _sentences(self)

    def blocks(self) -> list[Block]:
        """Figures and tables for a page."""
        return _blocks(self)

    def csv(self) -> dict[str, tuple[Sequence[str], list[tuple[Any, ...]]]]:
        """The files of a page: "kept-gains.csv" (each list at each size and number of shots), "kept-best.csv" (the best
        numbers), "kept-one.csv" (the one list), "keep-all-shots.csv" (the groups that stay by it) and "kept-ranks.csv"
        (each group's place in each ranking)."""
        return _csv(self)


def kept_lists(
    store: Store | str | os.PathLike[str],
    plan: Plan,
    asked: ShotsTasks,
    values: npt.NDArray[np.float64],
    stderr: npt.NDArray[np.float64],
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 6,
    steps: str = "same",
    seed: int = 0,
    runner: Runner = run_row,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool | str = True,
) -> KeptLists:
    """Retrain without the lowest groups by each number of shots' own ranking and by a common one.

    The number of retrainings, and how long they will take, is printed before they begin. Lists that leave out the same
    groups share their rows, and rows stored before are not trained again.

    Args:
        store: where the plan's rows are, or its folder; the new rows go there, too.
        asked: the tasks (see `pydt.analyses.shots_tasks`). Retrained models are transferred with other few-shot draws.
        values, stderr: (groups, shots) influences on the score half (positive where a group helps, also where lower
            outputs are better) and their errors, which rank the groups. A number of shots without finite values
            has no list of its own and no part in the common ranking.
        sizes: numbers of lowest groups to leave out, by default a quarter and a half of the groups.
        repeats: rows of each arm; of the full source, with which all are compared, twice as many. Best numbers and the
            verdict need at least four.
        steps: "same" trains all arms for the steps that the full source takes, "epochs" for the plan's epochs. Rows of
            a program of the user's have the length that it has.
        seed: of the retrainings and the random sets.
        runner, executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: an argument out of range, a plan that is only a record, or tasks of different metrics.
    """
    whole(seed, "seed", "kept_lists", error=ConfigError)
    if not isinstance(plan, Plan):
        mend = "give the pydt.Plan itself (pydt.read_plan reads one from its file)"
        raise ConfigError(f"is a {type(plan).__name__}, which trains nothing", f"{_WHERE}, plan", mend)
    store = store if isinstance(store, Store) else Store(store)
    names, images = plan.context.units[1], group_images(plan)
    values, stderr = (np.asarray(array, np.float64) for array in (values, stderr))
    if not values.shape == stderr.shape == (len(names), len(asked.shots)):
        wrong = f"{values.shape} and {stderr.shape} for {len(names)} groups at {len(asked.shots)} numbers of shots"
        raise ConfigError(wrong, f"{_WHERE}, values and stderr", "give (groups, shots)")
    sizes = sizes_of(len(names), sizes, [round(len(names) / 4), len(names) // 2], _WHERE)
    repeats = whole(repeats, "repeats", _WHERE, 2, error=ConfigError)
    one_of(steps, ("same", "epochs"), "steps", _WHERE)
    tasks = [plan.task(task) for task in asked.tasks]
    metrics = [Metric.of_task(store.described(task.digest, plan)) for task in tasks]
    _check_metrics(metrics)
    ((length, recipe),) = recipes_of(plan, steps if hasattr(plan.recipe, "budget") else "epochs").items()
    orders = _orders(asked.shots, values, stderr)
    members = _rows(orders, images, sizes, repeats, seed)
    fresh = tuple(other_draws(task) for task in tasks)
    full = members[_NOTHING]
    rest = list(dict.fromkeys(row for key, own in members.items() if key != _NOTHING for row in own))
    retraining = Retraining(store, plan, runner, executor, workers, progress)
    retraining.announce(fresh, [(plan.recipe, full), (recipe, rest)])
    arms: dict[_Key, tuple[Arm, ...]] = {}
    failed = 0
    for rows, how in ((full, plan.recipe), (rest, recipe)):
        done = retraining.run(fresh, rows, how)
        arms |= _arms(done, [task.digest for task in fresh], rows, members)
        failed += len(done.failed())
    examples = [done.examples(task.digest, "report") for task in fresh]
    candidates = {of: [arms[_NOTHING], *(arms[of, size] for size in sizes)] for of in orders}
    common, own = (
        [[arm[j] for arm in candidates.get(of, ())] for j, of in enumerate(lists)]
        for lists in ([ALL] * len(fresh), asked.shots)
    )
    alike = [[[one[k][j] for one in candidates.values()] for k in range(1 + len(sizes))] for j in range(len(fresh))]
    best = [
        best_size(length, own[j], one["weights"], one["labels"], alike[j]) if own[j] else None
        for j, one in enumerate(examples)
    ]
    ranked = {of: tuple(names[i] for i in order) for of, order in orders.items()}
    return KeptLists(
        shots=asked.shots,
        sizes=tuple(sizes),
        ranked=ranked,
        lists=tuple(_list(asked.shots, of, size, ranked[of][:size], arms, examples) for of in orders for size in sizes),
        full=arms[_NOTHING],
        random={size: arms[CONTROL, size] for size in sizes},
        random_gains={size: _against(arms[CONTROL, size], arms[_NOTHING], examples) for size in sizes},
        best=tuple(best),
        one=one_list(common, own, alike, examples),
        length=length,
        metric=metrics[0],
        retrained=len(full) + len(rest),
        failed=failed,
    )


def _check_metrics(metrics: Sequence[Metric]) -> None:
    """Means over shots need one metric; a measure's name is its task's and may differ."""
    first = metrics[0]
    for other in metrics[1:]:
        if replace(other, name=first.name) != first or not (first.measured or other.name == first.name):
            wrong = f"{first.name} ({first.unit}) and {other.name} ({other.unit}) have no mean"
            raise ConfigError(wrong, f"{_WHERE}, tasks", "name tasks of one metric, unit and direction")


def _orders(
    shots: Sequence[int | str], values: npt.NDArray[np.float64], stderr: npt.NDArray[np.float64]
) -> dict[int | str, npt.NDArray[np.intp]]:
    """By number of shots and `ALL`, the groups from the lowest on."""
    common = common_score(values, stderr)
    if not common.any():
        mend = "use outputs that differ between rows, and an estimator with standard errors"
        raise ConfigError("no number of shots has influences with errors", _WHERE, mend)
    orders = {
        k: np.argsort(values[:, j], kind="stable") for j, k in enumerate(shots) if np.isfinite(values[:, j]).all()
    }
    return {**orders, ALL: np.argsort(common, kind="stable")}


def _rows(
    orders: Mapping[int | str, npt.NDArray[np.intp]], images: np.ndarray, sizes: Sequence[int], repeats: int, seed: int
) -> dict[_Key, list[Row]]:
    """The rows of each arm. Lists that leave out the same groups have the same rows."""
    places = {shots: np.argsort(order) for shots, order in orders.items()}
    # All lists are compared with the full source, so its error is in every gain: it has twice as many rows.
    found: dict[_Key, list[Row]] = {_NOTHING: arm_rows(places[ALL], images, sizes[:1], [2 * repeats], seed, [])}
    for shots, place in places.items():
        for row in arm_rows(place, images, sizes, [repeats] * len(sizes), seed, ["drop bottom"])[repeats:]:
            found.setdefault((shots, int((~row.mask).sum())), []).append(row)
    for size in sizes:
        mean = float(np.mean([images[order[:size]].sum() for order in orders.values()]))
        found[CONTROL, size] = [random_row(images, size, repeat, seed, mean) for repeat in range(repeats)]
    return found


def _arms(
    store: Store, tasks: Sequence[str], rows: Sequence[Row], members: Mapping[_Key, Sequence[Row]]
) -> dict[_Key, tuple[Arm, ...]]:
    """The arms that are made of `rows`, at each task."""
    record, trained = store.plan(), set(rows)
    at = {rows[i]: n for n, i in enumerate(store.finished(record).tolist())}
    own = {key: mine for key, mine in members.items() if trained.issuperset(mine)}
    found: dict[_Key, list[Arm]] = {key: [] for key in own}
    for task in tasks:
        correct = np.asarray(store.outputs(task, store.metric_output(task, record), "report", record))
        weights = store.examples(task, "report", record)["weights"]
        metric = Metric.of_task(store.described(task, record))
        for key, mine in own.items():
            there = tuple(row for row in mine if row in at)
            kept = correct[[at[row] for row in there]]
            names = tuple(tuple(record.names[i] for i in np.flatnonzero(~row.mask)) for row in there)
            accuracy, lost = kept.astype(np.float64) @ weights, len(mine) - len(there)
            found[key].append(Arm(mine[0].kind, key[1], there, names, accuracy, kept, lost, metric))
    return {key: tuple(arms) for key, arms in found.items()}


def _list(
    shots: Sequence[int | str],
    of: int | str,
    size: int,
    left_out: tuple[str, ...],
    arms: Mapping[_Key, tuple[Arm, ...]],
    examples: Sequence[Mapping[str, np.ndarray]],
) -> ShotsList:
    """One list without its lowest groups, against the full source, random sets and the common list."""
    own, over = arms[of, size], None
    if of != ALL and own[0].rows != arms[ALL, size][0].rows:
        over = _against(own, arms[ALL, size], examples)[shots.index(of)]
    gains, which = (_against(own, arms[key], examples) for key in (_NOTHING, (CONTROL, size)))
    return ShotsList(of, left_out, own, gains, which, over)


def _against(
    arms: Sequence[Arm], others: Sequence[Arm], examples: Sequence[Mapping[str, np.ndarray]]
) -> tuple[Contrast | None, ...]:
    """The contrast of two arms at each number of shots."""
    pairs = zip(arms, others, examples, strict=True)
    return tuple(compared(arm, other, one["weights"], one["labels"]) for arm, other, one in pairs)


# ---- on a page -----------------------------------------------------------------------------------------------------

_LENGTH = {"steps": "at equal steps", "epochs": "at equal epochs"}


def _at(shots: int | str) -> str:
    """A number of shots in a sentence."""
    return "with all labelled images" if shots == FULL else f"at {count(int(shots), 'shot')}"


def _called(shots: int | str) -> str:
    """A list, or a number of shots, in a table."""
    return "common" if shots == ALL else "all labelled images" if shots == FULL else count(int(shots), "shot")


def _all(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _sentences(found: KeptLists) -> list[str]:
    metric, one = found.metric, found.one
    sentences = [_verdict(found)]
    if one is not None and any(one.chosen):
        sure = [_at(k) for k, low in zip(found.shots, one.gain_low, strict=True) if low > 0]
        surely = "at all shots" if len(sure) == len(found.shots) else "at no number of shots"
        surely = f"{_all(sure)}, elsewhere it may be nothing" if 0 < len(sure) < len(found.shots) else surely
        first, last = (
            f"{change(metric, one.gain[j], one.gain_low[j], one.gain_high[j])} {_at(found.shots[j])}" for j in (0, -1)
        )
        sentences.append(f"Leaving them out gains {first} and {last} over the full source; the gain is sure {surely}.")
    return sentences


def _compared(found: KeptLists, start: str, against: str, contrasts: Sequence[Contrast | None]) -> str:
    """In how many comparisons one list is better than another, and what could have been seen."""
    known = [one for one in contrasts if one is not None]
    if not known:
        return ""
    metric, up, down = found.metric, sum(c.low > 0 for c in known), sum(c.high < 0 for c in known)
    reach = float(np.median([(c.high - c.low) / 2 for c in known]))
    width = f"{number(metric.scale * reach, metric.decimals(2, reach / 2))}{metric.unit and f' {metric.unit}'}"
    return (
        f" {start} is better than {against} in {up} and worse in {down} of {count(len(known), 'comparison')} (95 %, "
        f"each by itself; the intervals reach {width} to either side in the median)."
    )


def _lowest(found: KeptLists) -> str:
    """The groups that the common list leaves out."""
    size = max(found.one.chosen) if found.one is not None and any(found.one.chosen) else found.sizes[0]
    lowest = found.ranked[ALL][:size]
    shared = sorted(len(set(lowest) & set(ranked[:size])) for of, ranked in found.ranked.items() if of != ALL)
    are = f"The {size:,} lowest groups" if size > 1 else "The lowest group"
    both = f"{shared[0]} to {shared[-1]}" if shared[0] < shared[-1] else f"{shared[0]}"
    are += f" of the common ranking{', the lowest first, are' if size > 1 else ' is'} {listed(lowest, _NAMED)}"
    return f"{are}; {both} of the {size:,} are in each own list, too."


def _verdict(found: KeptLists) -> str:
    """Whether one list serves all shots."""
    one, metric, told = found.one, found.metric, "Whether one list serves all shots"
    if one is None:
        return (
            f"{told} was not judged: this needs {FEWEST} finished retrainings of each arm and a report half of at "
            "least two examples."
        )
    without = without_lowest(one.chosen, " of the common ranking") if any(one.chosen) else "keeping all groups"
    if one.serves is False:
        losses = zip(found.shots, one.loss, one.loss_low, one.loss_high, strict=True)
        losing = [f"{_at(k)} by {change(metric, loss, low, high)}" for k, loss, low, high in losses if low > 0]
        better = f"the own list is better {_all(losing)}"
        return f"One list does not serve all shots: compared with {without}, {better} (95 %, all at once)."
    if np.isnan(one.most):
        return f"{told} could not be told: a number of shots has no list of its own, or its retrainings do not differ."
    most = f"{number(metric.scale * one.most, metric.decimals(2, one.most / 4))}{metric.unit and f' {metric.unit}'}"
    if one.serves:
        against = "against the list of each number of shots (95 %, all at once)"
        return f"One list serves all shots: {without} costs at most {most} {against}."
    worst = int(np.nanargmax(one.loss_high))
    seen = number(-metric.scale * float(one.loss[worst]), metric.decimals(2, one.most / 4), True)
    seen += ", where it is the better one" if one.loss[worst] < 0 else ""
    seen = f"{_at(found.shots[worst])} (95 %; as seen {seen})"
    return f"{told} could not be told: {without} may cost up to {most} against its own list {seen}."


def _gain_columns(found: KeptLists) -> list[Column]:
    """Of a list at a number of shots, (ShotsList, j), as rows store values."""
    columns = [
        Column("list", lambda of: of[0].shots),
        Column("left out", lambda of: of[0].size),
        Column("shots", lambda of: found.shots[of[1]]),
    ]

    def arm(of: tuple[ShotsList, int]) -> Arm:
        return of[0].arms[of[1]]

    def part(which: str, name: str) -> Any:
        return lambda of: getattr(getattr(of[0], which)[of[1]], name, None)

    def over(name: str) -> Any:
        return lambda of: getattr(of[0].over_common, name, None) if of[0].shots == found.shots[of[1]] else None

    columns += [
        Column("n", lambda of: len(arm(of).rows)),
        Column("failed", lambda of: arm(of).failed),
        Column(found.metric.key, lambda of: arm(of).mean if arm(of).rows else None),
        Column("sd", lambda of: arm(of).sd),
    ]
    for which, what in (("gains", "gain"), ("which", "against random")):
        columns.append(Column(what, part(which, "difference")))
        columns += [Column(f"{what}, {name}", part(which, name)) for name in ("stderr", "low", "high", "p")]
    columns.append(Column("over common", over("difference")))
    return columns + [Column(f"over common, {name}", over(name)) for name in ("stderr", "low", "high", "p")]


def _best_columns(found: KeptLists) -> list[Column]:
    """Of (number of shots, Best)."""
    shown: dict[str, Any] = {"scale": found.metric.scale, "digits": 2 if found.metric.share else None}
    parts = {"gain": "gain", "low": "low", "high": "high", "claimed where chosen": "claimed"}
    return [
        Column("shots", lambda of: of[0], lambda of: _called(of[0])),
        Column("best K", lambda of: of[1].size),
        Column("chosen by halves", lambda of: f"{of[1].chosen[0]}, {of[1].chosen[1]}"),
        *(Column(name, _of_best(part), **shown) for name, part in parts.items()),
        Column("n", lambda of: of[1].runs),
        Column(found.metric.examples, lambda of: of[1].images),
    ]


def _of_best(part: str) -> Callable[[Any], Any]:
    return lambda of: getattr(of[1], part)


def _blocks(found: KeptLists) -> list[Block]:
    metric, unit = found.metric, unit_of_gains(found.metric)
    blocks: list[Block] = []
    at = f", {_LENGTH[found.length]}" if found.length in _LENGTH else ""
    names = [_called(k) for k in found.shots]
    if found.one is not None:
        one = found.one
        note = (
            f"Better is positive. Chosen by one half of {metric.examples} and retrainings, judged by the other; "
            "95 % for all shots at once."
        )
        places = metric.decimals(2, float((one.gain_high - one.gain_low).mean()) / 4)
        mean = f"{number(metric.scale * float(one.gain.mean()), places, True)}{metric.unit and f' {metric.unit}'}"
        gain, loss = (
            f"Gain of one list for all shots over the full source{at}",
            "One list for all shots against each own list",
        )
        for title, said, parts in (
            (gain, f"{note} Mean over shots: {mean}.", (one.gain, one.gain_low, one.gain_high)),
            (f"{loss}{at}", note, (-one.loss, -one.loss_high, -one.loss_low)),
        ):
            values, low, high = (metric.scale * part for part in parts)
            blocks.append(Intervals(names, values, low, high, unit, title, said, marked=(low > 0) | (high < 0)))
    best = [(k, b) for k, b in zip(found.shots, found.best, strict=True) if b is not None]
    if best:
        title = "The best number of lowest groups of each own list"
        blocks.append(Table.of(best, _best_columns(found), title, f"In {unit}; 95 % each by itself."))
    blocks.append(_panels(found, f"Gain over the full source{at}", unit))
    rows = []
    for own in found.lists:
        digits = [metric.decimals(2, None if c is None else c.stderr) for c in own.gains]
        cells = [
            c and f"{number(metric.scale * c.difference, d, True)} \u00b1 {number(metric.scale * c.stderr, d)}"
            for c, d in zip(own.gains, digits, strict=True)
        ]
        rows.append((_called(own.shots), own.size, *cells))
    n = max(len(own.arms[0].rows) for own in found.lists)
    over = [own.over_common for own in found.lists]
    note = f"In {unit}, with standard errors; n = {n} retrainings of a list."
    note += _compared(found, "With as many groups left out, the own list", "the common one", over)
    blocks.append(Table(("list of", "left out", *names), rows, f"Gain of each list over the full source{at}", note))
    return blocks


def _panels(found: KeptLists, title: str, unit: str) -> Multiples:
    """The gain of the common list, of the own list of each number of shots, and of random sets, by size."""
    gains = {(own.shots, own.size): own.gains for own in found.lists}
    panels = {}
    for size in found.sizes:
        out = f", {size:,} left out"
        panels[f"common list{out}"] = gains[ALL, size]
        own = (gains[k, size][j] if (k, size) in gains else None for j, k in enumerate(found.shots))
        panels[f"own list of each{out}"] = tuple(own)
        panels[f"random groups{out}"] = found.random_gains[size]
    values, low, high = (
        found.metric.scale * np.array([[getattr(c, part, np.nan) for c in line] for line in panels.values()])
        for part in ("difference", "low", "high")
    )
    ticks = ["all" if k == FULL else str(k) for k in found.shots]
    which = [one for own in found.lists if own.shots == ALL for one in own.which]
    note = f"{_lowest(found)}{_compared(found, 'The common list', 'random sets of as many groups', which)}"
    note += " Coloured: surely above or below 0 there (95 %, each by itself)."
    sure = (low > 0) | (high < 0)
    return Multiples(list(panels), ticks, values, low, high, unit, "shots", title, note, marked=sure)


def _csv(found: KeptLists) -> dict[str, tuple[Sequence[str], list[tuple[Any, ...]]]]:
    gains = [(one, j) for one in found.lists for j in range(len(found.shots))]
    best = [(k, b) for k, b in zip(found.shots, found.best, strict=True) if b is not None]
    places = {of: {name: place for place, name in enumerate(ranked, 1)} for of, ranked in found.ranked.items()}
    files: dict[str, tuple[Sequence[str], list[tuple[Any, ...]]]] = {
        "kept-gains.csv": csv_of(gains, _gain_columns(found)),
        "kept-best.csv": csv_of(best, _best_columns(found)),
        "kept-ranks.csv": (
            ["group", *(f"place, {_called(of)}" for of in places)],
            [(name, *(place[name] for place in places.values())) for name in found.ranked[ALL]],
        ),
    }
    if found.one is not None:
        one = found.one
        heads = ["shots", "left out", "chosen by halves"]
        heads += [f"{what}{end}" for what in ("gain", "loss") for end in ("", ", low", ", high")]
        chosen = f"{one.chosen[0]}, {one.chosen[1]}"
        parts = (one.gain, one.gain_low, one.gain_high, one.loss, one.loss_low, one.loss_high)
        rows = [(k, one.size, chosen, *(float(part[j]) for part in parts)) for j, k in enumerate(found.shots)]
        files["kept-one.csv"] = heads, rows
        files["keep-all-shots.csv"] = csv_of(found.keep(), [Column("group", str)])
    return files
