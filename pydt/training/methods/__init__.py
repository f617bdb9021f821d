"""One file per way to make a source model, and one line here; see `Method`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from pydt.data import Dataset
from pydt.training.device import forked
from pydt.training.methods import checkpoint, clip, simclr, supervised
from pydt.training.methods.common import Method, Start

METHODS: dict[str, Method] = {
    "supervised": Method(supervised.learn, ("label_smoothing",), check=supervised.check),
    "simclr": Method(simclr.learn, ("simclr",), check=simclr.check, views=2, splits=False, augment=simclr.USUAL),
    "clip": Method(clip.learn, ("clip",), clip.start, clip.check, splits=False, fits=clip.fits, captions=True),
    "checkpoint": Method(None, ("checkpoint",), checkpoint.start, checkpoint.check, reads=checkpoint.READS),
    # the smoothing is not read, but stands in the digests of stored rows
    "none": Method(None, ("scratch", "label_smoothing")),
}


@lru_cache(maxsize=1)
def begun(recipe: Any, source: Dataset) -> Start:
    """What a recipe's models are before their training, in some random weights: to look at, not to change.

    Kept for the next task of a plan, since a large network takes seconds.
    """
    with forked(torch.device("cpu")):
        return METHODS[recipe.method].start(recipe, source)
