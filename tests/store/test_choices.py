"""Stored choices of learning rates: equal bytes, checked when read, put aside when damaged, merged."""

from __future__ import annotations

from pathlib import Path

import pytest
from stub_store import choice, computed, contents, two_tasks

from pydt.base import StoreError
from pydt.store import Store, merge, read_choice, read_choices, verify, write_choice


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return computed(tmp_path / "store", two_tasks(3))


def test_equal_choices_are_equal_bytes(store: Store) -> None:
    name = choice()["question"]
    assert read_choice(store, name) is None
    write_choice(store, choice())
    first = (store.folder / "choices" / f"{name}.json").read_bytes()
    write_choice(store, dict(reversed(choice().items())))
    assert (store.folder / "choices" / f"{name}.json").read_bytes() == first
    assert read_choice(store, name) == choice()
    write_choice(store, choice(question="d" * 32))
    assert [one["question"] for one in read_choices(store)] == [name, "d" * 32]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"chosen": 0.02}, "the chosen rate is not in the grid"),
        ({"images": 0}, r"images is 0"),
        ({"task": "x"}, "task is 'x'"),
        ({"grid": []}, "the chosen rate is not in the grid"),
        ({"grid": [{"rate": 0.01}]}, r"grid\[0\]\.trial is missing"),
    ],
)
def test_what_is_no_choice_is_refused(store: Store, changes: dict[str, object], wrong: str) -> None:
    write_choice(store, choice(**changes))
    with pytest.raises(StoreError, match=rf"{choice()['question']}\.json: is damaged \({wrong}.*delete this one file"):
        read_choice(store, choice()["question"])


def test_a_damaged_or_renamed_choice_is_put_aside_by_verify(store: Store) -> None:
    write_choice(store, choice())
    (path,) = (store.folder / "choices").iterdir()
    path.rename(path.with_stem("e" * 32))
    found = verify(store.folder)
    assert [(entry["file"], entry["moved"]) for entry in found["damaged"]] == [(f"choices/{'e' * 32}.json", True)]
    assert verify(store.folder)["verified"]
    assert read_choice(store, "e" * 32) is None


def test_choices_come_along_when_stores_are_merged(store: Store, tmp_path: Path) -> None:
    write_choice(store, choice())
    merge(tmp_path / "new", store.folder)
    assert contents(tmp_path / "new" / "choices") == contents(store.folder / "choices")
    before = contents(tmp_path / "new")
    merge(tmp_path / "new", store.folder)
    assert contents(tmp_path / "new") == before
