"""The linear datamodelling score: what it is, how sure it is, how high it can be, and what it is without influence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pydt import Design, design, influences, lds, repeat_rows
from pydt.base import EstimateError
from pydt.estimation import Score


def planted(made: Design | np.ndarray, targets: int, r2: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs whose linear part explains r2 of the variance, and the effects."""
    masks = np.asarray(made).astype(float)
    rng = np.random.default_rng([seed, masks.shape[1]])
    effects = rng.standard_normal((masks.shape[1], targets))
    signal = (masks - masks.mean(0)) @ effects
    effects *= np.sqrt(r2 / (1 - r2)) / signal.std(0)
    rng = np.random.default_rng([seed, len(masks), 1])
    return masks @ effects + rng.standard_normal((len(masks), targets)), effects


@settings(deadline=None)  # a loaded machine
@given(st.integers(5, 40), st.integers(1, 5), st.integers(0, 2**31), st.booleans())
def test_the_score_is_spearmans_correlation(models: int, targets: int, seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    made = design.bernoulli(6, models, seed=seed)
    values = rng.standard_normal((6, targets))
    outputs = rng.integers(0, 3, (models, targets)).astype(float) if tied else rng.standard_normal((models, targets))
    expected = np.full(targets, np.nan)
    for j in range(targets):
        guess = np.round(np.asarray(made) @ values[:, j], 12)
        if np.ptp(outputs[:, j]) > 0:
            expected[j] = stats.spearmanr(guess, outputs[:, j]).statistic if np.ptp(guess) > 0 else 0.0
    try:
        found = lds(made, outputs, values, permutations=3)
    except EstimateError:
        assert np.isnan(expected).all() or len(np.unique(made.clusters)) < 2
        return
    np.testing.assert_allclose(found.per_target, expected, atol=1e-9)
    assert found.lds == pytest.approx(np.nanmean(expected), abs=1e-9)
    assert found.targets == np.isfinite(expected).sum()


@pytest.mark.parametrize(
    ("kind", "method"), [("random", "ols"), ("bernoulli", "ridge"), ("foldover", "ols"), ("random", "lasso")]
)
def test_cross_fitting_is_fitting_on_the_other_folds(kind: str, method: str) -> None:
    made = design.foldover(12, 96) if kind == "foldover" else getattr(design, kind)(12, 96, 0.4, 1)
    outputs, _ = planted(made, 3, 0.5)
    found = lds(made, outputs, method=method, folds=4, seed=3)
    assert found.folds == 4
    label = made.clusters
    fold = (np.random.default_rng(np.random.Philox(3)).permutation(label.max() + 1) % 4)[label]
    expected = np.zeros(3)
    for i in range(4):
        train, test = np.flatnonzero(fold != i), np.flatnonzero(fold == i)
        assert not set(label[train]) & set(label[test])
        values = influences(made.take(train), outputs[train], method).values
        guess = np.round(made[test].astype(float) @ values, 12)
        for j in np.flatnonzero(np.ptp(guess, axis=0) > 0):  # a LASSO that predicts nothing scores 0
            expected[j] += stats.spearmanr(guess[:, j], outputs[test, j]).statistic * len(test) / 96
    np.testing.assert_allclose(found.per_target, expected, atol=1e-9)


def test_the_error_is_that_of_the_sample_of_models() -> None:
    """Over 80 fresh samples of held-out models the score spreads as its standard error says, with shared noise."""
    train = design.bernoulli(15, 120, seed=1)
    outputs, effects = planted(train, 1, 0.4)
    outputs, effects = np.repeat(outputs, 40, axis=1), np.repeat(effects, 40, axis=1)
    fit = influences(train, outputs, "ols")
    scores, errors, naive = [], [], []
    for seed in range(80):
        held = design.bernoulli(15, 60, seed=100 + seed)
        rng = np.random.default_rng(seed)
        noise = 0.7 * rng.standard_normal((60, 1)) + 0.7 * rng.standard_normal((60, 40))  # a good model is good on all
        found = lds(held, np.asarray(held) @ effects + noise, fit, permutations=1)
        scores.append(found.lds)
        errors.append(found.stderr)
        naive.append(found.per_target.std() / np.sqrt(40))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(scores), rel=0.25)
    assert np.mean(naive) < 0.6 * np.std(scores)


