"""What `verify` finds, names and puts aside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stub_store import GOOD, KEY, METADATA, TASKS, computed, flip, store_wrong, two_tasks

from pydt.design.kinds.bernoulli import Independent
from pydt.store import verify


def test_a_whole_store_is_verified_and_a_half_one_is_not(tmp_path: Path) -> None:
    job = two_tasks(5)
    computed(tmp_path, job, range(4), failures=(1,))
    found = verify(tmp_path)
    expected = {"verified": False, "cells": 8, "kept": 0, "damaged": [], "missing": {job.digest: 1}, "unclaimed": 0}
    assert found == expected
    store = computed(tmp_path, job, failures=(1,))
    assert verify(tmp_path) == {**expected, "verified": True, "cells": 10, "missing": {job.digest: 0}}
    store.path(store.plan().keys[4][1]).unlink()
    store.note_stop(None, {"rows": 4})  # later rows do not count
    store.put(KEY, GOOD, METADATA)
    assert verify(tmp_path) == {**expected, "verified": True, "cells": 10, "missing": {job.digest: 0}, "unclaimed": 1}
    assert not (tmp_path / "quarantine").exists()


def test_every_kind_of_damage_is_found_named_and_put_aside(tmp_path: Path) -> None:
    job = two_tasks(9)
    store = computed(tmp_path, job)
    keys = [keys[0] for keys in store.plan().keys]
    shape = store.get(keys[0]).arrays["primitives"].shape
    flip(store.path(keys[0]), -1)
    flip(store.path(keys[1]), 12)
    store_wrong(store, keys[2], seed=99)
    store_wrong(store, keys[3], task="another")
    store_wrong(store, keys[4], arrays={"primitives": np.full(shape, np.nan, np.float32)})
    store_wrong(store, keys[5], arrays={"primitives": np.zeros((4, 2, 3), np.float32)})
    store_wrong(store, keys[6], recipe=None, training=None)
    store.path(keys[7]).write_bytes(b"")
    other = two_tasks(3, seed=8)
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
    job = two_tasks(3)
    computed(tmp_path, job).note_stop(None, {"rows": 2})
    path = tmp_path / "stops" / f"{job.digest}.json"
    path.write_text("{")
    (entry,) = verify(tmp_path)["damaged"]
    assert (entry["file"], entry["moved"]) == (f"stops/{job.digest}.json", False)
    assert path.exists()


def test_a_design_that_draws_otherwise_is_not_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = two_tasks(3)
    computed(tmp_path, job)
    monkeypatch.setattr(Independent, "__call__", lambda self, rows, columns: np.ones((len(rows), columns), bool))
    found = verify(tmp_path)
    assert "other masks than the rows have" in found["damaged"][0]["reason"]
    assert not found["verified"]
    assert found["cells"] == 6  # which are whole all the same
