"""The bank's files: equal entries are equal bytes, damage is found, a full bank takes no more, it can be dropped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from stub_store import KEY, OTHER, contents, filled, flip

from pydt.base import StoreError, encode
from pydt.store import Bank, Kept, Store, compact, merge, status, verify

WEIGHTS = {"body.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "body.1.steps": np.array(7)}
KEPT = Kept("weights", WEIGHTS, {"source_loss": 0.1 + 0.2, "source_images": 12}, facts={"code": "1", "torch": "2.9"})


def bank(folder: Path) -> Bank:
    return Bank(Store.create(folder))


def test_an_entry_comes_back_bit_for_bit(tmp_path: Path) -> None:
    ours = bank(tmp_path)
    assert ours.get(KEY) is None
    size = ours.put(KEY, KEPT)
    found = ours.get(KEY)
    assert found is not None
    assert {name: (a.dtype, a.tolist()) for name, a in found.arrays.items()} == {
        name: (a.dtype, a.tolist()) for name, a in WEIGHTS.items()
    }
    assert (found.kind, found.metrics, found.reason, found.facts) == (KEPT.kind, KEPT.metrics, None, KEPT.facts)
    assert ours.sizes() == {KEY: size} == {KEY: ours.path(KEY).stat().st_size}
    assert ours.path(KEY) == tmp_path / "bank" / "ab" / f"{KEY}.safetensors"


def test_equal_entries_are_equal_bytes_in_whatever_order_and_layout_they_come(tmp_path: Path) -> None:
    one, two = bank(tmp_path / "one"), bank(tmp_path / "two")
    turned = {name: WEIGHTS[name].copy(order="F") for name in reversed(WEIGHTS)}
    one.put(KEY, KEPT)
    two.put(KEY, Kept("weights", turned, dict(reversed(KEPT.metrics.items())), facts=KEPT.facts))
    assert one.path(KEY).read_bytes() == two.path(KEY).read_bytes()


def test_a_training_that_failed_is_kept_as_its_reason(tmp_path: Path) -> None:
    bank(tmp_path).put(KEY, Kept("weights", reason="the loss became nan"))
    found = bank(tmp_path).get(KEY)
    assert found is not None
    assert found.reason == "the loss became nan"
    assert not found.arrays


@pytest.mark.parametrize("damage", ["flipped", "cut", "another's", "no weights", "sparse", "a folder"])
def test_a_damaged_entry_goes_to_quarantine_and_counts_as_missing(damage: str, tmp_path: Path) -> None:
    ours = bank(tmp_path)
    ours.put(KEY, KEPT)
    path = ours.path(KEY)
    data = path.read_bytes()
    if damage == "flipped":
        flip(path, len(data) - 3)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "another's":
        ours.put(OTHER, KEPT)
        ours.path(OTHER).rename(path)
    elif damage == "no weights":
        path.write_bytes(encode(WEIGHTS, {"key": KEY, "kind": "pickle", "reason": None, "metrics": {}}))
    elif damage == "sparse":
        os.truncate(path, 1 << 40)
    else:
        path.unlink()
        path.mkdir()
    assert ours.get(KEY) is None
    assert not path.exists()
    assert len(os.listdir(tmp_path / "quarantine")) == 1
    assert verify(tmp_path)["damaged"] == []


def test_verify_finds_a_damaged_entry_and_status_counts_the_bank(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    ours = Bank(store)
    ours.put(KEY, KEPT)
    ours.put(OTHER, KEPT)
    assert status(tmp_path)["bank"] == {"entries": 2, "bytes": sum(ours.sizes().values())}
    assert verify(tmp_path)["kept"] == 2
    flip(ours.path(OTHER), 300)
    found = verify(tmp_path)
    assert (found["kept"], found["verified"]) == (1, False)
    assert [(item["file"], item["moved"]) for item in found["damaged"]] == [(f"bank/cd/{OTHER}.safetensors", True)]
    assert list(ours.sizes()) == [KEY]


def test_what_is_too_large_is_not_written(tmp_path: Path) -> None:
    ours = bank(tmp_path)
    size = ours.put(KEY, KEPT)
    assert size is not None
    assert ours.put(OTHER, KEPT, most=size - 1) is None
    assert ours.put(OTHER, KEPT, most=10) is None
    assert list(ours.sizes()) == [KEY]
    assert ours.put(OTHER, KEPT, most=size) == size


def test_compact_leaves_the_bank_or_drops_it_under_the_writers_lock(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    Bank(store).put(KEY, KEPT)
    size = sum(Bank(store).sizes().values())
    compact(tmp_path)
    assert Bank(store).sizes()
    with store.writing(), pytest.raises(StoreError):
        compact(tmp_path, drop_bank=True)
    done = compact(tmp_path, drop_bank=True)
    assert (done["dropped"], done["freed"]) == (1, size)
    assert not (tmp_path / "bank").exists()
    assert len(Store(tmp_path).finished()) == 3


def test_merge_copies_the_entries_that_are_whole_and_not_there(tmp_path: Path) -> None:
    filled(tmp_path / "a", 3)
    theirs = Bank(filled(tmp_path / "b", 3))
    Bank(Store(tmp_path / "a")).put(KEY, KEPT)
    third = "ef" + 30 * "2"
    for key in (KEY, OTHER, third):
        theirs.put(key, KEPT)
    flip(theirs.path(third), 300)
    report = merge(tmp_path / "a", tmp_path / "b")
    assert report["kept"] == 1
    assert [Path(item["file"]).name for item in report["damaged"]] == [f"{third}.safetensors"]
    assert theirs.path(third).exists()
    ours = Bank(Store(tmp_path / "a"))
    assert list(ours.sizes()) == [KEY, OTHER]
    assert ours.path(OTHER).read_bytes() == theirs.path(OTHER).read_bytes()
    before = contents(tmp_path / "a")
    assert merge(tmp_path / "a", tmp_path / "b")["kept"] == 0
    assert contents(tmp_path / "a") == before


def test_a_dead_writers_temporary_file_is_removed(tmp_path: Path) -> None:
    ours = bank(tmp_path)
    ours.put(KEY, KEPT)
    left = ours.path(KEY).with_name(f".{KEY}.safetensors.0123abcd-1-0000.tmp")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    Store.create(tmp_path)
    assert not left.exists()
    assert list(ours.sizes()) == [KEY]
