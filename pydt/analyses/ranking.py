"""Rankings: which groups help and which do not, for the whole target, each of its classes, or each of its examples.

    influence of k on column j = coefficient of group k in the regression of the models' outputs on their masks; the
                                 output of a column is the mean over its examples (the target, a class, one example)
    how sure is one influence  t test; q over the groups of a column, and over all groups and columns as one family
    is there anything at all   influences from some models predict others: `prediction_test`, `lds` of single examples
    what are the leaders worth "the k largest" by a random half of the models, valued by the other half

Jain et al. 2023, sections 2 and 3; their own estimator is `estimator="paper"`. Why these three, and where pydt departs
from the paper: docs/analyses.md, "Rankings". Over 500 lines, since one result has pages about three kinds of columns.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import LEVEL, NEEDS_PER, Array, EnsembleView, sure_to
from pydt.analyses.sample_splitting import ERROR_OF_WAYS, SPLITS, average, halves
from pydt.base import (
    Z975,
    ConfigError,
    EstimateError,
    Short,
    extremes,
    html_table,
    influence_table,
    one_of,
    to_frame,
    whole,
    write_atomic,
)
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.estimation import (
    ESTIMATORS,
    MANY,
    Fit,
    PredictionTest,
    Score,
    benjamini_yekutieli,
    best_method,
    global_test,
    influences,
    lds,
    method_for,
    p_values,
)
from pydt.reporting import (
    Block,
    Column,
    Intervals,
    Page,
    Table,
    called_output,
    count,
    csv_of,
    digits_for,
    interval_plot,
    listed,
    number,
    p_text,
    plus_minus,
    quoted,
    signs,
)
from pydt.store import Record, Store

PER = ("target", "class", "example")
_LEADERS = 10
MOST_PAIRS = 1_000_000
"""Pairs of group and column up to which a page's file lists all; beyond, it lists the extreme groups of each column."""
_SHOWN = 12  # classes, images or pairs of which a page shows the leaders
_PERMUTATIONS = 49  # of the score of single examples, each of which makes a cross-fit


@dataclass(frozen=True, eq=False, repr=False)
class Leaders(Short):
    """What the `size` largest (row 0) and smallest (row 1) influences of each column are worth, on average.

    Attributes:
        claimed: float64 (2, columns): by the ranking that chose them, so biased away from zero.
        judged, stderr: the same rule applied to one half of the models and valued by the other (target and classes: on
            the report half too), mean over `splits` random splits and both ways; the standard error is that of one way
            over sqrt(2), see `pydt.analyses.sample_splitting.ERROR_OF_WAYS`.
    """

    size: int
    splits: int
    claimed: Array
    judged: Array
    stderr: Array


