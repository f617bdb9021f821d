"""Checks of arguments: what passes, as what, and what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydt.base import (
    ConfigError,
    DataError,
    EstimateError,
    PydtError,
    as_names,
    as_path,
    one_of,
    real,
    share,
    suggest,
    to_array,
    whole,
)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_whole_numbers_of_any_integer_type_become_an_int(value: Any) -> None:
    found = whole(value, "n", "here")
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize(
    ("value", "limits", "text"),
    [
        (2.0, {}, "here: n 2.0 is not a whole number. use a whole number >= 0"),
        (True, {}, "here: n True is not a whole number. use a whole number >= 0"),
        (np.True_, {}, "is not a whole number"),
        ("2", {}, "here: n '2' is not a whole number"),
        (None, {}, "here: n None is not a whole number"),
        (-1, {}, "here: n -1 is out of range"),
        (0, {"least": 1, "most": 4}, "here: n 0 is out of range. use a whole number from 1 to 4"),
        (5, {"least": 1, "most": 4}, "here: n 5 is out of range"),
        (2**63, {}, "is out of range. use a whole number >= 0"),
    ],
)
def test_what_is_no_whole_number_in_the_range_is_refused(value: Any, limits: dict[str, int], text: str) -> None:
    with pytest.raises(EstimateError) as caught:
        whole(value, "n", "here", error=EstimateError, **limits)
    assert text in str(caught.value)


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert [whole(n, "n", "here", 1, 4) for n in (1, 4)] == [1, 4]
    assert whole(2**63 - 1, "n", "here") == 2**63 - 1
    assert whole(2**100, "n", "here", most=None) == 2**100
    assert [real(x, "x", "here", least=0, most=1) for x in (0, 1)] == [0.0, 1.0]


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5)])
def test_real_numbers_become_a_float(value: Any) -> None:
    assert type(real(value, "x", "here")) is float
    assert real(value, "x", "here") == share(value, "x", "here") == 0.5


@pytest.mark.parametrize(
    ("value", "limits", "text"),
    [
        ("0.5", {}, "here: x '0.5' is not a finite number. use a number"),
        (True, {}, "is not a finite number"),
        (None, {}, "is not a finite number"),
        (float("nan"), {}, "here: x nan is not a finite number"),
        (float("inf"), {}, "is not a finite number"),
        (10**400, {}, "is not a finite number"),
        ([1.0, 2.0], {}, "is not a finite number"),
        (0, {"above": 0}, "here: x 0 is out of range. use a number above 0"),
        (1, {"least": 0, "below": 1}, "is out of range. use a number >= 0 and below 1"),
        (-1e-9, {"least": 0}, "use a number >= 0"),
        (1.5, {"above": 0, "most": 1}, "use a number above 0 and <= 1"),
    ],
)
def test_what_is_no_number_in_the_range_is_refused(value: Any, limits: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        real(value, "x", "here", **limits)
    assert text in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.1])
def test_a_share_lies_between_0_and_1(value: float) -> None:
    with pytest.raises(DataError, match=r"here: alpha .* is out of range\. use a number above 0 and below 1"):
        share(value, "alpha", "here", DataError)


def test_a_choice_names_all_and_the_nearest() -> None:
    known = ["probe", "finetune"]
    assert one_of("probe", known, "mode", "Task") == "probe"
    with pytest.raises(ConfigError) as caught:
        one_of("finetun", known, "mode", "Task")
    expected = "Task: unknown mode 'finetun'. choose one of: probe, finetune (did you mean 'finetune'?)"
    assert str(caught.value) == expected
    for value in (None, 3, np.array(["probe"]), ["probe"]):
        with pytest.raises(ConfigError, match="choose one of: probe, finetune"):
            one_of(value, known, "mode", "Task")
    assert suggest("prob", known) == "did you mean 'probe'?"
    assert suggest("xyz", known) == "known: 'probe', 'finetune'"


def test_paths_are_absolute_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_path("a/b", "here") == as_path(Path("a/b"), "here") == as_path(b"a/b", "here") == tmp_path / "a" / "b"
    assert as_path(".", "here", made=True) == as_path(Path(), "here") == tmp_path
    for value, made, text in (("", False, "is an empty path"), (Path(), True, "empty"), ("a\0", False, "is no path")):
        with pytest.raises(DataError, match=f"here: .*{text}"):
            as_path(value, "here", DataError, made=made)
    with pytest.raises(ConfigError, match=r"here: 3\.5 is no path"):
        as_path(3.5, "here")


def test_names_and_arrays() -> None:
    assert as_names(iter(["a", "b"]), "classes") == ("a", "b")
    for value, text in (("ab", "no list of texts"), (3, "no list of texts"), (["a", 1], "1 at position 1 is no text")):
        with pytest.raises(DataError, match=text):
            as_names(value, "classes")
    np.testing.assert_array_equal(to_array([[1, 2], [3, 4]], "masks", PydtError), np.array([[1, 2], [3, 4]]))
    with pytest.raises(EstimateError, match="outputs: is not an array"):
        to_array([[1, 2], [3]], "outputs", EstimateError)
    with pytest.raises(EstimateError, match="has masked entries"):
        to_array(np.ma.masked_less([1, 2], 2), "outputs", EstimateError)
