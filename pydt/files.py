"""Digests and crash-safe files: the two habits that every other module leans on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pydt.errors import ConfigError, StoreError

_OLD = 24 * 3600.0  # seconds after which a temporary file is nobody's, wherever its writer was


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

    The bytes go to a temporary name of their own in the same folder, are synced, renamed over `path`, and the folder is
    synced, as is the parent of every folder made on the way. Any number of threads, processes and hosts may write one
    path at once: the last one wins.

    Raises:
        StoreError: the folder cannot be written, or the disk is full. `path` then holds the old bytes, or the new ones
            if only the last sync failed; no temporary file stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        _make(path.parent)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot be written ({error.strerror or error})",
            str(path),
            "free space, or choose a folder you may write to",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone already, if all went well
            temporary.unlink()


def abandoned(temporary: Path) -> bool:
    """Whether a temporary file of `write_atomic` has no writer any more.

    Its process on this host has ended, or (whoever wrote it) nothing was written to it for a day.
    """
    try:
        if time.time() - temporary.stat().st_mtime > _OLD:
            return True
    except OSError:
        return False  # its writer has just renamed it
    host, _, rest = temporary.name.removesuffix(".tmp").rpartition(".")[2].partition("-")
    pid = rest.partition("-")[0]
    if host != _host() or not pid.isdecimal():
        return False  # a process id says nothing about processes elsewhere
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def _make(folder: Path) -> None:
    """Make a folder and its parents, each of them there after a power failure."""
    missing = []
    while folder != folder.parent and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync(new.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def _host() -> str:
    """Eight hex digits for where a process id means something: this machine since its start, this container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digest(parts)[:8]
