"""Influence by shots: what each group of the source does to the target as the number of labelled images grows.

    column j              the models' output (mean over the score half) with the j-th number of shots; all columns have
                          the same rows, the same judged images and nested few-shot draws
    influence at j        coefficient of a group in the regression of column j on the masks; the covariance of its
                          errors over j is estimated, too: `joint_influences`
    does it change        one test a group, of a straight line over the places of the numbers of shots; q over groups
    how much is explained parts of the variance between models at each number of shots: `variance_shares`
    same order            correlation of true influences at two numbers of shots: `true_agreement`
    one list for all      `pydt.analyses.shots_lists`, and by retraining `pydt.analyses.shots_removal`

Over 500 lines, since the result and its page stand together as in the other analyses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from pydt.analyses.ensemble_view import LEVEL, Array, EnsembleView, detectable, sure_to
from pydt.analyses.shots_kinds import ALIKE, CHANGED, CHANGES, FADES, FEW, GROWS, MANY_SHOTS, MEANING, TURNS, kinds_of
from pydt.analyses.shots_lists import Lists, lists_of
from pydt.analyses.shots_removal import KeptLists, kept_lists
from pydt.analyses.shots_tasks import FULL, shots_tasks
from pydt.base import ConfigError, EstimateError, html_table, t975, to_frame
from pydt.ensemble import Plan, Runner, run_row
from pydt.estimation import (
    ESTIMATORS,
    Share,
    Trend,
    TrueAgreement,
    VarianceShares,
    benjamini_hochberg,
    holm,
    joint_influences,
    method_for,
    p_values,
    true_agreements,
    variance_shares,
)
from pydt.reporting import (
    Block,
    Column,
    Multiples,
    Page,
    Table,
    called_output,
    count,
    csv_of,
    curve_plot,
    digits_for,
    listed,
    number,
    p_text,
    plus_minus,
    quoted,
    signs,
)
from pydt.store import HALVES, Record, Store, per_draw, unit_of

_ROUNDING = 1e-9  # a spread below it, relative to the outputs, is that of sums
_ROWS = 2000  # of which the parts of the variance are made: more would cost minutes, and tell little more
_FEWEST_GROUPS = 5  # whose orders at two numbers of shots can be compared
_CURVES = 6  # groups of a plot
_FEW_NAMES = 3  # groups of a kind that a sentence names
_WIDE = 0.5  # a pair whose interval of the correlation reaches so low may order groups quite differently


@dataclass(frozen=True, eq=False)
class ByShots:
    """Influences of all groups at J numbers of shots; see the module's head.

    Attributes:
        shots: numbers of shots, from the fewest, "full" last. constant: those left out because all models have the same
            output there.
        groups: names. output, unit, method, estimand: what was estimated, as in `pydt.influences`. models: rows.
        values, stderr: float64 (groups, J).
        low, high: float64 (groups, J), 95 % intervals that hold for all J values of one group at once.
        trend: change from the fewest to the most shots along a straight line: `values`, `stderr`, `p`, and `q` over the
            groups. any_change: float64 (groups,), p of Hotelling's test of any difference between numbers of shots.
        mean_q: float64 (groups,), q over the groups that the mean over the numbers of shots is not 0.
        kinds: what each group's influence does, in words; `pydt.analyses.shots_kinds.MEANING` explains them.
        shares: parts of the variance between models at each number of shots; None where there are too few models for
            the groups.
        spread, spread_low, spread_high: float64 (J,), standard deviation over the groups of the true influences.
        agreement: by positions (a, b) of numbers of shots, a < b, how alike they order groups; empty with
            fewer than five groups. differ: by the same, p that the true influences are proportional, after Holm over
            the pairs; NaN where a number of shots shows no true influence.
        lists: what one list of the lowest groups costs at each number of shots, by the models there are; None where
            half of them do not tell the groups apart. kept: the same by retraining; None where nothing was retrained.
    """

    shots: tuple[int | str, ...]
    constant: tuple[int | str, ...]
    groups: tuple[str, ...]
    output: str
    unit: str
    models: int
    method: str
    estimand: str
    values: Array
    stderr: Array
    low: Array
    high: Array
    trend: Trend
    any_change: Array
    mean_q: Array
    kinds: tuple[str, ...]
    shares: VarianceShares | None
    spread: Array
    spread_low: Array
    spread_high: Array
    agreement: Mapping[tuple[int, int], TrueAgreement]
    differ: Mapping[tuple[int, int], float]
    lists: Lists | None
    kept: KeptLists | None
    _view: EnsembleView = field(repr=False)

    def of_kind(self, kind: str) -> list[str]:
        """The groups of a kind, the surest change first."""
        return [self.groups[i] for i in self.order() if self.kinds[i] == kind]

    def order(self) -> np.ndarray:
        """Positions of the groups: those that change, by p of the trend; then the others, the surest first."""
        changed = np.array([kind in CHANGED for kind in self.kinds])
        size = np.where(changed, -np.nan_to_num(self.trend.p, nan=1.0), _surest(self.values, self.stderr))
        return np.lexsort((-size, ~changed))

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each group and number of shots: "group", "shots", "value", "stderr",
        "low" and "high" (95 %, of all numbers of shots at once); and of the group, the same on each of its lines,
        "change" with "change_stderr" and "change_q", and "kind". Its `attrs` name the unit.

        Raises:
            ConfigError: pandas is not installed.
        """
        groups, shots = self.values.shape
        parts = {"value": self.values, "stderr": self.stderr, "low": self.low, "high": self.high}
        trend = {"change": self.trend.values, "change_stderr": self.trend.stderr, "change_q": self.trend.q}
        return to_frame(
            {
                "group": [name for name in self.groups for _ in range(shots)],
                "shots": list(self.shots) * groups,
                **{name: part.reshape(-1) for name, part in parts.items()},
                **{name: np.repeat(part, shots) for name, part in trend.items()},
                "kind": [kind for kind in self.kinds for _ in range(shots)],
            },
            "ByShots",
            unit=self.unit,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the six groups whose influence changes most surely, by number of shots.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shown = self.order()[:_CURVES]
        reach = np.stack([self.values[shown] - self.low[shown], self.high[shown] - self.values[shown]], 1)
        labels = "shots", f"influence ({self.unit}), 95 % intervals"
        changed = count(int((self.trend.q < LEVEL).sum()), "group")
        title = f"{changed} of {len(self.groups):,} surely change with shots"
        names = [self.groups[i] for i in shown]
        return curve_plot(names, [_tick(k) for k in self.shots], self.values[shown], reach, labels, title, ax)

    def __repr__(self) -> str:
        facts = f"{count(len(self.groups), 'group')}, {count(self.models, 'model')}, {self.unit}"
        changed = [self.groups[i] for i in self.order() if self.trend.q[i] < LEVEL]
        named = f": {listed(changed, 3)}" if changed else ""
        shots = ", ".join(map(str, self.shots))
        return f"ByShots({shots} shots: {facts}; {count(len(changed), 'group')} surely change at q < {LEVEL}{named})"

    def _repr_html_(self) -> str:
        order = self.order()
        ends = f"at {_tick(self.shots[0])}", f"at {_tick(self.shots[-1])}"
        rows = (
            (self.groups[i], *self.values[i, [0, -1]], self.trend.values[i], self.trend.q[i], self.kinds[i])
            for i in order
        )
        return html_table(repr(self), ("group", *ends, "change", "q", "what it does"), rows, len(order), "groups")

    def page(self) -> Page:
        """What a reader sees."""
        return _page(self)


def influence_by_shots(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    *,
    target: str | None = None,
    mode: str | None = None,
    tasks: Mapping[int | str, str] | None = None,
    output: str | None = None,
    sizes: Sequence[int] | None = None,
    repeats: int = 0,
    steps: str = "same",
    seed: int = 0,
    runner: Runner = run_row,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool | str = True,
) -> ByShots:
    """Find out which groups matter at how many labelled images of a class ("shots"), and whether one list serves all.

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own.
        target, mode: name of the target, and the way to transfer; by default those of the first that the plan has at
            two numbers of shots or more.
        tasks: number of shots (or "full") -> name of a task, where the plan does not say itself: of measures.
        output: of which the influences are (see `pydt.store.units_of`); by default the target's metric.
        repeats: how often each list of lowest groups is left out and the rest retrained, see `kept_lists` in
            `pydt.analyses.shots_removal`; 0 retrains nothing. This needs a Plan.
        sizes: numbers of lowest groups that are left out then; by default a quarter and a half of the groups.
        steps: "same" retrains for the steps that the full source takes, "epochs" for the plan's epochs.
        seed: of random halves, simulations and retrainings.
        runner, executor, workers, progress: of the retrainings, see `pydt.run`.

    Raises:
        ConfigError: no target at two numbers of shots; an unknown name or output; tasks beside a target or mode, or of
            different units; retraining without a Plan, or with an argument out of range; sizes without repeats.
        EstimateError: all models have the same output at all numbers of shots but one, or there are too few of them.
        StoreError: no such plan, or fewer than ten finished rows.
    """
    if sizes is not None and not repeats:
        raise ConfigError("sizes without retraining", "influence_by_shots", "ask for repeats, too: repeats=6")
    opened = store if isinstance(store, Store) else Store(store)
    asked = shots_tasks(opened.plan(plan), target, mode, tasks)
    view = EnsembleView.of(opened, plan, asked.tasks[0])
    output = view.output(output)
    drawn = [_means(view, task, output) for task in asked.tasks]
    varies = [bool(np.ptp(score) > _ROUNDING * np.abs(score).max()) for score in (one.mean(1) for one, _ in drawn)]
    if sum(varies) < 2:
        wrong = (
            f"all models have the same {called_output(output)} at {len(varies) - sum(varies)} of {len(varies)} numbers"
        )
        raise EstimateError(f"{wrong} of shots", "influence_by_shots", "there is nothing to compare: choose an output")
    shots = tuple(k for k, one in zip(asked.shots, varies, strict=True) if one)
    tasks_there = tuple(task for task, one in zip(asked.tasks, varies, strict=True) if one)
    drawn = [pair for pair, one in zip(drawn, varies, strict=True) if one]
    scores, reports = [score for score, _ in drawn], [report for _, report in drawn]
    found, judged = (np.stack([one.mean(1) for one in parts], 1) for parts in (scores, reports))
    method = method_for(view.record, view.masks)
    method = "difference" if method == "lasso" else method  # the LASSO has no joint errors
    joint = joint_influences(view.masks, found, method)
    if not np.isfinite(joint.stderr).any():
        mend = "train models on more different masks"
        raise EstimateError(f"{count(joint.models, 'model')} leave no errors of influences", "influence_by_shots", mend)
    trend = joint.trend()
    low, high = joint.low, joint.high
    mean_q = benjamini_hochberg(p_values(*joint.contrast(np.full(len(shots), 1 / len(shots))), joint.df))
    agreement = {} if len(joint.values) < _FEWEST_GROUPS else true_agreements(joint, seed)
    p = holm([one.p_same for one in agreement.values()])
    kept = None
    if repeats:
        varying = replace(asked, shots=shots, tasks=tasks_there)
        kept = kept_lists(
            opened, cast("Plan", plan), varying, joint.values, joint.stderr, sizes=sizes, repeats=repeats, steps=steps,
            seed=seed, runner=runner, executor=executor, workers=workers, progress=progress,
        )  # fmt: skip
    return ByShots(
        shots=shots,
        constant=tuple(k for k in asked.shots if k not in shots),
        groups=view.record.names,
        output=output,
        unit=view.unit(output).name,
        models=joint.models,
        method=method,
        estimand=joint.estimand,
        values=joint.values,
        stderr=joint.stderr,
        low=low,
        high=high,
        trend=trend,
        any_change=joint.any_change(),
        mean_q=mean_q,
        kinds=kinds_of(joint.values, low, high, trend.q, mean_q),
        shares=_shares(view, tasks_there, scores, reports, seed),
        agreement=agreement,
        differ=dict(zip(agreement, p.tolist(), strict=True)),
        lists=lists_of(view.masks, found, judged, method, seed),
        kept=kept,
        _view=view,
        **dict(zip(("spread", "spread_low", "spread_high"), joint.spread(), strict=True)),
    )


def _means(view: EnsembleView, task: str, output: str) -> tuple[Array, Array]:
    """Mean output of each model with each draw over the score half, and over the report half, in the output's unit:
    float64 (models, draws). Each stored cell is read once."""
    store, record = view.store, view.record
    column = [known["digest"] for known in record.tasks].index(task)
    described = record.tasks[column]
    unit = unit_of(described, output)
    if unit != view.unit(output):
        wrong = f"{unit.name} of {described['name']!r}, {view.unit(output).name} of {view.described['name']!r}"
        raise ConfigError(wrong, "influence_by_shots, tasks", "compare tasks of one unit")
    examples = store.examples(task, "all", record)
    weights = np.stack([examples["weights"] * (examples["half"] == HALVES[half]) for half in HALVES], 1) * unit.factor
    parts = []
    for position in store.finished(record).tolist():
        key = record.cells[position, column].tobytes().hex()
        drawn = per_draw(store.get(key), examples["labels"], output, str(store.path(key)))
        parts.append(drawn.astype(np.float64) @ weights)
    both = np.stack(parts)
    return both[..., 0], both[..., 1]


def _shares(
    view: EnsembleView, tasks: Sequence[str], scores: list[Array], reports: list[Array], seed: int
) -> VarianceShares | None:
    """Parts of the variance between models, from at most `_ROWS` of them; None where these are too few."""
    models = len(view.masks)
    chosen = np.linspace(0, models - 1, min(models, _ROWS)).round().astype(np.int64)
    parts = ([one[chosen] for one in own] for own in (scores, reports))
    try:
        return variance_shares(view.masks.take(chosen), *parts, part=[_part(view, task) for task in tasks], seed=seed)
    except EstimateError:
        return None


def _part(view: EnsembleView, task: str) -> float:
    """Of the noise of images in the difference of both halves, the part of the score half."""
    score, report = (
        float((view.store.examples(task, half, view.record)["weights"].astype(np.float64) ** 2).sum())
        for half in HALVES
    )
    return score / (score + report)


def _surest(values: Array, stderr: Array) -> Array:
    """The largest |value| / standard error of each group; 0 where no error is known."""
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(values / stderr)
    return np.asarray(np.where(np.isfinite(t), t, 0.0).max(1))


def _at(shots: int | str) -> str:
    return f"with {_named(shots)}" if shots == FULL else f"at {_named(shots)}"


def _named(shots: int | str) -> str:
    return "all labelled images" if shots == FULL else count(int(shots), "shot")


def _tick(shots: int | str) -> str:
    return "all" if shots == FULL else str(shots)


def _page(found: ByShots) -> Page:
    ticks, kept = [_tick(k) for k in found.shots], found.kept
    return Page(
        name="shots",
        title="By number of shots",
        question="Which groups matter at how many labelled images of a class, and does one list serve all?",
        answer=found._view.told(_answer(found), *(() if kept is None else (kept.failed, kept.retrained))),
        blocks=_blocks(found, ticks),
        csv=_csv(found, ticks),
        method=_method(found),
    )


def _answer(found: ByShots) -> list[str]:
    """At most eight sentences, and what was left out; what they rest on stands in the notes of the blocks."""
    sentences = [_first(found), _remains(found) or _sure(found)]
    sentences += _one_list(found) if found.kept is None else found.kept.sentences()
    sentences += [*_explained(found), _same_order(found), _detectable(found)]
    if found.constant:
        where = ", ".join(_named(k) for k in found.constant)
        sentences.append(f"Left out, since all models have the same {called_output(found.output)} there: {where}.")
    return sentences


_DOES = {
    FEW: ("matters mainly at few shots", "matter mainly at few shots"),
    MANY_SHOTS: ("matters mainly at many shots", "matter mainly at many shots"),
    FADES: ("fades as shots grow", "fade as shots grow"),
    GROWS: ("grows with shots", "grow with shots"),
    TURNS: ("changes its sign", "change their sign"),
    CHANGES: ("changes in another way", "change in other ways"),
    ALIKE: ("matters at all numbers of shots", "matter at all numbers of shots"),
}
_ENDS = {FEW: -1, MANY_SHOTS: 0}  # where a group of this kind may still matter


def _first(found: ByShots) -> str:
    parts = []
    if not any(kind in CHANGED for kind in found.kinds):
        parts.append("none is found to change with the number of labelled images")
    for kind, (one, many) in _DOES.items():
        if names := found.of_kind(kind):
            parts.append(f"{len(names):,} {one if len(names) == 1 else many} ({listed(names, _FEW_NAMES)})")
    return f"Of {count(len(found.groups), 'group')} ({count(found.models, 'model')}), {', '.join(parts)}."


def _remains(found: ByShots) -> str:
    """What groups that matter mainly at one end may still do at the other; "" where there are none."""
    parts = []
    for kind, end in _ENDS.items():
        own = [i for i, one in enumerate(found.kinds) if one == kind]
        if own:
            most = float(np.abs([found.low[own, end], found.high[own, end]]).max())
            size = number(most, digits_for(float(np.nanmedian(found.stderr[:, end]))))
            parts.append(f"up to {size} {found.unit} may remain {_at(found.shots[end])}")
    return f"Mainly does not mean only: {' and '.join(parts)} (95 % for each group)." if parts else ""


def _sure(found: ByShots) -> str:
    sure, groups = int(((found.low > 0) | (found.high < 0)).any(1).sum()), len(found.groups)
    return (
        f"{sure:,} of {groups:,} {sure_to(found.estimand)} at some number of shots (by chance alone "
        f"{number(LEVEL * groups, 0 if LEVEL * groups > 2 else 1)} would)."
    )


def _one_list(found: ByShots) -> list[str]:
    """Whether one list serves all, and what it is worth, by the models there are."""
    lists = found.lists
    if lists is None:
        return ["Whether one list serves all is not judged: half of the models do not tell the groups apart."]
    dear = ", ".join(_at(found.shots[j]) for j in _costs(lists)[0])
    verdict = f"By the models there are, one common list of the {count(lists.size, 'lowest group')} "
    verdict += f"does not serve all numbers of shots: {dear} its own list is lower." if dear else (
        "is not found worse than each number of shots' own list."
    )  # fmt: skip
    first, last = (
        f"{plus_minus(float(lists.worth[-1, j]), float(lists.stderr[-1, j]))} {found.unit} {_at(found.shots[j])}"
        for j in (0, -1)
    )
    return [
        verdict,
        f"Groups on the common list have a mean influence of {first} and {last}; what leaving them out gains only "
        "retraining tells.",
    ]


def _explained(found: ByShots) -> list[str]:
    """How much of the models' differences the groups explain, and whether noise of draws and images makes its fall."""
    shots, shares = found.shots, found.shares
    if shares is None:
        return ["How much the groups explain is not told: there are too few models for so many groups."]
    most = int(np.nanargmax(shares.groups.values[:-1]))
    first, last = (f"{_with_ends(shares.groups, j)} {_at(shots[j])}" for j in (most, -1))
    of = called_output(found.output)
    below = min(shares.groups.values[[most, -1]]) < 0
    unbiased = " (an unbiased estimate of a small share may be below 0)" if below else ""
    sentences = [f"Of the variance of {of} between models the groups explain {first} and {last}{unbiased}."]
    others = len(shots) - 1  # of which the largest share was picked
    fall, without = (shares.difference(most, others, part, tests=others) for part in ("groups", "noiseless"))
    if not fall.low > 0:
        return sentences
    noise = "noise of which images are labelled and judged"
    if not np.isfinite([without.value, without.low]).all():
        return [*sentences, f"How much of this fall is {noise} cannot be told."]
    ends = " and ".join(number(float(shares.noiseless.values[j]), 2) for j in (most, -1))
    if without.low > 0:
        told = f"This fall is not only {noise}"
    elif without.value < fall.value / 2:
        told = f"Most of this fall seems to be {noise}"
    else:
        told = f"Whether this fall is more than {noise} could not be told"
    return [*sentences, f"{told}: without it the shares are {ends}."]


def _with_ends(part: Share, j: int) -> str:
    return "{} ({} to {})".format(*(number(float(end[j]), 2) for end in (part.values, part.low, part.high)))


def _differing(found: ByShots) -> list[tuple[int, int]]:
    """The pairs of numbers of shots whose true influences surely are not proportional, the surest first."""
    return sorted((pair for pair, p in found.differ.items() if p < LEVEL), key=lambda pair: found.differ[pair])


def _untold(found: ByShots) -> list[tuple[int, int]]:
    """The other pairs whose orders may still be quite different."""
    surely = _differing(found)
    return [pair for pair, one in found.agreement.items() if pair not in surely and not one.low > _WIDE]


def _same_order(found: ByShots) -> str:
    """Whether numbers of shots order the groups differently."""
    if not found.agreement:
        return "Orders are not compared: there are too few groups."
    surely, untold, pairs = _differing(found), _untold(found), len(found.differ)
    if surely:
        verb, p = "orders" if len(surely) == 1 else "order", p_text(found.differ[surely[0]])
        a, b = (_tick(found.shots[j]) for j in surely[0])
        return (
            f"{len(surely)} of {count(pairs, 'pair')} of numbers of shots {verb} the groups differently, most surely "
            f"{a} and {b} ({p})."
        )
    if len(untold) == pairs:
        return "Whether numbers of shots order the groups alike could not be told."
    text = "No two numbers of shots are found to order the groups differently"
    if any(kind in CHANGED for kind in found.kinds):
        text += ": all true influences may change by one factor"
        if found.spread[0] > 0:
            factor = number(float(found.spread[-1] / found.spread[0]), 2)
            text += f" ({factor} from {_named(found.shots[0])} to {_named(found.shots[-1])})"
    return text + (f"; in {len(untold)} of {count(pairs, 'pair')} other orders could hide." if untold else ".")


def _detectable(found: ByShots) -> str:
    """What change would have been found."""
    error, df = float(np.nanmedian(found.trend.stderr)), float(np.nanmedian(found.trend.df))
    least = number(detectable(error, df, len(found.groups), LEVEL / 2), digits_for(error))
    text = f"A change of a typical group by {least} {found.unit} would be found with a probability of 80 %"
    if not found.spread[0] > 0:
        return f"{text}."
    spread = number(float(found.spread[0]), digits_for(error))
    return f"{text}; the true influences {_at(found.shots[0])} have a standard deviation of {spread}."


def _tested(found: ByShots) -> str:
    """What the tests of change find, for the note of all groups."""
    trend, groups = found.trend, len(found.groups)
    many, clearest = int((trend.q < LEVEL).sum()), ""
    if many:
        i = int(np.nanargmin(trend.p))
        change = plus_minus(float(trend.values[i]), float(trend.stderr[i]))
        clearest = f", most clearly {quoted(found.groups[i])} by {change} {found.unit}"
    any_change = int((benjamini_hochberg(found.any_change) < LEVEL).sum())
    return (
        f"{many:,} of {groups:,} influences change from {_named(found.shots[0])} to {_named(found.shots[-1])} along a "
        f"straight line{clearest} (q < {LEVEL} over the groups). A rise that an equal fall follows is no such change; "
        f"Hotelling's test of any difference sees it, with less power for the rest, and finds {any_change:,}."
    )


def _intervals_left(found: ByShots) -> str:
    """The intervals of the first groups that matter mainly at one end, at the other."""
    text = ""
    for kind, end in _ENDS.items():
        digits, told = digits_for(float(np.nanmedian(found.stderr[:, end]))), []
        for name in found.of_kind(kind)[:_FEW_NAMES]:
            i = found.groups.index(name)
            low, high = (number(float(part[i, end]), digits, True) for part in (found.low, found.high))
            told.append(f"{quoted(name)} {low} to {high}")
        text += f" {_at(found.shots[end]).capitalize()} there may remain: {', '.join(told)}." if told else ""
    return text


def _noise_told(found: ByShots) -> str:
    """The shares without noise, with their intervals, and what the noises are."""
    shares, note = found.shares, "Shares of the variance between models, with 95 % intervals."
    assert shares is not None
    most = int(np.nanargmax(shares.groups.values[:-1]))
    if not np.isfinite(shares.noiseless.values[[most, -1]]).all():
        return note
    first, last = (f"{_with_ends(shares.noiseless, j)} {_at(found.shots[j])}" for j in (most, -1))
    return f"{note} Without noise the groups explain {first} and {last}."


def _orders_told(found: ByShots) -> str:
    """What the table of pairs of numbers of shots says of the first and the last, and of all."""
    ends, surely, untold = found.agreement[0, len(found.shots) - 1], _differing(found), _untold(found)
    first, last = _at(found.shots[0]), _at(found.shots[-1])
    if np.isfinite(ends.rho):
        text = (
            f"The true influences {first} and {last} correlate with {number(ends.rho, 2)} ({number(ends.low, 2)} to "
            f"{number(ends.high, 2)}). The estimates have a rank correlation of {number(ends.rank, 2)}; unrelated true "
            f"influences would give {number(ends.by_noise_alone, 2)} by shared noise alone."
        )
    else:
        text = f"{first[0].upper()}{first[1:]} or {last} no true influence is seen, and the two cannot be compared."
    known = [(p, pair) for pair, p in found.differ.items() if np.isfinite(p)]
    if surely:
        pairs = ", ".join(f"{_tick(found.shots[a])} and {_tick(found.shots[b])}" for a, b in surely)
        text += f" Different orders: {pairs}."
    elif known:
        p, (a, b) = min(known)
        text += f" The smallest p of one order: {p_text(p)}, {_tick(found.shots[a])} and {_tick(found.shots[b])}."
    if untold:
        text += f" In {len(untold)} the interval of the correlation reaches below {_WIDE}: orders may differ there."
    return f"{text} {_PAIRS}"


def _spreads(found: ByShots) -> str:
    def told(j: int) -> str:
        digits = digits_for(float(found.spread_high[j] - found.spread_low[j]) / 4)
        ends = (number(float(part[j]), digits) for part in (found.spread_low, found.spread_high))
        return f"{number(float(found.spread[j]), digits)} ({' to '.join(ends)}) {_at(found.shots[j])}"

    return (
        f"True influences, errors taken out, have a standard deviation of {told(0)} and of {told(-1)}, {found.unit}, "
        "with 95 % intervals."
    )


def _costs(lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Where the own list is surely lower than the common one, and where it is surely higher."""
    reach = t975(None, len(lists.cost)) * lists.cost_stderr
    return np.flatnonzero(lists.cost > reach), np.flatnonzero(-lists.cost > reach)


def _lists_told(found: ByShots) -> str:
    """What the table of lists shows, and the largest cost of the common one."""
    lists = found.lists
    assert lists is not None
    reach = t975(None, len(found.shots)) * lists.cost_stderr
    digits = digits_for(float(np.median(lists.cost_stderr)))
    worst, (dear, cheap) = int(np.argmax(lists.cost)), _costs(lists)
    text = (
        f"Mean influence of the {count(lists.size, 'lowest group')}, {found.unit}. Chosen by one half of the models on "
        f"the score half, valued by the other on the report half; {count(lists.splits, 'random split')}. Lower is a "
        "better list to leave out. Cost of the common list: its value less that of the list of the same number of "
        f"shots; the largest is {number(float(lists.cost[worst]), digits, True)} \u00b1 "
        f"{number(float(lists.cost_stderr[worst]), digits)}, {_at(found.shots[worst])}"
    )
    text += "." if len(dear) else f", and one of {number(float((lists.cost + reach).max()), digits)} could be hidden."
    if len(cheap):
        where = ", ".join(_at(found.shots[j]) for j in cheap)
        text += f" The common list is even the better one {where}: outputs at all numbers of shots stand behind it."
    return text


def _blocks(found: ByShots, ticks: list[str]) -> list[Block]:
    order = found.order()
    names = [found.groups[i] for i in order]
    thumbnails = found._view.store.thumbnails(found._view.record)
    changed = sum(kind in CHANGED for kind in found.kinds)
    which = f"The {count(changed, 'group')} that change, then the surest" if changed else "The surest groups"
    curves = Multiples(
        names,
        ticks,
        found.values[order],
        found.low[order],
        found.high[order],
        found.unit,
        "shots",
        "Influence by number of shots",
        f"{which}. Bars: 95 % intervals for all numbers of shots at once; {signs(found.estimand)}. Filled: the "
        f"influence changes (q < {LEVEL}).{_intervals_left(found)}",
        marked=[bool(found.trend.q[i] < LEVEL) for i in order],
        captions=[found.kinds[i] for i in order],
        images=thumbnails or None,
    )
    blocks: list[Block] = [curves]
    if found.shares is not None:
        shares = [getattr(found.shares, part) for part in _PARTS]
        explained = Multiples(
            list(_PARTS.values()),
            ticks,
            np.stack([part.values for part in shares]),
            np.stack([part.low for part in shares]),
            np.stack([part.high for part in shares]),
            "share",
            "shots",
            "What the differences between models are made of",
            _noise_told(found),
        )
        blocks.append(explained)
    if found.agreement:
        title = "Do two numbers of shots order groups alike?"
        blocks.append(Table.of(found.agreement, _pair_columns(found, ticks), title, _orders_told(found)))
    if found.lists is not None:
        blocks.append(Table.of(range(len(ticks)), _list_columns(found, ticks), "One list for all?", _lists_told(found)))
    if found.kept is not None:
        blocks += found.kept.blocks()
    note = f"{_tested(found)} {_sure(found)} {_spreads(found)} What the kinds mean stands below."
    blocks.append(Table.of(order.tolist(), _group_columns(found, ticks), "All groups", note))
    return blocks


_PAIRS = (
    "95 % intervals. One order: chance of so low an agreement if the true influences were proportional. Unrelated "
    "orders: chance of so high an agreement if they had nothing to do with each other."
)
_PARTS = {
    "groups": "groups",
    "noiseless": "groups, without noise of draws and images",
    "draws": "which images are labelled",
    "images": "which images are judged",
    "rest": "the rest",
}


def _entry(array: Array) -> Callable[[int], float]:
    return lambda i: float(array[i])


def _pair_columns(found: ByShots, ticks: list[str]) -> tuple[Column, ...]:
    agreement = found.agreement
    return (
        Column("shots", lambda pair: ticks[pair[0]]),
        Column("and", lambda pair: ticks[pair[1]]),
        Column("rank correlation seen", lambda pair: float(agreement[pair].rank), digits=2),
        Column("by shared noise alone", lambda pair: float(agreement[pair].by_noise_alone), digits=2),
        Column("correlation of true influences", lambda pair: float(agreement[pair].rho), digits=2),
        Column("low", lambda pair: float(agreement[pair].low), digits=2),
        Column("high", lambda pair: float(agreement[pair].high), digits=2),
        Column("p of one order", lambda pair: float(agreement[pair].p_same), digits=3, only="csv"),
        Column("p of one order, Holm over the pairs", lambda pair: found.differ[pair], digits=3),
        Column("p of unrelated orders", lambda pair: float(agreement[pair].p_unrelated), digits=3),
    )


def _list_columns(found: ByShots, ticks: list[str]) -> list[Column]:
    lists = found.lists
    assert lists is not None
    whose = [*(f"list of {tick}" for tick in ticks), "common list"]
    columns = [Column("valued at", lambda j: ticks[j])]
    for i, name in enumerate(whose):
        columns += [
            Column(f"{name} ({found.unit})", _entry(lists.worth[i]), only="csv"),
            Column(f"stderr of {name}", _entry(lists.stderr[i]), only="csv"),
            Column(name, _entry(lists.worth[i]), only="table"),
        ]
    return [
        *columns,
        Column("cost of the common list", _entry(lists.cost)),
        Column("stderr of the cost", _entry(lists.cost_stderr)),
    ]


def _group_columns(found: ByShots, ticks: list[str]) -> list[Column]:
    trend, q = found.trend, benjamini_hochberg(found.any_change)
    return [
        Column("group", lambda i: found.groups[i]),
        Column("kind", lambda i: found.kinds[i]),
        *(Column(tick, _entry(found.values[:, j]), only="table") for j, tick in enumerate(ticks)),
        Column("trend", _entry(trend.values), only="table"),
        Column(f"trend, first to last ({found.unit})", _entry(trend.values), only="csv"),
        Column("stderr of trend", _entry(trend.stderr)),
        Column("p of trend", _entry(trend.p), only="csv"),
        Column("q of trend", _entry(trend.q), digits=3),
        Column("q of the mean over shots", _entry(found.mean_q), only="csv"),
        Column("p of any change (Hotelling)", _entry(found.any_change), only="csv"),
        Column("q of any change (Hotelling)", _entry(q), only="csv"),
    ]


def _csv(found: ByShots, ticks: list[str]) -> dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]:
    unit = found.unit
    curves = (
        (name, tick, *(float(part[i, j]) for part in (found.values, found.stderr, found.low, found.high)))
        for i, name in enumerate(found.groups)
        for j, tick in enumerate(ticks)
    )
    heads = (
        "group",
        "shots",
        f"influence ({unit})",
        "stderr",
        "low (95 %, simultaneous over shots)",
        "high (95 %, simultaneous over shots)",
    )
    ends = ("values", "stderr", "low", "high")
    shares: dict[str, Array] = {}
    if found.shares is not None:
        for part, name in _PARTS.items():
            shares |= {f"{name}, {end}": getattr(getattr(found.shares, part), end) for end in ends}
    shares |= {
        f"sd of true influences ({unit})": found.spread,
        "sd of true influences, low": found.spread_low,
        "sd of true influences, high": found.spread_high,
    }
    files: dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]] = {
        "curves.csv": (heads, curves),
        "groups.csv": csv_of(range(len(found.groups)), _group_columns(found, ticks)),
        "shares.csv": (("shots", *shares), [(tick, *row) for tick, *row in zip(ticks, *shares.values(), strict=True)]),
    }
    if found.agreement:
        files["agreement.csv"] = csv_of(found.agreement, _pair_columns(found, ticks))
    if found.lists is not None:
        files["lists.csv"] = csv_of(range(len(ticks)), _list_columns(found, ticks))
    return files | (found.kept.csv() if found.kept is not None else {})


def _method(found: ByShots) -> str:
    turned = f"\n\n{found._view.turned}" if found._view.turned else ""
    return _METHOD.format(
        output=called_output(found.output),
        models=count(found.models, "model"),
        how=ESTIMATORS[found.method].phrase,
        kinds="\n".join(f"    {kind}: {meaning}" for kind, meaning in MEANING.items()),
        splits=found.lists.splits if found.lists else 0,
        turned=turned,
    )


_METHOD = """Influences on the {output} at each number of shots (mean over the score images and the few-shot draws), by
{how}; {models}. Errors, and what is called true, are those of more models on these labelled and judged images: other
images would change influences, too. All numbers of shots have the same models, so their errors are correlated; the
covariance over shots of one group's errors is estimated:

    cov(a, b) = (V_a + V_b - V_(a-b)) / 2,  V = squared standard error on column a, on b, on their difference
    simultaneous interval: value +- m x stderr,  m = 95 % quantile of the largest |t| over the numbers of shots
    trend: sum over places x_j = 0, 1, ... of c_j value_j,  c_j = (x_j - mean) (J - 1) / sum of (x - mean)^2;  t test
    q: Benjamini and Hochberg over the groups

What the kinds say (sure: the simultaneous interval excludes 0):

{kinds}

Standard deviation of the true influences, and their correlation at two numbers of shots, leave the errors out:

    sd^2 = variance over groups of the values - mean squared error

Parts of the variance between models, by products of residuals of the score half and of the report half; errors by a
jackknife over models:

    groups = adjusted R^2
    images = what the two halves do not share, the score half's part
    draws = what they share of one draw that is not that of all draws
    without noise = share of the groups in what the halves share, less the draws

One list for all: the lowest quarter of the groups by each ranking, and by the mean over the numbers of shots of
value / standard error; chosen by one half of the models on the score half, valued by the other half on the report half,
{splits} random splits, both ways, with the same few-shot draws. A standard error is that of one way over
sqrt(2).{turned}"""
