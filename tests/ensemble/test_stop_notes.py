"""A plan that stopped early: only the rows up to there are used, whatever else is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stub_store import filled

from pydt.base import ConfigError, StoreError
from pydt.estimation import failure_test
from pydt.store import Store

NOTE = {"rule": "stderr < 0.01", "rows": 5, "looks": 3, "estimate": {"stderr": 0.0097}, "reason": "sure"}


def test_only_the_prefix_is_used(tmp_path: Path) -> None:
    store = filled(tmp_path, 9, failures=(1, 6))
    masks, outputs = store.masks(), store.outputs("t")
    assert store.stopped() is None
    assert store.finished().tolist() == [0, 2, 3, 4, 5, 7, 8]
    store.path(store.plan().keys[3][0]).unlink()
    store.path(store.plan().keys[8][0]).unlink()
    store = Store(tmp_path)
    store.note_stop(None, NOTE)
    for reader in (store, Store(tmp_path)):
        assert reader.stopped() == NOTE
        assert reader.finished().tolist() == [0, 2, 4]
        assert [i for i, _, _ in reader.failed()] == [1]
        assert reader.missing().tolist() == [3]
        assert [row.seed for row in reader.rows()] == [0, 2, 4]
        assert [scalars["n"] for scalars in reader.scalars("t")] == [0, 2, 4]
        np.testing.assert_array_equal(reader.masks(), masks[[0, 1, 3]])
        np.testing.assert_array_equal(reader.outputs("t"), outputs[[0, 1, 3]])
        assert failure_test(reader)[:2] == (1, 4)
    assert all(store.done(keys[0]) for i, keys in enumerate(store.plan().keys) if i not in (3, 8))

    store.note_stop(None, None)  # the same plan without a rule: every row counts again
    assert Store(tmp_path).finished().tolist() == [0, 2, 4, 5, 7]
    store.note_stop(None, None)


def test_equal_stops_are_equal_bytes(tmp_path: Path) -> None:
    notes = []
    for name in "ab":
        store = filled(tmp_path / name, 6)
        store.note_stop(store.plan(), dict(reversed(NOTE.items())) if name == "b" else NOTE)
        notes.append((tmp_path / name / "stops" / f"{store.plan().digest}.json").read_bytes())
    assert notes[0] == notes[1]
    with pytest.raises(ConfigError, match="note_stop"):
        store.note_stop(None, {**NOTE, "rows": -1})


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "list", "other plan"])
def test_a_damaged_note_is_an_error_and_never_lets_more_rows_in(damage: str, tmp_path: Path) -> None:
    store = filled(tmp_path, 6)
    store.note_stop(None, NOTE)
    path = tmp_path / "stops" / f"{store.plan().digest}.json"
    text = path.read_bytes()
    if damage == "other plan":
        other = filled(tmp_path / "other", 7)
        other.note_stop(None, NOTE)
        text = (tmp_path / "other" / "stops" / f"{other.plan().digest}.json").read_bytes()
    path.write_bytes(
        {"flip": text.replace(b'"rows":5', b'"rows":4'), "cut": text[:-3], "empty": b"", "list": b"[1]"}.get(
            damage, text
        )
    )
    for _ in range(2):
        with pytest.raises(StoreError, match=r"stops/.*damaged.*delete this one file"):
            store.finished()
    path.unlink()
    assert len(store.finished()) == 6
