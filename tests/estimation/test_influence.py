"""Influences against float64 oracles, what they accept, and what they refuse by name.

More than 500 lines: one function takes every method, design and form of masks and outputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracle_estimate as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard
from sklearn.linear_model import Lasso

from pydt import Design, _core, design, influences
from pydt.base import EstimateError
from pydt.estimation import (
    ESTIMATORS,
    best_method,
    models_for_effect,
    models_for_stderr,
    prediction_test,
)
from pydt.estimation.inputs import assign_folds, read, read_masks
from pydt.estimation.mask_geometry import Geometry
from pydt.estimation.sufficient_statistics import Statistics

# float32 results: a rounding of the value itself; the bound asked for is 1e-5
CLOSE = 1e-6


def planted(masks: Any, targets: int = 5, r2: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (models, targets) of a dense linear truth with noise, unit variance; the truth (groups, targets)."""
    rng = np.random.default_rng(seed)
    x = np.asarray(masks).astype(float)
    truth = rng.standard_normal((x.shape[1], targets))
    truth *= np.sqrt(r2) / (x @ truth).std(0)
    return x @ truth + np.sqrt(1 - r2) * rng.standard_normal((len(x), targets)), truth


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = CLOSE) -> None:
    """Within a share of the target's largest |value|."""
    assert found.shape == expected.shape
    scale = np.abs(expected).max(0) if expected.ndim > 1 else np.abs(expected).max()
    assert np.all(np.abs(found - expected) <= tolerance * scale), np.abs((found - expected) / scale).max()


DESIGNS = {
    "random": lambda: design.random(20, 90, 0.25, seed=1),
    "bernoulli": lambda: design.bernoulli(20, 90, 0.4, seed=1),
    "foldover": lambda: design.foldover(20, 90, seed=1),
}


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", DESIGNS)
def test_values_and_errors_match_the_oracles(kind: str, dtype: type, offset: float) -> None:
    made = DESIGNS[kind]()
    masks = np.asarray(made)
    outputs = (planted(made)[0] + offset).astype(dtype)
    close(influences(made, outputs, "difference").values, oracle.difference(masks, outputs))
    values, stderr, df = (oracle.half_differences if kind == "foldover" else oracle.ols)(masks, outputs)
    fit = influences(made, outputs, "ols", errors="classical")
    close(fit.values, values)
    close(fit.stderr, stderr)
    assert np.all(fit.df == df)
    close(fit.values, oracle.ols(masks, outputs)[0])  # half-differences change errors, never values
    for cv in (None, 5):
        fit = influences(made, outputs, "ridge", cv=cv)
        close(fit.values, oracle.ridge(masks, outputs, fit.penalty))


