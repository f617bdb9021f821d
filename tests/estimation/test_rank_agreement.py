"""Agreement of two orders against scipy's tau, and what noise lets one expect of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from test_arm_spread import CLASSES, arms

from pydt import PydtError
from pydt.estimation import rank_agreement
from pydt.estimation.order_agreement import kendall


def flat(means, noise=0.0, seed=0, shape=(3, 4, 20)):
    """Values (arms, seeds, draws, images) about these means, with noise of every value."""
    rng = np.random.default_rng(seed)
    return np.reshape(means, (-1, 1, 1, 1)) + noise * rng.standard_normal((len(means), *shape))


def test_tau_is_that_of_scipy_with_ties() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (2, 200, 6)).astype(float)
    expected = [stats.kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(kendall(first, second), np.nan_to_num(expected), atol=1e-12)


def test_clear_orders_agree_and_a_reversed_one_is_told() -> None:
    means = np.array([0.1, 0.3, 0.5, 0.7])
    same = rank_agreement(flat(means, 0.1), flat(means**2, 0.1, 1))
    assert (same.kendall, same.expected, same.low, same.p, same.detectable) == (1, 1, 1, 1, True)
    reversed_ = rank_agreement(flat(means, 0.1), flat(-means, 0.1, 1))
    assert reversed_.kendall == -1
    assert reversed_.p < 0.001
    one = rank_agreement(flat(means, 0.1), flat(means[[1, 0, 2, 3]], 0.1, 1))
    assert one.kendall == pytest.approx(2 / 3)
    assert one.p < 0.05


def test_what_noise_alone_orders_is_expected_not_to_agree() -> None:
    found = rank_agreement(flat(np.zeros(5), 1.0), flat(np.zeros(5), 1.0, 1))
    assert abs(found.expected) < 0.5
    assert (found.detectable, found.p > 0.05) == (False, True)
    nothing = rank_agreement(np.ones((3, 2, 2, 9)), np.ones((3, 2, 2, 9)))
    assert (nothing.kendall, nothing.detectable) == (0, False)


def test_shared_noise_makes_orders_agree() -> None:
    rng = np.random.default_rng(4)
    noise = rng.standard_normal((4, 3, 1, 1)) * 0.2
    means = np.linspace(0, 0.3, 4)
    first, second = flat(means, 0.05) + noise, flat(means, 0.05, 1) + noise
    apart, together = (rank_agreement(first, second, shared=shared) for shared in ((), ("seeds",)))
    assert together.kendall == apart.kendall
    assert together.expected > apart.expected + 0.1
    first, second = flat(means, 0.3), flat(means, 0.3, shape=(3, 2, 20), seed=5)
    assert rank_agreement(first, second, shared=("seeds", "images")).arms == 4  # other draws


def test_the_simulation_is_that_of_its_seed() -> None:
    first, second = flat(np.linspace(0, 0.3, 4), 1.0), flat(np.linspace(0, 0.3, 4), 1.0, 1)
    assert rank_agreement(first, second) == rank_agreement(first, second)
    assert rank_agreement(first, second) != rank_agreement(first, second, seed=1)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(PydtError, match="same arms"):
        rank_agreement(np.ones((3, 2, 2, 9)), np.ones((2, 2, 2, 9)))
    with pytest.raises(PydtError, match="'draws' is shared"):
        rank_agreement(np.ones((3, 2, 2, 9)), np.ones((3, 2, 1, 9)), shared=("draws",))
    with pytest.raises(PydtError, match="'models' is shared"):
        rank_agreement(np.ones((3, 2, 2, 9)), np.ones((3, 2, 2, 9)), shared=("models",))


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 0.04, 0.12])
def test_equal_orders_are_told_apart_at_most_as_often_as_told(gap: float) -> None:
    rng, p, expected, seen = np.random.default_rng(3), [], [], []
    shift = np.tile(gap * np.arange(4.0), (50, 1))
    for _ in range(12):
        for first, second in zip(arms(rng, 50, shift), arms(rng, 50, 0.5 * shift, own_draws=0.01), strict=True):
            found = rank_agreement(first, second, None, CLASSES, None, CLASSES)
            p.append(found.p)
            expected.append(found.expected)
            seen.append(found.kendall)
    rate = float(np.mean(np.array(p) < 0.05))
    print(f"gap {gap}: {100 * rate:.1f} % told apart, tau {np.mean(seen):.2f}, expected {np.mean(expected):.2f}")
    assert rate <= 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5
    assert np.mean(expected) == pytest.approx(np.mean(seen), abs=0.35)
