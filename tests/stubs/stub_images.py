"""Images that a network learns in seconds."""

from __future__ import annotations

import numpy as np


def blobs(each: int, classes: int, seed: int, size: int = 12, noise: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """Grey images whose class is the place of a bright square: learnable in seconds. uint8 (n, size, size), int64
    (n,).
    """
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    images = random.normal(60, noise, (len(labels), size, size))
    for image, label in zip(images, labels, strict=True):
        y, x = divmod(int(label), 4)
        top, left = 3 * y + random.integers(0, 2), 3 * x
        image[top : top + 3, left : left + 3] += 120
    return np.clip(images, 0, 255).astype(np.uint8), labels
