"""How well influences predict models they never saw: the linear datamodelling score, its noise ceiling, its control.

    score      mean over targets of Spearman's correlation, over held-out models, of predicted outputs M v with real
               ones (LDS: Ilyas et al., "Datamodels", ICML 2022; Park et al., "TRAK", ICML 2023). Ties get mean ranks;
               equal predictions score 0; targets whose outputs are all equal are left out and counted.
    stderr     jackknife over up to 20 blocks of whole clusters, fits taken as they are; of a cross-fit twice that
               variance.
    folds      without a fit each fold is predicted from the others; correlations are within folds.
    ceiling    (6 / pi) asin(sqrt(r) / 2), r the correlation of two trainings of one mask.
    control    the score with whole clusters of outputs exchanged; a cross-fit is made again of every copy.
               p = (1 + #{control >= score}) / (1 + copies).

Cost: ranking, 21 x rows x targets x log rows, and with a fit one product rows x rows x targets for all controls; a
cross-fit makes (copies + 1) x folds fits. Derivations and what lost: docs/how-many-models.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, Result, refuse_other_rows, to_array, whole
from pydt.design import Design, find_repeats
from pydt.estimation.fit import Fit
from pydt.estimation.influence import influences
from pydt.estimation.inputs import Array, as_outputs, cluster_labels, exchanges, refuse_unwritten
from pydt.reporting import interval_plot

_BLOCKS = 20
_TILE = 4096  # targets ranked at once
_FEWEST = 10  # repeated masks that a ceiling needs


@dataclass(frozen=True, eq=False, repr=False)
class Score(Result):
    """Linear datamodelling score of some influences; definitions in docs/how-many-models.md.

    Attributes:
        lds, stderr: mean over targets, and its standard error over held-out models.
        per_target: float64 (targets,); NaN where all outputs are equal. targets: those with a score.
        rows: held-out models. folds: of the cross-fit, None for a fit that was given.
        control, control_sd, p: mean and spread of the score with outputs exchanged between models, and a one-sided p.
        ceiling, ceiling_stderr: score of an ideal predictor; None where fewer than 10 masks repeat.
        repeats: masks that were trained more than once.
    """

    lds: float
    stderr: float
    per_target: Array
    targets: int
    rows: int
    folds: int | None
    control: float
    control_sd: float
    p: float
    ceiling: float | None
    ceiling_stderr: float | None
    repeats: int

    def _columns(self) -> dict[str, Any]:
        return {"target": range(len(self.per_target)), "lds": self.per_target}

    def plot(self, ax: Any = None) -> Any:
        """Draw the score, that of outputs exchanged between models, and that of an ideal predictor if it is known.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        found = {"score": (self.lds, self.stderr), "exchanged outputs": (self.control, self.control_sd)}
        if self.ceiling is not None:
            found["ideal predictor"] = self.ceiling, self.ceiling_stderr or np.nan
        values, reach = np.array(list(found.values())).T
        return interval_plot(list(found), values, reach, "rank correlation, one standard error", ax=ax)

    def __str__(self) -> str:
        top = "unknown: no masks repeat enough"
        if self.ceiling is not None:
            top = f"{self.ceiling:.3f} +- {self.ceiling_stderr:.3f}"
        control = f"{self.control:.3f} +- {self.control_sd:.3f}"
        return f"LDS {self.lds:.3f} +- {self.stderr:.3f} (control {control}, p = {self.p:.3g}; noise ceiling {top})"


