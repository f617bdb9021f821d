"""Are the errors honest? Coverage over fresh designs with planted truths; silence where there is nothing to find.

Every case draws whole designs anew: an interval that is right only on one lucky design would fail.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from pydt import Design, design, influences, prediction_test
from pydt.estimate import Fit

R2 = (0.2, 0.5, 0.9)
TRUTHS = ("dense", "sparse")


def truth_of(rng: np.random.Generator, groups: int, targets: int, truth: str) -> np.ndarray:
    effects = rng.standard_normal((groups, targets))
    if truth == "sparse":
        effects *= rng.random((groups, targets)).argsort(0) < max(3, groups // 10)
    return effects


def draw(kind: str, groups: int, models: int, seed: int) -> Design:
    return (
        design.foldover(groups, models, seed)
        if kind == "foldover"
        else getattr(design, kind)(groups, models, 0.4, seed)
    )


def covered(fit: Fit, truth: np.ndarray, level: float = 0.95) -> float:
    quantile = special.stdtrit(fit.df, (1 + level) / 2)
    return float((np.abs(fit.unbiased - truth) <= quantile * fit.stderr).mean())


def coverage(
    kind: str, method: str, groups: int, models: int, r2: float, truth: str, designs: int, targets: int
) -> tuple[float, float]:
    """Share of true effects inside their 95 % interval; share of placebos whose interval holds zero."""
    found, placebos = [], []
    for seed in range(designs):
        rng = np.random.default_rng([seed, groups, models])
        made = draw(kind, groups, models, seed)
        effects = truth_of(rng, groups, targets, truth)
        if kind == "random":
            effects -= effects.mean(0)  # what masks of one size can say
        effects *= np.sqrt(r2 / ((effects**2).sum(0) * made.alpha * (1 - made.alpha)))
        outputs = np.asarray(made) @ effects + np.sqrt(1 - r2) * rng.standard_normal((models, targets))
        fit = influences(made, outputs.astype(np.float32), method)
        found.append(covered(fit, effects))
        if fit.placebo_values is not None and fit.placebo_stderr is not None:
            placebos.append((np.abs(fit.placebo_values) <= special.stdtrit(fit.df, 0.975) * fit.placebo_stderr).mean())
    return float(np.mean(found)), float(np.mean(placebos))


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("r2", R2)
@pytest.mark.parametrize("method", ["difference", "ols"])
@pytest.mark.parametrize(("kind", "models"), [("bernoulli", 120), ("random", 120), ("foldover", 128)])
def test_difference_and_ols_cover(kind: str, models: int, method: str, r2: float, truth: str) -> None:
    """24 fresh designs x 40 groups x 100 targets; a whole foldover block has 128 rows."""
    share, placebos = coverage(kind, method, 40, models, r2, truth, 24, 100)
    assert 0.935 < share < 0.965
    assert 0.93 < placebos < 0.97


@pytest.mark.parametrize("r2", R2)
@pytest.mark.parametrize("models", [120, 30])
@pytest.mark.parametrize(("kind", "truth"), [("bernoulli", "sparse"), ("random", "dense")])
def test_debiased_lasso_covers(kind: str, models: int, r2: float, truth: str) -> None:
    """m = 2K and K/2: 20 fresh designs x 60 groups x 5 targets; every group, not only those the LASSO kept."""
    share, placebos = coverage(kind, "lasso", 60, models, r2, truth, 20, 5)
    assert 0.93 < share < 0.97
    assert 0.92 < placebos < 0.98


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("r2", R2)
@pytest.mark.parametrize(
    ("kind", "method", "groups", "models"),
    [
        *((kind, method, 100, 220) for kind in ("bernoulli", "random") for method in ("difference", "ols")),
        *((kind, "difference", 100, 80) for kind in ("bernoulli", "random")),
        *((kind, "lasso", 100, models) for kind in ("bernoulli", "random") for models in (200, 50)),
        *(("foldover", method, 100, 512) for method in ("difference", "ols", "lasso")),
        *(("foldover", method, 40, 300) for method in ("difference", "ols", "lasso")),  # not a whole number of blocks
    ],
)
def test_larger_designs_cover(kind: str, method: str, groups: int, models: int, r2: float, truth: str) -> None:
    share, placebos = coverage(kind, method, groups, models, r2, truth, 25, 12 if method == "lasso" else 60)
    assert 0.935 < share < 0.965
    assert 0.92 < placebos < 0.98


@pytest.mark.parametrize(("groups", "models"), [(4, 48), (5, 60), (6, 200), (3, 60)])
@pytest.mark.parametrize("kind", ["bernoulli", "foldover"])
def test_few_groups_cover_though_their_masks_repeat(kind: str, groups: int, models: int) -> None:
    """The difference may be wide: with so few masks its errors add two parts, each of few degrees of freedom."""
    for method, most in (("difference", 0.99), ("ols", 0.965)):
        share, _ = coverage(kind, method, groups, models, 0.5, "dense", 30, 200)
        assert 0.935 < share < most


def test_errors_of_repeats_hold_what_the_linear_model_leaves_out() -> None:
    """Each mask trained four times: rows share what is not linear in it, so only cluster means are independent."""
    found = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        made = design.bernoulli(20, 60, 0.5, seed)
        rows = np.repeat(np.arange(60), 4)[rng.permutation(240)]
        effects = truth_of(rng, 20, 100, "dense")
        outputs = (np.asarray(made) @ effects + rng.standard_normal((60, 100)))[rows] + rng.standard_normal((240, 100))
        for method in ("difference", "ols"):
            found.append(covered(influences(np.asarray(made)[rows], outputs, method), effects))
    assert 0.935 < np.mean(found[0::2]) < 0.965
    assert 0.935 < np.mean(found[1::2]) < 0.965


def permuted(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of the rows in which clusters of one size move as wholes."""
    order = np.arange(len(clusters))
    members = [np.flatnonzero(clusters == c) for c in np.unique(clusters)]
    for size in {len(m) for m in members}:
        same = [m for m in members if len(m) == size]
        for old, new in zip(same, rng.permutation(len(same)), strict=True):
            order[old] = same[new]
    return order


