"""Perceptual hashes, nearest pairs and matches against slow loops, and that memory tiles change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pydt.analyses.leakage.similarity import (
    common_side,
    dhash,
    greys,
    hamming,
    match,
    nearest,
    nearest_hashes,
    phash,
    propose,
    resized,
    unit,
)
from pydt.base import DataError
from pydt.data import Dataset, pictures


def smooth(count: int, side: int = 28, seed: int = 0) -> np.ndarray:
    """Images of a few waves each: uint8 (n, side, side)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    images = np.zeros((count, side, side))
    for _ in range(6):
        a, b, phase = random.uniform(-12, 12, (3, count, 1, 1))
        images += random.normal(0, 1, (count, 1, 1)) * np.sin(a * x + b * y + phase)
    return np.clip(128 + 40 * images, 0, 255).astype(np.uint8)


def number(bits: list[bool]) -> int:
    return sum(int(bit) << i for i, bit in enumerate(bits))


def test_dhash_is_that_of_a_loop() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 27), np.uint8)
    for image, found in zip(images, dhash(images), strict=True):
        small = image.reshape(8, 3, 9, 3).mean((1, 3), dtype=np.float64)
        assert int(found) == number([bool(small[y, x + 1] > small[y, x]) for y in range(8) for x in range(8)])


def test_phash_is_that_of_a_loop() -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 64, 64), np.uint8)
    for image, found in zip(images, phash(images), strict=True):
        small = image.reshape(32, 2, 32, 2).mean((1, 3), dtype=np.float64)
        low = np.zeros((8, 8))
        for u, v in np.ndindex(8, 8):
            for y, x in np.ndindex(32, 32):
                low[u, v] += small[y, x] * np.cos(np.pi * (2 * y + 1) * u / 64) * np.cos(np.pi * (2 * x + 1) * v / 64)
        median = np.median(low.reshape(-1)[1:])
        assert int(found) == number((low.reshape(-1) > median).tolist())


def test_hashes_do_not_see_brightness_or_size_and_differ_between_images() -> None:
    images = smooth(12, 64)
    again = phash(np.clip(images * 0.8 + 20, 0, 255).astype(np.uint8))
    half = phash(resized(images, 32, 32))
    assert hamming(phash(images), again).max() <= 2
    assert hamming(phash(images), half).max() == 0  # of 32 x 32 means either way
    apart = hamming(phash(images)[:, None], phash(images)[None])[~np.eye(12, dtype=bool)]
    assert apart.min() > 8
    assert int(hamming(np.uint64([0b1011]), np.uint64([0b0110]))[0]) == 3


@pytest.mark.parametrize("size", [(9, 4), (10, 7), (5, 13)])
def test_resized_keeps_means(size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).random((3, *size))
    assert np.allclose(resized(image, 6, 5).mean((1, 2)), image.mean((1, 2)), atol=1e-6)
    flat = np.full((1, *size), 7.0)
    assert np.allclose(resized(flat, 11, 3), 7)


@pytest.mark.parametrize("skip", [False, True])
def test_nearest_is_that_of_a_sort_whatever_the_tiles(skip: bool) -> None:
    vectors = unit(np.random.default_rng(3).normal(size=(70, 6)))
    queries = vectors if skip else vectors[:33]
    products = queries @ vectors.T
    if skip:
        np.fill_diagonal(products, -np.inf)
    expected = np.argsort(-products, axis=1, kind="stable")[:, :5]
    for tiles in ((512, 1024), (16, 2), (7, 1)):
        index, found = nearest(queries, vectors, 5, skip_self=skip, tiles=tiles)
        assert np.array_equal(index, expected)
        assert np.allclose(found, np.take_along_axis(products, expected, 1), atol=1e-6)
    assert nearest(queries, vectors, 500, skip_self=skip)[0].shape[1] == 70 - skip
    assert nearest(queries, vectors[:0], 5)[0].shape == (len(queries), 0)


