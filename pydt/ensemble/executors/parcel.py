"""What travels to the workers of a cluster: runner and context once for a part of a run, and a call for each row.

A node keeps its worker processes from part to part: starting one and loading torch costs more than a short row. It
hands the parcel to them with each call, and only other threads or GPUs need fresh processes. Everybody holds few
parcels: the driver those of open calls and `MOST` others, a node and a worker `MOST` each.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from pydt.base import ConfigError, PydtError, digest
from pydt.data import Need
from pydt.ensemble.executors.call import MOST, WorkerDied, work
from pydt.ensemble.executors.pickling import needs

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Order:
    """A call on its way to a node.

    Attributes:
        key, needs: name of the parcel, and its data sets; empty for a call that needs none.
        places, threads: how many calls the node runs at once, and threads of each.
        call: function, arguments and named arguments, without the parcel.
    """

    key: str
    needs: list[Need]
    places: int
    threads: int
    call: Call

    def start(self, pool: Executor, parcel: bytes) -> Future[Any]:
        """Submit the call to processes of the node, with the bytes of its parcel."""
        function, arguments, named = self.call
        return pool.submit(function, *([parcel] if self.key else []), *arguments, **named)


class Parcel:
    """Runner and context of a part of a run, pickled; `open` is how many calls need it. Empty: of other calls."""

    def __init__(self, data: bytes) -> None:
        self.data, self.open = data, 0
        self.key = digest(data) if data else ""
        value, self.needs = needs(data) if data else (None, [])
        recipe = getattr(value[1], "recipe", None) if isinstance(value, tuple) else None
        self.threads = int(getattr(recipe, "threads", 1))
        self.cuda = str(getattr(recipe, "device", "cpu")).startswith("cuda")


class Parcels:
    """The parcels that nodes can reach: those of open calls and the last few others.

    Args:
        put, drop: lay a parcel where nodes find it, and remove it there; called by one thread at a time.
    """

    def __init__(self, put: Callable[[Parcel], None], drop: Callable[[Parcel], None]) -> None:
        self._put, self._drop = put, drop
        self._known: dict[bytes, Parcel] = {}
        self._empty = Parcel(b"")
        self._lock = threading.Lock()

    def split(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Parcel, Call]:
        """The parcel of a call, which stays until `release`, and the call without it."""
        if function is not work:
            return self._empty, (function, arguments, named)
        data, *rest = arguments
        with self._lock:
            parcel = self._known.pop(data, None)
            if parcel is None:
                parcel = Parcel(data)
                self._put(parcel)
            self._known[data] = parcel  # the last one asked for
            parcel.open += 1
        return parcel, (function, tuple(rest), named)

    def release(self, parcel: Parcel, _: object = None) -> None:
        """A call of the parcel is done."""
        if parcel is self._empty:
            return
        with self._lock:
            parcel.open -= 1
            for old in [known for known in self._known.values() if not known.open][:-MOST]:
                del self._known[old.data]
                self._drop(old)

    def needed(self) -> set[str]:
        """Digests of the data sets that the parcels need."""
        with self._lock:
            return {digest for parcel in self._known.values() for _, digest in parcel.needs}


def failure(error: BaseException) -> dict[str, Any]:
    """What `work` returns for a row that could not be computed."""
    return {"error": error if isinstance(error, PydtError) else None, "traceback": f"{type(error).__name__}: {error}"}


def settle(future: Future[Any], kind: str, value: Any) -> None:
    """Give a future what `returned` said on a node."""
    if not future.set_running_or_notify_cancel():
        return
    if kind == "result":
        future.set_result(value)
    else:
        future.set_exception(WorkerDied(value) if kind == "died" else value)


def module_paths() -> list[str]:
    """Where this process finds modules, for `extend` in another one."""
    return [os.path.abspath(path) for path in sys.path]


def extend(paths: list[str]) -> None:
    """Find modules also where another process does, after the own places."""
    sys.path.extend(path for path in paths if path not in sys.path)


def imported(name: str, extra: str) -> Any:
    """An optional package, or an error that says which extra of pydt installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        wrong = f"the package {name!r} is not installed ({error})"
        where, mend = f"pydt.cluster.{extra.capitalize()}", f"pip install 'pydt-transfer[{extra}]'"
        raise ConfigError(wrong, where, mend) from error
