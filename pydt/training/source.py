"""Source training: from a masked source to something that yields features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pydt.base import ConfigError, PydtError
from pydt.data import Dataset
from pydt.data.loading import Loader, kept_ids
from pydt.training.compiling import check_compiler, compiled
from pydt.training.device import device_of, forked, out_of_memory, threads
from pydt.training.methods import METHODS
from pydt.training.methods.common import Job, dim_of
from pydt.training.recipe import Recipe, steps_a_pass, steps_of
from pydt.training.trained import Trained
from pydt.training.trial_step import try_source


def train(source: Dataset, keep: Any, recipe: Recipe, seed: int) -> Trained:
    """Train one source model on the kept examples, with a head over the classes that are kept.

    Where memory runs out, the training starts again with every batch in 2, 4, ... parts whose gradients are summed
    (`metrics["micro_batches"]`). Only batch-norm sees a difference: each part has its own statistics.

    Args:
        source: the source data set.
        keep: bool (examples,) or ids; see `Loader`.
        recipe: its method, network and settings.
        seed: of initialisation, order and augmentation. The caller's random state is left alone.

    Raises:
        DataError: nothing is kept, or an image cannot be read.
        TrainError: the loss became non-finite; such a row is stored as failed.
        ConfigError: the network cannot be built, or does not map images to (B, dim), or the method cannot split a
            batch that does not fit into memory.
        RuntimeError: PyTorch's, where memory does not even suffice for two examples at a time.
    """
    ids = kept_ids(source, keep)
    recipe.check(source)
    device = device_of(recipe.device)
    if recipe.compile:
        check_compiler(device)
    parts = 1
    while True:
        with threads(recipe.threads), forked(device):
            torch.manual_seed(seed)
            try:
                return _train(source, ids, recipe, seed, device, parts)
            except PydtError:
                raise
            except Exception as error:
                if not (isinstance(error, RuntimeError) and out_of_memory(error)):
                    try_source(source, len(ids), recipe)  # says what does not fit, if that is why
                    raise
                batch = min(recipe.batch_size, len(ids))
                if not METHODS[recipe.method].splits:
                    what = f"there is no memory for batches of {batch} images"
                    mend = f"lower it: method {recipe.method!r} compares the images of a batch, so none can be split"
                    raise ConfigError(what, "Recipe.batch_size", mend) from error
                # one example alone has no batch statistics
                if 4 * parts > batch:
                    raise
        # The exception is gone, and with it what its frames held.
        parts *= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _train(source: Dataset, ids: np.ndarray, recipe: Recipe, seed: int, device: torch.device, parts: int) -> Trained:
    method = METHODS[recipe.method]
    made = begin(recipe, source, device)
    if method.learn is None:
        return made
    how: dict[str, Any] = {"device": device, "channels_last": True, "on_error": recipe.on_error}
    loader = Loader(source, ids, recipe.batch_size, True, made.preprocess, seed=seed, views=method.views, **how)
    steps = steps_of(recipe, len(ids)), steps_a_pass(recipe, len(ids))
    body = made.body
    if recipe.compile:
        body = compiled(body, recipe, min(recipe.batch_size, len(ids)), parts)
    metrics = method.learn(Job(source, ids, loader, body, made.dim, made.text, recipe, *steps, parts, device))
    more = {"micro_batches": parts} if parts > 1 else {}
    return replace(made, metrics=metrics | more)


def begin(recipe: Recipe, source: Dataset, device: torch.device) -> Trained:
    """The network before its training, on its device; PyTorch's random numbers decide its weights."""
    start = METHODS[recipe.method].start(recipe, source)
    body = start.body.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    text = None if start.text is None else start.text.to(device)
    return Trained(body, dim_of(body, source, start.preprocess, recipe), start.preprocess, recipe, {}, text)
