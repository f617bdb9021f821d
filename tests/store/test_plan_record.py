"""Plans as the store remembers them: rows are drawn, not listed, and named as they always were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask
from stub_store import GOOD, METADATA

from pydt import design
from pydt.base import DesignError, StoreError, canonical_json, digest
from pydt.design import Design
from pydt.design.kinds.bernoulli import Independent
from pydt.design.kinds.fixed_size import FixedSize
from pydt.ensemble import Plan
from pydt.ensemble.plan import check
from pydt.store import Drawn, Record, Row, Store
from pydt.store.plan_record import CHECKED, row_seeds
from pydt.store.rows import result_key, source_key

DESIGNS = {
    "random": design.random(GROUPS, 9, seed=3),
    "stratified": design.random(GROUPS, 9, seed=3, strata=[0, 0, 1, 1, 2, 2]),
    "bernoulli": design.bernoulli(GROUPS, 9, 0.4, seed=3),
    "foldover": design.foldover(GROUPS, 9, seed=3),
    "explicit": Design.explicit(np.asarray(design.random(GROUPS, 9, seed=4))),
    "taken": design.random(GROUPS, 30, seed=3).take([2, 3, 5, 7, 11, 13, 17, 19, 23]),
}


def plan(drawn: Any, **more: Any) -> Plan:
    tasks = [StubTask(), StubTask("letters")]
    return Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=tasks, seed=5, **more)


def listed(record: Record) -> Record:
    """The same rows as a list, each named by its mask."""
    fields = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    return Record(**{**fields, "rows": tuple(record.rows)})


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("seeds", [None, tuple(range(50, 59))])
def test_a_design_stands_for_its_rows(name: str, seeds: tuple[int, ...] | None, tmp_path: Path) -> None:
    drawn = DESIGNS[name]
    given = plan(drawn, seeds=seeds)
    record, store = given.record(), Store.create(tmp_path)
    store.put_plan(record)
    text = json.loads((tmp_path / "plans" / f"{given.digest}.json").read_text())
    assert set(text["rows"]) == {"count", "seeds", "masks"}
    expected = [Row(mask, seed, "design") for mask, seed in zip(drawn, seeds or row_seeds(5, 9), strict=True)]
    found = Store(tmp_path).plan()
    for rows in (given.rows(), found.rows):
        assert list(rows) == expected
        assert [rows[i] for i in range(9)] == rows[:] == expected
        assert rows[2:5] == expected[2:5]
        assert rows[-1] == expected[-1]
        with pytest.raises(IndexError):
            rows[9]
    sources = [source_key("s", "u", row, "r") for row in expected]
    for written in (found, record, listed(record)):
        sources = [source_key(written.source, written.units, row, written.recipe) for row in expected]
        assert list(written.sources) == sources
        names = [tuple(result_key(source, task["digest"]) for task in written.tasks) for source in sources]
        assert list(written.keys) == names
        assert written.keys[3:5] == names[3:5]
        np.testing.assert_array_equal(written.packed(np.array([4, 1])), drawn.packed([4, 1]))
    assert Store(tmp_path).design().digest == drawn.digest
    assert found.digest == record.digest == digest("plan", record.to_json())


def test_a_plan_that_lists_the_rows_of_its_design_is_told_to_be_old(tmp_path: Path) -> None:
    record, store = plan(DESIGNS["random"]).record(), Store.create(tmp_path)
    store.put_plan(record)
    path = tmp_path / "plans" / f"{record.digest}.json"
    rows = [[row.keep.hex(), row.seed, row.kind] for row in record.rows]
    path.write_text(json.dumps({**record.to_json(), "rows": rows}))
    with pytest.raises(StoreError, match=r"a version before 0\.1\.0.*run the same plan") as caught:
        Store(tmp_path).plan()
    assert caught.value.where == str(path)


def _draws_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row gets other masks."""
    real = Independent.__call__

    def other(self: Any, rows: np.ndarray, columns: int) -> np.ndarray:
        masks = real(self, rows, columns)
        masks[len(masks) // 2] ^= np.arange(columns) < 2
        return masks

    monkeypatch.setattr(Independent, "__call__", other)


def test_a_design_that_now_draws_other_masks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = plan(DESIGNS["bernoulli"]).record()
    store = Store.create(tmp_path)
    store.put_plan(record)
    store.put(record.keys[0][0], GOOD, METADATA)
    _draws_otherwise(monkeypatch)
    for method in ("design", "masks", "rows", "finished", "missing"):
        with pytest.raises(StoreError, match=r"other masks than the rows have.*pydt that wrote it"):
            getattr(Store(tmp_path), method)()
    assert plan(design.bernoulli(GROUPS, 9, 0.4, seed=3)).digest != record.digest


def test_an_unknown_kind_of_design_is_named(tmp_path: Path) -> None:
    text = plan(DESIGNS["random"]).record().to_json()
    text["design"]["kind"] = "spiral"
    name = digest("plan", text)
    Store.create(tmp_path)
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / f"{name}.json").write_text(canonical_json(text))
    with pytest.raises(DesignError, match="unknown kind of design 'spiral'"):
        Store(tmp_path).rows()


@pytest.mark.parametrize("change", ["count", "groups"])
def test_a_description_of_other_rows_is_damaged(change: str, tmp_path: Path) -> None:
    text = plan(DESIGNS["random"]).record().to_json()
    if change == "count":
        text["rows"]["count"] = 8
    else:
        text["names"].append("one more")
    name = digest("plan", text)
    Store.create(tmp_path)
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / f"{name}.json").write_text(canonical_json(text))
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path).plan(name)


