"""Stability: how alike do rankings from disjoint sets of models come out, by the number of models of each?

    rank correlation  measured up to half of the models, extrapolated beyond (`pydt.analyses.agreement`): n models know
                      f = (n - p - 1) / (s - p - 1) times as much as s by least squares with p parameters, else n / s
    the top k         share of the k highest (lowest) groups that two sets have in common; k / groups by chance

Sets are disjoint: a ranking compared with that of all models, its own among them, would reach 1 whatever the noise.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.agreement import agreement, disjoint_influences, spearman_brown
from pydt.analyses.ensemble_view import NEEDS_PER, Array, EnsembleView
from pydt.analyses.sample_splitting import SPLITS, error_of_ways, halves
from pydt.base import Z975, ConfigError, EstimateError, html_table, one_of, to_frame, whole
from pydt.ensemble import Plan
from pydt.estimation import ESTIMATORS, best_method, influences
from pydt.reporting import Curve, Page, Table, count, curve_plot, number, percent_text, plus_minus
from pydt.store import Record, Store

_FEWEST = 20  # models of a part


@dataclass(frozen=True, eq=False)
class Stability:
    """Agreement of rankings from disjoint sets of models, by their size; see the module's head.

    Attributes:
        per, output, top: what was ranked, and how many groups count as the top.
        sizes: int64 (sizes,), models of each set; methods: the estimator at that size.
        rank, rank_stderr, low, high: float64 (sizes,): rank correlation (mean over the columns), 95 % interval.
        overlap, overlap_stderr: float64 (2, sizes): share of the `top` highest and lowest groups in common.
        further: int64 (n,), sizes extrapolated to (the plan's own first); expected, expected_low, expected_high:
            float64 (n,), their rank correlation by Spearman and Brown from the largest size measured.
        differ, stderr: float64 (sizes,), in `unit`: difference of a group's value between two disjoint sets, over
            sqrt(2), and its estimated standard error: root mean squares over groups, columns and splits.
        by_errors: reliability at the plan's own size by the standard errors: 1 - mean stderr^2 / variance of the
            influences, mean over columns; `expected[0]` estimates the same without them.
    """

    per: str
    output: str
    groups: int
    columns: int
    models: int
    top: int
    splits: int
    sizes: npt.NDArray[np.int64]
    methods: tuple[str, ...]
    rank: Array
    rank_stderr: Array
    low: Array
    high: Array
    overlap: Array
    overlap_stderr: Array
    further: npt.NDArray[np.int64]
    expected: Array
    expected_low: Array
    expected_high: Array
    differ: Array
    stderr: Array
    unit: str
    by_errors: float
    _view: EnsembleView = field(repr=False)

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each size of two disjoint sets of models: "models", "method", "rank"
        with "rank_stderr", "low" and "high" (95 %), "overlap_highest", "overlap_lowest", "differ" and "stderr".

        Raises:
            ConfigError: pandas is not installed.
        """
        columns = {"models": self.sizes, "method": list(self.methods), "rank": self.rank}
        columns |= {"rank_stderr": self.rank_stderr, "low": self.low, "high": self.high}
        columns |= {"overlap_highest": self.overlap[0], "overlap_lowest": self.overlap[1]}
        return to_frame({**columns, "differ": self.differ, "stderr": self.stderr}, "Stability", unit=self.unit)

    def plot(self, ax: Any = None) -> Any:
        """Draw the rank correlation of two disjoint sets by their size, with 95 % intervals.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        order = np.argsort(self.sizes)
        reach = np.stack([self.rank - self.low, self.high - self.rank])[:, order]
        labels = "models of each set", "rank correlation, 95 % intervals"
        ticks = [f"{size:,}" for size in self.sizes[order]]
        return curve_plot(["two disjoint sets"], ticks, self.rank[None, order], reach[None], labels, "", ax)

    def __repr__(self) -> str:
        facts = f"{self.groups:,} groups, {count(self.columns, 'column')}, {count(self.models, 'model')}"
        at = int(np.argmax(self.sizes))
        agree = f"{self.rank[at]:.2f} ({self.low[at]:.2f} to {self.high[at]:.2f})"
        return f"Stability(per {self.per}: {facts}; rankings by {self.sizes[at]:,} models each agree at {agree})"

    def _repr_html_(self) -> str:
        rows = (
            (f"{size:,}", method, f"{rank:.2f}", f"{low:.2f} to {high:.2f}")
            for size, method, rank, low, high in zip(
                self.sizes, self.methods, self.rank, self.low, self.high, strict=True
            )
        )
        heads = "models of each set", "method", "rank correlation", "95 %"
        return html_table(repr(self), heads, rows, len(self.sizes), "sizes")

    def page(self) -> Page:
        """What a reader sees."""
        measured = (self.sizes, self.rank, self.low, self.high)
        ahead = (self.further, self.expected, self.expected_low, self.expected_high)
        reach = Z975 * self.overlap_stderr
        ends = {
            f"{self.top} {end}": (self.sizes, self.overlap[i], self.overlap[i] - reach[i], self.overlap[i] + reach[i])
            for i, end in enumerate(("highest", "lowest"))
        }
        chance = np.full(len(self.sizes), self.top / self.groups)
        more = len(self.further)

        def both(measured: Any, ahead: Any = np.nan) -> Array:
            return np.append(measured, np.broadcast_to(ahead, more))

        columns = {
            "models": both(self.sizes, self.further),
            "estimator": [*self.methods, *[self.methods[-1]] * more],
            "rank correlation": both(self.rank, self.expected),
            "stderr": both(self.rank_stderr),
            "low": both(self.low, self.expected_low),
            "high": both(self.high, self.expected_high),
            "measured": [True] * len(self.sizes) + [False] * more,
            "highest in common": both(self.overlap[0]),
            "stderr of highest": both(self.overlap_stderr[0]),
            "lowest in common": both(self.overlap[1]),
            "stderr of lowest": both(self.overlap_stderr[1]),
            "values differ by": both(self.differ),
            "their stderr": both(self.stderr),
        }
        heads, rows = tuple(columns), list(zip(*columns.values(), strict=True))
        return Page(
            name="stability" if self.per == "target" else f"stability-{self.per}",
            title="Stability" if self.per == "target" else f"Stability per {self.per}",
            question=f"How far would another set of as many models rank the groups for {_what(self)} alike?",
            answer=self._view.told(_answer(self)),
            blocks=[
                Curve(
                    {"measured on disjoint sets": measured, "extrapolated (Spearman-Brown)": ahead},
                    "models of each ranking",
                    "rank correlation of two rankings",
                    "Agreement of two rankings",
                    "95 % intervals by a bootstrap over groups.",
                ),
                Curve(
                    {**ends, "by chance": (self.sizes, chance, None, None)},
                    "models of each ranking",
                    "share in common",
                    f"The {self.top} highest and lowest groups",
                    f"95 % intervals from the spread over {self.splits} random splits.",
                ),
                Curve(
                    {
                        "differ between disjoint sets": (self.sizes, self.differ, None, None),
                        "standard error as told": (self.sizes, self.stderr, None, None),
                    },
                    "models of each ranking",
                    self.unit,
                    "The value of a group",
                    "Root mean squares; the difference of two sets over sqrt(2).",
                ),
                Table(heads, rows, "In numbers", digits=dict.fromkeys(heads[2:], 2)),
            ],
            csv={"stability.csv": (heads, rows)},
            method=_METHOD.format(splits=self.splits, output=self.output),
        )


def stability(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    *,
    per: str = "target",
    task: Any = None,
    output: str | None = None,
    sizes: Sequence[int] | None = None,
    top: int | None = None,
    seed: int = 0,
) -> Stability:
    """Measure how far rankings from disjoint sets of models agree, by the number of models (F16).

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own.
        per: "target", "class" or "example": then the mean over those.
        task: which of the plan's tasks; the first by default.
        output: of which the influences are (see `pydt.store.units_of`); by default the target's metric.
        sizes: models of each set, at most half of all; by default a half, and 0.7, 0.5, 0.35, 0.25 of that, where a set
            then has at least twenty models that tell the groups apart.
        top: how many groups count as the highest and the lowest; ten, or a quarter if that is less.
        seed: of the random sets.

    Raises:
        ConfigError: an unknown `per` or output, or sizes that two disjoint sets cannot have.
        EstimateError: half of the models do not tell the groups apart.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    whole(seed, "seed", "stability", error=ConfigError)
    one_of(per, tuple(NEEDS_PER), "per", "stability")
    view = EnsembleView.of(store, plan, task, needs=NEEDS_PER[per])
    output = view.output(output)
    masks, groups = view.masks, len(view.record.names)
    half = len(masks) // 2
    top = max(1, min(10, groups // 4)) if top is None else whole(top, "top", "stability", 1, error=ConfigError)
    if top > groups:
        raise ConfigError(f"{top} of {groups} groups", "top", "choose fewer")
    found = view.columns(per, output, "score")
    found = found[:, found.std(0) > 0]
    if not found.shape[1]:
        raise EstimateError("all models give the same output", "stability", "there is nothing to rank by")
    wanted = [round(half * part) for part in (0.25, 0.35, 0.5, 0.7, 1)] if sizes is None else sorted(set(sizes))
    if sizes is not None and not all(isinstance(s, (int, np.integer)) and 2 <= s <= half for s in wanted):
        raise ConfigError(
            f"{list(sizes)} of {len(masks)} models", "sizes", f"two disjoint sets have at most {half} each"
        )
    measured: list[tuple[Any, ...]] = []
    for size in wanted:
        if sizes is None and size < min(_FEWEST, half):
            continue
        try:
            one, other, errors = disjoint_influences(masks, found, "stability", seed, size)
        except EstimateError:
            if sizes is not None or size == wanted[-1]:
                raise
            continue
        mean, draws = agreement(one, other, columns=False)
        method = best_method(masks.take(next(halves(masks, 1, "stability", seed, size=size))[0]))
        shares = np.stack([_common(one, other, top, sign) for sign in (-1, 1)])
        differ = float(np.sqrt(((one - other) ** 2).mean(dtype=np.float64) / 2))
        spread = error_of_ways(shares.T)
        measured.append((size, method, float(mean), draws, shares.mean(1), spread, differ, errors))
    sizes_, methods, rank, draws_, overlap, overlap_stderr, differs, told = zip(*measured, strict=True)
    fit = influences(masks, found, best_method(masks))
    used = fit.parameters if ESTIMATORS[methods[-1]].needs_regression else 0.0
    further = np.array([len(masks), 2 * len(masks), 4 * len(masks)])
    factor = (further - used - 1) / (sizes_[-1] - used - 1) if used else further / sizes_[-1]
    ahead = spearman_brown(draws_[-1][:, None], factor)
    variance = np.var(fit.unbiased, 0, dtype=np.float64, ddof=1)
    return Stability(
        per=per,
        output=output,
        groups=groups,
        columns=found.shape[1],
        models=len(masks),
        top=top,
        splits=SPLITS,
        sizes=np.array(sizes_, np.int64),
        methods=methods,
        rank=np.array(rank),
        rank_stderr=np.array([one.std() for one in draws_]),
        low=np.array([np.quantile(one, 0.025) for one in draws_]),
        high=np.array([np.quantile(one, 0.975) for one in draws_]),
        overlap=np.stack(overlap, 1),
        overlap_stderr=np.stack(overlap_stderr, 1),
        further=further,
        expected=spearman_brown(np.array(rank[-1]), factor),
        expected_low=np.quantile(ahead, 0.025, axis=0),
        expected_high=np.quantile(ahead, 0.975, axis=0),
        differ=np.array(differs),
        stderr=np.array(told),
        unit=view.unit(output).name,
        by_errors=float(np.mean(1 - np.mean(fit.stderr.astype(np.float64) ** 2, 0) / variance)),
        _view=view,
    )


def _what(found: Stability) -> str:
    return {"target": "the target", "class": "a class", "example": f"an {found._view.thing}"}[found.per]


def _common(one: npt.NDArray[Any], other: npt.NDArray[Any], top: int, sign: int) -> Array:
    """Share of the `top` groups in common, mean over columns, float64 (splits,)."""
    ranks = [np.argsort(np.argsort(sign * part, 1, kind="stable"), 1, kind="stable") < top for part in (one, other)]
    return np.asarray((ranks[0] & ranks[1]).sum(1).mean(1) / top)


def _answer(found: Stability) -> list[str]:
    mean = "" if found.per == "target" else f" on average over {found.columns:,}"
    ends = " and ".join(
        f"{percent_text(found.overlap[i, -1])} of the {found.top} {end}" for i, end in enumerate(("highest", "lowest"))
    )
    ahead = f"{number(float(found.expected[0]), 2)} ({number(float(found.expected_low[0]), 2)} to " + (
        f"{number(float(found.expected_high[0]), 2)})"
    )
    with_truth = number(float(np.sqrt(max(found.expected[0], 0))), 2)
    return [
        f"Two disjoint sets of {found.sizes[-1]} models rank the {found.groups} groups for {_what(found)}{mean} "
        f"with a rank correlation of {plus_minus(float(found.rank[-1]), float(found.rank_stderr[-1]), False)}.",
        f"They have {ends} groups in common ({percent_text(found.top / found.groups)} by chance; {found.splits} random "
        "splits).",
        f"The value of a group differs between them by {number(float(found.differ[-1]), 2)} {found.unit} (root mean "
        f"square over sqrt(2)); its standard errors say {number(float(found.stderr[-1]), 2)}.",
        f"Extrapolated, not measured: two sets of all {found.models} models would agree with {ahead}, and the ranking "
        f"of these models with the true one with about {with_truth}; {found.further[1]:,} models a set would reach "
        f"{number(float(found.expected[1]), 2)}, {found.further[2]:,} {number(float(found.expected[2]), 2)}.",
        f"The standard errors of the influences say {number(found.by_errors, 2)} for all {found.models} models: "
        "1 - mean squared error / variance of the influences, which should agree with the extrapolation.",
    ]


_METHOD = """Influences on the {output} of the score half from two disjoint random sets of models, {splits}
random splits for each size; Spearman's rank correlation over the groups.

    expected at n models = f r / (1 + (f - 1) r), f = information of n models / that of those measured

(Spearman and Brown; of r turned into Pearson's and back; least squares uses up as many models as it has parameters.)
Number of models: Jain et al. 2023, appendix. Rankings of which one's models are a part of the other's would agree by
sharing them."""
