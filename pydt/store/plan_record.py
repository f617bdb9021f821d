"""A plan as a store knows it, without its source: its rows, and the keys of their cells.

Nothing grows with rows times groups: the rows of a design are drawn when they are asked for. A cell takes 16 bytes of
memory, a seed 8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pydt.base import SEED, DesignError, Form, PydtError, StoreError, check, digest, digest_part, read_json
from pydt.design import KINDS, Design, find_repeats
from pydt.store.rows import Row

FORMAT = 1
NUMBERED = 4096
"""Above so many groups, keys name a drawn row by its design's rule and its number; up to there, by its mask.

A mask of a million groups takes 20 ms to draw: half an hour for the keys of 70,000 rows, at every start.
"""
MOST_ROWS = 1 << 24
"""Keys of so many rows and cells take half a gigabyte; a file that says more counts as damaged."""
_COUNT = range(1, MOST_ROWS + 1)
_TASK: Form = {"digest": str, "name": str, "target": str, "examples?": range(1, 1 << 31), "settings": dict}
_PLAN: Form = {
    "kind": {"design", "rows"},
    "source": str,
    "source_facts": {"name": str, "examples?": range(1, 1 << 40)},
    "units": str,
    "by": str,
    "names": [str],
    "recipe": str,
    "settings": dict,
    "tasks": [_TASK],
    "design": dict | None,
    "seed": SEED,
    "rows": dict | list,
    "format": range(FORMAT, FORMAT + 1),
}
_DESIGN: Form = {"kind": str, "groups": range(1, 1 << 31), "models": _COUNT, "rows?": [SEED]}
CHECKED = 1 << 24
"""Entries of the masks whose digest is written into a plan: 0.3 s to draw."""
_SEED_STREAM = 7  # stream of the counter-based generator that gives row i its seed
_CHUNK = 1 << 20  # entries of the masks that are drawn at once
T = TypeVar("T")


class Lazy(Sequence[T]):
    """A sequence whose items are made when they are asked for."""

    def __init__(self, length: int, item: Callable[[int], T]) -> None:
        self._length, self._item = length, item

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._item(i) for i in range(*index.indices(self._length))]
        return self._item(range(self._length)[index])


class Drawn(Sequence[Row]):
    """The rows of a design, of kind "design".

    Args:
        description: `Design.to_dict()`.
        seeds: one a row; None: row i gets 31 random bits keyed by (`seed`, i).
        masks: digest of the first masks when the plan was written; None: of those that are drawn now.
        design: the design itself, where it is at hand.

    Raises, when a row is drawn:
        StoreError: this pydt draws other masks than those.
        DesignError: this pydt does not know the kind of design.
    """

    def __init__(
        self,
        description: Mapping[str, Any],
        seeds: Sequence[int] | None,
        seed: int,
        masks: str | None = None,
        design: Design | None = None,
    ) -> None:
        self.description, self.given, self._seed, self._masks = dict(description), seeds, seed, masks
        self._known = design
        self.place = f"a {self.description.get('kind')} design"  # for errors
        self.groups = int(description["groups"])
        self._length = int(description["models"])
        if seeds is not None and len(seeds) != self._length:
            raise ValueError("not one seed a row")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        rows = np.arange(self._length)[index]
        packed = self.packed(np.atleast_1d(rows))
        drawn = [self._row(mask, i) for mask, i in zip(packed, np.atleast_1d(rows).tolist(), strict=True)]
        return drawn if isinstance(index, slice) else drawn[0]

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, self._length, self.step):
            yield from self[start : start + self.step]

    @property
    def step(self) -> int:
        """How many rows are drawn at once."""
        return max(1, _CHUNK // self.groups)

    @cached_property
    def design(self) -> Design:
        if self._known is not None:
            return self._known
        try:
            return Design.from_dict(self.description)
        except DesignError as error:
            raise DesignError(error.what, self.place, error.mend) from error

    @cached_property
    def seeds(self) -> npt.NDArray[np.int64]:
        """The seed of each row, int64 (rows,)."""
        return np.array(self.given if self.given is not None else row_seeds(self._seed, self._length), np.int64)

    @cached_property
    def masks(self) -> str:
        """Digest of the first masks, as many as have `CHECKED` entries: each row is drawn by the same rule."""
        return self._masks if self._masks is not None else self._digest()

    def packed(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Masks of some rows, uint8 (rows, ceil(groups / 8)), little bit first."""
        self.check()
        return self.design.packed(rows)

    def check(self) -> None:
        """Refuse, once, a design that now draws other masks than the rows were trained on."""
        if self._masks is not None and self._known is None:
            if self._digest() != self._masks:
                wrong, mend = "its design now gives other masks than the rows have", "use the pydt that wrote it"
                raise StoreError(wrong, self.place, mend)
            self._known = self.design

    @cached_property
    def rule(self) -> str | None:
        """Digest of what draws a row besides its number; None where rows are named by their masks."""
        if self.groups <= NUMBERED or "masks" in self.description:
            return None
        of_all = ("models", "placebos", "rows")
        return digest("rule", {name: value for name, value in self.description.items() if name not in of_all})

    @cached_property
    def numbers(self) -> Sequence[int]:
        """The number that each row has under its rule."""
        return self.description.get("rows", range(self._length))

    def to_json(self) -> dict[str, Any]:
        seeds = None if self.given is None else [int(seed) for seed in self.given]
        return {"count": self._length, "seeds": seeds, "masks": self.masks}

    def _digest(self) -> str:
        state = hashlib.sha256()
        first = min(self._length, max(1, CHECKED // self.groups))
        for start in range(0, first, self.step):
            state.update(self.design.packed(np.arange(start, min(start + self.step, first))).tobytes())
        return state.hexdigest()[:32]

    def _row(self, mask: npt.NDArray[np.uint8], i: int) -> Row:
        return Row(mask.tobytes(), int(self.seeds[i]), "design", self.groups)


def row_seeds(seed: int, rows: int) -> tuple[int, ...]:
    """Training seeds of the first rows of a plan: 31 random bits keyed by (seed, row), so more rows change none."""
    from pydt._core import random_bits

    bits = random_bits(seed, _SEED_STREAM, np.arange(rows, dtype=np.int64))
    return tuple((bits >> np.uint64(33)).tolist())


@dataclass(frozen=True)
class Record:
    """What a file in plans/ says: all of a plan that is known without its source.

    A new field needs a default and is left out of the file while it has it: older files stay readable, and their plans
    keep their digests.

    Attributes:
        kind: "design" or "rows" (an explicit list of rows, as a counterfactual makes).
        source, units (its groups), recipe: digests; source_facts: "name" and, if known, "examples" (how many) of
            the source.
        by: the column that makes groups; names: of the groups; settings: the recipe as a dict.
        tasks: "digest", "name", "target" (digest), "examples" (how many) and "settings" of each.
        design: `Design.to_dict()` or None.
        rows: every row in order; those of a design are drawn when asked for (`Drawn`), not listed in the file.
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
    rows: Sequence[Row]

    @cached_property
    def digest(self) -> str:
        """Name of the plan: a digest of all the rest."""
        return digest("plan", self.to_json())

    @property
    def sources(self) -> Sequence[str]:
        """Source key of each row."""
        return Lazy(len(self.rows), lambda i: self.trainings[i].tobytes().hex())

    @property
    def keys(self) -> Sequence[tuple[str, ...]]:
        """Result keys (rows, tasks)."""
        return Lazy(len(self.rows), lambda i: tuple(key.tobytes().hex() for key in self.cells[i]))

    @property
    def seeds(self) -> list[int]:
        """The seed of each row; no mask is drawn for it."""
        return self.rows.seeds.tolist() if isinstance(self.rows, Drawn) else [row.seed for row in self.rows]

    @cached_property
    def trainings(self) -> npt.NDArray[np.uint8]:
        """The source keys as bytes, uint8 (rows, 16): `pydt.store.rows.source_key` of every row."""
        names = np.empty((len(self.rows), 16), np.uint8)
        start = hashlib.sha256(b"".join(map(digest_part, ("training", self.source, self.units))))
        recipe = digest_part(self.recipe)
        for i, mask, seed in self._masks_and_seeds():
            state, number = start.copy(), b"%d" % seed
            state.update(b"%sjson %d\n%s%s" % (mask, len(number), number, recipe))  # as `digest_part` of a number
            names[i] = np.frombuffer(state.digest()[:16], np.uint8)
        return names

    @property
    def first(self) -> npt.NDArray[np.int64]:
        """The first row that is the same training, of each row, int64 (rows,)."""
        number = find_repeats(self.trainings)
        return np.unique(number, return_index=True)[1][number].astype(np.int64)

    @property
    def distinct(self) -> int:
        """How many different trainings the rows are."""
        return len(np.unique(self.first))

    @cached_property
    def cells(self) -> npt.NDArray[np.uint8]:
        """The result keys as bytes, uint8 (rows, tasks, 16): `pydt.store.rows.result_key` of every row and task."""
        names = np.empty((len(self.rows), len(self.tasks), 16), np.uint8)
        start, tasks = hashlib.sha256(digest_part("cell")), [digest_part(task["digest"]) for task in self.tasks]
        for i, training in enumerate(self.trainings):
            source = b'json 34\n"%s"' % training.tobytes().hex().encode()  # as `digest_part` of a text
            for column, task in enumerate(tasks):
                state = start.copy()
                state.update(source + task)
                names[i, column] = np.frombuffer(state.digest()[:16], np.uint8)
        return names

    def named(self, row: int) -> dict[str, Any]:
        """How metadata name the mask of a row: "keep" (hex), or "rule" and "row" of its design."""
        if isinstance(self.rows, Drawn) and self.rows.rule is not None:
            return {"rule": self.rows.rule, "row": self.rows.numbers[row]}
        return {"keep": self.rows[row].keep.hex()}

    def packed(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Masks of some rows, uint8 (rows, ceil(groups / 8)), little bit first."""
        if isinstance(self.rows, Drawn):
            return self.rows.packed(rows)
        masks = b"".join(self.rows[i].keep for i in rows.tolist())
        return np.frombuffer(masks, np.uint8).reshape(len(rows), (len(self.names) + 7) // 8)

    def _masks_and_seeds(self) -> Iterator[tuple[int, bytes, int]]:
        """Row, what names its mask in a digest, seed."""
        rows, groups = self.rows, digest_part(len(self.names))
        if isinstance(rows, Drawn) and rows.rule is not None:
            for i, (number, seed) in enumerate(zip(rows.numbers, rows.seeds.tolist(), strict=True)):
                yield i, digest_part({"rule": rows.rule, "row": number}), seed
            return
        if isinstance(rows, Drawn):
            head = groups + b"bytes %d\n" % ((rows.groups + 7) // 8)
            for start in range(0, len(rows), rows.step):
                chunk = np.arange(start, min(start + rows.step, len(rows)))
                for i, mask in zip(chunk.tolist(), rows.packed(chunk), strict=True):
                    yield i, head + mask.tobytes(), int(rows.seeds[i])
            return
        for i, row in enumerate(rows):
            yield i, groups + digest_part(row.keep), row.seed

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, field in self.__dataclass_fields__.items():
            if field.default is not MISSING and plain[name] == field.default:
                del plain[name]
        if isinstance(self.rows, Drawn):
            plain["rows"] = self.rows.to_json()
        else:
            plain["rows"] = [[row.keep.hex(), row.seed, row.kind] for row in self.rows]
        return {**plain, "names": list(self.names), "tasks": list(self.tasks), "format": FORMAT}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Record:
        """The record that `to_json` described.

        Raises:
            StoreError: nothing that a plan of this format says, or that a plan can be.
        """
        check(plain, _PLAN)
        fields = {name: plain[name] for name in cls.__dataclass_fields__ if name in plain}
        groups, tasks, rows = len(plain["names"]), len(plain["tasks"]), plain["rows"]
        if not groups or not tasks:
            raise StoreError("is damaged (no groups or no tasks)")
        if plain["kind"] == "rows":
            check(rows, [(str, SEED, str)], "rows")
            fields["rows"] = tuple(_row(keep, seed, kind, groups) for keep, seed, kind in rows)
        elif isinstance(rows, list):
            raise StoreError("is of a version before 0.1.0 (it lists the rows of its design)")
        else:
            check(rows, {"count": _COUNT, "seeds": list | None, "masks": str | None}, "rows")
            check(plain["design"], _DESIGN, "design")
            if rows["seeds"] is not None:
                check(rows["seeds"], [SEED], "rows.seeds")
            fields["rows"] = _drawn(plain, groups)
        if len(fields["rows"]) * tasks > MOST_ROWS:
            raise StoreError(f"is damaged ({len(fields['rows'])} rows of {tasks} tasks)")
        record = cls(**{**fields, "names": tuple(plain["names"]), "tasks": tuple(plain["tasks"])})
        vars(record)["digest"] = digest("plan", plain)  # of all that is written, also by a newer pydt
        return record


def _row(keep: str, seed: int, kind: str, groups: int) -> Row:
    try:
        return Row(bytes.fromhex(keep), seed, kind, groups)
    except (ValueError, PydtError) as error:
        raise StoreError(f"is damaged (a row: {error})") from error


def _drawn(plain: Mapping[str, Any], groups: int) -> Drawn:
    """The rows of a design, if it has the rows and groups that the plan says; of an unknown kind, unchecked."""
    rows, said = plain["rows"], plain["design"]
    try:
        drawn = Drawn(said, rows["seeds"], plain["seed"], rows["masks"])
        sizes = [(said["models"], said["groups"]), (rows["count"], groups)]
        if said["kind"] in KINDS:
            sizes.append((len(drawn.design), drawn.design.groups))
    except (ValueError, PydtError) as error:
        raise StoreError(f"is damaged (its design: {error})") from error
    if len(set(sizes)) > 1:
        raise StoreError("is damaged (a design of other rows or groups)")
    return drawn


def read_plan(path: Path) -> Record:
    """A file of plans/.

    Raises:
        StoreError: it is damaged. FileNotFoundError: it is not there.
    """
    record = Record.from_json(read_json(path, dict))
    if record.digest != path.stem:
        raise StoreError("is damaged (it describes another plan than its name says)", str(path))
    if isinstance(record.rows, Drawn):
        record.rows.place = str(path)
    return record
