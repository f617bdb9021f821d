"""Rates over images and trainings: variances against loops and simulation, intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pydt.analyses.rates import Block, compare, fieller, rate_of, spread


def crossed(right: np.ndarray, first: int = 0, images: np.ndarray | None = None) -> Block:
    n, m = right.shape
    return list(range(first, first + n)), np.arange(m) if images is None else images, right.astype(float)


def by_loops(arms: list[list[Block]], weights: list[float], images: int) -> float:
    """The variance of the docstring, image by image and pair by pair."""
    means, errors = [0.0] * images, {}
    for weight, arm in zip(weights, arms, strict=True):
        for runs, own, right in arm:
            n = len(runs)
            for column, j in enumerate(own):
                mean = sum(right[:, column]) / n
                means[j] += weight * mean
                for i, run in enumerate(runs):
                    part = weight * (right[i, column] - mean) / (n * (n - 1)) ** 0.5
                    errors[run, j] = errors.get((run, j), 0.0) + part
    between = sum((d - sum(means) / images) ** 2 for d in means) / (images - 1) / images
    pairs, all_pairs = 0.0, 0.0
    for (run, j), one in errors.items():
        for (other_run, k), other in errors.items():
            if run == other_run:
                all_pairs += one * other / images**2
                pairs += one * other / images / (images - 1) if j != k else 0.0
    return max(between + pairs, between, all_pairs)


def test_the_variance_is_that_of_loops() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        # Two blocks an arm; the second arm shares runs between its blocks, and one run with the first arm.
        sizes = [4, 5] if random.random() < 0.7 else [1, 8]
        places = np.split(random.permutation(9), [sizes[0]])
        one = [crossed(random.random((n, len(own))) < 0.5, 10 * n, own) for n, own in zip((4, 6), places, strict=True)]
        shared = [7, 8, 40, 9]
        two = [(shared, own, (random.random((4, len(own))) < 0.3).astype(float)) for own in places]
        for weights in ([1.0, 0.0], [0.0, 1.0], [1.0, -1.0]):
            value, variance, df = spread([one, two], weights, 9)
            assert variance == pytest.approx(by_loops([one, two], weights, 9))
            assert df > 0
            expected = sum(
                w * right[:, k].mean() / 9
                for w, arm in zip(weights, (one, two), strict=True)
                for _, own, right in arm
                for k in range(len(own))
            )
            assert value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("images", "blocks", "rates"), [(60, 1, (0.5, 0.15)), (40, 8, (0.4, 0.2)), (24, 24, (0.3, 0.1))]
)
def test_intervals_cover_where_images_and_runs_both_vary(images: int, blocks: int, rates: tuple[float, float]) -> None:
    """Images are drawn with their own chances, runs move all of them; truth: the mean chance of the population."""
    random = np.random.default_rng(4)
    trials, runs = (300 if blocks == 1 else 150 if blocks < 10 else 60), 10

    def chance(rate: float, image: np.ndarray, run: np.ndarray) -> np.ndarray:
        return stats.norm.cdf(stats.norm.ppf(rate) * 1.5 + 1.0 * image + 0.5 * run)

    held = np.zeros(4)
    for _ in range(trials):
        image = random.normal(size=images)
        places = np.array_split(np.arange(images), blocks)
        control = random.normal(size=(runs, 1))
        arms: list[list[Block]] = [[], []]
        for b, own in enumerate(places):
            fresh = random.normal(size=(runs, 1))
            for arm, rate, noise, first in ((0, rates[0], fresh, 100 * (b + 1)), (1, rates[1], control, 0)):
                right = random.random((runs, len(own))) < chance(rate, image[own], noise)
                arms[arm].append(crossed(right, first, own))
        # E over a standard normal image and run: the same probit with the spread taken out
        wanted = [stats.norm.cdf(stats.norm.ppf(rate) * 1.5 / np.sqrt(1 + 1 + 0.25)) for rate in rates]
        for k in range(2):
            found = rate_of(arms[k], images)
            held[k] += found.low <= wanted[k] <= found.high
        both = compare(arms[0], arms[1], images)
        held[2] += both.low <= wanted[0] - wanted[1] <= both.high
        held[3] += both.ratio_low <= wanted[0] / wanted[1] <= both.ratio_high
    # Over 1,000 trials: 0.94 to 0.97 for rates and differences; ratios 0.94, 0.95 and, of the smallest case, 0.91.
    assert (held / trials > (0.9 if blocks < 10 else 0.83)).all(), held / trials


def test_independent_trials_give_wilsons_interval() -> None:
    # One run for each image and no more: every image a block of its own, as many trials as images would be.
    right = np.array([1, 0, 0, 1, 0, 0, 0, 0, 1, 0] * 4)
    blocks = [crossed(np.full((2, 1), r), 2 * j, np.array([j])) for j, r in enumerate(right)]
    found = rate_of(blocks, 40)
    trials = 0.3 * 0.7 / (right.var(ddof=1) / 40)
    t = stats.t.ppf(0.975, 39)
    inner = (trials * 0.3 + t**2 / 2) / (trials + t**2)
    reach = t / (trials + t**2) * np.sqrt(0.3 * 0.7 * trials + t**2 / 4)
    assert (found.low, found.high) == pytest.approx((inner - reach, inner + reach))


def test_where_all_are_alike_the_interval_is_not_empty() -> None:
    none = rate_of([crossed(np.zeros((10, 25)))], 25)
    assert none.low == pytest.approx(0, abs=1e-12)
    assert 0.1 < none.high < 0.2, "no success among 25 images"
    sure = rate_of([crossed(np.ones((10, 25)))], 25)
    assert (sure.low, sure.high) == pytest.approx((1 - none.high, 1))
    random = np.random.default_rng(1)
    some = [crossed(random.random((10, 25)) < 0.6, 50)]
    both = compare(some, [crossed(np.zeros((10, 25)))], 25)
    assert both.ratio == np.inf
    assert both.ratio_high == np.inf
    assert 2 < both.ratio_low < 10
    certain = compare([crossed(np.ones((10, 25)), 50)], [crossed(np.zeros((10, 25)))], 25)
    assert (certain.difference, certain.stderr, certain.high) == (1, 0, pytest.approx(1))
    assert certain.low == pytest.approx(1 - np.hypot(1 - sure.low, none.high))
    same = compare([crossed(np.zeros((10, 25)), 50)], [crossed(np.zeros((10, 25)))], 25)
    assert (-same.low, same.high) == pytest.approx((none.high, none.high))
    one = rate_of([crossed(random.random((10, 1)) < 0.5)], 1)
    assert 0 <= one.low < one.rate < one.high <= 1


def test_fieller_holds_the_ratios_that_it_should() -> None:
    """By a grid: r is inside where |one - r other| <= t sqrt(var)."""
    t = stats.t.ppf(0.975, 12)
    grid = np.linspace(0, 50, 200001)
    for one, other, v, w, c in [
        (0.5, 0.2, 0.003, 0.001, 0.0005),
        (0.5, 0.05, 0.003, 0.001, 0.0005),
        (0.05, 0.2, 0.003, 0.001, -0.0005),
        (0.05, 0.02, 0.003, 0.001, 0.0),
        (0.4, 0.0, 0.003, 0.001, 0.0),
    ]:
        low, high = fieller(one, other, v, w, c, 12)
        inside = np.abs(one - grid * other) <= t * np.sqrt(np.maximum(v - 2 * grid * c + grid**2 * w, 0))
        assert low == pytest.approx(grid[inside].min(), abs=1e-3)
        if high < 50:
            assert high == pytest.approx(grid[inside].max(), abs=1e-3)
        else:
            assert inside[-1]


def test_equal_rates_differ_by_nothing() -> None:
    """0.1 + 0.2 + 0.3 in another order: no dust is left."""
    one = np.zeros((10, 8))
    for image, times in enumerate([4, 0, 1, 2, 7, 8, 7, 1]):
        one[:times, image] = 1
    other = np.zeros((10, 8))
    for image, times in enumerate([4, 0, 2, 0, 6, 7, 7, 4]):
        other[:times, image] = 1
    assert compare([crossed(one)], [crossed(other, 50)], 8).difference == 0
