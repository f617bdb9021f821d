"""The cores of this machine, divided between our threads and those of BLAS.

Threads of OpenBLAS wait for the next product in a busy loop of some 20 ms, on cores that our threads need: on two
cores, a second thread of ours gave 1.01x with two BLAS threads and 1.46x with one. So while several of our threads
work, BLAS has one thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

Item = TypeVar("Item")
GPU_SHARE = "PYDT_GPU_SHARE"
"""The environment variable that says to a worker what `gpu_share` says."""
_WORKERS = 4  # items that are in memory at once; the core's own threads take what cores are left
_END: Any = object()
_here = threading.local()
_lock = threading.Lock()  # of the two below
_users = 0
_limits: Any = None


def available() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_share() -> float:
    """The share of a GPU's memory that this process may take: less than 1 in a worker that shares one with others."""
    return float(os.environ.get(GPU_SHARE, 1))


def threads() -> int:
    """`available`; inside `share_out`, those of one worker."""
    return max(1, available() // getattr(_here, "workers", 1))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS runs on one thread: a setting of the whole process, from the first user to the last."""
    global _users, _limits
    with _lock:
        if not _users:
            _limits = _blas().limit(limits=1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _limits.restore_original_limits()


@cache
def _blas() -> Any:
    """The BLAS libraries that are loaded, numpy's among them; finding them takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def share_out(items: Iterable[Item], work: Callable[[Item], None]) -> None:
    """Call work(item) for each: the first alone, so that it can fill caches for the others; the others in parallel.

    BLAS has one thread meanwhile. Items are made one at a time. The first error ends it and is raised.
    """
    with one_blas_thread():
        rest = iter(items)
        for first in rest:
            work(first)
            break
        second = next(rest, _END)
        if second is not _END:
            _side_by_side(second, rest, work)


def _side_by_side(first: Item, rest: Iterator[Item], work: Callable[[Item], None]) -> None:
    workers, ahead, making, ended = min(threads(), _WORKERS), [first], threading.Lock(), False

    def run(share: int) -> None:
        nonlocal ended
        try:
            while not ended:
                with making:
                    item = _END if ended else ahead.pop() if ahead else next(rest, _END)
                if item is _END:
                    break
                _here.workers = share
                work(item)
                del item  # or it stays while the next one is made
                _here.workers = 1
        finally:
            _here.workers = 1
            ended = True

    with ThreadPoolExecutor(max(1, workers - 1)) as pool:
        others = [pool.submit(run, workers) for _ in range(workers - 1)]
        run(workers)
        for other in others:
            other.result()
