"""Independent coins: per row K random numbers and K comparisons."""

from __future__ import annotations

import math

import numpy as np

from pydt.base import DesignError
from pydt.design.kinds.common import ATTEMPTS, Bits, Kind, Masks, Rows


class Independent:
    """Every group below alpha on its own; rows that came out empty are drawn again from the next stream."""

    def __init__(self, groups: int, alpha: float, bits: Bits):
        self.groups, self.alpha, self.bits = np.arange(groups), alpha, bits

    def __call__(self, rows: Rows, columns: int) -> Masks:
        kept = np.zeros((len(rows), len(self.groups)), bool)
        limit = np.uint64(int(self.alpha * 2.0**64))
        for attempt in range(ATTEMPTS):
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


def _check(groups: int, alpha: float) -> None:
    if (1 - alpha) ** groups > 0.5:
        wrong = f"alpha = {alpha:g} of {groups} groups leaves most masks empty"
        raise DesignError(wrong, "alpha", "choose a larger one")


BERNOULLI = Kind(
    "independent coin flips for each group",
    ("models", "alpha", "seed", "placebos"),
    lambda groups, alpha, bits, strata, counts: Independent(groups, alpha, bits),
    _check,
)