def nothing_to_find(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks, and two outputs that depend on everything but the masks: skewed, and alike within clusters."""
    rng = np.random.default_rng([seed, 99])
    if kind == "repeats":
        masks = np.repeat(np.asarray(design.bernoulli(15, 40, 0.4, seed)), 2, axis=0)
        shared = np.repeat(rng.standard_normal((40, 1)), 2, axis=0)
    else:
        masks = np.asarray(draw(kind, 15, 80, seed))
        shared = (
            np.repeat(rng.standard_normal((40, 1)), 2, axis=0) if kind == "foldover" else rng.standard_normal((80, 1))
        )
    return masks, shared + rng.gamma(2.0, 1.0, (80, 1)) + 0.5 * rng.standard_normal((80, 2))


@pytest.mark.parametrize("kind", ["random", "bernoulli", "foldover", "repeats"])
def test_permuted_rows_are_silent(kind: str) -> None:
    """200 copies of one experiment, rows permuted with clusters whole: at most 9 % show any q < 0.05."""
    masks, outputs = nothing_to_find(kind, 1)
    outputs = outputs + masks[:, :3] @ np.array([[3.0], [-2.0], [1.0]])  # there was something before the permutation
    clusters = Design.explicit(masks).clusters
    rng = np.random.default_rng(5)
    copies = [permuted(clusters, rng) for _ in range(200)]
    for method in ("difference", "ols", "lasso"):
        alarms = 0
        for start in range(0, 200, 50) if method == "lasso" else (0,):
            part = copies if method != "lasso" else copies[start : start + 50]
            fit = influences(masks, np.stack([outputs[order, 0] for order in part], axis=1), method)
            alarms += int((fit.q < 0.05).any(0).sum())
        assert alarms <= 18, method
    assert (influences(masks, outputs[:, 0], "ols").q < 0.05).any(), "the experiment itself is not silent"


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, "ols") for kind in ("random", "bernoulli", "foldover", "repeats")),
        ("random", "ridge"),
        ("repeats", "difference"),
    ],
)
def test_p_of_the_global_test_is_uniform_without_influence(kind: str, method: str) -> None:
    p = []
    for seed in range(100):
        masks, outputs = nothing_to_find(kind, seed)
        p.append(prediction_test(masks, *outputs.T, method=method, permutations=99, seed=seed).p)
    jittered = np.array(p) - np.random.default_rng(0).random(100) / 100  # p is a multiple of 1/100
    assert stats.kstest(jittered, "uniform").pvalue > 0.01


def test_global_test_finds_what_is_there() -> None:
    made = design.random(30, 120, 0.25, seed=2)
    rng = np.random.default_rng(0)
    signal = np.asarray(made) @ rng.standard_normal(30)
    signal /= signal.std()
    score, report = (signal + 1.5 * rng.standard_normal(120) for _ in range(2))
    for method in ("ols", "ridge", "difference"):
        found = prediction_test(made, score, report, method=method)
        assert (found.p, found.n, found.folds, found.permutations) == (found.p, 120, 5, 999)
        assert found.p <= 0.01
        assert found.correlation > 2 * found.null_sd
    again = prediction_test(made, score, report)
    assert again == prediction_test(made, score, report)
    assert 0.05 < again.null_sd < 0.15
    # a report half that goes the other way is no confirmation
    assert prediction_test(made, score, -report).p > 0.9


def test_global_test_is_the_plain_cross_fit() -> None:
    """The matrix that makes permutations cheap gives what fitting fold by fold gives."""
    from pydt.moments import assign_folds

    made = design.bernoulli(8, 60, 0.5, seed=3)
    rng = np.random.default_rng(1)
    masks = np.asarray(made)
    score, report = (
        masks @ rng.standard_normal((8, 2)) + rng.standard_normal((60, 2)) @ np.eye(2),
        rng.standard_normal(60),
    )
    score = score[:, 0]
    fold = assign_folds(made.clusters, 5, 0)
    guess, truth = np.zeros(60), np.zeros(60)
    for i in range(5):
        train, test = fold != i, fold == i
        x = np.column_stack([np.ones(train.sum()), masks[train]])
        values = np.linalg.lstsq(x, score[train], rcond=None)[0][1:]
        guess[test] = (masks[test] - masks[test].mean(0)) @ values
        truth[test] = report[test] - report[test].mean()
    expected = (guess @ truth) / np.sqrt((guess @ guess) * (truth @ truth))
    np.testing.assert_allclose(prediction_test(made, score, report, permutations=9).correlation, expected, rtol=1e-9)