@dataclass(frozen=True, eq=False)
class Ranking:
    """Influences of all groups on all columns; see docs/analyses.md.

    Attributes:
        per, output, unit, estimator, estimand: what was estimated; `estimand` as in `pydt.estimation.Fit`.
        groups, columns: names; of examples their positions in the judged data set, of a measure their ids.
        images: int64 (columns,), score examples behind each column.
        values, stderr: float64 (groups, columns). q: within each column; family_q: over all of them.
        kept: int64 (groups,), models with each group; models: all.
        tests: of the target and of each class, else empty; tests_q over the classes. score: of examples, else None.
        leaders: None where half of the models cannot tell the groups apart, and from `pydt.estimation.MANY` groups on.
    """

    per: str
    output: str
    unit: str
    estimator: str
    estimand: str
    groups: tuple[str, ...]
    columns: tuple[str, ...]
    images: npt.NDArray[np.int64]
    values: Array
    stderr: Array
    q: Array
    family_q: Array
    kept: npt.NDArray[np.int64]
    models: int
    tests: tuple[PredictionTest, ...]
    tests_q: Array
    score: Score | None
    leaders: Leaders | None
    _fit: Fit = field(repr=False)
    _view: EnsembleView = field(repr=False)

    def column(self, name: str | int = 0) -> int:
        """Position of a column, by position or name.

        Raises:
            ConfigError: there is none.
        """
        if isinstance(name, str) and name in self.columns:
            return self.columns.index(name)
        if isinstance(name, str) or not 0 <= name < len(self.columns):
            some = ", ".join(self.columns[:8])
            raise ConfigError(f"no column {name!r} among {len(self.columns)}", "Ranking", f"there are: {some}")
        return int(name)

    def order(self, column: str | int = 0) -> npt.NDArray[np.intp]:
        """The groups of a column from the most to the least helpful, as positions."""
        return np.argsort(-self.values[:, self.column(column)], kind="stable")

    def top(self, number: int = _LEADERS, column: str | int = 0) -> list[str]:
        """The names of the most helpful groups, the best first."""
        return [self.groups[i] for i in self.order(column)[:number]]

    def bottom(self, number: int = _LEADERS, column: str | int = 0) -> list[str]:
        """The names of the least helpful groups, the worst first."""
        return [self.groups[i] for i in self.order(column)[::-1][:number]]

    def keep_list(self, drop: int, column: str | int = 0, end: str = "bottom") -> list[str]:
        """The names of the groups that stay, in mask order, when the `drop` lowest ("bottom") or highest ("top") go.

        `removal_curve(keep_lists=...)` takes it, and so can any other trainer.

        Raises:
            ConfigError: nothing would stay, or another end.
        """
        if end not in ("bottom", "top") or not 0 <= drop < len(self.groups):
            mend = f'drop 0 to {len(self.groups) - 1} from the "bottom" or the "top"'
            raise ConfigError(f"{drop} from the {end!r}", "keep_list", mend)
        order = self.order(column)
        gone = set((order[::-1] if end == "bottom" else order)[:drop].tolist())
        return [name for i, name in enumerate(self.groups) if i not in gone]

    def write_keep_list(
        self, path: str | os.PathLike[str], drop: int, column: str | int = 0, end: str = "bottom"
    ) -> None:
        """Write `keep_list` to a text file, one name a line: what `pydt analyse --keep` reads.

        Raises:
            ConfigError: as `keep_list`, or a name that is not one line. StoreError: the file cannot be written.
        """
        names = self.keep_list(drop, column, end)
        for name in names:
            if [name] != name.strip().splitlines():
                raise ConfigError(f"the name {name!r} is not one line", "write_keep_list", "use keep_list()")
        write_atomic(Path(path), "".join(f"{name}\n" for name in names).encode())

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each group and column: "group", "column", "value", "stderr", "low" and
        "high" (95 %), "q", "family_q", "kept"; its `attrs` name the unit.

        Raises:
            ConfigError: pandas is not installed.
        """
        reach, (groups, columns) = _quantile(self) * self.stderr, self.values.shape
        parts = {"value": self.values, "stderr": self.stderr, "low": self.values - reach, "high": self.values + reach}
        parts |= {"q": self.q, "family_q": self.family_q}
        return to_frame(
            {
                "group": [name for name in self.groups for _ in range(columns)],
                "column": list(self.columns) * groups,
                **{name: part.reshape(-1) for name, part in parts.items()},
                "kept": np.repeat(self.kept, columns),
            },
            "Ranking",
            unit=self.unit,
        )

    def plot(self, column: str | int = 0, ax: Any = None) -> Any:
        """Draw the highest and the lowest influences of a column with their 95 % intervals.

        Args:
            column: position or name. ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.

        Raises:
            ConfigError: there is no such column.
        """
        at = self.column(column)
        shown = extremes(self.values[:, at])
        values, low, _ = _interval(self, shown, np.full(len(shown), at))
        names = [self.groups[i] for i in shown]
        label = f"influence on {self.columns[at]} ({self.unit}), 95 % intervals"
        return interval_plot(names, values, values - low, label, ax=ax, of=len(self.groups))

    def __repr__(self) -> str:
        groups, columns = self.values.shape
        over_all = " over all" if columns > 1 else ""
        sure = count(int(((self.family_q if columns > 1 else self.q) < LEVEL).sum()), "influence")
        facts = f"{count(groups, 'group')}, {count(columns, 'column')}, {count(self.models, 'model')}, {self.unit}"
        line = f"Ranking(per {self.per}: {facts}; {sure} at q < {LEVEL}{over_all})"
        if columns > 1:
            return line
        some = min(3, max(1, groups // 2))
        return f"{line}\nhighest {listed(self.top(some))}; lowest {listed(self.bottom(some))}"

    def _repr_html_(self) -> str:
        if len(self.columns) == 1:
            reach = (_quantile(self) * self.stderr)[:, 0]
            return influence_table(repr(self), self.groups, self.values[:, 0], reach, self.q[:, 0])
        rows = (
            (
                name,
                int(self.images[j]),
                self.top(1, j)[0],
                self.bottom(1, j)[0],
                int((self.family_q[:, j] < LEVEL).sum()),
            )
            for j, name in enumerate(self.columns)
        )
        heads = self.per, f"{self._view.thing}s", "highest group", "lowest group", "sure groups"
        return html_table(repr(self), heads, rows, len(self.columns), "columns")

    def page(self, most: int = MOST_PAIRS) -> Page:
        """What a reader sees: the answer, the extremes with pictures, and as CSV `most` pairs of group and column."""
        blocks = {"target": _target_blocks, "class": _class_blocks, "example": _example_blocks}[self.per](self)
        answer = {"target": _target_answer, "class": _class_answer, "example": _example_answer}[self.per](self)
        whom = {
            "target": f"{self._view.target_name} as a whole, and which do not",
            "class": f"which class of {self._view.target_name}",
            "example": f"which single {self._view.thing} of {self._view.target_name}",
        }[self.per]
        ends = len(self.groups) if self.values.size <= most else max(1, most // (2 * len(self.columns)))
        rows = (
            (self.columns[j], name, self.values[i, j], self.stderr[i, j], self.q[i, j], self.family_q[i, j], rank + 1)
            for j in range(len(self.columns))
            for rank, i in enumerate(self.order(j))
            for name in [self.groups[i]]
            if min(rank, len(self.groups) - 1 - rank) < ends
        )
        names = (self.per, "group", f"influence ({self.unit})", "stderr", "q within column", "q over all", "rank")
        return Page(
            name=f"ranking-{self.per}",
            title="Ranking" if self.per == "target" else f"Ranking per {_what(self)}",
            question=f"Which groups help {whom}?",
            answer=self._view.told(answer),
            blocks=blocks,
            csv={"influences.csv": (names, rows), "held-out.csv": csv_of(range(len(self.columns)), _held_out(self))},
            method=_method(self),
        )


def ranking(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    per: str = "target",
    *,
    task: Any = None,
    output: str | None = None,
    estimator: str | None = None,
    leaders: int | None = None,
    seed: int = 0,
) -> Ranking:
    """Rank the groups for the whole target, for each of its classes or for each of its score examples (F3, F4).

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own. With a Plan the page shows target images.
        per: "target", "class" (those with examples in both halves) or "example".
        task: which of the plan's tasks; the first by default.
        output: of which the influences are (see `pydt.store.units_of`); by default the target's metric, of single
            examples "probability": on the embedded sample (300 models) influences on it predict held-out models best,
            with a rank correlation of 0.27 against 0.24 (margin) and 0.12 (correct). A measure has "value" alone.
        estimator: "difference", "ols" or "lasso", see `pydt.influences`; by default the one for the plan's
            design. "paper" is the paper's own, see docs/analyses.md.
        leaders: how many of each end are valued together; ten, or a quarter of the groups if that is less.
        seed: of the random halves and permutations.

    Raises:
        ConfigError: an unknown `per`, output or estimator, or a measure without what they need.
        EstimateError: "paper" on a design whose masks do not keep a random half of the groups.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    whole(seed, "seed", "ranking", error=ConfigError)
    one_of(per, PER, "per", "ranking")
    needs = NEEDS_PER[per] if estimator != "paper" else (*NEEDS_PER[per], "logits")
    view = EnsembleView.of(store, plan, task, needs=needs)
    if estimator == "paper":
        check_paper(view.masks, output)
        output = "probability"
    elif estimator not in (None, *(tested := [name for name, one in ESTIMATORS.items() if not one.biased])):
        names = ", ".join(f'"{name}"' for name in tested)
        mend = f'use {names} or "paper": ridge has no standard errors'
        raise ConfigError(f"estimator {estimator!r}", "ranking", mend)
    output = view.output(output, "probability" if per == "example" else "")
    method = method_for(view.record, view.masks) if estimator is None else estimator
    method = "difference" if method == "paper" else method
    found, judged = (view.columns(per, output, half) for half in ("score", "report"))
    fit = influences(view.masks, found, method)
    values, stderr = np.asarray(fit.unbiased, np.float64), np.asarray(fit.stderr, np.float64)
    tests: tuple[PredictionTest, ...] = ()
    score = None
    if per == "example":
        columns = tuple(view.named("score"))
        images = np.ones(len(columns), np.int64)
        score = _score(view.masks, found, method, seed)
        judged = found
    else:
        labels = view.labels("score")
        columns = (view.target_name,)
        images = np.array([len(labels)])
        if per == "class":
            columns = tuple(view.classes[c] for c in view.present)
            images = np.bincount(labels)[view.present]
        both = zip(found.T, judged.T, strict=True)
        tests = tuple(global_test(view.masks, one, other, method)[1] for one, other in both)
    size = max(1, min(_LEADERS, len(values) // 4)) if leaders is None else leaders
    if not 1 <= size <= len(values):
        raise ConfigError(f"{size} leaders of {len(values)} groups", "leaders", "choose fewer")
    return Ranking(
        per=per,
        output=output,
        unit=view.unit(output).name,
        estimator="paper" if estimator == "paper" else fit.method,
        estimand=fit.estimand,
        groups=view.record.names,
        columns=columns,
        images=images,
        values=values,
        stderr=stderr,
        q=np.asarray(fit.q, np.float64),
        family_q=benjamini_yekutieli(p_values(fit.unbiased, fit.stderr, fit.df)),
        kept=fit.counts,
        models=fit.models,
        tests=tests,
        tests_q=benjamini_yekutieli([test.p for test in tests]),
        score=score,
        leaders=_leaders(view.masks, found, judged, method, values, size, seed),
        _fit=fit,
        _view=view,
    )


def check_paper(masks: Design, output: str | None) -> None:
    """Refuse masks that do not keep a random half of the groups, and other outputs than the probability."""
    if output not in (None, "probability"):
        mend = 'leave output out, or choose another estimator: "difference" takes any output'
        raise ConfigError(f"the paper's estimator is of the probability, not of {output!r}", "output", mend)
    sizes = np.unique(np.bitwise_count(masks.packed()).sum(1, dtype=np.int64))
    half = {masks.groups // 2, -(-masks.groups // 2)}
    if masks.estimand != "swap" or masks.strata is not None or len(sizes) != 1 or int(sizes[0]) not in half:
        kept = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        raise EstimateError(
            f"its masks are {masks.kind} and keep {kept} of {masks.groups} groups; the paper's keep a random half",
            'estimator="paper"',
            'draw the design with pydt.design.random(groups, models, alpha=0.5), or use estimator="difference"',
        )


def _score(masks: Design, outputs: Array, method: str, seed: int) -> Score | None:
    """How well influences on single examples predict held-out models; None where no example's output differs."""
    if not (outputs.std(0) > 0).any():
        return None
    try:
        return lds(masks, outputs, method=method, permutations=_PERMUTATIONS, seed=seed)
    except EstimateError:  # four fifths of the models cannot tell the groups apart
        return lds(masks, outputs, method="ridge", permutations=_PERMUTATIONS, seed=seed)


def _leaders(
    masks: Design, found: Array, judged: Array, method: str, values: Array, size: int, seed: int
) -> Leaders | None:
    if masks.groups >= MANY:  # the error of a mean over groups takes the correlations of all
        return None
    ends = (np.argsort(-values, 0, kind="stable")[:size], np.argsort(values, 0, kind="stable")[:size])
    claimed = np.stack([np.take_along_axis(values, end, 0).mean(0) for end in ends])
    total, square = np.zeros_like(claimed), np.zeros_like(claimed)
    try:
        for pair in halves(masks, SPLITS, "leaders", seed):
            for one, other in (pair, pair[::-1]):
                finding, judging = masks.take(one), masks.take(other)
                rule = best_method(finding) if ESTIMATORS[method].needs_regression else method
                first = influences(finding, found[one], rule).unbiased
                second = influences(judging, judged[other], best_method(judging))
                for row, sign in enumerate((-1, 1)):
                    chosen = np.argsort(sign * first, 0, kind="stable")[:size]
                    value, error = average(second, chosen)
                    total[row] += value
                    square[row] += error**2
    except EstimateError:  # a group that one half of the models never keeps
        return None
    ways = 2 * SPLITS
    return Leaders(size, SPLITS, claimed, total / ways, ERROR_OF_WAYS * np.sqrt(square / ways))


_PAPER = "the paper's difference of means on random half masks"


def _target_answer(found: Ranking) -> list[str]:
    test, sure = found.tests[0], int((found.q < LEVEL).sum())
    groups, models = count(len(found.groups), "group"), count(found.models, "model")
    if test.p < LEVEL:
        top, bottom = found.top(_named(found)), found.bottom(_named(found))
        rank = "ranks" if len(top) == 1 else "rank"
        first = f"{listed(top, 3)} {rank} highest of {groups}, {listed(bottom, 3)} lowest ({models})."
    else:
        first = f"The order of {groups} cannot be told from noise with {models}."
    sentences = [
        first,
        f"Influences learnt from some models on the score half predict other models on the report half with "
        f"correlation {number(test.correlation, 2)} ({p_text(test.p)}, {count(test.permutations, 'permutation')} of "
        f"{count(test.n, 'model')}; without any influence 0 \u00b1 {number(test.null_sd, 2)}).",
        f"{sure} of {groups} {sure_to(found.estimand)} (q < {LEVEL}, "
        f"false discovery rate over the groups).{_placebos(found)}",
    ]
    return sentences + _worth(found, 0, "")


def _named(found: Ranking) -> int:
    """How many groups are named from each end: three, and never one from both."""
    return max(1, min(3, len(found.groups) // 2))


def _class_answer(found: Ranking) -> list[str]:
    pairs = np.argwhere(found.family_q < LEVEL)
    able = int((found.tests_q < LEVEL).sum())
    total, models = found.values.size, count(found.models, "model")
    strongest = ""
    if len(pairs):
        i, j = _clearest(found)[0][0], _clearest(found)[1][0]
        value = plus_minus(found.values[i, j], found.stderr[i, j])
        strongest = f" The clearest: {quoted(found.groups[i])} on {quoted(found.columns[j])}, {value} {found.unit}."
    sentences = [
        f"{len(pairs)} of {total:,} pairs of group and class {sure_to(found.estimand)} ({models})." + strongest,
        f"They pass q < {LEVEL} over all pairs as one family (Benjamini-Yekutieli: classes share their models); within "
        f"each class alone {int((found.q < LEVEL).sum())} do (Benjamini-Hochberg).{_placebos(found)}",
        f"In {able} of {len(found.columns)} classes influences from some models on the score half predict other models "
        f"on the report half (q < {LEVEL}, Benjamini-Yekutieli over the classes; median correlation "
        f"{number(float(np.median([test.correlation for test in found.tests])), 2)}).",
    ]
    return sentences + _worth(found, None, " of a class")


def _what(found: Ranking) -> str:
    """What a column is, in a word."""
    return found._view.thing if found.per == "example" else found.per


def _example_answer(found: Ranking) -> list[str]:
    thing = found._view.thing
    sure, models = int((found.family_q < LEVEL).sum()), count(found.models, "model")
    images = count(len(found.columns), thing)
    told = f"all models agree on every {thing}: nothing can be told."
    if found.score is not None:
        told = (
            f"influences on single {thing}s predict held-out models with a rank correlation of "
            f"{number(found.score.lds, 2)} \u00b1 {number(found.score.stderr, 2)} on average (control "
            f"{number(found.score.control, 2)} \u00b1 {number(found.score.control_sd, 2)}, {p_text(found.score.p)})."
        )
    within = np.isfinite(found.q) & (found.q < LEVEL)
    sentences = [
        f"With {models} on {images}, {told}",
        f"{sure:,} of {found.values.size:,} pairs of group and {thing} {sure_to(found.estimand)}, over all pairs as "
        f"one family (q < {LEVEL}, Benjamini-Yekutieli); {int(within.any(0).sum()):,} {thing}s have a group that "
        f"passes within the {thing} alone (Benjamini-Hochberg).{_placebos(found)}",
    ]
    return sentences + _worth(found, None, f" of an {thing}")


def _placebos(found: Ranking) -> str:
    q = found._fit.placebo_q
    if q is None or not q.size:
        return ""
    passes, number_of = q < LEVEL, count(len(q), "placebo")
    if found.per == "target":
        return (
            f" Of {number_of} (columns of the design bound to no {found._view.thing}) {int(passes.sum())} would pass."
        )
    least, many = int(passes.any(0).sum()), len(found.columns)
    what = "classes" if found.per == "class" else f"{found._view.thing}s"
    return (
        f" Of {number_of} (columns of the design bound to no {found._view.thing}) one or more would pass within "
        f"{least:,} of {many:,} {what}; by chance alone {number(LEVEL * many, 1)} are expected."
    )


def _worth(found: Ranking, column: int | None, which: str) -> list[str]:
    leaders = found.leaders
    if leaders is None:
        why = "half of the models do not tell the groups apart"
        if len(found.groups) >= MANY:
            why = f"that is not done for {len(found.groups):,} groups (of single examples, the examples page does it)"
        return [f"What the leaders are worth is not judged: {why}."]
    chosen = slice(None) if column is None else slice(column, column + 1)
    parts = []
    for row, end in enumerate(("highest", "lowest")):
        claimed, judged = leaders.claimed[row, chosen].mean(), leaders.judged[row, chosen].mean()
        error = float(np.sqrt((leaders.stderr[row, chosen] ** 2).mean()))
        digits = digits_for(error)
        one = f"a single column's error {number(error, digits)}" if column is None and len(found.columns) > 1 else ""
        judgement = number(judged, digits, True) if one else plus_minus(judged, error)
        parts.append(f"the {end} {number(claimed, digits, True)} as shown, {judgement} judged{one and f' ({one})'}")
    where = "other models" + ("" if found.per == "example" else " on the report half")
    return [
        f"The leaders are chosen by their own noise too. The {leaders.size} extreme groups{which} together, on average "
        f"a group, in {found.unit}: {'; '.join(parts)}. Judged: chosen by one half of the models, valued by {where}, "
        f"{leaders.splits} random splits."
    ]


def _quantile(found: Ranking) -> Array:
    """The 97.5 % quantile of t of each influence, (groups, columns)."""
    from scipy.special import stdtrit

    return np.broadcast_to(stdtrit(found._fit.df, 0.975), found.values.shape)


def _interval(found: Ranking, rows: np.ndarray, columns: np.ndarray) -> tuple[Array, Array, Array]:
    values, stderr = found.values[rows, columns], found.stderr[rows, columns]
    reach = _quantile(found)[rows, columns] * stderr
    return values, values - reach, values + reach


def _target_blocks(found: Ranking) -> list[Block]:
    order, column = found.order(), np.zeros(len(found.groups), np.intp)
    thumbnails = found._view.store.thumbnails(found._view.record)
    values, low, high = _interval(found, order, column)
    names = [found.groups[i] for i in order]
    noise = None
    if found._fit.placebo_stderr is not None and found._fit.placebo_stderr.size:
        noise = float(Z975 * np.sqrt((found._fit.placebo_stderr.astype(np.float64) ** 2).mean()))
    marked = found.q[order, 0] < LEVEL
    note = f"Influence with 95 % interval; {signs(found.estimand)}. Filled: q < {LEVEL}."
    return [
        Intervals(
            names,
            values,
            low,
            high,
            found.unit,
            "All groups",
            note,
            marked.tolist(),
            thumbnails or None,
            noise,
            places=found._view.store.captions(found._view.record),
        )
    ]


def _class_blocks(found: Ranking) -> list[Block]:
    def ends(j: int, step: int) -> str:
        named = found.order(j)[::step][: _named(found)]
        return ", ".join(f"{found.groups[i]} ({number(found.values[i, j], 1, True)})" for i in named)

    columns = (
        Column("class", lambda j: found.columns[j]),
        Column(f"score {found._view.thing}s", lambda j: found.images[j]),
        Column("highest", lambda j: ends(j, 1)),
        Column("lowest", lambda j: ends(j, -1)),
        Column("sure groups", lambda j: int((found.family_q[:, j] < LEVEL).sum())),
        Column("held-out correlation", lambda j: found.tests[j].correlation),
        Column("p", lambda j: found.tests[j].p, digits=3),
        Column("q over classes", lambda j: found.tests_q[j], digits=3),
    )
    note = f"Influence on the class in {found.unit}; {signs(found.estimand)}."
    return [Table.of(range(len(found.columns)), columns, "Every class", note), _strongest(found, "class")]


def _strongest(found: Ranking, what: str) -> Intervals:
    """The clearest pairs of a group and a column, by t."""
    rows, columns = (part[: 2 * _SHOWN] for part in _clearest(found))
    values, low, high = _interval(found, rows, columns)
    of = found.columns if found.per == "class" else _captions(found)
    names = [f"{found.groups[i]} on {of[j]}" for i, j in zip(rows, columns, strict=True)]
    store, record = found._view.store, found._view.record
    thumbnails, captions = store.thumbnails(record), store.captions(record)
    of_group = {name: found.groups[i] for name, i in zip(names, rows, strict=True)}
    shown = {name: thumbnails[group] for name, group in of_group.items() if group in thumbnails}
    places = {name: captions[group] for name, group in of_group.items() if group in captions}
    note = (
        f"The pairs of group and {what} with the largest influence for its error, of {found.values.size:,}; filled: "
        f"q < {LEVEL} over all pairs. They are the clearest of many, so their values are too far from zero."
    )
    marked = (found.family_q[rows, columns] < LEVEL).tolist()
    title = "The clearest pairs"
    return Intervals(names, values, low, high, found.unit, title, note, marked, shown or None, places=places)


def _captions(found: Ranking) -> tuple[str, ...]:
    """What a page calls each example: its class and position, or the id of an example without a class."""
    thing, classes = found._view.thing, found._view.classes
    if not classes:
        return found.columns
    labels = found._view.labels("score")
    return tuple(f"a {classes[c]} ({thing} {name})" for c, name in zip(labels, found.columns, strict=True))


def _clearest(found: Ranking) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Groups and columns of all pairs, from the largest influence for its error on."""
    order = np.argsort(-_size(found), axis=None, kind="stable")
    rows, columns = np.unravel_index(order, found.values.shape)
    return rows, columns


def _size(found: Ranking) -> Array:
    """|t| of every pair; 0 where all models agree."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.abs(found.values / found.stderr), posinf=0.0)


def _example_blocks(found: Ranking) -> list[Block]:
    view = found._view
    blocks: list[Block] = [_strongest(found, view.thing)]
    if view.target is None:
        return blocks
    images = np.argsort(-_size(found).max(0), kind="stable")[: 2 * _SHOWN]
    labels, few = view.labels("score"), _named(found)
    captions = [
        f"{view.classes[labels[j]]}: + {', '.join(found.top(few, j))}; \u2212 {', '.join(found.bottom(few, j))}"
        for j in images.tolist()
    ]
    title = "Images with the clearest influence: the groups that help most, and least"
    return [*view.images(images, "score", captions, title), *blocks]


def _held_out(found: Ranking) -> list[Column]:
    """What a page tells of each column beside its influences; the records are the columns' positions."""
    tests: Sequence[PredictionTest | None] = found.tests or [None] * len(found.columns)
    scores: Any = [None] * len(found.columns) if found.score is None else found.score.per_target
    held_out = [test.correlation for test in found.tests] or scores
    columns = [
        Column(found.per, lambda j: found.columns[j]),
        Column(f"{found._view.thing}s", lambda j: found.images[j]),
        Column("correlation with held-out models", lambda j: held_out[j]),
        Column("p", lambda j: getattr(tests[j], "p", None)),
        Column("q over columns", lambda j: found.tests_q[j] if found.tests else None),
        Column("permutations", lambda j: getattr(tests[j], "permutations", None)),
    ]
    if found.leaders is not None:
        own = found.leaders
        parts = {"shown": own.claimed, "judged": own.judged, "stderr": own.stderr}
        columns += [
            Column(f"{own.size} {end}, {how}", part[row].__getitem__)
            for row, end in enumerate(("highest", "lowest"))
            for how, part in parts.items()
        ]
    return columns


def _method(found: Ranking) -> str:
    how = _PAPER if found.estimator == "paper" else ESTIMATORS[found.estimator].phrase
    output = called_output(found.output)
    column = {"target": "the target", "class": "a class", "example": f"an {found._view.thing}"}[found.per]
    things = f"{found._view.thing}s"
    paper = ': ranking(..., estimator="paper")' if things == "images" else ""
    turned = f"\n\n{found._view.turned}" if found._view.turned else ""
    meaning = "An influence is given minus the average group's (masks of one size tell no more). "
    return (
        f"Influence on {column}: the coefficient of a group in the regression of the models' {output} (mean over the "
        f"score {things} of {column}) on which groups each model kept, by {how}; {found.models} models.\n\n"
        f"    {output} of a model = constant + sum over kept groups of influence + noise\n\n"
        f"{meaning if found.estimand == 'swap' else ''}"
        "Jain et al. 2023, sections 2 and 3 (class-to-target, class-to-class, class-to-example influence); theirs "
        f"is the difference of mean probabilities on random half masks{paper}. Here the "
        f"{things} that rank (score half) do not judge (report half), and every influence has a standard error.{turned}"
    )
