"""Data sets of the `datasets` package, from memory, a folder or the hub."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from pydt.base import DataError, as_names
from pydt.data.formats.library_items import ABSENT, SELECT, Found, raised, stack, table_of
from pydt.data.labels import class_table, positions
from pydt.data.pixels import BACKGROUND, colour
from pydt.data.table import ExampleTable, finished


def read(
    dataset: Any,
    *,
    split: str = "train",
    image: str = "image",
    label: str = "label",
    columns: Iterable[str] = (),
    caption: str | None = None,
    background: str = BACKGROUND,
    name: str | None = None,
) -> ExampleTable:
    """A data set over one of the `datasets` package (extra `hf`): over its files where its images are files on this
    machine, else over its decoded images, which must then have one size.

    Args:
        dataset: a `datasets.Dataset`, a `DatasetDict`, the folder of a saved one, or a name for
            `datasets.load_dataset`. Its format (`with_format`) is ignored.
        split: the split to take, where a name, a folder or several splits were given.
        image, label, caption: names of columns; class names come from the label's feature. Names without images are
            left out, with a warning.
        columns: names of columns that become group columns.
        background: as in `from_torchvision`.
        name: how reports call this data set.

    Raises:
        DataError: the package is missing, the data set cannot be loaded, lacks a column or split, is a stream or
            changed by a function when it is read, has images of several sizes, or images or labels are missing.
    """
    loaded = _opened(dataset, split)
    title = name or (os.path.basename(os.fspath(dataset)) if isinstance(dataset, (str, os.PathLike)) else "hf")
    units = {column: _units(loaded, column) for column in as_names(columns, "columns")}
    captions = None if caption is None else _column(loaded, caption)[0]
    ground = colour(background)
    mend = f"leave out the images without a label: dataset.filter(lambda row: row[{label!r}] not in (None, -1))"
    table = table_of(_found(loaded, image, label, title, ground), title, ground, mend, SELECT)
    return finished(table, units, captions)


def _opened(dataset: Any, split: str) -> Any:
    """One split, loaded by the `datasets` package where a name or folder was given, without the format that
    `with_format` set.
    """
    if isinstance(dataset, (str, os.PathLike)):
        dataset = _loaded(os.fspath(dataset), split)
    if isinstance(dataset, Mapping):
        if split not in dataset:
            raise DataError(
                f"no split {split!r}", "from_huggingface", f"choose one: split={' or '.join(map(repr, dataset))}"
            )
        dataset = dataset[split]
    if not (hasattr(dataset, "features") and hasattr(dataset, "__len__")):
        mend = f"give one split, loaded and not streamed: load_dataset(name, split={split!r})"
        raise DataError(f"a {type(dataset).__name__} is no data set of `datasets`", "from_huggingface", mend)
    style = getattr(dataset, "format", None)
    if isinstance(style, Mapping) and style.get("type") == "custom":
        mend = "give it before with_transform: dataset.with_format(None); or change it for good: dataset.map(...)"
        raise DataError("a function of with_transform changes its rows", "from_huggingface", mend)
    return dataset.with_format(None) if style is not None else dataset


def _loaded(name: str, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "the package `datasets` is not installed", f"from_huggingface({name!r})", "pip install 'pydt-transfer[hf]'"
        ) from error
    try:
        return datasets.load_from_disk(name) if os.path.isdir(name) else datasets.load_dataset(name, split=split)
    except Exception as error:  # the package raises what its many back ends raise
        raise DataError(f"cannot be loaded ({error})", f"{name!r}, split {split!r}", "check name and split") from error


def _column(dataset: Any, column: str) -> tuple[list[Any], dict[int, str] | None]:
    """The values of a column, and the names of its numbers, if they have any."""
    feature = _feature(dataset, column)
    values = dataset[column]
    values = list(values[:] if hasattr(values, "features") else values)
    names = getattr(feature, "names", None)
    return values, None if names is None else class_table(names, f"names of {column!r}")


def _units(dataset: Any, column: str) -> list[Any]:
    """The values of a column, by their names where they have some."""
    values, names = _column(dataset, column)
    if names is None:
        return values
    values = [None if value == ABSENT else value for value in values]
    wrong = next((v for v in values if v is not None and v not in names), None)
    if wrong is not None:
        raise DataError(f"{wrong!r} with {len(names)} names", f"column {column!r}", "correct the names of its feature")
    return [None if value is None else names[value] for value in values]


def _feature(dataset: Any, column: str) -> Any:
    if column not in dataset.features:
        known = ", ".join(dataset.features)
        raise DataError(f"no column {column!r}", "from_huggingface", f"choose one of: {known}")
    return dataset.features[column]


def _found(dataset: Any, image: str, label: str, title: str, background: str) -> Found:
    """Its images, as files where they are files of this machine, and their labels."""
    labels, names = _column(dataset, label)
    feature = _feature(dataset, image)
    if hasattr(feature, "decode"):
        rows = list(dataset.cast_column(image, type(feature)(decode=False))[image])
        missing = np.array([row is None or (row["bytes"] is None and row["path"] is None) for row in rows], bool)
        if missing.any():
            mend = f"leave them out: dataset.filter(lambda row: row[{image!r}] is not None)"
            raise DataError(f"no image at {positions(missing)}", title, mend)
        # A path may also be of an archive (zip://a.jpg::b.zip) or of another machine.
        if rows and all(row["bytes"] is None and "://" not in row["path"] for row in rows):
            files = [os.path.abspath(row["path"]) for row in rows]
            return Found(None, os.path.commonpath([os.path.dirname(file) for file in files]), files, labels, names)
        dataset = dataset if feature.decode else dataset.cast_column(image, type(feature)(decode=True))
    mend = f"dataset.filter(lambda row: row[{image!r}] is not None)"
    if getattr(feature, "dtype", None) in ("string", "large_string"):
        cast = f"if they are files: dataset.cast_column({image!r}, datasets.Image())"
        raise DataError(f"column {image!r} holds texts and no images", title, cast)
    while (inner := getattr(feature, "feature", None)) is not None:  # of lists of lists
        feature = inner
    # Lists of numbers have forgotten their type.
    bytes_ = getattr(feature, "dtype", None) == "uint8"
    found = _values(dataset[image], title)
    values = ((np.asarray(value, np.uint8) if bytes_ and value is not None else value, None) for value in found)
    images, _, traits = stack(values, title, background, mend)
    return Found(images, "", [], labels, names, traits)


def _values(column: Iterable[Any], where: str) -> Iterator[Any]:
    """The values of a column; an error names the position of one that cannot be read."""
    values, position = iter(column), 0
    while True:
        try:
            value = next(values)
        except StopIteration:
            return
        except Exception as error:  # what a decoder raises
            raise raised(error, "the image", f"{where}[{position}]", SELECT) from error
        yield value
        position += 1
