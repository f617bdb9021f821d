"""Files that decide a row's numbers, named by the user: their content stands in the recipe's digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydt.base import ConfigError, as_path

Files = dict[str, tuple[str, str]]
"""Path and SHA-256 of each file, by the name that it was given by."""
_seen: dict[str, tuple[tuple[int, int, int], str]] = {}  # of this process: stamp and SHA-256 by path


def contents(depends: Any, where: str, folder: Path) -> Files:
    """The files as they are now; names are relative to a folder.

    Raises:
        ConfigError: no list of files, or one that cannot be read.
    """
    if isinstance(depends, (str, bytes, os.PathLike)) or not isinstance(depends, Iterable):
        raise ConfigError(f"{depends!r} is no list of files", where, 'give a list: depends=["train.py"]')
    found = {}
    for name in depends:
        as_path(name, where)  # refuses what is no path
        text = os.fsdecode(name)
        place = str(folder / text)
        found[text] = place, _sha256(place, where)
    return found


def digests(files: Files) -> dict[str, str]:
    """SHA-256 of each file by its name."""
    return {name: found for name, (_, found) in files.items()}


def unchanged(files: Files, where: str) -> None:
    """Raise a ConfigError if a file is no longer what it was when the plan was made."""
    for name, (place, found) in files.items():
        if _sha256(place, where) != found:
            mend = "start the run again: rows are then computed with the file as it is now, beside those stored"
            raise ConfigError(f"{name!r} has changed since the run began", where, mend)


def _sha256(place: str, where: str) -> str:
    """SHA-256 of a file in hex; read again only if its size or time has changed."""
    try:
        with open(place, "rb") as file:
            about = os.fstat(file.fileno())
            stamp = about.st_mtime_ns, about.st_size, about.st_ino
            if _seen.get(place, (None, ""))[0] != stamp:
                _seen[place] = stamp, hashlib.file_digest(file, "sha256").hexdigest()
            return _seen[place][1]
    except OSError as error:
        wrong = f"{place} cannot be read ({error.strerror or error})"
        raise ConfigError(wrong, where, "name the files that rows are made with") from error
