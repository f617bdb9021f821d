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
        own = oracle.gap(gram, cross[:, j], float(energy[j]), float(penalty[j]), l1_ratio, values[:, j])
        assert gap[j] == pytest.approx(own, rel=1e-3, abs=1e-12)
        assert gap[j] <= bound
        # Half the energy times the gap bounds what a step along one group could gain, and its curvature turns that into
        # a slope. A small value cannot step further than to 0: there the gain is at least half of slope times value.
        edge, curve = penalty[j] * l1_ratio, np.diag(gram).max() + penalty[j] * (1 - l1_ratio)
        allowed = 2 * np.sqrt(energy[j] * bound * curve) + 1e-6 * np.abs(cross[:, j]).max()
        pull, b = oracle.slope(gram, cross[:, j], float(penalty[j]), l1_ratio, values[:, j]), values[:, j]
        assert np.all(np.abs(pull) - edge <= allowed)
        active = b != 0
        worst = np.maximum(allowed, energy[j] * bound / np.abs(b[active]))
        assert np.all(np.abs(pull - edge * np.sign(b))[active] <= worst)


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
@settings(max_examples=12, deadline=None)
def test_a_path(groups: int, targets: int, ratio: float, seed: int) -> None:
    everything = oracle.problem(groups, 80, targets, seed, held=40)
    (gram, cross, energy), held = everything[:3], everything[3:]
    steps = np.geomspace(1, 0.02, 20)
    error, values, gap, nonzeros = _core.lasso_path(*everything, steps, l1_ratio=ratio)
    assert error.shape == nonzeros.shape == (20, targets)
    check(gram, cross, energy, steps[error.argmin(0)] * top(cross, ratio), ratio, (values, gap), 1e-6)
    expected, found = oracle.path(gram, cross, held, steps, ratio)
    # steps are solved to a gap of 5e-6: values within sqrt(5e-6) of the outputs, errors within twice that
    assert (np.abs(error - expected) <= 5e-3 * held[2]).all()
    best = found[error.argmin(0), :, np.arange(targets)].T
    assert (np.abs(values - best).max(0) <= 5e-3 * np.abs(found).max((0, 1)) + 1e-9).all()
    assert (nonzeros[0] <= 1).all()


