"""Blocks: thousands of finished cells in three plain files, in place of a file each.

    DIR/packed/<digest>/primitives.npy   float32 (rows, 4, draws, examples); not there if the rows failed
    DIR/packed/<digest>/auroc.npy        float32 (rows, draws, examples), where the target's metric is AUROC
    DIR/packed/<digest>/value.npy        float32 (rows, draws, examples), of a measure, without primitives.npy
    DIR/packed/<digest>/masks.npy        uint8 (rows, ceil(groups / 8)): the groups that each row kept, little bit first
    DIR/packed/<digest>/index.jsonl      a header with what all rows share; a line a row: its key, the SHA-256 of its
                                         cell, the rest of its metadata; the header once more
    DIR/packed/<digest>/<key>.dropped    this row was found damaged and counts as missing

The SHA-256 of a row is that of its former file, over metadata and arrays, so damage costs only the rows that it is in.
`numpy.load` reads the arrays without this package.
"""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import (
    SEED,
    ConfigError,
    Form,
    PydtError,
    StoreError,
    Unreadable,
    building,
    canonical_json,
    check,
    checksum,
    digest,
    exactly,
    npy_header,
    opened,
    parse,
    text_of,
)
from pydt.store.row_format import CELL

STATUS = {"ok": 1, "failed": 2}
"""Numbers for the status of a cell; 0: it is missing."""
_LINE = {"key", "sha256", "status"}  # in every line, also where all rows agree
_HEADER: Form = {"sha256": str, "rows": range(1 << 24), "shape": [SEED], "offsets": {str: SEED}, "common": dict}
Keys = npt.NDArray[np.uint8]
Cell = tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]


