"""Trained networks as arrays by name, and back: what a run keeps so that a later task trains no source.

Weights serve every task. Features serve the ridge probe on the same targets: those of the judged examples, and those
of the whole pool, from which other shots and draws take theirs. An image may get other last bits in another batch, and
no result may depend on what was kept: so features of the pool are taken apart only if the network gave the same bits
in batches of some other sizes; otherwise they serve the same examples alone. Of the networks looked at (convnet,
bottleneck, resnet18 on the CPU), all did in batches of four images or more, and none in batches of one: draws with a
batch of less than eight are never served from the pool.

    weights     "body.NAME", "text.NAME"
    features    "features.DATA.IDS" float32 (n, dim); "ids.DATA.IDS" int64 (n,), increasing, of those that may be taken
                apart. DATA, IDS: digests of the data set and of the positions in it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pydt.base import ConfigError, StoreError, digest, generator
from pydt.data import Dataset
from pydt.training.device import device_of, forked, threads
from pydt.training.methods import METHODS
from pydt.training.recipe import Recipe
from pydt.training.source import begin
from pydt.training.trained import FEW, Trained, full
from pydt.training.transfer.task import Task


def learns(recipe: Recipe) -> bool:
    """Whether the recipe's method trains anything: other networks follow from recipe and seed and need not be kept."""
    return METHODS[recipe.method].learn is not None


def kept_bytes(keep: str, source: Dataset, recipe: Recipe, tasks: Sequence[Task]) -> int:
    """Bytes of what `weights_of` or `features_of` ("features") will give; 0 where nothing is trained."""
    if not learns(recipe):
        return 0
    device = device_of(recipe.device)
    with forked(device):
        fresh = begin(recipe, source, device)
    if keep == "weights":
        states = [module.state_dict() for module in _parts(fresh.body, fresh.text).values()]
        return sum(value.nbytes for state in states for value in state.values() if isinstance(value, torch.Tensor))
    pools = {task.target.digest: len(task.target.split["pool"]) for task in tasks}
    judged = {task.target.digest: len(task.shown()[1]) for task in tasks}
    return sum(pools.values()) * (4 * fresh.dim + 8) + sum(judged.values()) * 4 * fresh.dim


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


def features_of(trained: Trained, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """Features of the images that a probe of these tasks reads or may read with other draws."""
    found: dict[str, np.ndarray] = {}
    for task in tasks:
        pool = task.target.train, task.target.split["pool"]
        sets = [pool, task.shown()]
        if len(pool[1]) and _apart(trained, *pool):
            found[f"ids.{pool[0].digest}.{digest(pool[1])}"] = pool[1]
        else:
            sets.append((pool[0], np.unique(task.few_shot())))
        for data, ids in filter(lambda one: len(one[1]), sets):
            found[f"features.{data.digest}.{digest(ids)}"] = trained.features(data, ids).numpy()
    return found


def _apart(trained: Trained, data: Dataset, pool: np.ndarray) -> bool:
    """Whether images of the pool have the same features in smaller batches, as far as five of them tell."""
    if not full(len(pool)):
        return False
    whole = trained.features(data, pool)
    for size in {FEW, 13, 30, len(pool) // 3, len(pool) // 2} & set(range(FEW, len(pool))):
        at = np.sort(generator("features apart", size).permutation(len(pool))[:size])
        if not torch.equal(trained.features(data, pool[at]), whole[torch.from_numpy(at)]):
            return False
    return True


def from_features(recipe: Recipe, arrays: Mapping[str, np.ndarray], metrics: Mapping[str, Any]) -> Trained:
    """What `train` returned, as far as features replace its network; others raise `Absent`."""
    made = Trained(_NoNetwork(), 0, recipe.augment, recipe, dict(metrics))
    for name, array in arrays.items():
        kind, data, ids = name.split(".")
        if kind == "features":
            features = torch.tensor(array)
            made._known[data, ids] = features
            if (apart := arrays.get(f"ids.{data}.{ids}")) is not None:
                made._pools.setdefault(data, []).append((apart, features))
    return made


def serve(tasks: Sequence[Task]) -> bool:
    """Whether these tasks read features alone."""
    return all(task.mode == "probe" for task in tasks)


class Absent(Exception):
    """Features that were not kept."""


class _NoNetwork(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise Absent


def _parts(body: nn.Module, text: nn.Module | None) -> dict[str, nn.Module]:
    return {"body": body} if text is None else {"body": body, "text": text}
