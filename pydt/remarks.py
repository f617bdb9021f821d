"""What was left out of a plan's data, what is not shown as it is stored, and which images source and target share: told
when a run starts, kept in its store as DIR/notes/<digest of the plan>.json, and told again by the report, which has no
images any more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydt.cells import read_json
from pydt.errors import StoreError
from pydt.files import canonical_json, digest, remove
from pydt.record import Record
from pydt.schema import HEX32
from pydt.store import Store


def remarks(context: Any) -> list[str]:
    """What is to be said of the images of the source and the targets of a `pydt.plan.Context`, a sentence each; see
    `Dataset.notes`.
    """
    from pydt.data import Dataset
    from pydt.target import Target

    parts = [context.source]
    for task in context.tasks:
        parts += [task.target.train, task.target.test] if isinstance(task.target, Target) else []
    told = [f"{data.name}: {text}" for data in parts if isinstance(data, Dataset) for text in data.notes()]
    return list(dict.fromkeys(told))


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
