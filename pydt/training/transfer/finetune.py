"""Fine-tuning: the whole network is trained with a head on each draw.

The head begins random, or as the zero-shot head: the first outputs are then those of zero-shot transfer.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pydt.base import ConfigError, one_of, real, whole
from pydt.data import Dataset
from pydt.training.optimizer import OptimizerSettings, check_optimizer
from pydt.training.settings import YOUNG
from pydt.training.trained import Trained
from pydt.training.transfer import zero_shot
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.learning import Begin, after_training
from pydt.training.transfer.zero_shot import ZeroShot, zero_shot_models

HEADS = ("auto", "random", "zero-shot")


@dataclass(frozen=True)
class FineTune(OptimizerSettings):
    """How a network, a part of it, or a head alone is trained on a draw; the defaults are those of Jain et al. 2023,
    scaled to small draws.

    Attributes:
        epochs, batch_size: passes over the draw; a last batch of one image is left out unless it is the only one.
        lr: peak learning rate; None: 0.05 of SGD, 1e-3 of AdamW.
        schedule, momentum, nesterov, weight_decay, optimizer, betas, warmup, clip_norm: as in `Recipe`.
        head: of modes "finetune" and "last-n", what it begins with: "random" weights, the "zero-shot" head (class names
            encoded by the text tower), or "auto": zero-shot where models have a text tower.
    """

    epochs: int = 15
    batch_size: int = 64
    lr: float | None = None
    schedule: str = "triangular"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    head: str = field(default="auto", metadata=YOUNG)

    def __post_init__(self) -> None:
        check_optimizer(self, "FineTune")
        one_of(self.head, HEADS, "head", "FineTune")
        if self.lr is None:
            object.__setattr__(self, "lr", 1e-3 if self.optimizer == "adamw" else 0.05)
        for name in ("epochs", "batch_size"):
            whole(getattr(self, name), name, "FineTune", 1, error=ConfigError)
        real(self.lr, "lr", "FineTune", above=0)
        real(self.momentum, "momentum", "FineTune", least=0, below=1)
        real(self.weight_decay, "weight_decay", "FineTune", least=0)


def logits(trained: Trained, draws: Draws, how: FineTune, sentences: ZeroShot) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) after training all layers and a head on each draw."""
    return after_training(trained, draws, how, headed(trained, draws, how, sentences))


def headed(trained: Trained, draws: Draws, how: FineTune, sentences: ZeroShot) -> Begin:
    """The network, and the head that the settings ask for."""
    if how.head == "zero-shot" or (how.head == "auto" and trained.text is not None):
        return zero_shot_models(trained, draws, sentences)
    return random_models(trained, draws)


def random_models(trained: Trained, draws: Draws) -> Begin:
    """The network, and a new head."""

    def begin(_: int) -> nn.Sequential:
        head = nn.Linear(trained.dim, len(draws.target.classes)).to(trained.recipe.device)
        return nn.Sequential(copy.deepcopy(trained.body), head)

    return begin


def check(recipe: Any, task: Any, source: Dataset) -> None:
    """Refuse a zero-shot head for models without a text tower, and what `zero_shot` refuses."""
    if task.finetune.head == "zero-shot":
        zero_shot.check(recipe, task, source)
    elif task.finetune.head == "auto" and zero_shot.has_text(recipe):
        try:
            zero_shot.check(recipe, task, source)
        except ConfigError as error:
            mend = f'{error.mend}; or begin with a random head: FineTune(head="random")'
            raise ConfigError(error.what, error.where, mend) from error