def test_clusters_widen_the_error() -> None:
    """Models that share their noise in groups of six are fewer than they seem."""
    label = np.repeat(np.arange(20), 6)
    scores, errors, plain = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made = Design.explicit(np.repeat(np.asarray(design.bernoulli(10, 20, seed=seed)), 6, axis=0))
        outputs = np.asarray(made)[:, :1] + np.repeat(rng.standard_normal((20, 3)), 6, axis=0)
        values = np.eye(10)[:, [0]] + 0.3 * rng.standard_normal((10, 3))
        found = lds(made, outputs, values, clusters=label, permutations=1)
        scores.append(found.lds)
        errors.append(found.stderr)
        plain.append(lds(made, outputs, values, clusters=np.arange(120), permutations=1).stderr)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(scores), rel=0.3)
    assert np.mean(plain) < 0.7 * np.std(scores)


@pytest.mark.parametrize("reliability", [0.2, 0.5, 0.9])
def test_an_ideal_predictor_reaches_the_ceiling(reliability: float) -> None:
    """80 masks trained twice: the ceiling they give is the score of the true effects on other models."""
    once = np.asarray(design.bernoulli(30, 80, seed=3))
    twice = Design.explicit(np.concatenate([once, once]))
    outputs, effects = planted(twice, 60, reliability)
    found = lds(twice, outputs, effects)
    assert found.repeats == 80
    assert found.ceiling is not None
    assert found.ceiling_stderr is not None
    assert found.ceiling_stderr < 0.1
    assert found.ceiling == pytest.approx(6 / np.pi * np.arcsin(np.sqrt(reliability) / 2), abs=4 * found.ceiling_stderr)
    assert found.lds == pytest.approx(found.ceiling, abs=4 * np.hypot(found.stderr, found.ceiling_stderr))
    assert "noise ceiling 0." in str(found)
    worse = lds(twice, outputs, effects + 2 * effects.std() * np.random.default_rng(0).standard_normal(effects.shape))
    assert worse.lds < found.lds
    assert worse.ceiling == found.ceiling


def test_without_repeats_there_is_no_ceiling_and_the_rows_that_would_give_one_are_named() -> None:
    made = design.foldover(12, 96)
    outputs, effects = planted(made, 2, 0.5)
    found = lds(made, outputs, effects)
    assert found.ceiling is None
    assert found.repeats == 0
    assert "unknown" in str(found)
    rows = repeat_rows(made, 20)
    assert len(np.unique(made.clusters[rows])) == 20
    assert np.array_equal(rows, np.sort(rows))
    assert np.array_equal(rows, repeat_rows(made, 20))
    again = Design.explicit(np.concatenate([np.asarray(made), made[rows]]))
    more, _ = planted(again, 2, 0.5)
    assert lds(again, more, effects).repeats == 20
    assert not set(repeat_rows(again, 20).tolist()) & (set(rows.tolist()) | set(range(96, 116)))
    with pytest.raises(EstimateError, match="48 masks"):
        repeat_rows(made, 49)
    with pytest.raises(EstimateError, match=r"number 9 is out of range.*>= 10"):
        repeat_rows(made, 9)


@pytest.mark.parametrize("kind", ["bernoulli", "foldover", "repeats"])
def test_the_control_is_silent_and_its_p_uniform(kind: str) -> None:
    p, controls = [], []
    for seed in range(60):
        if kind == "repeats":
            made = Design.explicit(np.repeat(np.asarray(design.bernoulli(8, 30, seed=seed)), 2, axis=0))
        else:
            made = design.foldover(8, 60, seed) if kind == "foldover" else design.bernoulli(8, 60, 0.5, seed)
        rng = np.random.default_rng(seed)
        shared = np.repeat(rng.standard_normal((30, 1)), 2, axis=0) if kind != "bernoulli" else 0
        outputs = shared + rng.standard_normal((60, 4))
        found = lds(made, outputs, rng.standard_normal((8, 4)), seed=seed)
        p.append(found.p)
        controls.append(found.control)
    assert abs(np.mean(controls)) < 0.01
    jittered = np.array(p) - np.random.default_rng(0).random(60) / 100
    assert stats.kstest(jittered, "uniform").pvalue > 0.01
    made = design.bernoulli(8, 60, seed=1)
    outputs, effects = planted(made, 4, 0.3)
    assert lds(made, outputs, effects).p == 0.01


