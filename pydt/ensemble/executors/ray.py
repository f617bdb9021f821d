"""Rows on a Ray cluster."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from typing import IO, Any

from pydt.base import ConfigError, PydtError
from pydt.data import missing, receive, send
from pydt.ensemble.executors.call import MOST, portable, returned
from pydt.ensemble.executors.local import Processes
from pydt.ensemble.executors.parcel import Call, Order, Parcel, Parcels, extend, failure, imported, module_paths, settle


class _RayFuture(Future[Any]):
    """A future that ends its row where it runs when it is cancelled."""

    stop: Callable[[], None] | None = None

    def cancel(self) -> bool:
        done = super().cancel()
        if done and self.stop is not None:
            self.stop()
        return done


class Ray(Executor):
    """Rows as tasks of a Ray cluster: `pydt.run(plan, folder, Ray(address="auto", gpus=0.5))`.

    Each row is a Ray task with the resources named here. Ray chooses the node, and an autoscaling cluster grows with
    the rows that wait. A lost node or worker costs the rows that ran there.

    Args:
        address: of a running cluster, as `ray.init` takes it ("auto", "10.0.0.5:6379"). None: the connection that the
            script has opened, else $RAY_ADDRESS, else a Ray on this machine that ends with the executor.
        cpus, gpus: of one row; several rows share a GPU by fractions.
        workers: how many rows run at once; None: as many as fit the cluster now. Give more where the cluster grows.
        options: further options of the tasks, as `ray.remote` takes them ("resources", "runtime_env",
            "scheduling_strategy", ...).

    Raises:
        ConfigError: Ray is not installed, the cluster cannot be reached, or has no room for a row.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: float = 1,
        gpus: float = 0.0,
        workers: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._ray = ray = imported("ray", "ray")
        if min(cpus, gpus) < 0 or (workers is not None and workers < 1):
            raise ConfigError(f"cpus={cpus}, gpus={gpus}, workers={workers}", "Ray", "give positive numbers")
        self._ours = not ray.is_initialized()
        address = address or os.environ.get("RAY_ADDRESS")
        if self._ours:
            quiet = {"log_to_driver": False, "logging_level": "WARNING"}
            try:
                if address is None:
                    ray.init("local", include_dashboard=False, **quiet)
                else:
                    ray.init(address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                mend = "start one with `ray start --head`, or leave address out for a Ray of this machine alone"
                raise ConfigError(f"cannot be reached ({error})", f"Ray at {address}", mend) from error
        try:
            self._max_workers = workers or self._room(cpus, gpus)
            # a worker serves many rows, also with a GPU; the driver counts deaths and tries again
            usual = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0, "max_calls": 0}
            self._task = ray.remote(**{**usual, **(options or {})})(_in_ray)
        except BaseException:
            self._leave()
            raise
        self._threads = max(1, int(cpus))
        self._paths = module_paths()
        names = "WorkerCrashedError", "NodeDiedError", "ObjectLostError", "OutOfMemoryError", "LocalRayletDiedError"
        self._lost = tuple(getattr(ray.exceptions, name) for name in names)
        # in Ray's object store, which drops an object without references
        self._held: dict[str, Any] = {}  # parcels
        self._data: dict[str, Any] = {}  # data sets
        self._parcels = Parcels(self._hold, lambda parcel: self._held.pop(parcel.key, None))
        self._lock = threading.Lock()
        self._open: set[_RayFuture] = set()
        self._closed = False

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        parcel, call = self._parcels.split(function, arguments, named)
        future = _RayFuture()
        with self._lock:
            self._open.add(future)
        future.add_done_callback(self._open.discard)
        future.add_done_callback(partial(self._parcels.release, parcel))
        self._send(future, parcel, call, {})
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Finish or cancel the running rows, then end Ray if it is ours."""
        self._closed = True
        with self._lock:
            running = list(self._open)
        if cancel_futures:
            for future in running:
                future.cancel()
        if wait or not running:
            wait_for(running)
            self._leave()

    def _room(self, cpus: float, gpus: float) -> int:
        have = self._ray.cluster_resources()
        room = min([int(have.get(name, 0) / each) for name, each in (("CPU", cpus), ("GPU", gpus)) if each] or [1])
        if room < 1:
            there = f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}"
            wrong = f"a row asks for {cpus:g} CPUs and {gpus:g} GPUs; there are {there}"
            raise ConfigError(wrong, "Ray", "ask for less, or give workers= if the cluster grows by itself")
        return room

    def _hold(self, parcel: Parcel) -> None:
        self._held[parcel.key] = self._ray.put(parcel.data)

    def _leave(self) -> None:
        self._held, self._data = {}, {}
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    def _send(self, future: _RayFuture, parcel: Parcel, call: Call, sent: dict[str, Any]) -> None:
        """Start the task of a call; `sent` are data sets that its node lacks."""
        if future.cancelled():  # its parcel may be gone
            future.set_running_or_notify_cancel()
            return
        # Ray does not fetch a reference inside a list: a worker that has the parcel does not get it again
        order = Order(parcel.key, parcel.needs, 1, self._threads, call)
        task = self._task.remote(order, [self._held[parcel.key]] if parcel.key else [], self._paths, sent)
        future.stop = partial(self._ray.cancel, task, force=True)
        if future.cancelled():
            future.stop()
        task.future().add_done_callback(partial(self._settle, future, parcel, call, task.task_id().hex()))

    def _settle(self, future: _RayFuture, parcel: Parcel, call: Call, name: str, task: Future[Any]) -> None:
        error = task.exception()
        if error is None and task.result()[0] == "missing" and not future.cancelled():
            # in another thread: this one is Ray's, and sending may take minutes
            threading.Thread(target=self._resend, args=(future, parcel, call, task.result()[1]), daemon=True).start()
            return
        if error is None:
            settle(future, *task.result())
        elif isinstance(error, self._lost):
            settle(future, "died", f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
        else:
            settle(future, "error", error)

    def _resend(self, future: _RayFuture, parcel: Parcel, call: Call, lacking: Sequence[str]) -> None:
        try:
            folders = {digest: folder for folder, digest in parcel.needs}
            with self._lock:  # each data set enters the object store once, for as long as parts need it
                for old in self._data.keys() - self._parcels.needed():
                    del self._data[old]
                for name in lacking:
                    if name not in self._data:
                        blocks = Blocks(self._ray.put)
                        send(folders[name], blocks)
                        self._data[name] = blocks.done()
                sent = {name: self._data[name] for name in lacking}
            self._send(future, parcel, call, sent)
        except Exception as error:
            settle(future, "result", failure(error))


_pool: tuple[tuple[Any, ...], Processes] | None = None  # the worker below this process of Ray
_parcels: dict[str, bytes] = {}  # the last ones


def _in_ray(order: Order, parcel: list[Any], paths: list[str], sent: dict[str, list[Any]]) -> tuple[str, Any]:
    """One call in a process of Ray, which gives it to a worker process: `returned`, or "missing" and digests."""
    global _pool
    import ray

    try:
        for name, blocks in sent.items():
            receive(name, partial(joined, ray.get, blocks))
        if parcel and order.key not in _parcels:
            if lacking := missing(order.needs):
                return "missing", lacking
            while len(_parcels) >= MOST:
                _parcels.pop(next(iter(_parcels)))
            _parcels[order.key] = ray.get(parcel[0])
        data = _parcels[order.key] if parcel else b""
        # the GPUs that Ray gives to this task; the next task may have others
        wanted = order.threads, os.environ.get("CUDA_VISIBLE_DEVICES"), paths
        if _pool is None or _pool[0] != wanted:
            if _pool is not None:
                _pool[1].kill()
            extend(paths)
            part = ray.get_runtime_context().get_assigned_resources().get("GPU") or 1.0
            _pool = wanted, Processes(1, order.threads, data, share=1 / part)
        done = order.start(_pool[1], data)
        wait_for([done])
        return returned(done)
    except PydtError as error:
        return "result", failure(error)
    except Exception as error:
        return "error", portable(error)


_BLOCK = 64 << 20  # bytes of a piece of a stream


class Blocks(io.RawIOBase):
    """A stream to write to, stored in pieces by `put`: objects of Ray's store."""

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put, self._buffer = put, bytearray()
        self._blocks: list[Any] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._buffer += data
        while len(self._buffer) >= _BLOCK:
            self._blocks.append(self._put(bytes(self._buffer[:_BLOCK])))
            del self._buffer[:_BLOCK]
        return len(data)

    def done(self) -> list[Any]:
        return [*self._blocks, self._put(bytes(self._buffer))]


class _Unblocked(io.RawIOBase):
    """A stream to read from, made of the pieces."""

    def __init__(self, get: Callable[[Any], bytes], blocks: Sequence[Any]) -> None:
        self._get, self._blocks, self._rest = get, list(blocks), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not len(self._rest) and self._blocks:
            self._rest = memoryview(self._get(self._blocks.pop(0)))
        count = min(len(into), len(self._rest))
        into[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def joined(get: Callable[[Any], bytes], blocks: Sequence[Any]) -> IO[bytes]:
    """The pieces of `Blocks` as one stream, with one piece in memory at a time."""
    return io.BufferedReader(_Unblocked(get, blocks), 1 << 20)
