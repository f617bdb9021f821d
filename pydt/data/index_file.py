"""The index file `index.pydt`: what a data set is besides its images, as arrays and lists of texts, nothing nested.

Every byte is under a checksum. The core parses it (layout: csrc/records.cpp), so a damaged or hostile file is refused
before any of it is used.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, overload

import numpy as np

from pydt import _core
from pydt.base import DataError, open_regular, path_text

FILE = "index.pydt"
_VERSION = 3
_MAGIC = b"\x89PYDT\r\n\x1a"
_KINDS: dict[int, tuple[str, int]] = {1: ("|u1", 1), 2: ("<u4", 4), 3: ("<i8", 8)}
_TEXTS = 4
# For 200 million examples; a larger file is refused before it is read.
LARGEST = 16 << 30
_MOST_SECTIONS = 1024
MEND = "delete it and index again; a run or the sample does so by itself"


class Texts(Sequence[str]):
    """A list of texts kept as UTF-8 bytes: a million file names open at once and take as much memory as on disk.

    Args:
        ends: int64 (n + 1,): text i is bytes[ends[i]:ends[i + 1]].
        data: uint8 (total,).
        prefix: stands before every text.
    """

    __slots__ = ("data", "ends", "prefix")

    def __init__(self, ends: np.ndarray, data: np.ndarray, prefix: str = "") -> None:
        self.ends, self.data, self.prefix = ends, data, prefix

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """The same texts, encoded."""
        if isinstance(texts, Texts) and not texts.prefix:
            return texts
        encoded = [text.encode() for text in texts]
        ends = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=ends[1:])
        return cls(ends, np.frombuffer(b"".join(encoded), np.uint8))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[str, ...]: ...
    def __getitem__(self, i: int | slice) -> str | tuple[str, ...]:
        if isinstance(i, slice):
            return tuple(self[k] for k in range(*i.indices(len(self))))
        i = i.__index__()
        if not -len(self) <= i < len(self):
            raise IndexError(f"text {i} of {len(self)}")
        i %= len(self)
        ends = self.ends.data  # a tenth of the time that numpy takes for single numbers
        return self.prefix + str(self.data.data[ends[i] : ends[i + 1]], "utf-8")

    def __iter__(self) -> Iterator[str]:
        data = self.data.tobytes()
        return (self.prefix + data[a:b].decode() for a, b in pairwise(self.ends.tolist()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Texts({len(self)}: {', '.join(map(repr, self[:3]))}{', ...' if len(self) > 3 else ''})"


Sections = dict[str, "np.ndarray | Texts"]
Noted = dict[str, tuple[int, str]]
"""Remark about what was left out or changed -> how many, and the first of them."""


@dataclass(frozen=True, eq=False)
class Records:
    """What is known of each encoded image: its length and the time of change of its file (ns), int64 (n,); CRC32C,
    uint32 (n,); the first half of the SHA-256, uint8 (n, 16); its first byte in its file, int64 (n,), -1 for a file of
    its own (None: all are); its traits (`pydt.data.pixels`), uint8 (n,).
    """

    length: np.ndarray
    time: np.ndarray
    crc: np.ndarray
    sha: np.ndarray
    offset: np.ndarray | None
    traits: np.ndarray

    def take(self, chosen: np.ndarray) -> Records:
        taken: dict[str, Any] = {name: None if part is None else part[chosen] for name, part in self.parts().items()}
        return Records(**taken)

    def parts(self) -> dict[str, Any]:
        """Its arrays by name."""
        return {name: getattr(self, name) for name in Records.__dataclass_fields__}

    @staticmethod
    def join(records: Sequence[Records]) -> Records:
        if any(r.offset is not None for r in records):
            own = [np.full(len(r.length), -1) if r.offset is None else r.offset for r in records]
            records = [replace(r, offset=offset) for r, offset in zip(records, own, strict=True)]
        columns = {name: [r.parts()[name] for r in records] for name in Records.__dataclass_fields__}
        joined: dict[str, Any] = {n: None if c[0] is None else np.concatenate(c) for n, c in columns.items()}
        return Records(**joined)


def records_of(sections: Sections) -> Records | None:
    """The records in an index of encoded images; None where parts are missing or differ in length."""
    types = {"length": np.int64, "time": np.int64, "crc": np.uint32, "sha": np.uint8, "traits": np.uint8}
    types["offset"] = np.int64
    found = {name: sections[name] for name in types if name in sections}
    arrays = {name: a for name, a in found.items() if isinstance(a, np.ndarray) and a.dtype == types[name]}
    if len(arrays) < len(found) or len(arrays.keys() - {"offset"}) < 5:
        return None
    if {len(a) for name, a in arrays.items() if name != "sha"} != {len(arrays["sha"]) / 16}:
        return None
    shas = arrays["sha"].reshape(-1, 16)
    return Records(arrays["length"], arrays["time"], arrays["crc"], shas, arrays.get("offset"), arrays["traits"])


def texts_in(sections: Sections, name: str) -> Texts:
    """A section of texts; raises KeyError or ValueError where there is none."""
    found = sections[name]
    if not isinstance(found, Texts):
        raise ValueError(f"{name} are no texts")
    return found


def integers_in(sections: Sections, name: str) -> np.ndarray:
    """A section of whole numbers, int64; raises KeyError or ValueError where there is none."""
    found = sections[name]
    if not isinstance(found, np.ndarray) or found.dtype != np.int64:
        raise ValueError(f"{name} are no whole numbers")
    return found


def note(noted: Noted, reason: str, place: str, count: int = 1) -> None:
    """Count a remark; of the places, the first by name is kept."""
    before, first = noted.get(reason, (0, place))
    noted[reason] = before + count, min(first, place)


def packed_notes(noted: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """Remarks as sections of an index; none where there are none."""
    if not noted:
        return {}
    texts = [text for reason, (_, first) in noted.items() for text in (reason, first)]
    return {"noted": texts, "noted counts": np.array([count for count, _ in noted.values()], np.int64)}


def unpacked_notes(sections: Mapping[str, Any]) -> Noted:
    """The inverse of `packed_notes`."""
    texts, counts = list(sections.get("noted", ())), sections.get("noted counts", np.zeros(0, np.int64)).tolist()
    return {reason: (n, first) for reason, first, n in zip(texts[::2], texts[1::2], counts, strict=True)}


def repeated(texts: Sequence[str]) -> str | None:
    """The first text that an earlier one equals."""
    encoded = Texts.of(texts)
    found = _core.repeated_text(np.ascontiguousarray(encoded.ends), encoded.data)
    return None if found < 0 else encoded[found]


def crc32c(data: bytes | np.ndarray) -> int:
    """CRC32C of bytes, or of an array's bytes in C order."""
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.ascontiguousarray(data)
    return _core.crc32c(array.reshape(-1).view(np.uint8))


