"""What the variance between rows is made of: groups, few-shot draws, judged images, and the rest.

s_rd and t_rd are the mean outputs of row r after few-shot draw d on the two halves of the judged images;
y_r = s_r. is what influences are computed from; V = var(y) over the R rows. Columns less their means, as M the masks
(p parameters with the mean), H the projection on M, and a cross product of residuals of OLS:

    Q(u, v) = u' (I - H) v / (R - p)          T(u, v) = u' v / (R - 1)          s_rd* = s_rd - s_r.,  t_rd* likewise

    groups = 1 - Q(s., s.) / V                        adjusted R2
    draws  = mean over D - 1 of sum_d Q(s_d*, t_d*) / (D V)                      two halves: no noise of images
    images = w Q(s. - t., s. - t.) / V,    w = 1/2 of halves of one size: what the score half has of the noise of both
    rest   = 1 - groups - draws - images              training with another seed, and what is not linear in the masks

Derivation, and the share that many draws and images would leave (`noiseless`): docs/analyses.md.

Errors: jackknife over blocks of whole clusters of rows. Without block B, u' (I - H) v loses u_B' (I - H_BB)^-1 v_B, u
and v residuals: exact, and no regression is made again. A jackknife counts the noise of u' H v, products of two
different rows, twice (Efron and Stein, Annals of Statistics 1981); what is too much is subtracted:

    excess cov(Q(u, v), Q(w, x)) = (Q(u, w) Q(v, x) + Q(u, x) Q(v, w)) p / (R - p)^2, times 1 - 1 / blocks
    variance = max(jackknife - excess, jackknife (R - p) / (2 R)),    df = (blocks - 1) (variance / jackknife)^2

The bound is the ratio where nothing but noise is there. Without the subtraction errors are too large by 30 % at 62
groups and 300 rows. Cost: one QR of R x K.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, Result, Short, generator, one_of, t975, to_array, whole
from pydt.design import Design
from pydt.estimation.inputs import Array, Masks, read_masks
from pydt.reporting import curve_plot

_PARTS = ("groups", "draws", "images", "rest", "noiseless")
_NUMBERS = ("values", "stderr", "df", "low", "high")
_PLACE = "variance_shares"
_DETERMINED = 1e-8  # eigenvalue of I - H_BB below which the other rows do not determine a parameter


@dataclass(frozen=True, eq=False, repr=False)
class Share(Short):
    """A share of each column's variance: values, stderr, degrees of freedom, low, high (95 %), each float64 (J,); NaN
    where unknown. Not clipped: an unbiased estimate of a small share may fall below 0."""

    values: Array
    stderr: Array
    df: Array
    low: Array
    high: Array


@dataclass(frozen=True, repr=False)
class ShareDifference(Result):
    """How much larger a share is in one column than in another: with 95 % interval, and p two-sided."""

    value: float
    stderr: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False, repr=False)
class VarianceShares(Result):
    """Shares of the variance between rows, of J columns; groups + draws + images + rest = 1.

    Attributes:
        groups: what the masks explain linearly (adjusted R2); where no masks repeat or complement each other, that of
            OLS in `Fit.explained`.
        draws: which few-shot draws were taken; 0 in a column of one draw, whose noise is in `rest`.
        images: which images were judged.
        rest: training with another seed, and what masks do beyond adding up.
        noiseless: what groups would explain with very many draws and images; NaN where too little would be left.
        drawn: bool (J,): whether the column has several draws.
        rows: how many. parameters: groups that masks tell apart, and 1.
        jackknife: float64 (blocks, 5, J): the shares without each block, in the order above. excess: float64 (5, J, J):
            what their covariance has too much.
    """

    groups: Share
    draws: Share
    images: Share
    rest: Share
    noiseless: Share
    drawn: npt.NDArray[np.bool_]
    rows: int
    parameters: int
    jackknife: Array
    excess: Array

    def _columns(self) -> dict[str, Any]:
        columns = range(len(self.drawn))
        shares = [getattr(self, part) for part in _PARTS]
        numbers = {name: np.concatenate([getattr(one, name) for one in shares]) for name in _NUMBERS}
        parts = [part for part in _PARTS for _ in columns]
        return {"column": [*columns] * len(_PARTS), "part": parts, **numbers}

    def plot(self, ax: Any = None) -> Any:
        """Draw the shares by column, with their 95 % intervals.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shares = [getattr(self, part) for part in _PARTS]
        reach = np.stack([[one.values - one.low, one.high - one.values] for one in shares])
        labels, title = ("column of outputs", "share of the variance, 95 % intervals"), "What the rows differ by"
        x = [str(i) for i in range(len(self.drawn))]
        return curve_plot(_PARTS, x, np.stack([one.values for one in shares]), reach, labels, title, ax)

    def difference(self, a: int, b: int, part: str = "groups", *, tests: int = 1) -> ShareDifference:
        """The share of column a minus that of column b; the same rows are in both, and their errors are correlated.

        Args:
            a, b: positions of columns.
            part: "groups", "draws", "images", "rest" or "noiseless".
            tests: of so many differences all intervals hold at once (Bonferroni); p is that of one.

        Raises:
            EstimateError: another part, or no such column.
        """
        from scipy.special import stdtr

        one_of(part, _PARTS, "part", "difference", EstimateError)
        values = getattr(self, part).values
        a, b = (whole(i, "column", "difference", 0, len(values) - 1, EstimateError) for i in (a, b))
        value = float(values[a] - values[b])
        i = _PARTS.index(part)
        of_blocks, excess = self.jackknife[:, i], self.excess[i]
        too_much = excess[a, a] + excess[b, b] - 2 * excess[a, b]
        variance, df = _error((of_blocks[:, a] - of_blocks[:, b])[:, None], too_much, self.rows, self.parameters)
        stderr = float(variance[0]) ** 0.5
        p = 2 * float(stdtr(df[0], -abs(value) / stderr)) if stderr > 0 else float(1.0 if value == 0 else np.nan)
        reach = t975(float(df[0]), tests) * stderr
        return ShareDifference(value, stderr, value - reach, value + reach, p)


