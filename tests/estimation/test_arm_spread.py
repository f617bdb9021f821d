"""The spread between arms, against explicit loops over pairs of arms, and its error rates in simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from pydt import PydtError
from pydt.estimation import crossed, spread
from pydt.estimation.arm_spread import common_error, profile
from pydt.estimation.crossed_mean import images_of, mean_squares

SHAPE = (4, 3, 5, 300)
CLASSES = np.arange(300) % 10


def arms(rng, repeats, shift, seeds=0.035, draws=0.075, own_draws=0.03, shape=SHAPE):
    """Correct or not (repeats, arms, seeds, draws, images): arms with latent means `shift` (repeats, arms) whose seeds,
    a part of the draws and of the images are their own; `seeds` is a number, or one for each arm."""
    a, s, d, images = shape
    n = lambda *of: rng.standard_normal((repeats, *of), np.float32)  # noqa: E731
    latent = n(a, s, d, images) * np.float32(0.7)
    latent += 0.5 * n(1, 1, 1, images) + 0.3 * n(a, 1, 1, images) + 0.25 * n(1, 1, d, images) + 0.3 * n(a, s, 1, images)
    latent += np.reshape(np.float32(seeds), (-1, 1, 1, 1)) * n(a, s, 1, 1) + draws * n(1, 1, d, 1)
    latent += own_draws * n(a, 1, d, 1)
    means = np.linspace(-0.5, 0.5, 10)[np.arange(images) % 10] - 0.2 + shift[..., None, None, None]
    return latent > -means


def truth(shift, seeds=0.035, draws=0.075, own_draws=0.03):
    """True means of arms with latent means `shift` of any shape."""
    rest = 0.7**2 + 0.5**2 + 2 * 0.3**2 + 0.25**2 + seeds**2 + draws**2 + own_draws**2
    return special.ndtr((np.linspace(-0.5, 0.5, 10) - 0.2 + np.asarray(shift)[..., None]) / rest**0.5).mean(-1)


def test_the_error_is_the_mean_of_that_of_all_pairs() -> None:
    """A mean square of the arms about their mean is half of the mean of those of all differences of two arms."""
    rng = np.random.default_rng(0)
    y, weights, labels = rng.standard_normal((4, 3, 5, 8)), rng.dirichlet(np.ones(8)), np.arange(8) % 2
    images = images_of(8, weights, labels, "here")
    means, found = common_error(y, images)
    np.testing.assert_allclose(means, [crossed(one, weights, labels).mean for one in y])
    assert (found.df["s"], found.df["d"], found.df["i"]) == (6, 12, 18)
    for name, square in found.squares.items():
        pairs = [mean_squares(y[a] - y[b], images).squares[name] for a in range(4) for b in range(a)]
        assert square == pytest.approx(np.mean(pairs) / 2)


def test_the_profile_holds_its_definition() -> None:
    between, variance, df = 3e-3, 2e-4, 7.0
    tau, low, high, p = profile(between, variance, 3, df)
    assert tau == pytest.approx((between - variance) ** 0.5)
    assert p == pytest.approx(stats.f.sf(between / variance, 3, df))
    for bound, chance in ((low, 0.975), (high, 0.025)):
        whole = variance + bound**2
        assert stats.f.cdf(between / whole, 3, df * (whole / variance) ** 2) == pytest.approx(chance)
    assert low < tau < high
    assert profile(variance / 2, variance, 3, df)[:2] == (0, 0)
    assert profile(variance / 100, variance, 3, df)[2] == 0  # less spread than noise nearly always gives
    exact = profile(between, 1e-7, 3, df)[1:3]  # without noise: chi-square
    assert exact == pytest.approx([(3 * between / stats.chi2.ppf(q, 3)) ** 0.5 for q in (0.975, 0.025)], rel=1e-3)


def test_what_is_common_to_all_arms_cancels() -> None:
    rng = np.random.default_rng(1)
    y = rng.standard_normal((3, 3, 4, 20))
    found = spread(y)
    moved = spread(y + 5 * rng.standard_normal((1, 3, 4, 20)))
    for name in ("tau", "low", "high", "df", "p", "stderr", "range_high"):
        assert getattr(moved, name) == pytest.approx(getattr(found, name))
    means = y.mean((1, 2, 3))
    assert (found.best, found.worst, found.range) == (means.argmax(), means.argmin(), pytest.approx(np.ptp(means)))
    assert found.range_of_noise == pytest.approx(1.6926 * found.stderr, rel=1e-3)  # 3 / sqrt(pi), of 3 normal numbers
    assert found.range_high > found.range_of_noise


def test_two_arms_are_the_t_test_of_their_difference() -> None:
    y = arms(np.random.default_rng(2), 1, np.array([[0.0, 0.3]]), shape=(2, 3, 5, 100))[0].astype(float)
    found, one = spread(y), crossed(y[1] - y[0], difference=True)
    assert (found.p, found.df, 2**0.5 * found.stderr) == pytest.approx((one.p, one.df, one.stderr))
    assert found.range == pytest.approx(abs(one.mean))
    assert found.range_high == pytest.approx(one.high - one.mean)


def test_arms_that_never_vary_still_have_an_interval() -> None:
    same = spread(np.ones((3, 2, 2, 50)))
    assert (same.tau, same.low, same.range, same.p) == (0, 0, 0, 1)
    assert same.range_high > 0.01
    apart = spread(np.array([0.0, 1.0])[:, None, None, None] * np.ones((2, 3, 5, 50)))
    assert apart.p < 1e-6
    assert 0 < apart.low < apart.tau <= apart.high


@pytest.mark.parametrize("values", [np.ones((1, 2, 2, 3)), np.ones((2, 2, 3)), np.full((2, 1, 1, 3), np.inf)])
def test_bad_arrays_are_refused(values) -> None:
    with pytest.raises(PydtError):
        spread(values)


def judged(rng, repeats, shift_sd, **more):
    """profile() of many simulated studies: tau, low, high, p, each (repeats,)."""
    images, found = images_of(SHAPE[-1], None, CLASSES, "here"), []
    for _ in range(repeats // 50):
        for one in arms(rng, 50, shift_sd * rng.standard_normal((50, 4)), **more).astype(float):
            means, error = common_error(one, images)
            found.append(
                profile(float(means.var(ddof=1)), *map(float, error.variance()[:1]), 3, float(error.variance()[1]))
            )
    return np.array(found).T


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [0.035, 0.0, 0.1, (0.02, 0.02, 0.02, 0.06)], ids=str)
def test_equal_arms_are_found_to_differ_at_most_as_often_as_told(seeds) -> None:
    p = judged(np.random.default_rng(11), 2000, 0.0, seeds=seeds)[3]
    rate = float(np.mean(p < 0.05))
    print(f"seeds {seeds}: {100 * rate:.1f} %")
    assert rate <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("shift_sd", [0.04, 0.08, 0.2])
def test_intervals_of_the_spread_cover(shift_sd: float) -> None:
    rng = np.random.default_rng(12)
    planted = float(truth(shift_sd * rng.standard_normal(200_000)).std())
    _, low, high, p = judged(rng, 2000, shift_sd)
    share = float(np.mean((low <= planted) & (planted <= high)))
    print(f"tau {100 * planted:.1f} points: {100 * share:.1f} %, found {100 * np.mean(p < 0.05):.0f} %")
    assert 0.93 <= share <= 0.98
    assert np.mean(p < 0.05) > {0.04: 0.1, 0.08: 0.4, 0.2: 0.9}[shift_sd]
