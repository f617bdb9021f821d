"""Guarded reading: regular files only, no more bytes than are asked for."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any

from pydt.base.errors import DataError, StoreError
from pydt.base.strict_json import Form, check, parse

LARGEST_TEXT = 1 << 30
"""Bytes of a file of JSON; a sparse file of terabytes would fill the memory."""


class Unreadable(StoreError):
    """A file that the system does not give: nobody knows whether it is damaged."""

    @classmethod
    def of(cls, error: OSError, path: str | os.PathLike[str]) -> Unreadable:
        mend = "make it readable, or delete this one file and run the same plan again"
        return cls(f"cannot be read ({error.strerror or error})", str(path), mend)


def read(path: str | os.PathLike[str], most: int = LARGEST_TEXT) -> bytes:
    """The bytes of a regular file of text, `most` at most.

    A pipe or a device under its name would block or never end.
    """
    with opened(path) as (descriptor, size):
        return text_of(descriptor, size, most)


def read_json(path: str | os.PathLike[str], form: Form, most: int = LARGEST_TEXT) -> Any:
    """What a JSON file says, of the given form; see `pydt.base.strict_json`.

    Raises:
        StoreError: it has another form, or is larger than `most` bytes. FileNotFoundError: it is not there.
    """
    with opened(path) as (descriptor, size):
        value = parse(text_of(descriptor, size, most))
        check(value, form)
        return value


def text_of(descriptor: int, size: int, most: int = LARGEST_TEXT) -> bytes:
    """All of an open file of text."""
    if size > most:
        raise StoreError(f"is damaged (larger than {most:,} bytes)")
    return exactly(descriptor, size, 0)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[int, int]]:
    """Descriptor and size of a regular file; errors from inside name it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise StoreError("is damaged (not a regular file)")
            yield descriptor, state.st_size
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable.of(error, path) from error
    except StoreError as error:
        raise error if error.where is not None else StoreError(error.what, os.fspath(path), error.mend) from error


def exactly(descriptor: int, length: int, offset: int) -> bytes:
    """So many bytes of a file; a file that shrinks meanwhile, and a system that gives less at a time, included."""
    parts = []
    while length:
        part = os.pread(descriptor, length, offset)
        if not part:
            raise StoreError("is damaged (it ends too early)")
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file, open for reading; a FIFO or a device is refused and not waited for.

    Raises:
        DataError: it cannot be opened, or is no regular file.
    """
    mend = "give a regular file that may be read"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read ({getattr(error, 'strerror', None) or error})", path_text(path), mend
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError("is no regular file", path_text(path), mend)
    return descriptor


def path_text(path: str | os.PathLike[str]) -> str:
    text = os.fsdecode(path)
    return repr(text[:100] + "..." if len(text) > 200 else text) if len(text) > 200 or not text.isprintable() else text
