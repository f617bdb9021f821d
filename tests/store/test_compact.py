"""Compaction changes nothing that is read, whatever dies when."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import GROUPS
from stub_store import GOOD, KEY, METADATA, TASKS, computed, contents, flip, two_tasks

from pydt.base import StoreError, encode
from pydt.store import Outcome, Store, verify
from pydt.store import compact as compact_store

compact = partial(compact_store, fewest=2)


def reading(store: Store) -> dict[str, Any]:
    """All that a reader can ask of a store."""
    found: dict[str, Any] = {"finished": store.finished().tolist(), "missing": store.missing().tolist()}
    found |= {"failed": [(i, row, reason) for i, row, reason in store.failed()], "masks": store.masks().tolist()}
    for task in ("digits", "letters"):
        found[task] = [store.outputs(task, name, "all").tolist() for name in ("margin", "prediction")]
        found[f"{task} scalars"] = store.scalars(task)
    record = store.plan()
    present = [key for keys in record.keys for key in keys if store.done(key)]
    found["metadata"] = [store.metadata(key) for key in present]
    found["bytes"] = [encode(store.get(key).arrays, store.metadata(key)) for key in present]
    found["facts"] = store.facts
    return found


def test_a_compacted_store_reads_the_same_and_grows_on(tmp_path: Path) -> None:
    job = two_tasks(12)
    computed(tmp_path, job, range(9), failures=(2, 5))
    before = reading(Store(tmp_path))
    files = {path.name: path.read_bytes() for path in tmp_path.rglob("rows/*/*.safetensors")}
    assert compact(tmp_path) == {"cells": 18, "blocks": 4, "left": 0}
    assert not list(tmp_path.rglob("rows/*"))
    store = Store(tmp_path)
    assert reading(store) == before
    for name, data in files.items():  # a row is what its file was, byte for byte
        outcome, metadata = store.read(name[:32])
        assert encode(outcome.arrays, metadata) == data
    assert compact(tmp_path) == {"cells": 0, "blocks": 0, "left": 0}

    computed(tmp_path, job, failures=(2, 5))
    store = Store(tmp_path)
    assert len(list(tmp_path.rglob("rows/*/*.safetensors"))) == 6  # only what was missing
    assert store.finished().tolist() == [0, 1, 3, 4, 6, 7, 8, 9, 10, 11]
    whole = reading(store)
    assert compact(tmp_path)["cells"] == 6
    assert reading(Store(tmp_path)) == whole
    assert verify(tmp_path)["verified"]


def test_a_block_is_plain_arrays_in_plan_order(tmp_path: Path) -> None:
    job = two_tasks(8, tasks=TASKS[:1])
    store = computed(tmp_path, job)
    primitives = np.stack([store.get(keys[0]).arrays["primitives"] for keys in store.plan().keys])
    compact(tmp_path)
    (block,) = (tmp_path / "packed").iterdir()
    np.testing.assert_array_equal(np.load(block / "primitives.npy", allow_pickle=False), primitives)
    masks = np.unpackbits(np.load(block / "masks.npy", allow_pickle=False), axis=1, count=GROUPS, bitorder="little")
    np.testing.assert_array_equal(masks, np.asarray(job.design))
    lines = [json.loads(line) for line in (block / "index.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines[1:-1]] == [keys[0] for keys in store.plan().keys]
    assert lines[0] == lines[-1]


def test_a_block_is_on_the_disk_before_a_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of it, its names in its folder, and its folder's name: what a power failure then leaves is a block."""
    computed(tmp_path, two_tasks(8, tasks=TASKS[:1]))
    calls: list[tuple[str, int]] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def synced(descriptor: int) -> None:
        calls.append(("sync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def renamed(old: Any, new: Any) -> None:
        calls.append(("rename", os.stat(old).st_ino))
        replace(old, new)

    def removed(path: Any) -> None:
        if Path(path).suffix == ".safetensors":
            calls.append(("remove", 0))
        unlink(path)

    for name, call in (("fsync", synced), ("replace", renamed), ("unlink", removed)):
        monkeypatch.setattr(os, name, call)
    compact(tmp_path)
    (block,) = (tmp_path / "packed").iterdir()
    first, named = calls.index(("remove", 0)), calls.index(("rename", block.stat().st_ino))
    inside = [path.stat().st_ino for path in block.iterdir()]
    written = [calls.index(("sync", inode)) for inode in inside]
    assert max(written) < calls.index(("sync", block.stat().st_ino)) < named
    assert ("sync", (tmp_path / "packed").stat().st_ino) in calls[named:first]
    assert ("sync", tmp_path.stat().st_ino) in calls[:first]


def test_a_block_that_is_not_what_was_written_removes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed(tmp_path, two_tasks(8, tasks=TASKS[:1]))
    before, real = contents(tmp_path / "rows"), os.replace

    def renamed(old: Any, new: Any) -> None:
        real(old, new)
        if Path(new).parent.name == "packed":
            flip(Path(new) / "primitives.npy", -1)

    monkeypatch.setattr(os, "replace", renamed)
    with pytest.raises(
        StoreError, match=r"packed/.*was not read back as it was written: .*checksum.*no row was removed"
    ):
        compact(tmp_path)
    assert contents(tmp_path / "rows") == before
    assert not list((tmp_path / "packed").iterdir())
    monkeypatch.undo()
    assert verify(tmp_path)["verified"]


def test_what_a_block_cannot_hold_stays_a_file(tmp_path: Path) -> None:
    store = computed(tmp_path, two_tasks(5, tasks=TASKS[:1]))
    odd = [
        Outcome({"primitives": np.zeros((4, 1, 3)), "more": np.zeros(3)}),
        Outcome({"primitives": np.zeros((4, 1, 3), np.float64)}),
        Outcome({"primitives": np.zeros((4, 3), np.float32)}),
    ]
    keys = [f"{i}{KEY[1:]}" for i in range(5)]
    for key, outcome in zip(keys, odd, strict=False):
        store.put(key, outcome, METADATA)
    for key, keep in zip(keys[3:], ["AB", "abc"], strict=True):
        store.put(key, GOOD, {**METADATA, "keep": keep, "groups": 8})
    expected = {key: store.path(key).read_bytes() for key in keys}
    assert compact(tmp_path) == {"cells": 5, "blocks": 1, "left": 5}
    assert {key: store.path(key).read_bytes() for key in keys} == expected


def test_few_cells_stay_files_and_many_become_several_blocks(tmp_path: Path) -> None:
    job = two_tasks(10, tasks=TASKS[:1])
    computed(tmp_path, job)
    before = np.array(Store(tmp_path).outputs("digits"))
    assert compact_store(tmp_path, fewest=3, most=4) == {"cells": 8, "blocks": 2, "left": 2}
    np.testing.assert_array_equal(Store(tmp_path).outputs("digits"), before)


def test_a_driver_at_work_is_not_disturbed(tmp_path: Path) -> None:
    store = computed(tmp_path, two_tasks(3))
    with store.writing(), pytest.raises(StoreError, match="is being written by process"):
        compact(tmp_path)


def test_rows_are_put_once_whichever_form_they_have(tmp_path: Path) -> None:
    store = computed(tmp_path, two_tasks(4))
    compact(tmp_path)
    key = store.plan().keys[1][0]
    outcome, metadata = store.get(key), store.metadata(key)
    assert not store.put(key, outcome, metadata)
    with pytest.raises(StoreError, match="a different result is stored"):
        Store(tmp_path).put(key, Outcome(status="failed", reason="x"), metadata)
    assert not list(tmp_path.rglob("rows/*/*"))


@pytest.mark.parametrize("name", ["primitives.npy", "masks.npy"])
def test_damage_in_a_block_costs_the_row_it_is_in(name: str, tmp_path: Path) -> None:
    job = two_tasks(6, tasks=TASKS[:1])
    store = computed(tmp_path, job)
    expected = np.array(store.outputs("digits"))
    compact(tmp_path)
    (block,) = (tmp_path / "packed").iterdir()
    flip(block / name, -1)  # of the last row
    store = Store(tmp_path)
    with pytest.raises(StoreError, match=r"checksum.*quarantine.*run the same plan again"):
        store.outputs("digits")
    assert store.missing().tolist() == Store(tmp_path).missing().tolist() == [5]
    np.testing.assert_array_equal(Store(tmp_path).outputs("digits"), expected[:5])
    computed(tmp_path, job)
    np.testing.assert_array_equal(Store(tmp_path).outputs("digits"), expected)
    assert compact(tmp_path)["cells"] == 6  # the worn block is written anew, with the row that came later
    assert len(list((tmp_path / "packed").iterdir())) == 1
    assert len(list((tmp_path / "quarantine").iterdir())) == 1
    np.testing.assert_array_equal(Store(tmp_path).outputs("digits"), expected)
    assert verify(tmp_path)["verified"]


def test_every_flipped_bit_and_every_cut_of_an_index_costs_some_rows_and_invents_none(tmp_path: Path) -> None:
    store = computed(tmp_path, two_tasks(3, tasks=TASKS[:1]))
    expected = {keys[0]: store.read(keys[0]) for keys in store.plan().keys}
    compact(tmp_path)
    (block,) = (tmp_path / "packed").iterdir()
    whole = (block / "index.jsonl").read_bytes()
    header = whole.index(b"\n")
    random, lost = np.random.default_rng(0), 0
    places = [*random.integers(0, len(whole), 150).tolist(), *range(0, header, 7)]
    for place in [*places, *[-cut for cut in range(1, len(whole), 97)]]:
        broken = bytearray(whole)
        if place >= 0:
            broken[place] ^= 1 << int(random.integers(8))
        else:
            del broken[place:]
        (block / "index.jsonl").write_bytes(broken)
        found = Store(tmp_path)
        for key, (outcome, metadata) in expected.items():
            try:
                other, described = found.read(key)
            except (StoreError, FileNotFoundError):
                lost += 1
                continue
            assert described == metadata
            assert other.arrays["primitives"].tobytes() == outcome.arrays["primitives"].tobytes()
        for moved in (tmp_path / "quarantine").glob("*"):
            moved.rename(block)  # both headers were damaged
        assert block.is_dir()
    assert 0 < lost < 3 * len(places)


def test_a_cut_array_costs_the_rows_behind_the_cut(tmp_path: Path) -> None:
    store = computed(tmp_path, two_tasks(6, tasks=TASKS[:1]))
    size = store.get(store.plan().keys[0][0]).arrays["primitives"].nbytes
    compact(tmp_path)
    (block,) = (tmp_path / "packed").iterdir()
    with open(block / "primitives.npy", "r+b") as file:
        file.truncate(file.seek(0, 2) - size - 1)
    found = verify(tmp_path)
    assert not found["verified"]
    assert found["cells"] == 4
    assert [entry["reason"] for entry in found["damaged"][:2]] == ["is damaged (it ends too early)"] * 2
    assert list(found["missing"].values()) == [2]