def variance_shares(
    masks: Any,
    score: Sequence[npt.ArrayLike],
    report: Sequence[npt.ArrayLike] | None = None,
    *,
    part: npt.ArrayLike = 0.5,
    blocks: int = 50,
    seed: int = 0,
) -> VarianceShares:
    """Shares of the variance between rows that groups, draws and images have; formulas at the top.

    Args:
        masks: a Design, or 0/1 (models, groups).
        score: for each of J columns (such as numbers of shots) the mean outputs on the score half: (models, draws), or
            (models,) of one draw. Draws are the same for all rows.
        report: likewise, on the other half of the judged images. Without it, draws, images, rest and noiseless are NaN.
        part: of the noise of images in score - report, that of score, in [0, 1]: a number or (J,). With weights u that
            sum to 1 in each half it is sum u^2 of the score half over that of both; 0.5 of halves of one size.
        blocks: of the jackknife; fewer where there are fewer clusters (repeated and complementary masks stay together).
            Each is left out once, so the others need rows for all groups.
        seed: which rows form a block.

    Raises:
        EstimateError: shapes that do not fit, outputs that are not finite, a part outside [0, 1]; too few rows for the
            groups; a column that is the same in all rows.
    """
    from scipy.special import stdtrit

    made = read_masks(masks if isinstance(masks, Design) else to_array(masks, "masks", EstimateError))
    blocks = whole(blocks, "blocks", _PLACE, 2, error=EstimateError)
    columns = [_column(values, made.models, f"score, column {j}") for j, values in enumerate(score)]
    if not columns:
        raise EstimateError("no columns", f"{_PLACE}, score", "give one array a column")
    others: list[Array | None] = [None] * len(columns)
    if report is not None:
        halves = [_column(values, made.models, f"report, column {j}") for j, values in enumerate(report)]
        if [one.shape for one in columns] != [half.shape for half in halves]:
            raise EstimateError("other shapes than score", f"{_PLACE}, report", "give both halves of the same columns")
        others = list(halves)
    given = to_array(part, f"{_PLACE}, part", EstimateError)
    if (
        given.dtype.kind not in "biuf"
        or given.shape not in ((), (len(columns),))
        or not ((given >= 0) & (given <= 1)).all()
    ):
        raise EstimateError(f"is {part!r}", f"{_PLACE}, part", "give a number from 0 to 1, or one a column")
    own = np.broadcast_to(given.astype(np.float64), len(columns))
    label = _blocks(made, blocks, seed)
    model = _Projection(made, label)
    treated = [_treat(model, one, other, own[j], j) for j, (one, other) in enumerate(zip(columns, others, strict=True))]
    shares = np.stack([one for one, _ in treated], -1)
    excess = model.excess([parts for _, parts in treated])
    parts = {}
    for i, name in enumerate(_PARTS):
        variance, df = _error(shares[1:, i], np.diagonal(excess[i]), model.rows, model.parameters)
        values, stderr = shares[0, i], np.sqrt(variance)
        reach = stdtrit(df, 0.975) * stderr
        parts[name] = Share(values, stderr, df, values - reach, values + reach)
    drawn = np.array([one.shape[1] > 1 for one in columns])
    return VarianceShares(
        **parts, drawn=drawn, rows=model.rows, parameters=model.parameters, jackknife=shares[1:], excess=excess
    )


