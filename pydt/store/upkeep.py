"""Looking after a store: how far it is, whether every bit of it is right, and its other shapes.

    status    how far a plan is, from headers and the log: within a second for 10,000 rows
    verify    reads everything; what is damaged goes to quarantine, and the next run computes it again
    compact   thousands of row files become three plain files (`pydt.store.packed`)
    merge     the rows of other stores of the same design, each at most once
    export    masks, outputs and what they mean as .npy, CSV and JSON, to publish (`pydt.store.export`)

Of 10,000 rows of 2 KB, compaction makes 7 files of 10,004; their outputs are then read in 1.4 s instead of 2.8 s of
processor time, and the status takes 0.18 s instead of 0.44 s (`bench/store.py`, warm cache, medians of 5). Of rows of
150 KB: 10 files, 3.6 s instead of 5.7 s (medians of 3).
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import PydtError, StoreError, Unreadable, digest, holder, read, remove
from pydt.store.cells import same
from pydt.store.learnt import weak
from pydt.store.notes import get as get_notes
from pydt.store.packed import Block, Finder, layout, write_block
from pydt.store.plan_record import Drawn, Record
from pydt.store.rows import Row, result_key, source_key
from pydt.store.store import Store, described, pictures

FEWEST = 16
"""Fewer cells than that stay files."""
MOST = 16384
"""More cells than that, or `LARGEST` bytes of them, become several blocks: so much free space compaction needs."""
LARGEST = 1 << 30
_TAIL = 1 << 22  # bytes of the log's end that are looked at
_HOUR = 3600.0
_LINE = re.compile(rb'\{"time": (\d+(?:\.\d+)?), "event": "([^"\\]*)"')  # of the log, as `Store.log` writes it
PathLike = str | os.PathLike[str]


# ---- how far it is


def status(dir: PathLike, plan: Any = None) -> dict[str, Any]:
    """How far a plan is. Nothing is changed, unless a damaged header is met: that goes to quarantine.

    Args:
        dir: folder of a store.
        plan: a plan or its digest; None: the store's only one with a design, or of several the one written last.

    Returns:
        plan: its digest (None: there is none), plans: how many there are. rows: how many it has, and of those (of the
        first ones, if it stopped early) finished, failed, missing; reasons: how many rows failed for each; replaced:
        rows that met broken images, and such images, see `Store.replaced`; hardly_learnt: of some finished rows how
        many hardly learnt their source, and how many were looked at, see `pydt.store.learnt`. stop: see
        `Store.stopped`;
        unmet: a stopping rule that did not end the plan, see `Store.rule`. rows_per_hour: of the last hour, from the
        log. bytes, files: of the whole folder. packed: cells in blocks. quarantined: files there. writer: pid and host
        of the driver that is at work, as far as is known. damaged: a list of {"file", "reason"} of what was met on the
        way; see `verify`.

    Raises:
        StoreError: there is no store, or no such plan.
    """
    store = Store(dir)
    record = _chosen(store, plan)
    found: dict[str, Any] = {"folder": str(store.folder), "plan": None, "plans": len(_stems(store, "plans", ".json"))}
    found |= {"rows": 0, "finished": 0, "failed": 0, "missing": 0, "reasons": {}, "replaced": [0, 0]}
    found["hardly_learnt"] = [0, 0]
    found["stop"] = found["unmet"] = None
    damaged: dict[str, str] = {}
    if record is not None:
        found |= {"plan": record.digest, "rows": len(record.rows)}
        try:
            found["stop"] = store.stopped(record)
        except StoreError as error:
            damaged[f"stops/{record.digest}.json"] = error.what
        unknown = bool(damaged)
        if not unknown:
            try:
                found["unmet"] = note if (note := store.rule(record)) is not None and not note["met"] else None
            except StoreError as error:
                damaged[f"rules/{record.digest}.json"] = error.what
        try:
            good, bad, missing = store.split(record, all=unknown)
            found |= {"finished": len(good), "failed": len(bad), "missing": len(missing)}
            found |= {"reasons": dict(Counter(reason for _, reason in bad).most_common())}
            if not unknown:
                found["replaced"] = list(store.replaced(record))
                seen = weak(store.glimpse(record))
                found["hardly_learnt"] = [len(seen.at), seen.judged]
        except PydtError as error:  # its rows cannot be named, or one cannot be read
            damaged[error.where or f"plans/{record.digest}.json"] = error.what
    files, size = _size(store.folder)
    found |= {"rows_per_hour": _pace(store.folder / "log.jsonl"), "bytes": size, "files": files}
    found["packed"] = sum(len(block.keys) for block in store.blocks())
    found["quarantined"] = len(_entries(store.folder / "quarantine"))
    found["writer"] = _writer(store.folder / ".lock")
    damaged |= _torn(store)
    damaged |= {_relative(store, path): reason for path, reason in store.damaged.items()}
    found["damaged"] = [{"file": file, "reason": reason} for file, reason in damaged.items()]
    return found


def _chosen(store: Store, plan: Any) -> Record | None:
    if plan is not None:
        return store.plan(plan)
    plans = store.plans()
    kind = "design" if any(record.kind == "design" for record in plans.values()) else "rows"
    found = [name for name, record in plans.items() if record.kind == kind]
    written = {name: (store.folder / "plans" / f"{name}.json").stat().st_mtime_ns for name in found}
    return plans[max(found, key=lambda name: (written[name], name))] if found else None


def _pace(log: Path) -> float:
    """Rows per hour, over the time since the first of the rows that the last hour saw."""
    times = []
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read(_TAIL).splitlines()
    except OSError:
        return 0.0
    now = time.time()
    for line in reversed(lines):
        if (found := _LINE.match(line)) is None:
            continue
        if now - float(found[1]) > _HOUR:
            break
        if found[2] == b"row":
            times.append(float(found[1]))
    if not times:
        return 0.0
    return round(_HOUR * max(1, len(times) - 1) / max(now - min(times), 1.0), 1)


def _size(folder: Path) -> tuple[int, int]:
    """Files below a folder, and their bytes."""
    files = size = 0
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        files, size = files + 1, size + entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue  # somebody is at work
    return files, size


def _writer(lock: Path) -> dict[str, Any] | None:
    """Who says in the lock file to be at work. A killed driver leaves the file behind: on its host, one looks."""
    if (found := holder(lock)) is None:
        return None
    pid, host = found
    if host == platform.node():
        try:
            os.kill(pid, 0)  # asks, and does nothing
        except ProcessLookupError:
            return None
        except PermissionError:  # somebody else's process
            pass
    return {"pid": pid, "host": host}


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _stems(store: Store, kind: str, suffix: str) -> list[str]:
    return [name.removesuffix(suffix) for name in _entries(store.folder / kind) if name.endswith(suffix)]


# ---- whether it is right


def verify(dir: PathLike) -> dict[str, Any]:
    """Read every file of a store and check all that can be checked; what is damaged is put into quarantine.

    Of cells: the checksum over metadata and arrays, the key against the digests it is made of, arrays of the right
    shape, finite numbers. Of plans: the digest, and that designs draw the masks that the rows had. Of tasks: checksum
    and lengths.

    Returns:
        verified: whether nothing is damaged and no row of any plan is missing (of one that stopped early: of the rows
        that count). cells: how many are whole. damaged: a list of {"file", "reason", "moved" (to quarantine)}. missing:
        rows that no longer or not yet are there, by plan. unclaimed: cells that no plan names.

    Raises:
        StoreError: there is no store.
    """
    store = Store(dir)
    damaged: list[dict[str, Any]] = []
    examples = _verify_described(store, damaged)
    plans = store.plans()
    for record in plans.values():
        examples |= {task["digest"]: task["examples"] for task in record.tasks if "examples" in task}
    whole = 0
    plans = {name: record for name, record in plans.items() if _draws_as_before(record, damaged)}
    claimed = [record.cells.reshape(-1, 16) for record in plans.values()]
    finder = Finder(np.concatenate([np.empty((0, 16), np.uint8), *claimed]))
    unclaimed = 0
    for key in _every_key(store):
        try:
            outcome, metadata = store.read(key)
            check_cell(key, outcome.arrays, metadata, examples)
        except FileNotFoundError:
            continue  # moved by somebody else meanwhile
        except Unreadable as error:
            damaged.append({"file": error.where, "reason": error.what, "moved": False})
        except StoreError as error:
            damaged.append({"file": _relative(store, store.discard(key, error)), "reason": error.what, "moved": True})
        else:
            whole += 1
            unclaimed += finder.one(bytes.fromhex(key)) < 0
    seen = {entry["file"] for entry in damaged}
    for path, reason in store.damaged.items():  # blocks of which nothing could be read
        if (where := _relative(store, path)) not in seen:
            damaged.append({"file": where, "reason": reason, "moved": True})
    damaged += [{"file": file, "reason": reason, "moved": False} for file, reason in _torn(store).items()]
    missing = {}
    for name, record in plans.items():
        try:
            missing[name] = len(store.missing(record))
        except PydtError as error:
            damaged.append({"file": f"stops/{name}.json", "reason": error.what, "moved": False})
            continue
        try:
            store.rule(record)
        except StoreError as error:
            damaged.append({"file": f"rules/{name}.json", "reason": error.what, "moved": False})
        try:
            get_notes(store, record)
        except StoreError as error:
            damaged.append({"file": f"notes/{name}.json", "reason": error.what, "moved": False})
    verified = not damaged and not any(missing.values())
    return {"verified": verified, "cells": whole, "damaged": damaged, "missing": missing, "unclaimed": unclaimed}


def check_cell(key: str, arrays: dict[str, Any], metadata: dict[str, Any], examples: dict[str, int]) -> None:
    """Whether a cell whose checksum holds can be what its key says.

    Args:
        examples: how many a task has, by its digest; of tasks that are not named nothing is known.

    Raises:
        StoreError: it cannot.
    """
    try:
        if "training" in metadata:
            if "keep" in metadata:
                row = Row(bytes.fromhex(metadata["keep"]), metadata["seed"], groups=metadata["groups"])
                training = source_key(metadata["source"], metadata["units"], row, metadata["recipe"])
            else:
                mask = {"rule": metadata["rule"], "row": metadata["row"]}
                about = metadata["source"], metadata["units"], mask, metadata["seed"], metadata["recipe"]
                training = digest("training", *about)
            if training != metadata["training"] or result_key(training, metadata["task"]) != key:
                raise StoreError("is damaged (its key is not that of its row)")
        if metadata["status"] == "ok":
            primitives = arrays["primitives"]
            expected = examples.get(metadata.get("task", ""), primitives.shape[-1])
            if primitives.ndim != 3 or primitives.shape[::2] != (4, expected) or not primitives.shape[1]:
                raise StoreError(f"is damaged (shape {primitives.shape}, not (4, draws, {expected}))")
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise StoreError("is damaged (numbers that are not finite)")
    except PydtError:
        raise
    except Exception as error:  # whatever it lacks
        raise StoreError(f"is damaged ({type(error).__name__})") from error


def _verify_described(store: Store, damaged: list[dict[str, Any]]) -> dict[str, int]:
    """Plans, tasks, thumbnails; how many examples the tasks have."""
    examples = {}
    for kind, suffix in (("plans", ".json"), ("tasks", ".safetensors"), ("thumbnails", ".safetensors")):
        for name in _stems(store, kind, suffix):
            path = store.folder / kind / f"{name}{suffix}"
            try:
                if kind == "plans":
                    store.plan(name)
                    continue
                if kind == "tasks":
                    examples[name] = len(described(path)["half"])
                else:
                    pictures(path)
            except FileNotFoundError:
                continue
            except StoreError as error:
                moved = not isinstance(error, Unreadable)
                if moved:
                    store.quarantine(path, error)
                damaged.append({"file": _relative(store, path), "reason": error.what, "moved": moved})
    return examples


def _torn(store: Store) -> dict[str, str]:
    """Indexes of blocks that have lines which nobody can read."""
    torn = [block for block in store.blocks() if block.torn]
    return {_relative(store, b.folder / "index.jsonl"): f"{b.torn} of its rows are damaged" for b in torn}


def _draws_as_before(record: Record, damaged: list[dict[str, Any]]) -> bool:
    try:
        if isinstance(record.rows, Drawn):
            record.rows.check()
        return True
    except PydtError as error:
        damaged.append({"file": f"plans/{record.digest}.json", "reason": error.what, "moved": False})
        return False


def _every_key(store: Store) -> Iterator[str]:
    """Keys of all cells: of files first, then of blocks, each once."""
    # In this order: a cell leaves its file only when it is in a block.
    files = list(store.listed())
    seen = [Finder(_names([key for keys in files for key in keys]))]
    blocks = store.blocks()
    for keys in files:
        yield from keys
    for block in blocks:
        for key in block.keys:
            if not any(finder.one(key.tobytes()) >= 0 for finder in seen):
                yield key.tobytes().hex()
        seen.append(block.finder)


def _relative(store: Store, path: Path) -> str:
    return str(path.relative_to(store.folder))


# ---- fewer files


def compact(dir: PathLike) -> dict[str, int]:
    """Turn row files into blocks: plain .npy files, rows in the order of the plans (`pydt.store.packed`).

    A block is synced and named before a file that it stands for is removed, and each row is read back from it in
    between: whatever dies when, every row is there in one form at least, and readers see it in either. The same command
    continues. Rows that come later are files, until the next time. Blocks with damaged rows are written anew without
    them; the old ones go to quarantine.

    Returns:
        cells: how many went into blocks, blocks: how many were written, left: cells that stay files.

    Raises:
        StoreError: a driver is at work, or the folder cannot be written.
    """
    with Store.create(dir).writing() as store:
        worn = [block for block in store.blocks() if block.worn]
        done = {"cells": 0, "blocks": 0, "left": 0}
        waiting: dict[Any, list[str]] = {}
        weight: Counter[Any] = Counter()

        def flush(kind: Any) -> None:
            keys = waiting.pop(kind)
            weight.pop(kind)
            if len(keys) < FEWEST and not any((block.finder(_names(keys)) >= 0).any() for block in worn):
                done["left"] += len(keys)
                return
            block = Block(write_block(store.folder, keys, lambda key: _cell(store, key)))
            try:
                for i, key in enumerate(keys):
                    if block.read(i)[1]["key"] != key:
                        raise StoreError("holds another row than was written")
            except StoreError as error:
                store.quarantine(block.folder, error)
                mend = "no row was removed; look after the disk and the memory, and run again"
                raise StoreError(
                    f"was not read back as it was written: {error.what}", str(block.folder), mend
                ) from error
            for key in keys:
                remove(store.path(key), sync=False)
            done["cells"] += len(keys)
            done["blocks"] += 1

        for key in _in_order(store, worn):
            if (kind := _kind(store, key, worn)) is None:
                done["left"] += store.path(key).exists()
                continue
            waiting.setdefault(kind, []).append(key)
            weight[kind] += 4 * int(np.prod(kind[-1])) if isinstance(kind[-1], tuple) else 1
            if len(waiting[kind]) >= MOST or weight[kind] >= LARGEST:
                flush(kind)
        for kind in list(waiting):
            flush(kind)
        for block in worn:
            store.quarantine(block.folder, StoreError("had damaged rows; the others are in a new block"))
        for folder in _entries(store.folder / "rows"):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(store.folder / "rows" / folder)
    return done


def _kind(store: Store, key: str, worn: Sequence[Block]) -> Any:
    """The layout of a cell that is to be packed; None if it stays as it is, or is in a sound block already."""
    try:
        outcome, metadata = store.read(key)
    except Unreadable:
        raise
    except (StoreError, FileNotFoundError) as error:
        if isinstance(error, StoreError):
            store.discard(key, error)
            return _kind(store, key, worn)  # it may be there in the other form
        return None
    if (found := store.packed(key)) is not None and found[0].folder not in [block.folder for block in worn]:
        remove(store.path(key), sync=False)  # what was read came from there: a compaction died before this
        return None
    return layout(outcome.arrays, metadata)


def _cell(store: Store, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    outcome, metadata = store.read(key)
    return outcome.arrays, metadata


def _names(keys: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, 16)


def _in_order(store: Store, worn: Sequence[Block]) -> list[str]:
    """Cells in files and in some blocks: in the order of the plans that name them, designs first, then all others."""
    keys = sorted({key for keys in store.listed() for key in keys} | {k.tobytes().hex() for b in worn for k in b.keys})
    finder, place = Finder(_names(keys)), np.full(len(keys), len(keys) + 1, np.int64)
    records = sorted(store.plans().values(), key=lambda r: (r.kind != "design", -len(r.rows), r.digest))
    start = -sum(record.cells.shape[0] * record.cells.shape[1] for record in records)
    for record in records:
        for column in range(len(record.tasks)):
            found = finder(record.cells[:, column])
            rows = np.flatnonzero(found >= 0)[::-1]
            fresh = rows[place[found[rows]] > len(keys)]
            place[found[fresh]] = start + fresh
            start += len(record.rows)
    return [keys[i] for i in np.argsort(place, kind="stable")]


# ---- from several, one


def merge(into: PathLike, *others: PathLike) -> dict[str, Any]:
    """Copy the rows of other stores of the same design into one; again is harmless, and changes nothing.

    Two stores are of one design if they have source, units and recipe in common, and their designs the rule by which
    masks are drawn, or all the rows of one: an ensemble that several machines trained in parts, a plan and a longer
    one, the same rows seen through other tasks. Tasks, plans, thumbnails and counterfactuals come along, of the log the
    lines of the copied rows, and what stopping rules had reached of plans that the store did not have: of one that it
    has, its own word counts.

    Args:
        into: a store, or a folder that becomes one.

    Returns:
        copied, same (there already): cells. damaged: a list of {"file", "reason"} of cells of the others that were left
        out; they are not touched.

    Raises:
        StoreError: a store is of another design; a row has other results in two stores; a driver is at work. Of these
            nothing is copied.
    """
    sources = [Store(other) for other in others]
    for other in sources:
        other.reads_only = True
    report: dict[str, Any] = {"copied": 0, "same": 0, "damaged": []}
    with Store.create(into).writing() as store:
        known = list(store.plans().values())
        for other in sources:
            _one_design(known, other)
        for i, other in enumerate(sources):
            for before in (store, *sources[:i]):
                _no_conflict(before, other)
        for other in sources:
            for name in _stems(other, "tasks", ".safetensors"):
                store.put_task(name, other.task(name))
            here = set(store.plans())
            for record in other.plans().values():
                store.put_plan(record)
                if pictures := other.thumbnails(record):
                    store.put_thumbnails(record, pictures)
            copied = _copy_cells(store, other, report)
            report["damaged"] += [{"file": str(path), "reason": reason} for path, reason in other.damaged.items()]
            _copy_small(store, other, here)
            _copy_log(store, other, copied)
    return report


def _one_design(known: list[Record], other: Store) -> None:
    """Refuse a store of another design than the plans that are known; then they are known, too."""
    mend = "merge only stores of one design; another one stays a store of its own"
    plans = sorted(other.plans().values(), key=lambda record: record.kind != "design")
    for record in plans:
        base = [k for k in known if (k.source, k.units, k.recipe) == (record.source, record.units, record.recipe)]
        if known and not base:
            wrong = f"plan {record.digest} has another source, other units or another recipe"
            raise StoreError(wrong, str(other.folder), mend)
        designs = [k for k in known if k.kind == "design"]
        if record.kind == "design" and designs and not any(_alike(record, k) for k in designs if k in base):
            raise StoreError(f"plan {record.digest} has another design", str(other.folder), mend)
        known.append(record)


def _alike(a: Record, b: Record) -> bool:
    first, second = a.design or {}, b.design or {}
    if first.get("kind") != "explicit":
        counted = ("models", "rows", "placebos")
        rules = [{name: value for name, value in d.items() if name not in counted} for d in (first, second)]
        if rules[0] == rules[1]:
            return True
    small, large = sorted((a.trainings, b.trainings), key=len)
    return bool((Finder(large)(small) >= 0).all())


def _no_conflict(store: Store, other: Store) -> None:
    for key in _every_key(other):
        try:
            ours, theirs = store.read(key)[0], other.read(key)[0]
        except (StoreError, FileNotFoundError):
            continue  # a damaged one has no say
        if not same(ours, theirs):
            wrong = f"another result is stored for the same row than in {store.folder}"
            mend = "the rows were not computed alike: merge without one of the two, or remove that row's file"
            raise StoreError(wrong, str(other.path(key)), mend)


def _copy_cells(store: Store, other: Store, report: dict[str, Any]) -> set[str]:
    copied, same_already = set(), 0
    for key in _every_key(other):
        try:
            outcome, metadata = other.read(key)
        except FileNotFoundError:
            continue
        except StoreError as error:
            report["damaged"].append({"file": str(other.path(key)), "reason": error.what})
            continue
        if store.put(key, outcome, metadata):
            copied.add(key)
        else:
            same_already += 1
    report["copied"] += len(copied)
    report["same"] += same_already
    return copied


def _copy_small(store: Store, other: Store, here: set[str]) -> None:
    """What stopping rules had reached of plans that were not `here`; counterfactuals and notes that the store lacks.

    Where a plan goes on to its end, another store's stop takes no row from it.
    """
    for name, record in other.plans().items():
        if name not in here and (note := other.rule(record)) is not None:
            write = store.note_stop if note.pop("met") else store.note_rule
            write(record, note)
        for folder in ("counterfactual", "notes"):
            link = Path(folder) / f"{name}.json"
            if (other.folder / link).exists() and not (store.folder / link).exists():
                store.write(link, read(other.folder / link))


def _copy_log(store: Store, other: Store, copied: set[str]) -> None:
    for entry in other.logged("row", {"keys": [str]}):
        if copied.intersection(entry["keys"]):
            store.log(**entry)  # with its own time
