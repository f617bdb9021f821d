"""Rows of a user's own measures whose truth is known; the same rows told as accuracy and as error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pydt import design
from pydt.data import Groups
from pydt.ensemble import Function, Plan, RowInput, run
from pydt.store import Measure, Store

GROUPS, EXAMPLES = 8, 400
EFFECTS = np.array([0.04, -0.09, 0.05, 0.0, 0.03, -0.06, 0.02, 0.0])  # on the share that is right
CLASSES = [f"class {i % 4}" for i in range(EXAMPLES)]
WAYS = ("accuracy", "error")


def right(row: RowInput) -> np.ndarray:
    """Whether each example is right, bool (examples,)."""
    random = np.random.default_rng(row.seed)
    hard = np.random.default_rng(9).random(EXAMPLES)
    chance = 0.6 + float(EFFECTS @ row.mask) + 0.01 * random.normal()
    return np.asarray(chance + 0.2 * (random.random(EXAMPLES) - 0.5) > hard)


def told(row: RowInput) -> dict[str, np.ndarray]:
    """By the name of the measure."""
    return {task.name: right(row) if task.name == "accuracy" else ~right(row) for task in row.tasks}


def source() -> Groups:
    return Groups([f"g{i % GROUPS}" for i in range(80)], by="site", name="table")


def plan(measure: Measure, compute: Callable[..., Any] = told, rows: int = 60) -> Plan:
    masks = design.bernoulli(GROUPS, rows, seed=3)
    return Plan(source(), design=masks, recipe=Function(compute), tasks=[measure])


def told_as(way: str, **more: Any) -> Plan:
    """Halves by position, so that both measures have the same."""
    half = np.arange(EXAMPLES) // 4 % 2
    measure = Measure(
        way, EXAMPLES, unit=f"points of {way}", scale=100, higher_is_better=way == "accuracy", half=half,
        classes=CLASSES, **more,
    )  # fmt: skip
    return plan(measure)


def filled(job: Plan, folder: Path, **more: Any) -> Store:
    with ThreadPoolExecutor(1) as executor:
        return run(job, folder, executor, progress=False, **more)
