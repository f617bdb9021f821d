"""The penalised methods where rows are few, fits are nearly exact, or targets stand in other company."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle_lasso as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt import design, influences
from pydt.base import EstimateError
from pydt.base import parallel as cores
from pydt.estimation import backend
from pydt.estimation.inputs import assign_folds

NAMES = ("values", "unbiased", "stderr", "df", "noise", "explained", "penalty", "gap", "iterations", "converged")


def outputs_of(masks: np.ndarray, targets: int, r2: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Dense truth (groups, targets) and outputs (models, targets)."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((masks.shape[1], targets))
    clean = masks @ truth
    return truth, clean + rng.standard_normal(clean.shape) * clean.std(0) * np.sqrt((1 - r2) / r2)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.divide((a * b).sum(0), size, out=np.zeros_like(size), where=size > 0)


@pytest.mark.parametrize(
    ("groups", "models", "r2", "alpha", "least"),
    [(62, 150, 0.5, 0.25, 0.71), (62, 85, 0.9, 0.25, 0.87), (100, 150, 0.9, 0.5, 0.9)],
)
@pytest.mark.parametrize("cv", [None, 3])
def test_dense_truths_are_found_in_few_rows(
    groups: int, models: int, r2: float, alpha: float, least: float, cv: int | None
) -> None:
    """A path that ends where the held-out error first rises leaves one such target in ten without any influence."""
    zero, close = [], []
    for seed in range(3):
        masks = np.asarray(design.random(groups, models, alpha, seed=seed, placebos=0)).astype(float)
        truth, outputs = outputs_of(masks, 50, r2, seed)
        fit = influences(masks, outputs, "lasso", cv=cv)
        assert fit.converged is not None
        assert fit.converged.all()
        zero.append((fit.values == 0).all(0))
        close.append(correlation(fit.values.astype(float), truth))
    assert np.mean(zero) <= 0.02
    assert np.mean(close) >= least


@pytest.mark.parametrize(("groups", "models", "r2"), [(30, 200, 0.995), (25, 600, 0.999)])
def test_the_penalty_is_that_of_exact_paths(groups: int, models: int, r2: float) -> None:
    """All five folds judge where models are few, the first of them elsewhere; paths in float64."""
    masks = np.asarray(design.bernoulli(groups, models, 0.4, seed=1, placebos=0)).astype(float)
    _, outputs = outputs_of(masks, 20, r2, 4)
    fit = influences(masks, outputs, "lasso")
    steps = 0.01 ** (np.arange(150) / 99)
    fold = assign_folds(np.arange(models), 5, seed=0)
    errors, tops = np.zeros((150, 20)), []
    for i in range(5 if models <= 500 else 1):
        train, held = fold != i, fold == i
        gram, cross, _ = oracle.moments(masks[train], outputs[train])
        x, y = masks[held] - masks[train].mean(0), outputs[held] - outputs[train].mean(0)
        errors += oracle.path(gram, cross, (x.T @ x, x.T @ y, (y**2).sum(0)), steps)[0]
        tops.append(np.abs(cross).max(0))
    wanted = np.mean(tops, 0) * steps[errors.argmin(0)]
    assert fit.penalty is not None
    assert np.mean(np.abs(np.log(fit.penalty / wanted)) < 1e-6) >= 0.75
    place = np.abs(np.log(fit.penalty / (np.mean(tops, 0) * steps[:, None]))).argmin(0)
    assert (errors[place, np.arange(20)] <= errors.min(0) * (1.005 if models <= 500 else 1.02)).all()


def test_a_target_that_one_fold_alone_sees() -> None:
    """Rare binary outputs: the rows that train one fold are all equal. Its error is the same for every penalty."""
    masks = np.asarray(design.bernoulli(10, 60, 0.5, seed=2, placebos=0))
    fold = assign_folds(np.arange(60), 5, seed=0)
    outputs = np.zeros((60, 2))
    outputs[:, 0] = masks @ np.arange(10)
    outputs[(fold == 3) & masks[:, 0], 1] = 1
    assert outputs[:, 1].any()
    fit = influences(masks, outputs, "lasso")
    assert np.isfinite(fit.values).all()
    assert np.isfinite(fit.stderr).all()
    assert fit.converged is not None
    assert fit.converged.all()


@given(
    kind=st.sampled_from(["random", "bernoulli", "foldover"]),
    size=st.sampled_from([(12, 60), (62, 150), (40, 620), (270, 600)]),
    alpha=st.sampled_from([0.25, 0.5]),
    r2=st.sampled_from([0.3, 0.98, 0.999]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
@settings(max_examples=12, deadline=None)
def test_a_target_is_the_same_in_any_company(
    kind: str, size: tuple[int, int], alpha: float, r2: float, seed: int, data: st.DataObject
) -> None:
    """Alone or beside others, in any order, in tiles of any width, on any number of cores."""
    drawn: Any = design.foldover(*size, seed=1) if kind == "foldover" else getattr(design, kind)(*size, alpha, seed=1)
    outputs = outputs_of(np.asarray(drawn).astype(float), 7, r2, seed)[1].astype(np.float32)
    whole = influences(drawn, outputs, "lasso")
    count, threads = data.draw(st.integers(1, 7)), data.draw(st.sampled_from([1, 2, 3]))
    order = data.draw(st.permutations(range(7)))[:count]
    among = np.ascontiguousarray(np.concatenate([outputs[:, order]] + 20 * [outputs[:, :3]], axis=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "available", lambda: threads)
        alone = influences(drawn, np.ascontiguousarray(outputs[:, order]), "lasso")
        patch.setattr(backend, "TILE_ENTRIES", 1)
        crowd = influences(drawn, among, "lasso") if size[0] < 100 else alone
    for name in NAMES:
        expected = getattr(whole, name)[..., order]
        np.testing.assert_array_equal(getattr(alone, name), expected, err_msg=name)
        np.testing.assert_array_equal(getattr(crowd, name)[..., :count], expected, err_msg=name)


def one_each(groups: int, repeats: int) -> np.ndarray:
    return np.repeat(np.eye(groups, dtype=bool), repeats, axis=0)


FEW = {
    "one group each": one_each(4, 20),
    "all groups but one": ~one_each(4, 20),
    "fewer masks than groups": np.repeat(np.random.default_rng(1).random((15, 20)) < 0.5, 4, axis=0),
    "pairs": np.repeat(np.r_[one_each(6, 1), ~one_each(6, 1)], 5, axis=0),
    "one size": np.repeat(np.asarray(design.random(10, 10, 0.5, seed=1, placebos=0)), 4, axis=0),
}


@pytest.mark.parametrize("kind", FEW)
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_ridge_where_masks_are_no_more_than_parameters(kind: str, noise: float) -> None:
    """Only the rows that repeat a mask tell what a fit leaves: penalty and noise come from them."""
    masks, rng = FEW[kind], np.random.default_rng(0)
    truth = np.linspace(-1, 1, masks.shape[1])
    outputs = (masks @ truth)[:, None] + noise * rng.standard_normal((len(masks), 400))
    fit = influences(masks, outputs, "ridge")
    spread, error = fit.values.std(1), np.sqrt((fit.stderr.astype(float) ** 2).mean(1))
    assert 0.8 <= np.median(error / spread) <= 1.25
    np.testing.assert_allclose(fit.noise.mean(), noise**2, rtol=0.05)
    if kind in ("one group each", "all groups but one"):
        np.testing.assert_allclose(fit.values.mean(1), truth, atol=4 * spread.max() / 20 + noise / 5)
        rows = influences(masks, outputs, "ridge", clusters=np.arange(len(masks)))
        np.testing.assert_allclose(fit.values, rows.values, atol=1e-3)
        np.testing.assert_allclose(fit.stderr, rows.stderr, rtol=0.05)
        np.testing.assert_allclose(fit.explained, rows.explained, atol=0.02)
        for method in ("ridge", "lasso"):
            with pytest.raises(EstimateError, match=r"cv: whichever of 4 folds.*never varies.*leave it out"):
                influences(masks, outputs, method, cv=4)


def test_lasso_where_no_fold_can_judge() -> None:
    """It shrinks next to nothing then; a guess from folds left all at 0."""
    masks, truth = FEW["one group each"], np.linspace(-1, 1, 4)
    outputs = (masks @ truth)[:, None] + 0.1 * np.random.default_rng(0).standard_normal((80, 5))
    fit = influences(masks, outputs, "lasso")
    np.testing.assert_allclose(
        fit.unbiased - fit.unbiased.mean(0), (truth - truth.mean())[:, None] + 0 * outputs[:4], atol=0.1
    )
    assert (correlation(fit.values.astype(float), np.tile(truth[:, None], 5)) > 0.99).all()
    assert np.isnan(fit.explained).all()
    assert fit.converged is not None
    assert fit.converged.all()