def pack_index(sections: Mapping[str, np.ndarray | Sequence[str]]) -> bytes:
    """The bytes of an index file: arrays of uint8, uint32 or int64, and lists of texts. Equal sections, equal bytes."""
    if len(sections) > _MOST_SECTIONS:
        raise DataError(f"{len(sections)} sections", "index", "keep fewer group columns: an index holds about 500")
    kinds = {np.dtype(code): kind for kind, (code, _) in _KINDS.items()}
    table, payloads = [], []
    end = 64 + 64 * len(sections)
    for name, value in sections.items():
        if isinstance(value, np.ndarray):
            kind, count = kinds[value.dtype], value.size
            payload = np.ascontiguousarray(value).tobytes()
        else:
            texts = Texts.of(value)
            kind, count = _TEXTS, len(texts)
            payload = texts.ends.astype("<i8").tobytes() + texts.data.tobytes()
        table.append(struct.pack("<40sIIqq", name.encode(), kind, crc32c(payload), count, len(payload)))
        payloads += [bytes(-end % 64), payload]
        end += -end % 64 + len(payload)
    rows = b"".join(table)
    head = struct.pack("<8sIIQI", _MAGIC, _VERSION, len(table), end, crc32c(rows))
    return b"".join([head, struct.pack("<I", crc32c(head)), bytes(32), rows, *payloads])


def read_index(path: str | os.PathLike[str]) -> Sections:
    """The sections of an index file; arrays are read-only views of one buffer, which is as large as the file."""
    data = _read_checked(path)
    try:
        listed = _core.read_index(data)
    except ValueError as error:
        raise DataError(f"damaged {error}".replace(": ", " ", 1), str(path), MEND) from error
    sections: Sections = {}
    for name, kind, count, offset, size in listed:
        payload = data[offset : offset + size]
        if kind == _TEXTS:
            sections[name] = Texts(payload[: 8 * (count + 1)].view("<i8"), payload[8 * (count + 1) :])
        else:
            sections[name] = payload.view(_KINDS[kind][0])
    return sections


def _read_checked(path: str | os.PathLike[str]) -> np.ndarray:
    """All bytes of an index, uint8. The header is checked against the file's size before room is made for the rest."""
    with open(open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if size > LARGEST:
                raise ValueError(f"of {size} bytes is too large for an index")
            head = np.frombuffer(file.read(64), np.uint8)
            _core.check_index_head(head, size)
            data = np.empty(size, np.uint8)
            data[: len(head)] = head
            have = len(head)
            while have < size and (got := file.readinto(data[have:].data)):
                have += got
        except (ValueError, MemoryError, OSError) as error:
            raise DataError(f"damaged index ({str(error).removeprefix('index: ')})", path_text(path), MEND) from error
    if have < size:
        raise DataError("damaged index (it became shorter while it was read)", str(path), MEND)
    data.flags.writeable = False
    return data
