"""One call in the process that computes it: a row, under a watchdog, its exceptions as values."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pydt.base import ConfigError, PydtError, TrainError
from pydt.ensemble.code_version import versions
from pydt.ensemble.executors.pickling import load
from pydt.store import Outcome

LATE = 124  # exit status of a worker whose watchdog ended it, as of timeout(1)
GRACE = 5.0  # seconds after which the kernel ends a process whose watchdog cannot run: native code has the interpreter


class WorkerDied(Exception):
    """A worker process ended in the middle of a row."""


_ours = False  # whether this process was started to compute rows and does nothing else


def claim() -> None:
    """Say that this process was started to compute rows and does nothing else, so that an overlong row may end it."""
    global _ours
    _ours = True
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@contextlib.contextmanager
def watchdog(limit: float | None) -> Iterator[None]:
    """End this process if what is done inside takes longer than `limit` seconds, and show on stderr where it was.

    Raises:
        ConfigError: there is a limit, and this process is not a worker: its end would be the end of more than a row.
    """
    if limit is None:
        yield
        return
    if not _ours:
        mend = "leave the executor out, use one of pydt.cluster, or run without a limit"
        raise ConfigError("only a process of its own can be ended in the middle of a row", "limit", mend)

    def end() -> None:
        faulthandler.dump_traceback(2)
        os._exit(LATE)

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()
    signal.setitimer(signal.ITIMER_REAL, limit + GRACE)
    try:
        yield
    finally:
        timer.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)


_parcels: dict[bytes | None, tuple[Callable[..., Any], Any]] = {}
_parcels_lock = threading.Lock()


def set_parcel(data: bytes) -> None:
    """Unpickle the parcel that `work` takes for None in this process."""
    _parcels[None] = load(data)


def _unpack(parcel: bytes | None) -> tuple[Callable[..., Any], Any]:
    """Runner and context of a parcel, unpickled once per process; None is the one the process was started with."""
    with _parcels_lock:
        if parcel not in _parcels:
            assert parcel is not None
            while len(_parcels) > 3:
                _parcels.pop(next(iter(_parcels)))
            _parcels[parcel] = load(parcel)
        return _parcels[parcel]


def work(parcel: bytes | None, row: Any, tasks: tuple[int, ...], *, limit: float | None = None) -> dict[str, Any]:
    """Compute one row in whatever process this is: `runner(context, row, tasks)`, from a parcel of runner and context.

    After `limit` seconds, the context's unpickling included, the process ends itself; its executor says so with
    `WorkerDied`. In a process that is not only a worker a limit is refused.

    A `TrainError` fails the row's cells. Other exceptions come back as values: not every exception survives a pickle.
    """
    start, caught = time.perf_counter(), []
    try:
        with watchdog(limit):
            runner, context = _unpack(parcel)
            chosen = tuple(context.tasks[position] for position in tasks)
            if threading.current_thread() is threading.main_thread():
                with warnings.catch_warnings(record=True) as caught:
                    outcomes = runner(context, row, chosen)
            else:  # warnings filters belong to the process, not to a thread
                outcomes = runner(context, row, chosen)
    except TrainError as error:
        outcomes = {task.digest: Outcome(status="failed", reason=str(error)) for task in chosen}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return {"error": error if isinstance(error, PydtError) else None, "traceback": traceback.format_exc()}
    texts = dict.fromkeys(f"{warning.category.__name__}: {warning.message}" for warning in caught)
    return {
        "outcomes": outcomes,
        "seconds": round(time.perf_counter() - start, 4),
        "host": platform.node(),
        "pid": os.getpid(),
        "versions": versions(),
        "warnings": list(texts)[:20],
    }
