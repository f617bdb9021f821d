"""Estimates in tiles of targets: the same in any tiling, little memory, float32 where it is enough; LASSO in detail."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle_estimate as oracle
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pydt import Design, design, influences
from pydt.base import EstimateError
from pydt.base import parallel as cores
from pydt.estimation import ESTIMATORS, backend
from pydt.estimation import influence as estimate
from pydt.estimation.inputs import read_masks

BOUND = 15 * 2.0**-24  # of the core's float32 sums, times the sum of |output - shift|
NAMES = (
    *("values", "unbiased", "stderr", "q", "df", "noise", "explained", "penalty", "gap", "iterations", "converged"),
    *("placebo_values", "placebo_stderr", "placebo_df", "placebo_q", "training_noise", "mask_noise"),
)


def outputs_of(masks: Any, targets: int, r2: float | np.ndarray = 0.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.asarray(masks).astype(float)
    truth = rng.standard_normal((x.shape[1], targets)) * (rng.random((x.shape[1], targets)) < 0.2)
    truth[0] += 1
    truth *= np.sqrt(r2) / (x @ truth).std(0)
    return x @ truth + np.sqrt(1 - np.asarray(r2)) * rng.standard_normal((len(x), targets))


MASKS = {
    "bernoulli": design.bernoulli(12, 90, 0.4, seed=1),
    "foldover": design.foldover(12, 91, seed=1),
    "repeats": np.repeat(np.asarray(design.random(12, 40, 0.25, seed=2)), 2, axis=0),
}


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("kind", MASKS)
def test_any_tiling_gives_the_same(kind: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 64 targets; a NaN or infinity in any of them spoils its own target alone, or is named."""
    masks = MASKS[kind]
    clean = outputs_of(masks, 150).astype(np.float32)
    outputs = clean.copy()
    outputs[5, 3], outputs[0, 70], outputs[-1, 149] = np.nan, np.inf, np.nan
    bad = [3, 70, 149]
    whole = influences(masks, clean, method)
    if whole.converged is not None:
        assert whole.converged.all()
    monkeypatch.setattr(backend, "TILE_ENTRIES", 1)
    fit = influences(masks, outputs, method, nan="flag")
    for name in NAMES:
        found, expected = getattr(fit, name), getattr(whole, name)
        if expected is None:
            assert found is None, name
            continue
        good = np.setdiff1d(np.arange(150), bad)
        found_good, expected_good = (array[..., good].astype(np.float64) for array in (found, expected))
        np.testing.assert_allclose(found_good, expected_good, rtol=1e-5, atol=1e-7, err_msg=name)
        assert found.dtype.kind != "f" or np.isnan(found[..., bad]).all(), name
        assert found.dtype.kind != "b" or not found[bad].any(), name
    for row, target, count in ((5, 3, 3), (0, 70, 2), (len(clean) - 1, 149, 1)):
        with pytest.raises(EstimateError, match=rf"row {row}, target {target}: .*\({count} such targets\)"):
            influences(masks, outputs, method)
        outputs[row, target] = 0


def test_single_precision_is_enough_or_not_used() -> None:
    """From 256 groups on residuals are computed in float32, unless little is left of a target or it is out of range."""
    made = design.bernoulli(260, 900, 0.5, seed=1)
    masks = np.asarray(made)
    r2 = np.repeat([0.0, 0.5, 0.9, 0.98, 0.9999, 1.0], 3)
    outputs = outputs_of(made, 18, r2)
    outputs[:, 1] *= 1e17
    outputs[:, 4] *= 1e-17
    outputs[:, 7] = 3.5
    for dtype, close, of_noise in ((np.float64, 1e-6, 1e-6), (np.float32, 1e-6, 2e-4)):
        y = outputs.astype(dtype)
        fit = influences(made, y, "difference")
        slack = BOUND * np.abs(y.astype(float) - y[0].astype(float)).sum(0) if dtype == np.float32 else np.zeros(18)
        scale = (1 / masks.sum(0) + 1 / (~masks).sum(0)).max()
        values, errors = oracle.difference(masks, y), oracle.difference_errors(masks, y)
        assert np.all(np.abs(fit.values - values) <= close * np.abs(values).max(0) + scale * slack)
        sure = (r2 < 0.99 if dtype == np.float32 else r2 < 1) & (np.arange(18) != 7)
        np.testing.assert_allclose(fit.stderr[:, sure], errors[:, sure], rtol=of_noise, atol=0)
        np.testing.assert_allclose(fit.stderr[:, r2 == 0.9999], errors[:, r2 == 0.9999], rtol=10 * of_noise)
        assert np.isnan(fit.stderr[:, 7]).all()
        assert np.isfinite(fit.q).all()


