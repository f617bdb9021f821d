"""Settings as JSON types, for digests, plan files and reports."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

YOUNG = {"young": True}
"""Metadata of a field that is younger than stored results: at its default it is not named, so digests stay equal."""


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def ignored(settings: Any, own: Collection[str], every: Collection[str]) -> list[str]:
    """The fields of a settings class among `every` that are not at their default and not among its `own`."""
    changed = (field.name for field in fields(settings) if getattr(settings, field.name) != _default(field))
    return [name for name in changed if name in every and name not in own]


def described(settings: Any) -> dict[str, Any]:
    """The fields of a settings class as JSON types, without those that it calls `unused`."""
    found, unused = {}, getattr(settings, "unused", ())
    for field in fields(settings):
        if field.name in unused:
            continue
        value = getattr(settings, field.name)
        if "young" in field.metadata and value == _default(field):
            continue
        if hasattr(value, "described"):
            value = value.described()
        elif is_dataclass(value):
            value = described(value)
        found[field.name] = value
    return found
