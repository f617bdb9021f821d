"""A linear head trained by steps on frozen weights while the statistics of batch-norm drift to the target.

So "fixed features" were made in the code of Jain et al. 2023: the weights are frozen, but the network is in training
mode. It is here to compare with them; "last-n" with last=0 is the same without the drift.
"""

from __future__ import annotations

import torch
from torch import nn

from pydt.training.trained import Trained
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.finetune import FineTune, random_models
from pydt.training.transfer.learning import after_training


def logits(trained: Trained, draws: Draws, how: FineTune) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) after training a new head on each draw."""
    return after_training(trained, draws, how, random_models(trained, draws), head_alone)


def head_alone(model: nn.Sequential) -> None:
    """Mark the head as what is trained; the network is in training mode with it."""
    model[0].requires_grad_(False)
    model.train()
