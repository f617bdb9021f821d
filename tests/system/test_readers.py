"""Readers of a store that is being written and compacted: no errors, no row lost, nothing but what was written."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask
from stub_store import computed

from pydt import design
from pydt.ensemble import Plan
from pydt.store import Store, compact, merge, status


def plan(rows: int) -> Plan:
    drawn = design.bernoulli(GROUPS, rows, seed=3)
    return Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=(StubTask(),), seed=2)


def test_many_readers_while_rows_are_written_and_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    rows, job = 60, plan(60)
    whole = np.array(computed(tmp_path / "whole", job).outputs("digits"))
    folder, done, problems = tmp_path / "store", threading.Event(), []
    computed(folder, job, [0])
    counts: list[list[int]] = [[] for _ in range(4)]

    def read(reader: int) -> None:
        store = Store(folder)
        try:
            last = False
            while not last:
                last = done.is_set()  # once more after the end
                if reader % 2:
                    store = Store(folder)  # one that comes anew each time, and one that stays
                finished = store.finished()
                counts[reader].append(len(finished))
                outputs = store.outputs("digits")
                assert len(outputs) >= len(finished)
                # of two rows that finish while folders are listed, the later may be seen alone
                places = [np.flatnonzero((whole == row).all(1)).tolist() for row in outputs]
                assert all(len(place) == 1 for place in places)
                assert places == sorted(places)
                assert len({place for (place,) in places}) == len(outputs)
                if last:
                    np.testing.assert_array_equal(outputs, whole)
                assert status(folder)["quarantined"] == 0
        except BaseException as error:
            problems.append(error)

    readers = [threading.Thread(target=read, args=(i,)) for i in range(len(counts))]
    for reader in readers:
        reader.start()
    for start in range(0, rows, 10):
        computed(folder, job, range(start, start + 10))
        compact(folder, fewest=2)
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    for seen in counts:
        assert seen == sorted(seen)
        assert seen[-1] == rows
    assert max(len(set(seen)) for seen in counts) > 2


def test_merging_into_a_store_that_is_read(tmp_path: Path) -> None:
    computed(tmp_path / "a", plan(6), [0, 2])
    computed(tmp_path / "b", plan(6))
    reader = Store(tmp_path / "a")
    assert reader.finished().tolist() == [0, 2]
    merge(tmp_path / "a", tmp_path / "b")
    assert reader.finished().tolist() == list(range(6))
    assert reader.outputs("digits").shape[0] == 6
