"""Data sets of other libraries: torchvision's and Hugging Face's.

What such a data set says about its labels is taken or refused, never guessed. What counts is what its items are; its
attributes are a short way to them (no image need be decoded) where its class is one whose items are known to be just
that. The items of any other class are asked, one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pydt.base import DataError, progress
from pydt.data.formats.folder import IMAGE_SUFFIXES
from pydt.data.labels import class_table, plain, positions
from pydt.data.pixels import Unscaled, flat, traits_in

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
        root, files: the folder that keys are counted from, and the paths of the files.
        labels: one per image, as the data set gives it.
        names: class names by number, None where it has none.
        traits: of decoded images, as in `pydt.data.pixels`: uint8 (n,); None where there are none.
        bare: whether it has a `transform` of its images that files or arrays are without.
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


# ---- images --------------------------------------------------------------------------------------------------------


def stack(
    items: Iterable[tuple[Any, Any]], title: str, background: str, mend: str = SUBSET
) -> tuple[np.ndarray, list[Any], np.ndarray]:
    """(image, label) pairs as one uint8 array (n, height, width[, channels]), the labels, and the images' traits.

    Raises:
        DataError: there is none, or an image is missing, no image of 8 bits (see `pixels`), or of another shape than
            the first.
    """
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
            raise DataError(
                f"image of shape {one.shape} after {images[0].shape}",
                where,
                "resize all images to one shape, or save them as files and use Dataset.from_folder",
            )
        images.append(one)
        traits.append(trait)
        labels.append(label)
    if any(missing):
        raise DataError(f"no image at {positions(np.array(missing))}", title, f"leave them out: {mend}")
    if not images:
        raise DataError("has no images", title, "give at least one")
    return np.stack(images), labels, np.array(traits, np.uint8)


def pixels(image: Any, where: str, background: str) -> tuple[np.ndarray, int]:
    """An image as uint8 (height, width[, channels]), and its traits: of Pillow (see `pydt.data.pixels`), an array, or a
    tensor.

    Tensors have their channels first, as torchvision's have, unless only the last axis can be that of 1 to 4 channels;
    arrays the other way round. Floats are taken if every value is a whole number of 255ths between 0 and 1, as ToTensor
    makes them of 8 bits: then nothing is lost.

    Raises:
        DataError: it is no image, or not one of 8 bits.
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


# ---- torchvision ---------------------------------------------------------------------------------------------------


def torchvision(dataset: Any, title: str, background: str, chosen: np.ndarray | None = None) -> Found:
    """What a data set of torchvision's kind holds: its files or arrays where its class is known to give just these,
    else its decoded images.

    Args:
        chosen: numbers of the items that are wanted, int64 (n,); all if None.

    Raises:
        DataError: see `Dataset.from_torchvision`.
    """
    items = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and getattr(dataset, "shape", None) != ()
    if isinstance(dataset, type) or not items:
        what = "the class and no data set" if isinstance(dataset, type) else "no data set"
        name = dataset.__name__ if isinstance(dataset, type) else title
        raise DataError(f"a {name} is {what}", "from_torchvision", "give one with a length and items")
    module, method = _method(dataset, "__getitem__")
    own = module == _method(dataset, "__len__")[0]  # who has changed the one may have changed the other
    if module == "torch.utils.data.dataset" and method == "Subset.__getitem__" and own:
        numbers = _numbers(dataset.indices, len(dataset.dataset), title)
        return torchvision(dataset.dataset, title, background, numbers if chosen is None else numbers[chosen])
    if module == "torch.utils.data.dataset" and method == "ConcatDataset.__getitem__" and own and dataset.datasets:
        parts = [torchvision(part, f"{title}, part {i}", background) for i, part in enumerate(dataset.datasets)]
        return _joined(parts, title).take(chosen)
    names = _names(dataset, title)
    known = method if own and module.startswith("torchvision.datasets.") else ""
    change = getattr(dataset, "target_transform", None)
    bare = getattr(dataset, "transform", None) is not None
    joint = getattr(dataset, "transforms", None)
    joint = joint if _is_vision(dataset) and type(joint).__name__ != "StandardTransform" else None
    listing = _listing(dataset, known.removesuffix(".__getitem__"), title) if joint is None else None
    if listing is not None and _are_files(dataset, listing[0]):
        labels, names = _changed(change, listing[1], names, title, chosen)
        return Found(None, os.fspath(dataset.root), listing[0], labels, names, bare=bare).take(chosen)
    if known in ("CIFAR10.__getitem__", "MNIST.__getitem__", "USPS.__getitem__"):
        if len(dataset.targets) != len(dataset.data):
            what = f"its data and targets disagree ({len(dataset.data)} and {len(dataset.targets)} entries)"
            raise DataError(what, title, "give both as many")
        labels, names = _changed(change, _listed(dataset.targets), names, title, chosen)
        return Found(np.asarray(dataset.data), "", [], labels, names, bare=bare).take(chosen)
    if names is not None and (change is not None or joint is not None):
        which = "target_transform" if change is not None else "transforms"
        what = f"its {which} may give labels that its class names do not fit"
        raise DataError(what, title, f"set {which} to None, or give labels and names to Dataset.from_arrays")
    if not known and hasattr(dataset, "samples") and getattr(dataset, "root", None) is not None:
        try:
            files = [os.fspath(item[0]) for item in dataset.samples]
            labels = [item[1] for item in dataset.samples]
        except (TypeError, LookupError):  # something else of that name
            files, labels = [], []
        if files and len(files) == len(dataset) and _say(dataset, title, labels, chosen):
            return Found(None, os.fspath(dataset.root), files, labels, names, bare=bare).take(chosen)
    images, labels, traits = stack(pairs(dataset, title, chosen), title, background)
    return Found(images, "", [], labels, names, traits)


