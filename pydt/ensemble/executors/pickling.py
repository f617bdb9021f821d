"""Pickles between a driver and its workers. A data set travels as the path of its folder and its digest; functions and
classes of the script itself, which workers do not run, by value (cloudpickle).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from pydt.base import DataError
from pydt.data import Dataset, Need, copy_of, has_index, open_folder


class _Reader(pickle.Unpickler):
    """The only unpickler of the package; `opener` opens the data sets.

    Pickles can run any code. These come from a worker's own driver over a socket that only the two have, or from a
    message whose keyed checksum was right (`pydt.ensemble.executors.mailbox`), never from a file of data.
    """

    def __init__(self, data: bytes, opener: Callable[..., Dataset]) -> None:
        super().__init__(io.BytesIO(data))
        self._opener = opener

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        return self._opener if found is open_folder else found


def load(data: bytes) -> Any:
    """Unpickle in a worker: data sets come from their folder or else this node's copy; DataError without both."""
    return _Reader(data, _find).load()


def needs(data: bytes) -> tuple[Any, list[Need]]:
    """Unpickle in the driver: the value and the data sets that a worker will open."""
    found: dict[str, str] = {}

    def note(folder: str, seen: Any, expected: str) -> Dataset:
        copy_of(expected)
        found[expected] = folder
        return open_folder(folder, seen, expected)

    value = _Reader(data, note).load()
    return value, [(folder, digest) for digest, folder in found.items()]


def _find(folder: str, seen: Any, expected: str) -> Dataset:
    try:
        return open_folder(folder, seen, expected)
    except DataError:
        if not has_index(copy := copy_of(expected)):
            raise
        return open_folder(str(copy), None, expected)


def pack(value: Any) -> bytes:
    """Pickle a value for workers."""
    import cloudpickle

    return bytes(cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL))
