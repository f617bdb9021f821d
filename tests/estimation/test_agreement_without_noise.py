"""Rank agreement of two columns of influences beyond noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pydt.base import EstimateError
from pydt.estimation import JointFit, true_agreement, true_agreements


def drawn(random, rho, reliability=(0.6, 0.6), shared=0.8, groups=62, df=200):
    """A joint fit whose true influences have sd 1 and correlation rho exactly; errors correlate by `shared`."""
    error = np.sqrt(1 / np.array(reliability) - 1)
    covariance = np.outer(error, error) * np.array([[1, shared], [shared, 1]])
    scale = np.exp(0.3 * random.standard_normal(groups))[:, None, None]
    scale /= scale.mean()
    true = np.linalg.qr(np.column_stack([np.ones(groups), random.standard_normal((groups, 2))]))[0][:, 1:]
    true = (groups - 1) ** 0.5 * true @ np.array([[1, rho], [0, (1 - rho**2) ** 0.5]])
    noise = random.multivariate_normal([0, 0], covariance, groups) * np.sqrt(scale[:, 0])
    rows = random.multivariate_normal([0, 0], covariance, df)
    seen = scale * (rows.T @ rows / df)
    counts = np.full(groups, 150)
    return JointFit("ols", "add", "robust", 300, counts, true + noise, seen, np.full(groups, float(df)), np.zeros(2))


def test_rank_is_spearmans_and_pairs_are_those_one_by_one():
    random = np.random.default_rng(0)
    fit = drawn(random, 0.9)
    found = true_agreement(fit, 0, 1)
    assert found.rank == pytest.approx(stats.spearmanr(*fit.values.T).statistic)
    assert true_agreements(fit) == {(0, 1): found}
    assert 0.2 < found.by_noise_alone < 0.5
    assert found.low < found.rho < found.high
    assert found.p_unrelated < 0.05
    np.testing.assert_allclose(
        found.sd, np.sqrt(fit.values.var(0, ddof=1) - np.diagonal(fit.covariance.mean(0))), rtol=1e-12
    )


def test_no_spread_tells_nothing():
    random = np.random.default_rng(1)
    fit = drawn(random, 0.9)
    fit.values[:, 0] *= 1e-3
    found = true_agreement(fit, 0, 1)
    assert found.sd[0] == 0
    assert np.isnan([found.rho, found.p_same]).all()
    assert (found.low, found.high) == (-1, 1)
    with pytest.raises(EstimateError, match="column"):
        true_agreement(fit, 0, 2)


@pytest.mark.parametrize("strong", [(3.0, -3.0, 2.5, 2.0, -2.0), (2.0,) * 15 + (-2.0,) * 15])
def test_a_few_strong_groups_in_the_same_order_are_no_other_order(strong):
    """Among many groups without any influence, whose ranks are noise in both columns."""
    random = np.random.default_rng(5)
    true = np.zeros(62)
    true[: len(strong)] = strong
    covariance = np.array([[0.12, 0.05], [0.05, 0.06]])
    refused, kept = 0, 0
    for _ in range(30):
        noise = random.multivariate_normal([0, 0], covariance, 62)
        seen = np.broadcast_to(covariance, (62, 2, 2)).copy()
        shape = np.full(62, 150), np.stack([true, 0.5 * true], 1) + noise, seen, np.full(62, 200.0), np.zeros(2)
        found = true_agreement(JointFit("ols", "add", "classical", 300, *shape), 0, 1)
        refused += found.p_same < 0.05
        kept += found.high > 0.995
    assert refused <= 5, "1.5 are expected"
    assert kept >= 25


def test_errors_that_are_shared_raise_agreement_but_not_rho():
    found = []
    for shared in (0.0, 0.8):
        several = [
            true_agreement(drawn(np.random.default_rng(seed), 0.0, (0.4, 0.4), shared), 0, 1) for seed in range(12)
        ]
        found.append(
            ([one.rank for one in several], [one.by_noise_alone for one in several], [one.rho for one in several])
        )
    (rank, alone, _), (more, by_noise, rho) = (tuple(np.nanmean(one) for one in part) for part in found)
    assert more - rank > 0.3
    assert by_noise - alone > 0.3
    assert abs(by_noise - more) < 0.15
    assert abs(rho) < 0.3


def test_unrelated_influences_are_not_the_same_and_equal_ones_may_be():
    unrelated = true_agreement(drawn(np.random.default_rng(4), 0.0, (0.7, 0.7)), 0, 1)
    assert unrelated.p_same < 0.01
    assert unrelated.high < 0.9
    same = true_agreement(drawn(np.random.default_rng(4), 1.0, (0.7, 0.7)), 0, 1)
    assert same.p_same > 0.05
    assert same.p_unrelated < 0.01
    assert same.high > 0.99


def test_unknown_errors_tell_nothing():
    fit = drawn(np.random.default_rng(2), 0.5)
    fit.covariance[:, 1] = np.nan
    fit.covariance[:, :, 1] = np.nan
    found = true_agreement(fit, 0, 1)
    assert np.isnan([found.rank, found.rho, found.p_same, found.p_unrelated, *found.sd]).all()
    assert (found.low, found.high) == (-1, 1)
    few = drawn(np.random.default_rng(2), 0.5, groups=4)
    with pytest.raises(EstimateError, match="4 groups"):
        true_agreements(few)


def test_without_noise_rho_is_the_correlation_of_the_values():
    for rho in (-0.6, 0.0, 0.6, 1.0):
        found = true_agreement(drawn(np.random.default_rng(3), rho, (0.9999, 0.9999), 0.0), 0, 1)
        assert found.rho == pytest.approx(rho, abs=0.02)
        assert found.low - 0.001 <= rho <= found.high + 0.001
        assert found.high - found.low < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reliability", "shared"), [((0.3, 0.8), 0.8), ((0.5, 0.5), 0.0), ((0.8, 0.8), 0.8), ((0.3, 0.3), 0.8)]
)
def test_intervals_cover_and_equal_orders_are_not_called_different(reliability, shared):
    repeats = 100
    for rho in (0.0, 0.9, 1.0):
        found = [
            true_agreement(drawn(np.random.default_rng(seed), rho, reliability, shared), 0, 1, seed)
            for seed in range(repeats)
        ]
        covered = np.mean([one.low <= rho <= one.high for one in found])
        assert covered > 0.95 - 3 * (0.95 * 0.05 / repeats) ** 0.5
        if rho == 1:
            assert np.mean([one.p_same < 0.05 for one in found]) <= 0.05 + 3 * (0.95 * 0.05 / repeats) ** 0.5
        if rho == 0:
            assert np.mean([one.p_unrelated < 0.05 for one in found]) <= 0.05 + 3 * (0.95 * 0.05 / repeats) ** 0.5
