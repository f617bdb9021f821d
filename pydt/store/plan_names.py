"""What people call a plan, and which file makes it again: DIR/names/<digest of the plan>.json.

A name is for people and belongs to no digest; the file is relative to the store's folder, so that both can move
together. Plans that were run without a file have no name, and are called by the first digits of their digests. The
file of a study stands here, too, under the digest of the study.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydt.base import SEED, ConfigError, Form, StoreError, Unreadable
from pydt.store.cells import Cells, stems
from pydt.store.notes import read_note, write_note

_LONGEST = 80  # letters of a name without its number
_LONGEST_PATH = 4096
_MEND = "delete this one file and run the same plan again"
_NOTE: Form = {
    "name": str,
    "of": {"plan", "study"},
    "file?": str,
    "embedded?": {"kind": {"sample", "lab"}, "models": range(1, 1 << 31), "seed": SEED},
}


@dataclass(frozen=True)
class PlanName:
    """What is known of the plan besides what it computes.

    Attributes:
        plan: its digest. name: what people call it.
        study: whether it is a study; its rows are many plans.
        file: of the plan or study, relative to the store's folder; None where there is none.
        embedded: of a plan that comes with pydt its "kind" ("sample" or "lab"), "models" and "seed"; else None.
    """

    plan: str
    name: str
    study: bool = False
    file: str | None = None
    embedded: Mapping[str, Any] | None = None


def checked_name(name: str, where: str | None) -> str:
    """A name that can be typed, printed and listed; raises ConfigError."""
    if not name or usual_name(name) != name:
        mend = f'give one line of at most {_LONGEST} characters that does not begin with a dash, such as "first try"'
        raise ConfigError(f"is {name[: 2 * _LONGEST]!r}", where, mend)
    return name


def usual_name(text: str) -> str:
    """The name that a text, such as the stem of a file, gives where none was chosen."""
    return "".join(letter if letter.isprintable() else "-" for letter in text)[:_LONGEST].strip().lstrip("-") or "plan"


def read_names(cells: Cells) -> dict[str, PlanName]:
    """All names of a store, by digest; a damaged file counts as none and is listed among what is damaged."""
    found = {}
    for plan in stems(cells, "names", ".json"):
        try:
            one = read_name(cells, plan)
        except Unreadable:
            raise
        except StoreError as error:
            cells.damaged[cells.folder / "names" / f"{plan}.json"] = error.what
            continue
        if one is not None:
            found[plan] = one
    return found


def read_name(cells: Cells, plan: str) -> PlanName | None:
    """What `name_plan` noted of a plan, by its digest; None: nothing.

    Raises:
        StoreError: it is damaged.
    """
    note = read_note(cells, "names", plan, _NOTE)
    if note is None:
        return None
    texts = ((note["name"], 2 * _LONGEST), (note.get("file", "."), _LONGEST_PATH))
    if any(not text.strip() or not text.isprintable() or len(text) > most for text, most in texts):
        place = str(cells.folder / "names" / f"{plan}.json")
        raise StoreError("is damaged (its name or file is none)", place, _MEND)
    return PlanName(plan, study=note.pop("of") == "study", **note)


def name_plan(
    cells: Cells,
    plan: str,
    wanted: str,
    *,
    file: str | os.PathLike[str] | None = None,
    embedded: Mapping[str, Any] | None = None,
    study: bool = False,
) -> str:
    """Note what a plan is called and which file makes it; again is harmless.

    Args:
        plan: its digest.
        wanted: the name; where another plan of the store has it, a number is added. A plan that has it already, with
            a number or without, keeps its name.
        file, embedded, study: as in `PlanName`; the path as it is for this process.

    Returns:
        the name.

    Raises:
        StoreError: it cannot be written.
    """
    known = read_names(cells)
    old = known.get(plan)
    taken = {one.name for one in known.values() if one.plan != plan and (one.study or _there(cells, one.plan))}
    numbered = (wanted if i == 1 else f"{wanted}-{i}" for i in itertools.count(1))
    own = old is not None and re.fullmatch(rf"{re.escape(wanted)}(-\d+)?", old.name) and old.name not in taken
    name = old.name if old is not None and own else next(one for one in numbered if one not in taken)
    place = None if file is None else _relative(file, cells.folder)
    made = PlanName(plan, name, study, place, embedded)
    if made != old:
        note: dict[str, Any] = {"name": name, "of": "study" if study else "plan"}
        note |= {} if place is None else {"file": place}
        note |= {} if embedded is None else {"embedded": dict(embedded)}
        write_note(cells, "names", plan, note)
    return name


def _there(cells: Cells, plan: str) -> bool:
    return (cells.folder / "plans" / f"{plan}.json").is_file()


def _relative(file: str | os.PathLike[str], folder: Path) -> str | None:
    """The path from the store's folder to a file; None where it could not be printed in one line."""
    text = os.path.relpath(os.path.abspath(os.fsdecode(file)), folder)
    return text if text.isprintable() and len(text) <= _LONGEST_PATH else None
