"""A data set over tar shards: images with labels, captions and further values, in one table.

Naming as in WebDataset: `cat/7.jpg`, `cat/7.cls`, `cat/7.txt` and `cat/7.json` are one example. Shards are read where
they lie, each once (`pydt.data.formats.tar_shard`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import DataError, as_names, once, progress
from pydt.data.formats.folder import HIDDEN, not_read, system, written
from pydt.data.formats.tar_shard import CLASSES, LARGEST, SUFFIX, Listing, listing
from pydt.data.image_bytes import map_shard
from pydt.data.image_files import IMAGE_SUFFIXES, refuse
from pydt.data.index_file import (
    Noted,
    Records,
    note,
    repeated,
)
from pydt.data.labels import (
    UNUSED,
    Classes,
    as_text,
    encode_captions,
    encode_columns,
    encode_labels,
    plain,
    renumber,
    whole_numbers,
)
from pydt.data.pixels import BACKGROUND, colour
from pydt.data.table import ExampleTable, with_images


def shard_paths(paths: Any) -> list[str]:
    """Absolute paths of the shards: of a file, a folder of `.tar` files, or a list of files."""
    given = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else paths
    if not isinstance(given, Iterable):
        raise DataError(f"{paths!r} is no path", "from_tar", "give a shard, a list of shards, or their folder")
    try:
        found = [Path(os.fsdecode(path)) for path in given]
    except TypeError as error:
        raise DataError(f"{paths!r} are no paths", "from_tar", "give shards as strings or pathlib.Path") from error
    if len(found) == 1 and os.path.isdir(found[0]):
        found = tars_in(found[0])
        if not found:
            raise DataError("has no .tar files", str(given), "give the folder of the shards, or a list of them")
    try:
        absolute = [os.path.realpath(path) for path in found]
    except ValueError as error:
        raise DataError(f"no path ({error})", "from_tar", "give shards as strings or pathlib.Path") from error
    if not absolute:
        raise DataError("no shard", "from_tar", "give at least one")
    for path in absolute:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"name {path!r} is not UTF-8", "from_tar", "rename it") from error
    if (twice := repeated(absolute)) is not None:
        raise DataError("is given twice", twice, "give every shard once")
    for path, text in zip(absolute, found, strict=True):
        if not os.path.exists(path) and re.search(r"[*?{]", str(text)):
            mend = "patterns are not expanded here: give a list, such as sorted(glob.glob(pattern))"
            raise DataError("no such file", str(text), mend)
    return absolute


def tars_in(folder: Path) -> list[Path]:
    """The `.tar` files that lie in a folder, sorted; none if it cannot be listed."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix == ".tar" and p.is_file() and p.name[0] != ".")
    except OSError:
        return []