@dataclass(frozen=True, eq=False)
class _Products:
    """factor x sum over n of Q(first, second), residuals (models, n)."""

    factor: float
    first: Array
    second: Array


class _Projection:
    """Cross products of residuals on the masks, of all rows and without each block."""

    def __init__(self, masks: Masks, label: npt.NDArray[np.int64]):
        from scipy import linalg

        rows = masks.models
        x = np.column_stack([np.ones(rows), masks.masks(np.arange(rows))[:, : masks.groups]])
        q, r, _ = linalg.qr(x, mode="economic", pivoting=True)
        size = np.abs(np.diagonal(r))
        self._basis = q[:, : int((size > 1e-9 * size[0]).sum())]
        self.rows, self.parameters = rows, self._basis.shape[1]
        self.label, self.blocks = label, int(label.max()) + 1
        self.counts = np.r_[rows, rows - np.bincount(label)].astype(np.float64)
        self._without = []
        if self.counts.min() - self.parameters < max(2, self.parameters / 2):  # below, errors are not to be trusted
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

    def excess(self, columns: Sequence[list[_Products]]) -> Array:
        """What the jackknife's covariance of each share has too much, (5, J, J); formula at the top."""
        free = self.rows - self.parameters
        found = np.zeros((len(_PARTS), len(columns), len(columns)))
        for a, b in itertools.combinations_with_replacement(range(len(columns)), 2):
            for i, (u, w) in enumerate(zip(columns[a], columns[b], strict=True)):
                straight = (u.first.T @ w.first) * (u.second.T @ w.second)
                crossed = (u.first.T @ w.second) * (u.second.T @ w.first)
                both = float((straight + crossed).sum()) / free**2
                found[i, a, b] = found[i, b, a] = u.factor * w.factor * both
        return found * self.parameters / free**2 * (1 - 1 / self.blocks)

    def total(self, u: Array, v: Array) -> Array:
        """T: as `left`, about the means."""
        kept = np.stack([np.ones(self.rows), *(self.label != block for block in range(self.blocks))])
        moments = kept @ (u * v) - (kept @ u) * (kept @ v) / self.counts[:, None]
        return np.asarray(moments / (self.counts - 1)[:, None])


