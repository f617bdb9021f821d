"""When to stop training models: rules that may look at the results as often as they like.

A rule looks only at complete prefixes of the plan: its first rows, all finished or failed, with no pair or cluster cut
in two. The plan alone decides at which prefixes (each 5 % longer than the last), and a rule stops at the first that
satisfies it: the decision is the same for any order of arrival and any number of workers.

    stderr < x    every group's standard error, as `influences` reports it by `best_method`, is below x. A rule about
                  precision: intervals of the usual width keep their coverage as x falls.
    sign k        at least k groups have an interval that excludes 0, with intervals that hold at all looks together.

"sign": OLS of u units on p parameters, nu = u - p, t the usual statistic of a group, z = 1 / [G^-1]_kk and
c = 1 + z / phi:

    E = c^(-1/2) [(1 + t^2 / (nu c)) / (1 + t^2 / nu)]^(-(nu + 1) / 2)

is the likelihood ratio of t under N(0, s^2 / phi) effects against none. A group is decided once E >= K / a; the radius
of its interval is stderr x the |t| at which that happens. P(any interval of any group ever excludes its truth) <= a:
proved for independent Gaussian noise of one variance, asymptotic for other noise. Sources, the choice of phi, what was
measured and what lost: docs/how-many-models.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import ConfigError, EstimateError, Result, extremes, to_array
from pydt.design import Design, find_clusters, find_repeats
from pydt.estimation.influence import best_method, influences
from pydt.estimation.inputs import Array, Inputs, Units
from pydt.estimation.sufficient_statistics import Statistics
from pydt.reporting import interval_plot

_FORMS = 'write "stderr < 0.5", "sign 10", "sign 10 level 0.01" or "none"'
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_LEAST = 20  # degrees of freedom at the first look
_NO_LOOK = "no look yet: the first one comes with"
_GROWTH = 1.05  # of the prefix from look to look
_ROUNDING = 2.0**-20
_TUNED = 5  # models a group at which intervals are narrowest


@dataclass(frozen=True, repr=False)
class Look(Result):
    """What a rule saw.

    Attributes:
        stopped: the rule is satisfied. rows: of the plan, in the prefix of the last look (0 before the first); a
            stopped rule uses these and no later ones. next: rows at which it looks again.
        looks: how many so far. reason: in words.
        decided: groups whose interval excluded 0 at any look, in order; signs: 1 or -1 of each ("sign" only).
        values, radius: float64 (groups,) at the last look; values +- radius hold at all looks together ("sign"), or
            `radius` is the standard error ("stderr"). None before the first.
    """

    stopped: bool
    rows: int
    next: int
    looks: int
    reason: str
    decided: tuple[int, ...] = ()
    signs: tuple[int, ...] = ()
    values: Array | None = None
    radius: Array | None = None

    def _columns(self) -> dict[str, Any]:
        values, radius = (np.empty(0) if one is None else one for one in (self.values, self.radius))
        sign = dict(zip(self.decided, self.signs, strict=True))
        decided = [sign.get(i, 0) for i in range(len(values))]
        return {"group": range(len(values)), "value": values, "radius": radius, "decided": decided}

    def plot(self, ax: Any = None) -> Any:
        """Draw the highest and the lowest values of the last look, with their radius.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        columns = self._columns()
        values, shown = columns["value"], extremes(columns["value"])
        label = f"influence after {self.rows:,} rows, with its radius"
        return interval_plot(
            [f"group {i}" for i in shown], values[shown], columns["radius"][shown], label, ax=ax, of=len(values)
        )


