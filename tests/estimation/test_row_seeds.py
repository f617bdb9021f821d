"""Rows that stand for seeds: what one draw and image say is OLS, errors cover over trainings, draws and images."""

from __future__ import annotations

import numpy as np
import pytest
from pydt.errors import EstimateError

from pydt.design import bernoulli, foldover
from pydt.estimation import RowSeeds, crossed, crossed_apart, influences, rank_agreement

GROUPS, ROWS, DRAWS, IMAGES, CLASSES = 4, 64, 5, 120, 10
TRUTH = np.array([0.02, 0.0, 0.0, -0.02])
LABELS = np.arange(IMAGES) % CLASSES
CENTRED = np.eye(GROUPS) - 1 / GROUPS


def test_one_draw_and_image_is_ordinary_least_squares() -> None:
    random = np.random.default_rng(0)
    masks = np.asarray(bernoulli(GROUPS, 40, seed=1))
    y = random.normal(size=40) + masks @ TRUTH
    fit = influences(masks, y, "ols", clusters=np.arange(40), errors="auto")
    seeds = RowSeeds(masks)
    design = np.column_stack([np.ones(40), masks])
    coefficients, rest, *_ = np.linalg.lstsq(design, y, rcond=None)
    inverse = np.linalg.inv(design.T @ design)[1:, 1:]
    for weights in (*np.eye(GROUPS), CENTRED[1], np.array([1.0, -2, 0, 0.5])):
        x = seeds.of(y[:, None, None], weights)[:, 0, 0]
        assert len(x) == 40 - GROUPS
        assert x.mean() == pytest.approx(weights @ coefficients[1:], abs=1e-12)
        variance = weights @ inverse @ weights * rest[0] / (40 - GROUPS - 1)
        assert x.var(ddof=1) / len(x) == pytest.approx(variance, rel=1e-9)
    assert fit.unbiased == pytest.approx(coefficients[1:], abs=1e-6)


def test_the_same_sum_gives_the_same_values_and_linear_ones() -> None:
    random = np.random.default_rng(3)
    masks = np.asarray(foldover(GROUPS, 30, 2))
    y, z = random.normal(size=(2, 30, 2, 3))
    seeds, again = RowSeeds(masks), RowSeeds(masks)
    assert np.array_equal(seeds.of(y, CENTRED[0]), again.of(y, CENTRED[0]))
    both = seeds.of(2 * y - z, CENTRED[0])
    assert both == pytest.approx(2 * seeds.of(y, CENTRED[0]) - seeds.of(z, CENTRED[0]), abs=1e-12)
    few = seeds.of(y, CENTRED[0], 8)
    assert few.shape == (8, 2, 3)
    assert few.mean(0) == pytest.approx(both.mean(0) / 2 + seeds.of(z, CENTRED[0]).mean(0) / 2, abs=1e-12)


def test_errors_of_different_groups_do_not_look_alike() -> None:
    random = np.random.default_rng(4)
    masks = np.asarray(foldover(GROUPS, ROWS, 2))
    seeds = RowSeeds(masks)
    y = random.normal(size=(ROWS, 1, 1))
    alike = [
        np.corrcoef(*(seeds.of(y, one)[:, 0, 0] for one in np.eye(GROUPS)[[i, j]]))[0, 1]
        for i in range(3)
        for j in range(i)
    ]
    assert np.abs(alike).max() < 0.45


def rows(random: np.random.Generator, masks: np.ndarray) -> np.ndarray:
    """Right or wrong, float (rows, draws, images): noise of trainings; groups help more on some draws and images."""
    share = 0.6 + (masks @ TRUTH)[:, None, None] + 0.02 * random.normal(size=(len(masks), 1, 1))
    share = share + 0.03 * random.normal(size=(len(masks), DRAWS, 1)) + 0.05 * random.normal(size=(DRAWS, 1))
    share = share + (masks @ (0.02 * random.normal(size=(GROUPS, DRAWS))))[:, :, None]
    share = (
        share + (masks @ (0.1 * random.normal(size=(GROUPS, IMAGES))))[:, None, :] + 0.25 * random.normal(size=IMAGES)
    )
    return (random.random(share.shape) < share).astype(np.float64)


