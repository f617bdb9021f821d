"""Influences of groups on outputs, with standard errors that hold over fresh designs.

Model, one target at a time: y = mu + M b + noise, M 0/1 (models m x groups K). Arrays are (groups, targets), float64
inside and float32 outside. In this room X is M less its column means, G = X'X, n1 and n0 the models with and without a
group, c = 1/n1 + 1/n0, R the independent units (rows, unless masks repeat or complement each other), p the parameters,
and s^2 the residual variance of OLS on all groups, R - p degrees of freedom.

Estimand. Masks of one size ("swap") compare a group with the average group: OLS and the de-biased LASSO estimate
b - mean(b), the difference of means K/(K-1) times that. All other masks ("add") estimate b. In a stratified design
("swap") this holds within each stratum. Pass the Design: masks alone do not tell their strata.

Formulas stand at the top of each module of `estimators`, robust errors in `robust.py`. Assumptions, derivations, costs
and what lost: docs/how-pydt-estimates.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, one_of, real, to_array, whole
from pydt.design import Design
from pydt.estimation.backend import HOST, Host
from pydt.estimation.device import place
from pydt.estimation.estimators import ESTIMATORS
from pydt.estimation.estimators.common import Options, Solver
from pydt.estimation.estimators.ols import OLS
from pydt.estimation.fit import Fit
from pydt.estimation.inputs import Array, Inputs, read, read_masks
from pydt.estimation.mask_geometry import Geometry
from pydt.estimation.robust import balanced
from pydt.estimation.sufficient_statistics import Statistics
from pydt.estimation.sums import Tile

ERRORS = ("auto", "classical", "robust")
_OF_A_TILE = (
    "values", "unbiased", "stderr", "noise", "explained", "penalty", "gap", "iterations", "converged", "quantisation"
)  # fmt: skip
_MAY_BE_MISSING = (
    "penalty", "gap", "iterations", "converged", "training_noise", "mask_noise", "placebo_values", "placebo_stderr",
    "quantisation",
)  # fmt: skip
_TYPES: dict[str, Any] = {"iterations": np.int64, "converged": np.bool_}
_TYPES.update(dict.fromkeys(("values", "unbiased", "stderr", "placebo_values", "placebo_stderr"), np.float32))
MANY = 5000
"""Groups from which on matrices of groups x groups are avoided: the 14 of the LASSO would take 2.8 GB."""


def influences(
    masks: Any,
    outputs: Any,
    method: str = "difference",
    *,
    groups: int | Design | None = None,
    bitorder: str = "little",
    clusters: npt.ArrayLike | None = None,
    cv: int | None = None,
    l1_ratio: float = 1.0,
    errors: str = "auto",
    precision: str = "float",
    nan: str = "raise",
    out: npt.NDArray[np.float32] | None = None,
    device: Any = None,
) -> Fit:
    """Regress outputs on masks: the influence of every group on every target, with standard errors.

    Args:
        masks: a Design, any 0/1 array-like (models, groups), or packed uint8 (models, ceil(groups / 8)) with `groups`.
        outputs: (models, targets) of any float dtype and strides: arrays, memory maps, tensors; or (models,). Of tables
            of pandas the names of columns are kept, and masks and outputs must have equal indexes.
        method: "difference", "ols", "ridge" or "lasso"; formulas in docs/how-pydt-estimates.md.
        groups: number of groups, for packed masks; or the Design that masks are rows of: they are compared with it,
            and errors use what it knows (strata, pairs).
        bitorder: of packed masks: "little" as pydt packs, or "big", numpy.packbits' own default. With a multiple of 8
            groups the wrong one cannot be seen in the masks and gives every value to another group: pass the Design as
            `groups` where there is one.
        clusters: (models,) labels of rows that belong together; by default repeated and complementary masks.
        cv: folds on which ridge and lasso choose their penalty, instead of their defaults.
        l1_ratio: share of |b|_1 in the penalty of lasso, above 0; below 1 it is the elastic net.
        errors: "classical" has one variance of the noise for all models. "robust" holds where groups change it: HC2
            for ols, each arm's own spread for difference and lasso. "auto" is classical where that is as right (masks
            that keep about half of the groups, foldover pairs) and of ridge, and robust elsewhere. Clusters of your
            own have errors of their own. `fit.errors` says which were used.
        precision: "float" sums float16 and float32 outputs in float32 and float64, float64 in float64; "int16" (of the
            difference) rounds each output to 1023 steps over its target's range, in half of the time:
            `fit.quantisation` says what that costs, as a rule less than 0.01 standard errors.
        nan: "raise" names the first output that is NaN, infinite or too large or small (a sum of squares above 1e73 may
            overflow float32, one below 1e-64 vanish there); "flag" gives NaN for its target alone.
        out: float32 array of the shape of `values` to write them into, with no memory in common with `outputs`.
        device: where to compute: None: where the outputs are (a CUDA tensor: on its GPU; else on this CPU); "cuda" or
            "cuda:1": on that GPU, outputs in host memory streamed to it; "cpu". On a GPU sums of float16, bfloat16 and
            float32 outputs are in float64 where the card has it at rate, else in float32; there is no "int16". Results
            are arrays of numpy, and agree with those of the CPU within rounding.

    Raises:
        EstimateError: inputs that do not fit together; groups in no or in every model, or that masks cannot tell apart;
            a device that is not there, or has too little memory.
    """
    estimator = ESTIMATORS[one_of(method, tuple(ESTIMATORS), "method", "influences", EstimateError)]
    one_of(errors, ERRORS, "errors", "influences", EstimateError)
    if errors == "robust" and estimator.biased:
        raise EstimateError(f"{method} has none", "errors", 'use errors="auto", or method="ols" or "lasso"')
    if cv is not None and "cv" not in estimator.options:
        raise EstimateError(f"{method} has no penalty to choose", "cv", "leave it out, or use ridge or lasso")
    l1_ratio = real(l1_ratio, "l1_ratio", "influences", above=0, most=1, error=EstimateError)
    cv = None if cv is None else whole(cv, "cv", "influences", 2, error=EstimateError)
    if l1_ratio < 1 and "l1_ratio" not in estimator.options:
        raise EstimateError(f"{method} has no |b|_1", "l1_ratio", 'leave it out, or use method="lasso"')
    one_of(precision, ("float", "int16"), "precision", "influences", EstimateError)
    if precision == "int16" and "precision" not in estimator.options:
        raise EstimateError(f"{precision!r} of {method}", "precision", 'use "float", or "int16" for the difference')
    backend = place(device, outputs)
    if precision == "int16" and backend is not HOST:
        mend = 'use "float", or device="cpu"'
        raise EstimateError("int16 sums are made on the CPU alone", "precision", mend)
    given = read(masks, outputs, groups, clusters, nan, bitorder, backend.take)
    if _overlap(out, given.outputs):  # it is written before all outputs are read
        raise EstimateError("lies in the memory of the outputs", "out", "pass memory of its own")
    statistics = Statistics(given, precision == "int16", backend)
    geometry = statistics.geometry
    clusters_there = geometry.masks.units.cluster_count
    if cv is not None and cv > clusters_there:
        fewer = f"ask for {clusters_there} folds, or " if clusters_there > 1 else ""
        raise EstimateError(
            f"{clusters_there} independent models cannot be split into {cv} folds",
            "cv",
            f"{fewer}train models on more different masks",
        )
    if errors == "classical" and geometry.masks.units.kind == "given":
        raise EstimateError("clusters of your own have errors of their own", "errors", "leave it out, or the clusters")
    robust = errors == "robust" or (errors == "auto" and not balanced(geometry))
    shape = (geometry.groups,) if statistics.flat else (geometry.groups, statistics.targets)
    if out is not None:
        if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32:
            raise EstimateError(f"is not a float32 array of shape {shape}", "out", "make it with numpy.empty")
        if not out.flags.writeable:
            raise EstimateError("is read-only", "out", 'pass an array that may be written; a memory map opened "r+"')
    solver = estimator.prepare(geometry, Options(statistics.exact, robust, cv, l1_ratio))
    return _collect(statistics, method, solver, out)


def _overlap(one: Any, other: Any) -> bool:
    """Whether arrays share an element (interleaved columns do not); True where that is hard to tell."""
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return False
    enough: Any = 100_000
    try:
        return np.shares_memory(one, other, max_work=enough)
    except np.exceptions.TooHardError:
        return True


def best_method(
    masks: Any,
    *,
    groups: int | Design | None = None,
    bitorder: str = "little",
    clusters: npt.ArrayLike | None = None,
) -> str:
    """The method whose `unbiased` and `stderr` these masks support: "ols" where OLS has models enough, else "lasso";
    "difference" where the LASSO's matrices of groups x groups would not fit into memory (from 5,000 groups on).

    Enough: the masks tell all groups apart, and the residual's degrees of freedom (models with one mask count once) are
    at least 2 and at least half of the groups. Below that, errors of OLS are several times those of the LASSO. Where
    the LASSO has no folds (all masks repeat or complement each other), one degree of freedom is enough. Where no method
    has errors (as many parameters as masks), it is "ols".

    Args:
        masks, groups, bitorder, clusters: as for `influences`.

    Raises:
        EstimateError: masks that do not fit together; groups in no or in every model.
    """
    array = masks if isinstance(masks, Design) else np.atleast_1d(to_array(masks, "masks", EstimateError))
    geometry = Geometry(read_masks(array, groups, clusters, bitorder))
    regression, units = geometry.regression_or_none, geometry.masks.units
    if regression is None:
        return "lasso" if geometry.groups < MANY else "difference"
    if not regression.sure:
        return "ols"
    free = regression.df if units.kind != "given" else units.cluster_count - regression.parameters
    return "ols" if free >= max(2, geometry.groups / 2) or units.cluster_count < 2 else "lasso"


def _collect(statistics: Statistics, method: str, solver: Solver, out: npt.NDArray[np.float32] | None) -> Fit:
    """Run a method over all tiles; the results are the only arrays (groups, targets)."""
    geometry, targets = statistics.geometry, statistics.targets
    results: dict[str, Any] = {}
    broken = np.zeros(targets, bool)
    putting = threading.Lock()
    if out is not None:
        results["values"] = out[:, None] if statistics.flat else out

    def put(name: str, tile: Tile, part: Any) -> None:
        shape = part.shape[:-1]
        if name not in results:
            results[name] = np.empty((*shape, targets), _TYPES.get(name, np.float64))
        into = results[name][..., tile.part]
        into[:] = np.broadcast_to(part, (*shape, len(tile.broken)))[..., : tile.width]
        if into.dtype.kind in "fb":
            into[..., tile.broken[: tile.width]] = np.nan if into.dtype.kind == "f" else False

    def treat(tile: Tile) -> None:
        found = solver.solve(tile)
        parts = {name: getattr(found, name) for name in _OF_A_TILE}
        parts["training_noise"], parts["mask_noise"] = noise_parts(geometry, tile)
        parts["placebo_values"], parts["placebo_stderr"] = found.placebos or (None, None)
        if solver.df is None:
            parts["df"] = found.df
        still = geometry.used.energy(tile.units) == 0  # a constant target has no known error
        parts = {name: part if part is None else statistics.backend.result(part) for name, part in parts.items()}
        for name in ("stderr", "placebo_stderr"):
            if parts[name] is not None:
                parts[name][:, still] = np.nan
        with putting:
            broken[tile.part] = tile.broken[: tile.width]
            for name, part in parts.items():
                if part is not None:
                    put(name, tile, part)

    statistics.backend.each(statistics.tiles(*solver.folds), treat)
    if solver.df is not None:
        for name, of in zip(("df", "placebo_df"), solver.df, strict=True):
            every = np.broadcast_to(of[:, None], (len(of), targets))
            results[name] = np.where(broken, np.nan, every) if broken.any() else every
    if statistics.flat:
        results = {name: array[0] if array.ndim == 1 else array[:, 0] for name, array in results.items()}
    if out is not None:
        results["values"] = out
    results.setdefault("unbiased", results["values"])
    results["placebo_df"] = results.get("placebo_df", results["df"]) if "placebo_values" in results else None
    results.update(
        method=method,
        estimand=geometry.masks.estimand,
        models=geometry.masks.models,
        counts=geometry.plain.count[: geometry.groups].astype(np.int64),
        parameters=solver.parameters,
        errors=solver.errors,
        groups=statistics.given.names,
        targets=statistics.given.targets,
        _covariance=solver.covariance,
        _imbalance=solver.imbalance,
        _contrast=_contrasts(statistics.given, statistics.backend) if solver.contrast else None,
    )
    return Fit(**{**dict.fromkeys(_MAY_BE_MISSING), **results})


def _contrasts(given: Inputs, backend: Host) -> Callable[[Array], tuple[Array, Array]]:
    """Weights (contrasts, groups) -> contrasts and their variances, (contrasts, targets), by robust errors of OLS.

    Outputs are read again, and the geometry is made again: a fit must not keep it.
    """

    def contrasts(weights: Array) -> tuple[Array, Array]:
        statistics = Statistics(given, backend=backend)
        geometry = statistics.geometry
        contrast = OLS.prepare(geometry, Options(statistics.exact, robust=True)).contrast
        assert contrast is not None
        found = np.empty((2, len(weights), statistics.targets))

        def treat(tile: Tile) -> None:
            values, variance = contrast(tile, weights)
            still = geometry.used.energy(tile.units) == 0
            values, variance = backend.down(values), backend.down(variance)
            of_tile = np.where(tile.broken, np.nan, (values, np.where(still, np.nan, variance)))
            found[..., tile.part] = of_tile[..., : tile.width]

        backend.each(statistics.tiles(), treat)
        return found[0], found[1]

    return contrasts


def noise_parts(geometry: Geometry, tile: Tile) -> tuple[Array | None, Array | None]:
    """Variance between models of one mask, and over masks of what is not linear.

    training = sum of squares about the means of masks / (rows - masks)
    between = (RSS - training (R - p)) / sum of rows_u (1 - h_u), RSS of OLS on the R units u, h their leverages
    """
    if tile.within is None:
        return None, None
    training = tile.within / geometry.spare
    regression = geometry.regression_or_none
    if regression is None or geometry.units - regression.parameters < 1:  # no freedom between masks
        return training, None
    sums = tile.units.first(geometry.groups)
    left = regression.left(geometry.real.centre(sums), geometry.real.energy(sums))
    return training, (left - training * regression.df) / geometry.uncovered
