"""Standard errors that hold where groups change the variance of an output, too.

A unit u (a row; the mean of the rows with one mask; the half-difference of a pair) of w_u rows enters as x_u =
sqrt(w_u) (mask_u - mean mask) and y_u likewise. e are the residuals of OLS, h the leverages (1/m of the intercept
included), P = G^-1 X', D_u = P_ku^2 / (1 - h_u) and H the hat matrix.

    ols        V_kk = sum over u of P_ku^2 e_u^2 / (1 - h_u)                                              (HC2)
               df_k = (sum_u P_ku^2)^2 / (sum_u D_u^2 (1 - 2 h_u) + D'(H o H) D), o elementwise (Bell and McCaffrey)
    two arms   V_k = S1 / ((u1 - 1) n1) + S0 / ((u0 - 1) n0), S the sum of squares about the arm's mean, u and n its
               units and rows                                                                             (Welch)
               df_k = (1/n1 + 1/n0)^2 / (1 / (n1^2 (u1 - 1)) + 1 / (n0^2 (u0 - 1)))

Special cases (arms of one unit, rare events, leverage 1), sources: docs/how-pydt-estimates.md.

Cost, m units, K groups and n targets: m K^2 for P and h, once; 2 m K n. df: m^2 K, up to 2,048 units; beyond, D'(H o H)
D is replaced by its bound max(h) |D|^2, so df is a little too small. Memory: P^2 / (1 - h), up to 1 GB of it; what is
beyond is made anew for each tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pydt import _core
from pydt.estimation.backend import HOST, Host
from pydt.estimation.inputs import Array, Rows
from pydt.estimation.mask_geometry import Geometry
from pydt.estimation.sums import Tile

EXACT_UNITS = 2048  # units up to which degrees of freedom are exact
KEPT_ENTRIES = 1 << 27  # entries of P^2 / (1 - h) that are kept, 8 bytes each
_FITTED = 1e-9  # 1 - h of a model that OLS fits whatever it says
_KURTOSIS, _EVENTS = 8.0, 5.0  # of an output, and fewest units' worth of its spread in an arm


def balanced(geometry: Geometry) -> bool:
    """Whether every group is in about half of the models (or units are half-differences): then both of its arms weigh
    alike, and one pooled variance is as right as two.

    About half: alpha within 0.05 of it, or of masks of one size the share that they keep of every stratum. Of masks of
    one's own, the groups' shares of the models: their root mean square distance from one half, less what fair coins
    would have (with three standard deviations of that), and each share alone less four standard deviations of a coin.
    """
    masks = geometry.masks
    if masks.units.kind == "pair":
        return True
    share = geometry.plain.count[: geometry.groups] / geometry.plain.rows
    if masks.alpha is not None:
        known: Any = masks.alpha
        if masks.strata is not None:  # of a stratum of 3 groups, half is 1 or 2
            known = np.bincount(masks.strata, share) / np.bincount(masks.strata)
        return bool(np.all(np.abs(known - 0.5) < 0.05 + 1e-9))
    away, coin = np.abs(share - 0.5), 0.25 / geometry.units
    systematic = float((away**2).mean()) - coin * (1 + 3 * (2 / geometry.groups) ** 0.5)
    return systematic <= 0.05**2 and float(away.max()) <= 0.05 + 4 * coin**0.5


class UnitRows:
    """The used rows in blocks of whole units, as robust errors read them."""

    def __init__(self, geometry: Geometry):
        units = geometry.masks.units
        self._geometry = geometry
        self.pair = units.kind == "pair"
        rows = np.flatnonzero(units.used)
        label = units.label[rows] if units.kind in ("repeat", "pair") else np.arange(len(rows))
        order = np.argsort(label, kind="stable")
        self._order, label = rows[order], label[order]
        self._starts = np.flatnonzero(np.r_[True, label[1:] != label[:-1]])
        self._ends = np.r_[self._starts[1:], len(label)]
        self._sign = units.sign[self._order] if self.pair else np.ones(len(label))
        self.weight = (self._ends - self._starts).astype(np.float64)
        first = np.flatnonzero(self._sign > 0)  # of a pair, the rows whose mask the unit has
        self._first = self._order[first[np.searchsorted(first, self._starts)]]
        # Rows of one mask differ in their placebos, which are then no columns of the units.
        self.columns = geometry.groups if units.kind == "repeat" else geometry.masks.columns

    def __len__(self) -> int:
        return len(self.weight)

    def blocks(self) -> Iterator[slice]:
        longest = int((self._ends - self._starts).max())
        size = self._geometry.backend.units_at_once(self._geometry.masks.columns, longest)
        return (slice(start, min(start + size, len(self))) for start in range(0, len(self), size))

    def kept(self, part: slice) -> Rows:
        """A row with the mask of each unit."""
        return self._first[part]

    def masks(self, part: slice, backend: Host = HOST) -> Any:
        """x of some units (units, columns)."""
        plain = self._geometry.plain
        mean = np.full(self.columns, 0.5) if self.pair else plain.count[: self.columns] / plain.rows
        masks = backend.masks(self._geometry.masks, self._first[part])[:, : self.columns]
        return backend.up(np.sqrt(self.weight[part]))[:, None] * (masks - backend.up(mean))

    def outputs(self, tile: Tile, part: slice, of: Callable[[Rows, Any], Any] | None = None) -> Any:
        """y of some units (units, targets): of the outputs less their means, or of what `of` makes of rows and
        outputs."""
        backend = self._geometry.backend
        rows = slice(self._starts[part.start], self._ends[part.stop - 1])
        y = tile.outputs(self._order[rows])
        if of is not None:
            y = of(self._order[rows], y)
        elif not self.pair:
            y = y - backend.up(tile.plain.total / self._geometry.plain.rows)
        if len(y) == len(self.weight[part]):
            return y
        y *= backend.up(self._sign[rows])[:, None]
        sums = backend.unit_sums(y, self._starts[part] - rows.start)
        return sums / backend.up(np.sqrt(self.weight[part]))[:, None]


def rare(backend: Host, units: UnitRows, share: Array, squares: Array, fourths: Array) -> Any:
    """Where an arm, (columns, targets), holds too few events for its own spread: V is the classical one at least.

    Args:
        share: (columns,) of the rows in the smaller arm. squares, fourths: (targets,) sums of y^2 and y^4 over units.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        kurtosis = len(units) * fourths / squares**2
        events = len(units) / kurtosis
    return backend.outer(share, events) < backend.up(np.where(kurtosis > _KURTOSIS, _EVENTS, 0.0))


