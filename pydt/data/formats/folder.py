"""Folders of image files, one sub-folder per class. Every file is read once; the index that is left in the folder
spares the next time all files that have not changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import DataError, DataWarning, StoreError, as_path, open_regular, write_atomic
from pydt.data.column_file import with_columns
from pydt.data.image_files import IMAGE_SUFFIXES, Bad, read_records, refuse, stamps
from pydt.data.index_file import FILE, Noted, Texts, note, pack_index, read_index, records_of, repeated
from pydt.data.labels import class_table
from pydt.data.persistence import sections_of
from pydt.data.pixels import BACKGROUND, colour
from pydt.data.table import ExampleTable, finished, with_images

# Pictures and archives that are not read: what is left out names their suffix.
_OTHER_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".svg", ".ico", ".psd", ".tga", ".pcx", ".eps", ".pdf", ".exr", ".hdr", ".pfm"),
    *(".dcm", ".nii", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".npy", ".npz", ".mp4", ".mov"),
    *(".avi", ".mkv", ".webm", ".zip", ".tar", ".gz", ".parquet"),
)
_UNFINISHED = ("~", ".bak", ".old", ".orig", ".tmp", ".temp", ".part", ".crdownload", ".download", ".swp")
_SYSTEM = (
    *("__macosx", "__pycache__", "@eadir", "lost+found", "$recycle.bin", "system volume information"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
)
# How files start that may have any name. (TIFF is not among them: cameras' raw files start so, too.)
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")

HIDDEN = "files with hidden or system names, left out"
INSIDE = "files in hidden or system folders, left out"
BESIDE = "images beside the folders of the classes and in no class, left out"
UNFINISHED = "backup or unfinished files, left out"
OTHER = "files that are no images, left out"


@dataclass(frozen=True)
class Listing:
    """The image files below a folder: class names; keys (relative paths), sorted by class and name; the class, size and
    time of change (ns) of each; key -> reason of bad files; what else was left out.
    """

    classes: tuple[str, ...]
    keys: list[str]
    labels: list[int]
    lengths: list[int]
    times: list[int]
    bad: Bad
    noted: Noted


def read(
    path: str | os.PathLike[str],
    *,
    columns: Any = None,
    captions: Any = None,
    bad: str = "raise",
    background: str = BACKGROUND,
) -> ExampleTable:
    """A data set over a folder of image files with one sub-folder per class, in sorted order. Nothing is decoded
    here.

    Every file is read once; what was read is kept as `index.pydt` in the folder, if it may be written, and only
    files that are new or changed are read again.

    Args:
        path: the folder; each sub-folder is a class, and its image files (at any depth) are the examples.
        columns: further group columns: a CSV file with a line for each image, whose first column has the files as
            paths below the folder ("cats/7.jpg") and whose others have names (see docs/your-data.md); or entries in the
            order of the sorted file keys.
        captions: {file: text}, by keys ("cats/7.jpg") or by file names that no two files have, one for every image;
            or a list in the order of the sorted file keys.
        bad: what to do about files that are empty, cannot be read, or are no whole image: "raise", or "skip" them
            and list them in `left_out`.
        background: what shows through transparent pixels: "white", "black", "grey" or "#rrggbb". Part of `digest`
            where an image has such pixels.

    Raises:
        DataError: no such folder, no classes, a class without images, bad files (named); captions that are a
            mapping name an unknown file or lack one; a CSV file of columns that does so, with the line.
    """
    root, ground = as_path(path, "from_folder", DataError), colour(background)
    listing = list_folder(root)
    classes = tuple(class_table(listing.classes, str(root)).values())
    table = from_files(str(root.resolve()), listing, classes, root.resolve().name, ground, bad)
    if isinstance(captions, Mapping):
        captions = _in_order(captions, table)
    if isinstance(columns, (str, os.PathLike)):
        return finished(with_columns(table, columns), None, captions)
    return finished(table, columns, captions)


def _in_order(captions: Mapping[str, Any], table: ExampleTable) -> list[Any]:
    """Captions by file, in the order of the table; those of files that were left out are passed over."""
    keys = [*table.all_keys(), *table.left_out]
    named: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        for name in {key, key.rpartition("/")[2]}:
            named.setdefault(name, []).append(i)
    found: dict[int, Any] = {}
    unknown = [name for name in captions if name not in named]
    if unknown:
        wrong = f"{len(unknown):,} of {len(captions):,} are of files that are not there: {_few(unknown)}"
        raise DataError(wrong, "captions", f"name files as {keys[0]!r}")
    for name, text in captions.items():
        at = named.get(name, [])
        if len(at) > 1:
            raise DataError(f"{name!r} is the name of {len(at)} files", "captions", f"name them as {keys[at[0]]!r}")
        if at and at[0] in found:
            raise DataError(f"{keys[at[0]]!r} has two", "captions", "give one for each file")
        found |= dict.fromkeys(at, text)
    missing = [key for i, key in enumerate(keys[: len(table)]) if i not in found]
    if missing:
        mend = 'give one for each, "" where there is none'
        raise DataError(f"{len(missing):,} of {len(table):,} images have none: {_few(missing)}", "captions", mend)
    return [found[i] for i in range(len(table))]


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")


def is_here(place: Path) -> bool:
    """Whether a path is a folder."""
    return place.is_dir()


def look(place: Path, background: str) -> ExampleTable:
    """The images of a folder, without bad ones."""
    return read(place, bad="skip", background=background)


def from_files(
    root: str,
    listing: Listing,
    classes: tuple[str, ...],
    name: str,
    background: str,
    choice: str = "raise",
    mend: str | None = None,
) -> ExampleTable:
    """A table over files below `root`, indexed there: what an earlier index knows is not read again. `choice`, `mend`:
    see `refuse`.
    """
    index, known = Path(root) / FILE, None
    with contextlib.suppress(DataError, KeyError):  # none, or damaged: everything is read
        sections = read_index(index)
        before, names = records_of(sections), sections.get("keys")
        if before is not None and isinstance(names, Texts) and len(names) == len(before.crc):
            known = names, before
    bad, keys = listing.bad, listing.keys
    records = read_records(root, keys, listing.lengths, listing.times, known, bad)
    refuse(bad, root, choice, mend)
    good = np.array([i for i, key in enumerate(keys) if key not in bad], np.int64)
    if not len(good):
        raise DataError("has no images", root, "give at least one")
    kept = tuple(keys[i] for i in good.tolist())
    if (twice := repeated(kept)) is not None:
        raise DataError(f"file {twice!r} is listed twice", root, "give every example once")
    table = ExampleTable(
        None,
        tuple(os.path.normpath(f"{root}/{key}") if ".." in key else f"{root}/{key}" for key in kept),
        np.arange(len(good)),
        np.asarray(listing.labels, np.int64)[good],
        classes,
        keys=kept,
        name=name,
        records=records.take(good),
        left_out=dict(sorted(bad.items())),
        noted=listing.noted,
        background=background,
    )
    data = pack_index(sections_of(with_images(table), Path(root)))
    with contextlib.suppress(StoreError):  # the folder may not be written: the next time, everything is read again
        if known is None or data != index.read_bytes():
            write_atomic(index, data)
    return table


def unlisted(root: str, keys: Sequence[str], labels: Sequence[int]) -> Listing:
    """Files listed by another library."""
    return Listing((), list(keys), list(labels), *stamps(root, keys), {}, {})


def system(name: str) -> bool:
    """Whether a file or folder is hidden, or left behind by an operating system or a tool."""
    return name.startswith(".") or name.lower() in _SYSTEM


def not_read(name: str) -> str:
    """The remark about a file that is taken for no image, by its name."""
    suffix = os.path.splitext(name)[1].lower()
    return f"{suffix} files, which are not read, left out" if suffix in _OTHER_SUFFIXES else OTHER


def list_folder(root: Path) -> Listing:
    """Every image file below the sub-folders of `root`: by suffix, in any case, or by the first bytes of JPEG, PNG, GIF
    or WebP. Hidden and system names and backups are left out; links are followed, but not in circles. Warns of images
    beside the sub-folders, which are in no class.
    """
    if not root.is_dir():
        raise DataError("no such folder", str(root), "give a folder with one sub-folder of images per class")
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror})", str(root), "give a folder you may read") from error
    listing = Listing((), [], [], [], [], {}, {})
    classes = []
    for entry in entries:
        if entry.is_dir() and system(entry.name):
            _walk(str(entry), entry.name, (), None, {}, listing.noted)
        elif entry.is_dir():
            classes.append(entry.name)
        elif entry.name != FILE:
            reason = _reason(str(entry), entry.name)
            note(listing.noted, BESIDE if reason is None else reason, written(entry.name))
    if not classes:
        raise DataError("has no sub-folders", str(root), "put the images of each class into a sub-folder of its own")
    if BESIDE in listing.noted:
        count, first = listing.noted[BESIDE]
        images = f"{count:,} images lie" if count > 1 else "an image lies"
        text = f"{root}: {images} beside the folders of the classes and in no class, and left out: {first}"
        warnings.warn(text + (", ..." if count > 1 else ""), DataWarning, stacklevel=4)
    kept: list[str] = []
    state = os.stat(root)
    for name in classes:
        _check_text(name, str(root))
        before = len(listing.keys) + len(listing.bad)
        found: list[tuple[str, int, int]] = []
        above = ((state.st_dev, state.st_ino),)
        _walk(os.path.join(root, name), name, above, found, listing.bad, listing.noted)
        for key, length, time in sorted(found):
            listing.keys.append(key)
            listing.labels.append(len(kept))
            listing.lengths.append(length)
            listing.times.append(time)
        if len(listing.keys) + len(listing.bad) > before:
            kept.append(name)
        else:
            listing.bad[name] = "class without images"
    return replace(listing, classes=tuple(kept), noted=dict(sorted(listing.noted.items())))


def written(name: str) -> str:
    """The name if it is UTF-8, else its `repr`."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return repr(name)
    return name