def test_memory_is_that_of_the_result(tmp_path: Path) -> None:
    """Outputs in a float16 memory map, 2,000 models x 6,000 targets: as float64 they would take 96 MB."""
    made = design.bernoulli(100, 2000, 0.5, seed=1, placebos=0)
    mapped = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float16, (2000, 6000))
    rng = np.random.default_rng(0)
    for start in range(0, 6000, 500):
        mapped[:, start : start + 500] = rng.standard_normal((2000, 500))
    masks = made.packed()
    for method, arrays in (("difference", 2), ("lasso", 3)):
        influences(masks, mapped[:, :5], method, groups=100)
        tracemalloc.start()
        fit = influences(masks, mapped, method, groups=100)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        result = arrays * fit.values.nbytes
        assert peak < 1.3 * result + 60e6, (method, peak / 1e6)
        np.testing.assert_allclose(
            fit.values[:, 4000:4003], influences(made, mapped[:, 4000:4003], method).values, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.1])
@pytest.mark.parametrize(
    "made",
    [design.bernoulli(30, 120, 0.5, seed=2), design.random(60, 40, 0.3, seed=2), design.random(24, 99, 0.25, seed=3)],
    ids=["m>K", "m<K", "one size"],
)
def test_lasso_and_elastic_net_are_optimal_and_unbiased_as_defined(made: Design, l1_ratio: float) -> None:
    """KKT conditions at the values; the cross-fitted estimate and its errors against scikit-learn's fits by fold."""
    masks = np.asarray(made)
    outputs = outputs_of(made, 4, 0.7)
    for cv in (None, 5, 3):
        fit = influences(masks, outputs, "lasso", cv=cv, l1_ratio=l1_ratio, errors="classical")
        assert fit.penalty is not None
        assert fit.gap is not None
        assert fit.converged is not None
        assert fit.iterations is not None
        assert fit.converged.all()
        assert fit.iterations.max() > 0
        assert np.all(fit.gap <= 1e-5)
        miss = oracle.elastic_net_violation(masks, outputs, fit.penalty, l1_ratio, fit.values.astype(np.float64))
        assert miss.max() < 0.02, miss
        fold = read_masks(masks).folds(5)
        values, errors = oracle.debiased_lasso(masks, outputs, fit.penalty, fold, l1_ratio)
        np.testing.assert_allclose(fit.unbiased, values, atol=0.02 * errors.max())
        np.testing.assert_allclose(fit.stderr, errors, rtol=5e-3)


def test_a_ridge_like_net_shrinks_but_drops_nothing_it_needs() -> None:
    made = design.bernoulli(20, 200, 0.5, seed=2)
    outputs = outputs_of(made, 6, 0.9)
    full, net = (influences(made, outputs, "lasso", l1_ratio=ratio) for ratio in (1.0, 0.05))
    assert (net.values != 0).sum() >= (full.values != 0).sum()
    for wrong in (0, 1.1, "half", np.nan):
        with pytest.raises(EstimateError, match="l1_ratio"):
            influences(made, outputs, "lasso", l1_ratio=wrong)  # type: ignore[arg-type]
    with pytest.raises(EstimateError, match=r"l1_ratio: ols has no .*leave it out"):
        influences(made, outputs, "ols", l1_ratio=0.5)


def test_lasso_of_groups_that_cannot_be_told_apart() -> None:
    """Equal and complementary columns: no OLS, but the LASSO has a solution, and says how near it is."""
    masks = np.asarray(design.bernoulli(20, 150, 0.5, seed=1)).copy()
    masks[:, 7], masks[:, 11] = masks[:, 3], ~masks[:, 3]
    outputs = outputs_of(masks, 5, 0.6)
    outputs[:, 2] = 4.0
    fit = influences(masks, outputs, "lasso")
    assert fit.gap is not None
    assert fit.converged is not None
    assert fit.penalty is not None
    assert fit.converged.all()
    assert np.all(fit.values[:, 2] == 0)
    assert np.all(fit.gap <= 1e-5)
    some = [0, 1, 3, 4]
    miss = oracle.elastic_net_violation(masks, outputs[:, some], fit.penalty[some], 1.0, fit.values[:, some])
    assert miss.max() < 0.02


