"""Data sets of torchvision's kind. Labels and names are taken as they are or refused, never guessed.

Their items decide. The attributes of a data set are used instead (no image need be decoded) where its class is known to
make its items of just these; items of any other class are read one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pydt.base import DataError, progress
from pydt.data.formats.library_items import SUBSET, Found, raised, stack, table_of
from pydt.data.image_files import IMAGE_SUFFIXES
from pydt.data.labels import class_table, plain
from pydt.data.pixels import BACKGROUND, colour
from pydt.data.table import ExampleTable, finished


def read(
    dataset: Any, *, columns: Any = None, captions: Any = None, background: str = BACKGROUND, name: str | None = None
) -> ExampleTable:
    """A data set over one of torchvision's kind: over its files or arrays where it has them, else its decoded images.

    Args:
        dataset: one of torchvision's (ImageFolder, CIFAR10, MNIST, ...), a Subset or ConcatDataset; or anything of
            (image, label) pairs with images of one size: Pillow's, uint8 arrays, tensors of uint8 or of multiples of
            1/255. Every item of a class that changes what ImageFolder gives is read.
        columns, captions: as in `from_arrays`, in the data set's order.
        background: what shows through transparent pixels of files and of Pillow's images; see `from_folder`.
        name: how reports call this data set; by default the name of its type.

    Class names are those of `class_to_idx` and `classes`; a `target_transform` is applied, and names follow their
    images. Names without images are left out, with a warning.

    Raises:
        DataError: it is no data set; images differ in size, are missing or not of 8 bits; items are no (image, label)
            pairs or cannot be read; a label is missing or no class; the data set contradicts itself about labels; or as
            in `from_folder`.
    """
    title, ground = name or type(dataset).__name__, colour(background)
    mend = "leave out the images without a label: torch.utils.data.Subset(dataset, ...)"
    table = table_of(found_in(dataset, title, ground), title, ground, mend, SUBSET)
    return finished(table, columns, captions)


def found_in(dataset: Any, title: str, background: str, chosen: np.ndarray | None = None) -> Found:
    """Its files or arrays where its class is known to give just these, else its decoded images. `chosen`: numbers of
    the items that are wanted, int64 (n,); all if None.
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
        return found_in(dataset.dataset, title, background, numbers if chosen is None else numbers[chosen])
    if module == "torch.utils.data.dataset" and method == "ConcatDataset.__getitem__" and own and dataset.datasets:
        parts = [found_in(part, f"{title}, part {i}", background) for i, part in enumerate(dataset.datasets)]
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
    """Files and labels of a class of torchvision that makes its items of just these; None for others."""
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
    """Whether any decoder reads the files, not just the data set's own loader."""
    loader = getattr(getattr(dataset, "loader", None), "__module__", "torchvision.datasets.folder")
    return loader == "torchvision.datasets.folder" or all(file.lower().endswith(IMAGE_SUFFIXES) for file in files)


def _samples(dataset: Any, title: str) -> list[Any]:
    """The labels of a DatasetFolder, whose lists must agree on them."""
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
    """Class names by number, from `class_to_idx` and `classes`; without the former, a name's number is its place."""
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
    """Labels after a `target_transform`, and the class names that follow them: joined by commas where several classes
    became one. The transform may fail on items that are not `chosen`.
    """
    if change is None:
        return labels, names
    after: list[bool | int | str | None] = []
    wanted = set(range(len(labels)) if chosen is None else (chosen % len(labels)).tolist())
    for position, label in enumerate(labels):
        try:
            after.append(plain(change(label), f"{title}, target_transform", position))
        except Exception as error:  # a user's function may raise anything
            if position not in wanted:
                after.append(None)
                continue
            if isinstance(error, DataError):
                raise
            raise raised(error, "target_transform", f"{title}[{position}]") from error
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
    """Whether every item has the label of the list of samples: every item is read."""
    numbers = range(len(dataset)) if chosen is None else chosen.tolist()
    with progress(len(numbers), "reading labels", "items") as advance:
        for position in numbers:
            item = _item(dataset, position, title)
            advance(1)
            if item is None:  # some classes give this for an image that cannot be read
                continue
            if not (isinstance(item, (tuple, list)) and len(item) > 1):
                return False
            if plain(item[1], title, position) != plain(labels[position], title, position):
                return False
    return True


def _item(dataset: Any, position: int, title: str) -> Any:
    try:
        return dataset[position]
    except Exception as error:  # a user's class may raise anything
        raise raised(error, "the item", f"{title}[{position}]") from error


def pairs(dataset: Any, title: str, chosen: np.ndarray | None = None) -> Iterator[tuple[Any, Any]]:
    """The (image, label) items, or those of the chosen numbers."""
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
