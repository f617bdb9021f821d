"""Work that goes on where it was broken off.

OUT.packing/   while it is being made: what is finished, and done.jsonl, a line for each part with a checksum. A part
               that does not have that checksum (the process was killed, the machine lost power), or whose images have
               changed, is made again; all others are kept.
OUT/           the finished folder, renamed at once, with pack.json, which says what it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydt.base import (
    DataError,
    Form,
    StoreError,
    append_line,
    canonical_json,
    check,
    exclusive,
    move,
    parse,
    read_json,
    write_atomic,
)

MADE_OF, DONE, _LOCK = "pack.json", "done.jsonl", ".lock"
_LONGEST = 1 << 20  # bytes of a line of the log


def make(place: Path, made_of: dict[str, Any], fill: Callable[[Path], None]) -> None:
    """Have `fill` write what belongs into the folder `place`; nothing where it is there and was made of just this.

    Raises:
        DataError: it was made of something else, or by something else.
        StoreError: it cannot be written, or another process writes it.
    """
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        _check_finished(place, made_of)
        _tidy(place)
        return
    part = place.with_name(place.name + ".packing")
    try:
        part.mkdir(parents=True, exist_ok=True)
        with exclusive(part / _LOCK):
            (part / DONE).touch()
            fill(part)
            write_atomic(part / MADE_OF, canonical_json(made_of).encode())
            move(part, place)
            _tidy(place)
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise StoreError(what, str(part), "free space, or choose another folder; the same call continues") from error


def _tidy(place: Path) -> None:
    for name in (DONE, _LOCK):
        with suppress(OSError):  # gone, or a file system that may only be read
            (place / name).unlink()


def done(part: Path, line: dict[str, Any]) -> None:
    """Note that a part is finished."""
    append_line(part / DONE, canonical_json(line).encode())


def finished(part: Path, form: Form) -> Iterator[Any]:
    """The lines of `done` that are whole and have a form (see `pydt.base.check`)."""
    with open(part / DONE, "rb") as lines:
        while line := lines.readline(_LONGEST):
            with suppress(StoreError):  # a torn line
                said = parse(line)
                check(said, form)
                yield said


def _check_finished(place: Path, made_of: dict[str, Any]) -> None:
    mend = "choose a folder that does not exist, or delete it"
    try:
        known = read_json(place / MADE_OF, dict)
    except (FileNotFoundError, StoreError) as error:
        raise DataError("is there already, and was not made by pack", str(place), mend) from error
    # The digest of the source says which images were used; those that could not be decoded are known afterwards only.
    if known | {"left out": {}} != parse(canonical_json(made_of | {"left out": {}})):
        raise DataError("is there already, and was made of other images or with other settings", str(place), mend)
