"""What every estimator reads: inputs checked once, sufficient statistics that merge, and the LASSO on a Gram matrix.

    count = M'1 (groups,)    total = 1'Y (targets,)    squares = 1'Y^2 (targets,)    cross = M'Y (groups, targets)
    gram = M'M

in float64, with Y less a shift per target (its first row), so that a large common offset costs no digits. Statistics of
disjoint sets of rows add, and a training fold is the total less the held-out fold: cross-validation costs one pass.

Clusters. Rows whose masks repeat or complement each other are not independent draws of what a linear model leaves
out, so errors are counted in units, not in rows (R units, weight = rows in the unit; values stay those of all rows):

    repeat   a unit is the mean of the rows with one mask: `squares` becomes the sum of (sum of y)^2 / rows over units
    pair     a unit is the half-difference of a mask's rows and its complement's, regressed without intercept on mask
             - 1/2: count = total = 0, cross -> cross - total / 2, gram -> gram - rows / 4, squares -> sum of
             (difference of sums)^2 / rows

What lost: a cluster-robust sandwich for these two, which needs many more clusters than groups; reduced units need
only that the noise of a unit falls with its rows, and are exact when units are of one size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.design import Design, as_masks, estimand_of, find_clusters, find_repeats, to_array, whole_number
from pydt.errors import EstimateError

Array = npt.NDArray[np.float64]
_CELLS = 1 << 22  # entries of the outputs that are turned into float64 at once


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of some rows; `a + b` and `a - b` are those of the union and of the rest."""

    rows: float
    count: Array
    total: Array
    squares: Array
    cross: Array
    gram: Array

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))

    def __sub__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, f) - getattr(other, f) for f in self.__dataclass_fields__))

    def first(self, groups: int) -> Moments:
        """The same without the columns after the first `groups`."""
        return replace(self, count=self.count[:groups], cross=self.cross[:groups], gram=self.gram[:groups, :groups])

    def of(self, targets: npt.NDArray[np.intp]) -> Moments:
        """The same for some of the targets."""
        return replace(self, total=self.total[targets], squares=self.squares[targets], cross=self.cross[:, targets])

    @property
    def centred(self) -> tuple[Array, Array, Array]:
        """Gram matrix, cross products and energy (sum of squares) of columns and targets less their means."""
        gram = self.gram - np.outer(self.count, self.count) / self.rows
        cross = self.cross - np.outer(self.count, self.total) / self.rows
        return gram, cross, np.maximum(self.squares - self.total**2 / self.rows, 0)

    def intercept(self, values: Array) -> Array:
        return (self.total - self.count @ values) / self.rows

    def residuals(self, values: Array, intercept: Array) -> tuple[Array, Array, Array]:
        """Sum, sum of squares and cross products with the columns of y - intercept - M values, on these rows."""
        total = self.total - self.rows * intercept - self.count @ values
        cross = self.cross - np.outer(self.count, intercept) - self.gram @ values
        squares = self.squares - intercept * self.total - (values * self.cross).sum(0)
        squares -= intercept * total + (values * cross).sum(0)
        return total, np.maximum(squares, 0), cross


@dataclass(frozen=True)
class Units:
    """How rows enter the errors.

    Attributes:
        kind: "single" (every row), "repeat", "pair" (see the top of this file) or "given" (clusters of the caller's
            own).
        clusters: int64 (models,): rows that folds and permutations keep together.
        used: bool (models,): rows that the regression uses; only halves of broken pairs are left out.
        label, sign: unit of each row, and the sign with which it enters the unit.
        count: number of units among the used rows.
    """

    kind: str
    clusters: npt.NDArray[np.int64]
    used: npt.NDArray[np.bool_]
    label: npt.NDArray[np.int64]
    sign: Array
    count: int

    @property
    def intercept(self) -> int:
        """Degrees of freedom that the intercept takes: half-differences have none."""
        return 0 if self.kind == "pair" else 1

    @property
    def cluster_count(self) -> int:
        return len(np.unique(self.clusters[self.used]))

    def between(self, outputs: npt.NDArray[Any], shift: Array, rows: npt.NDArray[np.intp]) -> Array:
        """Sum over units of (signed sum of y)^2 / rows of the unit, for the units among `rows`."""
        order = rows[np.argsort(self.label[rows], kind="stable")]
        label = self.label[order]
        starts = np.flatnonzero(np.r_[True, label[1:] != label[:-1]])
        sizes = np.diff(np.r_[starts, len(order)])
        sums = np.empty(outputs.shape[1])
        for part in _columns(outputs.shape[1], len(order)):
            signed = (outputs[order, part].astype(np.float64) - shift[part]) * self.sign[order, None]
            sums[part] = (np.add.reduceat(signed, starts, axis=0) ** 2 / sizes[:, None]).sum(0)
        return sums


