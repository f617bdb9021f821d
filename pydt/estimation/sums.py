"""Sums of masks and of outputs over rows, which add; every estimator is computed from them.

    Columns   rows    count = M'1 (groups,)      gram = M'M (groups, groups)                  of masks M (rows, groups)
    Sums      total = 1'Y (targets,)    squares = 1'Y^2 (targets,)    cross = M'Y (groups, targets)    of outputs Y

in float64, with Y less a shift per target (its first row), so that a large common offset costs no digits. Sums of
disjoint sets of rows add, and a training fold is the total less the held-out fold: cross-validation costs one pass.

As units (see inputs.py; rows stay the rows):

    repeat    squares becomes the sum of (sum of y)^2 / rows over units
    pair      count = total = 0, cross -> cross - total / 2, gram -> gram - rows / 4, squares -> sum of (difference of
              sums)^2 / rows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.estimation.backend import HOST, Host
from pydt.estimation.inputs import Array, Rows


@dataclass(frozen=True, eq=False)
class Counts:
    """How many rows there are, and how many of them keep each column."""

    rows: float
    count: Array

    def centre(self, sums: Sums, single: bool = False) -> Any:
        """Cross products of columns and targets less their means; as float32 if `single`."""
        return sums.backend.centred(sums.cross, self.count / self.rows, sums.total, single)

    def energy(self, sums: Sums) -> Array:
        """Sums of squares of the targets less their means."""
        return np.maximum(sums.squares - sums.total**2 / self.rows, 0)

    def intercept(self, sums: Sums, values: Any) -> Array:
        return (sums.total - sums.backend.weigh(self.count[: len(values)], values)) / self.rows


@dataclass(frozen=True, eq=False)
class Columns(Counts):
    """Counts and Gram matrix of the masks of some rows; `a - b` is that of the rest. The Gram matrix is made when first
    read: where single examples are the groups it would not fit into memory, and no method reads it."""

    _gram: Callable[[], Array]

    @cached_property
    def gram(self) -> Array:
        return self._gram()

    def __sub__(self, other: Columns) -> Columns:
        gram = self.gram - other.gram
        return Columns(self.rows - other.rows, self.count - other.count, lambda: gram)

    def first(self, groups: int) -> Columns:
        """The same without the columns after the first `groups`."""
        if groups == len(self.count):
            return self
        return Columns(self.rows, self.count[:groups], lambda: self.gram[:groups, :groups])

    @cached_property
    def centred(self) -> Array:
        """Gram matrix of the columns less their means."""
        centred = np.outer(self.count / -self.rows, self.count)  # in place: there may be 20,000 groups
        centred += self.gram
        return centred

    def residuals(self, sums: Sums, values: Any, intercept: Array) -> Sums:
        """Statistics of y - intercept - M values on these rows; columns after those of `values` have none."""
        backend, k = sums.backend, len(values)
        cross = sums.cross - backend.sparse_product(self.gram[:, :k], values)
        cross -= backend.outer(self.count, intercept)
        total = sums.total - self.rows * intercept - backend.weigh(self.count[:k], values)
        squares = sums.squares - intercept * (sums.total + total)
        squares -= backend.dots(values, sums.cross[:k] + cross[:k])
        return Sums(total, np.maximum(squares, 0), cross, backend)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of the outputs of some targets; `a + b` and `a - b`: of all rows of both, and of the rest. `cross` is the
    backend's."""

    total: Array
    squares: Array
    cross: Any
    backend: Host = HOST

    def __add__(self, other: Sums) -> Sums:
        cross = self.cross + other.cross
        return Sums(self.total + other.total, self.squares + other.squares, cross, self.backend)

    def __sub__(self, other: Sums) -> Sums:
        cross = self.cross - other.cross
        return Sums(self.total - other.total, self.squares - other.squares, cross, self.backend)

    def first(self, groups: int) -> Sums:
        return replace(self, cross=self.cross[:groups])

    def of(self, targets: npt.NDArray[Any]) -> Sums:
        """The same for some of the targets."""
        return Sums(self.total[targets], self.squares[targets], self.cross[:, targets], self.backend)

    def clear(self, targets: npt.NDArray[np.bool_]) -> None:
        """Zeros for some of the targets, in place."""
        self.total[targets], self.squares[targets], self.cross[:, targets] = 0, 0, 0


@dataclass(frozen=True, eq=False)
class Tile:
    """Statistics of some targets, and of targets that are all zeros after them (see `tile_slices`).

    Attributes:
        part: which targets.
        plain: of all rows as they are.
        units: of the used rows as units (the same object as `plain` where units are rows).
        folds: by number of folds, of each fold as units; they add up to `units`.
        within: (targets,) sum of squares of the used rows about the mean of their mask; None where no mask repeats.
        broken: bool (targets,): a NaN or infinite output; their sums are zeros.
        outputs: rows -> their outputs less the shift, float64 (rows, targets) of the backend.
        step: (targets,) what outputs were rounded to before they were summed; None where they were not.
    """

    part: slice
    plain: Sums
    units: Sums
    folds: dict[int, list[Sums]]
    within: Array | None
    broken: npt.NDArray[np.bool_]
    outputs: Callable[[Rows], Any]
    step: Array | None = None

    @property
    def width(self) -> int:
        """How many targets there are without the zeros."""
        return self.part.stop - self.part.start
