"""Bit-packed masks, Gram matrix, subset sums, column moments."""

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

FLOATS = [np.float16, np.float32, np.float64]
ROWS = st.one_of(st.integers(0, 20), st.sampled_from([31, 32, 33, 63, 64, 65, 255, 256, 257, 513, 1290]))
GROUPS = st.one_of(st.integers(0, 20), st.sampled_from([63, 64, 65, 130, 511, 513]))
COLS = st.one_of(st.integers(0, 5), st.sampled_from([7, 8, 15, 16, 17, 63, 64, 65, 127, 130, 257]))


def random_masks(rows: int, groups: int, seed: int, alpha: float = 0.4) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((rows, groups)) < alpha


def misaligned(array: NDArray[Any]) -> NDArray[Any]:
    """The same values one byte off every alignment."""
    raw = np.empty(array.nbytes + 1, np.uint8)[1:]
    out = np.frombuffer(raw.data, array.dtype).reshape(array.shape)
    out[...] = array
    return out


LAYOUTS = {
    "dense": lambda y: y,
    "by column": np.asfortranarray,
    "columns backwards": lambda y: y[:, ::-1],
    "rows backwards": lambda y: y[::-1],
    "every second": lambda y: np.repeat(np.repeat(y, 2, axis=0), 2, axis=1)[::2, ::2],
    "one row for all": lambda y: np.broadcast_to(y[:1], y.shape),
    "one column for all": lambda y: np.broadcast_to(y[:, :1], y.shape),
    "by column, backwards": lambda y: np.asfortranarray(y)[::-1, ::-1],
    "misaligned": misaligned,
    "other type beside": lambda y: np.rec.fromarrays([np.zeros(y.shape, np.int8), y])["f1"],
}


