"""The kernels of regression, on a GPU and on the CPU through tests/emulation: masks, errors, the solver's pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydt import _core

pytest_plugins = ["stub_device"]

Array = NDArray[np.float64]


@pytest.mark.parametrize(
    ("rows", "groups", "dtype"), [(1, 1, "float32"), (33, 31, "float64"), (9, 65, "float32"), (3, 300, "float64")]
)
def test_masks_are_expanded(device: Any, rows: int, groups: int, dtype: str) -> None:
    """All rows; some, repeated; into a wider matrix, whose other columns stay; a row that is not there is NaN."""
    rng = np.random.default_rng(rows)
    masks = rng.random((rows, groups)) < 0.4
    packed, wide = device.put(_core.pack(masks)), groups + 3
    for index in (None, rng.integers(0, rows, 5), np.array([0, -1, rows, -(2**62)])):
        expected = np.full((rows if index is None else len(index), wide), 7, dtype)
        expected[:, :groups] = (
            masks if index is None else [masks[i] if 0 <= i < rows else np.full(groups, np.nan) for i in index]
        )
        out = device.put(np.full_like(expected, 7))
        which = None if index is None else device.put(index)  # memory lives as long as this
        call = (packed.address, rows, groups, which.address if which else 0, len(expected), out.address, wide, dtype)
        device.core.cuda_expand_masks(*call, device.stream)
        np.testing.assert_array_equal(out.get(), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("groups", "targets"), [(1, 1), (31, 257), (65, 33), (130, 1)])
def test_errors_have_the_bits_of_the_core(device: Any, groups: int, targets: int, dtype: str) -> None:
    rng = np.random.default_rng(groups)
    centred = rng.normal(size=(groups, targets)).astype(dtype)
    scale, weight, rho = rng.random((3, groups)) + 0.1
    energy, noise = 5 * rng.random(targets), rng.random(targets)
    scale[0], energy[-1] = np.nan, np.nan
    expected = _core.pooled_errors(centred, scale, weight, rho, energy, noise, 7.0)
    there = device.put(centred)
    found = [device.put(np.full((groups, targets), 7, np.float32)) for _ in range(2)]
    addresses = [one.address for one in found]
    device.core.cuda_pooled_errors(
        there.address, scale, weight, rho, energy, noise, 7.0, *addresses, dtype, device.stream
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.get(), other)


# ---- the solver's pass ---------------------------------------------------------------------------------------------

EDGE, RIDGE, ENERGY, SHARE, LEAST, CLOCK, MARK, PASSES, OPEN, GAP, LEFT = range(11)


def one_pass(
    b: Array, move: Array, slope: Array, push: Array, c: Array, diagonal: Array, state: Array, spread: float,
    steep: float, limit: int, single: bool,
) -> None:  # fmt: skip
    """One target, in place: the certificate at b, then a proximal step with momentum."""
    edge, ridge, energy = state[[EDGE, RIDGE, ENERGY]]
    now = slope - push
    pull = now - ridge * b
    square = max(energy - b @ c - b @ pull, 0)
    feasible = min(1, edge / np.abs(pull).max()) if pull.any() else 1  # times the residual: a dual point
    primal_less_dual = (1 - feasible) ** 2 * square / 2 + sum(edge * np.abs(b) - feasible * b * pull)
    gap = state[GAP] = primal_less_dual / (energy / 2)
    left = state[LEFT] = square / energy
    wanted = max(state[SHARE] * min(left, 1), state[LEAST])
    nesterov, passes = state[CLOCK] > 0, int(state[PASSES])
    looks = passes % (32 if nesterov else 4) == (31 if nesterov else 3)
    slow = looks and not gap < state[MARK] * (0.9 if nesterov else 0.5)
    if gap <= wanted or passes >= limit or (single and slow and gap <= 8 * wanted):
        slope[:], move[:], state[OPEN] = now, 0, 0
        return
    back = not nesterov and passes > 0 and not gap <= 4 * state[MARK]
    if back:
        b -= move
        move[:], push = 0, np.zeros_like(push)
    else:
        slope[:] = now
    if passes == 0 or looks:
        state[MARK] = gap
    if back or (slow and not nesterov):
        state[CLOCK], state[MARK] = 1, np.inf
    clock = state[CLOCK]
    if clock > 0:
        after = (1 + math.sqrt(1 + 4 * clock**2)) / 2
        lean = momentum = (clock - 1) / after
        own = steep * diagonal + ridge
    else:
        lean, momentum = 0, min(0.8, np.count_nonzero(b) * spread / (1 + ridge) ** 2)
        own = diagonal + ridge
    centre = b + momentum * move
    ahead = own * centre + (slope - lean * push) - ridge * (b + lean * move)
    with np.errstate(invalid="ignore", divide="ignore"):
        new = np.where(diagonal > 0, np.sign(ahead) * np.maximum(np.abs(ahead) - edge, 0) / own, b)
    turn = np.sum((centre - new) * own * (new - b))
    move[:] = new - b
    b[:] = new
    if clock > 0:
        state[CLOCK] = 1 if turn > 0 else after
    state[PASSES] += 1
    state[OPEN] = move.any()


def problem(groups: int, targets: int, seed: int) -> tuple[list[Array], Array, Array]:
    """values, moved, slope, push and cross (groups, targets), the diagonal, the state: each kind of target in turns."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(groups, targets)) for _ in range(5)]
    values, moved, *_ = arrays
    values[rng.random(values.shape) < 0.4] = 0
    moved[rng.random(moved.shape) < 0.3] = 0
    diagonal = rng.random(groups) + 0.5
    diagonal[groups // 2 :: 7] = 0
    state = np.empty((11, targets))
    state[EDGE], state[RIDGE] = rng.random(targets) + 0.2, rng.random(targets) * (np.arange(targets) % 3 > 0)
    state[ENERGY], state[SHARE], state[LEAST] = 100 * groups, 1e-4, 1e-6
    state[[GAP, LEFT]] = 7
    kinds = [
        # clock, mark, passes
        (0, 0, 0),  # the first pass
        (0, 1e9, 1),  # on its way
        (0, 1e-9, 2),  # too long a step: back
        (0, 1e-9, 7),  # too long, at a look
        (0, 1e9, 3),  # fast at a look
        (1, np.inf, 5),
        (3.7, 1e9, 31),  # Nesterov at a look
        (2.5, 1e-9, 63),
        (0, 1e9, 50),  # the limit of passes
    ]
    state[[CLOCK, MARK, PASSES]] = np.array([kinds[j % len(kinds)] for j in range(targets)]).T
    state[OPEN] = 1
    state[SHARE, 4::11] = 1e9  # done
    state[OPEN, 5::12] = 0
    return arrays, diagonal, state


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("groups", "targets"), [(1, 1), (31, 33), (65, 65), (130, 31)])
def test_a_pass_of_the_solver(device: Any, groups: int, targets: int, dtype: str) -> None:
    """Every kind of target against the formula; targets that are done are left alone; the same bits again."""
    spread, steep, limit = 0.02, 1.7, 50
    arrays, diagonal, state = problem(groups, targets, groups)
    arrays, diagonal, state = [a.astype(dtype) for a in arrays], diagonal.astype(dtype), state.astype(dtype)
    expected = [array.astype(np.float64) for array in (*arrays, state)]
    shut = state[OPEN] == 0
    for j in np.flatnonzero(~shut):
        *five, own = (array[:, j] for array in expected)
        one_pass(*five, diagonal.astype(np.float64), own, spread, steep, limit, dtype == "float32")
    for array in arrays:
        array[:, shut] = np.nan
    bits = []
    for _ in range(2):
        there = [device.put(array) for array in (*arrays, diagonal, state)]
        addresses = [one.address for one in there]
        device.core.cuda_proximal_step(*addresses, groups, targets, spread, steep, limit, dtype, device.stream)
        found = [one.get() for one in there]
        bits.append([one.tobytes() for one in found])
    assert bits[0] == bits[1]
    del found[5]
    for one, before in zip(found, (*arrays, state), strict=True):
        np.testing.assert_array_equal(one[:, shut], before[:, shut])
    for one, right in zip(found, expected, strict=True):
        close = 1e-4 if dtype == "float32" else 1e-12
        scale = 1 if right is expected[-1] else np.abs(right).max(0, initial=1)[~shut]
        np.testing.assert_allclose(one[:, ~shut] / scale, right[:, ~shut] / scale, rtol=close, atol=close)
    assert state[OPEN].any()


