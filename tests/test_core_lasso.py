"""The LASSO and the elastic net on a Gram matrix. Imports nothing but the core and numpy, so that it runs under a
sanitizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle_lasso as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pydt import _core

Array = NDArray[np.float64]
SIZES = st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 31, 37])
RATIOS = st.sampled_from([1.0, 0.9, 0.5, 0.05])


def top(cross: Array, l1_ratio: float) -> Array:
    return np.abs(cross).max(0) / l1_ratio


def check(
    gram: Array, cross: Array, energy: Array, penalty: Array, l1_ratio: float, found: tuple[Any, ...], bound: float
) -> None:
    """Gap as reported, small, and the conditions of a minimum, target by target."""
    values, gap = found[0].astype(np.float64), found[1]
    for j in range(cross.shape[1]):
        one = (gram, cross[:, j], float(penalty[j]), l1_ratio, values[:, j])
        own = oracle.gap(gram, cross[:, j], float(energy[j]), float(penalty[j]), l1_ratio, values[:, j])
        assert gap[j] == pytest.approx(own, rel=1e-3, abs=1e-12)
        assert gap[j] <= bound
        # half the energy times the gap bounds the objective, and curvature <= diag G turns that into slopes
        allowed = 2 * np.sqrt(energy[j] * bound * np.diag(gram).max()) + 1e-6 * np.abs(cross[:, j]).max()
        assert oracle.kkt(*one) <= allowed


@given(groups=SIZES, targets=SIZES, ratio=RATIOS, share=st.sampled_from([0.9, 0.3, 0.05]), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_one_penalty(groups: int, targets: int, ratio: float, share: float, seed: int) -> None:
    gram, cross, energy = oracle.problem(groups, 60, targets, seed)
    penalty = share * top(cross, ratio)
    found = _core.lasso(gram, cross, energy, penalty, l1_ratio=ratio)
    assert found[0].shape == (groups, targets)
    assert found[0].dtype == np.float32
    check(gram, cross, energy, penalty, ratio, found, 1e-6)


@given(groups=SIZES, targets=SIZES, ratio=RATIOS, seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_path(groups: int, targets: int, ratio: float, seed: int) -> None:
    everything = oracle.problem(groups, 80, targets, seed, held=40)
    (gram, cross, energy), held = everything[:3], everything[3:]
    steps = np.geomspace(1, 0.02, 20)
    error, values, gap, nonzeros = _core.lasso_path(*everything, steps, l1_ratio=ratio)
    assert error.shape == nonzeros.shape == (20, targets)
    check(gram, cross, energy, steps[error.argmin(0)] * top(cross, ratio), ratio, (values, gap), 1e-6)
    expected, found = oracle.path(gram, cross, held, steps, ratio)
    assert (np.abs(error - expected) <= 1e-3 * held[2]).all()
    best = found[error.argmin(0), :, np.arange(targets)].T
    assert (np.abs(values - best).max(0) <= 5e-3 * np.abs(found).max((0, 1)) + 1e-9).all()
    assert (nonzeros[0] <= 1).all()


def test_patience() -> None:
    problem, steps = oracle.problem(30, 100, 6, 0, held=50), np.geomspace(1, 1e-3, 50)
    everything = _core.lasso_path(*problem, steps)
    assert np.isfinite(everything[0]).all()
    for patience in (1, 3, 8):
        error, values, _, nonzeros = _core.lasso_path(*problem, steps, patience=patience)
        for j in range(6):
            ran = int(np.isfinite(error[:, j]).sum())
            least = error[:, j].argmin()
            assert ran == min(50, least + patience + 1)
            assert np.isinf(error[ran:, j]).all()
            assert (nonzeros[ran:, j] == 0).all()
            np.testing.assert_array_equal(error[:ran, j], everything[0][:ran, j])
            assert np.count_nonzero(values[:, j]) == nonzeros[least, j]


def test_nan_stays_in_its_target() -> None:
    gram, cross, energy = oracle.problem(17, 60, 5, 0)
    penalty = 0.1 * top(cross, 1.0)
    clean = _core.lasso(gram, cross, energy, penalty)
    path = _core.lasso_path(gram, cross, energy, gram, cross, energy, np.geomspace(1, 0.01, 9))
    for wrong in (np.nan, np.inf):
        spoiled, noise, start = cross.copy(), energy.copy(), np.zeros((17, 5), np.float32)
        spoiled[3, 1], noise[2], start[5, 4] = wrong, wrong, wrong
        found = _core.lasso(gram, spoiled, noise, penalty, start)
        assert np.isnan(found[0][:, [1, 2, 4]]).all()
        assert np.isnan(found[1][[1, 2, 4]]).all()
        np.testing.assert_array_equal(found[0][:, [0, 3]], clean[0][:, [0, 3]])
        np.testing.assert_array_equal(found[1][[0, 3]], clean[1][[0, 3]])
        both = _core.lasso_path(gram, spoiled, noise, gram, cross, energy, np.geomspace(1, 0.01, 9))
        for part, whole in zip(both[:3], path[:3], strict=True):
            assert np.isnan(part[..., [1, 2]]).all()
            np.testing.assert_array_equal(part[..., [0, 3, 4]], whole[..., [0, 3, 4]])


@given(rows=SIZES, groups=SIZES, targets=SIZES, zeros=st.sampled_from([0.0, 0.7, 1.0]), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_sparse_product(rows: int, groups: int, targets: int, zeros: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gram = rng.normal(size=(rows, groups))
    values = (rng.normal(size=(groups, targets)) * (rng.random((groups, targets)) >= zeros)).astype(np.float32)
    out = _core.sparse_product(gram, values, 2)
    np.testing.assert_allclose(out, gram @ values.astype(np.float64), rtol=0, atol=1e-13 * groups)


GOOD = oracle.problem(4, 20, 3, 0)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"gram": np.zeros((4, 5))}, ValueError, "gram: has the shape"),
        ({"gram": np.full((4, 4), np.nan)}, ValueError, "gram: has a NaN"),
        ({"cross": np.zeros(4)}, ValueError, "cross: must have 2 dimensions"),
        ({"cross": np.zeros((4, 3), np.float32)}, TypeError, "cross: must be float64"),
        ({"energy": np.zeros(2)}, ValueError, "energy: has 2 entries"),
        ({"penalty": np.full(3, -1.0)}, ValueError, "penalty: has a negative"),
        ({"start": np.zeros((3, 4), np.float32)}, ValueError, "start: has the shape"),
        ({"start": np.zeros((4, 3))}, TypeError, "start: must be float32"),
        ({"l1_ratio": 0.0}, ValueError, "l1_ratio: "),
        ({"l1_ratio": 1.5}, ValueError, "l1_ratio: "),
        ({"tolerance": 0.0}, ValueError, "tolerance: "),
        ({"limit": -1}, ValueError, "limit: "),
        ({"threads": 0}, ValueError, "threads: "),
    ],
)
def test_wrong_arguments_of_lasso(change: dict[str, Any], error: type[Exception], text: str) -> None:
    right = dict(zip(("gram", "cross", "energy"), GOOD, strict=True)) | {"penalty": np.ones(3)}
    _core.lasso(**right)
    with pytest.raises(error, match=f"^{text}"):
        _core.lasso(**(right | change))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"held_gram": np.zeros((3, 3))}, ValueError, "held_gram: has the shape"),
        ({"held_gram": np.full((4, 4), np.inf)}, ValueError, "held_gram: has a NaN"),
        ({"held_cross": np.zeros((4, 2))}, ValueError, "held_cross: has the shape"),
        ({"held_energy": np.zeros(4)}, ValueError, "held_energy: has 4 entries"),
        ({"steps": np.zeros(0)}, ValueError, "steps: is empty"),
        ({"steps": np.array([1.0, 1.0])}, ValueError, "steps: must be"),
        ({"steps": np.array([1.0, np.nan])}, ValueError, "steps: must be"),
        ({"steps": np.array([1.0, 0.0])}, ValueError, "steps: must be"),
        ({"steps": np.array([np.inf, 1.0])}, ValueError, "steps: must be"),
        ({"patience": -1}, ValueError, "patience: "),
    ],
)
def test_wrong_arguments_of_the_path(change: dict[str, Any], error: type[Exception], text: str) -> None:
    names = ("gram", "cross", "energy", "held_gram", "held_cross", "held_energy")
    right = dict(zip(names, GOOD + GOOD, strict=True)) | {"steps": np.array([1.0, 0.5])}
    _core.lasso_path(**right)
    with pytest.raises(error, match=f"^{text}"):
        _core.lasso_path(**(right | change))


def test_wrong_arguments_of_the_product() -> None:
    values = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"^values: has the shape"):
        _core.sparse_product(np.zeros((2, 5)), values, 1)
    with pytest.raises(TypeError, match=r"^values: must be float32"):
        _core.sparse_product(np.zeros((2, 4)), values.astype(np.float64), 1)
    with pytest.raises(ValueError, match=r"^threads: "):
        _core.sparse_product(np.zeros((2, 4)), values, 0)