def lds(
    masks: Any,
    outputs: Any,
    fit: Fit | npt.ArrayLike | None = None,
    *,
    method: str = "ols",
    folds: int = 5,
    clusters: npt.ArrayLike | None = None,
    permutations: int = 99,
    seed: int = 0,
) -> Score:
    """Score influences on held-out models, or cross-fitted on all.

    Args:
        masks: a Design or 0/1 array-like (models, groups): with a fit, of models that it was not fitted on.
        outputs: (models, targets) or (models,), any float dtype.
        fit: what `influences` gave (its `values`), or values (groups, targets); None: fitted on the other folds.
        method, folds: of that cross-fit.
        clusters: (models,) labels of rows that stay together; by default repeated and complementary masks.
        permutations: copies for the control; without a fit each costs a cross-fit.

    Raises:
        EstimateError: inputs that do not fit together, outputs that are not finite, fewer than 5 rows or 2 clusters in
            a fold, or no target whose outputs differ.
    """
    refuse_other_rows(EstimateError, masks=masks, outputs=outputs, clusters=clusters)
    made = masks if isinstance(masks, Design) else Design.explicit(masks)
    y = _outputs(outputs, len(made))
    label = _labels(made, clusters)
    permutations = whole(permutations, "permutations", "lds", 1, error=EstimateError)
    rng = np.random.default_rng(np.random.Philox(whole(seed, "seed", "lds", error=EstimateError)))
    number = int(label.max()) + 1
    if fit is not None:
        fold, count = np.zeros(len(made), np.int64), None
        values = [_values(fit, made.groups, y.shape[1])]
    else:
        count = min(whole(folds, "folds", "lds", 2, error=EstimateError), number)
        fold = (rng.permutation(number) % max(count, 1))[label]
        values = _cross_fit(made, y, fold, count, method, clusters) if count > 1 else []
    for i in range(len(values) or 1):
        if not values or (fold == i).sum() < 5 or len(np.unique(label[fold == i])) < 2:
            what = f"{len(made)} models in {number} clusters are too few"
            raise EstimateError(what, "masks", "hold out more models, or use fewer folds")
    rows = np.asarray(made, np.float32)
    everything = np.ones(len(made), bool)
    per_target, kernel = _score(rows, y, values, fold, everything, kernel=fit is not None)
    defined = np.isfinite(per_target)
    if not defined.any():
        raise EstimateError("all models give the same output on every target", "outputs", "there is nothing to predict")
    score = float(per_target[defined].mean())

    block = rng.permutation(number)[label] % min(_BLOCKS, number)
    parts = []
    for i in range(int(block.max()) + 1):
        left, _ = _score(rows, y, values, fold, block != i)
        parts.append(float(np.nanmean(left)) if np.isfinite(left).any() else score)
    twice = 1 if count is None else 2
    stderr = math.sqrt(twice * (len(parts) - 1) / len(parts) * ((np.array(parts) - np.mean(parts)) ** 2).sum())

    moved = exchanges(label, permutations, rng)
    if count is None:
        copies = kernel[moved, np.arange(len(made))].sum(1) / defined.sum()
    else:
        step = max(1, _TILE // y.shape[1])
        found = []
        for start in range(0, permutations, step):
            several = np.concatenate([y[order] for order in moved[start : start + step]], axis=1)
            again = _cross_fit(made, several, fold, count, method, clusters)
            found.append(_score(rows, several, again, fold, everything)[0].reshape(-1, y.shape[1]))
        copies = np.nanmean(np.concatenate(found)[:, defined], axis=1)
    ceiling = _ceiling(find_repeats(made.packed()), y, defined, rng)
    return Score(
        lds=score,
        stderr=stderr,
        per_target=per_target,
        targets=int(defined.sum()),
        rows=len(made),
        folds=count,
        control=float(copies.mean()),
        control_sd=float(copies.std(ddof=1)) if permutations > 1 else math.nan,
        p=(1 + int((copies >= score - 1e-12).sum())) / (1 + permutations),
        ceiling=ceiling[0],
        ceiling_stderr=ceiling[1],
        repeats=ceiling[2],
    )


def repeat_rows(masks: Any, number: int = 50, seed: int = 0) -> npt.NDArray[np.int64]:
    """Which rows to train once more, with other seeds, to measure the noise ceiling: int64 (number,), in order.

    Rows of different clusters, drawn at random, that have not been repeated yet. With reliability r of one output the
    ceiling's standard error is about (1 - r^2) / sqrt(4 r number): 0.08 for r = 1/2 and 50 rows; the mean over many
    targets has a smaller one.

    Args:
        masks: a Design or 0/1 array-like (models, groups).

    Raises:
        EstimateError: fewer such rows than asked for, or fewer than 10 asked for.
    """
    made = masks if isinstance(masks, Design) else Design.explicit(masks)
    number = whole(number, "number", "repeat_rows", _FEWEST, error=EstimateError)
    same = find_repeats(made.packed())
    single = np.flatnonzero(np.bincount(same)[same] == 1)
    seed = whole(seed, "seed", "repeat_rows", error=EstimateError)
    order = np.random.default_rng(np.random.Philox(seed)).permutation(single)
    first = np.sort(np.unique(made.clusters[order], return_index=True)[1])
    if len(first) < number:
        raise EstimateError(f"{len(first)} masks are there once", "number", "ask for fewer, or extend the design first")
    return np.sort(order[first[:number]]).astype(np.int64)


def _outputs(outputs: Any, models: int) -> npt.NDArray[Any]:
    array, _ = as_outputs(outputs)
    if len(array) != models:
        raise EstimateError(f"{len(array)} rows of outputs for {models} masks", "outputs", "pass one row per mask")
    for tile in _tiles(array.shape[1]):
        broken = np.argwhere(~np.isfinite(array[:, tile]))
        if broken.size:
            row, target = broken[0]
            where = f"outputs, row {row}, target {tile.start + target}"
            raise EstimateError(f"the output is {array[row, tile.start + target]}", where, "drop the row or the target")
    refuse_unwritten(array)
    return array


def _tiles(targets: int) -> Iterator[slice]:
    return (slice(start, min(start + _TILE, targets)) for start in range(0, targets, _TILE))


def _labels(made: Design, clusters: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    if clusters is None:
        return np.unique(made.clusters, return_inverse=True)[1].reshape(-1).astype(np.int64)
    given = cluster_labels(clusters, len(made))
    return np.unique(given, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _values(fit: Any, groups: int, targets: int) -> npt.NDArray[Any]:
    values = to_array(fit.values if isinstance(fit, Fit) else fit, "fit", EstimateError)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape != (groups, targets) or values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        what = f"values of shape {values.shape} for {groups} groups and {targets} targets"
        raise EstimateError(what, "fit", "pass finite values (groups, targets), of the same targets as outputs")
    return values


def _cross_fit(
    made: Design, y: npt.NDArray[Any], fold: npt.NDArray[np.int64], count: int, method: str, clusters: Any
) -> list[npt.NDArray[Any]]:
    """For each fold the values (groups, targets) that the other folds give."""
    found = []
    for i in range(count):
        rows = np.flatnonzero(fold != i)
        kept = None if clusters is None else to_array(clusters, "clusters", EstimateError)[rows]
        found.append(influences(made.take(rows), np.ascontiguousarray(y[rows]), method, clusters=kept).values)
    return found


def _score(
    masks: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    values: list[npt.NDArray[Any]],
    fold: npt.NDArray[np.int64],
    keep: npt.NDArray[np.bool_],
    kernel: bool = False,
) -> tuple[Array, Array]:
    """Score of each target over the kept rows; the sum over targets of predicted ranks x real ranks, (rows, rows)."""
    targets = y.shape[1]
    found = np.empty(targets)
    square = np.zeros((len(y), len(y)) if kernel else (0, 0))
    members = [np.flatnonzero((fold == i) & keep) for i in range(len(values))]
    for tile in _tiles(targets):
        ranks = [_ranks(y[rows, tile]) for rows in members]
        weight = np.stack([len(rows) * (real != 0).any(0) for rows, real in zip(members, ranks, strict=True)])
        with np.errstate(invalid="ignore"):
            weight = weight / weight.sum(0)
        found[tile] = np.where(np.isfinite(weight).all(0), 0.0, np.nan)
        weight = np.nan_to_num(weight)
        for rows, real, slope, share in zip(members, ranks, values, weight, strict=True):
            # float64, in units of the largest: rounding must not tell apart what a sparse fit predicts to be equal
            unit = slope[:, tile].astype(np.float64)
            largest = np.abs(unit).max(0)
            unit /= np.where(largest > 0, largest, 1)
            guess = _ranks(np.round(masks[rows].astype(np.float64) @ unit, 12))
            real = real * share
            found[tile] += (guess * real).sum(0)
            if kernel:
                square[np.ix_(rows, rows)] += guess @ real.T
    return found, square


def _ranks(values: npt.NDArray[Any]) -> Array:
    """Mean ranks of each column, centred, of norm 1; zeros where all values are equal."""
    from scipy import stats

    ranks = stats.rankdata(values, axis=0) - (len(values) + 1) / 2
    norm = np.sqrt((ranks**2).sum(0))
    return np.divide(ranks, norm, out=np.zeros_like(ranks), where=norm > 0)


def _ceiling(
    same: npt.NDArray[np.int64], y: npt.NDArray[Any], defined: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[float | None, float | None, int]:
    """Ceiling, its standard error, and the number of masks that repeat; two rows of each, drawn at random."""
    order = rng.permutation(len(same))
    order = order[np.argsort(same[order], kind="stable")]
    label = same[order]
    first = np.flatnonzero(np.r_[True, label[1:] != label[:-1]] & np.r_[label[1:] == label[:-1], False])
    pairs = np.stack([order[first], order[first + 1]]) if first.size else np.empty((2, 0), np.intp)
    if pairs.shape[1] < _FEWEST:
        return None, None, pairs.shape[1]

    def ceiling(chosen: npt.NDArray[np.intp]) -> float:  # may be negative, or its error would be 0
        total, count = 0.0, 0
        for tile in _tiles(y.shape[1]):
            part = y[:, tile][:, defined[tile]]
            both = _ranks(np.concatenate([part[chosen[0]], part[chosen[1]]]))
            half = len(both) // 2
            alike = 2 * (both[:half] * both[half:]).sum(0)  # of (a, b) with (b, a): of either order
            varied = (both != 0).any(0)
            total, count = total + float((2 * np.sin(np.pi / 6 * alike))[varied].sum()), count + int(varied.sum())
        reliability = min(max(total / count, -1.0), 1.0) if count else 0.0
        return math.copysign(6 / math.pi * math.asin(math.sqrt(abs(reliability)) / 2), reliability)

    blocks = np.arange(pairs.shape[1]) % _BLOCKS
    parts = np.array([ceiling(pairs[:, blocks != i]) for i in np.unique(blocks)])
    spread = math.sqrt((len(parts) - 1) / len(parts) * ((parts - parts.mean()) ** 2).sum())
    return max(ceiling(pairs), 0.0), spread, pairs.shape[1]
