"""Data sets as an index over bytes that already exist.

A `Dataset` holds no copy of the images: it holds where they are (a uint8 array in memory or in a `.npy` file, or a
list of encoded files), one label per example, names, unit columns and captions. A mask is applied to this index,
never to the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pydt.encode import (
    Columns,
    array_digest,
    as_images,
    as_names,
    as_path,
    encode_columns,
    encode_labels,
    file_digest,
    file_stamp,
    hash_order,
    npy_path,
    open_npy,
    renumber,
    whole,
)
from pydt.errors import DataError
from pydt.files import canonical_json, digest, write_atomic

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_INDEX_VERSION = 2
# Images that pydt wrote itself are read and compared with their digest at the first open, up to this many bytes.
_VERIFY_LIMIT = 1 << 30
# What this process has compared already: (file, its size, its time of change, digest of the data set).
_verified: set[tuple[str, int, int, str]] = set()


@dataclass(frozen=True, eq=False)
class Dataset:
    """An index over labelled images. Make one with `from_arrays`, `from_folder`, `from_torchvision` or `open`.

    Attributes:
        images: uint8 (stored, height, width, channels), in memory or memory-mapped; None for encoded files.
        paths: absolute paths of encoded files (stored,); None for arrays.
        positions: int64 (examples,), where in `images` or `paths` each example lies.
        labels: int64 (examples,), each in 0..len(classes)-1.
        classes: one name per label.
        columns: further unit columns: name -> (int64 codes (examples,), -1 meaning in no unit; names of the units).
        captions: one text per example, or None.
        keys: what identifies an example wherever it is stored; None for arrays, whose positions then do.
        name: how reports call this data set.
    """

    images: np.ndarray | None
    paths: tuple[str, ...] | None
    positions: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    columns: Mapping[str, tuple[np.ndarray, tuple[str, ...]]] = field(default_factory=dict)
    captions: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    name: str = "data"
    folder: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "encoded files" if self.images is None else "x".join(map(str, self.images.shape[1:]))
        return f"Dataset({self.name!r}, {len(self):,} examples of {shape}, {len(self.classes)} classes)"

    @property
    def encoded(self) -> bool:
        """Whether the images are files that still have to be decoded."""
        return self.images is None

    @cached_property
    def digest(self) -> str:
        """What this data set is: the bytes of its images, labels, names, units and captions, in order."""
        if self.images is not None:
            content = array_digest(self.images, self.positions)
        else:
            assert self.paths is not None
            content = digest(*(file_digest(self.paths[p]) for p in self.positions))
        columns = {name: [digest(codes), list(names)] for name, (codes, names) in self.columns.items()}
        captions = None if self.captions is None else list(self.captions)
        return digest(content, self.labels, list(self.classes), columns, captions, digest(list(self.all_keys())))

    # ---- making one ------------------------------------------------------------------------------------------------

    @staticmethod
    def from_arrays(
        images: np.ndarray | str | os.PathLike[str],
        labels: Any,
        classes: Sequence[str] | None = None,
        *,
        columns: Mapping[str, Any] | None = None,
        captions: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> Dataset:
        """A data set over an array of raw images. Nothing is copied, unless the array is not in C order.

        Args:
            images: uint8 (examples, height, width) or (examples, height, width, channels), channels 1 to 4; an array, a
                memory map, or the path of a `.npy` file, which is then memory-mapped.
            labels: (examples,) integers or strings. Without `classes`, the distinct labels in sorted order are the
                classes.
            classes: names of the classes; labels must then be integers in 0..len(classes)-1.
            columns: further unit columns, name -> (examples,) integers or strings; None, NaN, "" or -1 puts an example
                in no unit.
            captions: one text per example.
            name: how reports call this data set.

        Raises:
            DataError: shapes, types, labels and images do not fit together; the text names the place.
        """
        array = as_images(images)
        codes, names = encode_labels(labels, classes, len(array))
        return _finish(
            Dataset(
                array, None, np.arange(len(array)), codes, names, encode_columns(columns, len(array)), None, None, name
            ),
            captions,
        )

    @staticmethod
    def from_folder(
        path: str | os.PathLike[str], *, columns: Mapping[str, Any] | None = None, captions: Sequence[str] | None = None
    ) -> Dataset:
        """A data set over a folder of image files with one sub-folder per class, in sorted order. Nothing is decoded
        here.

        Args:
            path: the folder; each sub-folder is a class, and its image files (at any depth) are the examples.
            columns: further unit columns in the order of the sorted file keys.
            captions: one text per file, in the same order.

        Raises:
            DataError: no such folder, no classes, a class without images, or an empty file (named).
        """
        root = as_path(path, "from_folder")
        if not root.is_dir():
            raise DataError("no such folder", str(root), "give a folder with one sub-folder of images per class")
        classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not classes:
            raise DataError(
                "has no sub-folders", str(root), "put the images of each class into a sub-folder of its own"
            )
        keys: list[str] = []
        labels: list[int] = []
        for label, class_name in enumerate(classes):
            files = sorted(
                p for p in (root / class_name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
            )
            if not files:
                raise DataError(
                    "class without images",
                    str(root / class_name),
                    f"add images ({', '.join(IMAGE_SUFFIXES)}) or remove it",
                )
            for file in files:
                if file.stat().st_size == 0:
                    raise DataError("empty image file", str(file), "replace or delete it")
                keys.append(file.relative_to(root).as_posix())
                labels.append(label)
        paths = tuple(str(root.resolve() / key) for key in keys)
        return _finish(
            Dataset(
                None,
                paths,
                np.arange(len(paths)),
                np.array(labels, np.int64),
                tuple(classes),
                encode_columns(columns, len(paths)),
                None,
                tuple(keys),
                root.resolve().name,
            ),
            captions,
        )

    @staticmethod
    def from_tar(paths: Any) -> Dataset:
        """A data set over uncompressed tar shards: not built yet.

        Raises:
            DataError: always.
        """
        raise DataError(
            "reading tar shards is not built yet",
            "from_tar",
            "unpack them into one sub-folder per class and use Dataset.from_folder",
        )

    @staticmethod
    def from_torchvision(dataset: Any, *, name: str | None = None) -> Dataset:
        """A data set over a torchvision one: over its files or its arrays where it has them, else over its decoded
        images.

        Args:
            dataset: anything with `samples` (ImageFolder and its kin), with uint8 `data` and `targets` (CIFAR,
                MNIST), or that yields (PIL image or uint8 array, label) pairs with images of one size.

        Raises:
            DataError: it is no data set, the images have several sizes, or the items are not (image, label) pairs.
        """
        title = name or type(dataset).__name__
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(f"a {title} is no data set", "from_torchvision", "give one with a length and items")
        names = getattr(dataset, "classes", None)
        if hasattr(dataset, "samples") and getattr(dataset, "root", None) is not None:
            paths = tuple(os.path.abspath(item[0]) for item in dataset.samples)
            labels, classes = encode_labels([item[1] for item in dataset.samples], names, len(paths))
            keys = tuple(Path(os.path.relpath(p, dataset.root)).as_posix() for p in paths)
            return _finish(Dataset(None, paths, np.arange(len(paths)), labels, classes, {}, None, keys, title), None)
        if hasattr(dataset, "data") and hasattr(dataset, "targets"):
            images = np.asarray(dataset.data)
            return Dataset.from_arrays(images, np.asarray(dataset.targets), names, name=title)
        images_list: list[np.ndarray] = []
        labels_list: list[Any] = []
        for position in range(len(dataset)):
            try:
                image, label = dataset[position]
            except (TypeError, ValueError) as error:
                raise DataError(
                    "item is not an (image, label) pair", f"{title}[{position}]", "wrap the data set"
                ) from error
            pixels = np.asarray(image)
            if pixels.dtype != np.uint8:
                raise DataError(
                    f"image of dtype {pixels.dtype}",
                    f"{title}[{position}]",
                    "remove the transform, so that images stay uint8",
                )
            if images_list and pixels.shape != images_list[0].shape:
                raise DataError(
                    f"image of shape {pixels.shape} after {images_list[0].shape}",
                    f"{title}[{position}]",
                    "resize all images to one shape, or save them as files and use Dataset.from_folder",
                )
            images_list.append(pixels)
            labels_list.append(label)
        if not images_list:
            raise DataError("has no images", title, "give at least one")
        return Dataset.from_arrays(np.stack(images_list), labels_list, names, name=title)

    @staticmethod
    def concat(datasets: Iterable[Dataset], names: Iterable[str] | None = None) -> Dataset:
        """Several data sets as one, with the unit column `source` that says where each example comes from.

        Classes of the same name are one class, units of the same name in a column that all parts have are one unit.
        Columns and captions that only some parts have are left out, and an earlier column `source` is replaced. Arrays
        of one image shape are joined in memory; files stay where they are.

        Args:
            datasets: at least one, all of raw images of one shape or all of encoded files.
            names: one unit name per data set; their own names by default.

        Raises:
            DataError: kinds or shapes differ, or two data sets would have the same name.
        """
        if isinstance(datasets, Dataset) or not isinstance(datasets, Iterable):
            raise DataError(f"{datasets!r} is no list of data sets", "concat", "give a list: concat([a, b])")
        parts = list(datasets)
        stranger = next((part for part in parts if not isinstance(part, Dataset)), None)
        if not parts or stranger is not None:
            what = "nothing to join" if not parts else f"a {type(stranger).__name__} among the data sets"
            raise DataError(what, "concat", "give at least one data set, and data sets only")
        titles = tuple(d.name for d in parts) if names is None else as_names(names, "names")
        if len(titles) != len(parts) or len(set(titles)) != len(titles):
            raise DataError(f"names {list(titles)}", "concat", "give one distinct name per data set: names=[...]")
        shapes = {None if d.images is None else d.images.shape[1:] for d in parts}
        if len(shapes) > 1:
            raise DataError(
                f"image shapes differ: {sorted(map(str, shapes))}", "concat", "bring all sources to one shape first"
            )
        labels, classes = _join([(d.labels, d.classes) for d in parts])
        shared = [name for name in parts[0].columns if all(name in d.columns for d in parts)]
        columns: Columns = {name: _join([d.columns[name] for d in parts]) for name in shared}
        columns["source"] = (np.repeat(np.arange(len(parts)), [len(d) for d in parts]), titles)
        captions = None
        if all(d.captions is not None for d in parts):
            captions = tuple(text for d in parts for text in d.captions or ())
        images, paths = None, None
        if parts[0].images is not None:
            images = np.concatenate([d.images[d.positions] for d in parts if d.images is not None])
        else:
            paths = tuple(d.paths[p] for d in parts if d.paths is not None for p in d.positions)
        keys = tuple(f"{title}/{key}" for title, d in zip(titles, parts, strict=True) for key in d.all_keys())
        return Dataset(
            images, paths, np.arange(len(labels)), labels, classes, columns, captions, keys, " + ".join(titles)
        )

    def sample(self, n: int, seed: int = 0) -> Dataset:
        """A random subset of n examples, in the original order; the subset of n lies inside that of any larger n.

        Classes and units of which nothing was drawn are gone from it, and the others are numbered anew.

        Raises:
            DataError: n is not a whole number within 1..len(self), or the seed is not a whole number.
        """
        seed = whole(seed, "seed", "sample")
        n = whole(n, "n", "sample")
        if not 1 <= n <= len(self):
            raise DataError(f"a sample of {n} of {len(self)} examples", "sample", f"ask for 1 to {len(self)}")
        return self._take(np.sort(np.argsort(hash_order(self.all_keys(), f"sample {seed}"), kind="stable")[:n]))

    # ---- saving and opening ----------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Dataset:
        """Write the index, and raw images that are only in memory, into a folder; `Dataset.open(folder)` reads it back.

        Returns:
            the same data set, backed by the files, so that it travels to other processes as a path.

        Raises:
            StoreError: the folder cannot be written.
        """
        import io

        from safetensors.numpy import save

        root = as_path(folder, "save")
        positions, keys = self.positions, self.keys
        meta: dict[str, Any] = {
            "version": _INDEX_VERSION,
            "classes": self.classes,
            "captions": self.captions,
            "name": self.name,
            "columns": {name: names for name, (_, names) in self.columns.items()},
            "digest": self.digest,
        }
        if self.images is not None:
            mapped = npy_path(self.images)
            if mapped is None:
                buffer = io.BytesIO()
                np.save(buffer, np.ascontiguousarray(self.images[positions]), allow_pickle=False)
                write_atomic(root / "images.npy", buffer.getbuffer())
                mapped, first = "images.npy", np.arange(len(self))
                # The new places of the examples are not what they were known by.
                if keys is None and not np.array_equal(positions, first):
                    keys = self.all_keys()
                positions = first
            meta["images"], meta["stamp"] = mapped, file_stamp(root / mapped)
        else:
            meta["paths"] = self.paths
        meta["keys"] = keys
        tensors = {"labels": self.labels, "positions": positions.astype(np.int64)}
        tensors.update({f"column {name}": codes for name, (codes, _) in self.columns.items()})
        meta["checksum"] = _checksum(meta, tensors)
        write_atomic(root / "index.safetensors", save(tensors, {"pydt": canonical_json(meta)}))
        return Dataset.open(root)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Dataset:
        """Open a folder written by `save`.

        The index is always compared with its checksum. Images that pydt wrote itself are read and compared with the
        digest once per process, up to 1 GiB; larger ones, and `.npy` files of the user's, only when their size or time
        of change is not what it was when the index was written.

        Raises:
            DataError: the index or the images are missing or damaged, or the index is of another version.
        """
        return _open(str(as_path(path, "Dataset.open")), None)

    def __reduce__(self) -> Any:
        if self._filed:
            # What this process has compared need not be read again by every worker.
            return _open, (self.folder, self.__dict__["stamp"])
        return super().__reduce__()

    # ---- asking it -------------------------------------------------------------------------------------------------

    def units(self, by: str = "class") -> tuple[np.ndarray, tuple[str, ...]]:
        """The partition of the examples into units, whose influence can be asked for.

        Args:
            by: "class", "example", or the name of a column.

        Returns:
            int64 (examples,) unit of each example, -1 for "in no unit, always kept"; and the names of the units.

        Raises:
            DataError: no such column.
        """
        if by == "class":
            return self.labels, self.classes
        if by == "example":
            return np.arange(len(self)), self.all_keys()
        if not isinstance(by, str) or by not in self.columns:
            known = ", ".join(["class", "example", *self.columns])
            raise DataError(f"no unit column {by!r}", self.name, f"choose one of: {known}")
        return self.columns[by]

    def thumbnails(self, by: str = "class", each: int = 6) -> dict[str, np.ndarray]:
        """The first few raw images of each unit: name -> uint8 (n, height, width, channels). Empty for encoded
        files.
        """
        if self.images is None:
            return {}
        codes, names = self.units(by)
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        return {
            name: np.asarray(
                self.images[self.positions[np.sort(order[starts[i] : min(starts[i] + each, starts[i + 1])])]]
            )
            for i, name in enumerate(names)
        }

    def all_keys(self) -> tuple[str, ...]:
        """What identifies each example, in order."""
        return self.keys if self.keys is not None else tuple(map(str, self.positions.tolist()))

    @property
    def _filed(self) -> bool:
        """Whether its folder holds just this: dataclasses.replace keeps the folder, but not what `_open` noted."""
        return self.folder is not None and "stamp" in self.__dict__

    def _take(self, chosen: np.ndarray) -> Dataset:
        keys = self.all_keys()
        labels, classes = renumber(self.labels[chosen], self.classes)
        return replace(
            self,
            positions=self.positions[chosen],
            labels=labels,
            classes=classes,
            folder=None,
            columns={name: renumber(codes[chosen], names) for name, (codes, names) in self.columns.items()},
            captions=None if self.captions is None else tuple(self.captions[i] for i in chosen),
            keys=tuple(keys[i] for i in chosen),
        )


def spool(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """The same data set backed by files: itself if it already is, else saved (once) as `folder`/<digest>."""
    if dataset._filed:
        return dataset
    place = as_path(folder, "spool") / dataset.digest
    return Dataset.open(place) if (place / "index.safetensors").is_file() else dataset.save(place)


# ---- helpers -------------------------------------------------------------------------------------------------------


def _finish(dataset: Dataset, captions: Sequence[str] | None) -> Dataset:
    if captions is not None:
        texts = as_names(captions, "captions")
        if len(texts) != len(dataset):
            raise DataError(f"{len(texts)} captions for {len(dataset)} images", "captions", "give one per image")
        dataset = replace(dataset, captions=texts)
    present = np.bincount(dataset.labels, minlength=len(dataset.classes))
    if (present == 0).any():
        missing = [dataset.classes[i] for i in np.flatnonzero(present == 0)[:5]]
        raise DataError(
            f"classes without images: {', '.join(missing)}", dataset.name, "remove them from classes, or add images"
        )
    return dataset


def _join(parts: list[tuple[np.ndarray, tuple[str, ...]]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Partitions one after the other as one, in which equal names are one unit; -1 stays -1."""
    names = tuple(dict.fromkeys(name for _, own in parts for name in own))
    number = {name: i for i, name in enumerate(names)}
    # The last place of each table serves the code -1.
    return np.concatenate([np.array([*(number[n] for n in own), -1], np.int64)[codes] for codes, own in parts]), names


