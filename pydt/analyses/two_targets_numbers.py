"""The numbers of two targets compared, and what they say: what the page tells and shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pydt.analyses.ensemble_view import LEVEL, Array, EnsembleView
from pydt.analyses.shots_lists import Lists, common_score
from pydt.base import t975
from pydt.estimation import TrueAgreement, benjamini_hochberg, p_values


@dataclass(frozen=True, eq=False)
class TargetNumbers:
    """Influences of all groups on two targets; see the module's head. Columns are the two tasks.

    Attributes:
        tasks: names of the two tasks; names: what sentences call them. groups: names.
        outputs, units: of each task. models: rows. method, estimand: as in `pydt.influences`.
        values, stderr: float64 (groups, 2), each in its unit.
        low, high: float64 (groups, 2), 95 % intervals that hold for both values of one group at once.
        df: float64 (groups,), degrees of freedom of the errors.
        difference, difference_stderr, difference_p, difference_q: float64 (groups,), first less second value; NaN where
            the units differ.
        opposed_p, opposed_q: float64 (groups,), that a group helps one target and hurts the other.
        opposed: bool (groups,), where that is sure. detectable: the difference of a typical group that would be found
            with a chance of 80 %; NaN where the units differ.
        spread: float64 (2,), standard deviation over the groups of the true influences.
        agreement: of the true influences; None with fewer than five groups.
        lists: what one list of the lowest groups costs each; None where half of the models do not tell the groups
            apart. Its two columns are the tasks, its three rows their lists and the common one.
    """

    tasks: tuple[str, str]
    names: tuple[str, str]
    groups: tuple[str, ...]
    outputs: tuple[str, str]
    units: tuple[str, str]
    models: int
    method: str
    estimand: str
    values: Array
    stderr: Array
    low: Array
    high: Array
    df: Array
    difference: Array
    difference_stderr: Array
    difference_p: Array
    difference_q: Array
    opposed_p: Array
    opposed_q: Array
    opposed: np.ndarray
    detectable: float
    spread: Array
    agreement: TrueAgreement | None
    lists: Lists | None
    _view: EnsembleView = field(repr=False)

    @property
    def unit(self) -> str:
        """Of the influences on both; "" where the units differ."""
        return self.units[0] if self.units[0] == self.units[1] else ""

    @property
    def common(self) -> np.ndarray:
        """Positions of the groups in the order of the common list, the lowest on both together first."""
        return np.argsort(common_score(self.values, self.stderr), kind="stable")

    @property
    def cost(self) -> tuple[Array, Array, Array] | None:
        """What the common list costs each task a group, against its own list: value, low and high, each (2,); the 95 %
        intervals hold for both at once."""
        if self.lists is None:
            return None
        reach = t975(None, 2) * self.lists.cost_stderr
        return self.lists.cost, self.lists.cost - reach, self.lists.cost + reach

    @property
    def serves(self) -> bool | None:
        """Whether one list serves both; None where that cannot be told."""
        if self.lists is None or self.cost is None:
            return None
        _, low, high = self.cost
        if (low > 0).any():
            return False
        gain, error = self.lists.gain[-1], self.lists.gain_stderr[-1]
        surely = bool((gain - t975(None, 2) * error > 0).all() and (high < gain / 2).all())
        return True if surely else None

    def kinds(self) -> list[str]:
        """What each group does, in words; that it acts alike on both is tested by q over the groups, too."""
        up, down = self.low > 0, self.high < 0
        one_sided = p_values(self.values, self.stderr, self.df[:, None]) / 2
        same = self.values[:, 0] * self.values[:, 1] > 0
        alike = benjamini_hochberg(np.where(np.isnan(one_sided).any(1), np.nan, np.where(same, one_sided.max(1), 1.0)))
        (a, b), found = self.names, []
        for i in range(len(self.groups)):
            if self.opposed[i]:
                found.append(f"helps {a}, hurts {b}" if up[i, 0] else f"helps {b}, hurts {a}")
            elif (up[i].all() or down[i].all()) and alike[i] < LEVEL:
                found.append("helps both" if up[i, 0] else "hurts both")
            else:
                found.append("differs" if self.difference_q[i] < LEVEL else "not sure")
        return found

    def order(self) -> np.ndarray:
        """Positions of the groups: those that are opposed, then by p of the difference; where the units differ, the
        surest first."""
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.nan_to_num(np.abs(self.values / self.stderr)).max(1)
        by = self.difference_p if self.unit else -t
        return np.lexsort((np.nan_to_num(by, nan=1.0), self.opposed_p, ~self.opposed))

    def disagree(self) -> np.ndarray:
        """Where the difference is sure, or the group helps one target and hurts the other; bool (groups,)."""
        return self.opposed | (self.difference_q < LEVEL)
