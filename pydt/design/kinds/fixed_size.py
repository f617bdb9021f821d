"""Masks of one size: each keeps round(alpha * groups) groups, or so many of each stratum.

Per row K random numbers and a partition at the wanted rank: O(K), with any number of strata. What lost: sorting a row's
keys to find the smallest (8 times the partition); the stratum as the upper bits of the key, and one sort (as slow) or a
partition at many ranks (slower still).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pydt.base import DesignError, to_array
from pydt.design.kinds.common import STRATA, Bits, Kind, Masks, Rows, Rule


class FixedSize:
    """Of each stratum (`label` (groups,); None: one for all) the `sizes[s]` groups with the smallest of the row's keys.

    Equal keys: the earlier group. Groups are drawn stratum after stratum, and strata that are alike in groups and size
    stand together as the rows of one partition: few calls, however many strata.
    """

    def __init__(
        self, groups: int, sizes: npt.NDArray[np.int64], bits: Bits, label: npt.NDArray[np.int64] | None = None
    ):
        self.sizes, self.bits = sizes, bits
        self.counts = np.array([groups]) if label is None else np.bincount(label)
        alike = np.lexsort([sizes, self.counts])
        rank = np.argsort(alike)
        self.order = np.arange(groups) if label is None else np.argsort(rank[label], kind="stable")
        self.place = None if label is None else np.argsort(self.order, kind="stable")
        self.offset = 0 if label is None else STRATA
        both = np.stack([self.counts, sizes], axis=1)[alike]
        starts = np.flatnonzero(np.r_[True, (both[1:] != both[:-1]).any(1)])
        self.alike = [(*both[i].tolist(), n) for i, n in zip(starts, np.diff(np.r_[starts, len(both)]), strict=True)]

    def __call__(self, rows: Rows, columns: int) -> Masks:
        keys = self.bits.of(self.offset, rows, self.order)
        kept = np.empty(keys.shape, bool)
        start = 0
        for count, size, strata in self.alike:
            stop = start + count * strata
            kept[:, start:stop] = smallest(keys[:, start:stop].reshape(-1, count), size).reshape(len(rows), -1)
            start = stop
        return kept[:, :columns] if self.place is None else kept.take(self.place[:columns], axis=1)

    @property
    def surprise(self) -> float:
        both = zip(self.counts, self.sizes, strict=True)
        ways = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for n, k in both)
        return sum(ways) / math.log(2) - 1


def smallest(keys: npt.NDArray[np.uint64], size: int) -> Masks:
    """Which entries are the `size` smallest of their row, of equal ones the first."""
    kept: Masks = keys <= np.partition(keys, size - 1, axis=1)[:, size - 1 : size]
    for row in np.flatnonzero(kept.sum(1) > size):
        kept[row] = False
        kept[row, np.argsort(keys[row], kind="stable")[:size]] = True
    return kept


def shuffled(count: int, bits: Bits) -> npt.NDArray[np.int64]:
    """0 .. count - 1 in random order."""
    return np.argsort(bits(STRATA + 2, np.arange(count)), kind="stable")


def stratum_sizes(alpha: float, counts: npt.NDArray[np.int64], bits: Bits) -> npt.NDArray[np.int64]:
    """How many groups of each stratum a mask keeps, round(alpha * groups) in all; -1 where that cannot be.

    Every stratum gets alpha times its groups, rounded down, but at least 1; what is missing from the total goes, one
    each, to the strata that this rounded down most, in random order where they are equal.
    """
    total, wish = round(alpha * counts.sum()), alpha * counts
    wish = np.where(np.abs(wish - np.rint(wish)) < 1e-9, np.rint(wish), wish)
    sizes = np.maximum(np.floor(wish), 1).astype(np.int64)
    most = np.minimum(np.maximum(np.ceil(wish), 1), counts - 1).astype(np.int64)
    order = np.lexsort([bits(STRATA + 1, np.arange(len(counts))), np.rint((sizes - wish) * 1e9)])
    room = order[sizes[order] < most[order]]
    sizes[room[: max(total - int(sizes.sum()), 0)]] += 1
    impossible = (wish < 0.5) | (wish > counts - 0.5) | (sizes > most)
    if not impossible.any() and sizes.sum() != total:
        impossible[np.abs(sizes - wish).argmax()] = True
    sizes[impossible] = -1
    return sizes


def numbered(strata: npt.ArrayLike | None, groups: int, alpha: float, seed: int) -> npt.NDArray[np.int64]:
    """The strata numbered in order of appearance, each large enough to vary."""
    labels = to_array(strata, "strata", DesignError)
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if labels.shape != (groups,) or labels.dtype.kind not in "biuU":
        wrong = f"strata of shape {labels.shape} and dtype {labels.dtype} for {groups} groups"
        raise DesignError(wrong, "strata", "pass one whole number or string per group")
    names, first, code = np.unique(labels, return_index=True, return_inverse=True)
    code = np.argsort(np.argsort(first))[code.reshape(-1)].astype(np.int64)
    counts = np.bincount(code)
    sizes = stratum_sizes(alpha, counts, Bits(seed))
    if sizes.min() < 0:
        worst = int(sizes.argmin())
        name, number = names[np.argsort(first)][worst].item(), int(counts[worst])
        wrong = f"stratum {name!r} has {number} group{'s' * (number > 1)}: alpha = {alpha:g} must keep some, not all"
        mend = "merge it with another stratum, or choose an alpha that keeps at least one and leaves one out of each"
        raise DesignError(wrong, "strata", mend)
    return code


def _rule(groups: int, alpha: float, bits: Bits, strata: Rows | None, counts: Rows | None) -> Rule:
    if strata is None or counts is None:
        return FixedSize(groups, np.array([round(alpha * groups)]), bits)
    sizes = stratum_sizes(alpha, counts, Bits(bits.seed))
    return FixedSize(groups, np.resize(sizes, int(strata.max()) + 1), bits, strata)


def _check(groups: int, alpha: float) -> None:
    if (size := round(alpha * groups)) in (0, groups):
        kept = "no group" if size == 0 else "all groups"
        wrong = f"alpha = {alpha:g} of {groups} groups keeps {kept}"
        raise DesignError(wrong, "alpha", "nothing would vary: choose another")


_ARGUMENTS = ("models", "alpha", "seed", "placebos")
RANDOM = Kind("random subsets of fixed size", _ARGUMENTS, _rule, _check, one_size=True)
STRATIFIED = Kind(
    "random subsets with a fixed share of each stratum", (*_ARGUMENTS, "strata"), _rule, _check, one_size=True
)
