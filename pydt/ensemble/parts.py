"""Parts of a run: lists of rows, each of one source, recipe and list of tasks; and where they stand while they run."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pydt.base import ConfigError, PydtError, StoreError, Unreadable
from pydt.design import Design
from pydt.ensemble.code_version import refuse_others, versions
from pydt.ensemble.interim import Interim, Judged
from pydt.ensemble.plan import check, make_record
from pydt.ensemble.row import Context
from pydt.store import Outcome, Record, Row, Store


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one source, recipe and list of tasks, to be run with others by `run_parts`.

    Args:
        context: source, the column that makes its groups, recipe and tasks.
        rows: masks and training seeds.
        name: what messages, the log and the progress display call it; it changes no result.

    Attributes:
        record: the part as a store knows it: what to give as `plan` to the methods of `Store`.

    Raises:
        PydtError: as `Plan` does; the part is named.
    """

    context: Context
    rows: tuple[Row, ...]
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        try:
            if not self.rows:
                raise ConfigError("has no rows", "Part.rows", "give at least one pydt.store.Row")
            check(self.context, self.rows)
        except PydtError as error:
            where = ", ".join(filter(None, [self.name, error.where]))
            raise type(error)(error.what, where or None, error.mend) from error

    @cached_property
    def record(self) -> Record:
        return make_record(self.context, self.rows)


@dataclass(frozen=True, eq=False)
class Asked:
    """What one part of a run computes; `name` is empty where it is the only one, `design` None for a list of rows."""

    name: str
    context: Context
    record: Record
    design: Design | None = None


def asked_of(parts: Iterable[Part]) -> list[Asked]:
    """Parts as a run asks for them, each with a name.

    Raises:
        ConfigError: no part, something else, or two of one name.
    """
    given = list(parts)
    if not given:
        raise ConfigError("is empty", "parts", "give at least one pydt.ensemble.Part")
    for i, part in enumerate(given):
        if not isinstance(part, Part):
            raise ConfigError(f"is a {type(part).__name__}", f"parts[{i}]", "give a pydt.ensemble.Part")
    names = [part.name or f"part {i}" for i, part in enumerate(given)]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"two parts are called {name!r}", "parts", "give each its own name")
        seen.add(name)
    return [Asked(name, part.context, part.record) for name, part in zip(names, given, strict=True)]


def check_code(parts: Iterable[Part], dir: str | os.PathLike[str]) -> None:
    """Refuse a store whose rows of some parts were computed by another version of pydt, torch or torchvision.

    Raises:
        StoreError: they were.
    """
    if not (Path(dir) / "store.json").exists():
        return
    store = Store(dir)
    store.reads_only = True
    for one in asked_of(parts):
        store.lacking(one.record, True)
    refuse_others(store, versions())


@dataclass(eq=False)
class Work:
    """Where a part of a run stands.

    Attributes:
        asked: what it computes.
        interim: its numbers so far.
        missing: rows that wait to be handed out, with the positions of the tasks that they lack.
        whole: rows stored for every task.
        total: how many rows there are, each training once.
        out: how many rows were handed out and are not stored yet.
        parcel: runner and context as bytes, while there are rows to send.
    """

    asked: Asked
    interim: Interim
    missing: deque[tuple[int, tuple[int, ...]]]
    whole: set[int]
    total: int
    out: int = 0
    parcel: bytes | None = None

    @property
    def name(self) -> str:
        return self.asked.name

    @property
    def record(self) -> Record:
        return self.asked.record

    def called(self, row: int) -> str:
        """A row for messages: alone in its part, it has the part's name."""
        if not self.name:
            return f"row {row}"
        return self.name if len(self.record.rows) == 1 else f"{self.name}, row {row}"

    def put(self, row: int, outcomes: Mapping[int, Outcome]) -> None:
        """A row that was handed out is stored: its outcomes by position of the task."""
        self.out -= 1
        self.whole.add(row)
        try:
            self.interim.add(row, outcomes)
        except Unreadable:
            raise
        except StoreError:  # a cell that was stored before is damaged
            if all(self.interim.store.done(key) for key in self.record.keys[row]):
                raise  # it is whole, but of other examples: another training would not replace it
            self.interim.damaged.append(row)
        if not (self.out or self.missing):
            self.parcel = None

    def take_damaged(self) -> int:
        """Put rows that were found damaged to the front of those that are missing, since a rule waits for them; how
        many there were."""
        rows, store = self.interim.damaged, self.interim.store
        for row in reversed(rows):
            lacks = [i for i, key in enumerate(self.record.keys[row]) if not store.done(key)]
            self.missing.appendleft((row, tuple(lacks)))
            self.whole.discard(row)
        found = len(rows)
        rows.clear()
        return found


def own_rows(asked: Sequence[Asked]) -> list[list[int]]:
    """The rows that each part computes: each training once, and not those whose cells all belong to earlier parts."""
    if len(asked) == 1:
        return [np.unique(asked[0].record.first).tolist()]
    found, seen = [], set[bytes]()
    for one in asked:
        own = []
        for row in np.unique(one.record.first).tolist():
            keys = {key.tobytes() for key in one.record.cells[row]}
            if not keys <= seen:
                own.append(row)
                seen |= keys
        found.append(own)
    return found


def work_on(store: Store, asked: Sequence[Asked], every: bool) -> list[Work]:
    """What is missing of each part in a store.

    Args:
        every: read the header of each stored cell, so that `store.facts` is complete.
    """
    works, judged = [], {}
    for one, rows in zip(asked, own_rows(asked), strict=True):
        left, there = store.left(one.record, every)
        own = set(rows)
        missing = deque((row, lacks) for row, lacks in left if row in own)
        stored = [row for row in there if row in own]
        first = one.record.tasks[0]["digest"]
        if first not in judged:
            judged[first] = Judged.of(store, one.record)
        interim = Interim(store, one.record, one.design, stored, judged[first])
        works.append(Work(one, interim, missing, set(stored), len(missing) + len(stored)))
    return works
