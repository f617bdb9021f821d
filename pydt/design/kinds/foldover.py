"""Randomised Hadamard masks, each followed by its complement.

Entry (i, j) of Sylvester's Hadamard matrix is the parity of popcount(i & j), so a row is one AND and one popcount per
group. With N the power of two above K groups, a block's permutations of columns and rows are sorted once, O(N log N),
and kept: 4 K + 8 N bytes. What lost: the recursion H_2N = (H_N H_N; H_N -H_N) followed by a gather of the columns (a
random read per group, where the popcount is two instructions); looking at all rows of a block for an empty one (N x K):
that is a linear system over GF(2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import DesignError
from pydt.design.kinds.common import ATTEMPTS, Bits, Kind, Masks, Rows


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
            flip = (self.bits(2 * ATTEMPTS + 1, block * self.pairs + pair) >> np.uint64(63)).astype(np.int64)
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
            order = np.argsort(self.bits(2 * ATTEMPTS, ids), kind="stable")
            kind = np.uint32 if self.digits < 31 else np.uint64
            last = self._last = block, (codes | 1 << (self.digits + 1)).astype(kind), order
        return last[1:]

    def _columns(self, block: int) -> npt.NDArray[np.int64]:
        """Which column of the matrix each group gets, with its sign in the bit above."""
        ids = np.arange(block * self.pairs, (block + 1) * self.pairs)
        for attempt in range(ATTEMPTS):
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


def _check(groups: int, alpha: float) -> None:
    if alpha != 0.5:
        wrong = f"foldover masks keep half of the groups, not alpha = {alpha:g}"
        raise DesignError(wrong, "alpha", "use random or bernoulli for that share")
    if groups < 3:
        wrong = f"foldover cannot tell {groups} groups apart without empty masks"
        raise DesignError(wrong, "groups", "use bernoulli, or finer groups")


FOLDOVER = Kind(
    "Hadamard subsets with their complements",
    ("models", "seed", "placebos"),
    lambda groups, alpha, bits, strata, counts: Foldover(groups, bits),
    _check,
    pairs=True,
)
