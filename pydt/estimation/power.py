"""How many models a wanted standard error or power takes, planned from the models there are.

stderr     of an influence by OLS is s sqrt([G^-1]_kk). The masks of models not yet trained are known, so G is computed
           for every number of models; only s, the noise of one model, is taken over from the models there are. Rows
           are nested, so the smallest number that is enough is found by bisection. Masks of one's own, and very large
           designs: s^2 / (models - parameters), right for independent masks. Other estimators: their `law`.
power      P(|T| > t), T noncentral t with the centre effect / stderr and the degrees of freedom of that many models.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import ConfigError, DesignError, EstimateError, Result, real, share
from pydt.design import Design, find_repeats
from pydt.estimation.estimators import ESTIMATORS
from pydt.estimation.estimators.ols import Fitted
from pydt.estimation.fit import Fit
from pydt.estimation.from_store import mean_output, overall
from pydt.estimation.goal import Wish
from pydt.estimation.influence import influences
from pydt.estimation.inputs import read_masks
from pydt.estimation.mask_geometry import Geometry, count_columns, factor, invert_lower
from pydt.estimation.robust import Arms
from pydt.reporting import curve_plot
from pydt.store import Record, Store, Weak, row_seconds, unit_of, weak_rows

_CELLS = 1 << 26  # masks are drawn for up to so many models x groups; beyond, the error follows a law
_LARGEST = 1500  # groups whose Gram matrix is inverted a dozen times
_MOST = 1 << 40
_FEWEST = 8  # degrees of freedom that the variance of a fit needs to be planned with


@dataclass(frozen=True, repr=False)
class ModelPlan(Result):
    """How many models a wish needs.

    Attributes:
        wish: in full. unit: of its size and of the standard errors.
        models: in all. now: finished so far. more: still to be trained.
        stderr: standard error of the median group now; of robust errors the root mean square over the groups.
        method: of the estimate at `models`.
        assumption: in words: what the number rests on.
        seconds: of one worker for the models still to be trained, by the mean of the plan's rows so far; None if no
            times are known.
        curve: (models, stderr of the median group, power or None) at some numbers of models.
    """

    wish: str
    unit: str
    models: int
    now: int
    more: int
    stderr: float
    method: str
    assumption: str
    seconds: float | None
    curve: tuple[tuple[int, float, float | None], ...]

    def _columns(self) -> dict[str, Any]:
        return dict(zip(("models", "stderr", "power"), zip(*self.curve, strict=True), strict=False))

    def plot(self, ax: Any = None) -> Any:
        """Draw the standard error of the median group by the number of models.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        models, stderr, _ = zip(*self.curve, strict=True)
        x, unknown = [f"{one:,}" for one in models], np.full((1, 2, len(models)), np.nan)
        labels, title = ("models", f"standard error ({self.unit})"), f"{self.wish}: {self.models:,} models"
        return curve_plot(["the median group"], x, np.array([stderr]), unknown, labels, title, ax)

    def __str__(self) -> str:
        time = "in a time that is not known" if self.seconds is None else f"about {self.seconds:.0f} s of one worker"
        todo = f"{self.more} more, {time}" if self.more else "enough"
        return f"{self.wish} ({self.unit}): {self.models} models; {self.now} are there: {todo}. {self.assumption}"


def plan_models(
    store: Store | str | os.PathLike[str],
    wish: str,
    plan: Any = None,
    *,
    task: Any = None,
    output: str | None = None,
) -> ModelPlan:
    """The number of models at which a standard error, or the power to find an effect, reaches a wish.

    The influences are those of `report`: of the mean output over the score half, by `best_method`. The noise of one
    model is taken over from the finished rows; the error at other numbers of models follows from the masks that the
    plan's design has for them. "The" error is that of the median group.

    Args:
        store: a store, or its folder.
        wish: see `Wish.parse`; sizes are in the unit of the influences (by default points of the target's metric).
        plan, task, output: as `report` chooses them: the store's own plan, its first task, the output of its metric.

    Raises:
        ConfigError: a wish or an output that cannot be read.
        StoreError: fewer than ten rows are finished, or the plan has no design.
        EstimateError: the outputs have no spread, more models than can be counted would be needed, or more than a tenth
            of the models hardly learnt their source (fewer such models are left out).
    """
    parsed = Wish.parse(wish)
    if not isinstance(store, (Store, str, os.PathLike)):
        mend = "run a pilot with pydt.run; for masks and outputs of your own, pydt.models_for_stderr(fit, x) tells"
        raise ConfigError(f"a {type(store).__name__} is no store", "store", mend)
    store = store if isinstance(store, Store) else Store(store)
    record = store.plan(plan)
    output = store.metric_output(task, record, output)
    unit = unit_of(store.described(task, record), output).name
    weak = learners_only(store, record, task)
    fit = overall(store, record, task, output, weak.at)
    design, rows, noise = store.design(record), np.delete(store.finished(record), weak.at), None
    if later := ESTIMATORS[fit.method].successor:
        try:
            outputs = np.delete(mean_output(store, record, task, output, "score"), weak.at)
            after = influences(design.take(rows), outputs, later, errors="classical")
            noise = float(after.noise) if after.df >= _FEWEST else None
        except EstimateError:
            pass  # too few models: the noise is what the present method leaves
    return plan_fit(fit, design, rows, parsed, row_seconds(store, record), unit, noise)


