"""The strict reader of JSON: what it refuses, where it says the fault is, and that it takes what pydt writes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydt.base import StoreError, canonical_json, check, parse
from pydt.base import strict_json as schema

SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SIMPLE | st.text(st.characters(codec="utf-8")), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    assert parse(canonical_json(value)) == value
    assert parse(canonical_json(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 1}', "a key twice"),
        ('[{"a": {"b": 1, "b": 2}}]', "a key twice"),
        ("1e400", "not finite"),
        ("-1e999", "not finite"),
        ("NaN", "NaN is no number"),
        ("[-Infinity]", "Infinity is no number"),
        ("9223372036854775808", "64 bits"),
        ("1" * 5000, "no JSON"),
        ('"\\ud800"', "surrogates"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("", "no JSON"),
        ("[1] 2", "no JSON"),
        (b"\xff", "no JSON"),
        (b"\xff\xfe1\x00", "no JSON"),
    ],
)
def test_what_no_writer_of_pydt_writes_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(StoreError, match=rf"damaged.*{why}"):
        parse(text)


def test_a_text_of_more_items_than_a_file_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_MOST_ITEMS", 4)
    assert parse("[[],[]]") == [[], []]
    with pytest.raises(StoreError, match="too many items"):
        parse("[[],[],[]]")


FORMS: list[tuple[Any, list[Any], list[Any]]] = [
    (str, ["", "x"], [1, None, ["x"]]),
    (int, [0, -5], [True, 1.0, "1", None]),
    (float, [0, 1.5], [True, "1", None]),
    (bool, [True], [1, 0]),
    (range(2, 5), [2, 4], [1, 5, True, 3.0, "3"]),
    ({"ok", "failed"}, ["ok"], ["OK", 1, []]),
    (None, [None], [0, ""]),
    (str | None, [None, "x"], [1]),
    (re.compile("[0-9a-f]{2}"), ["ab"], ["abc", "ab\n", "AB", 1]),
    ([str], [[], ["x"]], [["x", 1], "x", {"x": 1}]),
    ([range(2)], [[0, 1]], [[2], [True]]),
    ((str, int), [["x", 1]], [["x"], ["x", 1, 1], [1, "x"], "x1"]),
    ({"a": int, "b?": str}, [{"a": 1}, {"a": 1, "b": ""}, {"a": 1, "c": 0}], [{}, {"a": 1, "b": 1}, [], {"a": ""}]),
    ({str: int}, [{}, {"x": 1}], [{"x": ""}, []]),
    (dict, [{}], [[]]),
]


@pytest.mark.parametrize(("form", "good", "bad"), FORMS, ids=range(len(FORMS)))  # a set has no fixed text
def test_forms(form: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check(value, form)
    for value in bad:
        with pytest.raises(StoreError, match="is damaged"):
            check(value, form)


def test_the_place_of_a_fault_is_named() -> None:
    with pytest.raises(StoreError, match=r"damaged \(tasks\[1\]\.examples is -1\)"):
        check({"tasks": [{"examples": 3}, {"examples": -1}]}, {"tasks": [{"examples": range(9)}]})
    with pytest.raises(StoreError, match=r"damaged \(rows\[0\]\[1\] is a list\)"):
        check([["", []]], [(str, int)], "rows")
    with pytest.raises(StoreError, match=r"damaged \(a\.b is missing\)"):
        check({"a": {}}, {"a": {"b": str}})
