"""The ways to transfer, by name: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pydt.training.transfer import finetune, probe


def any_recipe(recipe: Any, task: Any) -> None:
    """Models of every recipe can be transferred so."""


@dataclass(frozen=True)
class Mode:
    """A way to transfer.

    Attributes:
        settings: fields of `Task` that it reads; they stand in the task's digest.
        learns: whether it trains the network, or a part of it, by `Task.finetune`.
        logits: float64 (draws, examples, classes) of a source model (`Trained`) and draws (`Draws`), by these settings.
        check: (recipe, task) -> raises a ConfigError if models of this recipe cannot be transferred so.
    """

    settings: tuple[str, ...]
    learns: bool
    logits: Callable[..., torch.Tensor]
    check: Callable[[Any, Any], None] = any_recipe


MODES = {
    "probe": Mode(("penalty",), False, probe.logits),
    "finetune": Mode(("finetune",), True, finetune.logits),
}
