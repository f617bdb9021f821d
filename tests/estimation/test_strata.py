"""Influences from stratified designs: what is open stays open, and the errors are honest within strata."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from pydt import design, influences, prediction_test
from pydt.base import EstimateError
from pydt.estimation import best_method

LABEL = np.array([0, 1, 2, 0, 1, 0, 1, 1, 0, 1, 2, 2, 0, 1, 0, 1, 2, 0, 1, 0, 2])  # strata of 8, 8 and 5 groups


def centred(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Less the mean of the stratum."""
    sums = np.zeros((label.max() + 1, *values.shape[1:]))
    np.add.at(sums, label, values)
    counts = np.bincount(label).reshape(-1, *[1] * (values.ndim - 1))
    return values - (sums / counts)[label]


def test_ols_is_the_solution_of_least_norm_of_rank_groups_less_strata() -> None:
    rng = np.random.default_rng(0)
    made = design.random(21, 60, 0.4, 5, strata=LABEL)
    assert made.clusters.max() == 59, "no mask repeats"
    outputs = np.asarray(made) @ rng.standard_normal((21, 5)) + rng.standard_normal((60, 5))
    fit = influences(made, outputs, "ols", errors="classical")
    x = np.asarray(made) - np.asarray(made).mean(0)
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-10)
    values = inverse @ x.T @ outputs
    left = ((outputs - outputs.mean(0) - x @ values) ** 2).sum(0) / (60 - 1 - (21 - 3))
    np.testing.assert_allclose(fit.values, values, atol=1e-5)
    np.testing.assert_allclose(fit.stderr, np.sqrt(np.outer(np.diag(inverse), left)), rtol=1e-5)
    np.testing.assert_array_equal(fit.df, 60 - 1 - (21 - 3))
    assert fit.estimand == "swap"
    for method in ("ols", "ridge"):
        values = influences(made, outputs, method).values
        np.testing.assert_allclose(values, centred(values.astype(np.float64), LABEL), atol=1e-5)
    unbiased = influences(made, outputs, "lasso").unbiased
    np.testing.assert_allclose(unbiased, centred(unbiased.astype(np.float64), LABEL), atol=1e-5)
    contrast = np.zeros(21)
    contrast[[0, 3]] = 1, -1
    value, error = fit.contrast(contrast)
    np.testing.assert_allclose(value, fit.values[0] - fit.values[3], rtol=1e-5)
    np.testing.assert_allclose(error, np.sqrt(contrast @ inverse @ contrast * left), rtol=1e-5)


def test_one_stratum_is_none() -> None:
    rng = np.random.default_rng(1)
    made = design.random(15, 80, 0.4, 3, strata=np.zeros(15, int), placebos=0)
    outputs = rng.standard_normal((80, 3))
    for method in ("difference", "ols", "ridge", "lasso"):
        with_strata, without = (influences(masks, outputs, method) for masks in (made, np.asarray(made)))
        for name in ("values", "unbiased", "stderr", "df"):
            np.testing.assert_allclose(getattr(with_strata, name), getattr(without, name), rtol=1e-6, atol=1e-7)


def test_masks_alone_do_not_tell_their_strata() -> None:
    made = design.random(21, 80, 0.4, 3, strata=LABEL)
    outputs = np.random.default_rng(0).standard_normal(80)
    with pytest.raises(EstimateError, match=r"groups 0, .* cannot be told apart.*Design"):
        influences(np.asarray(made), outputs, "ols")
    assert best_method(made) == "ols"
    assert best_method(np.asarray(made)) == "lasso"
    with pytest.raises(EstimateError, match="30 models"):
        influences(design.random(60, 30, strata=np.arange(60) % 2), outputs[:30], "ols")


def test_the_global_test_takes_a_stratified_design() -> None:
    rng = np.random.default_rng(2)
    made = design.random(21, 200, 0.4, 3, strata=LABEL)
    signal = np.asarray(made) @ rng.standard_normal(21)
    halves = [signal + rng.standard_normal(200) for _ in range(2)]
    for method in ("ols", "ridge", "difference"):
        assert prediction_test(made, *halves, method=method, permutations=99).p == 0.01


@pytest.mark.parametrize(
    ("method", "models"), [("difference", 120), ("ols", 120), ("lasso", 120), ("lasso", 30), ("difference", 30)]
)
def test_coverage_within_strata(method: str, models: int) -> None:
    """20 targets on 30 fresh designs; strata of 4 to 16 groups, and large differences between strata."""
    label = np.repeat([0, 1, 2, 3], [4, 8, 12, 16])
    sizes = np.bincount(label)[label][:, None]
    inside, placebos = [], []
    for seed in range(30):
        rng = np.random.default_rng([seed, models])
        made = design.random(40, models, 0.25, seed, strata=label)
        effects = 0.4 * rng.standard_normal((40, 20))
        outputs = np.asarray(made) @ (effects + 3 * label[:, None]) + rng.standard_normal((models, 20))
        fit = influences(made, outputs, method)
        true = centred(effects, label)
        true = true * sizes / (sizes - 1) if method == "difference" else true
        inside.append(np.abs(fit.unbiased - true) <= special.stdtrit(fit.df, 0.975) * fit.stderr)
        assert fit.placebo_values is not None
        assert fit.placebo_stderr is not None
        assert fit.placebo_df is not None
        placebos.append(np.abs(fit.placebo_values) <= special.stdtrit(fit.placebo_df, 0.975) * fit.placebo_stderr)
    assert abs(np.mean(inside) - 0.95) < 0.02
    by_stratum = [np.mean(np.array(inside)[:, label == i]) for i in range(4)]
    assert min(by_stratum) > 0.915
    assert abs(np.mean(placebos) - 0.95) < 0.03
