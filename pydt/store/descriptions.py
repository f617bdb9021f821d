"""Files that describe a task's target examples (tasks/) and a source's groups in pictures (thumbnails/), checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pydt.base import StoreError, load

HALVES = {"score": 0, "report": 1}
PARTS = {**HALVES, "validation": 2}
"""The numbers of column "half": a trial of a learning rate has validation examples alone."""


def described(path: Path) -> dict[str, np.ndarray]:
    """The target examples that a file of tasks/ describes, all (examples,): "half" uint8, "labels", "ids", numbers.

    Raises:
        StoreError: it is damaged. FileNotFoundError: it is not there.
    """
    arrays, metadata = load(path)
    wrong = next((name for name in ("half", "labels", "ids") if name not in arrays), None)
    if wrong is not None or metadata.get("task") != path.stem or any(a.ndim != 1 for a in arrays.values()):
        raise StoreError("is damaged (not the examples of one task)", str(path))
    half, labels, weights = arrays["half"], arrays["labels"], arrays.get("weights", np.ones(1))
    whole = {half.dtype.kind, labels.dtype.kind, arrays["ids"].dtype.kind} <= set("iu")
    numbers = whole and labels.min(initial=0) >= 0 and weights.dtype.kind == "f" and np.isfinite(weights).all()
    if len({len(a) for a in arrays.values()}) > 1 or not len(half) or not numbers or half.max() > max(PARTS.values()):
        raise StoreError("is damaged (not the examples of one task)", str(path))
    return arrays


def pictures(path: Path) -> dict[str, np.ndarray]:
    """The images that a file of thumbnails/ holds, uint8 (n, height, width, channels) by number of their group.

    Raises:
        StoreError: it is damaged. FileNotFoundError: it is not there.
    """
    arrays = load(path)[0]
    for name, images in arrays.items():
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape or images.shape[3] not in (1, 3):
            raise StoreError(f"is damaged (images of {name!r}: {images.dtype}, shape {images.shape})", str(path))
    return arrays
