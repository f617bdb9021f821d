"""What the store's log says about time: rows an hour, seconds a row.

The log is no data: lines may be missing, and times belong to the machine that wrote them.
"""

from __future__ import annotations

import math
import os
import re
import time

from pydt.base import HEX32
from pydt.store.block_format import Finder
from pydt.store.plan_record import Record
from pydt.store.store import Store

_TAIL = 1 << 22  # bytes of the log's end that are looked at
_HOUR = 3600.0
_LINE = re.compile(rb'\{"time": (\d+(?:\.\d+)?), "event": "([^"\\]*)"')  # of the log, as `Store.log` writes it


def row_seconds(store: Store, record: Record) -> float | None:
    """Mean seconds of one worker for a row of a plan, from the store's log; None if it has none.

    Rows whose network came from the bank do not count: they say nothing about a training. Nor do the same trainings
    with none of the plan's tasks: trials of learning rates take longer than its rows.
    """
    cells = Finder(record.cells.reshape(-1, 16))
    times = [
        entry["seconds"]
        for entry in store.logged("row", {"keys": [HEX32], "seconds": float, "network?": str})
        if entry.get("network") != "bank" and any(cells.one(bytes.fromhex(key)) >= 0 for key in entry["keys"])
    ]
    times = [seconds for seconds in times if math.isfinite(seconds) and seconds > 0]
    return sum(times) / len(times) if times else None


def rows_per_hour(store: Store) -> float:
    """Rows an hour, since the first row of the last hour."""
    times = []
    try:
        with open(store.folder / "log.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read(_TAIL).splitlines()
    except OSError:
        return 0.0
    now = time.time()
    for line in reversed(lines):
        if (found := _LINE.match(line)) is None:
            continue
        if now - float(found[1]) > _HOUR:
            break
        if found[2] == b"row":
            times.append(float(found[1]))
    if not times:
        return 0.0
    return round(_HOUR * max(1, len(times) - 1) / max(now - min(times), 1.0), 1)
