"""A source of anything: named groups of examples that pydt never reads, because a runner of the user's does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pydt.base import DataError, as_names, digest, shown, whole
from pydt.data.labels import encode_columns


class Groups:
    """A source that pydt knows by names alone: rows of a table, files, domains, users, prompts.

    Args:
        members: the group of each example, as a list, an array or a column of a table; groups are then in the order of
            their names, and examples without one (None, NaN, -1) are in no group and always kept. Or a mapping from
            each group, in this order, to the ids of its examples.
        ids: with a list, what identifies each example, texts or whole numbers; by default its position.
        name: what reports call the source.
        by: what a group is, in a word: "site", "domain".

    Attributes:
        names: of the groups, in the order of a mask.

    Raises:
        DataError: no group, a group without examples, an id that is not unique, or entries that are no names.
    """

    def __init__(self, members: Any, *, ids: Any = None, name: str = "source", by: str = "group") -> None:
        if not all(isinstance(text, str) and text for text in (name, by)):
            raise DataError(f"name {name!r}, by {by!r}", "Groups", "give two texts")
        self.name, self.by = name, by
        if isinstance(members, Mapping):
            if ids is not None:
                raise DataError("ids beside a mapping", "Groups.ids", "a mapping holds them: {group: [ids]}")
            self.names = as_names(list(members), "members")
            parts = [_ids(own, f"members[{group!r}]") for group, own in members.items()]
            if empty := [group for group, part in zip(self.names, parts, strict=True) if not part]:
                mend = "leave it out, or give the group an id of its own: {group: [group]}"
                raise DataError(f"group {shown(empty[0])} has no examples", "Groups", mend)
            self.group = np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.int64)
            self.ids: tuple[str, ...] | None = tuple(one for part in parts for one in part)
        else:
            if isinstance(members, (str, bytes)) or not hasattr(members, "__len__"):
                raise DataError(f"{shown(members)} is no list of groups", "Groups.members", "give a list or a mapping")
            self.group, self.names = encode_columns({"members": members}, len(members))["members"]
            self.ids = None if ids is None else _ids(ids, "ids")
        if not self.names:
            raise DataError("no group", "Groups", "give the group of each example, or {group: [ids]}")
        if self.ids is not None and len(self.ids) != len(self.group):
            wrong = f"{len(self.ids)} ids for {len(self.group)} examples"
            raise DataError(wrong, "Groups.ids", "give exactly one per example")
        if self.ids is not None and len(set(self.ids)) < len(self.ids):
            twice = next(one for one, count in Counter(self.ids).items() if count > 1)
            raise DataError(f"{shown(twice)} is there twice", "Groups.ids", "give every example an id of its own")
        self.group.flags.writeable = False  # the digest stands for it

    def __len__(self) -> int:
        """Examples."""
        return len(self.group)

    def __repr__(self) -> str:
        return f"Groups({self.name!r}, {len(self):,} examples in {len(self.names):,} groups)"

    @cached_property
    def digest(self) -> str:
        """Digest of the partition and the ids; the names of the source and of the partition do not count."""
        return digest("groups", self.group, list(self.names), None if self.ids is None else list(self.ids))

    def units(self, by: str = "") -> tuple[np.ndarray, tuple[str, ...]]:
        """Group of each example, int64 (examples,), -1 for none; and the names of the groups.

        Raises:
            DataError: another partition than this one is asked for.
        """
        if by not in ("", self.by):
            raise DataError(f"no partition {by!r}", self.name, f"it has one: {self.by!r}")
        return self.group, self.names

    def all_keys(self) -> Sequence[str]:
        """What identifies each example, in order."""
        return self.ids if self.ids is not None else tuple(map(str, range(len(self))))

    def pictured(self, by: str, each: int) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
        """None: there are no images."""
        return {}, {}


def _ids(values: Any, where: str) -> tuple[str, ...]:
    """Ids as texts."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DataError(f"{shown(values)} is no list of ids", where, "give a list, one id for each example")
    found = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return tuple(one if isinstance(one, str) else str(whole(one, "id", where)) for one in found)
