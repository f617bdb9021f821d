"""The far target: ten textures whose judged patches touch none that few-shot draws learn from."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from pydt.base import DataError
from pydt.data import Dataset, Target
from pydt.data.samples import textures


@pytest.fixture(scope="module")
def target() -> Target:
    return textures()


def places(dataset: Dataset, label: int) -> np.ndarray:
    """Row and column of the patches of a class, int64 (n, 2)."""
    chosen = dataset.labels == label
    columns = [dataset.columns[name] for name in ("row", "column")]
    return np.stack([np.array(names).astype(int)[codes[chosen]] for codes, names in columns], 1)


def test_the_sizes_that_the_docstring_tells(target):
    assert {part: len(ids) for part, ids in target.split.items()} == {
        "pool": 400,
        "validation": 200,
        "score": 434,
        "report": 434,
    }
    assert target.train.images.shape[1:] == target.judged.images.shape[1:] == (28, 28, 1)
    assert len(target.classes) == 10
    assert np.bincount(target.train.labels[target.split["pool"]]).min() >= 20  # 20-shot draws are possible


def test_judged_patches_neither_overlap_nor_touch_those_of_the_pool(target):
    for label in range(10):
        learnt, judged = places(target.train, label), places(target.judged, label)
        every = np.concatenate([learnt, judged])
        assert len(np.unique(every, axis=0)) == len(every)
        assert np.abs(learnt[:, None] - judged[None]).max(2).min() >= 2


def test_no_image_is_there_twice(target):
    pixels = np.concatenate([part.images.reshape(len(part), -1) for part in (target.train, target.judged)])
    assert len(np.unique(pixels, axis=0)) == len(pixels)


@pytest.mark.parametrize(("name", "left", "top"), [("sky", 330, 0), ("willow", 340, 310), ("shrubs", 0, 343)])
def test_a_patch_is_what_the_photograph_shows_at_its_place(target, name, left, top):
    photograph = np.asarray(Image.fromarray(load_sample_image("china.jpg")).convert("L"), float)
    label = target.classes.index(name)
    for part in (target.train, target.judged):
        images = part.images[part.positions[part.labels == label], ..., 0].astype(float)
        for image, (row, column) in zip(images, places(part, label), strict=True):
            y, x = top + 14 * row, left + 14 * column
            seen = image.reshape(14, 2, 14, 2).mean((1, 3))
            assert np.abs(seen - photograph[y : y + 14, x : x + 14])[1:-1, 1:-1].mean() < 12
            assert abs(seen.mean() - photograph[y : y + 14, x : x + 14].mean()) < 2


def test_the_same_each_time_and_by_another_metric(target):
    again = textures()
    assert again.digest == target.digest
    assert textures(metric="mean per class").metric == "mean per class"
    with pytest.raises(DataError, match="unknown metric"):
        textures(metric="top1")