def smaller_arm(geometry: Geometry) -> Array:
    share = geometry.plain.count / geometry.plain.rows
    return np.minimum(share, 1 - share)


class Sandwich:
    """HC2 of OLS on given masks.

    Args:
        inverse: G^-1 (groups, groups).
        joined: (placebos, columns): what makes placebos' influences of x, or None.

    Attributes:
        df: (influences,), of the groups and of the placebos where they are columns of the units.
        hangs: bool (influences,): those that hang on a unit which OLS fits whatever it says.
    """

    def __init__(self, geometry: Geometry, inverse: Array, joined: Array | None):
        self._geometry, self._inverse = geometry, inverse
        self.units = UnitRows(geometry)
        project = np.pad(inverse, ((0, 0), (0, self.units.columns - geometry.groups)))
        if joined is not None and self.units.columns > geometry.groups:
            project = np.concatenate([project, joined])
        self._project = project
        self._share = smaller_arm(geometry)[: len(project)]
        size, k = len(self.units), geometry.groups
        self._level = self.units.weight / self.units.weight.sum() * geometry.intercept
        leverage = np.empty(size)
        for part in self.units.blocks():
            x = self.units.masks(part)[:, :k]
            leverage[part] = ((x @ inverse) * x).sum(1) + self._level[part]
        self._left = 1 - leverage
        self._fitted = self._left < _FITTED
        self._left[self._fitted] = np.inf  # its residual is rounding
        self._kept = [self._make(part) for part in self.units.blocks()] if size * len(project) <= KEPT_ENTRIES else None
        self._describe()

    def _make(self, part: slice, backend: Host = HOST) -> Any:
        """P^2 / (1 - h) of some units, (units, influences)."""
        made = backend.product(self.units.masks(part, backend), backend.up(self._project).T)
        return made**2 / backend.up(self._left[part])[:, None]

    def _weights(self, backend: Host = HOST) -> Iterator[tuple[slice, Any]]:
        for i, part in enumerate(self.units.blocks()):
            yield part, self._kept[i] if self._kept is not None and backend.keeps else self._make(part, backend)

    def _describe(self) -> None:
        """df, and which influences hang on a unit that OLS fits whatever it says."""
        units, k = self.units, self._geometry.groups
        exact = len(units) <= EXACT_UNITS
        h = np.where(self._fitted, 1.0, 1 - self._left)
        own, most, lost = np.zeros(len(self._project)), np.zeros(len(self._project)), np.zeros(len(self._project))
        together = np.zeros(len(self._project))
        x = np.concatenate([units.masks(part)[:, :k] for part in units.blocks()]) if exact else None
        every = np.concatenate([weight for _, weight in self._weights()]) if exact else None
        for part, weight in self._weights():
            left = np.where(self._fitted[part], 0.0, self._left[part])
            own += left @ weight
            most += (1 - 2 * h[part]) @ weight**2
            if self._fitted[part].any():
                lost += ((units.masks(part)[self._fitted[part]] @ self._project.T) ** 2).sum(0)
            if x is None or every is None:
                together += float(h.max()) * (weight**2).sum(0)
            else:
                hat = (x[part] @ self._inverse) @ x.T
                if self._geometry.intercept:
                    hat += np.outer(np.sqrt(self._level[part]), np.sqrt(self._level))
                together += (weight * (hat**2 @ every)).sum(0)
        self.hangs = lost > 1e-9 * own
        with np.errstate(invalid="ignore", divide="ignore"):
            self.df: Array = own**2 / (most + together)

    def variance(self, tile: Tile, values: Any, classical: Any, weights: Array | None = None) -> Any:
        """V (influences, targets).

        Args:
            values: of OLS, (groups, targets). classical: s^2 [G^-1]_kk, of the same shape as V.
            weights: (contrasts, groups); then V is that of each contrast c'b, and so is `classical`.
        """
        backend = self._geometry.backend
        found: Any = 0.0
        squares, fourths = (backend.zeros(len(tile.broken)) for _ in range(2))
        for part, weight in self._weights(backend):
            y = self.units.outputs(tile, part)
            second = y**2
            squares, fourths = squares + second.sum(0), fourths + (second**2).sum(0)
            y -= backend.product(self.units.masks(part, backend)[:, : self._geometry.groups], values)
            if weights is not None:
                x = self.units.masks(part, backend)[:, : len(self._inverse)]
                weight = backend.product(x, backend.up((weights @ self._inverse).T)) ** 2
                weight = weight / backend.up(self._left[part])[:, None]
            found = found + backend.product(weight.T, y**2)
        hangs, share = self.hangs, self._share
        if weights is not None:
            used = weights != 0
            hangs = (used & hangs[: used.shape[1]]).any(1)
            share = np.where(used, share[: used.shape[1]], 1.0).min(1)
        few = rare(backend, self.units, share, backend.down(squares), backend.down(fourths))
        found = backend.where(few, backend.maximum(found, classical), found)
        return backend.where(backend.up(hangs)[:, None], classical, found)


