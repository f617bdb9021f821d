"""SGD and its schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

SCHEDULES = ("one-cycle", "triangular")


def make_optimizer(
    parameters: list[nn.Parameter], recipe: Any, steps: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """SGD with the schedule of `recipe` (a `Recipe` or `FineTune`) over `steps` steps."""
    optimizer = torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=True,  # one call for all parameters
    )
    if recipe.schedule == "one-cycle":
        # OneCycleLR divides by zero where its rising part has no step
        cycle: dict[str, Any] = {"total_steps": max(steps, 4), "cycle_momentum": False}
        return optimizer, OneCycleLR(optimizer, recipe.lr, **cycle)
    peak = max(steps / 8, 1)
    times = [0, peak, max(steps, peak + 1)]
    return optimizer, LambdaLR(optimizer, lambda step: float(np.interp(step, times, [0, 1, 0])))
