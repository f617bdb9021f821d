"""SGD and AdamW, their schedules, and clipping: the settings that `Recipe` and `FineTune` share.

Shares of the steps, not numbers of steps: a warm-up that was longer than a short training would leave it without its
rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from pydt.base import ConfigError, one_of, real
from pydt.training.settings import YOUNG

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("one-cycle", "triangular", "cosine")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Settings of an optimiser, beside the rate, schedule, momentum and weight decay of the class that has them.

    Attributes:
        optimizer: "sgd", or "adamw": torch.optim.AdamW, which decays all parameters, biases and norms among them.
        betas: of AdamW.
        warmup: share of the steps, from 0 to below 1, over which schedule "cosine" rises to the peak.
        clip_norm: the most that the norm of all gradients together may be: above it, all are scaled down. None: any.
    """

    optimizer: str = field(default="sgd", metadata=YOUNG)
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata=YOUNG)
    warmup: float = field(default=0.1, metadata=YOUNG)
    clip_norm: float | None = field(default=None, metadata=YOUNG)

    @property
    def unused(self) -> set[str]:
        """Fields that nothing reads beside the others: they stand in no digest."""
        return _idle(self)


def check_optimizer(settings: Any, where: str) -> None:
    """Refuse unknown or wrong settings (of a `Recipe` or `FineTune`), and bring each to one form.

    Raises:
        ConfigError: a setting is unknown or out of range; where: the class that it is named with.
    """
    one_of(settings.optimizer, OPTIMIZERS, "optimizer", where)
    one_of(settings.schedule, SCHEDULES, "schedule", where)
    try:
        first, second = settings.betas
    except (TypeError, ValueError):
        raise ConfigError(f"betas {settings.betas!r}", where, "give two numbers: betas=(0.9, 0.98)") from None
    fixed: dict[str, Any] = {"betas": tuple(real(beta, "betas", where, least=0, below=1) for beta in (first, second))}
    fixed["warmup"] = real(settings.warmup, "warmup", where, least=0, below=1)
    if settings.clip_norm is not None:
        fixed["clip_norm"] = real(settings.clip_norm, "clip_norm", where, above=0)
    for name, value in fixed.items():
        object.__setattr__(settings, name, value)


def _idle(settings: Any) -> set[str]:
    idle = {"betas"} if settings.optimizer == "sgd" else {"momentum", "nesterov"}
    return idle if settings.schedule == "cosine" else idle | {"warmup"}


def make_optimizer(
    parameters: list[nn.Parameter], recipe: Any, steps: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """The optimiser and schedule of `recipe` (a `Recipe` or `FineTune`) over `steps` steps.

    Before each step the optimiser clips the gradients where `recipe.clip_norm` says so; under a GradScaler, unscale
    them first.
    """
    optimizer: torch.optim.Optimizer
    # fused: one call for all parameters
    if recipe.optimizer == "adamw":
        decay = {"betas": recipe.betas, "weight_decay": recipe.weight_decay}
        optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, fused=True, **decay)
    else:
        optimizer = torch.optim.SGD(
            parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    if recipe.clip_norm is not None:
        optimizer.register_step_pre_hook(lambda *_: _clip(parameters, recipe.clip_norm))
    return optimizer, _schedule(optimizer, recipe, steps)


def _clip(parameters: list[nn.Parameter], norm: float) -> None:
    nn.utils.clip_grad_norm_(parameters, norm)


def _schedule(optimizer: torch.optim.Optimizer, recipe: Any, steps: int) -> LRScheduler:
    if recipe.schedule == "one-cycle":
        # OneCycleLR divides by zero where its rising part has no step
        cycle: dict[str, Any] = {"total_steps": max(steps, 4), "cycle_momentum": False}
        return OneCycleLR(optimizer, recipe.lr, **cycle)
    if recipe.schedule == "triangular":
        peak = max(steps / 8, 1)
        times = [0, peak, max(steps, peak + 1)]
        first = 1 if steps == 1 else 0  # a training of one step would not move at rate 0
        return LambdaLR(optimizer, lambda step: float(np.interp(step, times, [first, 1, 0])))
    rising = int(recipe.warmup * steps)

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2

    return LambdaLR(optimizer, share)
