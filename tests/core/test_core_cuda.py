"""Batches and the Gram matrix from the GPU have the bits of the CPU's; its float64 sums agree within rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydt import _core

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not _core.cuda_built(), reason="this build has no GPU code"),
    pytest.mark.skipif(not _core.cuda_usable(), reason="no driver, or no GPU of compute capability 8.0 or newer"),
]


def on_device(array: NDArray[Any]) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).cuda()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("crop", ["shift", "resized", "central"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(20, 28, 28, 1), (20, 32, 32, 3), (20, 5, 3, 4), (20, 1, 1, 1)])
def test_gather(shape: tuple[int, int, int, int], channels_last: bool, crop: str, dtype: str) -> None:
    import torch

    rng = np.random.default_rng(0)
    count, height, width, channels = 67, *shape[1:]
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    index, ids = rng.integers(0, 20, count), rng.integers(0, 2**40, count)
    mean, std = rng.random(channels, dtype=np.float32), rng.random(channels, dtype=np.float32) + np.float32(0.3)
    rows, columns = (height, width) if crop == "shift" else (17, 23)
    window = {"scale": (0.08, 1.0), "ratio": (0.75, 4 / 3)} if crop == "resized" else {}
    pad = 4 if crop == "shift" else 0
    size = (count, rows, columns, channels) if channels_last else (count, channels, rows, columns)
    out = np.empty(size, np.uint16 if dtype == "bfloat16" else dtype)
    device_images = on_device(images)
    device_out = torch.empty(size, device="cuda", dtype=getattr(torch, dtype))
    for view in (0, 1):
        transposed = out.transpose(0, 3, 1, 2) if channels_last else out
        _core.gather(images, index, ids, transposed, mean, std, pad, True, 5, 6, 1, view, **window)
        _core.cuda_gather(
            device_images.data_ptr(),
            shape,
            index,
            ids,
            device_out.data_ptr(),
            (rows, columns),
            dtype,
            channels_last,
            mean,
            std,
            pad,
            True,
            5,
            6,
            torch.cuda.current_stream().cuda_stream,
            view,
            **window,
        )
        bits = device_out.view(torch.uint8).cpu().numpy()
        np.testing.assert_array_equal(bits, out.view(np.uint8))


def test_gather_refuses_what_is_not_there() -> None:
    images = on_device(np.zeros((3, 4, 4, 1), np.uint8))
    out = on_device(np.zeros((1, 1, 4, 4), np.float32))
    one = np.ones(1, np.float32)
    index, shape = np.array([3]), (3, 4, 4, 1)
    with pytest.raises(ValueError, match=r"^index: position 0 is 3"):
        _core.cuda_gather(
            images.data_ptr(),
            shape,
            index,
            index,
            out.data_ptr(),
            (4, 4),
            "float32",
            False,
            one,
            one,
            0,
            False,
            0,
            0,
            0,
        )


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (65, 17), (1290, 130)])
def test_gram(rows: int, groups: int) -> None:
    import torch

    packed = _core.pack(np.random.default_rng(0).random((rows, groups)) < 0.4)
    device, out = on_device(packed), torch.empty((groups, groups), dtype=torch.int64, device="cuda")
    _core.cuda_gram(device.data_ptr(), rows, groups, out.data_ptr(), torch.cuda.current_stream().cuda_stream)
    np.testing.assert_array_equal(out.cpu().numpy(), _core.gram(packed, groups, 1))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("rows", "groups", "cols"), [(1, 1, 1), (65, 17, 33), (1290, 130, 70)])
def test_subset_sums(rows: int, groups: int, cols: int, dtype: str) -> None:
    import torch

    rng = np.random.default_rng(0)
    packed = _core.pack(rng.random((rows, groups)) < 0.4)
    outputs, shift = rng.normal(size=(rows, cols)).astype(dtype), rng.normal(size=cols)
    for view in (outputs, np.asfortranarray(outputs)):
        device = on_device(view.T).T if view.flags.f_contiguous else on_device(view)
        masks, origin = on_device(packed), on_device(shift)
        out = torch.empty((groups, cols), dtype=torch.float64, device="cuda")
        strides = [s * device.element_size() for s in device.stride()]
        stream = torch.cuda.current_stream().cuda_stream
        _core.cuda_subset_sums(
            masks.data_ptr(),
            rows,
            groups,
            device.data_ptr(),
            cols,
            dtype,
            *strides,
            origin.data_ptr(),
            out.data_ptr(),
            stream,
        )
        sums = _core.subset_sums(_core.codes(packed, groups), outputs, shift, 1)
        step = (2**-52 if dtype == "float64" else 2**-24) * np.abs(outputs.astype(np.float64) - shift).sum(axis=0)
        assert (np.abs(out.cpu().numpy() - sums) <= 80 * step).all()
