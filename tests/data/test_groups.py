"""Groups without images: labels of every kind, ids, and what the digest stands for."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from pydt.base import DataError
from pydt.data import Groups


@pytest.mark.parametrize(
    ("members", "group", "names"),
    [
        (["b", "a", None, "b"], [1, 0, -1, 1], ("a", "b")),
        (["b", "a", float("nan"), ""], [1, 0, -1, -1], ("a", "b")),
        (np.array([7, -1, 3]), [1, -1, 0], ("3", "7")),
        (np.array([2.0, np.nan, 10.0]), [0, -1, 1], ("2", "10")),
        (["10", "9", "10"], [1, 0, 1], ("9", "10")),
        (("Ünï", "Ünï", "漢"), [0, 0, 1], ("Ünï", "漢")),
        ([True, False], [1, 0], ("False", "True")),
        ({"b": ["x", "y"], "a": [3]}, [0, 0, 1], ("b", "a")),  # a mapping keeps its own order
    ],
)
def test_members_of_every_kind_become_groups(members: Any, group: list[int], names: tuple[str, ...]) -> None:
    made = Groups(members)
    assert made.group.tolist() == group
    assert made.group.dtype == np.int64
    assert made.names == names
    assert len(made) == len(group)
    found, called = made.units("")
    assert found.tolist() == group
    assert called == names


def test_columns_of_tables_and_masked_arrays_are_members() -> None:
    pandas = pytest.importorskip("pandas")
    column = pandas.Series(["b", None, "a"], index=[5, 6, 7])
    assert Groups(column).group.tolist() == [1, -1, 0]
    assert Groups(pandas.Series([1, None, 0], dtype="Int64")).group.tolist() == [1, -1, 0]
    assert Groups(np.ma.array([4, 5, 6], mask=[False, True, False])).group.tolist() == [0, -1, 1]


def test_what_identifies_examples() -> None:
    assert list(Groups(["a", "b"]).all_keys()) == ["0", "1"]
    assert list(Groups(["a", "b"], ids=np.array([30, 40])).all_keys()) == ["30", "40"]
    assert list(Groups({"g": ["x"], "h": ("y", 5)}).all_keys()) == ["x", "y", "5"]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: Groups([]), r"no group"),
        (lambda: Groups([None, None]), r"no group"),
        (lambda: Groups({}), r"no group"),
        (lambda: Groups("abc"), r"no list of groups"),
        (lambda: Groups(5), r"no list of groups"),
        (lambda: Groups({"a": ["x"], "b": []}), r"group 'b' has no examples"),
        (lambda: Groups([1.5]), r"1\.5 at position 0"),
        (lambda: Groups(["cat", "cat "]), r"one name"),
        (lambda: Groups(["a"], ids=["x", "y"]), r"Groups\.ids: 2 ids for 1 examples"),
        (lambda: Groups(["a", "a"], ids=["x", "x"]), r"'x' is there twice"),
        (lambda: Groups({"a": ["x"], "b": ["x"]}), r"'x' is there twice"),
        (lambda: Groups(["a"], ids="x"), r"no list of ids"),
        (lambda: Groups(["a"], ids=[1.5]), r"id 1\.5 is not a whole number"),
        (lambda: Groups({"a": "xyz"}), r"members\['a'\]: 'xyz' is no list of ids"),
        (lambda: Groups({1: ["x"]}), r"1 at position 0 is no text"),
        (lambda: Groups({"a": ["x"]}, ids=["x"]), r"a mapping holds them"),
        (lambda: Groups(["a"], by=""), r"give two texts"),
        (lambda: Groups(["a"]).units("site"), r"no partition 'site'.*it has one: 'group'"),
    ],
)
def test_what_are_no_groups_is_refused(wrong: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        wrong()


def test_the_digest_stands_for_partition_and_ids_alone() -> None:
    base = Groups(["a", "b", "b"], ids=["x", "y", "z"])
    assert base.digest == Groups(np.array(["a", "b", "b"]), ids=["x", "y", "z"], name="other", by="site").digest
    assert base.digest == Groups({"a": ["x"], "b": ["y", "z"]}).digest
    others = [
        Groups(["a", "b", "b"]),
        Groups(["a", "b", "b"], ids=["x", "z", "y"]),
        Groups(["a", "a", "b"], ids=["x", "y", "z"]),
        Groups(["a", "c", "c"], ids=["x", "y", "z"]),
        Groups(["a", "b", None], ids=["x", "y", "z"]),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 6


def test_groups_do_not_change_and_travel() -> None:
    made = Groups(["a", None, "b"], by="site", name="table")
    with pytest.raises(ValueError, match="read-only"):
        made.group[0] = 1
    travelled = pickle.loads(pickle.dumps(made))
    assert travelled.digest == made.digest
    assert travelled.units("site")[1] == ("a", "b")
    assert repr(made) == "Groups('table', 3 examples in 2 groups)"
    assert len(pickle.dumps(Groups(np.arange(100_000) % 7))) < 900_000  # eight bytes an example, no texts
