"""Images as data addresses."""

from __future__ import annotations

import base64
import io
import math

import numpy as np


def png(image: np.ndarray) -> bytes:
    """A PNG of a uint8 image (H, W) or (H, W, 1 to 4); the last of 2 or 4 channels is alpha."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(stream, "PNG")
    return stream.getvalue()


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """The image at most `side` pixels high and wide: means of whole blocks (a border smaller than a block is cut).

    Pillow's `Image.reduce` rounds otherwise and weighs colours by their alpha.
    """
    block = math.ceil(max(image.shape[:2]) / side)
    if block == 1:
        return image
    down, across = (min(block, length) for length in image.shape[:2])
    height, width = image.shape[0] // down, image.shape[1] // across
    blocks = image[: height * down, : width * across].reshape(height, down, width, across, *image.shape[2:])
    return np.rint(blocks.mean((1, 3))).astype(np.uint8)


def data_uri(image: np.ndarray, side: int) -> str:
    """The shrunken image as a data: address."""
    return "data:image/png;base64," + base64.b64encode(png(shrink(image, side))).decode()
