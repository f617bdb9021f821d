"""The store: what is read is what was written, or an error; whatever died in between.

More than 500 lines, as the class it tests: one class answers all questions about the rows of a plan.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors import safe_open
from stub_store import GOOD, KEY, METADATA, OTHER, filled, logits, record

import pydt.base.files
from pydt.base import ConfigError, DesignError, StoreError, canonical_json, encode, load, write_atomic
from pydt.base.tensorfile import decode
from pydt.store import Outcome, Record, Row, Store, derive
from pydt.store.outputs import OUTPUTS
from pydt.store.rows import result_key, source_key

# ---- rows and keys


@given(st.lists(st.booleans(), max_size=40))
def test_row_keeps_its_mask(mask: list[bool]) -> None:
    row = Row(mask, 3)
    assert row.mask.tolist() == mask
    assert row.groups == len(mask)
    assert Row(row.keep, 3, groups=len(mask)) == row


@pytest.mark.parametrize("keep", [[0, 2], [[0, 1]], [0.5]])
def test_row_refuses_what_is_no_mask(keep: Any) -> None:
    with pytest.raises(DesignError, match=r"Row\.keep"):
        Row(keep, 0)
    with pytest.raises(DesignError, match="packed"):
        Row(b"\1\1", 0, groups=3)
    for seed in (-1, 1.5, "7", 1 << 63):
        with pytest.raises(ConfigError, match="Row: seed"):
            Row([1, 0], seed)  # type: ignore[arg-type]
    assert Row([1, 0], np.int32(7)).seed == 7  # type: ignore[arg-type]


def test_keys_depend_on_everything_that_decides_the_numbers_and_on_nothing_else() -> None:
    row = Row([1, 0, 1], 7)
    base = source_key("s", "u", row, "r")
    assert base == source_key("s", "u", Row([1, 0, 1], 7, "another kind"), "r")
    others = [
        source_key("S", "u", row, "r"),
        source_key("s", "U", row, "r"),
        source_key("s", "u", Row([1, 0, 1], 8), "r"),
        source_key("s", "u", Row([1, 0, 0], 7), "r"),
        source_key("s", "u", Row([1, 0, 1, 0], 7), "r"),
        source_key("s", "u", row, "R"),
    ]
    assert len({base, *others}) == 7
    assert result_key(base, "a") != result_key(base, "b")


# ---- one file


def test_file_is_plain_safetensors_with_one_metadata_key(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    assert store.put(KEY, GOOD, METADATA)
    path = tmp_path / "rows" / "ab" / f"{KEY}.safetensors"
    with safe_open(path, "numpy") as file:
        assert list(file.metadata()) == ["pydt"]
        text = json.loads(file.metadata()["pydt"])
        np.testing.assert_array_equal(file.get_tensor("primitives"), GOOD.arrays["primitives"])
    assert text["seed"] == 1
    assert text["status"] == "ok"
    assert text["scalars"] == {"accuracy": 0.5, "epochs": 3}
    fresh = Store(tmp_path)
    assert fresh.done(KEY)
    assert fresh.get(KEY).scalars == GOOD.scalars
    assert fresh.metadata(KEY)["code"] == "x"
    assert not fresh.done(OTHER)


@settings(deadline=None, max_examples=40)
@given(
    arrays(
        st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.bool_]), array_shapes(min_dims=0, min_side=0)
    ),
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(-9, 9), st.text(max_size=5), st.none()), max_size=3),
    st.data(),
)
def test_damage_is_never_read_as_data(array: np.ndarray, metadata: dict[str, Any], data: st.DataObject) -> None:
    metadata.pop("sha256", None)
    whole = encode({"a": array}, metadata)
    assert whole == encode({"a": array.copy()}, dict(reversed(metadata.items())))
    assert whole == encode({"a": array.astype(array.dtype.newbyteorder(">"))}, metadata)
    found, described = decode(whole)
    assert found["a"].dtype == array.dtype
    assert found["a"].shape == array.shape
    assert found["a"].tobytes() == array.tobytes()
    assert described == metadata

    with pytest.raises(StoreError, match="damaged"):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(StoreError, match="damaged"):
        decode(whole + data.draw(st.binary(min_size=1, max_size=9)))


def test_every_truncation_and_every_flipped_bit_is_seen() -> None:
    whole = encode({"b": np.arange(3, dtype=np.int16), "a": np.float32([1.5])}, {"seed": 3, "reason": None})
    arrays, metadata = decode(whole)
    for length in range(len(whole)):
        with pytest.raises(StoreError, match="damaged"):
            decode(whole[:length])
    harmless = 0
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            found, described = decode(bytes(broken))
        except StoreError:
            continue
        harmless += 1  # a padding blank may turn into another kind of blank: the content is the same
        assert described == metadata
        assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in arrays.items()}
    assert harmless <= 8


def _bomb() -> bytes:
    text = b'{"__metadata__":{"pydt":"' + b"[" * 50_000 + b'"}}'
    return struct.pack("<Q", len(text)) + text


HOSTILE = {
    "empty": b"",
    "no header": struct.pack("<Q", 0),
    "negative": struct.pack("<q", -1) + b"{}",
    "huge": struct.pack("<Q", 1 << 62) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"\xff\xfe{}",
    "list": struct.pack("<Q", 2) + b"[]",
    "no metadata": struct.pack("<Q", 2) + b"{}",
    "nesting": _bomb(),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtin\x94.",
    "overflow": (
        lambda text: struct.pack("<Q", len(text)) + text
    )(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]},"__metadata__":{"pydt":"{}"}}'),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_goes_to_quarantine(name: str, tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    path = store.path(KEY)
    path.parent.mkdir()
    path.write_bytes(HOSTILE[name])
    assert not store.done(KEY)
    assert not path.exists()
    moved = list((tmp_path / "quarantine").iterdir())
    assert [file.read_bytes() for file in moved] == [HOSTILE[name]]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[0]["event"] == "quarantine"
    assert "damaged" in log[0]["reason"]
    assert store.put(KEY, GOOD, METADATA)
    assert Store(tmp_path).done(KEY)


@pytest.mark.parametrize("kind", ["fifo", "folder", "sparse"])
def test_what_is_no_file_neither_blocks_nor_fills_the_memory(kind: str, tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    path = store.path(KEY)
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(encode(GOOD.arrays, METADATA))
        os.truncate(path, 1 << 43)
    assert not store.done(KEY)
    assert store.put(KEY, GOOD, METADATA)


def test_reading_a_damaged_cell_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    store.masks()
    path = store.path(store.plan().keys[1][0])
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"checksum.*quarantine.*run the same plan again"):
        store.outputs("t")
    assert store.missing().tolist() == [1]
    assert store.finished().tolist() == [0, 2]
    assert store.outputs("t").shape == (2, 4)


def test_outputs_are_of_the_rows_that_are_there_now(tmp_path: Path) -> None:
    """Also where as many rows are there as when the outputs were last asked for, but others."""
    store = filled(tmp_path, 4)
    whole = store.outputs("t").copy()
    lost = store.path(store.plan().keys[1][0])
    kept = lost.read_bytes()
    for row, there in ((1, [0, 2, 3]), (2, [0, 1, 3])):
        path = store.path(store.plan().keys[row][0])
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(StoreError, match="damaged"):
            store.get(path.stem)
        np.testing.assert_array_equal(store.outputs("t"), whole[there])
        lost.write_bytes(kept)


def test_outputs_are_kept_for_the_next_question_and_not_without_end(tmp_path: Path) -> None:
    """What was asked for longest ago goes first; whatever is asked in between, each question has its own answer."""
    store = filled(tmp_path, 5, tasks=("t", "u"))
    asked = [(task, output, half) for task in "tu" for output in ("margin", "correct") for half in ("score", "report")]
    first = {key: store.outputs(*key) for key in asked}
    assert not any(values.flags.writeable for values in first.values())
    for key in asked:
        assert store.outputs(*key) is first[key]
        np.testing.assert_array_equal(first[key], Store(tmp_path).outputs(*key))
    assert len({values.tobytes() for values in first.values()}) == len(asked)
    a, b, c, d = asked[::2]  # of the score half: of one size
    store = Store(tmp_path)
    store.kept = 3 * first[a].nbytes
    kept = {key: store.outputs(*key) for key in (a, b, a, c)}
    assert store.outputs(*a) is kept[a]
    assert store.outputs(*c) is kept[c]
    assert store.outputs(*b) is kept[b]  # as many bytes as may be kept
    store.outputs(*d)
    assert store.outputs(*c) is kept[c]
    assert store.outputs(*a) is not kept[a]


def test_file_under_another_name_is_refused(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.put(KEY, GOOD, METADATA)
    store.path(OTHER).parent.mkdir()
    os.replace(store.path(KEY), store.path(OTHER))
    assert not store.done(OTHER)


def test_same_result_twice_is_harmless_another_one_is_refused(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    assert store.put(KEY, GOOD, METADATA)
    before = store.path(KEY).read_bytes()
    assert not store.put(KEY, GOOD, {**METADATA, "code": "a newer version"})
    arrays = {"primitives": GOOD.arrays["primitives"] + np.float32(1e-3)}
    for other in (Outcome(arrays, GOOD.scalars), Outcome(GOOD.arrays, {}), Outcome(status="failed", reason="x")):
        with pytest.raises(StoreError, match="different result"):
            store.put(KEY, other, METADATA)
        with pytest.raises(StoreError, match="different result"):
            Store(tmp_path).put(KEY, other, METADATA)
    assert store.path(KEY).read_bytes() == before


class Killed(BaseException):
    """The process ends here: nobody catches it."""


def _bytes(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "fault", [Killed(), OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O error")]
)
def test_fault_at_every_system_call_leaves_all_or_nothing(
    fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [(KEY, GOOD), (OTHER, Outcome(status="failed", reason="diverged"))]

    def write(folder: Path) -> None:
        store = Store.create(folder)
        store.put_task("t", {"labels": np.arange(3), "half": np.zeros(3, np.uint8), "ids": np.arange(3)})
        store.put_plan(record([Row([1, 0], 0)]))
        for key, outcome in cells:
            store.put(key, outcome, METADATA)

    write(tmp_path / "whole")
    expected = _bytes(tmp_path / "whole")
    n, happened = 0, True
    while happened:
        folder = tmp_path / str(n)
        with monkeypatch.context() as patch:
            count, fatal = 0, n + 1
            for module, name in ((os, "fsync"), (os, "replace"), (os, "open"), (pydt.base.files, "open")):
                real = getattr(module, name, open)

                def trip(*args: Any, _real: Any = real, _fatal: int = fatal, **kwargs: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == _fatal:
                        raise fault
                    return _real(*args, **kwargs)

                patch.setattr(module, name, trip, raising=False)
            with contextlib.suppress(Killed, StoreError):
                write(folder)
            happened = count > n
        if (folder / "store.json").exists():
            for key, outcome in cells:
                store = Store(folder)
                if store.done(key):
                    assert store.get(key).status == outcome.status
            assert not (folder / "quarantine").exists()
        write(folder)
        assert _bytes(folder) == expected
        n += 1
    assert n > 20


# ---- a store


def test_folder_that_cannot_be_written_is_named_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/store.*choose a folder you may write to"):
        Store.create(tmp_path / "file" / "store")


def test_existing_store_that_became_unwritable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.create(tmp_path)

    def refuse(path: Path, data: bytes, **more: Path) -> None:
        raise StoreError("cannot be written", str(path))

    monkeypatch.setattr("pydt.store.cells.write_atomic", refuse)
    with pytest.raises(StoreError, match="cannot be written"):
        Store.create(tmp_path)


def test_no_store_a_damaged_one_and_a_newer_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no store"):
        Store(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path)
    (tmp_path / "store.json").write_text('{"format":99}')
    for opened in (Store, Store.create):
        with pytest.raises(StoreError, match="format 99"):
            opened(tmp_path)
    assert (tmp_path / "store.json").read_text() == '{"format":99}'


def test_opening_for_writing_leaves_nothing_but_a_store(tmp_path: Path) -> None:
    for _ in range(2):
        Store.create(tmp_path)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["store.json"]


def test_rows_masks_and_outputs_stay_together_when_rows_fail(tmp_path: Path) -> None:
    filled(tmp_path, 6, failures=(1, 4), tasks=("t", "v"))
    store = Store(tmp_path)
    plan = store.plan()
    assert store.finished().tolist() == [0, 2, 3, 5]
    assert [(i, row.seed, reason) for i, row, reason in store.failed()] == [(1, 1, "loss of 1"), (4, 4, "loss of 4")]
    np.testing.assert_array_equal(store.masks(), [plan.rows[i].mask for i in (0, 2, 3, 5)])
    assert [row.seed for row in store.rows()] == [0, 2, 3, 5]
    assert [scalars["n"] for scalars in store.scalars("v")] == [0, 2, 3, 5]
    assert store.names() == tuple(f"unit {i}" for i in range(11))
    assert store.outputs("v").shape == store.outputs("task v").shape == (4, 4)

    # a cell of one task alone does not make a finished row
    store.path(plan.keys[3][1]).unlink()
    store = Store(tmp_path)
    assert store.finished().tolist() == [0, 2, 5]
    assert store.missing().tolist() == [3]
    assert len(store.outputs("t")) == 3


@pytest.mark.parametrize("half", ["score", "report", "all"])
def test_outputs_are_the_papers_formulas_averaged_over_draws(half: str, tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    examples = store.examples("t", half)
    assert examples["ids"].tolist() == {"score": [50, 53, 54, 56], "report": [51, 52, 55, 57, 58, 59]}.get(
        half, list(range(50, 60))
    )
    for model in range(3):
        values = logits(model)[:, examples["ids"] - 50].astype(np.float64)
        labels = examples["labels"]
        at = np.arange(len(labels))
        probability = (np.exp(values) / np.exp(values).sum(-1, keepdims=True))[:, at, labels]
        correct = values[:, at, labels]
        others = values.copy()
        others[:, at, labels] = -np.inf
        expected = {
            "logit": correct.mean(0),
            "margin": (correct - others.max(-1)).mean(0),
            "softmax margin": np.log(probability / (1 - probability)).mean(0),
            "probability": probability.mean(0),
            "correct": (values.argmax(-1) == labels).mean(0),
            "prediction": [np.bincount(votes).argmax() for votes in values.argmax(-1).T],
        }
        assert sorted(expected) == sorted(OUTPUTS)
        for name, value in expected.items():
            found = store.outputs("t", name, half)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found[model], value, rtol=2e-4, atol=2e-5)


def test_extreme_log_odds_overflow_nowhere() -> None:
    extreme = np.float32([[[1e4, -1e4]], [[0, 0]], [[-1e4, 1e4]], [[0, 1]]])
    np.testing.assert_array_equal(derive(extreme, np.array([0, 0]), "probability"), [[1, 0]])


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    with pytest.raises(ConfigError, match="did you mean 'margin'"):
        store.outputs("t", "margn")
    with pytest.raises(ConfigError, match="'score'"):
        store.outputs("t", half="scor")
    with pytest.raises(StoreError, match="'task t'"):
        store.outputs("tusk")
    with pytest.raises(StoreError, match="no plan 'nothing'"):
        store.masks("nothing")
    with pytest.raises(ConfigError, match="unknown output"):
        derive(np.zeros((4, 1)), np.zeros(1), "loss")


def test_a_store_without_a_plan_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"0 plans.*there are: none"):
        Store.create(tmp_path).masks()


def test_one_store_holds_many_plans(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    first = store.plan()
    arm = record([Row(np.ones(11, bool), 3, "full")])
    store.put_plan(arm)
    assert store.plan().digest == first.digest  # a list of rows is not the plan with a design
    assert store.missing(arm).tolist() == store.missing(arm.digest).tolist() == [0]
    assert store.masks(arm).shape == (0, 11)
    assert store.outputs("t", plan=arm).shape == (0, 4)
    with pytest.raises(StoreError, match="no design"):
        store.design(arm)
    filled(tmp_path, 3)
    store = Store(tmp_path)
    with pytest.raises(StoreError, match=rf"2 plans.*{first.digest[:8]} "):
        store.plan()
    assert sorted(len(plan.rows) for plan in store.plans().values()) == [1, 2, 3]
    assert len(Store(tmp_path, first.digest).masks()) == 2


def test_a_plan_may_be_named_by_the_first_digits_of_its_digest(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    digest = store.plan().digest
    assert store.plan(digest[:4]).digest == Store(tmp_path, digest[:9]).plan().digest == digest
    for wrong in (digest[:3], digest[1:], digest[:4] + "*", digest + "0", ""):
        with pytest.raises(StoreError, match=rf"no plan '{re.escape(wrong)}'"):
            store.plan(wrong)
    (tmp_path / "plans" / f"{digest[:6]}{'0' * 26}.json").write_text("{")
    with pytest.raises(StoreError, match=r"2 plans start with '.{4}'.*; [0-9a-f]{8} \(damaged\)"):
        Store(tmp_path).plan(digest[:4])
    assert Store(tmp_path).plan(digest[:7]).digest == digest


def test_ambiguous_first_digits_are_refused_with_the_plans_to_choose_from(tmp_path: Path) -> None:
    """The first 300 lists of rows of which two share four digits, as half of all 65,536 names of 300 would."""
    store, seen = filled(tmp_path, 2), {}
    for seed in range(3000):
        arm = record([Row(np.ones(11, bool), seed, "full")])
        other = seen.setdefault(arm.digest[:4], arm)
        if other is not arm:
            break
    store.put_plan(arm)
    store.put_plan(other)
    with pytest.raises(StoreError) as caught:
        Store(tmp_path).plan(arm.digest[:4])
    for one in (arm, other):
        assert f"{one.digest[:8]} (1 row; t" in str(caught.value)
    assert "plan=NAME, or give the plan file" in str(caught.value)


def test_damaged_descriptions_are_refused_and_written_anew(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    plan = tmp_path / "plans" / f"{store.plan().digest}.json"
    whole = plan.read_bytes()
    for broken in (whole[:-9], whole.replace(b"unit 1", b"unit 2"), b"\xff", b"[" * 50_000):
        plan.write_bytes(broken)
        with pytest.raises(StoreError, match=r"damaged.*run the same plan again"):
            Store(tmp_path).plan()
    task = tmp_path / "tasks" / "t.safetensors"
    task.write_bytes(task.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"damaged.*run the same plan again"):
        Store(tmp_path, store.plan().digest).task("t")
    filled(tmp_path, 2)
    assert plan.read_bytes() == whole
    assert Store(tmp_path).outputs("t").shape == (2, 4)
    assert len(list((tmp_path / "quarantine").iterdir())) == 2


def test_a_damaged_plan_is_in_nobody_elses_way(tmp_path: Path) -> None:
    first = filled(tmp_path, 2).plan().digest
    store = Store(tmp_path)
    arm = record([Row(np.ones(11, bool), 3, "full")])
    store.put_plan(arm)
    (tmp_path / "plans" / f"{arm.digest}.json").write_text("{")
    (tmp_path / "plans" / "0.json").write_text("{}")
    store = Store(tmp_path)
    assert len(store.plan(first).rows) == 2
    assert not (tmp_path / "log.jsonl").exists()
    assert store.plan().digest == store.plan().digest == first
    assert list(store.plans()) == [first]
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in events] == ["damaged plan"] * 2
    assert {entry["file"]: "damaged" in entry["reason"] for entry in events} == {
        "plans/0.json": True,
        f"plans/{arm.digest}.json": True,
    }
    with pytest.raises(StoreError, match=rf"{arm.digest}.*damaged.*run the same plan again"):
        store.plan(arm.digest)
    with pytest.raises(StoreError, match="no plan 'nothing'"):
        store.plan("nothing")


@dataclass(frozen=True)
class Newer(Record):
    """The record of a later version, with one more field."""

    note: str = "none"


def test_plans_of_other_versions_are_read_and_keep_their_names(tmp_path: Path) -> None:
    old = record([Row([1, 0], 3, "design")], design=True)
    store = Store.create(tmp_path)
    store.put_plan(old)
    text = json.loads((tmp_path / "plans" / f"{old.digest}.json").read_text())
    fields = {name: getattr(old, name) for name in Record.__dataclass_fields__}
    newer = Newer.from_json(text)
    assert newer.note == "none"
    assert newer.digest == old.digest
    assert Newer(**fields).digest == old.digest  # the same plan made by the later version is no second one
    noted = Newer(**fields, note="x")
    assert noted.digest != old.digest
    (tmp_path / "plans" / f"{noted.digest}.json").write_text(canonical_json(noted.to_json()))
    found = Store(tmp_path).plan(noted.digest)
    assert list(found.rows) == list(old.rows)
    assert found.digest == noted.digest


def test_task_description_may_change_its_clothes_but_not_its_meaning(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    given = {"labels": np.arange(4), "ids": np.arange(4), "half": np.uint8([0, 1, 0, 1])}
    store.put_task("t", given)
    weights = np.full(4, 0.3)
    store.put_task("t", {**given, "labels": given["labels"].astype(np.int32), "weights": weights})
    np.testing.assert_array_equal(store.task("t")["weights"], weights)
    before = (tmp_path / "tasks" / "t.safetensors").read_bytes()
    store.put_task("t", {**given, "weights": weights * (1 + 1e-14)})
    store.put_task("t", given)
    assert (tmp_path / "tasks" / "t.safetensors").read_bytes() == before
    for name, value in (
        ("labels", np.arange(3)),
        ("ids", [0, 1, 2, 4]),
        ("half", [1, 1, 0, 1]),
        ("weights", weights * 1.001),
    ):
        with pytest.raises(StoreError, match=f"other {name} of the target examples"):
            store.put_task("t", {**given, "weights": weights, name: np.asarray(value)})


def test_thumbnails_are_drawn_anew(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    for shade in (1, 2, 2):
        store.put_thumbnails(store.plan(), {"unit 3": np.full((1, 2, 2, 1), shade, np.uint8)})
        assert store.thumbnails()["unit 3"].max() == shade
    (path,) = (tmp_path / "thumbnails").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"damaged.*run the same plan again"):
        store.thumbnails()
    assert not store.has_thumbnails(store.plan())
    assert store.thumbnails() == {}  # the damaged file is in quarantine
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_captions_of_thumbnails_come_back_and_older_files_have_none(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    images = {f"unit {i}": np.full((2, 2, 2, 1), i, np.uint8) for i in (3, 1)}
    store.put_thumbnails(store.plan(), images, {"unit 3": ("c/a.png", "c/b.png")})
    assert store.captions() == {"unit 3": ("c/a.png", "c/b.png")}
    assert store.has_thumbnails(store.plan())
    store.put_thumbnails(store.plan(), images, {"unit 3": ("c/a.png", "c/d.png")})
    assert Store(tmp_path).captions()["unit 3"][1] == "c/d.png", "the latest wins, though no image changed"
    (path,) = (tmp_path / "thumbnails").iterdir()
    arrays, metadata = load(path)
    for wrong in ({"3": ["one"]}, {"2": ["a", "b"]}, {"3": [1, 2]}, []):
        write_atomic(path, encode(arrays, {**metadata, "captions": wrong}))
        with pytest.raises(StoreError, match="damaged"):
            store.captions()
    del metadata["captions"]
    write_atomic(path, encode(arrays, metadata))
    assert store.captions() == {}
    assert store.thumbnails()["unit 3"].tolist() == images["unit 3"].tolist()
    assert not store.has_thumbnails(store.plan()), "so that a run writes them"


def test_log_survives_a_torn_line(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.log(event="a")
    with open(tmp_path / "log.jsonl", "ab") as file:
        file.write(b'{"event": "to')
    store.log(event="b", odd=Path("x"))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(lines[i])["event"] for i in (0, 2)] == ["a", "b"]
