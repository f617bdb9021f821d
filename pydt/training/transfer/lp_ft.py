"""LP-FT (Kumar et al. 2022): first a linear head on the frozen network, then all layers are trained from there.

The head is the multinomial logistic regression of the draw, solved to its optimum:

W, b = argmin sum_i cross-entropy(W' z_i + b, y_i) + strength / 2 (|W|^2 + |b|^2),   z = features standardised on the
draw

It is convex; b is in the penalty so that classes of which the draw has no example have a finite optimum.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from pydt.training.trained import Trained
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.finetune import FineTune
from pydt.training.transfer.learning import after_training

STRENGTH = 1.0


def logits(trained: Trained, draws: Draws, how: FineTune) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) after training all layers from a linear head on each draw."""
    heads = linear_heads(trained, draws)
    return after_training(trained, draws, how, lambda draw: probed_model(trained, heads[draw]))


def probed_model(trained: Trained, head: nn.Linear) -> nn.Sequential:
    """A copy of the network, and its linear head."""
    return nn.Sequential(copy.deepcopy(trained.body), copy.deepcopy(head).to(trained.recipe.device))


def linear_heads(trained: Trained, draws: Draws) -> list[nn.Linear]:
    """The logistic regression of each draw; the drawn images are all that is read."""
    data, classes = draws.target.train, len(draws.target.classes)
    # draw by draw: an image may get other last bits in another batch, and a draw shall not depend on the others
    return [
        logistic(trained.features(data, ids).double(), torch.from_numpy(data.labels[ids]), classes)
        for ids in draws.train
    ]


def logistic(features: torch.Tensor, labels: torch.Tensor, classes: int, strength: float = STRENGTH) -> nn.Linear:
    """The head float32 whose loss on standardised features (n, dim, float64) is least; labels: int64 (n,)."""
    mean, deviation = features.mean(0), features.std(0, correction=0)
    # a feature that does not vary in the draw gets weight 0
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    z = F.pad((features - mean) / deviation, (0, 1), value=1.0)
    weights = torch.zeros(classes, z.shape[1], dtype=z.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=1000, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(z @ weights.T, labels, reduction="sum") + strength / 2 * weights.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    with torch.no_grad():
        head = nn.Linear(features.shape[1], classes)
        scaled = weights[:, :-1] / deviation
        head.weight.copy_(scaled)
        head.bias.copy_(weights[:, -1] - scaled @ mean)
    return head
