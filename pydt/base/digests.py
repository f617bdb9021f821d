"""Canonical JSON and digests of values, arrays and keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pydt.base.errors import ConfigError


def array_digest(images: np.ndarray, positions: np.ndarray) -> str:
    """Digest of the images at the given positions, in order; a memory map of any size takes a few megabytes."""
    step = max(1, (8 << 20) // max(1, int(np.prod(images.shape[1:]))))
    slices: Iterable[np.ndarray] = (images[positions[i : i + step]] for i in range(0, len(positions), step))
    return digest(list(images.shape[1:]), *(digest(piece) for piece in slices))


def hash_order(keys: Sequence[str], salt: str) -> np.ndarray:
    """64 bits per key, equal on every machine: uint64 (keys,). Sorting by them is a shuffle without a seed."""
    return np.array(
        [int.from_bytes(hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest(), "little") for key in keys],
        np.uint64,
    )


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text.

    Raises:
        ConfigError: NaN, infinity, half a character, or a type that JSON does not have.
    """
    try:
        text = _CANONICAL.encode(value)
        if not text.isascii():
            text.encode()
        return text
    except (TypeError, ValueError, RecursionError) as error:
        mend = "use finite numbers, strings of whole characters, lists and dicts"
        raise ConfigError(f"no canonical form: {error}", "digest", mend) from error


def escaped(text: str) -> str:
    """The text with half characters (of file names that are not UTF-8) written as \\udc80."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def digest(*parts: Any) -> str:
    """The first 32 hex digits of a SHA-256 over the parts, each preceded by its kind and length.

    Arrays are hashed as dtype, shape and bytes in C order, bytes as they are, everything else as canonical JSON.
    """
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            data: Any = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data if part.size else b""
            state.update(f"array {part.dtype.str} {part.shape} {len(data)}\n".encode())
            state.update(data)
        else:
            state.update(digest_part(part))
    return state.hexdigest()[:32]


def digest_part(part: Any) -> bytes:
    """The bytes that `digest` hashes for a part that is no array."""
    kind, data = (b"bytes", part) if isinstance(part, bytes) else (b"json", canonical_json(part).encode())
    return b"%s %d\n%s" % (kind, len(data), data)
