"""One tar shard: which members are images, and what belongs to each of them.

What stands before the first dot of a base name is the key of the example, what stands behind is the field. Fields that
are not read, hidden and system names, and names that begin with `__NAME__` (WebDataset's remarks) are passed over and
counted.

Each shard is read once, and what was read stays beside it as `SHARD.pydt`, in the format of index.pydt. The core parses
the archive and refuses what is damaged or cut off (csrc/tar.cpp says why Python's tarfile does not serve).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pydt import _core
from pydt.base import DataError, StoreError, write_atomic
from pydt.data.formats.folder import HIDDEN, INSIDE, not_read, system
from pydt.data.image_bytes import Shard, map_shard
from pydt.data.image_files import FAULTS, IMAGE_SUFFIXES, Bad, read_parts
from pydt.data.index_file import (
    Noted,
    Records,
    Texts,
    integers_in,
    note,
    pack_index,
    packed_notes,
    read_index,
    records_of,
    texts_in,
    unpacked_notes,
)

SUFFIX = ".pydt"
# Class names in the order of their numbers, one a line, as `pydt pack --tar` writes them.
CLASSES = "__pydt__/classes.txt"
_VERSION = 2
_IMAGES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_BESIDE = ("cls", "txt", "json")
REMARK = re.compile(r"__[^/]*__($|/)")
# Limits of bytes.
LARGEST = {"image": 2 << 30, "cls": 1 << 10, "txt": 1 << 20, "json": 16 << 20}
_MEND = "write the shard again, or leave it out"


@dataclass(frozen=True, eq=False)
class Listing:
    """What a shard holds, in the order of its images.

    Attributes:
        keys, records: names of the images, and what is known of their bytes.
        labels, captions: contents of `.cls` (without the line's end) and `.txt`, "" where there is none.
        captioned: bool (n,), where there is a `.txt`.
        json: int64 (n, 2), place and length of the `.json`; -1 where there is none.
        classes: names of the classes, if the shard gives them.
        bad: images that cannot be used: name -> reason.
        noted: what else was left out.
    """

    path: str
    keys: Sequence[str]
    records: Records
    labels: Sequence[str]
    captions: Sequence[str]
    captioned: np.ndarray
    json: np.ndarray
    classes: tuple[str, ...]
    bad: Bad
    noted: Noted


def listing(path: str) -> Listing:
    """What a shard holds: by the index beside it, if that is of just this shard, else read and indexed."""
    return _known(path) or _index(path)


def _known(path: str) -> Listing | None:
    """The listing in the index beside a shard; None where there is none of just this shard."""
    try:
        state = os.stat(path)
        sections = read_index(path + SUFFIX)
        if integers_in(sections, "shard").tolist() != [_VERSION, state.st_size, state.st_mtime_ns]:
            return None
        records = records_of(sections)
        names = ("keys", "labels", "captions", "classes", "left out", "reasons")
        keys, labels, captions, classes, bad, reasons = (texts_in(sections, name) for name in names)
        captioned, places = sections["captioned"], integers_in(sections, "json")
        if records is None or records.offset is None:
            return None
        n = len(records.length)
        if n and min(records.offset.min(), records.length.min()) < 0:
            return None
        if n and (records.offset > state.st_size - records.length).any():
            return None
        sizes = {len(keys), len(labels), len(captions), len(captioned), len(places) / 2}
        if sizes != {n} or not isinstance(captioned, np.ndarray):
            return None
        return Listing(
            path,
            keys,
            records,
            labels,
            captions,
            captioned != 0,
            places.reshape(n, 2),
            tuple(classes),
            dict(zip(bad, reasons, strict=True)),
            unpacked_notes(sections),
        )
    except (DataError, OSError, KeyError, ValueError, AttributeError):
        return None


def _index(path: str) -> Listing:
    """Read a shard, and write its index beside it, if its folder may be written."""
    shard = map_shard(path)
    made = _made(shard, _members(shard))
    shard.unchanged()
    sections: dict[str, Any] = {
        "shard": np.array([_VERSION, shard.size, shard.time], np.int64),
        "keys": made.keys,
        "labels": made.labels,
        "captions": made.captions,
        "captioned": made.captioned.astype(np.uint8),
        "json": made.json,
        "classes": made.classes,
        "left out": list(made.bad),
        "reasons": list(made.bad.values()),
        **packed_notes(made.noted),
        **made.records.parts(),
    }
    with contextlib.suppress(StoreError):  # the next time, the shard is read again
        write_atomic(Path(path + SUFFIX), pack_index(sections))
    return made


@lru_cache(1 << 10)
def _inside(folder: str) -> bool:
    """Whether a path leads through a hidden or system folder."""
    return any(map(system, folder.removesuffix("/").split("/")))


class _Members:
    """The members of a shard: names, places of headers and bytes, sizes; and for each field ("image" stands for all
    suffixes of images), key of the example -> number of the member.
    """

    def __init__(self, names: list[str], headers: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        self.names, self.headers, self.offsets, self.sizes = names, headers, offsets, sizes
        self.fields: dict[str, dict[str, int]] = {field: {} for field in LARGEST}
        self.classes: int | None = None
        self.bad: Bad = {}
        self.noted: Noted = {}

    def text(self, data: np.ndarray, field: str, key: str) -> str | None:
        """The text of a field of an example; None where there is none, or where it is bad, which is then noted."""
        i = self.fields[field].get(key)
        if i is None:
            return None
        start, size = self.offsets[i], self.sizes[i]
        try:
            if size > LARGEST[field]:
                raise ValueError(f"{size} bytes")
            return str(data[start : start + size].data, "utf-8")
        except ValueError as error:
            image = self.names[self.fields["image"][key]]
            self.bad[image] = f"its .{field} cannot be used ({error}); at byte {self.headers[i]}"
            return None


def _members(shard: Shard) -> _Members:
    try:
        ends, data, headers, offsets, sizes = _core.read_tar(shard.data)
    except ValueError as error:
        what = str(error).removeprefix("tar: ")
        mend = "unpack it: images are read where they lie" if "compressed" in what else _MEND
        raise DataError(f"refused: {what}", shard.path, mend) from error
    found = _Members(list(Texts(ends, data)), headers, offsets, sizes)
    places = {**{field: found.fields[field] for field in _BESIDE}, **dict.fromkeys(_IMAGES, found.fields["image"])}
    odd = []
    for i, name in enumerate(found.names):
        base = name.rfind("/") + 1
        dot = name.find(".", base)
        if name == CLASSES:
            found.classes = i
            continue
        if system(name[base:]) or (name.startswith("__") and REMARK.match(name)):
            note(found.noted, HIDDEN, name)
            continue
        if base and _inside(name[:base]):
            note(found.noted, INSIDE, name)
            continue
        if dot <= base:
            note(found.noted, not_read(name), name)
            continue
        field = name[dot + 1 :].lower()
        place = places.get(field)
        if place is None:
            if field.rpartition(".")[2] in _IMAGES:
                odd.append((i, name[:dot]))
            else:
                note(found.noted, not_read(name), name)
        elif (first := place.setdefault(name[:dot], i)) != i:
            twins = f"{found.names[first]!r} (byte {headers[first]}) and {name!r} (byte {headers[i]})"
            raise DataError(f"refused: {twins} are of one example", shard.path, "name every example differently")
    for i, key in odd:
        if key not in found.fields["image"]:
            name = found.names[i]
            what = f"its name has several dots, so it is a further field of {key!r}"
            found.bad[name] = f"{what}; at byte {headers[i]}"
        else:
            note(found.noted, "further images of an example (KEY.FIELD.png), left out", found.names[i])
    for field in ("cls", "txt"):
        for key in found.fields[field].keys() - found.fields["image"].keys():
            i = found.fields[field][key]
            found.bad[found.names[i]] = f"its example has no image; at byte {headers[i]}"
    return found


def _made(shard: Shard, members: _Members) -> Listing:
    data = shard.data
    keys = list(members.fields["image"])
    numbers = np.fromiter(members.fields["image"].values(), np.int64, len(keys))
    records = _records(shard, members, numbers)
    labels = [(members.text(data, "cls", key) or "").rstrip("\r\n") for key in keys]
    captions = [members.text(data, "txt", key) for key in keys]
    places = np.full((len(keys), 2), -1, np.int64)
    for i, key in enumerate(keys):
        if (at := members.fields["json"].get(key)) is not None:
            places[i] = members.offsets[at], members.sizes[at]
    classes: tuple[str, ...] = ()
    if members.classes is not None:
        start, size = members.offsets[members.classes], members.sizes[members.classes]
        try:
            lines = str(data[start : start + min(size, 16 << 20)].data, "utf-8")
            classes = tuple(lines.removesuffix("\n").split("\n")) if lines else ()
        except ValueError as error:
            raise DataError(f"refused: {CLASSES} is not UTF-8, at byte {start}", shard.path, _MEND) from error
    good = [i for i, number in enumerate(numbers.tolist()) if members.names[number] not in members.bad]
    return Listing(
        shard.path,
        [members.names[i] for i in numbers[good].tolist()],
        records.take(np.array(good, np.int64)),
        [labels[i] for i in good],
        [captions[i] or "" for i in good],
        np.array([captions[i] is not None for i in good], bool),
        places[good],
        classes,
        dict(sorted(members.bad.items())),
        dict(sorted(members.noted.items())),
    )


def _records(shard: Shard, members: _Members, numbers: np.ndarray) -> Records:
    """The records of some members; those that are no images get their reason."""
    offsets, sizes = members.offsets[numbers], members.sizes[numbers]
    large = sizes > LARGEST["image"]  # a sparse file may claim terabytes of zeros, which are not to be read
    status, crc, sha, traits, refused = read_parts(shard.data, offsets, np.where(large, 0, sizes))
    for i in np.flatnonzero(status).tolist():
        number = numbers[i]
        why = f"of {sizes[i]} bytes is too large for an image" if large[i] else FAULTS[int(status[i])]
        members.bad[members.names[number]] = f"{why}; at byte {members.headers[number]}"
    for i, why in refused.items():
        number = numbers[i]
        members.bad[members.names[number]] = f"{why}; at byte {members.headers[number]}"
    return Records(sizes, np.full(len(numbers), shard.time, np.int64), crc, sha, offsets, traits)
