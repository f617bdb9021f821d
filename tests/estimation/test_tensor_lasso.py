"""The penalised solver and its paths on tensors: against coordinate descent in float64, against the core, and a pass
against a plain loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle_lasso as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import ElasticNet

from pydt import _core
from pydt.estimation import tensor_lasso
from pydt.estimation.tensor_lasso import array_step, lasso, lasso_path

Array = NDArray[np.float64]
KINDS = st.sampled_from([torch.float32, torch.float64])
BOTH = pytest.mark.parametrize("kind", [torch.float32, torch.float64])
SIZES = st.sampled_from([1, 2, 3, 8, 17, 31])
RATIOS = st.sampled_from([1.0, 0.5, 0.05])


def tensors(kind: torch.dtype, *arrays: Array) -> list[torch.Tensor]:
    return [torch.tensor(array, dtype=kind) for array in arrays]


def as_held(kind: torch.dtype, *arrays: Array) -> list[Array]:
    """The problem as tensors of this type hold it: it is this one that is solved."""
    return [tensor.double().numpy() for tensor in tensors(kind, *arrays)]


def top(cross: Array, l1_ratio: float = 1.0) -> Array:
    return np.abs(cross).max(0) / l1_ratio


def check(
    problem: tuple[Array, ...] | list[Array],
    penalty: Array,
    ratio: float,
    values: torch.Tensor,
    gap: torch.Tensor,
    tolerance: float = 1e-6,
) -> None:
    """The gap is the one of the values, it is within tolerance, and the values are as near the minimum as it says."""
    gram, cross, energy = problem
    found, best = values.double().numpy(), oracle.solve(gram, cross, penalty, ratio)
    for j in range(cross.shape[1]):
        own = oracle.gap(gram, cross[:, j], float(energy[j]), float(penalty[j]), ratio, found[:, j])
        assert float(gap[j]) == pytest.approx(own, rel=1e-3, abs=1e-12)
        left = energy[j] - 2 * found[:, j] @ cross[:, j] + found[:, j] @ gram @ found[:, j]
        left += penalty[j] * (1 - ratio) * (found[:, j] @ found[:, j])
        rounding = 2e-7 if values.dtype == torch.float64 else 5e-7  # what float32 values may cost at small penalties
        assert own <= max(tolerance * min(left / energy[j], 1), min(tolerance, rounding)) * 1.001
        apart = found[:, j] - best[:, j]  # half the curvature along it is at most the gap, which is over energy / 2
        curve = apart @ gram @ apart + penalty[j] * (1 - ratio) * (apart @ apart)
        assert curve <= energy[j] * (own + 1e-12)


@given(
    groups=SIZES, targets=SIZES, rows=st.sampled_from([5, 12, 60]), ratio=RATIOS, kind=KINDS,
    share=st.sampled_from([1.1, 0.9, 0.3, 0.05]), warm=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_one_penalty(
    groups: int, targets: int, rows: int, ratio: float, kind: torch.dtype, share: float, warm: bool, seed: int
) -> None:
    problem = as_held(kind, *oracle.problem(groups, rows, targets, seed))
    penalty = share * top(problem[1], ratio)
    start = torch.tensor(np.random.default_rng(seed).normal(size=(groups, targets)), dtype=kind) if warm else None
    values, gap, passes = lasso(*tensors(kind, *problem), torch.tensor(penalty), start, l1_ratio=ratio)
    assert values.dtype == kind
    assert (gap.dtype, passes.dtype) == (torch.float64, torch.int64)
    check(problem, penalty, ratio, values, gap)
    if share > 1:
        assert not values.any()


def usual(alpha: float, rows: int, r2: float, targets: int = 24) -> tuple[Array, ...]:
    return oracle.problem(60, rows, targets, 1, held=rows // 4, r2=r2, active=15, alpha=alpha)


HALVES, QUARTERS, EXACT, FEW = (0.5, 400, 0.5), (0.25, 400, 0.5), (0.5, 400, 0.99), (0.5, 45, 0.5)


@BOTH
@pytest.mark.parametrize("setting", [HALVES, QUARTERS, EXACT, FEW])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_a_path_is_that_of_the_core(setting: tuple[float, int, float], ratio: float, kind: torch.dtype) -> None:
    problem = as_held(kind, *usual(*setting))
    rows, targets = setting[1] // 4, 24
    steps = 0.01 ** (np.arange(66 if setting == FEW else 150) / 99)
    for patience in (0, 3):
        options = {"l1_ratio": ratio, "tolerance": 1e-4, "patience": patience, "held_rows": rows}
        error, values, gap = (part.numpy() for part in lasso_path(*tensors(kind, *problem), steps, **options))
        expected, core, _, _ = _core.lasso_path(*problem, steps, **options)
        assert values.dtype == core.dtype if kind == torch.float32 else np.float64
        ran, whole = np.isfinite(error), np.isfinite(expected)
        assert np.mean(ran.sum(0) == whole.sum(0)) >= 0.8
        assert np.abs(ran.sum(0) - whole.sum(0)).max() <= 3
        assert not np.diff(ran.astype(int), axis=0).max() > 0
        both = ran & whole
        apart = np.abs(np.where(both, error, 0) - np.where(both, expected, 0))
        # with fewer rows than groups a small gap says less about other rows, and both paths are solved to no more
        # than these rows can show
        most, bound, alike = (0.9, 3e-2, 0.7) if setting == FEW else (1, 5e-3, 0.85)
        assert (np.quantile(apart, most, axis=0) <= bound * problem[5]).all()
        chosen, other = error.argmin(0), expected.argmin(0)
        same = chosen == other
        assert same.mean() >= alike
        assert (error[other, np.arange(targets)] <= error.min(0) + bound / 2 * problem[5]).all()  # others: near ties
        penalty = steps[chosen] * top(problem[1], ratio)
        check(problem[:3], penalty, ratio, torch.tensor(values), torch.tensor(gap), 1e-4)
        distance = (values - core)[:, same].astype(np.float64)
        share = (distance * (problem[0] @ distance)).sum(0) / problem[2][same]
        assert (share <= 4 * 1e-4).all()  # either is within its gap of the minimum


@pytest.mark.parametrize(
    ("r2", "active", "rows", "count"), [(0.5, 5, 500, 40), (0.9, 30, 100, 40), (0.1, 2, 500, 40), (0.5, 1, 100, 4)]
)
def test_where_a_path_ends(r2: float, active: int, rows: int, count: int) -> None:
    """Steps are solved almost exactly here, so that paths end where those of coordinate descent do."""
    problem = oracle.problem(30, rows, 12, 0, held=rows // 4, r2=r2, active=active)
    steps = np.geomspace(1, 0.03 if count > 4 else 1e-3, count)
    options: dict[str, Any] = {"tolerance": 1e-9, "held_rows": rows // 4}
    everything = lasso_path(*tensors(torch.float64, *problem), steps, **options)[0].numpy()
    expected, found = oracle.path(problem[0], problem[1], (problem[3], problem[4], problem[5]), steps)
    np.testing.assert_allclose(everything, expected, atol=1e-4 * problem[5].max())
    ends = set()
    for patience in (1, 3, 60):
        error, values, _ = lasso_path(*tensors(torch.float64, *problem), steps, patience=patience, **options)
        for j in range(12):
            held = (problem[3], problem[4][:, j], problem[5][j])
            ran = oracle.end(expected[:, j], found[:, :, j], held, patience, rows // 4)
            ends.add(ran)
            assert int(torch.isfinite(error[:, j]).sum()) == ran
            assert torch.isinf(error[ran:, j]).all()
            np.testing.assert_allclose(error[:ran, j], everything[:ran, j], atol=1e-12 * problem[5].max())
            best = found[int(error[:, j].argmin()), :, j]
            np.testing.assert_allclose(values[:, j], best, atol=1e-3 * np.abs(found[..., j]).max())
    assert len(ends) > 3 or r2 < 0.5 or count == 4


@BOTH
def test_values_are_those_of_scikit_learn(kind: torch.dtype) -> None:
    rng = np.random.default_rng(5)
    masks = (rng.random((150, 20)) < 0.5).astype(float)
    outputs = masks[:, :3] @ rng.normal(size=(3, 6)) + rng.normal(size=(150, 6))
    gram, cross, energy = oracle.moments(masks, outputs)
    for ratio in (1.0, 0.5):
        penalty = 0.2 * top(cross, ratio)
        values, _, _ = lasso(*tensors(kind, gram, cross, energy, penalty), l1_ratio=ratio, tolerance=1e-9)
        for j in range(6):
            peer = ElasticNet(alpha=penalty[j], l1_ratio=ratio, tol=1e-10).fit(masks, outputs[:, j])
            np.testing.assert_allclose(values[:, j], peer.coef_, atol=2e-4 if kind == torch.float32 else 1e-5)


@pytest.mark.parametrize(
    ("setting", "share", "ratio", "most"),
    [
        (HALVES, 0.5, 1.0, 8),
        (HALVES, 0.1, 1.0, 14),
        (HALVES, 0.1, 0.5, 14),
        (HALVES, 1e-3, 1.0, 26),
        (QUARTERS, 1e-3, 1.0, 26),
        (FEW, 0.5, 1.0, 30),
        (FEW, 0.1, 1.0, 250),
    ],
)
def test_passes_are_few(setting: tuple[float, int, float], share: float, ratio: float, most: int) -> None:
    """Without momentum, or with momentum that never starts again, there are several times as many."""
    gram, cross, energy = usual(*setting)[:3]
    problem = tensors(torch.float64, gram, cross, energy, share * top(cross, ratio))
    _, gap, passes = lasso(*problem, l1_ratio=ratio)
    assert (gap <= 1e-6).all()
    assert int(passes.max()) <= most
    assert int(lasso(*(part.float() for part in problem), l1_ratio=ratio)[2].max()) <= 2 * most


def awkward(name: str, targets: int = 3) -> tuple[Array, Array, Array]:
    """Problems on which simple solvers fail."""
    rng = np.random.default_rng(1)
    x = (rng.random((12 if name == "few rows" else 60, 17)) < 0.5).astype(np.float64)
    if name == "duplicates":
        x[:, 9:13] = x[:, 3:4]
    if name == "nearly the same":
        x = rng.normal(size=(60, 1)) + 0.2 * rng.normal(size=(60, 17))
    if name == "sums of others":
        x[:, 5] = x[:, 0] + x[:, 1] - x[:, 2]
    if name == "constant":
        x[:, [0, 7, 16]] = 1
    if name == "rare":
        x[:, :8] = rng.random((60, 8)) < 0.05
    if name == "opposites":
        x[:, 8:16] = 1 - x[:, :8]
    if name == "one group":
        x = np.repeat(x[:, :1], 17, 1)
    y = x[:, :4] @ rng.normal(size=(4, targets)) + rng.normal(size=(len(x), targets))
    gram, cross, energy = oracle.moments(x, y)
    none = np.diag(gram) < 1e-15
    gram[none], gram[:, none], cross[none] = 0, 0, 0
    return gram, cross, energy


@BOTH
@pytest.mark.parametrize("ratio", [1.0, 0.5])
@pytest.mark.parametrize(
    "name",
    ["duplicates", "nearly the same", "sums of others", "constant", "rare", "opposites", "few rows", "one group"],
)
def test_awkward_groups(name: str, ratio: float, kind: torch.dtype) -> None:
    problem = as_held(kind, *awkward(name))
    gram, cross, energy = problem
    for share in (0.7, 0.1, 0.01):
        penalty = share * top(cross, ratio)
        values, gap, _ = lasso(*tensors(kind, *problem), torch.tensor(penalty), l1_ratio=ratio, limit=10_000)
        for j in range(3):
            own = oracle.gap(gram, cross[:, j], energy[j], penalty[j], ratio, values[:, j].double().numpy())
            assert float(gap[j]) == pytest.approx(own, rel=1e-3, abs=1e-12)
        assert (gap <= 1e-6).all()
        assert not values[np.diag(gram) == 0].any()
    steps = np.geomspace(1, 0.05, 12)
    everything = tensors(kind, *problem, *problem)
    error, _, gap = lasso_path(*everything, steps, l1_ratio=ratio, limit=10_000)
    assert (gap <= 1e-6).all()
    expected = _core.lasso_path(*problem, *problem, steps, l1_ratio=ratio, limit=20_000)[0]
    assert (np.abs(error.numpy() - expected) <= 2e-3 * energy).all()


@BOTH
def test_groups_that_never_move(kind: torch.dtype) -> None:
    """A group without spread stays at 0 from any start, whatever its cross product says."""
    gram, cross, energy = awkward("constant")
    penalty, start = 0.1 * top(cross), np.ones_like(cross)
    values, gap, _ = lasso(*tensors(kind, gram, cross, energy, penalty, start))
    assert not values[[0, 7, 16]].any()
    assert (gap <= 1e-6).all()
    cross[7] = 1e-3
    assert not lasso(*tensors(kind, gram, cross, energy, penalty, start))[0][[0, 7, 16]].any()


@BOTH
def test_too_few_passes_show_in_the_gap(kind: torch.dtype) -> None:
    problem = as_held(kind, *awkward("nearly the same"))
    penalty = 1e-4 * top(problem[1])
    for limit, start in ((3, None), (0, torch.ones(17, 3, dtype=kind))):
        values, gap, passes = lasso(*tensors(kind, *problem), torch.tensor(penalty), start, limit=limit)
        assert (passes <= limit).all()
        assert (gap > 1e-6).all()
        for j in range(3):
            own = oracle.gap(problem[0], problem[1][:, j], problem[2][j], penalty[j], 1, values[:, j].double().numpy())
            assert float(gap[j]) == pytest.approx(own, rel=1e-3)
    np.testing.assert_array_equal(values, np.ones((17, 3)))


@BOTH
def test_targets_alone_and_among_others(kind: torch.dtype) -> None:
    problem = as_held(kind, *usual(*FEW, targets=20))
    gram, cross, energy, held_gram, held_cross, held_energy = tensors(kind, *problem)
    penalty = torch.tensor(np.geomspace(1, 0.2, 20) * top(problem[1]))
    steps = np.geomspace(1, 0.2, 20)
    values, gap, passes = lasso(gram, cross, energy, penalty)
    path = lasso_path(gram, cross, energy, held_gram, held_cross, held_energy, steps, patience=3, held_rows=11)
    for some in ([3], [0, 19], list(range(0, 20, 3))):
        one, alone, number = lasso(gram, cross[:, some], energy[some], penalty[some])
        scale = float(values.abs().max())
        tight = 1e-4 if kind == torch.float32 else 1e-9
        np.testing.assert_allclose(one, values[:, some], atol=tight * scale * 10)
        if kind == torch.float64:
            np.testing.assert_allclose(alone, gap[some], rtol=1e-3, atol=1e-12)
            np.testing.assert_array_equal(number, passes[some])
        few = (cross[:, some], energy[some], held_gram, held_cross[:, some], held_energy[some])
        error, _, near = lasso_path(gram, *few, steps, patience=3, held_rows=11)
        assert (near <= 1e-6).all()
        together = torch.isfinite(error) & torch.isfinite(path[0][:, some])
        assert float((torch.isfinite(error) == together).double().mean()) > 0.95
        apart = (error - path[0][:, some]).where(together, torch.zeros(())).abs()
        assert (apart <= 1e-3 * held_energy[some]).all()


@BOTH
def test_nan_stays_in_its_target(kind: torch.dtype) -> None:
    gram, cross, energy = tensors(kind, *oracle.problem(17, 60, 5, 0))
    penalty, steps = 0.1 * cross.abs().amax(0), np.geomspace(1, 0.01, 9)
    clean = lasso(gram, cross, energy, penalty)
    path = lasso_path(gram, cross, energy, gram, cross, energy, steps)
    for wrong in (math.nan, math.inf):
        spoiled, noise, start = cross.clone(), energy.clone(), torch.zeros_like(cross)
        spoiled[3, 1] = noise[2] = start[5, 4] = wrong
        values, gap, passes = lasso(gram, spoiled, noise, penalty, start)
        assert torch.isnan(values[:, [1, 2, 4]]).all()
        assert torch.isnan(gap[[1, 2, 4]]).all()
        assert not passes[[1, 2, 4]].any()
        np.testing.assert_allclose(values[:, [0, 3]], clean[0][:, [0, 3]], atol=1e-6)
        assert (gap[[0, 3]] <= 1e-6).all()
        for part, whole in zip(lasso_path(gram, spoiled, noise, gram, cross, energy, steps), path, strict=True):
            assert torch.isnan(part[..., [1, 2]]).all()
            np.testing.assert_allclose(part[..., [0, 3, 4]], whole[..., [0, 3, 4]], atol=1e-5)


@BOTH
def test_constant_targets_no_penalty_and_nothing(kind: torch.dtype) -> None:
    gram, cross, energy, *held = oracle.problem(9, 60, 4, 0, held=30)
    cross[:, 1], energy[1], cross[:, 2], energy[3] = 0, 0, 0, 0
    problem = tensors(kind, gram, cross, energy, np.zeros(4))
    values, gap, passes = lasso(*problem, torch.ones(9, 4, dtype=kind))
    assert not values[:, 1:].any()
    assert not gap[1:].any()
    assert not passes[1:].any()
    np.testing.assert_allclose(values[:, 0], np.linalg.solve(gram, cross[:, 0]), atol=2e-3)
    error, values, gap = lasso_path(*problem[:3], *tensors(kind, *held), np.geomspace(1, 0.1, 5), patience=2)
    assert not values[:, 1:].any()
    assert not gap[1:].any()
    np.testing.assert_allclose(error[:, 1:], np.broadcast_to(held[2][1:], (5, 3)), rtol=1e-6)
    for groups, targets in [(0, 3), (4, 0), (0, 0)]:
        empty = torch.zeros(groups, groups), torch.zeros(groups, targets), torch.zeros(targets)
        assert lasso(*empty, empty[2])[0].shape == (groups, targets)
        assert lasso_path(*empty, *empty, [1.0])[0].shape == (1, targets)


@pytest.mark.parametrize("scale", [1e-60, 1e-15, 1e-6, 1e9, 1e14, 1e60])
def test_scales(scale: float) -> None:
    """Outputs times a number: values times it. In float32 as far as their squares have room."""
    gram, cross, energy, *held = oracle.problem(20, 60, 7, 3, held=40)
    penalty, steps = 0.1 * top(cross), np.geomspace(1, 0.01, 30)
    for kind in (torch.float32, torch.float64):
        if kind == torch.float32 and not 1e-18 < scale < 1e18:
            continue
        plain = lasso(*tensors(kind, gram, cross, energy, penalty))[0]
        scaled = tensors(kind, gram, cross * scale, energy * scale**2, penalty * scale)
        values, gap, _ = lasso(*scaled)
        np.testing.assert_allclose(values.double() / scale, plain, atol=1e-5)
        assert (gap <= 1e-6).all()
        small = tensors(kind, held[0], held[1] * scale, held[2] * scale**2)
        error, _, gap = lasso_path(*scaled[:3], *small, steps)
        expected = lasso_path(*tensors(kind, gram, cross, energy, *held), steps)[0]
        np.testing.assert_allclose(error / scale**2, expected, rtol=1e-3)
        assert (gap <= 1e-6).all()


def one_pass(column: dict[str, Any], spread: float, steep: float, limit: int, rounding: bool) -> None:
    """A pass of one target, as a loop over its groups."""
    b, moved, s, push, c, d = (column[name] for name in ("values", "moved", "slope", "push", "cross", "diagonal"))
    edge, ridge, energy, share, least, clock, mark, passes, running = column["state"][:9]
    if not running:
        return
    groups = range(len(b))
    now = [s[k] - push[k] for k in groups]
    pull = [now[k] - ridge * b[k] for k in groups]
    most = max(abs(p) for p in pull)
    along, fit = sum(b[k] * pull[k] for k in groups), sum(b[k] * c[k] for k in groups)
    square = max(energy - fit - along, 0)
    scale = min(1, edge / most) if most > 0 else 1
    primal = square / 2 + edge * sum(abs(x) for x in b)
    gap = (primal - scale * (energy - fit) + scale**2 * square / 2) / (energy / 2)
    wanted = max(share * min(square / energy, 1), least)
    check = passes % 32 == 31 if clock else passes % 4 == 3
    slow = check and not gap < mark * (0.9 if clock else 0.5)
    done = gap <= wanted or passes >= limit or (rounding and slow and gap <= 8 * wanted)
    column["state"][9:] = gap, square / energy
    if done:
        column["slope"], column["moved"], column["state"][8] = now, [0.0] * len(b), 0
        return
    undo = not clock and passes > 0 and gap > 4 * mark
    if check or passes == 0:
        mark = gap
    if not clock and (undo or slow):
        clock, mark = 1, math.inf
    if undo:
        b, now, moved, push = [b[k] - moved[k] for k in groups], s, [0.0] * len(b), [0.0] * len(b)
    momentum, lean, after = min(0.8, sum(x != 0 for x in b) * spread / (1 + ridge) ** 2), 0.0, 0.0
    if clock:
        after = (1 + math.sqrt(1 + 4 * clock**2)) / 2
        momentum = lean = (clock - 1) / after
    turn, new, steps = 0.0, list(b), [0.0] * len(b)
    for k in groups:
        own = (steep if clock else 1) * d[k] + ridge
        centre = b[k] + momentum * moved[k]
        ahead = own * centre + now[k] - lean * push[k] - ridge * (b[k] + lean * moved[k])
        if d[k] > 0:
            new[k] = math.copysign(max(abs(ahead) - edge, 0), ahead) / own
        steps[k] = new[k] - b[k]
        turn += (centre - new[k]) * own * steps[k]
    if clock:
        clock = 1 if turn > 0 else after
    column.update(values=new, moved=steps, slope=now)
    column["state"][5:9] = clock, mark, passes + 1, any(steps)


@given(
    groups=SIZES, targets=SIZES, passes=st.sampled_from([0, 1, 3, 7, 31]), limit=st.sampled_from([3, 100]),
    kind=KINDS, seed=st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_a_pass_of_each_kind(groups: int, targets: int, passes: int, limit: int, kind: torch.dtype, seed: int) -> None:
    """From states as they arise, in all modes: heavy ball and Nesterov's momentum, undone steps, closed targets."""
    rng = np.random.default_rng(seed)
    gram, cross, energy = oracle.problem(groups, 40, targets, seed)
    values = rng.normal(size=cross.shape) * (rng.random(cross.shape) < 0.7)
    moved = rng.normal(size=cross.shape) * 0.3
    state = np.zeros((11, targets))
    state[0], state[1] = 0.1 * top(cross), rng.choice([0, 0.2], targets)
    state[2], state[3] = energy, rng.choice([1e-6, 0.5, 100], targets)
    state[5], state[6] = rng.choice([0, 1, 3.7], targets), rng.choice([1e-3, 1, 1e3], targets)
    state[7], state[8] = passes, rng.random(targets) < 0.9
    moved[:, state[8] == 0] = 0
    diagonal = np.diag(gram).copy()
    diagonal[rng.random(groups) < 0.2] = 0
    values[diagonal == 0] = moved[diagonal == 0] = 0
    arrays = values, moved, cross - gram @ (values - moved), gram @ moved, cross
    rates = 0.05, 3.5, limit
    columns: list[dict[str, Any]] = []
    found = [*tensors(kind, *arrays, diagonal, state)]
    exact = [part.double().numpy().copy() for part in found]
    for j in range(targets):
        names = ("values", "moved", "slope", "push", "cross")
        column: dict[str, Any] = {name: list(part[:, j]) for name, part in zip(names, exact, strict=False)}
        columns.append(column | {"diagonal": list(exact[5]), "state": list(exact[6][:, j])})
        one_pass(columns[-1], *rates, kind == torch.float32)
    array_step(*found, *rates)
    tight = 1e-9 if kind == torch.float64 else 2e-4
    for name, part in zip(("values", "moved", "slope"), found[:3], strict=True):
        np.testing.assert_allclose(part, np.array([c[name] for c in columns]).T, atol=tight, rtol=tight)
    np.testing.assert_allclose(found[6], np.array([c["state"] for c in columns]).T, atol=tight, rtol=10 * tight)


