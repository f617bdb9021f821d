"""Sentences kept beside a plan in its store: DIR/notes/<digest of the plan>.json."""

from __future__ import annotations

from pathlib import Path

from pydt.base import HEX32, StoreError, canonical_json, digest, read_json, remove
from pydt.store.plan_record import Record
from pydt.store.store import Store


def put(store: Store, record: Record, texts: list[str]) -> None:
    """Keep what was said of a plan's data. Equal sentences are equal bytes.

    Raises:
        StoreError: it cannot be written.
    """
    path = _path(store.folder, record)
    if not texts:
        remove(path)
        return
    body = {"plan": record.digest, "texts": texts}
    text = canonical_json({**body, "sha256": digest("notes", body)})
    store.write(path.relative_to(store.folder), text.encode())


def get(store: Store, record: Record) -> list[str]:
    """What `put` wrote.

    Raises:
        StoreError: it is damaged.
    """
    try:
        path = _path(store.folder, record)
        body = read_json(path, {"sha256": HEX32, "plan": {record.digest}, "texts": [str]})
    except FileNotFoundError:
        return []
    if body.pop("sha256") != digest("notes", body):
        raise StoreError("is damaged (its checksum does not match)", str(path), "delete it and run the plan again")
    return list(body["texts"])


def kept(store: Store, record: Record) -> list[str]:
    """What `put` wrote; where that is damaged, a sentence that says so."""
    try:
        return get(store, record)
    except StoreError:
        file = _path(store.folder, record).name
        return [f"What was left out of the data is not known: {file} in notes/ is damaged; run the plan again."]


def _path(folder: Path, record: Record) -> Path:
    return folder / "notes" / f"{record.digest}.json"
