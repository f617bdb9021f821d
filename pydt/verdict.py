"""Is there anything at all, and how many models would show it: one global test, and the size of an ensemble.

The test asks of the whole ranking what no single group can answer: do influences learnt from some models, on the
score half of the target, predict other models on the report half?
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.errors import EstimateError
from pydt.estimate import Fit
from pydt.moments import Array, Inputs, assign_folds, read


@dataclass(frozen=True)
class PredictionTest:
    """The global test. correlation: held-out predictions with report outputs; p: one-sided, by permutation; n: models
    used; null_sd: standard deviation of the correlation under permutation."""

    correlation: float
    p: float
    n: int
    folds: int
    permutations: int
    null_sd: float


def prediction_test(
    masks: Any,
    score: Any,
    report: Any,
    *,
    method: str = "ols",
    clusters: npt.ArrayLike | None = None,
    folds: int = 5,
    permutations: int = 999,
    seed: int = 0,
) -> PredictionTest:
    """Do influences learnt from some models predict the report outputs of other models?

    For each fold (whole clusters) influences of the `score` output are fitted on the other folds and predict the
    `report` output of its rows; predictions and outputs are centred within the fold, and correlated over all rows.
    Permutation: whole clusters of both outputs move together to the masks of clusters of the same size, and the whole
    cross-fit runs again; prediction is linear in the outputs, so all copies cost one product with a matrix (models x
    models). p = (1 + #{copy >= observed}) / (1 + copies).

    Args:
        method: "ols", "ridge" (penalty = groups x mean variance of a mask column: the best when half of the variance is
            linear; it does not look at the outputs) or "difference".
        score, report: (models,) the mean output of a model over the two halves of the target.

    Raises:
        EstimateError: inputs that do not fit together; masks of some training folds that cannot tell the groups apart.
    """
    if method not in ("ols", "ridge", "difference"):
        raise EstimateError(f"unknown method {method!r}", "method", "use ols, ridge or difference")
    if permutations < 1:
        raise EstimateError(f"{permutations} permutations", "permutations", "pass at least 1, better 999")
    columns = [np.asarray(half.detach().cpu() if hasattr(half, "detach") else half) for half in (score, report)]
    for name, half in zip(("score", "report"), columns, strict=True):
        if half.ndim != 1 or half.shape != columns[0].shape:
            raise EstimateError(f"shape {half.shape} is not (models,)", name, "pass one number per model")
    given = read(masks, np.stack([c.astype(np.float64) for c in columns], axis=1), clusters=clusters)
    rows = np.flatnonzero(given.units.used)
    cluster = np.unique(given.units.clusters[rows], return_inverse=True)[1].reshape(-1).astype(np.int64)
    x = given.masks(rows)[:, : given.groups]
    fold = assign_folds(cluster, folds, seed)
    predict = np.zeros((len(rows), len(rows)))
    for i in range(folds):
        test, train = fold == i, fold != i
        fitted = _predictor(given, x[train], method)
        inner = x[test] - x[test].mean(0)
        predict[np.ix_(test, train)] = inner @ fitted
    y = given.outputs[rows].astype(np.float64)
    rng = np.random.default_rng(np.random.Philox([seed, 1]))
    moves = np.stack([np.arange(len(rows)), *(_shuffle(cluster, rng) for _ in range(permutations))], axis=1)
    found = np.empty(moves.shape[1])
    for start in range(0, moves.shape[1], 100):
        part = moves[:, start : start + 100]
        guess, truth = predict @ y[:, 0][part], y[:, 1][part]
        for i in range(folds):
            truth[fold == i] -= truth[fold == i].mean(0)
        norm = np.sqrt((guess**2).sum(0) * (truth**2).sum(0))
        found[start : start + 100] = np.divide((guess * truth).sum(0), norm, out=np.zeros_like(norm), where=norm > 0)
    copies = found[1:]
    p = (1 + int((copies >= found[0] - 1e-12).sum())) / (1 + permutations)
    return PredictionTest(float(found[0]), p, len(rows), folds, permutations, float(copies.std()))


def _predictor(given: Inputs, x: Array, method: str) -> Array:
    """The matrix (groups, rows) that turns outputs of the training rows into influences."""
    centred = x - x.mean(0)
    gram = centred.T @ centred
    if method == "difference":
        level = np.diag(gram)[:, None]
        return np.divide(centred.T, level, out=np.zeros_like(centred.T), where=level > 0)
    if method == "ridge":
        return np.linalg.solve(gram + np.trace(gram) / len(x) * np.eye(len(gram)), centred.T)
    eigenvalues, vectors = np.linalg.eigh(gram)
    good = eigenvalues > 1e-9 * eigenvalues[-1]
    if good.sum() < len(gram) - (given.estimand == "swap"):
        raise EstimateError(
            f"{len(x)} models of the other folds cannot tell {len(gram)} groups apart",
            "masks",
            'train more models, or use method="ridge"',
        )
    return (vectors[:, good] / eigenvalues[good]) @ (vectors[:, good].T @ centred.T)


def _shuffle(cluster: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """A random order of the rows that moves clusters as wholes, among clusters of their size."""
    order = np.argsort(cluster, kind="stable")
    sizes = np.bincount(cluster)
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    moved = np.empty(len(cluster), np.intp)
    for size in np.unique(sizes):
        at = starts[sizes == size]
        moved[order[at[:, None] + np.arange(size)]] = order[rng.permutation(at)[:, None] + np.arange(size)]
    return moved


def models_for_stderr(fit: Fit, stderr: float) -> int:
    """Models needed for a standard error of `stderr` for the median group (and target), by the same design and method.

    The squared error falls with 1 / models; for ols with 1 / (models - parameters).

    Raises:
        EstimateError: `stderr` is not a positive number, or the fit has no finite errors.
    """
    if not (isinstance(stderr, (int, float, np.number)) and math.isfinite(stderr) and stderr > 0):
        raise EstimateError(
            f"{stderr!r} is not a positive number", "stderr", "pass the standard error that is wished for"
        )
    known = fit.stderr[np.isfinite(fit.stderr)]
    if not known.size:
        raise EstimateError("no standard error is known", "fit", "fit with finite outputs")
    ratio = float(np.median(known)) / float(stderr)
    return max(2, math.ceil(fit.parameters + (fit.models - fit.parameters) * ratio**2))


def models_for_effect(fit: Fit, effect: float, power: float = 0.8, level: float = 0.05) -> int:
    """Models needed so that a two-sided test at `level` finds one group of influence `effect` with probability `power`.

    Normal quantiles: the standard error must be |effect| / (z(1 - level / 2) + z(power)); median group and target.

    Raises:
        EstimateError: an effect of zero, or `power` or `level` not between 0 and 1.
    """
    if not (0 < power < 1 and 0 < level < 1):
        raise EstimateError(f"power {power!r}, level {level!r}", "power", "pass probabilities between 0 and 1")
    if not math.isfinite(effect) or effect == 0:
        raise EstimateError(f"{effect!r} is not an effect that can be found", "effect", "pass a number other than zero")
    quantiles = NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(power)
    if quantiles <= 0:
        return 2
    return models_for_stderr(fit, abs(effect) / quantiles)
