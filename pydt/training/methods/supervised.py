"""Supervised training: cross-entropy over the classes that are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError
from pydt.data import Dataset
from pydt.data.loading import Batch
from pydt.training.methods.common import Job
from pydt.training.methods.loop import fit


def check(source: Dataset, recipe: Any) -> None:
    """Refuse a source of a single class."""
    if source.labels.min() == source.labels.max():
        wrong = f"all images are of the class {source.classes[int(source.labels[0])]!r}: there is nothing to learn"
        mend = 'give labels of two classes or more, or use Recipe(method="none"): an untrained network'
        raise ConfigError(wrong, f"source {source.name}", mend)


def learn(job: Job) -> dict[str, float]:
    """Train the network with a head over the classes that are kept.

    Raises:
        TrainError: the loss became non-finite.
    """
    source, smoothing, device = job.source, job.recipe.label_smoothing, job.device
    counts = np.bincount(source.labels[job.ids])
    present = np.flatnonzero(counts)
    new_label = torch.full((len(source.classes),), -1, dtype=torch.int64, device=device)
    new_label[torch.from_numpy(present).to(device)] = torch.arange(len(present), device=device)
    head = nn.Linear(job.dim, len(present)).to(device)

    def judge(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        labels = new_label[batch.labels]
        logits = head(job.body(batch.images))
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        return loss, (logits.detach().argmax(1) == labels).sum()

    return fit(job, [head], judge, trivial_guess(counts[present], smoothing))


def trivial_guess(counts: np.ndarray, smoothing: float) -> tuple[float, float]:
    """Loss and accuracy of the best guess that looks at no image.

    Args:
        counts: images of each class. smoothing: of the labels; the loss is the entropy of the smoothed classes.
    """
    share = counts / counts.sum()
    smooth = (1 - smoothing) * share + smoothing / len(share)
    return float((smooth * np.log(1 / smooth)).sum()), float(share.max())
