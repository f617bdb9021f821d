"""`merge`: the rows of other stores of the same design, each at most once."""

from __future__ import annotations

import os
from typing import Any

from pydt.base import StoreError, read
from pydt.store.bank import Bank
from pydt.store.block_format import Finder
from pydt.store.cells import every_key, same, stems
from pydt.store.choices import read_choice, read_choices, write_choice
from pydt.store.plan_names import name_plan, read_names
from pydt.store.plan_record import Record
from pydt.store.store import Store


def merge(into: str | os.PathLike[str], *others: str | os.PathLike[str]) -> dict[str, Any]:
    """Copy the rows of other stores of the same design into one; doing it again changes nothing.

    Stores are of one design if they share source, groups and recipe, and their designs share the rule that draws masks,
    or all rows of one: parts of an ensemble, a plan and a longer one, the same rows on other tasks. Tasks, plans,
    thumbnails, counterfactuals, kept networks and the log lines of the copied rows come along, and what stopping rules
    had reached of plans that are new to the store. All kept networks are copied that the store lacks, whatever
    `keep_bytes` was: drop a bank first (`compact`) that is not wanted.

    Args:
        into: a store, or a folder that becomes one.

    Returns:
        copied, same (were there): cells. kept: networks copied. damaged: a list of {"file", "reason"} of cells and
        networks that were left out; they stay where they are.

    Raises:
        StoreError: a store is of another design, a row has other results in two stores, or a driver is at work; then
            nothing is copied.
    """
    sources = [Store(other) for other in others]
    for other in sources:
        other.reads_only = True
    report: dict[str, Any] = {"copied": 0, "same": 0, "kept": 0, "damaged": []}
    with Store.create(into).writing() as store:
        known = list(store.plans().values())
        for other in sources:
            _one_design(known, other)
        for i, other in enumerate(sources):
            for before in (store, *sources[:i]):
                _no_conflict(before, other)
        for other in sources:
            for name in stems(other, "tasks", ".safetensors"):
                store.put_task(name, other.whole_task(name))
            here = set(store.plans())
            for record in other.plans().values():
                store.put_plan(record)
                if pictures := other.thumbnails(record):
                    store.put_thumbnails(record, pictures, other.captions(record))
            copied = _copy_cells(store, other, report)
            _copy_bank(Bank(store), Bank(other), report)
            report["damaged"] += [{"file": str(path), "reason": reason} for path, reason in other.damaged.items()]
            _copy_small(store, other, here)
            _copy_log(store, other, copied)
    return report


def _one_design(known: list[Record], other: Store) -> None:
    """Refuse a store of another design than the known plans; else its plans become known.

    Rows that were retrained beside a design may have a recipe of their own, such as as many steps as the whole source.
    """
    mend = "merge only stores of one design; another one stays a store of its own"
    plans = sorted(other.plans().values(), key=lambda record: record.kind != "design")
    for record in plans:
        base = [k for k in known if (k.source, k.units) == (record.source, record.units)]
        if record.kind == "design" or not any(k.kind == "design" for k in base):
            base = [k for k in base if k.recipe == record.recipe]
        if known and not base:
            wrong = f"plan {other.called(record)} has another source, other groups or another recipe"
            raise StoreError(wrong, str(other.folder), mend)
        designs = [k for k in known if k.kind == "design"]
        if record.kind == "design" and designs and not any(_alike(record, k) for k in designs if k in base):
            raise StoreError(f"plan {other.called(record)} has another design", str(other.folder), mend)
        known.append(record)


def _alike(a: Record, b: Record) -> bool:
    first, second = a.design or {}, b.design or {}
    if "masks" not in first:
        counted = ("models", "rows", "placebos")
        rules = [{name: value for name, value in d.items() if name not in counted} for d in (first, second)]
        if rules[0] == rules[1]:
            return True
    small, large = sorted((a.trainings, b.trainings), key=len)
    return bool((Finder(large)(small) >= 0).all())


def _no_conflict(store: Store, other: Store) -> None:
    for key in every_key(other):
        try:
            ours, theirs = store.read(key)[0], other.read(key)[0]
        except (StoreError, FileNotFoundError):
            continue  # damaged
        if not same(ours, theirs):
            wrong = f"another result is stored for the same row than in {store.folder}"
            mend = "the rows were not computed alike: merge without one of the two, or remove that row's file"
            raise StoreError(wrong, str(other.path(key)), mend)


def _copy_cells(store: Store, other: Store, report: dict[str, Any]) -> set[str]:
    copied, same_already = set(), 0
    for key in every_key(other):
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


def _copy_bank(ours: Bank, theirs: Bank, report: dict[str, Any]) -> None:
    for key in sorted(theirs.sizes().keys() - ours.sizes().keys()):
        try:
            kept = theirs.read(key)
        except FileNotFoundError:
            continue
        except StoreError as error:
            report["damaged"].append({"file": str(theirs.path(key)), "reason": error.what})
            continue
        ours.put(key, kept)
        report["kept"] += 1


def _copy_small(store: Store, other: Store, here: set[str]) -> None:
    """What stopping rules had reached of plans that were not `here`; counterfactuals, notes, names and choices that
    the store lacks.
    """
    names = read_names(store)
    for one in read_names(other).values():
        if one.plan not in names:
            file = None if one.file is None else other.folder / one.file
            name_plan(store, one.plan, one.name, file=file, embedded=one.embedded, study=one.study)
    for choice in read_choices(other):
        if read_choice(store, choice["question"]) is None:
            write_choice(store, choice)
    for name, record in other.plans().items():
        if name not in here and (note := other.rule(record)) is not None:
            write = store.note_stop if note.pop("met") else store.note_rule
            write(record, note)
        for folder in ("counterfactual", "notes"):
            for path in sorted((other.folder / folder).glob(f"{name}*.json")):  # of its tasks, too
                link = path.relative_to(other.folder)
                if not (store.folder / link).exists():
                    store.write(link, read(path))


def _copy_log(store: Store, other: Store, copied: set[str]) -> None:
    for entry in other.logged("row", {"keys": [str]}):
        if copied.intersection(entry["keys"]):
            store.log(**entry)  # with its own time
