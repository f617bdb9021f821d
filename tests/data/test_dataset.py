"""Data sets as an index, and targets whose parts never meet."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt.base import DataError, PydtError, canonical_json, digest, write_atomic
from pydt.data import Dataset, Target, spool
from pydt.data.samples import glyphs


def test_arrays_are_not_copied_and_labels_become_ids() -> None:
    images = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    dataset = Dataset.from_arrays(images, ["cat", "dog", "cat", "ant"])
    assert np.shares_memory(dataset.images, images)
    assert dataset.images is not None
    assert dataset.images.shape == (4, 5, 6, 1)
    assert dataset.classes == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize("container", ["arrays", "folder", "tar", "torchvision", "huggingface"])
def test_a_constructor_travels_to_another_process(container: str) -> None:
    constructor = getattr(Dataset, f"from_{container}")
    assert pickle.loads(pickle.dumps(constructor)) is constructor


def test_integer_labels_with_gaps_are_renumbered_only_without_class_names() -> None:
    images = np.zeros((3, 2, 2), np.uint8)
    assert Dataset.from_arrays(images, [7, 3, 7]).labels.tolist() == [1, 0, 1]
    assert Dataset.from_arrays(images, [7, 3, 7]).classes == ("3", "7")
    assert Dataset.from_arrays(images, [1, 0, 1], ["x", "y"]).classes == ("x", "y")


def test_digest_sees_what_a_network_sees() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 3), np.uint8)
    labels = [0, 1, 0, 1, 0, 1]
    base = Dataset.from_arrays(images, labels)
    changed = images.copy()
    changed[5, 2, 2] ^= 1
    others = [
        Dataset.from_arrays(changed, labels),
        Dataset.from_arrays(images, [1, 0, 0, 1, 0, 1]),
        Dataset.from_arrays(images, labels, ["0", "2"]),
        base.sample(5),
    ]
    digests = [base.digest, *(other.digest for other in others)]
    assert len(set(digests)) == len(digests)
    assert Dataset.from_arrays(images.copy(), labels, name="another name").digest == base.digest
    told = [
        Dataset.from_arrays(images, labels, captions=list("abcdef")),
        Dataset.from_arrays(images, labels, captions=list("abcdeg")),
        Dataset.from_arrays(images, labels, columns={"site": [0, 0, 0, 1, 1, 1]}),
    ]
    assert {data.digest for data in told} == {base.digest}, "texts and further partitions retrain nothing"
    assert len({data.full_digest for data in [base, *told]}) == 4


def test_a_further_column_leaves_the_rows_of_a_store_as_they_are(target: Target, source: Dataset) -> None:
    from pydt import design
    from pydt.ensemble import Plan
    from pydt.training import Recipe, Task

    def trainings(data: Dataset, by: str = "class") -> set[str]:
        drawn = design.random(len(data.units(by)[1]), 6, alpha=0.5)
        return set(Plan(data, by=by, design=drawn, recipe=Recipe(), tasks=(Task(target),)).record().sources)

    assert source.images is not None
    how = {"columns": {"half": np.arange(160) % 2, "other half": np.arange(160) // 80}, "captions": ["x"] * 160}
    told = Dataset.from_arrays(source.images, source.labels, source.classes, **how)
    before = trainings(source)
    assert trainings(told) == before
    assert not trainings(told, "half") & trainings(told, "other half"), "a partition is named beside the data"
    moved = Dataset.from_arrays(source.images, np.roll(source.labels, 1), source.classes)
    assert not trainings(moved) & before


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


def test_a_saved_subset_is_the_subset(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4), np.uint8)
    np.save(tmp_path / "mapped.npy", images)
    for place in (images, tmp_path / "mapped.npy"):
        subset = Dataset.from_arrays(place, np.arange(200) % 4).sample(90)
        saved = subset.save(tmp_path / "saved")
        fresh = replace(saved, name=saved.name)
        assert fresh.digest == saved.digest == subset.digest, "what is written has the digest it claims"
        assert saved.all_keys() == subset.all_keys()
        assert saved.sample(50).all_keys() == subset.sample(50).all_keys()
        assert saved.sample(50).digest == subset.sample(50).digest
        target = Target(subset)
        spooled = target.spool(tmp_path / "spooled")
        assert spooled.train.folder is not None
        assert spooled.digest == target.digest
        for part, positions in target.split.items():
            assert np.array_equal(spooled.split[part], positions), part


def test_a_changed_copy_of_a_saved_set_does_not_travel_as_the_saved_one(tmp_path: Path, source: Dataset) -> None:
    saved = source.save(tmp_path / "saved")
    changed = replace(saved, labels=saved.labels[::-1].copy())
    for copy in (pickle.loads(pickle.dumps(changed)), spool(changed, tmp_path / "spooled")):
        assert copy.labels.tolist() == changed.labels.tolist()
        assert copy.digest == changed.digest != source.digest


def views_of_another_content(file: Path) -> dict[str, np.ndarray]:
    """Memory maps of a .npy file whose pixels are not those that opening the file as uint8 would show."""
    np.save(file, np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4))
    private = np.load(file, mmap_mode="c")
    private[0] = 9
    offset = np.memmap(file, np.uint8, "r", offset=64, shape=(6, 4, 4))
    views = {"reshaped": np.load(file, mmap_mode="r").reshape(6, 2, 8), "private": private, "by hand": offset}
    signed = file.with_name("signed.npy")
    np.save(signed, np.arange(6 * 4 * 4, dtype=np.int8).reshape(6, 4, 4))
    return views | {"signed": np.load(signed, mmap_mode="r").view(np.uint8)}


@pytest.mark.parametrize("view", ["reshaped", "private", "by hand", "signed"])
def test_only_a_whole_and_faithful_map_is_kept_as_a_path(tmp_path: Path, view: str) -> None:
    images = views_of_another_content(tmp_path / "images.npy")[view]
    dataset = Dataset.from_arrays(images, [0, 1, 0, 1, 0, 1])
    saved = dataset.save(tmp_path / "index")
    assert saved.images is not None
    assert np.array_equal(saved.images[..., 0], images)
    assert replace(saved, name="").digest == dataset.digest


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_changed_pixels_are_noticed_and_numbered(tmp_path: Path, source: Dataset) -> None:
    saved = source.save(tmp_path)
    packed = pickle.dumps(saved)
    flip(tmp_path / "images.npy", -100)
    for reopen in (lambda: Dataset.open(tmp_path), lambda: pickle.loads(packed)):
        with pytest.raises(DataError, match=r"images\.npy: its pixels are not.*1 of 160 images, the first.*159"):
            reopen()
    flip(tmp_path / "images.npy", -100)
    assert Dataset.open(tmp_path).digest == source.digest, "the bytes count, not when they were written"


def test_a_changed_npy_of_the_users_is_noticed(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4))
    Dataset.from_arrays(tmp_path / "mine.npy", [0, 1, 0, 1, 0, 1]).save(tmp_path / "index")
    flip(tmp_path / "mine.npy")
    with pytest.raises(DataError, match=r"mine\.npy: its pixels are not"):
        Dataset.open(tmp_path / "index")
    np.save(tmp_path / "mine.npy", np.zeros((6, 4, 4), np.float32))
    with pytest.raises(DataError, match=r"mine\.npy: images of dtype float32"):
        Dataset.open(tmp_path / "index")


def test_images_are_compared_once_per_process_and_not_by_workers(
    tmp_path: Path, source: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydt import _core
    from pydt.data import persistence as saved

    first = source.save(tmp_path)
    read: list[int] = []
    honest = _core.crc_records

    def counting(images: np.ndarray, positions: np.ndarray, threads: int) -> np.ndarray:
        read.append(len(positions))
        return honest(images, positions, threads)

    monkeypatch.setattr(_core, "crc_records", counting)
    Dataset.open(tmp_path)
    assert not read, "saving has compared it already"
    saved.verified.clear()  # another process
    again = pickle.loads(pickle.dumps(first))
    assert not read, "a worker looks at size and time only"
    assert again.digest == source.digest
    saved.verified.clear()
    Dataset.open(tmp_path)
    assert read == [len(source)], "another driver reads it once"


def test_a_folder_that_now_holds_another_set_is_not_taken_for_the_first(tmp_path: Path, source: Dataset) -> None:
    packed = pickle.dumps(source.save(tmp_path))
    replace(source, captions=("one",) * len(source)).save(tmp_path)
    with pytest.raises(DataError, match="holds another data set"):
        pickle.loads(packed)


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


def test_concat_carries_what_all_parts_have() -> None:
    images = np.zeros((2, 2, 2), np.uint8)
    a = Dataset.from_arrays(
        images, [0, 1], columns={"site": ["u", None], "only here": [0, 1]}, captions=["one", "two"], name="a"
    )
    b = Dataset.from_arrays(images, [0, 1], columns={"site": ["w", "u"]}, captions=["three", "four"], name="b")
    both = Dataset.concat(part for part in (a, b))
    assert set(both.columns) == {"site", "source"}
    codes, names = both.units("site")
    assert [names[c] if c >= 0 else None for c in codes] == ["u", None, "w", "u"]
    assert both.captions == ("one", "two", "three", "four")
    assert Dataset.concat([a, replace(b, captions=None)]).captions is None


def test_kept_groups_and_what_is_in_none_stay(tmp_path: Path) -> None:
    images = np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2)
    site = ["in", "out", None, "in", "far", "out", "far", "in"]
    full = Dataset.from_arrays(images, list("aabbccab"), columns={"site": site})
    assert full.keep(["a", "c"]).all_keys() == ("0", "1", "4", "5", "6")
    assert full.keep(("a", "c")).classes == ("a", "c")
    assert full.keep(drop=["b"]).digest == full.keep(["c", "a"]).digest, "in the order of the data set"
    assert full.keep(["far"], by="site").all_keys() == ("2", "4", "6"), "the third is in no group"
    assert full.keep(drop=["far"], by="site").units("site")[1] == ("in", "out")
    assert full.keep(["3", "0"], by="example").all_keys() == ("0", "3")
    (tmp_path / "list.txt").write_text("a\n\n c \n")
    (tmp_path / "list.json").write_text('{"kept": ["a", "c"], "by": "class", "more": 1}')
    for file in ("list.txt", "list.json"):
        assert (
            full.keep(tmp_path / file).digest == full.keep(str(tmp_path / file)).digest == full.keep(drop=["b"]).digest
        )


def test_lists_of_groups_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    named = Dataset.from_arrays(np.zeros((3, 2, 2), np.uint8), ["tabby", "tiger", "hound"])
    (tmp_path / "list.json").write_text('{"kept": ["in"], "by": "site"}')
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "typo.txt").write_text("hound\ntabbi\n")
    for asked, told in (
        (["tabbi"], r"no group 'tabbi' \(by class\)\. did you mean 'tabby'\?"),
        ([3], "no group 3"),
        ([], "no name"),
        ("tabby", r"'tabby' is a text, which means a file\. give a list: \['tabby'\]"),
        ("none.txt", "cannot be read"),
        (tmp_path / "none.json", "not there"),
        (tmp_path / "list.json", "its groups are by 'site', not by 'class'"),
        (tmp_path / "empty.txt", "no name"),
        (tmp_path / "typo.txt", r"typo\.txt: no group 'tabbi' .*did you mean 'tabby'"),
        (7, "no list of names"),
    ):
        with pytest.raises(PydtError, match=told):
            named.keep(asked)
    for arguments in ({}, {"groups": ["tabby"], "drop": ["hound"]}):
        with pytest.raises(PydtError, match="give either groups or drop"):
            named.keep(**arguments)
    with pytest.raises(PydtError, match="all 3 groups are left out"):
        named.keep(drop=["tabby", "tiger", "hound"])


def test_a_sample_forgets_classes_and_units_of_which_nothing_is_left() -> None:
    labels = np.repeat(np.arange(5), [50, 1, 50, 1, 50])
    sites = [None if i % 7 == 0 else f"site {i}" for i in range(len(labels))]
    whole = Dataset.from_arrays(np.zeros((len(labels), 2, 2), np.uint8), labels, list("abcde"), columns={"site": sites})
    part = whole.sample(20)
    kept = [int(key) for key in part.all_keys()]
    assert len(part.classes) < 5
    assert [part.classes[i] for i in part.labels] == [whole.classes[i] for i in labels[kept]]
    codes, names = part.units("site")
    assert [names[c] if c >= 0 else None for c in codes] == [sites[i] for i in kept]
    for by in ("class", "site"):
        codes, names = part.units(by)
        assert (np.bincount(codes[codes >= 0], minlength=len(names)) > 0).all()
        assert len(np.bincount(codes[codes >= 0])) == len(names)


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), ""])
def test_what_is_missing_is_no_class_and_no_unit(missing: object) -> None:
    images = np.zeros((4, 2, 2), np.uint8)
    for values in (["b", missing, "a", "b"], np.array(["b", missing, "a", "b"], object)):
        with pytest.raises(DataError, match="no label at position 1"):
            Dataset.from_arrays(images, values)
        codes, names = Dataset.from_arrays(images, [0, 1, 0, 1], columns={"site": values}).units("site")
        assert codes.tolist() == [1, -1, 0, 1]
        assert names == ("a", "b")
    codes, names = Dataset.from_arrays(images, [0, 1, 0, 1], columns={"site": [10, missing, 9, -1]}).units("site")
    assert codes.tolist() == [1, -1, 0, -1]
    assert names == ("9", "10"), "integers stay integers beside what is missing"
    with pytest.raises(DataError, match="no label at position 2"):
        Dataset.from_arrays(images, np.array([0, 1, np.nan, 1]))
    codes, _ = Dataset.from_arrays(images, [0, 1, 0, 1], columns={"s": np.array([0, 1, np.nan, 1])}).units("s")
    assert codes.tolist() == [0, 1, -1, 1]


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


def test_what_is_learned_from_is_not_judged(source: Dataset, folder_of_images: Path) -> None:
    assert source.images is not None
    with pytest.raises(DataError, match="same examples"):
        Target(source, source)
    own = np.random.default_rng(3).integers(0, 256, (40, 12, 12, 1), np.uint8)
    own[17], own[23] = source.images[4], source.images[90]
    test = Dataset.from_arrays(own, np.arange(40) % 8, source.classes)
    with pytest.raises(DataError, match=r"2 of 40 test examples are in train too.*'17' at position 17"):
        Target(source, test)
    files = Dataset.from_folder(folder_of_images)
    with pytest.raises(DataError, match="12 of 12 test examples are in train too"):
        Target(files, files.sample(12))


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

    from pydt.base import StoreError

    path = tmp_path / "file"
    write_atomic(path, b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoreError, match="No space left"):
        write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