def _treat(
    model: _Projection, score: Array, report: Array | None, part: float, column: int
) -> tuple[Array, list[_Products]]:
    """(1 + blocks, 5) shares of one column, of all rows, then without each block; and the Q that each share is of."""
    score = score - score.mean(0)
    draws = score.shape[1]
    s = score.mean(1, keepdims=True)
    es = model.residuals(s)
    variance, left = model.total(s, s)[:, 0], model.left(es, es)[:, 0]
    if variance.min() <= (1e-9 * np.abs(score).max()) ** 2:
        raise EstimateError("is the same in all rows", f"{_PLACE}, column {column}", "leave the column out")
    found = np.full((len(variance), len(_PARTS)), np.nan)
    found[:, 0] = 1 - left / variance
    groups = _Products(-1 / variance[0], es, es)
    if report is None:
        return found, [groups]
    report = report - report.mean(0)
    t = report.mean(1, keepdims=True)
    et = model.residuals(t)
    own, its = model.residuals(score - s), model.residuals(report - t)
    pairs = max(draws - 1, 1) * draws
    of_draws = model.total(score - s, report - t).sum(1) / pairs
    of_draws_left = model.left(own, its).sum(1) / pairs
    found[:, 1] = of_draws_left / variance
    found[:, 2] = part * model.left(es - et, es - et)[:, 0] / variance
    found[:, 3] = 1 - found[:, 0] - found[:, 1] - found[:, 2]
    true = model.total(s, t)[:, 0] - of_draws
    share = true / variance
    spread = float(_jackknife(share[1:, None])[0]) ** 0.5
    if share.min() > 0 and share[0] > t975(model.blocks - 1) * spread:
        found[:, 4] = 1 - (model.left(es, et)[:, 0] - of_draws_left) / true
    return found, [
        groups,
        _Products(1 / (pairs * variance[0]), own, its),
        _Products(part / variance[0], es - et, es - et),
        _Products(
            1 / variance[0],
            np.concatenate([es, own, es - et], 1),
            np.concatenate([es, -its / pairs, part * (et - es)], 1),
        ),
        _Products(-1 / true[0], np.concatenate([es, own], 1), np.concatenate([et, -its / pairs], 1)),
    ]


def _jackknife(without: Array) -> Array:
    """Variances (n,) from values without each block, (blocks, n)."""
    return np.asarray(without.var(0) * (len(without) - 1))


def _error(without: Array, excess: Any, rows: int, parameters: int) -> tuple[Array, Array]:
    """Variances and degrees of freedom (n,) of shares, given without each block (blocks, n); formulas at the top."""
    jackknife = _jackknife(without)
    variance = np.maximum(jackknife - np.asarray(excess), jackknife * (rows - parameters) / (2 * rows))
    ratio = np.divide(variance, jackknife, out=np.ones_like(variance), where=jackknife > 0)
    return variance, (len(without) - 1) * ratio**2


def _blocks(masks: Masks, blocks: int, seed: int) -> npt.NDArray[np.int64]:
    """(models,) numbers of blocks, of whole clusters in random order."""
    clusters = np.unique(masks.units.clusters, return_inverse=True)[1].reshape(-1)
    count = int(clusters.max()) + 1
    number = min(blocks, count)
    if number < 2:
        raise EstimateError("all masks repeat or complement each other", _PLACE, "train rows of more different masks")
    of_cluster = np.empty(count, np.int64)
    of_cluster[generator("blocks of rows", seed).permutation(count)] = np.arange(count) * number // count
    return of_cluster[clusters]


def _column(values: npt.ArrayLike, rows: int, place: str) -> Array:
    """Finite float64 (models, draws)."""
    y = to_array(values, place, EstimateError)
    if y.dtype.kind not in "biuf" or y.ndim not in (1, 2) or len(y) != rows or 0 in y.shape:
        raise EstimateError(f"shape {y.shape}", f"{_PLACE}, {place}", f"give numbers ({rows} models, draws)")
    y = y.astype(np.float64).reshape(rows, -1)
    if not np.isfinite(y).all():
        raise EstimateError("values that are not finite", f"{_PLACE}, {place}", "leave out rows that failed")
    return y
