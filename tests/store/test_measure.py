"""A measure against a slow reading of its rules: halves, weights, values; what it refuses, what its digest counts."""

from __future__ import annotations

import hashlib
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt.base import PydtError
from pydt.store import Measure


def halves(ids: list[str], classes: list[Any]) -> list[int]:
    """Within each class (in the order of the names) examples by their hash; numbered through, even ones are score."""

    def rank(i: int) -> tuple[Any, int]:
        state = hashlib.blake2b(f"measure\0{ids[i]}".encode(), digest_size=8)
        return classes[i], int.from_bytes(state.digest(), "little")

    found = [0] * len(ids)
    for place, i in enumerate(sorted(range(len(ids)), key=rank)):
        found[i] = place % 2
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(1, 4), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_halves_weights_and_classes(count: int, classes: int, named: bool, weighed: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    ids = [f"id {i}" for i in random.permutation(1000)[:count]]
    labels = random.integers(0, classes, count).tolist()
    weights = random.integers(1, 5, count) if weighed else None
    made = Measure("m", ids if named else count, classes=labels, weights=weights)
    keys = ids if named else [str(i) for i in range(count)]
    assert list(made.keys()) == keys
    found = made.examples()
    assert found["half"].tolist() == halves(keys, labels)
    assert abs(int((found["half"] == 0).sum()) - int((found["half"] == 1).sum())) <= 1
    for half in (0, 1):
        chosen = [i for i in range(count) if found["half"][i] == half]
        given_weights = [1 if weights is None else int(weights[i]) for i in chosen]
        np.testing.assert_allclose(found["weights"][chosen], np.array(given_weights) / sum(given_weights), rtol=1e-12)
    assert [made.classes[i] for i in found["labels"]] == [str(label) for label in labels]
    assert found["ids"].tolist() == list(range(count))


def test_classes_are_shared_evenly_by_the_halves() -> None:
    classes = ["rare"] * 4 + ["usual"] * 40
    half = Measure("m", 44, classes=classes).examples()["half"]
    assert half[:4].sum() == 2
    assert half[4:].sum() == 20


def test_one_scalar_is_both_halves() -> None:
    made = Measure("loss", higher_is_better=False, classes=["a"], weights=[3.0])
    found = {name: array.tolist() for name, array in made.examples().items()}
    assert found == {"ids": [0, 0], "labels": [0, 0], "half": [0, 1], "weights": [1.0, 1.0]}
    for value in (0.5, np.float16(0.5), [0.5], np.array([[0.5]]), {"0": 0.5}, {0: 0.5}):
        assert made.values(value).tolist() == [[0.5, 0.5]]
    assert made.values([[1], [2]]).tolist() == [[1, 1], [2, 2]]
    assert made.described()["measure"]["shared"] is True
    with pytest.raises(PydtError, match="one example serves both halves"):
        Measure("loss", half=["score"])


def test_given_halves() -> None:
    made = [
        Measure("m", 3, half=given) for given in (["score", "report", "score"], [0, 1, 0], np.array(["0", "1", "0"]))
    ]
    assert {one.digest for one in made} == {made[0].digest}
    assert made[0].examples()["half"].tolist() == [0, 1, 0]
    assert Measure("m", 3, half=[1, 0, 1]).digest != made[0].digest


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 12),
    st.integers(1, 3),
    st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "int64", "bool"]),
    st.integers(0, 1000),
)
def test_values_of_every_kind(count: int, draws: int, dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, 2 if dtype == "bool" else 100, (draws, count)).astype(dtype)
    ids = [f"{i}é" for i in range(count)]
    made = Measure("m", ids)
    for given_values in (numbers, numbers.tolist(), [list(row) for row in numbers], np.asfortranarray(numbers)):
        found = made.values(given_values)
        assert found.dtype == np.float32
        assert found.tolist() == numbers.astype(np.float64).tolist()
    one = numbers[0]
    for given_values in (one, one.tolist(), tuple(one), dict(zip(reversed(ids), reversed(one.tolist()), strict=True))):
        assert made.values(given_values).tolist() == [one.astype(np.float64).tolist()]


def test_tensors_are_values() -> None:
    torch = pytest.importorskip("torch")
    made = Measure("m", 3)
    assert made.values(torch.tensor([1.0, 2.0, 3.0], requires_grad=True)).tolist() == [[1, 2, 3]]
    assert made.values(torch.tensor([True, False, True])).tolist() == [[1, 0, 1]]
    assert Measure("m").values(torch.tensor(2.0)).tolist() == [[2, 2]]


