"""Quantiles against published tables."""

from __future__ import annotations

import pytest

from pydt.base import Z975, t975


def test_the_975_quantiles_of_the_normal_and_of_t() -> None:
    assert t975(None) == Z975 == pytest.approx(1.95996, abs=1e-5)
    for df, wanted in ((1, 12.706), (5, 2.571), (13, 2.160), (30, 2.042), (120, 1.980)):
        assert t975(df) == pytest.approx(wanted, abs=6e-4)