@dataclass(frozen=True)
class Inputs:
    """Masks, outputs and placebo columns that passed the checks.

    Attributes:
        packed: masks uint8 (models, ceil(columns / 8)); columns = groups followed by placebos.
        outputs: float16/32/64 (models, targets), any strides.
        shift: float64 (targets,), the first row.
        broken: bool (targets,): targets with a NaN or infinite output (nan="flag" only).
        kept: int64 (groups,): models that kept each group.
        flat: the outputs were one-dimensional.
    """

    packed: npt.NDArray[np.uint8]
    groups: int
    placebos: int
    estimand: str
    outputs: npt.NDArray[Any]
    shift: Array
    broken: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.int64]
    flat: bool
    units: Units

    @property
    def models(self) -> int:
        return len(self.packed)

    @property
    def columns(self) -> int:
        return self.groups + self.placebos

    def masks(self, rows: npt.NDArray[Any]) -> Array:
        return _core.unpack(np.ascontiguousarray(self.packed[rows]), self.columns).astype(np.float64)

    def plain(self, rows: npt.NDArray[np.intp] | None = None) -> Moments:
        """Statistics of the rows as they are."""
        index = None if rows is None else np.ascontiguousarray(rows, np.int64)
        packed = self.packed if index is None else self.packed[index]
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        gram = _core.gram(packed, self.columns, threads).astype(np.float64)
        codes = _core.codes(packed, self.columns)
        cross = _core.subset_sums(codes, self.outputs, self.shift, threads, index)
        total, squares = _core.column_moments(self.outputs, self.shift, threads, index)
        if self.broken.any():
            cross[:, self.broken], total[self.broken], squares[self.broken] = 0, 0, 0
        return Moments(float(len(packed)), np.diag(gram).copy(), total, squares, cross, gram)

    def measure(self, rows: npt.NDArray[np.intp] | None = None) -> Moments:
        """Statistics of the used rows (or of some of them) as units."""
        everything = rows is None and bool(self.units.used.all())
        raw = self.plain(None if everything else np.flatnonzero(self.units.used) if rows is None else rows)
        if self.units.kind in ("single", "given"):
            return raw
        squares = self.units.between(
            self.outputs, self.shift, np.flatnonzero(self.units.used) if rows is None else rows
        )
        squares = np.where(self.broken, 0, squares)
        if self.units.kind == "repeat":
            return replace(raw, squares=squares)
        none = np.zeros_like(raw.count), np.zeros_like(raw.total)
        return Moments(raw.rows, *none, squares, raw.cross - raw.total / 2, raw.gram - raw.rows / 4)

    def repeats(self) -> tuple[Array, int]:
        """Variance between models with the same mask, (targets,), and its degrees of freedom (0: no mask repeats)."""
        rows = np.flatnonzero(self.units.used)
        label = 2 * self.units.label + (self.units.sign > 0)
        masks = replace(self.units, label=label, sign=np.ones(self.models))
        df = len(rows) - len(np.unique(label[rows]))
        within = self.plain(rows).squares - masks.between(self.outputs, self.shift, rows)
        return np.where(self.broken, 0, np.maximum(within, 0)) / max(df, 1), df

    def folds(self, number: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], list[Moments]]:
        """Fold of each row (-1 = not used) and the statistics of each fold."""
        fold = np.full(self.models, -1, np.int64)
        used = np.unique(self.units.clusters[self.units.used], return_inverse=True)[1].reshape(-1)
        fold[self.units.used] = assign_folds(used, number, seed)
        return fold, [self.measure(np.flatnonzero(fold == i)) for i in range(number)]


