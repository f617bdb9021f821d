"""LP-FT (Kumar et al. 2022): first a linear head on the frozen network, then all layers are trained from there.

The head is the multinomial logistic regression of the draw, solved to its optimum:

W, b = argmin sum_i cross-entropy(W z_i + b, y_i) + strength / 2 (|W|^2 + |b|^2),   z = standardised features

It is convex; b is in the penalty so that classes of which the draw has no example have a finite optimum. In the second
stage z is standardised by batches, as before the linear classifier of He et al. 2022 (MAE). What lost, on validation
images of the sample at 5 shots: the standardisation as part of W, which is wrong as soon as the features change their
scale (91.3 instead of 92.8 %; 13 instead of 60 % from an untrained network), and the ridge probe as the head (91.7, at
2.7 times the loss).
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from pydt.training.trained import Trained
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.finetune import FineTune
from pydt.training.transfer.learning import Begin, after_training

STRENGTH = 1.0


def logits(trained: Trained, draws: Draws, how: FineTune) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) after training all layers from a linear head on each draw."""
    return after_training(trained, draws, how, probed_models(trained, draws))


def probed_models(trained: Trained, draws: Draws) -> Begin:
    """The network, and the linear head of each draw."""
    heads = linear_heads(trained, draws)
    return lambda draw: copy.deepcopy(nn.Sequential(trained.body, heads[draw].to(trained.recipe.device)))


def linear_heads(trained: Trained, draws: Draws) -> list[nn.Sequential]:
    """The logistic regression of each draw; the drawn images are all that is read."""
    data, classes = draws.target.train, len(draws.target.classes)
    # draw by draw: an image may get other last bits in another batch, and a draw shall not depend on the others
    return [
        logistic(trained.features(data, ids).double(), torch.from_numpy(data.labels[ids]), classes)
        for ids in draws.train
    ]


class Standardised(nn.BatchNorm1d):
    """Features (B, dim) with mean 0 and deviation 1; a batch of one image gets the statistics of those before."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__(features.shape[1], eps=1e-8, affine=False)
        self.running_mean = features.mean(0).float()
        self.running_var = features.var(0, correction=0).float()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        by_batch = self.training and len(features) > 1
        return F.batch_norm(
            features, self.running_mean, self.running_var, training=by_batch, momentum=0.1, eps=self.eps
        )


def logistic(features: torch.Tensor, labels: torch.Tensor, classes: int, strength: float = STRENGTH) -> nn.Sequential:
    """The head float32 whose loss on features (n, dim, float64) is least; labels: int64 (n,)."""
    standardised = Standardised(features)
    deviation = (features.var(0, correction=0) + standardised.eps).sqrt()
    z = F.pad((features - features.mean(0)) / deviation, (0, 1), value=1)
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
    linear = nn.Linear(features.shape[1], classes)
    with torch.no_grad():
        linear.weight.copy_(weights[:, :-1])
        linear.bias.copy_(weights[:, -1])
    return nn.Sequential(standardised, linear).eval()
