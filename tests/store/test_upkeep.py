"""Looking after a store: compaction, merging, checking and status change nothing that is read."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask
from stub_store import GOOD, KEY, METADATA, computed, contents

from pydt import design
from pydt.base import StoreError, encode
from pydt.design import Design
from pydt.design.kinds.bernoulli import Independent
from pydt.ensemble import Plan
from pydt.store import Outcome, Store, merge, status, verify
from pydt.store import compact as compact_store

compact = partial(compact_store, fewest=2)
TASKS = (StubTask(), StubTask("letters"))


def plan(rows: int = 12, seed: int = 0, tasks: Any = TASKS, **more: Any) -> Plan:
    drawn = more.pop("design", None) or design.bernoulli(GROUPS, rows, seed=seed)
    return Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=tasks, **more)


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


# ---- compaction


def test_a_compacted_store_reads_the_same_and_grows_on(tmp_path: Path) -> None:
    job = plan(12)
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
    job = plan(8, tasks=TASKS[:1])
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
    computed(tmp_path, plan(8, tasks=TASKS[:1]))
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
    computed(tmp_path, plan(8, tasks=TASKS[:1]))
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
    store = computed(tmp_path, plan(5, tasks=TASKS[:1]))
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
    job = plan(10, tasks=TASKS[:1])
    computed(tmp_path, job)
    before = np.array(Store(tmp_path).outputs("digits"))
    assert compact_store(tmp_path, fewest=3, most=4) == {"cells": 8, "blocks": 2, "left": 2}
    np.testing.assert_array_equal(Store(tmp_path).outputs("digits"), before)


def test_a_driver_at_work_is_not_disturbed(tmp_path: Path) -> None:
    store = computed(tmp_path, plan(3))
    with store.writing(), pytest.raises(StoreError, match="is being written by process"):
        compact(tmp_path)


def test_rows_are_put_once_whichever_form_they_have(tmp_path: Path) -> None:
    store = computed(tmp_path, plan(4))
    compact(tmp_path)
    key = store.plan().keys[1][0]
    outcome, metadata = store.get(key), store.metadata(key)
    assert not store.put(key, outcome, metadata)
    with pytest.raises(StoreError, match="a different result is stored"):
        Store(tmp_path).put(key, Outcome(status="failed", reason="x"), metadata)
    assert not list(tmp_path.rglob("rows/*/*"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 8
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["primitives.npy", "masks.npy"])
def test_damage_in_a_block_costs_the_row_it_is_in(name: str, tmp_path: Path) -> None:
    job = plan(6, tasks=TASKS[:1])
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
    store = computed(tmp_path, plan(3, tasks=TASKS[:1]))
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
    store = computed(tmp_path, plan(6, tasks=TASKS[:1]))
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


# ---- checking


def test_a_whole_store_is_verified_and_a_half_one_is_not(tmp_path: Path) -> None:
    job = plan(5)
    computed(tmp_path, job, range(4), failures=(1,))
    found = verify(tmp_path)
    expected = {"verified": False, "cells": 8, "damaged": [], "missing": {job.digest: 1}, "unclaimed": 0}
    assert found == expected
    store = computed(tmp_path, job, failures=(1,))
    assert verify(tmp_path) == {**expected, "verified": True, "cells": 10, "missing": {job.digest: 0}}
    store.path(store.plan().keys[4][1]).unlink()
    store.note_stop(None, {"rows": 4})  # later rows do not count
    store.put(KEY, GOOD, METADATA)
    assert verify(tmp_path) == {**expected, "verified": True, "cells": 10, "missing": {job.digest: 0}, "unclaimed": 1}
    assert not (tmp_path / "quarantine").exists()


def _wrong(store: Store, key: str, **changes: Any) -> None:
    """Store something under a key that no driver would, with a checksum that holds."""
    outcome, metadata = store.read(key)
    metadata |= {name: value for name, value in changes.items() if name != "arrays"}
    arrays = {**outcome.arrays, **changes.get("arrays", {})}
    store.path(key).write_bytes(encode(arrays, metadata))


def test_every_kind_of_damage_is_found_named_and_put_aside(tmp_path: Path) -> None:
    job = plan(9)
    store = computed(tmp_path, job)
    keys = [keys[0] for keys in store.plan().keys]
    shape = store.get(keys[0]).arrays["primitives"].shape
    flip(store.path(keys[0]), -1)
    flip(store.path(keys[1]), 12)
    _wrong(store, keys[2], seed=99)
    _wrong(store, keys[3], task="another")
    _wrong(store, keys[4], arrays={"primitives": np.full(shape, np.nan, np.float32)})
    _wrong(store, keys[5], arrays={"primitives": np.zeros((4, 2, 3), np.float32)})
    _wrong(store, keys[6], recipe=None, training=None)
    store.path(keys[7]).write_bytes(b"")
    other = plan(3, seed=8)
    store.put_plan(other.record())
    flip(tmp_path / "plans" / f"{other.digest}.json", 30)
    flip(tmp_path / "tasks" / f"{TASKS[1].digest}.safetensors", -2)
    found = verify(tmp_path)
    reasons = {entry["file"].split("/")[-1].split(".")[0]: entry["reason"] for entry in found["damaged"]}
    expected = ["checksum", "damaged", "its key", "its key", "not finite", "shape (4, 2, 3)", "recipe", "damaged"]
    assert len(reasons) == 10
    for key, pattern in zip([*keys[:8], other.digest, TASKS[1].digest], [*expected, "", ""], strict=True):
        assert pattern in reasons[key]
    assert all(entry["moved"] for entry in found["damaged"])
    assert len(list((tmp_path / "quarantine").iterdir())) == 10
    assert found["missing"] == {job.digest: 8}
    computed(tmp_path, job)
    assert verify(tmp_path)["verified"]


def test_a_damaged_stop_is_named_and_left(tmp_path: Path) -> None:
    job = plan(3)
    computed(tmp_path, job).note_stop(None, {"rows": 2})
    path = tmp_path / "stops" / f"{job.digest}.json"
    path.write_text("{")
    (entry,) = verify(tmp_path)["damaged"]
    assert (entry["file"], entry["moved"]) == (f"stops/{job.digest}.json", False)
    assert path.exists()


def test_a_design_that_draws_otherwise_is_not_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = plan(3)
    computed(tmp_path, job)
    monkeypatch.setattr(Independent, "__call__", lambda self, rows, columns: np.ones((len(rows), columns), bool))
    found = verify(tmp_path)
    assert "other masks than the rows have" in found["damaged"][0]["reason"]
    assert not found["verified"]
    assert found["cells"] == 6  # which are whole all the same


# ---- merging


def test_parts_trained_on_several_machines_become_the_whole(tmp_path: Path) -> None:
    job = plan(9)
    computed(tmp_path / "whole", job, failures=(4,))
    computed(tmp_path / "a", job, [0, 3, 4, 6], failures=(4,)).log(event="row", row=0, keys=["?"])
    b = computed(tmp_path / "b", job, [1, 3, 5, 7, 8])
    b.log(event="row", row=7, time=5.0, keys=list(b.plan().keys[7]))
    computed(tmp_path / "c", plan(6, tasks=TASKS[1:]), [2])
    compact(tmp_path / "b")
    parts = [tmp_path / name for name in "abc"]
    before = [contents(part) for part in parts]
    found = merge(tmp_path / "new", *parts)
    assert found == {"copied": 17, "same": 2, "damaged": []}
    assert [contents(part) for part in parts] == before
    store = Store(tmp_path / "new", job.digest)
    assert store.missing().tolist() == [2]
    assert [json.loads(line)["row"] for line in (tmp_path / "new" / "log.jsonl").read_text().splitlines()] == [7]
    again = contents(tmp_path / "new")
    assert merge(tmp_path / "new", *reversed(parts)) == {"copied": 0, "same": 19, "damaged": []}
    assert contents(tmp_path / "new") == again
    assert len((tmp_path / "new" / "log.jsonl").read_text().splitlines()) == 1
    computed(tmp_path / "new", job, failures=(4,))
    whole = contents(tmp_path / "whole")
    assert {name: data for name, data in contents(tmp_path / "new").items() if name in whole} == whole


def test_a_longer_plan_a_selection_and_masks_of_ones_own_are_of_one_design(tmp_path: Path) -> None:
    drawn = design.random(GROUPS, 8, seed=1)
    own = Design.explicit(np.asarray(drawn))
    seeds = list(range(8))
    jobs = {
        "short": plan(design=drawn, seeds=seeds),
        "long": plan(design=drawn.extend(12), seeds=range(12)),
        "odd": plan(design=drawn.take([1, 3, 5]), seeds=[1, 3, 5]),
        "own": plan(design=own, seeds=seeds),
        "half": plan(design=own.take([2, 0]), seeds=[2, 0]),
    }
    for name, job in jobs.items():
        computed(tmp_path / name, job)
    found = merge(tmp_path / "short", *(tmp_path / name for name in jobs if name != "short"))
    assert found["copied"] == 8  # the rows that only the long one has, for two tasks
    assert len(Store(tmp_path / "short").plans()) == 5


def test_a_store_of_another_design_is_refused_and_nothing_is_copied(tmp_path: Path) -> None:
    computed(tmp_path / "a", plan(4))
    computed(tmp_path / "b", plan(5))
    computed(tmp_path / "c", plan(4, seed=1))
    computed(tmp_path / "d", Plan(StubSource("other"), design=plan().design, recipe=StubRecipe(), tasks=TASKS))
    before = contents(tmp_path / "a")
    for name, wrong in (("c", "another design"), ("d", "another source, other groups or another recipe")):
        with pytest.raises(StoreError, match=rf"/{name}: .*{wrong}.*merge only stores of one design"):
            merge(tmp_path / "a", tmp_path / "b", tmp_path / name)
        assert contents(tmp_path / "a") == before
    with pytest.raises(StoreError, match="another design"):
        merge(tmp_path / "new", tmp_path / "a", tmp_path / "c")


def test_another_result_for_the_same_row_is_refused(tmp_path: Path) -> None:
    a, b = (computed(tmp_path / name, plan(4)) for name in "ab")
    key = a.plan().keys[2][1]
    _wrong(b, key, scalars={"score_accuracy": 0.25})
    b.path(a.plan().keys[0][0]).unlink()
    a.path(a.plan().keys[1][0]).unlink()
    before = contents(tmp_path / "a")
    with pytest.raises(StoreError, match=rf"/b/.*{key}.*another result is stored for the same row than in .*/a"):
        merge(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path / "a") == before


def test_damaged_cells_of_others_are_left_out_and_named(tmp_path: Path) -> None:
    job = plan(4)
    b = computed(tmp_path / "b", job)
    flip(b.path(b.plan().keys[2][0]), -1)
    found = merge(tmp_path / "a", tmp_path / "b")
    assert found["copied"] == 7
    assert [entry["reason"] for entry in found["damaged"]] == ["is damaged (its checksum does not match)"]
    assert not (tmp_path / "b" / "quarantine").exists()
    assert Store(tmp_path / "a").missing().tolist() == [2]


def test_stops_and_counterfactuals_come_along(tmp_path: Path) -> None:
    job = plan(4)
    b = computed(tmp_path / "b", job)
    b.note_stop(None, {"rows": 3})
    (tmp_path / "b" / "counterfactual").mkdir()
    (tmp_path / "b" / "counterfactual" / f"{job.digest}.json").write_text("{}")
    merge(tmp_path / "a", tmp_path / "b")
    assert Store(tmp_path / "a").stopped()["rows"] == 3
    assert (tmp_path / "a" / "counterfactual" / f"{job.digest}.json").read_text() == "{}"


def test_what_an_unmet_rule_had_reached_comes_along(tmp_path: Path) -> None:
    b = computed(tmp_path / "b", plan(4))
    b.note_rule(None, {"rule": "stderr < 1", "reason": "widest 2", "looks": 1, "looked": 4, "decided": []})
    merge(tmp_path / "a", tmp_path / "b")
    assert b.rule() is not None
    assert Store(tmp_path / "a").rule() == b.rule()
    assert status(tmp_path / "a")["unmet"] == b.rule()


def test_another_stores_stop_takes_no_row_from_a_plan_that_goes_on(tmp_path: Path) -> None:
    job = plan(4)
    whole, stopped = computed(tmp_path / "whole", job), computed(tmp_path / "stopped", job)
    stopped.note_stop(None, {"rows": 3})
    merge(tmp_path / "whole", tmp_path / "stopped")
    assert whole.stopped() is None
    assert Store(tmp_path / "whole").finished().tolist() == [0, 1, 2, 3]
    merge(tmp_path / "stopped", tmp_path / "whole")
    assert Store(tmp_path / "stopped").stopped()["rows"] == 3


# ---- how far it is


def test_status_says_how_far_a_plan_is(tmp_path: Path) -> None:
    assert status(computed(tmp_path / "none", plan(3), []).folder)["rows_per_hour"] == 0
    job = plan(10)
    store = computed(tmp_path, job, range(7), failures=(1, 4, 5))
    _wrong(store, store.plan().keys[5][0], reason="loss of 1")
    now = time.time()
    for row, ago in enumerate([9000, 1800, 1700, 20]):
        store.log(event="row", row=row, time=now - ago)
    store.log(event="other")
    with open(tmp_path / "log.jsonl", "ab") as file:
        file.write(b'{"event": "to')
    found = status(tmp_path)
    assert found["rows_per_hour"] == pytest.approx(4, abs=0.1)  # two more since the first, half an hour ago
    numbers = {name: found[name] for name in ("plan", "rows", "finished", "failed", "missing", "stop", "quarantined")}
    about = {"rows": 10, "finished": 4, "failed": 3, "missing": 3, "quarantined": 0}
    assert numbers == {"plan": job.digest, **about, "stop": None}
    assert found["reasons"] == {"loss of 1": 2, "loss of 4": 1}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (found["files"], found["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert found["writer"] is None
    json.dumps(found)

    store.note_stop(None, {"rows": 6})
    compact(tmp_path)
    store.path(KEY).parent.mkdir(parents=True, exist_ok=True)
    with store.writing():
        found = status(tmp_path)
    assert found["writer"]["pid"]
    assert (found["finished"], found["failed"], found["missing"]) == (3, 3, 0)
    assert found["stop"] == store.stopped()
    assert found["stop"]["rows"] == 6
    assert found["packed"] == 14

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock = {"pid": ended.pid, "host": platform.node()}
    (tmp_path / ".lock").write_text(json.dumps(lock))  # as a killed driver leaves it
    assert status(tmp_path)["writer"] is None
    (tmp_path / ".lock").write_text(json.dumps({**lock, "host": "elsewhere"}))
    assert status(tmp_path)["writer"] == {**lock, "host": "elsewhere"}


def test_status_of_several_plans_is_of_the_latest_or_the_one_named(tmp_path: Path) -> None:
    first, second = plan(3), plan(4)
    computed(tmp_path, first)
    time.sleep(0.02)
    computed(tmp_path, second, [0])
    assert status(tmp_path)["rows"] == 4
    assert status(tmp_path, first)["rows"] == 3
    assert status(tmp_path)["plans"] == 2
    Store.create(tmp_path / "empty")
    assert status(tmp_path / "empty")["plan"] is None
    with pytest.raises(StoreError, match="holds no store"):
        status(tmp_path / "nothing")