def read(
    masks: Any, outputs: Any, groups: int | None = None, clusters: npt.ArrayLike | None = None, nan: str = "raise"
) -> Inputs:
    """Check the inputs of an estimator and bring them into one form without copying the outputs.

    Raises:
        EstimateError: whatever does not fit together, with its place and how to mend it.
    """
    packed, groups, placebos, design = _read_masks(masks, groups)
    values, flat = as_outputs(outputs)
    if len(values) != len(packed):
        raise EstimateError(
            f"{len(values)} rows of outputs for {len(packed)} masks", "outputs", "pass one row per mask"
        )
    if nan not in ("raise", "flag"):
        raise EstimateError(f"{nan!r} is not a way to treat NaN", "nan", 'use "raise" or "flag"')
    kept = _core.unpack(packed, groups).sum(0, dtype=np.int64)
    for wrong, name in ((kept == 0, "in no model"), (kept == len(packed), "in every model")):
        if wrong.any():
            raise EstimateError(
                f"{name_groups(np.flatnonzero(wrong))} {name}",
                "masks",
                "drop these columns: nothing can be said about them",
            )
    shift = values[0].astype(np.float64)
    broken = ~np.isfinite(shift)
    with np.errstate(all="ignore"):
        shift = np.where(broken, 0, shift)
        broken |= ~np.isfinite(_core.column_moments(values, shift, 1)[1])
    if broken.any() and nan == "raise":
        _raise_broken(values, np.flatnonzero(broken))
    estimand, units = (
        estimand_of(packed, groups),
        _arrange(packed, groups, None if design is None else design.kind, clusters),
    )
    extra = 0 if placebos is None else placebos.shape[1]
    if placebos is not None and extra:
        packed = _core.pack(np.concatenate([_core.unpack(packed, groups), placebos], axis=1))
    return Inputs(packed, groups, extra, estimand, values, shift, broken, kept, flat, units)


def name_groups(groups: npt.NDArray[np.intp]) -> str:
    """ "group 3" or "groups 3, 5, 8, ... (40 in all)", counted from 0."""
    shown = ", ".join(str(g) for g in groups[:10])
    more = f", ... ({len(groups)} in all)" if len(groups) > 10 else ""
    return f"group {shown}" if len(groups) == 1 else f"groups {shown}{more}"


def assign_folds(clusters: npt.NDArray[np.int64], number: int, seed: int) -> npt.NDArray[np.int64]:
    """Fold 0 .. number - 1 of each row, drawn at random so that clusters stay whole and folds differ little in rows.

    Raises:
        EstimateError: fewer clusters than folds.
    """
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 2:
        raise EstimateError(f"{number!r} folds", "folds", "pass an integer of at least 2")
    sizes = np.bincount(clusters)
    if len(sizes) < number:
        fewer = f"ask for {len(sizes)} folds, or " if len(sizes) > 1 else ""
        raise EstimateError(
            f"{len(sizes)} independent models cannot be split into {number} folds",
            "masks",
            f"{fewer}train models on more different masks",
        )
    order = np.random.default_rng(np.random.Philox(seed)).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of = np.empty(len(sizes), np.int64)
    if np.all(sizes == sizes[0]):
        fold_of[order] = np.arange(len(sizes)) % number
    else:  # largest first, each into the emptiest fold
        load = np.zeros(number)
        for cluster in order:
            fold_of[cluster] = load.argmin()
            load[fold_of[cluster]] += sizes[cluster]
    return fold_of[clusters]


def lasso(
    gram: Array, cross: Array, energy: Array, penalty: Array, start: Array | None = None, tolerance: float = 1e-7
) -> tuple[Array, Array]:
    """Minimise b'Gb / 2 - b'c + penalty |b|_1 for every target at once, by FISTA with restarts, in float64.

    After 10, 20, 40, ... iterations the equations of the signs found so far are solved: right signs end the search.

    With G = X'X / m, c = X'y / m, energy = y'y / m this is |y - Xb|^2 / (2m) + penalty |b|_1: scikit-learn's scaling.
    One iteration is one matrix product, groups x groups x targets; targets leave when their relative gap is reached.

    Returns:
        values (groups, targets) and the relative duality gap (targets,): gap / (energy / 2). The dual point is the
        residual, scaled until no column correlates with it by more than the penalty.
    """
    values = np.zeros_like(cross) if start is None else start.copy()
    gaps = np.zeros(cross.shape[1])
    live = np.flatnonzero(energy > 0)
    values[:, energy <= 0] = 0
    step = 1 / max(np.linalg.eigvalsh(gram)[-1], 1e-300)
    now = ahead = values[:, live]
    pace = np.ones(len(live))
    polish = 10
    for iteration in range(_LIMIT):
        if iteration % 10 == 0:
            gap = relative_gap(gram, cross[:, live], energy[live], penalty[live], now)
            if iteration == polish:
                polish *= 2
                exact = _solve_support(gram, cross[:, live], penalty[live], now)
                better = relative_gap(gram, cross[:, live], energy[live], penalty[live], exact)
                now = np.where(better < gap, exact, now)
                ahead = np.where(better < gap, exact, ahead)
                pace, gap = np.where(better < gap, 1.0, pace), np.minimum(gap, better)
            values[:, live], gaps[live] = now, gap
            rest = gap > tolerance
            if not rest.any():
                break
            live, now, ahead, pace = live[rest], now[:, rest], ahead[:, rest], pace[rest]
        moved = ahead - step * (gram @ ahead - cross[:, live])
        moved = np.sign(moved) * np.maximum(np.abs(moved) - step * penalty[live], 0)
        pace = np.where(((ahead - moved) * (moved - now)).sum(0) > 0, 1.0, pace)  # overshot: start the momentum again
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = moved + (pace - 1) / faster * (moved - now)
        now, pace = moved, faster
    return values, gaps


