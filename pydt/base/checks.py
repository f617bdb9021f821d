"""Checks of arguments: one of each kind, for all rooms."""

from __future__ import annotations

import difflib
import math
import operator
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base.errors import ConfigError, DataError, PydtError


def suggest(name: object, known: Sequence[str]) -> str:
    """The known name next to `name` as a question; all of them if none is near."""
    near = _nearest(name, known)
    return f"did you mean {near!r}?" if near is not None else "known: " + ", ".join(map(repr, known))


def _nearest(name: object, known: Sequence[str]) -> str | None:
    """The known name that is most like `name`, whatever the case of the letters; None if none is near."""
    folded = {one.casefold(): one for one in reversed(known)}
    close = difflib.get_close_matches(str(name), known, 1)
    close = close or [folded[one] for one in difflib.get_close_matches(str(name).casefold(), list(folded), 1)]
    return close[0] if close else None


def place_by_name(
    wanted: object, names: Sequence[str], digests: Sequence[str], what: str, where: str, error: type[PydtError]
) -> int:
    """Position of the one with this name or digest, or of the only one whose name begins with it in letters of any
    case; raises `error`, which lists the names."""
    for known in (names, digests):
        if wanted in known:
            return known.index(str(wanted))
    start = str(wanted).casefold()
    found = [i for i, name in enumerate(names) if start and name.casefold().startswith(start)]
    if len(found) == 1:
        return found[0]
    if found:
        mend = f"name one of: {', '.join(repr(names[i]) for i in found)}"
        raise error(f"{len(found)} {what}s begin with {wanted!r}", where, mend)
    near = _nearest(wanted, names)
    asked = f"did you mean {near!r}? " if near is not None and len(names) > 1 else ""
    raise error(f"no {what} {wanted!r}", where, f"{asked}known: {', '.join(map(repr, names))}")


UNNAMED = "arrays"
"""The name of a data set of arrays that was given none."""
INT64 = 2**63 - 1
"""The largest int64."""


def to_array(values: Any, name: str, kind: type[PydtError]) -> npt.NDArray[Any]:
    """`numpy.asarray` of anything, tensors included; raises `kind` where rows differ in length."""
    if np.ma.is_masked(values):
        mend = "fill it: values.filled(np.nan) for outputs of rows that failed"
        raise kind("has masked entries, which would count as if they were not", name, mend)
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (TypeError, ValueError) as error:
        raise kind(f"is not an array ({error})", name, "pass rows of numbers, all of one length") from None


def whole(
    value: Any,
    name: str,
    where: str | None,
    least: int = 0,
    most: int | None = INT64,
    error: type[PydtError] = DataError,
) -> int:
    """`value` as an int, whatever integer type it came as.

    Args:
        name: of the argument.
        where: the place: a function, a class.
        least, most: both allowed; `most` None is no limit.

    Raises:
        PydtError: of the given kind: it is not a whole number (bool and float are none), or it lies outside.
    """
    span = f">= {least}" if most is None or most == INT64 else f"from {least} to {most}"
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        wrong = "not a whole number" if number is None else "out of range"
        raise error(f"{name} {value!r} is {wrong}", where, f"use a whole number {span}")
    return number


def real(
    value: Any,
    name: str,
    where: str | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    error: type[PydtError] = ConfigError,
) -> float:
    """`value` as a finite float.

    Args:
        name, where: as in `whole`.
        least, most: the least and the largest value that is allowed.
        above, below: limits that are not allowed themselves.

    Raises:
        PydtError: of the given kind: it is no number (bool and text are none), not finite, or it lies outside.
    """
    try:
        number = math.nan if isinstance(value, (bool, np.bool_, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    limits = {">=": least, "above": above, "<=": most, "below": below}
    span = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)
    mend = f"use a number {span}".rstrip()
    if not math.isfinite(number):
        raise error(f"{name} {value!r} is not a finite number", where, mend)
    fits = (
        (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    )
    if not fits:
        raise error(f"{name} {value!r} is out of range", where, mend)
    return number


def share(value: Any, name: str, where: str | None, error: type[PydtError] = ConfigError) -> float:
    """`value` as a float above 0 and below 1; arguments and errors as in `real`."""
    return real(value, name, where, above=0, below=1, error=error)


def one_of(value: Any, known: Sequence[str], name: str, where: str | None, error: type[PydtError] = ConfigError) -> str:
    """`value`, one of the `known` texts; raises `error` with all of them and the nearest."""
    if isinstance(value, str) and value in known:
        return value
    near = _nearest(value, known)
    hint = f" (did you mean {near!r}?)" if near is not None else ""
    raise error(f"unknown {name} {value!r}", where, f"choose one of: {', '.join(known)}{hint}")


def as_path(value: Any, where: str, kind: type[PydtError] = ConfigError, *, made: bool = False) -> Path:
    """A path made absolute, so that it stays the same wherever the process goes.

    Args:
        where: names the argument.
        made: something will be written there, so `Path("")` is refused like "". (Python takes it for the working
            folder.)

    Raises:
        PydtError: of the given kind: it is no path, or an empty one.
    """
    mend = "give a file or folder as a string or pathlib.Path"
    try:
        text = os.fsdecode(value)
    except TypeError as error:
        raise kind(f"{value!r} is no path", where, mend) from error
    if not text or (made and text == "." and not isinstance(value, (str, bytes))):
        raise kind("is an empty path", where, 'name a file or folder; "." is the working folder')
    if "\0" in text:
        raise kind(f"{text!r} is no path", where, mend)
    return Path(text).absolute()


def as_names(values: Any, what: str) -> tuple[str, ...]:
    """A list of texts as a tuple, as they are; one text alone is refused, since its letters are hardly meant."""
    mend = f"give {what}=[...], one text each"
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DataError(f"{values!r} is no list of texts", what, mend)
    found = tuple(values)
    for position, value in enumerate(found):
        if not isinstance(value, str):
            raise DataError(f"{shown(value)} at position {position} is no text", what, mend)
    return tuple(map(str.__str__, found))


def shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    text = text if unicodedata.is_normalized("NFC", text) else ascii(value)  # or "é" and "é" would look alike
    return text if len(text) <= 80 else f"{text[:77]}..."
