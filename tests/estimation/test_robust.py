"""Standard errors that hold where groups change the variance of an output: against oracles, and over fresh designs."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import oracle_estimate as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import pydt
from pydt import Design, design, influences
from pydt.base import EstimateError
from pydt.estimation import backend, best_method, robust
from pydt.estimation.inputs import read_masks
from pydt.estimation.mask_geometry import Geometry

REPEATED = np.repeat(np.asarray(design.bernoulli(7, 40, 0.3, seed=2)), 1 + np.arange(40) % 3, axis=0)
DESIGNS: dict[str, Any] = {
    "bernoulli": design.bernoulli(9, 60, 0.25, seed=1),
    "one size": design.random(10, 60, 0.3, seed=1),
    "strata": design.random(12, 70, 0.25, seed=3, strata=np.arange(12) % 3),
    "repeats": REPEATED,
    "few models": design.random(20, 33, 0.25, seed=4),
}


def outputs_of(masks: Any, targets: int = 5, seed: int = 0) -> np.ndarray:
    """A dense linear truth, and noise whose standard deviation the first group doubles."""
    rng = np.random.default_rng(seed)
    kept = np.asarray(masks).astype(float)
    noise = rng.standard_normal((len(kept), targets)) * (1 + kept[:, :1])
    return 3 + kept @ rng.standard_normal((kept.shape[1], targets)) + noise


def reference(masks: Any, y: np.ndarray, pairs: bool = False) -> tuple[np.ndarray, np.ndarray]:
    x, z, _, _ = oracle.as_units(np.asarray(masks), y, pairs)
    return oracle.hc2(x, z, 0 if pairs else 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", DESIGNS)
def test_ols_has_the_errors_of_bell_and_mccaffrey(kind: str, dtype: type) -> None:
    masks = DESIGNS[kind]
    y = outputs_of(masks).astype(dtype)
    stderr, df = reference(masks, y)
    fit = influences(masks, y, "ols")
    assert fit.errors == "robust"
    np.testing.assert_allclose(fit.stderr, stderr, rtol=2e-6)
    np.testing.assert_allclose(fit.df, np.broadcast_to(df[:, None], fit.stderr.shape), rtol=1e-9)
    np.testing.assert_array_equal(fit.least_df, fit.df.min(0))
    one = influences(masks, y[:, 1], "ols")
    np.testing.assert_allclose(one.stderr, stderr[:, 1], rtol=2e-6)
    assert one.df.shape == one.stderr.shape
    p = 2 * special.stdtr(df[:, None], -np.abs(fit.values / stderr))
    for j in range(5):
        np.testing.assert_allclose(fit.q[:, j], oracle.benjamini_hochberg(p[:, j]), rtol=1e-4)


def test_ols_of_pairs_and_of_half_masks_is_classical_unless_asked() -> None:
    for made, pairs in ((design.foldover(8, 64, seed=1), True), (design.bernoulli(8, 64, 0.5, seed=1), False)):
        y = outputs_of(made)
        plain = influences(made, y, "ols")
        assert plain.errors == "classical"
        np.testing.assert_array_equal(plain.stderr, influences(made, y, "ols", errors="classical").stderr)
        stderr, df = reference(made, y, pairs)
        fit = influences(made, y, "ols", errors="robust")
        assert fit.errors == "robust"
        np.testing.assert_allclose(fit.stderr, stderr, rtol=2e-6)
        np.testing.assert_allclose(fit.df[:, 0], df, rtol=1e-9)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (design.bernoulli(40, 30, 0.5, seed=0), "classical"),
        (design.random(41, 300, 0.5, seed=0), "classical"),
        (design.bernoulli(40, 3000, 0.47, seed=0), "classical"),
        (design.bernoulli(40, 60, 0.3, seed=0), "robust"),
        (design.random(9, 100, 0.5, seed=0), "robust"),  # 4 of 9
        (design.random(60, 240, 0.5, seed=0, strata=np.arange(60) // 3), "robust"),  # 1 or 2 of each 3
        (design.random(60, 240, 0.5, seed=0, strata=np.arange(60) // 10), "classical"),
        (design.bernoulli(40, 3000, 0.4, seed=0), "robust"),
        (design.random(60, 60, 0.1, seed=0), "robust"),
        # one group in nearly every model, all others in half of them
        (np.c_[np.asarray(design.bernoulli(99, 200, 0.5, seed=0)), np.arange(200) % 10 > 0], "robust"),
    ],
)
def test_errors_are_classical_where_both_arms_weigh_alike(masks: Any, expected: str) -> None:
    y = np.random.default_rng(0).standard_normal(len(masks))
    for method in ("difference", "lasso"):
        assert influences(masks, y, method).errors == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["bernoulli", "one size", "repeats"])
def test_difference_has_the_errors_of_its_two_arms(kind: str, dtype: type) -> None:
    """Of columns more alike than independent draws (rho > 1), a part of what the others explain comes on top; of those
    less alike (rho < 0.9) only a part of it counts, and the rest of the error is that of what OLS leaves."""
    masks = DESIGNS[kind]
    y = outputs_of(masks).astype(dtype)
    x, z, root, kept = oracle.as_units(np.asarray(masks), y)
    stderr, df = oracle.welch(kept, z, root)
    rest = z - x @ np.linalg.pinv(x) @ z
    left = oracle.welch(kept, rest, root)[0] * np.sqrt((len(x) - 1) / (len(x) - np.linalg.matrix_rank(x)))
    geometry = Geometry(read_masks(masks))
    rho = float(geometry.rho[0])
    fit = influences(masks, y)
    assert fit.errors == "robust"
    more = max(rho - 1, 0) * (1 / fit.counts + 1 / (fit.models - fit.counts))[:, None]
    units = len(root)
    for k, column in enumerate(kept.T):
        inside = 0
        for arm in (column, ~column):
            mean = (root[arm, None] * z[arm]).sum(0) / (root[arm] ** 2).sum()
            inside = inside + ((z[arm] - root[arm, None] * mean) ** 2).sum(0)
        stderr[k] = np.sqrt(stderr[k] ** 2 + more[k] * np.maximum(inside / (units - 2) - fit.noise, 0))
    if rho < 0.9:
        stderr = np.sqrt(rho * stderr**2 + (1 - rho) * left**2)
    assert (rho < 0.9) == (kind != "bernoulli")
    np.testing.assert_allclose(fit.stderr, stderr, rtol=2e-5 if dtype == np.float32 else 2e-6)
    np.testing.assert_allclose(fit.df[:, 0], df, rtol=1e-9)


@pytest.mark.parametrize(
    "masks",
    [
        design.bernoulli(16, 90, 0.3, seed=1),
        design.random(24, 90, 0.25, seed=2),
        np.repeat(np.asarray(design.bernoulli(16, 50, 0.3, seed=3)), 1 + np.arange(50) % 3, axis=0),
    ],
    ids=["bernoulli", "one size", "repeats"],
)
def test_lasso_has_the_errors_of_its_residuals_two_arms(masks: Any) -> None:
    y = outputs_of(masks)
    fit = influences(masks, y, "lasso")
    assert fit.errors == "robust"
    kept = np.asarray(masks)
    rest = oracle.crossfit(kept, y, fit.penalty, pydt.estimation.inputs.read_masks(masks).folds(5))[1]
    _, z, root, units = oracle.as_units(kept, rest)
    stderr, df = oracle.welch(units, z, root)
    shrink = (kept.shape[1] - 1) / kept.shape[1] if fit.estimand == "swap" else 1.0
    np.testing.assert_allclose(fit.stderr, shrink * stderr, rtol=5e-3)
    np.testing.assert_allclose(fit.df[:, 0], df, rtol=1e-9)


@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
def test_placebos_have_the_errors_of_one_more_group(method: str) -> None:
    made = design.bernoulli(20, 90, 0.3, seed=4)
    y = outputs_of(made)
    fit = influences(made, y, method)
    assert fit.placebo_df is not None
    assert fit.placebo_df.shape == fit.placebo_stderr.shape
    if method == "ols":  # the residual and the leverage of the regression without it
        kept = np.asarray(made).astype(float)
        x = kept - kept.mean(0)
        hat = x @ np.linalg.pinv(x) + 1 / 90
        e, h = y - hat @ y, np.diag(hat)
        for j, column in enumerate(made.placebos.T):
            rest = column - hat @ column
            weight = (rest / (rest @ rest)) ** 2 / (1 - h)
            np.testing.assert_allclose(fit.placebo_stderr[j], np.sqrt(weight @ e**2), rtol=1e-5)
    elif method == "difference":
        stderr, df = oracle.welch(made.placebos, y, np.ones(90))
        assert np.all(fit.placebo_stderr > 0.999 * stderr)
        np.testing.assert_allclose(fit.placebo_df[:, 0], df, rtol=1e-9)
    assert np.isfinite(fit.placebo_q).all()


@given(groups=st.integers(2, 8), models=st.integers(14, 60), alpha=st.floats(0.15, 0.85), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_robust_errors_match_the_oracles_whatever_repeats(groups: int, models: int, alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((models, groups)) < alpha
    masks[:, 0] = np.arange(models) % 2
    y = rng.standard_normal((models, 3)) * (1 + masks[:, :1])
    units = len(np.unique(masks, axis=0))
    x = masks - masks.mean(0)
    full = groups - bool(np.all(masks.sum(1) == masks[0].sum()))
    alone = np.arange(models)  # every row its own unit
    if np.linalg.matrix_rank(x) < full or models - full - 1 < 2:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust, "_EVENTS", 0)  # a few large outputs are no rare events here
        fit = influences(masks, y, "ols", clusters=alone, errors="robust")
    assert np.isfinite(fit.stderr).all()
    hat = x @ np.linalg.pinv(x) + 1 / models
    if (np.diag(hat) < 1 - 1e-6).all():
        stderr, df = oracle.hc2(np.c_[np.ones(models), masks.astype(float)], y, 1)
        np.testing.assert_allclose(fit.stderr, stderr, rtol=1e-5)
        np.testing.assert_allclose(fit.df[:, 0], df, rtol=1e-6)
    if units > full + 3:
        own = influences(masks, y, "ols", errors="robust")
        assert own.stderr.shape == fit.stderr.shape
        assert np.isfinite(own.stderr).all()


def test_degrees_of_freedom_of_many_models_are_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made = design.random(20, 200, 0.25, seed=1)
    y = outputs_of(made)
    exact = influences(made, y, "ols")
    monkeypatch.setattr(robust, "EXACT_UNITS", 100)
    bound = influences(made, y, "ols")
    assert np.all(bound.df <= exact.df)
    assert np.all(bound.df > 0.8 * exact.df)
    np.testing.assert_array_equal(bound.stderr, exact.stderr)
    monkeypatch.setattr(robust, "KEPT_ENTRIES", 100)  # weights made anew for each tile
    np.testing.assert_array_equal(influences(made, y, "ols").stderr, exact.stderr)


@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
def test_tiles_and_neighbours_do_not_matter(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = design.random(12, 80, 0.25, seed=2)
    y = outputs_of(made, 200).astype(np.float32)
    whole = influences(made, y, method)
    some = influences(made, y[:, 40:110], method)
    monkeypatch.setattr(backend, "TILE_ENTRIES", 1)
    tiled = influences(made, y, method)
    np.testing.assert_allclose(some.stderr, whole.stderr[:, 40:110], rtol=1e-6)
    np.testing.assert_allclose(tiled.stderr, whole.stderr, rtol=1e-6)
    broken = y.copy()
    broken[3, 7] = np.nan
    fit = influences(made, broken, method, nan="flag")
    good = np.arange(200) != 7
    np.testing.assert_allclose(fit.stderr[:, good], whole.stderr[:, good], rtol=1e-6)
    for name in ("stderr", "df", "q", "placebo_stderr", "placebo_df"):
        assert np.isnan(getattr(fit, name)[:, 7]).all(), name


@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
@pytest.mark.parametrize("power", [-110, -70, 70, 110])
def test_the_unit_of_the_outputs_does_not_matter(method: str, power: int) -> None:
    """Squares of float32 outputs vanish or overflow long before the outputs do."""
    made = design.bernoulli(12, 80, 0.25, seed=2)
    y = outputs_of(made, 3).astype(np.float32)
    plain = influences(made, y, method)
    assert plain.errors == "robust"
    other = influences(made, y * np.float32(2.0**power), method)
    np.testing.assert_array_equal(other.stderr, plain.stderr * np.float32(2.0**power))
    np.testing.assert_array_equal(other.q, plain.q)


def test_a_fit_keeps_nothing_that_the_masks_decide() -> None:
    def held() -> int:
        gc.collect()
        return sum(type(one) in (robust.Sandwich, Geometry) for one in gc.get_objects())

    made, before = design.bernoulli(30, 400, 0.25, seed=2), held()
    fit = influences(made, outputs_of(made), "ols")
    assert held() == before
    assert np.isfinite(fit.contrast(np.eye(30)[0] - np.eye(30)[1])[1]).all()


def test_contrasts_read_the_residuals() -> None:
    """Of one group its own error; of several the sandwich of their sum; and never of other outputs."""
    made = design.bernoulli(20, 70, 0.25, seed=3)
    y = outputs_of(made)
    fit = influences(made, y, "ols")
    value, stderr = fit.contrast(np.eye(20))
    np.testing.assert_allclose(stderr, fit.stderr, rtol=1e-5)
    np.testing.assert_allclose(value, fit.values, rtol=1e-5)
    weights = np.r_[1, -0.5, -0.5, np.zeros(17)]
    kept = np.asarray(made).astype(float)
    x = kept - kept.mean(0)
    hat = x @ np.linalg.pinv(x) + 1 / 70
    e = y - hat @ y
    expected = np.sqrt((weights @ np.linalg.pinv(x)) ** 2 / (1 - np.diag(hat)) @ e**2)
    np.testing.assert_allclose(fit.contrast(weights)[1], expected, rtol=1e-6)
    one = influences(made, y[:, 2], "ols")
    np.testing.assert_allclose(one.contrast(weights)[1], expected[2], rtol=1e-6)
    y[3] += 1
    with pytest.raises(EstimateError, match=r"outputs: they were changed since the fit.*fit again"):
        fit.contrast(weights)


def test_what_robust_errors_cannot_be_had_for_is_named() -> None:
    made = design.bernoulli(6, 60, 0.3, seed=1)
    y = outputs_of(made)
    blocks = np.arange(60) // 3
    assert influences(made, y, "ols", clusters=blocks).errors == "clusters"
    assert influences(made, y, "ridge").errors == "classical"
    for call, names in (
        (lambda: influences(made, y, "ridge", errors="robust"), r'errors: ridge has none.*"ols"'),
        (lambda: influences(made, y, errors="white"), r"unknown errors 'white'.*auto, classical, robust"),
        (lambda: influences(made, y, errors=2), r"unknown errors 2"),
        (lambda: influences(made, y, clusters=blocks, errors="classical"), r"errors: clusters of your own"),
    ):
        with pytest.raises(EstimateError, match=names):
            call()


@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
@pytest.mark.parametrize("made", [design.random(4, 80, 0.25, seed=0), design.random(5, 60, 0.8, seed=0)])
def test_as_many_parameters_as_masks_leave_no_inference(made: Design, method: str) -> None:
    """Repeats of a mask share what it does by itself: their spread, however small, is no error of the groups."""
    rng = np.random.default_rng(0)
    label = np.unique(np.asarray(made), axis=0, return_inverse=True)[1].reshape(-1)
    y = rng.standard_normal((made.groups, 3))[label] + 0.001 * rng.standard_normal((len(made), 3))
    fit = influences(made, y, method)
    if method == "difference":  # one mask against the others': few degrees of freedom, but between masks
        assert fit.df.max() <= made.groups - 2
        assert fit.stderr.min() > 0.05
    else:
        assert fit.errors == "none"
        assert np.isfinite(fit.unbiased).all()
        assert np.isnan(fit.stderr).all()
        assert np.isnan(fit.q).all()
        assert np.isnan(fit.df).all()
    assert best_method(made) == "ols"
    apart = influences(made, y, "ols", clusters=np.arange(len(made)))
    assert np.isfinite(apart.stderr).all()


def test_two_masks_of_one_group_are_compared_and_of_two_groups_not() -> None:
    rng = np.random.default_rng(0)
    kept = np.arange(40) % 2 == 0
    y = rng.standard_normal(40) + kept
    alone = influences(kept[:, None], y, "ols")
    expected = np.sqrt((y[kept].var(ddof=1) + y[~kept].var(ddof=1)) / 2 * (1 / 20 + 1 / 20))
    np.testing.assert_allclose(alone.stderr, expected, rtol=1e-5)
    assert alone.df == 38
    some = np.arange(40) < 12
    for method in ("difference", "ols"):  # robust errors read the spread between masks: here there is none
        fit, classical = (influences(some[:, None], y, method, errors=errors) for errors in ("robust", "classical"))
        assert fit.errors == "classical"
        np.testing.assert_array_equal(fit.stderr, classical.stderr)
        assert fit.stderr[0] > 0.1
    for method in ("difference", "ols"):
        fit = influences(np.c_[kept, ~kept], y, method)
        assert fit.errors == "none"
        assert np.isnan(fit.stderr).all()


def test_clusters_of_whole_masks_leave_no_inference_either() -> None:
    """Residuals add up to nothing in each mask, so also in clusters of masks: an error of 0 where nothing is known."""
    made = design.random(4, 80, 0.25, seed=0)
    kept = np.asarray(made)
    y = outputs_of(kept)
    for method in ("difference", "ols"):
        fit = influences(made, y, method, clusters=kept[:, :2].any(1).astype(int))
        assert fit.errors == "none"
        assert np.isnan(fit.stderr).all()
        assert np.isnan(fit.df).all()
        assert np.isfinite(influences(made, y, method, clusters=np.arange(80) % 8).stderr).all()


@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
@pytest.mark.parametrize("alpha", [0.5, 0.25])
def test_what_never_varied_is_no_certainty(alpha: float, method: str) -> None:
    made = design.bernoulli(8, 80, alpha, seed=1)
    y = (np.random.default_rng(0).random((80, 4)) < 0.3).astype(float)
    y[:, 2] = 0
    fit = influences(made, y, method)
    assert np.isnan(fit.stderr[:, 2]).all()
    assert np.isnan(fit.placebo_stderr[:, 2]).all()
    assert np.all(fit.q[:, 2] == 1)
    assert np.isfinite(np.delete(fit.stderr, 2, axis=1)).all()
    contrast = fit.contrast(np.eye(8)[:2])[1]
    assert np.isnan(contrast[:, 2]).all()
    assert np.isfinite(np.delete(contrast, 2, axis=1)).all()


@pytest.mark.parametrize("method", ["difference", "ols"])
def test_an_arm_without_an_event_is_no_certainty(method: str) -> None:
    """A rare event that by chance met no model with a group: its error is not that of the other arm alone."""
    made = design.random(20, 120, 0.25, seed=1)
    kept = np.asarray(made)[:, 0]
    y = np.zeros(120)
    y[np.flatnonzero(~kept)[[3, 40, 70]]] = 1
    classical, found = (influences(made, y, method, errors=errors).stderr[0] for errors in ("classical", "auto"))
    assert found >= 0.98 * classical
    many = np.random.default_rng(0).standard_normal(120)  # no rare events: each arm speaks for itself
    many[kept] *= 0.1
    assert (
        influences(made, many, "difference").stderr[0]
        < influences(made, many, "difference", errors="classical").stderr[0]
    )


def test_a_group_of_one_model_keeps_the_classical_error() -> None:
    masks = np.asarray(design.bernoulli(6, 50, 0.3, seed=1)).copy()
    masks[:, 0] = np.arange(50) == 7
    y = outputs_of(masks)
    for method in ("difference", "ols"):
        fit = influences(masks, y, method, errors="robust")
        assert np.isfinite(fit.stderr).all()
        plain = influences(masks, y, method, errors="classical")
        np.testing.assert_allclose(fit.stderr[0], plain.stderr[0], rtol=0.25 if method == "difference" else 1e-5)


def simulate(made: Design, kind: str, rng: np.random.Generator, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and the influence of group 0: which doubles the noise's standard deviation, interacts with all other
    groups (what adding it does on average stays 0), or doubles the rate of an event of 2 in 100."""
    kept, alpha = np.asarray(made).astype(float), made.alpha
    models, groups = kept.shape
    if kind == "rare events":
        rate = 0.02 / (1 + alpha)
        return (rng.random((models, targets)) < rate * (1 + kept[:, :1])).astype(float), np.full(targets, rate)
    effects = rng.standard_normal((groups, targets)) * np.sqrt(0.4 / (groups * alpha * (1 - alpha)))
    noise = rng.standard_normal((models, targets))
    if kind == "variance":
        noise *= 1 + kept[:, :1]
    else:
        size = rng.standard_normal((groups - 1, targets))
        size /= np.sqrt((size**2).sum(0)) * alpha * (1 - alpha)
        noise += (kept[:, :1] - alpha) * ((kept[:, 1:] - alpha) @ size)
    return kept @ effects + noise, effects[0]


