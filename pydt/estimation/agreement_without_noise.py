"""Do influences agree in two columns, such as two numbers of shots, once noise is taken out?

Noise lowers the correlation of two columns, and errors that they share raise it. The true influences of the K groups
are fixed, with standard deviations a and b and correlation rho; a group's errors are normal with its own 2 x 2
covariance C_k, whose mean is C:

    a^2 = var(values of the first column) - C_11, 0 where that is negative;    b^2 likewise
    r(rho) = (rho a b + C_12) / sqrt(A B),    A = a^2 + C_11,    B = b^2 + C_22          Pearson's of the values
    t(rho) = (Pearson's seen - r(rho)) / s,    s^2 = (A B - a^2 b^2 + C_12^2 + 2 rho a b C_12) / (A B)

For nodes of rho, values are drawn anew, and with them a, b, C (Wishart, `df`) and t. The interval holds those rho whose
drawn t have the seen one between their 2.5 and 97.5 % quantiles; the estimate is where it is their median, so it is as
often too high as too low. As a and b are estimated anew in each draw, the interval knows that they are uncertain.

Without s, orders that are the same were called different in 10 % where one column is noisy (true variance 0.3 of what
is seen) and errors correlate by 0.8: a spread seen too large by chance makes a too-low correlation look exact.

The true values of the draws are arbitrary but for a, b and rho: with errors of one variance, the distribution of t
depends on nothing else, so that it holds for a few strong groups among many of no influence as for influences of all
sizes. What lost: Spearman's correlation, whose r(rho) takes normal influences. Of 5 strong groups among 62, the same in
both columns, it called every order another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, Result, generator, whole
from pydt.estimation.inputs import Array
from pydt.estimation.joint_influence import JointFit

DRAWS = 2000
_NODES = np.array([-1, -0.85, -0.5, 0, 0.4, 0.7, 0.85, 0.95, 1])
_LEAST = 0.05  # of an error variance: below it, a^2 and b^2 count as that where s divides by them
_LEVELS = (0.025, 0.5, 0.975)
_FINE = np.linspace(-1, 1, 2001)


@dataclass(frozen=True, repr=False)
class TrueAgreement(Result):
    """How alike two columns order groups, with and without noise. NaN where a column has no known errors.

    Attributes:
        rank: Spearman's correlation of the values seen.
        by_noise_alone: its mean if the true influences were unrelated: above 0 where errors are shared.
        rho: correlation of the true influences, in [-1, 1]; NaN where a column shows none (`sd` 0).
        low, high: 95 % of it; -1 and 1 where it is NaN.
        p_same: chance of so low an agreement if the true influences were proportional (rho = 1); NaN where rho is.
        p_unrelated: chance of so high an agreement if they were unrelated (rho = 0).
        sd: standard deviations of the true influences in both columns, in the unit of the outputs.
    """

    rank: float
    by_noise_alone: float
    rho: float
    low: float
    high: float
    p_same: float
    p_unrelated: float
    sd: tuple[float, float]


def true_agreement(joint: JointFit, a: int, b: int, seed: int = 0) -> TrueAgreement:
    """How alike columns a and b of `joint_influences` order groups, beyond noise; formulas at the top.

    Args:
        joint: of at least 5 groups.
        a, b: positions of columns.
        seed: of the simulation.

    Raises:
        EstimateError: no such column, or fewer than 5 groups.
    """
    columns = joint.values.shape[1]
    a, b = (whole(i, "column", "true_agreement", 0, columns - 1, EstimateError) for i in (a, b))
    return _agreements(joint, [(a, b)], seed)[a, b]


def true_agreements(joint: JointFit, seed: int = 0) -> dict[tuple[int, int], TrueAgreement]:
    """`true_agreement` of all pairs of columns a < b, in less time than one by one."""
    columns = joint.values.shape[1]
    return _agreements(joint, [(a, b) for a in range(columns) for b in range(a + 1, columns)], seed)


def _agreements(joint: JointFit, pairs: Iterable[tuple[int, int]], seed: int) -> dict[tuple[int, int], TrueAgreement]:
    groups = len(joint.values)
    if groups < 5:
        raise EstimateError(f"{groups} groups are too few to compare orders", "true_agreement", "have at least 5")
    random = generator("agreement without noise", seed)
    truths = _unit(random.standard_normal((2, groups)))
    truths[1] = _unit(truths[1:] - (truths[0] @ truths[1]) * truths[:1])[0]
    truths *= np.sqrt(groups - 1)
    normals = random.standard_normal((2, DRAWS, groups))
    found = {}
    for a, b in pairs:
        at = [a, b]
        found[a, b] = _pair(joint.values[:, at], joint.independent[:, at][:, :, at], joint.df, truths, normals, seed)
    return found


def _pair(values: Array, covariance: Array, df: Array, truths: Array, normals: Array, seed: int) -> TrueAgreement:
    """The agreement of values (groups, 2) with errors of covariance (groups, 2, 2)."""
    from scipy import stats

    nan = float("nan")
    if np.isnan(covariance).any() or (values == values[0]).all(0).any():
        return TrueAgreement(nan, nan, nan, -1.0, 1.0, nan, nan, (nan, nan))
    mean = covariance.mean(0)
    rank = float(stats.spearmanr(values[:, 0], values[:, 1]).statistic)
    seen = np.sum(np.prod(_unit(values.T), axis=0))
    spread = values.var(0, ddof=1)
    true = _true(spread, mean)
    sd = np.sqrt(true)
    first = np.sqrt(covariance[:, 0, 0])
    shared = np.divide(covariance[:, 0, 1], first, out=np.zeros_like(first), where=first > 0)
    own = np.sqrt(np.maximum(covariance[:, 1, 1] - shared**2, 0.0))
    errors = _wishart(mean, float(df.min()), seed)
    x = sd[0] * truths[0] + first * normals[0]
    unit_x, spread_x = _unit(x), x.var(1, ddof=1)
    noise = shared * normals[0] + own * normals[1]
    known = bool((sd > 0).all())
    drawn = {}
    for rho in _NODES if known else (0.0,):
        z = sd[1] * (rho * truths[0] + (1 - rho**2) ** 0.5 * truths[1]) + noise
        again = _true(np.stack([spread_x, z.var(1, ddof=1)], -1), errors)
        drawn[float(rho)] = _statistic(np.einsum("nk,nk->n", unit_x, _unit(z)), np.array(rho), again, errors)
    low, high, middle, p_same = -1.0, 1.0, nan, nan
    if known:
        quantiles = np.array([np.quantile(drawn[float(rho)], _LEVELS) for rho in _NODES])
        below, median, above = (np.interp(_FINE, _NODES, one) for one in quantiles.T)
        t = _statistic(seen, _FINE, true, mean)
        low, middle, high = _first(t <= above), _first(t <= median), -_first((t >= below)[::-1])
        p_same = _chance(drawn[1.0] <= t[-1])
    alone = float(6 / np.pi * np.arcsin(_expected(np.array(0.0), true, mean) / 2))  # Spearman's of a normal
    p_unrelated = _chance(drawn[0.0] >= _statistic(seen, np.array(0.0), true, mean))
    return TrueAgreement(rank, alone, middle, low, high, p_same, p_unrelated, (float(sd[0]), float(sd[1])))


def _true(spread: Array, error: Array) -> Array:
    """Variances (..., 2) of true influences from those of values and mean error covariances (..., 2, 2)."""
    return np.maximum(spread - np.diagonal(error, axis1=-2, axis2=-1), 0.0)


def _expected(rho: Array, true: Array, error: Array) -> Array:
    """r(rho) of variances (..., 2) of true influences and error covariances (..., 2, 2)."""
    wide = true + np.diagonal(error, axis1=-2, axis2=-1)
    both = rho * np.sqrt(true[..., 0] * true[..., 1]) + error[..., 0, 1]
    return np.asarray(np.clip(both / np.sqrt(np.maximum(wide[..., 0] * wide[..., 1], 1e-300)), -1, 1))


def _statistic(seen: Array, rho: Array, true: Array, error: Array) -> Array:
    """t(rho) of Pearson's correlations seen; arguments as in `_expected`.

    Of K groups with true values x, z and errors e, f, the covariance of x + e and z + f has K times the variance v w +
    c^2 + a^2 w + b^2 v + 2 rho a b c; a b is sqrt(S - v) sqrt(T - w), S and T the variances of both, with K var(S) =
    2 v^2 + 4 a^2 v, K cov(S, T) = 2 c^2 + 4 rho a b c, and 2 (a^2 c + rho a b v + v c) with the covariance.
    """
    v, w, c = error[..., 0, 0], error[..., 1, 1], error[..., 0, 1]
    a2, b2 = np.maximum(true[..., 0], _LEAST * v), np.maximum(true[..., 1], _LEAST * w)
    product = np.maximum((true[..., 0] + v) * (true[..., 1] + w), 1e-300)
    ab = np.sqrt(a2 * b2)
    k, m, q = np.sqrt(b2 / a2) / 2, np.sqrt(a2 / b2) / 2, rho * ab
    variance = v * w + c**2 + a2 * w + b2 * v + 2 * q * c
    variance = variance + rho**2 * (k**2 * (2 * v**2 + 4 * a2 * v) + m**2 * (2 * w**2 + 4 * b2 * w))
    variance = variance + rho**2 * 2 * k * m * (2 * c**2 + 4 * q * c)
    variance = variance - 4 * rho * (k * (a2 * c + q * v + v * c) + m * (b2 * c + q * w + w * c))
    return np.asarray((seen - _expected(rho, true, error)) / np.sqrt(np.maximum(variance / product, 1e-9)))


def _unit(values: Array) -> Array:
    """Rows (n, groups), centred and of length 1."""
    away = values - values.mean(1, keepdims=True)
    return np.asarray(away / np.sqrt((away**2).sum(1, keepdims=True)))


def _wishart(mean: Array, df: float, seed: int) -> Array:
    """Estimates (DRAWS, 2, 2) of an error covariance that rests on `df` degrees of freedom."""
    random = generator("agreement without noise, errors", seed)
    lower = np.zeros((DRAWS, 2, 2))
    lower[:, 0, 0] = np.sqrt(random.chisquare(df, DRAWS))
    lower[:, 1, 1] = np.sqrt(random.chisquare(max(df - 1, 1e-3), DRAWS))
    lower[:, 1, 0] = random.standard_normal(DRAWS)
    roots, vectors = np.linalg.eigh(mean)
    factor = (vectors * np.sqrt(np.maximum(roots, 0.0))) @ lower
    return np.asarray(factor @ factor.transpose(0, 2, 1) / df)


def _first(holds: Array) -> float:
    """The lowest rho of the fine grid at which it holds; 1 where it never does."""
    return float(_FINE[np.argmax(holds)]) if holds.any() else 1.0


def _chance(beyond: npt.NDArray[np.bool_]) -> float:
    """p value of a simulation."""
    return float((1 + beyond.sum()) / (1 + len(beyond)))
