"""Weighted sums of influences and their standard errors."""

from __future__ import annotations

import numpy as np
import oracle_estimate as oracle
import pytest

from pydt import design, influences
from pydt.base import EstimateError


def test_contrasts_use_the_covariance() -> None:
    made = design.bernoulli(16, 60, 0.5, seed=3)
    masks = np.asarray(made).astype(float)
    outputs = np.random.default_rng(0).standard_normal((60, 5)) + masks[:, :5]
    fit = influences(made, outputs, "ols")
    weights = np.zeros((2, 16))
    weights[0, :3], weights[1, 4], weights[1, 5] = 1 / 3, 1, -1
    value, stderr = fit.contrast(weights)
    x = masks - masks.mean(0)
    inverse = np.linalg.inv(x.T @ x)
    noise = ((outputs - outputs.mean(0) - x @ fit.values) ** 2).sum(0) / (60 - 17)
    np.testing.assert_allclose(value, weights @ oracle.ols(masks, outputs)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stderr, np.sqrt(np.diag(weights @ inverse @ weights.T)[:, None] * noise), rtol=1e-5)
    single = fit.contrast(weights[1])
    np.testing.assert_allclose(single, [value[1], stderr[1]], rtol=1e-6)
    flat = influences(made, outputs[:, 0], "ols").contrast(weights[1])
    assert flat[0].shape == flat[1].shape == ()
    with pytest.raises(EstimateError, match="weights"):
        fit.contrast(np.ones(9))
    clustered = influences(made, outputs, "ols", clusters=np.arange(60) // 3)
    with pytest.raises(EstimateError, match="clusters of your own"):
        clustered.contrast(weights)


def test_the_sum_of_two_strong_groups_is_as_unsure_as_it_is() -> None:
    """Each of them unbalances the other's means by the same draw: two errors that are one."""
    weights, inside = np.zeros(20), []
    weights[:2] = 1
    for seed in range(500):
        made = design.bernoulli(20, 200, 0.5, seed, placebos=0)
        noise = 0.1 * np.random.default_rng(seed).standard_normal(200)
        fit = influences(made, np.asarray(made)[:, :2].sum(1) + noise, "difference")
        value, stderr = fit.contrast(weights)
        inside.append(abs(value - 2) <= 1.96 * stderr)
    assert 0.92 < np.mean(inside) < 0.98  # 0.96; 0.88 without what they share


def test_orthogonal_masks_unbalance_nothing() -> None:
    """Whole foldover blocks: the contrast of differences is that of OLS, and strong other groups do not widen it."""
    made = design.foldover(15, 64, 1, placebos=0)
    signs = 2.0 * np.asarray(made) - 1
    np.testing.assert_array_equal(signs.T @ signs, 64 * np.eye(15))
    y = np.asarray(made)[:, :4] @ [3.0, -3.0, 3.0, 3.0] + 0.1 * np.random.default_rng(0).standard_normal(64)
    weights = np.zeros((2, 15))
    weights[0, 2:4], weights[1, 4:6] = 1, (1, -1)
    both = [influences(made, y, method).contrast(weights) for method in ("difference", "ols")]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-4, atol=1e-6)