def _solve_support(gram: Array, cross: Array, penalty: Array, values: Array) -> Array:
    """The exact solution if the signs of `values` are those of the solution; worthless otherwise (its gap tells)."""
    exact, level = np.zeros_like(values), np.trace(gram) / len(gram)
    for j, column in enumerate(values.T):
        support = np.flatnonzero(column)
        inner = gram[np.ix_(support, support)] + 1e-12 * level * np.eye(len(support))
        exact[support, j] = np.linalg.solve(inner, cross[support, j] - penalty[j] * np.sign(column[support]))
    return exact


_LIMIT = 20_000


def relative_gap(gram: Array, cross: Array, energy: Array, penalty: Array, values: Array) -> Array:
    """The duality gap of `lasso` at `values`, divided by half the energy, (targets,)."""
    slope = cross - gram @ values
    fit = energy - (values * cross).sum(0)
    square = np.maximum(fit - (values * slope).sum(0), 0)
    scale = np.minimum(1, penalty / np.maximum(np.abs(slope).max(0), 1e-300))
    gap = square / 2 + penalty * np.abs(values).sum(0) - scale * fit + scale**2 * square / 2
    return np.maximum(gap, 0) / (energy / 2)


def choose_penalty(total: Moments, held: list[Moments]) -> Array:
    """The LASSO penalty of each target that predicts the held-out folds best, on 60 steps down from the largest.

    They reach 1/1000 of it, or 1/100 with fewer models than groups, where less would not be a choice any more. A
    target's path stops once eight steps brought no improvement.
    """
    _, cross, energy = total.centred
    top = np.abs(cross).max(0) / total.rows
    steps = np.geomspace(1, 1e-3 if total.rows > len(total.count) else 1e-2, 60)
    error = np.zeros((len(steps), len(top)))
    for fold in held:
        train = total - fold
        gram, cross, energy = (part / train.rows for part in train.centred)
        live = np.flatnonzero(energy > 0)
        values = np.zeros_like(cross)
        path = np.full(error.shape, np.inf)
        for i, share in enumerate(steps):
            values[:, live], _ = lasso(gram, cross[:, live], energy[live], share * top[live], values[:, live], 1e-4)
            part = train.of(live).intercept(values[:, live])
            path[i, live] = fold.of(live).residuals(values[:, live], part)[1]
            live = live[i - path[: i + 1, live].argmin(0) < 8]
            if not live.size:
                break
        error += path
    return top * steps[error.argmin(0)]


@dataclass
class Regression:
    """OLS on all groups: what every method's noise rests on."""

    values: Array
    inverse: Array
    noise: Array  # (targets,) s^2
    df: float
    parameters: int


def regress(given: Inputs, moments: Moments) -> Regression:
    """OLS of the groups by Cholesky of G (plus 11' in the direction that masks of one size leave open)."""
    gram, cross, energy = moments.centred
    constant = given.estimand == "swap"
    size = len(gram)
    parameters = size - constant + given.units.intercept
    level = np.trace(gram) / size
    whole = gram + level / size if constant else gram
    try:
        pivots = np.diag(np.linalg.cholesky(whole)) ** 2 / np.diag(whole)
    except np.linalg.LinAlgError:
        pivots = np.zeros(1)
    if pivots.min() < 1e-9:  # a pivot is what the earlier groups do not explain of a group
        _raise_rank(given, gram, parameters)
    inverse = np.linalg.inv(whole)
    if constant:
        inverse = inverse - 1 / (size * level)
    values = inverse @ cross
    left = np.maximum(energy - (values * cross).sum(0), 0)
    df = given.units.count - parameters
    if df >= 1:
        return Regression(values, inverse, left / df, df, parameters)
    noise, df = given.repeats()  # as many parameters as masks: only repeats show the noise
    if df < 1:
        needed = parameters * given.models // given.units.count
        raise EstimateError(
            f"{given.models} models leave nothing to tell the noise of {size} groups from",
            "masks",
            f'train more than {needed} models, or use method="ridge" or "lasso"',
        )
    return Regression(values, inverse, noise, df, parameters)


