"""A study as a value: its arms, parts and tasks, what a further source, seed or target changes, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydt.errors import ConfigError, DataError
from pydt.train import FineTune

import pydt
from pydt.studies import PublicModel


def images(n: int, classes: int, seed: int, name: str, captions: bool = True) -> pydt.Dataset:
    random, labels = np.random.default_rng(seed), np.arange(n) % classes
    called = [f"{name} {c}" for c in range(classes)]
    texts = [called[label] for label in labels] if captions else None
    made = random.integers(0, 256, (n, 8, 8, 1), np.uint8)
    return pydt.Dataset.from_arrays(made, labels, called, captions=texts, name=name)


def study(**changes: Any) -> pydt.Study:
    about: dict[str, Any] = {
        "sources": {"a": images(40, 4, 1, "a"), "b": images(60, 3, 2, "b")},
        "methods": {"supervised": pydt.Recipe("convnet-8", steps=3), "clip": pydt.Recipe("convnet-8", "clip", steps=3)},
        "targets": {"t": pydt.Target(images(90, 3, 3, "t"))},
        "sizes": (20, 40),
        "shots": (1, "full", 3),
        "scratch": pydt.Recipe("convnet-8", "none"),
    }
    return pydt.Study(**{**about, **changes})


def keys(asked: pydt.Study) -> set[str]:
    return {key for part in asked.parts for key in part.record.keys[0]}


def trainings(asked: pydt.Study) -> set[str]:
    return {part.record.sources[0] for part in asked.parts}


def test_the_arms_are_the_grid_and_scratch() -> None:
    found = study()
    grid = [(s, n, m) for s in "ab" for n in (20, 40) for m in ("supervised", "clip")]
    assert [(arm.source, arm.size, arm.method) for arm in found.arms] == [*grid, ("", 0, "scratch")]
    asked = [task.name for task in found.tasks(found.arms[0])]
    assert asked == ["t, probe, 1 shot", "t, probe, 3 shots", "t, probe, full shots"]
    assert len(found.parts) == 9 * 3
    assert len(trainings(found)) == len(found.parts)


def test_samples_are_nested_shared_by_methods_and_differ_by_seed() -> None:
    found = study()
    by = {
        (arm.name, seed): set(found.part(arm, seed).context.source.all_keys()) for arm in found.arms for seed in (0, 1)
    }
    assert by["a, 20 images, supervised", 0] < by["a, 40 images, supervised", 0]
    assert by["b, 20 images, supervised", 0] == by["b, 20 images, clip", 0]
    assert by["b, 20 images, supervised", 0] != by["b, 20 images, supervised", 1]


def test_what_is_added_leaves_all_other_rows_as_they_are() -> None:
    before = study()
    more = {
        "sources": {"new": images(50, 2, 9, "new"), **before.sources},
        "sizes": (10, 20, 40),
        "methods": {**before.methods, "long": pydt.Recipe("convnet-8", steps=5)},
        "targets": {"u": pydt.Target(images(80, 2, 5, "u")), **before.targets},
        "shots": (1, 2, 3, "full"),
        "modes": {"finetune": {"finetune": FineTune(epochs=1)}, "probe": {}},
    }
    for name, value in more.items():
        after = study(**{name: value})
        assert keys(before) < keys(after), name
        if name in ("targets", "shots", "modes"):
            assert trainings(before) == trainings(after), name
    assert trainings(before) < trainings(study(seeds=4))
    assert study().digest == before.digest != study(seed=1).digest


def test_a_first_target_of_other_images_renames_no_row() -> None:
    random = np.random.default_rng(0)
    large = pydt.Dataset.from_arrays(random.integers(0, 256, (60, 12, 12, 1), np.uint8), np.arange(60) % 2, ["x", "y"])
    before = study()
    assert keys(before) < keys(study(targets={"large": pydt.Target(large), **before.targets}))


def test_another_seed_of_the_study_changes_samples_trainings_and_draws() -> None:
    assert not keys(study()) & keys(study(seed=1))
    one, other = study().parts[0], study(seed=1).parts[0]
    assert set(one.context.source.all_keys()) != set(other.context.source.all_keys())
    assert one.rows[0].seed != other.rows[0].seed
    assert (one.context.tasks[0].few_shot() != other.context.tasks[0].few_shot()).any()


def test_cells_choose_arms() -> None:
    found = study(cells=[("b", 40, "clip"), ("a", 20, "supervised")])
    assert [arm.name for arm in found.arms] == ["a, 20 images, supervised", "b, 40 images, clip", "scratch"]
    # a size that only some sources have
    large = study(sizes=(20, 50), cells=[("a", 20, "clip"), ("b", 50, "clip")])
    assert [arm.size for arm in large.arms] == [20, 50, 0]


def test_zero_shot_is_asked_of_models_that_read_captions() -> None:
    target = pydt.Target(images(90, 3, 3, "a"))
    found = study(modes=("zero-shot", "probe"), targets={"t": target})
    names = {arm.method: [task.name for task in found.tasks(arm)] for arm in found.arms}
    assert names["clip"][0] == "t, zero-shot"
    assert names["supervised"] == names["scratch"] == names["clip"][1:]


TUNED = {"modes": {"finetune": {"finetune": FineTune(epochs=1)}}}
PUBLIC = pydt.Recipe(method="checkpoint", checkpoint=pydt.train.Checkpoint("open_clip:ViT-B-32/openai"))
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sizes": (20, 41)}, ConfigError, "41 images, but source 'a' has 40"),
    ({"sizes": (20, 20)}, ConfigError, "20 is there twice"),
    ({"sizes": 20}, ConfigError, "is 20, not a list"),
    ({"shots": (1, "ful")}, ConfigError, "shots"),
    ({"shots": ()}, ConfigError, "is empty"),
    ({"shots": (50,)}, DataError, "50 shots, but class"),
    ({"seeds": 1}, ConfigError, "seeds"),
    ({"modes": {"prob": {}}}, ConfigError, "did you mean 'probe'?"),
    ({"modes": {"probe": {"penalti": 1.0}}}, ConfigError, "did you mean 'penalty'?"),
    ({"modes": {}}, ConfigError, "is empty"),
    ({"cells": [("a", 20, "supervisd")]}, ConfigError, "did you mean 'supervised'?"),
    ({"cells": [("c", 20, "clip")]}, ConfigError, "no source 'c'|source 'c'"),
    ({"cells": [("a", 21, "clip")]}, ConfigError, "21"),
    ({"cells": ["abc"]}, ConfigError, "give \\(source, size, method\\)"),
    ({"cells": []}, ConfigError, "is empty"),
    ({"sources": {}}, ConfigError, "is empty"),
    ({"sources": [1]}, ConfigError, "give a dict"),
    ({"sources": {"a": 1}}, ConfigError, "is a int"),
    ({"sources": {"a": images(40, 4, 1, "a", captions=False)}}, ConfigError, "captions"),
    ({"methods": {"s": pydt.Recipe("convnet-8", "none")}}, ConfigError, "give it as scratch="),
    ({"scratch": pydt.Recipe("convnet-8")}, ConfigError, "is no recipe of an untrained network"),
    ({"checkpoints": {"x": pydt.Recipe()}}, ConfigError, "PublicModel"),
    ({"rates": 0.1}, ConfigError, "not a list"),
    ({"rates": (0.1, 0.3)}, ConfigError, "no mode has a learning rate"),
    ({"rates": (0.1,), **TUNED}, ConfigError, "one rate, which leaves nothing to choose"),
    ({"rates": (0.1, "x"), **TUNED}, ConfigError, "rates\\[1\\]"),
    ({"rates": (0.1, 0.1), **TUNED}, ConfigError, "is there twice"),
    ({"modes": [["probe"]]}, ConfigError, "unknown mode"),
    ({"modes": {"probe": None}}, ConfigError, "not a dict"),
    ({"modes": {1: {"mode": "probe"}}}, ConfigError, "1 is no name"),
    ({"shots": (1, ["full"])}, ConfigError, "shots"),
    ({"cells": [("a", [20], "clip")]}, ConfigError, "size"),
    ({"name": 3}, ConfigError, "Study.name"),
    ({"checkpoints": {"scratch": PublicModel(PUBLIC, "LAION")}}, ConfigError, "'scratch' is there twice"),
]


@pytest.mark.parametrize(("changes", "kind", "text"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_cannot_be_is_refused_before_anything_is_trained(changes: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        study(**changes)


def test_public_models_say_what_they_are() -> None:
    with pytest.raises(ConfigError, match="is no recipe of a checkpoint"):
        PublicModel(pydt.Recipe(), "LAION")


def test_the_order_of_rates_asks_nothing_else() -> None:
    one, other = study(rates=(0.3, 0.1), **TUNED), study(rates=(0.1, 0.3), **TUNED)
    assert one.rates == (0.1, 0.3)
    assert one.digest == other.digest
