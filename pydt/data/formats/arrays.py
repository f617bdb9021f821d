"""Raw images in one array."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import UNNAMED, DataError, open_npy
from pydt.data.index_file import Noted
from pydt.data.labels import Classes, encode_labels
from pydt.data.pixels import colour, counted, on_background
from pydt.data.table import ExampleTable, finished


def read(
    images: np.ndarray | str | os.PathLike[str],
    labels: Any,
    classes: Classes | None = None,
    *,
    columns: Any = None,
    captions: Any = None,
    background: str | None = None,
    name: str = UNNAMED,
) -> ExampleTable:
    """A data set over an array of raw images. Nothing is copied, unless the array is not in C order, or
    `background` is given.

    Args:
        images: uint8 (examples, height, width) or (examples, height, width, channels), channels 1 to 4; an array, a
            memory map, or the path of a `.npy` file, which is then memory-mapped.
        labels: (examples,) integers or strings, in a list, an array, a tensor, or a column of pandas, polars or
            Arrow. Without `classes`, the classes are the distinct labels, sorted. `pydt.data.labels` has the rules for
            equal and missing labels.
        classes: names of the classes in the order of their numbers, {number: name} or {name: number}; labels must
            then be these numbers, or these names.
        columns: further group columns, name -> (examples,) integers or strings, or a table; a missing value (None, NaN,
            pandas' NA, "") or -1 puts an example in no group.
        captions: one text per example; one that is missing (None, NaN, NA) is "", with a warning that counts them.
        background: None: networks see every channel of `images`. A colour (see `from_folder`): the last of 2 or 4
            channels is alpha, 255 being opaque, and the images are kept as RGB on this background.
        name: how reports call this data set.

    Raises:
        DataError: shapes, types, labels or images do not fit together; the text names the place.
    """
    array = as_images(images)
    codes, names = encode_labels(labels, classes, len(array))
    noted: Noted = {}
    if background is not None:
        array, traits = on_background(array, background)
        noted = counted(traits, colour(background), [str(i) for i in range(len(array))])
    table = ExampleTable(array, None, np.arange(len(array)), codes, names, name=name, noted=noted)
    return finished(table, columns, captions)


def is_here(place: Path) -> bool:
    """Whether a path is a `.npy` file, by its name."""
    return place.suffix == ".npy"


def look(place: Path, background: str) -> ExampleTable:
    """The images of a `.npy` file, all of one class."""
    images = as_images(place)
    return read(images, np.zeros(len(images), np.int64), ["all"], name=place.name)


def as_images(images: Any) -> np.ndarray:
    """uint8 (examples, height, width, channels) in C order over an array, a memory map, or the path of a `.npy`."""
    if isinstance(images, (str, os.PathLike)):
        images = open_npy(images)
    try:
        array = np.asanyarray(images.detach().cpu() if hasattr(images, "detach") else images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"do not form one array ({error})", "images", "give images of one shape: resize them, or use from_folder"
        ) from error
    if array.dtype != np.uint8:
        mend = "convert to 0..255: numpy.asarray(images * 255).round().astype('uint8') if they are 0..1"
        raise DataError(f"dtype {array.dtype}, not uint8", "images", mend)
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