def test_a_fused_step_takes_the_place_of_the_array_code() -> None:
    gram, cross, energy, *held = tensors(torch.float32, *oracle.problem(12, 60, 9, 0, held=30))
    calls: list[tuple[int, ...]] = []

    def fused(*parts: Any) -> None:
        calls.append(tuple(parts[0].shape))
        for part in parts[:7]:
            assert part.is_contiguous()
            assert part.dtype == parts[0].dtype
        array_step(*parts)

    turned = cross.T.contiguous().T  # a kernel takes addresses: its arrays are contiguous whatever the caller's are
    plain = lasso(gram, cross, energy, energy / 10)[0]
    assert torch.equal(lasso(gram, turned, energy, energy / 10, turned * 0, step=fused)[0], plain)
    assert calls
    steps = np.geomspace(1, 0.1, 9)
    for a, b in zip(
        lasso_path(gram, cross, energy, *held, steps), lasso_path(gram, cross, energy, *held, steps, step=fused),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(a, b)
    assert min(shape[1] for shape in calls) < 9  # targets that are done left the batch


def test_the_bound_of_the_curvature() -> None:
    """The safe step is safe: its curvature is never below the largest eigenvalue, and not far above it."""
    for groups, rows in ((1, 20), (5, 40), (60, 30), (60, 400)):
        gram = oracle.problem(groups, rows, 1, 0)[0]
        size = np.sqrt(np.diag(gram))
        most = np.linalg.eigvalsh(gram / np.outer(size, size))[-1]
        (whole,) = tensors(torch.float64, gram)
        bound = tensor_lasso._Gram(whole, whole).steep
        assert most * (1 - 1e-9) <= bound <= most * groups ** (1 / 128) * (1 + 1e-9)
