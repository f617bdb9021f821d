"""What becomes of images on their way into a batch, slowly and plainly in numpy and float64, from the definitions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from oracle_core import MASK32, Floats, philox4x32_10

Pair = tuple[float, float]


def words(seed: int, stream: int, number: int) -> list[int]:
    """The four words of an example in a stream."""
    number &= 2**64 - 1
    return philox4x32_10([number & MASK32, number >> 32, stream & MASK32, stream >> 32], [seed & MASK32, seed >> 32])


def place(seed: int, epoch: int, number: int, crop_pad: int, view: int = 0) -> tuple[int, int, bool]:
    """(top, left, mirrored) of the crop window in the padded image."""
    low, high, _, _ = words(seed, epoch << 8 | (2, 31)[view], number)
    n = 2 * crop_pad + 1
    return low * n >> 32, (high >> 1) * n >> 31, bool(high & 1)


def central(height: int, width: int, ratio: Pair) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest window in the middle whose width / height is allowed."""
    tall, wide = height, width
    if width < ratio[0] * height:
        tall = min(max(round(width / ratio[0]), 1), height)
    elif width > ratio[1] * height:
        wide = min(max(round(height * ratio[1]), 1), width)
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def resized_window(
    seed: int, epoch: int, number: int, view: int, height: int, width: int, scale: Pair, ratio: Pair
) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop.get_params, its random numbers being ours."""
    for turn in range(10):
        area, aspect, y, x = words(seed, epoch << 8 | (16, 32)[view] + turn, number)
        target = height * width * (scale[0] + (scale[1] - scale[0]) * area / 2**32)
        logs = math.log(ratio[0]), math.log(ratio[1])
        shape = math.exp(logs[0] + (logs[1] - logs[0]) * aspect / 2**32)
        wide, tall = round(math.sqrt(target * shape)), round(math.sqrt(target / shape))
        if 0 < wide <= width and 0 < tall <= height:
            return y * (height - tall + 1) >> 32, x * (width - wide + 1) >> 32, tall, wide
    return central(height, width, ratio)


def resize(image: NDArray[np.floating], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear, pixels centred at halves, not antialiased; image (height, width, channels)."""

    def matrix(count: int, size: int) -> NDArray[np.float64]:
        at = np.clip((np.arange(count) + 0.5) * size / count - 0.5, 0, size - 1)
        return np.maximum(0, 1 - abs(at[:, None] - np.arange(size)))

    across = np.einsum("xj,ijc->ixc", matrix(width, image.shape[1]), image)
    return np.einsum("yi,ixc->yxc", matrix(height, image.shape[0]), across)


def gather(
    images: NDArray[np.uint8],
    index: NDArray[np.int64],
    ids: NDArray[np.int64],
    mean: Floats,
    std: Floats,
    crop_pad: int,
    flip: bool,
    seed: int,
    epoch: int,
    view: int = 0,
    size: tuple[int, int] | None = None,
    scale: Pair | None = None,
    ratio: Pair | None = None,
) -> NDArray[np.float64]:
    """(batch, channels, height, width) before it is rounded to the type of the batch."""
    _, height, width, channels = images.shape
    rows, columns = size or (height, width)
    out = np.empty((len(index), channels, rows, columns))
    for b, number in enumerate(ids.tolist()):
        y, x, mirrored = place(seed, epoch, number, crop_pad, view)
        if scale is not None and ratio is not None:
            top, left, tall, wide = resized_window(seed, epoch, number, view, height, width, scale, ratio)
            window = resize(images[index[b]][top : top + tall, left : left + wide].astype(float), rows, columns)
        elif (rows, columns) != (height, width):
            top, left, tall, wide = central(height, width, (columns / rows, columns / rows))
            window = resize(images[index[b]][top : top + tall, left : left + wide].astype(float), rows, columns)
        else:
            padded = np.pad(images[index[b]], ((crop_pad, crop_pad), (crop_pad, crop_pad), (0, 0)))
            window = padded[y : y + height, x : x + width].astype(float)
        if flip and mirrored:
            window = window[:, ::-1]
        out[b] = ((window / 255.0 - mean.astype(np.float64)) / std.astype(np.float64)).transpose(2, 0, 1)
    return out
