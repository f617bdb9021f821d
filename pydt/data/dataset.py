"""Data sets as an index over bytes that already exist.

A `Dataset` holds no copy of the images: it holds where they are (a uint8 array in memory or in a `.npy` file, or a
list of encoded files), one label per example, names, unit columns and captions. A mask is applied to this index,
never to the bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import (
    UNNAMED,
    DataError,
    DataWarning,
    StoreError,
    array_digest,
    as_names,
    as_path,
    check_length,
    digest,
    hash_order,
    npy_path,
    whole,
    write_atomic,
)
from pydt.data.concat import joined
from pydt.data.formats import folder as sources
from pydt.data.formats import foreign
from pydt.data.formats import tar as shards
from pydt.data.formats.arrays import as_images
from pydt.data.image_bytes import Contents
from pydt.data.index_file import FILE, Records, Texts, pack_index, read_index, records_of, repeated
from pydt.data.labels import (
    UNUSED,
    Classes,
    class_table,
    encode_captions,
    encode_columns,
    encode_labels,
    listed,
    positions,
    renumber,
)
from pydt.data.persistence import check_bytes, fields_of, has_index, sections_of
from pydt.data.pixels import BACKGROUND, CLEAR, DEEP, colour, counted, on_background


@dataclass(frozen=True, eq=False)
class Dataset:
    """An index over labelled images. Make one with `from_arrays`, `from_folder`, `from_tar`, `from_torchvision`,
    `from_huggingface` or `open`.

    Attributes:
        images: uint8 (stored, height, width, channels), in memory or memory-mapped; None for encoded files.
        paths: absolute paths of encoded files, or of the shards that hold them (stored,); None for arrays.
        positions: int64 (examples,), where in `images` or `paths` each example lies (in a shard: `records.offset`).
        labels: int64 (examples,), each in 0..len(classes)-1.
        classes: one name per label.
        columns: further unit columns: name -> (int64 codes (examples,), -1 meaning in no unit; names of the units).
        captions: one text per example, or None.
        keys: what identifies an example wherever it is stored; None for arrays, whose positions then do.
        name: how reports call this data set.
        records: what is known of the bytes of each example; None for arrays.
        left_out: bad files that were skipped when a folder was indexed: key -> reason.
        noted: what else was left out or changed when it was made, in words: reason -> (how many, the first of them).
        background: "#rrggbb", what shows through transparent pixels of encoded images.
    """

    images: np.ndarray | None
    paths: Sequence[str] | None
    positions: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    columns: Mapping[str, tuple[np.ndarray, tuple[str, ...]]] = field(default_factory=dict)
    captions: Sequence[str] | None = None
    keys: Sequence[str] | None = None
    name: str = "data"
    folder: str | None = None
    records: Records | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    noted: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    background: str = colour(BACKGROUND)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "encoded files" if self.images is None else "x".join(map(str, self.images.shape[1:]))
        classes = f"{len(self.classes)} class{'' if len(self.classes) == 1 else 'es'}"
        examples = f"{len(self):,} example{'' if len(self) == 1 else 's'}"
        return f"Dataset({self.name!r}, {examples} of {shape}, {classes})"

    @property
    def encoded(self) -> bool:
        """Whether the images are files that still have to be decoded."""
        return self.images is None

    @cached_property
    def digest(self) -> str:
        """What a network sees of this data set: its images, labels, class names and the examples' keys, in order.

        It names the rows of a store. Unit columns are not part of it: what a row kept of which partition is named
        beside it, so a further column retrains nothing. Captions are not either: what trains on them names
        `full_digest`.
        """
        return self._digest({}, None)

    @cached_property
    def full_digest(self) -> str:
        """Digest of all that the index says: what `digest` covers, and the unit columns and captions."""
        columns = {name: [digest(codes), list(names)] for name, (codes, names) in self.columns.items()}
        return self._digest(columns, None if self.captions is None else list(self.captions))

    def _digest(self, columns: Mapping[str, Any], captions: list[str] | None) -> str:
        return digest(self._content, self.labels, list(self.classes), columns, captions, digest(list(self.all_keys())))

    @cached_property
    def _content(self) -> str:
        if self.images is not None:
            return array_digest(self.images, self.positions)
        assert self.records is not None
        shown = self.shown()
        return digest("files", self.records.length, self.records.sha, *([shown] if shown else []))

    def traits(self) -> np.ndarray:
        """What is odd about the pixels of each example, as in `pydt.data.pixels`: uint8 (examples,)."""
        return np.zeros(len(self), np.uint8) if self.records is None else self.records.traits

    def odd(self) -> dict[str, tuple[int, str]]:
        """Images that are not shown as they are stored, and `noted`: in words -> (how many, the first of them)."""
        found = counted(self.traits(), self.background, self.all_keys())
        if self.images is not None and self.images.shape[3] in (2, 4):
            what = f"images of {self.images.shape[3]} channels, each of which networks see"
            found[f"{what} (is the last one alpha? from_arrays has background=)"] = len(self), self.all_keys()[0]
        return found | dict(self.noted)

    def notes(self) -> list[str]:
        """What `odd` and `left_out` hold as sentences, for whoever looks at results."""
        found = list(self.odd().items())
        if self.left_out:
            key, why = next(iter(self.left_out.items()))
            found.append(("bad files, left out", (len(self.left_out), f"{key}: {why}")))
        return [f"{what}: {n:,} ({first}{', ...' if n > 1 else ''})" for what, (n, first) in found]

    def shown(self) -> dict[str, str]:
        """What beside the bytes of its files decides the pixels: for digests, and empty for most data sets."""
        traits = self.traits()
        found = {"background": self.background} if (traits & CLEAR).any() else {}
        return found | ({"depth": "scaled"} if (traits & DEEP).any() else {})

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
        array = as_images(images)
        codes, names = encode_labels(labels, classes, len(array))
        noted: sources.Noted = {}
        if background is not None:
            array, traits = on_background(array, background)
            noted = counted(traits, colour(background), [str(i) for i in range(len(array))])
        made = Dataset(array, None, np.arange(len(array)), codes, names, name=name, noted=noted)
        return made._finish(columns, captions)

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
        root, ground = as_path(path, "from_folder", DataError), colour(background)
        listing = sources.list_folder(root)
        made = _from_files(
            str(root.resolve()),
            listing.keys,
            np.asarray(listing.labels, np.int64),
            tuple(class_table(listing.classes, str(root)).values()),
            root.resolve().name,
            (listing.lengths, listing.times, listing.bad, bad),
            background=ground,
            noted=listing.noted,
        )
        return made._finish(columns, captions)

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
        if caption not in ("txt", None):
            raise DataError(f"caption={caption!r}", "from_tar", 'choose caption="txt" or caption=None')
        ground = colour(background)
        made = shards.fields(paths, classes, columns, label, caption, bad, name)
        return Dataset(**made, background=ground)._finish(None, None)

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
        title = name or type(dataset).__name__
        ground = colour(background)
        found = foreign.torchvision(dataset, title, ground)
        mend = "leave out the images without a label: torch.utils.data.Subset(dataset, ...)"
        return _from_found(found, title, mend, foreign.SUBSET, ground)._finish(columns, captions)

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
        loaded = foreign.hugging_face(dataset, split)
        title = name or (os.path.basename(os.fspath(dataset)) if isinstance(dataset, (str, os.PathLike)) else "hf")
        units = {column: foreign.hugging_face_units(loaded, column) for column in as_names(columns, "columns")}
        captions = None if caption is None else foreign.hugging_face_column(loaded, caption)[0]
        ground = colour(background)
        found = foreign.hugging_face_found(loaded, image, label, title, ground)
        mend = f"leave out the images without a label: dataset.filter(lambda row: row[{label!r}] not in (None, -1))"
        return _from_found(found, title, mend, foreign.SELECT, ground)._finish(units, captions)

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
        return Dataset(**joined(parts, names))

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
        return self._take(np.sort(np.argsort(hash_order(self.all_keys(), f"sample {seed}"), kind="stable")[:n]))

    # ---- saving and opening ----------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Dataset:
        """Write the index, and raw images that are only in memory, into a folder; `Dataset.open(folder)` reads it back.

        Returns:
            the same data set, backed by the files, so that it travels to other processes as a path.

        Raises:
            StoreError: the folder cannot be written.
        """
        root = as_path(folder, "save", DataError, made=True)
        stored = self
        if self.images is not None and npy_path(self.images) is None:
            # The new places of the examples are not what they were known by.
            first = np.arange(len(self))
            keys = self.keys if self.keys is not None or np.array_equal(self.positions, first) else self.all_keys()
            pixels = np.ascontiguousarray(self.images[self.positions])
            buffer = io.BytesIO()
            np.save(buffer, pixels, allow_pickle=False)
            write_atomic(root / "images.npy", buffer.getbuffer())
            stored = replace(self, images=pixels, positions=first, keys=keys)
            stored.__dict__.update(digest=self.digest, full_digest=self.full_digest)
        write_atomic(root / FILE, pack_index(sections_of(stored, root)))
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
        if self._filed:
            # What this process has compared need not be read again by every worker.
            return open_folder, (self.folder, self.__dict__["stamp"], self.full_digest)
        return super().__reduce__()

    def check(self, n: int | None = None, seed: int = 0) -> None:
        """Compare the bytes of n images drawn at random (by default of all) with the CRC32C of each: encoded images
        with what they were when they were indexed, raw ones with what was saved, if they were.

        Raises:
            DataError: some differ, are gone or cut off: the first five are named; or n is not within 1..len(self).
        """
        check_bytes(self, n, seed)

    def unchanged(self) -> None:
        """Look whether the file behind mapped images is still as large as what was mapped: reading beyond its end
        would end the process. One call of the system; a loader makes it at every batch. (`bytes_of` does the like for
        encoded images.)

        Raises:
            DataError: it is shorter or gone.
        """
        if self.images is not None:
            check_length(self.images)

    def bytes_of(self, ids: Any, check: bool = False) -> list[np.ndarray]:
        """The encoded images of some examples as they lie in their files: read-only uint8 (length,) each, in the order
        of `ids`. Those in shards are views of a mapping, to be used before the shard may be cut; loose files are read
        into one buffer, which lives as long as any of the arrays.

        Args:
            ids: example ids, integers (n,).
            check: compare every image with its CRC32C; without it, only lengths are compared.

        Raises:
            DataError: the images are no files, an id is out of range, or a file is gone, has another length than when
                it was indexed, or (if checked) other bytes: it is named.
            StoreError: this process has too many files or too little memory.
        """
        contents = self._contents
        return contents.read(contents.chosen(ids, self.name), check)

    def place_of(self, i: int) -> str:
        """Where the encoded image of an example lies, for people: its file, and in a shard its name and first byte.

        Raises:
            DataError: as `bytes_of`.
        """
        contents = self._contents
        return contents.place(int(contents.chosen([i], self.name)[0]))

    @cached_property
    def _contents(self) -> Contents:
        if self.paths is None or self.records is None:
            raise DataError("its images are pixels, not files", self.name, "use Dataset.images, or a Loader")
        return Contents(self.paths, self.positions, self.records, self.all_keys())

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
            return np.arange(len(self)), tuple(self.all_keys())
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

    def all_keys(self) -> Sequence[str]:
        """What identifies each example, in order."""
        return self.keys if self.keys is not None else tuple(map(str, self.positions.tolist()))

    @property
    def _filed(self) -> bool:
        """Whether its folder holds just this: dataclasses.replace keeps the folder, not what `open_folder` noted."""
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
            records=None if self.records is None else self.records.take(chosen),
        )

    def _finish(self, columns: Any, captions: Any) -> Dataset:
        """With columns and captions, and checked: no class is without images, no key is there twice."""
        made = self
        if columns is not None:
            made = replace(made, columns=encode_columns(columns, len(self)))
        if captions is not None:
            texts, missing = encode_captions(captions, len(self))
            made = replace(made, captions=texts)
            if missing.any():
                what = "captions are missing and are empty" if missing.sum() > 1 else "caption is missing and is empty"
                warnings.warn(f"{missing.sum():,} {what}: {positions(missing)}", DataWarning, stacklevel=3)
                first = self.all_keys()[int(missing.argmax())]
                made = replace(made, noted={**made.noted, "images without a caption": (int(missing.sum()), first)})
        present = np.bincount(self.labels, minlength=len(self.classes))
        if (present == 0).any():
            empty = [self.classes[i] for i in np.flatnonzero(present == 0)[:5]]
            raise DataError(
                f"classes without images: {', '.join(empty)}", self.name, "remove them from classes, or add images"
            )
        return made


def spool(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """The same data set backed by files: itself if it already is, else saved (once) as `folder`/<digest>."""
    if dataset._filed:
        return dataset
    place = as_path(folder, "spool", DataError, made=True) / dataset.full_digest
    return Dataset.open(place) if has_index(place) else dataset.save(place)


# ---- helpers -------------------------------------------------------------------------------------------------------


def _from_found(found: foreign.Found, title: str, mend: str, others: str, background: str) -> Dataset:
    """A data set over what one of another library holds, without the classes that have no image, which are counted:
    what it names cannot be changed by an argument.

    Args:
        mend: what to do about images without a label.
        others: how bad images are left out.
    """
    codes, names = encode_labels(found.labels, found.names, len(found.labels), mend, foreign.ABSENT)
    codes, classes = renumber(codes, names)
    if found.images is not None:
        made = Dataset.from_arrays(found.images, codes, classes, name=title)
        if found.traits is not None:
            made = replace(made, noted=counted(found.traits, background, made.all_keys()))
    else:
        keys = [Path(os.path.relpath(file, found.root)).as_posix() for file in found.files]
        made = _from_files(
            os.path.realpath(found.root), keys, codes, classes, title, background=background, others=others
        )
    noted = dict(made.noted)
    if found.bare:
        noted["images without the transform that the data set has"] = len(made), made.all_keys()[0]
    if unused := [name for name in names if name not in set(classes)]:
        what = "have no image and are" if len(unused) > 1 else "has no image and is"
        text = f"{title}: {len(unused):,} of {len(names):,} class names {what} left out: {listed(map(repr, unused))}"
        warnings.warn(text, DataWarning, stacklevel=3)
        noted[UNUSED] = len(unused), unused[0]
    return replace(made, noted=noted)


def _from_files(
    root: str,
    keys: Sequence[str],
    labels: np.ndarray,
    classes: tuple[str, ...],
    name: str,
    listed: tuple[list[int], list[int], sources.Bad, str] | None = None,
    *,
    background: str = BACKGROUND,
    noted: Mapping[str, tuple[int, str]] | None = None,
    others: str = "",
) -> Dataset:
    """A data set over files below `root`, indexed there: what an earlier index knows is not read again.

    Args:
        listed: size and time of each file, files that are bad already, and what to do about bad ones. Without it, bad
            files are refused, and `others` says how the data set is given without them.
    """
    ground = colour(background)
    lengths, times, bad, choice = listed or (*sources.stamps(root, keys), {}, "raise")
    index, known = Path(root) / FILE, None
    with contextlib.suppress(DataError, KeyError):  # none, or damaged: everything is read
        sections = read_index(index)
        before, names = records_of(sections), sections.get("keys")
        if before is not None and isinstance(names, Texts) and len(names) == len(before.crc):
            known = names, before
    records = sources.read_records(root, keys, lengths, times, known, bad)
    sources.refuse(bad, root, choice, *([f"restore them, or leave them out: {others}"] if listed is None else []))
    good = np.array([i for i, key in enumerate(keys) if key not in bad], np.int64)
    if not len(good):
        raise DataError("has no images", root, "give at least one")
    kept = tuple(keys[i] for i in good.tolist())
    if (twice := repeated(kept)) is not None:
        raise DataError(f"file {twice!r} is listed twice", root, "give every example once")
    made = Dataset(
        None,
        tuple(os.path.normpath(f"{root}/{key}") if ".." in key else f"{root}/{key}" for key in kept),
        np.arange(len(good)),
        labels[good],
        classes,
        keys=kept,
        name=name,
        records=records.take(good),
        left_out=dict(sorted(bad.items())),
        noted=noted or {},
        background=ground,
    )
    made._finish(None, None)
    data = pack_index(sections_of(made, Path(root)))
    with contextlib.suppress(StoreError):  # the folder may not be written: the next time, everything is read again
        if known is None or data != index.read_bytes():
            write_atomic(index, data)
    return made


def open_folder(folder: str, seen: tuple[int, int] | None, expected: str | None = None) -> Dataset:
    """`Dataset.open`; `seen` is the stamp of images that another process has compared already, `expected` the
    `full_digest` that it saw.
    """
    fields, known = fields_of(folder, seen)
    opened = Dataset(**fields)
    # Where nothing was compared, what the writer hashed is taken as said: re-reading every byte at each open would cost
    # more than a short training.
    opened.__dict__.update(known)
    if expected is not None and opened.full_digest != expected:
        raise DataError("holds another data set than a moment ago", folder, "write each data set to its own folder")
    return opened