def _raise_rank(given: Inputs, gram: Array, parameters: int) -> None:
    mend = 'use method="ridge" or "lasso", or merge these groups'
    if given.units.count < parameters:
        raise EstimateError(
            f"{given.models} models ({given.units.count} independent ones) cannot tell {len(gram)} groups apart",
            "masks",
            f'this concerns {name_groups(np.arange(len(gram)))}: train more models, or use method="ridge" or "lasso"',
        )
    scale = 1 / np.sqrt(np.diag(gram))
    eigenvalues, vectors = np.linalg.eigh(gram * np.outer(scale, scale))
    null = vectors[:, eigenvalues < 1e-9 * eigenvalues[-1]] * scale[:, None]
    if given.estimand == "swap":
        null = null - null.mean(0)
    null = null / np.maximum(np.abs(null).max(), 1e-300)
    mixed = np.flatnonzero(np.abs(null).max(1) > 1e-6) if null.size else np.arange(len(gram))
    raise EstimateError(f"{name_groups(mixed)} cannot be told apart by these masks", "masks", mend)


def regress_or_none(given: Inputs, moments: Moments) -> Regression | None:
    try:
        return regress(given, moments)
    except EstimateError:
        return None


def spread_of(gram: Array) -> Array:
    """The diagonal, NaN where a column never varies (a placebo of few models)."""
    return np.where(np.diag(gram) > 0, np.diag(gram), np.nan)


def column_correlation(given: Inputs, gram: Array) -> Array:
    """Mean squared correlation with the groups' columns, in units of what independent draws have, per column.

    One number for all groups (their mean), one for all placebos.
    """
    groups, rows = given.groups, given.units.count - given.units.intercept
    scale = 1 / np.sqrt(spread_of(gram))
    correlation = gram * np.outer(scale, scale)
    if given.estimand == "swap":
        correlation[:groups, :groups] += (1 - np.eye(groups)) / (groups - 1)
    square = correlation**2
    inside = (square[:groups, :groups].sum() - groups) / max(groups * (groups - 1), 1)
    placebos = len(gram) - groups
    outside = square[groups:, :groups].mean() if placebos else 0.0
    return rows * np.r_[np.full(groups, inside), np.full(placebos, outside)] if groups > 1 else np.ones(len(gram))


