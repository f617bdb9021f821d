"""`Recipe(compile=True)`: a source network is trained through torch.compile.

what   the network's forward and backward pass in source training, once for each shape of a batch. Heads, text
       towers, evaluation and transfer run as they do without it.
when   at the first step of a process; its later rows of the same recipe and batch use that code. What was compiled
       stays on disk (TORCHINDUCTOR_CACHE_DIR), so that other processes only load it. Cost: docs/running-at-scale.md.
bits   a row is the same in every process: code is for the very shape of a batch, whatever was compiled before.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any, cast

import torch
from torch import nn

from pydt.base import ConfigError

_MOST = 8  # shapes for which torch keeps code of a network; beyond them it would go on without compiling

_shapes: dict[Any, int] = {}  # what was compiled in this process -> into how many shapes of batches


def check_compiler(device: torch.device) -> None:
    """Raise a ConfigError where torch.compile lacks a compiler."""
    mend = "or leave compile out"
    name = (os.environ.get("CXX", "").split() or ["g++"])[0]
    if shutil.which(name) is None:
        raise ConfigError(f"there is no C++ compiler {name!r}", "Recipe.compile", f"install g++, set $CXX, {mend}")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("triton is not installed", "Recipe.compile", f"pip install triton, {mend}")


def compiled(body: nn.Module, recipe: Any, batch: int, parts: int) -> nn.Module:
    """The same network, compiled when it first sees a batch.

    Args:
        body: whose parameters and buffers the result shares.
        batch: examples in a batch. parts: into which it is split.
    """
    key = recipe.digest, batch, parts
    if key not in _shapes:
        shapes = max(1, len(recipe.augment.ramp)) * (1 if batch % parts == 0 else 2)
        if sum(_shapes.values()) + shapes > _MOST:
            torch.compiler.reset()
            _shapes.clear()
        _shapes[key] = shapes
    # code for all shapes would depend on those that were seen before
    return cast(nn.Module, torch.compile(body, dynamic=False))
