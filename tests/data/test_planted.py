"""What is said to be planted is there, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from pydt.base import DataError
from pydt.data.samples import COLUMN, EACH, KINDS, Planted, planted


@pytest.fixture(scope="module")
def made() -> Planted:
    return planted(3)


def pixels(dataset) -> np.ndarray:
    return dataset.images[dataset.positions][..., 0].astype(float)


def group(made: Planted, name: str) -> np.ndarray:
    unit, names = made.source.units(COLUMN)
    return np.flatnonzero(unit == names.index(name))


def distances(made: Planted) -> np.ndarray:
    """Least mean square difference over moves by up to a pixel, of each source from each target image."""
    source, judged = pixels(made.source), pixels(made.target.judged).reshape(-1, 784)
    least = np.full((len(source), len(judged)), np.inf)
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            moved = np.roll(source, (y, x), (1, 2)).reshape(-1, 784)
            apart = (moved**2).sum(1)[:, None] + (judged**2).sum(1) - 2 * moved @ judged.T
            least = np.minimum(least, apart / 784)
    return least


def test_groups_are_of_one_size_and_their_kinds_in_the_order_of_the_units(made):
    unit, names = made.source.units(COLUMN)
    assert tuple(made.kinds) == names
    assert np.bincount(unit).tolist() == [EACH] * 17
    assert {kind: len(made.of(kind)) for kind in KINDS} == KINDS
    assert names[made.of("leak")[0]] == "leak"


def test_the_same_for_the_same_seed_only(made):
    again = planted(3)
    assert (again.source.full_digest, again.target.digest) == (made.source.full_digest, made.target.digest)
    assert np.array_equal(again.pairs, made.pairs)
    other = planted(4)
    assert other.source.digest != made.source.digest
    assert other.target.digest != made.target.digest
    with pytest.raises(DataError, match="seed"):
        planted(0.5)


def test_copies_are_near_their_originals_and_nothing_else_is_near_the_target(made):
    copies, originals = made.pairs.T
    apart = distances(made)
    assert np.array_equal(np.sort(copies), group(made, "leak"))
    assert apart[copies, originals].min() > 0
    assert apart[copies, originals].max() < 180
    apart[copies, originals] = np.inf
    assert np.delete(apart, copies, 0).min() > 200
    assert apart[copies].min() > 200  # no copy is near a second image either
    for half in ("score", "report"):
        assert np.isin(originals, made.target.split[half]).sum() == EACH // 2
    assert not (made.subtype | made.spoiled)[originals].any()
    assert len(np.unique(pixels(made.source).reshape(-1, 784), axis=0)) == len(made.source)  # no image twice


def test_a_copy_has_the_label_of_its_original(made):
    copies, originals = made.pairs.T
    labels = [made.source.classes[label] for label in made.source.labels[copies]]
    assert labels == [str(label) for label in made.target.judged.labels[originals]]


def test_labels_are_right_but_where_they_are_planted_wrong(made):
    labels = np.array(made.source.classes)[made.source.labels]
    for number in range(5):
        shown, counts = np.unique(labels[group(made, f"help {number + 1}")], return_counts=True)
        assert (shown.tolist(), counts.tolist()) == ([str(number), str(number + 5)], [24, 24])
    for number in range(3):
        assert len(np.unique(labels[group(made, f"harm {number + 1}")])) >= 8
    for name, label in {"sub-type": "0", "misleading": "2", "irrelevant 1": "other"}.items():
        assert set(labels[group(made, name)]) == {label}


def test_sub_type_and_spoiled_images_bear_their_mark(made):
    labels, judged = made.target.judged.labels, pixels(made.target.judged)
    assert set(labels[made.subtype]) == {0}
    assert made.subtype.sum() == round(0.4 * (labels == 0).sum())
    stamp = judged[:, 23:27, 23:27].min((1, 2)) == 255
    assert np.array_equal(stamp, made.spoiled)
    assert set(labels[made.spoiled]) == {7}
    assert not made.spoiled[made.target.split["pool"]].any()
    source = pixels(made.source)
    assert (source[group(made, "misleading")][:, 23:27, 23:27] == 255).all()
    zeros = labels == 0  # a slash fills the middle of a zero
    filled = judged[:, 13:15, 13:15].mean((1, 2))
    assert filled[made.subtype].min() > filled[zeros & ~made.subtype].mean() + 50
    assert source[group(made, "sub-type"), 13:15, 13:15].mean((1, 2)).min() > 50
