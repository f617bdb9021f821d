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


Y, S, STARTS, SIGN = np.ones((6, 3)), np.zeros(3), np.array([0, 2, 6]), np.ones(6)
G, T = np.ones(2), np.ones(3)
C = np.ones((2, 3))


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