@dataclass(frozen=True)
class StoppingRule:
    """A rule of when to stop. Make one with `StoppingRule.parse`; formulas and guarantees in docs/how-many-models.md.

    Attributes:
        kind: "stderr", "sign" or "none". size: the standard error. count: of groups. level: a.
    """

    kind: str
    size: float = 0.0
    count: int = 0
    level: float = 0.05

    def __post_init__(self) -> None:
        sign = self.count >= 1 and 0 < self.level < 1
        fits = {"none": True, "stderr": 0 < self.size < math.inf, "sign": sign}
        if not fits.get(self.kind, False):
            raise ConfigError(f"{self!r} is no rule", "StoppingRule", "make one with StoppingRule.parse")

    @staticmethod
    def parse(text: str | None) -> StoppingRule:
        """Read "stderr < 0.5", "sign 10", "sign 10 level 0.01", "none" (or None).

        Raises:
            ConfigError: anything else.
        """
        if text is None or text == "none":
            return StoppingRule("none")
        words = text.lower().strip() if isinstance(text, str) else ""
        if found := re.fullmatch(rf"stderr\s*<\s*({_NUMBER})", words):
            size = float(found[1])
            if 0 < size < math.inf:
                return StoppingRule("stderr", size=size)
            raise ConfigError(f"no standard error is below {found[1]}", "stop", _FORMS)
        if found := re.fullmatch(rf"sign\s+(\d{{1,9}})(?:\s+level\s+({_NUMBER}))?", words):
            count, level = int(found[1]), float(found[2] or 0.05)
            if count < 1 or not 0 < level < 1:
                raise ConfigError(f"{text!r}: at least one group, at a level between 0 and 1", "stop", _FORMS)
            return StoppingRule("sign", count=count, level=level)
        raise ConfigError(f"{text!r} is not a stopping rule", "stop", _FORMS)

    def __str__(self) -> str:
        if self.kind == "stderr":
            return f"stderr < {self.size:g}"
        return f"sign {self.count} level {self.level:g}" if self.kind == "sign" else "none"

    def look(self, masks: Any, outputs: Any, since: Look | None = None) -> Look:
        """Judge a prefix of a plan.

        Args:
            masks: the plan's Design, or 0/1 masks of the whole plan: later rows may complete a cluster. Where masks
                repeat by chance, masks alone allow no look before the plan's end: pass the Design, which knows that
                they are independent.
            outputs: (rows,) one number per row of the plan's first rows; NaN: the row failed. It is left out, in a
                foldover design with its partner.
            since: what this rule said of a shorter prefix of the same plan; earlier looks are not taken again.

        Returns:
            the first look that satisfies the rule, or the last one at hand.

        Raises:
            EstimateError: outputs that are not one number per row, or infinite; more outputs than masks.
            DesignError: masks of one's own that are no masks, or keep nothing in a row.
            ConfigError: more groups wished for than there are, or `since` is no look.
        """
        made = masks if isinstance(masks, Design) else Design.explicit(masks)
        y = to_array(outputs, "outputs", EstimateError)
        if y.ndim != 1 or y.dtype.kind not in "biuf" or len(y) > len(made):
            what = f"shape {y.shape} and dtype {y.dtype} for {len(made)} masks"
            raise EstimateError(what, "outputs", "pass one number per row of the plan's first rows")
        y = y.astype(np.float64)
        if np.isinf(y).any():
            raise EstimateError(
                "the output is infinite", f"outputs, row {np.isinf(y).argmax()}", "pass NaN if it failed"
            )
        if self.kind == "sign" and self.count > made.groups:
            raise ConfigError(f"{self.count} of {made.groups} groups", "stop", "wish for fewer")
        if self.kind == "none":
            return Look(False, len(y), len(made), 0, "no rule: all rows of the plan are trained")
        if not isinstance(since, (Look, type(None))):
            raise ConfigError(f"a {type(since).__name__}", "since", "pass what look() returned, or leave it out")
        last = since or Look(False, 0, 0, 0, "no look yet")
        if last.stopped:
            return last
        for rows in self.prefixes(made):
            if rows > len(y):
                return replace(last, next=rows, reason=last.reason if last.looks else f"{_NO_LOOK} row {rows}")
            if rows > last.rows:
                last = self._judge(made, y[:rows], last)
                if last.stopped:
                    return replace(last, next=rows)
        if not last.looks and (first := self._first(made)) > len(made):
            short = f"the plan of {len(made)} row{'' if len(made) == 1 else 's'} is too short for a look, which takes"
            last = replace(last, reason=f"{short} {first} rows or more")
        elif not last.looks:
            last = replace(last, reason="no look: the masks allow none before the plan's end")
        return replace(last, next=len(made) + 1)

    def _first(self, made: Design) -> int:
        """Rows that the first look takes."""
        least = _free(made.groups) + (made.groups + 1 if self.kind == "sign" else 2)
        return math.ceil(least) * (1 + made.pairs)

    def prefixes(self, made: Design) -> Iterator[int]:
        """Numbers of rows to look at: of the plan alone."""
        pair = made.pairs
        whole = _whole_prefixes(made) if not made.drawn else None
        rows = self._first(made)
        while rows <= len(made):
            if whole is not None:
                later = whole[whole >= rows]
                if not later.size:
                    return
                rows = int(later[0])
            yield rows
            rows = max(rows + 1, math.ceil(rows * _GROWTH))
            rows += rows % 2 if pair else 0

    def _judge(self, made: Design, y: Array, last: Look) -> Look:
        kept = np.flatnonzero(np.isfinite(y))
        seen = replace(last, rows=len(y), looks=last.looks + 1)
        if len(kept) < 2:
            return replace(seen, reason=f"{len(kept)} of {len(y)} rows have an output")
        if self.kind == "stderr":
            return self._judge_precision(made, y, kept, seen)
        found = always_valid(made, kept, y[kept, None], self.level)
        if found is None:
            return replace(seen, reason=f"{len(y)} rows cannot tell the groups apart yet")
        values, radius = (part[:, 0] for part in found)
        signs = dict(zip(last.decided, last.signs, strict=True))
        for group in np.flatnonzero(np.abs(values) > radius):
            signs.setdefault(int(group), 1 if values[group] > 0 else -1)
        decided = tuple(sorted(signs))
        reason = (
            f"{len(decided)} of {made.groups} groups have a sign after {len(y)} rows (intervals at level "
            f"{self.level:g} / {made.groups} that hold at all looks); {self.count} were asked for"
        )
        return replace(
            seen,
            stopped=len(decided) >= self.count,
            reason=reason,
            decided=decided,
            signs=tuple(signs[group] for group in decided),
            values=values,
            radius=radius,
        )

    def _judge_precision(self, made: Design, y: Array, kept: npt.NDArray[np.intp], seen: Look) -> Look:
        try:
            part = made.take(kept)
            fit = influences(part, y[kept], best_method(part))
        except EstimateError as error:
            return replace(seen, reason=f"after {len(y)} rows nothing is known yet: {error.what}")
        if np.ptp(y[kept]) == 0:  # an error of 0 would end the plan; a model that is never wrong, as a rule a mistake
            return replace(seen, reason=f"the output is the same in all {len(y)} rows: nothing shows its noise")
        stderr = np.asarray(fit.stderr, np.float64)
        # Robust errors count in their degrees of freedom what the other groups take.
        least = _LEAST if fit.errors == "robust" else _free(made.groups)
        if not float(np.median(fit.df)) >= least:
            return replace(seen, reason=f"{len(y)} rows are too few to judge the noise by")
        largest = float(stderr.max())  # NaN if one is
        return replace(
            seen,
            stopped=largest < self.size,
            reason=f"the largest standard error is {largest:.3g} after {len(y)} rows; below {self.size:g} was asked",
            values=np.asarray(fit.unbiased, np.float64),
            radius=stderr,
        )


