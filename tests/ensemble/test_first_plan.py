"""First plans: sizes, network, shots and pool for many shapes of data, against the real split of a target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydt.base import DataError
from pydt.data import Dataset, Target
from pydt.ensemble.first_plan import ImageFacts, TargetFacts, first_plan, pool_of, written
from pydt.training import Recipe, Task


def facts(each: int | list[int] = 20, classes: int = 6, side: float = 224, name: str = "photos") -> ImageFacts:
    counts = [each] * classes if isinstance(each, int) else each
    named = {f"c{i}": count for i, count in enumerate(counts)}
    return ImageFacts({"folder": name}, name, named, side, side + 20)


def plan_of(source: ImageFacts, target: ImageFacts | None = None, **more: object):  # type: ignore[no-untyped-def]
    return first_plan(source, [TargetFacts(target or facts(60, 4))], **more)  # type: ignore[arg-type]


def test_small_images_get_the_small_network_and_large_ones_resnet_where_there_are_enough() -> None:
    small = plan_of(facts(500, 10, side=28))
    assert (small.value("network"), small.value("augment.size")) == ("convnet-24", 28)
    assert plan_of(facts(500, 10, side=40)).value("augment.size") == 32
    few = plan_of(facts(20, 6))
    assert (few.value("network"), few.value("augment.size")) == ("convnet-24", 64)
    many = plan_of(facts(500, 6), workers=64)
    assert (many.value("network"), many.value("augment.size")) == ("resnet18", 64)
    gpu = plan_of(facts(500, 6), device="cuda")
    assert (gpu.value("network"), gpu.value("augment.size"), gpu.value("device")) == ("resnet18", 128, "cuda")
    assert gpu.hours is None
    slow = plan_of(facts(5000, 30), workers=1)
    assert slow.value("network") == "convnet-24"
    assert "hours" in next(one.why for one in slow.settings if one.key == "network")


@pytest.mark.parametrize(
    ("groups", "models", "alpha"), [(3, 60, 0.5), (6, 60, 0.5), (15, 80, 0.5), (16, 80, 0.25), (62, 310, 0.25)]
)
def test_there_are_five_models_a_group_and_fifty_more_than_groups(groups: int, models: int, alpha: float) -> None:
    made = plan_of(facts(20, groups))
    assert (made.value("models"), made.value("alpha")) == (models, alpha)
    assert made.value("models") >= max(5 * groups, groups + 50)


@pytest.mark.parametrize("each", [4, 20, 100, 600])
def test_a_model_takes_at_least_150_steps_and_six_passes(each: int) -> None:
    made = plan_of(facts(each, 6))
    kept = 3 * each
    steps = made.value("epochs") * max(1, kept // made.value("batch_size"))
    assert steps >= 150
    assert made.value("epochs") >= 6
    assert made.value("batch_size") in (16, 32, 64, 128)


@pytest.mark.parametrize(("groups", "sets"), [(3, 3), (4, 6), (5, 10)])
def test_few_groups_promise_no_small_errors(groups: int, sets: int) -> None:
    """Half of five groups can be kept in 10 ways: no number of models tells the noise."""
    made = plan_of(facts(classes=groups))
    (why,) = (one.why for one in made.settings if one.key == "models")
    assert why.startswith(f"only {sets} sets of groups can be kept: errors stay wide")
    (why,) = (one.why for one in plan_of(facts(classes=6)).settings if one.key == "models")
    assert "tell the noise to 10 %" in why


def test_the_rate_is_the_one_that_the_network_has_by_default() -> None:
    for made in (plan_of(facts(20, 6)), plan_of(facts(500, 6), workers=64)):
        assert made.value("lr") == Recipe(network=made.value("network")).lr


@pytest.mark.parametrize("test_set", [False, True])
def test_the_pool_always_has_the_shots(test_set: bool) -> None:
    """The real split of 60 targets of unequal classes, which orders equal places by a hash of the keys."""
    random = np.random.default_rng(0)
    for _ in range(60):
        counts = random.integers(5, 60, int(random.integers(2, 7))).tolist()
        pool, least = pool_of({str(i): count for i, count in enumerate(counts)}, test_set)
        labels = np.repeat(np.arange(len(counts)), counts)
        images = random.integers(0, 256, (len(labels), 4, 4), np.uint8)
        test = Dataset.from_arrays(random.integers(0, 256, (len(labels), 4, 4), np.uint8), labels) if test_set else None
        train = Dataset.from_arrays(images, labels)
        target = Target(train, test) if test_set else Target(train, pool=pool, validation=max(len(labels) // 9, 1))
        assert len(target.split["pool"]) == pool
        real = np.bincount(labels[target.split["pool"]], minlength=len(counts)).min()
        assert least <= real <= least + 1
        made = first_plan(
            facts(), [TargetFacts(facts(counts), facts(counts) if test_set else None)]
        )  # what it writes is a task
        Task(target, shots=made.value("shots"))
        assert made.value("shots") == max(1, min(5, least // 2))


def test_many_images_have_the_usual_split_and_five_shots() -> None:
    made = plan_of(facts(), facts(100, 10))
    assert (made.value("shots"), made.value("target.pool")) == (5, round(2 * 1000 / 9))
    assert made.value("target.validation") == 1000 // 9


def test_what_cannot_be_planned_is_refused_with_the_class() -> None:
    with pytest.raises(DataError, match="photos: has 2 classes: too few to compare"):
        plan_of(facts(20, 2))
    with pytest.raises(DataError, match="pets: has 1 class"):
        plan_of(facts(), facts(20, 1, name="pets"))
    with pytest.raises(DataError, match="pets: class 'c1' has 1 images: too few"):
        plan_of(facts(), facts([20, 1, 30], name="pets"))


def test_two_targets_are_two_tasks_and_every_setting_but_paths_has_a_reason() -> None:
    targets = [TargetFacts(facts(60, 3, name="a")), TargetFacts(facts(60, 3, name="b"), facts(9, 3, name="b test"))]
    made = first_plan(facts(), targets, workers=2)
    text = written(made, "pydt init photos a b", "mine.toml")
    assert text.count("[[tasks]]") == 2
    assert 'target.test.folder = "b test"' in text
    assert 'dir = "mine"' in text
    assert text.count("\n[recipe]\n") == 1
    for line in text.splitlines():
        assert " = " not in line.split("#")[0] or "  # " in line, line
        assert len(line) <= 120


def test_texts_of_paths_stay_one_value_and_one_comment() -> None:
    import tomllib

    odd = replace(facts(), named={"folder": 'a "b"\n# c\x7f'}, classes={'x"\n[run]': 20, "y": 30, "z": 40})
    text = written(first_plan(odd, [TargetFacts(odd)]), "pydt init 'a\nb' c", "p.toml")
    assert tomllib.loads(text)["source"] == {"folder": 'a "b"\n# c\x7f'}
    assert tomllib.loads(text)["run"] == {"dir": "p"}


def test_decoding_large_photographs_is_most_of_the_time() -> None:
    large, small = plan_of(facts(100, 6, side=3000)), plan_of(facts(100, 6, side=60))
    assert large.hours is not None
    assert large.decoding > 0.9 * large.hours
    assert small.decoding < large.decoding / 100
