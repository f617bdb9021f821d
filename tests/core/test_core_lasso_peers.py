"""The LASSO of the core against scikit-learn's, as a second reference."""

from __future__ import annotations

import numpy as np
import oracle_lasso as oracle
import pytest

from pydt import _core

linear_model = pytest.importorskip("sklearn.linear_model")


@pytest.mark.parametrize("groups", [40, 130])
def test_the_whole_path(groups: int) -> None:
    rng = np.random.default_rng(groups)
    masks = (rng.random((200, groups)) < 0.5).astype(np.float64)
    y = masks[:, :10] @ rng.normal(size=(10, 3)) + rng.normal(size=(200, 3))
    x, y = masks - masks.mean(0), y - y.mean(0)
    gram, cross, energy = oracle.moments(masks, y)
    steps = np.geomspace(1, 0.05, 15)
    error, values, gap, nonzeros = _core.lasso_path(gram, cross, energy, gram, cross, energy, steps)
    assert (gap <= 1e-6).all()
    for j in range(3):
        top = np.abs(cross[:, j]).max()
        _, coefs, _ = linear_model.lasso_path(x, y[:, j], alphas=steps * top, tol=1e-10, max_iter=100_000)
        left = ((y[:, j, None] - x @ coefs) ** 2).mean(0)
        np.testing.assert_allclose(error[:, j], left, rtol=1e-3)
        np.testing.assert_allclose(values[:, j], coefs[:, error[:, j].argmin()], atol=2e-3 * np.abs(coefs).max())
        assert np.abs(nonzeros[:, j] - (coefs != 0).sum(0)).max() <= 2


@pytest.mark.parametrize("ratio", [1.0, 0.7, 0.1])
def test_one_penalty(ratio: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 30))
    y = x[:, :4].sum(1) + rng.normal(size=80)
    x, y = x - x.mean(0), y - y.mean(0)
    gram, cross, energy = oracle.moments(x, y[:, None])
    values, gap, _ = _core.lasso(gram, cross, energy, np.array([0.1]), l1_ratio=ratio)
    model = linear_model.ElasticNet(alpha=0.1, l1_ratio=ratio, tol=1e-12, max_iter=100_000).fit(x, y)
    np.testing.assert_allclose(values[:, 0], model.coef_, atol=1e-3)
    assert gap[0] <= 1e-6
