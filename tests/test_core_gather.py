"""Gather + crop + flip + normalise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracle_core as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pydt import _core


def empty_batch(count: int, channels: int, height: int, width: int, channels_last: bool) -> NDArray[np.float32]:
    if channels_last:
        return np.full((count, height, width, channels), np.nan, np.float32).transpose(0, 3, 1, 2)
    return np.full((count, channels, height, width), np.nan, np.float32)


def case(
    shape: tuple[int, ...] = (6, 9, 7, 3), count: int = 5, source: int = 0, channels_last: bool = False, **changes: Any
) -> dict[str, Any]:
    """The arguments of a call that is right, but for the changes."""
    rng = np.random.default_rng(source)
    n, height, width, channels = shape
    arguments: dict[str, Any] = {
        "images": rng.integers(0, 256, shape, dtype=np.uint8),
        "index": rng.integers(0, n, count),
        "ids": rng.integers(-(2**40), 2**40, count),
        "out": empty_batch(count, channels, height, width, channels_last),
        "mean": rng.random(channels, dtype=np.float32),
        "std": rng.random(channels, dtype=np.float32) + np.float32(0.3),
        "crop_pad": 2,
        "flip": True,
        "seed": 3,
        "epoch": 4,
        "threads": 1,
    }
    return arguments | changes


def expected(arguments: dict[str, Any]) -> NDArray[np.float64]:
    return oracle.gather(**{k: v for k, v in arguments.items() if k not in ("out", "threads")})


SIZES = st.one_of(st.integers(1, 6), st.sampled_from([15, 16, 17, 28, 32, 33, 67]))


@given(
    height=SIZES,
    width=SIZES,
    channels=st.sampled_from([1, 2, 3, 4, 5]),
    count=st.sampled_from([0, 1, 2, 3, 17, 33]),
    crop_pad=st.sampled_from([0, 1, 2, 4, 9]),
    flip=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_gather(
    height: int, width: int, channels: int, count: int, crop_pad: int, flip: bool, channels_last: bool, seed: int
) -> None:
    a = case((4, height, width, channels), count, seed, channels_last, crop_pad=crop_pad, flip=flip, seed=seed)
    a["epoch"] = seed % 1000
    _core.gather(**a)
    # float32 rounds pixel * scale and the sum: values are at most 3.4 / 0.3, steps of 2^-24 of that
    np.testing.assert_allclose(a["out"], expected(a), rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(50, 28, 28, 1), (50, 32, 32, 3), (50, 5, 3, 3), (50, 1, 1, 1)])
def test_threads_do_not_change_a_bit(shape: tuple[int, ...], channels_last: bool) -> None:
    results = []
    for threads in (1, 2, 5):
        a = case(shape, 77, channels_last=channels_last, threads=threads)
        _core.gather(**a)
        results.append(a["out"].tobytes())
    assert results[0] == results[1] == results[2]


def test_an_example_looks_the_same_in_any_batch() -> None:
    a = case(count=40)
    _core.gather(**a)
    b = a | {"index": a["index"][30:], "ids": a["ids"][30:], "out": empty_batch(10, 3, 9, 7, True)}
    _core.gather(**b)
    np.testing.assert_array_equal(a["out"][30:], b["out"])


def test_crops_and_flips_are_uniform_and_independent() -> None:
    """The window's offset and the flip are read off an image whose pixels are numbered."""
    count, pad = 81 * 400, 4
    images = np.arange(81, dtype=np.uint8).reshape(1, 9, 9, 1)
    zero, one = np.zeros(1, np.float32), np.full(1, 1 / 255, np.float32)
    seen = []
    for epoch in (0, 1):
        out = empty_batch(count, 1, 9, 9, False)
        ids = np.arange(count, dtype=np.int64)
        _core.gather(images, np.zeros(count, np.int64), ids, out, zero, one, pad, True, 11, epoch, 2)
        pixels = np.rint(out[:, 0]).astype(int)
        flipped = pixels[:, 4, 3] > pixels[:, 4, 5]
        offset = pixels[:, 4, 4]  # of the middle pixel, which a flip leaves where it is
        # right of the last pixel there is black, which is not above its left neighbour
        edge = offset % 9 == 8
        flipped[edge] = pixels[edge, 4, 3] == 0
        edge = offset % 9 == 0
        flipped[edge] = pixels[edge, 4, 5] == 0
        seen.append((offset, flipped))
    for offset, flipped in seen:
        table = np.histogram2d(offset, flipped, bins=[np.arange(82), [0, 0.5, 1]])[0]
        chi2 = ((table - 200) ** 2 / 200).sum()  # 161 degrees of freedom
        assert abs(chi2 - 161) < 5 * np.sqrt(2 * 161)
    joint = np.histogram2d(seen[0][0], seen[1][0], bins=[np.arange(82)] * 2)[0]
    chi2 = ((joint - 400 / 81) ** 2 / (400 / 81)).sum()
    assert abs(chi2 - 6560) < 5 * np.sqrt(2 * 6560)
    assert abs((seen[0][1] == seen[1][1]).mean() - 0.5) < 5 * 0.5 / np.sqrt(count)


