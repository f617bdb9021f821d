"""Lists of group names: read from files, and looked up among the groups of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydt.base import ConfigError, DataError, StoreError, as_path, read, read_json, shown, suggest

_FEW = 20  # names that an error lists


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """The names in a text file, one a line.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        lines = read(Path(path)).decode().splitlines()
    except (OSError, StoreError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", str(path), "give a UTF-8 text file") from error
    return [line.strip() for line in lines if line.strip()]


def chosen_groups(given: Any, known: Sequence[str], by: str, where: str) -> list[str]:
    """The names that were given as a list, as a text file, or as a .json file of `pydt keep`; each is a known group.

    Raises:
        DataError: no list, an unknown name, a list of other groups, or none at all.
        ConfigError, StoreError: the file cannot be read.
    """
    if isinstance(given, (str, bytes, os.PathLike)):
        names, place = _from_file(given, known, by, where)
    else:
        try:
            names, place = list(given), where
        except TypeError:
            mend = "give a list of names, or the file of one"
            raise DataError(f"{shown(given)} is no list of names", where, mend) from None
    there = set(known)
    for name in names:
        if not isinstance(name, str) or name not in there:
            near = suggest(name, known)
            mend = near if near.startswith("did you") or len(known) <= _FEW else _some(known)
            raise DataError(f"no group {shown(name)} (by {by})", place, mend)
    if not names:
        raise DataError("no name", place, "name at least one group")
    return names


def _from_file(given: Any, known: Sequence[str], by: str, where: str) -> tuple[list[str], str]:
    path = as_path(given, where, DataError)
    if isinstance(given, str) and given in known and not path.is_file():
        raise DataError(f"{shown(given)} is a text, which means a file", where, f"give a list: [{given!r}]")
    if path.suffix != ".json":
        return read_list(path), str(path)
    try:
        found = read_json(path, {"kept": [str], "by": str})
    except FileNotFoundError as error:
        mend = "give a file that `pydt keep` wrote"
        raise ConfigError("cannot be read (it is not there)", str(path), mend) from error
    if found["by"] != by:
        raise DataError(f"its groups are by {found['by']!r}, not by {by!r}", str(path), f"say by={found['by']!r}")
    return found["kept"], str(path)


def _some(known: Sequence[str]) -> str:
    return f"{len(known):,} are known: {', '.join(map(repr, known[:5]))}, ..."
