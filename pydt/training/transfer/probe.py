"""Linear probe: the network is frozen, features are computed once, and one ridge classifier per draw is solved.

W = argmin |Y - 1 y' - Z W|^2 + penalty |W|^2,   Z = features standardised on the draw, Y = one-hot labels, y = its
mean
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from pydt.training.trained import Trained
from pydt.training.transfer.draws import Draws


def logits(trained: Trained, draws: Draws, penalty: float) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) of one ridge classifier per draw, all solved together."""
    target = draws.target
    used, where = np.unique(draws.train, return_inverse=True)
    train = trained.features(target.train, used).double()[torch.from_numpy(where.reshape(draws.train.shape))]
    features = trained.features(draws.data, draws.judged).double()
    labels = torch.from_numpy(target.train.labels[draws.train])
    return ridge_probe(train, labels, features, len(target.classes), penalty)


def ridge_probe(
    train: torch.Tensor, labels: torch.Tensor, features: torch.Tensor, classes: int, penalty: float
) -> torch.Tensor:
    """Ridge classifiers on standardised features.

    Args:
        train: (draws, n, dim) features of each draw; labels: int64 (draws, n); features: (examples, dim) to be
            classified.
        penalty: added to the diagonal of Z'Z.

    Returns:
        (draws, examples, classes) fitted one-hot values, in the dtype of `train`.
    """
    mean = train.mean(1, keepdim=True)
    deviation = train.std(1, keepdim=True, correction=0)
    # a feature that does not vary in the draw gets weight 0
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    z = (train - mean) / deviation
    onehot = F.one_hot(labels, classes).to(z.dtype)
    centre = onehot.mean(1, keepdim=True)
    if z.shape[1] < z.shape[2]:
        gram = z @ z.mT + penalty * torch.eye(z.shape[1], dtype=z.dtype)
        weights = z.mT @ torch.linalg.solve(gram, onehot - centre)
    else:
        gram = z.mT @ z + penalty * torch.eye(z.shape[2], dtype=z.dtype)
        weights = torch.linalg.solve(gram, z.mT @ (onehot - centre))
    # (features - mean) / deviation @ W, without a standardised copy of the features for every draw
    scaled = weights / deviation.mT
    return features @ scaled + (centre - mean @ scaled)
