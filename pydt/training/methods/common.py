"""What a training method is, what it is given, and how its network begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from pydt.base import ConfigError
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader
from pydt.training.networks import build
from pydt.training.text import TextTower


@dataclass(frozen=True)
class Start:
    """A network before its training, in random or public weights.

    Attributes:
        body: images (B, C, H, W) -> features (B, dim).
        preprocess: how images of any data set are prepared for it.
        text: the text tower, of methods that have one.
    """

    body: nn.Module
    preprocess: Augment
    text: TextTower | None = None


@dataclass(frozen=True)
class Job:
    """One source training, its random numbers seeded.

    Attributes:
        source, ids: the data set, and which of its examples are kept, int64 (n,).
        loader: batches of them.
        body, dim: the network to be trained in place, images -> features (B, dim), on `device`.
        text: the text tower to be trained in place, on `device`; of methods that have one.
        recipe: the `Recipe`.
        steps, a_pass: optimiser steps in all, and of one pass over the kept examples.
        parts: into how many parts a batch is split for lack of memory.
    """

    source: Dataset
    ids: np.ndarray
    loader: Loader
    body: nn.Module
    dim: int
    text: TextTower | None
    recipe: Any  # recipe.py imports the registry of methods, so its type cannot stand here
    steps: int
    a_pass: int
    parts: int
    device: torch.device


def channels_of(source: Dataset, augment: Augment) -> int:
    """Channels of what a network sees: encoded files are decoded to RGB."""
    return 3 if source.images is None else augment.seen(source.images.shape[3])


def sides_of(source: Dataset, preprocess: Augment) -> tuple[int, int]:
    """Height and width of what a network sees, but in training with a ramp."""
    return (preprocess.side(),) * 2 if source.images is None else preprocess.sides(*source.images.shape[1:3])


def from_scratch(recipe: Any, source: Dataset) -> Start:
    """The recipe's network in random weights."""
    return Start(build(recipe.network, channels_of(source, recipe.augment)), recipe.augment)


def dim_of(body: nn.Module, source: Dataset, preprocess: Augment, recipe: Any) -> int:
    """Features of one black image: found in evaluation mode, so that batch-norm statistics do not see it.

    Raises:
        ConfigError: the network does not map images to (B, dim).
    """
    device = next((parameter.device for parameter in body.parameters()), torch.device("cpu"))
    image = torch.zeros(1, channels_of(source, preprocess), *sides_of(source, preprocess), device=device)
    was_training = body.training
    body.eval()
    with torch.no_grad():
        features = body(image.contiguous(memory_format=torch.channels_last))
    body.train(was_training)
    if features.ndim != 2:
        raise ConfigError(
            f"returns shape {tuple(features.shape)}",
            f"network {recipe.described()['network']}",
            "return (batch, features)",
        )
    return int(features.shape[1])


def nothing_to_check(source: Dataset, recipe: Any) -> None:
    """Any source will do."""


def nothing_known(recipe: Any, source: Dataset, shape: tuple[int, int, int]) -> None:
    """Whether the network reads such images is seen when it is tried."""


@dataclass(frozen=True)
class Method:
    """A way to make a source model.

    Attributes:
        learn: trains `job.body` (and `job.text`) in place and returns the metrics of the source (`Trained.metrics`);
            None: nothing is trained.
        settings: the fields of `Recipe` that not all methods read, and this one does; they stand in no digest of a
            method that does not name them.
        start: (recipe, source) -> the network before the training. It may read the images' shape and all captions of
            the source, but not the mask.
        check: (source, recipe) -> raises a DataError or ConfigError if this source cannot be trained on so.
        views: 2 where a batch shows every example twice.
        splits: whether a batch may be split into parts whose gradients are summed: a loss that compares the examples of
            a batch with each other may not.
        fits: (recipe, source, shape) -> raises a ConfigError if it knows that its network cannot read images of this
            shape (channels, height, width), before the network is made and tried.
        captions: whether it reads the source's captions, which then stand in the digest of what its rows were made of.
        augment: what a recipe whose `augment` is left at its default has in its place.
        reads: the fields of `Recipe` that it reads beside `settings`; None: all. Others stand in no digest.
    """

    learn: Callable[[Job], dict[str, float]] | None
    settings: tuple[str, ...] = ()
    start: Callable[[Any, Dataset], Start] = from_scratch
    check: Callable[[Dataset, Any], None] = nothing_to_check
    views: int = 1
    splits: bool = True
    fits: Callable[[Any, Dataset, tuple[int, int, int]], None] = nothing_known
    captions: bool = False
    augment: Augment = field(default_factory=Augment)
    reads: tuple[str, ...] | None = None
