"""Is there anything at all: one global test.

It asks of the whole ranking what no single group can answer: do influences learnt from some models, on the
score half of the target, predict other models on the report half?
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import EstimateError, Result, one_of, refuse_other_rows, whole
from pydt.design import find_repeats
from pydt.estimation.estimators import ESTIMATORS
from pydt.estimation.inputs import (
    Array,
    Units,
    as_outputs,
    assign_folds,
    exchanges,
    rank_within,
    read,
)

_COPIES = 20  # with fewer different copies no p falls below 0.05


@dataclass(frozen=True, repr=False)
class PredictionTest(Result):
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

    The null hypothesis is that outputs do not depend on masks at all. Rows are permuted, repeats of a mask included.
    Two things stay whole: the two rows of a foldover pair, which may trade places, and clusters of the caller's own.

    For each fold influences of the `score` output are fitted on the other folds and predict the `report` output of its
    rows; predictions and outputs are centred within the fold, and correlated over all rows. Both outputs of a row move
    together, and the whole cross-fit runs again. p = (1 + #{copy >= observed}) / (1 + copies).

    Args:
        method: "ols", "ridge" (penalty = groups x mean variance of a mask column) or "difference".
        score, report: (models,) the mean output of a model over the two halves of the target.
        clusters: (models,) labels of rows that must stay together.
        folds: at most; fewer where there are fewer parts to keep whole.

    Raises:
        EstimateError: inputs that do not fit together; masks of some training folds that cannot tell the groups apart;
            so few rows or clusters that fewer than 20 different copies exist.
    """
    known = {name: one.predictor for name, one in ESTIMATORS.items() if one.predictor is not None}
    predictor = known[one_of(method, tuple(known), "method", "prediction_test", EstimateError)]
    folds = whole(folds, "folds", "prediction_test", 2, error=EstimateError)
    permutations = whole(permutations, "permutations", "prediction_test", 1, error=EstimateError)
    seed = whole(seed, "seed", "prediction_test", 0, error=EstimateError)
    refuse_other_rows(EstimateError, masks=masks, score=score, report=report, clusters=clusters)
    columns = [_half(half, name) for name, half in (("score", score), ("report", report))]
    if len(columns[0]) != len(columns[1]):
        raise EstimateError(f"{len(columns[1])} models, but score has {len(columns[0])}", "report", "pass both halves")
    given = read(masks, np.stack(columns, axis=1), clusters=clusters)
    rows = np.flatnonzero(given.units.used)
    kept_whole = given.units.clusters if clusters is not None else _wholes(given.units)
    part_of = np.unique(kept_whole[rows], return_inverse=True)[1].reshape(-1).astype(np.int64)
    turn = clusters is None and given.units.kind == "pair"
    x = given.masks(rows)[:, : given.groups]
    _check_copies(x, part_of, turn, clusters is not None)
    folds = min(folds, int(part_of.max()) + 1)
    fold = assign_folds(part_of, folds, seed)
    predict = np.zeros((len(rows), len(rows)))
    for i in range(folds):
        test, train = fold == i, fold != i
        fitted = predictor(x[train] - x[train].mean(0), given.constants)
        inner = x[test] - x[test].mean(0)
        predict[np.ix_(test, train)] = inner @ fitted
    y = given.outputs[rows].astype(np.float64)
    rng = np.random.default_rng(np.random.Philox([seed, 1]))
    shuffles = np.ascontiguousarray(exchanges(part_of, permutations, rng, turn).T)
    moves = np.concatenate([np.arange(len(rows))[:, None], shuffles], axis=1)
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


def global_test(masks: Any, score: Any, report: Any, method: str) -> tuple[str, PredictionTest]:
    """The method and the `prediction_test`: of OLS where that is the ranking's and four fifths of the rows can fit it,
    else of ridge."""
    if ESTIMATORS[method].needs_regression:
        try:
            return method, prediction_test(masks, score, report, method=method)
        except EstimateError:
            # A fold that holds all rows of a rare group leaves the others without it.
            pass
    return "ridge", prediction_test(masks, score, report, method="ridge")


def _half(output: Any, name: str) -> Array:
    values, flat = as_outputs(output, name)
    if not flat:
        raise EstimateError(f"shape {values.shape} is not (models,)", name, "pass one number per model")
    column = values[:, 0].astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(column))
    if broken.size:
        raise EstimateError(f"the output is {column[broken[0]]}", f"{name}, row {broken[0]}", "drop the row")
    return column


def _wholes(units: Units) -> npt.NDArray[np.int64]:
    """What permutations move as one, int64 (models,): rows, or a mask's n-th row with its complement's n-th."""
    if units.kind != "pair":
        return np.arange(len(units.label), dtype=np.int64)
    rank = rank_within(2 * units.label + (units.sign > 0))
    return units.label * (rank.max() + 1) + rank


def _check_copies(x: Array, part_of: npt.NDArray[np.int64], turn: bool, given: bool) -> None:
    """Refuse data for which hardly any copy differs from the original: moves between equal masks change nothing."""
    sizes = np.bincount(part_of)
    order = np.argsort(part_of, kind="stable")
    mask = find_repeats(_core.pack(np.ascontiguousarray(x[order] > 0))).tolist()
    ends = np.cumsum(sizes)
    parts = Counter(
        tuple(sorted(mask[end - size : end]) if turn else mask[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    )
    copies = sum(math.lgamma(n + 1) for n in Counter(sizes.tolist()).values())
    copies -= sum(math.lgamma(n + 1) for n in parts.values())
    copies += turn * len(sizes) * math.log(2)
    if copies < math.log(_COPIES) - 1e-9:
        what, mend = f"{len(x)} models on {len(set(mask))} different masks", "train more models"
        if given:
            what = f"{len(sizes)} clusters, {max(Counter(sizes.tolist()).values())} of one size,"
            mend = "leave them out where models of one mask were trained independently, or train more models"
        raise EstimateError(
            f"{what} can be permuted in {math.exp(copies):.0f} different ways, too few for a test",
            "clusters" if given else "masks",
            mend,
        )
