"""A study without training: rows of a known effect."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pydt import design
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, RowInput, run
from pydt.store import Outcome, Row, Store
from pydt.training import Recipe, Task

GROUPS = 8


@dataclass(frozen=True)
class Stub:
    """A runner without training: each example is right with chance `base`; group 2 adds `effect`, group 5 takes it."""

    base: float
    effect: float
    seed: int
    failing: frozenset[int]
    broken: frozenset[int] = frozenset()

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        row, tasks = given.row, given.tasks
        if row.seed in self.failing:
            return {task.digest: Outcome(status="failed", reason="the loss became nan") for task in tasks}
        random = np.random.default_rng([self.seed, row.seed])
        chance = self.base + self.effect * (float(row.mask[2]) - float(row.mask[5]))
        found = {}
        for task in tasks:
            labels = task.target.described()["labels"]
            right = random.random((task.draws, len(labels))) < chance
            margin = np.where(right, 1.0, -1.0)
            primitives = [margin, 0 * margin, 0 * margin, np.where(right, labels, (labels + 1) % 4)]
            found[task.digest] = Outcome({"primitives": np.stack(primitives).astype(np.float32)}, self._scalars(row))
        return found

    def _scalars(self, row: Row) -> dict[str, float | int | str]:
        return {"skipped": 2} if row.seed in self.broken else {}


def twice(given: RowInput) -> dict[str, Outcome]:
    """A runner of a source of four groups."""
    return Stub(0.6, 0.15, 1, frozenset())(replace(given, row=Row(np.tile(given.mask, 2), given.seed, "design")))


def study(
    folder: Path,
    source: Dataset,
    target: Target,
    base: float = 0.6,
    effect: float = 0.15,
    fail: int = 0,
    seed: int = 0,
    stop: str | None = None,
    broken: int = 0,
) -> Store:
    """A store of 60 rows, of which the first `fail` failed and the last `broken` met two broken images each."""
    masks = design.bernoulli(GROUPS, 60, seed=seed)
    recipe = Recipe(on_error="skip" if broken else "raise")
    plan = Plan(source, design=masks, recipe=recipe, tasks=(Task(target, draws=4),), seed=seed)
    failing = frozenset(row.seed for row in plan.rows()[:fail])
    met = frozenset(row.seed for row in plan.rows()[60 - broken :])
    with ThreadPoolExecutor(1) as executor:
        return run(plan, folder, executor, runner=Stub(base, effect, seed, failing, met), progress=False, stop=stop)
