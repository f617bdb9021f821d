"""The ways to transfer, by name: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pydt.training.transfer import finetune, probe


@dataclass(frozen=True)
class Mode:
    """A way to transfer.

    Attributes:
        settings: fields of `Task` that it reads; they stand in the task's digest.
        learns: whether it trains the network.
        logits: float64 (draws, examples, classes) of a source model and draws, by these settings.
    """

    settings: tuple[str, ...]
    learns: bool
    logits: Callable[..., torch.Tensor]


MODES = {
    "probe": Mode(("penalty",), False, probe.logits),
    "finetune": Mode(("finetune",), True, finetune.logits),
}
