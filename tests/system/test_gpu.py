"""Whole parts of pydt on a GPU against the same on the CPU. With the device "cpu" these tests test themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pydt
from pydt import _core
from pydt.data.loading import Augment, Loader
from pydt.estimation import influence as estimate
from pydt.estimation.torch_backend import TorchBackend

no_gpu = pytest.mark.skipif(not _core.cuda_usable(), reason="no GPU code, driver or GPU of compute capability 8.0")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])])
METHODS = ("difference", "ols", "ridge", "lasso")


def problem(models: int, groups: int, targets: int) -> tuple[pydt.Design, np.ndarray]:
    masks = pydt.design.bernoulli(groups, models, seed=1)
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(groups, targets)) * (rng.random((groups, targets)) < 0.3)
    kept = np.asarray(masks).astype(float)
    return masks, (kept @ truth + rng.normal(size=(models, targets)) + 5).astype(np.float32)


def alike(found: Any, expected: Any) -> None:
    """Values within a small share of a standard error; errors and what else there is within rounding. The LASSO may
    choose a neighbouring penalty where two are nearly as good, and its values are as exact as its certificate says."""
    same, share = np.ones(expected.values.shape[1], bool), 2e-3
    if expected.method == "lasso":
        same, share = np.isclose(found.penalty, expected.penalty, rtol=1e-3), 0.1
        assert same.mean() > 0.5
        assert np.mean(np.abs(np.log(found.penalty / expected.penalty)) < 0.25) > 0.95
        assert np.all(found.gap <= 1e-4)
    np.testing.assert_array_equal(np.isnan(found.values), np.isnan(expected.values))
    most = share * np.nanmax(expected.stderr)
    for name, atol, rtol in (
        ("values", most, 0), ("unbiased", most, 0), ("stderr", 1e-6, 1e-2), ("noise", 1e-6, 1e-2), ("df", 1e-6, 1e-3)
    ):  # fmt: skip
        one, other = (np.asarray(getattr(fit, name)) for fit in (found, expected))
        if one.ndim == 2:
            one, other = one[:, same], other[:, same]
        elif one.ndim == 1:
            one, other = one[same], other[same]
        np.testing.assert_allclose(one, other, rtol, atol, err_msg=name)


@DEVICES
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_influences_of_outputs_on_a_device(method: str, dtype: torch.dtype, device: str) -> None:
    masks, y = problem(300, 20, 70)
    there = torch.from_numpy(y).to(device, dtype)
    fit = pydt.influences(masks, there, method)
    alike(fit, pydt.influences(masks, there.cpu().numpy(), method))
    assert fit.values.dtype == np.float32


@DEVICES
@pytest.mark.parametrize("how", [{"clusters": np.arange(300) // 3}, {"errors": "robust"}], ids=["clusters", "robust"])
@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
def test_influences_with_other_errors(method: str, how: dict[str, Any], device: str) -> None:
    masks, y = problem(300, 20, 70)
    alike(pydt.influences(masks, y, method, device=device, **how), pydt.influences(masks, y, method, **how))


@DEVICES
def test_broken_outputs_are_flagged_alone(device: str) -> None:
    masks, y = problem(200, 15, 66)
    y[7, 3], y[9, 65] = np.nan, np.inf
    fit = pydt.influences(masks, torch.from_numpy(y).to(device), nan="flag")
    assert np.flatnonzero(np.isnan(fit.values).any(0)).tolist() == [3, 65]
    alike(fit, pydt.influences(masks, y, nan="flag"))
    with pytest.raises(pydt.errors.EstimateError, match="outputs"):
        pydt.influences(masks, torch.from_numpy(y).to(device))


@DEVICES
@pytest.mark.parametrize("method", METHODS)
def test_outputs_stream_through_little_memory(method: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, y = problem(600, 40, 500)
    expected = pydt.influences(masks, y, method)
    most = 6_000_000  # bytes: some tiles of 64 targets
    backend = TorchBackend(torch.device(device), None, most)
    monkeypatch.setattr(estimate, "place", lambda device, outputs: backend)
    if device == "cuda":
        pydt.influences(masks, y, method)  # the vendor's libraries take memory of their own once
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    alike(pydt.influences(masks, y, method), expected)
    if device == "cuda":
        assert torch.cuda.max_memory_allocated() - before <= most


@DEVICES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "augment", [Augment(crop_pad=2, flip=True), Augment(resized_crop=((0.2, 1), (0.5, 2)), size=11)]
)
def test_batches_have_the_bits_of_the_cpu(augment: Augment, dtype: torch.dtype, device: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (53, 9, 7, 3), np.uint8)
    dataset = pydt.Dataset.from_arrays(images, np.arange(53) % 5)
    how = {"batch_size": 8, "augment": augment, "dtype": dtype, "channels_last": True, "views": 2}
    loaders = (Loader(dataset, device=name, **how) for name in (device, "cpu"))
    # all batches of the device are made before one is looked at: none may be overwritten
    for one, other in zip(*map(list, loaders), strict=True):
        assert one.images.device.type == one.labels.device.type == device
        assert torch.equal(one.images.cpu(), other.images)
        assert torch.equal(one.labels.cpu(), other.labels)
        assert torch.equal(one.index, other.index)


@pytest.mark.slow
@DEVICES
def test_two_workers_train_rows_on_one_device(
    device: str, source: pydt.Dataset, target: pydt.Target, tmp_path: Path
) -> None:
    recipe = pydt.Recipe(network="convnet-8", steps=60, batch_size=32, device=device)
    tasks = [pydt.Task(target, shots=5, draws=4)]
    plan = pydt.Plan(source, design=pydt.design.random(8, 4, alpha=0.75), recipe=recipe, tasks=tasks)
    store = pydt.run(plan, tmp_path / "store", workers=2, progress=False)
    right = [row["report_accuracy"] for row in store.scalars(tasks[0])]
    assert len(right) == 4
    assert np.mean(right) > 0.5, "chance is 0.25"