def test_what_float32_cannot_hold_is_infinite_not_an_error() -> None:
    assert Measure("m", 2).values([1e300, -1e300]).tolist() == [[np.inf, -np.inf]]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([1.0, 2.0], r"outputs of 'm': are of shape \(2,\), not \(3,\)"),
        ([[1.0], [2.0], [3.0]], r"shape \(3, 1\)"),
        (np.zeros((1, 1, 3)), r"shape \(1, 1, 3\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (1.0, r"shape \(\)"),
        (["a", "b", "c"], r"not numbers"),
        ([None, 1, 2], r"are of type object"),
        ([1j, 2, 3], r"are of type complex128"),
        ([[1], [2, 3]], r"is not an array"),
        (np.ma.array([1.0, 2, 3], mask=[1, 0, 0]), r"masked"),
        ({"a": 1, "b": 2}, r"lack 1 of 3 examples \('c'\)"),
        ({"x": 1}, r"lack 3 of 3 examples \('a', 'b', 'c'\)"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, r"1 examples that the measure has not \('d'\)"),
        ({"a": 1, "b": 2, "c": "x"}, r"not numbers"),
    ],
)
def test_values_of_other_examples_are_refused(given: Any, text: str) -> None:
    with pytest.raises(PydtError, match=text):
        Measure("m", ["a", "b", "c"]).values(given)


def test_an_example_is_named_once() -> None:
    with pytest.raises(PydtError, match="name an example twice"):
        Measure("m", [1, 2]).values({1: 0.0, "1": 1.0, 2: 0.0})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": ""}, r"Measure\.name: is ''"),
        ({"name": 5}, r"give a text"),
        ({"unit": " "}, r"Measure\.unit"),
        ({"scale": 0}, r"scale"),
        ({"scale": float("nan")}, r"scale"),
        ({"scale": -1}, r"scale"),
        ({"higher_is_better": 1}, r"give True or False"),
        ({"examples": 0}, r"examples 0 is out of range"),
        ({"examples": True}, r"examples"),
        ({"examples": "ids.txt"}, r"neither a number of examples nor a list"),
        ({"examples": 2.5}, r"neither a number of examples nor a list"),
        ({"examples": []}, r"is empty"),
        ({"examples": ["a", "a"]}, r"has an id twice"),
        ({"examples": [1, "1"]}, r"has an id twice"),
        ({"examples": [[1, 2], [3, 4]]}, r"id \[1, 2\] is not a whole number"),
        ({"half": ["score"]}, r"shape \(1,\) for 4 examples"),
        ({"half": ["score", "report", "test", "score"]}, r"'test' is no half"),
        ({"half": ["score"] * 4}, r"no example in the report half"),
        ({"half": [1] * 4}, r"no example in the score half"),
        ({"classes": ["a"]}, r"shape \(1,\) for 4 examples"),
        ({"weights": [1, 2]}, r"not a number >= 0 for each example"),
        ({"weights": [1, 1, -1, 1]}, r"not a number >= 0"),
        ({"weights": [1, 1, np.nan, 1]}, r"not a number >= 0"),
        ({"weights": ["a"] * 4}, r"not a number >= 0"),
        ({"weights": [1e308] * 4}, r"their sum is infinite"),
        ({"weights": [0, 1, 0, 1], "half": [0, 1, 0, 1]}, r"all are zero in a half"),
    ],
)
def test_what_is_no_measure_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(PydtError, match=text):
        Measure(**{"name": "m", "examples": 4, **arguments})


def test_the_digest_counts_what_rows_hold_and_not_how_it_is_told() -> None:
    base = Measure("m", 4, classes=[0, 0, 1, 1])
    same = [
        Measure("m", 4, classes=[0, 0, 1, 1], unit="nats", scale=3, higher_is_better=False),
        Measure("m", 4, classes=np.array([0, 0, 1, 1]), weights=[2, 2, 2, 2]),
    ]
    assert {one.digest for one in same} == {base.digest}
    others = [
        Measure("n", 4, classes=[0, 0, 1, 1]),
        Measure("m", 5, classes=[0, 0, 1, 1, 1]),
        Measure("m", ["a", "b", "c", "d"], classes=[0, 0, 1, 1]),
        Measure("m", 4),
        Measure("m", 4, classes=[0, 0, 2, 2]),
        Measure("m", 4, classes=[0, 0, 1, 1], half=(1 - base.examples()["half"]).tolist()),
        Measure("m", 4, classes=[0, 0, 1, 1], weights=[1, 2, 3, 4]),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 8


def test_a_measure_of_its_own_weights_is_the_same() -> None:
    made = Measure("m", 7, weights=[1, 2, 3, 4, 5, 6, 7.7])
    again = Measure("m", 7, weights=made.examples()["weights"], half=made.examples()["half"])
    assert again.digest == made.digest


def test_a_measure_is_described_in_json_and_does_not_change() -> None:
    made = Measure("m", np.array([3, 4]), unit="nats", scale=np.float32(2), classes=["b", "a"])
    described = json.loads(json.dumps(made.described()))
    assert described["measure"] == {"unit": "nats", "scale": 2.0, "higher_is_better": True, "shared": False}
    assert described["target"] == {
        **{"name": "m", "digest": made.digest, "classes": ["a", "b"], "metric": "value"},
        **{"pool": 0, "validation": 0, "score": 1, "report": 1},
    }
    given_weights = np.array([0.5, 0.5])
    kept = Measure("m", 2, weights=given_weights)
    given_weights[:] = 9
    assert kept.examples()["weights"].tolist() == [1, 1]
    for array in ("half", "weights", "labels"):
        with pytest.raises(ValueError, match="read-only"):
            kept.examples()[array][0] = 1
    assert pickle.loads(pickle.dumps(kept)).digest == kept.digest
