"""Ensembles whose influences are known: no training, margins that add up group by group."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pydt.data import Dataset, Target
from pydt.design import Design
from pydt.ensemble import Plan, RowInput, run
from pydt.store import Outcome, Store
from pydt.training import Recipe, Task


@dataclass(frozen=True)
class Additive:
    """A runner: margin of an example = base + sum over kept groups of its effect + noise of the model and the cell.

    effects: float (groups, examples), examples in the order of `Target.described`. All the other primitives follow:
    the other logits are 0, so probability = 1 / (1 + exp(-margin)), and the prediction is right where margin > 0.
    """

    base: np.ndarray
    effects: np.ndarray
    common: float = 0.0
    noise: float = 1.0
    seed: int = 0
    failing: frozenset[int] = field(default_factory=frozenset)

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        row, tasks = given.row, given.tasks
        if row.seed in self.failing:
            return {task.digest: Outcome(status="failed", reason="the loss became nan") for task in tasks}
        random = np.random.default_rng([self.seed, row.seed])
        found = {}
        for task in tasks:
            labels = task.target.described()["labels"]
            mean = self.base + row.mask @ self.effects + self.common * random.normal()
            margin = mean + self.noise * random.normal(size=(task.draws, len(labels)))
            right = np.where(margin > 0, labels, (labels + 1) % len(task.target.classes))
            primitives = np.stack([margin, 0 * margin, 0 * margin, right]).astype(np.float32)
            found[task.digest] = Outcome({"primitives": primitives}, {})
        return found


def plan_of(source: Dataset, target: Target, masks: Design, draws: int = 2, seed: int = 0) -> Plan:
    return Plan(source, design=masks, recipe=Recipe(), tasks=(Task(target, draws=draws),), seed=seed)


def filled(folder: Path, plan: Plan, runner: Any) -> Store:
    """The store of a plan whose rows the runner made up."""
    with ThreadPoolExecutor(1) as executor:
        return run(plan, folder, executor, runner=runner, progress=False)


def many_classes(classes: int = 20) -> Dataset:
    """A source of three images a class, 12 x 12 grey, that no stub looks at: of 20 classes masks hardly repeat."""
    images = np.random.default_rng(1).integers(0, 256, (3 * classes, 12, 12), np.uint8)
    return Dataset.from_arrays(images, np.repeat(np.arange(classes), 3), [f"c{i}" for i in range(classes)], name="many")
