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
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pydt import _core
from pydt.cores import available
from pydt.errors import DataError
from pydt.index import Records, Texts

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_LARGEST = 2 << 30
# Fewer files than this are read before a progress bar could be looked at.
_BAR_FROM = 5_000
# What the core says of a file that it could open.
FAULTS = {
    -1: "is no regular file",
    -2: "changed while it was read",
    -3: "empty image file",
    -4: "is no JPEG, PNG, BMP, WebP, TIFF or PNM file",
    -5: "truncated: the image has no end",
}

Bad = dict[str, str]


@dataclass(frozen=True)
class Listing:
    """The image files below a folder: class names; keys (paths from the folder on) in the order of the classes and
    then by name; the class, size and time of change (ns) of each; and what is no readable file: key -> reason.
    """

    classes: tuple[str, ...]
    keys: list[str]
    labels: list[int]
    lengths: list[int]
    times: list[int]
    bad: Bad


def list_folder(root: Path) -> Listing:
    """Every image file below the sub-folders of `root`. Links are followed, but not in circles.

    Raises:
        DataError: no such folder, or no sub-folder.

    Warns of images that lie beside the sub-folders: they are in no class.
    """
    if not root.is_dir():
        raise DataError("no such folder", str(root), "give a folder with one sub-folder of images per class")
    try:
        entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror})", str(root), "give a folder you may read") from error
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        raise DataError("has no sub-folders", str(root), "put the images of each class into a sub-folder of its own")
    beside = sorted(e.name for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES) and not e.is_dir())
    if beside:
        images = f"{len(beside):,} images lie" if len(beside) > 1 else "an image lies"
        text = f"{root}: {images} beside the folders of the classes and in no class, and left out: {beside[0]}"
        warnings.warn(text + (", ..." if len(beside) > 1 else ""), UserWarning, stacklevel=3)
    kept: list[str] = []
    listing = Listing((), [], [], [], [], {})
    state = os.stat(root)
    for name in classes:
        _check_text(name, str(root))
        before = len(listing.keys) + len(listing.bad)
        found: list[tuple[str, int, int]] = []
        _walk(os.path.join(root, name), name, ((state.st_dev, state.st_ino),), found, listing.bad)
        for key, length, time in sorted(found):
            listing.keys.append(key)
            listing.labels.append(len(kept))
            listing.lengths.append(length)
            listing.times.append(time)
        if len(listing.keys) + len(listing.bad) > before:
            kept.append(name)
        else:
            listing.bad[name] = f"class without images ({', '.join(IMAGE_SUFFIXES)})"
    return replace(listing, classes=tuple(kept))


def _check_text(name: str, where: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"name {name!r} is not UTF-8", where, "rename it") from error


def _walk(
    folder: str, key: str, above: tuple[tuple[int, int], ...], found: list[tuple[str, int, int]], bad: Bad
) -> None:
    """Collect (key, size, time) of the image files below a folder; `above`: the folders that lead here."""
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
                        _walk(entry.path, name, (*above, here), found, bad)
                    elif entry.name.lower().endswith(IMAGE_SUFFIXES):
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
    """Size, time, CRC32C and SHA-256 of every file, read once, in parallel.

    Args:
        root, keys: the files, as paths from the folder on.
        lengths, times: size and time of change of each, as listed.
        known: keys and records of an earlier index: a file whose size and time it knows is not read again.
        bad: gets the reason of every file that cannot be used; its record is zero.
    """
    length, time = np.asarray(lengths, np.int64), np.asarray(times, np.int64)
    records = Records(length, time, np.zeros(len(keys), np.uint32), np.zeros((len(keys), 16), np.uint8))
    todo = _unknown(keys, records, known)
    for i in [i for i in todo if length[i] > _LARGEST]:
        bad[keys[i]] = f"of {length[i]} bytes is too large for an image"
    runs = batches([i for i in todo if length[i] <= _LARGEST], lengths)

    def read(batch: list[int]) -> int:
        paths = Texts.of([os.path.join(root, keys[i]) for i in batch])
        buffer = np.empty(int(length[batch].sum()), np.uint8)
        status, crc = _core.read_files(paths.ends, paths.data, length[batch], buffer)
        end, view = 0, buffer.data
        sums = []
        for i, fault in zip(batch, status.tolist(), strict=True):
            start, end = end, end + lengths[i]
            sums.append(hashlib.sha256(view[start:end]).digest()[:16] if fault == 0 else bytes(16))
            if fault != 0:
                bad[keys[i]] = f"cannot be read ({os.strerror(fault)})" if fault > 0 else FAULTS[fault]
        records.crc[batch] = crc
        records.sha[batch] = np.frombuffer(b"".join(sums), np.uint8).reshape(-1, 16)
        return len(batch)

    with progress(len(todo), "reading files", "files") as advance:
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


def refuse(bad: Bad, root: str, choice: str) -> None:
    """Raise for bad files if that is the choice; the first ten are named.

    Raises:
        DataError: `choice` is unknown, or there are bad files and it is "raise".
    """
    if choice not in ("raise", "skip"):
        raise DataError(f"bad={choice!r}", "from_folder", 'choose "raise" or "skip"')
    if bad and choice == "raise":
        named = "; ".join(f"{os.path.join(root, key)}: {reason}" for key, reason in sorted(bad.items())[:10])
        more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(
            f"{named}{more}",
            f"{len(bad)} bad file{'s' if len(bad) > 1 else ''}",
            'delete them, or leave them out: bad="skip" (on the command line --bad skip); `pydt inspect` lists all',
        )


@contextlib.contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, if there is one and enough to do; call what it gives with the number done since."""
    if total < _BAR_FROM or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
