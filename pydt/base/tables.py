"""What tables and columns of pandas and polars say beside their numbers: names and indexes. Neither is imported."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from pydt.base.errors import PydtError


def refuse_other_rows(kind: type[PydtError], **values: Any) -> None:
    """Refuse pandas tables and columns whose indexes differ: rows belong together by their place in all of them."""
    index = first = None
    for name, one in values.items():
        other = _index(one)
        if other is None:
            continue
        if index is None:
            index, first = other, name
        elif len(index) == len(other) and not index.equals(other):
            wrong, mend = (
                f"the index of {first} in another order",
                f"give {name} the order of {first}, with .loc[{first}.index]",
            )
            # As plain values: pandas compares no two kinds of indexes, such as levels or categories with numbers.
            expected, found = index.tolist(), other.tolist()
            if not index.is_unique or set(expected) != set(found):
                at = next((i for i, both in enumerate(zip(expected, found, strict=True)) if both[0] != both[1]), 0)
                wrong = f"row {at} is {found[at]!r}, and {expected[at]!r} in {first}"
                mend = "give both the same index, or .to_numpy() of both if their rows belong together in this order"
            raise kind(wrong, name, mend)


def _index(values: Any) -> Any:
    """The index of a table or column of pandas, else None."""
    index = getattr(values, "index", None)
    return index if hasattr(index, "symmetric_difference") else None


def column_names(values: Any, columns: int) -> tuple[Any, ...] | None:
    """The names of the columns of a table, or the name of one column, as pandas and polars have them, else None."""
    if isinstance(values, np.ndarray):
        return None
    found = getattr(values, "columns", None)
    if found is None and isinstance(name := getattr(values, "name", None), str) and name:
        found = (name,)
    if isinstance(found, str) or not isinstance(found, Iterable):
        return None
    names = tuple(found)
    # The `columns` of other libraries' tables are the data itself.
    return names if len(names) == columns and all(isinstance(one, Hashable) for one in names) else None