def _columns(targets: int, rows: int) -> Iterator[slice]:
    width = max(1, _CELLS // max(rows, 1))
    return (slice(start, start + width) for start in range(0, targets, width))


def _read_masks(
    masks: Any, groups: int | None
) -> tuple[npt.NDArray[np.uint8], int, npt.NDArray[np.bool_] | None, Design | None]:
    groups = None if groups is None else whole_number(groups, "groups", 1, EstimateError)
    if isinstance(masks, Design):
        if groups not in (None, masks.groups):
            raise EstimateError(f"{groups} groups, but the design has {masks.groups}", "groups", "leave it out")
        return masks.packed(), masks.groups, masks.placebos, masks
    array = to_array(masks, "masks", EstimateError)
    if (
        groups is not None
        and array.ndim == 2
        and array.dtype == np.uint8
        and array.shape[1] == -(-groups // 8) != groups
    ):
        packed = np.ascontiguousarray(array)
        try:
            return _core.pack(_core.unpack(packed, groups)), groups, None, None
        except ValueError as error:
            raise EstimateError(str(error), "masks", "pack with the little bit first and zero padding") from None
    kept = as_masks(array, EstimateError)
    if groups not in (None, kept.shape[1]):
        raise EstimateError(
            f"masks of shape {array.shape} are not of {groups} groups",
            "groups",
            f"pass packed uint8 (models, {-(-int(groups or 0) // 8)}), or leave groups out for 0/1 masks",
        )
    return _core.pack(kept), kept.shape[1], None, None


def as_outputs(outputs: Any, name: str = "outputs") -> tuple[npt.NDArray[Any], bool]:
    """Outputs as floats (models, targets) without a copy where they are floats; True if they had one dimension."""
    if hasattr(outputs, "detach"):  # a torch tensor; numpy has no bfloat16
        outputs = outputs.detach().cpu()
        outputs = outputs.float() if str(outputs.dtype) == "torch.bfloat16" else outputs
    array = to_array(outputs, name, EstimateError)
    if array.dtype.kind not in "biuf":
        raise EstimateError(f"dtype {array.dtype} is not one of numbers", name, "pass floats (models, targets)")
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise EstimateError(f"shape {array.shape} is not (models, targets)", name, "pass one row per model")
    if array.dtype not in (np.float16, np.float32, np.float64) or not array.dtype.isnative:
        array = array.astype(np.float64)
    return (array[:, None], True) if array.ndim == 1 else (array, False)


def _raise_broken(values: npt.NDArray[Any], targets: npt.NDArray[np.intp]) -> None:
    column = values[:, targets[0]].astype(np.float64)
    rows = np.flatnonzero(~np.isfinite(column))
    found = f"{column[rows[0]]}" if rows.size else "too large to square"
    row = rows[0] if rows.size else int(np.abs(column).argmax())
    raise EstimateError(
        f"the output is {found} ({len(targets)} such targets)",
        f"outputs, row {row}, target {targets[0]}",
        'drop the row, or pass nan="flag" to get NaN for these targets only',
    )


def _arrange(packed: npt.NDArray[np.uint8], groups: int, kind: str | None, given: npt.ArrayLike | None) -> Units:
    models = len(packed)
    ones = np.ones(models)
    everything = np.ones(models, bool)
    pairs, repeats = find_clusters(packed, groups), find_repeats(packed)
    if given is not None:
        clusters = to_array(given, "clusters", EstimateError)
        if clusters.shape != (models,) or clusters.dtype.kind not in "biuU":
            raise EstimateError(
                f"clusters of shape {clusters.shape} and dtype {clusters.dtype} for {models} models",
                "clusters",
                "pass one whole number per model; rows that belong together share it",
            )
        _, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
        clusters = np.argsort(np.argsort(first))[inverse.reshape(-1)].astype(np.int64)
        if len(first) == models:
            return Units("single", clusters, everything, clusters, ones, models)
        if np.array_equal(clusters, repeats):
            return Units("repeat", repeats, everything, repeats, ones, len(first))
        if not np.array_equal(clusters, pairs):
            return Units("given", clusters, everything, np.arange(models), ones, models)
    paired = _match(packed, groups, pairs, kind)
    if paired is not None:
        sign = np.where(packed[:, 0] & 1, 1.0, -1.0)
        return Units("pair", pairs, paired, pairs, sign, len(np.unique(pairs[paired])))
    count = int(repeats.max()) + 1
    return Units("repeat" if count < models else "single", pairs, everything, repeats, ones, count)


def _match(
    packed: npt.NDArray[np.uint8], groups: int, pairs: npt.NDArray[np.int64], kind: str | None
) -> npt.NDArray[np.bool_] | None:
    """Rows that have a partner, if these masks are pairs by design (and not by the chance of a few groups), else None.

    A foldover design may end with half a pair or have lost rows. Masks of unknown origin are pairs if every mask whose
    complement occurs has as many rows as it, and all rows have a partner; or three quarters of them, where there are so
    many possible masks that chance does not pair them.
    """
    side = (packed[:, 0] & 1).astype(np.int64)
    tally = np.bincount(2 * pairs + side, minlength=2 * (int(pairs.max()) + 1)).reshape(-1, 2)
    both = tally.min(1)
    matched = 2 * both.sum()
    if not matched:
        return None
    balanced = np.all((both == 0) | (tally[:, 0] == tally[:, 1]))
    rare = kind in (None, "explicit") and len(pairs) < 2.0 ** min(groups - 2, 1000)
    whole = matched == len(pairs) or (rare and matched >= 0.75 * len(pairs))
    if kind != "foldover" and not (balanced and whole):
        return None
    return rank_within(2 * pairs + side) < both[pairs]


def rank_within(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many earlier rows have the label of a row, int64 (rows,)."""
    order = np.argsort(labels, kind="stable")
    starts = np.r_[0, np.cumsum(np.bincount(labels))[:-1]]
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - starts[labels[order]]
    return rank
