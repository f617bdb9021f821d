"""What an accumulator refuses: calls that cannot mean anything, and files that are not what it wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_accumulate import DESIGNS, bits, filled, outputs_of

from pydt import design
from pydt.accumulate import Accumulator
from pydt.cells import decode, encode
from pydt.errors import EstimateError, PydtError, StoreError


def apart() -> design.Design:
    first = np.random.default_rng(0).random((300, 40)) < 0.5
    return design.Design.explicit(np.concatenate([first, ~first]))


PLAN = DESIGNS["bernoulli"]
ROWS = outputs_of(PLAN)


def begun() -> Accumulator:
    return filled(PLAN, ROWS, np.arange(10))


def removed(index: list[int], change: float = 0.0, name: str = "bernoulli") -> None:
    plan = DESIGNS[name]
    outputs = outputs_of(plan)
    filled(plan, outputs, np.arange(20)).statistics().remove(index, outputs[index] + np.float32(change))


# fmt: off
REFUSED = {
    "not a design": (lambda: Accumulator(np.ones((3, 2))), "ndarray is not a design.*explicit"),
    "targets that are no slice": (lambda: Accumulator(PLAN, [1, 2]), r"targets.*slice\(start, stop\)"),
    "targets that go backward": (lambda: Accumulator(PLAN, slice(None, None, -1)), r"not a slice forward"),
    "targets in steps of zero": (lambda: Accumulator(PLAN, slice(0, 2, 0)), r"not a slice forward"),
    "targets in fractions": (lambda: Accumulator(PLAN, slice(0.5, 2)), r"not a slice forward"),
    "a file within no memory": (lambda: Accumulator.load("file", memory="much"), "memory: 'much' is not a number of bytes"),
    "no memory": (lambda: Accumulator(PLAN, memory=0), "memory: 0 is not a number of bytes"),
    "an unknown way with NaN": (lambda: Accumulator(PLAN, nan="drop"), "'drop' is not a way"),
    "pairs that lie far apart": (lambda: Accumulator(apart()), "row 212 and its complement, row 512.*next to each other"),
    "a row twice in a call": (lambda: begun().add([20, 20], ROWS[:2]), "row 20 is there twice"),
    "a row that is there": (lambda: begun().add([20, 7, 3], ROWS[:3]), "index: rows 3, 7 are there already.*count twice"),
    "a row that was skipped": (lambda: filled(PLAN, ROWS, np.arange(9), (30,)).add(30, ROWS[30]), "row 30 is skipped already"),
    "skipping a row that is there": (lambda: begun().skip(4), "row 4 is there already"),
    "a row outside of the plan": (lambda: begun().add(900, ROWS[0]), "row 900 is not in the plan.*0 to 899"),
    "a negative row": (lambda: begun().skip([-1]), "row -1 is not in the plan"),
    "a fraction of a row": (lambda: begun().add(0.5, ROWS[0]), "index.*float64 are not row numbers"),
    "too few outputs": (lambda: begun().add([20, 21, 22], ROWS[:2]), "2 rows of outputs for 3 rows"),
    "other targets": (lambda: begun().add(20, ROWS[0, :2]), "float32 of 2 targets, those before float32 of 3 targets"),
    "another dtype": (lambda: begun().add(20, ROWS[0].astype(np.float64)), "float64 of 3.*before float32 of 3"),
    "words": (lambda: begun().add(20, ["a", "b", "c"]), "not one of numbers"),
    "NaN": (lambda: begun().add([20, 21], np.array([[1, 2, 3], [1, np.nan, 3]], np.float32)), "row 21, target 1: the output is nan.*skip the row"),
    "columns that are not there": (lambda: Accumulator(PLAN, slice(5, 9)).add(0, ROWS[0]), r"slice\(5, 9, None\) holds none of 3"),
    "merging something else": (lambda: begun().merge(PLAN), "Design is not an accumulator"),
    "merging another design": (lambda: begun().merge(Accumulator(DESIGNS["random"])), "merge: is of another design"),
    "merging other targets": (lambda: begun().merge(Accumulator(PLAN, slice(1, 2))), "has targets=slice.*same arguments"),
    "merging another dtype": (lambda: begun().merge(filled(PLAN, ROWS.astype(np.float16), np.arange(20, 30))), "outputs float16 of 3"),
    "merging rows twice": (lambda: begun().merge(filled(PLAN, ROWS, np.arange(8, 30))), "merge: rows 8, 9 are there already"),
    "a view of nothing": (lambda: Accumulator(PLAN).statistics(), "no row has arrived"),
    "removing a row that is not there": (lambda: removed([20]), "row 20 is not there"),
    "removing other outputs": (lambda: removed([2], 1.0), "outputs: are not what was added"),
    "removing half a pair": (lambda: removed([2], name="foldover"), "row 3 has the mask, or the complement.*remove both"),
    "removing everything": (lambda: removed(list(range(20))), "these are all rows"),
}
# fmt: on


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_place_and_the_mend(case: str) -> None:
    call, text = REFUSED[case]
    with pytest.raises(PydtError, match=text) as caught:
        call()
    assert caught.value.where
    assert caught.value.mend


def test_a_refused_call_changes_nothing(tmp_path: Path) -> None:
    accumulator = begun()
    before = bits(accumulator, tmp_path)
    for case in ("a row that is there", "NaN", "other targets"):
        with pytest.raises(PydtError):
            REFUSED[case][0]()
    for bad in (ROWS[20:600] * np.float32(np.nan), ROWS[20:599]):
        with pytest.raises(EstimateError):
            accumulator.add(np.arange(20, 600), bad)
    assert bits(accumulator, tmp_path) == before


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return bits(filled(PLAN, ROWS, np.arange(700)), tmp_path_factory.mktemp("file"))


def forged(data: bytes, change: str) -> bytes:
    """The file with one thing about it wrong, and its checksum right."""
    arrays, facts = decode(data)
    arrays = dict(arrays)
    node = "node 1 0 cross"
    match change:
        case "a node is missing":
            del arrays[node]
        case "a node is too small":
            arrays[node] = arrays[node][:, :5]
        case "another dtype":
            arrays[node] = arrays[node].astype(np.float32)
        case "something more":
            arrays["node 0 3 cross"] = np.zeros(1)
        case "more rows than it holds":
            arrays["state"] = np.r_[arrays["state"][:-1], np.uint8(1)]
        case "an unknown state":
            arrays["state"] = np.r_[arrays["state"][:-1], np.uint8(7)]
        case "other masks":
            arrays["masks"] = arrays["masks"] ^ np.uint8(1)
        case "fewer masks":
            arrays["masks"] = arrays["masks"][:-1]
        case "a huge design":
            facts["design"]["models"] = 10**15
        case "a strange design":
            facts["design"] = ["foldover"]
        case "another kind of design":
            facts["design"]["kind"] = "nested"
        case "no form":
            facts["form"] = None
        case "a strange form":
            facts["form"][1] = "object"
        case "a huge form":
            facts["form"][0] = 10**18
        case "other folds":
            facts["sums"] = "0" * 32
        case "a later format":
            facts["format"] = 99
        case "another kind of file":
            facts["kind"] = "cell"
    return encode(arrays, facts)


# fmt: off
FORGED = {
    "a node is missing": "damaged .*node 1 0 cross", "a node is too small": r"damaged \('node 1 0 cross' is float64 \(5, 5, 3\), not",
    "another dtype": "is float32", "something more": "node 0 3 cross", "more rows than it holds": "'rows 3'|rows 3",
    "an unknown state": "rows do not fit", "other masks": "draws other masks", "fewer masks": r"\(899, 4\)",
    "a huge design": r"not uint8 \(1000000000000000", "a strange design": "damaged", "another kind of design": "nested",
    "no form": "rows do not fit", "a strange form": "no known form", "a huge form": "damaged", "other folds": "draws other masks or folds",
    "a later format": "format 99", "another kind of file": "'cell'",
}
# fmt: on


@pytest.mark.parametrize("change", FORGED)
def test_forged_files_are_refused(change: str, whole_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "forged.safetensors"
    path.write_bytes(forged(whole_file, change))
    with pytest.raises(StoreError, match=FORGED[change]) as caught:
        Accumulator.load(path)
    assert caught.value.where == str(path)
    assert caught.value.mend


def test_damaged_files_are_refused(whole_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    flipped = bytearray(whole_file)
    flipped[len(flipped) // 2] ^= 1
    header = int.from_bytes(whole_file[:8], "little")
    claims = json.loads(whole_file[8 : 8 + header])
    claims["masks"]["shape"][0] = 1 << 50
    huge = json.dumps(claims).encode()
    for data in (
        *(whole_file[:size] for size in (0, 7, 8, 100, 8 + header, len(whole_file) - 1)),
        whole_file + b"x",
        bytes(flipped),
        b"\xff" * 8 + whole_file[8:],
        len(huge).to_bytes(8, "little") + huge + whole_file[8 + header :],
    ):
        path.write_bytes(data)
        with pytest.raises(StoreError, match="damaged") as caught:
            Accumulator.load(path)
        assert caught.value.where == str(path)
        assert "anew" in str(caught.value.mend)
    with pytest.raises(StoreError, match="is not there"):
        Accumulator.load(tmp_path / "nothing.safetensors")
    path.write_bytes(whole_file)
    sparse = tmp_path / "of another name"
    sparse.write_bytes(whole_file)
    assert np.array_equal(Accumulator.load(sparse).rows, Accumulator.load(path).rows)
    os.truncate(sparse, 1 << 40)  # more than fits in memory: the header tells before it is read
    with pytest.raises(StoreError, match="damaged"):
        Accumulator.load(sparse)
    with pytest.raises(EstimateError, match="of the 1000 allowed"):
        Accumulator.load(path, memory=1000)
    with pytest.raises(StoreError, match="cannot be written"):
        begun().save(tmp_path / "damaged.safetensors" / "below a file")
