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

from pydt.errors import DataError
from pydt.files import canonical_json, digest, write_atomic

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_INDEX_VERSION = 1


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
        keys: what identifies an example wherever it is stored: file keys, or positions for arrays.
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
            content = _array_digest(self.images, self.positions)
        else:
            assert self.paths is not None
            content = digest(*(_file_digest(self.paths[p]) for p in self.positions))
        columns = {name: [digest(codes), list(names)] for name, (codes, names) in self.columns.items()}
        captions = None if self.captions is None else list(self.captions)
        return digest(content, self.labels, list(self.classes), columns, captions, digest(list(self.keys or ())))

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
            columns: further unit columns, name -> (examples,) integers or strings; None or -1 puts an example in no
                unit.
            captions: one text per example.
            name: how reports call this data set.

        Raises:
            DataError: shapes, types, labels and images do not fit together; the text names the place.
        """
        if isinstance(images, (str, os.PathLike)):
            images = _open_npy(images)
        array = np.asanyarray(images)
        if array.dtype != np.uint8:
            raise DataError(
                f"dtype {array.dtype}, not uint8", "images", "scale to 0..255 and convert: images.astype('uint8')"
            )
        if array.ndim not in (3, 4) or (array.ndim == 4 and not 1 <= array.shape[3] <= 4):
            raise DataError(
                f"shape {array.shape}",
                "images",
                "give (examples, height, width) or (examples, height, width, channels)",
            )
        if array.ndim == 3:
            array = array[..., np.newaxis]
        # The core reads whole images in C order; anything else is copied once, here.
        array = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        if 0 in array.shape:
            raise DataError(
                f"no pixels: shape {array.shape}", "images", "give at least one image of at least one pixel"
            )
        codes, names = _encode_labels(labels, classes, len(array))
        return _finish(
            Dataset(
                array, None, np.arange(len(array)), codes, names, _encode_columns(columns, len(array)), None, None, name
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
        root = Path(path)
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
                _encode_columns(columns, len(paths)),
                None,
                tuple(keys),
                root.resolve().name,
            ),
            captions,
        )

    @staticmethod
    def from_torchvision(dataset: Any, *, name: str | None = None) -> Dataset:
        """A data set over a torchvision one: over its files or its arrays where it has them, else over its decoded
        images.

        Args:
            dataset: anything with `samples` (ImageFolder and its kin), with uint8 `data` and `targets` (CIFAR,
                MNIST), or that yields (PIL image or uint8 array, label) pairs with images of one size.

        Raises:
            DataError: the images have several sizes, or the items are not (image, label) pairs.
        """
        title = name or type(dataset).__name__
        names = getattr(dataset, "classes", None)
        if hasattr(dataset, "samples") and getattr(dataset, "root", None) is not None:
            paths = tuple(os.path.abspath(item[0]) for item in dataset.samples)
            labels, classes = _encode_labels([item[1] for item in dataset.samples], names, len(paths))
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
    def concat(datasets: Sequence[Dataset], names: Sequence[str] | None = None) -> Dataset:
        """Several data sets as one, with the unit column `source` that says where each example comes from.

        Classes of the same name are one class. Arrays of one image shape are joined in memory; files stay where they
        are.

        Args:
            datasets: at least one, all of raw images of one shape or all of encoded files.
            names: one unit name per data set; their own names by default.

        Raises:
            DataError: kinds or shapes differ, or two data sets would have the same name.
        """
        if not datasets:
            raise DataError("nothing to join", "concat", "give at least one data set")
        titles = tuple(names) if names is not None else tuple(d.name for d in datasets)
        if len(titles) != len(datasets) or len(set(titles)) != len(titles):
            raise DataError(f"names {list(titles)}", "concat", "give one distinct name per data set: names=[...]")
        shapes = {None if d.images is None else d.images.shape[1:] for d in datasets}
        if len(shapes) > 1:
            raise DataError(
                f"image shapes differ: {sorted(map(str, shapes))}", "concat", "bring all sources to one shape first"
            )
        classes = tuple(dict.fromkeys(c for d in datasets for c in d.classes))
        number = {c: i for i, c in enumerate(classes)}
        labels = np.concatenate([np.array([number[c] for c in d.classes], np.int64)[d.labels] for d in datasets])
        source = np.repeat(np.arange(len(datasets)), [len(d) for d in datasets])
        columns: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {"source": (source, titles)}
        captions = None
        if all(d.captions is not None for d in datasets):
            captions = tuple(text for d in datasets for text in d.captions or ())
        images, paths = None, None
        if datasets[0].images is not None:
            images = np.concatenate([d.images[d.positions] for d in datasets if d.images is not None])
        else:
            paths = tuple(d.paths[p] for d in datasets if d.paths is not None for p in d.positions)
        keys = tuple(f"{title}/{key}" for title, d in zip(titles, datasets, strict=True) for key in d.all_keys())
        return Dataset(
            images, paths, np.arange(len(labels)), labels, classes, columns, captions, keys, " + ".join(titles)
        )

    def sample(self, n: int, seed: int = 0) -> Dataset:
        """A random subset of n examples, in the original order; the subset of n lies inside that of any larger n.

        Raises:
            DataError: n is not within 1..len(self).
        """
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

        root = Path(folder)
        meta: dict[str, Any] = {
            "version": _INDEX_VERSION,
            "classes": self.classes,
            "captions": self.captions,
            "keys": self.keys,
            "name": self.name,
            "columns": {name: names for name, (_, names) in self.columns.items()},
            "digest": self.digest,
        }
        positions = self.positions
        if self.images is not None:
            mapped = _npy_path(self.images)
            if mapped is None:
                buffer = io.BytesIO()
                np.save(buffer, np.ascontiguousarray(self.images[self.positions]), allow_pickle=False)
                write_atomic(root / "images.npy", buffer.getbuffer())
                positions, mapped = np.arange(len(self)), "images.npy"
            meta["images"] = mapped
        else:
            meta["paths"] = self.paths
        tensors = {"labels": self.labels, "positions": positions.astype(np.int64)}
        tensors.update({f"column {name}": codes for name, (codes, _) in self.columns.items()})
        write_atomic(root / "index.safetensors", save(tensors, {"pydt": canonical_json(meta)}))
        return Dataset.open(root)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Dataset:
        """Open a folder written by `save`.

        Raises:
            DataError: the index is missing, damaged or of a newer version, or its images are gone.
        """
        import json

        from safetensors import SafetensorError, safe_open

        root = Path(path)
        index = root / "index.safetensors"
        if not index.is_file():
            raise DataError(
                "no data set here (index.safetensors is missing)", str(root), "write one with Dataset.save(folder)"
            )
        try:
            with safe_open(str(index), "numpy") as file:
                meta = json.loads((file.metadata() or {})["pydt"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            if meta["version"] > _INDEX_VERSION:
                raise DataError(f"index of version {meta['version']}", str(index), "open it with a newer pydt")
            images, paths = None, None
            if "images" in meta:
                images = _open_npy(root / meta["images"])
                images = images[..., np.newaxis] if images.ndim == 3 else images
            else:
                paths = tuple(meta["paths"])
            stored = len(images) if images is not None else len(paths or ())
            labels, positions = tensors["labels"], tensors["positions"]
            columns = {name: (tensors[f"column {name}"], tuple(names)) for name, names in meta["columns"].items()}
            wrong = (
                len(labels) != len(positions)
                or not len(labels)
                or labels.min() < 0
                or labels.max() >= len(meta["classes"])
                or positions.min() < 0
                or positions.max() >= stored
                or any(len(codes) != len(labels) for codes, _ in columns.values())
            )
            if wrong:
                raise DataError(
                    "labels, positions and images do not fit together", str(index), "write it again with save"
                )
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise DataError(f"damaged index ({error})", str(index), "write it again with Dataset.save") from error
        captions = None if meta["captions"] is None else tuple(meta["captions"])
        keys = None if meta["keys"] is None else tuple(meta["keys"])
        opened = Dataset(
            images,
            paths,
            positions,
            labels,
            tuple(meta["classes"]),
            columns,
            captions,
            keys,
            meta["name"],
            str(root.resolve()),
        )
        # What the writer hashed is taken as said: re-reading every byte at each open would cost more than a short
        # training.
        opened.__dict__["digest"] = meta["digest"]
        return opened

    def __reduce__(self) -> Any:
        if self.folder is not None:
            return Dataset.open, (self.folder,)
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
        if by not in self.columns:
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

    def _take(self, chosen: np.ndarray) -> Dataset:
        return replace(
            self,
            positions=self.positions[chosen],
            labels=self.labels[chosen],
            folder=None,
            columns={name: (codes[chosen], names) for name, (codes, names) in self.columns.items()},
            captions=None if self.captions is None else tuple(self.captions[i] for i in chosen),
            keys=None if self.keys is None else tuple(self.keys[i] for i in chosen),
        )


def spool(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """The same data set backed by files: itself if it already is, else saved (once) as `folder`/<digest>."""
    if dataset.folder is not None:
        return dataset
    place = Path(folder) / dataset.digest
    return Dataset.open(place) if (place / "index.safetensors").is_file() else dataset.save(place)


# ---- helpers -------------------------------------------------------------------------------------------------------


def _finish(dataset: Dataset, captions: Sequence[str] | None) -> Dataset:
    if captions is not None:
        if len(captions) != len(dataset):
            raise DataError(f"{len(captions)} captions for {len(dataset)} images", "captions", "give one per image")
        dataset = replace(dataset, captions=tuple(str(text) for text in captions))
    present = np.bincount(dataset.labels, minlength=len(dataset.classes))
    if (present == 0).any():
        missing = [dataset.classes[i] for i in np.flatnonzero(present == 0)[:5]]
        raise DataError(
            f"classes without images: {', '.join(missing)}", dataset.name, "remove them from classes, or add images"
        )
    return dataset


def _encode(values: Any, what: str, length: int) -> np.ndarray:
    array = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if array.dtype == object:
        array = np.array(["" if v is None else str(v) for v in array.ravel()]) if array.ndim == 1 else array
    if array.ndim != 1 or len(array) != length:
        raise DataError(f"shape {array.shape} for {length} images", what, "give exactly one per image")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.round(array)).any():
            raise DataError("not whole numbers", what, "give integers or strings")
        array = array.astype(np.int64)
    if array.dtype.kind not in "biuUS":
        raise DataError(f"dtype {array.dtype}", what, "give integers or strings")
    return array.astype(str) if array.dtype.kind == "S" else array


def _encode_labels(labels: Any, classes: Sequence[str] | None, length: int) -> tuple[np.ndarray, tuple[str, ...]]:
    array = _encode(labels, "labels", length)
    if classes is None:
        distinct, codes = np.unique(array, return_inverse=True)
        return codes.astype(np.int64), tuple(str(v) for v in distinct)
    names = tuple(str(c) for c in classes)
    if len(set(names)) != len(names):
        raise DataError("the same name twice", "classes", "give every class a name of its own")
    if array.dtype.kind == "U":
        number = {name: i for i, name in enumerate(names)}
        unknown = next((v for v in array.tolist() if v not in number), None)
        if unknown is not None:
            raise DataError(f"label {unknown!r} is not among the classes", "labels", "add it to classes")
        return np.array([number[v] for v in array.tolist()], np.int64), names
    wrong = np.flatnonzero((array < 0) | (array >= len(names)))
    if len(wrong):
        raise DataError(
            f"label {array[wrong[0]]} at position {wrong[0]} with {len(names)} classes",
            "labels",
            f"use 0..{len(names) - 1}",
        )
    return array.astype(np.int64), names


def _encode_columns(columns: Mapping[str, Any] | None, length: int) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    encoded: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {}
    for name, values in (columns or {}).items():
        if name in ("class", "example"):
            raise DataError(f"column name {name!r} is taken", "columns", "choose another")
        array = _encode(values, f"column {name!r}", length)
        outside = array == "" if array.dtype.kind == "U" else array == -1
        distinct, codes = np.unique(array[~outside], return_inverse=True)
        full = np.full(length, -1, np.int64)
        full[~outside] = codes
        encoded[name] = (full, tuple(str(v) for v in distinct))
    return encoded


def _open_npy(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be mapped as .npy ({error})", str(path), "write it with numpy.save") from error


def _npy_path(images: np.ndarray) -> str | None:
    """The `.npy` file of which `images` is the whole memory map, possibly with a channel axis added; else None."""
    base: Any = images
    while isinstance(base, np.ndarray) and not (isinstance(base, np.memmap) and not isinstance(base.base, np.memmap)):
        base = base.base
    if not isinstance(base, np.memmap) or base.filename is None or not str(base.filename).endswith(".npy"):
        return None
    return os.path.abspath(str(base.filename)) if base.size == images.size and len(base) == len(images) else None


def _array_digest(images: np.ndarray, positions: np.ndarray) -> str:
    # Hashed in slices, so that a memory map of any size passes through a few megabytes of memory.
    step = max(1, (8 << 20) // max(1, int(np.prod(images.shape[1:]))))
    slices: Iterable[np.ndarray] = (images[positions[i : i + step]] for i in range(0, len(positions), step))
    return digest(list(images.shape[1:]), *(digest(piece) for piece in slices))


def _file_digest(path: str) -> str:
    import hashlib

    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", path, "restore the file, or index the folder again"
        ) from error


def hash_order(keys: Sequence[str], salt: str) -> np.ndarray:
    """64 bits per key, the same on every machine: uint64 (keys,). Sorting by them is a shuffle that no seed can
    change.
    """
    import hashlib

    return np.array(
        [int.from_bytes(hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest(), "little") for key in keys],
        np.uint64,
    )
