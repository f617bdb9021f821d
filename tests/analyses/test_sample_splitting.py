"""Halves of the models: disjoint, with repeated masks in one of them; errors of what one half chooses."""

from __future__ import annotations

import numpy as np
import pytest

from pydt import design
from pydt.analyses.sample_splitting import average, error_of_ways, halves
from pydt.base import EstimateError
from pydt.estimation import influences


def test_halves_are_disjoint_and_keep_pairs_together() -> None:
    for masks in (design.foldover(20, 41), design.random(20, 41, alpha=0.5), design.bernoulli(3, 60)):
        for size in (None, 10) if masks.groups > 3 else (None,):
            for one, other in halves(masks, 4, "test", size=size):
                assert not set(one) & set(other)
                assert not set(masks.clusters[one]) & set(masks.clusters[other])
                assert abs(len(one) - len(other)) <= np.bincount(masks.clusters).max()
                if masks.groups > 3:
                    assert len(one) >= (20 if size is None else 10) - 1
    again = [one.tolist() for one, _ in halves(design.random(20, 41), 3, "test")]
    assert again == [one.tolist() for one, _ in halves(design.random(20, 41), 3, "test")]
    assert len({tuple(one) for one in again}) == 3
    with pytest.raises(EstimateError, match="disjoint parts"):
        list(halves(design.Design.explicit(np.ones((5, 3), bool)), 1))


def test_the_error_of_an_average_is_that_of_the_contrast() -> None:
    random = np.random.default_rng(0)
    masks = design.random(12, 80, alpha=0.5, seed=3)
    fit = influences(masks, np.asarray(masks) @ random.normal(size=(12, 5)) + random.normal(size=(80, 5)), "ols")
    chosen = np.argsort(-fit.values, 0)[:3]
    value, error = average(fit, chosen)
    for j in range(5):
        weights = np.zeros(12)
        weights[chosen[:, j]] = 1 / 3
        expected = fit.contrast(weights)
        assert value[j] == pytest.approx(expected[0][j], rel=1e-5)
        assert error[j] == pytest.approx(expected[1][j], rel=1e-5)


def test_the_error_over_ways_is_that_of_two_independent_ones() -> None:
    values = np.random.default_rng(1).normal(size=(20, 3))
    variances = [sum((value - sum(column) / 20) ** 2 for value in column) / 19 for column in values.T]
    assert error_of_ways(values) == pytest.approx(np.sqrt(np.array(variances) / 2))