def test_what_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydt.estimation.estimators import lasso as penalised

    made = design.bernoulli(20, 150, 0.5, seed=1)
    outputs = outputs_of(made, 5, 0.6)
    assert influences(made, outputs, "lasso").converged.all()  # type: ignore[union-attr]
    monkeypatch.setattr(penalised, "CONVERGED", 1e-30)
    monkeypatch.setattr(penalised, "FINE", 0.5)
    fit = influences(made, outputs, "lasso")
    assert fit.converged is not None
    assert not fit.converged.any()


def test_fewer_folds_choose_on_whole_clusters() -> None:
    made = design.foldover(10, 64, seed=1)
    outputs = outputs_of(made, 3)
    for method in ("ridge", "lasso"):
        fits = [influences(made, outputs, method, cv=cv) for cv in (2, 5)]
        assert all(np.isfinite(fit.values).all() for fit in fits)


@pytest.mark.parametrize("kind", ["random", "bernoulli"])
def test_variance_between_retrainings_and_between_masks(kind: str) -> None:
    """By the formula, for masks trained once to five times; and unbiased over fresh designs and noise."""
    sizes = np.random.default_rng(3).integers(1, 6, 40)
    masks = np.repeat(np.asarray(getattr(design, kind)(8, 40, 0.4, seed=2)), sizes, axis=0)
    outputs = outputs_of(masks, 4)
    for method in ESTIMATORS:
        fit = influences(masks, outputs, method)
        training, between = oracle.variance_parts(masks, outputs)
        assert fit.training_noise is not None
        assert fit.mask_noise is not None
        np.testing.assert_allclose(fit.training_noise, training, rtol=1e-9)
        np.testing.assert_allclose(fit.mask_noise, between, rtol=1e-6, atol=1e-9)

    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        each = np.unique(np.asarray(getattr(design, kind)(12, 44, 0.4, seed=seed)), axis=0)
        rows = np.repeat(np.arange(len(each)), rng.integers(1, 4, len(each)))
        own = np.sqrt(2.0) * rng.standard_normal((len(each), 50))
        y = (each @ rng.standard_normal((12, 50)) + own)[rows] + rng.standard_normal((len(rows), 50))
        fit = influences(each[rows], y, "ols")
        found.append((fit.training_noise, fit.mask_noise))
    training, between = np.mean(found, axis=(0, 2))
    assert abs(training - 1) < 0.03
    assert abs(between - 2) < 0.1


