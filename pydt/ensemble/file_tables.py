"""Tables that plan and study files share: [run], targets, and classes whose fields are the keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydt.base import ConfigError
from pydt.data import Dataset, Target
from pydt.ensemble.keeping import checked_keep
from pydt.ensemble.plan_sources import dataset_of
from pydt.ensemble.toml_table import TYPES, Table, placed

_T = TypeVar("_T")
_MOST_WORKERS = 1 << 16


def run_settings(table: Table, file: Path, keep: str = "none") -> dict[str, Any]:
    """A table [run] as arguments of a run: dir, workers, limit, same_code, keep (by default `keep`) and keep_bytes."""
    folder = table.take("dir", str, file.stem)
    if "\0" in folder or not folder:
        raise ConfigError(f"is {folder!r}", table.where("dir"), 'name a folder; "." is that of this file')
    workers, limit = table.take("workers", int, None), table.take("limit", float, None)
    if workers is not None and not 1 <= workers <= _MOST_WORKERS:
        raise ConfigError(f"is {workers}", table.where("workers"), "give the number of processes, or leave it out")
    if limit is not None and not 0 < limit < math.inf:
        raise ConfigError(f"is {limit}", table.where("limit"), "give the seconds that a row may take, or leave it out")
    found = {"dir": file.parent / folder, "workers": workers, "limit": limit}
    found |= {"same_code": table.take("same_code", bool, False), "keep": table.take("keep", str, keep)}
    found["keep_bytes"] = table.take("keep_bytes", int, None)
    with placed(table.where()):
        checked_keep(found["keep"], found["keep_bytes"])
    table.finish()
    return found


def target_of(table: Table, folder: Path, opened: Callable[[Table, Path], Dataset] = dataset_of) -> Target:
    """The target of a table whose `train` and `test` are data sets."""
    train = opened(table.table("train"), folder)
    test = opened(table.table("test"), folder) if "test" in table else None
    return settings_of(table, Target, folder, train=train, test=test)


def settings_of(table: Table, make: Callable[..., _T], folder: Path, /, **given: Any) -> _T:
    """A dataclass from a table: its fields are the keys, fields that are dataclasses are tables in it, those with
    `metadata={"path": True}` are relative to the folder.
    """
    for field in fields(make):  # type: ignore[arg-type]
        if field.name not in given and is_dataclass(field.default_factory):
            inner = table.table(field.name, required=False)
            for one in fields(field.default_factory):
                if type(one.default) in TYPES:
                    inner.take(one.name, type(one.default), None)
            given[field.name] = settings_of(inner, field.default_factory, folder)
    names = tuple(field.name for field in fields(make) if field.name not in given)  # type: ignore[arg-type]
    given |= table.rest(names)
    for field in fields(make):  # type: ignore[arg-type]
        if "path" in field.metadata and given.get(field.name):
            given[field.name] = str(folder / given[field.name])
    with placed(table.where()):
        return make(**given)
