"""q values and procedures for many tests at once."""

from __future__ import annotations

import numpy as np
import oracle_estimate as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt.estimation import benjamini_hochberg, benjamini_yekutieli, holm


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(deadline=None)
def test_benjamini_hochberg(p: list[float]) -> None:
    q = benjamini_hochberg(p)
    np.testing.assert_allclose(q, oracle.benjamini_hochberg(np.array(p)), rtol=1e-12)
    np.testing.assert_array_equal(benjamini_hochberg(np.stack([p, p], axis=1)), np.stack([q, q], axis=1))
    for place in (0, len(p) // 2, len(p)):  # what is no test changes no other
        with_nan = np.insert(np.array(p), place, np.nan)
        np.testing.assert_array_equal(benjamini_hochberg(with_nan), np.insert(q, place, np.nan))


def test_benjamini_yekutieli_is_one_family_of_any_shape() -> None:
    p = np.array([[0.001, 0.2, np.nan], [0.03, 0.004, 0.9]])
    known = p[np.isfinite(p)]
    expected = np.minimum(oracle.benjamini_hochberg(known) * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5), 1)
    q = benjamini_yekutieli(p)
    assert np.isnan(q[0, 2])
    np.testing.assert_allclose(q[np.isfinite(p)], expected, rtol=1e-12)


def test_families_without_tests_are_left_alone() -> None:
    assert benjamini_hochberg(np.empty((0, 3))).shape == (0, 3)
    q = benjamini_hochberg([[np.nan, 0.02], [np.nan, 0.5]])
    np.testing.assert_allclose(q, [[np.nan, 0.04], [np.nan, 0.5]])


def test_holm_is_that_of_a_loop() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        p = random.random(7) ** 4
        expected, largest = np.full(7, np.nan), 0.0
        for step, k in enumerate(np.argsort(p)):
            largest = max(largest, p[k] * (7 - step))
            expected[k] = min(largest, 1)
        np.testing.assert_allclose(holm(p), expected, rtol=1e-12)
        for level in (0.01, 0.05, 0.3):  # rejected step by step
            rejected = np.zeros(7, bool)
            for step, k in enumerate(np.argsort(p)):
                if p[k] > level / (7 - step):
                    break
                rejected[k] = True
            assert np.array_equal(holm(p) <= level, rejected)


def test_holm_of_any_shape_is_one_family_and_leaves_out_what_is_no_test() -> None:
    np.testing.assert_allclose(holm([[0.01, np.nan], [0.04, 0.03]]), [[0.03, np.nan], [0.06, 0.06]])
    np.testing.assert_array_equal(holm([0.9, 0.8]), [1, 1])
    assert holm([]).shape == (0,)
    assert np.isnan(holm([np.nan])).all()
    given = np.array([0.02, 0.01])
    holm(given)
    assert given.tolist() == [0.02, 0.01]
