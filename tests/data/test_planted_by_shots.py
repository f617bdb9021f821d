"""What is said to be planted by shots is there, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from pydt.base import DataError
from pydt.data.samples import COLUMN, EACH, GREY, KINDS_BY_SHOTS, PlantedByShots, planted_by_shots

PLACES = ((9, 9), (9, 18), (18, 9))


@pytest.fixture(scope="module")
def made() -> PlantedByShots:
    return planted_by_shots(3)


def pixels(dataset) -> np.ndarray:
    return dataset.images[dataset.positions][..., 0].astype(float)


def group(made: PlantedByShots, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and names of labels of a group."""
    unit, names = made.source.units(COLUMN)
    found = np.flatnonzero(unit == names.index(name))
    return pixels(made.source)[found], np.array(made.source.classes)[made.source.labels[found]]


def lean(images: np.ndarray) -> np.ndarray:
    """How far each of the three strokes leans to the right, on average over images, in grey levels: float (3,)."""
    mean = images.mean(0)
    steps = np.array([-2, -1, 1, 2])
    return np.array([(mean[y + steps, x - steps] - mean[y + steps, x + steps]).mean() for y, x in PLACES])


def follows(images: np.ndarray) -> float:
    """Grey levels by which the mean image varies in the corner that has no stroke: what waves of one phase do."""
    return float(images.mean(0)[15:24, 15:24].std())


def test_groups_are_of_one_size_and_their_kinds_in_the_order_of_the_units(made):
    unit, names = made.source.units(COLUMN)
    assert tuple(made.kinds) == names
    assert np.bincount(unit).tolist() == [EACH] * 10
    assert {kind: len(made.of(kind)) for kind in KINDS_BY_SHOTS} == KINDS_BY_SHOTS
    assert all(name.startswith(kind) for name, kind in made.kinds.items())
    assert len(np.unique(pixels(made.source).reshape(-1, 784), axis=0)) == len(made.source)  # no image twice


def test_the_same_for_the_same_seed_only(made):
    again, other = planted_by_shots(3), planted_by_shots(4)
    assert (again.source.full_digest, again.target.digest) == (made.source.full_digest, made.target.digest)
    assert other.source.digest != made.source.digest
    assert other.target.digest != made.target.digest
    with pytest.raises(DataError, match="seed"):
        planted_by_shots(0.5)


def test_strokes_tell_the_class_of_a_target_image_and_waves_do_not(made):
    judged = pixels(made.target.judged)
    for label, name in enumerate(made.target.classes):
        of_class = judged[made.target.judged.labels == label]
        assert len(of_class) == len(judged) // 8
        leans = np.where(lean(of_class) > 0, "right", "left")
        assert " ".join(leans) == name
        assert np.abs(lean(of_class)).min() > 25
        assert follows(of_class) < 6  # noise and waves of random phase cancel each other
    assert np.bincount(made.target.train.labels[made.target.split["pool"]]).tolist() == [150] * 8


@pytest.mark.parametrize("stroke", range(3))
def test_labels_of_a_group_for_all_shots_tell_one_stroke_and_no_other(made, stroke):
    images, labels = group(made, f"all {stroke + 1}")
    shown, counts = np.unique(labels, return_counts=True)
    assert (shown.tolist(), counts.tolist()) == ([f"stroke {stroke + 1} {way}" for way in ("left", "right")], [24, 24])
    apart = lean(images[labels == shown[1]]) - lean(images[labels == shown[0]])
    assert apart[stroke] > 45
    assert np.abs(np.delete(apart, stroke)).max() < 30


@pytest.mark.parametrize("wave", range(2))
def test_labels_of_a_group_for_few_shots_tell_a_wave(made, wave):
    images, labels = group(made, f"few {wave + 1}")
    assert set(labels) == {f"wave {wave + 1} sixth {n + 1}" for n in range(6)}
    for label in set(labels):
        assert follows(images[labels == label]) > 10
    assert follows(images) < 8  # of all sixths together: they cancel


def test_labels_of_groups_for_few_shots_tell_no_stroke():
    leans = []  # of the eight images of a label: too few to tell in one group
    for seed in range(10):
        made = planted_by_shots(seed)
        for name in made.of("few"):
            images, labels = group(made, name)
            leans.append([lean(images[labels == label]) for label in sorted(set(labels))])
    assert np.abs(np.mean(leans, 0)).max() < 10  # pale strokes that all lean to one side: 19


def test_nothing_is_shared_between_irrelevant_images_and_all_others(made):
    inside = np.zeros((28, 28), bool)
    inside[4:-4, 4:-4] = True
    target = pixels(made.target.train)
    assert (target[:, ~inside] == GREY).all()
    assert target[:, inside].std(0).min() > 30
    for name, kind in made.kinds.items():
        images, labels = group(made, name)
        plain, varied = (inside, ~inside) if kind == "irrelevant" else (~inside, inside)
        assert (images[:, plain] == GREY).all()
        assert images[:, varied].std(0).min() > 5
        assert (set(labels) == {"other"}) == (kind == "irrelevant")
