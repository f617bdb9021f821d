"""Masks in packed form, uint8 (rows, ceil(groups / 8)), little bit first: repeats, complements, sizes, checks."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import DesignError, PydtError, to_array


def find_clusters(packed: npt.NDArray[np.uint8], groups: int) -> npt.NDArray[np.int64]:
    """Number the rows so that equal and complementary masks share a number, int64 (models,), in order of appearance.

    Args:
        packed: uint8 (models, ceil(groups / 8)), little bit first.
    """
    return find_repeats(fold(packed, groups))


def estimand_of(packed: npt.NDArray[np.uint8], groups: int) -> str:
    """ "swap" if all masks keep the same number of groups, else "add"."""
    sizes = np.bitwise_count(packed).sum(1, dtype=np.int64)
    return "swap" if groups > 1 and np.all(sizes == sizes[0]) else "add"


def as_masks(
    masks: npt.ArrayLike, kind: type[PydtError] = DesignError, mend: str = "pass 0/1 masks"
) -> npt.NDArray[np.bool_]:
    """Any 0/1 array-like (models, groups) as C-contiguous bool; raises `kind`, naming the entry that is neither."""
    array = to_array(masks, "masks", kind)
    if array.ndim != 2 or 0 in array.shape:
        raise kind(f"shape {array.shape} is not (models, groups)", "masks", "pass one row of 0 and 1 per model")
    if array.dtype != bool:
        if array.dtype.kind not in "iuf":
            raise kind(f"dtype {array.dtype} is not one of masks", "masks", "pass bool, or numbers 0 and 1")
        wrong = np.argwhere((array != 0) & (array != 1))
        if wrong.size:
            row, group = wrong[0]
            raise kind(f"{array[row, group]} is neither 0 nor 1", f"masks, row {row}, group {group}", mend)
        array = array != 0
    return np.ascontiguousarray(array)


def fold(packed: npt.NDArray[np.uint8], groups: int) -> npt.NDArray[np.uint8]:
    """Each mask or its complement, whichever leaves group 0 out: one form for both halves of a pair."""
    ones = _core.pack(np.ones((1, groups), bool))
    return np.where(packed[:, :1] & 1, packed ^ ones, packed)


def shorten(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Rows of at most 16 bytes: longer ones become digests of that length."""
    if rows.shape[1] <= 16:
        return rows
    names = b"".join(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
    return np.frombuffer(names, np.uint8).reshape(-1, 16)


def find_repeats(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Number the rows so that equal masks share a number, int64 (models,), in order of appearance."""
    rows = np.ascontiguousarray(packed)
    keys = rows.view(np.dtype((np.void, rows.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first, kind="stable")] = np.arange(len(first))
    return order[inverse.reshape(-1)]


def unpack(packed: npt.NDArray[np.uint8], groups: int) -> npt.NDArray[np.bool_]:
    return _core.unpack(np.ascontiguousarray(packed), groups)
