"""Worker processes on this machine, which never outlive their driver.

They are plain Python processes that do not import the caller's script again (so a script needs no
`if __name__ == "__main__"`), ignore Ctrl-C and SIGTERM, and end when the driver ends, even by kill -9. Why no library:
in loky's and concurrent.futures' pools one dead process breaks the pool, Pebble imports the script; here it costs one
row.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from pydt.base import GPU_SHARE, available
from pydt.ensemble.executors.call import LATE, WorkerDied, claim, portable, set_parcel

_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")  # NAME_NUM_THREADS, read once when a library loads

_FOR_ROWS = 0.9  # of the memory of a GPU that several workers share

# glibc returns memory of a batch's size to the system when it is freed and asks for it again at the next step, page
# fault by page fault: a quarter of the time of a small row. 32 MB is the largest threshold it allows.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "2147483648"}

# A worker ties its life to the driver's first: importing numpy may take a second on a busy machine.
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


def places(recipe: Any) -> tuple[int, tuple[str, ...]]:
    """How many rows this machine trains at once, and the GPUs to give to the workers, one each."""
    device = str(getattr(recipe, "device", "cpu"))
    if device == "cuda":
        found = _gpus()
        return max(1, len(found)), found
    if device.startswith("cuda"):
        return 1, ()
    return max(1, available() // int(recipe.threads)), ()


def _gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if names and all(name.startswith("MIG-") for name in names):
        return tuple(names)  # parts of a GPU: CUDA shows a process one of them, however many are named
    import torch

    count = torch.cuda.device_count()
    return tuple(names[:count] if len(names) >= count else map(str, range(count)))


def _last_words(status: int | None, limit: float | None) -> str | None:
    """Why a worker ended, from its exit status and the limit of its row."""
    if limit is not None and status in (LATE, -signal.SIGALRM):
        return f"ran longer than {limit:g} s"
    return None if status is None else f"exit status {status}"


class Processes(Executor):
    """Worker processes on this machine, each served by a thread of the driver over a socket of its own.

    A worker that dies fails its one row (`WorkerDied`) and is replaced. Workers share no queue, lock or semaphore, so a
    kill leaves nothing locked or behind.

    Args:
        workers, threads: processes, and threads of the arithmetic in each.
        parcel: of `pack`: runner and context that `work` uses for None. Each worker unpickles it when it starts, which
            loads the libraries before the first row. Empty: calls bring what they need.
        gpus: GPUs as CUDA_VISIBLE_DEVICES names them; the workers see one each, in turn. Empty: all see all GPUs.
        share: workers on a GPU; None: as many as each of `gpus` gets of `workers`; without `gpus` all of them, since
            they may all use one. Each may take its part of nine tenths of the memory (`pydt.base.gpu_share`; CUDA
            itself takes some for each): whether a row fits then depends on the GPU and the number of workers, not on
            what the others do at the time.
    """

    def __init__(
        self, workers: int, threads: int, parcel: bytes, gpus: Sequence[str] = (), share: float | None = None
    ) -> None:
        self._parcel = parcel
        self._gpus = gpus
        self._environment = {**MALLOC, **os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in _THREADS}}
        share = share or -(-workers // max(1, len(gpus)))
        if share > 1:
            self._environment[GPU_SHARE] = f"{_FOR_ROWS / share:.4f}"
        self._jobs: SimpleQueue[tuple[Future[Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._killed = False
        # all start at once now: importing torch takes longer than a small row
        self._servers = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(workers)]
        for server in self._servers:
            server.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((future, (function, arguments, named)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Finish what was submitted, then end the workers."""
        for _ in self._servers:
            self._jobs.put(None)
        if wait:
            for server in self._servers:
                server.join()

    def alive(self) -> int:
        """How many workers live now."""
        with self._lock:
            return sum(process.poll() is None for process in self._workers.values())

    def kill(self) -> None:
        """End all workers now. Their rows are lost; no worker ever writes a file of the store."""
        with self._lock:
            self._killed = True
            for process in self._workers.values():
                process.kill()
        self.shutdown()

    def _serve(self, slot: int) -> None:
        # Ctrl-C reaches the whole process group, SIGTERM often all of a job, and SIGUSR2 is Slurm's warning before the
        # end: the driver decides what they mean. Blocked here, they are blocked in the children from their first
        # instruction on. This thread lives as long as its worker: its end would kill the worker (PDEATHSIG).
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2})
        connection: Connection | None = None
        with contextlib.suppress(Exception):  # tried again with the first job, which reports the error
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
            except BaseException as error:  # a call that cannot be pickled or an answer that cannot be unpickled
                future.set_exception(error)
        self._end(slot, connection)

    def _start(self, slot: int) -> Connection | None:
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])  # Python ignores the others, too
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
        with contextlib.suppress(OSError):  # its first job reports a worker that has died already
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
            return process.wait(2.0)  # it sees that its socket is closed
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _worker() -> None:
    """Body of a worker process: answers calls until the socket closes or the driver is gone."""
    number, driver = int(sys.argv[2]), int(sys.argv[3])
    sys.argv[1:] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    claim()
    _watch(driver, number)
    connection = Connection(number)
    try:
        set_parcel(connection.recv_bytes())
        while True:
            function, arguments, named = connection.recv()
            try:
                answer = "result", function(*arguments, **named)
            except Exception as error:
                answer = "error", portable(error)
            try:
                connection.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError):
                connection.send(("result", {"error": None, "traceback": traceback.format_exc()}))
    except (EOFError, OSError):
        pass
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)  # unloading torch takes longer than starting Python


def _watch(driver: int, number: int) -> None:
    """End this process when the driver ends in any way, also in the middle of a row."""

    def watch() -> None:
        hangup = select.poll()
        hangup.register(number, 0)  # only reports that the other end is closed
        while not hangup.poll(500) and os.getppid() == driver:
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
