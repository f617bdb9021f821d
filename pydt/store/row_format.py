"""The file of one cell: its metadata, and what its header tells without reading the rest."""

from __future__ import annotations

import os
import re
from typing import Any

from pydt.base import HEX32, HEX64, SEED, Form, check, header_of, opened, parse
from pydt.store.rows import FACTS

_STATUS = b'\\"status\\":'
_OK = _STATUS + b'\\"ok\\"'
_ENDS = re.compile(rb'"data_offsets":\[\d+,(\d+)\]')


CELL: Form = {
    "key": HEX32,
    "status": {"ok", "failed"},
    "reason": str | None,
    "scalars": {str: int | float | str},
    "seed?": SEED,
    "groups?": range(1 << 31),
    "keep?": str,
    "rule?": str,
    "row?": SEED,
    **{f"{name}?": str for name in (*FACTS, "source", "units", "recipe", "task", "training")},
}
"""What the metadata of a cell say."""


def file_name(name: Any) -> str:
    """A name as part of a file's name; "-" if it might be a path: plans may come from others."""
    text = str(name)
    return text if text.isprintable() and not set(text) & set("/\\") and len(text) <= 100 else "-"


def peek(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a cell's file, from its header: well formed and of the right size, but not checksummed.

    Raises:
        StoreError: it is visibly damaged. FileNotFoundError: it is missing.
    """
    with opened(path) as (descriptor, size):
        metadata: dict[str, Any] = parse(header_of(descriptor, size))
        check(metadata, {**CELL, "sha256": HEX64})
        del metadata["sha256"]
        return metadata


def says_ok(path: str, key: str) -> bool:
    """Whether the header of a cell's file says that it is whole and did not fail; False: ask `peek`.

    The text is searched, not parsed, in a third of the time: the writer's JSON has one form. Quotes inside a text have
    more backslashes, so no scalar is taken for the status.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        start, size = os.pread(descriptor, 4096, 0), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    end = 8 + int.from_bytes(start[:8], "little")
    text = start[8:end]
    if 8 + len(text) != end or _OK not in text or b'\\"key\\":\\"%s\\"' % key.encode() not in text:
        return False
    if text.count(_STATUS) > 1:  # a scalar of that name
        return False
    return max([int(offset) for offset in _ENDS.findall(text)], default=0) == size - end
