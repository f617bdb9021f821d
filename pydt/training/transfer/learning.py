"""The one loop that trains a copy of the network with a head on each draw; the ways to transfer say what begins it and
what of it is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import seed31
from pydt.data.loading import Loader
from pydt.training.device import forked
from pydt.training.optimizer import make_optimizer
from pydt.training.trained import Trained
from pydt.training.transfer.draws import Draws

Begin = Callable[[int], nn.Sequential]
"""Position of a draw -> a copy of the network and a head, both to be trained in place."""

JUDGED = 512
"""Images in a batch whose outputs are asked for: another number gives other last bits."""


def everything(model: nn.Sequential) -> None:
    """All of the network and the head is trained."""
    model.train()


def after_training(
    trained: Trained,
    draws: Draws,
    how: Any,
    begin: Begin,
    choose: Callable[[nn.Sequential], None] = everything,
    alpha: float | None = None,
) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) after a model was trained on each draw.

    Args:
        how: the `FineTune`, whose module imports this one.
        begin: what is trained; called with PyTorch's random state seeded by row, task and draw.
        choose: marks what is trained (`requires_grad`) and what is in training mode.
        alpha: give outputs of (1 - alpha) of the weights before and alpha of the weights after; None: after.
    """
    device = torch.device(trained.recipe.device)
    results = []
    for draw, ids in enumerate(draws.train):
        with forked(device):
            torch.manual_seed(seed31("fine-tuning", draws.seed, draws.task_seed, draw))
            model = begin(draw)
            before = None if alpha is None else copy.deepcopy(model.state_dict())
            choose(model)
            fit(model, trained, draws, ids, how)
            if before is not None and alpha is not None:
                model.load_state_dict(between(before, model.state_dict(), alpha))
        results.append(judged(model, trained, draws))
    return torch.stack(results)


def fit(model: nn.Sequential, trained: Trained, draws: Draws, ids: np.ndarray, how: Any) -> None:
    """Train what requires a gradient on the examples `ids` of the target, in place; the caller seeds what is random."""
    device = torch.device(trained.recipe.device)
    same: dict[str, Any] = {"device": device, "channels_last": True, "seed": draws.seed}
    loader = Loader(draws.target.train, ids, how.batch_size, True, trained.preprocess, **same)
    # a last batch of one image has no batch statistics
    steps = max(1, len(loader) - (len(ids) % how.batch_size == 1))
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, scheduler = make_optimizer(learnt, how, steps * how.epochs)
    for epoch in range(how.epochs):
        loader.set_epoch(epoch)
        for _, batch in zip(range(steps), loader, strict=False):
            with torch.autocast(device.type, enabled=device.type == "cuda", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(batch.images).float(), batch.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()


def judged(model: nn.Module, trained: Trained, draws: Draws) -> torch.Tensor:
    """Logits float64 (examples, classes) of the examples to judge."""
    model.eval()
    with torch.inference_mode():
        how: dict[str, Any] = {"device": trained.recipe.device, "channels_last": True}
        reader = Loader(draws.data, draws.judged, JUDGED, False, trained.preprocess, **how)
        return torch.cat([model(batch.images).double().cpu() for batch in reader])


def between(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """(1 - alpha) before + alpha after, of every parameter and buffer; exactly the ends at 0 and 1. What is no
    floating-point number is taken from the nearer end.
    """
    nearer = before if alpha < 0.5 else after
    return {
        name: torch.lerp(value, after[name], alpha) if value.is_floating_point() else nearer[name]
        for name, value in before.items()
    }
