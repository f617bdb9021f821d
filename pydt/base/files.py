"""Files and folders that are written whole or not at all, whatever fails.

Every change of a store goes through `os.open`, `os.write`, `os.fsync`, `os.replace`, `os.mkdir` and `os.unlink` here,
so that a test can make any one of them fail. A call that a signal interrupts is repeated.
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

_OLD = 24 * 3600.0  # seconds without a write after which a temporary file is abandoned, on whatever host


def write_atomic(path: str | os.PathLike[str], data: bytes | memoryview, *, within: Path | None = None) -> None:
    """Write a file so that a reader sees all of it or none of it.

    The bytes go to a temporary file in the same folder, which is synced and renamed over `path`; the folder is synced,
    as is the parent of every folder made on the way. Threads, processes and hosts may write one path at the same time:
    the last one wins.

    Args:
        within: a folder above `path` that must exist: it is not made.

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
    """`write_atomic` in pieces: gives a function that appends bytes to the file."""
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
    """Append a line to a log. If the last writer left an unfinished line, that line stays, and a new one begins.

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
    """A folder under construction; see `building`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> contextlib.AbstractContextManager[Callable[[bytes], None]]:
        """Context manager that creates a file and gives a function that appends bytes to it."""
        return _created(self.path / name)

    def commit(self, name: str) -> Path:
        """Sync the folder and rename it to `name`, or to the next free of `name`-1, `name`-2, ..."""
        _sync(self.path)
        final, number = self.path.with_name(name), 0
        while final.exists():
            number += 1
            final = self.path.with_name(f"{name}-{number}")
        again(os.replace, self.path, final)
        _sync(final.parent)
        return final


def gone(folder: Path) -> StoreError:
    """The error for a folder that disappeared while it was written to."""
    wrong = "is not there any more: it was renamed, moved or deleted while it was written to"
    return StoreError(wrong, str(folder), "give it this name again, or use its new one; what was stored is in it")


@contextlib.contextmanager
def building(parent: Path, *, within: Path | None = None) -> Iterator[Folder]:
    """Build a folder inside `parent` that a reader sees whole, once it is committed, or not at all.

    Args:
        within: as in `write_atomic`.

    Raises:
        StoreError: it cannot be written; the unfinished folder is removed.
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
    """Remove temporary files and folders of dead writers, in a folder and up to two levels down; raises StoreError."""
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
    """Remove a file if it exists.

    Args:
        sync: wait until the removal would survive a power failure.

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
    """Whether a temporary file has no writer: its process on this host has ended, or it was not written for a day."""
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
    """Make a folder and its parents, and sync each."""
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
    """A new file, synced at the end; gives a function that appends bytes to it."""
    descriptor = again(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield lambda data: write_all(descriptor, data)
        again(os.fsync, descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all the data: one `os.write` may take a part only."""
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
    """Eight hex digits that name the scope of process ids: this boot of this machine, this container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digest(parts)[:8]
