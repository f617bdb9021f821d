"""What estimators are given, checked once: masks, outputs, and how rows enter the errors.

Rows whose masks repeat or complement each other are not independent draws of what a linear model leaves out, so errors
count units, not rows (R units, weight = rows in the unit; values stay those of all rows):

    repeat   the mean of the rows with one mask
    pair     the half-difference of a mask's rows and its complement's, regressed without intercept on mask - 1/2

What lost: a cluster-robust sandwich for these two, which needs many more clusters than groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import EstimateError, column_names, one_of, refuse_other_rows, to_array, whole
from pydt.design import Design, as_masks, estimand_of, find_clusters, find_repeats

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
_BITORDERS = ("little", "big")
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little")[:, 0]
_LOOKED = 64  # targets that `refuse_unwritten` looks at
_COUNTS = 20  # different values up to which outputs are taken for counts or shares of few images
_FEWEST = 8  # targets from which on a row of zeros is no accident where no other row has one
_FOLD_STREAM = 0x0F00_0000  # of the counter-based generator that draws folds


@dataclass(frozen=True)
class Units:
    """How rows enter the errors.

    Attributes:
        kind: "single" (every row), "repeat", "pair" or "given" (clusters of the caller's own).
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


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks and placebo columns that passed the checks.

    Attributes:
        packed: uint8 (models, ceil(columns / 8)), little bit first; columns = groups followed by placebos.
        estimand: "swap" (all masks keep as many groups) or "add".
        units: how rows enter the errors.
        strata: int64 (groups,), None for "add": stratum of each group, of which every mask keeps as many; all groups
            are one where the design has none.
        alpha: share of the groups that the design's rule keeps; None of masks of one's own.
        names: of the groups, where the masks are a table with named columns, else None.
    """

    packed: npt.NDArray[np.uint8]
    groups: int
    placebos: int
    estimand: str
    units: Units
    strata: Rows | None
    alpha: float | None = field(default=None, kw_only=True)
    names: tuple[Any, ...] | None = field(default=None, kw_only=True)

    @property
    def models(self) -> int:
        return len(self.packed)

    @property
    def columns(self) -> int:
        return self.groups + self.placebos

    @property
    def constants(self) -> int:
        """Directions in which no mask varies: sums over strata, 0 for "add"."""
        return 0 if self.strata is None else int(self.strata.max()) + 1

    def masks(self, rows: Rows) -> Array:
        """0/1 masks of some rows, placebos included, float64 (rows, columns)."""
        return _core.unpack(np.ascontiguousarray(self.packed[rows]), self.columns).astype(np.float64)

    def folds(self, number: int, seed: int = 0) -> Rows:
        """Fold of each row, int64 (models,); -1 = not used."""
        fold = np.full(self.models, -1, np.int64)
        used = np.unique(self.units.clusters[self.units.used], return_inverse=True)[1].reshape(-1)
        fold[self.units.used] = assign_folds(used, number, seed)
        return fold


@dataclass(frozen=True, eq=False)
class Inputs(Masks):
    """Masks with their outputs.

    Attributes:
        outputs: float16/32/64 (models, targets), any strides; never copied. Or a tensor on a device, of floats.
        flat: the outputs were one-dimensional.
        flag: targets with a NaN or infinite output get NaN, instead of an error.
        targets: their names, where the outputs are a table or a column with a name, else None.
    """

    outputs: Any
    flat: bool
    flag: bool
    targets: tuple[Any, ...] | None = field(default=None, kw_only=True)


def read(
    masks: Any,
    outputs: Any,
    groups: int | Design | None = None,
    clusters: npt.ArrayLike | None = None,
    nan: str = "raise",
    bitorder: str = "little",
    take: Callable[[Any], tuple[Any, bool]] | None = None,
) -> Inputs:
    """Check masks and the shape of the outputs; outputs are not copied. NaN and infinite outputs are found later, when
    they are summed. take: in place of `as_outputs`."""
    refuse_other_rows(EstimateError, masks=masks, outputs=outputs, clusters=clusters)
    given = read_masks(masks, groups, clusters, bitorder)
    values, flat = (take or as_outputs)(outputs)
    if len(values) != given.models:
        raise EstimateError(
            f"{len(values)} rows of outputs for {given.models} masks", "outputs", "pass one row per mask"
        )
    _refuse_empty(given, values)
    refuse_unwritten(values)
    one_of(nan, ("raise", "flag"), "nan", "influences", EstimateError)
    targets = column_names(outputs, values.shape[1])
    return Inputs(**vars(given), outputs=values, flat=flat, flag=nan == "flag", targets=targets)


def read_masks(
    masks: Any, groups: int | Design | None = None, clusters: npt.ArrayLike | None = None, bitorder: str = "little"
) -> Masks:
    """The part of `read` that needs no outputs."""
    packed, groups, placebos, design = _unpack_masks(masks, groups, bitorder)
    for of_all, name in (
        (np.bitwise_or.reduce(packed, axis=0), "in no model"),
        (np.bitwise_and.reduce(packed, axis=0), "in every model"),
    ):
        kept = _core.unpack(of_all[None], groups)[0]
        wrong = np.flatnonzero(kept if name == "in every model" else ~kept)
        if wrong.size:
            raise EstimateError(
                f"{name_groups(wrong)} {name}", "masks", "drop these columns: nothing can be said about them"
            )
    estimand = estimand_of(packed, groups)
    units = _arrange(packed, groups, None if design is None or not design.drawn else design.pairs, clusters)
    extra = 0 if placebos is None else placebos.shape[1]
    if placebos is not None and extra:
        packed = _core.pack(np.concatenate([_core.unpack(packed, groups), placebos], axis=1))
    strata = None
    if estimand == "swap":
        strata = np.zeros(groups, np.int64) if design is None or design.strata is None else design.strata
    alpha = None if design is None or not design.drawn else design.alpha
    names = column_names(masks, groups)
    return Masks(packed, groups, extra, estimand, units, strata, alpha=alpha, names=names)


def name_groups(groups: npt.NDArray[np.intp]) -> str:
    """ "group 3" or "groups 3, 5, 8, ... (40 in all)", counted from 0."""
    shown = ", ".join(str(g) for g in groups[:10])
    more = f", ... ({len(groups)} in all)" if len(groups) > 10 else ""
    return f"group {shown}" if len(groups) == 1 else f"groups {shown}{more}"


def assign_folds(clusters: Rows, number: int, seed: int) -> Rows:
    """Fold 0 .. number - 1 of each row, drawn at random so that clusters stay whole and folds differ little in rows.

    Where all clusters have as many rows, each run of `number` clusters gets a random permutation of the folds, keyed by
    (seed, run): the folds of the first rows are those that a longer ensemble gives them.

    Args:
        clusters: int64 (models,), numbered from 0 in order of first appearance; at least as many as folds.
    """
    number = whole(number, "folds", "folds", 2, error=EstimateError)
    sizes = np.bincount(clusters)
    if len(sizes) < number:
        fewer = f"ask for {len(sizes)} folds, or " if len(sizes) > 1 else ""
        raise EstimateError(
            f"{len(sizes)} independent models cannot be split into {number} folds",
            "masks",
            f"{fewer}train models on more different masks",
        )
    if np.all(sizes == sizes[0]):
        runs = -(-len(sizes) // number)
        keys = _core.random_bits(seed, _FOLD_STREAM, np.arange(runs * number, dtype=np.int64))
        fold_of = np.argsort(keys.reshape(runs, number), axis=1, kind="stable").reshape(-1)
    else:  # largest first, each into the emptiest fold
        order = np.random.default_rng(np.random.Philox(seed)).permutation(len(sizes))
        fold_of, load = np.empty(len(sizes), np.int64), np.zeros(number)
        for cluster in order[np.argsort(-sizes[order], kind="stable")]:
            fold_of[cluster] = load.argmin()
            load[fold_of[cluster]] += sizes[cluster]
    return fold_of[clusters]


def exchanges(clusters: Rows, copies: int, rng: np.random.Generator, turn: bool = False) -> npt.NDArray[np.intp]:
    """Random orders of the rows, (copies, rows), in which whole clusters change places with those of their size.

    With `turn` a cluster goes to its new place either way round.
    """
    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters)
    starts = np.cumsum(sizes) - sizes
    moved = np.empty((copies, len(clusters)), np.intp)
    for size in np.unique(sizes):
        at, step = starts[sizes == size], np.arange(size)
        drawn = rng.permuted(np.broadcast_to(at, (copies, len(at))), axis=1)
        source = order[drawn[:, :, None] + step]
        if turn:
            source = np.where(rng.random((copies, len(at), 1)) < 0.5, source, source[:, :, ::-1])
        moved[:, order[at[:, None] + step]] = source
    return moved


def _refuse_empty(masks: Masks, outputs: Any) -> None:
    """Refuse rows that keep no group and have no output: they were allocated, and never written."""
    empty = np.flatnonzero(~masks.packed.any(1))  # a design, which alone brings placebos, has no such mask
    rows = [row for row in empty if not np.nan_to_num(on_host(outputs[row])).any()]
    if rows:
        others = f", nor do {len(rows) - 1} others" if len(rows) > 1 else ""
        mend = "leave out rows that were never written, in masks and outputs"
        raise EstimateError(f"row {rows[0]} keeps no group and has no output{others}", "masks", mend)


def refuse_unwritten(outputs: Any, name: str = "outputs") -> None:
    """Refuse rows of nothing but zeros where no other row has a zero: they were allocated, and never written.

    Where there are other zeros, or few different values (right or wrong), such a row may be what was measured.
    """
    first = on_host(outputs[:, :_LOOKED])
    zero = first == 0
    rows = np.flatnonzero(zero.all(1))
    if first.shape[1] < _FEWEST or not rows.size or rows.size == len(first) or zero.sum() > rows.size * first.shape[1]:
        return
    if len(np.unique(first)) <= _COUNTS:
        return
    rows = np.array([row for row in rows if not np.any(on_host(outputs[row]))], np.int64)
    if rows.size:
        others = f", and so are {rows.size - 1} others" if rows.size > 1 else ""
        mend = "leave out rows that were never written, in masks and outputs; NaN says that a row failed"
        raise EstimateError(f"all outputs of row {rows[0]} are exactly 0{others}; no other row has a zero", name, mend)


def _unpack_masks(
    masks: Any, groups: int | Design | None, bitorder: str
) -> tuple[npt.NDArray[np.uint8], int, npt.NDArray[np.bool_] | None, Design | None]:
    if bitorder not in _BITORDERS:
        raise EstimateError(f"{bitorder!r} is no order of bits", "bitorder", 'use "little" or "big", as numpy.packbits')
    known = groups if isinstance(groups, Design) else None
    if isinstance(groups, Design):
        groups = groups.groups
    groups = None if groups is None else whole(groups, "groups", "influences", 1, error=EstimateError)
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
        packed = np.ascontiguousarray(array if bitorder == "little" else _REVERSED[array])
        other = f'bitorder="{_BITORDERS[bitorder == "little"]}"'
        try:
            packed = _core.pack(_core.unpack(packed, groups))
        except ValueError as error:
            spare = 8 * packed.shape[1] - groups
            fits = not (_REVERSED[packed[:, -1]] >> np.uint8(8 - spare)).any()
            mend = f"they fit {other}: pass it" if fits else "pack with the little bit first and zero padding"
            raise EstimateError(str(error), f'masks, read with bitorder="{bitorder}"', mend) from None
        if known is not None:
            _compare(packed, known, other)
        return packed, groups, None, known
    if bitorder != "little":
        raise EstimateError("masks are not packed, so bits have no order", "bitorder", "leave it out")
    mend = "pass 0/1 masks"
    if array.dtype == np.uint8 and array.ndim == 2:
        columns, but = array.shape[1], "" if groups is None else f", not {groups}"
        need = (
            f"groups= from {8 * columns - 7} to {8 * columns}{but}: ceil(groups / 8) must give {columns}, their columns"
        )
        mend += f"; uint8 masks with other values look packed, which need {need}"
    kept = as_masks(array, EstimateError, mend)
    if groups not in (None, kept.shape[1]):
        raise EstimateError(
            f"masks of shape {array.shape} are not of {groups} groups",
            "groups",
            f"pass packed uint8 (models, {-(-int(groups or 0) // 8)}), or leave groups out for 0/1 masks",
        )
    packed = _core.pack(kept)
    if known is not None:
        _compare(packed, known, "the columns in the order of the design's groups")
    return packed, kept.shape[1], None, known


def _compare(packed: npt.NDArray[np.uint8], design: Design, other: str) -> None:
    """Refuse masks that are not among those of the design; other: how they may be meant instead."""
    own = Counter(row.tobytes() for row in design.packed())
    given, turned = ([row.tobytes() for row in rows] for rows in (packed, _REVERSED[packed]))
    wrong = [i for i, row in enumerate(given) if row not in own]
    # Of few groups every mask may be there in either order, but not as often.
    if not wrong and Counter(turned) <= own and not Counter(given) <= own:
        what = "each is among the masks of the design, but not as often"
        raise EstimateError(what, "masks", f"they are as often with {other}: pass it")
    if wrong:
        reversed_fits = all(row in own for row in turned)
        mend = f"they are with {other}: pass it" if reversed_fits else f"pass rows of this design, with {other}"
        raise EstimateError(f"row {wrong[0]} is not among the masks of the design", "masks", mend)


def on_host(outputs: Any, name: str = "outputs") -> npt.NDArray[Any]:
    """Outputs as an array of numpy; bfloat16, which it lacks, as float32."""
    if str(getattr(outputs, "dtype", "")) == "torch.bfloat16":
        outputs = outputs.float()
    return to_array(outputs, name, EstimateError)


def as_outputs(outputs: Any, name: str = "outputs") -> tuple[npt.NDArray[Any], bool]:
    """Outputs as floats (models, targets), floats without a copy; True if they had one dimension."""
    array = on_host(outputs, name)
    check_outputs(array.dtype, array.dtype.kind in "biuf", array.shape, name)
    if array.dtype not in (np.float16, np.float32, np.float64) or not array.dtype.isnative:
        array = array.astype(np.float64)
    return (array[:, None], True) if array.ndim == 1 else (array, False)


def check_outputs(dtype: Any, real: bool, shape: tuple[int, ...], name: str = "outputs") -> None:
    if not real:
        raise EstimateError(f"dtype {dtype} is not one of numbers", name, "pass floats (models, targets)")
    if len(shape) not in (1, 2) or 0 in shape:
        raise EstimateError(f"shape {shape} is not (models, targets)", name, "pass one row per model")


def cluster_labels(given: npt.ArrayLike, models: int) -> npt.NDArray[Any]:
    """Clusters of the caller's own as they are, (models,), if there is one whole number or text per model."""
    clusters = to_array(given, "clusters", EstimateError)
    if clusters.shape != (models,) or clusters.dtype.kind not in "biuU":
        raise EstimateError(
            f"clusters of shape {clusters.shape} and dtype {clusters.dtype} for {models} models",
            "clusters",
            "pass one whole number or string per model; rows that belong together share it",
        )
    return clusters


def _arrange(packed: npt.NDArray[np.uint8], groups: int, by_design: bool | None, given: npt.ArrayLike | None) -> Units:
    models = len(packed)
    ones = np.ones(models)
    everything = np.ones(models, bool)
    pairs, repeats = find_clusters(packed, groups), find_repeats(packed)
    if given is not None:
        _, first, inverse = np.unique(cluster_labels(given, models), return_index=True, return_inverse=True)
        clusters = np.argsort(np.argsort(first))[inverse.reshape(-1)].astype(np.int64)
        if len(first) == models:
            return Units("single", clusters, everything, clusters, ones, models)
        if np.array_equal(clusters, repeats):
            return Units("repeat", repeats, everything, repeats, ones, len(first))
        if not np.array_equal(clusters, pairs):
            return Units("given", clusters, everything, np.arange(models), ones, models)
    paired = _match(packed, groups, pairs, by_design)
    if paired is not None:
        sign = np.where(packed[:, 0] & 1, 1.0, -1.0)
        return Units("pair", pairs, paired, pairs, sign, len(np.unique(pairs[paired])))
    count = int(repeats.max()) + 1
    return Units("repeat" if count < models else "single", pairs, everything, repeats, ones, count)


def _match(
    packed: npt.NDArray[np.uint8], groups: int, pairs: npt.NDArray[np.int64], by_design: bool | None
) -> npt.NDArray[np.bool_] | None:
    """Rows that have a partner, if these masks are pairs by design (and not by the chance of a few groups), else None.

    A foldover design may end with half a pair or have lost rows. Masks of unknown origin are pairs if every mask has as
    many rows as its complement, if that occurs, and all rows have a partner; or three quarters of them, where there are
    so many possible masks that chance does not pair them.
    """
    side = (packed[:, 0] & 1).astype(np.int64)
    tally = np.bincount(2 * pairs + side, minlength=2 * (int(pairs.max()) + 1)).reshape(-1, 2)
    both = tally.min(1)
    matched = 2 * both.sum()
    if not matched:
        return None
    balanced = np.all((both == 0) | (tally[:, 0] == tally[:, 1]))
    rare = by_design is None and len(pairs) < 2.0 ** min(groups - 2, 1000)
    whole = matched == len(pairs) or (rare and matched >= 0.75 * len(pairs))
    if not by_design and not (balanced and whole):
        return None
    return rank_within(2 * pairs + side) < both[pairs]


def rank_within(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many earlier rows have the label of a row, int64 (rows,)."""
    order = np.argsort(labels, kind="stable")
    starts = np.r_[0, np.cumsum(np.bincount(labels))[:-1]]
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - starts[labels[order]]
    return rank
