"""Where arrays with an axis of targets live, and what computes on them.

An estimator holds each formula once. Its arrays (groups, targets) and (rows, targets) belong to a backend: numpy of
`Host`, tensors of `torch_backend.TorchBackend`. Both have `@`, `+ - * / **`, `abs`, `.sum(0)`, `.clip(0)`, slices,
masks and comparisons; the rest are the functions here. Vectors (targets,), and what masks alone decide (groups x
groups, counts), are numpy in float64. So in an expression of both, `up` brings the numpy part to the backend, and
`down` what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import share_out, threads
from pydt.estimation.inputs import Array, Masks, Rows, as_outputs

WIDTH = 64  # targets that a tile of the host is a multiple of
TILE_ENTRIES = 1 << 19  # of a (groups, targets) matrix in float64, in one tile of the host: 4 MB
_BLOCK = 128  # of the forward substitution in float64


class Host:
    """The core and numpy, on this CPU. Arrays of the backend are numpy's.

    Attributes:
        exact: no product is computed in float32, whatever the outputs are.
        keeps: arrays that masks alone decide are kept between tiles, where they fit; else each tile makes its own.
    """

    exact = False
    keeps = True

    def up(self, array: Any) -> Any:
        """numpy's or the backend's own floats as float64 of the backend; bool stays bool."""
        return array.astype(np.float64) if array.dtype == np.float32 else array

    def down(self, array: Any) -> npt.NDArray[Any]:
        """As numpy's, of the same dtype."""
        return np.asarray(array)

    def result(self, array: Any) -> npt.NDArray[Any]:
        """As numpy's, with the precision that results have."""
        return np.asarray(array)

    def zeros(self, *shape: int) -> Any:
        return np.zeros(shape)

    def outer(self, column: Array, row: Array) -> Any:
        """(groups, targets) from numpy (groups,) and (targets,)."""
        return np.outer(column, row)

    def where(self, condition: Any, one: Any, other: Any) -> Any:
        return np.where(condition, one, other)

    def maximum(self, one: Any, other: Any) -> Any:
        return np.maximum(one, other)

    def largest(self, array: Any) -> Array:
        """max |array| of each target."""
        return np.abs(array).max(0)

    def dots(self, one: Any, other: Any) -> Array:
        """Sums of products down each target."""
        return np.einsum("kn,kn->n", one, other)

    def product(self, one: Any, other: Any) -> Any:
        """one @ other, where one axis of `one` is rows: may be computed in float32 where not `exact`."""
        return one @ other

    def sparse_product(self, matrix: Array, values: Any) -> Any:
        """matrix @ values, for a matrix that masks alone decide and values that are float32, and 0 for most groups."""
        return _core.sparse_product(np.ascontiguousarray(matrix), values, threads())

    def weigh(self, weights: Array, values: Any) -> Array:
        """weights @ values (targets,); of float32 values the same bits whatever targets stand beside one."""
        if values.dtype != np.float32:
            return weights @ values
        return _core.sparse_product(np.ascontiguousarray(weights[None]), values, threads())[0]

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def take(self, outputs: Any) -> tuple[Any, bool]:
        """Outputs as floats (models, targets), in the backend's memory or numpy's, floats without a copy; True if they
        had one dimension."""
        return as_outputs(outputs)

    def tiles(
        self, outputs: Any, shift: Array, columns: int, folds: int, longest: int
    ) -> Iterator[tuple[slice, Any, Array]]:
        """The targets in order, tile by tile: which, their outputs, the shift. folds: their parts that are held, in
        all; longest: most rows of a unit or cluster.

        Those beyond a multiple of 64 come last, padded with zeros: BLAS adds a narrower matrix in another order, and a
        target would have other bits alone than among others.
        """
        for part in tile_slices(outputs.shape[1], columns * (2 if folds else 1)):  # folds hold many of them
            y, level = outputs[:, part], shift[part]
            if (more := -y.shape[1] % WIDTH) > 0:
                y, level = np.pad(y, ((0, 0), (0, more))), np.pad(level, (0, more))
            yield part, y, level

    def each(self, tiles: Iterable[Any], work: Callable[[Any], None]) -> None:
        """work(tile) for each of them."""
        share_out(tiles, work)

    def units_at_once(self, columns: int, longest: int) -> int:
        """Units that robust errors read at a time: 16 MB with a tile's targets (see tile_slices)."""
        return min(max(240, 4 * columns), 1920)

    def rows(self, outputs: Any, rows: Rows, *, shift: Array, broken: npt.NDArray[np.bool_]) -> Any:
        """Some rows of a tile's outputs less the shift, float64; 0 for broken targets."""
        return np.where(broken, 0, outputs[rows].astype(np.float64) - shift)

    def codes(self, packed: npt.NDArray[np.uint8], columns: int, rows: Rows | None = None) -> Any:
        """Masks of some rows, as the sums below take them."""
        return _core.codes(packed, columns, rows)

    def masks(self, masks: Masks, rows: Rows) -> Any:
        """0/1 masks of some rows, placebos included (rows, columns)."""
        return masks.masks(rows)

    def sums(
        self, codes: Any, outputs: Any, shift: Array, rows: Rows | None, coarse: bool
    ) -> tuple[Array, Array, Any, Array | None]:
        """1'(Y - shift), 1'(Y - shift)^2 and M'(Y - shift), for rows of a tile's outputs; with `coarse`, the last is of
        outputs rounded to 1023 steps, which come with it."""
        if coarse:
            cross, step = _core.subset_sums_int16(codes, outputs, shift, threads(), rows)
            return *_core.column_moments(outputs, shift, threads(), rows), cross, step
        cross, total, squares = _core.sums_and_moments(codes, outputs, shift, threads(), rows)
        return total, squares, cross, None

    def squares_of_arm(self, codes: Any, squares: Any, exact: bool) -> Any:
        """M'squares, for squares (units, targets) of about 1; summed in float64 if `exact`."""
        shift = np.zeros(squares.shape[1])
        return _core.subset_sums(codes, squares if exact else squares.astype(np.float32), shift, threads(), None)

    def moments(self, outputs: Any, shift: Array) -> tuple[Array, Array]:
        """1'(Y - shift) and 1'(Y - shift)^2 of all rows."""
        return _core.column_moments(outputs, shift, threads())

    def unit_squares(self, outputs: Any, shift: Array, starts: Rows, sign: Array, rows: Rows) -> Array:
        """Sum over units of (sum over the unit's rows of sign (output - shift))^2 / rows of the unit."""
        return _core.unit_squares(outputs, shift, starts, sign, threads(), rows)

    def unit_sums(self, values: Any, starts: Rows) -> Any:
        """Sums over the rows of each unit, (units, targets); starts: first row of each."""
        return np.add.reduceat(values, starts, axis=0)

    # ---- from sums to results --------------------------------------------------------------------------------------

    def centred(self, cross: Any, share: Array, total: Array, single: bool) -> Any:
        """cross - share total', computed in float64; as float32 if `single`."""
        return _core.centred(np.ascontiguousarray(cross), share, total, single)

    def substitution(self, lower: Array) -> Callable[[Any], Array]:
        """centred cross products c -> |L^-1 c|^2 of each target; in the precision of c."""
        return _Substitution(lower).explained

    def pooled_errors(
        self, centred: Any, scale: Array, weight: Array, rho: Array, energy: Array, noise: Array, df: float
    ) -> tuple[Any, Any]:
        """Differences of means and their standard errors, float32: see `_core.pooled_errors`."""
        return _core.pooled_errors(centred, scale, weight, rho, energy, noise, df)

    def lasso(
        self, gram: Array, cross: Any, energy: Array, penalty: Array, start: Any, *, l1_ratio: float, tolerance: float
    ) -> tuple[Any, Array, npt.NDArray[np.int64]]:
        """Values, gaps and iterations: see `_core.lasso`."""
        return _core.lasso(
            gram, cross, energy, penalty, start, l1_ratio=l1_ratio, tolerance=tolerance, threads=threads()
        )

    def lasso_path(
        self, gram: Array, cross: Any, energy: Array, held_gram: Array, held_cross: Any, held_energy: Array,
        steps: Array, *, l1_ratio: float, tolerance: float, patience: int, held_rows: int,
    ) -> tuple[Array, Any, Array]:  # fmt: skip
        """Errors of the steps, values at the least error and their gap: see `_core.lasso_path`."""
        return _core.lasso_path(
            gram, cross, energy, held_gram, held_cross, held_energy, steps, l1_ratio=l1_ratio, tolerance=tolerance,
            patience=patience, held_rows=held_rows, threads=threads(),
        )[:3]  # fmt: skip