def learners_only(store: Store, record: Record, task: Any = None) -> Weak:
    """The models that hardly learnt their source, to be left out. Raises where they are too many to plan without."""
    found = weak_rows(store, record, task)
    if found.many:
        mend = f"{found.mend}: by such models nothing can be planned"
        raise EstimateError(found.text(), f"plan {store.called(record)}", mend)
    return found


def plan_fit(
    fit: Fit,
    design: Design,
    rows: np.ndarray,
    wish: Wish,
    seconds: float | None = None,
    unit: str = "",
    noise: float | None = None,
) -> ModelPlan:
    """`plan_models` for a fit of one target on some rows of a design.

    Args:
        seconds: of one row. noise: variance of one model's output by OLS, where the fit is the LASSO's.
    """
    law = Law(fit, design, rows, noise)
    groups = len(fit.counts)
    level = wish.per_group(groups)

    def chance(models: int) -> float:
        return power_of(wish.size, law.stderr(models), law.df(models), level)

    def enough(models: int) -> bool:
        return law.stderr(models) < wish.size if wish.kind == "stderr" else chance(models) >= wish.power

    models = law.smallest(enough)
    span = sorted({fit.models, models, *(law.whole(models * part) for part in (0.25, 0.5, 0.75, 1.5, 2.0, 4.0))})
    curve = tuple(
        (m, law.stderr(m), None if wish.kind == "stderr" else chance(m)) for m in span if m >= law.least(law.method(m))
    )
    test = ""
    if wish.kind == "effect":
        test = f" The level {wish.level:g} is that of one group's test: no allowance is made for {groups} groups."
        if wish.family:
            test = (
                f" Found means q < {wish.level:g} among {groups} groups (Benjamini-Hochberg), planned at p < q / "
                f"{groups}, which is enough whatever the other groups do."
            )
    more = max(0, models - fit.models)
    return ModelPlan(
        wish=str(wish),
        unit=unit,
        models=models,
        now=fit.models,
        more=more,
        stderr=law.now,
        method=law.method(models),
        assumption=law.assumption(models) + test,
        seconds=None if seconds is None else more * seconds,
        curve=curve,
    )


