"""Jitter, grey, blur, inversion and erasing of raw images, on the CPU or a GPU.

As DALI's operators do it with encoded images (`pydt.data.loading.dali`): the same definitions, numbers and order, and
pixels rounded to whole numbers 0..255 after each.

    colours  b (c Y^-1 H S Y x + 128 (1 - c)); Y: RGB -> YIQ, H turns (I, Q) by the hue, S scales them by the saturation
    blur     along the height, then along the width: weights exp(-t^2 / 2 sigma^2) to 3 sigma, borders mirrored without
             their own pixel (reflect-101). Products with band matrices took half the time for images of 32 pixels, but
             three times as much for 224, and their memory goes by the square of the side.

Results do not depend on the batch, the number of threads or the device: matrices and weights are rounded to multiples
of 2^-20, so that products of float64 are exact and may be summed in any order; everything else is one rounding per
number.
Cost: docs/encoded-images.md.
"""

from __future__ import annotations

import numpy as np
import torch

from pydt.data.loading.buffers import small
from pydt.data.loading.drawn import Drawn

_FINEST = 2.0**-20  # of matrices and weights; 8 bits of a pixel and twice 20 are fewer than the 53 of float64
_AT_ONCE = 1 << 18, 1 << 24  # numbers: what a cache of a CPU holds, and what keeps a GPU busy

_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])


def operate(pixels: torch.Tensor, found: Drawn, mean: np.ndarray, std: np.ndarray) -> torch.Tensor:
    """Do what `drawn` found to images (n, C, H, W), float32 on the scale 0..255, in place, and normalise them."""
    numbers = 1 / (255 * std.astype(float)), -mean / std.astype(float), 255 * mean.astype(float)
    scale, shift, grey = (small(each.astype(np.float32), pixels.device).view(-1, 1, 1) for each in numbers)
    step = max(1, _AT_ONCE[pixels.device.type != "cpu"] // pixels[0].numel())
    for start in range(0, len(pixels), step):
        part, now = pixels[start : start + step], {name: v[start : start + step] for name, v in found.items()}
        part.round_()
        if "hue" in now:
            _jitter(part, now)
        if "sigma" in now:
            _blur(part, now["sigma"], now["window"])
        if "threshold" in now:
            inverted = (part >= _each(part, now["threshold"])).float()  # several times as fast as torch.where
            part += inverted * (255 - 2 * part)
        if "anchor" in now:
            _erase(part, now["anchor"], now["shape"], grey)
        part.mul_(scale).add_(shift)
    return pixels


def _each(images: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """One float32 number per image: (n, 1, 1, 1)."""
    return small(values.astype(np.float32), images.device).view(-1, 1, 1, 1)


def _rounded(matrices: np.ndarray) -> np.ndarray:
    return np.rint(matrices / _FINEST) * _FINEST


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Products of (n, a, b) and (n, b, c), float64. On the CPU numpy's are two to three times as fast as torch's."""
    if left.device.type == "cpu":
        return torch.from_numpy(np.matmul(left.numpy(), right.numpy()))
    return torch.bmm(left, right)


def _jitter(images: torch.Tensor, found: Drawn) -> None:
    brightness, contrast = (found[name].astype(float) for name in ("brightness", "contrast"))
    factor, offset = brightness * contrast, 128 * brightness * (1 - contrast)
    if images.shape[1] != 3:
        images.mul_(_each(images, factor)).add_(_each(images, offset))
    else:
        saturation, hue = found["saturation"].astype(float), np.deg2rad(found["hue"].astype(float))
        turn = np.zeros((len(hue), 3, 3))
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = saturation * np.cos(hue)
        turn[:, 1, 2] = saturation * np.sin(hue)
        turn[:, 2, 1] = -turn[:, 1, 2]
        matrices = _rounded(factor[:, None, None] * (np.linalg.inv(_YIQ) @ turn @ _YIQ))
        mixed = _product(small(matrices, images.device), images.flatten(2).double())
        mixed += small(_rounded(offset), images.device).view(-1, 1, 1)
        images.copy_(mixed.view(images.shape))
    images.round_().clamp_(0, 255)


def _blur(images: torch.Tensor, sigma: np.ndarray, window: np.ndarray) -> None:
    some = np.flatnonzero(window > 1)
    if not len(some):
        return
    reach = window[some] // 2
    offsets = np.arange(reach.max() + 1)
    weights = np.exp(-0.5 * (offsets / sigma[some, None].astype(float)) ** 2) * (offsets <= reach[:, None])
    weights = _rounded(weights / (2 * weights.cumsum(axis=1)[:, -1:] - 1))  # not sum(): its order goes by the length
    weights[:, 0] = 1 - 2 * weights[:, 1:].sum(axis=1)  # one colour stays that colour
    taps = small(weights, images.device).view(len(some), -1, 1, 1, 1)
    place = small(some, images.device)
    blurred = _blurred(_blurred(images.index_select(0, place).double(), taps, 2), taps, 3)
    images.index_copy_(0, place, blurred.round_().float())


def _blurred(images: torch.Tensor, taps: torch.Tensor, axis: int) -> torch.Tensor:
    """Images (n, C, H, W) blurred along one axis: taps (n, reach + 1, 1, 1, 1) are weights by distance."""
    size, reach = images.shape[axis], taps.shape[1] - 1
    at, period = np.arange(-reach, size + reach), max(1, 2 * (size - 1))
    mirrored = np.minimum(at % period, -at % period)
    wide = images.index_select(axis, small(mirrored, images.device))
    found = images * taps[:, 0]
    for distance in range(1, reach + 1):
        both = wide.narrow(axis, reach - distance, size) + wide.narrow(axis, reach + distance, size)
        found.addcmul_(both, taps[:, distance])
    return found


def _erase(images: torch.Tensor, anchor: np.ndarray, shape: np.ndarray, colour: torch.Tensor) -> None:
    inside = []
    for axis in (0, 1):
        at, first = np.arange(images.shape[2 + axis]), anchor[:, axis, None]
        part = (at >= first) & (at < first + shape[:, axis, None])
        inside.append(small(part.astype(np.float32), images.device))
    erased = (inside[0][:, :, None] * inside[1][:, None, :])[:, None]
    images.mul_(1 - erased).add_(erased * colour)
