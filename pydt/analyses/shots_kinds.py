"""What a group's influence does as the number of shots grows, in words.

    changes     the trend over the numbers of shots passes q < 0.05 (`JointFit.trend`, one test a group)
    sure        at a number of shots: the group's simultaneous 95 % interval there excludes 0
    few, many   numbers of shots before and after the middle one

Of groups without any influence one of 20 is sure somewhere and, where numbers of shots share their noise, everywhere.
So "at all shots" also asks that the mean over the numbers of shots passes q < 0.05 over the groups.

No kind says more than is tested: a group "at all shots" may still change (in simulations with influences that fall to
a half or a quarter, most of them), and one "mainly at few shots" may matter a little at the most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import LEVEL, Array

FEW = "mainly at few shots"
MANY_SHOTS = "mainly at many shots"
FADES = "fades"
GROWS = "grows"
TURNS = "turns"
CHANGES = "changes"
ALIKE = "at all shots"
UNCHANGED = "sure at some shots"
NOTHING = "not seen to matter"
CHANGED = (FEW, MANY_SHOTS, FADES, GROWS, TURNS, CHANGES)
"""The kinds of groups whose influence changes."""
MEANING = {
    FEW: "changes; sure somewhere before the middle, not sure at the most shots, where it is smaller",
    MANY_SHOTS: "changes; sure somewhere after the middle, not sure at the fewest shots, where it is smaller",
    FADES: "changes; sure with one sign at both ends, smaller at the most shots",
    GROWS: "changes; sure with one sign at both ends, larger at the most shots",
    TURNS: "changes; sure with one sign here, with the other there",
    CHANGES: "changes in none of these ways",
    ALIKE: "sure with one sign at every number of shots, and so is the mean over them (q < 0.05); no change found",
    UNCHANGED: "sure at some number of shots; no change found",
    NOTHING: "sure at no number of shots; no change found",
}


def kinds_of(values: Array, low: Array, high: Array, q: Array, mean_q: Array) -> tuple[str, ...]:
    """The kind of each group.

    Args:
        values, low, high: (groups, J) influences and their simultaneous 95 % intervals, from the fewest shots on.
        q, mean_q: (groups,) of the trend, and of the mean over the numbers of shots; NaN is no finding.
    """
    sign = np.where(low > 0, 1, np.where(high < 0, -1, 0))  # of what is sure
    return tuple(_kind(*one) for one in zip(np.abs(values), sign, q < LEVEL, mean_q < LEVEL, strict=True))


def _kind(size: Array, sign: npt.NDArray[np.int_], changes: bool, matters: bool) -> str:
    """The kind of one group, by the size of its influence and what is sure of its sign at each number of shots."""
    if not changes:
        if matters and sign.all() and len(set(sign.tolist())) == 1:
            return ALIKE
        return UNCHANGED if sign.any() else NOTHING
    if {-1, 1} <= set(sign.tolist()):
        return TURNS
    if sign[0] and sign[-1]:
        return FADES if size[-1] < size[0] else GROWS
    few = np.arange(len(size)) < (len(size) - 1) / 2
    for kind, part, other in ((FEW, few, -1), (MANY_SHOTS, few[::-1], 0)):
        sure = part & (sign != 0)
        if sure.any() and not sign[other] and size[sure].max() > size[other]:
            return kind
    return CHANGES
