"""Values of JSON with one place changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any


def paths(value: Any, most: int | None = None, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value, of lists the first `most` items."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in islice(items, most if isinstance(value, list) else None):
        yield from paths(inner, most, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], by: Any) -> Any:
    """The value with another one at a place."""
    if not at:
        return by
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[at[0]] = replaced(value[at[0]], at[1:], by)
    return changed
