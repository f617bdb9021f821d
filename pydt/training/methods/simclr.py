"""SimCLR (Chen et al. 2020): no labels; of all views in a batch, the network finds the other one of the same image.

With two views of each of B examples and unit vectors z = head(body(view)), the loss (NT-Xent, equation 1) is

    mean over views i of  -log( exp(z_i . z_j / t) / sum over k != i of exp(z_i . z_k / t) ),   j the other view of i

The head is two layers with batch-norm and ReLU between them; it is dropped afterwards. A batch cannot be split into
parts for lack of memory: each would have fewer examples to tell apart.

A guess that looks at no image has the loss log(2B - 1) and is right once in 2B - 1. An untrained network does better (9
instead of 0.4 % on the sample), so the accuracy that a training must exceed to have learnt anything
("source_trivial_accuracy") is that of the first batch, before the first step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, DataError, real, whole
from pydt.data import Dataset
from pydt.data.loading import Augment, Batch
from pydt.training.methods.common import Job
from pydt.training.methods.loop import fit

USUAL = Augment(resized_crop=((0.3, 1.0), (3 / 4, 4 / 3)), jitter=(0.4, 0.4, 0.4, 0.1), jitter_chance=0.8, grey=0.2)
"""How views are made where a recipe does not say, of raw and encoded images, grey and coloured ones: the colours of
MoCo v2 and SimCLR's relatives. Without mirroring, which makes other letters of letters, and without blur, whose sigma
depends on the images' size."""


@dataclass(frozen=True)
class SimCLR:
    """Settings of method "simclr".

    Attributes:
        temperature: t above; a lower one looks more at the most similar of the other examples.
        hidden, out: units of the head's two layers; hidden None: as many as the network has features. Mu et al. 2022
            have 4096 and 256, with temperature 0.1.
    """

    temperature: float = 0.2
    hidden: int | None = None
    out: int = 128

    def __post_init__(self) -> None:
        fixed: dict[str, Any] = {"temperature": real(self.temperature, "temperature", "SimCLR", above=0)}
        for name in ("hidden", "out"):
            if (given := getattr(self, name)) is not None:
                fixed[name] = whole(given, name, "SimCLR", 1, 1 << 20, ConfigError)
        for name, value in fixed.items():
            object.__setattr__(self, name, value)


def check(source: Dataset, recipe: Any) -> None:
    """Refuse batches of one example, and views that cannot differ."""
    shape = None if source.images is None else source.images.shape[1:]
    if len(source) < 2:
        raise ConfigError("a single image, of which no other can be told apart", f"source {source.name}", "give more")
    if recipe.batch_size < 2:
        what = "a batch of 1 image: no other can be told apart"
        raise ConfigError(what, "Recipe.batch_size", "set it to 2 or more")
    if shape is not None and shape[0] * shape[1] == 1:
        what = "images of one pixel: two views of them show nothing else"
        raise ConfigError(what, f"source {source.name}", f"give larger images for method {recipe.method!r}")
    if not recipe.augment.random(shape):
        what = f"two views of an image can only be equal: method {recipe.method!r} has nothing to learn"
        mend = "crop at random: augment's resized_crop = [[0.3, 1.0], [0.75, 1.333]], or leave augment out"
        raise ConfigError(what, "Recipe.augment", mend)


def learn(job: Job) -> dict[str, float]:
    """Train the network with a head that is dropped afterwards.

    Raises:
        DataError: a single image is kept.
        TrainError: the loss became non-finite.
    """
    settings: SimCLR = job.recipe.simclr
    if len(job.ids) < 2:
        mend = "keep two groups or more, or groups of more images"
        raise DataError("the mask keeps 1 image, of which no other can be told apart", job.source.name, mend)
    hidden = settings.hidden or job.dim
    layers = nn.Linear(job.dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, settings.out)
    head = nn.Sequential(*layers).to(job.device)
    others = 2 * min(job.recipe.batch_size, len(job.ids)) - 1
    untrained: list[torch.Tensor] = []

    def judge(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, right = nt_xent(head(job.body(batch.images)), settings.temperature)
        if not untrained:
            untrained.append(right.float().mean())
        return loss, right.sum() / 2

    metrics = fit(job, [head], judge, (math.log(others), 1 / others))
    return metrics | {"source_trivial_accuracy": max(1 / others, float(untrained[0]))}


def nt_xent(projected: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss above, and which views are nearest to the other view of their example.

    Args:
        projected: (2B, out), B >= 2: the first view of every example, then the second one; of any length.

    Returns:
        a scalar in float32 or finer, and bool (2B,).
    """
    views = len(projected)
    with torch.autocast(projected.device.type, enabled=False):  # half precision would round similarities to 1 in 1,000
        unit = F.normalize(projected if projected.dtype == torch.float64 else projected.float(), dim=1)
        alike = unit @ unit.mT / temperature
    alike = alike.masked_fill(torch.eye(views, dtype=torch.bool, device=alike.device), -torch.inf)
    other = torch.arange(views, device=alike.device).roll(views // 2)
    return F.cross_entropy(alike, other), alike.detach().argmax(1) == other
