"""What becomes of images on their way into a batch, slowly and plainly in numpy and float64, from the definitions."""

from __future__ import annotations

import math
from typing import Any

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


def whole(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rounded to 0..255."""
    return np.clip(np.rint(image), 0, 255).astype(np.float64)


def halves(values: NDArray[np.float64], error: NDArray[np.float64] | float) -> NDArray[np.bool_]:
    """Which are a half to within an error."""
    return np.abs(values - np.floor(values) - 0.5) <= error


def twisted(image: NDArray[np.floating], found: dict[str, float]) -> NDArray[np.float64]:
    """Brightness, contrast about 128, saturation and hue (degrees) of an image (height, width, channels), unrounded."""
    out = image.astype(np.float64)
    if image.shape[2] == 3:
        yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
        y, i, q = np.moveaxis(out @ yiq.T, 2, 0)
        turned = (i + 1j * q) * found["saturation"] * np.exp(-1j * np.deg2rad(found["hue"]))
        out = np.linalg.solve(yiq, np.stack([y, turned.real, turned.imag]).reshape(3, -1)).T.reshape(image.shape)
    return found["brightness"] * (128 + found["contrast"] * (out - 128))


def blurred(image: NDArray[np.floating], sigma: float, window: int) -> NDArray[np.float64]:
    """A Gaussian of `window` pixels along columns and rows, unrounded; beyond its border an image goes back as it
    came.
    """
    reach = window // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    out = image.astype(np.float64)
    for axis in (0, 1):
        size = out.shape[axis]
        walk = [*range(size), *range(size - 2, 0, -1)]  # there and back, neither end twice
        lines = [
            sum(w * out.take(walk[(at + t) % len(walk)], axis) for t, w in enumerate(weights, -reach))
            for at in range(size)
        ]
        out = np.stack(lines, axis)
    return out


def operated(
    image: NDArray[np.floating], found: dict[str, Any], colour: Floats
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What was drawn for it, done to an image (height, width, channels) on the scale 0..255; and where a number is so
    near a half that an implementation may round it up or down.

    All pixels of one colour are then rounded the same way, so their number says nothing. Errors that are allowed: 1e-3
    of colours (matrices in multiples of 2^-20, float32). Of a blur to t pixels either way, all 2 t + 1 weights of an
    axis are off by 2^-21 and the middle one by 2 t more of these: 4 t 2^-21 x 255 an axis. Where its pixels may be off
    by one, too, their mean is off by the blur of these ones.
    """
    out, either = whole(image), np.zeros(image.shape, bool)
    if "hue" in found:
        exact = twisted(out, found)
        out, either = whole(exact), halves(exact, 1e-3)
    if found.get("window", 1) > 1:
        window = int(found["window"])
        exact, apart = (blurred(one, found["sigma"], window) for one in (out, either))
        out, either = whole(exact), halves(exact, 2 * 4 * (window // 2) * 2.0**-21 * 255 + apart)
    if "threshold" in found:
        out = np.where(out >= found["threshold"], 255 - out, out)
    if "anchor" in found:
        (top, left), (height, width) = np.int64(found["anchor"]), np.int64(found["shape"])
        out[top : top + height, left : left + width] = colour
        either[top : top + height, left : left + width] = False
    return out, either
