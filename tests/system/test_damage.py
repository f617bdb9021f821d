"""A store from elsewhere, or a damaged one: an error or a missing row, never a crash, a number or a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, go
from stub_store import GOOD, KEY, METADATA, computed, contents

import pydt.store.cells
from pydt import design
from pydt.base import DesignError, PydtError, StoreError, canonical_json, digest, encode, exclusive, load
from pydt.design.kinds.bernoulli import Independent
from pydt.ensemble import Plan
from pydt.store import Outcome, Store, compact, export, merge, verify
from pydt.store.block_format import STATUS
from pydt.store.cells import every_key


def plan(rows: int = 6) -> Plan:
    drawn = design.bernoulli(GROUPS, rows)
    return Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=(StubTask(),))


def packed(folder: Path) -> Path:
    """The block of a store that is compacted now."""
    computed(folder, plan())
    compact(folder, fewest=2)
    (block,) = (folder / "packed").iterdir()
    return block


# ---- what a header may say


def test_a_scalar_called_status_is_not_the_status(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.put(KEY, Outcome(status="failed", reason="x", scalars={"status": "ok"}), METADATA)
    assert Store(tmp_path).state(KEY) == (STATUS["failed"], "x")


HEADERS: list[dict[str, Any]] = [
    {"rows": 6},
    {"rows": "6"},
    {"rows": -1},
    {"shape": [4, -1, 1]},
    {"shape": None},
    {"offsets": {"primitives.npy": 1.5}},
    {"common": []},
]


@pytest.mark.parametrize("changes", HEADERS, ids=str)
def test_headers_that_no_block_has_cost_its_rows_and_nothing_else(changes: dict[str, Any], tmp_path: Path) -> None:
    index = packed(tmp_path) / "index.jsonl"
    header = json.loads(index.read_text().splitlines()[0])
    del header["sha256"]
    header = changes if changes == {"rows": 6} else {**header, **changes}
    index.write_text(canonical_json({**header, "sha256": digest("block", header)}) + "\n")
    assert len(Store(tmp_path).missing()) == 6
    assert len(computed(tmp_path, plan()).finished()) == 6


def test_a_block_that_claims_terabytes_takes_no_memory(tmp_path: Path) -> None:
    index = packed(tmp_path) / "index.jsonl"
    lines = index.read_text().splitlines()
    header = json.loads(lines[0])
    del header["sha256"]
    header["shape"] = [4, 1 << 20, 1 << 24]
    lines[0] = lines[-1] = canonical_json({**header, "sha256": digest("block", header)})
    index.write_text("\n".join([*lines, ""]))
    with pytest.raises(StoreError, match="ends too early"):
        Store(tmp_path).read(plan().record().keys[0][0])


def test_sparse_files_take_no_memory(tmp_path: Path) -> None:
    index = packed(tmp_path) / "index.jsonl"
    os.truncate(index, 1 << 43)
    (tmp_path / "plans" / f"{'0' * 32}.json").touch()
    os.truncate(tmp_path / "plans" / f"{'0' * 32}.json", 1 << 43)
    store = Store(tmp_path)
    assert len(store.missing()) == 6
    assert [path.suffix for path in (tmp_path / "quarantine").iterdir()] == [""]
    assert len(store.plans()) == 1


def test_a_plan_of_more_rows_than_fit_is_refused(tmp_path: Path) -> None:
    computed(tmp_path, plan())
    (path,) = (tmp_path / "plans").iterdir()
    plain = json.loads(path.read_text())
    plain["design"]["models"] = plain["rows"]["count"] = 10**13
    (tmp_path / "plans" / f"{digest('plan', plain)}.json").write_text(canonical_json(plain))
    store = Store(tmp_path)
    assert list(store.plans()) == [path.stem]
    with pytest.raises(DesignError, match=r"has 16,777,217 rows"):
        plan((1 << 24) + 1)


@pytest.mark.parametrize("name", ["../../outside", "a/b", "..\\outside", "\0", "x" * 300])
def test_names_in_files_are_no_paths(name: str, tmp_path: Path) -> None:
    store = computed(tmp_path / "store", plan())
    (tmp_path / "outside.safetensors").write_bytes(encode({"labels": np.arange(3)}, {}))
    with pytest.raises(StoreError, match="is not there"):
        store.task(name)
    with pytest.raises(StoreError, match="no plan"):
        store.plan(name)


# ---- what is read is checked


def test_scalars_are_checked_like_arrays(tmp_path: Path) -> None:
    store = computed(tmp_path, plan())
    path = store.path(store.plan().keys[2][0])
    data = bytearray(path.read_bytes())
    place = data.index(b'report_accuracy\\":0.') + len(b'report_accuracy\\":0.')
    data[place] = ord("9") if data[place] != ord("9") else ord("8")
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"checksum.*run the same plan again"):
        Store(tmp_path).scalars("digits")
    assert Store(tmp_path).missing().tolist() == [2]


def test_rows_named_by_a_rule_are_not_taken_for_those_of_another_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = design.bernoulli(4104, 6)  # more groups than are named by their masks
    job = Plan(StubSource(groups=4104), design=drawn, recipe=StubRecipe(), tasks=(StubTask(),))
    computed(tmp_path, job)
    real = Independent.__call__
    monkeypatch.setattr(Independent, "__call__", lambda self, *given: ~real(self, *given))
    with pytest.raises(StoreError, match="other masks than the rows have"):
        computed(tmp_path, Plan(job.source, design=drawn.extend(7), recipe=StubRecipe(), tasks=(StubTask(),)))


def test_outputs_are_kept_for_the_latest_rows_and_not_for_all_there_ever_were(tmp_path: Path) -> None:
    store = computed(tmp_path, plan(), [0])
    for row in range(1, 6):
        computed(tmp_path, plan(), [row])
        assert len(store.outputs("digits")) == row + 1
    first = store.outputs("digits", "logit", "report")
    assert store.outputs("digits", "logit", "report") is first
    store.kept = 3 * first.nbytes
    for half in ("score", "report", "all"):
        store.outputs("digits", "correct", half)
    again = store.outputs("digits", "logit", "report")
    assert again is not first  # which had to go
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("without", ["scalars", "reason", "status"])
def test_a_cell_that_says_less_than_a_cell_does_is_damaged(without: str, tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.put(KEY, GOOD, METADATA)
    arrays, metadata = load(store.path(KEY))
    del metadata[without]
    store.path(KEY).write_bytes(encode(arrays, metadata))
    with pytest.raises(StoreError, match="damaged"):
        store.get(KEY)
    assert not store.done(KEY)


@pytest.mark.parametrize("shape", [None, (4, 40), (4, 3, 39), (4, 3, 41)])
def test_outputs_of_other_examples_are_no_numbers_of_these(shape: Any, tmp_path: Path) -> None:
    store = computed(tmp_path, plan())
    key = store.plan().keys[1][0]
    metadata = load(store.path(key))[1]
    arrays = {} if shape is None else {"primitives": np.zeros(shape, np.float32)}
    store.path(key).write_bytes(encode(arrays, metadata))
    with pytest.raises(StoreError, match=r"no outputs of the 40 examples.*pydt verify"):
        Store(tmp_path).outputs("digits")
    with pytest.raises(StoreError, match="no outputs of the 40 examples"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(StoreError, match="no outputs of the 40 examples"):
        go(plan(), tmp_path)
    assert not verify(tmp_path)["verified"]
    assert Store(tmp_path).missing().tolist() == [1]
    assert len(go(plan(), tmp_path).masks()) == 6


# ---- other processes


def test_a_fork_does_not_take_the_lock_away(tmp_path: Path) -> None:
    held = exclusive(tmp_path / ".lock")
    held.__enter__()
    child = os.fork()
    if child == 0:
        try:
            held.__exit__(None, None, None)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(StoreError, match="is being written"), exclusive(tmp_path / ".lock"):
        pass
    held.__exit__(None, None, None)
    assert not (tmp_path / ".lock").exists()


def test_a_block_that_is_replaced_while_a_reader_lists_is_found_in_its_new_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = packed(tmp_path)
    with open(block / "primitives.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    Store(tmp_path).check()
    computed(tmp_path, plan())
    real = pydt.store.cells.Block

    def opened(folder: Path) -> Any:
        monkeypatch.setattr(pydt.store.cells, "Block", real)
        compact(tmp_path, fewest=2)  # the worn block goes, after it was listed
        return real(folder)

    monkeypatch.setattr(pydt.store.cells, "Block", opened)
    assert sum(len(found.keys) for found in Store(tmp_path).blocks()) == 6


def test_a_store_that_is_compacted_meanwhile_is_seen_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed(tmp_path, plan())
    store, real = Store(tmp_path), Store.blocks

    def blocks(self: Store) -> Any:
        monkeypatch.setattr(Store, "blocks", real)
        found = real(self)
        compact(tmp_path, fewest=2)  # after it was asked for blocks
        return found

    monkeypatch.setattr(Store, "blocks", blocks)
    assert len(list(every_key(store))) == 6
    assert len(list(every_key(store))) == 6


# ---- what merging and verifying say


def test_merging_counts_damage_once_and_in_its_own_store(tmp_path: Path) -> None:
    first = computed(tmp_path / "a", plan(), [0, 1, 2])
    computed(tmp_path / "b", plan(), [2, 3, 4, 5])
    path = first.path(first.plan().keys[0][0])
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    before = contents(tmp_path / "a")
    found = merge(tmp_path / "new", tmp_path / "a", tmp_path / "b")
    assert (found["copied"], found["same"]) == (5, 1)
    assert [entry["file"] for entry in found["damaged"]] == [str(path)]
    assert contents(tmp_path / "a") == before


def test_stores_that_contradict_each_other_are_refused_before_anything_is_copied(tmp_path: Path) -> None:
    for name in "ab":
        computed(tmp_path / name, plan())
    store = Store(tmp_path / "b")
    key = store.plan().keys[3][0]
    outcome, metadata = store.read(key)
    store.path(key).write_bytes(encode({"primitives": outcome.arrays["primitives"] + 1}, metadata))
    with pytest.raises(StoreError, match="another result"):
        merge(tmp_path / "new", tmp_path / "a", tmp_path / "b")
    assert not list((tmp_path / "new").glob("rows/*/*.safetensors"))


def test_a_block_of_which_nothing_can_be_read_is_named(tmp_path: Path) -> None:
    block = packed(tmp_path / "a")
    (block / "index.jsonl").write_text("{}\n")
    before = contents(tmp_path / "a")
    found = merge(tmp_path / "new", tmp_path / "a")
    assert found["damaged"] == [{"file": str(block), "reason": "is damaged (both headers)"}]
    assert contents(tmp_path / "a") == before
    checked = verify(tmp_path / "a")
    where = str(block.relative_to(tmp_path / "a"))
    assert checked["damaged"] == [{"file": where, "reason": "is damaged (both headers)", "moved": True}]
    assert not checked["verified"]


def test_names_of_other_bytes_than_utf8_are_logged_and_have_no_digest(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.log(event="x", file=os.fsdecode(b"a\x80b"))
    assert json.loads((tmp_path / "log.jsonl").read_text())["file"] == "a\udc80b"
    with pytest.raises(PydtError, match="whole characters"):
        digest(["a\udc80b"])
