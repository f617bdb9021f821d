"""Whether failed rows go with some groups: a permutation test on which rows failed."""

from __future__ import annotations

from typing import Any

import numpy as np

from pydt.store import Store


def failure_test(
    store: Store, plan: Any = None, permutations: int = 999, *, tile: int = 1 << 27
) -> tuple[int, int, float]:
    """Test whether rows fail more or less often with some groups than without.

    The statistic is the largest |z|, over the groups, of the hypergeometric count "failed rows that kept the group".
    Its distribution comes from permuting which rows failed: p = (1 + number at least as big) / (1 + permutations).

    Args:
        plan: as in `Store.plan`.
        tile: entries of the masks that are widened at once.

    Returns:
        failed rows, finished rows (failed ones included), p.
    """
    record = store.plan(plan)
    good, bad, _ = store.split(record)
    total, failed = len(good) + len(bad), len(bad)
    if failed in (0, total):
        return failed, total, 1.0
    packed = record.packed(np.append(np.array([i for i, _ in bad], np.int64), good))
    largest = np.zeros(1 + permutations)
    step = max(1, tile // total // 8)  # bytes of a mask
    for start in range(0, packed.shape[1], step):
        groups = min(8 * step, len(record.names) - 8 * start)
        masks = np.unpackbits(packed[:, start : start + step], axis=1, count=groups, bitorder="little")
        share = masks.mean(axis=0, dtype=np.float64)
        spread = np.sqrt(failed * share * (1 - share) * (total - failed) / (total - 1))
        varies = spread > 0
        if not varies.any():
            continue
        random = np.random.default_rng(0)  # the same permutations for every tile
        for i in range(1 + permutations):
            chosen = np.arange(failed) if i == 0 else random.permutation(total)[:failed]
            count = masks[chosen].sum(axis=0, dtype=np.float64)
            z = np.abs((count - failed * share)[varies] / spread[varies]).max()
            largest[i] = max(largest[i], z)
    # counts are whole numbers: equal ones may differ in the last bit after the division
    above = int((largest[1:] >= largest[0] - 1e-9).sum())
    return failed, total, (1 + above) / (1 + permutations)
