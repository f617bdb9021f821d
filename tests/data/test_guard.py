"""A guarded target has the pool and the validation examples, and nothing of the judged halves."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pydt.base import DataError
from pydt.data import Dataset, GuardedTarget, Target, guarded


def test_it_holds_the_open_examples_alone(target: Target) -> None:
    shut = guarded(target)
    assert len(shut.train) == len(target.split["pool"]) + len(target.split["validation"]) == 60
    for part in ("pool", "validation"):
        here, there = shut.split[part], target.split[part]
        assert np.array_equal(shut.ids[here], there)
        assert np.array_equal(shut.train.labels[here], target.train.labels[there])
        assert shut.train.images is not None
        assert target.train.images is not None
        assert np.array_equal(shut.train.images[shut.train.positions[here]], target.train.images[there])
    assert shut.digest == target.digest
    assert guarded(shut) is shut


def test_judged_labels_raise(target: Target) -> None:
    shut = guarded(target)
    for read in (
        lambda: shut.split["score"],
        lambda: shut.split["report"],
        lambda: shut.judged,
        lambda: shut.described(),
    ):
        with pytest.raises(DataError, match=r"target four blobs: .* the choice is not stored yet"):
            read()
    assert list(shut.split) == ["pool", "validation"]
    with pytest.raises(KeyError):
        shut.split["train"]


@pytest.mark.parametrize("own_test", [False, True])
def test_what_travels_to_a_worker_has_no_judged_example(target: Target, tmp_path: Path, own_test: bool) -> None:
    images, labels = target.train.images, target.train.labels
    assert images is not None
    test = Dataset.from_arrays(255 - images, labels, target.classes, name="dark") if own_test else None
    whole = Target(target.train, test, pool=30, validation=17)
    sent: GuardedTarget = pickle.loads(pickle.dumps(guarded(whole).spool(tmp_path)))
    assert len(sent.train) == 47
    assert sent.test is None
    assert sent.digest == whole.digest
    assert np.array_equal(sent.train.labels[sent.split["pool"]], labels[whole.split["pool"]])
    saved = sum(len(np.load(path, mmap_mode="r")) for path in tmp_path.rglob("*.npy"))
    assert saved == 47, "of the images on disk"
    with pytest.raises(DataError, match="not stored yet"):
        sent.split["report"]


def test_encoded_images_stay_where_they_are(photos: Dataset, tmp_path: Path) -> None:
    whole = Target(photos)
    shut = pickle.loads(pickle.dumps(guarded(whole).spool(tmp_path)))
    assert [shut.train.all_keys()[i] for i in shut.split["pool"]] == [
        photos.all_keys()[i] for i in whole.split["pool"].tolist()
    ]
    first = int(shut.split["validation"][0])
    (ours,), (theirs,) = shut.train.bytes_of([first], check=True), photos.bytes_of([int(shut.ids[first])])
    assert np.array_equal(ours, theirs)
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_class_keeps_its_number_where_no_open_example_has_it(target: Target) -> None:
    whole = Target(target.train, pool=2, validation=1)
    assert guarded(whole).classes == target.classes
    assert np.array_equal(guarded(whole).train.labels, target.train.labels[guarded(whole).ids])


def test_copies_of_judged_images_are_told_though_a_guarded_target_was_asked_first(target: Target) -> None:
    assert target.train.images is not None
    report = target.split["report"][:3]
    source = Dataset.from_arrays(target.train.images[report], ["x", "y", "y"])
    assert guarded(target).copied(source, *source.units()) == []
    (said,) = target.copied(source, *source.units())
    assert said.startswith("3 images of the target 'four blobs' are in the source")


def test_a_target_without_validation_images_is_refused(target: Target) -> None:
    with pytest.raises(DataError, match=r"four blobs: has no validation images.*Target\(validation=\.\.\.\)"):
        guarded(replace(target, validation=0))
