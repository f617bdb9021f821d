"""GPUs under torch that run on the CPU: memory of their own, and streams whose work is done when a test says so.

Inside of `Cuda`, torch's public calls that name a device "cuda" reach the stub: tensors of a device lie in memory that
the stub owns, and know the device they are on. As on a GPU:

    copies and kernels  wait in the queue of the current stream. A tensor is full of 0xA5 until its work is done.
    pinned memory       is read when the copy is done: what was written there meanwhile arrives, and a copy from memory
                        that was freed meanwhile is a fault. Other memory is read at once.
    memory              belongs to the stream in which it was made. A kernel of another stream that uses it is a fault
                        unless `record_stream` told of that: torch could give it away before the kernel is done.
    an operation        first does the work that waits in the current stream of its tensors, not that of other streams.
                        Tensors of two devices, or of a device and the host, are refused.
    an event            is done when the work before it is; waiting for it does that work.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from stub_device import EMULATED, Emulated
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from pydt import _core

GARBAGE = 0xA5
_OF_THE_GPU = ("shape", "size", "dtype", "channels_last")
_MAKERS = ("empty", "zeros", "ones", "full", "eye", "arange", "tensor")
_LOOKS = ("__get__", "data_ptr", "stride", "size", "numel", "dim", "is_contiguous", "element_size", "__len__", "view")
_LOOKS += ("permute", "chunk", "tensor_split", "flatten", "expand", "detach", "untyped_storage", "is_floating_point")


kernels: Any = Emulated(EMULATED).core if EMULATED else None


class Stream:
    """Work of one device in order."""

    _numbers = count(1)

    def __init__(self, device: int) -> None:
        self.index, self.cuda_stream = device, 0x1000 * next(self._numbers)
        self._work: deque[Callable[[], None]] = deque()
        self.queued = self.done = 0

    def put(self, work: Callable[[], None]) -> None:
        self._work.append(work)
        self.queued += 1

    def run(self, until: int | None = None) -> None:
        """Do the work that was queued first, so much of all that ever was."""
        while self._work and (until is None or self.done < until):
            self._work.popleft()()
            self.done += 1


class Event:
    """A place in the work of a stream."""

    of: Cuda

    def record(self, stream: Stream | None = None) -> None:
        self._stream = stream or self.of.stream()
        self._place = self._stream.queued

    def query(self) -> bool:
        return self._stream.done >= self._place

    def synchronize(self) -> None:
        self._stream.run(self._place)


class Cuda(TorchFunctionMode):
    """A machine with some GPUs.

    Args:
        devices: how many. memory: bytes of each.

    Attributes:
        uploaded: bytes copied to each device that were not read from pinned memory.
        faults: what a GPU would have read after it was freed.
        pins: whether memory can be pinned.
    """

    def __init__(self, devices: int = 2, memory: int = 1 << 30) -> None:
        super().__init__()
        self.memory, self.current, self.pins = memory, 0, True
        self.uploaded, self.faults = [0] * devices, list[str]()
        # first byte -> length, device (None: pinned memory), and the memory itself as long as a tensor has it
        self._regions: dict[int, tuple[int, int | None, Callable[[], np.ndarray | None]]] = {}
        self._users: dict[int, set[int]] = {}  # first byte -> streams that its memory is known to be used in
        self._streams = [Stream(device) for device in range(devices)]  # the current ones
        self._all = {stream.cuda_stream: stream for stream in self._streams}

    # ---- what tests look at and decide

    def taken(self, device: int | None) -> int:
        """Bytes in use on a device; None: of pinned memory."""
        return sum(length for length, on, _ in self._regions.values() if on == device)

    def stream(self, device: Any = None) -> Stream:
        """The current stream of a device."""
        return self._streams[self._number(device)]

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """Make a stream the current one of its device."""
        before, self._streams[stream.index] = self._streams[stream.index], stream
        yield
        self._streams[stream.index] = before

    def finish(self) -> None:
        """Do all work."""
        for stream in self._all.values():
            stream.run()

    def new_stream(self, device: int) -> Stream:
        stream = Stream(device)
        self._all[stream.cuda_stream] = stream
        return stream

    # ---- torch.cuda

    def installed(self, patch: pytest.MonkeyPatch) -> None:
        """Put the stub in the place of torch.cuda's functions and of the core's kernel."""
        device_of_stub = contextmanager(self._as_current)
        for name, call in {
            "is_available": lambda: True,
            "device_count": lambda: len(self._streams),
            "current_device": lambda: self.current,
            "current_stream": self.stream,
            "mem_get_info": lambda device=None: (self.memory - self.taken(self._number(device)), self.memory),
            "memory_reserved": lambda device=None: 0,
            "get_device_capability": lambda device=None: (9, 0),
            "device": device_of_stub,
            "Event": type("Event", (Event,), {"of": self}),
        }.items():
            patch.setattr(torch.cuda, name, call)
        # its arguments are parsed before a mode sees the call
        used = self._users
        patch.setattr(
            torch.Tensor,
            "record_stream",
            lambda t, stream: used[t.untyped_storage().data_ptr()].add(stream.cuda_stream),
        )
        patch.setattr(_core, "cuda_built", lambda: True)
        patch.setattr(_core, "cuda_usable", lambda: True)
        patch.setattr(_core, "cuda_gather", self._gather)

    def _as_current(self, device: Any) -> Iterator[None]:
        before, self.current = self.current, self._number(device)
        yield
        self.current = before

    def _number(self, device: Any) -> int:
        index = device if isinstance(device, int) or device is None else torch.device(device).index
        return self.current if index is None else index

    def _gather(self, **given: Any) -> None:
        """`_core.cuda_gather`, when the stream comes to it: the kernel itself where it was compiled for the CPU
        (PYDT_EMULATED, of tests/emulation), else the core's own loop.
        """
        stream = self._all[given.pop("stream")]
        assert stream.index == self.current, "a stream of another device than the current one"
        shape, size, last = tuple(given["shape"]), given["size"], given["channels_last"]
        given |= {name: given[name].copy() for name in ("index", "ids")}
        kind = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[given["dtype"]]
        to = (len(given["ids"]), *size, shape[3]) if last else (len(given["ids"]), shape[3], *size)
        sizes = {"images": int(np.prod(shape)), "out": int(np.prod(to)) * np.dtype(kind).itemsize}
        # memory is used in the order of the stream, also by work whose tensors are gone
        held = [self._holds(given[name], length, stream.index) for name, length in sizes.items()]
        assert all(memory is not None for memory in held)
        if any(stream.cuda_stream not in self._users[memory.ctypes.data] for memory in held if memory is not None):
            self.faults.append("a kernel uses memory of another stream, which was not told of it")

        def work(held: Any = held) -> None:
            if EMULATED:
                kernels.accept_any_memory(True)
                kernels.cuda_gather(**given, stream=0)
                return
            batch = _at(given["out"], sizes["out"]).view(kind).reshape(to)
            arrays = {"out": batch.transpose(0, 3, 1, 2) if last else batch}
            arrays["images"] = _at(given["images"], sizes["images"]).reshape(shape)
            more = {name: value for name, value in given.items() if name not in _OF_THE_GPU}
            _core.gather(**{**more, **arrays}, threads=1)

        stream.put(work)

    # ---- torch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func.__name__
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        on = {self._device(tensor) for tensor in tensors}
        if func == torch.Tensor.device.__get__:
            (device,) = on
            return torch.device("cpu") if device is None else torch.device("cuda", device)
        if name in _MAKERS and not tensors:
            return self._made(func, args, kwargs)
        if name in ("to", "cpu", "copy_") and (moved := self._moved(name, args, kwargs)) is not None:
            return moved
        devices = on - {None}
        if not devices:
            return func(*args, **kwargs)
        if name == "numpy":
            raise TypeError("a tensor of a GPU has no numpy array")
        indexes = name in ("__getitem__", "__setitem__")
        if len(devices) > 1 or (not indexes and any(self._device(t) is None and t.dim() for t in tensors)):
            raise RuntimeError("Expected all tensors to be on the same device")
        (device,) = devices
        slices = name == "__getitem__" and not isinstance(args[1], torch.Tensor)
        if name not in _LOOKS and not slices:
            self.stream(device).run()
        return tree_map(lambda value: self._kept(value, device), func(*args, **kwargs))

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        device, pinned = kwargs.pop("device", None), kwargs.pop("pin_memory", False)
        if pinned and not self.pins:
            raise RuntimeError("CUDA error: out of memory")
        made = func(*args, **kwargs)
        if device is None or torch.device(device).type == "cpu":
            return self._copied(made, None) if pinned else made
        number = self._number(device)
        if made.nbytes > self.memory - self.taken(number):
            raise torch.OutOfMemoryError("CUDA out of memory")
        there = self._copied(made, number)
        if func is torch.empty:
            _at(there.data_ptr(), there.nbytes)[:] = GARBAGE
        return there

    def _moved(self, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """What a call that may leave a device returns; None if it stays where it is."""
        tensor, here = args[0], self._device(args[0])
        if name == "copy_":
            if here is None or self._device(args[1]) is not None:
                return None
            self.stream(here).run()
            self.uploaded[here] += tensor.nbytes
            return tensor.copy_(args[1])
        rest, device = dict(kwargs), torch.device("cpu") if name == "cpu" else None
        if args[1:] and isinstance(args[1], (str, torch.device)):
            device, args = torch.device(args[1]), (tensor, *args[2:])
        if device is None and "device" in rest:
            device = torch.device(rest.pop("device"))
        if device is None:
            return None
        waits = not rest.pop("non_blocking", False)
        goal = None if device.type == "cpu" else self._number(device)
        if goal == here:
            return tensor.to(*args[1:], **rest) if here is None else None
        if here is not None:
            assert goal is None, "a copy between two devices"
            self.stream(here).run()
            return tensor.clone(memory_format=torch.preserve_format).to(*args[1:], **rest)
        assert goal is not None
        arrived = self._sent(tensor, goal, waits)
        return self.__torch_function__(torch.Tensor.to, (), (arrived, *args[1:]), rest) if args[1:] or rest else arrived

    def _sent(self, tensor: torch.Tensor, device: int, waits: bool) -> torch.Tensor:
        there, stream = self._copied(tensor, device), self.stream(device)
        target, address, length = _at(there.data_ptr(), there.nbytes), tensor.data_ptr(), tensor.nbytes
        pinned = self._holds(address, length, None) is not None
        data = target.copy()
        target[:] = GARBAGE
        if not pinned:
            self.uploaded[device] += length

        def work(held: Any = there) -> None:
            if pinned and self._holds(address, length, None) is None:
                self.faults.append(f"{length} bytes of pinned memory were freed before they were copied")
                return
            target[:] = _at(address, length) if pinned else data

        if length:
            stream.put(work)
        if waits:
            stream.run()
        return there

    # ---- memory

    def _copied(self, tensor: torch.Tensor, device: int | None) -> torch.Tensor:
        """The same values in memory of a device (None: in pinned memory), densely, in the same order of axes."""
        plain = tensor.clone(memory_format=torch.preserve_format)
        region = np.empty(max(1, plain.nbytes), np.uint8)
        start = region.ctypes.data
        self._regions[start] = len(region), device, weakref.ref(region)
        weakref.finalize(region, self._regions.pop, start).atexit = False
        self._users[start] = set() if device is None else {self.stream(device).cuda_stream}
        flat = torch.from_numpy(region)[: plain.nbytes].view(plain.dtype)
        return flat.as_strided(plain.shape, plain.stride()).copy_(plain)

    def _kept(self, value: Any, device: int) -> Any:
        """A result, in the memory of its device."""
        if not isinstance(value, torch.Tensor) or self._device(value) == device:
            return value
        return self._copied(value, device)

    def _holds(self, address: int, length: int, device: int | None) -> np.ndarray | None:
        """The memory of a device in which these bytes lie."""
        for start, (size, on, memory) in list(self._regions.items()):
            if on == device and start <= address and address + length <= start + size:
                return memory()
        return None

    def _device(self, tensor: torch.Tensor) -> int | None:
        start = tensor.untyped_storage().data_ptr()
        return self._regions[start][1] if start in self._regions else None


def _at(address: int, length: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * length).from_address(address)) if length else np.empty(0, np.uint8)