def test_variance_parts_of_pairs_hold_what_complements_do_not_share() -> None:
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        half = np.asarray(design.bernoulli(10, 40, 0.5, seed=seed, placebos=0))
        half = np.unique(half ^ half[:, :1], axis=0)  # without group 0: no two are complements
        half, n = half ^ (rng.random((len(half), 1)) < 0.5), len(half)
        masks, pair = (
            np.repeat(np.stack([half, ~half], axis=1).reshape(2 * n, 10), 2, axis=0),
            np.repeat(np.arange(n), 4),
        )
        sign = np.where(np.arange(4 * n) // 2 % 2, -1.0, 1.0)[:, None]
        odd, even = np.sqrt(0.5) * rng.standard_normal((n, 50)), 3 * rng.standard_normal((n, 50))
        y = masks @ rng.standard_normal((10, 50)) + sign * odd[pair] + even[pair] + rng.standard_normal((4 * n, 50))
        fit = influences(masks, y, "ols")
        found.append((fit.training_noise, fit.mask_noise))
    training, between = np.mean(found, axis=(0, 2))
    assert abs(training - 1) < 0.03
    assert abs(between - 0.5) < 0.03


def test_nothing_repeats_nothing_is_split() -> None:
    made = design.bernoulli(12, 60, 0.5, seed=1)
    for method in ESTIMATORS:
        fit = influences(made, outputs_of(made, 2), method)
        assert fit.training_noise is None
        assert fit.mask_noise is None
    few = np.repeat(np.asarray(design.bernoulli(30, 20, 0.5, seed=1)), 2, axis=0)
    fit = influences(few, outputs_of(few, 2), "lasso")
    assert fit.training_noise is not None
    assert fit.mask_noise is None  # 20 masks cannot say what is linear in 30 groups


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_sixteen_bits_cost_what_is_said(dtype: type) -> None:
    made = design.bernoulli(50, 600, 0.4, seed=1)
    outputs = (outputs_of(made, 300) + 5).astype(dtype)
    outputs[7, 4] = np.nan
    outputs[:, 9] = 2.5
    exact, coarse = (influences(made, outputs, nan="flag", precision=p) for p in ("float", "int16"))
    assert exact.quantisation is None
    assert coarse.quantisation is not None
    good = np.setdiff1d(np.arange(300), [4, 9])
    off = (coarse.values - exact.values)[:, good] / exact.stderr[:, good]
    said = coarse.quantisation[good]
    assert 0.001 < said.max() < 0.02
    assert 0.5 < np.sqrt((off**2).mean()) / np.sqrt((said**2).mean()) <= 1.05
    np.testing.assert_allclose(coarse.stderr[:, good], exact.stderr[:, good], rtol=1e-3)
    assert np.isnan(coarse.values[:, 4]).all()
    assert np.isnan(coarse.quantisation[4])
    assert np.all(coarse.values[:, 9] == 0)
    assert coarse.quantisation[9] == 0
    pairs = design.foldover(20, 101, seed=1)
    y = outputs_of(pairs, 5).astype(dtype)
    np.testing.assert_allclose(influences(pairs, y, precision="int16").values, influences(pairs, y).values, atol=2e-3)
    for wrong in (
        lambda: influences(made, outputs, "ols", precision="int16"),
        lambda: influences(made, outputs, precision="f8"),
    ):
        with pytest.raises(EstimateError, match="precision"):
            wrong()


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_of_any_scale_are_estimated_or_refused(method: str, dtype: type) -> None:
    made = design.random(6, 40, seed=1)
    outputs = outputs_of(made, 3)
    base, near = influences(made, outputs, method), 1e-3 if method == "lasso" else 1e-5  # to the solver's gap of 1e-6
    for scale in (1e-30, 1e-10, 1e10, 1e30):
        fit = influences(made, (outputs * scale).astype(dtype), method)
        for name in ("values", "stderr"):
            np.testing.assert_allclose(getattr(fit, name) / scale, getattr(base, name), rtol=2e-4, atol=near)
    huge = (outputs / np.abs(outputs).max() * (3e38 if dtype == np.float32 else 1e39)).astype(dtype)
    huge[:, 1] = outputs[:, 1]
    with pytest.raises(EstimateError, match=r"outputs, row \d+, target 0: the output is too large"):
        influences(made, huge, method)
    fit = influences(made, huge, method, nan="flag")
    assert np.isnan(fit.values[:, [0, 2]]).all()
    np.testing.assert_allclose(fit.values[:, 1], base.values[:, 1], rtol=2e-4, atol=near)


def test_rounding_costs_infinitely_much_where_nothing_is_left_to_err_by() -> None:
    masks = np.array([[1], [0]] * 6)
    fit = influences(masks, masks[:, 0] + 1.0, precision="int16")
    np.testing.assert_array_equal(fit.values, [1])
    assert fit.quantisation == np.inf


def test_noise_of_ridge_is_that_of_its_residual_even_where_it_nearly_interpolates() -> None:
    made = design.bernoulli(60, 40, 0.5, seed=0)
    outputs = outputs_of(made, 200)
    fit = influences(made, outputs, "ridge")
    assert fit.penalty is not None
    centred = np.asarray(made) - np.asarray(made).mean(0)
    for j, penalty in enumerate(fit.penalty):
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * np.eye(60), centred.T) + 1 / 40
        off = np.eye(40) - hat
        np.testing.assert_allclose(fit.noise[j], ((off @ outputs[:, j]) ** 2).sum() / (off**2).sum(), rtol=1e-4)
    assert (fit.df == 1).any()  # such fits are there


def test_two_independent_models_are_too_few_for_the_lasso() -> None:
    with pytest.raises(EstimateError, match="2 independent models have no spread"):
        influences(np.eye(2), [1.0, 2.0], "lasso", clusters=[0, 1])


def test_results_go_where_no_outputs_are() -> None:
    shared = outputs_of(MASKS["bernoulli"], 3).astype(np.float32)
    with pytest.raises(EstimateError, match="out: lies in the memory of the outputs"):
        influences(MASKS["bernoulli"], shared, out=shared[:12])
    both = np.zeros((90, 6), np.float32)
    both[:, ::2] = shared
    influences(MASKS["bernoulli"], both[:, ::2], out=both[:12, 1::2])  # columns that take turns
    np.testing.assert_array_equal(both[:12, 1::2], influences(MASKS["bernoulli"], shared).values)
    np.testing.assert_array_equal(both[:, ::2], shared)


