"""Samples of sources and mixtures: nested, exact, changed in nothing that was not asked for."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pydt import Dataset, Loader, Mixture, Recipe, Source
from pydt.base import ConfigError, DataError
from pydt.studies import as_source

SCRIPTS = ("latin", "greek", "signs")


def dataset(n: int = 120, captions: bool = True, classes: int = 4, script: str | None = None) -> Dataset:
    """Images that say which they are: pixel (0, 0) is the number of the example."""
    images = np.zeros((n, 8, 8), np.uint8)
    images[:, 0, 0] = np.arange(n)
    images[:, 1, 1] = 0 if script is None else ord(script[-1])
    labels = np.arange(n) % classes
    columns = {"script": [SCRIPTS[i * 3 // n] if script is None else script for i in range(n)]}
    texts = [f"image {i}" for i in range(n)] if captions else None
    return Dataset.from_arrays(images, labels, [f"c{i}" for i in range(classes)], captions=texts, columns=columns)


def numbers(sample: Dataset) -> list[int]:
    """Which examples of `dataset` a sample holds, by their pixels."""
    return sample.images[sample.positions][:, 0, 0, 0].tolist()


def labels_of(sample: Dataset) -> dict[int, str]:
    return {i: sample.classes[label] for i, label in zip(numbers(sample), sample.labels, strict=True)}


# ---- one source ----------------------------------------------------------------------------------------------------


def test_a_source_is_the_part_of_its_data_set_that_where_names():
    source = Source(dataset(), where={"script": ["greek", "signs"], "class": "c1"})
    assert len(source) == source.largest == 20
    assert sorted(numbers(source.take(20))) == [i for i in range(40, 120) if i % 4 == 1]
    assert source.name == "greek + signs, c1"
    assert Source(dataset()).take(7, 3).digest == dataset().sample(7, 3).digest


@given(st.integers(1, 39), st.integers(0, 9), st.sampled_from([0.0, 0.3, 0.9]))
@settings(max_examples=30, deadline=None)
def test_samples_are_nested_and_another_seed_draws_others(n, seed, noise):
    source = Source(dataset(), where={"script": "latin"}, noise=noise)
    small, large = source.take(n, seed), source.take(n + 1, seed)
    assert len(small) == n
    assert set(numbers(small)) < set(numbers(large)) <= set(range(40))
    assert numbers(source.take(20, seed)) != numbers(source.take(20, seed + 1))


@given(st.integers(1, 120), st.integers(0, 5), st.floats(0, 0.95), st.floats(0, 0.95))
@settings(max_examples=60, deadline=None)
def test_so_many_labels_are_wrong_and_those_of_a_lower_rate_in_the_same_way(n, seed, rate, other):
    low, high = sorted([rate, other])
    data = dataset()
    true = labels_of(data)
    few, many = (labels_of(Source(data, noise=r).take(n, seed)) for r in (low, high))
    assert few.keys() == many.keys() == set(numbers(data.sample(n, seed)))
    wrong_few, wrong_many = ({i: one for i, one in found.items() if one != true[i]} for found in (few, many))
    assert (len(wrong_few), len(wrong_many)) == (round(low * n), round(high * n))
    assert wrong_few.items() <= wrong_many.items()
    assert set(many.values()) <= set(data.classes)


def test_wrong_labels_are_uniform_over_the_other_classes_and_differ_by_seed():
    images = np.zeros((6000, 2, 2), np.uint8)
    data = Dataset.from_arrays(images, np.arange(6000) % 4, ["a", "b", "c", "d"])
    wrong = Source(data, noise=0.5).take(6000, 1)
    table = np.zeros((4, 4), int)
    np.add.at(table, (data.labels, wrong.labels), 1)
    off = table[~np.eye(4, dtype=bool)]
    assert off.sum() == 3000
    assert ((off - 250) ** 2 / 250).sum() < 31.3  # chi-square, 11 degrees of freedom, p = 0.001
    assert (wrong.labels != Source(data, noise=0.5).take(6000, 2).labels).mean() > 0.5


def test_a_wrong_label_may_be_any_class_of_the_source_and_none_outside_it():
    data = dataset(script=None)
    source = Source(data, where={"class": ["c0", "c3"]}, noise=0.5)
    assert set(labels_of(source.take(40)).values()) == {"c0", "c3"}
    found = labels_of(Source(data, noise=0.9).take(2, 5))  # classes beyond those of the two images
    assert all(found[i] != f"c{i % 4}" for i in found)


def test_captions_raw_template_and_none():
    data = dataset()
    assert Source(data).take(5).captions == data.sample(5).captions
    template = Source(data, captions="template", template="a sketch of {}", classes={"c1": "one"}, noise=0.5).take(60)
    for label, caption in zip(template.labels, template.captions, strict=True):
        name = template.classes[label]
        assert caption == f"a sketch of {'one' if name == 'c1' else name}"
    assert Source(data, captions="none").take(5).captions is None


def test_only_rows_that_read_captions_tell_them_apart():
    raw, template, none = (Source(dataset(), captions=kind).take(50) for kind in ("raw", "template", "none"))
    supervised, clip = Recipe(), Recipe(method="clip")
    assert len({supervised.source_digest(one) for one in (raw, template, none)}) == 1
    assert clip.source_digest(raw) != clip.source_digest(template)


def test_a_method_that_reads_captions_is_refused_where_there_are_none():
    bare = dataset(captions=False)
    clip = Recipe(method="clip")
    for source in (
        Source(bare),
        Source(dataset(), captions="none"),
        Mixture({"a": bare, "b": dataset(60)}, weights=HALF),
    ):
        with pytest.raises(ConfigError, match=r'no captions.*captions="template"'):
            source.check(clip)
        source.check(Recipe())
    Source(bare, captions="template").check(clip)
    Source(dataset()).check(clip)


def test_the_digest_follows_what_samples_hold():
    data = dataset()
    plain = Source(data)
    assert plain.digest == Source(dataset()).digest
    # settings that change nothing
    assert plain.digest == Source(data, template="{}!", classes={"c1": "one"}, noise=0).digest
    assert plain.digest == Source(data, where={"script": list(SCRIPTS)}).digest
    assert Source(data, where={"script": "latin"}).digest == Source(data, where={"script": ["latin"]}).digest
    found = [
        plain,
        Source(data, noise=0.1),
        Source(data, noise=0.2),
        Source(data, where={"script": "latin"}),
        Source(data, captions="none"),
        Source(data, captions="template"),
        Source(data, captions="template", template="{}!"),
        Source(data, captions="template", classes={"c1": "one"}),
        Source(replace(data, captions=data.captions[::-1])),
        Mixture({"a": data, "b": dataset(60)}, weights=HALF),
        Mixture({"a": data, "b": dataset(60)}, weights={"a": 0.4, "b": 0.6}),
        Mixture({"a": Source(data, noise=0.1), "b": dataset(60)}, weights=HALF),
    ]
    assert len({one.digest for one in found}) == len(found)
    # stored results are named by them
    assert plain.digest == "1cd14e11897a9a9f0cf97469b5c0461c"
    assert Source(data, noise=0.1).digest == "842711b8b0950e9dc428345001a45cda"
    assert found[-3].digest == "b00cc934951ffecb7213fee6e81f0c38"


def test_names_say_what_a_sample_is():
    source = Source(dataset(), where={"script": "latin"}, noise=0.2)
    assert source.take(30).name == "latin, 30 images, 20 % wrong labels"
    assert source.told == "latin, 20 % wrong labels"
    mixture = Mixture({"a": source, "b": Source(dataset(60), captions="none")}, weights={"a": 0.25, "b": 0.75})
    assert mixture.told == "25 % a (latin, 20 % wrong labels) + 75 % b (arrays, no captions)"
    assert mixture.take(8).name == "25 % a + 75 % b, 8 images, 20 % wrong labels"


@pytest.fixture(params=["folder", "tar"])
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    """Six photographs of cats and of dogs as files, or in two shards with the class in a column."""
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.full((8, 8, 3), 20 * i + (name == "dog"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    if request.param == "folder":
        return Dataset.from_folder(tmp_path / "photos")
    (tmp_path / "shards").mkdir()
    for number in range(2):
        with tarfile.open(tmp_path / "shards" / f"{number}.tar", "w") as shard:
            for name in ("cat", "dog"):
                for i in range(3 * number, 3 * number + 3):
                    (tmp_path / "label").write_text(name)
                    shard.add(tmp_path / "photos" / name / f"{i}.png", f"{name}{i}.png")
                    shard.add(tmp_path / "label", f"{name}{i}.cls")
    return Dataset.from_tar(tmp_path / "shards")


def test_samples_of_files_and_shards_are_indexes(photos):
    sample = Source(photos, captions="template", noise=0.5).take(8)
    assert sample.encoded
    assert set(sample.paths) == set(photos.paths)
    true = {key: photos.classes[label] for key, label in zip(photos.all_keys(), photos.labels, strict=True)}
    found = {key: sample.classes[label] for key, label in zip(sample.all_keys(), sample.labels, strict=True)}
    assert sum(found[key] != true[key] for key in found) == 4
    assert sample.captions == tuple(f"a photo of a {name}" for name in found.values())
    parts = {name: Source(photos, where={"class": name}) for name in ("cat", "dog")}
    mixed = Mixture(parts, weights={"cat": 0.5, "dog": 0.5}).take(6)
    assert mixed.encoded
    assert np.bincount(mixed.labels).tolist() == [3, 3]
    batch = next(iter(Loader(mixed, batch_size=6)))
    assert batch.images.shape[:2] == (6, 3)


def test_parts_of_one_array_are_mixed_without_copying_it(tmp_path):
    data = dataset().save(tmp_path / "saved")
    latin, greek = (Source(data, where={"script": name}) for name in ("latin", "greek"))
    mixed = Mixture({"latin": latin, "greek": greek}, weights={"latin": 0.7, "greek": 0.3}).take(30)
    assert mixed.images is data.images
    copied = Dataset.concat([latin.take(21), replace(greek.take(9), images=np.array(data.images))], ["latin", "greek"])
    assert copied.images is not data.images
    assert mixed.full_digest == copied.full_digest


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"where": {"scritp": "latin"}}, "no group column 'scritp'.*did you mean 'script'"),
        ({"where": {"script": "latn"}}, "no 'latn' in column 'script'.*did you mean 'latin'"),
        ({"where": ["latin"]}, "where is"),
        ({"where": {"script": []}}, "no example has"),
        ({"captions": "templates"}, "unknown captions 'templates'.*did you mean 'template'"),
        ({"template": "a photo"}, "put {} in it once"),
        ({"noise": 1}, "noise 1 is out of range"),
        ({"noise": "0.1"}, "noise '0.1' is not a finite number"),
        ({"noise": 0.1, "where": {"class": "c1"}}, "noise in the labels of one class"),
        ({"classes": {"c9": "nine"}}, "no class 'c9'"),
        ({"classes": {"c1": 1}}, "class 'c1' is called 1"),
    ],
)
def test_a_source_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Source(dataset(), **wrong)


def test_a_sample_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"give a pydt\.Dataset"):
        Source("latin")
    with pytest.raises(DataError, match="ask for 1 to 120"):
        Source(dataset()).take(121)


# ---- mixtures ------------------------------------------------------------------------------------------------------

HALF = {"a": 0.5, "b": 0.5}
weights = st.lists(st.integers(1, 50), min_size=2, max_size=6).map(lambda parts: [p / sum(parts) for p in parts])


def mixture(shares: list[float], size: int = 100) -> Mixture:
    names = [f"s{i}" for i in range(len(shares))]
    return Mixture({name: dataset(size, script=name) for name in names}, weights=dict(zip(names, shares, strict=True)))


@given(weights)
@settings(max_examples=60, deadline=None)
def test_counts_are_the_shares_up_to_rounding_and_each_larger_sample_has_one_image_more(shares):
    made = mixture(shares)
    bound = 1 - 1 / (2 * len(shares) - 2)
    before = np.zeros(len(shares), int)
    for n in range(1, 400):
        counts = np.array(list(made.counts(n).values()))
        assert counts.sum() == n
        assert np.abs(counts - n * np.array(shares)).max() <= bound + 1e-6
        step = counts - before
        assert step.min() == 0
        assert step.max() == 1
        before = counts


def test_counts_of_weights_that_are_no_small_fractions():
    made = mixture([0.123457, 0.876543])
    for n in (1, 999, 1_000_000, 2_500_001):
        assert abs(made.counts(n)["s0"] - 0.123457 * n) <= 0.5


@given(weights, st.integers(1, 99), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_mixture_holds_the_smaller_one(shares, n, seed):
    made = mixture(shares, 60)
    n = min(n, made.largest - 1)
    small, large = made.take(n, seed), made.take(n + 1, seed)
    assert set(small.keys) < set(large.keys)
    codes, names = small.units("source")
    assert {name: (codes == i).sum() for i, name in enumerate(names)} == {k: v for k, v in made.counts(n).items() if v}


@given(weights, st.integers(5, 120))
@settings(max_examples=30, deadline=None)
def test_the_largest_mixture_is_the_last_that_all_sources_suffice_for(shares, size):
    made = mixture(shares, size)
    fits = [n for n in range(1, 6 * size + 2) if max(made.counts(n).values()) <= size]
    assert made.largest == fits[-1] == len(fits)
    made.take(made.largest)
    with pytest.raises(DataError, match=rf"ask for at most {made.largest:,}"):
        made.take(made.largest + 1)


def test_classes_of_one_name_are_one_class_and_each_part_keeps_its_changes():
    first = Source(dataset(classes=4), noise=0.5)
    second = Source(dataset(classes=6), captions="template")
    mixed = Mixture({"first": first, "second": second}, weights={"first": 0.5, "second": 0.5}).take(200, 3)
    assert mixed.classes == ("c0", "c1", "c2", "c3", "c4", "c5")
    codes, names = mixed.units("source")
    assert names == ("first", "second")
    for name, source in (("first", first), ("second", second)):
        part, own = mixed.take(np.flatnonzero(codes == names.index(name))), source.take(100, 3)
        assert labels_of(part) == labels_of(own)
        assert part.captions == own.captions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": {"a": 0.5, "b": 0.6}}, r"weights sum to 1\.1, not to 1.*'a': 0\.4545"),
        ({"weights": {"a": 1.0}}, "source 'b' has no weight"),
        ({"weights": {"a": 0.5, "bb": 0.5}}, "no source 'bb'.*did you mean 'b'"),
        ({"weights": {"a": 1.5, "b": -0.5}}, "weight of 'b' -0.5 is out of range"),
        ({"weights": [0.5, 0.5]}, "weights"),
        ({"sources": {"a": dataset()}}, "1 of at least two sources"),
        ({"sources": {"a": dataset(), "b": "greek"}}, "source 'b' is a str"),
        ({"sources": {"a": dataset(), "b": mixture([0.5, 0.5])}}, "source 'b' is a Mixture"),
        (
            {"sources": {"a": dataset(), "b": Dataset.from_arrays(np.zeros((4, 9, 9), np.uint8), [0, 1, 0, 1])}},
            "shapes",
        ),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(wrong, message):
    with pytest.raises((ConfigError, DataError), match=message):
        Mixture(**({"sources": {"a": dataset(), "b": dataset(60)}, "weights": HALF} | wrong))


def test_one_image_in_two_sources_of_a_mixture_is_refused():
    data = dataset()
    parts = {"a": Source(data, where={"script": ["latin", "greek"]}), "b": Source(dataset(), where={"script": "greek"})}
    with pytest.raises(ConfigError, match="'a' and 'b' share 40 images"):
        Mixture(parts, weights=HALF)


def test_weights_in_decimal_sum_to_one():
    assert mixture([0.1] * 10).take(50)
    assert mixture([1 / 3] * 3).counts(9) == {"s0": 3, "s1": 3, "s2": 3}


def test_a_data_set_counts_as_a_source():
    source = Source(dataset())
    assert as_source(source) is source
    assert as_source(dataset()).digest == source.digest
