"""What the store's log says about time."""

from __future__ import annotations

import math

from pydt.store.plan_record import Record
from pydt.store.store import Store


def row_seconds(store: Store, record: Record) -> float | None:
    """Mean seconds of one worker for a row of a plan, from the store's log; None if it has none.

    The log is no data: it may lack lines, and a time says something about the machine that it was taken on.
    """
    sources = set(record.sources)
    times = [
        entry["seconds"]
        for entry in store.logged("row", {"source": str, "seconds": float})
        if entry["source"] in sources
    ]
    times = [seconds for seconds in times if math.isfinite(seconds) and seconds > 0]
    return sum(times) / len(times) if times else None
