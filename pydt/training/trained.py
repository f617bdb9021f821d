"""What training hands to transfer: a network that gives features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from pydt.base import digest
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader, kept_ids
from pydt.training.device import threads
from pydt.training.recipe import Recipe
from pydt.training.text import TextTower

_MOST_KNOWN = 256_000_000  # bytes of features kept for further tasks
_BATCH = 512
FEW = 8
"""Batches of fewer images may take another way through PyTorch's kernels, and give other last bits."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What training hands to transfer.

    Attributes:
        body: the network without a head: images (B, C, H, W) -> features (B, dim).
        dim: features per image.
        preprocess: how images of any data set are prepared for this network.
        recipe: the recipe that made it.
        metrics: of the source: "source_loss" and "source_accuracy" (fraction) over the last epoch, or the part of it
            that ran, "source_images" (how many images that is), and "source_trivial_loss" and
            "source_trivial_accuracy": those of the best guess that looks at no image; empty if
            untrained. "micro_batches" where a batch did not fit into memory, "skipped" where images were replaced.
        text: the text tower, of methods that have one; else None.
    """

    body: nn.Module
    dim: int
    preprocess: Augment
    recipe: Recipe
    metrics: dict[str, float]
    text: TextTower | None = None
    _known: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict, repr=False)
    _pools: dict[str, list[tuple[np.ndarray, torch.Tensor]]] = field(default_factory=dict, repr=False)

    def features(self, dataset: Dataset, keep: Any = None) -> torch.Tensor:
        """Features of the kept examples in their order, float32 (n, dim) on the CPU, by the frozen network.

        Up to 256 MB of them are kept, so that tasks of one target compute them once; only for the same examples, since
        an image may get other last bits in another batch.
        """
        ids = kept_ids(dataset, keep)
        name = dataset.digest, digest(ids)
        if name in self._known:
            return self._known[name]
        for positions, pool in self._pools.get(dataset.digest, []) if full(len(ids)) else []:
            at = np.searchsorted(positions, ids).clip(max=len(positions) - 1)
            if np.array_equal(positions[at], ids):
                return pool[torch.from_numpy(at)]
        self.body.eval()
        with threads(self.recipe.threads), torch.inference_mode():
            loader = Loader(dataset, ids, _BATCH, False, self.preprocess, device=self.recipe.device, channels_last=True)
            found = torch.cat([self.body(batch.images).float().cpu() for batch in loader])
        if sum(known.nbytes for known in self._known.values()) + found.nbytes <= _MOST_KNOWN:
            self._known[name] = found
        return found


def full(images: int) -> bool:
    """Whether no batch of so many images has only a few."""
    return not 0 < images % _BATCH < FEW
