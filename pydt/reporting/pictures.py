"""Images as data addresses."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pydt.reporting.text import legible

_COARSE = 48  # smaller images are shown enlarged, with their pixels


def png(image: np.ndarray) -> bytes:
    """A PNG of a uint8 image (H, W) or (H, W, 1 to 4); the last of 2 or 4 channels is alpha."""
    return _encoded(image, "PNG")


def _encoded(image: np.ndarray, kind: str, **settings: int) -> bytes:
    """The file of an image."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(stream, kind, **settings)
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


def inlined(images: Sequence[np.ndarray] | np.ndarray, side: int, places: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What `pictures.html.j2` needs of pictures: address, place, and whether its pixels are to be seen."""
    found: list[dict[str, Any]] = []
    for i, image in enumerate(map(np.asarray, images)):
        place = legible(places[i], 200) if i < len(places) else ""
        found.append({"uri": data_uri(image, side), "place": place, "small": max(image.shape[:2]) < _COARSE})
    return found


def data_uri(image: np.ndarray, side: int) -> str:
    """The shrunken image as a data: address: a PNG, or a JPEG if that has less than half of the bytes."""
    small = shrink(image, side)
    data, kind = png(small), "png"
    if small.shape[2:] in ((), (1,), (3,)) and len(coarse := _encoded(small, "JPEG", quality=85)) < len(data) / 2:
        data, kind = coarse, "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