def read(
    paths: Any,
    classes: Classes | None = None,
    *,
    columns: Iterable[str] = (),
    label: str | None = "cls",
    caption: str | None = "txt",
    bad: str = "raise",
    background: str = BACKGROUND,
    name: str | None = None,
) -> ExampleTable:
    """A data set over uncompressed tar shards, named as in WebDataset: `cat/7.jpg` (or another suffix of images) with
    `cat/7.cls`, `cat/7.txt` and `cat/7.json`. Nothing is unpacked or decoded. Examples are in the order of the shards
    and of the members, and their keys are the names of their images.

    Every shard is read once; an index is kept beside it as `SHARD.pydt`, if the folder may be written.

    Args:
        paths: a shard, a list of shards, or the folder of the shards.
        classes: names of the classes, in the order of the numbers in `.cls`, or those that `.cls` may name. By default
            those in the shards (`pydt pack --tar` writes them), else the distinct labels, sorted.
        columns: names whose values in `.json` become group columns; they must be texts, whole numbers or missing.
        label: "cls" takes labels (numbers or names) from `.cls`, another name from that name in `.json`, None puts all
            images into one class.
        caption: "txt", or None for no captions.
        bad: what to do about images that are empty, cut off or none, or lack what others have: "raise", or "skip"
            them and list them in `left_out`. Damaged archives are always refused.
        background: as in `from_folder`.
        name: how reports call this data set; by default the name of the shard or its folder.

    Raises:
        DataError: a shard is compressed, damaged or cut off, or holds a link, a device, a sparse file or a name
            that leaves its folder; two images have one name; or as in `from_folder`. Shard and byte are named.
    """
    if caption not in ("txt", None):
        raise DataError(f"caption={caption!r}", "from_tar", 'choose caption="txt" or caption=None')
    ground = colour(background)
    refuse({}, "", bad)  # refuse a misspelt choice before reading anything
    found = shard_paths(paths)
    given_one = len(found) == 1 and not (isinstance(paths, (str, bytes, os.PathLike)) and os.path.isdir(paths))
    wanted = as_names(columns, "columns")
    sizes = [os.path.getsize(path) if os.path.exists(path) else 0 for path in found]
    with progress(sum(sizes) >> 20, "reading shards", "MB") as advance:
        shards = []
        for path, size in zip(found, sizes, strict=True):
            shards.append(listing(path))
            advance(size >> 20)
    keys = [key for shard in shards for key in shard.keys]
    if (twice := repeated(keys)) is not None:
        where = [shard.path for shard in shards if twice in set(shard.keys)]
        mend = "give the shards of one collection to one from_tar, and join several by Dataset.concat"
        raise DataError(f"image {twice!r} is in both", " and ".join(where[:2]), mend)
    position = np.repeat(np.arange(len(shards)), [len(shard.keys) for shard in shards])
    records = Records.join([shard.records for shard in shards])
    asked = [*wanted] if label in (None, "cls") else [*wanted, label]
    values, faults = _values(shards, list(dict.fromkeys(asked)))
    labels: list[Any] = [text for shard in shards for text in shard.labels]
    if label != "cls":
        labels = values[label] if label is not None else []
    unlabelled = [
        i for i, value in enumerate(labels) if value is None or (isinstance(value, str) and not as_text(value))
    ]
    if labels and len(unlabelled) == len(labels) > len(faults):
        what = "no image has a .cls" if label == "cls" else f"no .json has {label!r}"
        mend = 'label="NAME" takes NAME of each .json, label=None puts all images into one class'
        raise DataError(what, _places(found), mend)
    why = "has no label" if label == "cls" else f"has no label ({label!r} of its .json is missing)"
    faults = dict.fromkeys(unlabelled, why) | faults
    captioned = np.concatenate([shard.captioned for shard in shards]) & (caption is not None)
    if captioned.any():
        faults |= dict.fromkeys(np.flatnonzero(~captioned).tolist(), "has no caption (.txt), though others have")
    titles = [os.path.basename(path) for path in found]
    titles = titles if repeated(titles) is None else found
    wrong = {f"{title}, {k}": why for title, shard in zip(titles, shards, strict=True) for k, why in shard.bad.items()}
    for i, why in faults.items():
        wrong[f"{titles[position[i]]}, {keys[i]}"] = f"{why}; at byte {_start(records, i)}"
    refuse(wrong, "", bad)
    noted: Noted = {}
    if not given_one:
        _note_beside(paths, noted)
    for title, shard in zip(titles, shards, strict=True):
        for reason, (count, first) in shard.noted.items():
            note(noted, reason, f"{title}, {first}", count)
    good = [i for i in range(len(keys)) if i not in faults]
    if not good:
        raise DataError("no images", _places(found), f"name them KEY.jpg, or another of {', '.join(IMAGE_SUFFIXES)}")
    codes, names = _labels([labels[i] for i in good] if labels else [0] * len(good), label, classes, shards)
    present = set(codes.tolist())
    for unused in [name for i, name in enumerate(names) if i not in present] if classes is None else []:
        note(noted, UNUSED, unused)
    codes, names = renumber(codes, names) if classes is None else (codes, names)
    texts = [text for shard in shards for text in shard.captions] if captioned.any() else None
    table = ExampleTable(
        None,
        tuple(found),
        position[good],
        codes,
        names,
        columns=encode_columns({column: [values[column][i] for i in good] for column in wanted}, len(good)),
        captions=None if texts is None else encode_captions([texts[i] for i in good], len(good))[0],
        keys=tuple(keys[i] for i in good),
        name=name or (Path(found[0]).stem if given_one else Path(found[0]).parent.name) or "shards",
        records=records.take(np.array(good)),
        left_out=dict(sorted(wrong.items())),
        noted=noted,
        background=ground,
    )
    return with_images(table)


