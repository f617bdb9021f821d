"""The bank: what trained networks leave behind, so that a later task, target, mode or shot count trains no source.

DIR/bank/ab/<key>.safetensors    one source training, by its `source_key`; `ab` are its key's first two digits

An entry holds arrays (parameters and buffers of a network, or features that it gave), the metrics of its training and
what computed it, under one SHA-256; a training that failed leaves its reason alone. Equal entries are equal bytes. An
entry is written whole or not at all. A damaged one goes to quarantine and counts as missing. Results never depend on
the bank: it can be dropped at any time (`compact`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import HEX32, Form, StoreError, Unreadable, check, encode, header_of, load, opened, parse, remove
from pydt.store.cells import Cells, entries
from pydt.store.plan_record import FORMAT
from pydt.store.rows import FACTS

KEEP = ("none", "features", "weights")
"""What a run may keep of its trained networks."""
KEEP_BYTES = 20_000_000_000
"""Most bytes of a bank, unless a run says otherwise."""
_ENTRY = re.compile(r"([0-9a-f]{32})\.safetensors")
_LARGEST = 1 << 35  # bytes of an entry: a sparse file would fill the memory
_FORM: Form = {
    "key": HEX32,
    "kind": {"weights", "features"},
    "reason": str | None,
    "metrics": {str: int | float | str},
    **{f"{name}?": str for name in FACTS},
}


@dataclass(frozen=True, eq=False)
class Kept:
    """What one source training leaves in the bank.

    Attributes:
        kind: "weights" or "features".
        arrays: by name; what they are is the trainer's to know.
        metrics: of the training.
        reason: why the training failed; then there are no arrays.
        facts: what computed it, by the names in `FACTS`.
    """

    kind: str
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class Bank:
    """The bank of a store; only who holds the writer's lock calls `put` and `drop`."""

    def __init__(self, store: Cells) -> None:
        self._store = store

    def path(self, key: str) -> Path:
        """The file of an entry."""
        return self._store.folder / "bank" / key[:2] / f"{key}.safetensors"

    def sizes(self) -> dict[str, int]:
        """Bytes of each entry, by its key; only folders are read."""
        found = {}
        for start in entries(self._store.folder / "bank"):
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(self._store.folder / "bank" / start) as files,
            ):
                for file in files:
                    name = _ENTRY.fullmatch(file.name)
                    if name is not None and name[1][:2] == start:
                        with contextlib.suppress(FileNotFoundError):
                            found[name[1]] = file.stat(follow_symlinks=False).st_size
        return dict(sorted(found.items()))

    def get(self, key: str) -> Kept | None:
        """An entry, every bit checked; None if it is missing, or was damaged and is in quarantine now.

        Raises:
            StoreError: it cannot be read (permission, I/O error).
        """
        try:
            return self.read(key)
        except FileNotFoundError:
            return None
        except Unreadable:
            raise
        except StoreError as error:
            self._store.quarantine(self.path(key), error)
            return None

    def read(self, key: str) -> Kept:
        """An entry, every bit checked; nothing is moved.

        Raises:
            StoreError: it is damaged. FileNotFoundError: it is missing.
        """
        path = self.path(key)
        with opened(path) as (descriptor, size):
            if size > _LARGEST:
                raise StoreError(f"is damaged (larger than {_LARGEST:,} bytes)")
            self._checked(key, parse(header_of(descriptor, size)))
        arrays, metadata = load(path)
        self._checked(key, metadata)
        facts = {name: metadata[name] for name in FACTS if name in metadata}
        return Kept(metadata["kind"], arrays, metadata["metrics"], metadata["reason"], facts)

    def _checked(self, key: str, metadata: Any) -> None:
        check(metadata, _FORM)
        if metadata["key"] != key:
            raise StoreError("is damaged (it holds another training than its name says)")

    def put(self, key: str, kept: Kept, most: int = _LARGEST) -> int | None:
        """Write an entry, over one that may be there; its bytes. None: it has more than `most`, and is not written.

        Raises:
            StoreError: the folder cannot be written.
        """
        if kept.size > min(most, _LARGEST):
            return None
        facts = {name: kept.facts[name] for name in FACTS if name in kept.facts}
        about = {"key": key, "kind": kept.kind, "reason": kept.reason, "metrics": dict(kept.metrics), "format": FORMAT}
        data = encode(kept.arrays, {**about, **facts})
        if len(data) > min(most, _LARGEST):
            return None
        self._store.write(self.path(key).relative_to(self._store.folder), data)
        return len(data)

    def drop(self) -> tuple[int, int]:
        """Remove all entries; how many there were, and their bytes. After a kill in the middle, the others are whole.

        Raises:
            StoreError: the folder cannot be written.
        """
        sizes = self.sizes()
        for key in sizes:
            remove(self.path(key), sync=False)
        folder = self._store.folder / "bank"
        for place in (*(folder / start for start in entries(folder)), folder):
            with contextlib.suppress(OSError):  # not empty: somebody else's file
                os.rmdir(place)
        return len(sizes), sum(sizes.values())

    def verify(self) -> Iterator[tuple[str, StoreError]]:
        """Read every entry; the keys of damaged ones and what is wrong."""
        for key in self.sizes():
            try:
                self.read(key)
            except FileNotFoundError:
                continue
            except StoreError as error:
                yield key, error
