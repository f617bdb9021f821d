"""Devices, threads and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from pydt.base import ConfigError


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Set the number of threads: sums, and so results, depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_of(name: str) -> torch.device:
    """A device that is usable here; raises a ConfigError if it is not."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is usable here", f"Recipe.device {name!r}", 'use device="cpu"')
    return device


def forked(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Restore PyTorch's random state afterwards."""
    fork: contextlib.AbstractContextManager[None] = torch.random.fork_rng([device] if device.type == "cuda" else [])
    return fork


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch says that there is no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
