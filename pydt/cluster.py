"""Executors for clusters: the rows of a run on Ray or on Slurm.

Both bring to each node what a run uses on one machine, a process that computes rows and nothing else
(`pydt.workers.Processes`). So a row's watchdog, its death and its bytes are the same everywhere, and what Ray or Slurm
loses comes back as `WorkerDied`, which the driver answers by trying the row again. Runner and context travel once; data
sets travel as paths and digests, and as copies only to nodes that do not see the files (`pydt.copies`).
"""

from __future__ import annotations

import importlib
import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from typing import IO, Any

from pydt import copies
from pydt.errors import ConfigError, PydtError
from pydt.files import digest
from pydt.workers import Processes, WorkerDied, pack, work

_BLOCK = 64 << 20  # bytes of a data set in one object of Ray's store

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def _imported(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        wrong = f"the package {name!r} is not installed ({error})"
        raise ConfigError(wrong, f"pydt.cluster.{extra.capitalize()}", f"pip install 'pydt[{extra}]'") from error


class _Parcel:
    """Runner and context of a run, as they travel: once, however many rows go with them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.key = digest(data)
        value, self.needs = copies.needs(data)
        recipe = getattr(value[1], "recipe", None) if isinstance(value, tuple) else None
        self.threads = int(getattr(recipe, "threads", 1))
        self.cuda = str(getattr(recipe, "device", "cpu")).startswith("cuda")


class _Parcels:
    """The parcels an executor has met, and its calls without them."""

    def __init__(self) -> None:
        self.known: dict[bytes, _Parcel] = {}
        self.empty = _Parcel(pack(None))

    def split(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[_Parcel, Call]:
        if function is not work:
            return self.empty, (function, arguments, named)
        data, *rest = arguments
        if data not in self.known:
            self.known[data] = _Parcel(data)
        return self.known[data], (function, (None, *rest), named)


def _failure(error: Exception) -> dict[str, Any]:
    """What `work` gives for a row that could not be computed."""
    return {"error": error if isinstance(error, PydtError) else None, "traceback": f"{type(error).__name__}: {error}"}


# ---- Ray -----------------------------------------------------------------------------------------------------------


class _RayFuture(Future[Any]):
    """A future whose cancelling ends the row where it runs."""

    stop: Callable[[], None] | None = None

    def cancel(self) -> bool:
        done = super().cancel()
        if done and self.stop is not None:
            self.stop()
        return done


class Ray(Executor):
    """Rows as tasks of a Ray cluster: `pydt.run(plan, folder, Ray(address="auto", gpus=0.5))`.

    Each task is one row and takes the resources that are asked for here; Ray chooses the node, and an autoscaling
    cluster grows with the rows that wait. A lost node or worker costs the rows that it was on.

    Args:
        address: of a cluster that runs, as `ray.init` takes it ("auto", "10.0.0.5:6379"). None: the connection that the
            script has opened already, else $RAY_ADDRESS, else a Ray of our own on this machine, which ends with the
            executor.
        cpus, gpus: what one row takes; a fraction of a GPU lets several rows share it.
        workers: how many rows run at once; None: as many as the cluster has room for now. Ask for more where the
            cluster grows by itself.
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
        self._ray = ray = _imported("ray", "ray")
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
            # A worker may serve many rows, also with a GPU, and it is pydt that counts its deaths.
            usual = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0, "max_calls": 0}
            self._task = ray.remote(**{**usual, **(options or {})})(_in_ray)
        except BaseException:
            self._leave()
            raise
        self._threads = max(1, int(cpus))
        names = "WorkerCrashedError", "NodeDiedError", "ObjectLostError", "OutOfMemoryError", "LocalRayletDiedError"
        self._lost = tuple(getattr(ray.exceptions, name) for name in names)
        self._parcels = _Parcels()
        self._refs: dict[str, Any] = {}  # parcels and data sets in Ray's object store
        self._lock = threading.Lock()
        self._open: set[_RayFuture] = set()
        self._closed = False

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        parcel, call = self._parcels.split(function, arguments, named)
        if parcel.key not in self._refs:
            self._refs[parcel.key] = self._ray.put(parcel.data)
        future = _RayFuture()
        with self._lock:
            self._open.add(future)
        future.add_done_callback(self._open.discard)
        self._send(future, parcel, call, {})
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the rows under way end, or cancel them; then end Ray, if it is ours."""
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

    def _leave(self) -> None:
        self._refs = {}
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    def _send(self, future: _RayFuture, parcel: _Parcel, call: Call, sent: dict[str, Any]) -> None:
        """Start the task of a call; `sent` are the data sets that its node is known to lack."""
        # in a list, a reference is not followed: a worker that has the parcel does not fetch it again
        task = self._task.remote(parcel.key, [self._refs[parcel.key]], parcel.needs, self._threads, sent, call)
        future.stop = partial(self._ray.cancel, task, force=True)
        if future.cancelled():
            future.stop()
        task.future().add_done_callback(partial(self._settle, future, parcel, call, task.task_id().hex()))

    def _settle(self, future: _RayFuture, parcel: _Parcel, call: Call, name: str, task: Future[Any]) -> None:
        error = task.exception()
        if error is None and task.result()[0] == "missing" and not future.cancelled():
            # not in this thread, which is Ray's own: it may take minutes
            threading.Thread(target=self._resend, args=(future, parcel, call, task.result()[1]), daemon=True).start()
            return
        if not future.set_running_or_notify_cancel():
            return
        if error is None:
            kind, value = task.result()
            if kind == "result":
                future.set_result(value)
            else:
                future.set_exception(WorkerDied(value) if kind == "died" else value)
        elif isinstance(error, self._lost):
            future.set_exception(WorkerDied(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"))
        else:
            future.set_exception(error)

    def _resend(self, future: _RayFuture, parcel: _Parcel, call: Call, lacking: Sequence[str]) -> None:
        try:
            folders = {digest: folder for folder, digest in parcel.needs}
            with self._lock:  # each data set enters the object store once
                for name in lacking:
                    if name not in self._refs:
                        blocks = _Blocks(self._ray.put)
                        copies.send(folders[name], blocks)
                        self._refs[name] = blocks.done()
            self._send(future, parcel, call, {name: self._refs[name] for name in lacking})
        except Exception as error:
            if future.set_running_or_notify_cancel():
                future.set_result(_failure(error))


class _Blocks(io.RawIOBase):
    """A stream that is cut into objects of Ray's store."""

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
    """The stream again: one object at a time, so that no node needs memory for more."""

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


