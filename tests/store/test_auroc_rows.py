"""Rows with AUROC values beside the primitives: stored, packed, merged, exported and checked like any other."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from stub_rows import DRAWS, EXAMPLES, StubTask
from stub_store import computed, contents, two_tasks

from pydt.base import ConfigError, PydtError, StoreError
from pydt.ensemble import Plan
from pydt.store import Outcome, Store, checked, export, merge, verify
from pydt.store import compact as compact_store

compact = partial(compact_store, fewest=2)
TASKS = (StubTask(metric="auroc"), StubTask("letters"))


def plan(rows: int = 9) -> Plan:
    return two_tasks(rows, tasks=TASKS)


def values(store: Store) -> np.ndarray:
    return store.outputs("digits", "auroc", "all")


def test_packed_rows_keep_their_values_and_bytes(tmp_path: Path) -> None:
    store = computed(tmp_path, plan(), failures=(2,))
    cells = {key: store.read(key) for keys in store.plan().keys for key in keys}
    before = values(store)
    expected = [store.get(keys[0]).arrays["auroc"].mean(0) for i, keys in enumerate(store.plan().keys) if i != 2]
    np.testing.assert_array_equal(before, np.stack(expected))
    report = np.flatnonzero(store.task(store.plan().tasks[0]["digest"])["half"] == 1)
    np.testing.assert_array_equal(store.outputs("digits", "auroc", "report"), before[:, report])
    assert compact(tmp_path) == {"cells": 16, "blocks": 2, "left": 2}, "one failed row a task"
    found = Store(tmp_path)
    np.testing.assert_array_equal(values(found), before)
    shapes = {path.parent.name: np.load(path).shape for path in tmp_path.glob("packed/*/auroc.npy")}
    assert list(shapes.values()) == [(8, DRAWS, EXAMPLES)], "of the task with this metric alone"
    for key, (outcome, metadata) in cells.items():
        again, described = found.read(key)
        assert described == metadata
        assert again.arrays.keys() == outcome.arrays.keys()
        for name, array in outcome.arrays.items():
            np.testing.assert_array_equal(again.arrays[name], array)
    assert verify(tmp_path)["verified"]


def test_damage_to_packed_values_costs_their_row(tmp_path: Path) -> None:
    computed(tmp_path, plan())
    compact(tmp_path)
    (path,) = tmp_path.glob("packed/*/auroc.npy")
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(bytes(data))
    found = verify(tmp_path)
    assert len(found["damaged"]) == 1
    assert list(found["missing"].values()) == [1]


def test_parts_merge_and_are_exported_with_values_and_draws(tmp_path: Path) -> None:
    job = plan()
    whole = computed(tmp_path / "whole", job)
    computed(tmp_path / "a", job, range(4))
    computed(tmp_path / "b", job, range(4, 9))
    compact(tmp_path / "b")
    merge(tmp_path / "new", tmp_path / "a", tmp_path / "b")
    store = Store(tmp_path / "new", job.digest)
    np.testing.assert_array_equal(values(store), values(whole))
    folders = "tasks", "rows"
    assert {name: data for name, data in contents(tmp_path / "new").items() if name.startswith(folders)} == {
        name: data for name, data in contents(tmp_path / "whole").items() if name.startswith(folders)
    }
    manifest = export(tmp_path / "new", tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "task0.auroc.npy"), values(whole))
    assert "task1.auroc.npy" not in manifest["files"]
    assert (tmp_path / "out" / "task1.draws.csv").read_text().splitlines() == [
        "draw,id,label,key", "0,1,1,image 1", "0,4,0,image 4", "1,0,0,image 0", "1,4,0,image 4"
    ]  # fmt: skip


def test_the_output_of_a_metric(tmp_path: Path) -> None:
    store = computed(tmp_path, plan(3))
    assert store.metric_output() == store.metric_output("digits") == "auroc"
    assert store.metric_output("letters") == "correct"
    assert store.metric_output("letters", None, "margin") == "margin"
    with pytest.raises(ConfigError, match="rows have no AUROC for 'letters', whose metric is top-1"):
        store.outputs("letters", "auroc")
    with pytest.raises(ConfigError, match="output 'loss'"):
        store.outputs("digits", "loss")


def test_a_runner_gives_values_of_the_right_shape() -> None:
    task = {"name": "t", "examples": 3, "settings": {"target": {"metric": "auroc"}}}
    arrays = {"primitives": np.zeros((4, 2, 3), np.float32), "auroc": np.zeros((2, 3), np.float32)}
    assert checked(Outcome(arrays), task, "row").arrays.keys() == arrays.keys()
    for given in ({}, {"auroc": np.zeros((2, 4), np.float32)}, {"auroc": np.zeros((4, 2, 3), np.float32)}):
        with pytest.raises(PydtError, match=r"gave 'auroc' of shape .*, not \(2, 3\)"):
            checked(Outcome({"primitives": arrays["primitives"], **given}), task, "row")
    failed = checked(Outcome({**arrays, "auroc": np.full((2, 3), np.nan, np.float32)}), task, "row")
    assert (failed.status, failed.reason) == ("failed", "auroc are not all finite")


def test_draws_are_named_and_older_stores_get_them(tmp_path: Path) -> None:
    job = plan(3)
    store = computed(tmp_path, job)
    task = job.tasks[0]
    positions, labels, _ = task.drawn()
    found = store.draws(task)
    np.testing.assert_array_equal(found["positions"], positions)
    np.testing.assert_array_equal(found["labels"], labels)
    assert found["keys"] == [["image 1", "image 4"], ["image 0", "image 4"]]
    assert "draws" not in store.task(task), "of judged examples alone"

    older = Store.create(tmp_path / "older")
    older.put_task(task.digest, task.target.described())
    with pytest.raises(StoreError, match="names no draws"):
        older.draws(task)
    older.put_task(task.digest, store.whole_task(task))
    path = Path("tasks") / f"{task.digest}.safetensors"
    assert (tmp_path / "older" / path).read_bytes() == (tmp_path / path).read_bytes()
    older.put_task(task.digest, task.target.described())
    assert older.draws(task)["keys"] == found["keys"]
    with pytest.raises(StoreError, match="other draws of the target examples are stored"):
        older.put_task(task.digest, {**store.whole_task(task), "draws": positions + 1})
