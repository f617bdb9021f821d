"""Influences on several outputs of the same rows: covariance, simultaneous intervals, tests of change."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from pydt.base import EstimateError
from pydt.estimation import best_method, influences, joint_influences

ROWS, GROUPS, COLUMNS = 70, 12, 4


def ensemble(seed, rows=ROWS, groups=GROUPS, columns=COLUMNS, keep=0.5):
    random = np.random.default_rng(seed)
    masks = random.random((rows, groups)) < keep
    noise = random.standard_normal((rows, columns)) @ np.linalg.cholesky(0.2 * np.eye(columns) + 0.8).T
    noise *= 1 + np.arange(columns)
    return masks.astype(np.uint8), masks @ random.standard_normal((groups, columns)) + noise


def explicit(masks, y, robust):
    """OLS by the textbook: values (groups, J), covariance (groups, J, J) of errors across columns."""
    x = np.column_stack([np.ones(len(masks)), masks.astype(float)])
    inverse = np.linalg.inv(x.T @ x)
    hat = x @ inverse @ x.T
    values = inverse @ x.T @ y
    left = y - hat @ y
    if not robust:
        sigma = left.T @ left / (len(x) - x.shape[1])
        return values[1:], np.stack([inverse[k, k] * sigma for k in range(1, x.shape[1])])
    p = inverse @ x.T
    weighted = left / np.sqrt(1 - np.diag(hat))[:, None]
    return values[1:], np.stack(
        [sum(p[k, u] ** 2 * np.outer(weighted[u], weighted[u]) for u in range(len(x))) for k in range(1, x.shape[1])]
    )


@pytest.mark.parametrize("robust", [False, True])
def test_values_and_covariance_are_those_of_the_textbook(robust):
    masks, y = ensemble(0)
    fit = joint_influences(masks, y, "ols", errors="robust" if robust else "classical")
    values, covariance = explicit(masks, y, robust)
    np.testing.assert_allclose(fit.values, values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.stderr, np.sqrt(np.diagonal(covariance, 0, 1, 2)), rtol=1e-6)
    weights = np.array([[3.0, -1, -1, -1], [0, 0, 1, -1]])
    value, stderr = fit.contrast(weights)
    np.testing.assert_allclose(value, weights @ values.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stderr, np.sqrt(np.einsum("ni,kij,nj->nk", weights, covariance, weights)), rtol=2e-3)
    one, its = fit.contrast(weights[1])
    np.testing.assert_array_equal((one, its), (value[1], stderr[1]))


@pytest.mark.parametrize("method", ["ols", "difference"])
@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_columns_and_contrasts_are_those_of_influences(method, keep):
    masks, y = ensemble(1, rows=150, keep=keep)
    fit = joint_influences(masks, y, method)
    alone = influences(masks, y, method)
    np.testing.assert_array_equal(fit.values, alone.unbiased.astype(float))
    np.testing.assert_allclose(fit.stderr, alone.stderr, rtol=1e-6)
    np.testing.assert_allclose(fit.explained, alone.explained)
    assert (fit.method, fit.errors, fit.estimand, fit.models) == (method, alone.errors, alone.estimand, len(y))
    np.testing.assert_array_equal(fit.counts, masks.sum(0))
    np.testing.assert_array_equal(fit.df, np.broadcast_to(alone.df, alone.stderr.shape).min(1))
    weights = np.array([1.0, -2, 0, 1])
    value, stderr = fit.contrast(weights)
    mixed = influences(masks, y @ weights, method)
    np.testing.assert_allclose(value, mixed.unbiased, atol=2e-5)
    np.testing.assert_allclose(stderr, mixed.stderr, rtol=1e-4)
    assert np.linalg.eigvalsh(fit.covariance).min() > -1e-9


def test_trend_is_the_fitted_line_from_first_to_last():
    masks, y = ensemble(2)
    fit = joint_influences(masks, y)
    trend = fit.trend()
    slopes = [np.polyfit(range(COLUMNS), row, 1)[0] for row in fit.values]
    np.testing.assert_allclose(trend.values, np.array(slopes) * (COLUMNS - 1), rtol=1e-6)
    alone = influences(masks, y @ np.array([-0.9, -0.3, 0.3, 0.9]), "ols")  # 3 (x - 1.5) / 5
    np.testing.assert_allclose(trend.stderr, alone.stderr, rtol=2e-3)
    np.testing.assert_allclose(trend.p, 2 * stats.t.sf(np.abs(trend.values / trend.stderr), fit.df), rtol=1e-12)
    np.testing.assert_allclose(trend.q, stats.false_discovery_control(trend.p))


def test_any_change_is_hotellings_test():
    masks, y = ensemble(3)
    fit = joint_influences(masks, y, "ols", errors="classical")
    values, covariance = explicit(masks, y, False)
    d = np.eye(COLUMNS)[1:] - np.eye(COLUMNS)[:1]
    df = ROWS - GROUPS - 1
    for k in range(GROUPS):
        t2 = d @ values[k] @ np.linalg.solve(d @ covariance[k] @ d.T, d @ values[k])
        p = stats.f.sf(t2 * (df - COLUMNS + 2) / df / (COLUMNS - 1), COLUMNS - 1, df - COLUMNS + 2)
        assert fit.any_change()[k] == pytest.approx(p, rel=1e-3)


def test_multiplier_is_the_quantile_of_the_largest_t():
    masks, y = ensemble(4)
    fit = joint_influences(masks, y, "ols", errors="robust")
    random = np.random.default_rng(5)
    for k in (0, 5):
        z = random.multivariate_normal(np.zeros(COLUMNS), fit.correlation[k], 1_000_000)
        t = np.abs(z).max(1) / np.sqrt(random.chisquare(fit.df[k], len(z)) / fit.df[k])
        assert fit.multiplier[k] == pytest.approx(np.quantile(t, 0.95), rel=0.004)
    np.testing.assert_allclose((fit.high - fit.low) / 2, fit.multiplier[:, None] * fit.stderr)
    again = joint_influences(masks, y, "ols", errors="robust")
    np.testing.assert_array_equal(again.multiplier, fit.multiplier)


def test_multiplier_of_independent_columns_and_of_equal_ones():
    random = np.random.default_rng(6)
    masks = random.random((4000, GROUPS)) < 0.5
    fit = joint_influences(masks, random.standard_normal((4000, 5)))
    sidak = stats.norm.ppf((1 + 0.95**0.2) / 2)
    np.testing.assert_allclose(fit.multiplier, sidak, rtol=0.005)
    one = random.standard_normal(4000)
    equal = joint_influences(masks, np.stack([one, one, one], 1))
    np.testing.assert_allclose(equal.multiplier, stats.t.ppf(0.975, equal.df), rtol=2e-3)
    np.testing.assert_array_equal(equal.trend().p, 1)
    np.testing.assert_array_equal(equal.any_change(), 1)


def test_a_constant_column_has_no_error_and_leaves_the_others_theirs():
    masks, y = ensemble(7)
    whole = joint_influences(masks, y)
    y[:, 1] = 3.0
    fit = joint_influences(masks, y)
    others = [0, 2, 3]
    assert np.isnan(fit.stderr[:, 1]).all()
    assert np.isnan(fit.low[:, 1]).all()
    np.testing.assert_allclose(fit.stderr[:, others], whole.stderr[:, others])
    three = joint_influences(masks, y[:, others])
    np.testing.assert_allclose(fit.multiplier, three.multiplier)
    assert np.isnan(fit.trend().p).all()
    assert np.isnan(fit.any_change()).all()
    np.testing.assert_allclose(fit.contrast([1, 0, 0, -1]), whole.contrast([1, 0, 0, -1]))
    y[:, others] = 1.0
    alone = joint_influences(masks, np.stack([y[:, 0], np.arange(ROWS)], 1))
    np.testing.assert_allclose(alone.multiplier, stats.t.ppf(0.975, alone.df))


def test_clusters_and_designs_are_taken_as_influences_takes_them():
    masks, y = ensemble(8)
    label = np.arange(ROWS) // 2
    fit = joint_influences(masks, y, clusters=label)
    alone = influences(masks, y, best_method(masks, clusters=label), clusters=label)
    assert fit.errors == "clusters"
    np.testing.assert_allclose(fit.stderr, alone.stderr, rtol=1e-6)
    packed = np.packbits(masks, axis=1, bitorder="little")
    np.testing.assert_array_equal(joint_influences(packed, y, groups=GROUPS).values, joint_influences(masks, y).values)


def test_bad_inputs_are_refused():
    masks, y = ensemble(9)
    with pytest.raises(EstimateError, match="ridge has no unbiased"):
        joint_influences(masks, y, "ridge")
    with pytest.raises(EstimateError, match="penalty differs by column"):
        joint_influences(masks, y, "lasso")
    for bad in (y[:, :1], y[:, 0], y.astype(str)):
        with pytest.raises(EstimateError, match="at least 2 columns"):
            joint_influences(masks, bad)
    with pytest.raises(EstimateError, match="unknown method"):
        joint_influences(masks, y, "olss")
    fit = joint_influences(masks, y)
    for bad in (np.ones(3), np.ones((2, 2, 4)), [1, 0, 0, np.nan]):
        with pytest.raises(EstimateError, match="contrast"):
            fit.contrast(bad)


def drawn(seed, true, rows=70, keep=0.5, uneven=0.0):
    """Masks and outputs with true influences (groups, J); noise correlates by 0.8 and its variance differs by column,
    and by `uneven` more where the first group is kept."""
    random = np.random.default_rng(seed)
    groups, columns = true.shape
    masks = random.random((rows, groups)) < keep
    noise = random.standard_normal((rows, columns)) @ np.linalg.cholesky(0.2 * np.eye(columns) + 0.8).T
    noise *= (1 + uneven * masks[:, :1]) * np.linspace(2, 1, columns)
    return masks, masks @ true + noise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("errors", "uneven", "keep"), [("classical", 0.0, 0.5), ("robust", 1.0, 0.5), ("auto", 1.0, 0.3)]
)
def test_simultaneous_intervals_and_tests_of_change_hold(errors, uneven, keep):
    true = np.random.default_rng(10).standard_normal((GROUPS, 1)) * np.ones(COLUMNS)
    held, trends, changes = [], [], []
    for seed in range(600):
        masks, y = drawn(seed, true, 70 if keep == 0.5 else 90, keep, uneven)
        fit = joint_influences(masks, y, "ols", errors=errors)
        held.append(((fit.low <= true) & (true <= fit.high)).all(1))
        trends.append(fit.trend().p < 0.05)
        changes.append(fit.any_change() < 0.05)
    assert 0.935 < np.mean(held) < 0.965  # 7,200 intervals; those of one ensemble lean on one variance
    assert 0.92 < np.mean(held, 0)[0] < 0.98
    assert np.mean(trends) < 0.06
    assert np.mean(changes) < 0.065


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["classical", "robust"])
def test_no_change_is_found_where_influences_are_alike_at_all_shots(errors):
    found = []
    for seed in range(200):
        true = np.random.default_rng(1000 + seed).standard_normal((GROUPS, 1)) * np.ones(6)
        masks, y = drawn(seed, true)
        found.append((joint_influences(masks, y, "ols", errors=errors).trend().q < 0.05).any())
    assert np.mean(found) <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_group_that_matters_at_the_fewest_shots_only_is_told_from_one_that_matters_at_all(seed):
    true = np.zeros((GROUPS, 6))
    true[3, 0], true[3, 1] = 3.0, 1.5
    true[7] = 2.0
    masks, y = drawn(seed, true, rows=300)
    fit = joint_influences(masks, y)
    trend = fit.trend()
    assert trend.q[3] < 0.05
    assert trend.values[3] < 0
    assert trend.q[7] > 0.05
    assert fit.low[3, 0] > 0
    assert (fit.low[7] > 0).all()
    assert fit.low[3, 5] < 0 < fit.high[3, 5]


def test_multipliers_of_many_groups_take_little_memory():
    random = np.random.default_rng(11)
    masks = random.random((200, 500)) < 0.5
    fit = joint_influences(masks, random.standard_normal((200, 3)), "difference", errors="robust")
    tracemalloc.start()
    multiplier = fit.multiplier
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120 << 20  # all at once: 200 MB of simulated values, and as much again of their places
    assert (stats.t.ppf(0.975, fit.df) < multiplier).all()
    assert (multiplier < stats.t.ppf(1 - 0.025 / 3, fit.df)).all()


def test_a_column_between_two_others_adds_nothing_to_their_change():
    masks, y = ensemble(12)
    two = joint_influences(masks, y[:, :2], "ols", errors="robust")
    three = joint_influences(masks, np.column_stack([y[:, :2], y[:, :2] @ [0.3, 0.7]]), "ols", errors="robust")
    value, stderr = two.contrast([1, -1])
    np.testing.assert_allclose(two.any_change(), 2 * stats.t.sf(np.abs(value / stderr), two.df), rtol=1e-6)
    np.testing.assert_allclose(three.any_change(), two.any_change(), rtol=1e-3, atol=1e-4)


def test_columns_of_unknown_error_are_left_out_group_by_group():
    fit = joint_influences(*ensemble(13))
    covariance = fit.covariance.copy()
    covariance[2, 3] = covariance[2, :, 3] = np.nan
    covariance[5] = np.nan
    part = dataclasses.replace(fit, covariance=covariance)
    others = np.delete(np.arange(GROUPS), [2, 5])
    np.testing.assert_allclose(part.multiplier[others], fit.multiplier[others])
    assert part.multiplier[2] < fit.multiplier[2]
    assert np.isnan(part.multiplier[5])
    assert np.isnan(part.trend().q[[2, 5]]).all()
    assert not np.isnan(part.trend().q[others]).any()


def test_the_method_is_the_best_for_the_clusters_too():
    masks, y = ensemble(14)
    label = np.arange(ROWS) // 5
    assert joint_influences(masks, y).method == "ols"
    assert best_method(masks, clusters=label) == "lasso"
    assert joint_influences(masks, y, clusters=label).method == "difference", "the LASSO has no joint errors"


@pytest.mark.parametrize(("rows", "groups", "size"), [(32, 20, None), (60, 6, 3)])
def test_spread_of_the_true_influences_is_covered_where_few_degrees_of_freedom_are_left(rows, groups, size):
    """Without the shared error of the noise 65 % (20 groups) and 80 % (6); with it 94 %."""
    values = 0.3 * np.random.default_rng(3).standard_normal(groups)
    truth, held = values.std(ddof=1), []
    for seed in range(150):
        random = np.random.default_rng(seed)
        masks = random.random((rows, groups)) < 0.5
        if size is not None:
            masks = np.argsort(np.argsort(random.random((rows, groups)), 1), 1) < size
        fit = joint_influences(masks, (masks @ values)[:, None] + [1, 2] * random.standard_normal((rows, 2)), "ols")
        sd, low, high = fit.spread()
        held.append((low <= truth) & (truth <= high))
        noise = np.diagonal(fit.independent, axis1=1, axis2=2).mean(0)
        np.testing.assert_allclose(sd**2, np.maximum(fit.values.var(0, ddof=1) - noise, 0), atol=1e-9)
    assert fit.estimand == ("add" if size is None else "swap")
    assert np.mean(held, 0).min() > 0.88
    if size is not None:  # then the mean square of errors about their mean is 1 / (K - 1) of their sum of squares
        np.testing.assert_allclose(fit.values.sum(0), 0, atol=1e-6)
        np.testing.assert_allclose(fit.independent, fit.covariance * groups / (groups - 1))


def test_any_change_of_differences_is_as_sure_as_what_least_squares_leaves():
    """With the degrees of freedom of single variances 12 % of p are below 0.05."""
    small, noise = [], np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))).T
    for seed in range(40):
        masks = np.random.default_rng(seed).random((70, 62)) < 0.5
        y = np.random.default_rng(1000 + seed).standard_normal((70, 6)) @ noise
        fit = joint_influences(masks, y, "difference")
        small.append(fit.any_change() < 0.05)
    assert fit.least_df == 7 < fit.df.min()
    assert np.mean(small) < 0.06