@pytest.mark.parametrize("cv", [None, 5])
def test_ridge_on_masks_of_one_size_keeps_rounding_out_of_the_mean(cv: int | None) -> None:
    """No mask varies along (1, ..., 1): the penalty alone would divide what float32 sums leave there, by 1/1000 of what
    it is elsewhere. (0.03 and 1.5e-4 before it was taken out.)"""
    made = design.random(200, 1500, 0.5, seed=1)
    outputs = outputs_of(made, 20, r2=0.9999).astype(np.float32)
    fit, exact = (influences(made, y, "ridge", cv=cv) for y in (outputs, outputs.astype(np.float64)))
    assert fit.penalty is not None
    assert (fit.penalty < 1e-2 * 1500 / 4).all()
    assert np.abs(fit.values.sum(0, dtype=np.float64)).max() < 1e-5 * np.abs(fit.values).max() * 200
    np.testing.assert_allclose(fit.values, exact.values, atol=1e-5 * np.abs(fit.values).max())


def blas_threads() -> list[int]:
    """Of numpy's BLAS; SciPy's own may be loaded later than the first fit, and no fit uses it."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return [library["num_threads"] for library in libraries if "scipy.libs" not in library["filepath"]]


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four cores, tiles of 64 targets, BLAS on two threads."""
    monkeypatch.setattr(cores, "available", lambda: 4)
    monkeypatch.setattr(backend, "TILE_ENTRIES", 1)
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.mark.parametrize("method", ESTIMATORS)
def test_tiles_side_by_side(method: str, four_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits from four threads as from one. BLAS has one thread meanwhile, and then its own again."""
    masks, outputs = MASKS["bernoulli"], outputs_of(MASKS["bernoulli"], 700).astype(np.float32)
    monkeypatch.setattr(cores, "available", lambda: 1)
    alone = influences(masks, outputs, method)
    monkeypatch.setattr(cores, "available", lambda: 4)
    seen, split = [], estimate.noise_parts

    def look(*given: Any) -> Any:
        seen.append(({*blas_threads()}, cores.threads()))
        return split(*given)

    monkeypatch.setattr(estimate, "noise_parts", look)
    together = influences(masks, outputs, method)
    for name in NAMES:
        found, expected = getattr(together, name), getattr(alone, name)
        assert (found is expected is None) or np.array_equal(found, expected, equal_nan=True), name
    assert seen == [({1}, 4)] + 10 * [({1}, 1)]  # the first tile is alone
    assert {*blas_threads()} == {2}


def test_an_error_in_a_tile_ends_all_and_gives_blas_its_threads_back(
    four_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = outputs_of(MASKS["bernoulli"], 6400).astype(np.float32)
    seen = []

    def fail(*given: Any) -> Any:
        seen.append(given)
        if len(seen) == 3:
            raise OverflowError("third tile")
        return None, None

    monkeypatch.setattr(estimate, "noise_parts", fail)
    with pytest.raises(OverflowError, match="third tile"):
        influences(MASKS["bernoulli"], outputs)
    assert len(seen) < 20
    assert {*blas_threads()} == {2}
    outputs[5, 3000] = np.nan
    with pytest.raises(EstimateError, match="target 3000"):  # from where tiles are made
        influences(MASKS["bernoulli"], outputs)
    assert {*blas_threads()} == {2}


def test_blas_gets_its_threads_back_when_the_last_is_done(four_cores: None) -> None:
    with cores.one_blas_thread():
        first = cores.one_blas_thread()
        first.__enter__()
    assert {*blas_threads()} == {1}
    first.__exit__(None, None, None)
    assert {*blas_threads()} == {2}


def test_masked_entries_are_not_taken_for_numbers() -> None:
    made = design.bernoulli(5, 60, 0.5, seed=1)
    outputs = np.ma.array(np.arange(60.0), mask=np.arange(60) == 7)
    with pytest.raises(EstimateError, match=r"outputs: has masked entries.*filled"):
        influences(made, outputs)
    whole = np.ma.array(np.arange(60.0), mask=np.zeros(60, bool))
    np.testing.assert_array_equal(influences(made, whole).values, influences(made, np.arange(60.0)).values)


@pytest.mark.parametrize("name", ["method", "precision", "nan"])
def test_words_must_be_words(name: str) -> None:
    given: Any = {name: np.array(["a", "b"])}
    with pytest.raises(EstimateError, match=f"unknown {name}"):
        influences(np.eye(4, dtype=bool), np.arange(4.0), **given)
