"""Worker processes on this machine: they start fast, keep nothing to themselves and never outlive their driver.

They are plain Python processes that do not import the caller's script again (so a script needs no
`if __name__ == "__main__"`), ignore Ctrl-C and SIGTERM, and end when the driver ends, even by kill -9.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import platform
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

import pydt
from pydt import __version__
from pydt.base import ConfigError, PydtError, TrainError, available, digest
from pydt.ensemble.executors.pickling import load
from pydt.store import Outcome

_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")  # NAME_NUM_THREADS, read once when a library loads

# The allocator of glibc gives memory of the size of a batch back to the system when it is freed, and asks for it again
# at the next step, page fault by page fault: a quarter of the time of a small row. 32 MB is the most it allows.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "2147483648"}

_LATE = 124  # exit status of a worker whose watchdog ended it, as of timeout(1)
_GRACE = 5.0  # seconds after which the kernel ends a process whose watchdog cannot run: native code has the interpreter

_DECISIVE = ("base", "data", "design", "training")  # rooms

# The first thing a worker does is to tie its life to the driver's; importing numpy may take a second on a busy machine.
_BOOT = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: also while native code holds the interpreter
if os.getppid() != int(sys.argv[3]):
    os._exit(1)
import json
sys.path[:] = json.loads(sys.argv[1])
from pydt.ensemble.executors.local import _worker
_worker()
"""


class WorkerDied(Exception):
    """A worker process ended in the middle of a row."""


_ours = False  # whether this process was started to compute rows and does nothing else


def claim() -> None:
    """Say that this process was started to compute rows and does nothing else, so that an overlong row may end it."""
    global _ours
    _ours = True
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@contextlib.contextmanager
def _watchdog(limit: float | None) -> Iterator[None]:
    """End this process if what is done inside takes longer than `limit` seconds, and show on stderr where it was.

    Raises:
        ConfigError: there is a limit, and this process is not a worker: its end would be the end of more than a row.
    """
    if limit is None:
        yield
        return
    if not _ours:
        mend = "leave the executor out, use one of pydt.ensemble.executors.slurm, or run without a limit"
        raise ConfigError("only a process of its own can be ended in the middle of a row", "limit", mend)

    def end() -> None:
        faulthandler.dump_traceback(2)
        os._exit(_LATE)

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()
    signal.setitimer(signal.ITIMER_REAL, limit + _GRACE)
    try:
        yield
    finally:
        timer.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)


_parcels: dict[bytes | None, tuple[Callable[..., Any], Any]] = {}
_parcels_lock = threading.Lock()


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
        with _watchdog(limit):
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


def decisive() -> list[Path]:
    """The files that decide a row's numbers: data, masks, training, transfer, and what calls them."""
    root = Path(pydt.__file__).parent
    rooms = [path for room in _DECISIVE for path in root.joinpath(room).rglob("*.py")]
    return sorted([*rooms, root / "ensemble" / "row.py"])


def code_version() -> str:
    """Version of pydt (which stands for the core's) and a digest of the files that decide a row's numbers."""
    return f"{__version__}+{digest(*(path.read_bytes() for path in decisive()))[:12]}"


