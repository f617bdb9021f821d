"""Data sets as users make, save and open them; what they hold is an `ExampleTable`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from pydt.base import UNNAMED, DataError, as_path, hash_order, whole
from pydt.data.concat import concat
from pydt.data.formats import READERS, arrays, folder, huggingface, tar, torchvision
from pydt.data.labels import Classes
from pydt.data.persistence import check_bytes, has_index, opened, save
from pydt.data.pixels import BACKGROUND
from pydt.data.table import ExampleTable


class Dataset(ExampleTable):
    """An index over labelled images. Make one with `from_arrays`, `from_folder`, `from_tar`, `from_torchvision`,
    `from_huggingface` or `open`; its attributes are those of `pydt.data.table.ExampleTable`.
    """

    @classmethod
    def of(cls, table: ExampleTable) -> Dataset:
        """A table as a data set."""
        made = object.__new__(cls)
        made.__dict__.update(table.__dict__)
        return made

    # ---- making one ------------------------------------------------------------------------------------------------

    @staticmethod
    def from_arrays(
        images: np.ndarray | str | os.PathLike[str],
        labels: Any,
        classes: Classes | None = None,
        *,
        columns: Any = None,
        captions: Any = None,
        background: str | None = None,
        name: str = UNNAMED,
    ) -> Dataset:
        """A data set over an array of raw images. Nothing is copied, unless the array is not in C order, or
        `background` is given.

        Args:
            images: uint8 (examples, height, width) or (examples, height, width, channels), channels 1 to 4; an array, a
                memory map, or the path of a `.npy` file, which is then memory-mapped.
            labels: (examples,) integers or strings, in a list, an array, a tensor, or a column of pandas, polars or
                Arrow. Without `classes`, the distinct labels in sorted order are the classes. What is one label, and
                what is none, says `pydt.data.labels`.
            classes: names of the classes in the order of their numbers, {number: name} or {name: number}; labels must
                then be these numbers, or these names.
            columns: further unit columns, name -> (examples,) integers or strings, or a table; what is missing (None,
                NaN, pandas' NA, "") or -1 puts an example in no unit.
            captions: one text per example; one that is missing (None, NaN, NA) is "", with a warning that counts them.
            background: None: networks see every channel of `images`, whatever it means. A colour (see `from_folder`):
                the last of 2 or 4 channels is alpha, 255 being opaque, and the images are kept as RGB on this ground.
            name: how reports call this data set.

        Raises:
            DataError: shapes, types, labels and images do not fit together; the text names the place.
        """
        return Dataset.of(
            arrays.read(images, labels, classes, columns=columns, captions=captions, background=background, name=name)
        )

    @staticmethod
    def from_folder(
        path: str | os.PathLike[str],
        *,
        columns: Any = None,
        captions: Any = None,
        bad: str = "raise",
        background: str = BACKGROUND,
    ) -> Dataset:
        """A data set over a folder of image files with one sub-folder per class, in sorted order. Nothing is decoded
        here.

        Every file is read once; what was read is kept as `index.pydt` in the folder, if it may be written, and only
        files that are new or changed are read again.

        Args:
            path: the folder; each sub-folder is a class, and its image files (at any depth) are the examples.
            columns: further unit columns in the order of the sorted file keys.
            captions: one text per file, in the same order.
            bad: what to do about files that are empty, cannot be read, or are no whole image: "raise", or "skip" them
                and list them in `left_out`.
            background: what shows through transparent pixels: "white", "black", "grey" or "#rrggbb". Part of `digest`
                where an image has such pixels.

        Raises:
            DataError: no such folder, no classes, a class without images, or bad files (named).
        """
        return Dataset.of(folder.read(path, columns=columns, captions=captions, bad=bad, background=background))

    @staticmethod
    def from_tar(
        paths: Any,
        classes: Classes | None = None,
        *,
        columns: Iterable[str] = (),
        label: str | None = "cls",
        caption: str | None = "txt",
        bad: str = "raise",
        background: str = BACKGROUND,
        name: str | None = None,
    ) -> Dataset:
        """A data set over uncompressed tar shards named as WebDataset does: `cat/7.jpg` (or another suffix of images)
        with `cat/7.cls`, `cat/7.txt` and `cat/7.json`. Nothing is unpacked or decoded; examples are in the order of
        the shards and then of their bytes, and are known by the names of their images.

        Every shard is read once; what was read is kept beside it as `SHARD.pydt`, if that may be written.

        Args:
            paths: a shard, a list of shards, or the folder of the shards.
            classes: names of the classes, where `.cls` holds their numbers, or those that it may name. By default those
                that the shards give (`pydt pack --tar` writes them), else what is there, sorted.
            columns: names whose values in `.json` shall be unit columns; they must be texts, whole numbers or missing.
            label: "cls" takes labels (numbers or names) from `.cls`, another name takes that of `.json`, None puts all
                images into one class.
            caption: "txt", or None for no captions. Without a single `.txt` there are none either.
            bad: what to do about images that are empty, cut off or none, or lack what others have: "raise", or "skip"
                them and list them in `left_out`. Damaged archives are always refused.
            background: as in `from_folder`.
            name: how reports call this data set; by default what the shard or its folder is called.

        Raises:
            DataError: a shard is compressed, damaged or cut off, or holds a link, a device, a sparse file or a name
                that leaves its folder; two images have one name; or as in `from_folder`. Shard and byte are named.
        """
        return Dataset.of(
            tar.read(
                paths,
                classes,
                columns=columns,
                label=label,
                caption=caption,
                bad=bad,
                background=background,
                name=name,
            )
        )

    @staticmethod
    def from_torchvision(
        dataset: Any,
        *,
        columns: Any = None,
        captions: Any = None,
        background: str = BACKGROUND,
        name: str | None = None,
    ) -> Dataset:
        """A data set over a torchvision one: over its files or its arrays where it has them, else over its decoded
        images.

        Args:
            dataset: torchvision's ImageFolder and its kin, CIFAR, MNIST and their kin; a Subset or ConcatDataset; or
                anything of (image, label) pairs with images of one size: Pillow's, uint8 arrays, tensors of uint8 or of
                255ths. A class that changes what ImageFolder gives is asked for every item.
            columns, captions: as in `from_arrays`, in the data set's order.
            background: what shows through transparent pixels of files and of Pillow's images; see `from_folder`.
            name: how reports call this data set; by default what its type is called.

        Class names are those of `class_to_idx` and `classes`; a `target_transform` is applied, and names follow their
        images. Names without images are left out, with a warning.

        Raises:
            DataError: it is no data set, the images have several sizes, are missing or not of 8 bits, the items are not
                (image, label) pairs or cannot be read, a label is missing or no class, or what the data set says about
                its labels contradicts itself; or as in `from_folder`.
        """
        return Dataset.of(
            torchvision.read(dataset, columns=columns, captions=captions, background=background, name=name)
        )

    @staticmethod
    def from_huggingface(
        dataset: Any,
        *,
        split: str = "train",
        image: str = "image",
        label: str = "label",
        columns: Iterable[str] = (),
        caption: str | None = None,
        background: str = BACKGROUND,
        name: str | None = None,
    ) -> Dataset:
        """A data set over one of the `datasets` package (extra `hf`): over its files where its images are files on this
        machine, else over its decoded images, which must then have one size.

        Args:
            dataset: a `datasets.Dataset`, one for each split (a `DatasetDict`), the folder of a saved one, or a name
                for `datasets.load_dataset`. How it was formatted (`with_format`) makes no difference.
            split: the split to take, where a name, a folder or several splits were given.
            image, label, caption: names of columns; class names come from the label's feature. Names without images are
                left out, with a warning.
            columns: names of columns that shall be unit columns.
            background: as in `from_torchvision`.
            name: how reports call this data set.

        Raises:
            DataError: the package is missing, the data set cannot be loaded, lacks a column or split, is a stream or
                changed by a function when it is read, has images of several sizes, or images or labels are missing.
        """
        return Dataset.of(
            huggingface.read(
                dataset,
                split=split,
                image=image,
                label=label,
                columns=columns,
                caption=caption,
                background=background,
                name=name,
            )
        )

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
        return Dataset.of(concat(parts, names))

    def sample(self, n: int, seed: int = 0) -> Dataset:
        """A random subset of n examples, in the original order; the subset of n lies inside that of any larger n.

        Classes and units of which nothing was drawn are gone from it, and the others are numbered anew.

        Raises:
            DataError: n is not a whole number within 1..len(self), or the seed is not a whole number.
        """
        seed = whole(seed, "seed", "sample", most=None)
        n = whole(n, "n", "sample")
        if not 1 <= n <= len(self):
            raise DataError(f"a sample of {n} of {len(self)} examples", "sample", f"ask for 1 to {len(self)}")
        return self.take(np.sort(np.argsort(hash_order(self.all_keys(), f"sample {seed}"), kind="stable")[:n]))

    # ---- saving and opening ----------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Dataset:
        """Write the index, and raw images that are only in memory, into a folder; `Dataset.open(folder)` reads it back.

        Returns:
            the same data set, backed by the files, so that it travels to other processes as a path.

        Raises:
            StoreError: the folder cannot be written.
        """
        root = as_path(folder, "save", DataError, made=True)
        save(self, root)
        return Dataset.open(root)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Dataset:
        """Open a folder that holds an index: one written by `save`, by `pydt pack`, or a folder of images.

        Every byte of the index is under a checksum. Images that pydt wrote itself are read and compared with the
        checksum of each once per process, up to 1 GiB; larger ones, `.npy` files of the user's and image files only
        when their size or time of change is not what it was when the index was written.

        Raises:
            DataError: the index or the images are missing, damaged or changed, or the index is of another version.
        """
        return open_folder(str(as_path(path, "Dataset.open", DataError)), None)

    def __reduce__(self) -> Any:
        if self.saved is not None:
            # What this process has compared need not be read again by every worker.
            return open_folder, (self.folder, self.saved.stamp, self.full_digest)
        return super().__reduce__()

    def check(self, n: int | None = None, seed: int = 0) -> None:
        """Compare the bytes of n images drawn at random (by default of all) with the CRC32C of each: encoded images
        with what they were when they were indexed, raw ones with what was saved, if they were.

        Raises:
            DataError: some differ, are gone or cut off: the first five are named; or n is not within 1..len(self).
        """
        check_bytes(self, n, seed)

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


def spool(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """The same data set backed by files: itself if it already is, else saved (once) as `folder`/<digest>."""
    if dataset.saved is not None:
        return dataset
    place = as_path(folder, "spool", DataError, made=True) / dataset.full_digest
    return Dataset.open(place) if has_index(place) else dataset.save(place)


def read(kind: str, place: Any, **options: Any) -> Dataset:
    """The data set in a container of `pydt.data.formats.READERS`."""
    return Dataset.of(READERS[kind].read(place, **options))


def open_folder(folder: str, seen: tuple[int, int] | None, expected: str | None = None) -> Dataset:
    """`Dataset.open`; `seen` is the stamp of images that another process has compared already, `expected` the
    `full_digest` that it saw.
    """
    found = Dataset.of(opened(folder, seen))
    if expected is not None and found.full_digest != expected:
        raise DataError("holds another data set than a moment ago", folder, "write each data set to its own folder")
    return found
