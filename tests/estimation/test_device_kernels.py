"""Regression on tensors with the kernels of the GPU in it, which tools/emulate compiles for this CPU, agrees with array
code alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from stub_device import EMULATED, emulated

from pydt import design, influences
from pydt.estimation import influence as estimate
from pydt.estimation.tensor_lasso import lasso_path
from pydt.estimation.torch_backend import TorchBackend

pytestmark = pytest.mark.skipif(not EMULATED, reason="tools/emulate runs these")
MASKS = design.bernoulli(11, 120, 0.4, seed=1)


@pytest.fixture
def kernels() -> Iterator[Any]:
    """The kernels; they accept the memory of CPU tensors. No type of an array whose address they get may go by torch's
    default."""
    assert emulated
    emulated.core.accept_any_memory(True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield emulated.core
    torch.set_default_dtype(before)
    emulated.core.accept_any_memory(False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_paths(kernels: Any, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    parts = []
    for rows in (90, 30):
        x = rng.random((rows, 12)) - 0.5
        y = x[:, :3] @ rng.normal(size=(3, 35)) + 0.3 * rng.normal(size=(rows, 35))
        parts += [torch.tensor(part) for part in (x.T @ x, x.T @ y, (y**2).sum(0))]
    parts[1], parts[4] = parts[1].to(dtype), parts[4].to(dtype)
    calls = 0

    def fused(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        at, name = [one.data_ptr() for one in arguments[:7]], str(dtype)[6:]
        assert all(one.is_contiguous() for one in arguments[:7])
        kernels.cuda_proximal_step(*at, *arguments[0].shape, *arguments[7:], name, 0)

    how = {"l1_ratio": 0.9, "tolerance": 1e-6, "patience": 3, "held_rows": 30}
    steps = np.geomspace(1, 0.05, 8)
    near = 1e-8 if dtype == torch.float64 else 1e-3
    for one, other in zip(lasso_path(*parts, steps, **how, step=fused), lasso_path(*parts, steps, **how), strict=True):
        torch.testing.assert_close(one, other, rtol=near, atol=near)
    assert calls > 8


@pytest.mark.parametrize("estimator", ["difference", "ols"])
def test_influences(kernels: Any, monkeypatch: pytest.MonkeyPatch, estimator: Any) -> None:
    rng = np.random.default_rng(0)
    outputs = (np.asarray(MASKS).astype(float) @ rng.normal(size=(11, 70)) + rng.normal(size=(120, 70))).astype("f4")
    fits = []
    for module in (None, kernels):
        backend = TorchBackend(torch.device("cpu"), torch.float64)
        backend.kernels = module
        monkeypatch.setattr(estimate, "place", lambda device, outputs, backend=backend: backend)
        fits.append(influences(MASKS, outputs, estimator))
    for name in ("values", "stderr", "noise", "df"):
        one, other = (getattr(fit, name) for fit in fits)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=name)