class _Substitution:
    """Forward substitution: K^2 targets / 2 multiplications."""

    def __init__(self, lower: Array):
        self._lower = lower

    @cached_property
    def _inverses(self) -> list[npt.NDArray[Any]]:
        """Of the blocks on L's diagonal."""
        starts = range(0, len(self._lower), _BLOCK)
        return [np.linalg.inv(self._lower[i : i + _BLOCK, i : i + _BLOCK]) for i in starts]

    @cached_property
    def _panels(self) -> npt.NDArray[np.float32]:
        return _core.triangle_panels(self._lower)

    def explained(self, cross: npt.NDArray[Any]) -> Array:
        if cross.dtype == np.float32:
            return _core.triangle_squares(self._panels, np.ascontiguousarray(cross), threads())
        solved, explained = np.empty_like(cross), np.zeros(cross.shape[1])
        for inverse, start in zip(self._inverses, range(0, len(cross), _BLOCK), strict=True):
            part = cross[start : start + _BLOCK]
            if start:
                part = part - self._lower[start : start + _BLOCK, :start] @ solved[:start]
            part = np.matmul(inverse, part, out=solved[start : start + _BLOCK])
            square = part * part
            if len(square) % 32 == 0:  # runs of 32: twice as fast, and as good
                square = square.reshape(-1, 32, cross.shape[1]).sum(1)
            explained += square.sum(0)
        return explained


HOST = Host()


def tile_slices(targets: int, columns: int) -> Iterator[slice]:
    """The targets of each tile of the host, 8,192 at most."""
    width = max(WIDTH, TILE_ENTRIES // max(columns, 64) // WIDTH * WIDTH)
    whole = targets // WIDTH * WIDTH
    yield from (slice(start, min(start + width, whole)) for start in range(0, whole, width))
    if whole < targets:
        yield slice(whole, targets)
