"""Trained networks as arrays by name, and back: what a run keeps so that a later task trains no source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from pydt.base import ConfigError, StoreError
from pydt.data import Dataset
from pydt.training.device import device_of, forked, threads
from pydt.training.methods import METHODS
from pydt.training.recipe import Recipe
from pydt.training.source import begin
from pydt.training.trained import Trained


def learns(recipe: Recipe) -> bool:
    """Whether the recipe's method trains anything: other networks follow from recipe and seed and need not be kept."""
    return METHODS[recipe.method].learn is not None


def weights_of(trained: Trained) -> dict[str, np.ndarray]:
    """The state of the network ("body.NAME") and of its text tower ("text.NAME"): parameters and buffers.

    Raises:
        ConfigError: a part of the state is no tensor.
    """
    found = {}
    for part, module in _parts(trained.body, trained.text).items():
        for name, value in module.state_dict().items():
            if not isinstance(value, torch.Tensor):
                wrong = f"has a state {name!r} that is no tensor, so its weights cannot be kept"
                raise ConfigError(wrong, f"network {trained.recipe.described()['network']}", 'run with keep="none"')
            value = value.detach().cpu()
            # numpy has no such type: the same bits as another one
            value = value.view(torch.int16) if value.dtype == torch.bfloat16 else value
            found[f"{part}.{name}"] = value.numpy()
    return found


def restore(
    source: Dataset, recipe: Recipe, seed: int, arrays: Mapping[str, np.ndarray], metrics: Mapping[str, Any]
) -> Trained:
    """What `train` returned, from its weights: transfers give the same numbers, bit for bit.

    Args:
        source, recipe, seed: as `train` was called.
        arrays, metrics: of `weights_of`, and `Trained.metrics`.

    Raises:
        StoreError: these are not the weights of this recipe's network.
    """
    device = device_of(recipe.device)
    with threads(recipe.threads), forked(device):
        torch.manual_seed(seed)
        fresh = begin(recipe, source, device)
    parts = _parts(fresh.body, fresh.text)
    states: dict[str, dict[str, torch.Tensor]] = {part: {} for part in parts}
    try:
        for name, array in arrays.items():
            part, _, inner = name.partition(".")
            states[part][inner] = torch.tensor(array)
        for part, module in parts.items():
            for name, value in module.state_dict().items():
                if value.dtype == torch.bfloat16:
                    states[part][name] = states[part][name].view(torch.bfloat16)
            module.load_state_dict(states[part], strict=True)
    except (KeyError, RuntimeError) as error:
        wrong = f"kept weights are not those of network {recipe.described()['network']} ({error})"
        raise StoreError(wrong, None, "remove the bank: pydt compact DIR --drop-bank") from error
    return Trained(fresh.body, fresh.dim, fresh.preprocess, recipe, dict(metrics), fresh.text)


def _parts(body: nn.Module, text: nn.Module | None) -> dict[str, nn.Module]:
    return {"body": body} if text is None else {"body": body, "text": text}
