"""The LASSO and the elastic net on tensors of any device: all targets of a tile at once.

`lasso` and `lasso_path` mean what `_core.lasso` and `_core.lasso_path` mean: objective, duality gap, tolerances, where
a path ends. A pass is one elementwise step of all targets (`array_step`, or a fused kernel in its place) and one
product of the Gram matrix with the moves.

Steps: proximal gradient with the diagonal of G as its metric and heavy-ball momentum, which contracts fast where groups
are nearly orthogonal. A target whose gap does not halve in 4 passes changes to a step that is safe for all of G and to
Nesterov's momentum with restarts. Targets that are done do not move, and leave the batch once they are most of it.
Gaps of results are computed in float64; float32 starts again from float64 slopes until the gap is small.

Cost, K groups, n targets: 2 K^2 n operations a product; path, final solve and four folds together 15 MFLOP a target at
K = 200 (1500 rows), 0.35 GFLOP at K = 1000 (7540 rows). At the peak of a path 17 arrays (K, n), of `array_step` 8
more, and 0.2 GB of float64. What lost, and what a card should take: docs/lasso-solver.md, "On tensors".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

Tensor: TypeAlias = Any  # torch.Tensor; this room does not import torch
Step: TypeAlias = Callable[..., None]  # takes the arguments of array_step

_ROWS = 11  # of the state of array_step
_CLOCK, _PASSES, _OPEN = 5, 7, 8
_ROUND = 100  # passes in float32 before the slope is computed again
_FLOAT32 = 2e-7  # a gap that rounding the values to float32 may cost
_DEPARTED, _RISEN = 4, 3  # standard errors by which a path has found something, and by which its error has risen
_CHUNK = 2**22  # numbers of a float64 array of certify


def array_step(
    values: Tensor, moved: Tensor, slope: Tensor, push: Tensor, cross: Tensor, diagonal: Tensor, state: Tensor,
    spread: float, steep: float, limit: int,
) -> None:  # fmt: skip
    """One pass of all open targets, in place: the gap at `values`; then, unless the target is done, their move.

    (groups, targets): values, their last move, the slope c - Gb before that move, push = G moved, cross c. diagonal
    (groups,): of G. state (11, targets): edge, ridge, energy, tolerance as a share of what is left of the energy and at
    least, clock (0: heavy ball, else Nesterov's), mark (an earlier gap), passes, open (1 or 0), gap, left. spread: mean
    squared correlation of two groups; steep: an upper bound of the eigenvalues of the correlations."""
    edge, ridge, energy, share, least, clock, mark, passes, running, gap, left = state
    live = running > 0
    after = slope - push
    pull = after - ridge * values
    shared = values * pull
    most = pull.abs().amax(0)
    excess, along = (values.abs() * edge - shared).sum(0), shared.sum(0)
    square = (energy - (values * cross).sum(0) - along).clip(min=0)
    rest = (1 - edge / most).where(most > edge, 0)
    now = (rest * rest * square / 2 + excess + rest * along) / (energy / 2)
    gap.copy_(now.where(live, gap))
    left.copy_((square / energy).where(live, left))

    wanted = (share * left.clip(max=1)).maximum(least)
    fast, start = clock > 0, passes == 0
    check = (passes.remainder(32) == 31).where(fast, passes.remainder(4) == 3)
    slow = check & ~(now < (0.9 * mark).where(fast, mark / 2))
    stuck = slow & (now <= 8 * wanted) & (values.element_size() == 4)  # rounding is all that is left
    live &= ~((now <= wanted) | (passes >= limit) | stuck)
    undo = live & ~fast & ~start & ~(now <= 4 * mark)  # the step was too long
    change = undo | (live & ~fast & slow)
    mark.copy_(now.where(live & (start | check), mark).masked_fill(change, float("inf")))
    clock.masked_fill_(change, 1)
    fast = fast | change

    back = moved.masked_fill(~undo, 0)
    values -= back
    moved -= back
    slope.copy_(slope.where(undo, after))
    push = push.masked_fill(undo, 0)
    later = (1 + (1 + 4 * clock * clock) ** 0.5) / 2
    lean = ((clock - 1) / later).where(fast, 0)
    momentum = lean.where(fast, ((values != 0).sum(0, dtype=values.dtype) * spread / (1 + ridge) ** 2).clip(max=0.8))
    own = diagonal[:, None] * (0 * clock + steep).where(fast, 1) + ridge
    centre = values + momentum * moved
    ahead = own * centre + slope - lean * push - ridge * (values + lean * moved)
    new = ((ahead - ahead.clip(-edge, edge)) / own).where(diagonal[:, None] > 0, values)
    moved.copy_((new - values).masked_fill(~live, 0))
    turn = ((centre - new) * own * moved).sum(0)
    values += moved
    clock.copy_(later.masked_fill(turn > 0, 1).where(live & fast, clock))
    passes += live
    running.copy_(live & (moved != 0).any(0))


def _scale(most: Tensor, like: Tensor) -> Tensor:
    """The power of two that brings each number into [1, 2); 1 where there is none."""
    limit = 120 if like.element_size() == 4 else 1000
    scale = (1 - most.frexp().exponent.clip(-limit, limit)).to(most.dtype).exp2()
    return scale.where((most > 0) & most.isfinite(), 1)


class _Gram:
    """A Gram matrix times a power of two that brings its diagonal to about 1: in float64 and in the type of passes."""

    def __init__(self, gram: Tensor, like: Tensor):
        self.scale = _scale(gram.diagonal().amax().double(), like)
        self.exact = gram.double() * self.scale
        self.rough = self.exact.to(like.dtype)
        count, diagonal = len(gram), self.exact.diagonal()
        trace, squares = float(diagonal.sum()), float((self.exact * self.exact).sum() - (diagonal * diagonal).sum())
        self.spread = squares / trace**2 * count / (count - 1) if count > 1 and trace > 0 else 0.0
        # Norm of the 64th power of the correlations: at most K^(1/128) above the largest eigenvalue.
        root = (diagonal**-0.5).where(diagonal > 0, 0)
        power, log = root[:, None] * self.exact * root, 0.0
        for _ in range(6):
            norm = (power * power).sum().clip(min=1e-300) ** 0.5
            power, log = power / norm, 2 * (log + norm.log())
            power = power @ power
        self.steep = max(1.0, float((log + (power * power).sum().clip(min=1e-300).log() / 2).exp() ** (1 / 64)))


def _scaled(gram: _Gram, cross: Tensor, energy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Powers of two (n,) that bring cross to about 1; cross times these; the energy that goes with it."""
    up = _scale(cross.abs().amax(0).double(), cross)
    return up, cross * up.to(cross.dtype), energy.double() * up * (up / gram.scale)


class _Targets:
    """Some targets: cross (K, n), scaled; energy, edge, ridge (n,) to go with it, in float64."""

    def __init__(self, gram: _Gram, step: Step, cross: Tensor, energy: Tensor, edge: Tensor, ridge: Tensor):
        self.gram, self.step, self.cross, self.energy, self.edge, self.ridge = gram, step, cross, energy, edge, ridge

    def take(self, which: Tensor) -> _Targets:
        vectors = (vector[which] for vector in (self.energy, self.edge, self.ridge))
        return _Targets(self.gram, self.step, self.cross.index_select(1, which), *vectors)

    def state(self, share: float, least: float) -> Tensor:
        state = self.cross.new_zeros((_ROWS, self.cross.shape[1]))
        for row, value in enumerate((self.edge, self.ridge, self.energy, share, least)):
            state[row] = value
        return state

    def descend(self, values: Tensor, slope: Tensor, state: Tensor, limit: int, which: Tensor | int = 1) -> None:
        """Passes, in place, until `which` targets are done. Slopes stay those of the values."""
        state[_CLOCK].clip_(max=1)
        state[_PASSES], state[_OPEN] = 0, which
        self._go_on(values, values.new_zeros(values.shape), slope, values.new_zeros(values.shape), state, limit)

    def _go_on(self, values: Tensor, moved: Tensor, slope: Tensor, push: Tensor, state: Tensor, limit: int) -> None:
        gram = self.gram.rough if values.dtype == self.gram.rough.dtype else self.gram.exact
        rates = gram.diagonal().contiguous(), state, self.gram.spread, self.gram.steep, limit
        while True:
            self.step(values, moved, slope, push, self.cross, *rates)
            which = state[_OPEN].nonzero()[:, 0]
            if not len(which):
                return
            if 3 * len(which) < len(self.energy):
                whole = values, slope, state
                part = [array.index_select(1, which) for array in whole]
                steps = moved.index_select(1, which)
                self.take(which)._go_on(part[0], steps, part[1], gram @ steps, part[2], limit)
                for array, found in zip(whole, part, strict=True):
                    array[:, which] = found
                return
            push.addmm_(gram, moved, beta=0)

    def certify(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slopes (K, n) in the type of the values; gaps (n,) and what is left of the energy (n,); all from float64."""
        slope, gap, left = values.clone(), self.edge.clone(), self.edge.clone()
        size = max(1, _CHUNK // len(values))
        for first in range(0, len(gap), size):
            here = slice(first, first + size)
            edge, energy = self.edge[here], self.energy[here]
            b, cross = values[:, here].double(), self.cross[:, here].double()
            exact = cross - self.gram.exact @ b
            pull = exact - self.ridge[here] * b
            along, fit = (b * pull).sum(0), energy - (b * cross).sum(0)
            square = (fit - along).clip(min=0)
            most = (edge / pull.abs().amax(0)).nan_to_num(float("inf"), float("inf"))
            scale = (fit / square).where(square > 0, 1).minimum(most).maximum(-most)
            rest = (1 - scale) ** 2 * square / 2 + (b.abs() * edge - scale * b * pull).sum(0)
            slope[:, here], gap[here], left[here] = exact, rest.clip(min=0) / (energy / 2), square / energy
        return slope, gap, left

    def finish(self, values: Tensor, tolerance: float, limit: int) -> tuple[Tensor, Tensor]:
        """Improves values, in place, until their gaps are within tolerance. Returns gaps and passes (n,). Float32 goes
        on as long as each round makes the gap four times smaller; float64 is the last stage."""
        least = min(tolerance, _FLOAT32)
        slope, gap, left = self.certify(values)
        passes, going = gap * 0, gap == gap
        last = values.dtype == gap.dtype
        while True:
            going &= (gap > (tolerance * left.clip(max=1)).clip(min=least)) & (passes < limit)
            now = going.nonzero()[:, 0]
            if not len(now):
                if last:
                    return gap, passes.long()
                last, going = True, gap == gap
                continue
            part = self.take(now)
            b, near = values.index_select(1, now), slope.index_select(1, now)
            state = part.state(tolerance / 2, least / 2)
            if last:
                part.cross, b, state = part.cross.double(), b.double(), state.double()
                near = part.cross - self.gram.exact @ b
            rest = limit - int(passes[now].min())
            part.descend(b, near, state, rest if last else min(rest, _ROUND))
            passes[now] += state[_PASSES]
            part, b = self.take(now), b.to(values.dtype)
            near, new, over = part.certify(b)
            going[now] = (new < gap[now] / 4) & (not last)
            better = new < gap[now]
            now = now[better]
            values[:, now], slope[:, now] = b[:, better], near[:, better]
            gap[now], left[now] = new[better], over[better]


class _Watch:
    """Errors on the held-out rows, and whether a path may end: docs/lasso-solver.md has the rule. (n,) in float64: the
    error of values 0, of the last step and of the one before, the least so far; |Xb|^2 of the last and of the least."""

    def __init__(self, gram: Tensor, cross: Tensor, null: Tensor, up: Tensor, scale: Tensor):
        factor = _scale(gram.diagonal().amax().double(), cross)
        self.gram, self.cross = (gram.double() * factor).to(cross.dtype), cross * up.to(cross.dtype)
        self.null, self.linear, self.quadratic = null.double(), 2 / (up * scale), 1 / (factor * scale**2)
        self.error = self.least = self.before = self.null + float("inf")
        self.square = self.least_square = self.worse = self.null * 0

    def take(self, which: Tensor) -> _Watch:
        taken = copy.copy(self)
        for name, value in vars(self).items():
            if name != "gram":
                setattr(taken, name, value[..., which])
        return taken

    def look(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The error of (scaled) values, and whether it is the least so far."""
        self.push = self.gram @ values
        self.square = (values * self.push).sum(0, dtype=self.null.dtype) * self.quadratic
        shared = (values * self.cross).sum(0, dtype=self.null.dtype) * self.linear
        self.before, self.error = self.error, self.null - shared + self.square
        better = self.error < self.least
        self.least = self.error.where(better, self.least)
        self.least_square = self.square.where(better, self.least_square)
        return self.error, better

    def enough(self, best: Tensor, better: Tensor, patience: int, rows: int) -> Tensor:
        """Whether the path may end, which is asked after each step; best: the values of least error."""
        self.worse = (self.worse + (self.error != self.before)).masked_fill(better, 0)
        row = self.least.clip(min=0) / rows
        departed = self.null - self.least > _DEPARTED * 2 * (row * self.least_square.clip(min=0)) ** 0.5
        rise = self.error - self.least
        risen = (self.worse > 1) & (rise > 1e-6 * self.null)
        if bool(risen.any()):
            both = (best * self.push).sum(0, dtype=self.null.dtype) * self.quadratic
            apart = (self.square + self.least_square - 2 * both).clip(min=0)  # |X (b - best)|^2
            risen &= rise > _RISEN * 2 * (row * apart) ** 0.5
        return ~better & ((departed & (self.worse >= patience)) | risen)


def _finite(*parts: Tensor) -> Tensor:
    """Of which targets all numbers of these arrays (..., n) are finite."""
    first, *rest = parts
    good = first.isfinite() if first.ndim == 1 else first.isfinite().all(0)
    return good & _finite(*rest) if rest else good


def lasso(
    gram: Tensor, cross: Tensor, energy: Tensor, penalty: Tensor, start: Tensor | None = None, *,
    l1_ratio: float = 1.0, tolerance: float = 1e-6, limit: int = 1000, step: Step = array_step,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`_core.lasso` on tensors of one device: values (K, n) in the type of cross, float32 or float64; gap (n,) in
    float64; passes (n,). Other arguments may be float64 beside a float32 cross. limit: passes, which targets that are
    solved in several rounds may exceed by one round."""
    good = _finite(energy, penalty, cross) if start is None else _finite(energy, penalty, cross, start)
    values, gap = cross.new_zeros(cross.shape), energy.new_zeros(energy.shape).double()
    passes = gap.long()
    for part in (values, gap):
        part[..., ~good] = float("nan")
    which = (good & (energy > 0) & (cross != 0).any(0)).nonzero()[:, 0]
    if not len(which):
        return values, gap, passes
    matrix = _Gram(gram, cross)
    up, cross, energy = _scaled(matrix, cross.index_select(1, which), energy[which])
    scale, penalty = (up / matrix.scale).to(cross.dtype), penalty[which].double()
    targets = _Targets(matrix, step, cross, energy, penalty * l1_ratio * up, penalty * (1 - l1_ratio) * matrix.scale)
    found = cross.new_zeros(cross.shape)
    if start is not None:
        found += (start[:, which] * scale).where(matrix.rough.diagonal()[:, None] > 0, 0)
    gap[which], passes[which] = targets.finish(found, tolerance, limit)
    values[:, which] = found / scale
    return values, gap, passes


def lasso_path(
    gram: Tensor, cross: Tensor, energy: Tensor, held_gram: Tensor, held_cross: Tensor, held_energy: Tensor,
    steps: Iterable[float], *, l1_ratio: float = 1.0, tolerance: float = 1e-6, limit: int = 1000, patience: int = 0,
    held_rows: int = 1, step: Step = array_step,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`_core.lasso_path` on tensors of one device: error (steps, n) in float64; values (K, n) in the type of cross; gap
    (n,) in float64. Arguments as of `lasso`; steps: on the host."""
    steps = [float(share) for share in steps]
    good = _finite(energy, held_energy, cross, held_cross)
    still = good & ~((energy > 0) & (cross != 0).any(0))
    values, gap = cross.new_zeros(cross.shape), energy.new_zeros(energy.shape).double()
    error = gap.new_full((len(steps), len(gap)), float("inf"))
    error[:, still] = held_energy[still].double()
    for part in (values, gap, error):
        part[..., ~good] = float("nan")
    at = which = (good & ~still).nonzero()[:, 0]
    if not len(which):
        return error, values, gap
    matrix = _Gram(gram, cross)
    up, cross, energy = _scaled(matrix, cross.index_select(1, which), energy[which])
    top, scale = cross.abs().amax(0).double(), up / matrix.scale
    ridge = top * ((1 - l1_ratio) / l1_ratio) / scale
    whole = targets = _Targets(matrix, step, cross, energy, top, ridge)
    watch = _Watch(held_gram, held_cross[:, which], held_energy[which], up, scale)
    found, place = cross.new_zeros(cross.shape), (top * 0).long()
    at, running = (place == 0).nonzero()[:, 0], place == 0
    b, slope, best, state = found.clone(), cross.clone(), found.clone(), targets.state(10 * tolerance, 0)
    last, before = b.clone(), slope.clone()
    for i, share in enumerate(steps):
        state[0], state[1] = share * top[at], share * ridge[at]
        # No more accuracy than the held-out rows can show: with fewer training rows than groups, their own residual,
        # which the tolerance goes by, comes near 0.
        told = (watch.least.minimum(watch.null) / watch.null).nan_to_num(0)
        state[4] = (10 * tolerance * told).clip(min=1e-3 * tolerance)
        ahead = min(2.0, (steps[i - 1] - share) / (steps[i - 2] - steps[i - 1])) if i > 1 else 0.0
        along = (running & (state[_CLOCK] == 0)).to(cross.dtype) * ahead
        # values and slopes are nearly linear in the penalty: on by `along` times their last change
        last, b = b, last.lerp(b, 1 + along)
        before, slope = slope, before.lerp(slope, 1 + along)
        targets.descend(b, slope, state, limit, running)
        now, better = watch.look(b)
        error[i, which[at[running]]] = now[running]
        better &= running
        best = b.where(better, best)
        place[at[better]] = i
        if patience > 0:
            running &= ~watch.enough(best, better, patience, held_rows)
        going = running.nonzero()[:, 0]
        if len(going) < 0.75 * len(running):
            found[:, at] = best
            at, running, targets, watch = at[going], running[going], targets.take(going), watch.take(going)
            b, slope, best, state, last, before = (
                array.index_select(1, going) for array in (b, slope, best, state, last, before)
            )  # fmt: skip
        if not len(going):
            break
    found[:, at] = best
    share = top.new_tensor(steps)[place]
    whole.edge, whole.ridge = share * top, share * ridge
    gap[which], _ = whole.finish(found, tolerance, limit)
    values[:, which] = found / scale.to(cross.dtype)
    return error, values, gap
