"""What travels to the workers of a cluster: runner and context once for a run, and a call for each row."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from pydt.base import ConfigError, PydtError, digest
from pydt.data import Need
from pydt.ensemble.executors.call import WorkerDied, work
from pydt.ensemble.executors.local import Processes
from pydt.ensemble.executors.pickling import needs, pack

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Order:
    """A call on its way to a node.

    Attributes:
        key, needs: name of the parcel, and its data sets.
        places, threads: how many calls the node runs at once, and threads of each.
        call: function, arguments and named arguments.
    """

    key: str
    needs: list[Need]
    places: int
    threads: int
    call: Call


class Parcel:
    """Runner and context of a run, pickled: they travel once for all rows."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.key = digest(data)
        value, self.needs = needs(data)
        recipe = getattr(value[1], "recipe", None) if isinstance(value, tuple) else None
        self.threads = int(getattr(recipe, "threads", 1))
        self.cuda = str(getattr(recipe, "device", "cpu")).startswith("cuda")


class Parcels:
    """The parcels of an executor."""

    def __init__(self) -> None:
        self.known: dict[bytes, Parcel] = {}
        self.empty = Parcel(pack(None))

    def split(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Parcel, Call]:
        """The parcel of a call, and the call without it."""
        if function is not work:
            return self.empty, (function, arguments, named)
        data, *rest = arguments
        if data not in self.known:
            self.known[data] = Parcel(data)
        return self.known[data], (function, (None, *rest), named)


class Workers:
    """Processes of a node that serve the calls of many parcels: starting Python and torch takes longer than a small
    row, and each part of a study has a parcel of its own.

    Args:
        order: the first call. parcel: its parcel, which the processes get when they start.
        gpus: as of `Processes`.
    """

    def __init__(self, order: Order, parcel: bytes, gpus: Sequence[str] = ()) -> None:
        self._first, self._shape = order.key, (order.places, order.threads)
        self._processes = Processes(order.places, order.threads, parcel, gpus)

    def fit(self, order: Order) -> bool:
        """Whether a call asks for as many processes and threads as there are."""
        return self._shape == (order.places, order.threads)

    def submit(self, order: Order, parcel: bytes) -> Future[Any]:
        """Start a call; another parcel than the first travels with it."""
        function, arguments, named = order.call
        if function is work and order.key != self._first:
            arguments = (parcel, *arguments[1:])
        return self._processes.submit(function, *arguments, **named)

    def kill(self) -> None:
        """End the processes now."""
        self._processes.kill()


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
