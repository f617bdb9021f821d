"""Guarded reading: only regular files (a pipe or a device would block or never end), only as many bytes as allowed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any

from pydt.base.errors import DataError, StoreError
from pydt.base.strict_json import Form, check, parse

LARGEST_TEXT = 1 << 30
"""Most bytes of a JSON file: a sparse file of terabytes would fill the memory."""


class Unreadable(StoreError):
    """A file that cannot be read (permission or I/O error): whether it is damaged is unknown."""

    @classmethod
    def of(cls, error: OSError, path: str | os.PathLike[str]) -> Unreadable:
        mend = "make it readable, or delete this one file and run the same plan again"
        return cls(f"cannot be read ({error.strerror or error})", str(path), mend)


def read(path: str | os.PathLike[str], most: int = LARGEST_TEXT) -> bytes:
    """The bytes of a regular file of text, `most` at most."""
    with opened(path) as (descriptor, size):
        return text_of(descriptor, size, most)


def read_json(path: str | os.PathLike[str], form: Form, most: int = LARGEST_TEXT) -> Any:
    """The value of a JSON file, checked against a form (see `pydt.base.strict_json`).

    Raises:
        StoreError: it has another form, or is larger than `most` bytes. FileNotFoundError: there is no such file.
    """
    with opened(path) as (descriptor, size):
        value = parse(text_of(descriptor, size, most))
        check(value, form)
        return value


def text_of(descriptor: int, size: int, most: int = LARGEST_TEXT) -> bytes:
    """All bytes of an open file of text."""
    if size > most:
        raise StoreError(f"is damaged (larger than {most:,} bytes)")
    return exactly(descriptor, size, 0)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[int, int]]:
    """Descriptor and size of a regular file; a StoreError raised inside the context gets the file's name."""
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
    """`length` bytes from `offset`; a StoreError if the file ends before, also while it is read."""
    parts = []
    while length:
        part = os.pread(descriptor, length, offset)
        if not part:
            raise StoreError("is damaged (it ends too early)")
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file, open for reading; a pipe or a device is refused without waiting.

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
    """A path as errors show it: cut if it is long, quoted if it is long or not printable."""
    text = os.fsdecode(path)
    if len(text) > 200:
        return repr(text[:100] + "...")
    return text if text.isprintable() else repr(text)
