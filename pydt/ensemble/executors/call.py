"""One call in the process that computes it: a row under a watchdog, exceptions as values."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
import shutil
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pydt.base import ConfigError, PydtError, TrainError, machine
from pydt.ensemble.code_version import versions
from pydt.ensemble.executors.pickling import load
from pydt.ensemble.row import RowInput, Told, keep_row, outcomes_of, run_row
from pydt.ensemble.runners import Command
from pydt.store import FACTS, Kept, Outcome

LATE = 124  # exit status of a worker whose watchdog ended it, as of timeout(1)
GRACE = 5.0  # more seconds until the kernel ends a process whose watchdog cannot run: native code holds the interpreter


class WorkerDied(Exception):
    """A worker process, or the node below it, was lost in the middle of a row."""


_worker = False  # whether this process only computes rows


def claim() -> None:
    """Declare that this process only computes rows, so that an overlong row may end it."""
    global _worker
    _worker = True
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@contextlib.contextmanager
def watchdog(limit: float | None) -> Iterator[None]:
    """End this process if the block takes longer than `limit` seconds, and write to stderr where it was.

    Raises:
        ConfigError: there is a limit, and this process does not only compute rows.
    """
    if limit is None:
        yield
        return
    if not _worker:
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


MOST = 4  # parcels that a process holds
_parcels: dict[bytes, tuple[Callable[..., Any], Any]] = {}
_parcels_lock = threading.Lock()
_first = b""


def set_parcel(data: bytes) -> None:
    """Name the parcel that `work` uses for None in this process, and load what it needs before the first row."""
    global _first
    _first = data
    with contextlib.suppress(BaseException):  # a row that needs it reports the error
        _unpack(None)


def _unpack(parcel: bytes | None) -> tuple[Callable[..., Any], Any]:
    """Runner and context of a parcel; the last few stay unpickled. None: the one given to `set_parcel`."""
    data = _first if parcel is None else parcel
    with _parcels_lock:
        if data not in _parcels:
            while len(_parcels) >= MOST:
                _parcels.pop(next(iter(_parcels)))
            _parcels[data] = load(data)
        return _parcels[data]


def work(
    parcel: bytes | None,
    row: Any,
    tasks: tuple[int, ...],
    *,
    limit: float | None = None,
    keep: str = "none",
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Compute one row in this process: `runner(RowInput)` of a parcel of runner and context.

    `keep` says what to keep of a training of pydt's own runner, `kept` is what an earlier training of the row left.

    After `limit` seconds, unpickling of the context included, the process ends itself, and its executor raises
    `WorkerDied`. A limit is refused in a process that does more than compute rows, unless a command computes them: then
    only the program is ended.

    A `TrainError` is a result: the row has failed for these tasks. Other exceptions come back as values, since not all
    of them survive a pickle.

    Returns:
        "outcomes" by digest of the task, "seconds", "host", "pid", "versions", "warnings", and of pydt's own runner
        what `keep_row` adds; or "error" (a PydtError or None) and "traceback". In both "notes" and "log" of `Told`.
    """
    start, caught = time.perf_counter(), []
    more: dict[str, Any] = {}
    told = Told()
    try:
        with watchdog(limit if _worker else None):
            runner, context = _unpack(parcel)
        chosen = tuple(context.tasks[position] for position in tasks)
        # a program is ended by who waits for it: the worker lives on
        ends = runner is run_row and isinstance(context.recipe, Command)
        with watchdog(None if ends else limit):
            # warnings filters belong to the process, not to a thread
            main = threading.current_thread() is threading.main_thread()
            with (
                warnings.catch_warnings(record=True) if main else contextlib.nullcontext([]) as caught,
                contextlib.ExitStack() as folders,
                contextlib.chdir(os.getcwd()) if _worker else contextlib.nullcontext(),  # for the next row
            ):
                own = limit if ends else None
                given = RowInput(context, row, chosen, lambda: folders.enter_context(_scratch()), own, told)
                if runner is run_row:
                    facts = {name: str(versions()[name]) for name in FACTS if name in versions()}
                    raw, more = keep_row(given, keep, kept, facts)
                else:
                    raw = runner(given)
                outcomes = outcomes_of(raw, chosen)
                if all(getattr(one, "status", None) == "ok" for one in outcomes.values()):
                    told.log = ""
    except TrainError as error:
        outcomes = {task.digest: Outcome(status="failed", reason=str(error)) for task in chosen}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        known = error if isinstance(error, PydtError) else None
        return {"error": known, "traceback": traceback.format_exc(), **vars(told)}
    texts = dict.fromkeys(f"{warning.category.__name__}: {warning.message}" for warning in caught)
    return {
        "outcomes": outcomes,
        "seconds": round(time.perf_counter() - start, 4),
        "host": platform.node(),
        "pid": os.getpid(),
        "versions": versions(),
        "warnings": list(texts)[:20],
        **vars(told),
        **more,
    }


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """An empty folder for a row; those that killed processes left behind are removed."""
    parent, name = Path(tempfile.gettempdir()), f"pydt-row-{machine()}-"
    for left in parent.glob(f"{name}*"):
        try:
            os.kill(int(left.name.removeprefix(name).partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (OSError, ValueError, OverflowError):
            continue  # it lives, of another user
    with tempfile.TemporaryDirectory(prefix=f"{name}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def returned(future: Future[Any]) -> tuple[str, Any]:
    """A call that is done in a worker process, as values that travel: "result", "died" (why) or "error"."""
    error = future.exception()
    if error is None:
        return "result", future.result()
    return ("died", str(error)) if isinstance(error, WorkerDied) else ("error", portable(error))


def portable(error: BaseException) -> RuntimeError:
    """An exception as one that survives a pickle."""
    return RuntimeError(f"{type(error).__name__}: {error}")
