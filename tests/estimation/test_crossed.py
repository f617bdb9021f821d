"""Means over seeds, draws and images against sums of products written as loops, and their coverage in simulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize, special, stats

from pydt import PydtError
from pydt.estimation import Crossed, crossed, wilson


def products(values: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    """The unbiased variance of the mean: its square less the mean of products that share no seed, draw or image."""
    (seeds, draws, images), u = values.shape, values * weights
    size = {label: int((labels == label).sum()) for label in labels}
    total, pairs = 0.0, 0
    one = lambda n: [(0, 0)] if n == 1 else list(itertools.permutations(range(n), 2))  # noqa: E731
    for (s, other_s), (d, other_d) in itertools.product(one(seeds), one(draws)):
        pairs += 1
        for i, j in itertools.permutations(range(images), 2):
            n = size[labels[i]]
            total += u[s, d, i] * u[other_s, other_d, j] * (n / (n - 1) if labels[i] == labels[j] else 1)
    return float(u.sum((2,)).mean() ** 2 - total / pairs)


def loops(y: np.ndarray) -> dict[str, float]:
    """Textbook mean squares over S D I of equal weights and one class, by explicit loops."""
    shape, mean = y.shape, y.mean()
    found = {}
    for r in (1, 2, 3):
        for axes in itertools.combinations(range(3), r):
            square = 0.0
            for place in itertools.product(*(range(shape[a]) for a in axes)):
                effect = 0.0
                for k in range(r + 1):
                    for kept in itertools.combinations(range(r), k):
                        at: list = [slice(None)] * 3
                        for q in kept:
                            at[axes[q]] = place[q]
                        effect += (-1) ** (r - k) * (y[tuple(at)].mean() if k else mean)
                square += effect**2
            df = np.prod([shape[a] - 1 for a in axes])
            found["".join("sdi"[a] for a in axes)] = square / df / np.prod([shape[a] for a in axes])
    return found


def freedom(v: dict[str, float], total: float, seeds: int, draws: int, images: int) -> float:
    """df of the variance `total` by mean squares v, of which seeds, draws and images have so many, by bisection."""
    h = [max(v["s"] - v["si"] / 4, 0), max(v["d"] - v["di"] / 4, 0), v["i"]]
    own = (seeds, draws, images)
    first = stats.t.ppf(0.975, total**2 / sum(one**2 / df for one, df in zip(h, own, strict=True)))
    second = sum(one * stats.t.ppf(0.975, df) for one, df in zip(h, own, strict=True)) / sum(h)
    return float(optimize.brentq(lambda df: stats.t.ppf(0.975, df) - (first + second) / 2, 0.05, 1e7))


def noisy(rng: np.random.Generator, seeds: int, draws: int, images: int) -> np.ndarray:
    """All effects are there, those of seeds and draws so large that no maximum binds."""
    n = rng.standard_normal
    s, d = n((seeds, 1, 1)) + 9 * np.arange(seeds)[:, None, None], n((1, draws, 1)) + 9 * np.arange(draws)[:, None]
    y = s + d + n((1, 1, images)) + n((seeds, draws, 1))
    return y + 0.1 * n((seeds, 1, images)) + 0.1 * n((1, draws, images)) + 0.1 * n((seeds, draws, images))


@pytest.mark.parametrize(("seeds", "draws"), [(3, 4), (1, 4), (3, 1), (2, 3)])
def test_the_error_is_that_of_products_that_share_nothing(seeds: int, draws: int) -> None:
    rng = np.random.default_rng(5)
    labels = np.array([2, 0, 2, 0, 1, 1, 1])
    for _ in range(20):
        y, weights = noisy(rng, seeds, draws, 7), rng.dirichlet(np.ones(7))
        found = crossed(y, weights, labels)
        assert found.mean == pytest.approx((y * weights).sum(2).mean())
        assert found.stderr**2 == pytest.approx(products(y, weights, labels))


def test_degrees_of_freedom_and_true_effects_are_those_of_loops() -> None:
    y = noisy(np.random.default_rng(2), 4, 5, 6)
    found, v = crossed(y, difference=True), loops(y)
    total = v["s"] + v["d"] + v["i"] - v["sd"] - v["si"] - v["di"] + v["sdi"]
    assert found.stderr == pytest.approx(total**0.5)
    assert found.df == pytest.approx(freedom(v, total, 3, 4, 5))
    assert found.sd_seeds == pytest.approx((4 * (v["s"] - v["sd"] - v["si"] + v["sdi"])) ** 0.5)
    assert found.sd_draws == pytest.approx((5 * (v["d"] - v["sd"] - v["di"] + v["sdi"])) ** 0.5)
    t = found.mean / found.stderr
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), found.df))
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, found.df, found.mean, found.stderr))
    assert (found.seeds, found.draws, found.images, found.unknown) == (4, 5, 6, ())


def test_factors_of_one_level_are_told_and_left_out() -> None:
    y = noisy(np.random.default_rng(0), 3, 5, 40)
    images = crossed(y[:1, :1])
    assert images.unknown == ("seeds", "draws")
    assert np.isnan([images.sd_seeds, images.sd_draws]).all()
    assert images.stderr == pytest.approx(y[0, 0].std(ddof=1) / 40**0.5)
    assert images.df == pytest.approx(39, rel=1e-6)
    alone = crossed(y[:, :1, :1])  # one value a seed: the t test of the seeds
    assert alone.unknown == ("draws", "images")
    test = stats.ttest_1samp(y[:, 0, 0], 0)
    assert (alone.p, alone.df) == pytest.approx((test.pvalue, 2))
    nothing = crossed([[[1.5]]])
    assert nothing.unknown == ("seeds", "draws", "images")
    assert (nothing.low, nothing.high, nothing.p) == (-np.inf, np.inf, 1)


def test_images_are_drawn_class_by_class() -> None:
    labels = np.repeat([0, 1], 50)
    y = np.where(labels == 0, 0.9, 0.1) + 0.01 * np.random.default_rng(0).standard_normal((1, 1, 100))
    assert crossed(y, None, labels).stderr < 0.002 < 0.03 < crossed(y).stderr
    shuffled = np.random.default_rng(1).permutation(100)
    assert crossed(y[..., shuffled], None, labels[shuffled]).stderr == pytest.approx(crossed(y, None, labels).stderr)


def test_classes_of_one_image_are_one_class() -> None:
    y = np.random.default_rng(0).standard_normal((3, 2, 6))
    together, apart = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 5, 6, 7])
    assert crossed(y, None, apart) == crossed(y, None, together)
    lone, largest = np.array([0, 0, 0, 0, 1, 0]), np.zeros(6)  # one such class joins the largest
    assert crossed(y, None, lone) == crossed(y, None, largest)


def test_what_never_varies_has_an_interval_all_the_same() -> None:
    right = crossed(np.ones((3, 5, 100)))
    assert (right.mean, right.stderr, right.high) == (1, 0, 1)
    assert right.low == pytest.approx(wilson(1, 100)[0])
    classes = crossed(np.broadcast_to(np.repeat([1.0, 0.0], 50), (3, 5, 100)), None, np.repeat([0, 1], 50))
    assert (classes.low, classes.high) == pytest.approx(wilson(0.5, 100))
    wrong = crossed(np.zeros((3, 5, 100)))
    assert (wrong.low, wrong.high, wrong.p) == (0, wilson(0, 100)[1], 1)
    same = crossed(np.zeros((3, 5, 100)), difference=True)
    most = wilson(0, 100)[1]
    assert (same.low, same.high, same.p) == pytest.approx((-most, most, 1))
    worse = crossed(-np.ones((3, 5, 100)), difference=True)
    assert worse.mean == -1 < worse.high < -0.9
    assert worse.p < 1e-6
    third = crossed(np.full((2, 2, 7), 1 / 3), difference=True)  # not a number of float64
    assert third.low < third.stderr == 0 < third.high
    beyond = crossed(np.full((3, 5, 9), 2.5))
    assert (beyond.mean, beyond.low, beyond.high, beyond.p) == (2.5, -np.inf, np.inf, 1)


def test_an_interval_of_shares_stays_inside() -> None:
    y = np.ones((3, 5, 20))
    y[0, :, 0] = 0
    assert crossed(y).high == 1 < crossed(y, difference=True).high


@pytest.mark.parametrize(
    ("values", "weights", "labels", "told"),
    [
        (np.ones((3, 4)), None, None, "seeds, draws, images"),
        (np.ones((3, 0, 4)), None, None, "one of each"),
        (np.full((1, 1, 2), np.nan), None, None, "not finite"),
        (np.ones((1, 1, 2)), [1, 1], None, "sum to 2"),
        (np.ones((1, 1, 2)), [2, -1], None, "at least 0"),
        (np.ones((1, 1, 2)), [1], None, "one weight"),
        (np.ones((1, 1, 2)), None, [1], "one label"),
    ],
)
def test_bad_arrays_are_refused(values, weights, labels, told) -> None:
    with pytest.raises(PydtError, match=told):
        crossed(values, weights, labels)


CASES = {  # seeds, draws, images, mean, then SD of seeds, draws, seeds x draws, images, seeds x images, draws x images
    "1 shot: seeds 1, draws 3 points": (3, 5, 300, -0.2, 0.025, 0.075, 0.02, 0.5, 0.3, 0.4),
    "full data: seeds 1, draws 0.3 points": (3, 5, 300, 0.8, 0.035, 0.01, 0.01, 0.7, 0.3, 0.2),
    "seeds do not differ": (3, 5, 300, -0.2, 0.0, 0.075, 0.0, 0.5, 0.0, 0.4),
    "draws do not differ": (3, 5, 300, 0.5, 0.03, 0.0, 0.0, 0.7, 0.3, 0.0),
    "neither differ": (3, 5, 300, 0.5, 0.0, 0.0, 0.0, 0.7, 0.2, 0.2),
    "one draw, the whole pool": (3, 1, 300, 0.8, 0.035, 0.0, 0.0, 0.7, 0.3, 0.0),
    "2,000 images": (3, 5, 2000, 0.8, 0.035, 0.01, 0.01, 0.7, 0.3, 0.2),
}
CLASSES = 10


def accuracies(rng, repeats, seeds, draws, images, mean, *sd):
    """Correct or not (repeats, seeds, draws, images), from a probit model in which class means differ, the labels, and
    the true mean."""
    labels = np.arange(images) % CLASSES
    means = mean + np.linspace(-0.5, 0.5, CLASSES)
    shapes = [(seeds, 1, 1), (1, draws, 1), (seeds, draws, 1), (1, 1, images), (seeds, 1, images), (1, draws, images)]
    latent = rng.standard_normal((repeats, seeds, draws, images), np.float32)
    latent *= (1 - sum(one**2 for one in sd[3:])) ** 0.5
    for shape, one in zip(shapes, sd, strict=True):
        latent += np.float32(one) * rng.standard_normal((repeats, *shape), np.float32)
    truth = special.ndtr(means / (1 + sum(one**2 for one in sd[:3])) ** 0.5).mean()
    return latent > -means[labels], labels, float(truth)


def held(found: list[Crossed], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def test_no_part_that_is_known_is_taken_off() -> None:
    """Where mean squares cross by chance: at least the images' part, with that of one other factor."""
    rng, below = np.random.default_rng(3), 0
    for _ in range(60):
        y = rng.standard_normal((3, 4, 6)) + 0.2 * rng.standard_normal((3, 4, 1))
        found, v = crossed(y), loops(y)
        seeds, draws = max(v["s"] - v["si"], 0), max(v["d"] - v["di"], 0)
        least = v["i"] + max(seeds, draws)
        plain = v["i"] + seeds + draws - max(v["sd"] - v["sdi"], 0)
        assert found.stderr**2 == pytest.approx(max(plain, least))
        assert found.df == pytest.approx(freedom(v, max(plain, least), 2, 3, 5))
        below += plain < least
    assert 5 < below < 55


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_of_accuracies_cover(case: str) -> None:
    rng, found = np.random.default_rng([7, len(case)]), []
    for _ in range(20):
        values, labels, truth = accuracies(rng, 100, *CASES[case])
        found += [crossed(one, None, labels) for one in values]
    share = held(found, truth)
    print(f"{case}: {100 * share:.1f} %")
    assert 0.93 <= share <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_of_paired_differences_cover(case: str) -> None:
    """Draws and images are those of both arms and cancel; seeds are their own. Too wide where they do not differ."""
    rng, found = np.random.default_rng([8, len(case)]), []
    seeds, draws, images, mean, *sd = CASES[case]
    for _ in range(20):
        values, labels, _ = accuracies(rng, 100, 2 * seeds, draws, images, mean, *sd)
        first, second = values[:, :seeds].astype(float), values[:, seeds:].astype(float)
        found += [crossed(one - other, None, labels, difference=True) for one, other in zip(first, second, strict=True)]
    share = held(found, 0.0)
    print(f"{case}: {100 * share:.1f} %")
    assert 0.925 <= share <= (0.98 if sd[0] else 0.995)
    assert np.mean([one.p < 0.05 for one in found]) == pytest.approx(1 - share)
