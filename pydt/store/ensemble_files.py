"""Files of masks and outputs: .npy, .npz, .csv and .safetensors. Pickles are never loaded.

A .npy file is mapped, so it may be larger than the memory; so is what a .npz holds uncompressed, as `numpy.savez`
writes it. Other files are read whole, up to `_LARGEST` bytes.
"""

from __future__ import annotations

import csv
import io
import math
import os
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pydt.base import DataError, PydtError, StoreError, open_npy, open_regular, read

_LARGEST = 1 << 32  # bytes of an array that is not mapped
_TEXT = 1 << 30  # bytes of a CSV file or a list
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".joblib")
_LOCAL = 30  # bytes of a zip member's own header, before its name


class Read(NamedTuple):
    """An array of a file.

    Attributes:
        array: as the file holds it. key: the member's name, or the file's without its suffix. names: of its columns, by
            the head of a CSV file; None: it has none. path: of the file.
    """

    array: npt.NDArray[Any]
    key: str
    names: tuple[str, ...] | None
    path: Path


def read_array(place: str) -> Read:
    """The array that `FILE` or `FILE::NAME` names.

    Raises:
        DataError: there is no such file, a member must be named, or it is no array of numbers.
    """
    file, _, member = place.partition("::")
    path = Path(file)
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise DataError("is a pickle, which may run code as it is loaded, so pydt does not", file, _converted(path))
    if not path.is_file():
        raise DataError("is not there" if not path.exists() else "is no file", file, "name a file of numbers")
    if suffix in (".npz", ".safetensors"):
        return _npz(path, member) if suffix == ".npz" else _safetensors(path, member)
    if member:
        raise DataError(f"holds one array, no {member!r}", file, f"leave ::{member} out")
    if suffix == ".npy":
        return Read(_npy(path), path.stem, None, path)
    if suffix == ".csv":
        array, names = _csv(path)
        return Read(array, path.stem, names, path)
    raise DataError(f"has the suffix {suffix!r}", file, "give a .npy, .npz, .csv or .safetensors file")


def read_entries(place: str | os.PathLike[str]) -> Any:
    """A list with an entry for each row, group or example: a .npy file, or UTF-8 text with one a line."""
    path = Path(place)
    if path.suffix == ".npy":
        return _npy(path)
    try:
        text = read(path, _TEXT).decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except (OSError, StoreError, UnicodeDecodeError) as error:
        mend = "name a .npy file, or UTF-8 text with one entry a line"
        raise DataError(f"cannot be read ({error})", str(place), mend) from error
    return text.split("\n") if text else []


def _npy(path: Path) -> npt.NDArray[Any]:
    try:
        return open_npy(path)
    except DataError as error:
        mend = error.mend or ""
        if "dtype object" in error.what:
            mend = f"it is a pickle of objects: where you trust it, numpy.save an array of numbers ({mend})"
        raise DataError(error.what, str(path), mend) from error


def _converted(path: Path) -> str:
    load = f"numpy.load({path.name!r}, allow_pickle=True)"
    if path.suffix.lower() in (".pt", ".pth", ".bin"):
        load = f"torch.load({path.name!r}, map_location='cpu')"
    name = path.with_suffix(".npz").name
    return (
        f"where you trust it, convert it once in Python: found = {load}; look at found; "
        f"numpy.savez({name!r}, masks=found[...], outputs=found[...])"
    )


def _member(path: Path, wanted: str, members: Sequence[str]) -> str:
    """The member that is meant."""
    if wanted in members:
        return wanted
    if not wanted and len(members) == 1:
        return members[0]
    listed = ", ".join(f"{path}::{name}" for name in members[:20]) or "it holds none"
    raise DataError(
        f"has no array {wanted!r}" if wanted else f"holds {len(members)} arrays", str(path), f"name one: {listed}"
    )


