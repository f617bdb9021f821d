"""One file per way to train a source model, and one line here.

A method is a function of a `Job`: it trains `job.body` in place and returns the metrics of the source. None: nothing is
trained.
"""

from __future__ import annotations

from collections.abc import Callable

from pydt.training.methods import supervised
from pydt.training.methods.common import Job, Learnt

METHODS: dict[str, Callable[[Job], Learnt] | None] = {"supervised": supervised.learn, "none": None}
PLANNED = ("simclr", "clip", "checkpoint")
"""Names kept for methods to come."""
