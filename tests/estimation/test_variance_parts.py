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
    with pytest.raises(EstimateError, match=r"20 rows are too few for 12 groups.*train at least 26 rows"):
        variance_shares(masks[:20], [score[0][:20]], [report[0][:20]], blocks=20)
    with pytest.raises(EstimateError, match="same in all rows"):
        variance_shares(masks, [np.ones(60)])
    with pytest.raises(EstimateError, match="report"):
        variance_shares(masks, score, report[:1])
    for part in (1.5, [0.5], "half"):
        with pytest.raises(EstimateError, match="part"):
            variance_shares(masks, score, report, part=part)
    assert isinstance(Design.explicit(masks), Design)


def test_the_score_half_has_its_part_of_the_noise_of_images():
    masks, score, report = planted(1)
    whole, parts = variance_shares(masks, score, report), variance_shares(masks, score, report, part=[0.9, 0.5])
    np.testing.assert_allclose(parts.images.values, whole.images.values * [1.8, 1])
    np.testing.assert_allclose(parts.images.stderr, whole.images.stderr * [1.8, 1])
    total = sum(getattr(parts, name).values for name in PARTS[:4])
    np.testing.assert_allclose(total, 1)
    np.testing.assert_array_equal(parts.noiseless.values, whole.noiseless.values)


def by_hand(masks, s, t):
    """The shares of one column with two explicit regressions; s and t (rows, draws)."""
    rows, draws = s.shape
    x = np.column_stack([np.ones(rows), masks])
    free = rows - np.linalg.matrix_rank(x)

    def left(y):
        return y - x @ np.linalg.lstsq(x, y, rcond=None)[0]

    def two_way(y):
        return y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()

    y, z = s.mean(1), t.mean(1)
    variance = y.var(ddof=1)
    groups = 1 - (left(y) ** 2).sum() / free / variance
    of_draws = (left(two_way(s)) * left(two_way(t))).sum() / free / max(draws - 1, 1) / draws / variance
    images = (left(y - z) ** 2).sum() / free / 2 / variance
    shared = np.cov(y, z)[0, 1] - (two_way(s) * two_way(t)).sum() / (rows - 1) / max(draws - 1, 1) / draws
    noiseless = 1 - ((left(y) * left(z)).sum() / free - of_draws * variance) / shared
    return np.array([groups, of_draws, images, 1 - groups - of_draws - images, noiseless])


@pytest.mark.parametrize("one_size", [False, True])
def test_shares_are_those_by_hand_with_and_without_a_block(one_size):
    masks, score, report = planted(2)
    if one_size:
        masks = np.argsort(np.random.default_rng(3).random(masks.shape), axis=1) < 6
    found = variance_shares(masks, score, report, blocks=7)
    together = np.stack([getattr(found, part).values for part in PARTS])
    for j in range(2):
        np.testing.assert_allclose(together[:, j], by_hand(masks, score[j], report[j]), rtol=1e-9, atol=1e-12)
    assert found.jackknife.shape == (7, 5, 2)
    order = np.random.default_rng(4).permutation(len(masks))  # one row a block, whatever the order of the rows
    alone = variance_shares(masks[order], [score[0][order]], [report[0][order]], blocks=1000)
    kept = Design.explicit(masks).clusters
    expected = [by_hand(masks[kept != c], score[0][kept != c], report[0][kept != c]) for c in range(kept.max() + 1)]
    np.testing.assert_allclose(
        np.sort(alone.jackknife[:, :, 0], 0), np.sort(np.stack(expected), 0), rtol=1e-9, atol=1e-12
    )


def test_repeated_and_complementary_masks_stay_in_one_block():
    random = np.random.default_rng(5)
    half = random.random((60, 8)) < 0.5
    masks = np.concatenate([half, ~half])
    y = random.standard_normal((60, 1)) * np.ones((1, 2))
    y = y.T.reshape(-1, 1)  # complements have one output: blocks that cut them would see this
    found = variance_shares(masks, [y], [y], blocks=len(masks))
    assert len(found.jackknife) == Design.explicit(masks).clusters.max() + 1


