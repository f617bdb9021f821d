"""The bytes of encoded examples, a batch at a time and without decoding.

Loose files are read by one call of the core into one buffer: a folder of a million files holds no descriptor and no
mapping open, and a file that is cut while it is read is an error and not the end of the process. A mapping of each
would cost more than reading it (27 kB: 7 pages).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pydt import _core
from pydt.errors import DataError
from pydt.index import Records, Texts
from pydt.sources import FAULTS

_MEND = "restore it, or index the data set again"
_LENGTH = "has another length than when it was indexed"


class Contents:
    """Where the encoded images of a data set are.

    Args:
        paths, positions, records: as in `Dataset`.
    """

    def __init__(self, paths: Sequence[str], positions: np.ndarray, records: Records) -> None:
        self._paths, self._positions, self._records = paths, positions, records

    def __reduce__(self) -> Any:
        return Contents, (self._paths, self._positions, self._records)

    def place(self, i: int) -> str:
        """How an error calls example i."""
        return self._paths[self._positions[i]]

    def read(self, ids: np.ndarray, check: bool) -> list[np.ndarray]:
        """See `Dataset.bytes_of`."""
        views = self._read_files(ids)
        if check:
            self._check(ids, views)
        return views

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
            what = f"cannot be read ({os.strerror(fault)})" if fault > 0 else FAULTS[fault]
            what = _LENGTH if fault == -2 else what
            raise DataError(what, self.place(int(ids[at])), _MEND)
        return [buffer[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _check(self, ids: np.ndarray, views: list[np.ndarray]) -> None:
        for i, said, view in zip(ids.tolist(), self._records.crc[ids].tolist(), views, strict=True):
            if _core.crc32c(view) != said:
                raise DataError("its bytes are not those that were indexed", self.place(i), _MEND)