def test_a_pass_of_nan_goes_back(device: Any) -> None:
    """A target that overflowed takes its last move back and has its other values; its neighbour is not touched."""
    (values, moved, slope, push, cross), diagonal, state = problem(3, 2, 0)
    state[[CLOCK, MARK, PASSES, OPEN]] = np.array([[0, 1e9, 1, 1]] * 2).T
    values[0, 0], moved[0, 0] = np.inf, np.inf
    there = [device.put(array) for array in (values, moved, slope, push, cross, diagonal, state)]
    device.core.cuda_proximal_step(*(one.address for one in there), 3, 2, 0.02, 1.7, 50, "float64", device.stream)
    nesterov = there[-1].get()[CLOCK] > 0
    assert nesterov.tolist() == [True, False]
    assert np.isfinite(there[0].get()[:, 1]).all()


NONE = np.zeros(0)
G, T = np.ones(2), np.ones(3)


def test_nothing_is_nothing(device: Any) -> None:
    """No rows, no groups or no targets: no memory is needed."""
    for rows, groups, count in [(0, 0, 0), (3, 0, 3), (3, 2, 0)]:
        device.core.cuda_expand_masks(0, rows, groups, 0, count, 0, groups, "float32", device.stream)
    for one, other in [(G, NONE), (NONE, T), (NONE, NONE)]:
        device.core.cuda_pooled_errors(0, one, one, one, other, other, 1.0, 0, 0, "float64", device.stream)
        sizes = (len(one), len(other))
        device.core.cuda_proximal_step(0, 0, 0, 0, 0, 0, 0, *sizes, 0.1, 1.0, 1, "float64", device.stream)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("expand_masks", (8, -1, 2, 0, 1, 8, 2, "float32"), "^rows: -1 is negative"),
        ("expand_masks", (8, 1, 2, 0, 1, 8, 1, "float32"), "^leading: 1 is below the 2 groups"),
        ("expand_masks", (8, 1, 2, 0, 2, 8, 2, "float32"), "^count: 2 is above the 1 rows"),
        ("expand_masks", (8, 1, 2, 0, 1, 8, 2, "float16"), "^dtype: must be float32 or float64"),
        ("expand_masks", (8, 1, 2, 0, 1, 12, 2, "float64"), "^out: is not aligned"),
        ("expand_masks", (8, 1, 2, 4, 1, 8, 2, "float64"), "^index: is not aligned"),
        ("expand_masks", (0, 1, 2, 0, 1, 8, 2, "float64"), "^packed: is a null address"),
        ("expand_masks", (8, 2**62, 2, 0, 2**62, 8, 2, "float32"), "^count: "),
        ("pooled_errors", (8, G, T, G, T, T, 1.0, 8, 8, "float32"), "^weight: has 3 entries, not 2"),
        ("pooled_errors", (8, G, G, G, T, G, 1.0, 8, 8, "float32"), "^noise: has 2 entries, not 3"),
        ("pooled_errors", (8, G, G, G, T, T, 0.0, 8, 8, "float32"), "^df: must be positive"),
        ("pooled_errors", (12, G, G, G, T, T, 1.0, 8, 8, "float64"), "^centred: is not aligned"),
        ("pooled_errors", (8, G, G, G, T, T, 1.0, 8, 2, "float64"), "^errors: is not aligned"),
        ("proximal_step", (8, 8, 8, 8, 8, 8, 8, -1, 3, 0.1, 1.0, 9, "float32"), "^groups: -1 is negative"),
        ("proximal_step", (8, 8, 8, 8, 0, 8, 8, 2, 3, 0.1, 1.0, 9, "float32"), "^cross: is a null address"),
        ("proximal_step", (8, 8, 8, 8, 8, 8, 4, 2, 3, 0.1, 1.0, 9, "float64"), "^state: is not aligned"),
        ("proximal_step", (8, 8, 8, 8, 8, 8, 8, 2**40, 2**40, 0.1, 1.0, 9, "float64"), "^values: "),
    ],
)
def test_wrong_arguments_are_named(name: str, arguments: tuple[Any, ...], words: str) -> None:
    """By every build, before anything is launched."""
    with pytest.raises(ValueError, match=words):
        getattr(_core, f"cuda_{name}")(*arguments, 0)
