"""Partial fine-tuning: the last layers and a head are trained, everything before them is frozen.

A layer is a module with parameters of its own, in the order in which the network defines them. A normalisation belongs
to the layer before it. Frozen means frozen: weights, and the statistics of batch-norm, too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from pydt.base import ConfigError
from pydt.data import Dataset
from pydt.training.methods import begun
from pydt.training.trained import Trained
from pydt.training.transfer import finetune
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.finetune import FineTune, headed
from pydt.training.transfer.learning import after_training
from pydt.training.transfer.zero_shot import ZeroShot

_NORMS = (_BatchNorm, _NormBase, nn.LayerNorm, nn.GroupNorm)


def logits(trained: Trained, draws: Draws, how: FineTune, last: int, sentences: ZeroShot) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) after training the last layers and a head on each draw."""
    return after_training(trained, draws, how, headed(trained, draws, how, sentences), partial(unfreeze, last=last))


def check(recipe: Any, task: Any, source: Dataset) -> None:
    """Refuse more layers than the network has, and what `finetune` refuses of the head."""
    finetune.check(recipe, task, source)
    start = begun(recipe, source)
    body = start.body
    if start.text is not None and task.finetune.head != "random":
        body = nn.Sequential(body, start.text.project)
    _enough(layers(body), task.last)


def layers(body: nn.Module) -> list[list[str]]:
    """The names of the modules of each layer, first layer first."""
    found: list[list[str]] = []
    for name, module in body.named_modules():
        if next(module.parameters(recurse=False), None) is None:
            continue
        if found and isinstance(module, _NORMS):
            found[-1].append(name)
        else:
            found.append([name])
    return found


def _enough(there: list[list[str]], last: int) -> None:
    if last > len(there):
        wrong = f"last {last}, but the network has {len(there)} layers"
        raise ConfigError(wrong, "Task.last", f'give at most {len(there)}; mode "finetune" trains all of them')


def unfreeze(model: nn.Sequential, last: int) -> None:
    """Mark the last layers of the network and the head as what is trained; the rest is frozen.

    Raises:
        ConfigError: there are not so many.
    """
    body, head = model
    there = layers(body)
    _enough(there, last)
    body.requires_grad_(False).eval()
    head.train()
    if not last:
        return
    first = [name for name, _ in body.named_modules()].index(there[-last][0])
    # what has no parameters of its own and comes later (dropout) is in training mode with the layers around it
    for module in list(body.modules())[first:]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)
        module.training = True
