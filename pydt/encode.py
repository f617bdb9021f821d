"""From what a user hands over to what a data set holds: whole numbers, images, mapped files, digests."""

from __future__ import annotations

import hashlib
import math
import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from pydt import files
from pydt.errors import DataError, PydtError
from pydt.files import digest
from pydt.index import open_regular


def whole(
    value: Any,
    name: str,
    where: str,
    least: int = 0,
    most: int | None = None,
    error: type[PydtError] = DataError,
) -> int:
    """`value` as an int within least..most, whatever integer type it came as.

    Raises:
        error: it is not a whole number (bool and float are none), or it lies outside.
    """
    span = f">= {least}" if most is None else f"from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, (bool, np.bool_)) or number < least or (most is not None and number > most):
        raise error(f"{name} {value!r}", where, f"use a whole number {span}")
    return number


def as_path(value: Any, where: str, *, made: bool = False) -> Path:
    """`pydt.files.as_path` for a data set."""
    return files.as_path(value, where, DataError, made=made)


def as_images(images: Any) -> np.ndarray:
    """uint8 (examples, height, width, channels) in C order over what was given: an array, a memory map, a `.npy` path.

    Raises:
        DataError: it is ragged, not uint8, not of 3 or 4 dimensions, or empty.
    """
    if isinstance(images, (str, os.PathLike)):
        images = open_npy(images)
    try:
        array = np.asanyarray(images.detach().cpu() if hasattr(images, "detach") else images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"do not form one array ({error})", "images", "give images of one shape: resize them, or use from_folder"
        ) from error
    if array.dtype != np.uint8:
        raise DataError(
            f"dtype {array.dtype}, not uint8",
            "images",
            "convert to 0..255: numpy.asarray(images * 255).round().astype('uint8') if they are 0..1",
        )
    if array.ndim not in (3, 4) or (array.ndim == 4 and not 1 <= array.shape[3] <= 4):
        mend = "give (examples, height, width) or (examples, height, width, channels)"
        if array.ndim == 4 and 1 <= array.shape[1] <= 4:
            mend += ": numpy.moveaxis(numpy.asarray(images), 1, 3) puts the channels last"
        raise DataError(f"shape {array.shape}", "images", mend)
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if 0 in array.shape:
        raise DataError(f"no pixels: shape {array.shape}", "images", "give at least one image of at least one pixel")
    # The core reads whole images in C order; anything else is copied once, here.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


# ---- files and digests ---------------------------------------------------------------------------------------------


def open_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The `.npy` file as a read-only memory map.

    Raises:
        DataError: it is no regular file or no `.npy`, or its header promises more than the file holds.
    """
    mend = "write it with numpy.save"
    try:
        descriptor = open_regular(path)
        with open(descriptor, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version}")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file, max_header_size=10_000)
            # In Python's whole numbers: numpy's own product of the sides may wrap around to a small one.
            size = os.fstat(file.fileno()).st_size - file.tell()
            if dtype.hasobject or any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize > size:
                raise ValueError(f"shape {shape}, dtype {dtype} in {size} bytes")
            if 0 in shape:
                return np.empty(shape, dtype)
            return np.memmap(os.fspath(path), dtype, "r", file.tell(), shape, "F" if fortran else "C")
    except DataError as error:
        raise DataError(f"cannot be mapped as .npy: it {error.what}", error.where, mend) from error
    except (OSError, ValueError, TypeError, EOFError, OverflowError, RecursionError, SyntaxError, TokenError) as error:
        raise DataError(f"cannot be mapped as .npy ({error})", str(path), mend) from error


def npy_path(images: np.ndarray) -> str | None:
    """The `.npy` file whose pixels `images` shows as they lie there, possibly with a channel axis added; else None.

    A private map (mode "c"), a reshaped one, a part, or one of another dtype shows other pixels than the file holds.
    """
    base: Any = images
    while isinstance(base, np.ndarray) and not (isinstance(base, np.memmap) and not isinstance(base.base, np.memmap)):
        base = base.base
    if not isinstance(base, np.memmap) or base.filename is None or not str(base.filename).endswith(".npy"):
        return None
    path = os.path.abspath(str(base.filename))
    try:
        # A map made by hand may start anywhere in the file: what counts is what another process would open.
        file: Any = open_npy(path)
    except DataError:
        return None
    same = (
        base.mode in ("r", "r+")
        and file.dtype == base.dtype == images.dtype == np.uint8
        and file.offset == base.offset
        and file.shape == base.shape
        and file.strides == base.strides == images.strides[: base.ndim]
        and images.shape in (base.shape, (*base.shape, 1))
        and images.ctypes.data == base.ctypes.data
    )
    return path if same else None


def check_length(images: np.ndarray) -> None:
    """Refuse mapped images whose file is shorter than what was mapped, or gone; see `Dataset.unchanged`."""
    base: Any = images
    while isinstance(base, np.ndarray) and isinstance(base.base, np.ndarray):
        base = base.base
    if not isinstance(base, np.memmap) or base.filename is None:
        return
    try:
        size = os.stat(base.filename).st_size
    except OSError:
        size = 0
    if size < base.offset + base.nbytes:
        raise DataError(
            f"has {size} bytes, fewer than the {base.offset + base.nbytes} that were mapped",
            str(base.filename),
            "restore the file, and replace a file in use by renaming another over it",
        )


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and time of the last change in nanoseconds: while they stay, the bytes are taken to be the same."""
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


def array_digest(images: np.ndarray, positions: np.ndarray) -> str:
    """Digest of the images at the given positions, in order."""
    # Hashed in slices, so that a memory map of any size passes through a few megabytes of memory.
    step = max(1, (8 << 20) // max(1, int(np.prod(images.shape[1:]))))
    slices: Iterable[np.ndarray] = (images[positions[i : i + step]] for i in range(0, len(positions), step))
    return digest(list(images.shape[1:]), *(digest(piece) for piece in slices))


def hash_order(keys: Sequence[str], salt: str) -> np.ndarray:
    """64 bits per key, the same on every machine: uint64 (keys,). Sorting by them is a shuffle that no seed can
    change.
    """
    return np.array(
        [int.from_bytes(hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest(), "little") for key in keys],
        np.uint64,
    )