class Arms:
    """The spreads of both arms of each of `columns`; df (columns,) of the errors."""

    def __init__(self, geometry: Geometry):
        self.units, self._backend = UnitRows(geometry), geometry.backend
        self.columns = columns = self.units.columns
        self._share = smaller_arm(geometry)[:columns]
        self._codes, number = [], np.zeros(columns)
        for part in self.units.blocks():
            kept = geometry.masks.masks(self.units.kept(part))[:, :columns] > 0
            self._codes.append(geometry.backend.codes(_core.pack(kept), columns))
            number += kept.sum(0)
        with_it = geometry.plain.count[:columns]
        # A placebo column that few models all drew alike says nothing: NaN.
        varies = (with_it > 0) & (with_it < geometry.plain.rows)
        self._rows = [np.where(varies, n, np.nan) for n in (with_it, geometry.plain.rows - with_it)]
        self._free = [number - 1, len(self.units) - number - 1]
        self._alone = (self._free[0] < 1) | (self._free[1] < 1)
        free = [np.maximum(one, 1.0) for one in self._free]
        above = sum(1 / n for n in self._rows) ** 2
        below = sum(1 / (n**2 * f) for n, f in zip(self._rows, free, strict=True))
        self.df: Array = np.where(self._alone, max(len(self.units) - 2.0, 1.0), above / below)

    def split_df(self, geometry: Geometry, other: float) -> tuple[Array, Array]:
        """df of the groups and of the placebos; `other` where placebos are no columns of the units."""
        df = np.r_[self.df, np.full(geometry.masks.columns - self.columns, other)]
        return df[: geometry.groups], df[geometry.groups :]

    def variance(
        self, tile: Tile, sums: Any, of: Callable[[Rows, Any], Any] | None = None, exact: bool = True
    ) -> tuple[Any, Any]:
        """V and the pooled variance T within both arms, (columns, targets).

        Args:
            sums: (at least columns, targets) M'r, for r the outputs less their means, or what `of` makes of them.
            exact: squares are summed in float64 and not in float32.
        """
        backend = self._backend
        up, down = backend.up, backend.down
        # Powers of two, so that squares of a tile's outputs neither vanish in float32 nor overflow it.
        with np.errstate(divide="ignore"):
            scale = np.exp2(-np.nan_to_num(np.floor(np.log2(tile.plain.squares) / 2), posinf=0, neginf=0))
        sums, scaled = sums[: self.columns] * up(scale), up(scale)
        inside = backend.zeros(*sums.shape)
        totals, second, fourth = (backend.zeros(len(scale)) for _ in range(3))
        for part, codes in zip(self.units.blocks(), self._codes, strict=True):
            y = self.units.outputs(tile, part, of)
            y *= scaled
            totals = totals + up(np.sqrt(self.units.weight[part])) @ y
            y *= y
            second, fourth = second + y.sum(0), fourth + (y**2).sum(0)
            inside += backend.squares_of_arm(codes, y, exact)
        (with_it, without), (free_with, free_without) = self._rows, (np.maximum(one, 1.0) for one in self._free)
        with np.errstate(invalid="ignore"):
            one = (inside - sums**2 / up(with_it)[:, None]).clip(0)
            other = (second - inside - (totals - sums) ** 2 / up(without)[:, None]).clip(0)
        pooled = (one + other) / max(len(self.units) - 2, 1)
        classical = up(1 / with_it + 1 / without)[:, None] * pooled
        found = one / up(with_it * free_with)[:, None] + other / up(without * free_without)[:, None]
        few = rare(backend, self.units, self._share, down(second), down(fourth))
        found = backend.where(few, backend.maximum(found, classical), found)
        found = backend.where(up(self._alone)[:, None], classical, found)
        return found / scaled**2, pooled / scaled**2
