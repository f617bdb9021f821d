"""The best number of groups to leave out: choice and error against loops, and what it pays for having been chosen."""

from __future__ import annotations

import numpy as np
import pytest

from pydt.analyses.best_removal import best_size, halves_of, weights_of
from pydt.analyses.counterfactual import contrast
from pydt.analyses.retraining import Arm
from pydt.store import Row


def arm(dropped: int, correct: np.ndarray, weights: np.ndarray) -> Arm:
    n, kind = len(correct), "drop bottom" if dropped else "full"
    return Arm(kind, dropped, (Row(np.ones(9, bool), 0),) * n, ((),) * n, correct @ weights, correct)


def brute_force(arms: list[Arm], weights: np.ndarray, labels: np.ndarray) -> tuple[list[int], list[float]]:
    """Chosen numbers and gains of both directions, by loops over images and runs."""
    second = halves_of(labels)
    chosen, gains = [], []
    for side in (False, True):
        means: dict[bool, list[float]] = {}
        for half in (False, True):
            means[half] = []
            for one in arms:
                total = 0.0
                for label in np.unique(labels):
                    mine = [j for j in range(len(labels)) if labels[j] == label and second[j] == half]
                    runs = range(int(half), len(one.correct), 2)
                    share = sum(weights[j] for j in range(len(labels)) if labels[j] == label)
                    right = sum(weights[j] * one.correct[r, j] for j in mine for r in runs) / len(runs)
                    total += share * right / sum(weights[j] for j in mine)
                means[half].append(total)
        k = max(range(len(arms)), key=lambda i: means[side][i])
        chosen.append(arms[k].dropped)
        gains.append(means[not side][k] - means[not side][0])
    return chosen, gains


def test_the_nested_choice_is_that_of_loops() -> None:
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], [7, 20, 31])
    weights = np.array([1 / 3 / (7, 20, 31)[label] for label in labels])
    for _ in range(20):
        arms = [arm(k, random.random((5 + k % 2, 58)).round(2), weights) for k in (0, 3, 5, 8)]
        best = best_size("epochs", arms, weights, labels)
        assert best is not None
        chosen, gains = brute_force(arms, weights, labels)
        assert list(best.chosen) == chosen
        assert best.gain == pytest.approx(np.mean(gains))
        assert best.claimed == pytest.approx(max(one.mean for one in arms) - arms[0].mean)
        assert best.size == max(arms, key=lambda one: one.mean).dropped


def test_the_error_of_the_nested_choice_is_that_of_both_directions() -> None:
    """Each direction's contrast, on its images and runs alone, and the formula at the top of best_removal.py."""
    random = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [8, 20, 30])
    weights = np.repeat([1 / 24, 1 / 60, 1 / 90], [8, 20, 30])
    second, both = halves_of(labels), set()
    for _ in range(10):
        arms = [arm(k, random.random((6, 58)) + random.normal(0, 0.03), weights) for k in (0, 3, 5)]
        best = best_size("steps", arms, weights, labels)
        assert best is not None
        errors, reaches = [0.0, 0.0], [0.0, 0.0]
        for i, k in enumerate(best.chosen):
            if k:
                images = second != bool(i)
                share = np.zeros(images.sum())
                for label in range(3):
                    share[labels[images] == label] = 1 / 3 / (labels[images] == label).sum()
                one, full = (
                    arm(of.dropped, of.correct[1 - i :: 2][:, images], share)
                    for of in (arms[[0, 3, 5].index(k)], arms[0])
                )
                found = contrast(one, full, share, labels[images])
                errors[i], reaches[i] = found.stderr, (found.high - found.low) / 2
        both.add(all(best.chosen))
        stderr, reach = (np.sqrt(a**2 + b**2 + 2 * 0.36 * a * b) / 2 for a, b in (errors, reaches))
        assert best.stderr == pytest.approx(stderr)
        assert (best.low, best.high) == pytest.approx((best.gain - reach, best.gain + reach))
        assert (best.length, best.runs, best.images) == ("steps", 3, min(second.sum(), (~second).sum()))
    assert both == {True, False}


def test_the_nested_choice_needs_four_runs_and_images_to_halve() -> None:
    random = np.random.default_rng(4)
    weights = np.full(40, 1 / 40)
    four, three = ([arm(k, random.random((n, 40)), weights) for k in (0, 2)] for n in (4, 3))
    for arms, labels, enough in (
        (four, np.arange(40) % 2, True),
        ([four[0], three[1]], np.arange(40) % 2, False),
        (four, 2 * np.arange(40), False),  # each image a class of its own, all in one half
    ):
        assert (best_size("epochs", arms, weights, labels) is not None) == enough


def test_halves_split_every_class_and_keep_its_share() -> None:
    labels = np.repeat([0, 1, 2, 3], [1, 2, 9, 30])
    weights = np.repeat([0.25, 0.125, 0.25 / 9, 0.25 / 30], [1, 2, 9, 30])
    second = halves_of(labels)
    for label in (1, 2, 3):
        assert abs(int(second[labels == label].sum()) - int((~second[labels == label]).sum())) <= 1
    own = weights_of(weights, labels, second)
    assert own.sum() == pytest.approx(1)
    for label in (1, 2, 3):
        assert own[labels[second] == label].sum() == pytest.approx(own[labels[second] == 3].sum())


@pytest.mark.parametrize("gains", [(0.0, 0.0, 0.0, 0.0), (0.01, 0.02, 0.02, 0.0), (-0.02, 0.03, -0.02, -0.04)])
def test_the_gain_pays_for_the_choice_and_the_naive_claim_does_not(gains: tuple[float, ...]) -> None:
    """Truth by size; images differ in what removal does to them, runs and cells are noise. Every trial draws all anew,
    and asks whether the interval holds the true gain of what was chosen."""
    random = np.random.default_rng(11)
    images, runs, trials = 120, 6, 250
    labels, weights = np.arange(images) % 3, np.full(images, 1 / images)
    true = {0: 0.0, **{k + 1: gain for k, gain in enumerate(gains)}}
    covered, nested, naive = 0, [], []
    for _ in range(trials):
        base = random.normal(0.6, 0.2, images)
        arms = []
        for k, gain in true.items():
            image = base + gain + (random.normal(0, 0.08, images) if k else 0)
            arms.append(
                arm(k, image + random.normal(0, 0.012, (runs, 1)) + random.normal(0, 0.2, (runs, images)), weights)
            )
        best = best_size("epochs", arms, weights, labels)
        assert best is not None
        expected = np.mean([true[k] for k in best.chosen])
        covered += best.low <= expected <= best.high
        nested.append(best.gain - expected)
        naive.append(best.claimed - true[best.size])
    assert covered / trials > 0.92, "0.95 less two standard errors"
    assert abs(np.mean(nested)) < 3 * np.std(nested) / trials**0.5, "unbiased"
    if not any(gains):
        assert np.mean(naive) > 0.005, "choosing and judging on the same data sees a gain where there is none"
