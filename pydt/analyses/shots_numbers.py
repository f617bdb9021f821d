"""The numbers of influence by shots, and their order: what the page tells and shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pydt.analyses.ensemble_view import Array, EnsembleView
from pydt.analyses.shots_kinds import CHANGED, MEANING
from pydt.analyses.shots_lists import Lists
from pydt.analyses.shots_removal import KeptLists
from pydt.base import one_of
from pydt.estimation import (
    Trend,
    TrueAgreement,
    VarianceShares,
)


@dataclass(frozen=True, eq=False)
class ShotsNumbers:
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
        """The groups of a kind (a key of `pydt.analyses.shots_kinds.MEANING`), the surest change first.

        Raises:
            ConfigError: there is no such kind.
        """
        one_of(kind, tuple(MEANING), "kind", "of_kind")
        return [self.groups[i] for i in self.order() if self.kinds[i] == kind]

    def order(self) -> np.ndarray:
        """Positions of the groups: those that change, by p of the trend; then the others, the surest first."""
        changed = np.array([kind in CHANGED for kind in self.kinds])
        size = np.where(changed, -np.nan_to_num(self.trend.p, nan=1.0), _surest(self.values, self.stderr))
        return np.lexsort((-size, ~changed))


def _surest(values: Array, stderr: Array) -> Array:
    """The largest |value| / standard error of each group; 0 where no error is known."""
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(values / stderr)
    return np.asarray(np.where(np.isfinite(t), t, 0.0).max(1))
