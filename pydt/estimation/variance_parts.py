"""What the variance between rows is made of: groups, few-shot draws, judged images, and the rest.

s_rd and t_rd are the mean outputs of row r after few-shot draw d on the two halves of the judged images, of one size;
y_r = s_r. is what influences are computed from; V = var(y) over the R rows. Columns less their means, as M the masks
(p parameters with the mean), H the projection on M, and a cross product of residuals of OLS:

    Q(u, v) = u' (I - H) v / (R - p)          T(u, v) = u' v / (R - 1)          s_rd* = s_rd - s_r.,  t_rd* likewise

    groups = 1 - Q(s., s.) / V                        adjusted R2
    draws  = mean over D - 1 of sum_d Q(s_d*, t_d*) / (D V)                      two halves: no noise of images
    images = Q(s. - t., s. - t.) / (2 V)
    rest   = 1 - groups - draws - images              training with another seed, and what is not linear in the masks

Derivation, and the share that many draws and images would leave (`noiseless`): docs/analyses.md. Errors: jackknife over
blocks of whole clusters of rows. Without block B, u' (I - H) v loses u_B' (I - H_BB)^-1 v_B, u and v residuals: exact,
and no regression is made again. Cost: one QR of R x K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, generator, one_of, t975, to_array, whole
from pydt.design import Design
from pydt.estimation.inputs import Array

_PARTS = ("groups", "draws", "images", "rest", "noiseless")
_PLACE = "variance_shares"
_DETERMINED = 1e-8  # eigenvalue of I - H_BB below which the other rows do not determine a parameter


@dataclass(frozen=True, eq=False)
class Share:
    """A share of each column's variance: values, stderr, low, high (95 %), each float64 (J,); NaN where unknown. Not
    clipped: an unbiased estimate of a small share falls below 0."""

    values: Array
    stderr: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class ShareDifference:
    """How much larger a share is in one column than in another: with 95 % interval, and p two-sided."""

    value: float
    stderr: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class VarianceShares:
    """Shares of the variance between rows, of J columns; groups + draws + images + rest = 1.

    Attributes:
        groups: what the masks explain linearly (adjusted R2); where no masks repeat or complement each other, that of
            OLS in `Fit.explained`.
        draws: which few-shot draws were taken; 0 in a column of one draw, whose noise is in `rest`.
        images: which images were judged.
        rest: training with another seed, and what masks do beyond adding up.
        noiseless: what groups would explain with very many draws and images; NaN where too little would be left.
        drawn: bool (J,): whether the column has several draws.
        df: degrees of freedom of the errors: blocks - 1. rows: how many.
        jackknife: float64 (blocks, 5, J): the shares without each block, in the order above.
    """

    groups: Share
    draws: Share
    images: Share
    rest: Share
    noiseless: Share
    drawn: npt.NDArray[np.bool_]
    df: float
    rows: int
    jackknife: Array

    @property
    def covariance(self) -> Array:
        """float64 (J, J) of the errors of `groups`."""
        return _covariance(self.jackknife[:, 0])

    def difference(self, a: int, b: int, part: str = "groups") -> ShareDifference:
        """The share of column a minus that of column b; the same rows are in both, and their errors are correlated.

        Args:
            a, b: positions of columns.
            part: "groups", "draws", "images", "rest" or "noiseless".

        Raises:
            EstimateError: another part, or no such column.
        """
        from scipy.special import stdtr

        one_of(part, _PARTS, "part", "difference", EstimateError)
        values = getattr(self, part).values
        a, b = (whole(i, "column", "difference", 0, len(values) - 1, EstimateError) for i in (a, b))
        value = float(values[a] - values[b])
        of_blocks = self.jackknife[:, _PARTS.index(part)]
        stderr = float(_covariance((of_blocks[:, a] - of_blocks[:, b])[:, None])[0, 0]) ** 0.5
        p = 2 * float(stdtr(self.df, -abs(value) / stderr)) if stderr > 0 else float(1.0 if value == 0 else np.nan)
        reach = t975(self.df) * stderr
        return ShareDifference(value, stderr, value - reach, value + reach, p)


def variance_shares(
    masks: Any,
    score: Sequence[npt.ArrayLike],
    report: Sequence[npt.ArrayLike] | None = None,
    *,
    blocks: int = 20,
    seed: int = 0,
) -> VarianceShares:
    """Shares of the variance between rows that groups, draws and images have; formulas at the top.

    Args:
        masks: a Design, or 0/1 (models, groups).
        score: for each of J columns (such as numbers of shots) the mean outputs on the score half: (models, draws), or
            (models,) of one draw. Draws are the same for all rows.
        report: likewise, on the other half of the judged images, which has as many. Without it, draws, images, rest and
            noiseless are NaN.
        blocks: of the jackknife; fewer where there are fewer clusters (repeated and complementary masks stay together).
        seed: which rows form a block.

    Raises:
        EstimateError: shapes that do not fit, outputs that are not finite; too few rows for the groups; a column that
            is the same in all rows.
    """
    made = masks if isinstance(masks, Design) else Design.explicit(masks)
    blocks = whole(blocks, "blocks", _PLACE, 2, error=EstimateError)
    columns = [_column(values, len(made), f"score, column {j}") for j, values in enumerate(score)]
    if not columns:
        raise EstimateError("no columns", f"{_PLACE}, score", "give one array a column")
    others: list[Array | None] = [None] * len(columns)
    if report is not None:
        halves = [_column(values, len(made), f"report, column {j}") for j, values in enumerate(report)]
        if [one.shape for one in columns] != [half.shape for half in halves]:
            raise EstimateError("other shapes than score", f"{_PLACE}, report", "give both halves of the same columns")
        others = list(halves)
    label = _blocks(made, blocks, seed)
    model = _Projection(made, label)
    found = np.stack(
        [_shares(model, one, other, j) for j, (one, other) in enumerate(zip(columns, others, strict=True))], -1
    )
    values, jackknife = found[0], found[1:]
    df = float(len(jackknife) - 1)
    parts = {}
    for i, name in enumerate(_PARTS):
        stderr = np.sqrt(np.diagonal(_covariance(jackknife[:, i])))
        reach = t975(df) * stderr
        parts[name] = Share(values[i], stderr, values[i] - reach, values[i] + reach)
    drawn = np.array([one.shape[1] > 1 for one in columns])
    return VarianceShares(**parts, drawn=drawn, df=df, rows=len(made), jackknife=jackknife)


class _Projection:
    """Cross products of residuals on the masks, of all rows and without each block."""

    def __init__(self, masks: Design, label: npt.NDArray[np.int64]):
        from scipy import linalg

        rows = len(masks)
        x = np.column_stack([np.ones(rows), np.asarray(masks[np.arange(rows)], np.float64)])
        q, r, _ = linalg.qr(x, mode="economic", pivoting=True)
        size = np.abs(np.diagonal(r))
        self._basis = q[:, : int((size > 1e-9 * size[0]).sum())]
        self.rows, self.parameters = rows, self._basis.shape[1]
        self.label, self.blocks = label, int(label.max()) + 1
        self.counts = np.r_[rows, rows - np.bincount(label)].astype(np.float64)
        self._without = []
        if self.counts.min() - self.parameters < 2:
            raise self._too_few()
        for block in range(self.blocks):
            own = self._basis[label == block]
            roots, vectors = np.linalg.eigh(np.eye(len(own)) - own @ own.T)
            if roots[0] < _DETERMINED:
                raise self._too_few()
            self._without.append((vectors / roots) @ vectors.T)

    def _too_few(self) -> EstimateError:
        wrong = f"{self.rows} rows are too few for {self.parameters - 1} groups, less one of {self.blocks} blocks"
        return EstimateError(wrong, _PLACE, f"train at least {max(2 * self.parameters, self.rows + 1)} rows")

    def residuals(self, u: Array) -> Array:
        """Residuals (models, n) of columns (models, n)."""
        return u - self._basis @ (self._basis.T @ u)

    def left(self, u: Array, v: Array) -> Array:
        """Q: (1 + blocks, n) of residuals u and v, (models, n): of all rows, then without each block."""
        every = (u * v).sum(0)
        lost = [
            (u[self.label == block] * (inverse @ v[self.label == block])).sum(0)
            for block, inverse in enumerate(self._without)
        ]
        return np.asarray((every - np.stack([0 * every, *lost])) / (self.counts - self.parameters)[:, None])

    def total(self, u: Array, v: Array) -> Array:
        """T: as `left`, about the means."""
        kept = np.stack([np.ones(self.rows), *(self.label != block for block in range(self.blocks))])
        moments = kept @ (u * v) - (kept @ u) * (kept @ v) / self.counts[:, None]
        return np.asarray(moments / (self.counts - 1)[:, None])


def _shares(model: _Projection, score: Array, report: Array | None, column: int) -> Array:
    """(1 + blocks, 5) shares of one column: of all rows, then without each block."""
    score = score - score.mean(0)
    draws = score.shape[1]
    s = score.mean(1, keepdims=True)
    es = model.residuals(s)
    variance, left = model.total(s, s)[:, 0], model.left(es, es)[:, 0]
    if variance.min() <= (1e-9 * np.abs(score).max()) ** 2:
        raise EstimateError("is the same in all rows", f"{_PLACE}, column {column}", "leave the column out")
    found = np.full((len(variance), len(_PARTS)), np.nan)
    found[:, 0] = 1 - left / variance
    if report is None:
        return found
    report = report - report.mean(0)
    t = report.mean(1, keepdims=True)
    et = model.residuals(t)
    of_draws = of_draws_left = np.zeros(len(variance))
    if draws > 1:
        own, its = score - s, report - t
        of_draws = model.total(own, its).sum(1) / ((draws - 1) * draws)
        of_draws_left = model.left(model.residuals(own), model.residuals(its)).sum(1) / ((draws - 1) * draws)
    found[:, 1] = of_draws_left / variance
    found[:, 2] = model.left(es - et, es - et)[:, 0] / (2 * variance)
    found[:, 3] = 1 - found[:, 0] - found[:, 1] - found[:, 2]
    true = model.total(s, t)[:, 0] - of_draws
    share = true / variance
    error = float(_covariance(share[1:, None])[0, 0]) ** 0.5
    if share.min() > 0 and share[0] > t975(model.blocks - 1) * error:
        found[:, 4] = 1 - (model.left(es, et)[:, 0] - of_draws_left) / true
    return found


def _covariance(jackknife: Array) -> Array:
    """Covariance (n, n) of errors from values without each block, (blocks, n)."""
    away = jackknife - jackknife.mean(0)
    return np.asarray(away.T @ away * (len(away) - 1) / len(away))


def _blocks(masks: Design, blocks: int, seed: int) -> npt.NDArray[np.int64]:
    """(models,) numbers of blocks of about equal size, of whole clusters in random order."""
    clusters = np.unique(masks.clusters, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(clusters)
    number = min(blocks, len(sizes))
    if number < 2:
        raise EstimateError("all masks repeat or complement each other", _PLACE, "train rows of more different masks")
    order = generator("blocks of rows", seed).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order] / 2
    of_cluster = np.empty(len(sizes), np.int64)
    of_cluster[order] = np.minimum((before * number / sizes.sum()).astype(np.int64), number - 1)
    return np.unique(of_cluster, return_inverse=True)[1].reshape(-1)[clusters].astype(np.int64)


def _column(values: npt.ArrayLike, rows: int, place: str) -> Array:
    """Finite float64 (models, draws)."""
    y = to_array(values, place, EstimateError)
    if y.dtype.kind not in "biuf" or y.ndim not in (1, 2) or len(y) != rows or 0 in y.shape:
        raise EstimateError(f"shape {y.shape}", f"{_PLACE}, {place}", f"give numbers ({rows} models, draws)")
    y = y.astype(np.float64).reshape(rows, -1)
    if not np.isfinite(y).all():
        raise EstimateError("values that are not finite", f"{_PLACE}, {place}", "leave out rows that failed")
    return y
