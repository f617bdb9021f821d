"""What is noted about a plan, each in a file with a checksum: DIR/stops, rules, notes and names,
each file named by its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydt.base import HEX32, Form, StoreError, canonical_json, digest, read_json, remove
from pydt.store.cells import Cells, placed
from pydt.store.plan_record import Record

_DIGEST = {
    "stops": "stop",
    "rules": "rule",
    "notes": "notes",
    "names": "name",
}  # what each folder's checksums start with


def write_note(cells: Cells, kind: str, plan: str, note: Mapping[str, Any] | None) -> None:
    """Write a note about a plan, by its digest; None: remove it.

    Raises:
        StoreError: it cannot be written.
    """
    path = _path(cells, kind, plan)
    if note is None:
        remove(path)
    else:
        body = {**note, "plan": plan}
        text = canonical_json({**body, "sha256": digest(_DIGEST[kind], body)})
        cells.write(path.relative_to(cells.folder), text.encode())


def read_note(cells: Cells, kind: str, plan: str, form: Form, lost: str = "") -> dict[str, Any] | None:
    """What `write_note` wrote, of this form; None: nothing.

    Args:
        lost: what is not known if the file is damaged.

    Raises:
        StoreError: it is damaged.
    """
    path = _path(cells, kind, plan)
    try:
        with placed(path, "delete this one file and run the same plan again", lost):
            note: dict[str, Any] = read_json(path, {**form, "sha256": HEX32, "plan": str})
            if note.pop("sha256") != digest(_DIGEST[kind], note) or note.pop("plan") != plan:
                raise StoreError("is damaged (its checksum does not match)")
            return note
    except FileNotFoundError:
        return None


def _path(cells: Cells, kind: str, plan: str) -> Path:
    return cells.folder / kind / f"{plan}.json"


def write_remarks(cells: Cells, record: Record, texts: list[str]) -> None:
    """Keep what was said of a plan's data; equal sentences are equal bytes.

    Raises:
        StoreError: it cannot be written.
    """
    write_note(cells, "notes", record.digest, {"texts": texts} if texts else None)


def read_remarks(cells: Cells, record: Record) -> list[str]:
    """What `write_remarks` kept.

    Raises:
        StoreError: it is damaged.
    """
    note = read_note(cells, "notes", record.digest, {"texts": [str]})
    return [] if note is None else list(note["texts"])


def stored_remarks(cells: Cells, record: Record) -> list[str]:
    """What `write_remarks` kept; where that is damaged, a sentence that says so."""
    try:
        return read_remarks(cells, record)
    except StoreError:
        file = _path(cells, "notes", record.digest).name
        return [f"What was left out of the data is not known: {file} in notes/ is damaged; run the plan again."]
