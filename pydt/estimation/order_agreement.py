"""Do two conditions, such as two shots or two targets, order arms alike, and how alike could noise let them be?

Kendall's tau-b (Biometrika 1945) of the arms' means in both, against its distribution if the true order were the same.
For that the means of each condition are shrunk towards their mean until their variance is that of the true means
as `spread` estimates it, and given the order of the sum of both conditions' means, each in units of their errors. To
these, normal noise is added, independent between arms, with each condition's variance of `common_error` and with the
covariance of what both share (seeds, draws, images): a quarter of the variance of the sum of both less a quarter of
that of their difference, after means over what they do not share.

Where a condition shows no spread (tau 0), its arms are taken as equal: then no order could be expected to agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, Result, generator
from pydt.estimation.arm_spread import arms_of, common_error
from pydt.estimation.crossed_mean import Images, images_of
from pydt.estimation.inputs import Array

SIMULATIONS = 4000
_AXES = {"seeds": 1, "draws": 2, "images": 3}


@dataclass(frozen=True, repr=False)
class RankAgreement(Result):
    """How alike two conditions order arms.

    Attributes:
        arms: how many.
        kendall: tau-b of their means; 0 where all means of a condition are equal.
        expected: its mean if the true order were the same in both. low: its 5 % quantile then.
        p: chance of so low an agreement then (one-sided): small where the orders differ by more than noise.
        detectable: whether a wholly reversed true order would give p < 0.05 in 80 % of studies such as this one.
    """

    arms: int
    kendall: float
    expected: float
    low: float
    p: float
    detectable: bool


def rank_agreement(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    second_weights: npt.ArrayLike | None = None,
    second_labels: npt.ArrayLike | None = None,
    *,
    shared: Sequence[str] = (),
    seed: int = 0,
) -> RankAgreement:
    """Kendall's tau-b of the arms in two conditions, and what the same true order would lead one to expect.

    Args:
        first, second: (arms, seeds, draws, images), the same arms in both.
        weights, labels: of the images of the first, as in `crossed`. second_weights, second_labels: of the second;
            those of the first where images are shared.
        shared: which of "seeds", "draws", "images" are the same in both, number by number.
        seed: of the simulation.

    Raises:
        EstimateError: as `spread`; other arms, or other numbers of what is shared.
    """
    place = "rank_agreement"
    y, z = arms_of(first, f"{place}, first"), arms_of(second, f"{place}, second")
    if len(y) != len(z):
        raise EstimateError(f"{len(y)} and {len(z)} arms", place, "give the same arms in the same order")
    for name in shared:
        if name not in _AXES or y.shape[_AXES[name]] != z.shape[_AXES[name]]:
            wrong = f"{name!r} is shared by values {y.shape} and {z.shape}"
            raise EstimateError(wrong, place, f"name those of {', '.join(_AXES)} that are equal in both")
    if "images" in shared:
        second_weights, second_labels = weights, labels
    images = (
        images_of(y.shape[-1], weights, labels, place),
        images_of(z.shape[-1], second_weights, second_labels, place),
    )
    (one, error), (other, its) = common_error(y, images[0]), common_error(z, images[1])
    variances = float(error.variance()[0]), float(its.variance()[0])
    covariance = _covariance(y, z, images, shared)
    limit = (variances[0] * variances[1]) ** 0.5
    noise = np.array([[variances[0], covariance], [covariance, variances[1]]])
    if abs(covariance) > 0.99 * limit:  # estimates of variances and covariance may cross by chance
        noise[0, 1] = noise[1, 0] = np.sign(covariance) * 0.99 * limit
    seen = float(kendall(one[None], other[None])[0])
    together = sum(m / max(v, 1e-30) ** 0.5 for m, v in zip((one, other), variances, strict=True))
    order = np.argsort(np.argsort(together, kind="stable"))
    first_true, second_true = (_shrunk(m, v) for m, v in zip((one, other), variances, strict=True))
    added = generator("rank agreement", seed).standard_normal((SIMULATIONS, len(y), 2)) @ _root(noise)
    same, turned = (
        kendall(first_true[order] + added[..., 0], true[order] + added[..., 1])
        for true in (second_true, second_true[::-1])
    )
    below = np.searchsorted(np.sort(same), np.append(turned, seen) + 1e-9)
    chance = (1 + below) / (1 + SIMULATIONS)
    detectable = bool((chance[:-1] < 0.05).mean() >= 0.8)
    return RankAgreement(
        len(y), seen, float(same.mean()), float(np.quantile(same, 0.05)), float(chance[-1]), detectable
    )


def kendall(first: Array, second: Array) -> Array:
    """Tau-b of each row of first and second (rows, arms); 0 where a row has ties alone."""
    i, j = np.triu_indices(first.shape[1], 1)
    one, other = np.sign(first[:, i] - first[:, j]), np.sign(second[:, i] - second[:, j])
    untied = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.asarray((one * other).sum(1) / np.maximum(untied, 1.0))


def _shrunk(means: Array, variance: float) -> Array:
    """The means from the lowest to the highest, as far apart as the true ones are estimated to be."""
    between = float(means.var(ddof=1))
    factor = (max(between - variance, 0.0) / between) ** 0.5 if between else 0.0
    return np.sort(means.mean() + factor * (means - means.mean()))


def _covariance(y: Array, z: Array, images: tuple[Images, Images], shared: Sequence[str]) -> float:
    """Covariance of the errors of one arm's mean in both conditions; formula at the top."""
    if not shared:
        return 0.0
    parts = []
    for values, own in zip((y, z), images, strict=True):
        for name in ("seeds", "draws"):
            if name not in shared:
                values = values.mean(_AXES[name], keepdims=True)
        if "images" not in shared:
            values = (values[..., own.order] @ own.weights)[..., None]
        parts.append(values)
    of = images[0] if "images" in shared else images_of(1, None, None, "rank_agreement")
    total, difference = (
        float(common_error(both, of)[1].variance()[0]) for both in (parts[0] + parts[1], parts[0] - parts[1])
    )
    return (total - difference) / 4


def _root(noise: Array) -> Array:
    """R with R'R = noise, of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(noise)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T)
