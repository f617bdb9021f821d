"""From sums to values and errors, and sums of squares over units of rows, against plain numpy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt import _core

SIZES = st.sampled_from([1, 2, 7, 63, 64, 65, 131])


@given(groups=SIZES, targets=SIZES, single=st.booleans(), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_centred(groups: int, targets: int, single: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cross, share, total = rng.normal(size=(groups, targets)), rng.random(groups), rng.normal(size=targets)
    found = _core.centred(cross, share, total, single)
    expected = cross - share[:, None] * total
    assert found.dtype == (np.float32 if single else np.float64)
    np.testing.assert_array_equal(found, expected.astype(found.dtype))


@given(groups=SIZES, targets=SIZES, dtype=st.sampled_from([np.float32, np.float64]), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_pooled_errors(groups: int, targets: int, dtype: type, seed: int) -> None:
    """Within the rounding of the precision; NaN in a group's scale is NaN in its row alone."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(groups, targets)).astype(dtype)
    scale, weight, rho = rng.random((3, groups)) + 0.1
    energy, noise = 5 * rng.random(targets), rng.random(targets)
    scale[0] = np.nan
    values, errors = _core.pooled_errors(c, scale, weight, rho, energy, noise, 7.0)
    wide = c.astype(np.float64)
    spread = np.maximum(energy - weight[:, None] * wide**2, 0) / 7.0
    expected = np.sqrt(scale[:, None] * (noise + rho[:, None] * np.maximum(spread - noise, 0)))
    assert values.dtype == errors.dtype == np.float32
    close = 1e-7 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(values, scale[:, None] * wide, rtol=close)
    np.testing.assert_allclose(errors, expected, rtol=close, atol=close * np.sqrt(energy.max()))


@given(
    rows=SIZES, targets=SIZES, dtype=st.sampled_from([np.float16, np.float32, np.float64]), seed=st.integers(0, 2**32)
)
@settings(max_examples=60, deadline=None)
def test_unit_squares(rows: int, targets: int, dtype: type, seed: int) -> None:
    """Units of any sizes, rows in any order and repeated, any strides, 1, 2 and 5 threads: the same bits."""
    rng = np.random.default_rng(seed)
    outputs, shift = rng.normal(2, 3, (rows, targets)).astype(dtype), rng.normal(size=targets)
    order = rng.integers(0, rows, rng.integers(1, 2 * rows + 1))
    starts = np.unique(np.r_[0, rng.integers(0, len(order), 5), len(order)])
    sign = rng.choice([-1.0, 1.0], len(order))
    signed = sign[:, None] * (outputs[order].astype(np.float64) - shift)
    expected = sum(signed[a:b].sum(0) ** 2 / (b - a) for a, b in pairwise(starts))
    found = _core.unit_squares(outputs, shift, starts, sign, 1, order)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11 * (signed**2).sum())
    wide = np.zeros((2 * rows, 3 * targets), dtype)[::-2, ::3]
    wide[:] = outputs
    for view in (np.asfortranarray(outputs), wide):
        for threads in (1, 2, 5):
            np.testing.assert_array_equal(_core.unit_squares(view, shift, starts, sign, threads, order), found)
    everything = _core.unit_squares(outputs, shift, np.arange(rows + 1), np.ones(rows), 1)
    np.testing.assert_allclose(everything, _core.column_moments(outputs, shift, 1)[1], rtol=1e-12)


def test_many_units_are_added_in_a_tree() -> None:
    """2^18 rows of 1 after one of 2^27, whose square swallows a 1: all would be lost one after another."""
    outputs = np.ones((2**18, 1), np.float32)
    outputs[0] = 2.0**27
    found = _core.unit_squares(outputs, np.zeros(1), np.arange(2**18 + 1), np.ones(2**18), 2)
    assert abs(found[0] - 2.0**54 - 2**18) <= 512


def test_nan_spoils_its_own_column() -> None:
    outputs = np.ones((6, 3))
    outputs[2, 1] = np.nan
    found = _core.unit_squares(outputs, np.zeros(3), np.array([0, 2, 6]), np.ones(6), 1)
    np.testing.assert_array_equal(found, [6, np.nan, 6])


