"""Devices that run the GPU code: a GPU, or this CPU through tests/emulation. Memory is bytes at an address."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydt import _core


class Memory:
    """An array on a device. `read` copies its bytes to the host, `write` to the device."""

    def __init__(self, address: int, like: NDArray[Any], read: Callable[[], NDArray[Any]]) -> None:
        self.address, self._like, self._read = address, like, read

    def get(self) -> NDArray[Any]:
        return self._read().view(self._like.dtype).reshape(self._like.shape)


class Gpu:
    """The first GPU, its memory through torch."""

    core: Any = _core

    @property
    def stream(self) -> int:
        import torch

        return int(torch.cuda.current_stream().cuda_stream)

    def put(self, array: NDArray[Any]) -> Memory:
        import torch

        held = torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).cuda()
        return Memory(held.data_ptr(), array, lambda: held.cpu().numpy())


class Emulated:
    """The kernels as tests/emulation/emulate.py compiled them; every array is an allocation of its exact size."""

    stream = 0

    def __init__(self, module: str) -> None:
        found = importlib.util.spec_from_file_location("_emulated", module)
        assert found
        assert found.loader
        self.core: Any = importlib.util.module_from_spec(found)
        found.loader.exec_module(self.core)
        self._addresses: list[int] = []

    def put(self, array: NDArray[Any]) -> Memory:
        dense = np.ascontiguousarray(array)
        address = self.core.allocate(dense.nbytes)
        self._addresses.append(address)
        ctypes.memmove(address, dense.ctypes.data, dense.nbytes)
        return Memory(address, dense, lambda: np.frombuffer(ctypes.string_at(address, dense.nbytes), np.uint8))

    def clear(self) -> None:
        for address in self._addresses:
            self.core.release(address)
        self._addresses.clear()


EMULATED = os.environ.get("PYDT_EMULATED")
emulated = Emulated(EMULATED) if EMULATED else None


@pytest.fixture(
    params=[
        pytest.param(
            "gpu",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not _core.cuda_built(), reason="this build has no GPU code"),
                pytest.mark.skipif(not _core.cuda_usable(), reason="no driver, or no GPU of compute capability 8.0"),
            ],
        ),
        pytest.param("emulated", marks=pytest.mark.skipif(not EMULATED, reason="tools/emulate runs these")),
    ]
)
def device(request: pytest.FixtureRequest) -> Any:
    """A device of each kind that is here: `core` has the functions cuda_*, `put` copies an array to it."""
    if request.param == "gpu":
        yield Gpu()
        return
    assert emulated
    yield emulated
    emulated.clear()
