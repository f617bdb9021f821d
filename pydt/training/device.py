"""Devices, threads and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from pydt.base import ConfigError, gpu_share


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
    """A device that is usable here, of which PyTorch takes no more than this worker's share of the memory; raises a
    ConfigError if it is not usable.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ConfigError("no CUDA device is usable here", f"Recipe.device {name!r}", 'use device="cpu"')
    count, number = torch.cuda.device_count(), torch.cuda.current_device() if device.index is None else device.index
    if number >= count:
        raise ConfigError(f"there are {count} CUDA devices", f"Recipe.device {name!r}", "count them from 0")
    if gpu_share() < 1:
        torch.cuda.set_per_process_memory_fraction(gpu_share(), number)
    return device


def forked(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Restore PyTorch's random state afterwards."""
    fork: contextlib.AbstractContextManager[None] = torch.random.fork_rng([device] if device.type == "cuda" else [])
    return fork


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch says that there is no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