def test_intervals_cover_over_trainings_draws_and_images() -> None:
    random, hits, narrow = np.random.default_rng(5), [], []
    for repeat in range(150):
        masks = np.asarray(foldover(GROUPS, ROWS, repeat))
        y, seeds = rows(random, masks), RowSeeds(masks)
        for weights in CENTRED:
            one = crossed(seeds.of(y, weights), None, LABELS, difference=True)
            hits.append(one.low <= weights @ TRUTH <= one.high)
            x = seeds.of(y.mean((1, 2))[:, None, None], weights)[:, 0, 0]
            narrow.append(abs(x.mean() - weights @ TRUTH) <= 2 * x.std(ddof=1) / len(x) ** 0.5)
    assert 0.92 <= np.mean(hits) <= 0.985
    assert np.mean(narrow) < 0.88, "trainings alone are too little: the test above would tell"


def test_differences_of_other_seeds_are_those_of_crossed_where_seeds_are_as_many() -> None:
    random = np.random.default_rng(6)
    y = random.normal(size=(3, DRAWS, IMAGES)) + random.normal(size=(3, 1, 1))
    z = random.normal(size=(3, DRAWS, IMAGES)) + random.normal(size=(3, 1, 1))
    mine, paired = crossed_apart(y, z, None, LABELS), crossed(y - z, None, LABELS, difference=True)
    assert mine.mean == pytest.approx(paired.mean)
    assert mine.df > paired.df
    turned = crossed_apart(z, y, None, LABELS)
    assert (turned.low, turned.high, turned.p) == pytest.approx((-mine.high, -mine.low, mine.p))
    with pytest.raises(EstimateError, match="two seeds or more"):
        crossed_apart(y, z[:1])
    with pytest.raises(EstimateError, match="equal images"):
        crossed_apart(y, z[..., 1:])


def test_differences_of_other_seeds_cover() -> None:
    random, hits = np.random.default_rng(7), []
    for _ in range(600):
        common = 0.05 * random.normal(size=(DRAWS, 1)) + 0.25 * random.normal(size=IMAGES)
        sides = []
        for seeds, noise in ((12, 0.05), (3, 0.04)):
            share = (
                0.6 + common + noise * random.normal(size=(seeds, 1, 1)) + 0.03 * random.normal(size=(seeds, DRAWS, 1))
            )
            share = share + 0.02 * random.normal(size=(DRAWS, 1)) + 0.1 * random.normal(size=IMAGES)
            sides.append((random.random(share.shape) < share).astype(np.float64))
        one = crossed_apart(*sides, None, LABELS)
        hits.append(one.low <= 0 <= one.high)
    assert 0.925 <= np.mean(hits) <= 0.985


def test_orders_of_rows_and_arms_are_compared() -> None:
    random = np.random.default_rng(8)
    masks = np.asarray(foldover(GROUPS, ROWS, 1))
    strong = rows(random, masks) + 3 * (masks @ TRUTH)[:, None, None]
    seeds = RowSeeds(masks)
    mixed = np.stack([seeds.of(strong, one, 16) for one in np.eye(GROUPS)])
    alone = TRUTH[:, None, None, None] * 4 + 0.01 * random.normal(size=(GROUPS, 3, DRAWS, IMAGES))
    found = rank_agreement(mixed, alone, None, LABELS, shared=("draws", "images"))
    assert found.kendall > 0.6
    assert found.p > 0.05


@pytest.mark.parametrize("masks", [np.eye(4), np.ones((20, 2)), np.tile([[1, 0], [0, 1]], (10, 1))])
def test_masks_that_tell_nothing_are_refused(masks: np.ndarray) -> None:
    with pytest.raises(EstimateError, match="train more rows"):
        RowSeeds(masks)
