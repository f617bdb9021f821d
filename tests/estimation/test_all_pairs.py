"""Differences of all pairs of arms against the formulas written as loops, and their errors and power in simulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from test_arm_spread import CLASSES, arms

from pydt import PydtError
from pydt.estimation import all_pairs, crossed, holm


def test_seeds_of_both_arms_err_and_are_shrunk_to_all_arms() -> None:
    """With one draw and one image only seeds are left, so each pair is a t test."""
    y = np.random.default_rng(0).standard_normal((4, 3, 1, 1)) * np.array([1, 2, 3, 4])[:, None, None, None]
    raw = y.var((1, 2, 3), ddof=1) / 3
    u = (raw + raw.mean()) / 2
    found = all_pairs(y)
    assert [pair[:2] for pair in found] == list(itertools.combinations(range(4), 2))
    for i, j, one in found:
        variance = u[i] + u[j]
        df = variance**2 / ((u[i] ** 2 + u[j] ** 2) / 3)
        assert one.mean == pytest.approx(float(y[i].mean() - y[j].mean()))
        assert (one.stderr, one.df) == pytest.approx((variance**0.5, df))
        assert one.p == pytest.approx(2 * stats.t.sf(abs(one.mean) / variance**0.5, df))
        assert one.unknown == ("draws", "images")


def test_two_arms_alone_are_the_test_of_welch() -> None:
    y = np.random.default_rng(1).standard_normal((2, 3, 1, 1)) * np.array([1, 3])[:, None, None, None]
    [(_, _, one)] = all_pairs(y)
    test = stats.ttest_ind(y[0].ravel(), y[1].ravel(), equal_var=False)
    assert (one.p, one.df) == pytest.approx((test.pvalue, test.df))


def test_what_seeds_do_not_change_is_as_in_crossed() -> None:
    y = arms(np.random.default_rng(2), 1, np.zeros((1, 3)), shape=(3, 1, 5, 300))[0].astype(float)
    for i, j, one in all_pairs(y, None, CLASSES):
        assert one.p == crossed(y[i] - y[j], None, CLASSES, difference=True).p
        assert one.unknown == ("seeds",)
    alike = np.zeros((3, 3, 2, 50))
    assert all_pairs(alike)[0][2] == crossed(alike[0], difference=True)
    with pytest.raises(PydtError, match="one arm"):
        all_pairs(y[:1])


SEEDS = {
    "seeds 1 point": 0.035,
    "seeds 3 points": 0.1,
    "one arm 9 times": (0.02, 0.02, 0.02, 0.06),
    "two arms 9 times": (0.03, 0.03, 0.09, 0.09),
    "three arms 9 times": (0.02, 0.06, 0.06, 0.06),
}


def p_values(rng, repeats, shift, seeds):
    found, count = [], len(shift)
    for _ in range(repeats // 50):
        shape = (count, 3, 5, 300)
        for y in arms(rng, 50, np.tile(np.float32(shift), (50, 1)), seeds=seeds, shape=shape).astype(float):
            found.append([one.p for _, _, one in all_pairs(y, None, CLASSES)])
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("case", SEEDS)
def test_equal_arms_differ_at_most_as_often_as_told(case: str) -> None:
    p = p_values(np.random.default_rng(21), 2000, [0, 0, 0, 0], SEEDS[case])
    pairs, family = (p < 0.05).mean(0), float(np.mean([(holm(one) < 0.05).any() for one in p]))
    print(f"{case}: {np.round(100 * pairs, 1)} %, any after Holm {100 * family:.1f} %")
    assert family <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    assert pairs.mean() <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


@pytest.mark.slow
def test_two_equal_arms() -> None:
    for seeds in (0.035, (0.03, 0.09)):
        rate = float((p_values(np.random.default_rng(22), 2000, [0, 0], seeds) < 0.05).mean())
        print(f"two arms, {seeds}: {100 * rate:.1f} %")
        assert rate <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


@pytest.mark.slow
def test_planted_gaps_are_found() -> None:
    for points, shift, least in ((3, 0.085, 0.04), (7, 0.2, 0.65)):
        p = p_values(np.random.default_rng(23), 400, [0, 0, 0, shift], 0.035)
        own = [2, 4, 5]  # pairs with the better arm
        found = float(np.mean([holm(one)[own] < 0.05 for one in p]))
        print(f"{points} points: p < 0.05 {100 * (p[:, own] < 0.05).mean():.0f} %, after Holm {100 * found:.0f} %")
        assert found > least