def _opened(get: Callable[[Any], bytes], blocks: Sequence[Any]) -> IO[bytes]:
    return io.BufferedReader(_Unblocked(get, blocks), 1 << 20)


_pool: tuple[tuple[Any, ...], Processes] | None = None  # of this process of Ray's, if it has had a row


def _in_ray(
    key: str, parcel: list[Any], needs: list[copies.Need], threads: int, sent: dict[str, list[Any]], call: Call
) -> tuple[str, Any]:
    """One call in a process of Ray's, which hands it to a process of ours.

    Returns:
        ("result", value), ("died", why the worker ended), ("error", exception) or ("missing", digests of data sets).
    """
    global _pool
    import ray

    try:
        for name, blocks in sent.items():
            copies.receive(name, partial(_opened, ray.get, blocks))
        # Ray says by this variable which GPUs the task may use; the next task may have others
        wanted = key, threads, os.environ.get("CUDA_VISIBLE_DEVICES")
        if _pool is None or _pool[0] != wanted:
            if lacking := copies.missing(needs):
                return "missing", lacking
            if _pool is not None:
                _pool[1].kill()
            _pool = wanted, Processes(1, threads, ray.get(parcel[0]))
        function, arguments, named = call
        return "result", _pool[1].submit(function, *arguments, **named).result()
    except WorkerDied as error:
        return "died", str(error)
    except PydtError as error:
        return "result", _failure(error)
    except Exception as error:
        return "error", RuntimeError(f"{type(error).__name__}: {error}")
