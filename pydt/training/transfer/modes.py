"""The ways to transfer, by name: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pydt.data import Dataset
from pydt.training.transfer import drifting, finetune, last_layers, lp_ft, probe, wise_ft, zero_shot


def any_recipe(recipe: Any, task: Any, source: Dataset) -> None:
    """Models of every recipe can be transferred so."""


@dataclass(frozen=True)
class Mode:
    """A way to transfer.

    Attributes:
        settings: fields of `Task` that it reads; they stand in the task's digest.
        learns: whether it trains the network, or a part of it, by `Task.finetune`.
        logits: float64 (draws, examples, classes) of a source model (`Trained`) and draws (`Draws`), by these settings.
        check: (recipe, task, source) -> raises a ConfigError if this recipe's models of this source cannot be
            transferred so.
        labelled: whether it reads labelled images; without, shots are 0.
    """

    settings: tuple[str, ...]
    learns: bool
    logits: Callable[..., torch.Tensor]
    check: Callable[[Any, Any, Dataset], None] = any_recipe
    labelled: bool = True


MODES = {
    "zero-shot": Mode(("zero_shot",), False, zero_shot.logits, zero_shot.check, labelled=False),
    "probe": Mode(("penalty",), False, probe.logits),
    "finetune": Mode(("finetune", "zero_shot"), True, finetune.logits, finetune.check),
    "lp-ft": Mode(("finetune",), True, lp_ft.logits),
    "last-n": Mode(("finetune", "last", "zero_shot"), True, last_layers.logits, last_layers.check),
    "drifting-probe": Mode(("finetune",), True, drifting.logits),
    "wise-ft": Mode(("finetune", "zero_shot", "alpha"), True, wise_ft.logits, wise_ft.check),
}
