"""Files of encoded images, one by one or in shards: which bytes they are, and which are bad.

Every file is read once: CRC32C, half of its SHA-256, traits. Nothing is decoded but what may be transparent or has more
than 8 bits. A file is bad if it is empty, cannot be read, does not start as an image or lacks its end.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pydt import _core
from pydt.base import DataError, available, one_of, progress
from pydt.data.index_file import Records, Texts
from pydt.data.pixels import traits_of

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".png", ".apng", ".gif", ".webp", ".tif", ".tiff"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c", ".avif"),
)
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


def read_records(
    root: str,
    keys: Sequence[str],
    lengths: Sequence[int],
    times: Sequence[int],
    known: tuple[Sequence[str], Records] | None,
    bad: Bad,
) -> Records:
    """What an index says of every file. Keys are paths below `root`; a file whose size and time `known` (the keys and
    records of an earlier index) has is not read; `bad` gets the reason of every file that cannot be used.
    """
    length, time = np.asarray(lengths, np.int64), np.asarray(times, np.int64)
    sums, traits = np.zeros((len(keys), 16), np.uint8), np.zeros(len(keys), np.uint8)
    records = Records(length, time, np.zeros(len(keys), np.uint32), sums, None, traits)
    todo = _unknown(keys, records, known)
    for i in [i for i in todo if length[i] > _LARGEST]:
        bad[keys[i]] = f"of {length[i]} bytes is too large for an image"

    def read(run: list[int]) -> int:
        paths = Texts.of([os.path.join(root, keys[i]) for i in run])
        buffer = np.empty(int(length[run].sum()), np.uint8)
        status, records.crc[run] = _core.read_files(paths.ends, paths.data, length[run], buffer)
        end = 0
        good, files = [], []
        for i, fault in zip(run, status.tolist(), strict=True):
            start, end = end, end + lengths[i]
            if fault == 0:
                good.append(i)
                files.append(buffer[start:end])
                sums[i] = _half_sha(files[-1])
            else:
                bad[keys[i]] = f"cannot be read ({os.strerror(fault)})" if fault > 0 else FAULTS[fault]
        traits[good], refused = traits_of(files)
        bad.update({keys[good[at]]: why for at, why in refused.items()})
        return len(run)

    with progress(len(todo), "reading files", "files") as advance:
        for done in in_parallel(read, batches([i for i in todo if length[i] <= _LARGEST], lengths)):
            advance(done)
    return records


def read_parts(
    data: np.ndarray, offsets: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[int, str]]:
    """Status (see `FAULTS`), CRC32C, half of the SHA-256 and traits of parts of a mapped shard; and why the pixels of
    some cannot be scaled to 8 bits.
    """
    status, crc = np.zeros(len(offsets), np.int32), np.zeros(len(offsets), np.uint32)
    sums, traits = np.zeros((len(offsets), 16), np.uint8), np.zeros(len(offsets), np.uint8)
    refused: dict[int, str] = {}

    def read(run: list[int]) -> None:
        status[run], crc[run] = _core.check_parts(data, offsets[run], lengths[run], 1)
        parts = [data[offsets[i] : offsets[i] + lengths[i]] for i in run]
        for i, part in zip(run, parts, strict=True):
            sums[i] = _half_sha(part)
        good = np.flatnonzero(status[run] == 0)
        traits[np.array(run)[good]], wrong = traits_of([parts[at] for at in good])
        refused.update({run[good[at]]: why for at, why in wrong.items()})

    for _ in in_parallel(read, batches(list(range(len(offsets))), lengths.tolist())):
        pass
    return status, crc, sums, traits, refused


def reading_threads() -> int:
    """Threads for reading and checking: those this process may use, at most 8."""
    return min(8, available())


def in_parallel(work: Callable[[list[int]], Any], runs: list[list[int]]) -> Iterator[Any]:
    """What `work` gives for each run, in order; Pillow's warnings about single files are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if (threads := min(len(runs), reading_threads())) < 2:
            yield from map(work, runs)
        else:
            with ThreadPoolExecutor(threads) as pool:
                yield from pool.map(work, runs)


def _half_sha(data: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(data.data).digest()[:16], np.uint8)


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


def refuse(bad: Bad, root: str, choice: str, mend: str | None = None) -> None:
    """Raise DataError where the choice is neither "raise" nor "skip", or "raise" and files are bad: ten are named."""
    one_of(choice, ("raise", "skip"), "bad", "from_folder", DataError)
    if bad and choice == "raise":
        named = "; ".join(f"{os.path.join(root, key)}: {reason}" for key, reason in sorted(bad.items())[:10])
        more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(f"{named}{more}", f"{len(bad)} bad file{'s' if len(bad) > 1 else ''}", mend or _SKIP)
