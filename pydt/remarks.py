"""What was left out of a plan's data, what is not shown as it is stored, and which images source and target share: told
when a run starts, kept in its store as DIR/notes/<digest of the plan>.json, and told again by the report, which has no
images any more.
"""

from __future__ import annotations

from pathlib import Path

from pydt.cells import read_json
from pydt.errors import StoreError
from pydt.files import canonical_json, digest, remove
from pydt.plan import Context
from pydt.record import Record
from pydt.schema import HEX32
from pydt.store import Store


def remarks(context: Context) -> list[str]:
    """What is to be said of the images of the source and the targets, a sentence each; see `Dataset.notes`."""
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


def kept(store: Store, record: Record) -> list[str]:
    """What `put` wrote; where that is damaged, a sentence that says so."""
    path = _path(store.folder, record)
    try:
        body = read_json(path, {"sha256": HEX32, "plan": {record.digest}, "texts": [str]})
        if body.pop("sha256") != digest("notes", body):
            raise StoreError("is damaged (its checksum does not match)")
        return list(body["texts"])
    except FileNotFoundError:
        return []
    except StoreError:
        return [f"What was left out of the data is not known: {path.name} in notes/ is damaged; run the plan again."]


def _path(folder: Path, record: Record) -> Path:
    return folder / "notes" / f"{record.digest}.json"
