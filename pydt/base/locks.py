"""One writer of a folder at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydt.base.digests import canonical_json
from pydt.base.errors import StoreError
from pydt.base.files import again, unwritable, write_all
from pydt.base.strict_json import check, parse


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`. It names the holder (JSON: pid, host) and is removed at the end.

    The kernel releases the lock when the process ends, killed or not. On a file system without locks nothing is held,
    and a `RuntimeWarning` says so.

    Args:
        wait: for the other holder, instead of raising. No warning then: work that may wait may also be done twice.

    Raises:
        StoreError: another process (or thread) holds it, or the folder cannot be written.
    """
    try:
        descriptor = _lock(path, wait)
    except OSError as error:
        raise unwritable(path, error) from error
    if descriptor is None:
        yield
        return
    _locks.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _locks:  # not in a fork of the holder
            _locks.discard(descriptor)
            place: Any = path  # the folder may have been renamed, and another lock file may have this path now
            with contextlib.suppress(OSError):
                place = os.readlink(f"/proc/self/fd/{descriptor}")
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(place), os.fstat(descriptor)):
                    os.unlink(place)
            os.close(descriptor)


_locks: set[int] = set()


def _forget_locks() -> None:
    """In a forked child: drop the parent's locks, so that they end with the parent."""
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_forget_locks)


def _lock(path: Path, wait: bool) -> int | None:
    """The descriptor that holds the lock; None on a file system without locks."""
    while True:
        descriptor = again(os.open, path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        taken = False
        try:
            again(fcntl.flock, descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The last holder may have removed the file between the two calls; a lock on that file excludes nobody.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    os.ftruncate(descriptor, 0)
                    write_all(descriptor, canonical_json({"pid": os.getpid(), "host": platform.node()}).encode())
                    taken = True
                    return descriptor
        except BlockingIOError:
            mend = "wait until it ends, or stop it; the same command then continues"
            raise StoreError(f"is being written by {_holder(path)}", str(path.parent), mend) from None
        except OSError as error:
            if error.errno == errno.ESTALE:
                continue  # on NFS, of a file that the last holder removed
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            if not wait:
                text = f"{path.parent} is on a file system without locks: start no second driver on it"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
            return None
        finally:
            if not taken:
                os.close(descriptor)


def holder(path: Path) -> tuple[int, str] | None:
    """Process id and host in a lock file; None if there is no such file or it is not readable."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = parse(file.read(4096))
        check(found, {"pid": range(1, 1 << 31), "host": str})
    except (OSError, StoreError):
        return None
    return found["pid"], found["host"]


def _holder(path: Path) -> str:
    for _ in range(10):
        if (found := holder(path)) is not None:
            return f"process {found[0]} on {found[1]}"
        time.sleep(0.01)  # it has the lock and is about to write its name
    return "another process"