@given(rows=ROWS, groups=GROUPS, seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_pack_and_unpack(rows: int, groups: int, seed: int) -> None:
    masks = random_masks(rows, groups, seed)
    packed = _core.pack(masks)
    np.testing.assert_array_equal(packed, np.packbits(masks, axis=1, bitorder="little"))
    np.testing.assert_array_equal(_core.pack(masks.astype(np.uint8)), packed)
    back = _core.unpack(packed, groups)
    assert back.dtype == np.bool_
    np.testing.assert_array_equal(back, masks)


@given(
    rows=st.one_of(ROWS, st.sampled_from([4097])),
    groups=st.one_of(GROUPS, st.sampled_from([23, 24, 25, 31, 33, 127, 129])),
    alpha=st.sampled_from([0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
    threads=st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_gram(rows: int, groups: int, alpha: float, seed: int, threads: int) -> None:
    masks = random_masks(rows, groups, seed, alpha)
    np.testing.assert_array_equal(_core.gram(_core.pack(masks), groups, threads), oracle.gram(masks))


@pytest.mark.parametrize("groups", [9, 61])
@pytest.mark.parametrize("rows", [64 * 512, 64 * 512 + 70])
def test_gram_of_more_rows_than_are_counted_at_once(rows: int, groups: int) -> None:
    masks = random_masks(rows, groups, 0)
    np.testing.assert_array_equal(_core.gram(_core.pack(masks), groups, 2), oracle.gram(masks))


@given(
    rows=ROWS,
    groups=GROUPS,
    cols=COLS,
    dtype=st.sampled_from(FLOATS),
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=120, deadline=None)
def test_sums(rows: int, groups: int, cols: int, dtype: type[np.floating], layout: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = random_masks(rows, groups, seed)
    values = (1000 + 10 ** rng.uniform(-6, 4, (rows, cols)) * rng.normal(size=(rows, cols))).astype(dtype)
    outputs = LAYOUTS[layout](values) if values.size else values
    shift = rng.normal(1000, 1, cols)
    scale = np.abs(outputs.astype(np.float64) - shift).sum(axis=0, initial=1) if cols else 1.0
    step = 2**-53 * scale  # what one rounding can cost; a value goes through at most 256 + log2(blocks) of them

    sums = _core.subset_sums(_core.codes(_core.pack(masks), groups), outputs, shift, 1)
    assert sums.shape == (groups, cols)
    bound = 2**-53 * (15 + rows / 384) if dtype == np.float64 else 15 * 2**-24
    assert (np.abs(sums - oracle.subset_sums(masks, outputs, shift)) <= bound * scale).all()

    first, second = _core.column_moments(outputs, shift, 1)
    want_first, want_second = oracle.column_moments(outputs, shift)
    assert (np.abs(first - want_first) <= 270 * step).all()
    np.testing.assert_allclose(second, want_second, rtol=270 * 2**-53)

    together = _core.sums_and_moments(_core.codes(_core.pack(masks), groups), outputs, shift, 1 + seed % 3)
    for found, expected in zip(together, (sums, first, second), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [1, 5, 48, 256, 384, 385, 1000, 256 * 7 + 3])
def test_subset_sums_are_added_in_the_promised_order(rows: int, dtype: type[np.floating]) -> None:
    """The order of additions is fixed, so that results are the same bits in every version and on every machine."""
    rng = np.random.default_rng(rows)
    masks, shift = random_masks(rows, 11, rows), rng.normal(size=19)
    outputs = rng.normal(size=(rows, 19)).astype(dtype)
    sums = _core.subset_sums(_core.codes(_core.pack(masks), 11), outputs, shift, 1)
    np.testing.assert_array_equal(sums, oracle.subset_sums_in_order(masks, outputs, shift))


@given(rows=ROWS, groups=GROUPS, seed=st.integers(0, 2**32), pick=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_rows_are_taken_in_their_order(rows: int, groups: int, seed: int, pick: int) -> None:
    rng = np.random.default_rng(seed)
    masks, outputs, shift = random_masks(rows, groups, seed), rng.normal(size=(rows, 5)), rng.normal(size=5)
    index = rng.integers(0, rows, pick) if rows else np.zeros(0, np.int64)
    packed = _core.pack(masks)
    codes = _core.codes(packed, groups, index)
    np.testing.assert_array_equal(codes, _core.codes(packed[index], groups))
    given = _core.subset_sums(codes, outputs, shift, 1, index)
    np.testing.assert_array_equal(given, _core.subset_sums(codes, outputs[index], shift, 1))
    np.testing.assert_array_equal(
        _core.sums_and_moments(codes, outputs, shift, 2, index)[2], _core.column_moments(outputs[index], shift, 1)[1]
    )
    for some, copied in zip(
        _core.column_moments(outputs, shift, 1, index), _core.column_moments(outputs[index], shift, 1), strict=True
    ):
        np.testing.assert_array_equal(some, copied)


@given(
    rows=ROWS,
    groups=GROUPS,
    cols=COLS,
    dtype=st.sampled_from(FLOATS),
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_sums_in_16_bits(rows: int, groups: int, cols: int, dtype: type[np.floating], layout: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks, shift = random_masks(rows, groups, seed), rng.normal(size=cols).astype(dtype).astype(np.float64)
    values = (10.0 ** rng.integers(-3, 3, cols) * rng.standard_t(3, size=(rows, cols))).astype(dtype)
    outputs = LAYOUTS[layout](values) if values.size else values
    sums, step = _core.subset_sums_int16(_core.codes(_core.pack(masks), groups), outputs, shift, 1)
    want, want_step = oracle.subset_sums_int16(masks, outputs, shift)
    np.testing.assert_array_equal(step, want_step)
    np.testing.assert_array_equal(sums, want)
    exact = oracle.subset_sums(masks, outputs, shift)
    assert (np.abs(sums - exact) <= 0.5001 * step * masks.sum(0)[:, None]).all()


def test_sums_in_16_bits_of_outputs_that_are_not_finite_or_all_equal() -> None:
    outputs = np.random.default_rng(3).normal(size=(100, 40)).astype(np.float32)
    masks, shift = random_masks(100, 7, 3), outputs[0].astype(np.float64)
    codes = _core.codes(_core.pack(masks), 7)
    clean, step = _core.subset_sums_int16(codes, outputs, shift, 1)
    outputs[5, 3], outputs[0, 20], outputs[99, 39], outputs[:, 8] = np.nan, np.inf, -np.inf, outputs[0, 8]
    outputs[:, 9], shift[9] = np.linspace(0, 1e-37, 100), 0
    sums, steps = _core.subset_sums_int16(codes, outputs, shift, 1)
    assert np.isnan(sums[:, [3, 20, 39]]).all()
    assert np.isnan(steps[[3, 20, 39]]).all()
    assert (sums[:, 8] == 0).all()
    assert steps[8] == 0
    assert steps[9] == 2.0**-127  # as fine as float32 can; coarse, not 0
    assert (np.abs(sums[:, 9] - masks.T @ outputs[:, 9].astype(np.float64)) <= 0.5001 * steps[9] * masks.sum(0)).all()
    rest = np.setdiff1d(np.arange(40), [3, 8, 9, 20, 39])
    np.testing.assert_array_equal(sums[:, rest], clean[:, rest])
    np.testing.assert_array_equal(steps[rest], step[rest])


def test_more_rows_than_one_strip() -> None:
    rng = np.random.default_rng(4)
    masks, outputs = random_masks(2 * 7680 + 49, 5, 4), rng.normal(size=(2 * 7680 + 49, 11)).astype(np.float32)
    shift = outputs[0].astype(np.float64)
    codes = _core.codes(_core.pack(masks), 5)
    sums = _core.subset_sums(codes, outputs, shift, 1)
    np.testing.assert_array_equal(sums, oracle.subset_sums_in_order(masks, outputs, shift))
    for threads in (1, 3):
        together = _core.sums_and_moments(codes, outputs, shift, threads)
        for found, expected in zip(together, (sums, *_core.column_moments(outputs, shift, 1)), strict=True):
            np.testing.assert_array_equal(found, expected)
    short, step = _core.subset_sums_int16(codes, outputs, shift, 2)
    np.testing.assert_array_equal(short, oracle.subset_sums_int16(masks, outputs, shift)[0])
    # what the quantisation adds is far below the noise of the outputs
    assert (
        np.abs(short - oracle.subset_sums(masks, outputs, shift)).max(0) < 5 * step * np.sqrt(len(masks) / 12)
    ).all()
    np.testing.assert_array_equal(_core.gram(_core.pack(masks), 5, 1), oracle.gram(masks))


def test_the_error_of_float32_sums_does_not_grow_with_the_rows() -> None:
    """Relative to the largest sum: 1e-6 is promised."""
    rng = np.random.default_rng(5)
    for rows in (1000, 30_000):
        masks, outputs = random_masks(rows, 30, 5, 0.5), rng.normal(size=(rows, 9)).astype(np.float32)
        sums = _core.subset_sums(_core.codes(_core.pack(masks), 30), outputs, np.zeros(9), 1)
        exact = oracle.subset_sums(masks, outputs, np.zeros(9))
        assert np.abs(sums - exact).max() < 2e-7 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", FLOATS)
def test_threads_do_not_change_a_bit(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(1)
    masks, outputs, shift = random_masks(700, 600, 1), rng.normal(size=(700, 201)).astype(dtype), rng.normal(size=201)
    packed = _core.pack(masks)
    results = []
    for threads in (1, 2, 5):
        sums = _core.subset_sums(_core.codes(packed, 600), outputs, shift, threads)
        few = _core.subset_sums(_core.codes(packed, 600), outputs[:, :3], shift[:3], threads)
        short = _core.subset_sums_int16(_core.codes(packed, 600), outputs, shift, threads)
        moments = _core.column_moments(outputs, shift, threads)
        np.testing.assert_array_equal(few, sums[:, :3])
        together = _core.sums_and_moments(_core.codes(packed, 600), outputs, shift, threads)
        found = (sums, *short, *moments, *together, _core.gram(packed, 600, threads))
        results.append([x.tobytes() for x in found])
    assert results[0] == results[1] == results[2]


def test_codes_that_mean_nothing_do_no_harm() -> None:
    codes = np.random.default_rng(6).integers(0, 2**64, (2, 50), np.uint64)
    for dtype in FLOATS:
        outputs = np.ones((60, 33), dtype)
        assert _core.subset_sums(codes, outputs, np.zeros(33), 1).shape == (50, 33)
        assert _core.subset_sums_int16(codes, outputs, np.zeros(33), 1)[0].shape == (50, 33)
        every = np.full((2, 3), 0xFCFCFCFCFCFCFCFC, np.uint64)  # also of rows beyond the last, which are zeros
        np.testing.assert_array_equal(_core.subset_sums(every, outputs, np.zeros(33), 1), 60)
        np.testing.assert_allclose(_core.subset_sums_int16(every, outputs, np.zeros(33), 1)[0], 60)


def test_every_half_is_read_exactly() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)[None, :]
    one = np.zeros((1, 1), np.uint64) + np.uint64(4)
    np.testing.assert_array_equal(_core.subset_sums(one, halves, np.zeros(2**16), 1)[0], halves[0].astype(np.float64))
    sums, _ = _core.column_moments(halves, np.zeros(2**16), 1)
    np.testing.assert_array_equal(sums, halves[0].astype(np.float64))


def test_nan_and_infinity_reach_only_the_groups_that_kept_the_row() -> None:
    rng = np.random.default_rng(2)
    masks, outputs, shift = random_masks(300, 40, 2), rng.normal(size=(300, 20)), np.zeros(20)
    outputs[17, 3] = np.nan
    outputs[120, 5] = np.inf
    sums = _core.subset_sums(_core.codes(_core.pack(masks), 40), outputs, shift, 1)
    np.testing.assert_array_equal(np.isnan(sums[:, 3]), masks[17])
    np.testing.assert_array_equal(np.isposinf(sums[:, 5]), masks[120])
    assert np.isfinite(np.delete(sums, [3, 5], axis=1)).all()
    first, second = _core.column_moments(outputs, shift, 1)
    assert np.isnan(first[3])
    assert np.isnan(second[3])
    assert np.isfinite(np.delete(first, [3, 5])).all()


def test_reads_a_memory_map_in_place(tmp_path: Path) -> None:
    """Sixteen columns, far apart, of a sparse file of half a gigabyte."""
    path = tmp_path / "outputs.npy"
    written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(16, 2**23))
    written[5, :: 2**19] = 3
    del written
    outputs = np.load(path, mmap_mode="r")[:, :: 2**19]
    masks = random_masks(16, 10, 3)
    sums = _core.subset_sums(_core.codes(_core.pack(masks), 10), outputs, np.zeros(16), 1)
    np.testing.assert_array_equal(sums, np.where(masks[5, :, None], 3.0, 0.0).repeat(16, axis=1))


PACKED = np.zeros((4, 2), np.uint8)
CODES = np.zeros((1, 16), np.uint64)
Y = np.zeros((4, 3))
SHIFT = np.zeros(3)
WHICH = np.arange(4)


def _off(dtype: type[np.floating]) -> NDArray[np.floating]:
    """(3, 3), a byte off what its dtype is aligned to."""
    return np.zeros(9 * np.dtype(dtype).itemsize + 1, np.uint8)[1:].view(dtype).reshape(3, 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: _core.pack(np.array([[0, 1], [1, 2]], np.uint8)), ValueError, r"^masks: row 1, group 1 is 2"),
        (lambda: _core.pack(np.zeros((2, 2), np.int64)), TypeError, r"^masks: must be bool or uint8, not int64"),
        (lambda: _core.pack(np.zeros(4, np.bool_)), ValueError, r"^masks: must have 2 dimensions"),
        (lambda: _core.pack(np.zeros((4, 6), np.bool_).T), ValueError, r"^masks: must be C-contiguous"),
        (lambda: _core.unpack(PACKED, 8), ValueError, r"^packed: has 2 bytes a row; 8 groups take 1"),
        (lambda: _core.unpack(PACKED, -1), ValueError, r"^groups: -1 is negative"),
        (lambda: _core.unpack(PACKED + np.uint8(8), 10), ValueError, r"^packed: row 0 has bits set beyond group 9"),
        (lambda: _core.gram(PACKED, 17, 1), ValueError, r"^packed: has 2 bytes a row"),
        (lambda: _core.gram(PACKED[:, ::2], 8, 1), ValueError, r"^packed: must be C-contiguous"),
        (lambda: _core.gram(PACKED.astype(bool), 16, 1), TypeError, r"^packed: must be uint8, not bool"),
        (lambda: _core.gram(PACKED + np.uint8(128), 15, 1), ValueError, r"^packed: row 0 has bits"),
        (lambda: _core.gram(PACKED, 16, 0), ValueError, r"^threads: 0 is not 1 or more"),
        (lambda: _core.gram(np.zeros((0, 2**40), np.uint8), 2**43, 1), ValueError, r"^groups: too large"),
        (
            lambda: _core.subset_sums(CODES[:0], Y, SHIFT, 1),
            ValueError,
            r"^codes: has 0 rows; 4 rows of outputs",
        ),
        (lambda: _core.subset_sums(CODES, Y, SHIFT, 1, WHICH + 1), ValueError, r"^rows: entry 3 is 4, not one of 0..3"),
        (lambda: _core.subset_sums(CODES, Y, SHIFT, 1, -WHICH), ValueError, r"^rows: entry 1 is -1, not one of 0..3"),
        (lambda: _core.subset_sums(CODES, Y, SHIFT, 1, [0]), TypeError, r"^rows: must be a numpy array"),
        (lambda: _core.subset_sums(PACKED, Y, SHIFT, 1), TypeError, r"^codes: must be uint64, not uint8"),
        (lambda: _core.subset_sums_int16(CODES[:0], Y, SHIFT, 1), ValueError, r"^codes: has 0 rows"),
        (lambda: _core.subset_sums_int16(CODES, Y, SHIFT[:2], 1), ValueError, r"^shift: has 2 entries, not 3"),
        (lambda: _core.codes(PACKED, 17), ValueError, r"^packed: has 2 bytes a row"),
        (lambda: _core.codes(PACKED, 16, WHICH * 2), ValueError, r"^rows: entry 2 is 4"),
        (lambda: _core.codes(PACKED, 16, WHICH.astype(np.int32)), TypeError, r"^rows: must be int64, not int32"),
        (lambda: _core.codes(PACKED + np.uint8(128), 15), ValueError, r"^packed: row 0 has bits"),
        (lambda: _core.column_moments(Y, SHIFT, 1, WHICH + 1), ValueError, r"^rows: entry 3 is 4"),
        (lambda: _core.subset_sums(CODES, Y.astype(int), SHIFT, 1), TypeError, r"^outputs: must be float16"),
        (lambda: _core.subset_sums(CODES, Y.astype(">f8"), SHIFT, 1), TypeError, r"^outputs: must be float16"),
        (lambda: _core.subset_sums(CODES, Y.tolist(), SHIFT, 1), TypeError, r"^outputs: must be a numpy array"),
        (lambda: _core.subset_sums(CODES, Y[0], SHIFT, 1), ValueError, r"^outputs: must have 2 dimensions"),
        (lambda: _core.subset_sums(CODES, Y, SHIFT[:2], 1), ValueError, r"^shift: has 2 entries, not 3"),
        (lambda: _core.subset_sums(CODES, Y, SHIFT.astype("f"), 1), TypeError, r"^shift: must be float64"),
        (lambda: _core.subset_sums(CODES, Y, SHIFT, -1), ValueError, r"^threads: "),
        (lambda: _core.sums_and_moments(CODES[:0], Y, SHIFT, 1), ValueError, r"^codes: has 0 rows"),
        (lambda: _core.pooled_errors(_off(np.float32), *[SHIFT] * 5, 1.0), ValueError, r"^centred: must be .*aligned"),
        (lambda: _core.column_moments(Y, np.zeros(4), 1), ValueError, r"^shift: has 4 entries, not 3"),
        (lambda: _core.column_moments(Y.astype(np.complex64), SHIFT, 1), TypeError, r"^outputs: must be float16"),
    ],
)
def test_errors_name_the_argument(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