@given(
    groups=st.integers(2, 14),
    extra=st.integers(0, 60),
    alpha=st.floats(0.2, 0.8),
    targets=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_values_match_the_oracles_whatever_repeats(
    groups: int, extra: int, alpha: float, targets: int, seed: int
) -> None:
    """Few groups: masks repeat and complement each other by chance, which may change errors but never values."""
    rng = np.random.default_rng(seed)
    masks = rng.random((groups + 3 + extra, groups)) < alpha
    outputs = rng.standard_normal((len(masks), targets)) + masks @ rng.standard_normal((groups, targets))
    varies = masks.any(0) & ~masks.all(0)
    if not varies.all():
        with pytest.raises(EstimateError, match="group"):
            influences(masks, outputs)
        return
    close(influences(masks, outputs, "difference").values, oracle.difference(masks, outputs))
    ridge = influences(masks, outputs, "ridge")
    close(ridge.values, oracle.ridge(masks, outputs, ridge.penalty))
    sizes = masks.sum(1)
    full = groups - bool(np.all(sizes == sizes[0]))
    if np.linalg.matrix_rank(masks - masks.mean(0)) < full:
        with pytest.raises(EstimateError, match="cannot"):
            influences(masks, outputs, "ols")
    elif len(np.unique(masks, axis=0)) > full + 1:
        close(influences(masks, outputs, "ols").values, oracle.ols(masks, outputs)[0], 1e-5)
        alone = influences(masks, outputs, "ols", clusters=np.arange(len(masks)), errors="classical")
        close(alone.stderr, oracle.ols(masks, outputs)[1], 1e-5)


@pytest.mark.parametrize(
    "made", [design.bernoulli(30, 120, 0.5, seed=2), design.random(60, 40, 0.3, seed=2)], ids=["m>K", "m<K"]
)
def test_lasso_reaches_the_optimum_of_scikit_learn(made: Design) -> None:
    from sklearn.linear_model import Lasso

    masks = np.asarray(made)
    outputs = planted(made, targets=4, r2=0.7)[0]
    for cv in (None, 4):
        fit = influences(masks, outputs, "lasso", cv=cv)
        assert fit.penalty is not None
        assert fit.gap is not None
        assert np.all(fit.gap <= 1e-5)
        objective = oracle.lasso_objective(masks, outputs, fit.penalty, fit.values.astype(np.float64))
        half = ((outputs - outputs.mean(0)) ** 2).sum(0) / 2 / len(outputs)
        for j, penalty in enumerate(fit.penalty):
            peer = Lasso(alpha=penalty, tol=1e-10, max_iter=100_000).fit(masks.astype(float), outputs[:, j])
            best = oracle.lasso_objective(masks, outputs[:, j : j + 1], penalty, peer.coef_[:, None])[0]
            # 1e-6: the values are float32
            assert -1e-9 <= (objective[j] - best) / half[j] <= fit.gap[j] + 1e-6


def test_lasso_chooses_the_penalty_that_predicts_held_out_models() -> None:
    made = design.bernoulli(25, 600, 0.5, seed=5)
    outputs = np.random.default_rng(0).standard_normal((600, 3)) + np.asarray(made)[:, :3].sum(1, keepdims=True)
    fit = influences(made, outputs, "lasso")
    given_ = read(made, outputs)
    held = assign_folds(given_.units.clusters, 5, 0) == 0
    masks = np.asarray(made).astype(float)
    x, y = masks[~held] - masks[~held].mean(0), outputs[~held] - outputs[~held].mean(0)
    from sklearn.linear_model import Lasso

    def error(penalty: float, j: int) -> float:
        model = Lasso(alpha=penalty, tol=1e-8).fit(x, y[:, j])
        guess = (masks[held] - masks[~held].mean(0)) @ model.coef_ + outputs[~held, j].mean()
        return float(((outputs[held, j] - guess) ** 2).sum())

    assert fit.penalty is not None
    for j, penalty in enumerate(fit.penalty):
        assert error(penalty, j) <= 1.002 * min(error(penalty * factor, j) for factor in (0.3, 0.6, 1.7, 3, 10, 30))


def test_constant_masks_compare_with_the_average_group() -> None:
    made = design.random(12, 80, 0.5, seed=3)
    outputs, _ = planted(made)
    for method in ("ols", "lasso"):
        fit = influences(made, outputs, method)
        assert fit.estimand == "swap"
        np.testing.assert_allclose(fit.unbiased.sum(0), 0, atol=1e-5)
    one = np.ones(12)
    value, stderr = influences(made, outputs, "ols").contrast(one)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(stderr, 0, atol=1e-6)
    assert influences(design.bernoulli(12, 80, seed=3), outputs, "ols").estimand == "add"


def test_outputs_too_small_for_float32_are_refused() -> None:
    made = design.bernoulli(5, 60, 0.5, seed=1)
    outputs = np.random.default_rng(0).random((60, 2)) * [1e-44, 1.0]
    with pytest.raises(EstimateError, match=r"outputs, row \d+, target 0: the output is too small.*rescale"):
        influences(made, outputs, "ols")
    fit = influences(made, outputs, "ols", nan="flag")
    assert np.isnan(fit.values[:, 0]).all()
    assert np.isfinite(fit.values[:, 1]).all()
    assert (influences(made, np.full(60, 1e-44), "ols").values == 0).all()  # a constant is no small spread


def test_every_way_to_hand_over_the_same_numbers(tmp_path: Path) -> None:
    made = design.bernoulli(13, 50, 0.5, seed=1, placebos=0)
    masks, outputs = np.asarray(made), planted(made)[0].astype(np.float32)
    mapped = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float32, outputs.shape)
    mapped[:] = outputs
    wide = np.zeros((50, 15), np.float32)
    wide[:, ::3] = outputs
    for method in ESTIMATORS:
        fit = influences(made, outputs, method)
        for other in (masks, masks.astype(int), masks.astype(float).tolist(), torch.from_numpy(masks)):
            np.testing.assert_array_equal(influences(other, outputs, method).values, fit.values)
        np.testing.assert_array_equal(influences(made.packed(), outputs, method, groups=13).values, fit.values)
        for other in (
            np.asfortranarray(outputs),
            wide[:, ::3],
            mapped,
            torch.from_numpy(outputs),
            outputs.astype(">f4"),
        ):
            # foreign byte order becomes float64, whose sums are not rounded to float32
            np.testing.assert_allclose(influences(made, other, method).values, fit.values, rtol=1e-6, atol=1e-5)
        one = influences(made, outputs[:, 0], method)
        for name in ("values", "unbiased", "stderr", "q"):
            assert getattr(one, name).shape == (13,)
            assert getattr(one, name).dtype == np.float32
        np.testing.assert_allclose(one.values, fit.values[:, 0], rtol=1e-5, atol=1e-6)
        out = np.empty((13, 5), np.float32)
        assert influences(made, outputs, method, out=out).values is out
        np.testing.assert_array_equal(out, fit.values)
        np.testing.assert_array_equal(fit.counts, masks.sum(0))
        assert (fit.models, fit.method) == (50, method)


