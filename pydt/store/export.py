"""A plan's results as a folder to publish: plain arrays, tables and one manifest, readable without this package."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import Folder, StoreError, as_path, building, npy_header
from pydt.store.descriptions import HALVES
from pydt.store.outputs import averaged, outputs_of
from pydt.store.plan_record import FORMAT, Record
from pydt.store.rows import VALUE
from pydt.store.store import Store

PathLike = str | os.PathLike[str]
_CHUNK = 1 << 24  # entries of the masks that are drawn at once


def export(dir: PathLike, out: PathLike, plan: Any = None, *, plain: int = 1 << 30) -> dict[str, Any]:
    """Write what every row of a plan saw and gave as a folder to publish, without weights.

        README.md               how to read it, with numpy alone
        manifest.json           the plan, what computed it, and of every file what it is, its shape and its SHA-256
        units.csv, rows.csv     names of the groups; seed and scalars of every row; failed.csv: rows that failed
        masks.npy               bool (models, groups): the groups that each row kept
        masks.packed.npy        in its place above 1 GiB: uint8 (models, ceil(groups / 8)), bit-packed, little bit first
        task0.examples.csv      id, label, half and weight of every target example of the first task, and so on
        task0.draws.csv         id, label and name of the labelled examples of every few-shot draw
        task0.margin.npy ...    float32 (models, examples): the six outputs of `pydt.store.derive`, averaged over draws;
                                of targets with the metric "auroc" also task0.auroc.npy; of a measure task0.value.npy
                                alone, and no draws.csv

    Args:
        dir: a store. out: a folder that does not exist yet. plan: as in `Store.plan`.
        plain: entries of the masks up to which each takes a byte.

    Returns:
        the content of manifest.json.

    Raises:
        StoreError: there is something at `out`, no row is finished, or a file cannot be read or written.
    """
    store, out = Store(dir), as_path(out, "export", made=True)
    record = store.plan(plan)
    finished, failed, missing = store.split(record)
    if out.exists():
        raise StoreError("is there already", str(out), "remove it, or choose another name")
    if not len(finished):
        raise StoreError("has no finished rows", f"plan {store.called(record)}", "run it first")
    files: dict[str, dict[str, Any]] = {}
    with building(out.parent) as folder:
        book = _Book(folder, files)
        units = ([i, name] for i, name in enumerate(record.names))
        book.table("units.csv", "the units, in the order of the masks' columns", ["unit", "name"], units)
        seeds = record.seeds
        rows = ([model, i, seeds[i]] for model, i in enumerate(finished.tolist()))
        book.table("rows.csv", "the models: row of the plan and seed of the training", ["model", "row", "seed"], rows)
        lost = ([i, seeds[i], reason] for i, reason in failed)
        book.table("failed.csv", "rows of the plan that failed", ["row", "seed", "reason"], lost)
        how = _masks(book, record, finished, plain)
        for column in range(len(record.tasks)):
            _task(book, store, record, column, finished)
        manifest = {
            "format": FORMAT,
            "what": "an ensemble of models trained on chosen units of a source and seen through target tasks",
            "plan": record.digest,
            "source": {"digest": record.source, **record.source_facts},
            "by": record.by,
            "units": len(record.names),
            "models": len(finished),
            "planned": len(record.rows),
            "failed": len(failed),
            "missing": len(missing),
            "stop": store.stopped(record),
            "rule": store.rule(record),
            "design": None if record.design is None else {k: v for k, v in record.design.items() if k != "masks"},
            "recipe": {"digest": record.recipe, **record.settings},
            "tasks": list(record.tasks),
            "computed_by": {name: sorted(seen) for name, seen in store.facts.items()},
            "masks": how,
            "files": files,
        }
        book.text("README.md", "how to read this folder", _readme(manifest))
        with folder.file("manifest.json") as write:
            write((json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode())
        if (made := folder.commit(out.name)) != out:
            raise StoreError(f"was made by somebody else meanwhile; this export is {made}", str(out), "look at both")
    return manifest


def _masks(book: _Book, record: Record, finished: npt.NDArray[np.int64], plain: int) -> str:
    """Write the masks; how they are read, as a line of Python."""
    models, units = len(finished), len(record.names)
    step, what = max(1, min(plain, _CHUNK) // units), "the units each model was trained on, in the order of units.csv"
    packed = (record.packed(finished[i : i + step]) for i in range(0, models, step))
    if models * units > plain:
        shape = models, (units + 7) // 8
        book.array("masks.packed.npy", f"{what}, little bit first", "|u1", shape, (part.tobytes() for part in packed))
        load = "numpy.load('masks.packed.npy')"
        return f"numpy.unpackbits({load}, axis=1, count={units}, bitorder='little').astype(bool)"
    masks = (np.unpackbits(part, axis=1, count=units, bitorder="little").tobytes() for part in packed)
    book.array("masks.npy", what, "|b1", (models, units), masks)
    return "numpy.load('masks.npy')"


def _readme(manifest: dict[str, Any]) -> str:
    """How to read the folder with numpy alone."""
    tasks = "\n".join(f"- `task{i}.*`: {task['name']!r}" for i, task in enumerate(manifest["tasks"]))
    files = "\n".join(f"| `{name}` | {about['what']} |" for name, about in manifest["files"].items())
    output = VALUE if VALUE in outputs_of(manifest["tasks"][0]) else "margin"
    packed = ""
    if "masks.npy" not in manifest["files"]:
        packed = "\nWithout `bitorder='little'` numpy unpacks the right values under the wrong names.\n"
    return f"""# An ensemble of {manifest["models"]:,} models

