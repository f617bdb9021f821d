"""The bytes of encoded examples, a batch at a time, without decoding.

Members of tar shards are views of a mapped shard: nothing is copied, no descriptor stays open. Before each batch, a
shard that was cut or written to is noticed; while a batch is in use it must not be cut.

Loose files are read by one call of the core into one buffer: a million files need no descriptors or mappings, and a
file that is cut while it is read is an error, not the end of the process. What lost: a mapping each, slower than
reading 27 kB.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydt import _core
from pydt.base import DataError, PydtError, StoreError, progress
from pydt.data.image_files import FAULTS, batches
from pydt.data.index_file import Records, Texts

_MEND = "restore it, or index the data set again"
_LENGTH = "has another length than when it was indexed"
# Errors of the system that concern this process, not the file.
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _exhausted(fault: int, place: str) -> PydtError:
    """The error of a process without descriptors or memory: no fault of the image, which must not be skipped."""
    mend = "close files, give fewer shards or more memory, or raise the limit: ulimit -n, vm.max_map_count"
    return StoreError(f"cannot be read ({os.strerror(fault)})", place, mend)


@dataclass(frozen=True, eq=False)
class Shard:
    """A mapped file: its bytes, read-only uint8 (size,), and its size, time and inode when it was mapped."""

    data: np.ndarray
    path: str
    size: int
    time: int
    inode: tuple[int, int]

    def unchanged(self) -> None:
        """Refuse a file that was written to since it was mapped. One that was deleted, or replaced by renaming another
        over it, is as it was for whoever has mapped it.
        """
        try:
            state = os.stat(self.path)
        except OSError:
            return
        same = state.st_size == self.size and state.st_mtime_ns == self.time
        if not same and (state.st_dev, state.st_ino) == self.inode:
            what = f"was written to while it was in use ({state.st_size} bytes, {self.size} when it was mapped)"
            raise DataError(what, self.path, "replace a file in use by renaming another over it")


def map_shard(path: str) -> Shard:
    """Map a file."""
    try:
        data, time, device, inode = _core.map_file(os.fsencode(path))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _OURS:
            raise _exhausted(error.errno, path) from error
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})".replace("path: ", "")
        raise DataError(what, path, "give a regular file that may be read") from error
    return Shard(data, path, len(data), time, (device, inode))


class Contents:
    """Where the encoded images of a data set are.

    Args:
        paths, positions, records, keys: as in `Dataset`.
    """

    def __init__(self, paths: Sequence[str], positions: np.ndarray, records: Records, keys: Sequence[str]) -> None:
        self._paths, self._positions, self._records, self._keys = paths, positions, records, keys
        self._shards: dict[int, Shard] = {}

    def __reduce__(self) -> Any:
        return Contents, (self._paths, self._positions, self._records, self._keys)

    def chosen(self, ids: Any, where: str) -> np.ndarray:
        """Example ids as int64 (n,)."""
        array, count = np.asarray(ids), len(self._positions)
        if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
            raise DataError(f"ids of dtype {array.dtype}, shape {array.shape}", where, "give integers (n,)")
        array = array.astype(np.int64)
        if array.size and not 0 <= array.min() <= array.max() < count:
            wrong = array[(array < 0) | (array >= count)][0]
            raise DataError(f"example id {wrong} of {count} examples", where, f"use ids 0..{count - 1}")
        return array

    def place(self, i: int) -> str:
        """How an error calls example i: its file and, in a shard, its name and first byte."""
        path = self._paths[self._positions[i]]
        start = -1 if self._records.offset is None else self._records.offset[i]
        return path if start < 0 else f"{path}, {self._keys[i]}, byte {start}"

    def read(self, ids: np.ndarray, check: bool) -> list[np.ndarray]:
        """See `Dataset.bytes_of`."""
        offsets = None if self._records.offset is None else self._records.offset[ids]
        if offsets is None:
            views = self._read_files(ids)
            doubted = np.zeros(len(ids), bool)
        elif (offsets >= 0).all():
            views, doubted = self._views(ids, offsets)
        else:
            alone = np.flatnonzero(offsets < 0)
            parts = np.flatnonzero(offsets >= 0)
            inside, doubtful = self._views(ids[parts], offsets[parts])
            found = dict(zip(alone.tolist(), self._read_files(ids[alone]), strict=True))
            found |= dict(zip(parts.tolist(), inside, strict=True))
            views = [found[i] for i in range(len(ids))]
            doubted = np.zeros(len(ids), bool)
            doubted[parts] = doubtful
        self._check(ids, views, np.ones(len(ids), bool) if check else doubted)
        return views

    def _views(self, ids: np.ndarray, offsets: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Parts of shards; and which lie in a shard whose time is not that of the index."""
        numbers = self._positions[ids].tolist()
        shards = {p: self._shard(p) for p in set(numbers)}
        held = [shards[p] for p in numbers]
        ends = offsets + self._records.length[ids]
        behind = ends > np.array([shard.size for shard in held], np.int64)
        if behind.any():
            at = int(behind.argmax())
            what = f"lies behind the end of the shard, at byte {held[at].size}"
            raise DataError(what, self.place(int(ids[at])), _MEND)
        starts, stops = offsets.tolist(), ends.tolist()
        views = [shard.data[start:stop] for shard, start, stop in zip(held, starts, stops, strict=True)]
        return views, np.array([shard.time for shard in held], np.int64) != self._records.time[ids]

    def _shard(self, number: int) -> Shard:
        found = self._shards.get(number)
        if found is None:
            found = self._shards[number] = map_shard(self._paths[number])
        else:
            found.unchanged()
        return found

    def _read_files(self, ids: np.ndarray) -> list[np.ndarray]:
        lengths = self._records.length[ids]
        names = Texts.of([self._paths[p] for p in self._positions[ids].tolist()])
        ends = np.cumsum(lengths).tolist()
        buffer = np.empty(ends[-1] if ends else 0, np.uint8)
        status, _ = _core.read_files(names.ends, names.data, lengths, buffer, False)
        buffer.flags.writeable = False
        if status.any():
            at = int(np.flatnonzero(status)[0])
            fault = int(status[at])
            if fault in _OURS:
                raise _exhausted(fault, self.place(int(ids[at])))
            what = f"cannot be read ({os.strerror(fault)})" if fault > 0 else FAULTS[fault]
            what = _LENGTH if fault == -2 else what
            raise DataError(what, self.place(int(ids[at])), _MEND)
        return [buffer[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _check(self, ids: np.ndarray, views: list[np.ndarray], which: np.ndarray) -> None:
        said = self._records.crc[ids].tolist()
        for at in np.flatnonzero(which).tolist():
            if _core.crc32c(views[at]) != said[at]:
                raise DataError("its bytes are not those that were indexed", self.place(int(ids[at])), _MEND)

    def wrong(self, ids: np.ndarray) -> list[str]:
        """Why some examples are not what was indexed, one text each."""
        found = []
        with progress(len(ids), "comparing", "images") as advance:
            for run in batches(list(range(len(ids))), self._records.length[ids].tolist()):
                try:
                    self.read(ids[run], True)
                except DataError:
                    found += [text for i in ids[run] for text in self._fault(i)]
                advance(len(run))
        return found

    def _fault(self, i: int) -> list[str]:
        try:
            self.read(np.array([i]), True)
        except DataError as error:
            return [f"{error.where}: {error.what}"]
        return []
