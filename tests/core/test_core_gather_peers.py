"""Batches of raw images against torch and torchvision, as second references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop

from pydt import _core


@pytest.mark.parametrize(("short", "bits"), [("float16", torch.float16), ("uint16", torch.bfloat16)])
@pytest.mark.parametrize("std", [1e-9, 1e-4, 0.3, 1e3, 1e6, 1e30])
@pytest.mark.parametrize("width", [1, 32])
def test_short_types_round_to_nearest_even(short: str, bits: torch.dtype, std: float, width: int) -> None:
    """Every byte, in the ranges of infinity, normal numbers, subnormal numbers and zero of float16."""
    images = np.arange(256, dtype=np.uint8).reshape(-1, 1, width, 1)
    index = np.arange(len(images))
    mean, deviation = np.full(1, 0.37, np.float32), np.full(1, std, np.float32)
    shape = (len(images), 1, 1, width)
    exact, rounded = np.full(shape, np.nan, np.float32), np.full(shape, 0x7FFF, np.uint16).view(short)
    for out in (exact, rounded):
        _core.gather(images, index, index, out, mean, deviation, 0, False, 0, 0, 1)
    peer = torch.from_numpy(exact).to(bits).view(torch.int16).numpy()
    np.testing.assert_array_equal(rounded.view(np.int16), peer)


def test_windows_have_the_distribution_of_torchvisions() -> None:
    """Pixels are their row and their column, so the corners of the output are those of the window."""
    count, side = 2000, 40
    ramp = np.arange(side, dtype=np.uint8)
    images = np.stack([np.repeat(ramp[:, None], side, 1), np.repeat(ramp[None], side, 0)], axis=2)[None]
    zero, one = np.zeros(2, np.float32), np.full(2, 1 / 255, np.float32)
    out = np.full((count, 2, side, side), np.nan, np.float32)
    index, crop = np.zeros(count, np.int64), {"scale": (0.08, 1), "ratio": (3 / 4, 4 / 3)}
    _core.gather(images, index, np.arange(count), out, zero, one, 0, False, 1, 0, 1, **crop)
    top, bottom, left, right = out[:, 0, 0, 0], out[:, 0, -1, 0], out[:, 1, 0, 0], out[:, 1, 0, -1]
    ours = np.rint([top, left, bottom - top + 1, right - left + 1])
    torch.manual_seed(0)
    transform = RandomResizedCrop(side)
    peer = [transform.make_params([torch.empty(1, side, side)]) for _ in range(count)]
    theirs = np.array([[p[name] for p in peer] for name in ("top", "left", "height", "width")])
    for a, b in zip(ours, theirs, strict=True):
        grid = np.arange(side + 2)
        distance = abs(np.searchsorted(np.sort(a), grid) - np.searchsorted(np.sort(b), grid)).max() / count
        assert distance < 1.95 * np.sqrt(2 / count)  # Kolmogorov-Smirnov at 0.001