def coverage(kind: str, method: str, size: tuple[int, int, float], designs: int, errors: str) -> float:
    groups, models, alpha = size
    inside = []
    for seed in range(designs):
        rng = np.random.default_rng([seed, 11])
        made = design.bernoulli(groups, models, alpha, seed, placebos=0)
        y, truth = simulate(made, kind, rng, 3)
        fit = influences(made, y, method, errors=errors)
        reach = special.stdtrit(fit.df, 0.975) * fit.stderr
        inside += (np.abs(fit.unbiased - truth)[0] <= reach[0])[np.isfinite(reach[0])].tolist()
    return float(np.mean(inside))


@pytest.mark.parametrize("kind", ["variance", "interaction", "rare events"])
@pytest.mark.parametrize("method", ["difference", "ols"])
def test_intervals_cover_where_a_group_changes_the_variance(kind: str, method: str) -> None:
    """150 fresh designs, 60 groups of which a tenth is kept: classical ones cover 70 to 87 % (rare events: 94)."""
    share = coverage(kind, method, (60, 240, 0.1), 150, "auto")
    assert share > 0.90
    assert share < 0.985 or kind == "rare events"
    if kind != "rare events":
        assert coverage(kind, method, (60, 240, 0.1), 50, "classical") < 0.90


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["variance", "interaction", "rare events"])
@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
@pytest.mark.parametrize("size", [(60, 240, 0.25), (60, 240, 0.1), (62, 85, 0.25), (60, 240, 0.5)])
def test_intervals_cover_in_every_size(kind: str, method: str, size: tuple[int, int, float]) -> None:
    """300 fresh designs; bench/coverage.py has 2,000."""
    share = coverage(kind, method, size, 300, "auto")
    assert share > 0.90
    assert share < 0.985 or kind == "rare events"