def unmet(note: Mapping[str, Any]) -> str:
    """The sentence on a rule that did not end its plan, from what `Store.rule` gives."""
    return f"stop rule {note['rule']!r} not met: {note['reason']}"


def _free(groups: int) -> float:
    """Degrees of freedom from which on a look may end the plan."""
    return max(_LEAST, groups / 2)


def always_valid(made: Design, rows: npt.NDArray[np.intp], outputs: Array, level: float) -> tuple[Array, Array] | None:
    """OLS and the radius of intervals that hold at all looks and for all groups together.

    Args:
        rows: int (rows,) of the design, in order. outputs: (rows, targets). level: a, for each target.

    Returns:
        values and radius, each (groups, targets); a radius is infinite where nothing could exclude 0 yet. None: these
        rows cannot tell the groups apart.
    """
    units = _units(made, rows)
    strata = None
    if made.estimand == "swap":
        strata = np.zeros(made.groups, np.int64) if made.strata is None else made.strata
    statistics = Statistics(
        Inputs(
            made.packed()[rows], made.groups, 0, made.estimand, units, strata, outputs=outputs, flat=False, flag=True
        )
    )
    geometry = statistics.geometry
    if np.isnan(geometry.spread).any() or (regression := geometry.regression_or_none) is None:
        return None
    groups, df = made.groups, geometry.units - regression.parameters
    if df < 1:
        return None
    values, noise = np.empty((groups, outputs.shape[1])), np.empty(outputs.shape[1])
    for tile in statistics.tiles():
        cross = geometry.real.centre(tile.units)
        values[:, tile.part] = (regression.inverse @ cross)[:, : tile.width]
        noise[tile.part] = (regression.left(cross, geometry.real.energy(tile.units)) / df)[: tile.width]
    # Outputs that the groups fit without remainder (all models right on every example) leave the rounding of float32.
    noise = np.maximum(noise, (_ROUNDING * np.abs(outputs).max(0)) ** 2)
    share = level / groups
    spread = np.diag(regression.inverse)
    wide = -2 * math.log(share) + math.log(1 - 2 * math.log(share))
    phi = _TUNED * groups * made.alpha * (1 - made.alpha) / wide
    stderr: Array = np.sqrt(np.outer(spread, noise))
    return values, t_radius(1 / spread, phi, df, share)[:, None] * stderr


