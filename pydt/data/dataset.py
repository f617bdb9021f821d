"""Data sets as users make, save and open them; what they hold is an `ExampleTable`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec

import numpy as np

from pydt.base import DataError, as_path, hash_order, html_table, to_frame, whole
from pydt.data.concat import concat
from pydt.data.formats import READERS, arrays, folder, huggingface, tar, torchvision
from pydt.data.name_lists import chosen_groups
from pydt.data.persistence import check_bytes, has_index, opened, save
from pydt.data.table import ExampleTable
from pydt.data.thumbnails import pictured

P = ParamSpec("P")


def _made(read: Callable[P, ExampleTable], name: str) -> Callable[P, Dataset]:
    """A reader as a constructor: its arguments and its docstring."""

    @wraps(read)
    def made(*arguments: P.args, **named: P.kwargs) -> Dataset:
        return Dataset.of(read(*arguments, **named))

    made.__module__, made.__name__, made.__qualname__ = __name__, name, f"Dataset.{name}"  # pickle looks it up
    made.__signature__ = signature(read).replace(return_annotation="Dataset")  # type: ignore[attr-defined]
    return made


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

    from_arrays = staticmethod(_made(arrays.read, "from_arrays"))
    from_folder = staticmethod(_made(folder.read, "from_folder"))
    from_tar = staticmethod(_made(tar.read, "from_tar"))
    from_torchvision = staticmethod(_made(torchvision.read, "from_torchvision"))
    from_huggingface = staticmethod(_made(huggingface.read, "from_huggingface"))

    @staticmethod
    def concat(datasets: Iterable[Dataset], names: Iterable[str] | None = None) -> Dataset:
        """Several data sets as one, with the group column `source` that says where each example comes from.

        Classes of the same name are one class, groups of the same name in a column that all parts have are one group.
        Columns and captions that only some parts have are left out, and an earlier column `source` is replaced. Arrays
        of one image shape are joined in memory; files and parts of one array stay where they are.

        Args:
            datasets: at least one, all of raw images of one shape or all of encoded files.
            names: one group name per data set; their own names by default.

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
        """A random subset of n examples, 1 to len(self), in the original order; that of n lies inside that of any
        larger n. Classes and groups without examples are dropped, and the others numbered anew.
        """
        seed = whole(seed, "seed", "sample", most=None)
        n = whole(n, "n", "sample")
        if not 1 <= n <= len(self):
            raise DataError(f"a sample of {n} of {len(self)} examples", "sample", f"ask for 1 to {len(self)}")
        return self.take(np.sort(np.argsort(hash_order(self.all_keys(), f"sample {seed}"), kind="stable")[:n]))

    def keep(self, groups: Any = None, by: str = "class", *, drop: Any = None) -> Dataset:
        """The data set with these groups only, or without those of `drop`, in the original order. Examples in no group
        always stay. Classes and groups without examples are dropped, and the others numbered anew.

        Args:
            groups: names; or a file that `pydt keep` wrote: its text file (a name a line) or its .json.
            by: what makes groups, as in `units`: "class", "example" or a column.
            drop: in place of `groups`, what is left out: names, or a text file of them.

        Raises:
            DataError: both or neither are given, a name is unknown (the nearest is told), or nothing is left.
            ConfigError, StoreError: the file cannot be read.
        """
        if (groups is None) == (drop is None):
            raise DataError("give either groups or drop", "Dataset.keep", 'such as keep(["cat"]) or keep(drop=["dog"])')
        if isinstance(drop, (str, os.PathLike)) and str(drop).endswith(".json"):
            raise DataError(
                f"{os.fspath(drop)} says which groups stay", "Dataset.keep", "give it as groups, not as drop"
            )
        codes, names = self.units(by)
        named = set(chosen_groups(groups if drop is None else drop, names, by, "Dataset.keep"))
        stays = np.array([(name in named) == (drop is None) for name in names] + [True])  # the last: -1, in no group
        if not stays[codes].any():
            raise DataError(f"all {len(names):,} groups are left out", "Dataset.keep", "leave one in")
        return self.take(np.flatnonzero(stays[codes]))

    # ---- in Python and notebooks -----------------------------------------------------------------------------------

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each example, by its key: "class", "caption" if there are some, and
        the group in each column (None: in no group).

        Raises:
            ConfigError: pandas is not installed.
        """
        columns: dict[str, Any] = {"class": [self.classes[label] for label in self.labels]}
        if self.captions is not None:
            columns["caption"] = list(self.captions)
        for name, (codes, names) in self.columns.items():
            columns[name] = [names[code] if code >= 0 else None for code in codes]
        return to_frame(columns, "Dataset", index=("example", list(self.all_keys())))

    def _repr_html_(self) -> str:
        """What its examples can be grouped by: sizes and the first names."""

        def line(by: str) -> tuple[str, ...]:
            codes, names = self.units(by)
            first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            return by, f"{len(names):,}", f"{int((codes >= 0).sum()):,}", first

        by = ["class", *self.columns]
        return html_table(repr(self), ("by", "groups", "examples", "names"), map(line, by), len(by), "columns")

    # ---- saving and opening ----------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Dataset:
        """Write the index, and raw images that are only in memory, into a folder, for `Dataset.open(folder)`.

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

        Every byte of the index is under a checksum. Images that pydt wrote itself, up to 1 GiB, are compared with their
        checksums once per process; larger ones, `.npy` files of the user's and image files only when their size or time
        has changed since the index was written.

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
        """Compare n images drawn at random (all by default) with the CRC32C of each in the index, if there is one.

        Raises:
            DataError: some differ, are gone or cut off: the first five are named; or n is not within 1..len(self).
        """
        check_bytes(self, n, seed)

    def thumbnails(self, by: str = "class", each: int = 6) -> dict[str, np.ndarray]:
        """The first images of each group as pictures of at most 64 pixels: name -> uint8 (n, height, width, channels).
        Files are decoded as networks see them and cut to a square; one that cannot be decoded is passed over.
        """
        return self.pictured(by, each)[0]

    def pictured(self, by: str, each: int) -> tuple[dict[str, np.ndarray], Mapping[str, tuple[str, ...]]]:
        """`thumbnails`, and by group where each of them lies: the path below the folder, or the key."""
        return pictured(self, by, each)


def spool(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """The same data set backed by files: itself if it is, else saved (once) as `folder`/<full_digest>."""
    if dataset.saved is not None:
        return dataset
    place = as_path(folder, "spool", DataError, made=True) / dataset.full_digest
    if not has_index(place):
        return dataset.save(place)
    try:
        return Dataset.open(place)
    except DataError:
        if not dataset.encoded:
            raise
        return dataset.save(place)  # the same files were moved, for one with the folder of the whole project


def read_container(kind: str, place: Any, **options: Any) -> Dataset:
    """The data set at a place, by its reader in `READERS` and the reader's options."""
    return Dataset.of(READERS[kind].read(place, **options))


def open_folder(folder: str, seen: tuple[int, int] | None, expected: str | None = None) -> Dataset:
    """`Dataset.open`; `seen` is the stamp of images that another process has compared already, `expected` the
    `full_digest` that it saw.
    """
    found = Dataset.of(opened(folder, seen))
    if expected is not None and found.full_digest != expected:
        raise DataError("holds another data set than a moment ago", folder, "write each data set to its own folder")
    return found
