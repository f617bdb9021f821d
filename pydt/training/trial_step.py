"""One step on noise before a row is trained: finds what does not fit, and the sides of images that would."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, PydtError
from pydt.data import Dataset
from pydt.data.loading import Augment, kept_ids
from pydt.training.device import device_of, forked, out_of_memory, threads
from pydt.training.methods import METHODS
from pydt.training.methods.common import Start, channels_of, from_scratch
from pydt.training.networks import build, network_name
from pydt.training.recipe import Recipe
from pydt.training.transfer.modes import MODES
from pydt.training.transfer.task import Task

_SIDES = (16, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 299, 320, 384, 448, 512)


def trial(source: Dataset, keep: Any, recipe: Recipe, tasks: Sequence[Task]) -> None:
    """Take one step of the network on noise of every shape that a row will show it, once a process.

    Args:
        keep: examples of the row, as in `train`.

    Raises:
        ConfigError: network, images and batches do not fit; source or task is named.
    """
    try_source(source, len(kept_ids(source, keep)), recipe)
    for task in tasks:
        learns = MODES[task.mode].learns
        pool, shots = len(task.target.split["pool"]), task.shots
        drawn = pool if isinstance(shots, str) else shots * len(task.target.classes)
        batch = min(2, task.finetune.batch_size, drawn) if learns else 1
        try:
            _try(source, recipe, task.target.train, batch, learns)
        except ConfigError as error:
            raise ConfigError(error.what, f"task {task.name!r}: {error.where}", error.mend) from error


def try_source(source: Dataset, images: int, recipe: Recipe) -> None:
    """As `trial`, of the source's images, of which a row keeps so many."""
    learns = METHODS[recipe.method].learn is not None
    _try(source, recipe, source, min(2, recipe.batch_size, images) if learns else 1, learns)


_tried: set[tuple[Recipe, str, tuple[int, int, int], int, bool]] = set()


def _try(source: Dataset, recipe: Recipe, data: Dataset, batch: int, learns: bool) -> None:
    """Show images as those of `data` to the network that a row begins with."""
    device = device_of(recipe.device)
    with threads(recipe.threads), forked(device):
        for shape in _shown(data, recipe.augment, learns):
            METHODS[recipe.method].fits(recipe, source, shape)
        start = _start(recipe, source)
        for shape in _shown(data, start.preprocess, learns):
            key = (recipe, source.digest, shape, batch, learns)
            if key not in _tried:
                _try_out(start.body, recipe, shape, batch, learns)
                _tried.add(key)


@lru_cache(maxsize=1)
def _start(recipe: Recipe, source: Dataset) -> Start:
    """The network of the last recipe and source: made once for all that is shown to it."""
    network = recipe.network
    if callable(network):
        first, other = (_parameters(build(network, channels_of(source, recipe.augment))) for _ in range(2))
        if first & other:
            same = "returns the same module each time: every row would go on where the last one ended"
            raise ConfigError(same, f"network {network_name(network)}", "build a fresh module inside the function")
    try:
        return METHODS[recipe.method].start(recipe, source)
    except PydtError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        return from_scratch(recipe, source)  # a method that shows its network an image: the trial says what is wrong


def _parameters(body: nn.Module) -> set[nn.Parameter]:
    return set(body.parameters())


def _shown(data: Dataset, augment: Augment, learns: bool) -> list[tuple[int, int, int]]:
    seen = shapes(data, augment, False)
    return sorted(seen | shapes(data, augment, True) if learns else seen)


def shapes(dataset: Dataset, augment: Augment, training: bool) -> set[tuple[int, int, int]]:
    """Channels, height and width of what a network sees of a data set."""
    epochs = [0, *(start for start, _ in augment.ramp)] if training else [None]
    if dataset.images is None:
        return {(3, augment.side(epoch), augment.side(epoch)) for epoch in epochs}
    _, height, width, channels = dataset.images.shape
    return {(augment.seen(channels), *augment.sides(height, width, epoch)) for epoch in epochs}


