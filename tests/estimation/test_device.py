"""Regression on tensors: the code of a GPU, run on CPU tensors, against the oracles and against the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracle_estimate as oracle
import pytest
import torch

from pydt import design, influences
from pydt.base import EstimateError
from pydt.estimation import influence as estimate
from pydt.estimation.torch_backend import TorchBackend

OnTensors = Callable[..., TorchBackend]
DTYPES = (torch.float64, torch.float32)


@pytest.fixture
def on_tensors(monkeypatch: pytest.MonkeyPatch) -> OnTensors:
    """From the call on, `influences` computes on CPU tensors as on those of a GPU."""

    def turn(dtype: torch.dtype = torch.float64, memory: int | None = None) -> TorchBackend:
        backend = TorchBackend(torch.device("cpu"), dtype, memory)
        monkeypatch.setattr(estimate, "place", lambda device, outputs: backend)
        return backend

    return turn


def outputs_of(masks: Any, targets: int, r2: float = 0.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.asarray(masks).astype(float)
    truth = rng.standard_normal((x.shape[1], targets)) * (rng.random((x.shape[1], targets)) < 0.2)
    truth[0] += 1
    truth *= np.sqrt(r2) / (x @ truth).std(0)
    return x @ truth + np.sqrt(1 - r2) * rng.standard_normal((len(x), targets)) + 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_difference_and_its_errors(on_tensors: OnTensors, dtype: torch.dtype) -> None:
    made = design.bernoulli(12, 90, 0.5, seed=1)
    y = outputs_of(made, 70)
    on_tensors(dtype)
    fit = influences(made, y)
    np.testing.assert_allclose(fit.values, oracle.difference(np.asarray(made), y), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fit.stderr, oracle.difference_errors(np.asarray(made), y), rtol=1e-5)


def test_devices_that_are_not_there_are_refused_before_any_work() -> None:
    made = design.bernoulli(5, 30, 0.5, seed=1)
    y = outputs_of(made, 2)
    for device in ("mps", "cuda:x", "gpu", 0):
        with pytest.raises(EstimateError, match=r'device: .* is not one of influences\. use "cuda"'):
            influences(made, y, device=device)
    np.testing.assert_array_equal(influences(made, y, device="cpu").values, influences(made, y).values)
    if not torch.cuda.is_available():
        for name in ("cuda", "cuda:1", torch.device("cuda")):
            with pytest.raises(EstimateError, match=r"device: cuda.* on this machine"):
                influences("no masks", "no outputs", device=name)
