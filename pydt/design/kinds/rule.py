"""How masks are drawn: the rows of a rule that are asked for, and nothing else.

A rule gives any rows, in any order, from random bits keyed by (seed, stream, row and group); nothing is held between
calls but one block of a foldover rule. With K groups and N the power of two above K:

    FixedSize    per row K random numbers and a partition at the wanted rank: O(K), with any number of strata
    Independent  per row K random numbers and K comparisons
    Foldover     entry (i, j) of Sylvester's Hadamard matrix is the parity of popcount(i & j), so a row is one AND and
                 one popcount per group. The block's permutations of columns and rows are sorted once, O(N log N), and
                 kept: 4 K + 8 N bytes

Callers ask for few rows at a time (`CHUNK`): a row takes about 30 bytes a group while it is drawn.

What lost: sorting a row's keys to find the smallest (8 times the partition); the stratum as the upper
bits of the key, and one sort (as slow) or a partition at many ranks (slower still); the recursion H_2N = (H_N H_N; H_N
-H_N) followed by a gather of the columns (a random read per group, where the popcount is two instructions); looking at
all rows of a block for an empty one (N x K): that is a linear system over GF(2).

The bits are frozen (see `pydt.design`): another way to draw is another rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import DesignError

# Streams of the random numbers used here; real and placebo columns, and each attempt at a row or block, have their own.
_STREAM = 0x0D00_0000
PLACEBO = 0x0080_0000
_STRATA = 0x0040_0000
_ATTEMPTS = 1000
CHUNK = 1 << 20  # entries of the masks that are drawn at once

Rows = npt.NDArray[np.int64]
Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Bits:
    """Random numbers of one design: `bits(offset, ids)` is uint64 (ids,)."""

    seed: int
    stream: int = 0

    def __call__(self, offset: int, ids: Rows) -> npt.NDArray[np.uint64]:
        return _core.random_bits(self.seed, _STREAM + self.stream + offset, ids)

    def of(self, offset: int, rows: Rows, groups: Rows) -> npt.NDArray[np.uint64]:
        """One number for every group of every row, (rows, groups); groups: all of them, in any order."""
        ids = rows[:, None] * len(groups) + groups
        return self(offset, ids.reshape(-1)).reshape(ids.shape)


class Rule(Protocol):
    """`rule(rows, columns)` is bool (rows, columns): the first `columns` groups of these rows.

    `surprise` is -log2 of (at most) the chance that two rows, not a pair of one, repeat or complement each other.
    """

    def __call__(self, rows: Rows, columns: int) -> Masks: ...

    @property
    def surprise(self) -> float: ...


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
        self.offset = 0 if label is None else _STRATA
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


class Independent:
    """Every group below alpha on its own; rows that came out empty are drawn again from the next stream."""

    def __init__(self, groups: int, alpha: float, bits: Bits):
        self.groups, self.alpha, self.bits = np.arange(groups), alpha, bits

    def __call__(self, rows: Rows, columns: int) -> Masks:
        kept = np.zeros((len(rows), len(self.groups)), bool)
        limit = np.uint64(int(self.alpha * 2.0**64))
        for attempt in range(_ATTEMPTS):
            empty = np.flatnonzero(~kept.any(1))
            if not empty.size:
                return kept[:, :columns]
            kept[empty] = self.bits.of(attempt, rows[empty], self.groups) < limit
        raise DesignError(
            f"alpha = {self.alpha:g} of {len(self.groups)} groups leaves masks empty", "alpha", "choose a larger one"
        )

    @property
    def surprise(self) -> float:
        return -len(self.groups) * math.log2(self.alpha**2 + (1 - self.alpha) ** 2) - 1


class Foldover:
    """Blocks of pairs (mask, complement) in random order, the two halves in random order.

    Above 5 groups a block is Sylvester's Hadamard matrix of order N on random, randomly signed columns, none of its
    rows all in or all out. Up to 5 groups, every mask but the empty and the full one.
    """

    def __init__(self, groups: int, bits: Bits):
        self.groups, self.bits = groups, bits
        self.small = groups <= 5
        self.digits = groups.bit_length() if not self.small else groups
        self.pairs = (1 << (groups - 1)) - 1 if self.small else 1 << self.digits
        self._last: tuple[int, npt.NDArray[np.unsignedinteger[Any]], Rows] | None = None

    def __call__(self, rows: Rows, columns: int) -> Masks:
        kept = np.empty((len(rows), columns), bool)
        blocks, place = np.divmod(rows, 2 * self.pairs)
        for block in np.unique(blocks):
            here = np.flatnonzero(blocks == block)
            codes, order = self._block(int(block))
            pair = order[place[here] // 2]
            flip = (self.bits(2 * _ATTEMPTS + 1, block * self.pairs + pair) >> np.uint64(63)).astype(np.int64)
            flip ^= place[here] & 1
            # the bits above the row's number add the column's sign and the row's own flip to the parity
            row = pair + 1 if self.small else pair | 1 << self.digits
            row = (row | flip << (self.digits + 1)).astype(codes.dtype)
            kept[here] = np.bitwise_count(codes[:columns] & row[:, None]) & 1
        return kept

    @property
    def surprise(self) -> float:
        """Two blocks are signed independently; within one, pairs look alike only where its columns are half of all and
        lie in one half of the matrix, which above 64 groups is far rarer."""
        return self.groups - 1.0

    def _block(self, block: int) -> tuple[npt.NDArray[np.unsignedinteger[Any]], Rows]:
        """Codes of the columns, (groups,), and the order of the pairs, (pairs,)."""
        last = self._last
        if last is None or last[0] != block:
            codes = 1 << np.arange(self.groups, dtype=np.int64) if self.small else self._columns(block)
            ids = np.arange(block * self.pairs, (block + 1) * self.pairs)
            order = np.argsort(self.bits(2 * _ATTEMPTS, ids), kind="stable")
            kind = np.uint32 if self.digits < 31 else np.uint64
            last = self._last = block, (codes | 1 << (self.digits + 1)).astype(kind), order
        return last[1:]

    def _columns(self, block: int) -> npt.NDArray[np.int64]:
        """Which column of the matrix each group gets, with its sign in the bit above."""
        ids = np.arange(block * self.pairs, (block + 1) * self.pairs)
        for attempt in range(_ATTEMPTS):
            columns = np.argsort(self.bits(2 * attempt, ids), kind="stable")[: self.groups]
            signs = (self.bits(2 * attempt + 1, ids[: self.groups]) >> np.uint64(63)).astype(np.int64)
            if not constant_row(columns, signs, self.digits):
                return columns | signs << self.digits
        wrong = f"no block of {self.groups} groups without an empty mask was found"
        raise DesignError(wrong, "groups", "use bernoulli instead")


def constant_row(columns: npt.NDArray[np.int64], signs: npt.NDArray[np.int64], digits: int) -> bool:
    """Whether some row i has one value of parity(i & columns) ^ signs in all columns.

    That is a linear system over GF(2) for the digits of i and the value: Gaussian elimination on the columns, which
    stand in rows of `digits` + 1 unknowns and the right side. It has a solution unless 0 = 1 is left.
    """
    few = 2 * digits + 64  # where signs are random, these say it already
    if len(columns) > few and not constant_row(columns[:few], signs[:few], digits):
        return False
    left = columns | 1 << digits | signs << (digits + 1)
    for digit in range(digits + 1):
        has = (left >> digit & 1).astype(bool)
        if has.any():
            left = np.where(has, left ^ left[has.argmax()], left)
    return not left.any()


def shuffled(count: int, bits: Bits) -> npt.NDArray[np.int64]:
    """0 .. count - 1 in random order."""
    return np.argsort(bits(_STRATA + 2, np.arange(count)), kind="stable")


def stratum_sizes(alpha: float, counts: npt.NDArray[np.int64], bits: Bits) -> npt.NDArray[np.int64]:
    """How many groups of each stratum a mask keeps, round(alpha * groups) in all; -1 where that cannot be.

    Every stratum gets alpha times its groups, rounded down, but at least 1; what is missing from the total goes, one
    each, to the strata that this rounded down most, in random order where they are equal.
    """
    total, wish = round(alpha * counts.sum()), alpha * counts
    wish = np.where(np.abs(wish - np.rint(wish)) < 1e-9, np.rint(wish), wish)
    sizes = np.maximum(np.floor(wish), 1).astype(np.int64)
    most = np.minimum(np.maximum(np.ceil(wish), 1), counts - 1).astype(np.int64)
    order = np.lexsort([bits(_STRATA + 1, np.arange(len(counts))), np.rint((sizes - wish) * 1e9)])
    room = order[sizes[order] < most[order]]
    sizes[room[: max(total - int(sizes.sum()), 0)]] += 1
    impossible = (wish < 0.5) | (wish > counts - 0.5) | (sizes > most)
    if not impossible.any() and sizes.sum() != total:
        impossible[np.abs(sizes - wish).argmax()] = True
    sizes[impossible] = -1
    return sizes