Each model was trained on some of {manifest["units"]:,} units of a source and seen through target tasks. Row i of the
masks, of every `task*.npy` and of `rows.csv` is the same model.

```python
import csv, numpy

masks = {manifest["masks"]}  # bool (models, units)
units = [row["name"] for row in csv.DictReader(open("units.csv", encoding="utf-8"))]
{output} = numpy.load("task0.{output}.npy")  # float32 (models, examples)
```
{packed}
{tasks}

| file | what it is |
|---|---|
{files}
| `manifest.json` | the plan, what computed it, and of every file its shape and its SHA-256 |
"""


def _task(book: _Book, store: Store, record: Record, column: int, finished: npt.NDArray[np.int64]) -> None:
    """Examples, outputs and scalars of one task; each cell is read once."""
    name, described = f"task{column}", store.task(record.tasks[column]["digest"])
    labels, halves = described["labels"], {number: half for half, number in HALVES.items()}
    columns = [np.array([halves[int(half)] for half in described["half"]]), labels, described["ids"]]
    heads = ["half", "label", "id"]
    if "weights" in described:
        columns, heads = [*columns, described["weights"]], [*heads, "weight"]
    if (ids := store.example_names(record.tasks[column]["digest"])) is not None:
        columns[2] = np.array([ids[i] for i in described["ids"]])
    rows = ([i, *(values[i] for values in columns)] for i in range(len(labels)))
    text = "the target examples, in the order of the columns of the outputs"
    book.table(f"{name}.examples.csv", text, ["example", *heads], rows)
    _draws(book, store, record.tasks[column]["digest"], name)
    scalars: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        files = {}
        for output in outputs_of(record.tasks[column]):
            what = f"{output} of every model on every example, {'most frequent' if output == 'prediction' else 'mean'}"
            file = f"{name}.{output.replace(' ', '-')}.npy"
            shape = len(finished), len(labels)
            files[output] = stack.enter_context(book.open(file, f"{what} over the draws", "<f4", shape))
        for i in finished:
            key = record.cells[i, column].tobytes().hex()
            outcome = store.get(key)
            scalars.append(dict(outcome.scalars))
            for output, write in files.items():
                write(averaged(outcome, labels, output, str(store.path(key))).tobytes())
    known = sorted({key for found in scalars for key in found})
    rows = ([model, *(found.get(key, "") for key in known)] for model, found in enumerate(scalars))
    book.table(f"{name}.scalars.csv", "what training and transfer reported of each model", ["model", *known], rows)


def _draws(book: _Book, store: Store, task: str, name: str) -> None:
    """The labelled examples of every draw, unless an older version wrote the store."""
    if "draws" not in store.whole_task(task):
        return
    drawn = store.draws(task)
    rows = (
        [draw, *example]
        for draw, (ids, labels, keys) in enumerate(
            zip(*(drawn[k] for k in ("positions", "labels", "keys")), strict=True)
        )
        for example in zip(ids.tolist(), labels.tolist(), keys, strict=True)
    )
    text = "the labelled examples of every few-shot draw: position in the target's training set, label, name"
    book.table(f"{name}.draws.csv", text, ["draw", "id", "label", "key"], rows)


class _Book:
    """Files of the folder, each with an entry in the manifest."""

    def __init__(self, folder: Folder, files: dict[str, dict[str, Any]]) -> None:
        self.folder, self.files = folder, files

    def table(self, name: str, what: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        with self._file(name, what) as write:
            write(text.getvalue().encode())

    def text(self, name: str, what: str, text: str) -> None:
        with self._file(name, what) as write:
            write(text.encode())

    def array(self, name: str, what: str, dtype: str, shape: tuple[int, ...], parts: Iterable[bytes]) -> None:
        with self.open(name, what, dtype, shape) as write:
            for part in parts:
                write(part)

    @contextlib.contextmanager
    def open(self, name: str, what: str, dtype: str, shape: tuple[int, ...]) -> Iterator[Callable[[bytes], None]]:
        """A .npy file; gives what appends to its data."""
        with self._file(name, what, shape=list(shape), dtype=np.dtype(dtype).name) as write:
            write(npy_header(dtype, shape))
            yield write

    @contextlib.contextmanager
    def _file(self, name: str, what: str, **more: Any) -> Iterator[Callable[[bytes], None]]:
        state, size = hashlib.sha256(), 0

        def append(part: bytes) -> None:
            nonlocal size
            write(part)
            state.update(part)
            size += len(part)

        with self.folder.file(name) as write:
            yield append
        self.files[name] = {"what": what, **more, "bytes": size, "sha256": state.hexdigest()}
