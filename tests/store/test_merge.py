"""Parts of an ensemble become the whole, each row at most once."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource
from stub_store import TASKS, computed, contents, flip, store_wrong, two_tasks

from pydt import design
from pydt.base import StoreError
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.store import Store, merge, status
from pydt.store import compact as compact_store

compact = partial(compact_store, fewest=2)


def test_parts_trained_on_several_machines_become_the_whole(tmp_path: Path) -> None:
    job = two_tasks(9)
    computed(tmp_path / "whole", job, failures=(4,))
    computed(tmp_path / "a", job, [0, 3, 4, 6], failures=(4,)).log(event="row", row=0, keys=["?"])
    b = computed(tmp_path / "b", job, [1, 3, 5, 7, 8])
    b.log(event="row", row=7, time=5.0, keys=list(b.plan().keys[7]))
    computed(tmp_path / "c", two_tasks(6, tasks=TASKS[1:]), [2])
    compact(tmp_path / "b")
    parts = [tmp_path / name for name in "abc"]
    before = [contents(part) for part in parts]
    found = merge(tmp_path / "new", *parts)
    assert found == {"copied": 17, "same": 2, "kept": 0, "damaged": []}
    assert [contents(part) for part in parts] == before
    store = Store(tmp_path / "new", job.digest)
    assert store.missing().tolist() == [2]
    assert [json.loads(line)["row"] for line in (tmp_path / "new" / "log.jsonl").read_text().splitlines()] == [7]
    again = contents(tmp_path / "new")
    assert merge(tmp_path / "new", *reversed(parts)) == {"copied": 0, "same": 19, "kept": 0, "damaged": []}
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
        "short": two_tasks(design=drawn, seeds=seeds),
        "long": two_tasks(design=drawn.extend(12), seeds=range(12)),
        "odd": two_tasks(design=drawn.take([1, 3, 5]), seeds=[1, 3, 5]),
        "own": two_tasks(design=own, seeds=seeds),
        "half": two_tasks(design=own.take([2, 0]), seeds=[2, 0]),
    }
    for name, job in jobs.items():
        computed(tmp_path / name, job)
    found = merge(tmp_path / "short", *(tmp_path / name for name in jobs if name != "short"))
    assert found["copied"] == 8  # the rows that only the long one has, for two tasks
    assert len(Store(tmp_path / "short").plans()) == 5


def test_a_store_of_another_design_is_refused_and_nothing_is_copied(tmp_path: Path) -> None:
    computed(tmp_path / "a", two_tasks(4))
    computed(tmp_path / "b", two_tasks(5))
    computed(tmp_path / "c", two_tasks(4, seed=1))
    computed(tmp_path / "d", Plan(StubSource("other"), design=two_tasks().design, recipe=StubRecipe(), tasks=TASKS))
    before = contents(tmp_path / "a")
    for name, wrong in (("c", "another design"), ("d", "another source, other groups or another recipe")):
        with pytest.raises(StoreError, match=rf"/{name}: .*{wrong}.*merge only stores of one design"):
            merge(tmp_path / "a", tmp_path / "b", tmp_path / name)
        assert contents(tmp_path / "a") == before
    with pytest.raises(StoreError, match="another design"):
        merge(tmp_path / "new", tmp_path / "a", tmp_path / "c")


def test_another_result_for_the_same_row_is_refused(tmp_path: Path) -> None:
    a, b = (computed(tmp_path / name, two_tasks(4)) for name in "ab")
    key = a.plan().keys[2][1]
    store_wrong(b, key, scalars={"score_accuracy": 0.25})
    b.path(a.plan().keys[0][0]).unlink()
    a.path(a.plan().keys[1][0]).unlink()
    before = contents(tmp_path / "a")
    with pytest.raises(StoreError, match=rf"/b/.*{key}.*another result is stored for the same row than in .*/a"):
        merge(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path / "a") == before


def test_damaged_cells_of_others_are_left_out_and_named(tmp_path: Path) -> None:
    job = two_tasks(4)
    b = computed(tmp_path / "b", job)
    flip(b.path(b.plan().keys[2][0]), -1)
    found = merge(tmp_path / "a", tmp_path / "b")
    assert found["copied"] == 7
    assert [entry["reason"] for entry in found["damaged"]] == ["is damaged (its checksum does not match)"]
    assert not (tmp_path / "b" / "quarantine").exists()
    assert Store(tmp_path / "a").missing().tolist() == [2]


def test_stops_and_counterfactuals_come_along(tmp_path: Path) -> None:
    job = two_tasks(4)
    b = computed(tmp_path / "b", job)
    b.note_stop(None, {"rows": 3})
    (tmp_path / "b" / "counterfactual").mkdir()
    (tmp_path / "b" / "counterfactual" / f"{job.digest}.json").write_text("{}")
    merge(tmp_path / "a", tmp_path / "b")
    assert Store(tmp_path / "a").stopped()["rows"] == 3
    assert (tmp_path / "a" / "counterfactual" / f"{job.digest}.json").read_text() == "{}"


def test_what_an_unmet_rule_had_reached_comes_along(tmp_path: Path) -> None:
    b = computed(tmp_path / "b", two_tasks(4))
    b.note_rule(None, {"rule": "stderr < 1", "reason": "widest 2", "looks": 1, "looked": 4, "decided": []})
    merge(tmp_path / "a", tmp_path / "b")
    assert b.rule() is not None
    assert Store(tmp_path / "a").rule() == b.rule()
    assert status(tmp_path / "a")["unmet"] == b.rule()


def test_another_stores_stop_takes_no_row_from_a_plan_that_goes_on(tmp_path: Path) -> None:
    job = two_tasks(4)
    whole, stopped = computed(tmp_path / "whole", job), computed(tmp_path / "stopped", job)
    stopped.note_stop(None, {"rows": 3})
    merge(tmp_path / "whole", tmp_path / "stopped")
    assert whole.stopped() is None
    assert Store(tmp_path / "whole").finished().tolist() == [0, 1, 2, 3]
    merge(tmp_path / "stopped", tmp_path / "whole")
    assert Store(tmp_path / "stopped").stopped()["rows"] == 3
