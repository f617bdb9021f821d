"""Which device computes: that of the outputs, or the one asked for."""

from __future__ import annotations

from typing import Any

from pydt.base import EstimateError
from pydt.estimation.backend import HOST, Host

_SINGLE = ("float16", "float32", "torch.float16", "torch.bfloat16", "torch.float32")
MEND = 'use "cuda" or "cuda:1" for a GPU, "cpu", or leave it out to compute where the outputs are'


def place(device: Any, outputs: Any) -> Host:
    """The backend for `influences(device=)`; raises where there is no such device."""
    there = str(getattr(outputs, "device", "cpu"))
    there = there if there.startswith("cuda") else "cpu"
    kind, _, index = (there if device is None else str(device)).partition(":")
    if kind == "cpu":
        return HOST
    if kind != "cuda" or (index and not index.isdecimal()):
        raise EstimateError(f"{device!r} is not one of influences", "device", MEND)
    from pydt.estimation.torch_backend import find_gpu  # here alone: it imports torch

    single = str(getattr(outputs, "dtype", "")) in _SINGLE
    return find_gpu(int(index) if index else None, None if there == "cpu" else there, not single)
