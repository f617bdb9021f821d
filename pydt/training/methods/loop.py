"""The loop of epochs and steps that all training methods share: a method gives the loss of a batch.

A batch may be split into `Job.parts` parts whose gradients are summed, where a loss is a mean over examples
(`Method.splits`). Numbers stay on the device until an epoch ends: read at every step, they would make a GPU wait for
the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from pydt.base import TrainError
from pydt.data import Dataset
from pydt.data.loading import Batch
from pydt.training.methods.common import Job
from pydt.training.optimizer import make_optimizer

Judge = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]
"""The mean loss over a batch's examples, with its gradient; and how many of them are right, as a scalar tensor."""


def fit(job: Job, modules: Sequence[nn.Module], judge: Judge, trivial: tuple[float, float]) -> dict[str, float]:
    """Train the network and what a method adds to it, in place.

    Args:
        job: the training; `job.body` is trained first of all.
        modules: what is trained with it: heads, a text tower; on the device.
        judge: called under autocast on GPUs, with a batch or with one of the parts of a batch.
        trivial: loss and accuracy of the best guess that looks at no image.

    Returns:
        the metrics of the source, as in `Trained.metrics`.

    Raises:
        TrainError: the loss became non-finite.
    """
    loader, device, recipe = job.loader, job.device, job.recipe
    trained = [job.body, *modules]
    epochs = -(-job.steps // job.a_pass)
    parameters = [parameter for module in trained for parameter in module.parameters()]
    optimizer, scheduler = make_optimizer(parameters, recipe, job.steps)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    for module in trained:
        module.train()
    skipped: dict[int, str] = {}
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.float64, device=device)
        seen = 0
        for _, batch in zip(range(min(job.a_pass, job.steps - epoch * job.a_pass)), loader, strict=False):
            whole = len(batch.labels)
            optimizer.zero_grad(set_to_none=True)
            for part in _parts(batch, job.parts):
                with torch.autocast(device.type, enabled=device.type == "cuda"):
                    loss, right = judge(part)
                scaler.scale(loss * (len(part.labels) / whole)).backward()
                loss_sum += loss.detach() * len(part.labels)
                correct += right
            if recipe.clip_norm is not None:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            seen += whole
        skipped |= loader.skipped
        mean_loss = float(loss_sum) / seen
        if not np.isfinite(mean_loss):
            where = f"epoch {epoch + 1} of {epochs}"
            raise TrainError(f"the loss became {mean_loss}", where, "lower the learning rate")
    metrics: dict[str, float] = {"source_loss": mean_loss, "source_accuracy": float(correct) / seen}
    metrics |= {"source_images": seen, "source_trivial_loss": trivial[0], "source_trivial_accuracy": trivial[1]}
    if skipped:
        metrics["skipped"] = len(skipped)
        _warn(job.source, skipped)
    return metrics


def _parts(batch: Batch, parts: int) -> list[Batch]:
    """A batch of one view in parts of nearly equal size."""
    if parts == 1:
        return [batch]
    split = (tensor.tensor_split(parts) for tensor in (batch.images, batch.labels, batch.index))
    return [
        replace(batch, images=images, labels=labels, index=index) for images, labels, index in zip(*split, strict=True)
    ]


def _warn(source: Dataset, skipped: Mapping[int, str]) -> None:
    """Name images that were replaced."""
    named = "; ".join(f"{source.place_of(i)}: {why}" for i, why in sorted(skipped.items())[:10])
    more = f"; and {len(skipped) - 10} more" if len(skipped) > 10 else ""
    were = "1 image was" if len(skipped) == 1 else f"{len(skipped):,} images were"
    warnings.warn(f"{were} replaced by others: {named}{more}", RuntimeWarning, stacklevel=3)