def test_nearest_hashes_are_those_of_a_sort() -> None:
    random = np.random.default_rng(4)
    one, other = (random.integers(0, 2**63, n, np.uint64) for n in (9, 40))
    bits = np.array([[bin(int(a) ^ int(b)).count("1") for b in other] for a in one])
    index, found = nearest_hashes(one, other, 4, tiles=(512, 1))
    assert np.array_equal(index, np.argsort(bits, axis=1, kind="stable")[:, :4])
    assert np.array_equal(found, np.sort(bits, axis=1)[:, :4])


def test_a_changed_copy_matches_its_original() -> None:
    images = smooth(60).astype(np.float32)
    random = np.random.default_rng(5)
    changed = {
        "moved": np.roll(images, (1, -1), axis=(1, 2)),
        "dim": 0.7 * images + 30,
        "noisy": images + random.normal(0, 8, images.shape).astype(np.float32),
        "mirrored": images[:, :, ::-1],
    }
    everything = np.broadcast_to(np.arange(60), (60, 60))
    for change, copies in changed.items():
        copies = np.ascontiguousarray(copies)
        found = match(copies, images)
        assert np.array_equal(found.index, np.arange(60)), change
        assert found.correlation.min() > 0.98
        assert np.array_equal(found.mirrored, np.full(60, change == "mirrored"))
        proposed = match(copies, images, propose(copies, images, 16))
        assert (proposed.index == np.arange(60)).mean() > 0.95, change
    again = match(changed["moved"], images, tiles=(13, 7))
    asked = match(changed["moved"], images, everything, tiles=(13, 7))
    whole = match(changed["moved"], images)
    for other in (again, asked):
        assert np.array_equal(other.index, whole.index)
        assert np.allclose(other.correlation, whole.correlation, atol=1e-5)


def test_nothing_is_its_own_match_and_blank_images_match_nothing() -> None:
    images = smooth(30).astype(np.float32)
    itself = match(images, images, skip=np.arange(30))
    assert not (itself.index == np.arange(30)).any()
    products = np.array([[match(a[None], b[None]).correlation[0] for b in images] for a in images[:4]])
    np.fill_diagonal(products, -1)
    assert np.array_equal(itself.index[:4], products.argmax(1))
    assert np.allclose(itself.correlation[:4], products.max(1), atol=1e-5)
    blank = match(np.full((1, 28, 28), 9, np.float32), images)
    assert blank.correlation[0] == 0
    nothing = match(images[:2], images[:0])
    assert nothing.index.tolist() == [-1, -1]


def test_images_are_read_from_arrays_colours_and_files(folder_of_images: Path) -> None:
    grey = Dataset.from_arrays(smooth(4), [0, 1, 0, 1])
    colour = Dataset.from_arrays(np.repeat(smooth(4)[..., None], 3, axis=3), [0, 1, 0, 1])
    assert common_side(grey, colour) == 28
    assert np.allclose(greys(grey), smooth(4))
    assert np.allclose(greys(colour, [2, 0]), greys(grey, [2, 0]), atol=1e-3)
    files = Dataset.from_folder(folder_of_images)
    assert common_side(files) == 32
    assert greys(files, [3, 20]).shape == (2, 32, 32)
    assert pictures(files, [3])[0].shape == (96, 96, 3)
    assert pictures(grey, [3])[0].shape == (28, 28, 1)
    assert files.paths is not None
    broken = Path(files.paths[3])
    data = broken.read_bytes()
    broken.write_bytes(data[:4] + bytes(len(data) - 8) + data[-4:])
    with pytest.raises(DataError, match="cannot be decoded"):
        greys(files, [3])
    for shade in (255, 128, 7):  # rounding leaves no pattern in what has none
        assert not unit(resized(np.full((2, 96, 80), shade, np.uint8), 29, 31)).any()
    passed: set[str] = set()
    assert np.ptp(greys(files, [3, 20], passed=passed)[0]) == 0
    assert passed == {f"{files.name}, {files.all_keys()[3]}"}
