"""Data sets of other libraries: torchvision's and Hugging Face's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from pydt.errors import DataError


def class_names(names: Any) -> tuple[str, ...] | None:
    """Class names as texts; several names of one class (as ImageNet's) are joined by commas."""
    if names is None:
        return None
    return tuple(", ".join(map(str, name)) if isinstance(name, (tuple, list)) else str(name) for name in names)


def stack(items: Iterable[tuple[Any, Any]], title: str) -> tuple[np.ndarray, list[Any]]:
    """(image, label) pairs as one uint8 array (n, height, width[, channels]) and the labels.

    Raises:
        DataError: there is none, or an image is not uint8 or of another shape than the first.
    """
    images: list[np.ndarray] = []
    labels = []
    for position, (image, label) in enumerate(items):
        # As torchvision's default loader does; the bytes of a palette image are numbers of colours, not colours.
        pixels = np.asarray(image.convert("RGB") if getattr(image, "mode", "L") != "L" else image)
        where = f"{title}[{position}]"
        if pixels.dtype != np.uint8:
            raise DataError(f"image of dtype {pixels.dtype}", where, "remove the transform, so that images stay uint8")
        if images and pixels.shape != images[0].shape:
            raise DataError(
                f"image of shape {pixels.shape} after {images[0].shape}",
                where,
                "resize all images to one shape, or save them as files and use Dataset.from_folder",
            )
        images.append(pixels)
        labels.append(label)
    if not images:
        raise DataError("has no images", title, "give at least one")
    return np.stack(images), labels


def pairs(dataset: Any, title: str) -> Iterator[tuple[Any, Any]]:
    """The (image, label) items of anything with a length."""
    for position in range(len(dataset)):
        try:
            image, label = dataset[position]
        except (TypeError, ValueError) as error:
            raise DataError(
                "item is not an (image, label) pair", f"{title}[{position}]", "wrap the data set"
            ) from error
        yield image, label


def hugging_face(dataset: Any, split: str) -> Any:
    """The data set itself, or the one of that name (or in that folder) as the `datasets` package loads it.

    Raises:
        DataError: the package is missing, cannot load the data set, or what was given is none or a stream.
    """
    if not isinstance(dataset, (str, os.PathLike)):
        if hasattr(dataset, "features") and hasattr(dataset, "__len__"):
            return dataset
        mend = f"give one split, loaded and not streamed: load_dataset(name, split={split!r})"
        raise DataError(f"a {type(dataset).__name__} is no data set of `datasets`", "from_huggingface", mend)
    name = os.fspath(dataset)
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "the package `datasets` is not installed", f"from_huggingface({name!r})", "pip install 'pydt-transfer[hf]'"
        ) from error
    try:
        if not os.path.isdir(name):
            return datasets.load_dataset(name, split=split)
        loaded = datasets.load_from_disk(name)
        return loaded[split] if isinstance(loaded, Mapping) else loaded
    except Exception as error:  # the package raises what its many back ends raise
        raise DataError(f"cannot be loaded ({error})", f"{name!r}, split {split!r}", "check name and split") from error


def hugging_face_column(dataset: Any, column: str) -> tuple[list[Any], tuple[str, ...] | None]:
    """The values of a column, and the names that its numbers stand for, if they do."""
    if column not in dataset.features:
        known = ", ".join(dataset.features)
        raise DataError(f"no column {column!r}", "from_huggingface", f"choose one of: {known}")
    return list(dataset[column]), class_names(getattr(dataset.features[column], "names", None))


def hugging_face_files(dataset: Any, column: str) -> list[str] | None:
    """The image files that a column points at; None where the images lie inside the data set."""
    feature = dataset.features.get(column)
    if not hasattr(feature, "decode"):
        return None
    rows = dataset.cast_column(column, type(feature)(decode=False))[column]
    paths = [row["path"] for row in rows if row["bytes"] is None and row["path"] is not None]
    return [os.path.abspath(path) for path in paths] if len(paths) == len(dataset) else None
