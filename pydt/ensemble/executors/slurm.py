"""Rows in jobs of Slurm, or of another batch system that submitit knows."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydt.base import ConfigError, PydtError, as_path, real, whole, write_atomic, writing
from pydt.data import send
from pydt.ensemble.executors.mailbox import BEAT, Job, Listener, Mail, Pace, Pulse, listed
from pydt.ensemble.executors.parcel import Call, Order, Parcel, Parcels, failure, imported, module_paths, settle

_SHORT = 120.0  # seconds of a row below which the next is sent ahead, so that a job does not wait for messages
_LEAVE = 10.0  # seconds for jobs to end by themselves
_FAILURES = 2  # a slot is given up after so many jobs without an answer
_REFUSALS = 12  # failed submissions in a row, one a look: a busy Slurm may not answer for a minute


@dataclass(eq=False)
class _Order:
    """A call without an answer."""

    future: Future[Any]
    parcel: Parcel
    call: Call
    sent: float = 0.0


@dataclass(eq=False)
class _Slot:
    """A job and the calls that it has."""

    job: Any
    listener: Listener
    thread: threading.Thread | None = None  # in which submitit's debug executor runs it
    life: str = ""
    alive: bool = False
    answered: bool = False
    failures: int = 0
    orders: dict[str, _Order] = field(default_factory=dict)

    def ended(self) -> bool:
        return not self.thread.is_alive() if self.thread is not None else bool(self.job.done())


def _private(root: Path) -> None:
    """Make the folder of submitit's files, which only the owner may enter: it holds the pickles that jobs run.

    Raises:
        ConfigError: another user owns it, or could replace it.
    """
    mend = "name a folder of your own, which others may not write to"
    try:
        (root / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        above, inside = root.stat(), (root / "logs").lstat()
        if inside.st_uid != os.geteuid() or not stat.S_ISDIR(inside.st_mode):
            raise ConfigError("is not yours, and what lies in it runs as you", str(root / "logs"), mend)
        if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
            raise ConfigError("is open to everybody, and what lies in it runs as you", str(root), mend)
        (root / "logs").chmod(0o700)
    except OSError as error:
        raise ConfigError(f"cannot be made ({error.strerror or error})", str(root / "logs"), mend) from error


class Slurm(Executor):
    """Rows in jobs of Slurm: `pydt.run(plan, folder, Slurm("/shared/jobs", workers=40, timeout_min=240))`.

    The jobs are one array, serve many rows each (see `pydt.ensemble.executors.mailbox`) and end with the executor. A
    job that is preempted or runs out of time is queued again; a lost one is replaced.

    Args:
        folder: the same path on this machine and the compute nodes, writable for you alone. Messages, submitit's files
            and logs go below it, where only you may read them.
        cluster: submitit's executor: "slurm", "local" (processes of this machine), "debug" (threads of this process);
            None: Slurm if there is one, else local.
        workers: jobs. One runs a row for every `recipe.threads` of its CPUs (`cpus_per_task`), or with a recipe for
            "cuda" `gpu_share` for every GPU (`gpus_per_node`).
        gpu_share: rows that share a GPU.
        poll: seconds between two looks at the states of the jobs.
        parameters: of the jobs, as submitit's AutoExecutor takes them: `timeout_min` (60 by default), `mem_gb`,
            `cpus_per_task`, `gpus_per_node`, `slurm_partition`, `slurm_account`, `slurm_setup`, ...

    Raises:
        ConfigError: submitit is not installed, a parameter is unknown, there is no such cluster, or others may write to
            the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        cluster: str | None = None,
        workers: int,
        gpu_share: int = 1,
        poll: float = 5.0,
        **parameters: Any,
    ) -> None:
        submitit = imported("submitit", "slurm")
        if workers < 1:
            raise ConfigError(f"workers={workers}", "Slurm", "give the number of jobs")
        share = whole(gpu_share, "gpu_share", "Slurm", 1, None, ConfigError)
        for name in ("nodes", "tasks_per_node", "slurm_nodes", "slurm_ntasks_per_node"):
            if parameters.get(name, 1) != 1:
                wrong, mend = f"{name}={parameters[name]}", "a job is one process on one node: raise workers="
                raise ConfigError(wrong, "Slurm", mend)
        root = as_path(folder, "Slurm", made=True).expanduser().resolve()
        _private(root)
        try:
            self._executor = submitit.AutoExecutor(root / "logs", cluster=cluster)
            if self._executor.cluster == "slurm":
                parameters.setdefault("slurm_array_parallelism", workers)
            self._executor.update_parameters(**{"name": "pydt", "timeout_min": 60, **parameters})
        except (AssertionError, NameError, OSError, RuntimeError, TypeError, ValueError) as error:
            mend = "see submitit's AutoExecutor and SlurmExecutor for what it takes"
            raise ConfigError(f"submitit refuses this: {error}", "Slurm", mend) from error
        self.folder, self._key = root / secrets.token_hex(6), secrets.token_bytes(32)
        self._mail = Mail(self.folder, self._key)
        self._count, self._poll = workers, real(poll, "poll", "Slurm", above=0)
        self._cpus, self._gpus = (
            int(next((parameters[p + name] for p in ("slurm_", "") if parameters.get(p + name)), 1))
            for name in ("cpus_per_task", "gpus_per_node")
        )
        self._gpus *= share
        self._max_workers = workers * max(self._cpus, self._gpus)
        self._parcels = Parcels(
            lambda parcel: self._mail.put(f"parcels/{parcel.key}", parcel.data),
            lambda parcel: self._remove("parcels", parcel.key),
        )
        self._kept: set[str] = set()  # data sets in the folder
        self._slots: dict[int, _Slot] = {}
        self._queue: deque[_Order] = deque()
        self._open: dict[str, _Order] = {}  # calls that a job has
        self._number = self._refused = 0  # of messages; of failed submissions in a row
        self._brought = 0  # calls whose data sets are being written
        self._ahead = False
        self._pace, self._pulse = Pace(), Pulse(self.folder / "driver")
        self._lock = threading.Lock()
        self._failed: Exception | None = None  # what ended the manager
        self._orders = threading.Lock()  # of the queue: closed once the manager has given up
        self._closed = False
        self._manager = threading.Thread(target=self._manage, daemon=True)
        self._heart, self._ended = threading.Thread(target=self._live, daemon=True), threading.Event()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not self._slots:
            self._begin()
        parcel, call = self._parcels.split(function, arguments, named)
        order = _Order(Future(), parcel, call)
        order.future.add_done_callback(partial(self._parcels.release, parcel))
        self._enqueue(order, self._queue.append)
        self._pace.wake()
        return order.future

    def _enqueue(self, order: _Order, put: Callable[[_Order], None]) -> None:
        with self._orders:
            if self._failed is None:
                put(order)
            else:
                settle(order.future, "error", self._failed)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Finish or cancel the running rows, then end the jobs and remove the messages. Logs stay."""
        self._closed = True
        atexit.unregister(self._exit)
        if cancel_futures:
            for order in [*self._queue, *self._open.values()]:
                order.future.cancel()
        self._pace.wake()
        if wait and self._slots:
            self._manager.join()

    def _exit(self) -> None:
        self.shutdown(cancel_futures=True)

    def _remove(self, *place: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.folder.joinpath(*place))

    # ---- the jobs' side

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700)
        for name in ("parcels", "data", "beats", "in", "out"):
            (self.folder / name).mkdir()
        self._pulse.beat()
        try:
            jobs = self._executor.submit_array([self._job(slot) for slot in range(self._count)])
        except Exception as error:  # sbatch and submitit raise many kinds
            shutil.rmtree(self.folder, ignore_errors=True)
            mend = "try the same with `sbatch`, and see the logs below the executor's folder"
            raise PydtError(f"no job could be submitted ({error})", "Slurm", mend) from error
        for number, job in enumerate(jobs):
            self._slots[number] = self._slot(number, job)
        atexit.register(self._exit)
        self._heart.start()
        self._manager.start()

    def _job(self, number: int) -> Job:
        return Job(str(self.folder), number, module_paths(), self._key)

    def _slot(self, number: int, job: Any) -> _Slot:
        made = _Slot(job, Listener(self.folder / "beats" / str(number)))
        if self._executor.cluster == "debug":  # it computes in the call that asks for results
            made.thread = threading.Thread(target=job.results, daemon=True)
            made.thread.start()
        return made

    def _live(self) -> None:
        """Body of the thread that tells the jobs that the driver lives, also while Slurm takes minutes to answer."""
        while not self._ended.wait(BEAT):
            self._pulse.beat()

    def _manage(self) -> None:
        """Body of the thread that exchanges messages with the jobs."""
        looked = -self._poll
        try:
            while not self._over():
                busy = self._collect()
                self._listen()
                if time.monotonic() - looked > self._poll:
                    looked = time.monotonic()
                    self._replace()
                self._pace.wait(self._assign() or busy)
        except Exception as error:
            with self._orders:
                self._closed, self._failed = True, error
                for order in [*self._queue, *self._open.values()]:
                    settle(order.future, "error", error)
        finally:
            self._end()

    def _over(self) -> bool:
        orders = [*self._queue, *self._open.values()]
        return self._closed and not self._brought and all(order.future.done() for order in orders)

    def _collect(self) -> bool:
        """Take the answers."""
        names = listed(self.folder / "out")
        for name in names:
            try:
                kind, value = self._mail.fetch(f"out/{name}")
            except OSError:
                continue
            except Exception as error:
                kind, value = "died", f"its answer cannot be read ({type(error).__name__}: {error})"
            for slot in self._slots.values():
                if slot.orders.pop(name, None) is not None:
                    slot.answered = True
            order = self._open.pop(name, None)
            if order is None:  # another job has it now
                continue
            self._ahead = time.monotonic() - order.sent < _SHORT
            if kind == "missing":
                self._brought += 1
                threading.Thread(target=self._bring, args=(order, value), daemon=True).start()
            else:
                settle(order.future, kind, value)
        return bool(names)

    def _bring(self, order: _Order, lacking: Sequence[str]) -> None:
        """Write data sets to the folder, each once while parts need it, and put the order back into the queue."""
        try:
            folders = {name: folder for folder, name in order.parcel.needs}
            with self._lock:
                for old in self._kept - self._parcels.needed():
                    self._remove("data", old)
                    self._kept.discard(old)
                for name in lacking:
                    if name not in self._kept:
                        with writing(self.folder / "data" / name, within=self.folder) as write:
                            send(folders[name], SimpleNamespace(write=write))
                        self._kept.add(name)
            self._enqueue(order, self._queue.appendleft)
        except Exception as error:
            settle(order.future, "result", failure(error))
        finally:
            self._brought -= 1
            self._pace.wake()

    def _listen(self) -> None:
        """Find the jobs that live, and take back the orders of the others."""
        for slot in self._slots.values():
            said = slot.listener.listen()
            if (life := said.get("life", "")) != slot.life:
                self._give_back(slot, "its job was started again")
                slot.life, slot.answered = life, False
            slot.alive = bool(slot.life) and not said.get("left") and not slot.listener.gone()
            if not slot.alive:
                self._give_back(slot, None if said.get("left") else f"no sign of life from {said.get('node')}")

    def _replace(self) -> None:
        """Submit new jobs for those that have ended, but give up a slot after two without an answer."""
        for number, slot in list(self._slots.items()):
            if not slot.ended():
                continue
            self._give_back(slot, "its job ended")
            failures = 0 if slot.answered else slot.failures + 1
            if failures < _FAILURES:
                with contextlib.suppress(OSError):  # of the last job
                    os.unlink(self.folder / "beats" / str(number))
                try:
                    job = self._executor.submit(self._job(number))
                except Exception as error:  # sbatch and submitit raise many kinds
                    self._refused += 1
                    if self._refused >= _REFUSALS:
                        mend = "try the same with `sbatch`"
                        raise PydtError(f"no job could be submitted any more ({error})", "Slurm", mend) from error
                    slot.listener, slot.life = Listener(self.folder / "beats" / str(number)), ""
                    return  # the slot has no job until the next look
                self._refused = 0
                self._slots[number] = self._slot(number, job)
                self._slots[number].failures = failures
                continue
            del self._slots[number]
            if not self._slots:
                said = "\n".join((slot.job.stderr() or slot.job.stdout() or "nothing").splitlines()[-15:])
                wrong = f"all jobs ended without having done anything; the last said:\n{said}"
                raise PydtError(wrong, str(self._executor.folder))

    def _give_back(self, slot: _Slot, reason: str | None) -> None:
        """Orders of a lost job: the running ones have died, if there is a reason; the others wait again."""
        orders, slot.orders = slot.orders, {}
        again = []
        for i, (name, order) in enumerate(orders.items()):
            del self._open[name]
            if reason is not None and i < self._places(order.parcel):
                settle(order.future, "died", reason)
            else:
                again.append(order)
        self._queue.extendleft(reversed(again))

    def _places(self, parcel: Parcel) -> int:
        """How many rows a job runs at once."""
        return self._gpus if parcel.cuda else max(1, self._cpus // parcel.threads)

    def _assign(self) -> bool:
        """Give orders to jobs with room, evenly."""
        assigned = False
        if not self._queue:
            self._withdraw()
        while self._queue:
            order = self._queue[0]
            places = self._places(order.parcel)
            room = 2 * places if self._ahead else places
            free = [slot for slot in self._slots.values() if slot.alive and len(slot.orders) < room]
            if not free:
                break
            self._queue.popleft()
            if order.future.cancelled():
                order.future.set_running_or_notify_cancel()
                continue
            slot = min(free, key=lambda slot: len(slot.orders))
            self._number += 1
            name = str(self._number)
            slot.orders[name] = self._open[name] = order
            order.sent, assigned = time.monotonic(), True
            parcel = order.parcel
            message = Order(parcel.key, parcel.needs, places, parcel.threads, order.call)
            self._mail.post(f"in/{slot.life}/{name}", message)
        return assigned

    def _withdraw(self) -> None:
        """Take back an order that a busy job has not taken, if another job is idle."""
        alive = [slot for slot in self._slots.values() if slot.alive]
        if all(slot.orders for slot in alive):
            return
        for slot in alive:
            name, order = next(reversed(slot.orders.items()), ("", None))
            if order is None or len(slot.orders) <= self._places(order.parcel):
                continue
            with contextlib.suppress(OSError):  # the job took it
                os.unlink(self.folder / "in" / slot.life / name)
                del slot.orders[name], self._open[name]
                self._queue.append(order)

    def _end(self) -> None:
        """End all jobs and remove the messages."""
        with contextlib.suppress(PydtError):
            write_atomic(self.folder / "stop", b"")
        end = time.monotonic() + _LEAVE
        for slot in self._slots.values():
            while slot.alive and not slot.ended() and time.monotonic() < end:
                time.sleep(0.05)
            with contextlib.suppress(Exception):
                if not slot.ended():
                    slot.job.cancel(check=False)
        while not all(slot.ended() for slot in self._slots.values()) and time.monotonic() < end:
            time.sleep(0.05)
        self._ended.set()
        self._heart.join()
        shutil.rmtree(self.folder, ignore_errors=True)
