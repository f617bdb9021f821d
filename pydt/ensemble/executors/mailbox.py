"""Jobs of a batch system, which compute rows and exchange messages with their driver through a shared folder.

A job serves many rows: waiting in the queue, starting Python and opening the data cost more than a short row. Messages
are files because every cluster has a shared folder: compute nodes often may not open connections to the login node, a
port would need keys of its own, and a renamed file is whole or not there. Rows are sent ahead to hide the latency.
The folder of one executor, which only its owner may enter:

    driver          changes as long as the driver lives
    stop            the driver needs no more jobs
    parcels/KEY     runner and context, once, while calls need them
    data/DIGEST     data sets that a node asked for, as `pydt.data.send` writes them; removed when another comes and no
                    parcel needs them
    beats/SLOT      changes as long as the slot's job lives; its LIFE is new with each start of the job
    in/LIFE/NUMBER  a call for a job; the driver may take it back until the job takes it
    out/NUMBER      the answer

Parcels, calls and answers are pickles, because a runner or a network may be any object. Each carries a keyed checksum
(HMAC-SHA256) over its place in the folder and its bytes, which is compared before the pickle is read. Each executor
draws a key that only its jobs get, inside the job that submitit sends.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import pickle
import platform
import re
import secrets
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from pydt.base import StoreError, check, machine, parse, read, write_atomic
from pydt.data import missing, receive
from pydt.ensemble.executors.call import MOST, portable, returned
from pydt.ensemble.executors.local import Processes
from pydt.ensemble.executors.parcel import Order, extend, failure
from pydt.ensemble.executors.pickling import load

SILENT = 60.0  # seconds without a change after which the other side counts as gone
BEAT = 2.0  # seconds between two changes
_LARGEST = 1 << 16  # bytes of a pulse
_SAID = {
    "count": int,
    "host": str,
    "node": str,
    "pid": range(1, 1 << 31),
    "life?": re.compile("[0-9a-f]{16}"),
    "left?": bool,
}
_SHORT, _LONG = 0.05, 1.0  # seconds between two looks into the folder, busy and idle


class Mail:
    """Messages in the folder of an executor; only who has its key (32 random bytes) can write them."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder, self._key = folder, key

    def put(self, place: str, data: bytes) -> None:
        """Write a message: its keyed checksum, then its bytes."""
        write_atomic(self.folder / place, self._signed(place, data) + data)

    def get(self, place: str) -> bytes:
        """The bytes of a message; OSError: it is not there. ValueError: nobody with the key wrote it to this place."""
        data = (self.folder / place).read_bytes()
        if not hmac.compare_digest(self._signed(place, data[32:]), data[:32]):
            raise ValueError("damaged message, or somebody else's")
        return data[32:]

    def post(self, place: str, value: Any) -> None:
        """Write a value as a message."""
        self.put(place, pickle.dumps(value, pickle.HIGHEST_PROTOCOL))

    def fetch(self, place: str) -> Any:
        """Read a message and remove it; raises as `get` does."""
        try:
            data = self.get(place)
        finally:
            (self.folder / place).unlink()
        return load(data)

    def _signed(self, place: str, data: bytes) -> bytes:
        # over the place, too: no message can be moved, also not from one life of a job to the next
        return hmac.digest(self._key, b"%s\0%s" % (place.encode(), data), hashlib.sha256)


def listed(folder: Path) -> list[str]:
    """Names of the messages in a folder by number, without files that are still written."""
    try:
        names = [name for name in os.listdir(folder) if name.isdecimal()]
    except OSError:
        return []
    return sorted(names, key=int)


class Pace:
    """Waits between looks: short after an event, longer and longer without one."""

    def __init__(self) -> None:
        self._delay = _SHORT
        self._event = threading.Event()

    def wake(self, *_: Any) -> None:
        self._event.set()

    def wait(self, busy: bool) -> None:
        self._delay = _SHORT if busy else min(1.3 * self._delay, _LONG)
        if self._event.wait(self._delay):
            self._delay = _SHORT
        self._event.clear()


class Pulse:
    """A file that changes as long as its writer lives; the reader needs no common clock."""

    def __init__(self, path: Path, **said: Any) -> None:
        self._path, self._said, self._count, self._last = path, said, 0, -BEAT

    def beat(self, **said: Any) -> None:
        """Write it if it is time, or if there is news."""
        if said or time.monotonic() - self._last >= BEAT:
            self._last, self._count = time.monotonic(), self._count + 1
            told = {**self._said, **said, "count": self._count, "host": machine(), "node": platform.node()}
            with contextlib.suppress(StoreError):  # a full disk may be temporary; if not, silence ends the job
                write_atomic(self._path, json.dumps({**told, "pid": os.getpid()}).encode())


class Listener:
    """The reader of a pulse."""

    def __init__(self, path: Path) -> None:
        self._path, self._text, self.changed = path, b"", time.monotonic()
        self.said: dict[str, Any] = {}

    def listen(self) -> dict[str, Any]:
        """The last content, empty before the first."""
        with contextlib.suppress(OSError, StoreError):
            text = read(self._path, _LARGEST)
            if text != self._text:
                said = parse(text)
                check(said, _SAID)
                self._text, self.changed, self.said = text, time.monotonic(), said
        return self.said

    def gone(self) -> bool:
        """Whether the writer is gone: silent for `SILENT` seconds, or a process of this machine that has ended."""
        if self.said.get("host") == machine() and _ended(self.said.get("pid")):
            return True
        return time.monotonic() - self.changed > SILENT


