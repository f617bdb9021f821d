"""The few-shot protocol: what is learnt from grows, what is judged never changes, classes are known by their names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stub_images import blobs
from stub_text import StubTower

from pydt.base import DataError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.training import FineTune, Recipe, Task, Trained, train, transfer
from pydt.training.transfer.modes import MODES

SHORT = FineTune(epochs=1, lr=0.05, batch_size=32)
SHOTS = (1, 5, "full")


@pytest.fixture(scope="module")
def trained(source: Dataset) -> Trained:
    recipe = Recipe(network="convnet-4", epochs=2, batch_size=32, augment=Augment(mean=(0.3,), std=(0.2,)))
    found = train(source, None, recipe, 0)
    return replace(found, text=StubTower(found.dim), _known={})


@pytest.fixture(scope="module")
def tested() -> Target:
    """A target with a test set of its own."""
    (images, labels), (other, others) = blobs(14, 4, 50), blobs(11, 4, 51)
    classes = ["a", "b", "c", "d"]
    return Target(Dataset.from_arrays(images, labels, classes), Dataset.from_arrays(other, others, classes))


def tasks(target: Target, mode: str) -> list[Task]:
    if not MODES[mode].labelled:
        return [Task(target, mode)]
    return [Task(target, mode, shots=shots, draws=2, finetune=SHORT) for shots in SHOTS]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["split", "tested"])
def test_all_judged_images_are_judged_for_every_k(
    trained: Trained, target: Target, tested: Target, mode: str, kind: str
) -> None:
    chosen = target if kind == "split" else tested
    described = chosen.described()
    everything = np.concatenate([chosen.split["score"], chosen.split["report"]])
    if kind == "tested":
        assert np.array_equal(np.sort(everything), np.arange(44)), "of a test set every image is judged"
    for task in tasks(chosen, mode):
        for name, values in task.target.described().items():
            np.testing.assert_array_equal(values, described[name])
        if kind == "split":
            assert not np.isin(task.few_shot(), described["ids"]).any()
        outputs = transfer(trained, task, 0)
        assert outputs.primitives.shape == (4, task.draws, len(everything))
        right = outputs.primitives[3] == chosen.judged.labels[everything]
        for i, half in enumerate(("score", "report")):
            own = described["half"] == i
            assert outputs.scalars[f"{half}_accuracy"] == pytest.approx(right[:, own].mean())


def test_draws_are_nested_balanced_and_without_repetition(tested: Target) -> None:
    most = min(np.bincount(tested.train.labels[tested.split["pool"]]))
    found = {k: Task(tested, shots=k, draws=4, seed=3).few_shot() for k in range(1, most + 1)}
    for k, draws in found.items():
        assert draws.shape == (4, 4 * k)
        for i, draw in enumerate(draws):
            assert len(np.unique(draw)) == len(draw), "no image twice"
            assert np.isin(draw, tested.split["pool"]).all()
            assert (np.bincount(tested.train.labels[draw]) == k).all()
            assert k == 1 or set(found[k - 1][i]) < set(draw)
    assert len({tuple(draw) for draw in found[2]}) > 1


@pytest.mark.parametrize("shots", SHOTS)
@pytest.mark.parametrize("part", ["judged", "validation"])
def test_what_a_store_keeps_of_the_draws(target: Target, tested: Target, shots: int | str, part: str) -> None:
    for chosen in (target, tested):
        task = Task(chosen, shots=shots, draws=3)
        positions, labels, keys = replace(task, part=part).drawn()
        np.testing.assert_array_equal(positions, task.few_shot(), "in the whole training set, also of a trial")
        np.testing.assert_array_equal(labels, chosen.train.labels[positions])
        assert keys == [chosen.train.all_keys()[i] for i in np.unique(positions)]


def test_zero_shot_has_no_draws(tested: Target) -> None:
    positions, labels, keys = Task(tested, "zero-shot").drawn()
    assert (positions.shape, labels.shape, keys) == ((1, 0), (1, 0), [])


def test_more_shots_than_a_class_has_are_refused_with_its_name() -> None:
    images, labels = blobs(9, 3, 1)
    rare = np.concatenate([np.flatnonzero(labels != 1), np.flatnonzero(labels == 1)[:6]])
    data = Dataset.from_arrays(images[rare], labels[rare], ["one", "two", "three"])
    target = Target(data, pool=12, validation=0)
    most = int(np.bincount(data.labels[target.split["pool"]]).min())
    assert Task(target, shots=most).few_shot().shape == (8, 3 * most)
    for mode in (name for name, one in MODES.items() if one.labelled):
        told = f"{most + 1} shots, but class 'two' has {most} examples in the pool"
        with pytest.raises(DataError, match=told) as refused:
            Task(target, mode, shots=most + 1)
    parts = [int((data.labels[target.split[part]] == 1).sum()) for part in ("pool", "validation", "score", "report")]
    pool, validation, score, report = parts
    assert sum(parts) == 6
    sums = f"(class 'two' has 6 images: {pool} pool + {validation} validation + {score} score + {report} report)"
    assert sums in refused.value.what
    assert f"take shots = {most}" in str(refused.value.mend)


def test_the_smallest_classes_are_named_and_a_class_without_any_is_not_offered_zero_shots() -> None:
    counts = [30, 4, 2, 6, 7, 1, 30]
    labels = np.repeat(np.arange(7), counts)
    data = Dataset.from_arrays(np.arange(80 * 64, dtype=np.uint32).view(np.uint8).reshape(-1, 16, 16), labels)
    with pytest.raises(DataError) as refused:
        Task(Target(data, pool=20), shots=5)
    own = np.bincount(labels[Target(data, pool=20).split["pool"]], minlength=7)
    order = sorted((c for c in range(7) if own[c] < 5), key=lambda c: int(own[c]))
    assert f"class '{order[0]}' has {own[order[0]]} examples in the pool, '{order[1]}' {own[order[1]]}, " in str(
        refused.value
    )
    assert f"and {len(order) - 4} classes more" in str(refused.value)
    assert own[order[0]] == 0
    assert "leave it out" in str(refused.value)
    assert "shots = 0" not in str(refused.value)


def test_a_class_that_nothing_judges_is_noted_with_its_sum() -> None:
    labels = np.repeat(np.arange(3), (30, 30, 2))
    images = np.random.default_rng(0).integers(0, 256, (62, 8, 8), np.uint8)
    data = Dataset.from_arrays(images, labels, ["a", "b", "rare"])
    target = Target(data)
    score, report = (int((labels[target.split[half]] == 2).sum()) for half in ("score", "report"))
    assert 0 in (score, report)
    (note,) = target.notes()
    assert note.startswith("class 'rare' has 2 images: ")
    assert f"{score} score + {report} report: too few to judge in both halves" in note
    assert Target(data.take(np.arange(60))).notes() == []
    assert Target(data, Dataset.from_arrays(255 - images[:60], labels[:60], ["a", "b"])).notes() == []


@pytest.mark.parametrize("mode", MODES)
def test_classes_of_a_test_set_are_bound_by_name(trained: Trained, tested: Target, mode: str) -> None:
    order = np.array([2, 0, 3, 1])
    test = tested.judged
    assert test.images is not None
    place = np.argsort(order)
    renamed = Dataset.from_arrays(test.images, place[test.labels], [test.classes[c] for c in order])
    other = Target(tested.train, renamed)
    assert other.classes == tested.classes
    assert renamed.classes != test.classes
    # by image, should the halves be made up otherwise
    outputs = []
    for target in (tested, other):
        found = transfer(trained, tasks(target, mode)[0], 0).primitives
        outputs.append(found[..., np.argsort(target.described()["ids"])])
    np.testing.assert_array_equal(*outputs)
