"""Pickles between a driver and its workers. A data set travels as the path of its folder and its digest."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from pydt.base import ConfigError, DataError
from pydt.data import Dataset, Need, copy_of, has_index, open_folder


def _of_the_script(name: str) -> ConfigError:
    wrong = f"{name!r} is defined in the script itself, which workers do not run"
    return ConfigError(wrong, "run", "put it in a module of its own and import it, or pass a ThreadPoolExecutor")


class _Reader(pickle.Unpickler):
    """The only unpickler of the package; `opener` opens the data sets.

    Pickles can run any code. These come from a worker's own driver over a socket that only the two have, or from a
    message whose keyed checksum was right (`pydt.ensemble.executors.mailbox`), never from a file of data.
    """

    def __init__(self, data: bytes, opener: Callable[..., Dataset], main: bool) -> None:
        super().__init__(io.BytesIO(data))
        self._opener, self._main = opener, main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__" and not self._main:
            raise _of_the_script(name)
        found = super().find_class(module, name)
        return self._opener if found is open_folder else found


def load(data: bytes) -> Any:
    """Unpickle in a worker: data sets come from their folder or else this node's copy; DataError without both."""
    return _Reader(data, _find, True).load()


def needs(data: bytes) -> tuple[Any, list[Need]]:
    """Unpickle in the driver: the value and the data sets that a worker will open; ConfigError as in `pack`."""
    found: dict[str, str] = {}

    def note(folder: str, seen: Any, expected: str) -> Dataset:
        copy_of(expected)
        found[expected] = folder
        return open_folder(folder, seen, expected)

    value = _Reader(data, note, False).load()
    return value, [(folder, digest) for digest, folder in found.items()]


def _find(folder: str, seen: Any, expected: str) -> Dataset:
    try:
        return open_folder(folder, seen, expected)
    except DataError:
        if not has_index(copy := copy_of(expected)):
            raise
        return open_folder(str(copy), None, expected)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__"):
            raise _of_the_script(value.__qualname__)
        return NotImplemented


def pack(value: Any) -> bytes:
    """Pickle a value for `Processes`; ConfigError: it needs a function or class of the main script."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()
