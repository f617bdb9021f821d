"""What the penalised solvers should find, slowly and plainly in numpy: coordinate descent in float64, and the
conditions that mark a minimum, written from the definitions and not from the C++.

    objective(b) = b'Gb / 2 - b'c + penalty (l1_ratio |b|_1 + (1 - l1_ratio) |b|^2 / 2)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def solve(
    gram: Array, cross: Array, penalty: Array, l1_ratio: float = 1.0, start: Array | None = None, limit: int = 20_000
) -> Array:
    """The minima (groups, targets) for penalty (targets,), by cyclic coordinate descent until no coordinate of any
    target moves its slope by more than 1e-12 of the largest cross product. Columns of zeros stay at 0."""
    ridge, edge = penalty * (1 - l1_ratio), penalty * l1_ratio
    values = np.zeros_like(cross) if start is None else start.astype(np.float64)
    values[np.diag(gram) <= 0] = 0
    rest = cross - gram @ values
    level = np.abs(cross).max(0, initial=1e-300)
    for _ in range(limit):
        worst = 0.0
        for k in np.flatnonzero(np.diag(gram) > 0):
            pull = rest[k] + gram[k, k] * values[k]
            step = np.sign(pull) * np.maximum(np.abs(pull) - edge, 0) / (gram[k, k] + ridge) - values[k]
            rest -= np.outer(gram[:, k], step)
            values[k] += step
            values[k][np.abs(pull) <= edge] = 0
            worst = max(worst, float((np.abs(step) * (gram[k, k] + ridge) / level).max()))
        if worst <= 1e-12:
            break
    return values


def slope(gram: Array, cross: Array, penalty: float, l1_ratio: float, values: Array) -> Array:
    """Minus the gradient of the smooth part."""
    return cross - gram @ values - penalty * (1 - l1_ratio) * values


def objective(gram: Array, cross: Array, penalty: float, l1_ratio: float, values: Array) -> float:
    smooth = values @ gram @ values / 2 - values @ cross
    return float(smooth + penalty * (l1_ratio * np.abs(values).sum() + (1 - l1_ratio) * (values @ values) / 2))


def gap(gram: Array, cross: Array, energy: float, penalty: float, l1_ratio: float, values: Array) -> float:
    """Primal less dual objective over half the energy. The elastic net is the LASSO with sqrt(penalty (1 - l1_ratio))
    times the identity below X and zeros below y; the dual point is its residual times the best feasible number."""
    edge, ridge = penalty * l1_ratio, penalty * (1 - l1_ratio)
    pull = slope(gram, cross, penalty, l1_ratio, values)
    square = energy - 2 * values @ cross + values @ gram @ values + ridge * (values @ values)
    fit = energy - values @ cross
    most = np.abs(pull).max(initial=0)
    limit = edge / most if most > 0 else np.inf
    scale = float(np.clip(fit / square if square > 0 else 0.0, -limit, limit))
    primal = square / 2 + edge * np.abs(values).sum()
    return float((primal - scale * fit + scale**2 * square / 2) / (energy / 2))


def path(
    gram: Array, cross: Array, held: tuple[Array, Array, Array], steps: Array, l1_ratio: float = 1.0
) -> tuple[Array, Array]:
    """Held-out error (steps, targets) and the solutions (steps, groups, targets) of the whole path."""
    top = np.abs(cross).max(0, initial=0) / l1_ratio
    held_gram, held_cross, held_energy = held
    errors, found, values = [], [], np.zeros_like(cross)
    for step in steps:
        values = solve(gram, cross, step * top, l1_ratio, values)
        found.append(values)
        errors.append(held_energy - 2 * (values * held_cross).sum(0) + (values * (held_gram @ values)).sum(0))
    return np.array(errors), np.array(found)


def end(errors: Array, found: Array, held: tuple[Array, Array, Array], patience: int, rows: int) -> int:
    """How many steps of one target's path, errors (steps,) and solutions (steps, groups), are taken: to where the error
    is three standard errors above the least so far, two steps behind it or more; or `patience` steps behind the least,
    if that is four of them below the error of zeros."""
    gram, _, null = held

    def apart(a: Array, b: Array) -> float:
        return float((a - b) @ gram @ (a - b))

    least = 0
    for i in range(len(errors)):
        if errors[i] < errors[least]:
            least = i
        if i == least:
            continue
        row = max(errors[least], 0) / rows
        clear = float(null) - errors[least] > 4 * 2 * np.sqrt(row * apart(found[least], np.zeros(len(gram))))
        risen = errors[i] - errors[least] > 3 * 2 * np.sqrt(row * apart(found[i], found[least]))
        if (clear and i - least >= patience) or (risen and i - least > 1):
            return i + 1
    return len(errors)


def problem(
    groups: int,
    rows: int,
    targets: int,
    seed: int,
    held: int = 0,
    r2: float = 0.5,
    active: int = 5,
    alpha: float = 0.5,
) -> tuple[Array, ...]:
    """Centred Gram matrix, cross products and energy, each over the rows, of random masks that keep alpha and sparse
    linear outputs; then the same of `held` more rows."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((rows + held, groups)) < alpha).astype(np.float64)
    truth = np.zeros((groups, targets))
    for j in range(targets):
        where = rng.permutation(groups)[:active]
        truth[where, j] = rng.choice([-1, 1], len(where)) * 0.9 ** np.arange(len(where))
    clean = masks @ truth
    outputs = clean + rng.normal(size=clean.shape) * np.maximum(clean.std(0), 0.1) * np.sqrt((1 - r2) / r2)
    first = moments(masks[:rows], outputs[:rows])
    return first + moments(masks[rows:], outputs[rows:]) if held else first


def moments(masks: Array, outputs: Array) -> tuple[Array, Array, Array]:
    x, y = masks - masks.mean(0), outputs - outputs.mean(0)
    return x.T @ x / len(x), x.T @ y / len(x), (y**2).sum(0) / len(x)