def t_radius(information: Array, phi: float, df: float, level: float) -> Array:
    """The |t| from which on E >= 1 / level; infinite where no t is large enough."""
    c = 1 + information / phi
    h = np.exp((np.log(c) - 2 * math.log(level)) / (df + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(h < c, np.sqrt(df * (h - 1) / (1 - h / c)), np.inf)


def _units(made: Design, rows: npt.NDArray[np.intp]) -> Units:
    """The independent units of some rows of a plan: pairs by their place in a foldover design, the different masks of
    one's own; masks that a rule draws are independent even where they repeat."""
    everything, ones = np.ones(len(rows), bool), np.ones(len(rows))
    if made.pairs:
        second = np.flatnonzero((rows % 2 == 1) & (np.diff(rows, prepend=-2) == 1))
        if not np.array_equal(made[rows[second]], ~made[rows[second] - 1]):
            raise EstimateError("rows of a foldover design are not in pairs", "masks", "pass the plan's whole design")
        used = ~everything
        used[second] = used[second - 1] = True
        return Units("pair", rows // 2, used, rows // 2, np.where(rows % 2, -ones, ones), len(second))
    label = np.arange(len(rows)) if made.drawn else find_repeats(made.packed()[rows])
    count = int(label.max()) + 1
    return Units("repeat" if count < len(rows) else "single", label, everything, label, ones, count)


def _whole_prefixes(made: Design) -> npt.NDArray[np.intp]:
    """Numbers of rows after which no repeated or complementary mask follows one that was there."""
    label = find_clusters(made.packed(), made.groups)
    last = np.empty(label.max() + 1, np.intp)
    last[label] = np.arange(len(label))
    reach = np.maximum.accumulate(last[label])
    return np.flatnonzero(reach == np.arange(len(label))) + 1
