"""What a training method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pydt.data import Dataset
from pydt.data.loading import Loader


@dataclass(frozen=True)
class Job:
    """One source training, its random numbers seeded.

    Attributes:
        source, ids: the data set, and which of its examples are kept, int64 (n,).
        loader: batches of them.
        body, dim: a fresh network, images -> features (B, dim), on `device`.
        recipe: the `Recipe`.
        steps, a_pass: optimiser steps in all, and of one pass over the kept examples.
        parts: into how many parts a batch is split for lack of memory.
    """

    source: Dataset
    ids: np.ndarray
    loader: Loader
    body: nn.Module
    dim: int
    recipe: Any  # recipe.py imports the registry of methods, so its type cannot stand here
    steps: int
    a_pass: int
    parts: int
    device: torch.device


@dataclass(frozen=True)
class Learnt:
    """Metrics of the source, and the text tower of methods that have one; see `pydt.training.Trained`."""

    metrics: dict[str, float]
    text_features: Callable[[Sequence[str]], torch.Tensor] | None = None