def _checksum(meta: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """Over everything an index says, so that a flipped bit in it is noticed."""
    said = {key: value for key, value in meta.items() if key != "checksum"}
    return digest(said, *(part for name in sorted(tensors) for part in (name, tensors[name])))


def _open(folder: str, seen: tuple[int, int] | None) -> Dataset:
    """`Dataset.open`; `seen` is the stamp of images that another process has compared already."""
    import json

    from safetensors import SafetensorError, safe_open

    root = Path(folder)
    index = root / "index.safetensors"
    if not index.is_file():
        raise DataError(
            "no data set here (index.safetensors is missing)", str(root), "write one with Dataset.save(folder)"
        )
    mend = f"delete {root} and write it again with Dataset.save; a run or the sample does so by itself"
    images, paths, stamp = None, None, None
    try:
        with safe_open(str(index), "numpy") as file:
            meta = json.loads((file.metadata() or {})["pydt"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        if meta["version"] != _INDEX_VERSION:
            newer = meta["version"] > _INDEX_VERSION
            raise DataError(
                f"index of version {meta['version']}", str(index), "open it with a newer pydt" if newer else mend
            )
        if meta["checksum"] != _checksum(meta, tensors):
            raise DataError("damaged index (its bytes are not those that were written)", str(index), mend)
        if "images" in meta:
            images = open_npy(root / meta["images"])
            stamp = file_stamp(root / meta["images"])
        else:
            paths = tuple(meta["paths"])
        columns = {name: (tensors[f"column {name}"], tuple(names)) for name, names in meta["columns"].items()}
        labels, positions = tensors["labels"], tensors["positions"]
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"damaged index ({error})", str(index), mend) from error
    if images is not None:
        images = images[..., np.newaxis] if images.ndim == 3 else images
        if images.dtype != np.uint8 or images.ndim != 4:
            raise DataError(
                f"images of dtype {images.dtype}, shape {images.shape}, not uint8 of 3 or 4 dimensions",
                str(root / meta["images"]),
                "restore the file, or index it again",
            )
    stored = len(images) if images is not None else len(paths or ())
    fits = (
        0 < len(labels) == len(positions)
        and 0 <= labels.min() <= labels.max() < len(meta["classes"])
        and 0 <= positions.min() <= positions.max() < stored
        and all(len(codes) == len(labels) for codes, _ in columns.values())
    )
    if not fits:
        raise DataError("labels, positions and images do not fit together", str(index), mend)
    opened = Dataset(
        images,
        paths,
        positions,
        labels,
        tuple(meta["classes"]),
        columns,
        None if meta["captions"] is None else tuple(meta["captions"]),
        None if meta["keys"] is None else tuple(meta["keys"]),
        meta["name"],
        str(root.resolve()),
    )
    if images is not None and stamp is not None:
        file, own = root.resolve() / meta["images"], meta["images"] == "images.npy"
        compared = (str(file), *stamp, meta["digest"])
        trusted = seen is not None and stamp == tuple(seen)
        if seen is None and stamp == tuple(meta["stamp"]):
            trusted = not (own and stamp[0] <= _VERIFY_LIMIT)
        if not trusted and compared not in _verified and opened.digest != meta["digest"]:
            raise DataError(
                "its pixels are not those that were indexed (damaged or changed)",
                str(file),
                mend if own else "restore the file, or index it again: Dataset.from_arrays(path, labels).save(folder)",
            )
        _verified.add(compared)
    opened.__dict__["stamp"] = stamp
    # Where nothing was compared, what the writer hashed is taken as said: re-reading every byte at each open would cost
    # more than a short training.
    opened.__dict__["digest"] = meta["digest"]
    return opened
