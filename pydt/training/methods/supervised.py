"""Supervised training: cross-entropy over the classes that are kept."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, TrainError
from pydt.data import Dataset
from pydt.training.methods.common import Job
from pydt.training.optimizer import make_optimizer


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
    source, ids, loader, body, recipe, device = job.source, job.ids, job.loader, job.body, job.recipe, job.device
    present = np.unique(source.labels[ids])
    new_label = torch.full((len(source.classes),), -1, dtype=torch.int64, device=device)
    new_label[torch.from_numpy(present).to(device)] = torch.arange(len(present), device=device)
    head = nn.Linear(job.dim, len(present)).to(device)
    epochs = -(-job.steps // job.a_pass)
    optimizer, scheduler = make_optimizer([*body.parameters(), *head.parameters()], recipe, job.steps)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    body.train()
    skipped: dict[int, str] = {}
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        seen = 0
        for _, batch in zip(range(min(job.a_pass, job.steps - epoch * job.a_pass)), loader, strict=False):
            whole_labels = new_label[batch.labels]
            optimizer.zero_grad(set_to_none=True)
            parts = batch.images.tensor_split(job.parts), whole_labels.tensor_split(job.parts)
            for images, labels in zip(*parts, strict=True):
                with torch.autocast(device.type, enabled=device.type == "cuda"):
                    logits = head(body(images))
                    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
                scaler.scale(loss * (len(labels) / len(whole_labels))).backward()
                loss_sum += loss.detach() * len(labels)
                correct += (logits.detach().argmax(1) == labels).sum()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            seen += len(whole_labels)
        skipped |= loader.skipped
        # once an epoch: at every step it would make a GPU wait for the CPU
        mean_loss = float(loss_sum) / seen
        if not np.isfinite(mean_loss):
            where = f"epoch {epoch + 1} of {epochs}"
            raise TrainError(f"the loss became {mean_loss}", where, "lower the learning rate")
    metrics: dict[str, float] = {"source_loss": mean_loss, "source_accuracy": float(correct) / seen}
    trivial = trivial_guess(np.bincount(source.labels[ids])[present], recipe.label_smoothing)
    metrics |= {"source_images": seen, "source_trivial_loss": trivial[0], "source_trivial_accuracy": trivial[1]}
    if skipped:
        metrics["skipped"] = len(skipped)
        named = "; ".join(f"{source.place_of(i)}: {why}" for i, why in sorted(skipped.items())[:10])
        more = f"; and {len(skipped) - 10} more" if len(skipped) > 10 else ""
        were = "1 image was" if len(skipped) == 1 else f"{len(skipped):,} images were"
        warnings.warn(f"{were} replaced by others: {named}{more}", RuntimeWarning, stacklevel=2)
    return metrics


def trivial_guess(counts: np.ndarray, smoothing: float) -> tuple[float, float]:
    """Loss and accuracy of the best guess that looks at no image.

    Args:
        counts: images of each class. smoothing: of the labels; the loss is the entropy of the smoothed classes.
    """
    share = counts / counts.sum()
    smooth = (1 - smoothing) * share + smoothing / len(share)
    return float((smooth * np.log(1 / smooth)).sum()), float(share.max())
