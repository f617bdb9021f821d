"""Quantiles against published tables."""

from __future__ import annotations

import pytest

from pydt.base import Z975, t975


def test_the_975_quantiles_of_the_normal_and_of_t() -> None:
    assert t975(None) == Z975 == pytest.approx(1.95996, abs=1e-5)
    for df, wanted in ((1, 12.706), (5, 2.571), (13, 2.160), (30, 2.042), (120, 1.980)):
        assert t975(df) == pytest.approx(wanted, abs=6e-4)


def test_quantiles_of_several_tests_are_those_of_a_smaller_level() -> None:
    assert t975(None, 5) == pytest.approx(2.5758, abs=1e-4)  # 99.5 % of the normal
    assert t975(5, 5) == pytest.approx(4.0321, abs=1e-4)  # 99.5 % of t with 5 degrees of freedom
