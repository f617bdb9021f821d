"""`.npy` files: mapped with checked headers, or written in parts."""

from __future__ import annotations

import io
import math
import os
from tokenize import TokenError
from typing import Any

import numpy as np

from pydt.base.errors import DataError
from pydt.base.regular_files import open_regular


def open_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The `.npy` file as a read-only memory map.

    Raises:
        DataError: it is no regular file or no `.npy` of numbers, or is shorter than its header says.
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
            # Python's integers: numpy's product of the sides may overflow to a small number.
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
    """The `.npy` file that `images` maps as it is, possibly with a channel axis added; else None.

    A private map (mode "c"), a part, or a map of another shape or dtype shows other pixels than the file holds.
    """
    base: Any = images
    while isinstance(base, np.ndarray) and not (isinstance(base, np.memmap) and not isinstance(base.base, np.memmap)):
        base = base.base
    if not isinstance(base, np.memmap) or base.filename is None or not str(base.filename).endswith(".npy"):
        return None
    path = os.path.abspath(str(base.filename))
    try:
        # A map made by hand may start anywhere in the file: compare with what another process would open.
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
    """Raise a DataError if the file of mapped images is gone, or shorter than what was mapped."""
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
    """Size and time of the last change in nanoseconds; while both stay, the bytes are taken as unchanged."""
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The start of a .npy file; the array's bytes in C order follow."""
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": dtype, "fortran_order": False, "shape": shape})
    return start.getvalue()
