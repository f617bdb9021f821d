"""Data sets as an index, and targets whose parts never meet."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt import glyphs
from pydt.data import Dataset, spool
from pydt.errors import DataError
from pydt.files import canonical_json, digest, write_atomic
from pydt.target import Target


def test_arrays_are_not_copied_and_labels_become_ids() -> None:
    images = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    dataset = Dataset.from_arrays(images, ["cat", "dog", "cat", "ant"])
    assert np.shares_memory(dataset.images, images)
    assert dataset.images is not None
    assert dataset.images.shape == (4, 5, 6, 1)
    assert dataset.classes == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [1, 2, 1, 0]


def test_integer_labels_with_gaps_are_renumbered_only_without_class_names() -> None:
    images = np.zeros((3, 2, 2), np.uint8)
    assert Dataset.from_arrays(images, [7, 3, 7]).labels.tolist() == [1, 0, 1]
    assert Dataset.from_arrays(images, [7, 3, 7]).classes == ("3", "7")
    assert Dataset.from_arrays(images, [1, 0, 1], ["x", "y"]).classes == ("x", "y")


def test_digest_sees_every_part() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 3), np.uint8)
    labels = [0, 1, 0, 1, 0, 1]
    base = Dataset.from_arrays(images, labels)
    changed = images.copy()
    changed[5, 2, 2] ^= 1
    others = [
        Dataset.from_arrays(changed, labels),
        Dataset.from_arrays(images, [1, 0, 0, 1, 0, 1]),
        Dataset.from_arrays(images, labels, ["0", "2"]),
        Dataset.from_arrays(images, labels, captions=list("abcdef")),
        Dataset.from_arrays(images, labels, columns={"site": [0, 0, 0, 1, 1, 1]}),
        base.sample(5),
    ]
    digests = [base.digest, *(other.digest for other in others)]
    assert len(set(digests)) == len(digests)
    assert Dataset.from_arrays(images.copy(), labels, name="another name").digest == base.digest


def test_npy_files_are_mapped_and_survive_saving_and_pickling(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    dataset = Dataset.from_arrays(
        tmp_path / "images.npy",
        [0, 1, 0, 1, 0, 1],
        columns={"site": ["x", None, "y", "x", "y", "y"]},
        captions=list("abcdef"),
    )
    assert isinstance(dataset.images, np.memmap)
    saved = dataset.save(tmp_path / "index")
    assert not (tmp_path / "index" / "images.npy").exists(), "an existing .npy must not be written again"
    packed = pickle.dumps(saved)
    assert len(packed) < 500
    again = pickle.loads(packed)
    assert again.digest == dataset.digest
    assert again.captions == tuple("abcdef")
    codes, names = again.units("site")
    assert codes.tolist() == [0, -1, 1, 0, 1, 1]
    assert names == ("x", "y")
    assert np.array_equal(again.images, images)


def test_in_memory_subsets_are_spooled_once(tmp_path: Path, source: Dataset) -> None:
    subset = source.sample(30, seed=1)
    first, second = spool(subset, tmp_path), spool(subset, tmp_path)
    assert first.folder == second.folder
    assert first.digest == subset.digest
    assert first.images is not None
    assert subset.images is not None
    assert np.array_equal(first.images[first.positions], subset.images[subset.positions])
    assert spool(first, tmp_path / "elsewhere") is first


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_index_is_refused(tmp_path: Path, source: Dataset, damage: str) -> None:
    source.save(tmp_path)
    index = tmp_path / "index.safetensors"
    data = bytearray(index.read_bytes())
    if damage == "truncate":
        index.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[0] ^= 0xFF
        index.write_bytes(data)
    else:
        (tmp_path / "images.npy").unlink()
    with pytest.raises(DataError, match=r"index\.safetensors|images\.npy"):
        Dataset.open(tmp_path)


def test_samples_are_nested_and_depend_on_the_seed(source: Dataset) -> None:
    small, large = source.sample(20, seed=3), source.sample(90, seed=3)
    assert set(small.positions) <= set(large.positions)
    assert set(small.positions) != set(source.sample(20, seed=4).positions)
    assert (np.diff(small.positions) > 0).all()


def test_concat_joins_classes_by_name_and_remembers_the_source() -> None:
    a = Dataset.from_arrays(np.full((2, 2, 2), 1, np.uint8), ["x", "y"], name="a")
    b = Dataset.from_arrays(np.full((3, 2, 2), 2, np.uint8), ["y", "z", "y"], name="b")
    both = Dataset.concat([a, b])
    assert both.classes == ("x", "y", "z")
    assert both.labels.tolist() == [0, 1, 1, 2, 1]
    assert both.units("source")[0].tolist() == [0, 0, 1, 1, 1]
    assert both.units("source")[1] == ("a", "b")
    assert both.images is not None
    assert both.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 2]


def test_folder_keys_are_relative_and_classes_sorted(folder_of_images: Path) -> None:
    dataset = Dataset.from_folder(folder_of_images)
    assert dataset.classes == ("class 0", "class 1", "class 2")
    assert dataset.keys is not None
    assert dataset.keys[0] == "class 0/0.jpg"
    assert len(dataset) == 21
    before = dataset.digest
    moved = folder_of_images.rename(folder_of_images.with_name("moved"))
    assert Dataset.from_folder(moved).digest == before, "the digest must not depend on where the folder lies"


def test_torchvision_data_sets(folder_of_images: Path) -> None:
    from PIL import Image
    from torch.utils.data import TensorDataset
    from torchvision.datasets import ImageFolder

    folder = Dataset.from_torchvision(ImageFolder(str(folder_of_images)))
    assert folder.digest == Dataset.from_folder(folder_of_images).digest

    class Pairs(TensorDataset):
        def __init__(self) -> None: ...
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> tuple[Image.Image, int]:  # type: ignore[override]
            return Image.new("RGB", (5, 4), (i, 0, 0)), i % 2

    pairs = Dataset.from_torchvision(Pairs())
    assert pairs.images is not None
    assert pairs.images.shape == (3, 4, 5, 3)
    assert pairs.images[:, 0, 0, 0].tolist() == [0, 1, 2]


@given(counts=st.lists(st.integers(12, 60), min_size=2, max_size=6), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_target_parts_never_meet_and_are_stratified(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    target = Target(Dataset.from_arrays(np.zeros((len(labels), 1, 1), np.uint8), labels))
    parts = list(target.split.values())
    together = np.concatenate(parts)
    assert sorted(together) == list(range(len(labels))), "every example in exactly one part"
    for part in parts:
        share = np.bincount(labels[part], minlength=len(counts)) / len(part)
        # A contiguous run of the stratified order holds each class within one example of its share at either end.
        assert (np.abs(share - np.array(counts) / len(labels)) <= 2 / len(part) + 1e-9).all()


def test_target_split_ignores_order_and_seed() -> None:
    images = np.arange(90, dtype=np.uint8).reshape(90, 1, 1)
    labels = np.arange(90) % 3
    first = Target(Dataset.from_arrays(images, labels))
    assert [p.tolist() for p in first.split.values()] == [
        p.tolist() for p in Target(Dataset.from_arrays(images, labels)).split.values()
    ]


def test_a_test_set_of_its_own_is_the_only_thing_judged(source: Dataset) -> None:
    test = Dataset.from_arrays(np.zeros((40, 12, 12), np.uint8), np.arange(40) % 8, source.classes)
    target = Target(source, test)
    assert len(target.split["pool"]) + len(target.split["validation"]) == len(source)
    assert sorted(np.concatenate([target.split["score"], target.split["report"]])) == list(range(40))
    assert target.judged is test


def test_weights_make_the_metric() -> None:
    labels = np.array([0] * 80 + [1] * 16)
    dataset = Dataset.from_arrays(np.zeros((96, 1, 1), np.uint8), labels)
    right = np.zeros(96)
    right[labels == 1] = 1  # all of the rare class right, all of the frequent one wrong
    for metric, expected in (("top-1", 1 / 6), ("mean per class", 1 / 2)):
        described = Target(dataset, metric=metric).described()
        for half in (0, 1):
            chosen = described["half"] == half
            value = right[described["ids"][chosen]] @ described["weights"][chosen]
            assert value == pytest.approx(expected, abs=0.03)
            assert described["weights"][chosen].sum() == pytest.approx(1)


def test_the_sample() -> None:
    source, target = glyphs.source(each=3), glyphs.digits()
    assert source.classes == tuple(glyphs.SCRIPTS["alphanumerics"])
    assert source.captions is not None
    assert source.captions[0] == "digit zero"
    assert source.images is not None
    ink = (source.images > 0).mean(axis=(1, 2, 3))
    assert (ink > 0.01).all(), "every character leaves a mark"
    assert (ink < 0.6).all()
    assert {name: len(part) for name, part in target.split.items()} == {
        "pool": 400,
        "validation": 200,
        "score": 598,
        "report": 599,
    }
    assert glyphs.source(each=3).digest == source.digest, "the cache returns what was rendered"
    more = glyphs.source(each=4)
    assert more.images is not None
    assert np.array_equal(more.images[:3], source.images[:3]), "more images of a character only add to it"
    for script in glyphs.SCRIPTS:
        assert len(glyphs.source(script, each=1).classes) == len(glyphs.SCRIPTS[script])


def test_digests_tell_types_and_boundaries_apart() -> None:
    different = [
        ("a", "b"),
        ("ab",),
        (b"ab",),
        (["a", "b"],),
        (np.array([1, 2]),),
        (np.array([[1, 2]]),),
        (np.array([1.0, 2.0]),),
    ]
    assert len({digest(*parts) for parts in different}) == len(different)
    assert canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from pydt.errors import StoreError

    path = tmp_path / "file"
    write_atomic(path, b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoreError, match="No space left"):
        write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