def _npz(path: Path, wanted: str) -> Read:
    mend = "write it with numpy.savez"
    try:
        with open(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
            known = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            key = _member(path, wanted, list(known))
            info = known[key]
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"version {version}")
                reader = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = reader(member, max_header_size=10_000)
                start = member.tell()
            if dtype.hasobject:
                raise DataError(f"{key!r} is a pickle of objects", str(path), "save numbers, not objects")
            size = math.prod(shape) * dtype.itemsize
            if size != info.file_size - start:
                raise ValueError(f"{key!r} has {info.file_size - start} bytes, not {size}")
            if info.compress_type == zipfile.ZIP_STORED:
                file.seek(info.header_offset)
                local = file.read(_LOCAL)
                if len(local) < _LOCAL or local[:4] != b"PK\x03\x04":
                    raise ValueError(f"{key!r} is not where its list says")
                offset = info.header_offset + _LOCAL + sum(struct.unpack("<HH", local[26:30])) + start
                if offset + size > os.fstat(file.fileno()).st_size:
                    raise ValueError("it ends too early")
                order: Literal["F", "C"] = "F" if fortran else "C"
                found = np.memmap(os.fspath(path), dtype, "r", offset, shape, order) if size else np.empty(shape, dtype)
                return Read(found, key, None, path)
            _fits(size, path)
            with archive.open(info) as member:
                member.read(start)
                flat = np.frombuffer(member.read(size), dtype)
            return Read(flat.reshape(shape, order="F" if fortran else "C"), key, None, path)
    except PydtError:
        raise
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError, SyntaxError) as error:
        raise DataError(f"is no .npz of numbers ({error})", str(path), mend) from error


def _safetensors(path: Path, wanted: str) -> Read:
    from safetensors import SafetensorError, safe_open

    _fits(path.stat().st_size, path)
    try:
        with safe_open(str(path), framework="numpy") as file:
            key = _member(path, wanted, sorted(file.keys()))
            return Read(file.get_tensor(key), key, None, path)
    except PydtError:
        raise
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:  # numpy has no bfloat16
        mend = "save float16 or float32 tensors"
        raise DataError(f"is no safetensors file of numbers ({error})", str(path), mend) from error


def _fits(size: int, path: Path) -> None:
    if size > _LARGEST:
        raise DataError(f"takes {size:,} bytes", str(path), "save it with numpy.save: a .npy file is mapped, not read")


def _csv(path: Path) -> tuple[npt.NDArray[np.float64], tuple[str, ...] | None]:
    """Numbers, and the names of a head; empty fields are NaN. A first column that numbers the rows is left out: one
    without a name below a head, or one that reads 0, 1, 2, ... or 1, 2, 3, ...
    """
    mend = "write numbers alone, below a head of names or without one"
    try:
        text = io.StringIO(read(path, _TEXT).decode("utf-8-sig"), newline="")
        rows = csv.reader(text, strict=True)
        first = next((row for row in rows if row), [])
        names: tuple[str, ...] | None = None
        parts = []
        if _numbered(first):
            names = tuple(first)
        else:
            try:
                parts.append(_numbers(first))
            except ValueError:
                names = tuple(first)
        skip = 1 if names and names[0] == "" else 0
        for row in rows:
            if row and len(row) != len(first):
                raise DataError(f"line {rows.line_num} has {len(row)} fields, not {len(first)}", str(path), mend)
            if row:
                parts.append(_numbers(row[skip:]))
    except (OSError, StoreError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise DataError(f"is no CSV of numbers ({error})", str(path), mend) from error
    if not parts:
        raise DataError("holds no numbers", str(path), mend)
    found, names = np.stack(parts), None if names is None else names[skip:]
    if not skip and _counts(found):
        return found[:, 1:], None if names is None else names[1:]
    return found, names


def _counts(found: npt.NDArray[np.float64]) -> bool:
    """Whether the first of several columns numbers the rows; two rows could do so by chance."""
    rows, columns = found.shape
    return columns > 1 and rows > 2 and any(np.array_equal(found[:, 0], np.arange(rows) + i) for i in (0, 1))


def _numbered(row: list[str]) -> bool:
    """Whether a first line is the head that pandas writes of columns without names: nothing, then 0, 1, ..."""
    return len(row) > 1 and row == ["", *map(str, range(len(row) - 1))]


def _numbers(row: list[str]) -> npt.NDArray[np.float64]:
    truths = {"True": 1.0, "False": 0.0, "true": 1.0, "false": 0.0, "": math.nan}
    return np.array([truths[text] if text in truths else float(text) for text in row])