def _ended(pid: Any) -> bool:
    """Whether a process of this machine has ended (or is a zombie); False where that cannot be known."""
    try:
        state = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return os.path.exists("/proc/self/stat")
    except (OSError, TypeError, ValueError):
        return False
    return state[0] in "ZX"


@dataclass
class Job:
    """What runs on a compute node: a callable that the batch system may end and start again at any time."""

    folder: str
    slot: int
    paths: list[str]  # where the driver finds modules
    key: bytes = field(repr=False)

    def __call__(self) -> str:
        extend(self.paths)
        return _Server(Mail(Path(self.folder), self.key), self.slot).serve()

    def checkpoint(self) -> Any:
        """What submitit runs after a preemption or a timeout: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Server:
    """One life of a job: takes calls from the folder, runs them in processes of this node, writes the answers."""

    def __init__(self, mail: Mail, slot: int) -> None:
        life = secrets.token_hex(8)
        self.mail, self.folder, self.place = mail, mail.folder, f"in/{life}"
        folder, self.inbox = mail.folder, mail.folder / "in" / life
        self.pace, self.driver = Pace(), Listener(folder / "driver")
        self.pulse = Pulse(folder / "beats" / str(slot), life=life)
        self.waiting: dict[str, Order] = {}
        self.running: dict[str, Future[Any]] = {}
        self.pool: tuple[tuple[int, int], Processes] | None = None  # with its places and threads
        self.parcels: dict[str, Future[bytes | list[str]]] = {}  # the last ones, by key
        self.places = 1
        self.preparing = ThreadPoolExecutor(1)  # copying data takes longer than `BEAT`

    def serve(self) -> str:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the driver says when to stop
        try:
            self.inbox.mkdir()
        except FileNotFoundError:
            return "the run is over"
        try:
            while not (self.folder / "stop").exists():
                self.pulse.beat()
                self.driver.listen()
                if self.driver.gone():
                    return "the driver is gone"
                done = [name for name, future in self.running.items() if future.done()]
                answers = {name: self.running.pop(name) for name in done}
                busy = self._take() | self._start()
                for name, future in answers.items():  # written while the next rows run already
                    self._post(name, *returned(future))
                self.pace.wait(busy or bool(done))
            return "no rows left"
        finally:
            self.preparing.shutdown(wait=False, cancel_futures=True)
            if self.pool is not None:
                self.pool[1].kill()
            self.pulse.beat(left=True)

    def _take(self) -> bool:
        """Take as many new calls as there is room for; the driver may give the others to another job."""
        taken = False
        for name in listed(self.inbox):
            if len(self.waiting) + len(self.running) >= self.places:
                break
            try:
                order: Order = self.mail.fetch(f"{self.place}/{name}")
            except OSError:
                continue
            except Exception as error:  # damaged, or of a module that is not installed here
                self._post(name, "error", portable(error))
            else:
                self.waiting[name], self.places = order, order.places
            taken = True
        return taken

    def _start(self) -> bool:
        """Start the calls whose parcel is here."""
        started = False
        for name, order in list(self.waiting.items()):
            if order.key not in self.parcels:
                self.parcels[order.key] = self.preparing.submit(self._prepare, order)
                self.parcels[order.key].add_done_callback(self.pace.wake)
            ready = self.parcels[order.key]
            if not ready.done():
                continue
            error = ready.exception()
            parcel = [] if error is not None else ready.result()
            if isinstance(parcel, list):
                del self.parcels[order.key]  # looked for again with the next call
                said = ("missing", parcel) if error is None else ("result", failure(error))
                self._post(name, *said)
            elif (pool := self._pool(order, parcel)) is not None:
                self.running[name] = order.start(pool, parcel)
                self.running[name].add_done_callback(self.pace.wake)
            else:
                break  # also the calls behind it wait, else it might wait for all of them
            started = True
            del self.waiting[name]
        wanted = {order.key for order in self.waiting.values()}
        for old in [key for key in self.parcels if key not in wanted][:-MOST]:
            del self.parcels[old]
        return started

    def _prepare(self, order: Order) -> bytes | list[str]:
        """The bytes of a parcel, or the digests of its data sets that are missing here."""
        if not order.key:
            return b""
        for name in missing(order.needs):
            if (self.folder / "data" / name).exists():
                receive(name, partial(self._sent, name))
        if lacking := missing(order.needs):
            return lacking
        return self.mail.get(f"parcels/{order.key}")

    def _sent(self, digest: str) -> IO[bytes]:
        return open(self.folder / "data" / digest, "rb")

    def _pool(self, order: Order, parcel: bytes) -> Processes | None:
        """The processes of this job; None while others than the call needs are busy."""
        kind = order.places, order.threads
        if self.pool is not None and self.pool[0] != kind:
            if self.running:
                return None
            self.pool[1].kill()
            self.pool = None
        if self.pool is None:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            gpus = visible.split(",") if visible else []
            self.pool = kind, Processes(order.places, order.threads, parcel, gpus)
        return self.pool[1]

    def _post(self, name: str, kind: str, value: Any) -> None:
        self.mail.post(f"out/{name}", (kind, value))