def test_booleans_and_bfloat16_are_outputs_too() -> None:
    made = design.bernoulli(6, 40, 0.5, seed=1)
    correct = np.random.default_rng(0).random((40, 2)) < 0.5
    np.testing.assert_array_equal(influences(made, correct).values, influences(made, correct.astype(float)).values)
    brain = torch.from_numpy(planted(made)[0]).to(torch.bfloat16)
    np.testing.assert_array_equal(influences(made, brain).values, influences(made, brain.float().numpy()).values)


def test_nan_is_named_or_flagged() -> None:
    made = design.bernoulli(6, 40, 0.5, seed=1)
    clean = planted(made)[0]
    for bad in (np.nan, np.inf, -np.inf):
        for row in (0, 17):
            outputs = clean.copy()
            outputs[row, 3] = bad
            with pytest.raises(EstimateError, match=f"row {row}, target 3"):
                influences(made, outputs)
            for method in ESTIMATORS:
                fit, whole = (influences(made, o, method, nan="flag") for o in (outputs, clean))
                for name in ("values", "unbiased", "stderr", "q"):
                    found, expected = getattr(fit, name), getattr(whole, name).copy()
                    expected[:, 3] = np.nan
                    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ESTIMATORS)
def test_a_constant_target_has_no_influences(method: str) -> None:
    outputs = planted(design.bernoulli(6, 40, 0.5, seed=1))[0]
    outputs[:, 2] = 1234.5
    fit = influences(design.bernoulli(6, 40, 0.5, seed=1), outputs, method)
    assert np.all(fit.values[:, 2] == 0)
    assert np.isnan(fit.stderr[:, 2]).all()  # that nothing varied is no certainty
    assert method == "ridge" or np.all(fit.q[:, 2] == 1)
    assert np.all(fit.values[:, 1] != 0) or method == "lasso"


def test_repeated_masks_are_judged_by_their_means() -> None:
    masks = np.repeat(np.asarray(design.bernoulli(16, 40, 0.5, seed=9)), 3, axis=0)
    rng = np.random.default_rng(0)
    outputs = planted(masks)[0] + np.repeat(rng.standard_normal((40, 5)), 3, axis=0)
    means = outputs.reshape(40, 3, 5).mean(1)
    values, stderr, df = oracle.ols(masks[::3], means)
    order = rng.permutation(120)
    fit = influences(masks[order], outputs[order], "ols")
    close(fit.values, values)
    close(fit.stderr, stderr)
    assert np.all(fit.df == df)
    assert np.all(fit.stderr > 1.2 * influences(masks, outputs, "ols", clusters=np.arange(120)).stderr)


def test_half_a_pair_is_used_by_nothing_but_the_difference() -> None:
    made = design.foldover(10, 61, seed=4)
    masks, outputs = np.asarray(made), planted(made)[0]
    close(influences(made, outputs, "difference").values, oracle.difference(masks, outputs))
    for method in ("ols", "ridge", "lasso"):
        np.testing.assert_array_equal(
            influences(made, outputs, method).values, influences(masks[:60], outputs[:60], method).values
        )
    lost = np.delete(np.arange(60), [3, 20])  # failed rows break two pairs
    values, stderr, _ = oracle.half_differences(
        np.delete(masks[:60], [2, 3, 20, 21], 0), np.delete(outputs[:60], [2, 3, 20, 21], 0)
    )
    for handed in (
        influences(masks[lost], outputs[lost], "ols"),
        influences(masks[lost], outputs[lost], "ols", clusters=made.clusters[lost]),
        influences(made.take(lost), outputs[lost], "ols"),
    ):
        close(handed.values, values)
        close(handed.stderr, stderr)


@pytest.mark.parametrize("kind", DESIGNS)
def test_a_lost_row_costs_nothing_but_its_row(kind: str) -> None:
    """What is left of a design keeps its placebo columns, in every method."""
    made = DESIGNS[kind]()
    outputs = planted(made)[0]
    left = np.delete(np.arange(90), [7, 40])
    used = np.setdiff1d(left, [6, 41]) if kind == "foldover" else left
    for method in ESTIMATORS:
        fit = influences(made.take(left), outputs[left], method)
        bare = influences(np.asarray(made)[left], outputs[left], method)
        np.testing.assert_allclose(fit.values, bare.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fit.stderr, bare.stderr, rtol=1e-5)
        assert bare.placebo_values is None
        assert fit.placebo_values is not None
        if method == "ols":
            joint = np.column_stack([np.asarray(made)[used], made.placebos[used][:, :1]])
            reference = oracle.half_differences if kind == "foldover" else oracle.ols
            close(fit.placebo_values[0], reference(joint, outputs[used])[0][-1])
    test = prediction_test(made.take(left), outputs[left, 0], outputs[left, 0], permutations=9)
    assert test.n == len(used)


