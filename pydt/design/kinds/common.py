"""What a kind of design is: how its rows are drawn, and what follows from that.

A rule gives any rows, in any order, from random bits keyed by (seed, stream, row and group); nothing is held between
calls but one block of a foldover rule. Callers ask for few rows at a time (`CHUNK`): a row takes about 30 bytes a group
while it is drawn.

The bits are frozen (see `pydt.design.design`): another way to draw is another kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pydt import _core

# Streams of the random numbers used here; real and placebo columns, and each attempt at a row or block, have their own.
_STREAM = 0x0D00_0000
PLACEBO = 0x0080_0000
STRATA = 0x0040_0000
ATTEMPTS = 1000
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


Drawing = Callable[[int, float, Bits, Rows | None, Rows | None], Rule]
"""Makes the rule of (groups, alpha, bits, strata, groups in each stratum of the design); None: no strata."""


@dataclass(frozen=True)
class Kind:
    """A kind of design.

    Attributes:
        phrase: what a report says of it.
        arguments: keys of a plan file's table besides `kind` and `rows`.
        rule: makes its rule; None: the masks are given.
        check: refuses (groups, alpha) for which the kind has no masks.
        one_size: whether every mask keeps as many groups (of each stratum): a group is then only compared with the
            others, estimand "swap".
        pairs: whether rows come in pairs of a mask and its complement.
    """

    phrase: str
    arguments: tuple[str, ...]
    rule: Drawing | None = None
    check: Callable[[int, float], None] = lambda groups, alpha: None
    one_size: bool = False
    pairs: bool = False