def _reason(path: str, name: str) -> str | None:
    """Why a file is left out; None if it is taken for an image."""
    if system(name):
        return HIDDEN
    lower = name.lower()
    if lower.endswith(IMAGE_SUFFIXES):
        return None
    if lower.endswith(_UNFINISHED):
        return UNFINISHED
    with contextlib.suppress(DataError, OSError), open(open_regular(path), "rb") as file:
        start = file.read(12)
        if start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP"):
            return None
    return not_read(name)


def _check_text(name: str, where: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"name {name!r} is not UTF-8", where, "rename it") from error


def _walk(
    folder: str,
    key: str,
    above: tuple[tuple[int, int], ...],
    found: list[tuple[str, int, int]] | None,
    bad: Bad,
    noted: Noted,
) -> None:
    """Collect (key, size, time) of the image files below a folder; `above`: the folders that lead here. Without `found`
    (in a hidden folder), files are only counted.
    """
    try:
        state = os.stat(folder)
        here = (state.st_dev, state.st_ino)
        if here in above:
            bad[key] = "a link back to a folder that holds it"
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{key}/{entry.name}"
                try:
                    if entry.is_dir():
                        inside = None if system(entry.name) else found
                        _walk(entry.path, name, (*above, here), inside, {} if inside is None else bad, noted)
                    elif entry.name == FILE:
                        continue
                    elif found is None:
                        note(noted, INSIDE, written(name))
                    elif (reason := _reason(entry.path, entry.name)) is not None:
                        note(noted, reason, written(name))
                    else:
                        name.encode()
                        state = entry.stat()
                        if stat.S_ISREG(state.st_mode):
                            found.append((name, state.st_size, state.st_mtime_ns))
                        else:
                            bad[name] = "is no regular file"
                except UnicodeEncodeError:
                    bad[repr(name)] = "its name is not UTF-8"
                except OSError as error:
                    bad[name] = f"cannot be read ({error.strerror})"
    except OSError as error:
        bad[key] = f"cannot be listed ({error.strerror})"
