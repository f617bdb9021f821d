"""Checks of arguments that every room needs."""

from __future__ import annotations

import difflib
import operator
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base.errors import DataError, DesignError, PydtError


def suggest(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, 1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(map(repr, known))


UNNAMED = "arrays"
"""What a data set of arrays is called that was given no name."""


def to_array(values: Any, name: str, kind: type[PydtError]) -> npt.NDArray[Any]:
    """`numpy.asarray` of anything, tensors included; raises `kind` where rows differ in length."""
    if np.ma.is_masked(values):
        mend = "fill it: values.filled(np.nan) for outputs of rows that failed"
        raise kind("has masked entries, which would count as if they were not", name, mend)
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (TypeError, ValueError) as error:
        raise kind(f"is not an array ({error})", name, "pass rows of numbers, all of one length") from None


def whole_number(value: Any, name: str, least: int, kind: type[PydtError] = DesignError) -> int:
    """`value` as an int of at least `least`; raises `kind`, naming the argument, for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise kind(f"{value!r} is not a whole number", name, f"pass an integer of at least {least}")
    if not least <= number < 2**63:
        raise kind(f"{number} is out of range", name, f"pass an integer of at least {least}")
    return number


def whole(
    value: Any,
    name: str,
    where: str,
    least: int = 0,
    most: int | None = None,
    error: type[PydtError] = DataError,
) -> int:
    """`value` as an int within least..most, whatever integer type it came as.

    Raises:
        error: it is not a whole number (bool and float are none), or it lies outside.
    """
    span = f">= {least}" if most is None else f"from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, (bool, np.bool_)) or number < least or (most is not None and number > most):
        raise error(f"{name} {value!r}", where, f"use a whole number {span}")
    return number


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
