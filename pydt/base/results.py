"""What result classes share: a short line, a table for notebooks, and a frame of pandas, all of the same columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from pydt.base.notebook import html_table, to_frame

_FEW = 4  # entries of a tuple that a line has in full
_LONGEST = 280  # characters of a line


class Short:
    """A dataclass (with `repr=False`) whose `repr` is one line: arrays by shape, long tuples by length."""

    def __repr__(self) -> str:
        told = [f"{name}{_brief(getattr(self, name))}" for name in _fields(self)]
        line = f"{type(self).__name__}({', '.join(told)})"
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]}...)"


class Result(Short):
    """A dataclass (with `repr=False`) that is a table: `_columns` by name; by default one line, of its plain fields."""

    def _columns(self) -> Mapping[str, Any]:
        return {name: [value] for name in _fields(self) if _plain(value := getattr(self, name))}

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` of the columns that a notebook shows; where the result has a unit, `attrs` names it.

        Raises:
            ConfigError: pandas is not installed.
        """
        columns = self._columns()
        return to_frame(dict(columns), type(self).__name__, unit=getattr(self, "unit", ""))

    def _repr_html_(self) -> str:
        columns = self._columns()
        lines = max(map(len, columns.values()), default=0)
        return html_table(str(self), tuple(columns), zip(*columns.values(), strict=True), lines)


def records(kind: type, found: Iterable[Any]) -> dict[str, list[Any]]:
    """The columns of dataclasses of one kind: one for each field, a line for each of `found`."""
    found = list(found)
    return {one: [getattr(record, one) for record in found] for one in _fields(kind)}


def _fields(one: Any) -> list[str]:
    return [field.name for field in fields(one) if not field.name.startswith("_")]


def _plain(value: Any) -> bool:
    """Whether it is a text, a number or nothing."""
    return value is None or isinstance(value, str | bool | int | float | np.generic)


def _brief(value: Any) -> str:
    """A value in a line, after the name of its field."""
    if isinstance(value, float | np.floating):
        return f"={value:.4g}"
    if _plain(value):
        text = repr(value.item() if isinstance(value, np.generic) else value)
        return f"={text}" if len(text) <= 60 else f"={text[:57]}..."
    if isinstance(value, np.ndarray):
        return f": {value.dtype} {value.shape}"
    if isinstance(value, tuple | list) and len(value) <= _FEW and all(map(_plain, value)):
        return f"=({', '.join(_brief(one)[1:] for one in value)})"
    if isinstance(value, Collection):
        return f": {len(value):,}"
    return f": {type(value).__name__}"
