"""`verify`: read every file of a store; what is damaged goes to quarantine, and the next run computes it again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from pydt.base import PydtError, StoreError, Unreadable, digest
from pydt.store.bank import Bank
from pydt.store.block_format import Finder
from pydt.store.cells import every_key, relative, stems, torn
from pydt.store.choices import read_choice
from pydt.store.descriptions import described, pictures
from pydt.store.notes import read_remarks
from pydt.store.plan_names import read_name
from pydt.store.plan_record import Drawn, Record
from pydt.store.rows import Row, misshapen, result_key, source_key
from pydt.store.store import Store

_KINDS = (("plans", ".json"), ("tasks", ".safetensors"), ("thumbnails", ".safetensors"), ("choices", ".json"))


def verify(dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Read every file of a store and check all that can be checked; damaged ones go to quarantine.

    Of cells: the checksum over metadata and arrays, the key against the digests it is made of, shapes, finite numbers.
    Of plans: the digest, and that designs draw the masks that the rows had. Of tasks: checksum and lengths. Of the
    bank: the checksum and the name.

    Returns:
        verified: whether nothing is damaged and no row that counts is missing from any plan. cells: how many are whole;
        kept: how many entries of the bank are.
        damaged: a list of {"file", "reason", "moved" (to quarantine)}. missing: rows, by plan. unclaimed: cells that
        no plan names.

    Raises:
        StoreError: there is no store.
    """
    store = Store(dir)
    damaged: list[dict[str, Any]] = []
    examples = _verify_described(store, damaged)
    plans: dict[str, Record] = {}
    for name, record in store.plans().items():
        examples |= {task["digest"]: task["examples"] for task in record.tasks if "examples" in task}
        with _left(damaged, f"plans/{name}.json"):
            if isinstance(record.rows, Drawn):
                record.rows.check()
            plans[name] = record
    whole = 0
    claimed = [record.cells.reshape(-1, 16) for record in plans.values()]
    finder = Finder(np.concatenate([np.empty((0, 16), np.uint8), *claimed]))
    unclaimed = 0
    for key in every_key(store):
        try:
            outcome, metadata = store.read(key)
            check_cell(key, outcome.arrays, metadata, examples)
        except FileNotFoundError:
            continue  # another process moved it
        except Unreadable as error:
            damaged.append({"file": error.where, "reason": error.what, "moved": False})
        except StoreError as error:
            damaged.append({"file": relative(store, store.discard(key, error)), "reason": error.what, "moved": True})
        else:
            whole += 1
            unclaimed += finder.one(bytes.fromhex(key)) < 0
    seen = {entry["file"] for entry in damaged}
    for path, reason in store.damaged.items():  # blocks of which nothing could be read
        if (where := relative(store, path)) not in seen:
            damaged.append({"file": where, "reason": reason, "moved": True})
    damaged += [{"file": file, "reason": reason, "moved": False} for file, reason in torn(store).items()]
    bank = Bank(store)
    kept = len(bank.sizes())
    for key, problem in bank.verify():
        kept, moved = kept - 1, not isinstance(problem, Unreadable)
        if moved:
            store.quarantine(bank.path(key), problem)
        damaged.append({"file": relative(store, bank.path(key)), "reason": problem.what, "moved": moved})
    for name in stems(store, "names", ".json"):
        with _left(damaged, f"names/{name}.json"):
            read_name(store, name)
    missing = {}
    for name, record in plans.items():
        with _left(damaged, f"stops/{name}.json"):
            missing[name] = len(store.missing(record))
        if name in missing:
            with _left(damaged, f"rules/{name}.json"):
                store.rule(record)
            with _left(damaged, f"notes/{name}.json"):
                read_remarks(store, record)
    verified = not damaged and not any(missing.values())
    found = {"verified": verified, "cells": whole, "kept": kept, "damaged": damaged}
    return {**found, "missing": missing, "unclaimed": unclaimed}


def check_cell(key: str, arrays: dict[str, Any], metadata: dict[str, Any], examples: dict[str, int]) -> None:
    """Refuse a cell that cannot be what its key says, although its checksum holds.

    Args:
        examples: how many a task has, by its digest, where that is known.
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
            first = next(iter(arrays.values()))
            expected = examples.get(metadata.get("task", ""), first.shape[-1])
            if (wrong := misshapen(arrays, {"examples": expected})) is not None:
                raise StoreError(f"is damaged ({wrong})")
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise StoreError("is damaged (numbers that are not finite)")
    except PydtError:
        raise
    except Exception as error:  # any entry may be missing or of another type
        raise StoreError(f"is damaged ({type(error).__name__})") from error


def _verify_described(store: Store, damaged: list[dict[str, Any]]) -> dict[str, int]:
    """Plans, tasks, thumbnails, choices; how many examples the tasks have."""
    examples = {}
    for kind, suffix in _KINDS:
        for name in stems(store, kind, suffix):
            path = store.folder / kind / f"{name}{suffix}"
            try:
                if kind == "plans":
                    store.plan(name)
                elif kind == "choices":
                    read_choice(store, name)
                elif kind == "tasks":
                    examples[name] = len(described(path)["half"])
                else:
                    pictures(path)
            except FileNotFoundError:
                continue
            except StoreError as error:
                moved = not isinstance(error, Unreadable)
                if moved:
                    store.quarantine(path, error)
                damaged.append({"file": relative(store, path), "reason": error.what, "moved": moved})
    return examples


@contextlib.contextmanager
def _left(damaged: list[dict[str, Any]], file: str) -> Iterator[None]:
    """Report what is wrong with a file, and leave it where it is."""
    try:
        yield
    except PydtError as error:
        damaged.append({"file": file, "reason": error.what, "moved": False})
