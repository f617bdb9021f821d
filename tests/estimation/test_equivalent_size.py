"""Equivalent sizes: intervals against a scan of `crossed` over many sizes, and their coverage in simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from pydt import PydtError
from pydt.estimation import crossed, equivalent_size

SIZES = (500, 1500, 4500)
LABELS = np.arange(200) % 10


def scanned(reference, curve, sizes):
    """All sizes of a fine scan at which the difference to the curve is not significant, and the first crossing."""
    inside, crossing = [], math.inf
    for j in range(len(sizes) - 1):
        for t in np.linspace(0, 1, 4001 if len(reference) < 3 else 401):
            x = math.exp((1 - t) * math.log(sizes[j]) + t * math.log(sizes[j + 1]))
            gap = crossed(reference - (1 - t) * curve[j] - t * curve[j + 1], None, LABELS, difference=True)
            if gap.low <= 0 <= gap.high:
                inside.append(x)
            if gap.mean <= 0:
                crossing = min(crossing, x)
    return inside, crossing


def study(rng, means, repeats=1, images=200, seeds=3, draws=5, seed_sd=0.035):
    """Correct or not (repeats, arms, seeds, draws, images) of arms with latent means `means`; draws and images are
    common to the arms, seeds are their own."""
    n = lambda *of: rng.standard_normal((repeats, *of), np.float32)  # noqa: E731
    latent = n(len(means), seeds, draws, images) * np.float32(0.7) + 0.6 * n(1, 1, 1, images)
    latent += 0.3 * n(1, 1, draws, images) + 0.24 * n(len(means), seeds, 1, images)
    latent += 0.075 * n(1, 1, draws, 1) + seed_sd * n(len(means), seeds, 1, 1)
    by_class = np.linspace(-0.5, 0.5, 10)[np.arange(images) % 10]
    return (latent > -(by_class + np.reshape(np.float32(means), (-1, 1, 1, 1)))).astype(float)


def test_the_interval_is_that_of_a_scan() -> None:
    rng, open_above = np.random.default_rng(3), 0
    for _ in range(4):
        y = study(rng, [0.0, -0.4, 0.0, 0.4])[0]
        found = equivalent_size(y[0], 1000, y[1:], SIZES, None, LABELS)
        inside, crossing = scanned(y[0], y[1:], SIZES)
        assert found.times == pytest.approx(crossing / 1000, rel=0.01)
        assert found.low == pytest.approx(min(inside) / 1000, rel=0.01)
        if max(inside) == pytest.approx(4500):
            assert found.high == math.inf
            assert found.beyond
            open_above += 1
        else:
            assert found.high == pytest.approx(max(inside) / 1000, rel=0.01)
            assert not found.beyond
        assert found.reached
        assert not found.at_smallest
    assert open_above < 4


def test_what_is_not_reached_has_a_lower_bound() -> None:
    y = study(np.random.default_rng(0), [0.8, -0.4, -0.3, -0.2])[0]
    found = equivalent_size(y[0], 900, y[1:], SIZES, None, LABELS)
    assert (found.times, found.low, found.high) == (math.inf, pytest.approx(5), math.inf)
    assert (found.reached, found.beyond, found.at_smallest) == (False, True, False)


def test_what_is_there_at_the_smallest_size_is_open_below() -> None:
    y = study(np.random.default_rng(0), [-0.8, 0.1, 0.4, 0.6])[0]
    found = equivalent_size(y[0], 1000, y[1:], SIZES, None, LABELS)
    assert (found.times, found.low, found.high) == (pytest.approx(0.5), 0, pytest.approx(0.5))
    assert (found.reached, found.beyond, found.at_smallest) == (True, False, True)


def test_a_curve_that_does_not_differ_excludes_nothing() -> None:
    y = study(np.random.default_rng(1), [0.0, 0.0, 0.0, 0.0])[0]
    found = equivalent_size(y[0], 1000, y[1:], SIZES, None, LABELS)
    assert (found.low, found.high, found.at_smallest, found.reached) == (0, math.inf, True, True)
    same = equivalent_size(y[0], 1000, np.stack([y[0]] * 3), SIZES)  # not a single image differs
    assert (same.times, same.low, same.high) == (pytest.approx(0.5), 0, math.inf)


def test_a_curve_that_rises_and_falls_is_matched_where_it_first_reaches() -> None:
    y = study(np.random.default_rng(2), [0.0, -0.9, 0.9, -0.9], images=1000)[0]
    found = equivalent_size(y[0], 1500, y[1:], SIZES)
    assert found.times == pytest.approx(3**-0.5, rel=0.1)  # half-way between a third and 1
    assert 1 / 3 < found.low < found.times
    assert (found.high, found.reached, found.beyond) == (math.inf, True, True)


def test_narrow_intervals_between_the_points_of_the_grid_are_found() -> None:
    rng = np.random.default_rng(0)
    noise = 1e-6 * rng.standard_normal((4, 3, 5, 50))
    y = noise + np.array([0.0, -1.0, 1.7, 2.0])[:, None, None, None]
    found = equivalent_size(y[0], 1500, y[1:], SIZES)
    assert found.times == pytest.approx(3 ** (1 / 2.7 - 1), rel=1e-4)
    assert found.times * 0.999 < found.low < found.times < found.high < found.times * 1.001


def test_one_size_alone_says_whether_it_suffices() -> None:
    y = study(np.random.default_rng(0), [0.0, 0.9])[0]
    assert equivalent_size(y[0], 100, y[1:], [300]).high == pytest.approx(3)
    below = equivalent_size(y[1], 100, y[:1], [300])
    assert (below.low, below.high, below.reached) == (pytest.approx(3), math.inf, False)


@pytest.mark.parametrize("sizes", [(500, 1500), (500, 500, 1500), (1500, 500, 4500), (0, 500, 1500)])
def test_sizes_that_do_not_fit_are_refused(sizes) -> None:
    with pytest.raises(PydtError, match="rising"):
        equivalent_size(np.ones((2, 2, 5)), 10, np.ones((3, 2, 2, 5)), sizes)
    with pytest.raises(PydtError, match="same seeds"):
        equivalent_size(np.ones((2, 2, 5)), 10, np.ones((1, 1, 2, 5)), [500])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["between", "near the end", "few seeds differ", "flat"])
def test_intervals_cover(case: str) -> None:
    means, seed_sd = {
        "between": ([0.0, -0.3, 0.05, 0.4], 0.035),
        "near the end": ([0.0, -0.4, -0.2, 0.02], 0.035),
        "few seeds differ": ([0.0, -0.3, 0.05, 0.4], 0.07),
        "flat": ([0.0, -0.1, 0.03, 0.1], 0.035),
    }[case]
    by_class = np.linspace(-0.5, 0.5, 10)
    total = (0.7**2 + 0.6**2 + 0.3**2 + 0.24**2 + 0.075**2 + seed_sd**2) ** 0.5
    true = special.ndtr((by_class + np.array(means)[:, None]) / total).mean(1)
    j = 1 if true[2] < true[0] else 0
    t = (true[0] - true[1 + j]) / (true[2 + j] - true[1 + j])
    truth = math.exp((1 - t) * math.log(SIZES[j]) + t * math.log(SIZES[j + 1])) / 1000
    rng, found = np.random.default_rng([13, len(case)]), []
    for _ in range(40):
        for y in study(rng, means, 50, seed_sd=seed_sd):
            found.append(equivalent_size(y[0], 1000, y[1:], SIZES, None, LABELS))
    share = float(np.mean([one.low <= truth <= one.high for one in found]))
    closed = float(np.mean([one.low > 0 and one.high < math.inf for one in found]))
    print(f"{case}: {100 * share:.1f} %, closed {100 * closed:.0f} %")
    assert 0.93 <= share <= (0.99 if case == "flat" else 0.98)  # an interval that is open at both ends holds all