def is_here(place: Path) -> bool:
    """Whether a path is a shard, by its name, or a folder of shards and of no other folder."""
    if place.suffix == ".tar" and not place.is_dir():
        return True
    return bool(tars_in(place)) and not any(entry.is_dir() for entry in place.iterdir())


def look(place: Path, background: str) -> ExampleTable:
    """The images of a shard or a folder of shards, without bad ones; all in one class where they have no labels."""
    labelled = any(label for path in shard_paths(place) for label in listing(path).labels)
    return read(place, label="cls" if labelled else None, bad="skip", background=background)


def _note_beside(paths: Any, noted: Noted) -> None:
    """Count the files of a folder of shards that are neither shards nor pydt's own, such as compressed shards."""
    if not (isinstance(paths, (str, bytes, os.PathLike)) and os.path.isdir(paths)):
        return
    for name in sorted(os.listdir(os.fsdecode(paths))):
        if system(name):
            note(noted, HIDDEN, written(name))
        elif not name.endswith((".tar", SUFFIX)) and name not in ("pack.json", "done.jsonl"):
            note(noted, not_read(name), written(name))


def _start(records: Records, i: int) -> int:
    assert records.offset is not None
    return int(records.offset[i])


def _places(found: list[str]) -> str:
    return found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"


def _labels(
    labels: list[Any], label: str | None, classes: Classes | None, shards: list[Listing]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers (int64) and names."""
    if label is None:
        return encode_labels(labels, ["all"] if classes is None else classes, len(labels))
    numbers = whole_numbers(labels, "labels") if label == "cls" else None
    if numbers is not None:
        labels = numbers
        known = {shard.classes for shard in shards}
        if classes is None and len(known) > 1:
            raise DataError(f"the shards differ in {CLASSES}", _places([s.path for s in shards]), "give classes=[...]")
        if classes is None and any(known):
            return encode_labels(labels, known.pop(), len(labels))  # a part of the shards need not have all of them
    return encode_labels(labels, classes, len(labels))


def _values(shards: list[Listing], names: list[str]) -> tuple[dict[str, list[Any]], dict[int, str]]:
    """The values of some names in the `.json` of each image, None where missing; and number of the image -> fault."""
    values: dict[str, list[Any]] = {name: [] for name in names}
    faults: dict[int, str] = {}
    for shard in shards if names else []:
        mapped = map_shard(shard.path)
        if (shard.records.time != mapped.time).any():
            raise DataError("was replaced while it was read", shard.path, "call again when it is finished")
        for start, length in shard.json.tolist():
            said: Any = {}
            i = len(values[names[0]])
            try:
                if start >= 0:
                    said = _json(mapped.data, start, length)
            except ValueError as error:
                faults[i] = f"its .json cannot be used ({error})"
            for name in names:
                value = said.get(name)
                if isinstance(value, (list, dict)):
                    faults[i] = f"{name!r} of its .json is a {type(value).__name__}, no simple value"
                try:
                    value = None if plain(value, "", i) is None else value
                except DataError:
                    faults.setdefault(
                        i, f"its .json cannot be used ({name!r} is {value!r:.80}, no text or whole number)"
                    )
                values[name].append(value)
    for name in names:
        if not any(value is not None for value in values[name]) and len(faults) < len(values[name]):
            raise DataError(f"no .json has {name!r}", _places([s.path for s in shards]), "name a key that they have")
    return values, faults


def _json(data: np.ndarray, start: int, length: int) -> dict[str, Any]:
    if length > LARGEST["json"] or start + length > len(data):
        raise ValueError(f"{length} bytes")
    try:
        said = json.loads(data[start : start + length].tobytes(), object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(said, dict):
        raise ValueError("it is no object")
    return said