@pytest.mark.parametrize("method", ["difference", "ols", "ridge", "lasso"])
@pytest.mark.parametrize("made", [design.random(30, 120, 0.25, seed=5), design.foldover(30, 160, seed=5)], ids=repr)
def test_bits_do_not_depend_on_threads_or_neighbours(
    method: str, made: Design, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last digit in float64 too: BLAS adds a narrow matrix in another order than a wide one."""
    y = outputs_of(made, 150)
    whole = influences(made, y, method)
    for some in (slice(37, 64), slice(149, 150), slice(20, 22), slice(None, None, -1)):
        part = influences(made, y[:, some], method)
        for name in ("values", "unbiased", "stderr", "noise", "explained"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[..., some], err_msg=name)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    alone = influences(made, y, method)
    np.testing.assert_array_equal(alone.stderr, whole.stderr)
    np.testing.assert_array_equal(alone.q, whole.q)


def test_bits_of_targets_that_are_judged_again_in_float64_do_not_depend_on_the_others() -> None:
    made = design.bernoulli(256, 600, 0.5, seed=2)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((600, 90)) * np.where(np.arange(90) % 3, 1, 0.01)  # every third leaves below 1 %
    y = (np.asarray(made) @ rng.standard_normal((256, 90)) / 16 + noise).astype(np.float32)
    whole = influences(made, y)
    assert 20 < (whole.explained > 0.99).sum() < 70
    for some in (slice(30, 31), slice(3, 60), slice(None, None, -1)):
        part = influences(made, y[:, some])
        for name in ("values", "stderr", "noise", "explained"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[..., some], err_msg=name)