def test_without_report_only_groups_are_known():
    masks, score, _ = planted(6)
    found = variance_shares(masks, score)
    whole = variance_shares(masks, *planted(6)[1:])
    np.testing.assert_allclose(found.groups.values, whole.groups.values)
    np.testing.assert_allclose(found.groups.stderr, whole.groups.stderr)
    for part in PARTS[1:]:
        assert np.isnan(getattr(found, part).values).all()
        assert np.isnan(getattr(found, part).low).all()
    assert found.difference(0, 1).value == pytest.approx(found.groups.values[0] - found.groups.values[1])


def test_noiseless_is_unknown_where_noise_may_be_all():
    known = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        found = variance_shares(
            random.random((100, 10)) < 0.5, [random.standard_normal(100)], [random.standard_normal(100)]
        )
        known += not np.isnan(found.noiseless.values[0])
    assert known <= 4, "halves that share nothing seem to in 2.5 %"
    assert found.images.low[0] < 1 < found.images.high[0]


def test_a_difference_leans_on_what_columns_share():
    masks, score, report = planted(8)
    y, z = score[0], report[0]
    near = variance_shares(masks, [y, y + 0.01 * z], [z, z + 0.01 * y])
    difference = near.difference(0, 1)
    assert difference.stderr < 0.2 * near.groups.stderr[0]
    assert difference.low < difference.value < difference.high
    of_five = near.difference(0, 1, tests=5)
    assert of_five.p == difference.p
    assert 1.3 < (of_five.high - of_five.low) / (difference.high - difference.low) < 1.5
    same = variance_shares(masks, [y, y], [z, z]).difference(1, 0, "rest")
    assert (same.value, same.stderr, same.p) == (0, 0, 1)
    with pytest.raises(EstimateError, match="column"):
        near.difference(0, 2)
    with pytest.raises(EstimateError, match="part"):
        near.difference(0, 1, "noise")


def test_errors_count_noise_once():
    """Of noise alone, var(adjusted R2) = 2 / (R - p) - 2 / R; the jackknife says (R / (R - p))^2 2 / R - 2 / R."""
    variances, jackknife = [], []
    for seed in range(30):
        random = np.random.default_rng(seed)
        found = variance_shares(random.random((120, 39)) < 0.5, [random.standard_normal(120)])
        variances.append(found.groups.stderr[0] ** 2)
        jackknife.append(found.jackknife[:, 0, 0].var() * (len(found.jackknife) - 1))
    assert np.mean(variances) == pytest.approx(2 / 80 - 2 / 120, rel=0.25)
    assert np.mean(jackknife) == pytest.approx(1.5**2 / 60 - 1 / 60, rel=0.25)


def test_a_difference_takes_off_what_its_columns_have_too_much():
    masks, score, report = planted(9, rows=200)
    y, z = score[0], report[0]
    found = variance_shares(masks, [y, 0.5 * y + z], [z, 0.5 * z + y])
    of_blocks, excess = found.jackknife[:, 0], found.excess[0]
    jackknife = (of_blocks[:, 0] - of_blocks[:, 1]).var() * (len(of_blocks) - 1)
    assert excess[0, 1] > 0.5 * excess[0, 0]
    expected = jackknife - (excess[0, 0] + excess[1, 1] - 2 * excess[0, 1])
    assert found.difference(0, 1).stderr == pytest.approx(expected**0.5)


@pytest.mark.slow
def test_planted_shares_lie_in_their_intervals():
    held, spread = [], []
    for seed in range(400):
        masks, score, report = planted(100 + seed)
        found = variance_shares(masks, score, report, seed=seed)
        shares = [getattr(found, part) for part in PARTS]
        held.append([(one.low <= want) & (want <= one.high) for one, want in zip(shares, PLANTED, strict=True)])
        both = found.difference(0, 1)
        held[-1].append([both.low <= 0.3 <= both.high] * 2)
        spread.append([one.values for one in shares])
    np.testing.assert_allclose(np.mean(spread, 0), PLANTED, atol=0.02)
    share = np.mean(held, 0)
    share[1, 1] = 0.95  # of no draws, it is 0 always
    assert share.min() > 0.91, share
    assert share.max() < 0.985, share
