"""Which share of groups each model should keep: pilots of several alphas compared.

The squared ratio of influence to error after a second of training is proportional to f2 / seconds a row, with
f2 = R2 / (1 - R2) = variance that the masks explain / variance they do not. Its interval comes from the noncentral F of
the regression. Sources and what lost: docs/how-many-models.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydt.base import ConfigError, EstimateError, Result, StoreError, records, share
from pydt.design import KINDS
from pydt.estimation.fit import Fit
from pydt.estimation.from_store import mean_output
from pydt.estimation.influence import influences
from pydt.estimation.power import learners_only
from pydt.reporting import interval_plot
from pydt.store import Record, Store, row_seconds


@dataclass(frozen=True)
class AlphaPilot:
    """What a pilot says about its share of groups.

    Attributes:
        alpha, kind: of its design. models: finished rows.
        r2: adjusted R2 of OLS, between rows (foldover: between half-differences); low, high: its interval.
        seconds: of one worker for a row, or None.
        gain: R2 / (1 - R2) per second and row (foldover: half of it, as a half-difference takes two rows): the squared
            ratio of an influence to its standard error grows with it. gain_low, gain_high: its interval, with the times
            taken as known. None without times.
    """

    alpha: float
    kind: str
    models: int
    r2: float
    low: float
    high: float
    seconds: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None


@dataclass(frozen=True, repr=False)
class AlphaComparison(Result):
    """Pilots compared. alpha: of the pilot with the largest gain, None without times. sure: whether its lead over every
    other pilot is larger than noise. level: of the intervals' joint error. reason: the same in words."""

    pilots: tuple[AlphaPilot, ...]
    alpha: float | None
    sure: bool
    level: float
    reason: str

    def _columns(self) -> dict[str, Any]:
        return records(AlphaPilot, self.pilots)

    def plot(self, ax: Any = None) -> Any:
        """Draw what each pilot gains in a second of training; without times, its R2.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        timed = all(one.gain is not None for one in self.pilots)
        names = ("gain", "gain_low", "gain_high") if timed else ("r2", "low", "high")
        value, low, high = (np.array([getattr(one, name) for one in self.pilots]) for name in names)
        label = "R2 / (1 - R2) per second and row" if timed else "adjusted R2"
        kinds = [f"{one.alpha:g} ({one.kind})" for one in self.pilots]
        return interval_plot(kinds, value, [value - low, high - value], f"{label}, joint intervals", ax=ax)


def compare_alphas(
    pilots: Store | str | os.PathLike[str] | Sequence[Store | str | os.PathLike[str]],
    *,
    task: Any = None,
    output: str | None = None,
    level: float = 0.05,
) -> AlphaComparison:
    """Which share of groups teaches most in a second of training: R2 / (1 - R2) per second, pilot by pilot.

    Intervals hold jointly for all pairs of pilots (level / pairs each): of 3,000 simulated pairs without a difference
    3.9 % were called sure at level 0.05 (1 to 8 % by R2). Formulas in docs/how-many-models.md.

    Args:
        pilots: a store, whose plans with a design are the pilots; or several stores, whose own plans are.
        task, output: as for `plan_models`.
        level: probability that a lead is called sure where there is none.

    Raises:
        ConfigError: no stores, fewer than two pilots, or a level that is none.
        StoreError: pilots of another source, recipe or task than the first one's, whose outputs cannot be compared.
        EstimateError: a pilot with too few models for OLS, or whose models hardly learnt their source.
    """
    level = share(level, "level", "compare_alphas")
    if isinstance(pilots, (Store, str, os.PathLike)):
        store = pilots if isinstance(pilots, Store) else Store(pilots)
        found = [(store, record) for record in store.plans().values() if record.kind == "design"]
    elif not isinstance(pilots, Sequence) or not all(isinstance(one, (Store, str, os.PathLike)) for one in pilots):
        raise ConfigError(f"{pilots!r} is no store", "pilots", "pass a store with several plans, or several stores")
    else:
        stores = [one if isinstance(one, Store) else Store(one) for one in pilots]
        found = [(store, store.plan()) for store in stores]
    if len(found) < 2:
        raise ConfigError(f"{len(found)} pilots", "pilots", "run the same plan with designs of several alphas first")
    (at, first), *others = found
    for store, record in others:
        same = {name: getattr(record, name) == getattr(first, name) for name in ("source", "units", "recipe")}
        if task is None:  # then each plan's first task is used; a named one is checked by `mean_output`
            same["task"] = record.tasks[0]["digest"] == first.tasks[0]["digest"]
        for name, equal in same.items():
            if not equal:
                mend = "compare pilots that differ in their design alone"
                mend = "name the task that all have with task=" if name == "task" else mend
                wrong = f"has another {name} than plan {at.called(first)}"
                raise StoreError(wrong, f"plan {store.called(record)}", mend)
    each = level / (len(found) * (len(found) - 1) / 2)
    seen = [_pilot(store, record, task, output, each) for store, record in found]
    return compare_pilots(tuple(sorted(seen, key=lambda pilot: (pilot.alpha, pilot.kind))), level)


def _pilot(store: Store, record: Record, task: Any, output: str | None, level: float) -> AlphaPilot:
    design, finished = store.design(record), store.finished(record)
    if not len(finished):
        raise EstimateError("no finished rows", f"plan {store.called(record)}", "run it first")
    weak = learners_only(store, record, task).at
    try:
        outputs = np.delete(mean_output(store, record, task, output, "score"), weak)
        fit = influences(design.take(np.delete(finished, weak)), outputs, "ols", errors="classical")  # df: those of R2
    except EstimateError as error:
        mend = f"train more than {design.groups} models in each pilot, better twice as many"
        raise EstimateError(error.what, f"pilot with alpha {design.alpha:g}", mend) from error
    predictors = design.groups - design.constants
    return pilot_of(fit, design.alpha, design.kind, row_seconds(store, record), level, predictors)


def pilot_of(fit: Fit, alpha: float, kind: str, seconds: float | None, level: float, predictors: int) -> AlphaPilot:
    """A pilot from its OLS fit of one target; level: of the interval; predictors: rank of the masks."""
    r2, df = float(fit.explained), float(fit.df)
    if not math.isfinite(r2):
        raise EstimateError("no spread between models is seen", f"pilot with alpha {alpha:g}", "choose another output")
    low, high = r2_interval(r2, predictors, df, level, fixed=KINDS[kind].pairs)
    gains: list[float | None] = [None, None, None]
    if seconds is not None:
        each = (0.5 if KINDS[kind].pairs else 1.0) / seconds
        gains = [math.inf if part >= 1 else each * part / (1 - part) for part in (r2, low, high)]
    return AlphaPilot(alpha, kind, fit.models, r2, low, high, seconds, *gains)


def compare_pilots(pilots: tuple[AlphaPilot, ...], level: float) -> AlphaComparison:
    if any(pilot.gain is None for pilot in pilots):
        reason = "no alpha is proposed: the logs of some pilots hold no times"
        return AlphaComparison(pilots, None, False, level, reason)

    def gain(pilot: AlphaPilot) -> tuple[float, float, float]:
        return max(pilot.gain or 0.0, 0.0), pilot.gain_low or 0.0, pilot.gain_high or 0.0

    best = max(pilots, key=lambda pilot: gain(pilot)[0])
    top, top_low, _ = gain(best)
    sure = True
    for other in pilots:
        if other is not best:
            value, _, high = gain(other)
            sure &= top - value > math.hypot(top - top_low, high - value)
    others = ", ".join(f"{gain(p)[0]:.3g} at {p.alpha:g}" for p in pilots if p is not best)
    verdict = "a lead larger than its noise" if sure else "a lead that may be noise: the pilots do not tell them apart"
    reason = f"alpha = {best.alpha:g} is proposed: R2 / (1 - R2) per second is {top:.3g} against {others}, {verdict}"
    return AlphaComparison(pilots, best.alpha, sure, level, reason)


def r2_interval(r2: float, groups: int, df: float, level: float = 0.05, fixed: bool = False) -> tuple[float, float]:
    """Two-sided interval of the share of variance that the masks explain, from the adjusted R2 of OLS.

    Args:
        groups: columns of full rank. df: of the residual. fixed: the masks are orthogonal, as of whole foldover blocks.
    """
    from scipy import optimize, special

    total = groups + df
    ratio = max((total / max(1 - r2, 1e-300) - df) / groups, 0.0)
    rows = np.array([total]) if fixed else special.chdtri(total, (np.arange(32) + 0.5) / 32)

    def above(f2: float) -> float:
        return float(special.ncfdtr(groups, df, np.maximum(f2 * rows, 1e-12), ratio).mean())

    def solve(share: float) -> float:
        if above(0.0) <= share:
            return 0.0
        top = 1.0
        while above(top) > share and top < 1e6:
            top *= 2
        return optimize.brentq(lambda f2: above(f2) - share, 0.0, top) if top < 1e6 else top

    low, high = solve(1 - level / 2), solve(level / 2)
    return low / (1 + low), high / (1 + high)
