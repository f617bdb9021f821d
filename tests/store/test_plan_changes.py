"""What a changed plan says of the old one: only what differs, in names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stub_rows import GROUPS, StubRecipe, StubSource, StubTask

from pydt import design
from pydt.ensemble import Plan
from pydt.store import Record, changes


def record(**more: Any) -> Record:
    drawn = design.random(GROUPS, 9, seed=3)
    return replace(Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=[StubTask()]).record(), **more)


def test_a_changed_source_is_told_by_its_groups_and_examples() -> None:
    old = record(names=("cats", "dogs", "ships"), source_facts={"name": "photos", "examples": 160})
    new = replace(old, source="f" * 32, units="e" * 32, names=("cats", "dogs"))
    fewer = replace(new, source_facts={"name": "photos", "examples": 140})
    assert changes(old, fewer) == ["source photos: 160 -> 140 examples, without ships"]
    assert changes(fewer, old) == ["source photos: 140 -> 160 examples, with ships"]
    assert changes(old, new) == ["source photos: other examples, without ships"]
    named = replace(old, source="f" * 32, source_facts={"name": "pictures", "examples": 160})
    assert changes(old, named) == ["source photos -> pictures"]
    assert changes(old, replace(old, units="e" * 32)) == ["other groups"]
    assert changes(old, replace(old, units="e" * 32, by="style", names=("a", "b"))) == [
        "by class -> style",
        "other groups",
    ]
    many = replace(fewer, units="d" * 32, names=tuple(f"n{i}" for i in range(9)))
    assert changes(fewer, many) == ["other groups, without cats, dogs, with n0, n1, n2 and 6 more"]


def test_a_stored_recipe_differs_from_the_same_one_by_nothing() -> None:
    settings = {"lr": 0.1, "augment": {"crop": [[0.3, 1.0], [0.75, 1.33]], "size": 30}}
    old = record(settings=settings)
    augment = {"crop": ((0.3, 1.0), (0.75, 1.33)), "size": 30}
    assert changes(old, replace(old, settings={"lr": 0.2, "augment": augment})) == ["recipe.lr 0.1 -> 0.2"]