@cache
def versions() -> dict[str, str]:
    """What computes rows in this process: the code, the libraries and the instruction set of the core."""
    from pydt import _core

    found = {"code": code_version(), "python": platform.python_version(), "numpy": np.__version__, "isa": _core.isa()}
    # As installed: whether they are loaded yet must make no difference. Cells record `FACTS` of these, the log all.
    for name in ("torch", "torchvision", "pillow", "nvidia-dali-cuda130"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def places(recipe: Any) -> tuple[int, tuple[str, ...]]:
    """How many rows this machine trains at once, and the GPUs to share out among the workers, one each."""
    device = str(getattr(recipe, "device", "cpu"))
    if device.startswith("cuda"):
        import torch

        count = torch.cuda.device_count()
        if device != "cuda" or count < 2:  # rows on one GPU only wait for each other
            return 1, ()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        return count, tuple(visible[:count] if len(visible) >= count else map(str, range(count)))
    return max(1, available() // int(recipe.threads)), ()


def _last_words(status: int | None, limit: float | None) -> str | None:
    """Why a worker ended, from its exit status and the seconds its row might take."""
    if limit is not None and status in (_LATE, -signal.SIGALRM):
        return f"ran longer than {limit:g} s"
    return None if status is None else f"exit status {status}"


class Processes(Executor):
    """Worker processes on this machine, each served by a thread of the driver over a socket of its own.

    A worker that dies fails the one row it was on (`WorkerDied`) and is replaced. No queue, lock or semaphore is
    shared, so nothing can be left behind or left locked, whoever is killed and when.

    Args:
        workers, threads: processes, and threads of the arithmetic in each.
        parcel: from `pack`: runner and context.
        gpus: names of GPUs as CUDA_VISIBLE_DEVICES takes them; each worker sees one, in turn, so more workers than GPUs
            share them evenly. None given: all workers see all GPUs.
    """

    def __init__(self, workers: int, threads: int, parcel: bytes, gpus: Sequence[str] = ()) -> None:
        self._parcel = parcel
        self._gpus = gpus
        self._environment = {**_MALLOC, **os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in _THREADS}}
        self._jobs: SimpleQueue[tuple[Future[Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._killed = False
        # all of them start now, at once: importing torch takes longer than a small row
        self._servers = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(workers)]
        for server in self._servers:
            server.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((future, (function, arguments, named)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers finish what was submitted, then end them."""
        for _ in self._servers:
            self._jobs.put(None)
        if wait:
            for server in self._servers:
                server.join()

    def alive(self) -> int:
        """How many workers there are at this moment."""
        with self._lock:
            return sum(process.poll() is None for process in self._workers.values())

    def kill(self) -> None:
        """End all workers now; their rows are lost, the files of the store are not: no worker ever writes one."""
        with self._lock:
            self._killed = True
            for process in self._workers.values():
                process.kill()
        self.shutdown()

    def _serve(self, slot: int) -> None:
        # Ctrl-C on a terminal reaches the whole process group, SIGTERM often all of a job, and SIGUSR2 is how Slurm
        # announces its end: the driver decides. A signal blocked here stays blocked in the children, from their first
        # instruction on. The thread lives as long as its worker: its end would kill it (PDEATHSIG).
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2})
        connection: Connection | None = None
        with contextlib.suppress(Exception):  # tried again with the first job, which is told
            connection = self._start(slot)
        while (item := self._jobs.get()) is not None:
            future, call = item
            if self._killed or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            try:
                if connection is None:
                    connection = self._start(slot)
                if connection is None:
                    raise WorkerDied("could not be started")
                connection.send(call)
                kind, value = connection.recv()
                (future.set_result if kind == "result" else future.set_exception)(value)
            except (OSError, EOFError, WorkerDied) as error:
                status = self._end(slot, connection)
                connection = None
                future.set_exception(WorkerDied(_last_words(status, call[2].get("limit")) or str(error)))
            except BaseException as error:  # a call that cannot be pickled, an answer that cannot be read
                future.set_exception(error)
        self._end(slot, connection)

    def _start(self, slot: int) -> Connection | None:
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])  # Python, too, passes over the others
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        command = [sys.executable, "-P", "-c", _BOOT, paths, str(number), str(os.getpid())]
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]} if self._gpus else {}
        with theirs, self._lock:
            if self._killed:
                ours.close()
                return None
            try:
                self._workers[slot] = subprocess.Popen(
                    command, env={**self._environment, **gpu}, pass_fds=[number], stdin=subprocess.DEVNULL
                )
            except OSError:
                ours.close()
                raise
        connection = Connection(ours.detach())
        with contextlib.suppress(OSError):  # a worker that died already is noticed at its first job
            connection.send_bytes(self._parcel)
        return connection

    def _end(self, slot: int, connection: Connection | None) -> int | None:
        if connection is not None:
            connection.close()
        with self._lock:
            process = self._workers.pop(slot, None)
        if process is None:
            return None
        try:
            return process.wait(2.0)  # it sees its socket closed
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _worker() -> None:
    """Body of a worker process: calls in, answers out, until the socket closes or the driver is gone."""
    number, driver = int(sys.argv[2]), int(sys.argv[3])
    sys.argv[1:] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    claim()
    _watch(driver, number)
    connection = Connection(number)
    try:
        try:
            _parcels[None] = load(connection.recv_bytes())
        except EOFError:
            raise
        except BaseException:
            failure = {"error": None, "traceback": traceback.format_exc()}
            while True:
                connection.recv()
                connection.send(("result", failure))
        while True:
            function, arguments, named = connection.recv()
            try:
                answer = "result", function(*arguments, **named)
            except Exception as error:
                answer = "error", RuntimeError(f"{type(error).__name__}: {error}")
            try:
                connection.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError):
                connection.send(("result", {"error": None, "traceback": traceback.format_exc()}))
    except (EOFError, OSError):
        pass
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)  # nothing to tidy up, and tearing torch down takes longer than starting Python


def _watch(driver: int, number: int) -> None:
    """End this process when the driver ends, however it does, also in the middle of a row."""

    def watch() -> None:
        hangup = select.poll()
        hangup.register(number, 0)  # asks for nothing but the end of the line
        while not hangup.poll(500) and os.getppid() == driver:
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
