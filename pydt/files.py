"""Digests and crash-safe files: the two habits that every other module leans on."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from pydt.errors import ConfigError, StoreError


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text.

    Raises:
        ConfigError: a value has no canonical form (NaN, infinity, or a type JSON does not know).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"no canonical form: {error}", "digest", "use finite numbers, strings, lists and dicts"
        ) from error


def digest(*parts: Any) -> str:
    """The first 32 hex digits of a SHA-256 over the parts, each preceded by its kind and length.

    Arrays enter as dtype, shape and bytes in C order; bytes as they are; all else as canonical JSON.
    """
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            kind = f"array {part.dtype.str} {part.shape}".encode()
            data: Any = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data if part.size else b""
        elif isinstance(part, bytes):
            kind, data = b"bytes", part
        else:
            kind, data = b"json", canonical_json(part).encode()
        state.update(kind + b" %d\n" % len(data))
        state.update(data)
    return state.hexdigest()[:32]


def write_atomic(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write a file so that a reader sees all of it or none of it, whatever dies in between.

    The bytes go to a temporary name in the same folder, are synced, renamed over `path`, and the folder is synced.

    Raises:
        StoreError: the folder cannot be written, or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None
        raise StoreError(
            f"cannot be written ({error.strerror or error})",
            str(path),
            "free space, or choose a folder you may write to",
        ) from error
