"""Memory of batches, used again when its last reference dies."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch

from pydt import _core

_KEPT = 3  # buffers that wait for their next use
_UPLOAD = 1 << 26  # bytes copied to the GPU at a time

# (id of the array, device) -> its copy there, as long as the array lives.
_resident: dict[tuple[int, torch.device], torch.Tensor] = {}


class Ring:
    """Tensors over memory that is used again when the last reference to it dies.

    A tensor is made over an array object of its own. Whatever shares its storage (slices, views, `.numpy()`, what
    autograd saved) keeps that object alive; when it dies, the memory comes back. This saves the page faults of fresh
    memory, which cost more than writing a batch. All loaders of a process share `HOST`.
    """

    def __init__(self, pin: bool = False) -> None:
        self._pin = pin
        self._free: deque[np.ndarray] = deque(maxlen=_KEPT)

    def take(
        self, count: int, channels: int, height: int, width: int, dtype: torch.dtype, channels_last: bool
    ) -> torch.Tensor:
        """An uninitialised tensor (count, channels, height, width)."""
        shape = (count, height, width, channels) if channels_last else (count, channels, height, width)
        size = math.prod(shape) * dtype.itemsize
        memory = self._memory(size)
        lent = memory[:size]
        weakref.finalize(lent, self._free.append, memory).atexit = False
        out = torch.from_numpy(lent).view(dtype).view(shape)
        return out.permute(0, 3, 1, 2) if channels_last else out

    def _memory(self, size: int) -> np.ndarray:
        try:
            memory = self._free.pop()  # the last one that came back: it may still be in the cache
        except IndexError:
            memory = np.empty(0, np.uint8)
        if len(memory) >= size:
            return memory
        if self._pin:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        # numpy asks for huge pages, torch does not; lines start at multiples of 64 bytes
        memory = np.empty(size + 63, np.uint8)
        return memory[-memory.ctypes.data % 64 :][:size]


HOST = Ring()
SCRATCH = Ring()  # what a batch is made from; sizes differ, which would cost `HOST` its buffers


class Staging:
    """Copies batches to a GPU through pinned memory, which is used again when its copy has arrived."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ring = Ring(pin=True)
        self._travelling: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    def take(
        self, count: int, channels: int, height: int, width: int, dtype: torch.dtype, channels_last: bool
    ) -> torch.Tensor:
        """As `Ring.take`; waits for the oldest copy when all buffers are being sent."""
        while self._travelling and (len(self._travelling) >= _KEPT or self._travelling[0][0].query()):
            event, sent = self._travelling.popleft()
            event.synchronize()
            del sent  # its memory comes back here
        return self._ring.take(count, channels, height, width, dtype, channels_last)

    def send(self, batch: torch.Tensor) -> torch.Tensor:
        """The batch on the device."""
        with torch.cuda.device(self._device):
            arriving = batch.to(self._device, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._travelling.append((event, batch))
        return arriving


def resident(images: np.ndarray, device: torch.device) -> torch.Tensor | None:
    """The images on the GPU, copied there once; None where they would take more than half of the memory that is free,
    or where the core has no GPU code.
    """
    if not _core.cuda_built() or not _core.cuda_usable():
        return None
    key = (id(images), device)
    if key not in _resident:
        if images.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return None
        copy = torch.empty(images.shape, dtype=torch.uint8, device=device)
        step = max(1, _UPLOAD // max(1, images[:1].nbytes))
        for start in range(0, len(images), step):
            # a copy: memory maps cannot be written to, and torch warns of such arrays
            copy[start : start + step].copy_(torch.from_numpy(images[start : start + step].copy()))
        _resident[key] = copy
        weakref.finalize(images, _resident.pop, key, None).atexit = False
    return _resident[key]