def _try_out(body: nn.Module, recipe: Recipe, shape: tuple[int, int, int], batch: int, learns: bool) -> None:
    """Take one step of a copy of the network on noise.

    Args:
        shape: channels, height, width of the images. batch: two images tell as much as a thousand.
        learns: forward and backward as in training; otherwise forward only, frozen.
    """
    wrong = _step(copy.deepcopy(body), shape, batch, torch.device(recipe.device), learns)
    if wrong is not None:
        raise ConfigError(wrong, f"network {recipe.described()['network']}", _mend(body, shape, batch, learns))


def _step(body: nn.Module, shape: tuple[int, int, int], batch: int, device: torch.device, learns: bool) -> str | None:
    """What is wrong with one step on `batch` images; None if nothing is."""
    images = torch.rand(batch, *shape, device=device).contiguous(memory_format=torch.channels_last)
    try:
        body = body.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            features = body.eval()(images)
            wrong = _no_features(features, batch)
            if wrong is None and device.type != "meta" and not torch.isfinite(features).all():
                wrong = "returns numbers that are not finite, before any training"
        if wrong is None and learns:
            with torch.autocast("cuda") if device.type == "cuda" else nullcontext():
                features = body.train()(images)
                wrong = _no_features(features, batch)
                if wrong is None:
                    head = nn.Linear(features.shape[1], 2, device=device)
                    F.cross_entropy(head(features), torch.zeros(batch, dtype=torch.int64, device=device)).backward()
    except Exception as error:  # a network may raise anything
        if isinstance(error, RuntimeError) and out_of_memory(error):
            return None  # training splits its batches
        does = "cannot be trained on" if learns else "cannot be applied to"
        many = "a batch of one image" if batch == 1 else "images"
        text = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
        return f"{does} {many} of {_size(shape)} ({type(error).__name__}: {text})"
    return wrong


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]} x {shape[2]} pixels with {shape[0]} channel{'' if shape[0] == 1 else 's'}"


def _no_features(features: Any, batch: int) -> str | None:
    """What is wrong with what a network returned; None if these are features (batch, dim)."""
    if not isinstance(features, torch.Tensor):
        return f"returns a {type(features).__name__}, no tensor of features"
    if features.ndim != 2 or features.shape[0] != batch or not features.shape[1]:
        return f"returns shape {tuple(features.shape)} for {batch} image{'s' * (batch > 1)}, not (batch, features)"
    return None if features.is_floating_point() else f"returns {features.dtype}, no floating-point features"


def _mend(body: nn.Module, shape: tuple[int, int, int], batch: int, learns: bool) -> str:
    """What would fit, found without memory or arithmetic: on PyTorch's device "meta" tensors have only shapes."""

    def fits(channels: int, height: int, width: int, images: int) -> bool:
        try:
            with torch.device("meta"):
                return _step(blank, (channels, height, width), images, torch.device("meta"), learns) is None
        except Exception:
            return False

    blank = copy.deepcopy(body).to("meta")
    channels, height, width = shape
    if batch == 1 and fits(*shape, 2):
        return "batch statistics need two images: set batch_size to 2 or more, and keep at least two images in a row"
    for other in (3, 1):
        if other != channels and fits(other, height, width, batch):
            how = {3: "grey[..., None].repeat(3, axis=3) makes RGB of grey", 1: "images.mean(3) makes them grey"}[other]
            return f"it takes images with {other} channel{'s' * (other > 1)}: {how}; or choose another network"
    larger = sorted(_SIDES, key=lambda side: (side < max(height, width), abs(side - max(height, width))))
    sides: list[int] = []
    for side in larger:
        if len(sides) < 4 and side != height and fits(channels, side, side, batch):
            sides.append(side)
    if sides:
        several = f"sides that work: {', '.join(map(str, sorted(sides)))}"
        how = f"Augment(size={min(sides)}), with resized_crop= where images are raw"
        return f"{several} ({how}; or bring the images themselves to that size); or choose another network"
    return "return features (batch, dim) of images (batch, channels, height, width), or choose another network"
