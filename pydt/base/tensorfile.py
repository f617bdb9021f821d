"""A safetensors file with one metadata entry and a checksum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from pydt.base.digests import canonical_json
from pydt.base.errors import StoreError
from pydt.base.regular_files import exactly, opened
from pydt.base.strict_json import HEX64, SEED, Form, check, parse

_LARGEST_HEADER = 1 << 24
_HEADER: Form = {"__metadata__": {"pydt": str}}  # of a safetensors file


def encode(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file with one metadata entry, "pydt": JSON, with a SHA-256 of it and the arrays."""
    from safetensors.numpy import save

    # C order and little-endian: the checksum is of what a reader will see
    tensors = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in sorted(arrays.items())}
    signed = {**metadata, "sha256": checksum(tensors, metadata)}
    # safetensors writes metadata entries in the order of a hash map: with several, equal rows were not equal bytes.
    return bytes(save(tensors, metadata={"pydt": canonical_json(signed)}))


def decode(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of what `encode` gave; raises StoreError if any bit of them changed."""
    header = parse(data[8 : 8 + int.from_bytes(data[:8], "little")])
    check(header, _HEADER)
    return _decode(data, header["__metadata__"]["pydt"])


def _decode(data: bytes, text: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`decode` where the header was parsed already: `text` is its entry "pydt"."""
    from safetensors.numpy import load

    metadata = parse(text)
    check(metadata, {"sha256": HEX64})
    expected = metadata.pop("sha256")
    try:
        arrays = load(data)  # checks the header's length, the offsets and the shapes against the size of the data
        found = checksum(arrays, metadata)
    except Exception as error:  # any error of that parser means a damaged file
        raise StoreError(f"is damaged ({type(error).__name__})") from error
    if found != expected:
        raise StoreError("is damaged (its checksum does not match)")
    return arrays, metadata


def checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    shapes = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    state = hashlib.sha256(canonical_json([metadata, shapes]).encode())
    for name in sorted(arrays):
        state.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`decode` of a file; its size is compared with its header first, so that a sparse file cannot fill the memory."""
    with opened(path) as (descriptor, size):
        text = header_of(descriptor, size)
        return _decode(exactly(descriptor, size, 0), text)


def header_of(descriptor: int, size: int) -> str:
    """The metadata entry "pydt" of a safetensors file whose size is what its header says."""
    start = os.pread(descriptor, 4096, 0)  # holds most headers
    length = int.from_bytes(start[:8], "little")
    if length > min(size - 8, _LARGEST_HEADER):
        raise StoreError("is damaged (its header does not fit)")
    text = start[8 : 8 + length]
    tensors = parse(text if len(text) == length else exactly(descriptor, length, 8))
    check(tensors, _HEADER)
    metadata: str = tensors.pop("__metadata__")["pydt"]
    check(tensors, {str: {"data_offsets": (SEED, SEED)}})
    if max([tensor["data_offsets"][1] for tensor in tensors.values()], default=0) != size - 8 - length:
        raise StoreError("is damaged (its size does not fit)")
    return metadata
