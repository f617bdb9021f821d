"""What a store knows of a plan without its source: who its rows are, and under which names their cells are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydt.cells import Row, read, result_key, source_key
from pydt.errors import StoreError
from pydt.files import digest

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """What a file in plans/ says: everything about a plan that can be known without its source.

    A field that is added later needs a default, and is left out of the file while it has it: so older files are read,
    and the plans in them keep their names.

    Attributes:
        kind: "design" or "rows" (an explicit list of rows, as a counterfactual makes).
        source, units, recipe: digests; source_facts: "name" and "examples" (how many) of the source.
        by: the unit column; names: unit names; settings: the recipe as a dict.
        tasks: "digest", "name", "target" (digest), "examples" (how many) and "settings" of each.
        design: `Design.to_dict()` or None.
        rows: every row in order.
    """

    kind: str
    source: str
    source_facts: dict[str, Any]
    units: str
    by: str
    names: tuple[str, ...]
    recipe: str
    settings: dict[str, Any]
    tasks: tuple[dict[str, Any], ...]
    design: dict[str, Any] | None
    seed: int
    rows: tuple[Row, ...]

    @cached_property
    def digest(self) -> str:
        """Name of the plan: a digest of all the rest."""
        return digest("plan", self.to_json())

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Source key of each row."""
        return tuple(source_key(self.source, self.units, row, self.recipe) for row in self.rows)

    @cached_property
    def keys(self) -> tuple[tuple[str, ...], ...]:
        """Result keys (rows, tasks)."""
        return tuple(tuple(result_key(source, task["digest"]) for task in self.tasks) for source in self.sources)

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, field in self.__dataclass_fields__.items():
            if field.default is not MISSING and plain[name] == field.default:
                del plain[name]
        plain["rows"] = [[row.keep.hex(), row.seed, row.kind] for row in self.rows]
        return {**plain, "names": list(self.names), "tasks": list(self.tasks), "format": FORMAT}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Record:
        fields = {name: plain[name] for name in cls.__dataclass_fields__ if name in plain}
        groups = len(plain["names"])
        fields["rows"] = tuple(Row(bytes.fromhex(keep), seed, kind, groups) for keep, seed, kind in plain["rows"])
        record = cls(**{**fields, "names": tuple(plain["names"]), "tasks": tuple(plain["tasks"])})
        vars(record)["digest"] = digest("plan", plain)  # of all that is written, also what only a newer pydt reads
        return record


def read_plan(path: Path) -> Record:
    try:
        record = Record.from_json(json.loads(read(path)))
    except (FileNotFoundError, StoreError):
        raise
    except Exception as error:  # whatever a parser trips over means the same here
        raise StoreError(f"is damaged ({type(error).__name__})") from error
    if record.digest != path.stem:
        raise StoreError("is damaged (it describes another plan than its name says)")
    return record
