"""A runner without training whose outputs differ: groups move the correct logit and the best other one apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydt.ensemble import RowInput
from pydt.store import Outcome, Store

GROUPS, MODELS = 20, 120
RANDOM = np.random.default_rng(11)
CORRECT, OTHER = RANDOM.normal(size=GROUPS), 2 * RANDOM.normal(size=GROUPS)


@dataclass(frozen=True)
class TwoLogits:
    """Groups move the correct logit by `CORRECT` and the best other one by `OTHER`; both share a noise of the model."""

    noise: float = 1.0

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        row, tasks = given.row, given.tasks
        random = np.random.default_rng([5, row.seed])
        found = {}
        for task in tasks:
            labels = task.target.described()["labels"]
            shape = (task.draws, len(labels))
            shared = self.noise * random.normal()
            correct = row.mask @ CORRECT + shared + 0.3 * random.normal(size=shape)
            other = row.mask @ OTHER - shared + 0.3 * random.normal(size=shape)
            right = np.where(correct > other, labels, (labels + 1) % 4)
            primitives = np.stack([correct, other, other + 0.5, right]).astype(np.float32)
            found[task.digest] = Outcome({"primitives": primitives}, {})
        return found


def columns_of(store: Store, outputs: tuple[str, ...], half: str = "score") -> np.ndarray:
    scale = {"correct": 100, "probability": 100}
    task = store.plan().tasks[0]["digest"]
    means = [scale.get(o, 1) * np.asarray(store.outputs(task, o, half), np.float64).mean(1) for o in outputs]
    return np.stack(means, 1)