def test_a_placebo_that_all_of_few_models_drew_alike_says_nothing() -> None:
    made = design.bernoulli(6, 9, 0.3, seed=11)
    assert not made.placebos.any(0).all()
    outputs = planted(made)[0]
    for method in ("difference", "lasso"):
        found = influences(made, outputs, method).placebo_values
        assert found is not None
        np.testing.assert_array_equal(np.isnan(found).all(1), ~made.placebos.any(0))


FEW = {
    "bernoulli 2": lambda n, seed: design.bernoulli(2, n, seed=seed),
    "bernoulli 3": lambda n, seed: design.bernoulli(3, n, seed=seed),
    "bernoulli 5": lambda n, seed: design.bernoulli(5, n, seed=seed),
    "random 2": lambda n, seed: design.random(2, n, 0.5, seed=seed),
    "random 3": lambda n, seed: design.random(3, n, 0.34, seed=seed),
    "random 4": lambda n, seed: design.random(4, n, 0.25, seed=seed),
    "foldover 3": lambda n, seed: design.foldover(3, n, seed),
}


@pytest.mark.parametrize("kind", FEW)
def test_lasso_of_few_groups_has_folds_as_there_are_masks(kind: str) -> None:
    made = FEW[kind](80, 0)
    groups = made.groups
    truth = np.arange(groups) - (0.5 * (groups - 1) if made.estimand == "swap" else 0)
    outputs = np.asarray(made) @ truth + 0.01 * np.random.default_rng(0).standard_normal(80)
    assert best_method(made) == "ols"
    assert np.abs(influences(made, outputs, "ols").unbiased - truth).max() < 0.02
    if kind == "random 2":
        with pytest.raises(EstimateError, match=r'repeat or complement.*"ols"'):
            influences(made, outputs, "lasso")
        return
    assert np.abs(influences(made, outputs, "lasso").unbiased - truth).max() < 0.02


