"""Memory of batches, used again when its last reference dies; and batches on a GPU.

A data set goes to a GPU as a whole (`resident`), unless it would take more than half of the memory that this process
may still have there. Then every batch goes through pinned memory (`Staging`, one for each loader):

    in flight   at most 3 batches. The fourth waits for the first one's copy: a GPU that is slower than the loader costs
                the loader that wait and nothing else, and it is never more than three batches ahead.
    memory      3 buffers of a batch, each rounded up to a power of two as torch's allocator of pinned memory does it:
                3 x 128 MiB for 128 images of 3 x 224 x 224 in float32. A larger batch (`ramp`) replaces a buffer that
                is too small for it. torch keeps pinned memory for the process when a loader ends.
    order       copies and events are in the stream that is current when a batch is asked for; use it there.
    no pinning  (cudaHostAlloc fails) ordinary memory takes its place, with a warning; copies then hold the CPU up.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections import deque

import numpy as np
import torch

from pydt import _core
from pydt.base import gpu_share

_KEPT = 3  # buffers that wait for their next use
_UPLOAD = 1 << 26  # bytes copied to the GPU at a time
_OLDEST = (8, 0)  # compute capability of the GPUs for which the core has code

# (id of the array, device) -> its copy there, as long as the array lives.
_resident: dict[tuple[int, torch.device], torch.Tensor] = {}

_Travelling = deque[tuple[torch.cuda.Event, torch.Tensor]]  # copies in their order, each with the memory that it reads


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
            try:
                return torch.empty(1 << (size - 1).bit_length(), dtype=torch.uint8, pin_memory=True).numpy()
            except RuntimeError as error:  # an error of other work on the GPU comes back at the next copy
                self._pin = False
                why = str(error).splitlines()[0]
                slow = (
                    f"no memory can be pinned ({why}): batches go to the GPU from ordinary memory, which takes longer"
                )
                warnings.warn(slow, RuntimeWarning, stacklevel=2)
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
        self._travelling: _Travelling = deque()
        # copies that are under way read memory that would be freed with this object
        weakref.finalize(self, _wait_for, self._travelling).atexit = False

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
        arriving = batch.to(self._device, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))  # `to` copies in that of its device, too
        self._travelling.append((event, batch))
        return arriving


def small(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A small array on a device, without waiting for the GPU: it reads ordinary memory before the call returns."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def _wait_for(travelling: _Travelling) -> None:
    for event, _ in travelling:
        event.synchronize()


def resident(images: np.ndarray, device: torch.device) -> torch.Tensor | None:
    """The images on the GPU, copied there once, as long as the array lives; None where they would take more than half
    of the memory that this process may still have, or where the core has no code for this GPU.
    """
    if not _core.cuda_usable() or torch.cuda.get_device_capability(device) < _OLDEST:
        return None
    key = (id(images), device)
    if key not in _resident:
        free, total = torch.cuda.mem_get_info(device)
        share = gpu_share() * total - torch.cuda.memory_reserved(device)
        if images.nbytes > min(free, share) // 2:
            return None
        try:
            copy = torch.empty(images.shape, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError:  # another process took it
            return None
        step = max(1, _UPLOAD // max(1, images[:1].nbytes))
        for start in range(0, len(images), step):
            # a copy: memory maps cannot be written to, and torch warns of such arrays
            copy[start : start + step].copy_(torch.from_numpy(images[start : start + step].copy()))
        _resident[key] = copy
        weakref.finalize(images, _resident.pop, key, None).atexit = False
    return _resident[key]
