"""Groups of which a set of masks can say nothing: those in no row, and those in every row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pydt import _core
from pydt.design import Design

_NAMED = 5
_STEP = 1024  # masks looked at at once: a design may be too large to hold


def uncompared(masks: Design, names: Sequence[str]) -> tuple[str, str] | None:
    """Which groups are in no row or in every row, in words, and what mends it; None if none is."""
    some = np.zeros((1, -(-len(names) // 8)), np.uint8)
    every = ~some
    for start in range(0, len(masks), _STEP):
        packed = masks.packed(np.arange(start, min(start + _STEP, len(masks))))
        some |= np.bitwise_or.reduce(packed, axis=0)
        every &= np.bitwise_and.reduce(packed, axis=0)
        never = np.flatnonzero(~_core.unpack(some, masks.groups)[0])
        always = np.flatnonzero(_core.unpack(every, masks.groups)[0])
        if not never.size and not always.size:
            return None
    if len(never) + len(always) == masks.groups:
        return f"all {len(masks):,} rows keep the same groups", "add masks that keep others"
    told = [f"{_named(at, names)} in {where}" for at, where in ((never, "no row"), (always, "every row")) if at.size]
    if masks.drawn:
        enough = f"3 to 5 a group are usual, here models = {3 * masks.groups:,} or more"
        return " and ".join(told) + f" of {len(masks):,}", f"train more rows: {enough}"
    return " and ".join(
        told
    ) + f" of {len(masks):,}", "leave these columns out of the masks, or add masks that differ in them"


def _named(at: np.ndarray, names: Sequence[str]) -> str:
    more = f" and {len(at) - _NAMED:,} more" if len(at) > _NAMED else ""
    said = ", ".join(repr(names[i]) for i in at[:_NAMED])
    return f"{'group' if len(at) == 1 else 'groups'} {said}{more} {'is' if len(at) == 1 else 'are'}"
