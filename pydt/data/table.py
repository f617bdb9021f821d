"""The examples of a data set as one typed, frozen value: what every reader returns and an index file holds.

A table copies no image; it says where they lie: in a uint8 array, in memory or in a `.npy` file, in encoded files, in
tar shards. A mask is applied to this index, never to the bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from pydt.base import DataError, DataWarning, array_digest, check_length, digest
from pydt.data.image_bytes import Contents
from pydt.data.index_file import Records
from pydt.data.labels import encode_captions, encode_columns, positions, renumber
from pydt.data.pixels import BACKGROUND, CLEAR, DEEP, colour, counted


@dataclass(frozen=True)
class Saved:
    """What the index in a folder says of a table: size and time of change of mapped images, and the digests, which are
    then not computed again.
    """

    stamp: tuple[int, int]
    digest: str
    full_digest: str


@dataclass(frozen=True, eq=False)
class ExampleTable:
    """An index over labelled images.

    Attributes:
        images: uint8 (stored, height, width, channels), in memory or memory-mapped; None for encoded files.
        paths: absolute paths of encoded files, or of the shards that hold them (stored,); None for arrays.
        positions: int64 (examples,), where in `images` or `paths` each example lies (in a shard: `records.offset`).
        labels: int64 (examples,), each in 0..len(classes)-1.
        classes: one name per label.
        columns: further group columns: name -> (int64 codes (examples,), -1 meaning in no group; names of the groups).
        captions: one text per example, or None.
        keys: what identifies an example wherever it is stored; None for arrays, whose positions then do.
        name: how reports call this data set.
        folder: where it was saved or opened.
        records: what is known of the bytes of each example; None for arrays.
        left_out: bad files that were skipped when a folder was indexed: key -> reason.
        noted: what else was left out or changed when it was made: remark -> (how many, the first of them).
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
    # None unless `folder` holds just this table: dataclasses.replace keeps the folder, but not this field.
    saved: Saved | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "encoded files" if self.images is None else "x".join(map(str, self.images.shape[1:]))
        classes = f"{len(self.classes)} class{'' if len(self.classes) == 1 else 'es'}"
        examples = f"{len(self):,} example{'' if len(self) == 1 else 's'}"
        return f"{type(self).__name__}({self.name!r}, {examples} of {shape}, {classes})"

    @property
    def encoded(self) -> bool:
        """Whether the images are files that still have to be decoded."""
        return self.images is None

    # ---- digests ---------------------------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> str:
        """Digest of what a network sees: images, labels, class names and keys, in order. It names the rows of a store.
        Group columns are not part of it, so a further one retrains nothing; nor are captions.
        """
        return self._digest({}, None) if self.saved is None else self.saved.digest

    @cached_property
    def full_digest(self) -> str:
        """Digest of what `digest` covers, and of the group columns and captions."""
        if self.saved is not None:
            return self.saved.full_digest
        columns = {name: [digest(codes), list(names)] for name, (codes, names) in self.columns.items()}
        return self._digest(columns, None if self.captions is None else list(self.captions))

    def _digest(self, columns: Mapping[str, Any], captions: list[str] | None) -> str:
        keys = digest(list(self.all_keys()))
        return digest(self.content_digest, self.labels, list(self.classes), columns, captions, keys)

    @cached_property
    def content_digest(self) -> str:
        """Digest of the images alone, in order."""
        if self.images is not None:
            return array_digest(self.images, self.positions)
        assert self.records is not None
        shown = self.shown()
        return digest("files", self.records.length, self.records.sha, *([shown] if shown else []))

    def saved_in(self, folder: str, saved: Saved) -> Self:
        """The same table, known to lie in a folder."""
        made = replace(self, folder=folder)
        object.__setattr__(made, "saved", saved)
        return made

    # ---- groups ----------------------------------------------------------------------------------------------------

    def units(self, by: str = "class") -> tuple[np.ndarray, tuple[str, ...]]:
        """The partition of the examples into groups, whose influence can be asked for.

        Args:
            by: "class", "example", or the name of a column.

        Returns:
            int64 (examples,) group of each example, -1 for "in no group, always kept"; and the names of the groups.

        Raises:
            DataError: no such column.
        """
        if by == "class":
            return self.labels, self.classes
        if by == "example":
            return np.arange(len(self)), tuple(self.all_keys())
        if not isinstance(by, str) or by not in self.columns:
            known = ", ".join(["class", "example", *self.columns])
            raise DataError(f"no group column {by!r}", self.name, f"choose one of: {known}")
        return self.columns[by]

    def all_keys(self) -> Sequence[str]:
        """What identifies each example, in order."""
        return self.keys if self.keys is not None else tuple(map(str, self.positions.tolist()))

    def take(self, chosen: np.ndarray) -> Self:
        """Some examples, int64 (n,), in this order. Classes and groups that have none of them are gone, and the others
        are numbered anew.
        """
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

    # ---- remarks ---------------------------------------------------------------------------------------------------

    def traits(self) -> np.ndarray:
        """What is odd about the pixels of each example, as in `pydt.data.pixels`: uint8 (examples,)."""
        return np.zeros(len(self), np.uint8) if self.records is None else self.records.traits

    def odd(self) -> dict[str, tuple[int, str]]:
        """Images that are not shown as they are stored, and `noted`: remark -> (how many, the first of them)."""
        found = counted(self.traits(), self.background, self.all_keys())
        if self.images is not None and self.images.shape[3] in (2, 4):
            what = f"images of {self.images.shape[3]} channels, each of which networks see"
            found[f"{what} (is the last one alpha? from_arrays has background=)"] = len(self), self.all_keys()[0]
        return found | dict(self.noted)

    def notes(self) -> list[str]:
        """`odd` and `left_out` as sentences."""
        found = list(self.odd().items())
        if self.left_out:
            key, why = next(iter(self.left_out.items()))
            found.append(("bad files, left out", (len(self.left_out), f"{key}: {why}")))
        return [f"{what}: {n:,} ({first}{', ...' if n > 1 else ''})" for what, (n, first) in found]

    def shown(self) -> dict[str, str]:
        """What decides the pixels beside the bytes of the files; part of digests, and empty for most data sets."""
        traits = self.traits()
        found = {"background": self.background} if (traits & CLEAR).any() else {}
        return found | ({"depth": "scaled"} if (traits & DEEP).any() else {})

    # ---- bytes -----------------------------------------------------------------------------------------------------

    @cached_property
    def contents(self) -> Contents:
        """Where the encoded images lie."""
        if self.paths is None or self.records is None:
            raise DataError("its images are pixels, not files", self.name, "use Dataset.images, or a Loader")
        return Contents(self.paths, self.positions, self.records, self.all_keys())

    def unchanged(self) -> None:
        """Raise DataError where the file of mapped images is gone or shorter than what was mapped: reading beyond its
        end would end the process. One system call, at every batch; `bytes_of` does the same for encoded images.
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
        return self.contents.read(self.contents.chosen(ids, self.name), check)

    def place_of(self, i: int) -> str:
        """Where the encoded image of an example lies, for people: its file, and in a shard its name and first byte.

        Raises:
            DataError: as `bytes_of`.
        """
        return self.contents.place(int(self.contents.chosen([i], self.name)[0]))


def finished(table: ExampleTable, columns: Any, captions: Any) -> ExampleTable:
    """The table with what a user gives as group columns and captions. Warns, at the caller of the public constructor,
    of captions that are missing.
    """
    if columns is not None:
        table = replace(table, columns=encode_columns(columns, len(table)))
    if captions is not None:
        texts, missing = encode_captions(captions, len(table))
        table = replace(table, captions=texts)
        if missing.any():
            what = "captions are missing and are empty" if missing.sum() > 1 else "caption is missing and is empty"
            warnings.warn(f"{missing.sum():,} {what}: {positions(missing)}", DataWarning, stacklevel=4)
            first = table.all_keys()[int(missing.argmax())]
            table = replace(table, noted={**table.noted, "images without a caption": (int(missing.sum()), first)})
    return with_images(table)


def with_images(table: ExampleTable) -> ExampleTable:
    """The table, refused where a class has no images."""
    present = np.bincount(table.labels, minlength=len(table.classes))
    if (present == 0).any():
        empty = [table.classes[i] for i in np.flatnonzero(present == 0)[:5]]
        mend = "remove them from classes, or add images"
        raise DataError(f"classes without images: {', '.join(empty)}", table.name, mend)
    return table
