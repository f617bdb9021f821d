"""Figures: where the numbers of a scale stand."""

from __future__ import annotations

import pytest

from pydt.reporting.svg import Axis, LogAxis


def test_ticks_are_round_numbers_inside_the_scale() -> None:
    assert Axis.around([0.0, 1.0]).ticks(5) == [0.0, 0.5, 1.0]
    assert Axis(-0.34, 0.5).ticks(5) == pytest.approx([-0.2, 0, 0.2, 0.4])
    assert Axis.around([None]).ticks(5)
    assert Axis.around([3.0, 3.0]).ticks(5)


def test_a_logarithmic_scale_has_readable_numbers() -> None:
    assert LogAxis.around([0.003, 0.9, 40.0]).texts() == ["0.01", "0.1", "1", "10"]
    assert LogAxis.around([0.5, 8.0]).texts() == ["0.5", "1", "2", "5"]
    assert len(LogAxis.around([2.1, 2.9]).ticks()) < 3, "few, but no error"
