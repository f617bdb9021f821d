"""Stores of measures: compacted, damaged at every byte, merged and exported as those of images are."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydt import design
from pydt.base import StoreError, TrainError, encode, load
from pydt.data import Groups
from pydt.ensemble import Function, Plan, RowInput, run
from pydt.store import Measure, Store, export, merge, verify
from pydt.store import compact as compact_store

compact = partial(compact_store, fewest=2)
GROUPS, EXAMPLES = 5, 3


def answers(row: RowInput) -> dict[str, Any]:
    """Two draws of one measure, a scalar of another; rows of seed 3 fail."""
    if row.seed == 3:
        raise TrainError("bad luck")
    random = np.random.default_rng([row.seed, *row.examples.tolist()])
    return {"right": random.random((2, EXAMPLES)), "loss": random.random()}


def plan(rows: int = 5) -> Plan:
    return Plan(
        Groups([f"g{i % GROUPS}" for i in range(10)], by="site"),
        design=design.bernoulli(GROUPS, rows, seed=1),
        recipe=Function(answers),
        tasks=[Measure("right", ["a", "b", "c"], classes=["x", "y", "x"]), Measure("loss", higher_is_better=False)],
        seeds=range(1, rows + 1),
    )


@pytest.fixture
def made(tmp_path: Path) -> Path:
    with ThreadPoolExecutor(1) as pool:
        run(plan(), tmp_path / "made", pool, progress=False)
    return tmp_path / "made"


def values(folder: Path) -> dict[str, Any]:
    store = Store(folder)
    found: dict[str, Any] = {name: store.outputs(name, "value", "all").tolist() for name in ("right", "loss")}
    return found | {"finished": store.finished().tolist(), "failed": [i for i, _, _ in store.failed()]}


def test_values_are_the_mean_over_draws_and_survive_compaction(made: Path) -> None:
    store, job = Store(made), plan()
    kept = np.asarray(job.design)[:, np.arange(10) % GROUPS]
    expected = []
    for i in (0, 1, 3, 4):
        random = np.random.default_rng([i + 1, *np.flatnonzero(kept[i]).tolist()])
        expected.append(random.random((2, EXAMPLES)).astype(np.float32).mean(0).tolist())
    assert store.outputs("right", "value", "all").tolist() == expected
    before = values(made)
    assert before["failed"] == [2]
    assert compact(made)["cells"] == 8
    assert values(made) == before
    assert verify(made)["verified"]
    shapes = sorted(np.load(path, allow_pickle=False).shape for path in made.glob("packed/*/value.npy"))
    assert shapes == [(4, 1, 2), (4, 2, EXAMPLES)]
    assert not list(made.glob("packed/*/primitives.npy"))


def test_damage_at_any_byte_of_a_value_costs_its_row_alone(made: Path, tmp_path: Path) -> None:
    compact(made)
    before = values(made)["right"]
    (file,) = [path for path in made.glob("packed/*/value.npy") if np.load(path).shape[-1] == EXAMPLES]
    whole = file.read_bytes()
    start = len(whole) - 4 * 4 * 2 * EXAMPLES
    for place in range(start, len(whole), 5):
        copy = tmp_path / f"at {place}"
        shutil.copytree(made, copy)
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        (copy / file.relative_to(made)).write_bytes(data)
        found = verify(copy)
        lost = (place - start) // (4 * 2 * EXAMPLES)
        assert not found["verified"]
        assert len(found["damaged"]) == 1
        assert values(copy)["right"] == [row for i, row in enumerate(before) if i != lost]


def test_parts_are_merged_to_the_whole(tmp_path: Path, made: Path) -> None:
    for name, rows in (("part", 3), ("longer", 7)):
        with ThreadPoolExecutor(1) as pool:
            run(plan(rows), tmp_path / name, pool, progress=False)
    compact(tmp_path / "part")
    merge(tmp_path / "all", tmp_path / "part", tmp_path / "longer")
    store = Store(tmp_path / "all")
    whole = Store(tmp_path / "longer")
    longest = plan(7).digest
    for task in ("right", "loss"):
        found = store.outputs(task, "value", "all", plan=longest)
        np.testing.assert_array_equal(found, whole.outputs(task, "value", "all"))


def test_an_export_tells_of_values_and_of_nothing_else(made: Path, tmp_path: Path) -> None:
    export(made, tmp_path / "out")
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert {"task0.value.npy", "task1.value.npy", "task0.examples.csv", "masks.npy"} <= names
    assert not [name for name in names if "margin" in name or "draws" in name]
    readme = (out / "README.md").read_text()
    assert 'value = numpy.load("task0.value.npy")' in readme
    assert "margin" not in readme
    assert np.load(out / "task0.value.npy").tolist() == values(made)["right"]
    rows = list(csv.DictReader((out / "task0.examples.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["0", "1", "0"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["tasks"][1]["settings"]["measure"]["higher_is_better"] is False
    assert manifest["recipe"]["function"] == "answers"


def test_a_store_keeps_the_ids_of_its_examples_and_exports_them(tmp_path: Path) -> None:
    masks, values = np.random.default_rng(0).random((2, 12, 4)) < 0.5, np.random.default_rng(1).random((12, 4))
    masks[0][:, 0] |= ~masks[0].any(1)
    ids = ["a,b", "é", "3", 'quoted "x"']
    store = Store.from_arrays(tmp_path / "store", masks[0], values, examples=ids)
    task = store.plan().tasks[0]["digest"]
    assert store.example_names(task) == ids
    export(tmp_path / "store", tmp_path / "out")
    with open(tmp_path / "out" / "task0.examples.csv", encoding="utf-8", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ids
    plain = Store.from_arrays(tmp_path / "plain", masks[0], values)
    assert plain.example_names(plain.plan().tasks[0]["digest"]) is None
    path = tmp_path / "store" / "tasks" / f"{task}.safetensors"
    arrays, metadata = load(path)
    path.write_bytes(encode({**arrays, "example_keys": arrays["example_keys"][:-1]}, metadata))
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path / "store").example_names(task)
