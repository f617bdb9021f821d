"""Changed copies of images are told from look-alikes at the stated rate, and what would be missed is told."""

from __future__ import annotations

import numpy as np
import pytest

from pydt.analyses.leakage.copies import CHANGES, Null, Seeker, changed
from pydt.analyses.leakage.similarity import KEPT, Matches
from pydt.base import ConfigError, DataError
from pydt.data import Dataset
from pydt.data.samples import glyphs

GROUPS, LEAKED = 6, 2


def points(seed: int, count: int, dimensions: int) -> np.ndarray:
    """Unit vectors around centres, crowded and sparse: what correlations are products of."""
    random = np.random.default_rng(seed)
    centres, spread = random.normal(0, 1, (8, dimensions)), random.uniform(0.1, 1, 8)
    which = random.integers(8, size=count)
    found = centres[which] + spread[which, None] * random.normal(0, 1, (count, dimensions))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def matches(products: np.ndarray) -> Matches:
    order = np.argsort(-products, axis=1)[:, :KEPT]
    return Matches(order, np.take_along_axis(products, order, 1).astype(np.float32), np.zeros(len(order), bool))


@pytest.mark.parametrize("share", [0.0, 0.04, 0.15, 0.3])
@pytest.mark.parametrize("dimensions", [4, 10, 16])
def test_p_values_of_images_that_are_no_copies_are_those_of_chance(dimensions: int, share: float) -> None:
    """Whatever share of the target are near-duplicates of each other, copies of these are found, too."""
    random = np.random.default_rng(0)
    every = points(1, 2400, dimensions)
    target, others = every[:800].copy(), every[800:]
    twins = int(share * 400)
    target[800 - twins :] = target[:twins] + 1e-3 * random.normal(0, 1, (twins, dimensions)) / dimensions**0.5
    own = target @ target.T
    np.fill_diagonal(own, -1)
    null = Null.of(matches(own))
    p = null.p(matches(others @ target.T))
    for level in (0.5, 0.1, 0.01):
        slack = 4 * (level / 1600) ** 0.5 + 0.15 * level
        assert (p < level).mean() < level + slack
        assert (p < level).mean() > level - slack or dimensions == 4
    copies = matches((target[:100] + 1e-3 * random.normal(0, 1, (100, dimensions)) / dimensions**0.5) @ target.T)
    if dimensions > 4:  # where there is little room, near-duplicates are nothing special: fewer are known, none falsely
        assert (null.families[:, 0] >= 0).sum() == pytest.approx(2 * twins, abs=4)
        assert ((null.p(copies) < 1e-4) & null.right(copies, np.arange(100))).mean() > 0.95
    assert np.exp(-null.rate * np.log(null.factor(0.003))) == pytest.approx(0.003)


def test_a_target_without_images_of_their_own_kind_tells_nothing() -> None:
    """All images are near-duplicates in pairs, or all the same: nothing is named, and nothing raises."""
    half = points(0, 60, 8)
    for target in (np.concatenate([half, half + 1e-4 * points(1, 60, 8)]), np.repeat(half[:1], 40, axis=0)):
        own = target @ target.T
        np.fill_diagonal(own, -1)
        null = Null.of(matches(own))
        assert null.p(matches(points(2, 50, 8) @ target.T)).min() > 1e-3


@pytest.mark.parametrize("seed", range(2))
def test_changed_copies_of_digits_are_named_and_other_digits_are_not(seed: int) -> None:
    """The source: 60 copies of each kind, and 500 other scans of the same digits."""
    scans = glyphs.digits().train
    random = np.random.default_rng(seed)
    order = random.permutation(len(scans))
    target, others = scans.take(np.sort(order[:900])), order[900:1400]
    assert scans.images is not None
    images = [scans.images[i, ..., 0] for i in others]
    truth = {}
    for change in CHANGES:
        for i in random.choice(900, 60, replace=False):
            truth[len(images)] = int(i)
            images.append(changed(scans.images[target.positions[i], ..., 0], change, random))
    source = Dataset.from_arrays(np.stack(images), [0] * len(images))
    seeker = Seeker(target, np.arange(900), 28)
    found, limit, whole = seeker.seek(source, np.arange(len(source)), 0.01)
    assert whole
    right = [pair for pair in found if truth.get(pair[0]) == pair[1]]
    assert len(right) / len(found) >= 0.95
    cropped = set(list(truth)[-60:])  # last of the changes; digits are too much alike for them
    assert len({pair[0] for pair in right} - cropped) / (len(truth) - 60) >= 0.95
    recall = seeker.recall([limit, 1e-300], seed)
    assert min(shares[0] for change, shares in recall.items() if change != "cropped") > 0.85
    assert recall["cropped"][0] == pytest.approx(len({pair[0] for pair in right} & cropped) / 60, abs=0.25)
    assert max(shares[1] for shares in recall.values()) == 0
    none, low, _ = seeker.seek(source, np.arange(500), 0.01)
    assert len(none) <= 1
    assert low <= 0.01 * 2 / 500


def test_hashes_alone_confuse_digits() -> None:
    """Why pairs are decided by `match`: at the threshold that names 1 % of look-alikes, pHash misses most copies."""
    from pydt.analyses.leakage.similarity import hamming, nearest_hashes, phash

    scans = glyphs.digits().train
    assert scans.images is not None
    random = np.random.default_rng(0)
    own = phash(scans.images[:600])
    alike = nearest_hashes(own, phash(scans.images[600:]), 1)[1][:, 0]
    cut = np.quantile(alike, 0.01)
    copies = phash(np.stack([changed(image[..., 0], "moved", random) for image in scans.images[:600]]))
    assert (hamming(copies, own) <= cut).mean() < 0.1


def test_changes_and_their_errors() -> None:
    image = np.add.outer(np.arange(28) ** 2 % 200, 3 * np.arange(28)).clip(0, 255).astype(np.uint8)
    for change in CHANGES:
        made = changed(image, change, np.random.default_rng(1))
        assert made.dtype == np.uint8
        assert made.shape == (28, 28)
        assert not np.array_equal(made, image)
    with pytest.raises(ConfigError, match=r"unknown change 'turned'.*mirrored"):
        changed(image, "turned", np.random.default_rng(1))
    few = Dataset.from_arrays(np.zeros((8, 9, 9), np.uint8), [0, 1] * 4)
    with pytest.raises(DataError, match="8 judged images"):
        Seeker(few, np.arange(8), 9)


def test_what_is_sought_by_candidates_says_what_candidates_find() -> None:
    """Copies that are never proposed are not found, however alike they are."""
    scans = glyphs.digits().train.take(np.arange(100))
    seeker = Seeker(scans, np.arange(100), 28)
    both = seeker.recall([1e-3, 1e-3], 0, [True, False])["JPEG"]
    assert both[0] == both[1] > 0.9
    none = Seeker(scans, np.arange(100), 28, candidates=0).recall([1e-3, 1e-3], 0, [True, False])["JPEG"]
    assert none == (both[0], 0)
