"""From what a user hands over to what a data set holds: whole numbers, images, mapped files, digests."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pydt.base import DataError, open_npy


def as_images(images: Any) -> np.ndarray:
    """uint8 (examples, height, width, channels) in C order over what was given: an array, a memory map, a `.npy` path.

    Raises:
        DataError: it is ragged, not uint8, not of 3 or 4 dimensions, or empty.
    """
    if isinstance(images, (str, os.PathLike)):
        images = open_npy(images)
    try:
        array = np.asanyarray(images.detach().cpu() if hasattr(images, "detach") else images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"do not form one array ({error})", "images", "give images of one shape: resize them, or use from_folder"
        ) from error
    if array.dtype != np.uint8:
        raise DataError(
            f"dtype {array.dtype}, not uint8",
            "images",
            "convert to 0..255: numpy.asarray(images * 255).round().astype('uint8') if they are 0..1",
        )
    if array.ndim not in (3, 4) or (array.ndim == 4 and not 1 <= array.shape[3] <= 4):
        mend = "give (examples, height, width) or (examples, height, width, channels)"
        if array.ndim == 4 and 1 <= array.shape[1] <= 4:
            mend += ": numpy.moveaxis(numpy.asarray(images), 1, 3) puts the channels last"
        raise DataError(f"shape {array.shape}", "images", mend)
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if 0 in array.shape:
        raise DataError(f"no pixels: shape {array.shape}", "images", "give at least one image of at least one pixel")
    # The core reads whole images in C order; anything else is copied once, here.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)