class Block:
    """One block, open for reading.

    Attributes:
        keys, status: uint8 (rows, 16) and (rows,), of its sound lines.
        torn: how many lines are unreadable. worn: whether a row is torn or was found damaged.

    Raises:
        StoreError: it cannot be read, or both its headers are damaged. FileNotFoundError: it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, int] = {}
        with opened(folder / "index.jsonl") as (descriptor, size):
            text = text_of(descriptor, size)
        last = text.rstrip(b"\n").rpartition(b"\n")[2]
        header = next((found for line in (text.partition(b"\n")[0], last) if (found := _header(line))), None)
        if header is None:
            raise StoreError("is damaged (both headers)", str(folder))
        self._lines = text.split(b"\n", 1 + header["rows"])[: 1 + header["rows"]]
        self._common: dict[str, Any] = header["common"]
        self._shape, self._offsets, self.rows = header["shape"], header["offsets"], header["rows"]
        dropped = {path.name.removesuffix(".dropped") for path in folder.glob("*.dropped")}
        keys, status, lines, dead = [], [], [], 0
        for i, line in enumerate(self._lines[1:]):
            try:
                found = parse(line)
                key, state, _ = bytes.fromhex(found["key"]), STATUS[found["status"]], found["sha256"]
            except (StoreError, ValueError, KeyError, TypeError):
                continue
            if found["key"] in dropped:
                dead += 1
            elif len(key) == 16:
                keys.append(key)
                status.append(state)
                lines.append(i)
        self.torn = self.rows - dead - len(keys)
        self.worn = self.torn + dead > 0
        self.keys: Keys = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
        self.status = np.array(status, np.uint8)
        self._line = np.array(lines, np.int64)

    @property
    def _arrays(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of what each row has."""
        shape = tuple(self._shape)
        shapes = {"primitives": shape, "auroc": shape[1:], "value": shape}
        return {name: shapes[name] for name in shapes if f"{name}.npy" in self._offsets}

    @cached_property
    def finder(self) -> Finder:
        return Finder(self.keys)

    def peek(self, position: int) -> dict[str, Any]:
        """The metadata of a row, without its mask: well formed, not checksummed."""
        metadata = self._said(int(self._line[position]))
        check(metadata, CELL)
        del metadata["sha256"]
        return metadata

    def _said(self, line: int) -> dict[str, Any]:
        return {**self._common, **parse(self._lines[1 + line])}

    def read(self, position: int) -> Cell:
        """Arrays and metadata of a row, every bit checked.

        Raises:
            StoreError: they are not what was written. FileNotFoundError: the block has just been moved.
        """
        line = int(self._line[position])
        try:
            metadata, arrays = self._said(line), {}
            expected = metadata.pop("sha256")
            if "masks.npy" in self._offsets:
                metadata["keep"] = self._bytes("masks.npy", line, (metadata["groups"] + 7) // 8).hex()
            for name, shape in self._arrays.items():
                data = self._bytes(f"{name}.npy", line, 4 * math.prod(shape))
                arrays[name] = np.frombuffer(data, "<f4").reshape(shape)
            if checksum(arrays, metadata) != expected:
                raise StoreError("is damaged (its checksum does not match)", str(self.folder))
        except (ValueError, KeyError, TypeError, OverflowError, ConfigError) as error:  # JSON still
            raise StoreError(f"is damaged ({type(error).__name__})", str(self.folder)) from error
        return arrays, metadata

    def size(self, position: int) -> int:
        """Bytes that a row takes."""
        mask = (self.peek(position).get("groups", 0) + 7) // 8 if "masks.npy" in self._offsets else 0
        arrays = sum(4 * math.prod(shape) for shape in self._arrays.values())
        return mask + arrays + len(self._lines[1 + self._line[position]]) + 1

    def dropped(self, position: int) -> Path:
        """The file that marks a row as missing."""
        return self.folder / f"{self.keys[position].tobytes().hex()}.dropped"

    def _bytes(self, name: str, row: int, size: int) -> bytes:
        try:
            if name not in self._open:
                descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                weakref.finalize(self, os.close, descriptor)
                self._open[name] = descriptor
            start = self._offsets[name] + row * size
            if not 0 <= size <= os.fstat(self._open[name]).st_size - start:  # before the memory is taken
                raise StoreError("is damaged (it ends too early)", str(self.folder / name))
            return exactly(self._open[name], size, start)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Unreadable.of(error, self.folder / name) from error


class Finder:
    """Where keys stand in a list of keys, uint8 (n, 16)."""

    def __init__(self, keys: Keys) -> None:
        self._keys = np.ascontiguousarray(keys)
        starts = _starts(self._keys)
        self._order = np.argsort(starts, kind="stable")
        self._sorted = starts[self._order]

    def one(self, key: bytes) -> int:
        """Position of one key, -1 if it is missing."""
        place = int(np.searchsorted(self._sorted, np.frombuffer(key, np.uint64, 1)[0]))
        if place < len(self._order) and self._keys[position := int(self._order[place])].tobytes() == key:
            return position
        return -1

    def __call__(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Position of each key of uint8 (..., 16), -1 where it is missing."""
        wanted = np.ascontiguousarray(keys)
        if not len(self._keys):
            return np.full(wanted.shape[:-1], -1, np.int64)
        place = np.searchsorted(self._sorted, _starts(wanted))
        position = self._order[np.minimum(place, len(self._order) - 1)]
        # two of a million keys agree in 64 bits once in ten million stores: that cell would be computed twice
        return np.where((self._keys[position] == wanted).all(-1), position, -1)


def as_keys(names: Sequence[str]) -> Keys:
    """Keys in hex as uint8 (n, 16)."""
    return np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(-1, 16)


def _starts(keys: Keys) -> npt.NDArray[np.uint64]:
    return keys.view(np.uint64)[..., 0]


def _header(line: bytes) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = parse(line)
        check(found, _HEADER)
        return found if found.pop("sha256") == digest("block", found) else None
    except PydtError:
        return None


def layout(arrays: dict[str, npt.NDArray[Any]], metadata: dict[str, Any]) -> tuple[Any, ...] | None:
    """What cells of one block have in common, last of it name and shape of each array; None: a block cannot hold the
    cell.
    """
    shape = _leading(arrays)
    fitting = {"value": (2, shape)} if "value" in arrays else {"primitives": (3, shape), "auroc": (2, shape[1:])}
    for name, array in arrays.items():
        if (array.dtype.str, (array.ndim, array.shape)) != ("<f4", fitting.get(name)):
            return None
    keep, groups = metadata.get("keep"), metadata.get("groups", -1)
    if keep is not None:
        try:
            if len(bytes.fromhex(keep)) != (groups + 7) // 8 or bytes.fromhex(keep).hex() != keep:
                return None
        except (ValueError, TypeError):
            return None
    names = ("task", "source", "units", "recipe", "groups", "status")
    return *(metadata.get(name) for name in names), keep is None, tuple((n, arrays[n].shape) for n in sorted(arrays))


def _leading(arrays: dict[str, npt.NDArray[Any]]) -> tuple[int, ...]:
    """The shape from which those of all arrays of a cell follow."""
    return next((arrays[name].shape for name in ("primitives", "value") if name in arrays), ())


def write_block(store: Path, keys: Sequence[str], load: Callable[[str], Cell]) -> Path:
    """Write cells of one `layout` as a block, all of it or nothing; each is loaded once.

    Args:
        load: gives arrays and metadata of a key.

    Raises:
        StoreError: it cannot be written, or a cell cannot be read.
    """
    common: dict[str, Any] = {}
    offsets: dict[str, int] = {}
    shape: tuple[int, ...] = ()
    own: list[dict[str, Any]] = []
    with building(store / "packed", within=store) as folder, contextlib.ExitStack() as files:
        for key in keys:
            arrays, metadata = load(key)
            own.append({name: value for name, value in metadata.items() if name != "keep"})
            own[-1]["sha256"] = checksum(arrays, metadata)
            parts = {f"{name}.npy": array for name, array in arrays.items()}
            if "keep" in metadata:
                parts["masks.npy"] = np.frombuffer(bytes.fromhex(metadata["keep"]), np.uint8)
            if len(own) == 1:
                starts = {name: npy_header(a.dtype.str, (len(keys), *a.shape)) for name, a in parts.items()}
                offsets = {name: len(start) for name, start in starts.items()}
                writers = {name: files.enter_context(folder.file(name)) for name in parts}
                for name, start in starts.items():
                    writers[name](start)
                common, shape = dict(own[0]), _leading(arrays)
            common = {name: common[name] for name in common.keys() & own[-1].keys() if common[name] == own[-1][name]}
            for name, array in parts.items():
                writers[name](array.tobytes())
        files.close()
        header = {"rows": len(keys), "shape": list(shape), "offsets": offsets, "common": common}
        first = canonical_json({**header, "sha256": digest("block", header)})
        lines = [canonical_json({name: cell[name] for name in cell.keys() - (common.keys() - _LINE)}) for cell in own]
        text = "\n".join([first, *lines, first, ""]).encode()
        with folder.file("index.jsonl") as write:
            write(text)
        return folder.commit(digest("block", text))
