"""`compact`: thousands of row files become three plain files (`pydt.store.block_format`).

Of 10,000 rows of 2 KB, it makes 7 files of 10,004; their outputs are then read in 1.4 s instead of 2.8 s of processor
time, and the status takes 0.18 s instead of 0.44 s (`bench/store.py`, warm cache, medians of 5). Of rows of 150 KB: 10
files, 3.6 s instead of 5.7 s (medians of 3).
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pydt.base import StoreError, Unreadable, remove
from pydt.store.bank import Bank
from pydt.store.block_format import Block, Finder, as_keys, layout, write_block
from pydt.store.cells import entries
from pydt.store.store import Store

FEWEST = 16
"""Fewer cells of one task, shape and status stay files."""
LARGEST = 1 << 30
"""Bytes of a block: so much free space compaction needs."""


def compact(
    dir: str | os.PathLike[str], *, fewest: int = FEWEST, most: int = 16384, drop_bank: bool = False
) -> dict[str, int]:
    """Turn row files into blocks: plain .npy files, rows in the order of the plans (`pydt.store.block_format`).

    A block is synced, named and read back before a file is removed: after a kill at any moment, every row is there in
    one form at least, and readers see it in either. The same command continues. Later rows are files until the next
    time. Blocks with damaged rows are written anew without them; the old ones go to quarantine.

    Args:
        fewest: fewer cells of one shape stay files.
        most: more cells, or more than `LARGEST` bytes, become several blocks.
        drop_bank: remove the bank of kept networks; a later task then trains its sources again.

    Returns:
        cells: how many went into blocks, blocks: how many were written, left: cells that stay files; with `drop_bank`
        also dropped: entries of the bank that were removed, freed: their bytes.

    Raises:
        StoreError: a driver is at work, or the folder cannot be written.
    """
    with Store.create(dir).writing() as store:
        worn = [block for block in store.blocks() if block.worn]
        done = {"cells": 0, "blocks": 0, "left": 0}
        if drop_bank:  # first: blocks need free space
            done["dropped"], done["freed"] = Bank(store).drop()
        waiting: dict[Any, list[str]] = {}
        weight: Counter[Any] = Counter()

        def flush(kind: Any) -> None:
            keys = waiting.pop(kind)
            weight.pop(kind)
            if len(keys) < fewest and not any((block.finder(as_keys(keys)) >= 0).any() for block in worn):
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
            weight[kind] += 1 + sum(4 * int(np.prod(shape)) for _, shape in kind[-1])
            if len(waiting[kind]) >= most or weight[kind] >= LARGEST:
                flush(kind)
        for kind in list(waiting):
            flush(kind)
        for block in worn:
            store.quarantine(block.folder, StoreError("had damaged rows; the others are in a new block"))
        for folder in entries(store.folder / "rows"):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(store.folder / "rows" / folder)
    return done


def _kind(store: Store, key: str, worn: Sequence[Block]) -> Any:
    """The layout of a cell to be packed; None if it stays as it is, or is in a sound block."""
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
        remove(store.path(key), sync=False)  # it was read from the block: a compaction died before this
        return None
    return layout(outcome.arrays, metadata)


def _cell(store: Store, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    outcome, metadata = store.read(key)
    return outcome.arrays, metadata


def _in_order(store: Store, worn: Sequence[Block]) -> list[str]:
    """Cells in files and in some blocks, in the order of the plans that name them, designs first, then all others."""
    keys = sorted({key for keys in store.listed() for key in keys} | {k.tobytes().hex() for b in worn for k in b.keys})
    finder, place = Finder(as_keys(keys)), np.full(len(keys), len(keys) + 1, np.int64)
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
