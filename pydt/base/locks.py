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
    """Hold the lock file `path`, which says who does (JSON: pid, host) and is gone afterwards.

    The kernel releases the lock when the process ends, however it does. Where the file system has no locks, a
    `RuntimeWarning` says so, and nothing is held.

    Args:
        wait: until another process lets it go, instead of raising. Then a file system without locks is no reason to
            warn: what may be waited for may also be done twice.

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
        if descriptor in _locks:  # else this is a fork of the process that holds it
            _locks.discard(descriptor)
            place: Any = path  # it may have been renamed, and what has its name now is somebody else's
            with contextlib.suppress(OSError):
                place = os.readlink(f"/proc/self/fd/{descriptor}")
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(place), os.fstat(descriptor)):
                    os.unlink(place)
            os.close(descriptor)


_locks: set[int] = set()


def _forget_locks() -> None:
    """In a forked process: it must not keep the locks of the one it came from when that ends."""
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_forget_locks)


def _lock(path: Path, wait: bool) -> int | None:
    """The descriptor that holds the lock; None if there are no locks here."""
    while True:
        descriptor = again(os.open, path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        taken = False
        try:
            again(fcntl.flock, descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Between the two calls its last holder may have removed the file: a lock on that would keep nobody out.
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
    """Process and host that a lock file names; None if it names nobody."""
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
        time.sleep(0.01)  # it holds the lock already and is about to write its name
    return "another process"
