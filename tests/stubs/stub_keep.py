"""Plans of real networks that learn in a tenth of a second, for runs that keep them.

`python -c "import stub_keep; stub_keep.main()" FOLDER ROWS WORKERS` is a driver that tests can kill.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stub_images import blobs

from pydt import design
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run
from pydt.training import FineTune, Recipe, Task


def source() -> Dataset:
    images, labels = blobs(12, 8, 0)
    return Dataset.from_arrays(images, labels, name="blobs")


def target(seed: int = 1) -> Target:
    images, labels = blobs(40, 4, seed)
    return Target(Dataset.from_arrays(images, labels, name=f"target {seed}"), pool=60, validation=20)


def tasks(**more: Any) -> tuple[Task, ...]:
    same = {"target": target(), "draws": 2, "shots": 3, **more}
    return Task(**same), Task(mode="finetune", finetune=FineTune(epochs=2), **same)


def plan(rows: int = 4, chosen: Any = None, **recipe: Any) -> Plan:
    how = Recipe(**{"network": "convnet-4", "epochs": 2, "batch_size": 16, **recipe})
    drawn = design.random(8, rows, alpha=0.5, seed=3)
    return Plan(source(), design=drawn, recipe=how, tasks=tasks()[:1] if chosen is None else chosen)


def main() -> None:
    """A driver that keeps weights."""
    folder, rows, workers = sys.argv[1:]
    run(plan(int(rows)), Path(folder), workers=int(workers), progress=False, keep="weights")