@pytest.mark.parametrize("kind", ["bernoulli", "foldover"])
def test_a_cross_fit_of_nothing_spreads_as_its_control_and_its_error_say(kind: str) -> None:
    """Folds teach each other, so scores of 60 ensembles spread more than predictions exchanged after the fit."""
    found = []
    for seed in range(60):
        made = design.foldover(10, 80, seed) if kind == "foldover" else design.bernoulli(10, 80, 0.5, seed)
        outputs = np.random.default_rng(seed).standard_normal((80, 1))
        found.append(lds(made, outputs, permutations=19, seed=seed))
    spread = np.std([one.lds for one in found])
    assert np.sqrt(np.mean([one.control_sd**2 for one in found])) == pytest.approx(spread, rel=0.2)
    assert 0.85 < np.sqrt(np.mean([one.stderr**2 for one in found])) / spread < 1.4
    assert np.mean([one.p <= 0.05 for one in found]) < 0.11
    assert abs(np.mean([one.control for one in found])) < 0.02


def test_folds_of_few_clusters_leave_the_control_at_nothing() -> None:
    made = design.bernoulli(10, 200, 0.4, 0)
    outputs, _ = planted(made, 3, 0.5)
    found = lds(made, outputs, folds=30)
    assert abs(found.control) < 4 * found.control_sd / np.sqrt(99)


def test_the_unit_of_the_outputs_does_not_matter() -> None:
    made = design.bernoulli(10, 60, seed=1)
    outputs, effects = planted(made, 3, 0.5)
    expected = lds(made, outputs, effects).per_target
    for scale in (1e-30, 1e-13, 1e12):
        np.testing.assert_array_equal(lds(made, scale * outputs, scale * effects).per_target, expected)


def test_a_ceiling_of_zero_is_not_certain() -> None:
    """Twelve masks trained twice, outputs that masks do not move: repeats agree by chance or not at all."""
    once = np.asarray(design.bernoulli(10, 12, seed=3))
    errors = []
    for seed in range(20):
        outputs = np.random.default_rng(seed).standard_normal((24, 1))
        found = lds(np.concatenate([once, once]), outputs, np.eye(10)[:, :1], permutations=1)
        assert found.ceiling is not None
        assert found.ceiling_stderr is not None
        assert found.ceiling >= 0
        errors.append(found.ceiling_stderr)
    assert min(errors) > 0.05


def test_what_says_nothing_counts_as_nothing() -> None:
    made = design.bernoulli(10, 60, seed=1)
    outputs, effects = planted(made, 3, 0.5)
    outputs[:, 2] = 7
    effects[:, 1] = 0
    found = lds(made, outputs, effects)
    assert (found.per_target[1], found.targets) == (0, 2)
    assert np.isnan(found.per_target[2])
    assert found.lds == pytest.approx(found.per_target[0] / 2)
    flat = lds(made, outputs[:, 0], effects[:, 0])
    assert flat.lds == pytest.approx(found.per_target[0])
    assert isinstance(flat, Score)


def test_many_targets_are_scored_in_tiles() -> None:
    made = design.bernoulli(5, 20, seed=1)
    outputs, effects = planted(made, 5000, 0.5)
    found = lds(made, outputs, effects, permutations=1)
    assert found.per_target[4999] == pytest.approx(lds(made, outputs[:, 4999], effects[:, 4999]).lds)


def test_what_cannot_be_scored_is_refused() -> None:
    made = design.bernoulli(6, 40, seed=1)
    outputs, effects = planted(made, 3, 0.5)
    cases = {
        "outputs": lambda: lds(made, outputs[:39], effects),
        "row 2, target 1": lambda: lds(made, np.where(np.arange(120).reshape(40, 3) == 7, np.nan, outputs), effects),
        "fit": lambda: lds(made, outputs, effects[:, :2]),
        "same output": lambda: lds(made, np.ones((40, 3)), effects),
        "too few": lambda: lds(made.take(np.arange(4)), outputs[:4], effects),
        "folds": lambda: lds(made, outputs, folds=1),
        "clusters": lambda: lds(made, outputs, effects, clusters=np.arange(39)),
        "dtype object": lambda: lds(made, outputs, effects, clusters=[None] * 40),
        "dtype float64": lambda: lds(made, outputs, effects, clusters=np.full(40, np.nan)),
        "method": lambda: lds(made, outputs, method="guess"),
    }
    for said, call in cases.items():
        with pytest.raises(EstimateError, match=said):
            call()