def test_the_best_method_counts_what_ols_counts() -> None:
    """df >= max(2, groups / 2) by rows, masks, pairs; and full rank."""
    for groups in (8, 20):
        for models in (groups + 1 + groups // 2 - 1, groups + 1 + groups // 2):
            made = design.bernoulli(groups, models, seed=3)
            enough = groups + 1 + groups // 2 == models
            assert (best_method(made) == "ols") == enough
            tripled = np.repeat(np.asarray(made), 3, axis=0)
            assert (best_method(tripled) == "ols") == enough
            assert (best_method(np.packbits(tripled, 1, "little"), groups=groups) == "ols") == enough
            assert best_method(tripled, clusters=np.arange(len(tripled))) == "ols"
            pairs = design.foldover(groups, 2 * models - 2)
            assert (best_method(pairs) == "ols") == enough
    eye = np.eye(4, dtype=bool)
    assert best_method(eye) == "lasso"
    assert best_method(np.repeat(eye, [1, 1, 2, 1], axis=0)) == "ols"  # as many masks as parameters: values alone
    assert best_method([[1, 0], [0, 1], [0, 1]]) == "ols"  # one cluster: no folds for the LASSO
    assert best_method([[1, 0], [0, 1]]) == "lasso"
    copied = np.asarray(design.bernoulli(6, 60, seed=1)).copy()
    copied[:, 3] = copied[:, 2]
    assert best_method(copied) == "lasso"
    blocks = np.repeat(np.arange(10), 8)
    assert best_method(design.bernoulli(9, 80), clusters=blocks) == "lasso"
    assert best_method(design.bernoulli(4, 80), clusters=blocks) == "ols"
    for wrong in (5, [[1, 0], [1]], [[1, 0], [1, 1]]):
        with pytest.raises(EstimateError, match="masks"):
            best_method(wrong)


def test_even_interactions_do_not_reach_foldover() -> None:
    made = design.foldover(12, 128, seed=4)
    signs = 2.0 * np.asarray(made) - 1
    outputs = planted(made)[0]
    even = 5 * (signs[:, :1] * signs[:, 1:2])
    plain, disturbed = (influences(made, outputs + add, "ols") for add in (0, even))
    close(disturbed.values, plain.values.astype(float), 1e-5)
    close(disturbed.stderr, plain.stderr.astype(float), 1e-5)


def test_clusters_of_ones_own_widen_the_errors() -> None:
    made = design.bernoulli(5, 400, 0.5, seed=6, placebos=0)
    rng = np.random.default_rng(1)
    blocks = np.repeat(np.arange(100), 4)
    masks = np.asarray(made)
    masks = masks | False
    masks[:, 0] = np.repeat(rng.random(100) < 0.5, 4)  # a group that varies between blocks only
    outputs = 0.3 * rng.standard_normal((400, 200)) + np.repeat(rng.standard_normal((100, 200)), 4, axis=0)
    for method in ("difference", "ols", "lasso", "ridge"):
        fit = influences(masks, outputs, method, clusters=blocks)
        t = (fit.values if method == "ridge" else fit.unbiased) / fit.stderr
        assert np.all(fit.df == 99) or method == "ridge"
        if method != "ridge":
            assert 0.85 < np.sqrt((t[0] ** 2).mean()) < 1.2
            assert 0.85 < np.sqrt((t[1:] ** 2).mean()) < 1.2
        naive = influences(masks, outputs, method, clusters=np.arange(400))
        assert np.all(fit.stderr[0] > 1.4 * naive.stderr[0])


@pytest.mark.parametrize("seed", range(3))
def test_difference_over_clusters_adds_the_imbalance_of_the_other_groups(seed: int) -> None:
    """The sandwich of what OLS leaves, plus c rho (T - s^2), which the clusters do not show."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(30), 4)
    masks = rng.random((120, 10)) < 0.5
    outputs = 3 * masks @ rng.standard_normal((10, 6)) + rng.standard_normal((30, 6))[clusters]
    outputs += rng.standard_normal((120, 6))
    x, y = masks - masks.mean(0), outputs - outputs.mean(0)
    inverse = np.linalg.pinv(x)
    noise = oracle.ols(masks, outputs)[1] ** 2 / (inverse**2).sum(1)[:, None]
    scale = 1 / masks.sum(0) + 1 / (~masks).sum(0)
    imbalance = oracle.difference_errors(masks, outputs) ** 2 - scale[:, None] * noise
    within = oracle.sandwich(x.T / (x**2).sum(0)[:, None], y - x @ inverse @ y, clusters, 11)
    assert np.median(imbalance) > np.median(within**2)
    close(influences(masks, outputs, clusters=clusters).stderr, np.sqrt(within**2 + imbalance))


def test_difference_of_nearly_orthogonal_masks_weighs_both_degrees_of_freedom() -> None:
    """1 / df = (1 - rho)^2 / (m - K - 1) + rho^2 / (m - 2): of the residual, and of the spread within both arms."""
    rng = np.random.default_rng(0)
    seen = []
    for flipped in (1, 2, 3, 4):
        masks = hadamard(16)[:, [1, 2, 4, 8, 3]] > 0  # the third product of columns: no mask has its complement
        masks[rng.choice(16, flipped, replace=False), 4] ^= True
        correlation = np.corrcoef(masks.T.astype(float))[~np.eye(5, dtype=bool)]
        rho = min(1.0, 15 * (correlation**2).mean())
        fit = influences(masks, rng.standard_normal(16), errors="classical")
        np.testing.assert_allclose(fit.df, 1 / ((1 - rho) ** 2 / 10 + rho**2 / 14), rtol=1e-9)
        seen.append(rho)
    assert 0.05 < min(seen) < 0.2 < max(seen) < 0.9


@pytest.mark.parametrize(
    "sizes", [[4] * 30, [60, 15, 15, 15, 15], [1, 2, 3] * 20], ids=["equal", "unequal folds", "unequal"]
)
def test_errors_over_clusters_are_the_sandwich(sizes: list[int]) -> None:
    """Of OLS, ridge and the de-biased LASSO, whose folds of unequal clusters count by their rows."""
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    masks = rng.random((120, 10)) < 0.4
    shared = rng.standard_normal((len(sizes), 6))[clusters]
    outputs = masks @ rng.standard_normal((10, 6)) + shared + rng.standard_normal((120, 6))
    x, y = masks - masks.mean(0), outputs - outputs.mean(0)

    fit = influences(masks, outputs, "ols", clusters=clusters)
    to_values = np.linalg.pinv(x)
    close(fit.values, to_values @ y)
    close(fit.stderr, oracle.sandwich(to_values, y - x @ to_values @ y, clusters, 11))

    fit = influences(masks, outputs, "ridge", clusters=clusters)
    assert fit.penalty is not None
    for j, penalty in enumerate(fit.penalty):
        to_values = np.linalg.solve(x.T @ x + penalty * np.eye(10), x.T)
        rest, parameters = (y - x @ to_values @ y)[:, [j]], 1 + np.trace(x @ to_values)
        close(fit.stderr[:, [j]], oracle.sandwich(to_values, rest, clusters, parameters))

    fit = influences(masks, outputs, "lasso", clusters=clusters)
    assert fit.penalty is not None
    fold = read_masks(masks, None, clusters).folds(5)
    assert len(sizes) > 5 or sorted(np.bincount(fold)) == [15, 15, 15, 15, 60]
    values, rest = oracle.debiased_lasso(masks, outputs, fit.penalty, fold)[0], np.zeros_like(outputs)
    np.testing.assert_allclose(fit.unbiased, values, atol=0.01 * fit.stderr.min())
    for i in range(5):
        train, test = fold != i, fold == i
        for j, penalty in enumerate(fit.penalty):
            model = Lasso(alpha=penalty, tol=1e-12, max_iter=10**6).fit(masks[train].astype(float), outputs[train, j])
            rest[test, j] = outputs[test, j] - model.predict(masks[test].astype(float))
    to_values = x.T / (x**2).sum(0)[:, None]
    np.testing.assert_allclose(fit.stderr, oracle.sandwich(to_values, rest, clusters, 1), rtol=5e-3)


@pytest.mark.parametrize("models", [80, 15])
def test_ridge_has_the_noise_of_what_it_leaves(models: int) -> None:
    """With as many freedoms as tr (I - S)^2 leaves: neither more models than groups nor fewer make it another."""
    made = design.bernoulli(20, models, 0.5, seed=5)
    outputs = planted(made)[0]
    fit = influences(made, outputs, "ridge")
    assert fit.penalty is not None
    errors, noise = oracle.ridge_errors(np.asarray(made), outputs, fit.penalty)
    close(fit.stderr, errors, 1e-4)
    close(fit.noise, noise, 1e-6)


def test_a_placebo_is_what_one_more_group_would_be() -> None:
    made = design.bernoulli(16, 80, 0.5, seed=3)
    outputs = planted(made)[0]
    masks = np.asarray(made)
    x = masks - masks.mean(0)
    _, stderr, _ = oracle.ols(masks, outputs)
    noise = stderr[0] / np.sqrt(np.linalg.inv(x.T @ x)[0, 0])
    fit = influences(made, outputs, "ols")
    assert fit.placebo_values is not None
    assert fit.placebo_stderr is not None
    assert fit.placebo_q is not None
    ridge = influences(made, outputs[:, :1], "ridge")
    for j, column in enumerate(made.placebos.T):
        joint = np.column_stack([masks, column])
        close(fit.placebo_values[j], oracle.ols(joint, outputs)[0][-1])
        x = joint - joint.mean(0)
        close(fit.placebo_stderr[j], noise * np.sqrt(np.linalg.inv(x.T @ x)[-1, -1]))
        close(ridge.placebo_values[j], oracle.ridge(joint, outputs[:, :1], ridge.penalty)[-1])
    bare = influences(np.asarray(made), outputs, "ols")
    np.testing.assert_array_equal(fit.values, bare.values)
    assert bare.placebo_values is None
    close(influences(made, outputs, "difference").placebo_values, oracle.difference(made.placebos, outputs))


def test_statistics_merge_and_folds_are_totals_less_the_held_out() -> None:
    made = design.foldover(9, 70, seed=2)
    given_ = read(made, planted(made)[0])
    (tile,) = Statistics(given_).tiles(4)
    (alone,) = Statistics(given_).tiles()
    folds, geometry = Geometry(given_).folds(4), Geometry(given_)
    for cluster in np.unique(made.clusters):
        assert len(np.unique(folds.label[made.clusters == cluster])) == 1
    parts, rest = tile.folds[4], np.flatnonzero(folds.label != 2)
    merged = parts[0] + parts[1] + parts[2] + parts[3]
    (other,) = Statistics(read(made.take(rest), given_.outputs[rest])).tiles()
    for name in ("total", "squares", "cross"):
        np.testing.assert_allclose(getattr(merged, name), getattr(alone.units, name), rtol=1e-12, atol=1e-10)
        np.testing.assert_allclose(getattr(tile.plain, name), getattr(alone.plain, name), rtol=1e-12, atol=1e-10)
        np.testing.assert_allclose(
            getattr(tile.units - parts[2], name), getattr(other.units, name), rtol=1e-12, atol=1e-9
        )
    total = tile.plain.total[: tile.width]
    np.testing.assert_allclose(total, (given_.outputs - given_.outputs[0]).sum(0), rtol=1e-12)
    for name in ("rows", "count", "gram"):
        np.testing.assert_array_equal(sum(getattr(part, name) for part in folds.parts), getattr(geometry.used, name))
        expected = getattr(Geometry(read(made.take(rest), given_.outputs[rest])).used, name)
        np.testing.assert_array_equal(getattr(geometry.used - folds.parts[2], name), expected)


@given(sizes=st.lists(st.integers(1, 6), min_size=5, max_size=40), number=st.integers(2, 5), seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_folds_never_split_a_cluster(sizes: list[int], number: int, seed: int) -> None:
    clusters = np.repeat(np.arange(len(sizes)), sizes)[np.random.default_rng(seed).permutation(sum(sizes))]
    fold = assign_folds(clusters, number, seed)
    load = np.bincount(fold, minlength=number)
    assert load.max() - load.min() <= max(sizes)
    assert all(len(np.unique(fold[clusters == c])) == 1 for c in range(len(sizes)))


def test_models_needed_are_enough() -> None:
    made = design.bernoulli(15, 60, 0.5, seed=1)
    outputs, _ = planted(made, targets=400, r2=0.3)
    for method in ("difference", "ols"):
        fit = influences(made, outputs, method)
        wish = float(np.median(fit.stderr)) / 3
        needed = models_for_stderr(fit, wish)
        large = design.bernoulli(15, needed, 0.5, seed=2)
        got = np.median(influences(large, planted(large, targets=400, r2=0.3)[0], method).stderr)
        assert 0.9 < got / wish < 1.1
    assert models_for_effect(fit, 2 * wish) < models_for_effect(fit, wish) < models_for_effect(fit, wish, power=0.95)
    assert models_for_effect(fit, wish, power=0.5) == models_for_stderr(fit, wish / 1.959964)
    for call in (
        lambda: models_for_stderr(fit, 0),
        lambda: models_for_effect(fit, 0),
        lambda: models_for_effect(fit, 1, power=1),
    ):
        with pytest.raises(EstimateError):
            call()


def test_explained_variance_is_that_of_new_models() -> None:
    made = design.bernoulli(20, 300, 0.5, seed=1)
    outputs, _ = planted(made, targets=50, r2=0.5)
    for method in ESTIMATORS:
        assert abs(influences(made, outputs, method).explained.mean() - 0.5) < 0.06
    noise = np.random.default_rng(0).standard_normal((300, 50))
    assert all(abs(influences(made, noise, method).explained.mean()) < 0.03 for method in ESTIMATORS)


M = np.asarray(design.bernoulli(6, 40, 0.5, seed=1))
Y = np.random.default_rng(0).standard_normal((40, 3))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _always(masks: np.ndarray, group: int, value: bool) -> np.ndarray:
    masks = masks.copy()
    masks[:, group] = value
    return masks


def _turning(models: int) -> np.ndarray:
    return (np.arange(6) + np.arange(models)[:, None]) % models < 2


def _copied(masks: np.ndarray) -> np.ndarray:
    masks = masks.copy()
    masks[:, 4] = masks[:, 1]
    return masks


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: influences(_always(M, 2, True), Y), "group 2 in every model"),
        (lambda: influences(_always(M, 3, False), Y, "lasso"), "group 3 in no model"),
        (lambda: influences(_copied(M), Y, "ols"), "groups 1, 4 cannot be told apart.*ridge.*lasso"),
        (lambda: influences(_turning(5), Y[:5], "ols"), "5 models.*cannot tell 6 groups apart.*ridge.*lasso"),
        (lambda: influences(np.r_[np.eye(6), np.ones((1, 6))], Y[:7], "ols"), "7 models.*noise.*ridge"),
        (lambda: influences(M, Y[:30]), "30 rows of outputs for 40 masks"),
        (lambda: influences(M.astype(int) * 2, Y), r"2 is neither 0 nor 1. pass 0/1 masks$"),
        (lambda: influences(np.full((9, 16), 5, np.uint8), np.ones((9, 1)), groups=8), "from 121 to 128.*not 8"),
        (lambda: influences(np.full((9, 16), 5, np.uint8), np.ones((9, 1)), groups=64), "from 121 to 128.*not 64"),
        (lambda: influences(np.full((9, 1), 5, np.uint8), np.ones((9, 1))), "look packed.*1 to 8: ceil.*must give 1"),
        (lambda: influences(M[0], Y), "masks.*shape"),
        (lambda: influences(M, Y[:, None]), "outputs.*shape"),
        (lambda: influences(M, np.array([["a"]] * 40)), "outputs.*dtype"),
        (lambda: influences(M, Y, "magic"), "magic.*difference, ols, ridge, lasso"),
        (lambda: influences(M, Y, nan="ignore"), "nan.*ignore"),
        (lambda: influences(M, Y, "ols", cv=5), "cv.*ols"),
        (lambda: influences(M, Y, "lasso", cv=1), "cv 1 is out of range"),
        (lambda: influences(M, Y, out=np.empty((6, 3))), "out.*float32"),
        (lambda: influences(M, Y, groups=9), "groups.*9"),
        (lambda: influences(design.bernoulli(6, 40), Y, groups=9), "groups.*9"),
        (lambda: influences(np.full((40, 1), 255, np.uint8), Y, groups=6), "masks.*packed"),
        (lambda: influences(M, Y, clusters=np.zeros(40, int)), "one cluster"),
        (lambda: influences(M, Y, clusters=np.zeros(7, int)), "clusters.*shape"),
        (lambda: influences(M, Y, out=_read_only(np.empty((6, 3), np.float32))), "out.*read-only"),
        (lambda: influences([[1, 0], [1]], Y[:2]), "masks.*one length"),
        (lambda: influences(M, [[1.0, 2.0], [3.0]]), "outputs.*one length"),
        (lambda: influences(M, Y, clusters=[[1], [1, 2]]), "clusters.*one length"),
        (lambda: influences(M, Y, groups=6.0), "groups.*6.0 is not a whole number"),
        (lambda: influences(M, Y, groups="6"), "groups.*'6' is not a whole number"),
        (lambda: influences(M, Y, groups=0), "groups.*out of range"),
        (lambda: influences(design.bernoulli(6, 40), Y, groups=6.0), "groups.*whole"),
        (lambda: influences(_turning(4), Y[:4], "lasso", cv=5), "cv: 2 independent models.*5 folds.*ask for 2 folds"),
        (lambda: influences(_turning(4), Y[:4], "ridge", cv=5), "cv: 2 independent models.*5 folds.*ask for 2 folds"),
        (lambda: influences(M[[0, 0]] ^ [[False], [True]], Y[:2], "lasso"), "repeat or complement.*more different"),
        (lambda: influences(M, Y).contrast([[1], [1, 2]]), "weights.*one length"),
        (lambda: influences(M, Y).contrast(["a"] * 6), "weights.*dtype"),
        (lambda: models_for_effect(influences(M, Y), "1"), "effect"),
        (lambda: prediction_test([[1, 0], [1]], Y[:2, 0], Y[:2, 0]), "masks.*one length"),
        (lambda: prediction_test(M, [[1], [1, 2]], Y[:, 0]), "score.*one length"),
        (lambda: prediction_test(M, Y[:, 0], ["a"] * 40), "report.*dtype"),
        (lambda: prediction_test(M, Y, Y), "score.*shape"),
        (lambda: prediction_test(M, Y[:, 0], Y[:30, 0]), "report.*30"),
        (lambda: prediction_test(M, Y[:30, 0], Y[:30, 0]), "30 rows of outputs for 40 masks"),
        (lambda: prediction_test(M, Y[:, 0], np.where(np.arange(40) == 7, np.nan, 0)), "report, row 7.*nan"),
        (lambda: prediction_test(M, Y[:, 0], Y[:, 1], method="lasso"), "method.*ridge"),
        (lambda: prediction_test(M, Y[:, 0], Y[:, 1], folds=2.5), "folds.*2.5"),
        (lambda: prediction_test(M, Y[:, 0], Y[:, 1], folds=1), "folds.*1"),
        (lambda: prediction_test(M, Y[:, 0], Y[:, 1], permutations="9"), "permutations.*'9'"),
        (lambda: prediction_test(M, Y[:, 0], Y[:, 1], seed=-1), "seed.*-1"),
        (lambda: prediction_test(M, Y[:, 0], Y[:, 1], clusters=[[1], [1, 2]]), "clusters.*one length"),
        (lambda: influences(M[:1], Y[:1]), "in (no|every) model"),
    ],
)  # fmt: skip
def test_what_cannot_be_estimated_is_named(call: Any, names: str) -> None:
    with pytest.raises(EstimateError, match=names):
        call()


def test_ridge_lasso_and_difference_accept_fewer_models_than_groups() -> None:
    made = design.bernoulli(40, 20, 0.5, seed=1)
    outputs = planted(made)[0]
    for method in ("difference", "ridge", "lasso"):
        fit = influences(made, outputs, method)
        assert np.isfinite(fit.values).all()
        assert np.isfinite(fit.stderr).all()
        assert np.all(fit.stderr > 0)
        assert np.isfinite(fit.unbiased).all() == (method != "ridge")
    close(influences(made, outputs, "difference").values, oracle.difference(np.asarray(made), outputs))


def test_threads_and_order_of_targets_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = design.bernoulli(9, 60, 0.5, seed=1)
    outputs = planted(made, targets=33)[0].astype(np.float32)
    fit = influences(made, outputs, "ols")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    np.testing.assert_array_equal(influences(made, outputs, "ols").values, fit.values)
    assert _core.gram(made.packed(), 9, 1).trace() == np.asarray(made).sum()