def _listed(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _method(dataset: Any, name: str) -> tuple[str, str]:
    """Module and qualified name of a method of its class."""
    method = getattr(type(dataset), name, None)
    return getattr(method, "__module__", "") or "", getattr(method, "__qualname__", "")


def _is_vision(dataset: Any) -> bool:
    return any(base.__module__ == "torchvision.datasets.vision" for base in type(dataset).__mro__)


def _listing(dataset: Any, kind: str, title: str) -> tuple[list[str], list[Any]] | None:
    """Files and labels of a class of torchvision's whose items are read from just these; None for others."""
    kinds = getattr(dataset, "_target_types", [])
    if kind == "DatasetFolder":
        pairs, labels = dataset.samples, _samples(dataset, title)
    elif kind in ("StanfordCars", "Imagenette", "RenderedSST2", "GTSRB"):
        pairs = getattr(dataset, "_samples", None)
        labels = [label for _, label in pairs or ()]
    elif kind in ("Flowers102", "Food101", "DTD", "FGVCAircraft", "SUN397"):
        pairs, labels = (
            [(file, None) for file in getattr(dataset, "_image_files", ())],
            getattr(dataset, "_labels", []),
        )
    elif kind == "OxfordIIITPet" and kinds in (["category"], ["binary-category"]):
        pairs = [(file, None) for file in getattr(dataset, "_images", ())]
        labels = getattr(dataset, "_labels" if kinds == ["category"] else "_bin_labels", [])
    else:
        return None
    files = [os.fspath(file) for file, _ in pairs or ()]
    return (files, list(labels)) if files and len(files) == len(labels) == len(dataset) else None


def _are_files(dataset: Any, files: list[str]) -> bool:
    """Whether files are images for any decoder, and not just for a loader of the data set's own."""
    loader = getattr(getattr(dataset, "loader", None), "__module__", "torchvision.datasets.folder")
    return loader == "torchvision.datasets.folder" or all(file.lower().endswith(IMAGE_SUFFIXES) for file in files)


def _samples(dataset: Any, title: str) -> list[Any]:
    """The labels of a DatasetFolder, refused where two of its lists disagree on them."""
    labels = [label for _, label in dataset.samples]
    for name, other in (("targets", dataset.targets), ("imgs", getattr(dataset, "imgs", dataset.samples))):
        theirs = [label for _, label in other] if name == "imgs" else _listed(other)
        at = next((i for i, (a, b) in enumerate(zip(labels, theirs, strict=False)) if bool(a != b)), None)
        if at is None and len(theirs) == len(labels):
            continue
        what = f"{len(labels)} and {len(theirs)} entries" if at is None else f"{labels[at]} and {theirs[at]} at {at}"
        mend = f"its items follow samples: set dataset.{name} to fit, too"
        raise DataError(f"its samples and {name} disagree ({what})", title, mend)
    return labels


def _numbers(indices: Any, count: int, title: str) -> np.ndarray:
    """The indices of a Subset as int64 (n,)."""
    found = np.asarray(
        indices.cpu() if hasattr(indices, "cpu") else indices if hasattr(indices, "dtype") else [*indices]
    )
    if found.size == 0:
        raise DataError("has no images", title, "give at least one")
    if found.dtype.kind not in "iu" or found.ndim != 1 or found.min() < -count or found.max() >= count:
        what = f"its indices are not numbers of the {count} examples (dtype {found.dtype}, shape {found.shape})"
        raise DataError(what, title, "give numbers from 0: numpy.flatnonzero(mask) of a mask")
    return found.astype(np.int64)


def _joined(parts: list[Found], title: str) -> Found:
    """The parts of a ConcatDataset as one."""
    mend = "join them by the names of their classes: Dataset.concat([Dataset.from_torchvision(a), ...])"
    other = next((part for part in parts if part.names != parts[0].names), None)
    if other is not None:
        shown = (list((part.names or {}).values())[:3] or "none" for part in (parts[0], other))
        raise DataError("its parts name their classes differently ({} and {})".format(*shown), title, mend)
    labels, bare = [label for part in parts for label in part.labels], any(part.bare for part in parts)
    if all(part.images is None for part in parts):
        roots = {os.path.realpath(part.root) for part in parts}
        root = parts[0].root if len(roots) == 1 else os.path.commonpath(roots)
        files = [file for part in parts for file in part.files]
        return Found(None, root, files, labels, parts[0].names, bare=bare)
    arrays = [part.images for part in parts if part.images is not None]
    shapes = {array.shape[1:] for array in arrays}
    if len(arrays) < len(parts) or len(shapes) > 1:
        what = (
            f"images of shapes {sorted(shapes)}"
            if len(arrays) == len(parts)
            else "files in some parts, pixels in others"
        )
        raise DataError(what, title, "bring all parts to one shape, or save them as files and use Dataset.from_folder")
    traits = [np.zeros(len(part.labels), np.uint8) if part.traits is None else part.traits for part in parts]
    return Found(np.concatenate(arrays), "", [], labels, parts[0].names, np.concatenate(traits), bare)


def _names(dataset: Any, title: str) -> dict[int, str] | None:
    """Class names by number, as `class_to_idx` and `classes` say; the order of `classes` counts where nothing else says
    which number a name has.
    """
    classes, index = getattr(dataset, "classes", None), getattr(dataset, "class_to_idx", None)
    if getattr(dataset, "_target_types", None) == ["binary-category"]:  # OxfordIIITPet: cats and dogs, not breeds
        classes, index = getattr(dataset, "bin_classes", None), None
    if callable(classes):
        raise DataError("its classes are a method", title, "make them an attribute: a list of names")
    if not isinstance(index, Mapping | None):
        raise DataError(f"a {type(index).__name__}", f"{title}.class_to_idx", "give a mapping name -> number, or None")
    place = f"{title}.classes"
    if isinstance(classes, Iterator):
        classes = list(classes)
    table = None if classes is None else class_table(classes, place, twins=True)
    if not index:
        return table
    said = [(str(plain(name, f"{title}.class_to_idx", i)), number) for i, (name, number) in enumerate(index.items())]
    merged: dict[Any, tuple[str, ...]] = {}
    for name, number in said:
        if not isinstance(number, (int, np.integer)) or isinstance(number, bool):
            raise DataError(
                f"{number!r:.80} for {name!r}", f"{title}.class_to_idx", "give a whole number for every name"
            )
        merged[number] = (*merged.get(number, ()), name)
    by_index = class_table(merged, f"{title}.class_to_idx")
    if table is None:
        return by_index
    if isinstance(classes, Mapping):
        return _agreed(table, by_index, title)
    parts = {
        number: {str(plain(part, place, number)) for part in (name if isinstance(name, (tuple, list)) else (name,))}
        for number, name in enumerate(classes or ())
    }
    if all(name in parts.get(number, ()) for name, number in said):
        return table
    flat = set().union(*parts.values())
    known = {name for name, _ in said}
    if flat <= known or known <= flat:
        return by_index
    return _agreed(table, by_index, title)


def _agreed(one: dict[int, str], other: dict[int, str], title: str) -> dict[int, str]:
    if one != other:
        number = next(n for n in (*one, *other) if one.get(n) != other.get(n))
        what = f"classes and class_to_idx disagree on class {number}: {one.get(number)!r} and {other.get(number)!r}"
        raise DataError(what, title, "correct one of them, or set it to None")
    return one


def _changed(
    change: Callable[[Any], Any] | None,
    labels: list[Any],
    names: dict[int, str] | None,
    title: str,
    chosen: np.ndarray | None,
) -> tuple[list[Any], dict[int, str] | None]:
    """Labels after a `target_transform`, and the names of the images that have them now: of several classes that became
    one, joined by commas. Items that are not `chosen` may be such as the transform cannot take.
    """
    if change is None:
        return labels, names
    after: list[bool | int | str | None] = []
    wanted = set(range(len(labels)) if chosen is None else (chosen % len(labels)).tolist())
    for position, label in enumerate(labels):
        try:
            after.append(plain(change(label), f"{title}, target_transform", position))
        except Exception as error:  # whatever a function of the user's raises
            if position not in wanted:
                after.append(None)
                continue
            if isinstance(error, DataError):
                raise
            raise _told(error, "target_transform", f"{title}[{position}]") from error
    if names is None or any(isinstance(label, str) for label in after):
        return after, None
    before = [plain(label, title, position) for position, label in enumerate(labels)]
    became: dict[Any, Any] = {}
    for old, new in zip(before, after, strict=True):
        if became.setdefault(old, new) != new:
            what = f"its target_transform makes {became[old]!r} and {new!r} of label {old!r}, so no name is right"
            raise DataError(what, title, "set it to None, or give labels and names to Dataset.from_arrays")
    if all(old == new for old, new in became.items()):
        return after, names
    parts: dict[Any, list[str]] = {}
    for old in sorted(old for old, new in became.items() if old in names and new is not None):
        parts.setdefault(int(became[old]), []).append(names[old])
    return after, {new: ", ".join(olds) for new, olds in parts.items()}


def _say(dataset: Any, title: str, labels: Sequence[Any], chosen: np.ndarray | None) -> bool:
    """Whether every item of a data set has the label that its list of samples gives it: every item is read."""
    numbers = range(len(dataset)) if chosen is None else chosen.tolist()
    with progress(len(numbers), "reading labels", "items") as advance:
        for position in numbers:
            item = _item(dataset, position, title)
            advance(1)
            if item is None:  # what some classes give for an image that cannot be read: it contradicts nothing
                continue
            if not (isinstance(item, (tuple, list)) and len(item) > 1):
                return False
            if plain(item[1], title, position) != plain(labels[position], title, position):
                return False
    return True


def _told(error: Exception, what: str, where: str, others: str = SUBSET) -> DataError:
    text = " ".join(str(error).split())
    return DataError(f"{what} raised {type(error).__name__}: {text}", where, f"mend it, or leave it out: {others}")


def _item(dataset: Any, position: int, title: str) -> Any:
    try:
        return dataset[position]
    except Exception as error:  # whatever a class of the user's raises
        raise _told(error, "the item", f"{title}[{position}]") from error


def pairs(dataset: Any, title: str, chosen: np.ndarray | None = None) -> Iterator[tuple[Any, Any]]:
    """The (image, label) items of anything with a length, or those of the chosen numbers.

    Raises:
        DataError: an item cannot be read (the error itself is the cause), or is no pair.
    """
    numbers = range(len(dataset)) if chosen is None else chosen.tolist()
    with progress(len(numbers), "reading items", "items") as advance:
        for position in numbers:
            item = _item(dataset, position, title)
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                kind = type(item).__name__
                what = f"{kind} of {len(item)}" if isinstance(item, (tuple, list, Mapping)) else kind
                mend = "wrap the data set in one that gives such pairs"
                mend = "use Dataset.from_huggingface" if hasattr(dataset, "features") else mend
                raise DataError(f"item is not an (image, label) pair but a {what}", f"{title}[{position}]", mend)
            yield item[0], item[1]
            advance(1)


# ---- Hugging Face --------------------------------------------------------------------------------------------------


def hugging_face(dataset: Any, split: str) -> Any:
    """The data set itself, or the one of that name (or in that folder) as the `datasets` package loads it, in the
    package's own format: what `with_format` makes of it says the same.

    Raises:
        DataError: the package is missing, cannot load the data set, or what was given is none, a stream, has no such
            split, or is changed by a function whenever it is read.
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


def hugging_face_column(dataset: Any, column: str) -> tuple[list[Any], dict[int, str] | None]:
    """The values of a column, and the names that its numbers stand for, if they do."""
    feature = _feature(dataset, column)
    values = dataset[column]
    values = list(values[:] if hasattr(values, "features") else values)
    names = getattr(feature, "names", None)
    return values, None if names is None else class_table(names, f"names of {column!r}")


def hugging_face_units(dataset: Any, column: str) -> list[Any]:
    """The values of a column, by their names where they have some."""
    values, names = hugging_face_column(dataset, column)
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


def hugging_face_found(dataset: Any, image: str, label: str, title: str, background: str) -> Found:
    """Its images, as files where they are files of this machine, and their labels."""
    labels, names = hugging_face_column(dataset, label)
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
    """The values of a column, told which one cannot be read."""
    values, position = iter(column), 0
    while True:
        try:
            value = next(values)
        except StopIteration:
            return
        except Exception as error:  # what a decoder raises
            raise _told(error, "the image", f"{where}[{position}]", SELECT) from error
        yield value
        position += 1