@given(
    groups=st.sampled_from([1, 2, 5, 6, 7, 11, 12, 13, 24, 25, 95, 96, 130, 257]),
    targets=st.sampled_from([1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 70]),
    alike=st.sampled_from([0.0, 0.9]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_triangle_squares(groups: int, targets: int, alike: float, seed: int) -> None:
    """Against float64, of masks drawn at will or nearly alike; the same bits alone, and by any number of threads."""
    rng = np.random.default_rng(seed)
    masks = rng.normal(size=(2 * groups + 5, groups)) + 3 * alike * rng.normal(size=(2 * groups + 5, 1))
    lower = np.linalg.cholesky(masks.T @ masks)
    cross = (10.0 ** rng.integers(-9, 9, targets) * rng.normal(size=(groups, targets))).astype(np.float32)
    given = lower + np.triu(np.full_like(lower, np.nan), 1)
    panels = _core.triangle_panels(given)
    found = _core.triangle_squares(panels, cross, 1)
    wide = cross.astype(np.float64)
    solved = np.linalg.solve(lower, wide)
    # |error of z| <= eps |L^-1| (|c| + 2 |L| |z|), roundings growing like the square root of their number
    slack = np.abs(np.linalg.inv(lower)) @ (np.abs(wide) + 2 * np.abs(lower) @ np.abs(solved))
    bound = 2**-24 * (2 * np.abs(solved) * slack).sum(0) * (2 + np.sqrt(groups))
    assert found.dtype == np.float64
    assert (np.abs(found - (solved**2).sum(0)) <= bound).all()
    for threads in (2, 5):
        np.testing.assert_array_equal(_core.triangle_squares(panels, cross, threads), found)
    one = np.ascontiguousarray(cross[:, targets // 2, None])
    np.testing.assert_array_equal(_core.triangle_squares(panels, one, 1)[0], found[targets // 2])


def test_triangle_squares_are_as_good_as_a_product_with_the_inverse() -> None:
    rng = np.random.default_rng(0)
    masks = (rng.random((1500, 600)) < 0.5) - 0.5
    lower = np.linalg.cholesky(masks.T @ masks)
    cross = (masks.T @ rng.normal(size=(1500, 40))).astype(np.float32)
    exact = (np.linalg.solve(lower, cross.astype(np.float64)) ** 2).sum(0)
    found = _core.triangle_squares(_core.triangle_panels(lower), cross, 1)
    np.testing.assert_allclose(found, exact, rtol=1e-7)


def test_triangle_squares_of_nothing_and_of_nan() -> None:
    assert _core.triangle_panels(np.zeros((0, 0))).size == 0
    np.testing.assert_array_equal(_core.triangle_squares(np.zeros(0, np.float32), np.zeros((0, 3), np.float32), 1), 0)
    panels, cross = _core.triangle_panels(np.eye(20)), np.ones((20, 40), np.float32)
    cross[19, 3], cross[0, 35] = np.nan, np.inf
    found = _core.triangle_squares(panels, cross, 1)
    assert not np.isfinite(found[[3, 35]]).any()
    np.testing.assert_array_equal(np.delete(found, [3, 35]), 20)
    assert _core.triangle_squares(panels, cross[:, :0].copy(), 1).shape == (0,)


Y, S, STARTS, SIGN = np.ones((6, 3)), np.zeros(3), np.array([0, 2, 6]), np.ones(6)
G, T = np.ones(2), np.ones(3)
C = np.ones((2, 3))
F = np.ones(144, np.float32)


@pytest.mark.parametrize(
    ("call", "kind", "names"),
    [
        (lambda: _core.unit_squares(Y, S, STARTS + 1, SIGN, 1), ValueError, "^starts: must go from 0 to 6"),
        (lambda: _core.unit_squares(Y, S, np.array([0, 3, 3, 6]), SIGN, 1), ValueError, "^starts: must rise"),
        (lambda: _core.unit_squares(Y, S, np.array([0, 9, 3, 6]), SIGN, 1), ValueError, "^starts: must rise"),
        (lambda: _core.unit_squares(Y, S, np.zeros(0, np.int64), SIGN, 1), ValueError, "^starts: is empty"),
        (lambda: _core.unit_squares(Y, S, STARTS.astype(float), SIGN, 1), TypeError, "^starts"),
        (lambda: _core.unit_squares(Y, S, STARTS, SIGN[:4], 1), ValueError, "^sign: has 4 entries, not 6"),
        (lambda: _core.unit_squares(Y, S, STARTS, SIGN, 1, np.arange(1, 7)), ValueError, "^rows: entry 5 is 6"),
        (lambda: _core.unit_squares(Y, S, STARTS, SIGN, 0), ValueError, "^threads"),
        (lambda: _core.centred(C, T, T, True), ValueError, "^share: has 3 entries, not 2"),
        (lambda: _core.centred(C.astype(np.float32), G, T, True), TypeError, "^cross"),
        (lambda: _core.triangle_panels(C), ValueError, r"^lower: is not square: its shape is \(2, 3\)"),
        (lambda: _core.triangle_panels(C[:, :2].astype("f").copy()), TypeError, "^lower: must be float64"),
        (lambda: _core.triangle_squares(F[:143], C.astype("f"), 1), ValueError, "^panels: has 143 entries, not 144"),
        (lambda: _core.triangle_squares(F, C, 1), TypeError, "^cross: must be float32"),
        (lambda: _core.triangle_squares(F, C.astype("f"), 0), ValueError, "^threads"),
        (lambda: _core.pooled_errors(C.astype(int), G, G, G, T, T, 1.0), TypeError, "^centred"),
        (lambda: _core.pooled_errors(C.T, G, G, G, T, T, 1.0), ValueError, "^centred: must be C-contiguous"),
        (lambda: _core.pooled_errors(C, G, G, T, T, T, 1.0), ValueError, "^rho: has 3 entries, not 2"),
        (lambda: _core.pooled_errors(C, G, G, G, T, T, 0.0), ValueError, "^df: must be positive"),
        (lambda: _core.pooled_errors(C, G, G, G, T, T, np.nan), ValueError, "^df: must be positive"),
    ],
)
def test_wrong_arguments_are_named(call: Any, kind: type[Exception], names: str) -> None:
    with pytest.raises(kind, match=names):
        call()
