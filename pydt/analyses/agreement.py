"""How far rankings from disjoint sets of models agree: Spearman's correlation, its error, and what more models give.

    agreement       rank correlation over the groups between influences from disjoint random parts of the models (models
                    in common would share their noise), mean over splits; its error is a bootstrap over groups that
                    resamples all splits together
    spearman_brown  r_n = f r / (1 + (f - 1) r) with f times as much information (Spearman 1910, Brown 1910); of r
                    turned into Pearson's by 2 sin(pi r / 6), and back

docs/analyses.md, "Agreement of rankings", has the reasons and the simulations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import Array
from pydt.analyses.sample_splitting import SPLITS, halves
from pydt.base import EstimateError
from pydt.design import Design
from pydt.estimation import MANY, best_method, influences

_BOOTSTRAPS = 400
_FEWEST = 3  # groups between which an order can be compared
_WIDER = 1.2  # deviations of the bootstrap, without which simulated 95 % intervals held the truth in 86 to 97 %


def agreement(
    one: npt.NDArray[Any], other: npt.NDArray[Any], columns: bool = True, seed: int = 0
) -> tuple[Array, Array]:
    """Spearman's correlation over groups between two sets of influences, its mean over splits, and bootstrap draws.

    Args:
        one, other: (splits, groups, columns).
        columns: compare every column of one with every column of the other, both ways averaged: (columns, columns);
            else each with its own, averaged over the columns: a single number.

    Returns:
        the mean, and the same with resampled groups, with a first axis of 400.
    """
    from scipy import stats

    splits, groups, number_of = one.shape
    a, b = (stats.rankdata(part, axis=1) for part in (one, other))
    a, b = ((part - (groups + 1) / 2) / groups for part in (a, b))
    random = np.random.default_rng(np.random.Philox([seed, groups]))
    weights = np.concatenate(
        [np.ones((1, groups)), random.multinomial(groups, np.full(groups, 1 / groups), _BOOTSTRAPS)]
    )
    weights /= groups
    total: Any = 0.0
    for x, y in zip(a, b, strict=True):
        means = weights @ x, weights @ y
        spreads = [np.sqrt(np.maximum(weights @ z**2 - m**2, 0)) for z, m in zip((x, y), means, strict=True)]
        if columns:
            product = weights @ (x[:, :, None] * y[:, None, :]).reshape(groups, -1)
            product = product.reshape(-1, number_of, number_of) - means[0][:, :, None] * means[1][:, None, :]
            scale = spreads[0][:, :, None] * spreads[1][:, None, :]
        else:
            product, scale = weights @ (x * y) - means[0] * means[1], spreads[0] * spreads[1]
        found = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
        total = total + (found + found.swapaxes(1, 2)) / 2 if columns else total + found.mean(1)
    mean = total[0] / splits
    return mean, mean + _WIDER * (total[1:] / splits - mean)


def spearman_brown(rank: npt.NDArray[Any], factor: npt.NDArray[Any]) -> Array:
    """The rank correlation expected with `factor` times as much information; see the module's head."""
    r = 2 * np.sin(np.pi / 6 * np.asarray(rank, np.float64))
    more = factor * r / np.maximum(1 + (factor - 1) * r, 1e-9)
    return np.asarray(6 / np.pi * np.arcsin(np.clip(more, -1, 1) / 2))


def between_halves(masks: Design, outputs: Array, purpose: str, seed: int) -> tuple[float, float, float] | None:
    """How far rankings of the groups by two halves of the models agree, for the mean output of each, float64 (models,).

    Returns:
        rank correlation, and its 95 % interval; None where too few or too many groups, or half of the models, bear no
        ranking.
    """
    if not _FEWEST <= masks.groups < MANY:
        return None
    try:
        one, other, _ = disjoint_influences(masks, outputs[:, None], purpose, seed)
    except EstimateError:  # half of the models do not tell the groups apart
        return None
    mean, draws = agreement(one, other, columns=False, seed=seed)
    low, high = np.quantile(draws, (0.025, 0.975)).tolist()
    return float(mean), max(low, -1.0), min(high, 1.0)


def disjoint_influences(
    masks: Design, outputs: Array, purpose: str, seed: int, size: int | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Influences from disjoint halves of the models, or parts of `size`, in `SPLITS` random splits.

    Returns:
        those of the one and of the other part, (splits, groups, columns) each; root mean square of their errors.
    """
    found: tuple[list[Any], list[Any]] = ([], [])
    squares = []
    for pair in halves(masks, SPLITS, purpose, seed, size=size):
        for rows, into in zip(pair, found, strict=True):
            part = masks.take(rows)
            fit = influences(part, outputs[rows], best_method(part))
            into.append(fit.unbiased)
            known = np.isfinite(fit.stderr)  # not of an output that is the same in all of these models
            squares.append((fit.stderr[known].astype(np.float64) ** 2).mean() if known.any() else np.nan)
    return np.stack(found[0]), np.stack(found[1]), float(np.sqrt(np.mean(squares)))