class Law:
    """Standard error of the median group, and degrees of freedom, by the number of models."""

    def __init__(self, fit: Fit, design: Design, rows: np.ndarray, noise: float | None) -> None:
        known = fit.stderr[np.isfinite(fit.stderr)]
        if fit.stderr.ndim != 1 or not known.size or np.median(known) <= 0:
            raise EstimateError("no spread between models is seen", "fit", "choose an output that is not saturated")
        self.fit, self.design, self.groups = fit, design, design.groups
        self.own = ESTIMATORS[fit.method]
        self.now = typical_stderr(fit)
        self.noise, self.borrowed = (float(fit.noise), True) if noise is None else (noise, False)
        self.pair = design.pairs
        self.parameters = design.groups - design.constants + (not self.pair)
        self.exact = design.groups <= _LARGEST and design.constants < 2 and _grows(design)
        self._masks = design
        self._seen: dict[int, float] = {}
        self._free: dict[int, float] = {}
        here = design.take(rows).packed()
        self.spread = self._variance(here) if self.own.needs_regression and self.exact else math.nan

    def least(self, method: str) -> int:
        """The smallest number of models that `method` works with: as `best_method` has it."""
        return self.whole(ESTIMATORS[method].least(self.groups, self.parameters) * (1 + self.pair))

    def whole(self, models: float) -> int:
        count = max(2, math.ceil(models))
        return count + (count % 2 if self.pair else 0)

    def method(self, models: int) -> str:
        later = self.own.successor
        return later if later and models >= self.least(later) else self.own.name

    def law(self, models: int) -> str | None:
        return ESTIMATORS[self.method(models)].law

    def stderr(self, models: int) -> float:
        fit = self.fit
        if self.law(models) is not None:
            return self.now * math.sqrt(fit.models / models)
        if not self.exact or models * self.groups > _CELLS:
            if self.own.needs_regression:
                used = parameters_used(fit)
                return self.now * math.sqrt((fit.models - used) / max(models - used, 1e-9))
            used = self.parameters * (1 + self.pair)
            return self.now * math.sqrt(self.noise / float(fit.noise) * fit.models / max(models - used, 1e-9))
        if models not in self._seen:
            if len(self._masks) < models:
                self._masks = self._masks.extend(max(models, min(2 * models, _CELLS // self.groups)))
            self._seen[models] = self._variance(self._masks.packed()[:models])
        if self.own.needs_regression:
            return self.now * math.sqrt(self._seen[models] / self.spread)
        return math.sqrt(self.noise * self._seen[models])

    def df(self, models: int) -> float:
        """Of the median group; with robust errors those of the masks that so many models have."""
        if self.fit.errors == "robust" and self.exact and self.groups * models <= min(_CELLS, _LARGEST**2):
            if models not in self._free:
                self._free[models] = self._robust_df(models)
            return self._free[models]
        units = models / (1 + self.pair)
        if self.exact and self.groups < 24 and models * self.groups <= _CELLS:  # few different masks, often repeated
            self.stderr(models)
            packed = self._masks.packed()[:models] if len(self._masks) >= models else None
            if packed is not None:
                units = len(np.unique(find_repeats(packed))) / (1 + self.pair)
        return max(1.0, units - (self.parameters if self.law(models) is None else 2))

    def _robust_df(self, models: int) -> float:
        made = self._masks if len(self._masks) >= models else self._masks.extend(models)
        geometry = Geometry(read_masks(made.take(np.arange(models))))
        if self.law(models) is not None:
            return float(np.median(Arms(geometry).df[: self.groups]))
        df = Fitted(geometry, geometry.regression, True).df
        return 1.0 if df is None else max(1.0, float(np.median(df[0])))

    def smallest(self, enough: Callable[[int], bool]) -> int:
        """The smallest number of models that is enough, that of the fit's own method before its successor's."""
        own, later = self.own.name, self.own.successor
        if later:
            last = self.least(later) - (1 + self.pair)
            if last >= self.least(own) and enough(last):
                return self._bisect(self.least(own), last, enough)
        low = high = self.least(later or own)
        while not enough(high):
            low, high = high, self.whole(2 * high)
            if high > _MOST:
                raise EstimateError(f"more than {_MOST} models would be needed", "wish", "wish for less")
        return self._bisect(low, high, enough)

    def _bisect(self, low: int, high: int, enough: Callable[[int], bool]) -> int:
        if enough(low):
            return low
        while high - low > 1 + self.pair:
            middle = self.whole((low + high) // 2)
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high

    def assumption(self, models: int) -> str:
        noise = "Assumed: the noise of one model and what the masks explain stay as seen so far"
        masks = "the masks are those the design has for further models"
        if law := self.law(models):
            return f"{noise}; {law}."
        if not self.exact or models * self.groups > _CELLS:
            masks = "further masks are drawn like those so far"
        if later := self.own.successor:
            own, other = self.own.name.upper(), later.upper()
            left = f" (what the {own} leaves: {other} may leave less)" if self.borrowed else ""
            return f"{noise}{left}; {masks}; {other} from {self.least(later)} models on."
        return f"{noise}; {masks}."

    def _variance(self, packed: npt.NDArray[np.uint8]) -> float:
        """Median over the groups of [G^-1]_kk."""
        strata = [np.arange(self.groups)] if self.design.constants else []
        found = factor(count_columns(packed, self.groups).centred, strata)
        if found is None:
            return math.inf
        lower, level = found
        return float(np.median((invert_lower(lower) ** 2).sum(0))) - self.design.constants / (self.groups * level)


def _grows(design: Design) -> bool:
    try:
        return bool(design.extend(len(design)))
    except DesignError:
        return False


def power_of(effect: float, stderr: float, df: float, level: float) -> float:
    """P(|T| > t), T = (Z + effect / stderr) / sqrt(W / df) noncentral t, t the two-sided quantile of the central one.

    Integrated over the quantiles of W: scipy's noncentral t is NaN from a centre of about 8 on.
    """
    from scipy import special

    if not math.isfinite(stderr):
        return 0.0
    w = special.chdtri(df, (np.arange(1024) + 0.5) / 1024)
    bound, centre = special.stdtrit(df, 1 - level / 2) * np.sqrt(w / df), effect / stderr
    return float((special.ndtr(centre - bound) + special.ndtr(-bound - centre)).mean())


def parameters_used(fit: Fit) -> float:
    """Rows that OLS spends on its groups: models x (1 - 1 / inflation of the variance by the other groups).

    Close to the number of parameters for independent masks, 0 for orthogonal ones; 0 for the other methods.
    """
    if not ESTIMATORS[fit.method].needs_regression:
        return 0.0
    with np.errstate(all="ignore"):
        groups, scale = len(fit.counts), 1 / fit.counts + 1 / (fit.models - fit.counts)
        alone = np.multiply.outer(scale, np.asarray(fit.noise, np.float64))
        alone = alone * ((groups - 1) / groups) ** 2 if fit.estimand == "swap" else alone
        share = alone / fit.stderr.astype(np.float64) ** 2
    share = share[np.isfinite(share)]
    used = fit.models * (1 - float(np.median(share))) if share.size else fit.parameters
    return min(max(used, 0.0), fit.parameters)


def typical_stderr(fit: Fit) -> float:
    """Standard error of the median group (and target).

    Of robust errors the root mean square over the groups: the median of errors that rest on a few degrees of freedom
    each is too small.
    """
    if fit.errors != "robust":
        return float(np.median(fit.stderr[np.isfinite(fit.stderr)]))
    every = fit.stderr.reshape(len(fit.stderr), -1).astype(np.float64)
    return float(np.median([np.sqrt((one[np.isfinite(one)] ** 2).mean()) for one in every.T if np.isfinite(one).any()]))


def models_for_stderr(fit: Fit, stderr: float) -> int:
    """Models needed for a standard error of `stderr` for the median group (and target), by the same design and method;
    of robust errors for their root mean square.

    The squared error falls with 1 / models; for ols with 1 / (models - `parameters_used`). `plan_models` knows the
    design and is exact inside a block of foldover masks, too.

    Raises:
        EstimateError: `stderr` is not a positive number, the fit has no finite errors, or more models than can be
            counted would be needed.
    """
    stderr = real(stderr, "stderr", "models_for_stderr", above=0, error=EstimateError)
    known = fit.stderr[np.isfinite(fit.stderr)]
    if not known.size:
        raise EstimateError("no standard error is known", "fit", "fit with finite outputs")
    ratio = typical_stderr(fit) / stderr
    used = parameters_used(fit)
    if not ratio < math.sqrt(_MOST / fit.models):
        raise EstimateError(f"more than {_MOST} models would be needed", "stderr", "wish for less")
    return max(2, math.ceil(used + (fit.models - used) * ratio**2))


def models_for_effect(fit: Fit, effect: float, power: float = 0.8, level: float = 0.05) -> int:
    """Models needed so that a two-sided test at `level` finds one group of influence `effect` with probability `power`.

    Normal quantiles: the standard error must be |effect| / (z(1 - level / 2) + z(power)); median group and target.

    Raises:
        EstimateError: an effect of zero, or `power` or `level` not between 0 and 1.
    """
    effect = real(effect, "effect", "models_for_effect", error=EstimateError)
    power = share(power, "power", "models_for_effect", EstimateError)
    level = share(level, "level", "models_for_effect", EstimateError)
    if effect == 0:
        raise EstimateError(f"{effect!r} is not an effect that can be found", "effect", "pass a number other than zero")
    quantiles = NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(power)
    if quantiles <= 0:
        return 2
    return models_for_stderr(fit, abs(effect) / quantiles)


def few_masks(design: Design) -> str | None:
    """The remark on a design with too few different masks: fewer than three a group of one size, or three groups in
    pairs; None if there are enough. Repeats of a mask tell of noise, not of groups."""
    if design.pairs and design.groups == 3:
        return (
            "3 groups have only 3 pairs of masks, as many as groups, so nothing is left to judge errors by: "
            'use the design "bernoulli"'
        )
    if not design.drawn or design.estimand == "add" or design.strata is not None:
        return None
    size = int(np.bitwise_count(design.packed([0])).sum())
    masks = math.comb(design.groups, min(size, design.groups - size))
    if masks >= 3 * design.groups:
        return None
    return (
        f"{design.groups} groups have only {masks} masks of this size ({size} kept), however many models are trained: "
        'use the design "bernoulli", which draws masks of every size, or more groups'
    )
