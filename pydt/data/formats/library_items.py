"""The items of another library's data set as a table: images in one array or in files, labels, names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import DataError, DataWarning
from pydt.data.formats import arrays
from pydt.data.formats.folder import from_files, unlisted
from pydt.data.labels import UNUSED, encode_labels, listed, positions, renumber
from pydt.data.pixels import Unscaled, counted, flat, traits_in
from pydt.data.table import ExampleTable

ABSENT = -1
"""What stands for no label where labels have names: in test sets of Hugging Face, in STL10."""
SUBSET = "torch.utils.data.Subset(dataset, numbers of the others)"
SELECT = "dataset.select(numbers of the others)"
"""How items are left out of a data set of torchvision's kind, and of Hugging Face's."""


@dataclass(frozen=True)
class Found:
    """What a data set of another library holds.

    Attributes:
        images: uint8 (n, height, width[, channels]); None where they are files.
        root, files: the folder that keys are relative to, and the paths of the files.
        labels: one per image, as the data set gives it.
        names: class names by number, None where it has none.
        traits: of decoded images (`pydt.data.pixels`), uint8 (n,); None where there are none.
        bare: whether its `transform` of images was not applied.
    """

    images: np.ndarray | None
    root: str
    files: list[str]
    labels: list[Any]
    names: dict[int, str] | None
    traits: np.ndarray | None = None
    bare: bool = False

    def take(self, chosen: np.ndarray | None) -> Found:
        """Some of its images, in the given order; all if None."""
        if chosen is None:
            return self
        images, traits = (None if part is None else part[chosen] for part in (self.images, self.traits))
        files, labels = ([column[i] for i in chosen.tolist()] if column else [] for column in (self.files, self.labels))
        return replace(self, images=images, traits=traits, files=files, labels=labels)


def table_of(found: Found, title: str, background: str, mend: str, others: str) -> ExampleTable:
    """What another library's data set holds as a table. Classes without images are left out, with a warning at the
    caller of the public constructor. `mend`: what to do about images without a label; `others`: how bad images are left
    out.
    """
    codes, names = encode_labels(found.labels, found.names, len(found.labels), mend, ABSENT)
    codes, classes = renumber(codes, names)
    if found.images is not None:
        table = arrays.read(found.images, codes, classes, name=title)
        if found.traits is not None:
            table = replace(table, noted=counted(found.traits, background, table.all_keys()))
    else:
        root = os.path.realpath(found.root)
        keys = [Path(os.path.relpath(file, found.root)).as_posix() for file in found.files]
        listing = unlisted(root, keys, codes.tolist())
        table = from_files(root, listing, classes, title, background, mend=f"restore them, or leave them out: {others}")
    noted = dict(table.noted)
    if found.bare:
        noted["images without the transform that the data set has"] = len(table), table.all_keys()[0]
    if unused := [name for name in names if name not in set(classes)]:
        what = "have no image and are" if len(unused) > 1 else "has no image and is"
        text = f"{title}: {len(unused):,} of {len(names):,} class names {what} left out: {listed(map(repr, unused))}"
        warnings.warn(text, DataWarning, stacklevel=4)
        noted[UNUSED] = len(unused), unused[0]
    return replace(table, noted=noted)


def stack(
    items: Iterable[tuple[Any, Any]], title: str, background: str, mend: str = SUBSET
) -> tuple[np.ndarray, list[Any], np.ndarray]:
    """(image, label) pairs as one uint8 array (n, height, width[, channels]), the labels, and the traits."""
    images: list[np.ndarray] = []
    labels = []
    missing = []
    traits = []
    for position, (image, label) in enumerate(items):
        missing.append(image is None)
        if image is None:
            continue
        where = f"{title}[{position}]"
        one, trait = pixels(image, where, background)
        if images and one.shape != images[0].shape:
            mend = "resize all images to one shape, or save them as files and use Dataset.from_folder"
            raise DataError(f"image of shape {one.shape} after {images[0].shape}", where, mend)
        images.append(one)
        traits.append(trait)
        labels.append(label)
    if any(missing):
        raise DataError(f"no image at {positions(np.array(missing))}", title, f"leave them out: {mend}")
    if not images:
        raise DataError("has no images", title, "give at least one")
    return np.stack(images), labels, np.array(traits, np.uint8)


def pixels(image: Any, where: str, background: str) -> tuple[np.ndarray, int]:
    """An image of Pillow, an array or a tensor as uint8 (height, width[, channels]), and its traits.

    Tensors have their channels first, as torchvision's, unless only the last axis can be that of 1 to 4 channels;
    arrays the other way round. Floats are taken where all are multiples of 1/255 in 0..1, as ToTensor makes them of 8
    bits: nothing is lost.
    """
    if hasattr(image, "convert") and isinstance(getattr(image, "mode", None), str):
        try:
            return np.asarray(flat(image, background)), traits_in(image)
        except Unscaled as error:
            raise DataError(str(error), where, Unscaled.MEND) from error
    tensor = hasattr(image, "detach")
    try:
        array = image.detach().cpu().numpy() if tensor else np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"is no array ({error})", where, "give images as uint8 arrays, tensors or Pillow's") from error
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3):
        shape = f" of shape {array.shape}" if array.ndim else ""
        what = f"a {type(image).__name__}{shape} is no image"
        raise DataError(what, where, "give images of Pillow, arrays (height, width, channels), or tensors")
    if array.ndim == 3:
        first, last = (1 <= side <= 4 for side in (array.shape[0], array.shape[2]))
        if first and (tensor or not last):
            array = array.transpose(1, 2, 0)
        elif not last:
            raise DataError(f"image of shape {array.shape}", where, "give 1 to 4 channels on the first or last axis")
    if array.dtype == np.uint8:
        return array, 0
    if array.dtype.kind == "f" and array.size:
        scaled = array.astype(np.float64) * 255
        whole = np.round(scaled)
        # What the type can tell apart; float64 may have been float32 before.
        near = 255 * max(np.finfo(array.dtype).eps, np.finfo(np.float32).eps)
        if (np.abs(scaled - whole) <= near).all() and whole.min() >= 0 and whole.max() <= 255:
            return whole.astype(np.uint8), 0
    span = f" from {array.min():.4g} to {array.max():.4g}" if array.size else ""
    what = f"image of dtype {array.dtype}{span}, not of 8 bits"
    raise DataError(what, where, "remove the transform, so that images stay uint8, or round them to 0..255 as uint8")


def raised(error: Exception, what: str, where: str, others: str = SUBSET) -> DataError:
    text = " ".join(str(error).split())
    return DataError(f"{what} raised {type(error).__name__}: {text}", where, f"mend it, or leave it out: {others}")
