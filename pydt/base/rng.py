"""Random numbers by purpose: two uses of one seed get independent bits."""

from __future__ import annotations

import numpy as np

from pydt.base.digests import digest


def generator(purpose: str, *key: int | str) -> np.random.Generator:
    """A generator that depends on (purpose, key) alone: Philox keyed by their digest."""
    return np.random.Generator(np.random.Philox(key=int(digest("generator", purpose, list(key)), 16)))


def seed31(purpose: str, *key: int | str) -> int:
    """A seed of 31 bits that depends on (purpose, key) alone."""
    return int(digest("seed", purpose, list(key))[:8], 16) >> 1