def test_no_augmentation_is_plain_normalisation() -> None:
    a = case(crop_pad=0, flip=False)
    _core.gather(**a)
    plain = (a["images"][a["index"]] / 255 - a["mean"]) / a["std"]
    np.testing.assert_allclose(a["out"], plain.transpose(0, 3, 1, 2), atol=2e-6)


def test_reads_a_read_only_memory_map_in_place(tmp_path: Path) -> None:
    """Four gigabytes of which the file system stores a page: a copy of the whole would be noticed."""
    count = 2**32 // (32 * 32)
    path = tmp_path / "images.npy"
    written = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 32, 32, 1))
    written[-1] = 255
    del written
    images = np.load(path, mmap_mode="r")
    out = empty_batch(2, 1, 32, 32, False)
    index = np.array([count - 1, 0])
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    _core.gather(images, index, index, out, zero, one, 0, False, 0, 0, 1)
    assert (out[0] == 1).all()
    assert (out[1] == 0).all()


def test_reads_and_writes_nothing_else() -> None:
    """Images and batch stand between guards; those before and behind stay as they are."""
    a = case(count=3)
    room = np.full(3 * 9 * 7 * 3 + 64, 7, np.float32)
    a["out"] = room[32:-32].reshape(3, 3, 9, 7)
    before = a["images"].copy()
    _core.gather(**a)
    assert (room[:32] == 7).all()
    assert (room[-32:] == 7).all()
    np.testing.assert_array_equal(a["images"], before)
    np.testing.assert_allclose(a["out"], expected(a), atol=2e-6)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


F32 = np.float32
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"images": [[0]]}, TypeError, r"^images: must be a numpy array"),
    ({"images": np.zeros((6, 9, 7, 3), F32)}, TypeError, r"^images: must be uint8, not float32"),
    ({"images": np.zeros((6, 9, 7), np.uint8)}, ValueError, r"^images: must have 4 dimensions"),
    ({"images": np.zeros((6, 9, 14, 3), np.uint8)[:, :, ::2]}, ValueError, r"^images: must be C-contiguous"),
    ({"index": np.array([0, 1, 2, 6, 0])}, ValueError, r"^index: position 3 is 6, but there are 6 images"),
    ({"index": np.array([0, 1, -1, 6, 0])}, ValueError, r"^index: position 2 is -1"),
    ({"index": np.zeros(4, np.int64)}, ValueError, r"^index: has 4 entries, not 5"),
    ({"index": np.zeros(5, np.int32)}, TypeError, r"^index: must be int64"),
    ({"ids": np.zeros(6, np.int64)}, ValueError, r"^ids: has 6 entries, not 5"),
    ({"out": np.zeros((5, 9, 7, 3), F32)}, ValueError, r"^out: has the shape \(5, 9, 7, 3\)"),
    ({"out": np.zeros((5, 3, 9, 7))}, TypeError, r"^out: must be float32"),
    ({"out": np.zeros((5, 3, 9, 14), F32)[..., ::2]}, ValueError, r"^out: must be dense"),
    ({"out": np.zeros((5, 3, 9, 7), F32)[::-1]}, ValueError, r"^out: must be dense"),
    ({"out": read_only(np.zeros((5, 3, 9, 7), F32))}, ValueError, r"^out: is read-only"),
    ({"mean": np.zeros(1, F32)}, ValueError, r"^mean: has 1 entries, not 3"),
    ({"mean": np.array([0, np.nan, 0], F32)}, ValueError, r"^mean: channel 1 is not finite"),
    ({"std": np.ones(3)}, TypeError, r"^std: must be float32"),
    ({"std": np.array([1, 1, 0], F32)}, ValueError, r"^std: channel 2 must be finite and above 0"),
    ({"crop_pad": -1}, ValueError, r"^crop_pad: -1 is not in"),
    ({"crop_pad": 2**40}, ValueError, r"^crop_pad: "),
    ({"seed": -1}, ValueError, r"^seed: "),
    ({"epoch": 2**56}, ValueError, r"^epoch: "),
    ({"threads": 0}, ValueError, r"^threads: 0 is not 1 or more"),
]


@pytest.mark.parametrize(("change", "error", "text"), WRONG)
def test_errors_name_the_argument(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        _core.gather(**case(**change))


def test_no_image_to_take_from() -> None:
    empty = case((1, 4, 4, 1), 0, images=np.zeros((0, 4, 4, 1), np.uint8))
    _core.gather(**empty)
    with pytest.raises(ValueError, match=r"^index: position 0 is 0, but there are 0 images"):
        _core.gather(**case((1, 4, 4, 1), 1, images=np.zeros((0, 4, 4, 1), np.uint8)))
