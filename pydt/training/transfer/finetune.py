"""Fine-tuning: the whole network is trained with a new head on each draw."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, real, seed31, whole
from pydt.data.loading import Loader
from pydt.training.device import forked
from pydt.training.optimizer import OptimizerSettings, check_optimizer, make_optimizer
from pydt.training.trained import Trained
from pydt.training.transfer.draws import Draws


@dataclass(frozen=True)
class FineTune(OptimizerSettings):
    """How the whole network is trained on a draw; the defaults are those of Jain et al. 2023, scaled to small draws.

    Attributes:
        epochs, batch_size: passes over the draw; a last batch of one image is left out unless it is the only one.
        lr: peak learning rate; None: 0.05 of SGD, 1e-3 of AdamW.
        schedule, momentum, nesterov, weight_decay, optimizer, betas, warmup, clip_norm: as in `Recipe`.
    """

    epochs: int = 15
    batch_size: int = 64
    lr: float | None = None
    schedule: str = "triangular"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        check_optimizer(self, "FineTune")
        if self.lr is None:
            object.__setattr__(self, "lr", 1e-3 if self.optimizer == "adamw" else 0.05)
        for name in ("epochs", "batch_size"):
            whole(getattr(self, name), name, "FineTune", 1, error=ConfigError)
        real(self.lr, "lr", "FineTune", above=0)
        for name in ("momentum", "weight_decay"):
            real(getattr(self, name), name, "FineTune")


def logits(trained: Trained, draws: Draws, how: FineTune) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) after training all layers and a new head on each draw."""
    device = torch.device(trained.recipe.device)
    results = []
    for draw, ids in enumerate(draws.train):
        with forked(device):
            torch.manual_seed(seed31("fine-tuning", draws.seed, draws.task_seed, draw))
            results.append(_one(trained, draws, ids, how, device))
    return torch.stack(results)


def _one(trained: Trained, draws: Draws, ids: np.ndarray, how: FineTune, device: torch.device) -> torch.Tensor:
    target = draws.target
    same: dict[str, Any] = {"device": device, "channels_last": True}
    body = copy.deepcopy(trained.body)
    head = nn.Linear(trained.dim, len(target.classes)).to(device)
    loader = Loader(target.train, ids, how.batch_size, True, trained.preprocess, seed=draws.seed, **same)
    # a last batch of one image has no batch statistics
    steps = max(1, len(loader) - (len(ids) % how.batch_size == 1))
    optimizer, scheduler = make_optimizer([*body.parameters(), *head.parameters()], how, steps * how.epochs)
    body.train()
    for epoch in range(how.epochs):
        loader.set_epoch(epoch)
        for _, batch in zip(range(steps), loader, strict=False):
            with torch.autocast(device.type, enabled=device.type == "cuda", dtype=torch.bfloat16):
                loss = F.cross_entropy(head(body(batch.images)).float(), batch.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
    body.eval()
    with torch.inference_mode():
        reader = Loader(draws.data, draws.judged, 512, False, trained.preprocess, **same)
        return torch.cat([head(body(batch.images)).double().cpu() for batch in reader])