def test_design_of_other_groups_is_refused_without_drawing_it() -> None:
    with pytest.raises(DesignError, match=rf"Plan\.design: 8 groups, but the source has 6.*groups={GROUPS}"):
        plan(design.random(8, 10**9))


# ---- many groups: rows are named by the rule and their number


MANY = 4104  # groups: more than are named by their masks


def wide(drawn: Any, **more: Any) -> Plan:
    return Plan(StubSource(groups=MANY), design=drawn, recipe=StubRecipe(), tasks=[StubTask()], seed=5, **more)


WIDE = {
    "random": design.random(MANY, 9, seed=3),
    "stratified": design.random(MANY, 9, seed=3, strata=np.arange(MANY) % 3),
    "bernoulli": design.bernoulli(MANY, 9, 0.4, seed=3),
    "foldover": design.foldover(MANY, 9, seed=3),
}


@pytest.mark.parametrize("name", WIDE)
def test_names_by_number_hold_for_every_selection_and_extension(name: str) -> None:
    drawn = WIDE[name]
    sources = wide(drawn).record().sources
    assert list(wide(drawn.extend(20)).record().sources)[:9] == list(sources)
    taken = drawn.take([7, 2, 8])
    seeds = row_seeds(5, 9)
    chosen = wide(taken, seeds=[seeds[i] for i in (7, 2, 8)]).record()
    assert list(chosen.sources) == [sources[i] for i in (7, 2, 8)]
    assert chosen.named(0) == {"rule": wide(drawn).record().named(0)["rule"], "row": 7}
    everything = set(sources)
    for other in [design.random(MANY, 9, seed=4), design.random(MANY, 9, 0.7, seed=3)]:
        everything |= set(wide(other).record().sources)
    assert len(everything) == 27


def test_rows_of_a_rule_that_now_draws_other_masks_get_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A longer plan of that rule would take their results for its own; another rule has names of its own."""
    store, drawn = Store.create(tmp_path), WIDE["bernoulli"]
    store.put_plan(wide(drawn).record())
    _draws_otherwise(monkeypatch)
    with pytest.raises(StoreError, match="other masks than the rows have"):
        Store(tmp_path).put_plan(wide(Design.from_dict({**drawn.to_dict(), "models": 20})).record())
    Store(tmp_path).put_plan(wide(design.bernoulli(MANY, 9, 0.6, seed=3)).record())
    assert len(Store(tmp_path).plans()) == 2


def test_masks_of_ones_own_are_named_by_themselves() -> None:
    record = wide(Design.explicit(np.asarray(WIDE["random"]))).record()
    assert list(record.sources) == list(listed(record).sources)
    assert record.named(3) == {"keep": record.rows[3].keep.hex()}


def test_nothing_is_drawn_to_plan_seventy_thousand_rows_over_a_million_units(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0
    real = FixedSize.__call__

    def count(self: Any, rows: np.ndarray, columns: int) -> np.ndarray:
        nonlocal drawn
        drawn += len(rows) * columns
        return real(self, rows, columns)

    monkeypatch.setattr(FixedSize, "__call__", count)
    units = 1_280_000
    rows = Drawn(design.random(units, 70_000).to_dict(), None, 0)
    names = Lazy(units)
    record = Record("design", "s", {}, "u", "id", names, "r", {}, ({"digest": "t"},), rows.description, 0, rows)
    assert len(record.cells) == 70_000
    assert drawn == 0
    assert rows.masks
    assert drawn <= 2 * CHECKED
    assert rows[69_999].mask.sum() == units // 2


class Lazy(tuple):  # type: ignore[type-arg]
    """So many names, none of them made."""

    def __new__(cls, length: int) -> Lazy:
        return super().__new__(cls)

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


def test_rows_are_checked_where_they_are_listed() -> None:
    context = plan(DESIGNS["random"]).context
    check(context, plan(DESIGNS["random"]).rows())
    with pytest.raises(DesignError, match="row 1: 3 groups"):
        check(context, [Row(np.ones(GROUPS), 0), Row([1, 0, 1], 0)])


def test_the_quick_look_at_a_header_never_says_more_than_the_header(tmp_path: Path) -> None:
    from pydt.base import encode
    from pydt.store import Outcome
    from pydt.store.row_format import peek, says_ok

    store, key = Store.create(tmp_path), "ab" + 30 * "0"
    text = '"status":"ok"\\"status\\":\\"ok\\"'
    array = np.zeros((4, 1, 3), np.float32)
    outcomes = [
        Outcome({"primitives": array}, {"note": text}),
        Outcome({"primitives": array, "more": np.arange(3)}, {}),
        Outcome({}, {"note": text, '"status":"ok"': 1}, "failed", text),
        Outcome({}, {}, "failed", '"data_offsets":[0,0]' + text),
    ]
    for outcome in outcomes:
        path = str(store.path(key))
        store.put(key, outcome, METADATA)
        assert says_ok(path, key) == (outcome.status == "ok") == (peek(path)["status"] == "ok")
        assert not says_ok(path, "cd" + key[2:])
        assert store.state(key)[0] == (1 if outcome.status == "ok" else 2)
        whole = Path(path).read_bytes()
        for broken in (whole[:-1], whole + b"x", whole[:20], b""):
            if broken != whole[:-1] or outcome.status == "ok":
                Path(path).write_bytes(broken)
                assert not says_ok(path, key)
        Path(path).unlink()
    long = Outcome({"primitives": array}, {"note": 5000 * "x"})  # a header that does not fit into the first read
    store.put(key, long, METADATA)
    assert not says_ok(str(store.path(key)), key)
    assert store.state(key) == (1, "no reason given")
    assert encode(store.get(key).arrays, store.metadata(key)) == store.path(key).read_bytes()
