"""Digests and crash-safe files: the two habits that every other module leans on.

Every call by which pydt changes a store goes through `os.open`, `os.write`, `os.fsync`, `os.replace`, `os.mkdir` and
`os.unlink` in this file, so that a test can make any one of them fail. Calls that a signal interrupted are made again.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydt.base.digests import digest
from pydt.base.errors import StoreError

_OLD = 24 * 3600.0  # seconds after which a temporary file is nobody's, wherever its writer was


def write_atomic(path: str | os.PathLike[str], data: bytes | memoryview, *, within: Path | None = None) -> None:
    """Write a file so that a reader sees all of it or none of it, whatever dies in between.

    The bytes go to a temporary name of their own in the same folder, are synced, renamed over `path`, and the folder is
    synced, as is the parent of every folder made on the way. Any number of threads, processes and hosts may write one
    path at once: the last one wins.

    Args:
        within: a folder above `path` that is not made, if it is not there (any more).

    Raises:
        StoreError: the folder cannot be written, or the disk is full. `path` then holds the old bytes, or the new ones
            if only the last sync failed; no temporary file stays.
    """
    with writing(path, within=within) as write:
        write(data)


@contextlib.contextmanager
def writing(
    path: str | os.PathLike[str], *, within: Path | None = None
) -> Iterator[Callable[[bytes | memoryview], None]]:
    """`write_atomic` in pieces: gives what appends bytes to the file."""
    path = Path(path)
    temporary = _temporary(path)
    try:
        _make(path.parent, within)
        with _created(temporary) as write:
            yield write
        again(os.replace, temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # gone already, if all went well
            os.unlink(temporary)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file that is only ever appended to. One that its writer left unfinished stays as it is.

    Raises:
        StoreError: it cannot be written; the line may be there in part.
    """
    try:
        descriptor = again(os.open, path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            write_all(descriptor, b"\n" * torn + line + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unwritable(path, error) from error


class Folder:
    """A folder that is being built under a temporary name; see `building`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> contextlib.AbstractContextManager[Callable[[bytes], None]]:
        """A new file in it: gives what appends bytes to it."""
        return _created(self.path / name)

    def commit(self, name: str) -> Path:
        """Sync it and give it its name, or the next that is free: `name`-1, `name`-2, ..."""
        _sync(self.path)
        final, number = self.path.with_name(name), 0
        while final.exists():
            number += 1
            final = self.path.with_name(f"{name}-{number}")
        again(os.replace, self.path, final)
        _sync(final.parent)
        return final


def gone(folder: Path) -> StoreError:
    """The error of a folder that was there when writing to it began."""
    wrong = "is not there any more: it was renamed, moved or deleted while it was written to"
    return StoreError(wrong, str(folder), "give it this name again, or use its new one; what was stored is in it")


@contextlib.contextmanager
def building(parent: Path, *, within: Path | None = None) -> Iterator[Folder]:
    """Build a folder inside `parent` so that a reader sees all of it, once it is committed, or none of it.

    Args:
        within: as in `write_atomic`.

    Raises:
        StoreError: it cannot be written; what there was of it is removed.
    """
    temporary = _temporary(parent / "folder")
    for leftover in parent.glob(".folder.*.tmp"):
        if abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    try:
        _make(temporary, within)
        yield Folder(temporary)
    except OSError as error:
        raise unwritable(parent, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove what writers that died left under temporary names in a folder, and in folders up to two levels down.

    Raises:
        StoreError: the folder cannot be written.
    """
    for leftover in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp"), *folder.glob("*/*/.*.tmp")]:
        if not abandoned(leftover):
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            remove(leftover, sync=False)


def move(path: Path, target: Path, *, within: Path | None = None) -> None:
    """Rename a file or a folder, into one that is made if needed (`within` as in `write_atomic`); raises `OSError`."""
    _make(target.parent, within)
    again(os.replace, path, target)


def remove(path: Path, *, sync: bool = True) -> None:
    """Remove a file, for good; none is no error.

    Args:
        sync: wait until it is known to be gone after a power failure, too.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        again(os.unlink, path)
        if sync:
            _sync(path.parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unwritable(path, error) from error


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
    if host != machine() or not pid.isdecimal():
        return False  # a process id says nothing about processes elsewhere
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def _make(folder: Path, within: Path | None = None) -> None:
    """Make a folder and its parents, each of them there after a power failure."""
    missing = []
    while folder != folder.parent and not folder.is_dir():
        if folder == within:
            raise gone(folder)
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            again(os.mkdir, new)
        _sync(new.parent)


def _sync(folder: Path) -> None:
    descriptor = again(os.open, folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        again(os.fsync, descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def _created(path: Path) -> Iterator[Callable[[bytes | memoryview], None]]:
    """A new file that is on the disk when the context ends; gives what appends bytes to it."""
    descriptor = again(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield lambda data: write_all(descriptor, data)
        again(os.fsync, descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """All of it: the system may take less at a time."""
    left = memoryview(data).cast("B")
    while left:
        left = left[again(os.write, descriptor, left) :]


def again(call: Callable[..., Any], *arguments: Any) -> Any:
    while True:
        try:
            return call(*arguments)
        except InterruptedError:
            continue


def unwritable(path: Path, error: OSError) -> StoreError:
    mend = "free space, or choose a folder you may write to"
    return StoreError(f"cannot be written ({error.strerror or error})", str(path), mend)


@cache
def machine() -> str:
    """Eight hex digits for where a process id means something: this machine since its start, this container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digest(parts)[:8]
