"""Devices, as a GPU would be asked for them."""

from __future__ import annotations

import pytest
import torch

from pydt.base import GPU_SHARE, ConfigError
from pydt.training import Recipe
from pydt.training.device import device_of


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """What PyTorch is told of memory: share, device; of two GPUs the second is the current one."""
    told: list[tuple[float, int]] = []
    monkeypatch.delenv(GPU_SHARE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, on: told.append((share, on)))
    return told


def test_a_worker_takes_no_more_than_its_share_of_a_gpu(
    taken: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device_of("cuda") == torch.device("cuda")
    assert taken == []
    monkeypatch.setenv(GPU_SHARE, "0.2250")
    assert device_of("cpu") == torch.device("cpu")
    assert taken == []
    device_of("cuda")
    device_of("cuda:0")
    assert taken == [(0.225, 1), (0.225, 0)]


@pytest.mark.parametrize("device", ["mps", "meta", "gpu", "cuda:x", "cuda:", "cpu:0", 0, None])
def test_a_recipe_is_for_a_cpu_or_for_cuda(device: object) -> None:
    with pytest.raises(ConfigError, match=r"Recipe.device: no device .*use .cpu., .cuda. or .cuda:N."):
        Recipe(device=device)  # type: ignore[arg-type]


def test_a_device_of_torch_is_one_by_its_name() -> None:
    for name in ("cpu", "cuda:1"):
        assert Recipe(device=torch.device(name)).digest == Recipe(device=name).digest  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_refused(taken: list[tuple[float, int]]) -> None:
    with pytest.raises(ConfigError, match=r"Recipe.device 'cuda:2': there are 2 CUDA devices"):
        device_of("cuda:2")