@pytest.mark.parametrize(("r2", "active", "rows"), [(0.5, 5, 500), (0.9, 30, 100), (0.3, 30, 100), (0.01, 1, 500)])
@pytest.mark.parametrize("patience", [1, 4, 60])
def test_where_a_path_ends(r2: float, active: int, rows: int, patience: int) -> None:
    problem = oracle.problem(30, rows, 12, 0, held=rows // 4, r2=r2, active=active)
    held, steps = problem[3:], np.geomspace(1, 1e-3, 60)
    everything = _core.lasso_path(*problem, steps)
    assert np.isfinite(everything[0]).all()
    error, values, _, nonzeros = _core.lasso_path(*problem, steps, patience=patience, held_rows=rows // 4)
    expected, found = oracle.path(*problem[:2], (held[0], held[1], held[2]), steps)
    apart = []
    for j in range(12):
        ran = int(np.isfinite(error[:, j]).sum())
        here = (held[0], held[1][:, j], held[2][j])
        apart.append(abs(ran - oracle.end(expected[:, j], found[:, :, j], here, patience, rows // 4)))
        assert np.isinf(error[ran:, j]).all()
        assert (nonzeros[ran:, j] == 0).all()
        np.testing.assert_array_equal(error[:ran, j], everything[0][:ran, j])
        assert np.count_nonzero(values[:, j]) == nonzeros[error[:, j].argmin(), j]
    assert np.mean(np.array(apart) <= 1) >= 0.75  # steps are solved roughly: a path may end a little off


def test_a_path_goes_on_where_nothing_is_found_yet() -> None:
    """Dense truths, few rows: the held-out error rises by chance before it falls. Patience alone ended here."""
    problem = oracle.problem(62, 68, 60, 5, held=17, r2=0.9, active=62, alpha=0.25)
    steps = np.geomspace(1, 1e-3, 150)
    full = _core.lasso_path(*problem, steps)[0]
    error, values, _, _ = _core.lasso_path(*problem, steps, patience=len(steps), held_rows=17)
    assert (error.min(0) <= full.min(0) * 1.02).mean() >= 0.95
    assert (values != 0).any(0).mean() >= 0.95
    first = np.array([np.flatnonzero(column < column[0])[0] for column in full.T if column.min() < column[0]])
    assert (first > 5).sum() >= 3  # otherwise the test could not fail


@pytest.mark.parametrize(
    ("groups", "rows", "r2", "alpha"),
    [(20, 160, 0.999, 0.1), (20, 160, 0.995, 0.5), (40, 160, 0.995, 0.25)],
)
def test_the_penalty_is_that_of_an_exact_path(groups: int, rows: int, r2: float, alpha: float) -> None:
    """At small penalties, where a gap that is small beside the outputs is large beside what they leave."""
    problem = oracle.problem(groups, rows, 40, 3, held=rows // 4, r2=r2, active=groups, alpha=alpha)
    steps = 0.01 ** (np.arange(150) / 99)
    exact, _ = oracle.path(*problem[:2], (problem[3], problem[4], problem[5]), steps)
    for patience, more in ((0, 1.002), (150, 1.002), (4, 1.02)):
        error, _, gap, _ = _core.lasso_path(*problem, steps, tolerance=1e-4, patience=patience, held_rows=rows // 4)
        chosen = error.argmin(0)
        assert (exact[chosen, np.arange(40)] <= exact.min(0) * more).all()
        assert np.mean(chosen == exact.argmin(0)) >= 0.8
        assert (gap <= 1e-4).all()


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
        ({"held_rows": 0}, ValueError, "held_rows: "),
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


def awkward(kind: str, targets: int, seed: int) -> tuple[Array, Array, Array]:
    """Problems on which simple solvers fail, scaled to a largest diagonal of about 1."""
    rng = np.random.default_rng(seed)
    rows, groups = (12, 31) if kind == "few rows" else (60, 17)
    x = (rng.random((rows, groups)) < 0.5).astype(np.float64)
    if kind == "duplicates":
        x[:, 9:13] = x[:, 3:4]
    if kind == "nearly the same":
        x = rng.normal(size=(rows, 1)) + 0.01 * rng.normal(size=(rows, groups))
    if kind == "sums of others":
        x[:, 5] = x[:, 0] + x[:, 1] - x[:, 2]
    if kind == "zero columns":
        x[:, [0, 7, 16]] = 1
    if kind == "rare":
        x[:, :8] = rng.random((rows, 8)) < 0.05
    if kind == "opposites":
        x[:, 8:16] = 1 - x[:, :8]
    y = x[:, :4] @ rng.normal(size=(4, targets)) + rng.normal(size=(rows, targets))
    return oracle.moments(x, y)


KINDS = ["duplicates", "nearly the same", "sums of others", "zero columns", "rare", "opposites", "few rows"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_awkward_groups(kind: str, ratio: float) -> None:
    gram, cross, energy = awkward(kind, 3, 1)
    gram[np.diag(gram) < 1e-15] = 0
    gram[:, np.diag(gram) == 0] = 0
    cross[np.diag(gram) == 0] = 0
    bound = 1e-4 if kind == "nearly the same" else 1e-6  # correlations of 0.9999: the limit ends it
    for share in (0.7, 0.1, 0.01):
        penalty = share * top(cross, ratio)
        found = _core.lasso(gram, cross, energy, penalty, l1_ratio=ratio, limit=20_000)
        check(gram, cross, energy, penalty, ratio, found, bound)
        assert (found[0][np.diag(gram) == 0] == 0).all()
    steps = np.geomspace(1, 0.05, 12)
    error, values, gap, _ = _core.lasso_path(
        gram, cross, energy, gram, cross, energy, steps, l1_ratio=ratio, limit=20_000
    )
    check(gram, cross, energy, steps[error.argmin(0)] * top(cross, ratio), ratio, (values, gap), bound)
    if kind != "nearly the same":  # the reference would take minutes
        expected, _ = oracle.path(gram, cross, (gram, cross, energy), steps, ratio)
        assert (np.abs(error - expected) <= 2e-3 * energy).all()


def test_too_few_passes_show_in_the_gap() -> None:
    gram, cross, energy = awkward("nearly the same", 5, 0)
    penalty = 1e-4 * top(cross, 1.0)
    values, gap, iterations = _core.lasso(gram, cross, energy, penalty, limit=3)
    assert (iterations <= 3).all()
    assert (gap > 1e-6).all()
    check(gram, cross, energy, penalty, 1.0, (values, gap), np.inf)
    start = np.ones((17, 5), np.float32)
    values, gap, iterations = _core.lasso(gram, cross, energy, penalty, start, limit=0)
    np.testing.assert_array_equal(values, start)
    assert (iterations == 0).all()
    check(gram, cross, energy, penalty, 1.0, (values, gap), np.inf)


@pytest.mark.parametrize("scale", [1e-60, 1e-18, 1e-7, 1e9, 1e30, 1e90])
def test_scales(scale: float) -> None:
    """Scaling outputs, or masks, by a power of ten scales the answer."""
    gram, cross, energy, *held = oracle.problem(20, 60, 7, 3, held=40)
    penalty, steps = 0.1 * top(cross, 1.0), np.geomspace(1, 0.01, 30)
    plain = _core.lasso(gram, cross, energy, penalty)[0].astype(np.float64)
    found = _core.lasso(gram * scale**2, cross * scale**2, energy * scale**2, penalty * scale**2)
    np.testing.assert_allclose(found[0], plain, rtol=1e-3, atol=1e-4)
    assert (found[1] <= 1e-6).all()
    if 1e-30 < scale < 1e30:  # beyond that the values are no float32
        found = _core.lasso(gram, cross * scale, energy * scale**2, penalty * scale)
        np.testing.assert_allclose(found[0] / scale, plain, rtol=1e-3, atol=1e-4)
        assert (found[1] <= 1e-6).all()
        small = held[0], held[1] * scale, held[2] * scale**2
        error, values, gap, _ = _core.lasso_path(gram, cross * scale, energy * scale**2, *small, steps)
        expected, plain, _, _ = _core.lasso_path(gram, cross, energy, *held, steps)
        np.testing.assert_allclose(error / scale**2, expected, rtol=1e-3)
        np.testing.assert_allclose(values / scale, plain, rtol=1e-2, atol=1e-3)
        assert (gap <= 1e-6).all()


def test_constant_targets_and_no_penalty() -> None:
    gram, cross, energy, *held = oracle.problem(9, 60, 4, 0, held=30)
    cross[:, 1], energy[1] = 0, 0
    cross[:, 2], energy[3] = 0, 0  # nothing to explain it with; no energy to explain
    values, gap, iterations = _core.lasso(gram, cross, energy, np.zeros(4))
    assert (values[:, 1:] == 0).all()
    assert (gap[1:] == 0).all()
    assert (iterations[1:] == 0).all()
    assert gap[0] >= 0
    error, values, gap, nonzeros = _core.lasso_path(gram, cross, energy, *held, np.geomspace(1, 0.1, 5), patience=2)
    assert (values[:, 1:] == 0).all()
    assert (gap[1:] == 0).all()
    assert (nonzeros[:, 1:] == 0).all()
    # all of the path: beside it stand those of other folds, where the target is not constant
    np.testing.assert_array_equal(error[:, 1:], np.broadcast_to(held[2][1:], (5, 3)))


def test_no_groups_and_no_targets() -> None:
    for groups, targets in [(0, 3), (4, 0), (0, 0)]:
        gram, cross, energy = np.zeros((groups, groups)), np.zeros((groups, targets)), np.zeros(targets)
        values, gap, iterations = _core.lasso(gram, cross, energy, energy)
        assert values.shape == (groups, targets)
        assert gap.shape == iterations.shape == (targets,)
        error, values, _, _ = _core.lasso_path(gram, cross, energy, gram, cross, energy, np.ones(1))
        assert error.shape == (1, targets)
        assert values.shape == (groups, targets)
        assert _core.sparse_product(gram, values, 1).shape == (groups, targets)


def test_bits_do_not_depend_on_threads_or_neighbours() -> None:
    gram, cross, energy, *held = oracle.problem(70, 120, 41, 0, held=60)
    penalty, steps = 0.1 * top(cross, 1.0), np.geomspace(1, 0.02, 20)
    start = _core.lasso(gram, cross, energy, 2 * penalty)[0]
    one = _core.lasso(gram, cross, energy, penalty, start), _core.lasso_path(gram, cross, energy, *held, steps)
    product = _core.sparse_product(gram, start, 1)
    for threads in (2, 5):
        for a, b in zip(one[0], _core.lasso(gram, cross, energy, penalty, start, threads=threads), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(one[1], _core.lasso_path(gram, cross, energy, *held, steps, threads=threads), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(product, _core.sparse_product(gram, start, threads))
    alone = [np.ascontiguousarray(part[..., 17:18]) for part in (cross, energy, penalty, start, *held[1:])]
    for a, b in zip(one[0], _core.lasso(gram, *alone[:4]), strict=True):
        np.testing.assert_array_equal(a[..., 17:18], b)
    path = _core.lasso_path(gram, *alone[:2], held[0], *alone[4:], steps)
    for a, b in zip(one[1], path, strict=True):
        np.testing.assert_array_equal(a[..., 17:18], b)


@given(
    groups=st.sampled_from([17, 240, 272, 300, 600]),
    r2=st.sampled_from([0.5, 0.98, 0.999]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
@settings(max_examples=12, deadline=None)
def test_bits_of_large_sets(groups: int, r2: float, seed: int, data: st.DataObject) -> None:
    """The bits of a target do not depend on the targets solved before it in its thread. From 256 candidates on, the
    padding of their matrix once kept values of the last target."""
    problem = oracle.problem(groups, groups + 200, 5, seed, held=100, r2=r2, active=groups)
    steps = np.geomspace(1, 0.01, 14)
    threads, patience = data.draw(st.sampled_from([1, 2, 3])), data.draw(st.sampled_from([0, 4]))
    order = data.draw(st.permutations(range(5)))[: data.draw(st.integers(1, 5))]

    def some(which: list[int]) -> list[Array]:
        parts = (np.ascontiguousarray(part[..., which]) for part in problem[1:3] + problem[4:])
        cross, energy, held_cross, held_energy = parts
        return [problem[0], cross, energy, problem[3], held_cross, held_energy]

    def path(which: list[int], threads: int) -> tuple[Any, ...]:
        found = _core.lasso_path(*some(which), steps, tolerance=1e-4, patience=patience, held_rows=100, threads=threads)
        penalty = 0.02 * top(problem[1][:, which], 1.0)
        return *found, *_core.lasso(*some(which)[:3], penalty, threads=threads)

    whole = path(list(range(5)), 1)
    for a, b in zip(whole, path(order, threads), strict=True):
        np.testing.assert_array_equal(a[..., order], b)


def test_any_number_of_threads_may_be_asked_for() -> None:
    penalty = np.full(3, 0.1)
    for a, b in zip(_core.lasso(*GOOD, penalty, threads=2**30), _core.lasso(*GOOD, penalty), strict=True):
        np.testing.assert_array_equal(a, b)


def test_many_groups_with_few_on_the_path() -> None:
    """Large enough for screening to leave most groups outside, and for the compact copies to grow."""
    gram, cross, energy, *held = oracle.problem(350, 800, 5, 0, held=300, active=30)
    steps = np.geomspace(1, 0.01, 40)
    error, values, gap, nonzeros = _core.lasso_path(gram, cross, energy, *held, steps)
    assert nonzeros[-1].max() > 256
    check(gram, cross, energy, steps[error.argmin(0)] * top(cross, 1.0), 1.0, (values, gap), 1e-6)
    expected, _ = oracle.path(gram, cross, (held[0], held[1], held[2]), steps[:16])
    np.testing.assert_allclose(error[:16], expected, rtol=2e-3)
