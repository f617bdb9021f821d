"""Where data sets come from: folders of image files.

A folder is listed, every file is read once, and what was read stays known (size, time of change, CRC32C, SHA-256), so
that the next listing reads only what has changed. Nothing is decoded here; a file is bad if it is empty, cannot be
read, does not start as an image or lacks its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pydt import _core
from pydt.base import DataError, DataWarning, available, open_regular, progress
from pydt.data.index_file import FILE, Records, Texts
from pydt.data.pixels import traits_of

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".png", ".apng", ".gif", ".webp", ".tif", ".tiff"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c", ".avif"),
)
# Pictures that are not read: worth a word of their own among what is left out.
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
_LARGEST = 2 << 30
_SKIP = (
    'delete them, or leave them out: bad="skip" (in a plan file bad = "skip" beside folder or tar, with `pydt pack` '
    "--bad skip); `pydt inspect` lists all"
)
# What the core says of a file that it could open.
FAULTS = {
    -1: "is no regular file",
    -2: "changed while it was read",
    -3: "empty image file",
    -4: "is no JPEG, PNG, GIF, WebP, TIFF, BMP, PNM, JPEG 2000 or AVIF file",
    -5: "truncated: the image has no end",
}

Bad = dict[str, str]
Noted = dict[str, tuple[int, str]]
"""What was left out or changed, in words -> how many, and the first of them."""


@dataclass(frozen=True)
class Listing:
    """The image files below a folder: class names; keys (paths from the folder on) in the order of the classes and
    then by name; the class, size and time of change (ns) of each; what is no readable file: key -> reason; and what
    else was left out.
    """

    classes: tuple[str, ...]
    keys: list[str]
    labels: list[int]
    lengths: list[int]
    times: list[int]
    bad: Bad
    noted: Noted


def note(noted: Noted, reason: str, place: str, count: int = 1) -> None:
    """Count what was left out; the first place by name is kept."""
    before, first = noted.get(reason, (0, place))
    noted[reason] = before + count, min(first, place)


def packed_notes(noted: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """As sections of an index: nothing where there is nothing."""
    if not noted:
        return {}
    texts = [text for reason, (_, first) in noted.items() for text in (reason, first)]
    return {"noted": texts, "noted counts": np.array([count for count, _ in noted.values()], np.int64)}


def unpacked_notes(sections: Mapping[str, Any]) -> Noted:
    """What `packed_notes` made sections of."""
    texts, counts = list(sections.get("noted", ())), sections.get("noted counts", np.zeros(0, np.int64)).tolist()
    return {reason: (n, first) for reason, first, n in zip(texts[::2], texts[1::2], counts, strict=True)}


def system(name: str) -> bool:
    """Whether a file or folder is hidden, or one that an operating system or a tool leaves behind."""
    return name.startswith(".") or name.lower() in _SYSTEM


def not_read(name: str) -> str:
    """In which words a file that is taken for no image is left out, by its name."""
    suffix = os.path.splitext(name)[1].lower()
    return f"{suffix} files, which are not read, left out" if suffix in _OTHER_SUFFIXES else OTHER


def list_folder(root: Path) -> Listing:
    """Every image file below the sub-folders of `root`: those whose suffix is one of images, in any case, and those of
    another name that start as JPEG, PNG, GIF or WebP. Hidden and system names, and backups, are left out. Links are
    followed, but not in circles.

    Raises:
        DataError: no such folder, or no sub-folder.

    Warns of images that lie beside the sub-folders: they are in no class.
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
        warnings.warn(text + (", ..." if count > 1 else ""), DataWarning, stacklevel=3)
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
    """A name that can be written down: as it is if it is UTF-8, else its `repr`."""
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
    """Collect (key, size, time) of the image files below a folder; `above`: the folders that lead here. Without
    `found`, all files are only counted, as what lies in a hidden folder.
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


def read_records(
    root: str,
    keys: Sequence[str],
    lengths: Sequence[int],
    times: Sequence[int],
    known: tuple[Sequence[str], Records] | None,
    bad: Bad,
) -> Records:
    """Size, time, CRC32C, SHA-256 and traits of every file, read once, in parallel.

    Args:
        root, keys: the files, as paths from the folder on.
        lengths, times: size and time of change of each, as listed.
        known: keys and records of an earlier index: a file whose size and time it knows is not read again.
        bad: gets the reason of every file that cannot be used; its record is zero.
    """
    length, time = np.asarray(lengths, np.int64), np.asarray(times, np.int64)
    sums, traits = np.zeros((len(keys), 16), np.uint8), np.zeros(len(keys), np.uint8)
    records = Records(length, time, np.zeros(len(keys), np.uint32), sums, None, traits)
    todo = _unknown(keys, records, known)
    for i in [i for i in todo if length[i] > _LARGEST]:
        bad[keys[i]] = f"of {length[i]} bytes is too large for an image"
    runs = batches([i for i in todo if length[i] <= _LARGEST], lengths)

    def read(batch: list[int]) -> int:
        paths = Texts.of([os.path.join(root, keys[i]) for i in batch])
        buffer = np.empty(int(length[batch].sum()), np.uint8)
        status, crc = _core.read_files(paths.ends, paths.data, length[batch], buffer)
        end = 0
        good, files = [], []
        for i, fault in zip(batch, status.tolist(), strict=True):
            start, end = end, end + lengths[i]
            if fault == 0:
                good.append(i)
                files.append(buffer[start:end])
                sums[i] = np.frombuffer(hashlib.sha256(files[-1].data).digest()[:16], np.uint8)
            else:
                bad[keys[i]] = f"cannot be read ({os.strerror(fault)})" if fault > 0 else FAULTS[fault]
        records.crc[batch] = crc
        traits[good], refused = traits_of(files)
        bad.update({keys[good[at]]: why for at, why in refused.items()})
        return len(batch)

    with warnings.catch_warnings(), progress(len(todo), "reading files", "files") as advance:
        warnings.simplefilter("ignore")  # Pillow's remarks on single files
        threads = min(len(runs), 8, available())
        if threads < 2:
            for batch in runs:
                advance(read(batch))
        else:
            with ThreadPoolExecutor(threads) as pool:
                for done in pool.map(read, runs):
                    advance(done)
    return records


def batches(todo: list[int], lengths: Sequence[int]) -> list[list[int]]:
    """Runs of files that are read by one call: at most 512, and 16 MB unless a single file is larger."""
    runs: list[list[int]] = []
    room = 0
    for i in todo:
        if not runs or len(runs[-1]) == 512 or lengths[i] > room:
            runs.append([])
            room = 16 << 20
        runs[-1].append(i)
        room -= lengths[i]
    return runs


def undecodable(error: Exception) -> str:
    """Why a decoder refused an image: as it says, but for the object that Pillow names in place of a file."""
    unknown = str(error).startswith("cannot identify image file")
    return f"cannot be decoded ({'no image format that is known' if unknown else error})"


def _unknown(keys: Sequence[str], records: Records, known: tuple[Sequence[str], Records] | None) -> list[int]:
    """Fill in what an earlier index knows; the numbers of the files that it does not."""
    if known is None:
        return list(range(len(keys)))
    before, now, then = known[1], Texts.of(keys), Texts.of(known[0])
    if np.array_equal(now.ends, then.ends) and np.array_equal(now.data, then.data):
        old = np.arange(len(keys))
    else:
        place = {key: i for i, key in enumerate(then)}
        old = np.array([place.get(key, -1) for key in keys], np.int64)
    same = old >= 0
    same[same] &= (before.length[old[same]] == records.length[same]) & (before.time[old[same]] == records.time[same])
    records.crc[same] = before.crc[old[same]]
    records.sha[same] = before.sha[old[same]]
    records.traits[same] = before.traits[old[same]]
    return np.flatnonzero(~same).tolist()


def stamps(root: str, keys: Sequence[str]) -> tuple[list[int], list[int]]:
    """Size and time of change (ns) of each file; 0 where it is missing, which reading it will tell."""
    found = []
    for key in keys:
        try:
            state = os.stat(os.path.join(root, key))
            found.append((state.st_size, state.st_mtime_ns))
        except (OSError, ValueError):
            found.append((0, 0))
    return [size for size, _ in found], [time for _, time in found]


def refuse(bad: Bad, root: str, choice: str, mend: str = _SKIP) -> None:
    """Raise for bad files if that is the choice; the first ten are named.

    Raises:
        DataError: `choice` is unknown, or there are bad files and it is "raise".
    """
    if choice not in ("raise", "skip"):
        raise DataError(f"bad={choice!r}", "from_folder", 'choose "raise" or "skip"')
    if bad and choice == "raise":
        named = "; ".join(f"{os.path.join(root, key)}: {reason}" for key, reason in sorted(bad.items())[:10])
        more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(f"{named}{more}", f"{len(bad)} bad file{'s' if len(bad) > 1 else ''}", mend)
