"""The plan that the figures of `ensemble.py` and `stacking.py` are of: printed characters, convnet-24, 5 shots."""

from __future__ import annotations

from dataclasses import replace

import pydt
from pydt.ensemble import quickstart_plan


def five_shot_plan(models: int) -> pydt.Plan:
    """So many rows, each of a quarter of the characters, with one task."""
    plan = quickstart_plan(models)
    tasks = [task for task in plan.tasks if task.shots == 5]
    return replace(plan, recipe=replace(plan.recipe, network="convnet-24"), tasks=tasks)
