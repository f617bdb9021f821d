"""Shares of the variance between rows: groups, draws, images, rest."""

from __future__ import annotations

import numpy as np
import pytest

from pydt.base import EstimateError
from pydt.design import Design
from pydt.estimation import influences, variance_shares

PARTS = ("groups", "draws", "images", "rest", "noiseless")
PLANTED = np.array([[0.4, 0.1], [0.1, 0.0], [0.1, 0.4], [0.4, 0.5], [0.5, 1 / 6]])


def planted(seed, rows=120, groups=12, draws=5):
    """Masks and both halves of two columns with the shares PLANTED; the second has one draw."""
    random = np.random.default_rng(seed)
    masks = random.random((rows, groups)) < 0.5
    values = random.standard_normal((2, groups))
    values /= np.sqrt((values**2).sum(1, keepdims=True) / 4)
    rest = random.standard_normal(rows)
    both = np.stack([rest, 0.7 * rest + 0.51**0.5 * random.standard_normal(rows)])
    score, report = [], []
    for j, number in enumerate((draws, 1)):
        of_groups, of_draws, of_images, of_rest = PLANTED[:4, j]
        true = of_groups**0.5 * masks @ values[j] + of_rest**0.5 * both[j]
        shared = (of_draws * number) ** 0.5 * random.standard_normal((rows, number))
        shared = shared + 3 * random.standard_normal(number) + true[:, None]
        for half in (score, report):
            images = (of_images / 2) ** 0.5 * random.standard_normal((rows, 1))
            half.append(shared + images + (of_images / 2 * number) ** 0.5 * random.standard_normal((rows, number)))
    return masks, score, report


def test_groups_are_the_adjusted_r2_and_parts_sum_to_one():
    masks, score, report = planted(0)
    found = variance_shares(masks, score, report)
    y = np.stack([one.mean(1) for one in score], 1)
    np.testing.assert_allclose(found.groups.values, influences(masks, y, "ols").explained, atol=2e-3)
    total = sum(getattr(found, part).values for part in PARTS[:4])
    np.testing.assert_allclose(total, 1)
    np.testing.assert_array_equal(found.drawn, [True, False])
    assert found.draws.values[1] == 0
    assert found.draws.stderr[1] == 0


def test_bad_inputs_are_refused():
    masks, score, report = planted(1, rows=60)
    with pytest.raises(EstimateError, match="too few"):
        variance_shares(masks[:14], [score[0][:14]], [report[0][:14]])
    with pytest.raises(EstimateError, match="same in all rows"):
        variance_shares(masks, [np.ones(60)])
    with pytest.raises(EstimateError, match="report"):
        variance_shares(masks, score, report[:1])
    assert isinstance(Design.explicit(masks), Design)
