"""Images as data addresses."""

from __future__ import annotations

import base64
import math
import struct
import zlib

import numpy as np


def png(image: np.ndarray) -> bytes:
    """A PNG (ISO/IEC 15948, filter 0 on each line) of a uint8 image (H, W) or (H, W, 1 to 4); the last of 2 or 4 is
    alpha.
    """
    image = np.ascontiguousarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    colour = {2: 0, 3: {2: 4, 3: 2, 4: 6}.get(image.shape[-1], -1)}.get(image.ndim, -1)
    if image.dtype != np.uint8 or colour < 0 or image.size == 0:
        raise ValueError(f"image: uint8 (H, W) or (H, W, 1 to 4) is needed, not {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    lines = np.zeros((height, 1 + image[0].size), np.uint8)
    lines[:, 1:] = image.reshape(height, -1)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """The image at most `side` pixels high and wide: means of whole blocks (a border smaller than a block is cut)."""
    block = math.ceil(max(image.shape[:2]) / side)
    height, width = max(1, image.shape[0] // block), max(1, image.shape[1] // block)
    if block == 1:
        return image
    image = image[: height * block, : width * block]
    rows = np.add.reduceat(image.astype(np.float64), np.arange(0, image.shape[0], block), axis=0)
    sums = np.add.reduceat(rows, np.arange(0, image.shape[1], block), axis=1)
    area = min(block, image.shape[0]) * min(block, image.shape[1])
    return np.clip(np.rint(sums / area), 0, 255).astype(np.uint8)


def data_uri(image: np.ndarray, side: int) -> str:
    """The shrunken image as a data: address."""
    return "data:image/png;base64," + base64.b64encode(png(shrink(image, side))).decode()
