"""Influences of few groups with the errors of a study: over trainings, few-shot draws and target images.

OLS of rows that are independent trainings, y = a + M b + noise, each y an array (draws, images). For a weighted sum of
influences c'b = q'y, the n - p residual coordinates z = Q'y (Q orthonormal, orthogonal to 1 and M, p = groups + 1) have
the variance of one row each. The values

    x_j = q'y + |q| m^0.5 (H'z)_j,    j = 1..m = n - p + 1,    H (n - p, m) orthonormal, orthogonal to 1

have q'y as their mean, and the variance of this mean is |q|^2 z'z / (n - p), the classical one of OLS, n - p degrees
of freedom. So they are to `crossed` what trainings of one arm are: its seeds. H is another for every sum, since errors
of different groups would look alike otherwise.

Rows of one mask count as independent: their noise is that of training and of which mixtures the masks happen to hold.
Interactions of groups are in z, too, so errors are too large where they are strong and the masks are all there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import EstimateError, generator
from pydt.estimation.crossed_mean import Crossed, MeanSquares, images_of, judged, mean_squares
from pydt.estimation.inputs import Array


class RowSeeds:
    """Values that stand for seeds, of any sums of influences; formulas at the top.

    Args:
        masks: bool (rows, groups).

    Raises:
        EstimateError: masks that do not tell the groups apart, or fewer than two rows beyond the parameters.
    """

    def __init__(self, masks: npt.ArrayLike) -> None:
        design = np.column_stack([np.ones(len(np.asarray(masks))), np.asarray(masks, np.float64)])
        rows, parameters = design.shape
        if rows < parameters + 2 or np.linalg.matrix_rank(design) < parameters:
            wrong = f"{rows} rows do not tell {parameters - 1} groups apart with an error"
            raise EstimateError(wrong, "masks", "train more rows")
        basis, triangle = np.linalg.qr(design, mode="complete")
        self._free = basis[:, parameters:].T  # (n - p, n)
        self._solve = np.linalg.solve(triangle[:parameters], basis[:, :parameters].T)[1:]  # (groups, n)

    def of(self, values: npt.ArrayLike, weights: npt.ArrayLike, most: int | None = None) -> Array:
        """The values of one sum of influences, float64 (m, draws, images).

        Args:
            values: (rows, draws, images). weights: (groups,) of the sum.
            most: m at most: errors then rest on the first residual coordinates alone.
        """
        y, c = np.asarray(values, np.float64), np.asarray(weights, np.float64) @ self._solve
        free = self._free[: None if most is None else most - 1]
        m = len(free) + 1
        turned = _contrasts(m, np.asarray(weights, np.float64)) @ free  # (m, n)
        return np.asarray(np.tensordot(c + np.linalg.norm(c) * m**0.5 * turned, y, 1))


def _contrasts(m: int, key: Array) -> Array:
    """H' for a sum: (m, m - 1), columns orthonormal and orthogonal to 1; the same for the same sum."""
    random = generator("row seeds", m, str((np.round(key, 9) + 0.0).tolist()))
    square = np.column_stack([np.ones(m), random.standard_normal((m, m - 1))])
    return np.asarray(np.linalg.qr(square)[0][:, 1:])


def crossed_apart(
    first: npt.ArrayLike, second: npt.ArrayLike, weights: npt.ArrayLike | None = None, labels: Any = None
) -> Crossed:
    """First - second, of other seeds, in any number, on the same draws and images.

    As `crossed` of a difference, but each mean square with seeds is the sum of both sides', with Satterthwaite's
    degrees of freedom.

    Args:
        first, second: (seeds, draws, images), two seeds or more. weights, labels: as in `crossed`.

    Raises:
        EstimateError: as `crossed`; other draws or images; one seed alone.
    """
    y, z = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if y.ndim != 3 or y.shape[1:] != z.shape[1:] or min(len(y), len(z)) < 2:
        raise EstimateError(f"values {y.shape} and {z.shape}", "crossed_apart", "give two seeds or more, equal images")
    images = images_of(y.shape[-1], weights, labels, "crossed_apart")
    sides = [mean_squares(one, images) for one in (y, z)]
    between = (y.mean(0) - z.mean(0))[None]
    found = mean_squares(between, images)
    squares, df = dict(found.squares), dict(found.df)
    for name in sides[0].squares.keys() - found.squares.keys():
        each = [side.squares[name] for side in sides]
        squares[name] = np.asarray(sum(each))
        spread = sum(float(square) ** 2 / side.df[name] for square, side in zip(each, sides, strict=True))
        df[name] = float(squares[name]) ** 2 / spread if spread else min(side.df[name] for side in sides)
    both = MeanSquares(found.mean, squares, df)
    variance, freedom = map(float, both.variance())
    return judged(between, images, both, variance, freedom, difference=True)
