"""The kernels of the GPU, on a GPU and on the CPU through tests/emulation: batches have the bits of the CPU's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pydt import _core

pytest_plugins = ["stub_device"]


SHAPES = [(4, 28, 28, 1), (3, 32, 33, 3), (3, 5, 3, 4), (2, 31, 9, 4), (1, 1, 1, 1)]
DTYPES = ["float32", "float16", "bfloat16"]


@pytest.mark.parametrize("crop", ["shift", "resized", "central"])
@pytest.mark.parametrize(
    ("shape", "dtype", "channels_last"),
    [(shape, DTYPES[(at + last) % 3], last == 1) for at, shape in enumerate(SHAPES) for last in (0, 1)],
)
def test_gather(device: Any, shape: tuple[int, int, int, int], dtype: str, channels_last: bool, crop: str) -> None:
    """Odd sizes, one image, one and four channels; each type and each layout with each crop."""
    rng = np.random.default_rng(0)
    count, height, width, channels = 5, *shape[1:]
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    index, ids = rng.integers(0, shape[0], count), rng.integers(0, 2**40, count)
    mean, std = rng.random(channels, dtype=np.float32), rng.random(channels, dtype=np.float32) + np.float32(0.3)
    rows, columns = (height, width) if crop == "shift" else (17, 23)
    window = {"scale": (0.08, 1.0), "ratio": (0.75, 4 / 3)} if crop == "resized" else {}
    pad = 4 if crop == "shift" else 0
    size = (count, rows, columns, channels) if channels_last else (count, channels, rows, columns)
    out = np.empty(size, np.uint16 if dtype == "bfloat16" else dtype)
    there, result = device.put(images), device.put(np.full_like(out, 7))
    for view in (0, 1):
        transposed = out.transpose(0, 3, 1, 2) if channels_last else out
        how = (mean, std, pad, True, 5, 6)
        _core.gather(images, index, ids, transposed, *how, 1, view, **window)
        place = (result.address, (rows, columns), dtype, channels_last)
        device.core.cuda_gather(there.address, shape, index, ids, *place, *how, device.stream, view, **window)
        np.testing.assert_array_equal(result.get().view(np.uint8), out.view(np.uint8))


def test_gather_of_nothing(device: Any) -> None:
    none, one = np.zeros(0, np.int64), np.ones(1, np.float32)
    out = device.put(np.full(3, 7.0, np.float32))
    there = device.put(np.zeros((1, 4, 4, 1), np.uint8))
    place = (out.address, (4, 4), "float32", False)
    device.core.cuda_gather(there.address, (1, 4, 4, 1), none, none, *place, one, one, 0, False, 0, 0, device.stream)
    np.testing.assert_array_equal(out.get(), 7)


def test_gather_refuses_what_is_not_there(device: Any) -> None:
    there, out = device.put(np.zeros((3, 4, 4, 1), np.uint8)), device.put(np.zeros((1, 1, 4, 4), np.float32))
    index, one = np.array([3]), np.ones(1, np.float32)
    place = (out.address, (4, 4), "float32", False)
    with pytest.raises(ValueError, match=r"^index: position 0 is 3"):
        device.core.cuda_gather(there.address, (3, 4, 4, 1), index, index, *place, one, one, 0, False, 0, 0, 0)
